//! From flags, environment and a TOML file to the settings of each part.
//!
//! What it is: one place that composes. Why: an operator must be able to say each thing in three ways and know which one
//! wins: **flag, then environment (`TIDEMILL_…`), then file, then default**. An unknown key is an error that names file
//! and line. How it lives: `flags` is the command line, `file` the TOML file; a section of the file that has a life of
//! its own has a file of its own here. What it does not do: invent settings; each part owns its own and checks their
//! bounds.

mod credentials;
mod file;
mod flags;
mod keys;
mod limits;
mod stamp;
mod tls;

pub(crate) use credentials::read_access;
pub use flags::Flags;
pub(crate) use keys::follow_keys;
pub(crate) use stamp::{Looks, Stamp};

use crate::error::{Error, Result};
use crate::open_files;
use crate::server::{BrokerSettings, Exposure};
use file::File;
use serde::Deserialize;
use std::num::NonZeroU64;
use tidemill_engine::KeyRing;
use tidemill_storage::Durability;

const SYNC_INTERVAL_MS_DEFAULT: u64 = 100;

/// What an acknowledgement promises, as it is written in flags and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityMode {
    /// The record is on the device.
    Device,
    /// The operating system has it and is told to write every `storage.sync_interval_ms`.
    Interval,
    /// The operating system has it.
    Os,
}

/// The settings of a `serve`, composed.
#[derive(Debug)]
pub struct Config {
    /// Of the broker.
    pub broker: BrokerSettings,
    /// What to log, from the file.
    pub log: Option<String>,
}

impl Config {
    /// Composes flags (and environment, which the command line has filled in), file and defaults.
    pub fn load(flags: Flags) -> Result<Self> {
        let file = match &flags.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        compose(flags, file)
    }
}

fn compose(flags: Flags, file: File) -> Result<Config> {
    let access = credentials::compose(flags.config.as_deref(), &file);
    let mut broker = BrokerSettings { access, ..BrokerSettings::default() };
    set(&mut broker.listen, flags.listen.or(file.listen));
    set(&mut broker.data_dir, flags.data_dir.or(file.data_dir));
    set(&mut broker.account, flags.account.or(file.account));
    set(&mut broker.region, flags.region.or(file.region));
    set(&mut broker.connections_max, file.server.connections_max);
    broker.connections_max = open_files::for_connections(broker.connections_max);
    broker.limits = limits::compose(flags.limits.or(file.limits).as_deref())?;
    broker.tls = tls::compose(flags.tls, file.tls)?;
    if flags.insecure || file.insecure.unwrap_or(false) {
        broker.exposure = Exposure::Anywhere;
    }
    let engine = &mut broker.engine;
    engine.quota = broker.limits.shard.throughput;
    set(&mut engine.queue_bytes_per_shard, file.engine.queue_bytes_per_shard);
    set(&mut engine.queue_bytes_total, file.engine.queue_bytes_total);
    set(&mut engine.shards_max, file.engine.shards_max);
    engine.keys = KeyRing::new(keys::compose(&file.keys)?).map_err(|e| Error::usage(e.to_string()))?;
    if let Some(bytes) = file.storage.scrub_bytes_per_s {
        engine.scrub_bytes_per_s = NonZeroU64::new(bytes);
    }
    let storage = &mut engine.storage;
    set(&mut storage.journal_bytes_max, file.storage.journal_bytes_max);
    set(&mut storage.segment_bytes_max, file.storage.segment_bytes_max);
    storage.open_segments_max =
        file.storage.open_segments_max.unwrap_or_else(|| open_files::for_segments(broker.connections_max));
    storage.durability = match flags.durability.or(file.durability).unwrap_or(DurabilityMode::Device) {
        DurabilityMode::Device => Durability::Device,
        DurabilityMode::Os => Durability::Os,
        DurabilityMode::Interval => {
            Durability::Interval { ms: file.storage.sync_interval_ms.unwrap_or(SYNC_INTERVAL_MS_DEFAULT) }
        }
    };
    broker.check()?;
    Ok(Config { broker, log: file.log })
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use super::file::parse_toml;
    use super::*;
    use std::path::Path;

    fn flags(args: &[&str]) -> Flags {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
        }
        let args = std::iter::once("tidemill").chain(args.iter().copied());
        <Line as clap::Parser>::try_parse_from(args).unwrap().flags
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let config = compose(Flags::default(), File::default()).unwrap();
        assert_eq!(config.broker.listen.to_string(), "127.0.0.1:4567");
        assert_eq!(config.broker.data_dir, Path::new("./tidemill-data"));
        assert_eq!(config.broker.account.as_str(), "000000000000");
        assert_eq!(config.broker.region.as_str(), "us-east-1");
        assert_eq!(config.broker.engine.storage.durability, Durability::Device);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let text = "listen = '127.0.0.1:9'\nregion = 'eu-west-1'\ndurability = 'interval'\n\
                    [storage]\nsync_interval_ms = 7\n[server]\nconnections_max = 3\n";
        let file = parse_toml::<File>(text).unwrap();
        let config = compose(flags(&["--listen", "127.0.0.1:8"]), file).unwrap();
        assert_eq!(config.broker.listen.port(), 8);
        assert_eq!(config.broker.region.as_str(), "eu-west-1");
        assert_eq!(config.broker.connections_max, 3);
        assert_eq!(config.broker.engine.storage.durability, Durability::Interval { ms: 7 });
        let file = parse_toml::<File>(text).unwrap();
        let config = compose(flags(&["--durability", "os"]), file).unwrap();
        assert_eq!(config.broker.engine.storage.durability, Durability::Os);
    }

    #[test]
    fn errors_of_the_file_name_the_line() {
        for (text, line, word) in [
            ("listen = '127.0.0.1:1'\nlistne = 1\n", 2, "listne"),
            ("\n\naccount = '12'\n", 3, "12 digits"),
            ("durability = 'never'\n", 1, "never"),
            ("[storage]\nsync_interval_ms = -1\n", 2, "-1"),
            ("listen = 'nowhere'\n", 1, "socket address"),
            ("a = [\n", 1, ""),
        ] {
            let (found, message) = parse_toml::<File>(text).unwrap_err();
            assert_eq!(found, line, "{text:?}: {message}");
            assert!(message.contains(word), "{text:?}: {message}");
        }
    }

    #[test]
    fn settings_out_of_bounds_are_bad_usage() {
        for text in
            ["durability = 'interval'\n[storage]\nsync_interval_ms = 0\n", "[server]\nconnections_max = 0\n"]
        {
            let error = compose(Flags::default(), parse_toml::<File>(text).unwrap()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn a_public_address_needs_the_word_insecure() {
        let listen = ["--listen", "0.0.0.0:4567"];
        let error = compose(flags(&listen), File::default()).unwrap_err();
        assert!(error.to_string().contains("--insecure"), "{error}");
        let both = ["--listen", "0.0.0.0:4567", "--insecure"];
        assert!(compose(flags(&both), File::default()).is_ok());
    }
}

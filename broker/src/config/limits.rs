//! Which limits the broker keeps: `none`, `aws`, or a file of figures.

use super::file;
use crate::error::{Error, Result};
use crate::limits::{AccountLimits, CallLimits, LimitSettings, ShardLimits, StreamLimits};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::Path;
use tidemill_engine::Quota;

/// What the word means, or what the file of that name says.
pub(super) fn compose(chosen: Option<&str>) -> Result<LimitSettings> {
    match chosen {
        None | Some("none") => Ok(LimitSettings::default()),
        Some("aws") => Ok(LimitSettings::aws()),
        Some("") => Err(Error::usage("limits: expected none, aws or the path of a file")),
        Some(path) => {
            let figures: LimitsFile = file::read_toml(Path::new(path), "limits")?;
            Ok(figures.into())
        }
    }
}

/// The file as it is written. What is left out has no limit, or that of Kinesis where it begins with `like = "aws"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    like: Base,
    shard: ShardFile,
    stream: StreamFile,
    account: AccountFile,
    calls_per_s: CallsFile,
}

/// What the file changes.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Base {
    #[default]
    None,
    Aws,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShardFile {
    write_bytes_per_s: Option<Figure<u64>>,
    write_records_per_s: Option<Figure<u64>>,
    read_bytes_per_s: Option<Figure<u64>>,
    reads_per_s: Option<Figure<u64>>,
    iterators_per_s: Option<Figure<u32>>,
    subscriptions_per_s: Option<Figure<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StreamFile {
    consumers: Option<Figure<u32>>,
    scale_factor: Option<Figure<u32>>,
    shard_count_updates_per_day: Option<Figure<u32>>,
    mode_changes_per_day: Option<Figure<u32>>,
    encryption_changes_per_day: Option<Figure<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AccountFile {
    shards: Option<Figure<u32>>,
    on_demand_streams: Option<Figure<u32>>,
}

/// By the name of an operation, or `others`.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct CallsFile(BTreeMap<Counted, Figure<u32>>);

/// The name of an operation whose calls are counted, or `others`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counted(String);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        if name == "others" || LimitSettings::is_counted(&name) {
            return Ok(Self(name));
        }
        Err(D::Error::custom(format!("`{name}` is no operation that manages streams, nor `others`")))
    }
}

/// A number, at least 1, or `"none"`.
#[derive(Debug, Clone, Copy)]
struct Figure<T>(Option<T>);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Figure<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Word(String),
        }
        let bad = || D::Error::custom("expected a whole number of at least 1, or \"none\"");
        match Written::deserialize(from).map_err(|_| bad())? {
            Written::Word(word) if word == "none" => Ok(Self(None)),
            Written::Word(_) | Written::Number(..=0) => Err(bad()),
            Written::Number(number) => {
                let number = u64::try_from(number).map_err(|_| bad())?;
                T::try_from(number)
                    .map(|number| Self(Some(number)))
                    .map_err(|_| D::Error::custom("the number is too large"))
            }
        }
    }
}

fn set<T>(limit: &mut Option<T>, figure: Option<Figure<T>>) {
    if let Some(Figure(figure)) = figure {
        *limit = figure;
    }
}

impl From<LimitsFile> for LimitSettings {
    fn from(file: LimitsFile) -> Self {
        let mut settings = match file.like {
            Base::None => Self::default(),
            Base::Aws => Self::aws(),
        };
        let ShardLimits { throughput, iterators_per_s, subscriptions_per_s } = &mut settings.shard;
        let Quota { write_bytes_per_s, write_records_per_s, read_bytes_per_s, reads_per_s } = throughput;
        set(write_bytes_per_s, file.shard.write_bytes_per_s);
        set(write_records_per_s, file.shard.write_records_per_s);
        set(read_bytes_per_s, file.shard.read_bytes_per_s);
        set(reads_per_s, file.shard.reads_per_s);
        set(iterators_per_s, file.shard.iterators_per_s);
        set(subscriptions_per_s, file.shard.subscriptions_per_s);
        let StreamLimits {
            consumers,
            scale_factor,
            shard_count_updates_per_day,
            mode_changes_per_day,
            encryption_changes_per_day,
        } = &mut settings.stream;
        set(consumers, file.stream.consumers);
        set(scale_factor, file.stream.scale_factor);
        set(shard_count_updates_per_day, file.stream.shard_count_updates_per_day);
        set(mode_changes_per_day, file.stream.mode_changes_per_day);
        set(encryption_changes_per_day, file.stream.encryption_changes_per_day);
        let AccountLimits { shards, on_demand_streams } = &mut settings.account;
        set(shards, file.account.shards);
        set(on_demand_streams, file.account.on_demand_streams);
        settings.calls_per_s = calls(settings.calls_per_s, file.calls_per_s);
        settings
    }
}

fn calls(mut calls: CallLimits, file: CallsFile) -> CallLimits {
    for (Counted(name), Figure(figure)) in file.0 {
        match figure {
            _ if name == "others" => calls.others = figure,
            // more than anybody calls
            figure => drop(calls.named.insert(name, figure.unwrap_or(u32::MAX))),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<LimitSettings, (usize, String)> {
        file::parse_toml::<LimitsFile>(text).map(Into::into)
    }

    #[test]
    fn a_file_says_all_or_what_differs_from_kinesis() {
        let alone = parse("[shard]\nwrite_records_per_s = 7\n[calls_per_s]\nListShards = 9\n").unwrap();
        assert_eq!(alone.shard.throughput.write_records_per_s, Some(7));
        assert_eq!((alone.shard.throughput.write_bytes_per_s, alone.calls_per_s.others), (None, None));
        assert_eq!(alone.calls_per_s.named["ListShards"], 9);
        let text = "like = 'aws'\n[account]\nshards = 10\n[stream]\nconsumers = 'none'\n[calls_per_s]\nothers = 50\n";
        let differs = parse(text).unwrap();
        let aws = LimitSettings::aws();
        assert_eq!(differs.account.shards, Some(10));
        assert_eq!((differs.stream.consumers, differs.calls_per_s.others), (None, Some(50)));
        assert_eq!((differs.shard, differs.calls_per_s.named), (aws.shard, aws.calls_per_s.named));
        assert_eq!(parse("").unwrap(), LimitSettings::default());
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, line, word) in [
            ("[shard]\nwrite_bytes = 1\n", 2, "write_bytes"),
            ("\n[shard]\n\nreads_per_s = 0\n", 4, "at least 1"),
            ("[stream]\nconsumers = 'many'\n", 2, "none"),
            ("[account]\nshards = 5000000000\n", 2, "too large"),
            ("[calls_per_s]\nothers = 1\nPutRecord = 5\n", 3, "PutRecord"),
            ("like = 'azure'\n", 1, "azure"),
        ] {
            let (found, message) = parse(text).unwrap_err();
            assert_eq!(found, line, "{text:?}: {message}");
            assert!(message.contains(word), "{text:?}: {message}");
        }
    }

    #[test]
    fn words_and_files_are_told_apart() {
        assert_eq!(compose(None).unwrap(), LimitSettings::default());
        assert_eq!(compose(Some("aws")).unwrap(), LimitSettings::aws());
        let missing = compose(Some("/nowhere.toml")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere.toml"), "{missing}");
        assert_eq!(compose(Some("")).unwrap_err().kind(), crate::ErrorKind::Usage);
    }
}

//! The command line of `bench`: what can be measured by which protocol, with which options. What does not fit together is
//! refused here, before anything is started.

use super::super::authorities;
use super::plan::Plan;
use super::site::{Credentials, Site};
use crate::auth::Secret;
use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use clap::ValueEnum;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_types::limits::{PUT_RECORDS_ENTRIES_MAX, SHARDS_PER_STREAM_MAX};

const CONNECTIONS_MAX: i64 = 256;
const READERS_MAX: i64 = 256;
const RATE_MAX: i64 = 10_000_000;
const LINGER_MS_MAX: i64 = 1_000;
/// Records a second of `latency`, unless told.
const RATE_DEFAULT: u32 = 1_000;
/// A consumer reads so much again and again, unless told a number of records.
const FILL_BYTES: u64 = 512 << 20;
/// With a number of records to measure, no longer than this.
const RECORDS_TIME: Duration = Duration::from_secs(600);
/// What a record carries of when it was due.
pub(super) const STAMP_BYTES: u32 = 8;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Put records as fast as they are acknowledged
    Produce,
    /// Read a filled stream from its beginning, as a consumer that catches up
    Consume,
    /// Put one record at a time on each connection, the next when it is acknowledged
    Single,
    /// Put at --rate whatever is answered; latency counts from when a record was due, to its acknowledgement and to its delivery
    Latency,
    /// Push one shard to --readers readers while it is written to
    Fanout,
    /// Put records one by one, scattered over all shards
    Shards,
    /// Fill a broker in a process of its own, kill -9, start it again: the time until it is ready
    Recovery,
    /// Memory and processor time of a broker in a process of its own with idle shards and connections
    Idle,
}

/// By which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
    /// gRPC through the libraries: the producer library, workers of the consumer library
    Grpc,
    /// gRPC by hand: prepared frames into the append call, the read call without processing
    Bare,
    /// The Kinesis API in JSON, signed: PutRecords, PutRecord, GetRecords, SubscribeToShard
    Kinesis,
}

impl Target {
    fn can(self, workload: Workload) -> bool {
        match workload {
            Workload::Produce
            | Workload::Consume
            | Workload::Single
            | Workload::Latency
            | Workload::Shards
            | Workload::Fanout => true,
            Workload::Recovery => self == Self::Bare,
            Workload::Idle => self != Self::Grpc,
        }
    }
}

impl Workload {
    /// Whether it starts a broker in a process of its own, which it can kill and look at.
    pub(super) fn is_of_a_process(self) -> bool {
        matches!(self, Self::Recovery | Self::Idle)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

/// As it is written on the command line.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Measure a broker
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// What to measure [default: produce consume]
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// By which protocol; may be repeated [default: each that can]
    #[arg(long = "target", value_enum)]
    targets: Vec<Target>,
    /// What to measure [default: a broker in this process, with its data under the current directory]
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<Endpoint>,
    /// PEM file with the authorities to trust for https:// [default: those the system trusts]
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// What an acknowledgement of a broker that is started here promises [default: device]
    #[arg(long, value_enum, conflicts_with = "endpoint")]
    pub(super) durability: Option<DurabilityMode>,
    /// Bytes of a record's data
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    record_bytes: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Measure this many records instead; `consume` first puts at least so many
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: Option<u64>,
    /// Shards of the stream; `fanout` has one
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_PER_STREAM_MAX)))]
    shards: u32,
    /// Connections to the broker [default: 4 for gRPC, 8 for Kinesis]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: Option<u32>,
    /// Records a second of all connections together, for `latency` [default: 1000] and `fanout` [default: as many as are taken]
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Readers of `fanout` [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=READERS_MAX))]
    readers: Option<u32>,
    /// How long the producer library collects records, in milliseconds [default: its own; 0 for `single`]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=LINGER_MS_MAX))]
    linger_ms: Option<u32>,
    /// Records of one PutRecords, as far as 5 MB hold them; 1: PutRecord [default: 500]
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..=PUT_RECORDS_ENTRIES_MAX as i64))]
    batch_records: Option<u32>,
    /// Seconds that do not count, before those that do
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warmup_seconds: u64,
    /// Access key id to sign Kinesis requests with [default: one that only a service without credentials takes]; gRPC proves
    /// with it on loopback only, as the secret itself is sent
    #[arg(long, value_name = "ID", env = "AWS_ACCESS_KEY_ID", requires = "secret_access_key")]
    access_key_id: Option<String>,
    /// Its secret; better given in the environment, where others do not see it
    #[arg(
        long,
        value_name = "SECRET",
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        requires = "access_key_id"
    )]
    secret_access_key: Option<Secret>,
    /// Session token of temporary credentials, for the Kinesis API; better given in the environment
    #[arg(
        long,
        value_name = "TOKEN",
        env = "AWS_SESSION_TOKEN",
        hide_env_values = true,
        requires = "access_key_id"
    )]
    session_token: Option<Secret>,
    /// Region that signatures are for
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub(super) region: String,
    /// Print results as JSON and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// What to measure, in order; refused if some of it cannot be.
    pub(super) fn pairs(&self) -> Result<Vec<(Target, Workload)>> {
        let workloads = match &self.workloads[..] {
            [] => &[Workload::Produce, Workload::Consume],
            chosen => chosen,
        };
        let mut pairs = Vec::new();
        for &target in if self.targets.is_empty() { Target::value_variants() } else { &self.targets } {
            for &workload in workloads {
                if target.can(workload) {
                    pairs.push((target, workload));
                } else if !self.targets.is_empty() {
                    return Err(cannot(target, workload));
                }
            }
        }
        self.check_options(&pairs)?;
        Ok(pairs)
    }

    /// An option that changes nothing would be believed to.
    fn check_options(&self, pairs: &[(Target, Workload)]) -> Result<()> {
        let has = |workload: Workload| pairs.iter().any(|(_, chosen)| *chosen == workload);
        let by = |target: Target| pairs.iter().any(|(chosen, _)| *chosen == target);
        if let Some((_, workload)) =
            pairs.iter().find(|(_, w)| w.is_of_a_process() && self.endpoint.is_some())
        {
            return Err(Error::usage(format!(
                "{workload} kills or looks at a process of its own: leave --endpoint out"
            )));
        }
        if has(Workload::Latency) && self.record_bytes < STAMP_BYTES {
            return Err(Error::usage(format!(
                "records of latency carry when they were due: --record-bytes must be at least {STAMP_BYTES}"
            )));
        }
        let has_records = pairs.iter().any(|(_, workload)| *workload != Workload::Idle);
        let unused = [
            (self.records.is_some(), has_records, "--records", "every workload but idle"),
            (
                self.rate.is_some(),
                has(Workload::Latency) || has(Workload::Fanout),
                "--rate",
                "latency and fanout",
            ),
            (self.readers.is_some(), has(Workload::Fanout), "--readers", "fanout"),
            (self.linger_ms.is_some(), by(Target::Grpc), "--linger-ms", "--target grpc"),
            (self.batch_records.is_some(), by(Target::Kinesis), "--batch-records", "--target kinesis"),
        ];
        match unused.into_iter().find(|(given, used, ..)| *given && !used) {
            Some((.., option, of)) => {
                Err(Error::usage(format!("{option} is of {of}: name that, or leave the option out")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn plan(&self, target: Target, workload: Workload) -> Plan {
        let connections = match target {
            Target::Grpc | Target::Bare => 4,
            Target::Kinesis => 8,
        };
        let single = (workload == Workload::Single).then_some(0);
        Plan {
            workload,
            target,
            record_bytes: self.record_bytes,
            shards: if workload == Workload::Fanout { 1 } else { self.shards },
            connections: self.connections.unwrap_or(connections),
            readers: self.readers.unwrap_or(4),
            rate: self.rate.or((workload == Workload::Latency).then_some(RATE_DEFAULT)),
            linger: self.linger_ms.or(single).map(|ms| Duration::from_millis(ms.into())),
            batch_records: self.batch_records.map_or(PUT_RECORDS_ENTRIES_MAX, |records| records as usize),
            warmup: Duration::from_secs(self.warmup_seconds),
            time: if self.records.is_some() { RECORDS_TIME } else { Duration::from_secs(self.seconds) },
            records_max: self.records.unwrap_or(u64::MAX),
            fill_records: self.records.unwrap_or((FILL_BYTES / u64::from(self.record_bytes)).max(1)),
        }
    }

    /// Those that were given.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        let (id, secret) = (self.access_key_id.clone()?, self.secret_access_key.clone()?);
        Some(Credentials { id, secret, token: self.session_token.clone() })
    }

    /// Where the pairs that need no process of their own are measured.
    pub(super) async fn site(&self, pairs: &[(Target, Workload)]) -> Result<Option<Site>> {
        if pairs.iter().all(|(_, workload)| workload.is_of_a_process()) {
            return Ok(None);
        }
        match &self.endpoint {
            Some(endpoint) => {
                let endpoint = match authorities(self.ca_file.as_deref())? {
                    Some(pem) => {
                        endpoint.clone().ca_certificate(pem).map_err(|e| Error::usage(e.message()))?
                    }
                    None => endpoint.clone(),
                };
                Ok(Some(Site::elsewhere(endpoint)))
            }
            None => Site::start(self.durability.unwrap_or(DurabilityMode::Device)).await.map(Some),
        }
    }
}

fn cannot(target: Target, workload: Workload) -> Error {
    let can: Vec<String> = Target::value_variants()
        .iter()
        .filter(|target| target.can(workload))
        .map(|target| format!("--target {target}"))
        .collect();
    Error::usage(format!("{workload} is not measured by {target}; use {}", can.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn pairs(line: &str) -> Result<Vec<(Target, Workload)>> {
        Line::try_parse_from(format!("bench {line}").split_whitespace()).unwrap().args.pairs()
    }

    fn refused(line: &str) -> String {
        let error = pairs(line).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
        error.to_string()
    }

    #[test]
    fn nothing_named_is_produce_and_consume_by_each_protocol() {
        use {Target::*, Workload::*};
        let all = pairs("").unwrap();
        let by = |target| [(target, Produce), (target, Consume)];
        assert_eq!(all, [by(Grpc), by(Bare), by(Kinesis)].concat());
        assert_eq!(pairs("fanout").unwrap(), [Grpc, Bare, Kinesis].map(|target| (target, Fanout)));
        assert_eq!(pairs("recovery idle").unwrap(), [(Bare, Recovery), (Bare, Idle), (Kinesis, Idle)]);
    }

    #[test]
    fn what_a_protocol_cannot_do_is_refused_with_those_that_can() {
        let told = refused("produce idle --target grpc");
        assert!(told.contains("use --target bare or --target kinesis"), "{told}");
        assert!(refused("recovery --target kinesis").contains("--target bare"));
        assert!(refused("idle --target grpc").contains("--target bare or --target kinesis"));
        assert!(refused("idle --endpoint http://127.0.0.1:1").contains("--endpoint"));
    }

    #[test]
    fn options_that_would_change_nothing_are_refused() {
        for line in [
            "produce --rate 5",
            "latency --readers 2",
            "produce --target bare --linger-ms 1",
            "produce --target grpc --batch-records 1",
            "latency --record-bytes 7",
            "idle --records 7",
        ] {
            refused(line);
        }
        for line in
            ["latency --rate 5", "fanout --readers 2 --rate 7", "produce --linger-ms 0 --batch-records 1"]
        {
            pairs(line).unwrap();
        }
    }

    #[test]
    fn fanout_is_of_one_shard_and_single_does_not_linger() {
        let args = Line::try_parse_from(["bench", "--shards", "9"]).unwrap().args;
        assert_eq!(args.plan(Target::Bare, Workload::Fanout).shards, 1);
        assert_eq!(args.plan(Target::Bare, Workload::Shards).shards, 9);
        assert_eq!(args.plan(Target::Grpc, Workload::Single).linger, Some(Duration::ZERO));
        assert_eq!(args.plan(Target::Grpc, Workload::Produce).linger, None);
        assert_eq!(args.plan(Target::Kinesis, Workload::Latency).rate, Some(RATE_DEFAULT));
    }
}

//! The rows of the table of targets: what each needs, how it is measured, what is asked of it.

use super::check::Check;
use super::findings::Findings;
use super::limit::Limit;
use super::site::Site;
use super::{Args, device_bytes, fanout, latency, memory, producer, shards, stored, throughput};
use clap::ValueEnum;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    /// Produce with the producer library
    #[value(name = "a")]
    Produce,
    /// Consume, catching up: read calls and the consumer library
    #[value(name = "b")]
    Consume,
    /// Kinesis PutRecords, signed
    #[value(name = "c")]
    PutRecords,
    /// Kinesis PutRecord, signed
    #[value(name = "d")]
    PutRecord,
    /// Kinesis GetRecords, catching up
    #[value(name = "e")]
    GetRecords,
    /// One durable append at a time
    #[value(name = "f")]
    Single,
    /// Latency at a steady rate, from put to delivered
    #[value(name = "g")]
    Steady,
    /// 10,000 shards, active and idle
    #[value(name = "h")]
    Shards,
    /// Much stored beside little; long, so only when it is named or with --all
    #[value(name = "i")]
    Stored,
    /// The producer library alone
    #[value(name = "j")]
    Producer,
    /// Memory at full load
    #[value(name = "k")]
    Memory,
    /// Fan-out to many readers
    #[value(name = "l")]
    FanOut,
    /// An idle broker
    #[value(name = "m")]
    Idle,
    /// Bytes written for an acknowledged byte
    #[value(name = "n")]
    DeviceBytes,
}

impl Row {
    pub(super) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }
    /// All but what takes long.
    pub(super) fn usual() -> Vec<Self> {
        Self::all().into_iter().filter(|row| *row != Self::Stored).collect()
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Produce => "a",
            Self::Consume => "b",
            Self::PutRecords => "c",
            Self::PutRecord => "d",
            Self::GetRecords => "e",
            Self::Single => "f",
            Self::Steady => "g",
            Self::Shards => "h",
            Self::Stored => "i",
            Self::Producer => "j",
            Self::Memory => "k",
            Self::FanOut => "l",
            Self::Idle => "m",
            Self::DeviceBytes => "n",
        }
    }

    /// The limits that it is judged or explained by, in the same repetition.
    pub(super) fn limits(self) -> &'static [Limit] {
        match self {
            Self::Produce => &[Limit::Sink, Limit::DiskCached],
            Self::Consume => &[Limit::Source],
            Self::PutRecord => &[Limit::Hello],
            Self::Single => &[Limit::DiskSmall, Limit::TurnTcp, Limit::TurnThread],
            _ => &[],
        }
    }
    /// The row that it is judged by.
    pub(super) fn beside(self) -> Option<Self> {
        (self == Self::Steady).then_some(Self::Single)
    }

    /// What is measured in each repetition.
    pub(super) fn repeat(self, site: &Site, findings: &mut Findings) {
        match self {
            Self::Produce => throughput::produce(site, findings),
            Self::Consume => throughput::consume(site, findings),
            Self::PutRecords => throughput::put_records(site, findings),
            Self::PutRecord => throughput::put_record(site, findings),
            Self::GetRecords => throughput::get_records(site, findings),
            Self::Single => latency::single(site, findings),
            Self::Steady => latency::steady(site, findings),
            Self::Shards => shards::active(site, findings),
            Self::Producer => producer::rate(site, findings),
            Self::FanOut => fanout::measure(site, findings),
            Self::Stored | Self::Memory | Self::Idle | Self::DeviceBytes => {}
        }
    }
    /// What is measured once, behind the repetitions.
    pub(super) fn once(self, site: &Site, args: &Args, findings: &mut Findings) {
        match self {
            Self::Shards => shards::idle(site, findings),
            Self::Stored => stored::measure(site, args.rounds.repetitions, args.stored_gb, findings),
            Self::Producer => producer::allocations(findings),
            Self::Memory => memory::soak(site, args.soak_seconds, findings),
            Self::Idle => shards::idle_broker(site, findings),
            Self::DeviceBytes => device_bytes::measure(site, findings),
            _ => {}
        }
    }

    pub(super) fn checks(self, findings: &Findings) -> Vec<Check> {
        let checks = match self {
            Self::Produce => throughput::produce_checks(findings),
            Self::Consume => throughput::consume_checks(findings),
            Self::PutRecords => throughput::put_records_checks(findings),
            Self::PutRecord => throughput::put_record_checks(findings),
            Self::GetRecords => throughput::get_records_checks(findings),
            Self::Single => latency::single_checks(findings),
            Self::Steady => latency::steady_checks(findings),
            Self::Shards => shards::checks(findings),
            Self::Stored => stored::checks(findings),
            Self::Producer => producer::checks(findings),
            Self::Memory => memory::checks(findings),
            Self::FanOut => fanout::checks(findings),
            Self::Idle => shards::idle_broker_checks(findings),
            Self::DeviceBytes => device_bytes::checks(findings),
        };
        checks.into_iter().map(|check| check.of_row(self.letter())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_by_the_letter_it_is_chosen_by() {
        for row in Row::all() {
            let chosen = row.to_possible_value().unwrap();
            assert_eq!(chosen.get_name(), row.letter());
        }
    }

    #[test]
    fn nothing_measured_is_no_row_that_passes() {
        for row in Row::all() {
            for check in row.checks(&Findings::default()) {
                let verdict = check.verdict();
                assert!(matches!(verdict, super::super::check::Verdict::NotMeasured(_)), "{check:?}");
            }
        }
    }
}

//! Who is compared: a table. Of each peer its configuration is the best for it that keeps the durability said here.

use super::install::Package;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// By the peer's own protocol, as many records under way as pays
    Produce,
    /// A filled stream from its beginning, by the peer's own protocol
    Consume,
    /// `PutRecords` of 500, 8 connections, one request under way on each
    PutRecords,
    /// `PutRecord`, 32 connections, one request under way on each
    PutRecord,
    /// `GetRecords` of a filled stream from its beginning, 8 connections
    GetRecords,
}

impl Measure {
    pub(super) const ALL: [Self; 5] =
        [Self::Produce, Self::Consume, Self::PutRecords, Self::PutRecord, Self::GetRecords];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::PutRecords => "PutRecords",
            Self::PutRecord => "PutRecord",
            Self::GetRecords => "GetRecords",
        }
    }
}

/// How records are published to NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    Each,
    Batches,
}

/// How long what is acknowledged stays in memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Not at all: it is on the device.
    Always,
    /// As long as the peer holds for right.
    Later,
}

/// What is started, and what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Tidemill(Sync),
    FerrokinesisInMemory,
    FerrokinesisOnDisk,
    Kinesalite,
    KinesisLocal,
    Moto,
    Redis(Sync),
    Nats(Sync, Publish),
}

/// One of those who are compared.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// Where its program comes from; Tidemill's lies beside this one.
    pub(super) package: Option<&'static Package>,
    /// What is true of a record that was acknowledged.
    pub(super) durability: &'static str,
    pub(super) measures: &'static [Measure],
}

const KINESIS: &[Measure] = &[Measure::PutRecords, Measure::PutRecord, Measure::GetRecords];

/// The one that all are set beside.
pub(super) const SUBJECT: &str = "Tidemill device";

pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: SUBJECT,
        program: Program::Tidemill(Sync::Always),
        package: None,
        durability: "on the device",
        measures: &Measure::ALL,
    },
    Peer {
        name: "Tidemill os",
        program: Program::Tidemill(Sync::Later),
        package: None,
        durability: "with the operating system",
        measures: &[Measure::Produce, Measure::PutRecords, Measure::PutRecord],
    },
    Peer {
        name: "Redis always",
        program: Program::Redis(Sync::Always),
        package: Some(&Package::REDIS),
        durability: "on the device (appendfsync always)",
        measures: &[Measure::Produce],
    },
    Peer {
        name: "Redis everysec",
        program: Program::Redis(Sync::Later),
        package: Some(&Package::REDIS),
        durability: "with the operating system, on the device within a second (appendfsync everysec)",
        measures: &[Measure::Produce, Measure::Consume],
    },
    Peer {
        name: "NATS always",
        program: Program::Nats(Sync::Always, Publish::Each),
        package: Some(&Package::NATS),
        durability: "on the device (sync_interval always)",
        measures: &[Measure::Produce],
    },
    Peer {
        name: "NATS always, batches",
        program: Program::Nats(Sync::Always, Publish::Batches),
        package: Some(&Package::NATS),
        durability: "on the device (sync_interval always); atomic batches of 500",
        measures: &[Measure::Produce],
    },
    Peer {
        name: "NATS default",
        program: Program::Nats(Sync::Later, Publish::Each),
        package: Some(&Package::NATS),
        durability: "with the operating system, on the device within two minutes",
        measures: &[Measure::Produce, Measure::Consume],
    },
    Peer {
        name: "NATS default, batches",
        program: Program::Nats(Sync::Later, Publish::Batches),
        package: Some(&Package::NATS),
        durability: "with the operating system, on the device within two minutes; atomic batches of 500",
        measures: &[Measure::Produce],
    },
    Peer {
        name: "ferrokinesis",
        program: Program::FerrokinesisInMemory,
        package: Some(&Package::FERROKINESIS),
        durability: "in its memory",
        measures: KINESIS,
    },
    Peer {
        name: "ferrokinesis disk",
        program: Program::FerrokinesisOnDisk,
        package: Some(&Package::FERROKINESIS),
        durability: "on the device (log with fsync, snapshots)",
        measures: KINESIS,
    },
    Peer {
        name: "kinesalite",
        program: Program::Kinesalite,
        package: Some(&Package::KINESALITE),
        durability: "with the operating system (LevelDB)",
        measures: KINESIS,
    },
    Peer {
        name: "kinesis-local",
        program: Program::KinesisLocal,
        package: Some(&Package::KINESIS_LOCAL),
        durability: "in its memory",
        measures: KINESIS,
    },
    Peer {
        name: "moto",
        program: Program::Moto,
        package: Some(&Package::MOTO),
        durability: "in its memory",
        measures: KINESIS,
    },
];

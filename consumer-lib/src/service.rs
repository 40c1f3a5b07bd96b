//! Which service the records are read from, and which keeps the leases: chosen by settings, made when a worker starts.

#[cfg(feature = "aws")]
use crate::aws::{KinesisChoice, LeaseTable};
use crate::error::Result;
#[cfg(feature = "aws")]
use crate::error::{Error, ErrorKind};
#[cfg(feature = "aws")]
use crate::fetch::KinesisSource;
use crate::fetch::{BrokerSource, Source};
use crate::store::{BrokerStore, LeaseStore, MemoryLeases, MemoryStore};
#[cfg(feature = "aws")]
use crate::streams::Streams;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_types::{AppName, WorkerId};

/// Where the records are.
#[derive(Debug, Clone)]
pub(crate) enum SourceChoice {
    Broker(Endpoint),
    #[cfg(feature = "aws")]
    Kinesis(Box<KinesisChoice>),
    /// Made by a test.
    #[cfg(test)]
    Given(Arc<dyn Source>),
}

/// Where the leases are.
#[derive(Debug, Clone)]
pub(crate) enum StoreChoice {
    Broker(Endpoint),
    #[cfg(feature = "aws")]
    DynamoDb(Box<LeaseTable>),
    Memory(MemoryLeases),
    /// Made by a test, for this worker.
    #[cfg(test)]
    Given(Arc<dyn LeaseStore>),
}

/// For whom leases are kept.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) app: AppName,
    pub(crate) worker: WorkerId,
    pub(crate) lease: Duration,
}

impl SourceChoice {
    /// Where leases are kept unless somebody says otherwise.
    pub(crate) fn own_store(&self) -> Result<StoreChoice> {
        Ok(match self {
            Self::Broker(endpoint) => StoreChoice::Broker(endpoint.clone()),
            #[cfg(feature = "aws")]
            Self::Kinesis(kinesis) => {
                let table = kinesis.table.clone().ok_or_else(|| {
                    let told = "a Kinesis at an address of its own keeps no leases: say where they are";
                    Error::new(ErrorKind::Invalid, told)
                })?;
                StoreChoice::DynamoDb(Box::new(LeaseTable::new(table)))
            }
            #[cfg(test)]
            Self::Given(_) => StoreChoice::Memory(MemoryLeases::new()),
        })
    }
    /// Must be called within a runtime. `seed` feeds the pauses.
    pub(crate) fn make(&self, seed: u64) -> Arc<dyn Source> {
        match self {
            Self::Broker(endpoint) => {
                Arc::new(BrokerSource::new(endpoint.clone(), Channel::lazy(endpoint), seed))
            }
            #[cfg(feature = "aws")]
            Self::Kinesis(kinesis) => {
                Arc::new(KinesisSource::new(kinesis.api.clone(), kinesis.reads.clone()))
            }
            #[cfg(test)]
            Self::Given(source) => Arc::clone(source),
        }
    }
}

impl fmt::Display for SourceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(endpoint) => write!(f, "a broker at {endpoint}"),
            #[cfg(feature = "aws")]
            Self::Kinesis(_) => f.write_str("the Kinesis"),
            #[cfg(test)]
            Self::Given(_) => f.write_str("a test"),
        }
    }
}

impl StoreChoice {
    /// For the streams of a worker and their source.
    #[cfg(feature = "aws")]
    pub(crate) fn settled(self, source: &SourceChoice, streams: &Streams) -> Result<Self> {
        let api = match source {
            SourceChoice::Kinesis(kinesis) => Some(&kinesis.api),
            _ => None,
        };
        Ok(match self {
            Self::DynamoDb(table) => Self::DynamoDb(Box::new(table.settled(api, streams)?)),
            other => other,
        })
    }
    /// Must be called within a runtime.
    pub(crate) fn make(&self, source: &Arc<dyn Source>, holder: Holder) -> Arc<dyn LeaseStore> {
        match self {
            #[cfg(feature = "aws")]
            Self::DynamoDb(table) => Arc::new(table.store(source, &holder)),
            Self::Broker(endpoint) => {
                let Holder { app, worker, lease } = holder;
                Arc::new(BrokerStore::new(Channel::lazy(endpoint), app, worker, lease))
            }
            Self::Memory(leases) => {
                let Holder { app, worker, lease } = holder;
                Arc::new(MemoryStore::new(leases.clone(), Arc::clone(source), app, worker, lease))
            }
            #[cfg(test)]
            Self::Given(store) => Arc::clone(store),
        }
    }
}

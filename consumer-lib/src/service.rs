//! Which service the records are read from, and which keeps the leases: chosen by settings, made when a worker starts.

use crate::error::Result;
use crate::fetch::{BrokerSource, Source};
use crate::store::{BrokerStore, LeaseStore, MemoryLeases, MemoryStore};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_types::{AppName, WorkerId};

/// Where the records are.
#[derive(Debug, Clone)]
pub(crate) enum SourceChoice {
    Broker(Endpoint),
    /// Made by a test.
    #[cfg(test)]
    Given(Arc<dyn Source>),
}

/// Where the leases are.
#[derive(Debug, Clone)]
pub(crate) enum StoreChoice {
    Broker(Endpoint),
    Memory(MemoryLeases),
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
            #[cfg(test)]
            Self::Given(source) => Arc::clone(source),
        }
    }
}

impl fmt::Display for SourceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(endpoint) => write!(f, "a broker at {endpoint}"),
            #[cfg(test)]
            Self::Given(_) => f.write_str("a test"),
        }
    }
}

impl StoreChoice {
    /// Must be called within a runtime.
    pub(crate) fn make(&self, source: &Arc<dyn Source>, holder: Holder) -> Arc<dyn LeaseStore> {
        let Holder { app, worker, lease } = holder;
        match self {
            Self::Broker(endpoint) => Arc::new(BrokerStore::new(Channel::lazy(endpoint), app, worker, lease)),
            Self::Memory(leases) => {
                Arc::new(MemoryStore::new(leases.clone(), Arc::clone(source), app, worker, lease))
            }
        }
    }
}

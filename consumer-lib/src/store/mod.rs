//! Where leases and checkpoints are kept: in the broker. Every change is conditional on the lease's epoch.

mod broker;

pub(crate) use broker::{BrokerStore, LeaseRow, Take};

//! The consumer library on AWS's interfaces: leases in a DynamoDB (dynalite, from npm), records from the Kinesis endpoint of a
//! real broker. And the suites that all lease stores pass alike: as stores, and under whole workers.
//!
//! Where npm cannot be had the tests say so and pass, unless `CI` is set.

mod dynalite;
mod faults;
// shared with the tests of clients, which also use the rest of it
#[allow(dead_code)]
#[path = "../clients/install.rs"]
mod install;
mod kcl;
mod sources;
mod stores;
mod workers;
mod world;

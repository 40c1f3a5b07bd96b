//! The producer library against a real broker, on both of its sinks: Tidemill's own protocol, and the Kinesis API as Amazon's
//! SDK speaks it, signed and verified. One suite, run by each.

mod cuts;
mod fixture;
mod ordered;
mod suite;

//! The engine without sockets: one binary, so that it is linked once.

mod leases;
mod records;
mod streams;
mod support;

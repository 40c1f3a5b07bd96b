//! Where records come from: pushed by the broker, read ahead of the processor within a bound of bytes.

mod connections;
mod push;

pub(crate) use connections::Connections;
pub(crate) use push::{Fetched, PushReader, Source};

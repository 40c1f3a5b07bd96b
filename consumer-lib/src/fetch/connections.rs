//! Connections for reading, apart from the one that leases use, each shared by few shards.
//!
//! The HTTP/2 window of a connection is shared by its calls: shards whose processors are slow leave their answers in it.
//! With at most four readers to a connection, each with a quarter of its window, none can starve another, and never a
//! lease.

use std::sync::Arc;
use tidemill_proto::client::{Channel, Endpoint};

/// A connection's window (16 MiB) divided by that of one call (4 MiB).
const READERS_PER_CONNECTION: usize = 4;

/// Hands out connections; one that nobody reads from any more is closed.
#[derive(Debug)]
pub(crate) struct Connections {
    endpoint: Endpoint,
    open: Vec<Arc<Channel>>,
}

impl Connections {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, open: Vec::new() }
    }
    /// A connection with room for another reader, for as long as the reader keeps it.
    pub(crate) fn connection(&mut self) -> Arc<Channel> {
        self.open.retain(|channel| Arc::strong_count(channel) > 1);
        if let Some(channel) = self.open.iter().find(|c| Arc::strong_count(c) <= READERS_PER_CONNECTION) {
            return Arc::clone(channel);
        }
        let channel = Arc::new(Channel::lazy(&self.endpoint));
        self.open.push(Arc::clone(&channel));
        channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn four_readers_share_a_connection_and_the_fifth_gets_another() {
        let mut connections = Connections::new(Endpoint::new("http://127.0.0.1:1").unwrap());
        let mut readers: Vec<_> = (0..5).map(|_| connections.connection()).collect();
        assert!(readers[..4].iter().all(|c| Arc::ptr_eq(c, &readers[0])));
        assert!(!Arc::ptr_eq(&readers[3], &readers[4]));
        readers.truncate(3);
        let again = connections.connection();
        assert!(Arc::ptr_eq(&again, &readers[0]));
        assert_eq!(connections.open.len(), 1);
    }
}

//! What the machine gives when nothing of Tidemill is in the way: memory, disk, loopback, and stock servers.
//!
//! ```text
//!  memory     memcpy, crc32                          one thread, in this process
//!  raw_disk   direct synchronous writes              one thread, in this process
//!  tcp        loopback                               two threads, in this process
//!  turns      what it costs to wake somebody         two threads, in this process
//!  bare_grpc  sink and source of 1 MiB messages      server in a process of its own
//!  hello      HTTP/1.1 requests                      server in a process of its own
//! ```

pub(crate) mod bare_grpc;
pub(crate) mod hello;
pub(crate) mod memory;
pub(crate) mod raw_disk;
pub(crate) mod tcp;
pub(crate) mod turns;

use crate::figure::Name;
use anyhow::Result;
use tokio::io::AsyncReadExt;

pub(crate) const MEMCPY: Name<'_> = Name::new("copy 64 MiB", "memory");
pub(crate) const CRC32: Name<'_> = Name::new("crc32 of 1 MiB", "memory");
pub(crate) const DISK_LARGE: Name<'_> = Name::new("write 1 MiB direct", "raw disk");
pub(crate) const DISK_SMALL: Name<'_> = Name::new("write 4 KiB direct", "raw disk");
pub(crate) const DISK_CACHED: Name<'_> = Name::new("write 1 MiB buffered+dsync, fresh", "raw disk");
pub(crate) const TCP: Name<'_> = Name::new("send 256 KiB", "loopback TCP");
pub(crate) const TURN_TCP: Name<'_> = Name::new("1 KiB there, 64 bytes back", "loopback TCP");
pub(crate) const TURN_THREAD: Name<'_> = Name::new("to another thread and back", "memory");
pub(crate) const SINK: Name<'_> = Name::new("produce 1 MiB messages", "bare gRPC");
pub(crate) const SOURCE: Name<'_> = Name::new("consume 1 MiB messages", "bare gRPC");
pub(crate) const HELLO: Name<'_> = Name::new("post 1 KiB", "bare HTTP/1.1");

/// A server that does nothing.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Peer {
    /// gRPC: sink and source of the broker's own messages
    Grpc,
    /// HTTP/1.1: one answer to everything
    Http,
}

/// Serves until standard input ends.
pub(crate) fn serve(peer: Peer) -> Result<()> {
    match peer {
        Peer::Grpc => bare_grpc::serve(),
        Peer::Http => hello::serve(),
    }
}

/// Whoever started this process has ended.
async fn input_ended() {
    // whatever ends it ends us
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

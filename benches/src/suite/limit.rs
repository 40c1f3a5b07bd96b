//! Which limits are measured in a repetition, and how.

use super::findings::Findings;
use super::site::Site;
use super::throughput::{GRPC_CONNECTIONS, PUT_RECORD_CONNECTIONS};
use crate::limits::{self, bare_grpc, hello, memory, raw_disk, tcp, turns};

/// Threads that write large frames in a broker (its default).
const DIRECT_WRITERS: usize = 2;

/// A limit of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Memcpy,
    Crc32,
    DiskLarge,
    DiskSmall,
    DiskCached,
    Tcp,
    TurnTcp,
    TurnThread,
    Sink,
    Source,
    Hello,
}

impl Limit {
    pub(super) const ALL: [Self; 11] = [
        Self::Memcpy,
        Self::Crc32,
        Self::DiskLarge,
        Self::DiskSmall,
        Self::DiskCached,
        Self::Tcp,
        Self::TurnTcp,
        Self::TurnThread,
        Self::Sink,
        Self::Source,
        Self::Hello,
    ];

    pub(super) fn measure(self, site: &Site, findings: &mut Findings) {
        let window = || site.window();
        let (grpc, http) = (&site.grpc_peer.endpoint, &site.http_peer.endpoint);
        let run = &site.runtime;
        match self {
            Self::Memcpy => findings.took(limits::MEMCPY, Ok(memory::copy(window))),
            Self::Crc32 => findings.took(limits::CRC32, Ok(memory::checksum(window))),
            Self::DiskLarge => {
                findings.took(limits::DISK_LARGE, raw_disk::direct(site.path(), 1 << 20, window));
            }
            Self::DiskSmall => {
                findings.took(limits::DISK_SMALL, raw_disk::direct(site.path(), 4 << 10, window));
            }
            Self::DiskCached => {
                let written =
                    raw_disk::buffered(site.path(), 1 << 20, raw_disk::Blocks::Fresh, DIRECT_WRITERS, window);
                findings.took(limits::DISK_CACHED, written);
            }
            Self::TurnTcp => findings.took(limits::TURN_TCP, turns::over_tcp(window())),
            Self::TurnThread => findings.took(limits::TURN_THREAD, Ok(turns::between_threads(window()))),
            Self::Tcp => findings.took(limits::TCP, tcp::loopback(window())),
            Self::Sink => {
                let sink = bare_grpc::sink(grpc, GRPC_CONNECTIONS as usize, window());
                findings.took(limits::SINK, run.block_on(sink));
            }
            Self::Source => {
                let source = bare_grpc::source(grpc, GRPC_CONNECTIONS as usize, window());
                findings.took(limits::SOURCE, run.block_on(source));
            }
            Self::Hello => {
                let requests = hello::requests(http, PUT_RECORD_CONNECTIONS as usize, window());
                findings.took(limits::HELLO, run.block_on(requests));
            }
        }
    }
}

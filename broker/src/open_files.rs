//! How many files the process may have open, and who gets them: behind a reserve for everything else, connections as many as they
//! may be, but no more than half, segments the rest. What connections could take from segments would end in a write that fails for
//! good.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Segments that are open at once, at most, however many files the system allows.
const SEGMENTS_MAX: u64 = 32_768;
/// Journal, metadata, listeners, certificates, what the runtime needs.
const RESERVED: u64 = 32;

/// Segments and connections need more open files than the usual soft limit of 1,024; the hard limit is ours to use.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Segments that may stay open beside so many connections. To open one for each write costs: 10,000 shards written to in turn took
/// 57,000 records/s with 1,024 open, 72,000 with all open (medians of 3, interleaved). To have some too few costs most of that too:
/// 53,000 with 9,984 open, 74,000 with 14,000.
pub(crate) fn for_segments(connections: usize) -> usize {
    let left = available().saturating_sub(connections as u64).clamp(1, SEGMENTS_MAX);
    usize::try_from(left).expect("a small number")
}

/// Connections that may be open.
pub(crate) fn for_connections(wanted: usize) -> usize {
    let half = usize::try_from(available() / 2).unwrap_or(usize::MAX).max(1);
    wanted.min(half)
}

/// What there is behind the reserve.
fn available() -> u64 {
    let most = getrlimit(Resource::Nofile).maximum;
    most.map_or(u64::MAX, |most| most.saturating_sub(RESERVED))
}

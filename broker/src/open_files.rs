//! How many files the process may have open, and who gets them: connections one half, segments the other, behind a reserve for
//! everything else. What connections could take from segments would end in a write that fails for good.

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

/// Segments that may stay open. To open one for each write costs: 10,000 shards written to in turn took 57,000 records/s with
/// 1,024 open, 72,000 with all open (medians of 3, interleaved).
pub(crate) fn for_segments() -> usize {
    half().min(usize::try_from(SEGMENTS_MAX).expect("a small number"))
}

/// Connections that may be open.
pub(crate) fn for_connections(wanted: usize) -> usize {
    wanted.min(half())
}

/// Half of what there is behind the reserve, at least one.
fn half() -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    let half = most.map_or(u64::MAX, |most| (most.saturating_sub(RESERVED) / 2).max(1));
    usize::try_from(half).unwrap_or(usize::MAX)
}

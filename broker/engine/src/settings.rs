//! What an operator may choose about the engine, with defaults that work.

use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyRing;
use crate::shard::quota::Quota;
use std::num::NonZeroU64;
use tidemill_types::limits::FRAME_BYTES_MAX;

/// What an operator may choose about the engine, with defaults that work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the storage below.
    pub storage: tidemill_storage::Settings,
    /// Bytes of appends that may wait for one shard. Default 16 MiB, at least one frame of the largest size.
    pub queue_bytes_per_shard: usize,
    /// Bytes of appends that may wait in all. Default 256 MiB, at least as much as for one shard.
    pub queue_bytes_total: usize,
    /// Open shards of all streams together; with closed ones, which are kept until their records have passed the retention,
    /// four times as many. Default 20,000.
    pub shards_max: u32,
    /// How fast each shard may be written and read. Default: as fast as it can be.
    pub quota: Quota,
    /// How fast the scrubber reads stored records again, in bytes a second; none: not at all. Default 8 MiB, at which 50 GB
    /// take an hour and three quarters, and a core a thousandth.
    pub scrub_bytes_per_s: Option<NonZeroU64>,
    /// The keys that streams may be encrypted with. Default: none.
    pub keys: KeyRing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: tidemill_storage::Settings::default(),
            queue_bytes_per_shard: 16 << 20,
            queue_bytes_total: 256 << 20,
            shards_max: 20_000,
            quota: Quota::default(),
            scrub_bytes_per_s: NonZeroU64::new(8 << 20),
            keys: KeyRing::default(),
        }
    }
}

impl Settings {
    /// Whether the sizes fit each other; says which do not.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::Invalid, format!("engine settings: {what}")));
        if self.queue_bytes_per_shard < FRAME_BYTES_MAX {
            return bad(format!(
                "queue_bytes_per_shard must be at least {FRAME_BYTES_MAX}, the largest frame"
            ));
        }
        if self.queue_bytes_total < self.queue_bytes_per_shard || self.queue_bytes_total > u32::MAX as usize {
            return bad("queue_bytes_total must be at least queue_bytes_per_shard and below 4 GiB".to_owned());
        }
        if self.quota.has_zero() {
            return bad("a quota must be at least 1; leave it out for none".to_owned());
        }
        if self.shards_max == 0 {
            return bad("shards_max must be at least 1".to_owned());
        }
        Ok(())
    }
}

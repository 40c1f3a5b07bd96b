//! What is kept of an account, beside its streams.

use tidemill_types::TimestampMs;

/// Whether an account has committed to a minimum throughput. Nothing is billed here; it is kept and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commitment {
    /// Since when, while it holds or has held.
    pub started: Option<TimestampMs>,
    /// When it was ended.
    pub ended: Option<TimestampMs>,
    /// Whether it holds.
    pub enabled: bool,
}

/// What is known of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountInfo {
    /// Streams.
    pub streams: u32,
    /// Of these, in on-demand mode.
    pub on_demand_streams: u32,
    /// Shards that take records, of all its streams.
    pub open_shards: u32,
    /// Its commitment.
    pub commitment: Commitment,
}

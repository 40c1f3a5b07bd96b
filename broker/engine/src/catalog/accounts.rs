//! What is kept of an account, beside its streams: whether it has committed to a minimum throughput, and the time from
//! which its next consumers are counted.

use super::owner::Owner;
use super::state::{CatalogState, Change};
use crate::error::Result;
use tidemill_types::{AccountId, TimestampMs};
use tracing::info;

/// A commitment is kept at least this long.
const COMMITMENT_MS_MIN: u64 = 24 * 3_600_000;

/// Whether an account has committed to a minimum throughput. Nothing is billed here; it is kept and shown, and opens what
/// Kinesis gives to those who committed: warm throughput, and more consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commitment {
    /// Since when, while it holds or has held.
    pub started: Option<TimestampMs>,
    /// When it ended, or will: one that is taken back early goes on until the earliest end.
    pub ended: Option<TimestampMs>,
    /// Whether it goes on until it is taken back.
    pub enabled: bool,
}

/// What there is of a commitment at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitmentStatus {
    /// None holds.
    Disabled,
    /// It holds until it is taken back.
    Enabled,
    /// It was taken back and holds until its earliest end.
    Ending,
}

impl Commitment {
    /// The earliest time at which it can end: a day after it started.
    pub fn earliest_end(&self) -> Option<TimestampMs> {
        self.started.map(|started| TimestampMs::new(started.get().saturating_add(COMMITMENT_MS_MIN)))
    }
    /// What there is of it at the time `now`.
    pub fn status(&self, now: TimestampMs) -> CommitmentStatus {
        match self.ended {
            _ if self.enabled => CommitmentStatus::Enabled,
            Some(end) if end > now => CommitmentStatus::Ending,
            _ => CommitmentStatus::Disabled,
        }
    }
    /// Whether it holds at the time `now`.
    pub fn holds(&self, now: TimestampMs) -> bool {
        self.status(now) != CommitmentStatus::Disabled
    }
    /// The commitment after it was given at the time `now`; one that holds still goes on.
    fn given(self, now: TimestampMs) -> Self {
        let started = if self.holds(now) { self.started } else { Some(now) };
        Self { started, ended: None, enabled: true }
    }
    /// The commitment after it was taken back at the time `now`.
    fn taken_back(self, now: TimestampMs) -> Self {
        if !self.enabled {
            return self;
        }
        let ended = self.earliest_end().map(|earliest| earliest.max(now));
        Self { started: self.started, ended, enabled: false }
    }
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

/// What is kept of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AccountRow {
    pub(crate) commitment: Commitment,
    /// A consumer that is registered from now on counts as created in this second (since the epoch) or later: above that
    /// of every consumer that is gone, so that no two of a name ever have one ARN.
    pub(crate) consumers_from_s: u64,
}

/// The account commits itself, or takes that back.
pub(super) fn plan_commitment(
    state: &CatalogState,
    account: &AccountId,
    enabled: bool,
    now: TimestampMs,
) -> Vec<Change> {
    let row = state.account(account);
    let commitment = if enabled { row.commitment.given(now) } else { row.commitment.taken_back(now) };
    match commitment == row.commitment {
        true => Vec::new(),
        false => vec![Change::Account(account.clone(), AccountRow { commitment, ..row })],
    }
}

impl Owner {
    pub(super) async fn set_commitment(&mut self, account: &AccountId, enabled: bool) -> Result<AccountInfo> {
        let changes = plan_commitment(&self.state, account, enabled, self.shared.clock().now());
        self.commit_and_apply(changes).await?;
        self.registry.set_commitment(account, self.state.account(account).commitment);
        info!(%account, enabled, "commitment of an account set");
        Ok(self.registry.account(account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = COMMITMENT_MS_MIN;

    fn at(ms: u64) -> TimestampMs {
        TimestampMs::new(ms)
    }

    #[test]
    fn a_commitment_that_is_taken_back_early_holds_for_a_day() {
        let none = Commitment::default();
        assert_eq!((none.status(at(5)), none.earliest_end()), (CommitmentStatus::Disabled, None));
        assert_eq!(none.taken_back(at(5)), none);
        let given = none.given(at(5));
        assert_eq!(
            (given.status(at(5)), given.earliest_end()),
            (CommitmentStatus::Enabled, Some(at(DAY + 5)))
        );
        assert_eq!(given.given(at(9)), given, "it goes on");
        let early = given.taken_back(at(7));
        assert_eq!((early.status(at(8)), early.ended), (CommitmentStatus::Ending, Some(at(DAY + 5))));
        assert!(early.holds(at(DAY + 4)));
        assert!(!early.holds(at(DAY + 5)));
        assert_eq!(early.taken_back(at(8)), early, "taken back once");
        assert_eq!(early.given(at(8)).started, Some(at(5)), "it never ended");
        assert_eq!(early.given(at(2 * DAY)).started, Some(at(2 * DAY)), "a new one");
        assert_eq!(given.taken_back(at(3 * DAY)).ended, Some(at(3 * DAY)));
    }
}

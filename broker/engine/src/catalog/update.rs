//! Changes of a stream's settings: what each may be, and how the owner carries it out.
//!
//! ```text
//!   plan (pure, one new row) ─► commit ─► apply ─► shown to the data verbs ─► shorter retention: trim, then answer
//! ```
//!
//! Records that a shorter retention lets go of stay gone: the row keeps the time from which records are kept, whatever
//! becomes of the retention later and wherever a crash falls. That time rises with the clock, and no clock that was ahead
//! for a while can make it hide younger records than the shortest retention does ([`StreamRow::kept_since`]).
//!
//! While the clock is in doubt ([`crate::even_time`]) that time stays, and a shorter retention lets go of nothing yet. Otherwise
//! the answer to a shorter retention is the promise that older records cannot be read any more: if they could not be let
//! go, the change is stored all the same, and the answer is `UnknownOutcome`. Repeating it lets go of them again.

use super::accounts::Commitment;
use super::encryption::{plan_encrypt, plan_stop};
use super::owner::Owner;
use super::settings::{Distribution, StreamMode, StreamSettings, StreamUpdate};
use super::state::{CatalogState, Change, StreamRow};
use super::streams::not_found;
use super::tags;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Keys;
use crate::retention;
use crate::stream::Updated;
use tidemill_types::limits::{
    POLICY_BYTES_MAX, RECORD_KIB_MAX, RECORD_KIB_MIN, RETENTION_HOURS_MAX, RETENTION_HOURS_MIN,
    WARM_MIBPS_MAX,
};
use tidemill_types::{StreamKey, TimestampMs};
use tracing::info;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, message))
}

fn precondition<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Precondition, message))
}

/// Whether a new stream may be set to this; each setting alone and all of them together.
pub(super) fn check_settings(
    key: &StreamKey,
    settings: &StreamSettings,
    commitment: Commitment,
    now: TimestampMs,
) -> Result<()> {
    check_retention(settings.retention_hours)?;
    check_record_limit(settings.record_kib_max)?;
    check_distribution(key, settings.mode, settings.distribution)?;
    if let Some(rate) = settings.warm_mibps {
        check_warm(key, settings.mode, rate, commitment, now)?;
    }
    if settings.encryption.is_some() {
        return invalid("encryption is started on a stream that is there");
    }
    tags::check(&format!("stream {key}"), &settings.tags)?;
    check_policy(&format!("stream {key}"), settings.policy.as_deref())
}

fn check_retention(hours: u32) -> Result<()> {
    if hours < RETENTION_HOURS_MIN {
        return invalid(format!(
            "Minimum allowed retention period is {RETENTION_HOURS_MIN} hours. Requested retention period ({hours} hours) is too short."
        ));
    }
    if hours > RETENTION_HOURS_MAX {
        return invalid(format!(
            "Maximum allowed retention period is {RETENTION_HOURS_MAX} hours. Requested retention period ({hours} hours) is too long."
        ));
    }
    Ok(())
}

fn check_record_limit(kib: u32) -> Result<()> {
    match (RECORD_KIB_MIN..=RECORD_KIB_MAX).contains(&kib) {
        true => Ok(()),
        false => invalid(format!(
            "The largest record of a stream can be set to {RECORD_KIB_MIN} to {RECORD_KIB_MAX} KiB, found {kib}."
        )),
    }
}

fn check_distribution(key: &StreamKey, mode: StreamMode, distribution: Distribution) -> Result<()> {
    match (mode, distribution) {
        (StreamMode::Provisioned, Distribution::Auto) => invalid(format!(
            "The record distribution strategy AUTO needs the On-Demand mode. Stream {key} is in Provisioned mode."
        )),
        _ => Ok(()),
    }
}

fn check_warm(
    key: &StreamKey,
    mode: StreamMode,
    rate: u32,
    commitment: Commitment,
    now: TimestampMs,
) -> Result<()> {
    if mode != StreamMode::OnDemand {
        return precondition(format!(
            "Request is invalid. Warm throughput needs the On-Demand mode. Stream {key} is in Provisioned mode."
        ));
    }
    if rate > WARM_MIBPS_MAX {
        return invalid(format!(
            "The warm throughput of a stream can be at most {WARM_MIBPS_MAX} MiB/s, found {rate}."
        ));
    }
    match commitment.holds(now) {
        true => Ok(()),
        false => precondition(format!(
            "Request is invalid. Warm throughput needs the minimum throughput billing commitment of account {} to be enabled.",
            key.account
        )),
    }
}

/// Whether this may be the policy of `what`, as far as its size goes; what it says is checked where it is understood.
pub(super) fn check_policy(what: &str, policy: Option<&str>) -> Result<()> {
    match policy {
        Some(text) if text.len() > POLICY_BYTES_MAX => invalid(format!(
            "The resource policy of {what} has {} bytes; it can have at most {POLICY_BYTES_MAX}.",
            text.len()
        )),
        _ => Ok(()),
    }
}

/// From when on a stream keeps its records; none while the clock is in doubt.
pub(super) type KeptSince<'a> = &'a dyn Fn(&StreamRow) -> Option<TimestampMs>;

/// The stream's settings change. No change at all if they are so already. `keys` are those that a stream can be encrypted
/// with.
pub(super) fn plan_update(
    state: &CatalogState,
    key: &StreamKey,
    update: StreamUpdate,
    now: TimestampMs,
    kept_since: KeptSince<'_>,
    keys: &Keys,
) -> Result<Vec<Change>> {
    let found = state.stream(key).ok_or_else(|| not_found(key))?;
    let commitment = state.account(&key.account).commitment;
    let mut row = found.clone();
    let what = || format!("stream {key}");
    match update {
        StreamUpdate::IncreaseRetention(hours) => increase_retention(&mut row, hours, kept_since)?,
        StreamUpdate::DecreaseRetention(hours) => decrease_retention(&mut row, hours, kept_since)?,
        StreamUpdate::Mode { mode, warm_mibps } => {
            set_mode(&mut row, mode)?;
            if let Some(rate) = warm_mibps {
                check_warm(key, mode, rate, commitment, now)?;
                row.settings.warm_mibps = warm_mibps;
            }
        }
        StreamUpdate::RecordLimit(kib) => {
            check_record_limit(kib)?;
            row.settings.record_kib_max = kib;
        }
        StreamUpdate::Distribution(distribution) => {
            check_distribution(key, row.settings.mode, distribution)?;
            row.settings.distribution = distribution;
        }
        StreamUpdate::WarmThroughput(rate) => {
            check_warm(key, row.settings.mode, rate, commitment, now)?;
            row.settings.warm_mibps = Some(rate);
        }
        StreamUpdate::EnableMonitoring(metrics) => {
            row.settings.monitoring = row.settings.monitoring.with(metrics);
        }
        StreamUpdate::DisableMonitoring(metrics) => {
            row.settings.monitoring = row.settings.monitoring.without(metrics);
        }
        StreamUpdate::Tag(more) => {
            row.settings.tags = tags::merged(&what(), &row.settings.tags, &more)?;
        }
        StreamUpdate::Untag(keys) => row.settings.tags = tags::without(&row.settings.tags, &keys)?,
        StreamUpdate::Policy(policy) => {
            check_policy(&what(), policy.as_deref())?;
            row.settings.policy = policy;
        }
        StreamUpdate::Encrypt { key_id } => return plan_encrypt(state, key, &key_id, keys),
        StreamUpdate::StopEncryption { key_id } => return plan_stop(state, key, &key_id, keys),
    }
    Ok(if row == *found { Vec::new() } else { vec![Change::Stream(row)] })
}

/// What the old retention let go of does not come back.
fn increase_retention(row: &mut StreamRow, hours: u32, kept_since: KeptSince<'_>) -> Result<()> {
    let (name, current) = (&row.key.name, row.settings.retention_hours);
    check_retention(hours)?;
    if hours < current {
        return invalid(format!(
            "Requested retention period ({hours} hours) for stream {name} can not be shorter than existing retention period ({current} hours). Use DecreaseRetentionPeriod API."
        ));
    }
    if hours > current {
        row.kept_from = kept_since(row).unwrap_or(row.kept_from);
        row.settings.retention_hours = hours;
    }
    Ok(())
}

fn decrease_retention(row: &mut StreamRow, hours: u32, kept_since: KeptSince<'_>) -> Result<()> {
    let (name, current) = (&row.key.name, row.settings.retention_hours);
    check_retention(hours)?;
    if hours > current {
        return invalid(format!(
            "Requested retention period ({hours} hours) for stream {name} can not be longer than existing retention period ({current} hours). Use IncreaseRetentionPeriod API."
        ));
    }
    if hours < current {
        row.settings.retention_hours = hours;
        row.kept_from = kept_since(row).unwrap_or(row.kept_from);
    }
    Ok(())
}

/// The shards stay. What only on-demand streams have is given up, but never what producers rely on.
fn set_mode(row: &mut StreamRow, mode: StreamMode) -> Result<()> {
    if mode == StreamMode::Provisioned {
        if row.settings.distribution == Distribution::Auto {
            return precondition(format!(
                "Request is invalid. Stream {} has the record distribution strategy AUTO, which needs the On-Demand mode; set USER_PARTITION_KEY first.",
                row.key
            ));
        }
        row.settings.warm_mibps = None;
    }
    row.settings.mode = mode;
    Ok(())
}

impl Owner {
    pub(super) async fn update(&mut self, key: &StreamKey, update: StreamUpdate) -> Result<Updated> {
        let shorter = matches!(update, StreamUpdate::DecreaseRetention(_));
        let (now, keys) = (self.shared.clock().now(), self.shared.settings().keys.now());
        let kept_since = |row: &StreamRow| {
            let since = self.shared.kept_since(row, now);
            (since > TimestampMs::default()).then_some(since)
        };
        let changes = plan_update(&self.state, key, update, now, &kept_since, &keys)?;
        let updated = self.change_stream(key, changes).await?;
        if shorter {
            self.let_go(key).await?;
        }
        Ok(updated)
    }

    /// Carries out changes of one stream's row and shows it.
    pub(super) async fn change_stream(&mut self, key: &StreamKey, changes: Vec<Change>) -> Result<Updated> {
        let core = self.registry.get(key)?;
        let before = core.info();
        let changed = !changes.is_empty();
        let has_data_key = changes.iter().any(|change| matches!(change, Change::DataKey(..)));
        self.commit_and_apply(changes).await?;
        if changed {
            let row = self.state.stream(key).ok_or_else(|| not_found(key))?;
            if has_data_key {
                // the key is there before the row that names it
                core.keys().set_wrapped(self.state.data_keys(row.incarnation).cloned().unwrap_or_default());
            }
            core.set_row(row.clone());
            let key_id = row.settings.encryption.as_ref().map(|encryption| encryption.key_id.as_str());
            info!(stream = %key, encrypted_with = key_id, "stream updated");
        }
        Ok(Updated { before, after: core.info() })
    }

    /// Lets go of what the stream no longer keeps, before anybody is told that it is gone.
    async fn let_go(&self, key: &StreamKey) -> Result<()> {
        let (core, now) = (self.registry.get(key)?, self.shared.clock().now());
        // dropping segments unlinks files
        let trim_all = move || {
            let (set, kept_since) = (core.shard_set(), core.kept_since(now));
            // all of them, whatever becomes of one
            let trimmed = set.handles().map(|handle| retention::trim(handle, kept_since));
            trimmed.fold(Ok(()), Result::and)
        };
        self.shared.blocking("trimming", trim_all).await.map_err(|error| {
            let message = format!(
                "stream {key} has the shorter retention, but some older records can still be read; repeat the change"
            );
            Error::caused(ErrorKind::UnknownOutcome, message, error)
        })
    }
}

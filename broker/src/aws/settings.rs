//! Changing what a stream is set to. What may be set to what, and the words for it, are the engine's.

use super::Call;
use super::address::Opened;
use super::error::{self, ApiError};
use super::room::see_through;
use super::shape::{
    EncryptionInput, MonitoringInput, MonitoringOutput, Nothing, RetentionInput, UpdateDistributionInput,
    UpdateMaxRecordSizeInput, UpdateStreamModeInput, UpdateStreamWarmThroughputInput,
    UpdateStreamWarmThroughputOutput, WarmThroughput, distribution,
};
use crate::limits::{Change, Room, Turn};
use tidemill_engine::{MetricSet, StreamMode, StreamUpdate, Updated};

type Result<T> = std::result::Result<T, ApiError>;

/// Changes a stream.
pub(super) async fn update(call: &Call, opened: &Opened, update: StreamUpdate) -> Result<Nothing> {
    change(call, opened, update).await.map(|_| Nothing)
}

async fn change(call: &Call, opened: &Opened, update: StreamUpdate) -> Result<Updated> {
    let updated = call.state.engine().update_stream(&opened.key, update).await;
    updated.map_err(|error| error::of_control(&error))
}

/// A change that is bounded.
async fn counted(
    call: &Call,
    opened: &Opened,
    (room, turn): (Option<Option<Room>>, Option<Turn>),
    update: StreamUpdate,
) -> Result<Nothing> {
    let (engine, key) = (call.state.engine().clone(), opened.key.clone());
    see_through(room, turn, async move { engine.update_stream(&key, update).await }).await.map(|_| Nothing)
}

/// A number that validation found to be positive, or zero.
fn natural(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

pub(crate) async fn increase_retention(call: Call, input: RetentionInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    update(&call, &opened, StreamUpdate::IncreaseRetention(natural(input.hours))).await
}

pub(crate) async fn decrease_retention(call: Call, input: RetentionInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    update(&call, &opened, StreamUpdate::DecreaseRetention(natural(input.hours))).await
}

pub(crate) async fn update_mode(call: Call, input: UpdateStreamModeInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let mode = input.mode.map_or(StreamMode::default(), |details| details.mode());
    let warm_mibps = warm_mibps(input.warm_throughput);
    let (room, turn) = call.leave_to_switch(&opened, mode)?.unzip();
    counted(&call, &opened, (room, turn), StreamUpdate::Mode { mode, warm_mibps }).await
}

/// Warm throughput beside a mode: none and zero are the same.
pub(super) fn warm_mibps(value: Option<i32>) -> Option<u32> {
    Some(natural(value)).filter(|rate| *rate > 0)
}

pub(crate) async fn update_record_size(call: Call, input: UpdateMaxRecordSizeInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    update(&call, &opened, StreamUpdate::RecordLimit(natural(input.record_kib_max))).await
}

pub(crate) async fn update_warm_throughput(
    call: Call,
    input: UpdateStreamWarmThroughputInput,
) -> Result<UpdateStreamWarmThroughputOutput> {
    let opened = input.stream.open(&call)?;
    let asked = StreamUpdate::WarmThroughput(natural(input.warm_throughput));
    let updated = change(&call, &opened, asked).await?;
    let warm_throughput = WarmThroughput(updated.after.settings.warm_mibps.unwrap_or_default());
    Ok(UpdateStreamWarmThroughputOutput { arn: call.state.arn(&opened.key), warm_throughput })
}

pub(crate) async fn update_distribution(call: Call, input: UpdateDistributionInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let distribution = distribution(input.distribution.as_deref());
    update(&call, &opened, StreamUpdate::Distribution(distribution)).await
}

pub(crate) async fn enable_monitoring(call: Call, input: MonitoringInput) -> Result<MonitoringOutput> {
    let opened = input.stream.open(&call)?;
    monitored(&call, &opened, StreamUpdate::EnableMonitoring(metrics(&input))).await
}

pub(crate) async fn disable_monitoring(call: Call, input: MonitoringInput) -> Result<MonitoringOutput> {
    let opened = input.stream.open(&call)?;
    monitored(&call, &opened, StreamUpdate::DisableMonitoring(metrics(&input))).await
}

async fn monitored(call: &Call, opened: &Opened, update: StreamUpdate) -> Result<MonitoringOutput> {
    let updated = change(call, opened, update).await?;
    Ok(MonitoringOutput {
        arn: call.state.arn(&opened.key),
        before: updated.before.settings.monitoring,
        after: updated.after.settings.monitoring,
    })
}

fn metrics(input: &MonitoringInput) -> MetricSet {
    let named = input.metrics.iter().flatten().filter_map(|name| MetricSet::named(name));
    named.fold(MetricSet::default(), MetricSet::with)
}

pub(crate) async fn start_encryption(call: Call, input: EncryptionInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let key_id = key_id(input)?;
    let turn = call.leave_to_change(&opened, Change::Encryption)?;
    counted(&call, &opened, (None, Some(turn)), StreamUpdate::Encrypt { key_id }).await
}

pub(crate) async fn stop_encryption(call: Call, input: EncryptionInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    let key_id = key_id(input)?;
    let turn = call.leave_to_change(&opened, Change::Encryption)?;
    counted(&call, &opened, (None, Some(turn)), StreamUpdate::StopEncryption { key_id }).await
}

/// The key; the type beside it must be KMS.
fn key_id(input: EncryptionInput) -> Result<String> {
    match input.kind.as_deref() {
        Some("KMS") => Ok(input.key_id.unwrap_or_default()),
        _ => Err(ApiError::invalid("EncryptionType must be KMS.")),
    }
}

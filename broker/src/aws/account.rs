//! What concerns an account as a whole: its limits and its settings.

use super::Call;
use super::error::{self, ApiError};
use super::shape::{AccountSettingsOutput, DescribeLimitsOutput, NoInput, UpdateAccountSettingsInput};

type Result<T> = std::result::Result<T, ApiError>;

pub(crate) async fn describe_limits(call: Call, _: NoInput) -> Result<DescribeLimitsOutput> {
    let engine = call.state.engine();
    let found = engine.account(call.permit_account()?);
    let limits = &call.state.limits().settings().account;
    let shard_limit = limits.shards.map_or(engine.shards_max(), |limit| limit.min(engine.shards_max()));
    Ok(DescribeLimitsOutput {
        shard_limit,
        open_shards: found.open_shards,
        on_demand_streams: found.on_demand_streams,
        // a stream takes a shard at least
        on_demand_stream_limit: limits.on_demand_streams.unwrap_or(shard_limit),
    })
}

pub(crate) async fn describe_account_settings(call: Call, _: NoInput) -> Result<AccountSettingsOutput> {
    let commitment = call.state.engine().account(call.permit_account()?).commitment;
    Ok(AccountSettingsOutput { commitment, now: call.state.now() })
}

pub(crate) async fn update_account_settings(
    call: Call,
    input: UpdateAccountSettingsInput,
) -> Result<AccountSettingsOutput> {
    let account = call.permit_account()?;
    let status = input.commitment.and_then(|commitment| commitment.status);
    let set = call.state.engine().set_commitment(account, status.as_deref() == Some("ENABLED")).await;
    let commitment = set.map_err(|error| error::of_control(&error))?.commitment;
    Ok(AccountSettingsOutput { commitment, now: call.state.now() })
}

//! What concerns an account as a whole: its limits and its settings.

use super::Call;
use super::error::{self, ApiError};
use super::shape::{AccountSettingsOutput, DescribeLimitsOutput, NoInput, UpdateAccountSettingsInput};

type Result<T> = std::result::Result<T, ApiError>;

pub(crate) async fn describe_limits(call: Call, _: NoInput) -> Result<DescribeLimitsOutput> {
    let engine = call.state.engine();
    let found = engine.account(call.permit_account()?);
    Ok(DescribeLimitsOutput {
        shard_limit: engine.shards_max(),
        open_shards: found.open_shards,
        on_demand_streams: found.on_demand_streams,
        // a stream takes a shard at least, and there is no other limit
        on_demand_stream_limit: engine.shards_max(),
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

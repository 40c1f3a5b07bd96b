//! Limits and settings of an account.

use super::Kinesis;
use serde_json::{Value, json};

const HOUR_MS: u64 = 3_600_000;

// covers: DescribeLimits success
#[tokio::test(flavor = "multi_thread")]
async fn limits_count_what_the_account_has() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 3).await;
    let on_demand = json!({"StreamName": "b", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    kinesis.ok("CreateStream", on_demand).await;
    let limits = kinesis.ok("DescribeLimits", json!({})).await;
    let expected = json!({
        "ShardLimit": 20_000, "OpenShardCount": 7, "OnDemandStreamCount": 1, "OnDemandStreamCountLimit": 20_000,
        "ChannelCount": 0, "ChannelCountLimit": 0
    });
    assert_eq!(limits, expected);
}

// covers: DescribeAccountSettings success
// covers: UpdateAccountSettings success validation
#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_is_made_and_taken_back() {
    let kinesis = Kinesis::start().await;
    let asked = |status: &str| json!({"MinimumThroughputBillingCommitment": {"Status": status}});
    let told = |commitment: Value| json!({"MinimumThroughputBillingCommitment": commitment});
    let (describe, update) = ("DescribeAccountSettings", "UpdateAccountSettings");
    let none = told(json!({"Status": "DISABLED"}));
    assert_eq!(kinesis.ok(describe, json!({})).await, none);
    assert_eq!(kinesis.ok(update, asked("DISABLED")).await, none);
    let (start, end) = (1_700_000_000.0, 1_700_086_400.0);
    let made = told(json!({"Status": "ENABLED", "StartedAt": start, "EarliestAllowedEndAt": end}));
    assert_eq!(kinesis.ok(update, asked("ENABLED")).await, made);
    assert_eq!(kinesis.ok(describe, json!({})).await, made);
    kinesis.clock.advance_ms(HOUR_MS);
    let mut ending = made.clone();
    ending["MinimumThroughputBillingCommitment"]["Status"] = "ENABLED_UNTIL_EARLIEST_ALLOWED_END".into();
    assert_eq!(kinesis.ok(update, asked("DISABLED")).await, ending);
    kinesis.clock.advance_ms(23 * HOUR_MS);
    let ended = told(json!({"Status": "DISABLED", "StartedAt": start, "EndedAt": end}));
    assert_eq!(kinesis.ok(describe, json!({})).await, ended);
    for bad in [json!({}), told(json!({})), asked("ON")] {
        assert_eq!(kinesis.refused(update, bad).await.0, "ValidationException");
    }
}

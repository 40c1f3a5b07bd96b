"""What an account has, and what it has committed to."""

import datetime

from support import refused


# covers: DescribeLimits success
def check_limits_count_what_there_is(kinesis):
    before = kinesis.client.describe_limits()
    kinesis.stream(3)
    kinesis.on_demand()
    after = kinesis.client.describe_limits()
    assert after["OpenShardCount"] >= before["OpenShardCount"] + 3, (before, after)
    assert after["OnDemandStreamCount"] == before["OnDemandStreamCount"] + 1, (before, after)
    assert after["ShardLimit"] >= after["OpenShardCount"], after
    assert after["OnDemandStreamCountLimit"] >= after["OnDemandStreamCount"], after


# covers: DescribeAccountSettings success
# covers: UpdateAccountSettings success
# covers: UpdateAccountSettings validation
def check_the_commitment_is_kept(kinesis):
    client = kinesis.client

    def to(status):
        return {"MinimumThroughputBillingCommitment": {"Status": status}}

    kept = client.update_account_settings(**to("ENABLED"))["MinimumThroughputBillingCommitment"]
    assert kept["Status"].startswith("ENABLED"), kept
    assert isinstance(kept["StartedAt"], datetime.datetime), kept
    assert client.describe_account_settings()["MinimumThroughputBillingCommitment"] == kept
    ended = client.update_account_settings(**to("DISABLED"))["MinimumThroughputBillingCommitment"]
    assert ended["Status"] in ("DISABLED", "ENABLED_UNTIL_EARLIEST_ALLOWED_END"), ended
    assert client.describe_account_settings()["MinimumThroughputBillingCommitment"] == ended
    client.update_account_settings(**to("ENABLED"))
    refused("ValidationException", client.update_account_settings, **to("PERHAPS"))
    refused("ValidationException", client.update_account_settings, **to("ENABLED_UNTIL_EARLIEST_ALLOWED_END"))
    refused("ValidationException", kinesis.loose.update_account_settings)


def check_calls_come_at_the_rate_of_aws_where_its_limits_are_on(kinesis):
    for call in (kinesis.limited.client.describe_limits, kinesis.limited.client.describe_account_settings):
        allowed = 0
        for _ in range(50):
            try:
                call()
                allowed += 1
            except kinesis.limited.client.exceptions.LimitExceededException:
                break
        assert 1 <= allowed < 50, f"{allowed} calls of {call.__name__} in a row"

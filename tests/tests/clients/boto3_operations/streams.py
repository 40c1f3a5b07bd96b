"""Streams: made, described, listed, deleted."""

import datetime

from support import INVALID, absent_arn, refused


# covers: CreateStream success
# covers: DescribeStreamSummary success
def check_a_stream_is_made_as_asked(kinesis):
    kinesis.client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    name = kinesis.name()
    kinesis.client.create_stream(
        StreamName=name,
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
        Tags={"team": "blue", "empty": ""},
        WarmThroughputMiBps=8,
        MaxRecordSizeInKiB=2048,
        RecordDistributionStrategy="AUTO",
    )
    kinesis.client.get_waiter("stream_exists").wait(StreamName=name)
    summary = kinesis.summary(name)
    assert summary["StreamName"] == name and summary["StreamStatus"] == "ACTIVE", summary
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}, summary
    assert summary["OpenShardCount"] >= 4 and summary["ConsumerCount"] == 0, summary
    assert summary["MaxRecordSizeInKiB"] == 2048, summary
    assert summary["WarmThroughput"]["TargetMiBps"] == 8, summary
    assert summary["RecordDistributionStrategy"] == "AUTO", summary
    assert isinstance(summary["StreamCreationTimestamp"], datetime.datetime), summary
    tags = kinesis.client.list_tags_for_stream(StreamName=name)["Tags"]
    assert tags == [{"Key": "empty", "Value": ""}, {"Key": "team", "Value": "blue"}], tags
    plain = kinesis.summary(kinesis.stream(3))
    assert plain["OpenShardCount"] == 3 and plain["MaxRecordSizeInKiB"] == 1024, plain
    assert plain["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}], plain
    assert plain["RetentionPeriodHours"] == 24 and plain["EncryptionType"] == "NONE", plain


# covers: CreateStream validation
def check_create_stream_judges_its_input(kinesis):
    create, name = kinesis.loose.create_stream, kinesis.name()
    refused("ValidationException", create, ShardCount=1)
    refused("ValidationException", create, StreamName="a b", ShardCount=1)
    refused("ValidationException", create, StreamName=name, ShardCount=0)
    refused("ValidationException", create, StreamName=name, ShardCount=1, MaxRecordSizeInKiB=1)
    refused(INVALID, create, StreamName=name)
    refused(INVALID, create, StreamName=name, ShardCount=1, Tags={"aws:x": ""})
    refused(INVALID, create, StreamName=name, ShardCount=1, RecordDistributionStrategy="AUTO")
    refused("ResourceNotFoundException", kinesis.client.describe_stream, StreamName=name)


# covers: CreateStream wrong-state
def check_a_name_is_used_once(kinesis):
    name = kinesis.stream()
    refused("ResourceInUseException", kinesis.client.create_stream, StreamName=name, ShardCount=1)


# covers: DescribeStream success validation not-found
def check_a_stream_is_described_page_by_page(kinesis):
    name = kinesis.stream(3)
    describe = kinesis.client.describe_stream
    whole = describe(StreamName=name)["StreamDescription"]
    assert not whole["HasMoreShards"] and len(whole["Shards"]) == 3, whole
    assert whole["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}, whole
    first = describe(StreamARN=whole["StreamARN"], Limit=2)["StreamDescription"]
    assert first["HasMoreShards"] and first["Shards"] == whole["Shards"][:2], first
    last = first["Shards"][-1]["ShardId"]
    rest = describe(StreamName=name, ExclusiveStartShardId=last)["StreamDescription"]
    assert rest["Shards"] == whole["Shards"][2:], rest
    paged = kinesis.client.get_paginator("describe_stream").paginate(
        StreamName=name, PaginationConfig={"PageSize": 1}
    )
    assert paged.build_full_result()["StreamDescription"]["Shards"] == whole["Shards"]
    refused("ValidationException", kinesis.loose.describe_stream, StreamName=name, Limit=0)
    refused("InvalidArgumentException", kinesis.loose.describe_stream)
    refused("ResourceNotFoundException", describe, StreamName="absent")


# covers: DescribeStreamSummary validation not-found
def check_only_a_stream_has_a_summary(kinesis):
    describe = kinesis.client.describe_stream_summary
    refused("ValidationException", describe, StreamARN="arn:aws:kinesis:x")
    refused("ResourceNotFoundException", describe, StreamName="absent")
    refused("ResourceNotFoundException", describe, StreamARN=absent_arn())
    refused("InvalidArgumentException", describe, StreamName=kinesis.stream(), StreamARN=absent_arn())


# covers: ListStreams success validation
def check_streams_are_listed_page_by_page(kinesis):
    names = sorted([kinesis.stream(), kinesis.stream(), kinesis.stream()])
    pages = list(kinesis.client.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2}))
    found = [name for page in pages for name in page["StreamNames"]]
    assert set(names) <= set(found) and found == sorted(set(found)), found
    summaries = [summary for page in pages for summary in page["StreamSummaries"]]
    assert [summary["StreamName"] for summary in summaries] == found, summaries
    page = kinesis.client.list_streams(Limit=1)
    assert page["HasMoreStreams"] and page["NextToken"], page
    assert kinesis.client.list_streams(NextToken=page["NextToken"], Limit=1)["StreamNames"] == found[1:2]
    after = kinesis.client.list_streams(ExclusiveStartStreamName=names[0], Limit=10_000)["StreamNames"]
    assert names[0] not in after and names[1] in after, after
    refused("ValidationException", kinesis.loose.list_streams, Limit=0)
    refused(("ExpiredNextTokenException", *INVALID), kinesis.client.list_streams, NextToken="garbled")


# covers: DeleteStream success validation not-found
# covers: DeleteStream wrong-state
def check_a_stream_with_consumers_is_deleted_only_by_force(kinesis):
    name = kinesis.stream()
    arn = kinesis.arn(name)
    kinesis.client.register_stream_consumer(StreamARN=arn, ConsumerName="reader")
    delete = kinesis.client.delete_stream
    refused("ResourceInUseException", delete, StreamName=name)
    refused("ResourceInUseException", delete, StreamName=name, EnforceConsumerDeletion=False)
    delete(StreamARN=arn, EnforceConsumerDeletion=True)
    kinesis.client.get_waiter("stream_not_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )
    refused("ResourceNotFoundException", delete, StreamName=name)
    refused("ValidationException", kinesis.loose.delete_stream, StreamName="")
    kinesis.client.create_stream(StreamName=name, ShardCount=1)
    assert kinesis.client.list_stream_consumers(StreamARN=arn)["Consumers"] == []

"""Registered consumers, and what they are pushed."""

import time

from support import absent_arn, refused

SHARD = "shardId-000000000000"


def consumer(kinesis, shards=1, name="reader"):
    """A stream and a consumer of it."""
    stream = kinesis.stream(shards)
    registered = kinesis.client.register_stream_consumer(
        StreamARN=kinesis.arn(stream), ConsumerName=name
    )["Consumer"]
    return stream, registered


def events(kinesis, arn, start, shard=SHARD):
    """The events of a subscription, as an iterator; each is noted."""
    reply = kinesis.client.subscribe_to_shard(ConsumerARN=arn, ShardId=shard, StartingPosition=start)
    for event in reply["EventStream"]:
        assert list(event) == ["SubscribeToShardEvent"], event
        yield event["SubscribeToShardEvent"]


def with_records(kinesis, stream_of_events):
    """The first event that has records; heartbeats before it are passed over."""
    for _, event in zip(range(20), stream_of_events):
        assert event["ContinuationSequenceNumber"], event
        if event["Records"]:
            return event
    raise AssertionError("20 events without a record")


# covers: RegisterStreamConsumer success
# covers: DescribeStreamConsumer success not-found
# covers: ListStreamConsumers success
# covers: DeregisterStreamConsumer success not-found
def check_consumers_come_and_go(kinesis):
    client, stream = kinesis.client, kinesis.stream()
    arn = kinesis.arn(stream)
    tags = {"team": "blue"}
    registered = [
        client.register_stream_consumer(StreamARN=arn, ConsumerName=f"reader-{number}", Tags=tags)["Consumer"]
        for number in range(3)
    ]
    first = registered[0]
    assert first["ConsumerARN"].startswith(f"{arn}/consumer/reader-0:"), first
    assert first["ConsumerStatus"] in ("CREATING", "ACTIVE"), first
    assert kinesis.summary(stream)["ConsumerCount"] == 3
    pages = list(
        client.get_paginator("list_stream_consumers").paginate(
            StreamARN=arn, PaginationConfig={"PageSize": 2}
        )
    )
    listed = [found for page in pages for found in page["Consumers"]]
    assert len(pages) == 2 and [found["ConsumerName"] for found in listed] == [
        "reader-0",
        "reader-1",
        "reader-2",
    ], pages
    made = kinesis.summary(stream)["StreamCreationTimestamp"]
    assert client.list_stream_consumers(StreamARN=arn, StreamCreationTimestamp=made)["Consumers"] == listed
    by_arn = client.describe_stream_consumer(ConsumerARN=first["ConsumerARN"])["ConsumerDescription"]
    by_name = client.describe_stream_consumer(StreamARN=arn, ConsumerName="reader-0")["ConsumerDescription"]
    assert by_arn == by_name and by_arn["StreamARN"] == arn, (by_arn, by_name)
    assert by_arn["ConsumerStatus"] == "ACTIVE", by_arn
    listed_tags = client.list_tags_for_resource(ResourceARN=first["ConsumerARN"])["Tags"]
    assert listed_tags == [{"Key": "team", "Value": "blue"}], listed_tags
    client.deregister_stream_consumer(ConsumerARN=first["ConsumerARN"])
    client.deregister_stream_consumer(StreamARN=arn, ConsumerName="reader-1")
    left = client.list_stream_consumers(StreamARN=arn)["Consumers"]
    assert [found["ConsumerName"] for found in left] == ["reader-2"], left
    gone = {"ConsumerARN": first["ConsumerARN"]}
    refused("ResourceNotFoundException", client.describe_stream_consumer, **gone)
    refused("ResourceNotFoundException", client.deregister_stream_consumer, **gone)


# covers: RegisterStreamConsumer validation not-found wrong-state
def check_register_judges_its_input(kinesis):
    stream, _ = consumer(kinesis)
    register, arn = kinesis.client.register_stream_consumer, kinesis.arn(stream)
    refused("ResourceInUseException", register, StreamARN=arn, ConsumerName="reader")
    refused("ValidationException", register, StreamARN=arn, ConsumerName="a b")
    refused("ValidationException", register, StreamARN="x", ConsumerName="reader")
    refused("ValidationException", kinesis.loose.register_stream_consumer, StreamARN=arn)
    refused("ResourceNotFoundException", register, StreamARN=absent_arn(), ConsumerName="reader")
    # more where the account has committed itself to a minimum throughput, as other checks do
    kinesis.client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    for number in range(49):
        register(StreamARN=arn, ConsumerName=f"another-{number}")
    refused("LimitExceededException", register, StreamARN=arn, ConsumerName="one-too-many")


# covers: DescribeStreamConsumer validation
# covers: DeregisterStreamConsumer validation
def check_a_consumer_is_named_by_its_arn_or_by_stream_and_name(kinesis):
    stream, registered = consumer(kinesis)
    arn, other = kinesis.arn(stream), kinesis.arn(kinesis.stream())
    for call in (kinesis.client.describe_stream_consumer, kinesis.client.deregister_stream_consumer):
        refused("InvalidArgumentException", call)
        refused("InvalidArgumentException", call, StreamARN=arn)
        refused("InvalidArgumentException", call, ConsumerName="reader")
        refused("ValidationException", call, StreamARN=arn, ConsumerName="a b")
        apart = {"ConsumerARN": registered["ConsumerARN"], "StreamARN": other, "ConsumerName": "reader"}
        refused("InvalidArgumentException", call, **apart)
    whole = {"ConsumerARN": registered["ConsumerARN"], "StreamARN": arn, "ConsumerName": "reader"}
    kinesis.client.deregister_stream_consumer(**whole)


# covers: ListStreamConsumers validation not-found
# covers: ListStreamConsumers wrong-state
def check_list_stream_consumers_judges_its_input(kinesis):
    stream, _ = consumer(kinesis)
    listed, arn = kinesis.client.list_stream_consumers, kinesis.arn(stream)
    refused("ValidationException", kinesis.loose.list_stream_consumers, StreamARN=arn, MaxResults=0)
    refused("ValidationException", kinesis.loose.list_stream_consumers)
    kinesis.client.register_stream_consumer(StreamARN=arn, ConsumerName="another")
    token = listed(StreamARN=arn, MaxResults=1)["NextToken"]
    expired = ("ExpiredNextTokenException", "InvalidArgumentException")
    refused(expired, listed, StreamARN=arn, NextToken=token[:-4])
    refused("ResourceNotFoundException", listed, StreamARN=absent_arn())
    refused("ResourceNotFoundException", listed, StreamARN=arn, StreamCreationTimestamp=1_600_000_000)
    # a token ends with the stream that it was given for
    kinesis.client.delete_stream(StreamName=stream, EnforceConsumerDeletion=True)
    kinesis.client.create_stream(StreamName=stream, ShardCount=1)
    refused("ExpiredNextTokenException", listed, StreamARN=arn, NextToken=token)


# covers: SubscribeToShard success
def check_a_subscriber_is_pushed_what_is_put(kinesis):
    stream, registered = consumer(kinesis)
    put = kinesis.client.put_record
    before = put(StreamName=stream, Data=b"before", PartitionKey="k")
    pushed = events(kinesis, registered["ConsumerARN"], {"Type": "TRIM_HORIZON"})
    event = with_records(kinesis, pushed)
    kinesis.note_event({"SubscribeToShardEvent": event})
    [record] = event["Records"]
    assert record["Data"] == b"before" and record["PartitionKey"] == "k", record
    assert record["SequenceNumber"] == before["SequenceNumber"], record
    assert event["MillisBehindLatest"] == 0, event
    started = time.monotonic()
    put(StreamName=stream, Data=b"after", PartitionKey="k")
    event = with_records(kinesis, pushed)
    took = time.monotonic() - started
    assert [record["Data"] for record in event["Records"]] == [b"after"] and took < 1, (event, took)
    kinesis.client.split_shard(StreamName=stream, ShardToSplit=SHARD, NewStartingHashKey="1000")
    *_, last = (event for _, event in zip(range(20), pushed))
    kinesis.note_event({"SubscribeToShardEvent": last})
    assert len(last["ChildShards"]) == 2 and not last.get("ContinuationSequenceNumber"), last
    # where the first subscription stopped, under every other kind of position
    for start in [
        {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": before["SequenceNumber"]},
        {"Type": "AT_TIMESTAMP", "Timestamp": record["ApproximateArrivalTimestamp"]},
    ]:
        name = f"reader-{start['Type']}".replace("_", "-")
        another = kinesis.client.register_stream_consumer(StreamARN=kinesis.arn(stream), ConsumerName=name)
        again = events(kinesis, another["Consumer"]["ConsumerARN"], start)
        found = [record["Data"] for event in again for record in event["Records"]]
        assert found == [b"before", b"after"], (start, found)


# covers: SubscribeToShard validation not-found wrong-state
def check_subscribe_judges_its_input(kinesis):
    stream, registered = consumer(kinesis)
    arn, subscribe = registered["ConsumerARN"], kinesis.client.subscribe_to_shard
    latest = {"Type": "LATEST"}

    def of(**more):
        return {"ConsumerARN": arn, "ShardId": SHARD, "StartingPosition": latest, **more}

    refused("ValidationException", subscribe, **of(ConsumerARN="x"))
    refused("ValidationException", subscribe, **of(StartingPosition={"Type": "NEWEST"}))
    refused("ValidationException", kinesis.loose.subscribe_to_shard, ConsumerARN=arn)
    refused("InvalidArgumentException", subscribe, **of(StartingPosition={"Type": "AT_SEQUENCE_NUMBER"}))
    refused("InvalidArgumentException", subscribe, **of(StartingPosition={"Type": "AT_TIMESTAMP"}))
    refused("ResourceNotFoundException", subscribe, **of(ShardId="shardId-000000000009"))
    absent = f"{absent_arn()}/consumer/reader:1700000000"
    refused("ResourceNotFoundException", subscribe, **of(ConsumerARN=absent))
    other = f"{kinesis.arn(stream)}/consumer/reader:1"
    refused("ResourceNotFoundException", subscribe, **of(ConsumerARN=other))
    refused("DryRunOperationException", subscribe, **of(DryRun=True))
    first = subscribe(**of())
    refused("ResourceInUseException", subscribe, **of())
    first["EventStream"].close()

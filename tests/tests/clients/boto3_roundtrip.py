"""boto3, unmodified, against a real broker: create, put 10,000 records, read them back from every iterator type, delete.

Usage: boto3_roundtrip.py ENDPOINT. Exits with 0 only if everything was as it should be; otherwise an assertion or the
client's own error says what was not.
"""

import datetime
import hashlib
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STREAM = "boto3-roundtrip"
SHARDS = 4
RECORDS = 10_000
BATCH = 500
HASH_KEYS = 2**128
# reads of one shard; each brings up to 10,000 records
READS_MAX = 1_000


def connect(endpoint):
    """A client as users make one; errors must show at once, so it does not retry."""
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
    )


def payload(number):
    """Bytes of varying length, not all of them text."""
    return f"record-{number}:".encode() + bytes((number + i) % 256 for i in range(number % 700))


def key(number):
    return f"user-{number % 997}"


def shard_of(partition_key):
    """The shard that takes a key, by the rules of Kinesis."""
    hashed = int.from_bytes(hashlib.md5(partition_key.encode()).digest(), "big")
    return f"shardId-{min(hashed // (HASH_KEYS // SHARDS), SHARDS - 1):012d}"


def refused(name, call, **arguments):
    """Asserts that a call fails with the exception `name`."""
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == name, f"{name} was expected: {error}"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response
    else:
        raise AssertionError(f"{name} was expected, the call succeeded: {arguments}")


def read(client, shard, kind, limit=None, **start):
    """All records of a shard from there to the tip."""
    reply = client.get_shard_iterator(
        StreamName=STREAM, ShardId=shard, ShardIteratorType=kind, **start
    )
    return follow(client, reply["ShardIterator"], limit)[0]


def follow(client, iterator, limit=None):
    """Records up to the tip, and the iterator to go on with."""
    found = []
    for _ in range(READS_MAX):
        more = {"Limit": limit} if limit else {}
        reply = client.get_records(ShardIterator=iterator, **more)
        assert limit is None or len(reply["Records"]) <= limit, len(reply["Records"])
        found += reply["Records"]
        assert reply["NextShardIterator"] != iterator, "each reply has an iterator of its own"
        iterator = reply["NextShardIterator"]
        if reply["MillisBehindLatest"] == 0:
            return found, iterator
    raise AssertionError(f"no tip after {READS_MAX} reads")


def create(client):
    refused("ResourceNotFoundException", client.describe_stream, StreamName=STREAM)
    client.create_stream(StreamName=STREAM, ShardCount=SHARDS)
    client.get_waiter("stream_exists").wait(
        StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )
    refused("ResourceInUseException", client.create_stream, StreamName=STREAM, ShardCount=SHARDS)


def check_listings(client):
    described = client.describe_stream(StreamName=STREAM)["StreamDescription"]
    assert described["StreamStatus"] == "ACTIVE", described
    assert described["StreamName"] == STREAM and described["RetentionPeriodHours"] == 24, described
    assert not described["HasMoreShards"] and len(described["Shards"]) == SHARDS, described
    assert isinstance(described["StreamCreationTimestamp"], datetime.datetime), described
    summary = client.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == SHARDS, summary
    assert summary["StreamARN"] == described["StreamARN"], summary
    by_arn = client.describe_stream_summary(StreamARN=summary["StreamARN"])
    assert by_arn["StreamDescriptionSummary"] == summary, by_arn
    assert STREAM in client.list_streams()["StreamNames"]
    shards = client.list_shards(StreamName=STREAM)["Shards"]
    assert shards == described["Shards"], (shards, described["Shards"])
    ranges = [shard["HashKeyRange"] for shard in shards]
    starts = [int(bounds["StartingHashKey"]) for bounds in ranges]
    ends = [int(bounds["EndingHashKey"]) for bounds in ranges]
    assert starts == [0] + [end + 1 for end in ends[:-1]] and ends[-1] == HASH_KEYS - 1, ranges
    first = client.list_shards(StreamName=STREAM, MaxResults=1)
    rest = client.list_shards(NextToken=first["NextToken"])
    assert first["Shards"] + rest["Shards"] == shards, (first, rest)
    return [shard["ShardId"] for shard in shards]


def put(client, numbers):
    """Puts records by PutRecords; tells, by shard, the sequence number and the payload of each, in order."""
    stored = {}
    numbers = list(numbers)
    for at in range(0, len(numbers), BATCH):
        batch = numbers[at : at + BATCH]
        entries = [{"Data": payload(number), "PartitionKey": key(number)} for number in batch]
        reply = client.put_records(StreamName=STREAM, Records=entries)
        assert reply["FailedRecordCount"] == 0, reply
        assert len(reply["Records"]) == len(batch), reply
        for number, result in zip(batch, reply["Records"]):
            assert result["ShardId"] == shard_of(key(number)), (number, result)
            stored.setdefault(result["ShardId"], []).append((result["SequenceNumber"], number))
    return stored


def check_records(found, expected):
    """What was read is what was put: same records, same numbers, same order."""
    assert [record["SequenceNumber"] for record in found] == [number for number, _ in expected], (
        f"{len(found)} records instead of {len(expected)}"
    )
    for record, (_, number) in zip(found, expected):
        assert record["Data"] == payload(number), number
        assert record["PartitionKey"] == key(number), number
    order = [int(record["SequenceNumber"]) for record in found]
    assert all(a < b for a, b in zip(order, order[1:])), "sequence numbers rise"
    arrivals = [record["ApproximateArrivalTimestamp"] for record in found]
    assert all(isinstance(arrival, datetime.datetime) for arrival in arrivals)


def check_iterators(client, shard, stored):
    whole = read(client, shard, "TRIM_HORIZON")
    check_records(whole, stored)
    check_records(read(client, shard, "TRIM_HORIZON", limit=777), stored)
    for at in (0, len(stored) // 2, len(stored) - 1):
        number = stored[at][0]
        check_records(read(client, shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number), stored[at:])
        check_records(
            read(client, shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number), stored[at + 1 :]
        )
    arrivals = [record["ApproximateArrivalTimestamp"] for record in whole]
    for at in (0, len(stored) // 2, len(stored) - 1):
        since = arrivals.index(arrivals[at])
        check_records(read(client, shard, "AT_TIMESTAMP", Timestamp=arrivals[at]), stored[since:])
    long_ago = arrivals[0] - datetime.timedelta(hours=1)
    check_records(read(client, shard, "AT_TIMESTAMP", Timestamp=long_ago), stored)


def check_latest(client, shards, stored):
    """An iterator at the tip sees what comes after it, and nothing before."""
    latest = {
        shard: client.get_shard_iterator(StreamName=STREAM, ShardId=shard, ShardIteratorType="LATEST")[
            "ShardIterator"
        ]
        for shard in shards
    }
    # between the last record and now: only later ones count
    time.sleep(0.01)
    between = datetime.datetime.now(datetime.timezone.utc)
    time.sleep(0.01)
    later = put(client, range(RECORDS, RECORDS + 400))
    assert set(later) == set(shards), "the later records reach every shard"
    for shard in shards:
        check_records(follow(client, latest[shard])[0], later[shard])
        check_records(read(client, shard, "AT_TIMESTAMP", Timestamp=between), later[shard])
        check_records(read(client, shard, "TRIM_HORIZON"), stored[shard] + later[shard])
        assert read(client, shard, "LATEST") == []


def check_single_puts(client):
    number, data = "0", b"\x00\xff single"
    reply = client.put_record(StreamName=STREAM, Data=data, PartitionKey="x", ExplicitHashKey=number)
    assert reply["ShardId"] == "shardId-000000000000", reply
    after = client.put_record(
        StreamName=STREAM,
        Data=b"",
        PartitionKey="x",
        ExplicitHashKey=number,
        SequenceNumberForOrdering=reply["SequenceNumber"],
    )
    assert int(after["SequenceNumber"]) > int(reply["SequenceNumber"]), (reply, after)
    found = read(
        client, reply["ShardId"], "AT_SEQUENCE_NUMBER", StartingSequenceNumber=reply["SequenceNumber"]
    )
    assert [record["Data"] for record in found] == [data, b""], found
    refused(
        "ValidationException",
        client.put_record,
        StreamName=STREAM,
        Data=b"x" * (2**20 + 1),
        PartitionKey="x",
    )


def delete(client, shard):
    iterator = client.get_shard_iterator(
        StreamName=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    client.delete_stream(StreamName=STREAM)
    client.get_waiter("stream_not_exists").wait(
        StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )
    refused("ResourceNotFoundException", client.get_records, ShardIterator=iterator)
    refused("ResourceNotFoundException", client.put_record, StreamName=STREAM, Data=b"", PartitionKey="x")
    assert STREAM not in client.list_streams()["StreamNames"]


def main():
    client = connect(sys.argv[1])
    started = time.monotonic()
    create(client)
    shards = check_listings(client)
    stored = put(client, range(RECORDS))
    assert sorted(stored) == shards and sum(map(len, stored.values())) == RECORDS
    for shard in shards:
        check_iterators(client, shard, stored[shard])
    check_latest(client, shards, stored)
    check_single_puts(client)
    delete(client, shards[0])
    print(f"boto3 {boto3.__version__}: {RECORDS} records in and out in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()

"""Shards: listed, split, merged, scaled."""

import datetime

from support import INVALID, refused

HASH_KEYS = 2**128


def tiles(shards):
    """Whether open shards cover the hash space once."""
    ranges = [shard["HashKeyRange"] for shard in shards]
    starts = [int(bounds["StartingHashKey"]) for bounds in ranges]
    ends = [int(bounds["EndingHashKey"]) for bounds in ranges]
    return starts == [0] + [end + 1 for end in ends[:-1]] and ends[-1] == HASH_KEYS - 1


def by_hash_key(shards):
    return sorted(shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def ids(shards):
    return [shard["ShardId"] for shard in shards]


def open_shards(kinesis, stream):
    """The shards that take records, in the order of their hash keys."""
    listed = kinesis.client.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})
    return by_hash_key(listed["Shards"])


# covers: ListShards success
# covers: SplitShard success
# covers: MergeShards success
def check_shards_split_and_merge_and_are_listed_by_every_filter(kinesis):
    name = kinesis.stream(1)
    listed = kinesis.client.list_shards
    middle = str(HASH_KEYS // 2)
    kinesis.client.split_shard(
        StreamName=name, ShardToSplit="shardId-000000000000", NewStartingHashKey=middle
    )
    low, high = open_shards(kinesis, name)
    assert tiles([low, high]) and high["HashKeyRange"]["StartingHashKey"] == middle, (low, high)
    assert low["ParentShardId"] == high["ParentShardId"] == "shardId-000000000000"
    between = datetime.datetime.now(datetime.timezone.utc)
    kinesis.client.merge_shards(
        StreamName=name, ShardToMerge=low["ShardId"], AdjacentShardToMerge=high["ShardId"]
    )
    [merged] = open_shards(kinesis, name)
    assert (merged["ParentShardId"], merged["AdjacentParentShardId"]) == (low["ShardId"], high["ShardId"])
    every = listed(StreamName=name)["Shards"]
    assert ids(every) == [f"shardId-{index:012d}" for index in range(4)], every
    assert kinesis.client.describe_stream(StreamName=name)["StreamDescription"]["Shards"] == every
    closed = [shard for shard in every if "EndingSequenceNumber" in shard["SequenceNumberRange"]]
    assert ids(closed) == ids(every)[:3], every
    for parent, child in [(0, 1), (0, 2), (1, 3), (2, 3)]:
        end = int(every[parent]["SequenceNumberRange"]["EndingSequenceNumber"])
        assert int(every[child]["SequenceNumberRange"]["StartingSequenceNumber"]) > end, every

    def by(kind, **more):
        return ids(listed(StreamName=name, ShardFilter={"Type": kind, **more})["Shards"])

    assert by("FROM_TRIM_HORIZON") == ids(every)
    assert by("AT_TRIM_HORIZON") == ids(every)[:1]
    assert by("AT_LATEST") == ids(every)[3:]
    assert by("AFTER_SHARD_ID", ShardId=ids(every)[1]) == ids(every)[2:]
    made = kinesis.summary(name)["StreamCreationTimestamp"]
    for time in (made, between, datetime.datetime.now(datetime.timezone.utc)):
        then = [shard for shard in every if shard["ShardId"] in by("AT_TIMESTAMP", Timestamp=time)]
        assert tiles(by_hash_key(then)), (time, then)
        since = by("FROM_TIMESTAMP", Timestamp=time)
        assert set(ids(then)) | {ids(every)[3]} <= set(since), (time, then, since)
    # botocore's paginator sends the name beside the token, which the service refuses
    first = listed(StreamName=name, MaxResults=3)
    rest = listed(NextToken=first["NextToken"])
    assert first["Shards"] + rest["Shards"] == every and "NextToken" not in rest, (first, rest)
    after = listed(StreamName=name, ExclusiveStartShardId=ids(every)[2])["Shards"]
    assert ids(after) == ids(every)[3:], after
    assert listed(StreamName=name, StreamCreationTimestamp=made)["Shards"] == every


# covers: ListShards validation not-found
# covers: ListShards wrong-state
def check_list_shards_judges_its_input(kinesis):
    name, listed = kinesis.stream(2), kinesis.client.list_shards
    refused("ValidationException", kinesis.loose.list_shards, StreamName=name, MaxResults=0)
    refused("ValidationException", listed, StreamName=name, ShardFilter={"Type": "EVERY"})
    refused("InvalidArgumentException", listed, StreamName=name, ShardFilter={"Type": "AT_TIMESTAMP"})
    refused("InvalidArgumentException", listed)
    token = listed(StreamName=name, MaxResults=1)["NextToken"]
    refused("InvalidArgumentException", listed, StreamName=name, NextToken=token)
    refused(("ExpiredNextTokenException", *INVALID), listed, NextToken=token[:-4])
    refused("ResourceNotFoundException", listed, StreamName="absent")
    kinesis.client.delete_stream(StreamName=name)
    refused(("ExpiredNextTokenException", "ResourceNotFoundException"), listed, NextToken=token)


# covers: SplitShard validation not-found wrong-state
def check_split_shard_judges_its_input(kinesis):
    name, split = kinesis.stream(1), kinesis.client.split_shard
    shard, middle = "shardId-000000000000", str(HASH_KEYS // 2)

    def of(shard=shard, at=middle, stream=name):
        return {"StreamName": stream, "ShardToSplit": shard, "NewStartingHashKey": at}

    refused("ValidationException", split, **of(at="x"))
    refused("ValidationException", kinesis.loose.split_shard, StreamName=name)
    refused("InvalidArgumentException", split, **of(at="0"))
    refused("InvalidArgumentException", split, **of(at=str(HASH_KEYS - 1)))
    refused("ResourceNotFoundException", split, **of(stream="absent"))
    refused("ResourceNotFoundException", split, **of(shard="shardId-000000000007"))
    split(**of())
    refused("InvalidArgumentException", split, **of())
    on_demand = kinesis.on_demand()
    refused("ValidationException", split, **of(stream=on_demand, at="100"))


# covers: MergeShards validation not-found wrong-state
def check_merge_shards_judges_its_input(kinesis):
    name, merge = kinesis.stream(3), kinesis.client.merge_shards

    def of(first, second, stream=name):
        shard = "shardId-{:012d}".format
        return {
            "StreamName": stream,
            "ShardToMerge": shard(first),
            "AdjacentShardToMerge": shard(second),
        }

    refused("ValidationException", kinesis.loose.merge_shards, StreamName=name, ShardToMerge="a b")
    refused("InvalidArgumentException", merge, **of(0, 2))
    refused("InvalidArgumentException", merge, **of(1, 0))
    refused("InvalidArgumentException", merge, **of(1, 1))
    refused("ResourceNotFoundException", merge, **of(2, 3))
    refused("ResourceNotFoundException", merge, **of(0, 1, "absent"))
    merge(**of(0, 1))
    refused("InvalidArgumentException", merge, **of(0, 1))
    on_demand = kinesis.on_demand()
    refused("ValidationException", merge, **of(0, 1, on_demand))


# covers: UpdateShardCount success validation not-found wrong-state
def check_a_stream_is_scaled(kinesis):
    name, update = kinesis.stream(2), kinesis.client.update_shard_count

    def to(target, stream=name):
        return {"StreamName": stream, "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"}

    for before, target in [(2, 4), (4, 3), (3, 2)]:
        reply = update(**to(target))
        assert (reply["CurrentShardCount"], reply["TargetShardCount"]) == (before, target), reply
        assert reply["StreamName"] == name and reply["StreamARN"] == kinesis.arn(name), reply
        shards = open_shards(kinesis, name)
        assert len(shards) == target and tiles(shards), shards
        sizes = [
            int(shard["HashKeyRange"]["EndingHashKey"]) - int(shard["HashKeyRange"]["StartingHashKey"])
            for shard in shards
        ]
        assert max(sizes) - min(sizes) <= target, sizes
    refused("ValidationException", kinesis.loose.update_shard_count, StreamName=name, TargetShardCount=0)
    refused("ValidationException", update, **{**to(4), "ScalingType": "RANDOM"})
    refused(INVALID, update, **to(10_001))
    refused(INVALID, update, **to(2))
    refused("ResourceNotFoundException", update, **to(2, "absent"))
    refused("ValidationException", update, **to(8, kinesis.on_demand()))

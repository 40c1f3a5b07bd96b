"""Records: put, and read from every kind of iterator."""

import datetime

from support import INVALID, refused

SHARD = "shardId-000000000000"
DRY = "DryRunOperationException"


# covers: PutRecord success
# covers: GetShardIterator success
# covers: GetRecords success
def check_a_record_is_put_and_read_from_every_kind_of_iterator(kinesis):
    name = kinesis.stream()
    put = kinesis.client.put_record
    first = put(StreamName=name, Data=b"\x00\xffone", PartitionKey="k")
    assert first["ShardId"] == SHARD and first["EncryptionType"] == "NONE", first
    second = put(
        StreamARN=kinesis.arn(name),
        Data=b"two",
        PartitionKey="k",
        ExplicitHashKey="0",
        SequenceNumberForOrdering=first["SequenceNumber"],
    )
    assert int(second["SequenceNumber"]) > int(first["SequenceNumber"]), (first, second)

    def read(kind, **more):
        return kinesis.client.get_records(ShardIterator=kinesis.iterator(name, kind, **more))

    whole = read("TRIM_HORIZON")
    assert [record["Data"] for record in whole["Records"]] == [b"\x00\xffone", b"two"], whole
    assert whole["MillisBehindLatest"] == 0 and whole["NextShardIterator"], whole
    at = {"StartingSequenceNumber": first["SequenceNumber"]}
    assert len(read("AT_SEQUENCE_NUMBER", **at)["Records"]) == 2
    assert len(read("AFTER_SEQUENCE_NUMBER", **at)["Records"]) == 1
    assert read("LATEST")["Records"] == []
    arrival = whole["Records"][1]["ApproximateArrivalTimestamp"]
    since = read("AT_TIMESTAMP", Timestamp=arrival)["Records"]
    assert [record["Data"] for record in since][-1:] == [b"two"], since
    page = kinesis.client.get_records(ShardIterator=kinesis.iterator(name), Limit=1)
    assert len(page["Records"]) == 1 and page["MillisBehindLatest"] > 0, page
    rest = kinesis.client.get_records(
        ShardIterator=page["NextShardIterator"], StreamARN=kinesis.arn(name)
    )
    assert [record["Data"] for record in rest["Records"]] == [b"two"], rest


# covers: PutRecord validation not-found
# covers: PutRecord wrong-state
def check_put_record_judges_its_input(kinesis):
    name, put = kinesis.stream(), kinesis.client.put_record

    def of(**more):
        return {"StreamName": name, "Data": b"x", "PartitionKey": "k", **more}

    refused("ValidationException", kinesis.loose.put_record, StreamName=name, PartitionKey="k")
    refused("ValidationException", kinesis.loose.put_record, **of(PartitionKey=""))
    refused("ValidationException", put, **of(PartitionKey="k" * 257))
    refused("ValidationException", put, **of(ExplicitHashKey="x"))
    refused("InvalidArgumentException", put, **of(ExplicitHashKey=str(2**128)))
    refused("InvalidArgumentException", put, **of(SequenceNumberForOrdering="1"))
    refused("ResourceNotFoundException", put, **of(StreamName="absent"))
    # larger than this stream takes, and no larger than another one does
    large = of(Data=b"x" * 1_500_000)
    refused(INVALID, put, **large)
    put(**{**large, "StreamName": kinesis.stream(MaxRecordSizeInKiB=2048)})
    assert kinesis.client.get_records(ShardIterator=kinesis.iterator(name))["Records"] == []


# covers: PutRecords success
def check_records_are_put_in_their_order(kinesis):
    name = kinesis.stream(2)
    records = [{"Data": b"%d" % number, "PartitionKey": f"k{number}"} for number in range(20)]
    records[3]["ExplicitHashKey"] = str(2**128 - 1)
    reply = kinesis.client.put_records(StreamName=name, Records=records)
    assert reply["FailedRecordCount"] == 0 and reply["EncryptionType"] == "NONE", reply
    assert len(reply["Records"]) == 20, reply
    assert reply["Records"][3]["ShardId"] == "shardId-000000000001", reply
    for shard in {result["ShardId"] for result in reply["Records"]}:
        expected = [
            (result["SequenceNumber"], record["Data"])
            for result, record in zip(reply["Records"], records)
            if result["ShardId"] == shard
        ]
        found = kinesis.client.get_records(ShardIterator=kinesis.iterator(name, shard=shard))["Records"]
        assert [(record["SequenceNumber"], record["Data"]) for record in found] == expected, found


# covers: PutRecords validation not-found
def check_put_records_takes_all_entries_or_none_for_their_form(kinesis):
    name, put = kinesis.stream(), kinesis.client.put_records
    good = {"Data": b"x", "PartitionKey": "k"}
    for bad, code in [
        ({"Data": b"x", "PartitionKey": "k" * 257}, "ValidationException"),
        ({"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "01"}, "ValidationException"),
        ({"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": str(2**128)}, "InvalidArgumentException"),
        ({"Data": b"x" * 1_500_000, "PartitionKey": "k"}, INVALID),
    ]:
        refused(code, put, StreamName=name, Records=[good, bad])
    refused("ValidationException", kinesis.loose.put_records, StreamName=name, Records=[])
    refused("ValidationException", put, StreamName=name, Records=[good] * 501)
    refused("ResourceNotFoundException", put, StreamName="absent", Records=[good])
    assert kinesis.client.get_records(ShardIterator=kinesis.iterator(name))["Records"] == []


# covers: PutRecords wrong-state
def check_entries_over_the_quota_of_their_shard_fail_alone(kinesis):
    limited = kinesis.limited
    name = limited.stream()
    records = [{"Data": b"x" * 700_000, "PartitionKey": "k"} for _ in range(4)]
    reply = limited.client.put_records(StreamName=name, Records=records)
    failed = [result for result in reply["Records"] if "ErrorCode" in result]
    assert failed and reply["FailedRecordCount"] == len(failed) < 4, reply
    for result in failed:
        assert result["ErrorCode"] == "ProvisionedThroughputExceededException", result
        assert name in result["ErrorMessage"] and "SequenceNumber" not in result, result
    assert "SequenceNumber" in reply["Records"][0], reply


# covers: GetShardIterator validation not-found
# covers: GetShardIterator wrong-state
def check_get_shard_iterator_judges_its_input(kinesis):
    name, get = kinesis.stream(2), kinesis.client.get_shard_iterator
    other = kinesis.client.put_record(StreamName=name, Data=b"x", PartitionKey="k", ExplicitHashKey="0")

    def of(kind="LATEST", shard=SHARD, **more):
        return {"StreamName": name, "ShardId": shard, "ShardIteratorType": kind, **more}

    refused("ValidationException", get, **of("NEWEST"))
    refused("ValidationException", kinesis.loose.get_shard_iterator, StreamName=name)
    refused("InvalidArgumentException", get, **of("AT_SEQUENCE_NUMBER"))
    refused("InvalidArgumentException", get, **of(StartingSequenceNumber=other["SequenceNumber"]))
    refused("InvalidArgumentException", get, **of("AT_SEQUENCE_NUMBER", StartingSequenceNumber="7"))
    # a number of another shard
    number = {"StartingSequenceNumber": other["SequenceNumber"]}
    refused("InvalidArgumentException", get, **of("AT_SEQUENCE_NUMBER", "shardId-000000000001", **number))
    refused("InvalidArgumentException", get, **of("AT_TIMESTAMP"))
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    refused("InvalidArgumentException", get, **of("AT_TIMESTAMP", Timestamp=later))
    refused("ResourceNotFoundException", get, **of(shard="shardId-000000000009"))
    refused("ResourceNotFoundException", get, **{**of(), "StreamName": "absent"})
    # a number from before the stream was made anew
    kinesis.client.delete_stream(StreamName=name)
    kinesis.client.create_stream(StreamName=name, ShardCount=2)
    refused("InvalidArgumentException", get, **of("AT_SEQUENCE_NUMBER", **number))


# covers: GetRecords validation not-found
def check_get_records_judges_its_iterator(kinesis):
    name, get = kinesis.stream(), kinesis.client.get_records
    iterator = kinesis.iterator(name)
    refused("ValidationException", kinesis.loose.get_records, ShardIterator=iterator, Limit=0)
    refused("ValidationException", kinesis.loose.get_records)
    refused("InvalidArgumentException", get, ShardIterator="garbled")
    refused("InvalidArgumentException", get, ShardIterator=iterator[:-8] + "AAAAAAAA")
    kinesis.client.delete_stream(StreamName=name)
    refused("ResourceNotFoundException", get, ShardIterator=iterator)


# covers: GetRecords success
def check_a_closed_shard_ends_with_its_children(kinesis):
    name = kinesis.stream()
    kinesis.client.put_record(StreamName=name, Data=b"last", PartitionKey="k")
    kinesis.client.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey="1000")
    iterator, found = kinesis.iterator(name), []
    for _ in range(5):
        page = kinesis.client.get_records(ShardIterator=iterator)
        found += [record["Data"] for record in page["Records"]]
        assert ("NextShardIterator" in page) != ("ChildShards" in page), page
        if "ChildShards" in page:
            break
        iterator = page["NextShardIterator"]
    assert found == [b"last"], found
    assert [child["ParentShards"] for child in page["ChildShards"]] == [[SHARD], [SHARD]], page
    ends = [child["HashKeyRange"]["EndingHashKey"] for child in page["ChildShards"]]
    assert ends == ["999", str(2**128 - 1)], page


# covers: GetRecords success
def check_dry_runs_do_nothing(kinesis):
    name, client = kinesis.stream(), kinesis.client
    record = {"Data": b"x", "PartitionKey": "k"}
    refused(DRY, client.put_record, StreamName=name, **record, DryRun=True)
    refused(DRY, client.put_records, StreamName=name, Records=[record], DryRun=True)
    iterator = {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "LATEST"}
    refused(DRY, client.get_shard_iterator, **iterator, DryRun=True)
    refused(DRY, client.get_records, ShardIterator=kinesis.iterator(name), DryRun=True)
    refused("ResourceNotFoundException", client.put_record, StreamName="absent", **record, DryRun=True)
    assert client.get_records(ShardIterator=kinesis.iterator(name))["Records"] == []

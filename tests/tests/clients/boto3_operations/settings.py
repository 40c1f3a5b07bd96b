"""Settings of a stream: retention, mode, record size, distribution, throughput, monitoring, encryption."""

from support import INVALID, absent_arn, refused

METRICS = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
]
KMS = ("KMSNotFoundException", "KMSInvalidStateException", "KMSAccessDeniedException", "KMSDisabledException")


# covers: IncreaseStreamRetentionPeriod success validation not-found wrong-state
# covers: DecreaseStreamRetentionPeriod success validation not-found wrong-state
def check_retention_goes_up_and_down(kinesis):
    name = kinesis.stream()
    up, down = kinesis.client.increase_stream_retention_period, kinesis.client.decrease_stream_retention_period

    def to(hours, stream=name):
        return {"StreamName": stream, "RetentionPeriodHours": hours}

    up(**to(8760))
    assert kinesis.summary(name)["RetentionPeriodHours"] == 8760
    down(StreamARN=kinesis.arn(name), RetentionPeriodHours=48)
    assert kinesis.summary(name)["RetentionPeriodHours"] == 48
    # each goes its own way only
    refused("InvalidArgumentException", up, **to(47))
    refused("InvalidArgumentException", down, **to(49))
    refused("InvalidArgumentException", down, **to(23))
    refused(INVALID, up, **to(8761))
    refused("ValidationException", kinesis.loose.increase_stream_retention_period, StreamName=name)
    refused("ValidationException", kinesis.loose.decrease_stream_retention_period, StreamName="")
    refused("ResourceNotFoundException", up, **to(48, "absent"))
    refused("ResourceNotFoundException", down, **to(48, "absent"))
    assert kinesis.summary(name)["RetentionPeriodHours"] == 48


# covers: UpdateStreamMode success validation not-found wrong-state
def check_the_mode_is_switched_and_shards_stay(kinesis):
    name, update = kinesis.stream(3), kinesis.client.update_stream_mode
    arn = kinesis.arn(name)
    on_demand, provisioned = {"StreamMode": "ON_DEMAND"}, {"StreamMode": "PROVISIONED"}
    # throughput is kept ready for on-demand streams only
    refused(INVALID, update, StreamARN=arn, StreamModeDetails=provisioned, WarmThroughputMiBps=8)
    kinesis.client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    update(StreamARN=arn, StreamModeDetails=on_demand, WarmThroughputMiBps=16)
    summary = kinesis.summary(name)
    assert summary["StreamModeDetails"] == on_demand and summary["OpenShardCount"] == 3, summary
    assert summary["WarmThroughput"]["TargetMiBps"] == 16, summary
    update(StreamARN=arn, StreamModeDetails=provisioned)
    summary = kinesis.summary(name)
    assert summary["StreamModeDetails"] == provisioned and summary["OpenShardCount"] == 3, summary
    refused("ValidationException", update, StreamARN=arn, StreamModeDetails={"StreamMode": "FREE"})
    refused("ValidationException", kinesis.loose.update_stream_mode, StreamARN=arn)
    refused("ResourceNotFoundException", update, StreamARN=absent_arn(), StreamModeDetails=on_demand)


# covers: UpdateMaxRecordSize success validation not-found
def check_larger_records_are_taken_when_the_stream_says_so(kinesis):
    name, update = kinesis.stream(), kinesis.client.update_max_record_size
    arn, large = kinesis.arn(name), {"StreamName": name, "Data": b"x" * 3_000_000, "PartitionKey": "k"}
    refused(INVALID, kinesis.client.put_record, **large)
    update(StreamARN=arn, MaxRecordSizeInKiB=10_240)
    kinesis.client.put_record(**large)
    assert kinesis.summary(name)["MaxRecordSizeInKiB"] == 10_240
    [record] = kinesis.client.get_records(ShardIterator=kinesis.iterator(name))["Records"]
    assert record["Data"] == large["Data"]
    update(StreamARN=arn, MaxRecordSizeInKiB=1024)
    refused(INVALID, kinesis.client.put_record, **large)
    for bad in (1023, 10_241):
        refused("ValidationException", kinesis.loose.update_max_record_size, StreamARN=arn, MaxRecordSizeInKiB=bad)
    refused("InvalidArgumentException", update, MaxRecordSizeInKiB=1024)
    refused("ResourceNotFoundException", update, StreamARN=absent_arn(), MaxRecordSizeInKiB=1024)


# covers: UpdateStreamRecordDistributionStrategy success validation not-found wrong-state
def check_records_without_a_key_need_automatic_distribution(kinesis):
    name = kinesis.on_demand()
    update, arn = kinesis.client.update_stream_record_distribution_strategy, kinesis.arn(name)
    keyless = {"StreamName": name, "Data": b"x"}
    refused(INVALID, kinesis.client.put_record, **keyless)
    update(StreamARN=arn, RecordDistributionStrategy="AUTO")
    assert kinesis.summary(name)["RecordDistributionStrategy"] == "AUTO"
    kinesis.client.put_record(**keyless)
    reply = kinesis.client.put_records(StreamName=name, Records=[{"Data": b"y"}, {"Data": b"z"}])
    assert reply["FailedRecordCount"] == 0, reply
    update(StreamARN=arn, RecordDistributionStrategy="USER_PARTITION_KEY")
    refused(INVALID, kinesis.client.put_record, **keyless)
    refused("ValidationException", update, StreamARN=arn, RecordDistributionStrategy="RANDOM")
    provisioned = kinesis.arn(kinesis.stream())
    refused("InvalidArgumentException", update, StreamARN=provisioned, RecordDistributionStrategy="AUTO")
    refused("ResourceNotFoundException", update, StreamARN=absent_arn(), RecordDistributionStrategy="AUTO")


# covers: UpdateStreamWarmThroughput success validation not-found wrong-state
def check_throughput_is_kept_ready_for_on_demand_streams(kinesis):
    kinesis.client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    name, update = kinesis.on_demand(), kinesis.client.update_stream_warm_throughput
    reply = update(StreamName=name, WarmThroughputMiBps=24)
    assert reply["StreamName"] == name and reply["StreamARN"] == kinesis.arn(name), reply
    assert reply["WarmThroughput"]["TargetMiBps"] == 24, reply
    assert kinesis.summary(name)["WarmThroughput"] == reply["WarmThroughput"]
    refused("ValidationException", kinesis.loose.update_stream_warm_throughput, StreamName=name)
    refused("ValidationException", kinesis.loose.update_stream_warm_throughput, StreamName=name, WarmThroughputMiBps=-1)
    refused(INVALID, update, StreamName=kinesis.stream(), WarmThroughputMiBps=24)
    refused("ResourceNotFoundException", update, StreamName="absent", WarmThroughputMiBps=24)


# covers: EnableEnhancedMonitoring success validation not-found
# covers: DisableEnhancedMonitoring success validation not-found
def check_metrics_of_shards_are_turned_on_and_off(kinesis):
    name, client = kinesis.stream(), kinesis.client
    on, off = client.enable_enhanced_monitoring, client.disable_enhanced_monitoring
    reply = on(StreamName=name, ShardLevelMetrics=METRICS[:2])
    assert reply["CurrentShardLevelMetrics"] == [], reply
    assert sorted(reply["DesiredShardLevelMetrics"]) == sorted(METRICS[:2]), reply
    assert reply["StreamName"] == name and reply["StreamARN"] == kinesis.arn(name), reply
    reply = on(StreamARN=kinesis.arn(name), ShardLevelMetrics=["ALL"])
    assert sorted(reply["DesiredShardLevelMetrics"]) == sorted(METRICS), reply
    reply = off(StreamName=name, ShardLevelMetrics=METRICS[1:])
    assert sorted(reply["CurrentShardLevelMetrics"]) == sorted(METRICS), reply
    assert reply["DesiredShardLevelMetrics"] == METRICS[:1], reply
    shown = [{"ShardLevelMetrics": METRICS[:1]}]
    assert kinesis.summary(name)["EnhancedMonitoring"] == shown
    assert client.describe_stream(StreamName=name)["StreamDescription"]["EnhancedMonitoring"] == shown
    for call, loose in [
        (on, kinesis.loose.enable_enhanced_monitoring),
        (off, kinesis.loose.disable_enhanced_monitoring),
    ]:
        refused("ValidationException", call, StreamName=name, ShardLevelMetrics=["Weather"])
        refused("ValidationException", loose, StreamName=name, ShardLevelMetrics=[])
        refused("ValidationException", loose, StreamName=name)
        refused("ResourceNotFoundException", call, StreamName="absent", ShardLevelMetrics=["ALL"])


# covers: StartStreamEncryption success validation not-found wrong-state
# covers: StopStreamEncryption success validation not-found wrong-state
def check_records_are_encrypted_while_the_stream_says_so(kinesis):
    name, key, client = kinesis.stream(), kinesis.key_id, kinesis.client
    start, stop = client.start_stream_encryption, client.stop_stream_encryption

    def of(key=key, stream=name, kind="KMS"):
        return {"StreamName": stream, "EncryptionType": kind, "KeyId": key}

    def put(data):
        records = [{"Data": data, "PartitionKey": "k"}]
        many = client.put_records(StreamName=name, Records=records)
        single = client.put_record(StreamName=name, **records[0])
        assert many["EncryptionType"] == single["EncryptionType"], (many, single)
        return single["EncryptionType"]

    assert put(b"clear") == "NONE"
    # nothing to be done
    stop(**of())
    start(**of())
    summary = kinesis.summary(name)
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", key), summary
    described = client.describe_stream(StreamName=name)["StreamDescription"]
    assert (described["EncryptionType"], described["KeyId"]) == ("KMS", key), described
    assert put(b"sealed") == "KMS"
    refused("InvalidArgumentException", stop, **of(key="alias/another"))
    consumer = client.register_stream_consumer(StreamARN=kinesis.arn(name), ConsumerName="reader")["Consumer"]
    subscription = client.subscribe_to_shard(
        ConsumerARN=consumer["ConsumerARN"],
        ShardId="shardId-000000000000",
        StartingPosition={"Type": "TRIM_HORIZON"},
    )
    stop(**of())
    assert kinesis.summary(name)["EncryptionType"] == "NONE"
    assert put(b"clear again") == "NONE"
    found = client.get_records(ShardIterator=kinesis.iterator(name))["Records"]
    told = [(record["Data"], record.get("EncryptionType", "NONE")) for record in found]
    expected = [(b"clear", "NONE"), (b"sealed", "KMS"), (b"clear again", "NONE")]
    assert told == [each for each in expected for _ in range(2)], told
    pushed = []
    for event in subscription["EventStream"]:
        kinesis.note_event(event)
        pushed += event["SubscribeToShardEvent"]["Records"]
        if len(pushed) >= len(found):
            break
    subscription["EventStream"].close()
    assert [record["Data"] for record in pushed] == [record["Data"] for record in found], pushed
    refused(KMS, start, **of(key="alias/absent"))
    refused("ValidationException", start, **of(kind="ROT13"))
    refused(INVALID, start, **of(kind="NONE"))
    refused("ValidationException", kinesis.loose.start_stream_encryption, StreamName=name)
    refused("ValidationException", kinesis.loose.stop_stream_encryption, StreamName=name)
    refused("ResourceNotFoundException", start, **of(stream="absent"))
    refused("ResourceNotFoundException", stop, **of(stream="absent"))

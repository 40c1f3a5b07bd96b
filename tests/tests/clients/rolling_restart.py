"""boto3 in its standard retry mode with up to six attempts, while the broker is restarted again and again: it puts and reads,
and no call may raise.

Usage: rolling_restart.py ENDPOINT STREAM STOP. Ends when the file STOP is there; prints what was acknowledged and what was read,
each as sequence number and data. Any exception ends it with an error.
"""

import json
import os
import sys
import threading

import boto3
from botocore.config import Config


def connect(endpoint):
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=5, read_timeout=30),
    )


def put(client, stream, stop, acknowledged):
    count = 0
    while not os.path.exists(stop):
        records = [{"Data": f"record {count + n}".encode(), "PartitionKey": f"k{n}"} for n in range(20)]
        count += len(records)
        # records that are refused are repeated by the application, as the documentation of PutRecords asks
        while records:
            answer = client.put_records(StreamName=stream, Records=records)
            results = answer["Records"]
            acknowledged += [(r["SequenceNumber"], record["Data"].decode()) for record, r in zip(records, results) if "SequenceNumber" in r]
            records = [record for record, r in zip(records, results) if "ErrorCode" in r]


def read(client, stream, stop, seen):
    shards = [s["ShardId"] for s in client.list_shards(StreamName=stream)["Shards"]]
    iterators = {
        shard: client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        for shard in shards
    }
    while not os.path.exists(stop):
        for shard in shards:
            page = client.get_records(ShardIterator=iterators[shard], Limit=1000)
            seen += [(r["SequenceNumber"], r["Data"].decode()) for r in page["Records"]]
            iterators[shard] = page["NextShardIterator"]


def main():
    endpoint, stream, stop = sys.argv[1:]
    acknowledged, seen, errors = [], [], []

    def guarded(work, results):
        try:
            work(connect(endpoint), stream, stop, results)
        except Exception as error:  # told below, with all others
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=task) for task in [(put, acknowledged), (read, seen)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        sys.exit("\n".join(errors))
    print(json.dumps({"acknowledged": acknowledged, "read": seen}))


main()

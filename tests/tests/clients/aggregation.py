"""aws-kinesis-agg, unmodified: packs and unpacks what a test gives it.

Usage: aggregation.py INPUT OUTPUT, files of JSON. Input: {"pack": [[record, ...], ...]} gives a packed record for each
batch; {"unpack": [record, ...]} gives the records within. A record: {"key", "hash" or null, "data" in base64}.
"""

import base64
import datetime
import json
import sys

from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records


def pack(batch):
    aggregator = RecordAggregator()
    for record in batch:
        full = aggregator.add_user_record(record["key"], base64.b64decode(record["data"]), record["hash"])
        assert full is None, "a batch fits one record"
    key, hashed, data = aggregator.clear_and_get().get_contents()
    return {"key": key, "hash": hashed, "data": base64.b64encode(data).decode()}


def unpack(records):
    given = [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["key"],
                "sequenceNumber": "1",
                "approximateArrivalTimestamp": datetime.datetime.now().timestamp(),
                "data": record["data"],
            }
        }
        for record in records
    ]
    for record in deaggregate_records(given):
        inner = record["kinesis"]
        data = inner["data"]
        yield {
            "key": inner["partitionKey"],
            "hash": inner.get("explicitHashKey"),
            "data": data.decode() if isinstance(data, bytes) else data,
            "at": inner.get("subSequenceNumber"),
        }


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        work = json.load(file)
    if "pack" in work:
        answer = [pack(batch) for batch in work["pack"]]
    else:
        answer = list(unpack(work["unpack"]))
    with open(target, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()

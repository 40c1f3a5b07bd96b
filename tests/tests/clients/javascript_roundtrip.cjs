// @aws-sdk/client-kinesis, unmodified: records in and out, pages of shards, errors by their class. Its requests go over
// HTTP/2 in clear text, its default for this service.
//
// Usage: javascript_roundtrip.cjs ENDPOINT. Exits with 0 only if everything was as it should be.
"use strict";

const assert = require("node:assert/strict");
const kinesis = require("@aws-sdk/client-kinesis");

const STREAM = "javascript-roundtrip";
const SHARDS = 5;

const client = new kinesis.KinesisClient({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});
const call = (command, input) => client.send(new kinesis[`${command}Command`](input));

// The records of a shard from its beginning to its tip.
async function readAll(shard) {
  const input = { StreamName: STREAM, ShardId: shard, ShardIteratorType: "TRIM_HORIZON" };
  let iterator = (await call("GetShardIterator", input)).ShardIterator;
  const found = [];
  for (let reads = 0; reads < 100; reads += 1) {
    const page = await call("GetRecords", { ShardIterator: iterator, Limit: 70 });
    found.push(...page.Records);
    iterator = page.NextShardIterator;
    if (page.MillisBehindLatest === 0) {
      return found;
    }
  }
  throw new Error("no tip after 100 reads");
}

async function refused(Exception, command, input) {
  await assert.rejects(call(command, input), (error) => {
    assert.ok(error instanceof Exception, `${Exception.name} was expected: ${error}`);
    assert.equal(error.$metadata.httpStatusCode, 400);
    assert.ok(error.$metadata.requestId, "replies name their request");
    assert.ok(error.message, "an error tells what happened");
    return true;
  });
}

async function pages() {
  const whole = (await call("ListShards", { StreamName: STREAM })).Shards;
  assert.equal(whole.length, SHARDS);
  const found = [];
  let input = { StreamName: STREAM, MaxResults: 2 };
  for (let count = 0; input && count < 10; count += 1) {
    const page = await call("ListShards", input);
    assert.ok(page.Shards.length <= 2);
    found.push(...page.Shards);
    input = page.NextToken && { NextToken: page.NextToken, MaxResults: 2 };
  }
  assert.deepEqual(found, whole);
  return whole.map((shard) => shard.ShardId);
}

async function records(shards) {
  const data = Array.from({ length: 300 }, (_, number) => Buffer.alloc(number * 3, number));
  const entries = data.map((bytes, number) => ({ Data: bytes, PartitionKey: `k${number}` }));
  const reply = await call("PutRecords", { StreamName: STREAM, Records: entries });
  assert.equal(reply.FailedRecordCount, 0);
  const single = await call("PutRecord", { StreamName: STREAM, Data: Buffer.from("日本"), PartitionKey: "日本" });
  const stored = [...reply.Records, single].map((result, number) => ({
    shard: result.ShardId,
    number: result.SequenceNumber,
    data: data[number] ?? Buffer.from("日本"),
  }));
  for (const shard of shards) {
    const found = await readAll(shard);
    const expected = stored.filter((record) => record.shard === shard);
    assert.deepEqual(found.map((record) => record.SequenceNumber), expected.map((record) => record.number));
    found.forEach((record, at) => {
      assert.ok(Buffer.from(record.Data).equals(expected[at].data), record.SequenceNumber);
      assert.ok(Math.abs(Date.now() - record.ApproximateArrivalTimestamp) < 60_000);
    });
  }
}

async function main() {
  await refused(kinesis.ResourceNotFoundException, "DescribeStream", { StreamName: STREAM });
  await call("CreateStream", { StreamName: STREAM, ShardCount: SHARDS });
  await kinesis.waitUntilStreamExists({ client, maxWaitTime: 20 }, { StreamName: STREAM });
  await refused(kinesis.ResourceInUseException, "CreateStream", { StreamName: STREAM, ShardCount: SHARDS });
  await refused(kinesis.ValidationException, "CreateStream", { StreamName: "a b", ShardCount: 1 });
  await refused(kinesis.InvalidArgumentException, "GetRecords", { ShardIterator: "garbled" });
  await records(await pages());
  await call("DeleteStream", { StreamName: STREAM });
  await refused(kinesis.ResourceNotFoundException, "DescribeStreamSummary", { StreamName: STREAM });
  client.destroy();
  console.log(`@aws-sdk/client-kinesis ${require("@aws-sdk/client-kinesis/package.json").version}: records in and out`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

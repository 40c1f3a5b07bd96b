// @aws-sdk/client-kinesis, unmodified: SubscribeToShard over HTTP/2 in clear text. Records come within a second of their
// put; a second subscription is refused at first; the shard's end brings its children.
//
// Usage: javascript_subscribe.cjs ENDPOINT. Exits with 0 only if everything was as it should be.
"use strict";

const assert = require("node:assert/strict");
const kinesis = require("@aws-sdk/client-kinesis");

const STREAM = "javascript-subscribe";
const SHARD = "shardId-000000000000";
const ROUNDS = 10;
const SOON_MS = 1_000;

const client = new kinesis.KinesisClient({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});
const call = (command, input) => client.send(new kinesis[`${command}Command`](input));
const put = (data) => call("PutRecord", { StreamName: STREAM, Data: Buffer.from(data), PartitionKey: "k" });

async function subscribe(consumer, position) {
  const input = { ConsumerARN: consumer, ShardId: SHARD, StartingPosition: position };
  const reply = await call("SubscribeToShard", input);
  return reply.EventStream[Symbol.asyncIterator]();
}

async function nextEvent(events) {
  const { value, done } = await events.next();
  assert.ok(!done, "the stream of events ended");
  assert.ok(value.SubscribeToShardEvent, `an event was expected: ${JSON.stringify(value)}`);
  return value.SubscribeToShardEvent;
}

// The data of the first event that has any; heartbeats before it are passed over.
async function nextData(events) {
  for (let count = 0; count < 20; count += 1) {
    const event = await nextEvent(events);
    assert.ok(event.ContinuationSequenceNumber, "every event says where to go on");
    if (event.Records.length > 0) {
      return event.Records.map((record) => Buffer.from(record.Data).toString());
    }
  }
  throw new Error("20 events without a record");
}

async function main() {
  await call("CreateStream", { StreamName: STREAM, ShardCount: 1 });
  await kinesis.waitUntilStreamExists({ client, maxWaitTime: 20 }, { StreamName: STREAM });
  const summary = (await call("DescribeStreamSummary", { StreamName: STREAM })).StreamDescriptionSummary;
  const register = { StreamARN: summary.StreamARN, ConsumerName: "reader" };
  const consumer = (await call("RegisterStreamConsumer", register)).Consumer.ConsumerARN;

  const unknown = { ConsumerARN: consumer, ShardId: "shardId-000000000009", StartingPosition: { Type: "LATEST" } };
  await assert.rejects(call("SubscribeToShard", unknown), kinesis.ResourceNotFoundException);

  await put("before");
  const events = await subscribe(consumer, { Type: "TRIM_HORIZON" });
  assert.deepEqual(await nextData(events), ["before"]);
  let slowest = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const began = performance.now();
    await put(`event ${round}`);
    assert.deepEqual(await nextData(events), [`event ${round}`]);
    slowest = Math.max(slowest, performance.now() - began);
  }
  assert.ok(slowest < SOON_MS, `an event took ${slowest} ms`);
  await assert.rejects(subscribe(consumer, { Type: "LATEST" }), kinesis.ResourceInUseException);

  await call("SplitShard", { StreamName: STREAM, ShardToSplit: SHARD, NewStartingHashKey: "1000" });
  let children = [];
  for (let count = 0; count < 20 && children.length === 0; count += 1) {
    children = (await nextEvent(events)).ChildShards ?? [];
  }
  assert.deepEqual(children.map((child) => child.ShardId), ["shardId-000000000001", "shardId-000000000002"]);
  assert.ok((await events.next()).done, "nothing follows the children");
  client.destroy();
  console.log(`@aws-sdk/client-kinesis: pushed over HTTP/2, slowest of ${ROUNDS} events ${slowest.toFixed(1)} ms after its put began`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

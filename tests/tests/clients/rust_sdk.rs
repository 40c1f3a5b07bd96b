//! The official Rust SDK, over HTTP/1.1 in clear text: records in and out, typed errors, subscriptions.

use crate::broker::verifying;
use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
    SubscribeToShardEventStream,
};
use aws_sdk_kinesis::{Client, Config};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::Broker;
use tokio::time::{Instant, timeout};

const STREAM: &str = "rust-sdk";
const SHARD: &str = "shardId-000000000000";
/// From a put to the event that brings the record.
const SOON: Duration = Duration::from_secs(1);
/// A reply or an event that does not come at all.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);

type Events = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;

pub(crate) fn client(broker: &Broker) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(broker.url());
    Client::from_conf(config.build())
}

async fn put(client: &Client, data: &str) -> Result<String> {
    let put = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new(data));
    Ok(put.send().await?.sequence_number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_sdk_puts_and_reads_records_and_gets_typed_errors() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = verifying(&home, &[]).await?;
    let client = client(&broker);
    let absent = client.describe_stream_summary().stream_name(STREAM).send().await;
    let error = absent.expect_err("the stream is not there yet").into_service_error();
    assert!(error.is_resource_not_found_exception(), "{error:?}");

    client.create_stream().stream_name(STREAM).shard_count(2).send().await?;
    let again = client.create_stream().stream_name(STREAM).shard_count(2).send().await;
    let error = again.expect_err("the name is used").into_service_error();
    assert!(error.is_resource_in_use_exception(), "{error:?}");

    let data: Vec<Vec<u8>> = (0..200u8).map(|number| vec![number; usize::from(number)]).collect();
    let entries = data.iter().enumerate().map(|(number, data)| {
        let entry = PutRecordsRequestEntry::builder().partition_key(format!("k{number}"));
        Ok(entry.data(Blob::new(data.clone())).build()?)
    });
    let entries: Vec<_> = entries.collect::<Result<_>>()?;
    let reply = client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await?;
    assert_eq!((reply.failed_record_count(), reply.records().len()), (Some(0), 200));

    let (mut found, mut expected) = (Vec::new(), Vec::new());
    let shards = client.list_shards().stream_name(STREAM).send().await?;
    assert_eq!(shards.shards().len(), 2);
    for shard in shards.shards() {
        let of_shard = reply
            .records()
            .iter()
            .zip(&data)
            .filter(|(result, _)| result.shard_id() == Some(&shard.shard_id));
        expected.extend(
            of_shard.map(|(result, data)| {
                (result.sequence_number().unwrap_or_default().to_owned(), data.clone())
            }),
        );
        let iterator = client.get_shard_iterator().stream_name(STREAM).shard_id(&shard.shard_id);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
        let page = client.get_records().set_shard_iterator(iterator.shard_iterator).send().await?;
        assert_eq!(page.millis_behind_latest(), Some(0));
        for record in page.records() {
            record.approximate_arrival_timestamp().context("records have a time")?.to_millis()?;
            found.push((record.sequence_number.clone(), record.data.clone().into_inner()));
        }
    }
    assert_eq!(found, expected);
    let garbled = client.get_records().shard_iterator("garbled").send().await;
    let error = garbled.expect_err("that is no iterator").into_service_error();
    assert!(error.is_invalid_argument_exception(), "{error:?}");
    broker.assert_alive().await
}

async fn next(events: &mut Events) -> Result<SubscribeToShardEvent> {
    match timeout(REPLY_DEADLINE, events.recv()).await.context("no event comes")?? {
        Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => Ok(event),
        other => bail!("an event was expected: {other:?}"),
    }
}

/// The first event that has records; heartbeats before it are passed over.
async fn next_with_records(events: &mut Events) -> Result<SubscribeToShardEvent> {
    for _ in 0..20 {
        let event = next(events).await?;
        if !event.records().is_empty() {
            return Ok(event);
        }
    }
    bail!("20 events without a record")
}

fn texts(event: &SubscribeToShardEvent) -> Vec<String> {
    let text = |data: &Blob| String::from_utf8_lossy(data.as_ref()).into_owned();
    event.records().iter().map(|record| text(&record.data)).collect()
}

async fn next_data(events: &mut Events) -> Result<Vec<String>> {
    Ok(texts(&next_with_records(events).await?))
}

async fn subscribe(client: &Client, consumer: &str, from: StartingPosition) -> Result<Events> {
    let call = client.subscribe_to_shard().consumer_arn(consumer).shard_id(SHARD).starting_position(from);
    Ok(timeout(REPLY_DEADLINE, call.send()).await.context("no reply to SubscribeToShard")??.event_stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_sdk_is_pushed_records_until_a_shard_is_split() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = verifying(&home, &[]).await?;
    let client = client(&broker);
    let consumer = consumer_of(&client).await?;
    put(&client, "before").await?;

    let from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    let mut events = subscribe(&client, &consumer, from.clone()).await?;
    assert_eq!(next_data(&mut events).await?, ["before"]);
    for round in 0..10 {
        let began = Instant::now();
        put(&client, &format!("event {round}")).await?;
        assert_eq!(next_data(&mut events).await?, [format!("event {round}")]);
        assert!(began.elapsed() < SOON, "an event took {:?}", began.elapsed());
    }
    let again = client.subscribe_to_shard().consumer_arn(&consumer).shard_id(SHARD).starting_position(from);
    let error = again.send().await.expect_err("within five seconds of the first").into_service_error();
    assert!(error.is_resource_in_use_exception(), "{error:?}");

    client
        .split_shard()
        .stream_name(STREAM)
        .shard_to_split(SHARD)
        .new_starting_hash_key("1000")
        .send()
        .await?;
    let mut children = Vec::new();
    for _ in 0..20 {
        let event = next(&mut events).await?;
        if !event.child_shards().is_empty() {
            children = event.child_shards().iter().map(|child| child.shard_id.clone()).collect();
            break;
        }
    }
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    let end = timeout(REPLY_DEADLINE, events.recv()).await.context("the stream of events does not end")??;
    assert!(end.is_none(), "nothing follows the children: {end:?}");
    broker.assert_alive().await
}

async fn consumer_of(client: &Client) -> Result<String> {
    client.create_stream().stream_name(STREAM).shard_count(1).send().await?;
    let summary = client.describe_stream_summary().stream_name(STREAM).send().await?;
    let arn = summary.stream_description_summary.context("a summary")?.stream_arn;
    let register = client.register_stream_consumer().stream_arn(&arn).consumer_name("reader").send().await?;
    Ok(register.consumer.context("a consumer")?.consumer_arn)
}

// covers: SubscribeToShard restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_goes_on_behind_its_last_event_after_a_kill() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = verifying(&home, &[]).await?;
    let consumer = {
        let client = client(&broker);
        let consumer = consumer_of(&client).await?;
        put(&client, "one").await?;
        consumer
    };
    let mut from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    for (data, next_data) in [("one", "two"), ("two", "three"), ("three", "four")] {
        let client = client(&broker);
        // the subscription ended with the broker, so nothing is to be waited for
        let mut events = subscribe(&client, &consumer, from).await?;
        let event = next_with_records(&mut events).await?;
        assert_eq!(texts(&event), [data]);
        from = StartingPosition::builder()
            .r#type(ShardIteratorType::AfterSequenceNumber)
            .sequence_number(event.continuation_sequence_number)
            .build()?;
        put(&client, next_data).await?;
        broker.kill_9().await?;
        let end = timeout(REPLY_DEADLINE, async { while let Ok(Some(_)) = events.recv().await {} }).await;
        assert!(end.is_ok(), "a subscription ends with its broker");
        broker = broker.restart().await?;
    }
    Ok(())
}

//! Records from a Kinesis endpoint, polled and fanned out: where reads begin, how they go on, what they do when it breaks.

use crate::world::{APP, LEASE, Log, On, SOON, STREAM, World, hold, start};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::Duration;
use tidemill_consumer::{Checkpointing, InitialPosition, SequenceNumber, Worker, WorkerBuilder};
use tidemill_proto::aggregate;
use tidemill_tests::{Until, until};
use tidemill_types::{Clock, PartitionKey, Record, SystemClock};
use tokio::time::sleep;

macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        on_both!(@on polling, On::Polling, $($case),+);
        on_both!(@on fan_out, On::FanOut, $($case),+);
    };
    (@on $name:ident, $on:expr, $($case:ident),+) => {
        mod $name {
            use super::On;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                super::$case($on).await
            })+
        }
    };
}

on_both!(
    a_worker_that_begins_at_the_newest_or_at_a_time_reads_what_came_since,
    a_checkpoint_within_an_aggregated_record_is_gone_on_from,
    records_go_on_when_the_service_was_killed_and_started_again,
);

async fn a_worker_that_begins_at_the_newest_or_at_a_time_reads_what_came_since(on: On) -> Result<()> {
    let Some(world) = World::start(on, 2).await? else { return Ok(()) };
    world.put(0..50).await?;
    sleep(Duration::from_millis(20)).await;
    let time = SystemClock::new().now();
    sleep(Duration::from_millis(20)).await;
    let since = world.put(50..100).await?;
    let newest = Log::default();
    let builder = world.builder("one")?.initial_position(InitialPosition::Latest);
    let one = start(builder, "one", &newest)?;
    hold(&[&one], &[2]).await?;
    let begun = until(SOON, || {
        let status = one.status();
        std::future::ready(status.shards.iter().all(|shard| shard.lag_ms == Some(0)))
    });
    ensure!(begun.await != Until::Late, "reads do not begin: {:?}", one.status());
    let later = world.put(100..150).await?;
    newest.all_of(&later).await?;
    ensure!(newest.entries().len() == later.len(), "only what came since: {:?}", newest.entries().first());
    one.stop(SOON).await?;

    let at_time = Log::default();
    let dynalite = world.dynalite.as_ref().context("leases are in it")?;
    let builder = world.builder("two")?.leases_in_dynamo_db(dynalite.table().table("another"));
    let two = start(builder.initial_position(InitialPosition::AtTimestamp(time)), "two", &at_time)?;
    at_time.all_of(&since).await?;
    at_time.all_of(&later).await?;
    ensure!(at_time.counts().len() == since.len() + later.len(), "nothing from before that time");
    two.stop(SOON).await?;
    Ok(())
}

/// User records under keys of their own, in one.
fn aggregated(texts: &[&str]) -> Result<Record> {
    let record = |text: &&str| Ok(Record::new(PartitionKey::new(text)?, (*text).to_owned())?);
    Ok(aggregate::pack(&texts.iter().map(record).collect::<Result<Vec<_>>>()?)?)
}

/// Processes so many records one by one, checkpoints the last, and ends as if killed.
async fn process_some(builder: WorkerBuilder, count: usize) -> Result<Vec<(SequenceNumber, u64, String)>> {
    let (mut batches, handle) = builder.checkpointing(Checkpointing::Manual).build()?.batches();
    let mut seen = Vec::new();
    while let Some(delivered) = batches.next().await {
        for record in delivered.batch().records() {
            let text = String::from_utf8(record.data().to_vec())?;
            seen.push((record.sequence_number(), record.sub_sequence_number(), text));
            if seen.len() == count {
                delivered.checkpointer().checkpoint_at(&record).await?;
                handle.abort();
                return Ok(seen);
            }
        }
        delivered.ack();
    }
    anyhow::bail!("only {} records came", seen.len())
}

async fn a_checkpoint_within_an_aggregated_record_is_gone_on_from(on: On) -> Result<()> {
    let Some(world) = World::start(on, 1).await? else { return Ok(()) };
    let packed = aggregated(&["a", "b", "c", "d"])?;
    let records = vec![
        ("x".to_owned(), b"before".to_vec()),
        (packed.key().as_str().to_owned(), packed.data().to_vec()),
        ("y".to_owned(), b"after".to_vec()),
    ];
    world.broker.kinesis().put_records(STREAM, &records).await?;
    let texts = |seen: &[(SequenceNumber, u64, String)]| -> Vec<String> {
        seen.iter().map(|(_, _, text)| text.clone()).collect()
    };
    let first = process_some(world.builder("one")?, 3).await?;
    ensure!(texts(&first) == ["before", "a", "b"], "{first:?}");
    ensure!(first[1].0 == first[2].0 && (first[1].1, first[2].1) == (0, 1), "{first:?}");
    // the same worker again: it need not wait for its earlier life
    let second = process_some(world.builder("one")?, 3).await?;
    ensure!(texts(&second) == ["c", "d", "after"], "{second:?}");
    ensure!(second[0].0 == first[2].0 && second[0].1 == 2, "{second:?}");
    let row = crate::kcl::row(&world, "shardId-000000000000").await?;
    let last = second[2].0.to_string();
    ensure!(row["checkpoint"].as_s().ok() == Some(&last), "{row:?}");
    Ok(())
}

async fn records_go_on_when_the_service_was_killed_and_started_again(on: On) -> Result<()> {
    let Some(mut world) = World::start(on, 2).await? else { return Ok(()) };
    let log = Log::default();
    let one = world.worker("one", &log)?;
    let mut written = world.put(0..100).await?;
    log.all_of(&written).await?;
    for round in 1..3u32 {
        world.broker.kill_9().await?;
        sleep(LEASE / 4).await;
        world.broker = world.broker.restart().await?;
        written.extend(world.put(round * 100..round * 100 + 100).await?);
        log.all_of(&written).await?;
    }
    let twice: Vec<_> = log.counts().into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "within a lease nothing comes twice: {twice:?}");
    log.assert_ordered();
    one.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_registers_the_application_as_a_consumer_and_again_when_it_was_deregistered() -> Result<()> {
    let Some(world) = World::start(On::FanOut, 1).await? else { return Ok(()) };
    let log = Log::default();
    let one = world.worker("one", &log)?;
    log.all_of(&world.put(0..10).await?).await?;
    let mut kinesis = world.broker.kinesis();
    let summary = kinesis.ok("DescribeStreamSummary", &json!({ "StreamName": STREAM })).await?;
    let arn = summary["StreamDescriptionSummary"]["StreamARN"].clone();
    let consumer = json!({ "StreamARN": arn, "ConsumerName": APP });
    let described = kinesis.ok("DescribeStreamConsumer", &consumer).await?;
    ensure!(described["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE", "{described}");
    kinesis.ok("DeregisterStreamConsumer", &consumer).await?;
    log.all_of(&world.put(10..20).await?).await?;
    one.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_a_lease_table_and_more_are_added_while_a_worker_runs() -> Result<()> {
    let Some(world) = World::start(On::Polling, 2).await? else { return Ok(()) };
    let mut kinesis = world.broker.kinesis();
    for stream in ["second", "third"] {
        kinesis.create_stream(stream, 1).await?;
    }
    let log = Log::default();
    let one = start(world.builder("one")?.and_stream("second"), "one", &log)?;
    hold(&[&one], &[3]).await?;
    one.add_stream("third", None)?;
    hold(&[&one], &[4]).await?;
    for stream in ["second", "third"] {
        kinesis.put_records(stream, &[("k".to_owned(), stream.as_bytes().to_vec())]).await?;
    }
    log.all_of(&["second", "third"].map(str::to_owned)).await?;
    one.stop(SOON).await?;
    let rows = crate::kcl::rows(&world).await?;
    ensure!(rows.len() == 4, "{rows:?}");
    for row in rows {
        let key = row["leaseKey"].as_s().ok().context("a key")?.clone();
        let (stream, shard) = key.rsplit_once(':').context("stream and shard")?;
        ensure!(row["streamName"].as_s().ok().map(String::as_str) == Some(stream), "{row:?}");
        ensure!(row["shardId"].as_s().ok().map(String::as_str) == Some(shard), "{row:?}");
        ensure!(stream.split(':').count() == 3, "account, stream and second of creation: {stream}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kinesis_at_an_address_of_its_own_must_be_told_where_leases_are() -> Result<()> {
    let kinesis = tidemill_consumer::aws::Kinesis::at("http://127.0.0.1:1").credentials("id", "secret");
    let error = Worker::kinesis(kinesis, APP, STREAM).build().err().context("it must be refused")?;
    ensure!(error.kind() == tidemill_consumer::ErrorKind::Invalid, "{error}");
    Ok(())
}

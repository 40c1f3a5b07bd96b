//! Ordered mode while shards are split and merged and the broker is killed: the records of each key that were acknowledged
//! lie in the order in which they were put.

use crate::fixture::{Fixture, Sink, record, resolve};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tidemill_producer::{HashKey, Producer, Ticket};
use tidemill_tests::tell;
use tokio::time::sleep;

const STREAM: &str = "ordered";
const KEYS: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_per_key_survives_reshards_and_kills_natively() -> Result<()> {
    run(Sink::Native).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_per_key_survives_reshards_and_kills_over_the_kinesis_api() -> Result<()> {
    run(Sink::Aws).await
}

async fn put_until_told(
    producer: Producer,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> Result<Vec<Ticket>> {
    let mut tickets = Vec::new();
    while !*stop.borrow_and_update() {
        let id = tickets.len() as u64;
        let record = record(&format!("key-{}", id % KEYS), id.to_be_bytes().to_vec())?;
        tickets.push(producer.put(STREAM, record).await?);
        if id.is_multiple_of(16) {
            sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(tickets)
}

/// Splits an open shard, or merges two neighbours.
async fn reshard(fixture: &Fixture, rng: &mut StdRng) -> Result<()> {
    let mut open: Vec<_> = fixture.shards(STREAM).await?.into_iter().filter(|(.., open)| *open).collect();
    open.sort_by_key(|(_, range, _)| range.start());
    let client = fixture.client();
    let at = rng.random_range(0..open.len());
    if open.len() < 3 || (open.len() < 6 && rng.random_ratio(1, 2)) {
        let (shard, range, _) = &open[at];
        let middle = HashKey::new(range.start().get() + (range.end().get() - range.start().get()) / 2);
        let split = client.split_shard().stream_name(STREAM).shard_to_split(shard.to_string());
        split.new_starting_hash_key(middle.to_string()).send().await?;
    } else {
        let at = at.min(open.len() - 2);
        let merge = client.merge_shards().stream_name(STREAM).shard_to_merge(open[at].0.to_string());
        merge.adjacent_shard_to_merge(open[at + 1].0.to_string()).send().await?;
    }
    Ok(())
}

async fn run(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 2).await?;
    let producer = Producer::new(fixture.config()?.linger(Duration::from_millis(5))?.ordered()).await?;
    producer.open(STREAM).await?;
    let (stop, told) = tokio::sync::watch::channel(false);
    let putting = tokio::spawn(put_until_told(producer.clone(), told));
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..24 {
        sleep(Duration::from_millis(rng.random_range(20..120))).await;
        reshard(&fixture, &mut rng).await?;
        if round % 8 == 5 {
            fixture.kill().await?;
            sleep(Duration::from_millis(100)).await;
            fixture.restart().await?;
        }
    }
    stop.send_replace(true);
    let tickets = putting.await??;
    let count = tickets.len() as u64;
    for ticket in tickets {
        resolve(ticket).await??;
    }
    let stats = producer.stats();
    ensure!(stats.rerouted > 0, "no batch was routed anew: {stats:?}");
    producer.close().await?;

    let found = fixture.read(STREAM).await?;
    let (mut seen, mut last, mut repeated) = (HashSet::new(), HashMap::new(), 0);
    for found in found.iter().filter(|found| found.fits) {
        let id = u64::from_be_bytes(found.record.data()[..].try_into().context("an id")?);
        if !seen.insert(id) {
            repeated += 1;
            continue;
        }
        if let Some(before) = last.insert(found.record.key().to_string(), id) {
            ensure!(before < id, "record {id} lies behind record {before} of its key");
        }
    }
    let misfits = found.iter().filter(|found| !found.fits).count();
    ensure!(seen.len() as u64 == count, "{} of {count} records are there", seen.len());
    ensure!(sink == Sink::Aws || (repeated, misfits) == (0, 0), "{repeated} repeated, {misfits} misfits");
    tell(&format!(
        "ordered, {sink:?}: {count} records of {KEYS} keys over {} shards, {} rerouted batches, {} retries, {repeated} \
         stored again, {misfits} in a shard that is not meant for them",
        fixture.shards(STREAM).await?.len(),
        stats.rerouted,
        stats.retries,
    ));
    Ok(())
}

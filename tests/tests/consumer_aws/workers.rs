//! One suite for whole workers, whatever their records come from and wherever their leases are.

use crate::world::{LEASE, Log, On, SOON, World, hold, start};
use anyhow::{Result, ensure};
use std::time::Duration;
use tidemill_tests::tell;
use tokio::time::{Instant, sleep};

macro_rules! on_all {
    ($($case:ident),+ $(,)?) => {
        on_all!(@on broker, On::Broker, $($case),+);
        on_all!(@on memory, On::Memory, $($case),+);
        on_all!(@on dynamo_db_polling, On::Polling, $($case),+);
        on_all!(@on dynamo_db_fan_out, On::FanOut, $($case),+);
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

on_all!(
    a_worker_that_joins_is_given_half_and_nothing_is_delivered_twice,
    the_shards_of_a_worker_that_died_go_on_elsewhere_within_two_lease_times,
    workers_that_are_restarted_one_after_the_other_repeat_nothing,
    records_of_a_key_stay_in_order_across_split_and_merge,
);

/// Shares, and the handoff: the old owner finishes before the new one starts.
async fn a_worker_that_joins_is_given_half_and_nothing_is_delivered_twice(on: On) -> Result<()> {
    let Some(world) = World::start(on, 4).await? else { return Ok(()) };
    let log = Log::default();
    let one = world.worker("one", &log)?;
    hold(&[&one], &[4]).await?;
    let mut written = world.put(0..200).await?;
    log.all_of(&written).await?;
    let two = world.worker("two", &log)?;
    let mut next = 200;
    let begun = Instant::now();
    while (one.status().shards.len(), two.status().shards.len()) != (2, 2) {
        written.extend(world.put(next..next + 32).await?);
        next += 32;
        ensure!(begun.elapsed() < SOON, "shards are not shared: {:?} {:?}", one.status(), two.status());
        sleep(Duration::from_millis(50)).await;
    }
    let shared = begun.elapsed();
    written.extend(world.put(next..next + 200).await?);
    log.all_of(&written).await?;
    let twice: Vec<_> = log.counts().into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "delivered again: {twice:?}");
    log.assert_ordered();
    ensure!(log.entries().iter().any(|entry| entry.worker == "two"), "the second worker did something");
    tell(&format!("{on:?}: a second worker had its half after {shared:?}, nothing came twice"));
    one.stop(SOON).await?;
    two.stop(SOON).await?;
    Ok(())
}

async fn the_shards_of_a_worker_that_died_go_on_elsewhere_within_two_lease_times(on: On) -> Result<()> {
    let Some(world) = World::start(on, 4).await? else { return Ok(()) };
    let log = Log::default();
    let (one, two) = (world.worker("one", &log)?, world.worker("two", &log)?);
    hold(&[&one, &two], &[2, 2]).await?;
    log.all_of(&world.put(0..200).await?).await?;
    if on == On::FanOut {
        // a subscription keeps others of the same consumer away for five seconds, whoever has died
        sleep(Duration::from_secs(5)).await;
    }
    one.abort();
    let died = Instant::now();
    let written = world.put(200..400).await?;
    log.all_within(&written, 3 * LEASE).await?;
    let took = died.elapsed();
    // a record is on its way for a moment besides: put, polled
    ensure!(took < 2 * LEASE + Duration::from_secs(1), "taken over after {took:?}, with leases of {LEASE:?}");
    tell(&format!("{on:?}: the shards of a dead worker went on after {took:?}, with leases of {LEASE:?}"));
    two.stop(SOON).await?;
    Ok(())
}

async fn workers_that_are_restarted_one_after_the_other_repeat_nothing(on: On) -> Result<()> {
    let Some(world) = World::start(on, 4).await? else { return Ok(()) };
    let log = Log::default();
    let mut workers = vec![world.worker("0", &log)?, world.worker("1", &log)?];
    hold(&[&workers[0], &workers[1]], &[2, 2]).await?;
    let mut written = world.put(0..100).await?;
    for round in 0..4u32 {
        let old = workers.remove(0);
        let (stopped, put) = tokio::join!(old.stop(SOON), world.put(round * 100 + 100..round * 100 + 200));
        stopped?;
        written.extend(put?);
        workers.push(world.worker(&format!("{}", round + 2), &log)?);
        log.all_of(&written).await?;
    }
    let twice: Vec<_> = log.counts().into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "delivered again: {twice:?}");
    log.assert_ordered();
    for worker in workers {
        worker.stop(SOON).await?;
    }
    Ok(())
}

async fn records_of_a_key_stay_in_order_across_split_and_merge(on: On) -> Result<()> {
    let Some(world) = World::start(on, 2).await? else { return Ok(()) };
    let log = Log::default();
    let mut written = world.put(0..100).await?;
    // none of it is processed yet, so that parents must be waited for
    world.split("shardId-000000000000").await?;
    written.extend(world.put(100..200).await?);
    let one = start(world.builder("one")?, "one", &log)?;
    let two = start(world.builder("two")?, "two", &log)?;
    log.all_of(&written).await?;
    world.merge("shardId-000000000002", "shardId-000000000003").await?;
    written.extend(world.put(200..400).await?);
    log.all_of(&written).await?;
    world.split("shardId-000000000004").await?;
    written.extend(world.put(400..600).await?);
    log.all_of(&written).await?;
    log.assert_ordered();
    let twice: Vec<_> = log.counts().into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "delivered again: {twice:?}");
    let shards: std::collections::BTreeSet<u32> = log.entries().iter().map(|entry| entry.shard).collect();
    ensure!(shards.len() == 7, "records of all shards came: {shards:?}");
    one.stop(SOON).await?;
    two.stop(SOON).await?;
    Ok(())
}

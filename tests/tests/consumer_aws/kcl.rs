//! A worker beside workers of the KCL for Java, which are played here by the very calls that those make: the table is shared,
//! shards are handed over both ways, a dead one is succeeded, and rows that are no leases are left alone.

use crate::world::{APP, LEASE, Log, On, SOON, World, hold, start};
use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue::{self, N, S};
use aws_sdk_dynamodb::types::{AttributeAction, AttributeValueUpdate, ExpectedAttributeValue};
use std::collections::HashMap;
use std::time::Duration;
use tidemill_tests::{Until, until};
use tokio::time::{Instant, sleep};

type Row = HashMap<String, AttributeValue>;

const SHARD: &str = "shardId-000000000000";

fn client(world: &World) -> Result<aws_sdk_dynamodb::Client> {
    Ok(world.dynalite.as_ref().context("leases are in it")?.client())
}

/// A row of the lease table.
pub(crate) async fn row(world: &World, key: &str) -> Result<Row> {
    let get = client(world)?.get_item().table_name(APP).key("leaseKey", S(key.into())).consistent_read(true);
    get.send().await?.item.with_context(|| format!("no row {key}"))
}

/// All rows.
pub(crate) async fn rows(world: &World) -> Result<Vec<Row>> {
    Ok(client(world)?.scan().table_name(APP).consistent_read(true).send().await?.items.unwrap_or_default())
}

fn text<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    row.get(name)?.as_s().ok().map(String::as_str)
}

fn counter(row: &Row) -> Result<u64> {
    Ok(row.get("leaseCounter").and_then(|value| value.as_n().ok()).context("a counter")?.parse()?)
}

fn put(value: AttributeValue) -> AttributeValueUpdate {
    AttributeValueUpdate::builder().action(AttributeAction::Put).value(value).build()
}
fn delete() -> AttributeValueUpdate {
    AttributeValueUpdate::builder().action(AttributeAction::Delete).build()
}
fn is(value: AttributeValue) -> ExpectedAttributeValue {
    ExpectedAttributeValue::builder().value(value).build()
}
fn absent() -> ExpectedAttributeValue {
    ExpectedAttributeValue::builder().exists(false).build()
}

/// Changes a row as the KCL does; whether the condition held.
async fn change(
    world: &World,
    key: &str,
    updates: Vec<(&str, AttributeValueUpdate)>,
    expected: Vec<(&str, ExpectedAttributeValue)>,
) -> Result<bool> {
    let mut update = client(world)?.update_item().table_name(APP).key("leaseKey", S(key.into()));
    for (name, value) in updates {
        update = update.attribute_updates(name, value);
    }
    for (name, value) in expected {
        update = update.expected(name, value);
    }
    match update.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A renewal by a worker of version 3, which finds out that somebody asks for the lease.
async fn renew(world: &World, key: &str, counter: u64) -> Result<bool> {
    let updates = vec![("leaseCounter", put(N((counter + 1).to_string())))];
    let expected = vec![("leaseCounter", is(N(counter.to_string()))), ("checkpointOwner", absent())];
    change(world, key, updates, expected).await
}

async fn renew_while_asked(world: &World, key: &str, counter: u64) -> Result<bool> {
    let updates = vec![("leaseCounter", put(N((counter + 1).to_string())))];
    change(world, key, updates, vec![("leaseCounter", is(N(counter.to_string())))]).await
}

/// The table, made by a worker of the KCL that holds both shards.
async fn table_of_java(world: &World) -> Result<()> {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    };
    let client = client(world)?;
    let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build()?;
    let attribute = AttributeDefinition::builder().attribute_name("leaseKey");
    let attribute = attribute.attribute_type(ScalarAttributeType::S).build()?;
    let create = client.create_table().table_name(APP).key_schema(key).attribute_definitions(attribute);
    create.billing_mode(BillingMode::PayPerRequest).send().await?;
    let active = until(SOON, || async {
        let described = client.describe_table().table_name(APP).send().await;
        described.is_ok_and(|d| d.table.and_then(|t| t.table_status) == Some(TableStatus::Active))
    });
    ensure!(active.await != Until::Late, "the table is not active");
    let halves = [
        ("shardId-000000000000", "0", "170141183460469231731687303715884105727"),
        (
            "shardId-000000000001",
            "170141183460469231731687303715884105728",
            "340282366920938463463374607431768211455",
        ),
    ];
    for (shard, start, end) in halves {
        let put = client.put_item().table_name(APP).item("leaseKey", S(shard.into()));
        let put = put.item("leaseCounter", N("7".into())).item("leaseOwner", S("host:java".into()));
        let put = put.item("ownerSwitchesSinceCheckpoint", N("0".into()));
        let put = put.item("checkpoint", S("TRIM_HORIZON".into()));
        let put = put.item("checkpointSubSequenceNumber", N("0".into()));
        let put = put.item("startingHashKey", S(start.into())).item("endingHashKey", S(end.into()));
        put.item("entityType", S("LEASE".into())).expected("leaseKey", absent()).send().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_what_a_worker_of_the_kcl_would_have_written() -> Result<()> {
    let Some(world) = World::start(On::Polling, 1).await? else { return Ok(()) };
    let log = Log::default();
    let one = world.worker("one", &log)?;
    let mut written = world.put(0..100).await?;
    log.all_of(&written).await?;
    world.split(SHARD).await?;
    written.extend(world.put(100..200).await?);
    log.all_of(&written).await?;
    one.stop(SOON).await?;
    let parent = row(&world, SHARD).await?;
    ensure!(text(&parent, "checkpoint") == Some("SHARD_END"), "{parent:?}");
    let mut children = parent["childShardIds"].as_ss().ok().context("a set")?.clone();
    children.sort();
    ensure!(children == ["shardId-000000000001", "shardId-000000000002"], "{children:?}");
    ensure!(!parent.contains_key("leaseOwner") && !parent.contains_key("checkpointOwner"), "{parent:?}");
    for child in children {
        let child = row(&world, &child).await?;
        ensure!(child["parentShardId"].as_ss().ok() == Some(&vec![SHARD.to_owned()]), "{child:?}");
        ensure!(text(&child, "entityType") == Some("LEASE"), "{child:?}");
        ensure!(
            child["checkpointSubSequenceNumber"].as_n().ok().map(String::as_str) == Some("0"),
            "{child:?}"
        );
        ensure!(child["ownerSwitchesSinceCheckpoint"].as_n().is_ok(), "{child:?}");
        ensure!(text(&child, "startingHashKey").is_some() && text(&child, "endingHashKey").is_some());
        let at: u128 =
            text(&child, "checkpoint").context("a checkpoint")?.get(..20).context("long")?.parse()?;
        ensure!(at > 0, "a sequence number is a decimal: {child:?}");
        ensure!(child.keys().all(|name| !name.starts_with("pending")), "{child:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_the_kcl_moves_a_shard_away_and_the_worker_hands_it_over() -> Result<()> {
    let Some(world) = World::start(On::Polling, 2).await? else { return Ok(()) };
    let log = Log::default();
    let one = world.worker("one", &log)?;
    hold(&[&one], &[2]).await?;
    log.all_of(&world.put(0..100).await?).await?;
    let java = || S("host:java".into());
    let asked = vec![("leaseOwner", put(java())), ("checkpointOwner", put(S("one".into())))];
    let if_held = vec![("leaseOwner", is(S("one".into()))), ("checkpointOwner", absent())];
    ensure!(change(&world, SHARD, asked, if_held).await?, "the worker holds it");
    let handed = until(LEASE, || async {
        let row = row(&world, SHARD).await.unwrap_or_default();
        !row.contains_key("checkpointOwner") && text(&row, "leaseOwner") == Some("host:java")
    });
    ensure!(handed.await != Until::Late, "not handed over: {:?}", row(&world, SHARD).await?);
    let given = row(&world, SHARD).await?;
    let last = log.entries().into_iter().filter(|entry| entry.shard == 0).count();
    ensure!(last > 0 && text(&given, "checkpoint") != Some("TRIM_HORIZON"), "it is checkpointed: {given:?}");
    // the worker of the KCL takes what is its own, and renews it
    let taken = counter(&given)?;
    for count in taken..taken + 8 {
        ensure!(
            renew(&world, SHARD, count).await?,
            "nobody else touches it: {:?}",
            row(&world, SHARD).await?
        );
        sleep(LEASE / 4).await;
    }
    ensure!(one.status().shards.len() == 1, "{:?}", one.status());
    one.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asks_one_of_the_kcl_for_its_share_and_succeeds_it_when_it_dies() -> Result<()> {
    let Some(world) = World::start(On::Polling, 2).await? else { return Ok(()) };
    table_of_java(&world).await?;
    let written = world.put(0..100).await?;
    let log = Log::default();
    let one = start(world.builder("one")?, "one", &log)?;
    let keys = ["shardId-000000000000", "shardId-000000000001"];
    let mut counts: HashMap<&str, u64> = keys.into_iter().map(|key| (key, 7)).collect();
    let begun = Instant::now();
    let asked_for = loop {
        let mut asked_for = None;
        for key in keys {
            if !renew(&world, key, counts[key]).await? {
                asked_for = Some(key);
                let row = row(&world, key).await?;
                ensure!(text(&row, "checkpointOwner") == Some("host:java"), "{row:?}");
                ensure!(text(&row, "leaseOwner") == Some("one"), "{row:?}");
                ensure!(counter(&row)? == counts[key], "asking leaves the counter: {row:?}");
                ensure!(renew_while_asked(&world, key, counts[key]).await?, "the holder still renews");
            }
            *counts.get_mut(key).context("one of the two")? += 1;
        }
        match asked_for {
            Some(key) => break key,
            None => ensure!(begun.elapsed() < 3 * LEASE, "the worker does not ask for its share"),
        }
        sleep(LEASE / 8).await;
    };
    ensure!(one.status().shards.is_empty(), "nothing is taken before it is given: {:?}", one.status());
    let given = vec![
        ("leaseOwner", put(S("one".into()))),
        ("checkpointOwner", delete()),
        ("leaseCounter", put(N((counts[asked_for] + 1).to_string()))),
    ];
    let still = vec![("leaseOwner", is(S("one".into()))), ("checkpointOwner", is(S("host:java".into())))];
    ensure!(change(&world, asked_for, given, still).await?, "it is given");
    let took = until(LEASE, || std::future::ready(one.status().shards.len() == 1));
    ensure!(took.await != Until::Late, "what is given is taken: {:?}", one.status());
    // from here on the other one is renewed no more
    let died = Instant::now();
    hold(&[&one], &[2]).await?;
    let after = died.elapsed();
    ensure!(after < 2 * LEASE, "a dead worker is succeeded after {after:?}");
    log.all_of(&written).await?;
    let switches = row(&world, keys[0]).await?["ownerSwitchesSinceCheckpoint"].clone();
    ensure!(switches.as_n().is_ok(), "{switches:?}");
    one.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_no_leases_are_left_alone() -> Result<()> {
    let Some(world) = World::start(On::Polling, 2).await? else { return Ok(()) };
    table_of_java(&world).await?;
    let foreign = [
        ("Leader", "LEADER"),
        ("host:java", "WORKER_METRIC_STATS"),
        ("Migration3.0", "CLIENT_VERSION_MIGRATION"),
    ];
    for (key, kind) in foreign {
        let put = client(&world)?.put_item().table_name(APP).item("leaseKey", S(key.into()));
        put.item("entityType", S(kind.into())).item("ownerName", S("host:java".into())).send().await?;
    }
    let log = Log::default();
    let one = world.worker("one", &log)?;
    // the worker of the KCL is dead from the beginning
    hold(&[&one], &[2]).await?;
    log.all_of(&world.put(0..50).await?).await?;
    sleep(Duration::from_millis(200)).await;
    one.stop(SOON).await?;
    let rows = rows(&world).await?;
    ensure!(rows.len() == 5, "{rows:?}");
    for (key, kind) in foreign {
        let row = row(&world, key).await?;
        ensure!(row.len() == 3 && text(&row, "entityType") == Some(kind), "{row:?}");
    }
    Ok(())
}

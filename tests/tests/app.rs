//! `tidemill app` against a real broker: what operators see of applications, and what they do to them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_proto::client::Channel;
use tidemill_proto::v1;
use tidemill_tests::{Broker, Finished, Running, Until, run_with_input, until};

const PATIENCE: Duration = Duration::from_secs(20);

async fn command(broker: &Broker, line: &str, input: &[u8]) -> Result<Finished> {
    let url = broker.url();
    let args: Vec<&str> = line.split(' ').chain(["--endpoint", &url]).collect();
    run_with_input(&args, input).await
}

/// The same, and it must succeed.
async fn done(broker: &Broker, line: &str) -> Result<Finished> {
    let finished = command(broker, line, b"").await?;
    assert_eq!(finished.code, Some(0), "{line}: {finished:?}");
    Ok(finished)
}

async fn json(broker: &Broker, line: &str) -> Result<Value> {
    let finished = done(broker, &format!("{line} --json")).await?;
    serde_json::from_str(&finished.stdout.join("\n")).with_context(|| format!("{finished:?}"))
}

/// It must fail; what it tells.
async fn refused(broker: &Broker, line: &str) -> Result<String> {
    let finished = command(broker, line, b"").await?;
    assert_eq!(finished.code, Some(1), "{line}: {finished:?}");
    Ok(finished.stderr)
}

async fn put(broker: &Broker, numbers: std::ops::Range<u32>) -> Result<()> {
    let lines: Vec<String> = numbers.map(|n| format!("line-{n}")).collect();
    let finished = command(broker, "put s --key k", lines.join("\n").as_bytes()).await?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    Ok(())
}

/// What an application is given until it has caught up.
async fn consumed(broker: &Broker) -> Result<Vec<String>> {
    Ok(done(broker, "consume s --app a --worker w --until-caught-up").await?.stdout)
}

fn lines(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!("line-{n}")).collect()
}

async fn start(home: &TempDir) -> Result<Broker> {
    let broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    done(&broker, "stream create s").await?;
    Ok(broker)
}

/// A worker that stays.
fn worker(broker: &Broker, name: &str) -> Result<Running> {
    let url = broker.url();
    let args = ["consume", "s", "--app", "a", "--worker", name, "--lease-ms", "2000", "--endpoint", &url];
    Running::spawn(&args)
}

async fn wait_for(what: &str, condition: impl AsyncFn() -> bool) -> Result<()> {
    let waited = until(PATIENCE, || condition()).await;
    ensure!(waited != Until::Late, "in vain: {what}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_how_far_an_application_has_come_and_why_a_shard_waits() -> Result<()> {
    let home = TempDir::new()?;
    let broker = start(&home).await?;
    assert_eq!(done(&broker, "app list").await?.stdout, ["no applications"]);
    assert!(refused(&broker, "app describe a").await?.contains("has no leases"));
    put(&broker, 0..10).await?;
    assert_eq!(consumed(&broker).await?, lines(0..10));
    let listed = json(&broker, "app list").await?;
    let on_s = serde_json::json!({ "stream": "s", "leases": 1, "held": 0, "workers": 0 });
    assert_eq!(listed["apps"], serde_json::json!([{ "app": "a", "streams": [on_s] }]));

    put(&broker, 10..15).await?;
    done(&broker, "stream split s --shard 0").await?;
    put(&broker, 15..18).await?;
    let told = json(&broker, "app describe a").await?;
    let on_s = &told["streams"][0];
    let leases = on_s["leases"].as_array().context("leases")?;
    assert_eq!((leases.len(), &leases[0]["standing"]), (3, &"free".into()), "{told}");
    assert_eq!((&leases[0]["records_behind"], &leases[0]["state"]), (&5.into(), &"closed".into()), "{told}");
    assert!(leases[0]["millis_behind"].as_u64() > Some(0), "{told}");
    assert_eq!(on_s["records_behind"], 5, "of shards that nobody ever took it is not known: {told}");
    for child in &leases[1..] {
        let why = "waits for parent shardId-000000000000, which is 5 records behind and held by no worker";
        assert_eq!((&child["standing"], &child["why"]), (&"waits-for-parent".into(), &why.into()), "{told}");
        assert_eq!(child["checkpoint"], Value::Null);
    }
    // as people read it
    let text = done(&broker, "app describe a --stream s").await?.stdout;
    assert!(text[0].contains("3 shards, 0 held by 0 workers, 5 records behind"), "{text:?}");
    assert!(text[2].contains("free: no worker has taken it") && text[2].contains("record of 20"), "{text:?}");

    let running = worker(&broker, "w")?;
    wait_for("the parent is done and its children are held", async || {
        let Ok(told) = json(&broker, "app describe a").await else { return false };
        let leases = &told["streams"][0]["leases"];
        leases[0]["standing"] == "done"
            && [1, 2].iter().all(|child| {
                let lease = &leases[*child];
                lease["why"] == "held by worker w" && lease["records_behind"] == 0
            })
    })
    .await?;
    assert_eq!(running.lines(), lines(10..18));
    running.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_gives_out_again_exactly_what_comes_behind_the_place() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = start(&home).await?;
    put(&broker, 0..4).await?;
    tokio::time::sleep(Duration::from_millis(30)).await;
    put(&broker, 4..8).await?;
    broker.kill_9().await?;
    // numbers are skipped here
    let broker = broker.restart().await?;
    put(&broker, 8..10).await?;
    let first = done(&broker, "consume s --app a --until-caught-up --json").await?;
    let records: Vec<Value> =
        first.stdout.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    assert_eq!(records.len(), 10);
    assert_eq!(consumed(&broker).await?, lines(0..0));

    let time = |n: usize| records[n]["arrival_ms"].to_string();
    let number = |n: usize| records[n]["sequence_number"].as_str().unwrap_or_default().to_owned();
    for (to, expected) in [
        ("trim-horizon".to_owned(), 0..10),
        ("latest".to_owned(), 10..10),
        (time(4), 4..10),
        ("1".to_owned(), 0..10),
        ("2100-01-01T00:00:00Z".to_owned(), 10..10),
        (number(0), 0..10),
        (number(6), 6..10),
        (number(8), 8..10),
    ] {
        // a dry run first: it changes nothing
        let plan = json(&broker, &format!("app reset a --stream s --to {to} --dry-run")).await?;
        assert_eq!(plan["dry_run"], true);
        assert_eq!(consumed(&broker).await?, lines(0..0), "a dry run of a reset to {to}");
        let reset = json(&broker, &format!("app reset a --stream s --to {to}")).await?;
        assert_eq!(reset["shards"][0]["after"], plan["shards"][0]["after"], "{to}");
        assert_eq!(consumed(&broker).await?, lines(expected), "{to}");
    }
    let foreign = format!("app reset a --stream s --to {}", "9".repeat(56));
    ensure!(command(&broker, &foreign, b"").await?.code != Some(0), "a number of no shard is taken");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_refused_while_a_worker_holds_a_lease_and_by_force_fences_it_off() -> Result<()> {
    let home = TempDir::new()?;
    let broker = start(&home).await?;
    put(&broker, 0..5).await?;
    let running = worker(&broker, "w")?;
    wait_for("all is read", async || running.lines().len() == 5).await?;
    let told = refused(&broker, "app reset a --stream s --to trim-horizon").await?;
    assert!(told.contains("worker w holds the lease") && told.contains("--force"), "{told}");
    let plan = done(&broker, "app reset a --stream s --to trim-horizon --dry-run").await?.stdout;
    assert!(plan.last().is_some_and(|last| last.contains("stop the workers first")), "{plan:?}");
    assert_eq!(running.lines().len(), 5);

    let epoch = async || {
        anyhow::Ok(json(&broker, "app describe a").await?["streams"][0]["leases"][0]["epoch"].clone())
    };
    let before = epoch().await?.as_u64();
    done(&broker, "app reset a --stream s --to trim-horizon --force").await?;
    // its worker has lost the lease, takes it anew and begins where it was put to
    wait_for("all is given out again", async || running.lines().len() == 10).await?;
    assert_eq!(running.lines()[5..], lines(0..5));
    assert!(epoch().await?.as_u64() > before);

    assert!(refused(&broker, "app delete a").await?.contains("worker w holds the lease"));
    assert_eq!(running.terminate().await?.code, Some(0));
    assert_eq!(json(&broker, "app delete a --dry-run").await?["leases"], 1);
    assert_eq!(consumed(&broker).await?, lines(0..0));
    assert_eq!(json(&broker, "app delete a --stream s").await?["leases"], 1);
    assert!(refused(&broker, "app delete a").await?.contains("no leases"));
    assert_eq!(consumed(&broker).await?, lines(0..5), "a forgotten application begins anew");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_moved_when_its_holder_gives_it_back() -> Result<()> {
    let home = TempDir::new()?;
    let broker = start(&home).await?;
    let mut client = Channel::connect(&broker.endpoint()?).await?.lease();
    let (app, stream) = ("a".to_owned(), "s".to_owned());
    let latest = v1::CheckpointValue { at: Some(v1::checkpoint_value::At::Latest(v1::Empty {})) };
    let take = v1::TakeLeaseRequest {
        app: app.clone(),
        stream: stream.clone(),
        shard: 0,
        worker: "one".to_owned(),
        expected_epoch: 0,
        lease_ms: 60_000,
        steal: false,
        initial: Some(latest.clone()),
    };
    assert!(
        refused(&broker, "app move-lease a --stream s --shard 0 --to two").await?.contains("nobody holds")
    );
    client.take_lease(take).await?;
    assert!(
        refused(&broker, "app move-lease a --stream s --shard 7 --to two").await?.contains("has no shardId")
    );
    let moved =
        done(&broker, "app move-lease a --stream s --shard 0 --to two --within-ms 30000 --json").await?;
    assert!(moved.stderr.contains("worker two holds no lease"), "{moved:?}");
    let told: Value = serde_json::from_str(&moved.stdout[0])?;
    assert_eq!((&told["from"], &told["to"]), (&"one".into(), &"two".into()));
    let standing = async || {
        let told = json(&broker, "app describe a").await?;
        anyhow::Ok(told["streams"][0]["leases"][0]["why"].as_str().unwrap_or_default().to_owned())
    };
    assert!(standing().await?.starts_with("handoff from worker one to two under way, "));

    let held = v1::HeldLease { stream: stream.clone(), shard: 0, epoch: 1, bytes_per_s: 9 };
    let renew = v1::RenewLeasesRequest { app: app.clone(), worker: "one".into(), leases: vec![held.clone()] };
    let renewed = client.renew_leases(renew).await?.into_inner();
    assert_eq!((renewed.lost.len(), renewed.asked.len()), (0, 1), "{renewed:?}");
    let pending = v1::PendingCheckpoint { at: Some(latest), state: "half".into() };
    let prepare = v1::PrepareCheckpointRequest {
        app: app.clone(),
        worker: "one".into(),
        lease: Some(held.clone()),
        pending: Some(pending.clone()),
    };
    client.prepare_checkpoint(prepare).await?;
    let release = v1::ReleaseLeaseRequest { app: app.clone(), worker: "one".into(), lease: Some(held) };
    client.release_lease(release).await?;
    assert_eq!(standing().await?, "held by worker two");
    let list = v1::ListLeasesRequest { app, stream, with_lag: false };
    let row = client.list_leases(list).await?.into_inner().leases.remove(0);
    assert_eq!((row.owner.as_str(), row.epoch, row.successor.as_str(), row.bytes_per_s), ("two", 2, "", 9));
    assert_eq!((row.pending, row.records_behind), (Some(pending), None));
    Ok(())
}

//! `tidemill bench`: every workload by every protocol for a moment, what it prints, and what it refuses. Figures are there,
//! never judged.

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tidemill_tests::{Broker, Finished, ONE_CREDENTIAL, run};

/// What every result has.
const FIGURES: [&str; 7] = ["records_per_s", "mb_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms", "errors"];
/// Short runs: nothing depends on how much they bring.
const SHORT: [&str; 6] = ["--json", "--warmup-seconds", "0", "--shards", "2", "--connections"];

async fn bench(args: &[&str]) -> Result<Finished> {
    run(&[&["bench"], args].concat()).await
}

/// The results of a run that must succeed.
async fn results(args: &[&str]) -> Result<Vec<Value>> {
    let finished = bench(args).await?;
    assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
    let lines = finished.stdout.iter();
    lines.map(|line| serde_json::from_str(line).with_context(|| line.clone())).collect()
}

/// Runs that must bring records without an error; which workloads and protocols they were.
async fn measured(args: &[&str]) -> Result<Vec<Value>> {
    let results = results(args).await?;
    for result in &results {
        for figure in FIGURES {
            assert!(result[figure].is_number(), "{figure} in {result}");
        }
        assert_eq!(result["errors"], 0, "{result}");
        assert!(result["records_per_s"].as_f64() > Some(0.0), "{result}");
        assert!(result["max_ms"].as_f64() >= result["p50_ms"].as_f64(), "{result}");
    }
    Ok(results)
}

fn names(results: &[Value]) -> Vec<String> {
    let name = |result: &Value| format!("{} {}", result["workload"], result["target"]).replace('"', "");
    results.iter().map(name).collect()
}

async fn open_broker(home: &TempDir) -> Result<Broker> {
    Broker::start(&home.path().join("data"), &["--durability", "os"]).await
}

async fn keyed_broker(home: &TempDir) -> Result<Broker> {
    let config = home.path().join("tidemill.toml");
    std::fs::write(&config, ONE_CREDENTIAL)?;
    let config = config.to_str().context("a temporary directory has a plain name")?;
    Broker::start(&home.path().join("data"), &["--durability", "os", "--config", config]).await
}

#[tokio::test]
async fn without_a_workload_it_produces_and_consumes_by_each_protocol() -> Result<()> {
    let home = TempDir::new()?;
    let broker = open_broker(&home).await?;
    let url = broker.url();
    let args = [&SHORT[..], &["2", "--records", "2000", "--endpoint", &url]].concat();
    let results = measured(&args).await?;
    assert_eq!(
        names(&results),
        [
            "produce grpc",
            "consume grpc",
            "produce bare",
            "consume bare",
            "produce kinesis",
            "consume kinesis"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn one_record_at_a_time_and_records_all_over_the_shards_by_each_protocol() -> Result<()> {
    let home = TempDir::new()?;
    let broker = open_broker(&home).await?;
    let url = broker.url();
    let args = [&SHORT[..], &["2", "single", "shards", "--records", "200", "--endpoint", &url]].concat();
    let results = measured(&args).await?;
    assert_eq!(results.len(), 6, "{:?}", names(&results));
    Ok(())
}

#[tokio::test]
async fn an_open_loop_tells_acknowledgement_and_natively_delivery() -> Result<()> {
    let home = TempDir::new()?;
    let broker = open_broker(&home).await?;
    let url = broker.url();
    let load = ["latency", "--rate", "200", "--seconds", "1", "--endpoint", &url];
    let results = measured(&[&SHORT[..], &["2"], &load].concat()).await?;
    assert_eq!(names(&results), ["latency grpc", "latency bare", "latency kinesis"]);
    for result in &results {
        assert_eq!(result["rate"], 200);
        // all that was due counts, however late it was; the first are due when the pace begins
        assert!(result["records"].as_u64() > Some(100), "{result}");
        let delivered = &result["delivered_records"];
        if result["target"] == "kinesis" {
            assert!(delivered.is_null(), "{result}");
        } else {
            assert_eq!(delivered, &result["records"], "{result}");
            assert!(result["delivered_p999_ms"].is_number(), "{result}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn readers_of_one_shard_all_count() -> Result<()> {
    let home = TempDir::new()?;
    let broker = open_broker(&home).await?;
    let url = broker.url();
    let load = ["fanout", "--readers", "3", "--rate", "500", "--seconds", "1", "--endpoint", &url];
    let results = measured(&[&SHORT[..], &["2"], &load].concat()).await?;
    assert_eq!(names(&results), ["fanout grpc", "fanout bare", "fanout kinesis"]);
    for result in &results {
        assert_eq!((&result["readers"], &result["shards"]), (&3.into(), &1.into()), "{result}");
    }
    let fast =
        measured(&[&SHORT[..], &["1", "fanout", "--seconds", "1", "--endpoint", &url]].concat()).await?;
    assert_eq!(fast.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_broker_of_its_own_is_killed_and_another_looked_at() -> Result<()> {
    let load = ["recovery", "--durability", "os", "--records", "2000"];
    let recovery = measured(&[&SHORT[..], &["1"], &load].concat()).await?;
    assert_eq!(names(&recovery), ["recovery bare"]);
    assert!(recovery[0]["ready_ms"].as_f64() > Some(0.0), "{recovery:?}");
    let load = ["idle", "--seconds", "1", "--durability", "os"];
    let idle = results(&[&SHORT[..], &["3"], &load].concat()).await?;
    assert_eq!(names(&idle), ["idle bare", "idle kinesis"]);
    for result in &idle {
        assert!(result["rss_mb"].as_f64() > Some(1.0), "{result}");
        assert!(result["cpu_percent"].as_f64() >= Some(0.0), "{result}");
    }
    Ok(())
}

#[tokio::test]
async fn in_one_process_it_shows_a_table_to_people() -> Result<()> {
    let finished =
        bench(&["produce", "--target", "bare", "--records", "1000", "--durability", "os", "--shards", "1"])
            .await?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout.len(), 1, "{finished:?}");
    let words = ["workload", "p99.9 ms", "produce", "bare"];
    assert!(words.iter().all(|word| finished.stderr.contains(word)), "{}", finished.stderr);
    Ok(())
}

#[tokio::test]
async fn what_a_protocol_cannot_do_is_bad_usage() -> Result<()> {
    for (args, told) in [
        (&["recovery", "--target", "grpc"][..], "--target bare"),
        (&["idle", "--target", "grpc"], "--target kinesis"),
        (&["recovery", "--endpoint", "http://127.0.0.1:1"], "--endpoint"),
        (&["produce", "--rate", "5"], "--rate"),
        (&["latency", "--record-bytes", "4"], "--record-bytes"),
        (&["produce", "--endpoint", "https://127.0.0.1:1", "--ca-file", "no such file"], "no such file"),
        (&["produce", "--connections", "257"], "--connections"),
    ] {
        let refused = bench(args).await?;
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(told), "{args:?}: {}", refused.stderr);
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn signatures_are_those_of_the_credentials() -> Result<()> {
    let home = TempDir::new()?;
    let broker = keyed_broker(&home).await?;
    let url = broker.url();
    let load = ["1", "produce", "--records", "500", "--batch-records", "50", "--endpoint", &url];
    let key = ["--access-key-id", "test", "--secret-access-key", "secret", "--region", "us-east-1"];
    // the libraries and the native calls prove themselves with the same pair
    let results = measured(&[&SHORT[..], &load[..4], &load[6..], &key].concat()).await?;
    assert_eq!(names(&results), ["produce grpc", "produce bare", "produce kinesis"]);
    measured(&[&SHORT[..], &load, &key, &["--target", "kinesis"]].concat()).await?;
    for wrong in [
        &["--access-key-id", "test", "--secret-access-key", "other", "--target", "kinesis"][..],
        &[
            "--access-key-id",
            "test",
            "--secret-access-key",
            "secret",
            "--region",
            "eu-west-1",
            "--target",
            "kinesis",
        ],
        &[
            "--access-key-id",
            "test",
            "--secret-access-key",
            "other",
            "--target",
            "bare",
            "--target",
            "kinesis",
        ],
        &["--target", "kinesis"],
    ] {
        let refused = bench(&[&SHORT[..], &load, wrong].concat()).await?;
        assert_eq!(refused.code, Some(1), "{wrong:?}: {refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn encrypted_and_with_a_session_token_each_protocol_works() -> Result<()> {
    let home = TempDir::new()?;
    let data = home.path().join("data");
    let broker = Broker::start(&data, &["--durability", "os", "--tls", "local"]).await?;
    let url = broker.url().replace("http://", "https://");
    let ca = data.join("tls/ca.pem");
    let ca = ca.to_str().context("a temporary directory has a plain name")?;
    let load = ["2", "produce", "consume", "--records", "500", "--endpoint", &url];
    let key = ["--access-key-id", "test", "--secret-access-key", "secret", "--session-token", "token"];
    let results = measured(&[&SHORT[..], &load, &["--ca-file", ca], &key].concat()).await?;
    assert_eq!(results.len(), 6, "{:?}", names(&results));
    let untrusted = bench(&[&SHORT[..], &load, &["--target", "kinesis"]].concat()).await?;
    assert_eq!(untrusted.code, Some(1), "{untrusted:?}");
    assert!(untrusted.stdout.is_empty(), "{untrusted:?}");
    Ok(())
}

#[tokio::test]
async fn records_that_a_service_does_not_take_are_errors() -> Result<()> {
    let home = TempDir::new()?;
    let limits = ["--durability", "os", "--limits", "aws"];
    let broker = Broker::start(&home.path().join("data"), &limits).await?;
    let url = broker.url();
    let load = ["1", "produce", "--target", "kinesis", "--seconds", "1", "--endpoint", &url];
    let finished = bench(&[&SHORT[..], &load].concat()).await?;
    // a shard takes 1 MB a second
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let result: Value = serde_json::from_str(finished.stdout.first().context("a result")?)?;
    assert!(result["throttles"].as_u64() > Some(0), "{result}");
    assert_eq!(result["throttles"], result["errors"], "{result}");
    assert!(finished.stderr.contains("ProvisionedThroughputExceededException"), "{}", finished.stderr);
    Ok(())
}

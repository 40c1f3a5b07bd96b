//! The commands as people and scripts use them: lines in are lines out, summaries, exit codes.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::HashMap;
use tempfile::TempDir;
use tidemill_tests::{Broker, Finished, run, run_with_input};

/// Runs a command against the broker.
async fn command(broker: &Broker, args: &[&str], input: &[u8]) -> Result<Finished> {
    let url = broker.url();
    run_with_input(&[args, &["--endpoint", &url]].concat(), input).await
}

/// The same, and it must succeed.
async fn done(broker: &Broker, args: &[&str], input: &[u8]) -> Result<Finished> {
    let finished = command(broker, args, input).await?;
    assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
    Ok(finished)
}

fn json(finished: &Finished) -> Result<Value> {
    assert_eq!(finished.stdout.len(), 1, "{finished:?}");
    serde_json::from_str(&finished.stdout[0]).with_context(|| format!("{finished:?}"))
}

async fn broker(home: &TempDir, shards: &str) -> Result<Broker> {
    let broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    done(&broker, &["stream", "create", "s", "--shards", shards], b"").await?;
    Ok(broker)
}

#[tokio::test]
async fn lines_put_under_one_key_come_out_as_they_went_in() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "4").await?;
    let long = "long ".repeat(10_000);
    let lines =
        ["first", "", "  spaces  ", "ünïcode 日本", long.as_str(), "\ttab\r", "last without a line end"];
    let put = done(&broker, &["put", "s", "--key", "k", "--json"], lines.join("\n").as_bytes()).await?;
    let summary = json(&put)?;
    assert_eq!(summary["records"], lines.len());
    assert_eq!(summary["bytes"], lines.iter().map(|line| line.len()).sum::<usize>());
    assert_eq!(summary["failures"], 0);
    assert!(summary["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up"], b"").await?;
    assert_eq!(read.stdout, lines);
    Ok(())
}

#[tokio::test]
async fn many_lines_over_many_shards_come_out_once_each_and_as_they_were() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "8").await?;
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n} {}", "x".repeat(n % 300))).collect();
    let put = done(&broker, &["put", "s"], (lines.join("\n") + "\n").as_bytes()).await?;
    assert!(put.stdout.is_empty(), "without --json the summary is for people: {:?}", put.stdout);
    assert!(put.stderr.contains("20000 records"), "{}", put.stderr);
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up"], b"").await?;
    let (mut found, mut expected) = (read.stdout, lines);
    found.sort();
    expected.sort();
    assert!(found == expected, "{} lines instead of {}", found.len(), expected.len());
    Ok(())
}

#[tokio::test]
async fn a_field_of_the_line_is_the_key_and_orders_its_records() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "4").await?;
    let line = |n: usize| format!("{{\"tail\":\"N{}\",\"n\":{n}}}", n % 10);
    let input: String = (0..500).map(|n| line(n) + "\n").collect();
    done(&broker, &["put", "s", "--key-field", "tail"], input.as_bytes()).await?;
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up", "--json"], b"").await?;
    assert_eq!(read.stdout.len(), 500);
    let mut last: HashMap<String, (u64, String)> = HashMap::new();
    for line in &read.stdout {
        let record: Value = serde_json::from_str(line)?;
        let event: Value = serde_json::from_str(record["data"].as_str().context("text")?)?;
        assert_eq!(record["partition_key"], event["tail"]);
        let (n, shard) = (event["n"].as_u64().context("a number")?, record["shard"].to_string());
        let before = last.insert(event["tail"].to_string(), (n, shard.clone()));
        if let Some((earlier, same)) = before {
            assert!(earlier < n, "{line}");
            assert_eq!(same, shard, "a key has one shard");
        }
    }
    Ok(())
}

#[tokio::test]
async fn data_that_is_no_text_comes_out_as_base64() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "1").await?;
    done(&broker, &["put", "s", "--key", "k"], b"\xff\x00\xfe\n").await?;
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up", "--json"], b"").await?;
    let record = json(&read)?;
    assert_eq!(record["data_base64"], "/wD+");
    assert!(record.get("data").is_none(), "{record}");
    Ok(())
}

#[tokio::test]
async fn a_line_that_cannot_be_a_record_fails_alone_and_the_exit_code_tells() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "1").await?;
    let input = b"{\"id\":1}\nnot json\n{\"other\":2}\n{\"id\":3}\n";
    let put = command(&broker, &["put", "s", "--key-field", "id", "--json"], input).await?;
    assert_eq!(put.code, Some(1), "{put:?}");
    let summary = json(&put)?;
    assert_eq!((&summary["records"], &summary["failures"]), (&Value::from(2), &Value::from(2)));
    assert!(put.stderr.contains("line 2") && put.stderr.contains("line 3"), "{}", put.stderr);
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up"], b"").await?;
    assert_eq!(read.stdout, ["{\"id\":1}", "{\"id\":3}"]);
    Ok(())
}

#[tokio::test]
async fn an_application_goes_on_where_it_stopped_and_another_begins_anew() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "2").await?;
    let consume = async |app: &str, from: &str| {
        let args = ["consume", "s", "--app", app, "--from", from, "--until-caught-up"];
        anyhow::Ok(done(&broker, &args, b"").await?.stdout)
    };
    done(&broker, &["put", "s", "--key", "k"], b"one\ntwo\n").await?;
    assert_eq!(consume("a", "trim-horizon").await?, ["one", "two"]);
    assert!(consume("late", "latest").await?.is_empty(), "what was there before is not asked for");
    done(&broker, &["put", "s", "--key", "k"], b"three\n").await?;
    assert_eq!(consume("a", "trim-horizon").await?, ["three"]);
    assert!(consume("a", "trim-horizon").await?.is_empty());
    assert_eq!(consume("b", "trim-horizon").await?, ["one", "two", "three"]);
    Ok(())
}

#[tokio::test]
async fn streams_are_created_listed_described_and_deleted() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    let stream = async |args: &[&str]| {
        let finished = done(&broker, &[&["stream"], args, &["--json"]].concat(), b"").await?;
        json(&finished)
    };
    assert_eq!(stream(&["list"]).await?["streams"], Value::Array(vec![]));
    let made = stream(&["create", "b", "--shards", "3", "--retention-hours", "48"]).await?;
    assert_eq!((&made["open_shards"], &made["retention_hours"]), (&Value::from(3), &Value::from(48)));
    stream(&["create", "a"]).await?;
    let listed = stream(&["list"]).await?;
    let names: Vec<_> =
        listed["streams"].as_array().context("a list")?.iter().map(|s| &s["stream"]).collect();
    assert_eq!(names, ["a", "b"]);
    let described = stream(&["describe", "b"]).await?;
    let shards = described["shards"].as_array().context("a list")?;
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[0]["hash_start"], "0");
    assert_eq!(shards[2]["hash_end"], "340282366920938463463374607431768211455");
    assert_eq!(stream(&["delete", "b"]).await?["deleted"], "b");
    for gone in [&["stream", "describe", "b"][..], &["stream", "delete", "b"]] {
        let refused = command(&broker, gone, b"").await?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("not found"), "{}", refused.stderr);
    }
    let twice = command(&broker, &["stream", "create", "a"], b"").await?;
    assert_eq!(twice.code, Some(1), "{twice:?}");
    assert!(twice.stderr.contains("exists"), "{}", twice.stderr);
    // what a person reads
    let text = done(&broker, &["stream", "list"], b"").await?;
    assert_eq!(text.stdout.len(), 1);
    assert!(text.stdout[0].starts_with("a: 1 open shard"), "{:?}", text.stdout);
    Ok(())
}

#[tokio::test]
async fn streams_survive_a_restart_of_the_broker() -> Result<()> {
    let home = TempDir::new()?;
    let broker = broker(&home, "2").await?;
    done(&broker, &["put", "s", "--key", "k"], b"kept\n").await?;
    let before = done(&broker, &["stream", "describe", "s", "--json"], b"").await?.stdout;
    broker.terminate().await?;
    let broker = Broker::start(home.path(), &[]).await?;
    assert_eq!(done(&broker, &["stream", "describe", "s", "--json"], b"").await?.stdout, before);
    let read = done(&broker, &["consume", "s", "--app", "a", "--until-caught-up"], b"").await?;
    assert_eq!(read.stdout, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_told_with_exit_code_1() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    for args in [&["put", "none"][..], &["consume", "none", "--app", "a", "--until-caught-up"]] {
        let refused = command(&broker, args, b"line\n").await?;
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains("none"), "{args:?} names the stream: {}", refused.stderr);
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
    let nobody = format!("http://127.0.0.1:{}", tidemill_tests::free_port()?);
    for args in [&["put", "s"][..], &["stream", "list"], &["consume", "s", "--app", "a", "--until-caught-up"]]
    {
        let refused = run(&[args, &["--endpoint", &nobody]].concat()).await?;
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(&nobody[7..]), "{args:?} names the address: {}", refused.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn bad_usage_of_the_tools_is_exit_code_2() -> Result<()> {
    let cases: [&[&str]; 6] = [
        &["put"],
        &["put", "bad/name"],
        &["put", "s", "--key", "a", "--key-field", "b"],
        &["consume", "s"],
        &["consume", "s", "--app", "a", "--lease-ms", "1"],
        &["stream", "create", "s", "--shards", "0"],
    ];
    for args in cases {
        let refused = run(args).await?;
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        assert!(!refused.stderr.is_empty() && refused.stdout.is_empty(), "{args:?}: {refused:?}");
    }
    Ok(())
}

//! `tidemill backup` of a broker under load and `tidemill restore`, with the same full check as behind any fault: everything that
//! was acknowledged before the backup began is there, and what is there is a state that was.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, STREAM};
use tidemill_tests::{Broker, Finished, ONE_CREDENTIAL, read_stream, run, tell};

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary directory has a plain name")
}

async fn backup(broker: &Broker, dest: &Path) -> Result<Value> {
    let done = run(&["backup", text(dest)?, "--endpoint", &broker.url(), "--json"]).await?;
    ensure!(done.code == Some(0), "{done:?}");
    Ok(serde_json::from_str(done.stdout.first().context("a line")?)?)
}

async fn restore(from: &Path, to: &Path) -> Result<Finished> {
    run(&["restore", text(from)?, text(to)?, "--json"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment_and_restored_it_goes_on_with_numbers_of_its_own() -> Result<()> {
    let home = TempDir::new()?;
    let (dest, data) = (home.path().join("backup"), home.path().join("restored"));
    let broker = Broker::start(&home.path().join("data"), &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(3000, Duration::from_secs(30)).await?;
    let first = backup(&broker, &dest).await?;
    loading.progress(3000, Duration::from_secs(30)).await?;
    // all of these must be in the second one
    let before = loading.told();
    let second = backup(&broker, &dest).await?;
    loading.progress(1000, Duration::from_secs(30)).await?;
    let load = loading.stop().await?;
    ensure!(first["bytes_copied"].as_u64() > Some(0), "{first}");
    let verified = run(&["verify", text(&dest)?]).await?;
    ensure!(verified.code == Some(0), "{verified:?}");

    let served = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&dest)?]).await?;
    ensure!(served.code == Some(1) && served.stderr.contains("this is a backup"), "{served:?}");
    let restored = restore(&dest, &data).await?;
    ensure!(restored.code == Some(0), "{restored:?}");
    let again = restore(&dest, &data).await?;
    ensure!(again.code == Some(1) && again.stderr.contains("not empty"), "{again:?}");
    // what only a journal holds would be left out
    let other = restore(&home.path().join("data"), &home.path().join("other")).await?;
    ensure!(other.code == Some(1) && other.stderr.contains("is no backup"), "{other:?}");
    let copy = Broker::start(&data, &[]).await?;
    let stored = copy.kinesis().read_all(STREAM).await?;
    ensure!(read_stream(&copy, STREAM).await? == stored, "both APIs give the same records");
    let there: HashSet<u64> = stored.iter().map(|record| record.id).collect();
    let missing = before.iter().filter(|id| !there.contains(id)).count();
    ensure!(
        missing == 0,
        "{missing} of {} records acknowledged before the backup are not in it",
        before.len()
    );
    // what is there has its own numbers and bytes, in order, once; and of each shard it is all up to some place
    load.history().without_missing(&there).verify(&stored)?;
    let all = broker.kinesis().read_all(STREAM).await?;
    for record in &stored {
        ensure!(all.contains(record), "{record:?} is not in the original");
    }
    let mut ends = std::collections::HashMap::new();
    for record in &stored {
        ends.insert(record.shard, record.number);
    }
    for record in &all {
        let is_within = ends.get(&record.shard).is_some_and(|end| record.number <= *end);
        ensure!(
            is_within == there.contains(&record.id),
            "a hole before the end of {}: {record:?}",
            record.shard
        );
    }
    // numbers that the original gives out later, also after a restart, are not given out by the copy
    let broker = broker.roll().await?;
    for n in 0..40 {
        let record = (format!("k{n}"), tidemill_tests::payload((u64::MAX >> 2) + n, 50));
        broker.kinesis().put_records(STREAM, &[record]).await?;
    }
    let later = broker.kinesis().read_all(STREAM).await?;
    let mut put = copy.kinesis();
    put.put_records(STREAM, &[("k".into(), tidemill_tests::payload(u64::MAX >> 1, 50))]).await?;
    let newest = put.read_all(STREAM).await?.into_iter().find(|record| record.id == u64::MAX >> 1);
    let newest = newest.context("the record is there")?;
    ensure!(later.iter().all(|record| record.shard != newest.shard || record.number < newest.number));
    tell(&format!(
        "backup under load: {first}, then {second}; {} acknowledged before it, {} in it, {} in all",
        before.len(),
        stored.len(),
        all.len()
    ));
    copy.terminate().await?;
    broker.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_backup_copies_what_is_new_and_forgets_what_is_gone() -> Result<()> {
    let home = TempDir::new()?;
    let dest = home.path().join("backup");
    let broker = Broker::start(&home.path().join("data"), &["--durability", "os"]).await?;
    let mut kinesis = broker.kinesis();
    for stream in ["stays", "goes"] {
        kinesis.create_stream(stream, 1).await?;
        for batch in 0..20 {
            let records: Vec<_> = (0..10).map(|n| (format!("k{n}"), vec![b'a' + batch; 50_000])).collect();
            kinesis.put_records(stream, &records).await?;
        }
    }
    let full = backup(&broker, &dest).await?["bytes_copied"].as_u64().context("bytes")?;
    ensure!(full > 20_000_000, "{full}");
    let nothing = backup(&broker, &dest).await?["bytes_copied"].as_u64().context("bytes")?;
    ensure!(nothing == 0, "nothing is new, and {nothing} bytes were copied");
    kinesis.put_records("stays", &[("k".into(), vec![b'z'; 1000])]).await?;
    kinesis.ok("DeleteStream", &serde_json::json!({ "StreamName": "goes" })).await?;
    let more = backup(&broker, &dest).await?["bytes_copied"].as_u64().context("bytes")?;
    ensure!((1000..2000).contains(&more), "a record of 1,000 bytes is new, and {more} bytes were copied");
    let data = home.path().join("restored");
    ensure!(restore(&dest, &data).await?.code == Some(0));
    let copy = Broker::start(&data, &[]).await?;
    let streams = copy.kinesis().ok("ListStreams", &serde_json::json!({})).await?;
    ensure!(streams["StreamNames"] == serde_json::json!(["stays"]), "{streams}");
    let bytes = |dir: &Path| -> Result<u64> {
        let mut sum = 0;
        for entry in std::fs::read_dir(dir.join("segments"))? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum)
    };
    ensure!(bytes(&dest)? < 25_000_000, "the segments of a stream that is gone are gone");
    Ok(())
}

#[tokio::test]
async fn what_is_no_backup_is_not_written_over_and_a_damaged_one_is_not_restored() -> Result<()> {
    let home = TempDir::new()?;
    let data = home.path().join("data");
    let broker = Broker::start(&data, &["--durability", "os"]).await?;
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("s", 1).await?;
    kinesis.put_records("s", &[("k".into(), vec![b'x'; 200_000])]).await?;
    let other = home.path().join("photos");
    std::fs::create_dir(&other)?;
    std::fs::write(other.join("holiday.jpg"), "")?;
    for dest in [&other, &data] {
        let refused = run(&["backup", text(dest)?, "--endpoint", &broker.url()]).await?;
        ensure!(refused.code == Some(1), "{refused:?}");
        ensure!(refused.stderr.contains(text(dest)?), "{}", refused.stderr);
    }
    let dest = home.path().join("backup");
    backup(&broker, &dest).await?;
    // of another broker
    let second = Broker::start(&home.path().join("second"), &["--durability", "os"]).await?;
    let refused = run(&["backup", text(&dest)?, "--endpoint", &second.url()]).await?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("another broker"), "{refused:?}");
    // made from a backup and never opened, it has no name yet; its segments look like those of any broker
    let copy = home.path().join("copy");
    ensure!(restore(&dest, &copy).await?.code == Some(0));
    let refused = run(&["backup", text(&copy)?, "--endpoint", &second.url()]).await?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("another broker"), "{refused:?}");
    let segment = std::fs::read_dir(dest.join("segments"))?.next().context("a segment")??.path();
    let mut bytes = std::fs::read(&segment)?;
    bytes[1000] ^= 1;
    std::fs::write(&segment, bytes)?;
    let refused = restore(&dest, &home.path().join("restored")).await?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("damaged"), "{refused:?}");
    ensure!(!home.path().join("restored").exists(), "nothing is begun");
    Ok(())
}

#[tokio::test]
async fn keys_for_data_cannot_take_a_backup() -> Result<()> {
    let home = TempDir::new()?;
    let config = home.path().join("tidemill.toml");
    let admin = r#"
[[credentials]]
access_key_id = "admin"
secret_access_key = "secret"
policies = ["backup"]

[[policies]]
name = "backup"

[[policies.statements]]
effect = "allow"
actions = ["tidemill:Backup"]
streams = ["*"]
"#;
    std::fs::write(&config, format!("{ONE_CREDENTIAL}{admin}"))?;
    let args = ["--config", text(&config)?, "--durability", "os"];
    let broker = Broker::start(&home.path().join("data"), &args).await?;
    let url = broker.url();
    let take = async |key: &[&str]| {
        let dest = home.path().join("backup");
        run(&[&["backup", text(&dest)?, "--endpoint", &url], key].concat()).await
    };
    let without = take(&[]).await?;
    ensure!(without.code == Some(1), "{without:?}");
    let data = take(&["--access-key-id", "test", "--secret-access-key", "secret"]).await?;
    ensure!(data.code == Some(1) && data.stderr.contains("tidemill:Backup"), "{data:?}");
    let admin = take(&["--access-key-id", "admin", "--secret-access-key", "secret"]).await?;
    ensure!(admin.code == Some(0), "{admin:?}");
    Ok(())
}

//! How a broker starts, says how it is, and stops; and what refuses to start, with which words.

use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::{Broker, Finished, History, PutResult, Stored, create_stream, payload, run, tell};
use tidemill_types::{FrameHeader, FrameWriter};

async fn serve(dir: &Path, args: &[&str]) -> Result<Finished> {
    let dir = dir.to_str().context("a plain name")?;
    let all = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", dir], args].concat();
    run(&all).await
}

#[tokio::test]
async fn data_files_are_for_their_owner_alone() -> Result<()> {
    fn check(dir: &Path) -> Result<usize> {
        let mut files = 0;
        for entry in std::fs::read_dir(dir)? {
            let (path, meta) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            if meta.is_dir() {
                files += check(&path)?;
            } else {
                assert_eq!(meta.mode() & 0o077, 0, "{} is open to others: {:o}", path.display(), meta.mode());
                files += 1;
            }
        }
        Ok(files)
    }
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 2).await?;
    broker
        .kinesis()
        .put_records("s", &[("a".into(), payload(1, 100)), ("b".into(), payload(2, 500_000))])
        .await?;
    assert!(check(home.path())? > 2, "there are files to check");
    Ok(())
}

#[tokio::test]
async fn a_second_broker_on_the_same_directory_is_refused_and_the_first_goes_on() -> Result<()> {
    let home = TempDir::new()?;
    let mut first = Broker::start(home.path(), &[]).await?;
    create_stream(&first, "s", 1).await?;
    let second = serve(home.path(), &[]).await?;
    assert_eq!(second.code, Some(1), "{second:?}");
    let dir = home.path().to_str().context("a plain name")?;
    let message = second.stderr.to_lowercase();
    assert!(second.stderr.contains(dir), "the message names the directory: {message}");
    assert!(["process", "in use", "lock"].iter().any(|w| message.contains(w)), "it says why: {message}");
    assert!(!second.stdout.iter().any(|line| line.contains("ready")), "{second:?}");
    first.assert_alive().await?;
    let put = first.kinesis().put_records("s", &[("a".into(), payload(1, 100))]).await?;
    assert!(matches!(put[..], [PutResult::Stored(..)]));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_asked_to_stop_finishes_what_is_under_way_and_exits_with_0() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 2).await?;
    let mut kinesis = broker.kinesis();
    let mut history = History::default();
    let load = tokio::spawn(async move {
        for batch in 0u64.. {
            let ids: Vec<u64> = (batch * 10..batch * 10 + 10).collect();
            let records: Vec<_> = ids.iter().map(|id| (format!("k{id}"), payload(*id, 2000))).collect();
            let put = kinesis.put_records("s", &records).await;
            let Ok(put) = put else {
                ids.iter().for_each(|id| history.uncertain(*id));
                break;
            };
            for (id, result) in ids.iter().zip(put) {
                match result {
                    PutResult::Stored(shard, number) => {
                        history.acknowledged(Stored { shard, number, id: *id }).expect("told once");
                    }
                    PutResult::Failed => history.uncertain(*id),
                }
            }
        }
        history
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let finished = broker.terminate().await?;
    assert_eq!(finished.code, Some(0));
    let history = tokio::time::timeout(Duration::from_secs(10), load).await??;
    assert!(history.acknowledged_count() > 0, "the broker was stopped under load");
    let broker = Broker::start(home.path(), &[]).await?;
    let verified = history.verify(&broker.kinesis().read_all("s").await?)?;
    tell(&format!("stopped under load: {verified:?}"));
    Ok(())
}

/// The value of a series, by its name and labels in any order; nothing if it is not there.
fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut asked: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    asked.sort();
    text.lines().find_map(|line| {
        let (found, value) = line.rsplit_once(' ')?;
        let (found, labels) = found.strip_suffix('}').and_then(|f| f.split_once('{')).unwrap_or((found, ""));
        let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        labels.sort_unstable();
        (found == name && labels == asked).then(|| value.parse().ok())?
    })
}

#[tokio::test]
async fn health_answers_and_metrics_count_what_was_put_and_read() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "measured", 1).await?;
    let (key, data) = ("a".to_owned(), payload(1, 100));
    let frame_bytes = FrameHeader::BYTES + FrameWriter::record_bytes(key.len(), data.len());
    let read_bytes = key.len() + data.len();
    broker.kinesis().put_records("measured", &[(key, data)]).await?;
    assert_eq!(broker.kinesis().read_all("measured").await?.len(), 1);
    let mut connection = broker.connect().await?;
    for path in ["/health/live", "/health/ready"] {
        let reply = connection.get(path).await?;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(reply.json()?["status"].is_string(), "{path}: {}", reply.text());
    }
    let metrics = connection.get("/metrics").await?;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let text = metrics.text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(line.starts_with("tidemill_"), "the name of {line}");
        assert!(value.parse::<f64>().is_ok(), "the value of {line}");
    }
    let shard = [("account", "000000000000"), ("stream", "measured"), ("shard", "shardId-000000000000")];
    let journal = [("route", "journal")];
    for (name, labels, value) in [
        ("tidemill_records_in_total", &shard[..], 1),
        ("tidemill_bytes_in_total", &shard, frame_bytes),
        ("tidemill_records_out_total", &shard, 1),
        ("tidemill_bytes_out_total", &shard, read_bytes),
        ("tidemill_reader_lag_records_count", &shard, 1),
        ("tidemill_commit_seconds_count", &journal, 1),
        ("tidemill_commit_group_frames_sum", &journal, 1),
    ] {
        assert_eq!(series(&text, name, labels), Some(value as f64), "{name} {labels:?} in\n{text}");
    }
    let frames = series(&text, "tidemill_commit_group_frames_count", &journal);
    assert!(frames.is_some_and(|groups| groups > 0.0), "{text}");
    for (name, labels) in [
        ("tidemill_queue_bytes", &[][..]),
        ("tidemill_journal_bytes", &[]),
        ("tidemill_segment_bytes", &[]),
        ("tidemill_leases", &[("state", "held")]),
        ("tidemill_errors_total", &[("kind", "throttled")]),
    ] {
        assert!(series(&text, name, labels).is_some(), "{name} {labels:?} in\n{text}");
    }
    assert_eq!(series(&text, "tidemill_records_in_total", &[]), None, "no series without its labels");
    Ok(())
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_the_word_insecure() -> Result<()> {
    let home = TempDir::new()?;
    let dir = home.path().join("data");
    let refused =
        run(&["serve", "--listen", "0.0.0.0:0", "--data-dir", dir.to_str().context("plain")?]).await?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--insecure"), "it says what to do: {}", refused.stderr);
    assert!(!dir.exists(), "nothing is touched");
    Ok(())
}

#[tokio::test]
async fn bad_usage_exits_with_2_and_says_what_is_wrong() -> Result<()> {
    let cases: [(&[&str], &str); 6] = [
        (&[], "Usage"),
        (&["fly"], "fly"),
        (&["serve", "--durability", "sometimes"], "sometimes"),
        (&["serve", "--listen", "nowhere"], "nowhere"),
        (&["serve", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (&["serve", "--sideways"], "--sideways"),
    ];
    for (args, word) in cases {
        let finished = run(args).await?;
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(word), "{args:?}: {}", finished.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> Result<()> {
    let home = TempDir::new()?;
    let other = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = other.local_addr()?.to_string();
    let dir = home.path().to_str().context("plain")?;
    let refused = run(&["serve", "--listen", &addr, "--data-dir", dir]).await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&addr), "{}", refused.stderr);
    Ok(())
}

/// Stops a broker that has data, changes one of its files, and gives what the next start says.
async fn start_on_damaged(damage: impl Fn(&Path) -> Result<String>) -> Result<(Finished, String)> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 1).await?;
    let mut kinesis = broker.kinesis();
    for id in 0..50 {
        kinesis.put_records("s", &[("a".into(), payload(id, 3000))]).await?;
    }
    // killed, so that the journal is needed
    broker.kill_9().await?;
    let file = damage(home.path())?;
    Ok((serve(home.path(), &[]).await?, file))
}

fn assert_damage_is_told(finished: &Finished, file: &str) {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains(file), "the message names {file}: {}", finished.stderr);
    assert!(finished.stderr.contains("damaged"), "it says what is wrong: {}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_told_by_name_and_nothing_is_skipped() -> Result<()> {
    let damage = |dir: &Path| {
        let path = dir.join("checkpoint");
        let mut bytes = std::fs::read(&path).context("a broker with data has a checkpoint")?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(&path, bytes)?;
        Ok("checkpoint".to_owned())
    };
    let (finished, file) = start_on_damaged(damage).await?;
    assert_damage_is_told(&finished, &file);
    Ok(())
}

#[tokio::test]
async fn a_journal_that_is_damaged_before_intact_entries_is_told_by_name() -> Result<()> {
    let damage = |dir: &Path| {
        let mut journals = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("journal-") {
                journals.push(name);
            }
        }
        let mut damaged = None;
        for name in journals {
            let mut bytes = std::fs::read(dir.join(&name))?;
            // within the data of an early record, which has later ones behind it
            let place = bytes.windows(16).position(|part| part == b"0000000000000005");
            if let Some(place) = place {
                bytes[place + 100] ^= 0xff;
                std::fs::write(dir.join(&name), bytes)?;
                damaged = Some(name);
                break;
            }
        }
        damaged.context("a small record is in a journal")
    };
    let (finished, file) = start_on_damaged(damage).await?;
    assert_damage_is_told(&finished, &file);
    Ok(())
}

#[tokio::test]
async fn the_ready_line_is_the_only_line_on_stdout() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    let url = broker.url();
    let finished = broker.terminate().await?;
    assert_eq!(finished.stdout, [format!("tidemill ready on {url}")]);
    Ok(())
}

//! `tidemill verify` on the directory of a real broker: what it says of an intact one, of one with a flipped bit, of one that is
//! in use; and that the metadata store is part of it. `tidemill repair`: that it asks first, and keeps what it replaces.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tidemill_tests::{Broker, Finished, run, run_with_input};

async fn verify(data: &Path) -> Result<(Finished, Vec<Value>)> {
    let data = data.to_str().context("a temporary directory has a plain name")?;
    let finished = run(&["verify", data, "--json"]).await?;
    let lines = finished.stdout.iter().map(|line| serde_json::from_str(line).with_context(|| line.clone()));
    let lines = lines.collect::<Result<_>>()?;
    Ok((finished, lines))
}

/// A directory with 3,000 records in 4 shards, closed in order.
async fn filled(home: &TempDir) -> Result<PathBuf> {
    let data = home.path().join("data");
    let broker = Broker::start(&data, &["--durability", "os"]).await?;
    let url = broker.url();
    let done = run(&["stream", "create", "s", "--shards", "4", "--endpoint", &url]).await?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let lines = (0..3000).map(|n| format!("line {n}\n")).collect::<String>();
    let put = run_with_input(&["put", "s", "--endpoint", &url], lines.as_bytes()).await?;
    assert_eq!(put.code, Some(0), "{put:?}");
    let busy = run(&["verify", data.to_str().context("a plain name")?]).await?;
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(busy.stderr.contains("stop it first"), "{}", busy.stderr);
    broker.terminate().await?;
    Ok(data)
}

fn flip(file: &Path, at: usize) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    bytes[at] ^= 0x10;
    Ok(std::fs::write(file, bytes)?)
}

#[tokio::test]
async fn an_intact_directory_passes_and_a_flipped_bit_is_told_with_stream_and_shard() -> Result<()> {
    let home = TempDir::new()?;
    let data = filled(&home).await?;
    let (passed, lines) = verify(&data).await?;
    assert_eq!(passed.code, Some(0), "{passed:?}");
    let whole = lines.last().context("a summary")?;
    assert_eq!(
        (&whole["streams"], &whole["shards"], &whole["records"]),
        (&1.into(), &4.into(), &3000.into())
    );
    assert_eq!((&whole["findings"], &whole["damaged"]), (&0.into(), &false.into()), "{whole}");

    let mut segments: Vec<_> = std::fs::read_dir(data.join("segments"))?.collect::<Result<_, _>>()?;
    segments.sort_by_key(std::fs::DirEntry::path);
    let segment = segments.first().context("records lie in segments")?.path();
    flip(&segment, 200)?;
    let (failed, lines) = verify(&data).await?;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("is damaged"), "{}", failed.stderr);
    let found = &lines[0];
    let name = segment.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    assert_eq!(found["file"], format!("segments/{name}"));
    assert!(
        found["stream"].as_str().is_some_and(|stream| stream.contains("stream s") || stream.starts_with('s')),
        "{found}"
    );
    assert!(found["shard"].as_str().is_some_and(|shard| shard.starts_with("shardId-")), "{found}");
    assert!(found["first_index"].is_u64(), "{found}");
    flip(&segment, 200)?;
    assert_eq!(verify(&data).await?.0.code, Some(0), "it is as it was");
    Ok(())
}

fn contents(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(contents(&path)?);
        } else {
            all.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok(all)
}

#[tokio::test]
async fn repair_changes_nothing_without_consent_and_keeps_what_it_replaces() -> Result<()> {
    let home = TempDir::new()?;
    let data = filled(&home).await?;
    let segments = contents(&data.join("segments"))?;
    let (segment, _) = segments.iter().find(|(_, bytes)| bytes.len() > 300).context("a segment")?;
    flip(segment, 200)?;
    let damaged = contents(&data)?;
    let dir = data.to_str().context("a plain name")?;
    let asked = run(&["repair", dir, "--json"]).await?;
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.stderr.contains("nothing was changed"), "{asked:?}");
    assert!(contents(&data)? == damaged, "a file was changed, made or removed without --yes");

    let repaired = run(&["repair", dir, "--yes", "--json"]).await?;
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    let whole: Value = serde_json::from_str(repaired.stdout.last().context("a summary")?)?;
    assert!(whole["records_lost"].as_u64() > Some(0), "{whole}");
    let quarantine = Path::new(whole["quarantine"].as_str().context("what was replaced is kept")?);
    let name = segment.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    let mut kept = 0;
    for (file, bytes) in contents(quarantine)? {
        let file = file.file_name().and_then(|file| file.to_str()).context("a plain name")?.to_owned();
        let (of, offset) = file.split_once('@').context("named for file and offset")?;
        let offset: usize = offset.parse()?;
        if of == format!("segments_{name}") {
            assert!(bytes == damaged[segment][offset..offset + bytes.len()], "{file} is not what was there");
            assert!((offset..offset + bytes.len()).contains(&200), "{file} is not where the damage is");
            kept += 1;
        }
    }
    assert!(kept > 0, "the damaged bytes are not in {}", quarantine.display());
    assert_eq!(verify(&data).await?.0.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn flipped_bits_of_the_metadata_store_are_never_taken_for_metadata() -> Result<()> {
    let home = TempDir::new()?;
    let data = filled(&home).await?;
    let file = data.join("metadata.redb");
    let intact = std::fs::read(&file)?;
    let mut told = 0;
    // where the names of the stream stand its rows are: no bit of those may change unseen
    let rows: Vec<usize> =
        intact.windows(8).enumerate().filter(|(_, bytes)| *bytes == b"catalog/").map(|(at, _)| at).collect();
    assert!(!rows.is_empty(), "the catalog has rows");
    for at in rows {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, bytes)?;
        let (finished, lines) = verify(&data).await?;
        let whole = lines.last().context("a summary")?;
        // a page that no tree names any more may hold old rows; then everything is still there
        if finished.code == Some(0) {
            assert_eq!((&whole["streams"], &whole["shards"]), (&1.into(), &4.into()), "{whole}");
        } else {
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert_eq!(lines[0]["file"], "metadata.redb", "{}", lines[0]);
            told += 1;
        }
    }
    assert!(told > 0, "no flipped bit of a row was told");
    Ok(())
}

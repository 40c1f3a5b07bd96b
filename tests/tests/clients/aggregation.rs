//! `aws-kinesis-agg`, the aggregation library of Python, in both directions.

use crate::install::{clients, python, run};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_proto::aggregate;
use tidemill_tests::tell;
use tidemill_types::{HashKey, PartitionKey, Record};
use tokio::process::Command;

fn record(key: &str, hash: Option<u128>, data: &[u8]) -> Result<Record> {
    let record = Record::new(PartitionKey::new(key)?, Bytes::copy_from_slice(data))?;
    Ok(hash.map_or(record.clone(), |hash| record.with_explicit_hash(HashKey::new(hash))))
}

/// Batches to be packed: few and many records, keys shared and not, data empty, binary and large. In a batch either all
/// or none have an explicit hash key: the library of Python gives those without one the first of the batch.
fn batches() -> Result<Vec<Vec<Record>>> {
    let mut batches = vec![
        vec![record("pk1", None, b"hello")?, record("pk2", None, b"world")?],
        vec![record("日本", None, b"")?, record("日本", None, &[0, 0xff, 0xf3, 0x89, 0x9a, 0xc2])?],
        vec![record("a", Some(0), b"x")?, record("b", Some(u128::MAX), b"y")?, record("a", Some(0), b"z")?],
    ];
    let many = (0..1000u32).map(|n| record(&format!("user-{}", n % 300), None, &n.to_be_bytes()));
    batches.push(many.collect::<Result<_>>()?);
    let large = (0..3u8).map(|n| record("k", Some(u128::from(n)), &vec![n; 300_000]));
    batches.push(large.collect::<Result<_>>()?);
    Ok(batches)
}

fn base64(data: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(data)
}

fn shown(record: &Record) -> Value {
    let hash = record.explicit_hash().map(|hash| hash.to_string());
    json!({ "key": record.key().as_str(), "hash": hash, "data": base64(record.data()) })
}

/// Tells the script what to do and gives its answer.
async fn python_does(work: &Value) -> Result<Option<Value>> {
    let Some(python) = python().await? else { return Ok(None) };
    let home = TempDir::new()?;
    let (input, output) = (home.path().join("input.json"), home.path().join("output.json"));
    std::fs::write(&input, work.to_string())?;
    run(Command::new(python).arg(clients().join("aggregation.py")).args([&input, &output])).await?;
    Ok(Some(serde_json::from_slice(&std::fs::read(&output)?)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_aggregates_is_unpacked() -> Result<()> {
    let batches = batches()?;
    let shown: Vec<Vec<Value>> = batches.iter().map(|batch| batch.iter().map(shown).collect()).collect();
    let Some(answer) = python_does(&json!({ "pack": shown })).await? else { return Ok(()) };
    let packed = answer.as_array().context("a list of records")?;
    ensure!(packed.len() == batches.len(), "a record for each batch");
    for (packed, batch) in packed.iter().zip(batches) {
        let data = base64_simd::STANDARD.decode_to_vec(packed["data"].as_str().context("data")?)?;
        let unpacked = aggregate::unpack(&data.into()).context("an aggregated record")?;
        ensure!(unpacked.collect::<Vec<_>>() == batch, "the records that were packed");
    }
    tell("aws-kinesis-agg: what it packs is unpacked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_packed_python_deaggregates() -> Result<()> {
    let batches = batches()?;
    let mut packed = Vec::new();
    for batch in &batches {
        packed.push(shown(&aggregate::pack(batch)?));
    }
    // a plain record stays one
    packed.push(shown(&record("plain", None, b"data")?));
    let Some(answer) = python_does(&json!({ "unpack": packed })).await? else { return Ok(()) };
    let mut expected: Vec<Value> = Vec::new();
    for batch in &batches {
        expected.extend(batch.iter().enumerate().map(|(at, record)| {
            let mut shown = shown(record);
            shown["at"] = at.into();
            shown
        }));
    }
    expected.push(json!({ "key": "plain", "hash": null, "data": base64(b"data"), "at": null }));
    let found = answer.as_array().context("a list of records")?;
    ensure!(found.len() == expected.len(), "{} records instead of {}", found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        ensure!(found == expected, "{found} instead of {expected}");
    }
    tell(&format!("aws-kinesis-agg: it reads {} records that were packed here", found.len()));
    Ok(())
}

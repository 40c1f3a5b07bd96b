//! `aws-kinesis-agg`, the aggregation library of Python, in both directions.

use crate::broker::verifying;
use crate::install::{clients, python, run};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use tempfile::TempDir;
use tidemill_producer::{Aws, Config, Producer};
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

/// The records of a stream as they lie there, key and data, in the order of one shard.
async fn raw_records(client: &aws_sdk_kinesis::Client, stream: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let start = client.get_shard_iterator().stream_name(stream).shard_id("shardId-000000000000");
    let kind = aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon;
    let mut iterator = start.shard_iterator_type(kind).send().await?.shard_iterator;
    let mut all = Vec::new();
    while let Some(at) = iterator {
        let page = client.get_records().shard_iterator(at).send().await?;
        all.extend(
            page.records
                .into_iter()
                .map(|record| (record.partition_key.unwrap_or_default(), record.data.into_inner())),
        );
        iterator = page.next_shard_iterator.filter(|_| page.millis_behind_latest != Some(0));
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_producer_puts_over_the_kinesis_api_python_deaggregates() -> Result<()> {
    let home = TempDir::new()?;
    let broker = verifying(&home, &[]).await?;
    let client = crate::rust_sdk::client(&broker);
    client.create_stream().stream_name("aggregated").shard_count(1).send().await?;
    let aws = Aws::from_env().endpoint(&broker.url())?.region("us-east-1").credentials("test", "test");
    let producer = Producer::new(Config::aws(aws.without_rate_limit())).await?;
    let mut records = vec![record("pk1", None, b"hello")?, record("pk2", Some(123), b"world")?];
    for n in 0..3000u32 {
        let size = rand::random_range(0..400);
        let hash = rand::random_ratio(1, 3).then(rand::random::<u128>);
        let mut data = n.to_be_bytes().to_vec();
        data.resize(4 + size, b'x');
        records.push(record(&format!("user-{}", rand::random_range(0..200)), hash, &data)?);
    }
    let mut tickets = Vec::new();
    for (at, given) in records.iter().enumerate() {
        tickets.push(producer.put("aggregated", given.clone()).await?);
        if at == 1 {
            // the vector of the format alone
            producer.flush().await?;
        }
    }
    let mut placed = HashMap::new();
    for (ticket, given) in tickets.into_iter().zip(&records) {
        let at = ticket.await?;
        placed.insert(
            (at.number, at.sub),
            json!({ "key": given.key().as_str(), "data": base64(given.data()) }),
        );
    }
    let raw = raw_records(&client, "aggregated").await?;
    let hex: String = raw[0].1.iter().map(|byte| format!("{byte:02x}")).collect();
    let vector = "f3899ac20a03706b310a03706b3212033132331a0908001a0568656c6c6f1a0b080110001a05776f726c64\
                  cb48b8211afb3c05f4c31852c9aff58e";
    ensure!(hex == vector && raw[0].0 == "a", "the container of the vector: {hex}");
    ensure!(raw.iter().all(|(_, data)| data.len() <= 51_200), "a container is too large");
    let work: Vec<Value> =
        raw.iter().map(|(key, data)| json!({ "key": key, "hash": null, "data": base64(data) })).collect();
    let Some(answer) = python_does(&json!({ "unpack": work })).await? else { return Ok(()) };
    let found = answer.as_array().context("a list of records")?;
    ensure!(found.len() == records.len(), "{} records instead of {}", found.len(), records.len());
    let mut left: HashMap<String, usize> = HashMap::new();
    for shown in placed.values() {
        *left.entry(shown.to_string()).or_default() += 1;
    }
    for found in found {
        // where only some have an explicit hash key, the library gives the others the first of them
        let plain = json!({ "key": found["key"], "data": found["data"] }).to_string();
        let count = left.get_mut(&plain).with_context(|| format!("{plain} was not put"))?;
        *count = count.checked_sub(1).context("a record is there twice")?;
    }
    tell(&format!(
        "aws-kinesis-agg: it reads {} records in {} containers that the producer put over the Kinesis API",
        found.len(),
        raw.len()
    ));
    Ok(producer.close().await?)
}

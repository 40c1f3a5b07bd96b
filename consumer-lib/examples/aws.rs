//! Counts the records of a stream on AWS, or on anything that speaks as it does:
//!
//! ```text
//!  STREAM=events APP=counter cargo run -p tidemill-consumer --features aws --example aws
//! ```
//!
//! Region and credentials are those of the environment, as for every AWS tool. `FAN_OUT=1` reads by enhanced fan-out.
//! `KINESIS_ENDPOINT` and `DYNAMODB_ENDPOINT` (`http://127.0.0.1:4567`) name other services. Ctrl-C stops it; start it more
//! than once and the shards are shared out. Workers of the KCL for Java under the same name take part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_consumer::aws::{DynamoDb, Kinesis};
use tidemill_consumer::{Error, Worker};

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let stream = env("STREAM").unwrap_or_else(|| "events".to_owned());
    let app = env("APP").unwrap_or_else(|| "counter".to_owned());
    let (mut kinesis, mut table) = (Kinesis::from_env().await, DynamoDb::from_env().await);
    if let Some(url) = env("KINESIS_ENDPOINT") {
        kinesis = kinesis.endpoint(&url);
    }
    if let Some(url) = env("DYNAMODB_ENDPOINT") {
        table = table.endpoint(&url);
    }
    if env("FAN_OUT").is_some() {
        kinesis = kinesis.fan_out();
    }
    let worker = Worker::kinesis(kinesis, &app, &stream).leases_in_dynamo_db(table).build()?;
    println!("worker {} of {app} reads {stream}", worker.id());
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let ended = worker.for_each(
        move |record| {
            let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                if count % 1000 == 1 {
                    println!("{count} records, now at {} of {}", record.sequence_number(), record.shard());
                }
                Ok(())
            }
        },
        shutdown,
    );
    ended.await?;
    println!("{} records", count.load(Ordering::Relaxed));
    Ok(())
}

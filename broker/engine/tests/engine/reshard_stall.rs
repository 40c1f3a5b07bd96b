//! What the other streams feel while a large one is scaled.

use crate::support::{Broker, named, record};
use std::time::Duration;
use tidemill_types::HashKeyRange;
use tokio::time::{Instant, sleep};

/// Scales 10,000 shards to 9,999 and to 1; prints how long a put to another stream took meanwhile, at most.
async fn measure(is_written: bool) {
    let broker = Broker::new().await;
    let other = broker.stream("other", 1).await;
    let large = broker.stream("large", 10_000).await;
    if is_written {
        let starts = HashKeyRange::uniform(10_000).into_iter().map(|range| range.start());
        let records = starts.map(|start| record("k", "data").with_explicit_hash(start)).collect();
        assert!(large.put(records).await.iter().all(Result::is_ok));
    }
    for target in [9_999, 1] {
        let (engine, begun) = (broker.engine.clone(), Instant::now());
        let scaling = tokio::spawn(async move { engine.scale_stream(&named("large"), target).await });
        let (mut worst, mut puts) = (Duration::ZERO, 0);
        while !scaling.is_finished() {
            let asked = Instant::now();
            other.put(vec![record("k", "data")]).await.remove(0).unwrap();
            (worst, puts) = (worst.max(asked.elapsed()), puts + 1);
            sleep(Duration::from_millis(1)).await;
        }
        scaling.await.unwrap().unwrap();
        println!(
            "scaled to {target} in {:?}, with records: {is_written}; {puts} puts to another stream, the longest took {worst:?}",
            begun.elapsed()
        );
    }
}

/// `cargo test --release -p tidemill-engine --test engine reshard_stall -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_a_put_to_another_stream_takes_while_ten_thousand_shards_are_scaled() {
    measure(false).await;
    measure(true).await;
}

//! What the other streams feel while a large one is scaled.

use crate::support::{Broker, named, record};
use std::time::Duration;
use tidemill_engine::StreamSpec;
use tokio::time::{Instant, sleep};

/// A measurement: `cargo test --release -p tidemill-engine --test engine reshard_stall -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_a_put_to_another_stream_takes_while_ten_thousand_shards_are_scaled() {
    let broker = Broker::new().await;
    let other = broker.stream("other", 1).await;
    let spec = StreamSpec { shard_count: 10_000, ..StreamSpec::default() };
    broker.engine.create_stream(&named("large"), spec).await.unwrap();
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
        println!("scaled to {target} in {:?}: {puts} puts to another stream, the longest took {worst:?}", begun.elapsed());
    }
}

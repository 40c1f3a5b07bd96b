//! The events of each account in their order, whatever fails, split or merge the shards as you like meanwhile:
//! `cargo run -p tidemill-producer --example ordered`.

use std::time::Duration;
use tidemill_producer::{Config, PartitionKey, Producer, Record};

#[tokio::main]
async fn main() -> Result<(), tidemill_producer::Error> {
    let config = Config::new("http://127.0.0.1:4567")?.ordered().record_deadline(Duration::from_secs(300))?;
    let producer = Producer::new(config).await?;
    for step in 0..100 {
        for account in ["alice", "bob"] {
            let record = Record::new(PartitionKey::new(account)?, format!("step {step}"))?;
            // what fails is told by flush
            drop(producer.put("accounts", record).await?);
        }
    }
    producer.flush().await?;
    producer.close().await
}

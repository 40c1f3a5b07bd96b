//! Five lines: a record into a stream. Start a broker (`tidemill serve`) and make the stream (`tidemill stream create
//! events`), then: `cargo run -p tidemill-producer --example hello`.

use tidemill_producer::{PartitionKey, Producer, Record};

#[tokio::main]
async fn main() -> Result<(), tidemill_producer::Error> {
    let producer = Producer::connect("http://127.0.0.1:4567").await?;
    let record = Record::new(PartitionKey::new("user-1")?, "hello")?;
    let placed = producer.put("events", record).await?.await?;
    println!("{} in {}", placed.number, placed.shard);
    producer.close().await
}

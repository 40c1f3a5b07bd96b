//! Amazon Kinesis, as the environment says: `AWS_REGION`, credentials as for every tool of Amazon's, and
//! `AWS_ENDPOINT_URL` for any other service that speaks the API. Puts a thousand records, aggregated as by the KPL:
//! `STREAM=events cargo run -p tidemill-producer --features aws --example aws`.

use tidemill_producer::{Aws, Config, PartitionKey, Producer, Record};

#[tokio::main]
async fn main() -> Result<(), tidemill_producer::Error> {
    let stream = std::env::var("STREAM").unwrap_or_else(|_| "events".to_owned());
    let producer = Producer::new(Config::aws(Aws::from_env()).return_failed()).await?;
    let mut tickets = Vec::new();
    for n in 0..1000 {
        let record = Record::new(PartitionKey::new(&format!("user-{}", n % 50))?, format!("event {n}"))?;
        tickets.push(producer.put(&stream, record).await?);
    }
    for ticket in tickets {
        match ticket.await {
            Ok(placed) => println!("{} {}/{}", placed.shard, placed.number, placed.sub),
            Err(error) => eprintln!("{error}; it gives back {:?}", error.record()),
        }
    }
    println!("{:?}", producer.stats());
    producer.close().await
}

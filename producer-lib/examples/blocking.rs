//! Without an async runtime: lines of the standard input become records.
//! `seq 1000 | cargo run -p tidemill-producer --example blocking`.

use std::io::BufRead;
use tidemill_producer::blocking::Producer;
use tidemill_producer::{Config, PartitionKey, Record};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let producer = Producer::new(Config::new("http://127.0.0.1:4567")?)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let key = PartitionKey::new(line.split(' ').next().filter(|key| !key.is_empty()).unwrap_or("none"))?;
        drop(producer.put("events", Record::new(key, line)?)?);
    }
    producer.close()?;
    println!("{:?}", producer.stats());
    Ok(())
}

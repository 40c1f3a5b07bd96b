//! Takes batches in a loop instead of being called, and keeps what cannot be processed in the stream `dead-letters`.

use tidemill_consumer::{DeadLetterStream, Endpoint, OnFailure, ProcessError, Record, Worker};

fn handle(record: &Record) -> Result<(), std::str::Utf8Error> {
    println!("{} {}", record.sequence_number(), std::str::from_utf8(record.data())?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::var("TIDEMILL_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4567".to_owned());
    let letters = DeadLetterStream::new(&Endpoint::new(&endpoint)?, "dead-letters")?;
    let policy = OnFailure::dead_letter_after(3, letters.put())?;
    let worker = Worker::builder(&endpoint, "batches", "events").on_failure(policy).build()?;
    let (mut batches, worker) = worker.batches();
    loop {
        let delivered = tokio::select! {
            delivered = batches.next() => delivered,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(delivered) = delivered else { break };
        let records: Vec<Record> = delivered.batch().records().collect();
        match records.iter().find_map(|record| handle(record).err().map(|error| (record, error))) {
            None => delivered.ack(),
            Some((record, error)) => delivered.fail(ProcessError::from(error).at(record)),
        }
    }
    Ok(worker.stop(std::time::Duration::from_secs(30)).await?)
}

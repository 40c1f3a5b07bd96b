//! Counts the records of each shard of `events`, on a broker at `TIDEMILL_ENDPOINT` (default: this machine).
//! Start it several times: the workers share the shards.

use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, Worker};

struct Count(usize);

impl RecordProcessor for Count {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        self.0 += batch.len();
        println!("{}: {} records", batch.shard(), self.0);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), tidemill_consumer::Error> {
    let endpoint = std::env::var("TIDEMILL_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4567".to_owned());
    let worker = Worker::builder(&endpoint, "hello", "events").build()?;
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    worker.run(|_shard| Count(0), stop).await
}

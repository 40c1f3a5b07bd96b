//! How a worker begins before its broker and ends before its time, and what whoever waits for it is told.

use crate::fake::{FakeBroker, STREAM};
use crate::probe::{Log, builder, start, until};
use std::time::Duration;
use tidemill_consumer::{Batch, Checkpointer, ErrorKind, ProcessError, RecordProcessor, Worker};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

struct Nothing;

impl RecordProcessor for Nothing {
    async fn process(&mut self, _: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        Ok(())
    }
}

#[tokio::test]
async fn who_waits_for_a_worker_to_catch_up_is_told_when_it_fails() {
    let broker = FakeBroker::start(1).await;
    let worker = Worker::builder(&broker.endpoint(), "app", "nothing").build().unwrap().start(|_| Nothing);
    timeout(SOON, worker.caught_up()).await.expect("it waits for a worker that has ended");
    assert!(!worker.status().caught_up);
    assert_eq!(worker.join().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_factory_that_panics_ends_the_worker_as_a_crash_would() {
    let broker = FakeBroker::start(1).await;
    let worker = builder(&broker, "one").build().unwrap();
    let worker = worker.start(|_| -> Nothing { panic!("told to panic") });
    timeout(SOON, worker.caught_up()).await.expect("it waits for a worker that has ended");
    let error = worker.join().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("told to panic"), "{error}");
    assert_eq!(broker.counts().get("one"), Some(&1), "the lease runs out by itself");
}

#[test]
fn who_waits_for_a_worker_is_told_when_its_runtime_goes_down() {
    let serving = tokio::runtime::Runtime::new().unwrap();
    let broker = serving.block_on(FakeBroker::start(1));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let worker = runtime.block_on(async {
        // it has no shard, so it does not catch up before a lease time has passed
        broker.give_away(0, Duration::from_secs(60));
        let worker = start(builder(&broker, "one").lease_duration(Duration::from_secs(60)), &Log::default());
        assert!(timeout(Duration::from_millis(50), worker.caught_up()).await.is_err());
        worker
    });
    runtime.shutdown_background();
    serving.block_on(async {
        timeout(SOON, worker.caught_up()).await.expect("it waits for a worker that has ended");
        assert_eq!(worker.join().await.unwrap_err().kind(), ErrorKind::Internal);
    });
}

#[tokio::test]
async fn a_worker_that_starts_before_its_broker_says_what_it_waits_for_and_then_works() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (log, endpoint) = (Log::default(), format!("http://{free}"));
    let worker = start(Worker::builder(&endpoint, "app", STREAM).worker_id("one"), &log);
    until("it says so", SOON, || worker.status().trouble.is_some()).await;
    let told = worker.status().trouble.unwrap();
    assert!(told.contains(&endpoint) && told.contains("up to 10s"), "{told}");
    let broker = FakeBroker::start_at(free, 1);
    let made = broker.fill(0..1, 0..5);
    until("it works", SOON, || log.seen() == made).await;
    assert_eq!(worker.status().trouble, None);
    worker.stop(SOON).await.unwrap();
}

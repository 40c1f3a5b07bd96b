//! How a producer begins, fills up, gives up and ends.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod fake;

use fake::{FakeBroker, Fault};
use std::time::Duration;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Producer, Record, Ticket};
use tokio::time::{Instant, timeout};

const MIB: usize = 1 << 20;

fn record(bytes: usize) -> Record {
    Record::new(PartitionKey::new("k").unwrap(), vec![0; bytes]).unwrap()
}

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 2);
    broker
}

fn config(broker: &FakeBroker) -> Config {
    Config::new(&broker.url()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_makes_put_wait_and_try_put_give_the_record_back() {
    let broker = broker().await;
    broker.model().always = Some(Fault::Silence);
    let producer = Producer::new(config(&broker).memory_bytes(16 * MIB).unwrap()).await.unwrap();
    let unopened = producer.try_put("s", record(1)).unwrap_err();
    assert_eq!(unopened.error().kind(), ErrorKind::Unavailable);
    producer.open("s").await.unwrap();
    let mut tickets = Vec::new();
    let refused = loop {
        match producer.try_put("s", record(MIB)) {
            Ok(ticket) => tickets.push(ticket),
            Err(refused) => break refused,
        }
    };
    assert_eq!(tickets.len(), 15);
    assert_eq!(refused.error().kind(), ErrorKind::Throttled);
    let record_back = refused.into_record();
    assert_eq!(record_back.data().len(), MIB);
    assert!(
        timeout(Duration::from_millis(100), producer.put("s", record_back)).await.is_err(),
        "put did not wait"
    );
    assert!(producer.stats().memory_used_bytes <= 16 * MIB as u64);
    // a cancelled put gave back what it had gathered
    tickets.push(producer.try_put("s", record(MIB / 2)).unwrap());
    producer.close_within(Duration::from_millis(10)).await.unwrap_err();
    let mut unknown = 0;
    for ticket in tickets {
        match ticket.await.unwrap_err().kind() {
            ErrorKind::UnknownOutcome => unknown += 1,
            kind => assert_eq!(kind, ErrorKind::Unavailable, "it was never sent"),
        }
    }
    assert_eq!(unknown, 8, "as many as may be in flight were sent");
    assert_eq!(producer.stats().memory_used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_put_goes_on_when_memory_is_free_again() {
    let broker = broker().await;
    let producer = Producer::new(config(&broker).memory_bytes(16 * MIB).unwrap()).await.unwrap();
    for _ in 0..60 {
        drop(timeout(Duration::from_secs(10), producer.put("s", record(MIB))).await.unwrap().unwrap());
        assert!(producer.stats().memory_used_bytes <= 16 * MIB as u64);
    }
    producer.close().await.unwrap();
    assert_eq!(broker.model().stored("s").len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_always_refused_fails_with_its_history() {
    let broker = broker().await;
    broker.model().always = Some(Fault::Refuse(ErrorKind::Throttled));
    let producer =
        Producer::new(config(&broker).record_deadline(Duration::from_millis(400)).unwrap()).await.unwrap();
    let began = Instant::now();
    let error = producer.put("s", record(1)).await.unwrap().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    assert!(error.attempts_made() > 1);
    assert!(error.attempts().iter().all(|attempt| attempt.cause == "refused by the script"));
    assert!(error.message().contains("refused by the script"), "{error}");
    assert_eq!(producer.stats().failures, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_never_answers_leaves_the_outcome_unknown() {
    let broker = broker().await;
    broker.model().always = Some(Fault::Silence);
    let producer =
        Producer::new(config(&broker).record_deadline(Duration::from_millis(200)).unwrap()).await.unwrap();
    let ticket = producer.put("s", record(1)).await.unwrap();
    let error = timeout(Duration::from_secs(2), ticket).await.expect("the ticket hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_batch_fails_at_once_and_the_next_one_goes_through() {
    let broker = broker().await;
    broker.model().script = [Some(Fault::Refuse(ErrorKind::Invalid))].into();
    let producer = Producer::connect(&broker.url()).await.unwrap();
    let refused = producer.put("s", record(1)).await.unwrap().await.unwrap_err();
    assert_eq!((refused.kind(), refused.attempts_made()), (ErrorKind::Invalid, 1));
    producer.put("s", record(1)).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_there_or_was_deleted_is_not_found() {
    let broker = broker().await;
    let producer = Producer::connect(&broker.url()).await.unwrap();
    assert_eq!(producer.put("other", record(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(producer.put("not a name", record(1)).await.unwrap_err().kind(), ErrorKind::Invalid);
    producer.put("s", record(1)).await.unwrap().await.unwrap();
    broker.model().streams.remove("s");
    let error = producer.put("s", record(1)).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // a stream made anew under the name is found
    broker.model().create("s", 1);
    producer.put("s", record(1)).await.unwrap().await.unwrap();
    assert_eq!(producer.stats().memory_used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_sends_what_lingers_and_waits_for_it() {
    let broker = broker().await;
    let producer = Producer::new(config(&broker).linger(Duration::from_secs(1)).unwrap()).await.unwrap();
    drop(producer.put("s", record(1)).await.unwrap());
    assert_eq!(broker.model().stored("s").len(), 0);
    timeout(Duration::from_millis(700), producer.flush())
        .await
        .expect("flush waited for the linger")
        .unwrap();
    assert_eq!(broker.model().stored("s").len(), 1);
    broker.model().always = Some(Fault::Refuse(ErrorKind::Invalid));
    drop(producer.put("s", record(1)).await.unwrap());
    assert_eq!(producer.flush().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_flushes_and_refuses_what_comes_after() {
    let broker = broker().await;
    let producer = Producer::new(config(&broker).linger(Duration::from_secs(1)).unwrap()).await.unwrap();
    let other = producer.clone();
    let ticket = producer.put("s", record(1)).await.unwrap();
    producer.close().await.unwrap();
    ticket.await.unwrap();
    assert_eq!(other.put("s", record(1)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(other.try_put("s", record(1)).unwrap_err().error().kind(), ErrorKind::Invalid);
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_producer_resolves_its_tickets() {
    let broker = broker().await;
    let producer = Producer::new(config(&broker).linger(Duration::from_secs(1)).unwrap()).await.unwrap();
    let lingering = producer.put("s", record(1)).await.unwrap();
    drop(producer.clone());
    assert!(timeout(Duration::from_millis(50), async { producer.flush().await.unwrap() }).await.is_ok());
    lingering.await.unwrap();
    let lingering = producer.put("s", record(1)).await.unwrap();
    drop(producer);
    let error = timeout(Duration::from_secs(1), lingering).await.expect("the ticket hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it was never sent: {error}");
}

#[tokio::test]
async fn a_linger_that_eats_up_the_deadline_is_refused() {
    let nobody = Config::new("http://127.0.0.1:1").unwrap(); // refused before anybody is asked
    let lingers = |ms| nobody.clone().linger(Duration::from_millis(ms)).unwrap();
    let within = |config: Config| config.record_deadline(Duration::from_millis(200)).unwrap();
    let error = Producer::new(within(lingers(101))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("linger") && error.message().contains("record_deadline"), "{error}");
    let error = Producer::new(within(lingers(100))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "half of it is allowed: {error}");
}

#[test]
fn tickets_resolve_when_their_runtime_goes_down() {
    let serving = tokio::runtime::Runtime::new().unwrap();
    let broker = serving.block_on(broker());
    broker.model().always = Some(Fault::Silence);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (producer, sent, lingering) = runtime.block_on(async {
        let producer = Producer::new(config(&broker).linger(Duration::from_secs(1)).unwrap()).await.unwrap();
        let sent = producer.put("s", record(MIB)).await.unwrap(); // too large to linger
        while broker.model().batches_seen == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let lingering = producer.put("s", record(1)).await.unwrap();
        (producer, sent, lingering)
    });
    runtime.shutdown_background();
    serving.block_on(async {
        let kind_of = async |ticket: Ticket| {
            let told = timeout(Duration::from_secs(5), ticket).await.expect("the ticket hangs");
            told.map_err(|error| error.kind())
        };
        assert_eq!(kind_of(sent).await, Err(ErrorKind::UnknownOutcome));
        assert_eq!(kind_of(lingering).await, Err(ErrorKind::Unavailable), "it was never sent");
        assert_eq!(producer.put("s", record(1)).await.unwrap_err().kind(), ErrorKind::Invalid);
        timeout(Duration::from_secs(5), producer.close()).await.expect("closing hangs").unwrap();
    });
    assert_eq!(producer.stats().memory_used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_records_holds_beside_that_on_bytes() {
    let broker = broker().await;
    broker.model().always = Some(Fault::Silence);
    let producer = Producer::new(config(&broker).memory_records(7).unwrap()).await.unwrap();
    producer.open("s").await.unwrap();
    let mut tickets = Vec::new();
    let refused = loop {
        match producer.try_put("s", record(0)) {
            Ok(ticket) => tickets.push(ticket),
            Err(refused) => break refused,
        }
    };
    assert_eq!((tickets.len(), refused.error().kind()), (7, ErrorKind::Throttled));
    let limit = Duration::from_millis(50);
    let refused = producer.put_within("s", refused.into_record(), limit).await.unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::Throttled);
    assert_eq!(producer.stats().pending_records, 7);
    assert!(producer.stats().oldest_pending.unwrap() >= limit);
    broker.model().always = None;
    producer.close_within(Duration::from_millis(10)).await.unwrap_err();
    for ticket in tickets {
        ticket.await.unwrap_err();
    }
    assert_eq!((producer.stats().memory_used_bytes, producer.stats().failures), (0, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_little_time_is_cut_out_of_a_batch_that_was_refused() {
    let broker = broker().await;
    broker.model().always = Some(Fault::Refuse(ErrorKind::Unavailable));
    let producer = Producer::new(config(&broker).return_failed()).await.unwrap();
    let before = producer.put("s", record(10)).await.unwrap();
    let short = producer.put_living("s", record(20), Duration::from_millis(150)).await.unwrap();
    let after = producer.put("s", record(30)).await.unwrap();
    let error = timeout(Duration::from_secs(5), short).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("refused by the script") && error.attempts_made() > 1, "{error:?}");
    assert_eq!(error.record(), Some(&record(20)));
    broker.model().always = None;
    assert_eq!(before.await.unwrap().number, {
        let stored = broker.model().stored("s");
        assert_eq!(stored.iter().map(|record| record.data.len()).collect::<Vec<_>>(), [10, 30]);
        let after = tidemill_types::SequenceNumber::try_from(after.await.unwrap().number).unwrap();
        assert_eq!(after.index().get(), 2);
        tidemill_types::SequenceNumber::new(
            tidemill_types::TimestampMs::new(1_700_000_000_000 + 1000 * u64::from(after.shard().get())),
            after.shard(),
            tidemill_types::SequenceIndex::new(1).unwrap(),
            tidemill_types::TimestampMs::new(1_700_000_000_000),
        )
        .into()
    });
    assert_eq!((producer.stats().expired, producer.stats().memory_used_bytes), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_little_time_that_may_be_stored_stays_in_its_batch() {
    let broker = broker().await;
    broker.model().script = [Some(Fault::UnknownAfter)].into();
    broker.model().always = Some(Fault::Silence);
    let config = config(&broker).record_deadline(Duration::from_secs(2)).unwrap();
    let producer = Producer::new(config).await.unwrap();
    let long = producer.put("s", record(10)).await.unwrap();
    let short = producer.put_living("s", record(20), Duration::from_millis(150)).await.unwrap();
    let error = timeout(Duration::from_secs(5), short).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error:?}");
    assert_eq!(
        timeout(Duration::from_secs(5), long).await.unwrap().unwrap_err().kind(),
        ErrorKind::UnknownOutcome
    );
    let stats = producer.stats();
    assert_eq!((stats.failures, stats.expired, stats.memory_used_bytes), (2, 2, 0));
    assert_eq!(broker.model().stored("s").len(), 2, "it was stored all the same");
}

#[test]
fn threads_without_a_runtime_put_and_wait() {
    use tidemill_producer::blocking;
    let serving = tokio::runtime::Runtime::new().unwrap();
    let broker = serving.block_on(broker());
    let producer = blocking::Producer::new(config(&broker)).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let producer = producer.clone();
            std::thread::spawn(move || {
                let put = |bytes| producer.put("s", record(bytes)).unwrap();
                let tickets: Vec<_> = (0..100).map(put).collect();
                assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(broker.model().stored("s").len(), 400);
    let within = serving.block_on(async { producer.put("s", record(1)).unwrap_err() });
    assert_eq!(within.kind(), ErrorKind::Invalid, "a blocking call would block the runtime");
    let config = config(&broker);
    let within = serving.block_on(async move { blocking::Producer::new(config).unwrap_err() });
    assert_eq!(within.kind(), ErrorKind::Invalid);
    drop(producer.put("s", record(1)).unwrap());
    producer.flush().unwrap();
    assert_eq!(broker.model().stored("s").len(), 401);
    // the last one may go within a runtime
    serving.block_on(async move { drop(producer) });
}

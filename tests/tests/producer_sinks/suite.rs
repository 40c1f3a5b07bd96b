//! What holds on either sink.

use crate::fixture::{Fixture, Sink, key_within, place_of, record, resolve};
use anyhow::{Context as _, Result, ensure};
use std::collections::{HashMap, HashSet};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidemill_producer::{ErrorKind, HashKey, Producer, Ticket};
use tokio::time::{Instant, timeout};

const STREAM: &str = "s";

macro_rules! on_both_sinks {
    ($($test:ident)*) => {
        mod native {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(super::Sink::Native).await
            })*
        }
        mod aws {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(super::Sink::Aws).await
            })*
        }
    };
}

on_both_sinks! {
    records_lie_where_their_tickets_say
    flush_and_close_wait_for_what_was_put
    many_streams_share_a_producer
    full_memory_makes_puts_wait_or_fail_fast
    a_record_whose_time_is_over_fails_with_the_true_cause
    a_record_with_less_time_than_its_batch_fails_alone
    explicit_hash_keys_say_the_shard
    large_records_arrive_and_too_large_ones_are_refused
    a_failed_ticket_gives_its_record_back
    a_deleted_stream_is_not_found
    what_was_put_goes_on_when_the_broker_comes_back
    a_runtime_of_one_thread_is_enough
}

async fn put_numbered(producer: &Producer, stream: &str, count: u32) -> Result<Vec<Ticket>> {
    let mut tickets = Vec::new();
    for n in 0..count {
        let record = record(&format!("key-{}", n % 40), n.to_be_bytes().to_vec())?;
        tickets.push(producer.put(stream, record).await?);
    }
    Ok(tickets)
}

async fn records_lie_where_their_tickets_say(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 4).await?;
    let producer = fixture.producer().await?;
    let tickets = put_numbered(&producer, STREAM, 3000).await?;
    let mut placed = HashMap::new();
    for (n, ticket) in (0u32..).zip(tickets) {
        let at = resolve(ticket).await??;
        ensure!((at.attempts, at.duplicate) == (1, false), "{at:?}");
        placed.insert(place_of(&at), n);
    }
    ensure!(placed.len() == 3000, "two records share a place");
    let found = fixture.read(STREAM).await?;
    ensure!(found.len() == 3000, "{} records", found.len());
    let mut last: HashMap<String, u32> = HashMap::new();
    for found in &found {
        let n = *placed.get(&found.place()).context("a record lies where no ticket says")?;
        ensure!(found.record.data()[..] == n.to_be_bytes(), "another record lies there");
        ensure!(found.fits, "it went to the wrong shard");
        let before = last.insert(found.record.key().to_string(), n);
        ensure!(sink == Sink::Aws || before.is_none_or(|before| before < n), "a key's records are in order");
    }
    let stats = producer.stats();
    ensure!((stats.records, stats.failures, stats.pending_records) == (3000, 0, 0), "{stats:?}");
    ensure!(stats.batches < 600, "{} batches are no batches", stats.batches);
    Ok(producer.close().await?)
}

async fn flush_and_close_wait_for_what_was_put(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 2).await?;
    let producer = Producer::new(fixture.config()?.linger(Duration::from_secs(1))?).await?;
    drop(put_numbered(&producer, STREAM, 10).await?);
    ensure!(producer.stats().pending_records == 10);
    let began = Instant::now();
    producer.flush().await?;
    ensure!(began.elapsed() < Duration::from_millis(800), "flush waited for the linger");
    ensure!(fixture.read(STREAM).await?.len() == 10);
    drop(put_numbered(&producer, STREAM, 10).await?);
    let clone = producer.clone();
    producer.close().await?;
    ensure!(fixture.read(STREAM).await?.len() == 20);
    let refused = clone.put(STREAM, record("k", "late")?).await.err().context("it is closed")?;
    ensure!(refused.kind() == ErrorKind::Invalid);
    Ok(())
}

async fn many_streams_share_a_producer(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    let streams: Vec<String> = (0..12).map(|n| format!("stream-{n}")).collect();
    for stream in &streams {
        fixture.create(stream, 2).await?;
    }
    let producer = fixture.producer().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for stream in streams.clone() {
        let producer = producer.clone();
        tasks.spawn(async move {
            let tickets = put_numbered(&producer, &stream, 200).await?;
            for ticket in tickets {
                resolve(ticket).await??;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    for stream in &streams {
        let found = fixture.read(stream).await?;
        let different: HashSet<_> = found.iter().map(|found| found.record.data().clone()).collect();
        ensure!((found.len(), different.len()) == (200, 200), "{stream}");
    }
    Ok(producer.close().await?)
}

async fn full_memory_makes_puts_wait_or_fail_fast(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 1).await?;
    let producer = Producer::new(fixture.config()?.memory_records(100)?).await?;
    producer.open(STREAM).await?;
    fixture.kill().await?;
    let mut tickets = Vec::new();
    let refused = loop {
        match producer.try_put(STREAM, record("k", "data")?) {
            Ok(ticket) => tickets.push(ticket),
            Err(refused) => break refused,
        }
    };
    ensure!(refused.error().kind() == ErrorKind::Throttled, "{refused}");
    ensure!(tickets.len() == 100, "{} records were taken", tickets.len());
    let limit = Duration::from_millis(100);
    let refused = producer.put_within(STREAM, refused.into_record(), limit).await.err().context("full")?;
    ensure!(refused.error().kind() == ErrorKind::Throttled && refused.into_record().data() == "data");
    let waiting = tokio::spawn({
        let (producer, record) = (producer.clone(), record("k", "waits")?);
        async move { producer.put(STREAM, record).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    ensure!(!waiting.is_finished(), "put did not wait");
    ensure!(producer.stats().pending_records == 100);
    fixture.restart().await?;
    let waited = timeout(Duration::from_secs(20), waiting).await.context("put waits forever")???;
    tickets.push(waited);
    for ticket in tickets {
        resolve(ticket).await??;
    }
    ensure!(producer.stats().memory_used_bytes == 0);
    Ok(producer.close().await?)
}

async fn a_record_whose_time_is_over_fails_with_the_true_cause(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 1).await?;
    let config = fixture.config()?.record_deadline(Duration::from_millis(600))?;
    let producer = Producer::new(config).await?;
    resolve(producer.put(STREAM, record("k", "there")?).await?).await??;
    fixture.kill().await?;
    let began = Instant::now();
    let ticket = producer.put(STREAM, record("k", "gone")?).await?;
    let error = resolve(ticket).await?.err().context("nobody was there to store it")?;
    ensure!(began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    let (kind, told) = (error.kind(), error.message());
    ensure!(matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error:?}");
    ensure!(told.contains("within its deadline") && told.to_lowercase().contains("connect"), "{error:?}");
    if sink == Sink::Aws {
        ensure!(error.attempts_made() >= 2 && !error.attempts().is_empty(), "{error:?}");
        let waits = error.attempts().iter().map(|attempt| attempt.delay + attempt.duration).sum::<Duration>();
        ensure!(waits > Duration::ZERO && waits < Duration::from_secs(3), "{error:?}");
    }
    let stats = producer.stats();
    ensure!((stats.failures, stats.expired, stats.failures_of(kind)) == (1, 1, 1), "{stats:?}");
    Ok(())
}

async fn a_record_with_less_time_than_its_batch_fails_alone(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 1).await?;
    let producer = Producer::new(fixture.config()?.linger(Duration::from_millis(100))?).await?;
    producer.open(STREAM).await?;
    fixture.kill().await?;
    let before = producer.put(STREAM, record("k", "before")?).await?;
    let live = Duration::from_millis(300);
    let short = producer.put_living(STREAM, record("k", "short")?, live).await?;
    let after = producer.put(STREAM, record("k", "after")?).await?;
    let began = Instant::now();
    let error = resolve(short).await?.err().context("its time is over")?;
    ensure!(error.message().contains("within its deadline"), "{error:?}");
    ensure!((200..2000).contains(&began.elapsed().as_millis()), "after {:?}", began.elapsed());
    fixture.restart().await?;
    resolve(before).await??;
    resolve(after).await??;
    let found = fixture.read(STREAM).await?;
    let data: Vec<_> =
        found.iter().map(|found| String::from_utf8_lossy(found.record.data()).into_owned()).collect();
    // where the requests surely never arrived it is cut out of its batch
    let expected = match error.kind() {
        ErrorKind::UnknownOutcome => ["before", "short", "after"].as_slice(),
        _ => &["before", "after"],
    };
    ensure!(data == expected, "{data:?} after {error:?}");
    ensure!(producer.stats().memory_used_bytes == 0, "{:?}", producer.stats());
    let too_short = producer.put_living(STREAM, record("k", "x")?, Duration::from_millis(1)).await;
    ensure!(too_short.err().context("1 ms is no time")?.kind() == ErrorKind::Invalid);
    Ok(())
}

async fn explicit_hash_keys_say_the_shard(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 3).await?;
    let producer = fixture.producer().await?;
    let shards = fixture.shards(STREAM).await?;
    let mut tickets = Vec::new();
    for n in 0..300 {
        let (shard, range, _) = shards[n % 3];
        let hash = if n % 2 == 0 { range.start() } else { range.end() };
        let record = record("the same key", n.to_be_bytes().to_vec())?.with_explicit_hash(hash);
        tickets.push((shard, producer.put(STREAM, record).await?));
    }
    for (shard, ticket) in tickets {
        ensure!(resolve(ticket).await??.shard == shard, "the hash says the shard");
    }
    ensure!(fixture.read(STREAM).await?.len() == 300);
    Ok(producer.close().await?)
}

async fn large_records_arrive_and_too_large_ones_are_refused(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 1).await?;
    let producer = fixture.producer().await?;
    let key = "k";
    let largest = (1 << 20) - key.len();
    let sizes = [3, largest, 60_000, 0, 51_200, largest];
    let mut tickets = Vec::new();
    for (n, size) in (0..).zip(sizes) {
        tickets.push(producer.put(STREAM, record(key, vec![n; size])?).await?);
    }
    for ticket in tickets {
        resolve(ticket).await??;
    }
    let mut found: Vec<_> = fixture.read(STREAM).await?.iter().map(|f| f.record.data().len()).collect();
    let mut expected = sizes.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(found == expected, "{found:?}");
    let too_large = match producer.put(STREAM, record(key, vec![0; largest + 1])?).await {
        Ok(ticket) => resolve(ticket).await?.err(),
        Err(error) => Some(error),
    };
    let error = too_large.context("the stream takes 1 MiB")?;
    ensure!(error.kind() == ErrorKind::Invalid, "{error:?}");
    resolve(producer.put(STREAM, record(key, "next")?).await?).await??;
    Ok(producer.close().await?)
}

async fn a_failed_ticket_gives_its_record_back(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 2).await?;
    let config = fixture.config()?.record_deadline(Duration::from_millis(500))?.return_failed();
    let producer = Producer::new(config).await?;
    producer.open(STREAM).await?;
    fixture.kill().await?;
    let mut tickets = Vec::new();
    for n in 0..50u32 {
        let plain = record(&format!("key-{n}"), n.to_be_bytes().to_vec())?;
        let record = if n % 5 == 0 { plain.with_explicit_hash(HashKey::new(7)) } else { plain };
        tickets.push((record.clone(), producer.put(STREAM, record).await?));
    }
    for (record, ticket) in tickets {
        let error = resolve(ticket).await?.err().context("nobody was there")?;
        ensure!(error.record() == Some(&record), "{:?} instead of {record:?}", error.record());
    }
    producer.close().await?;
    let refused = producer.put(STREAM, record("k", "closed")?).await.err().context("closed")?;
    ensure!(refused.record().is_some_and(|record| record.data() == "closed"));
    Ok(())
}

async fn a_deleted_stream_is_not_found(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 1).await?;
    let producer = fixture.producer().await?;
    let nowhere =
        producer.put("nowhere", record("k", "x")?).await.err().context("there is no such stream")?;
    ensure!(nowhere.kind() == ErrorKind::NotFound, "{nowhere:?}");
    resolve(producer.put(STREAM, record("k", "x")?).await?).await??;
    fixture.client().delete_stream().stream_name(STREAM).enforce_consumer_deletion(true).send().await?;
    let began = Instant::now();
    loop {
        let error = match producer.put(STREAM, record("k", "x")?).await {
            Ok(ticket) => resolve(ticket).await?.err(),
            Err(error) => Some(error),
        };
        match error {
            Some(error) if error.kind() == ErrorKind::NotFound => break,
            other => ensure!(began.elapsed() < Duration::from_secs(20), "{other:?}"),
        }
    }
    Ok(producer.close().await?)
}

async fn what_was_put_goes_on_when_the_broker_comes_back(sink: Sink) -> Result<()> {
    let mut fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 2).await?;
    let producer = fixture.producer().await?;
    let mut tickets = Vec::new();
    for round in 0..3 {
        tickets.extend(put_numbered(&producer, STREAM, 500).await?);
        if round > 0 {
            fixture.kill().await?;
            tickets.extend(put_numbered(&producer, STREAM, 200).await?);
            tokio::time::sleep(Duration::from_millis(300)).await;
            fixture.restart().await?;
        }
    }
    let mut places = HashSet::new();
    for ticket in tickets {
        places.insert(place_of(&resolve(ticket).await??));
    }
    ensure!(places.len() == 1900, "two tickets share a place");
    let found = fixture.read(STREAM).await?;
    let stored: HashSet<_> = found.iter().map(|found| found.place()).collect();
    ensure!(places.is_subset(&stored), "an acknowledged record is lost");
    ensure!(sink == Sink::Aws || found.len() == 1900, "{} records, some of them twice", found.len());
    Ok(producer.close().await?)
}

async fn a_runtime_of_one_thread_is_enough(sink: Sink) -> Result<()> {
    let fixture = Fixture::start(sink).await?;
    fixture.create(STREAM, 2).await?;
    let config = fixture.config()?;
    let key = key_within(fixture.shards(STREAM).await?[0].1);
    let alone = std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (producer, ticket) = runtime.block_on(async {
            let producer = Producer::new(config).await?;
            for ticket in put_numbered(&producer, STREAM, 300).await? {
                resolve(ticket).await??;
            }
            let ticket = producer.put(STREAM, record(&key, "lingers")?).await?;
            anyhow::Ok((producer, ticket))
        })?;
        drop(runtime);
        // its tasks went down with the runtime, and the ticket knows
        let mut context = Context::from_waker(Waker::noop());
        let told = std::pin::pin!(ticket).poll(&mut context);
        ensure!(matches!(told, Poll::Ready(Err(_))), "the ticket hangs");
        ensure!(producer.stats().memory_used_bytes == 0);
        Ok(())
    });
    tokio::task::spawn_blocking(move || alone.join().map_err(|_| anyhow::anyhow!("the thread panicked")))
        .await???;
    ensure!(fixture.read(STREAM).await?.len() == 300);
    Ok(())
}

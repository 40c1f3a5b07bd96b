//! What a stream is set to: judged in the words of Kinesis, acting at once, and still so after a restart or a crash.

use crate::support::{Broker, START, account, first_shard_record, named, record, shard};
use bytes::Bytes;
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tidemill_engine::{
    CommitmentStatus, ConsumersOnDelete, Distribution, ErrorKind, MetricSet, Stream, StreamMode,
    StreamSettings, StreamSpec, StreamUpdate, Tags,
};
use tidemill_types::{
    Frame, FrameWriter, HashKey, PartitionKey, Position, ProducerId, Record, SequenceIndex, TimestampMs,
};

const HOUR_MS: u64 = 3_600_000;

fn tags<const N: usize>(given: [(&str, &str); N]) -> Tags {
    given.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn metrics(names: &[&str]) -> MetricSet {
    names.iter().fold(MetricSet::default(), |set, name| set.with(MetricSet::named(name).unwrap()))
}

async fn update(broker: &Broker, update: StreamUpdate) -> StreamSettings {
    let updated = broker.engine.update_stream(&named("s"), update).await.unwrap();
    assert_eq!(updated.after, broker.engine.stream(&named("s")).unwrap().info());
    updated.after.settings
}

async fn refused(broker: &Broker, update: StreamUpdate) -> (ErrorKind, String) {
    let before = broker.engine.stream(&named("s")).unwrap().info();
    let error = broker.engine.update_stream(&named("s"), update).await.unwrap_err();
    assert_eq!(broker.engine.stream(&named("s")).unwrap().info(), before);
    (error.kind(), error.to_string())
}

/// The data of all records from the horizon on.
async fn kept(stream: &Stream) -> Vec<String> {
    let from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let page = stream.read_records(shard(0), from, 100, 1 << 20).await.unwrap();
    page.records.iter().map(|r| String::from_utf8(r.data.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn every_setting_survives_a_restart_and_a_crash() {
    let broker = Broker::new().await;
    broker.engine.set_commitment(&account(), true).await.unwrap();
    let settings = StreamSettings {
        mode: StreamMode::OnDemand,
        warm_mibps: Some(100),
        tags: tags([("team", "blue")]),
        distribution: Distribution::Auto,
        record_kib_max: 2048,
        ..StreamSettings::default()
    };
    let spec = StreamSpec { shard_count: 4, settings: settings.clone() };
    let made = broker.engine.create_stream(&named("s"), spec).await.unwrap();
    assert_eq!((made.open_shards, &made.settings), (4, &settings));
    update(&broker, StreamUpdate::IncreaseRetention(100)).await;
    update(&broker, StreamUpdate::DecreaseRetention(50)).await;
    update(&broker, StreamUpdate::RecordLimit(4096)).await;
    update(&broker, StreamUpdate::WarmThroughput(10_240)).await;
    update(&broker, StreamUpdate::EnableMonitoring(MetricSet::ALL)).await;
    update(&broker, StreamUpdate::DisableMonitoring(metrics(&["OutgoingBytes"]))).await;
    update(&broker, StreamUpdate::Tag(tags([("team", "red"), ("cost", ""), ("gone", "x")]))).await;
    update(&broker, StreamUpdate::Untag(vec!["gone".to_owned(), "unknown".to_owned()])).await;
    let last = update(&broker, StreamUpdate::Policy(Some("{}".to_owned()))).await;
    let expected = StreamSettings {
        retention_hours: 50,
        record_kib_max: 4096,
        warm_mibps: Some(10_240),
        monitoring: MetricSet::ALL.without(metrics(&["OutgoingBytes"])),
        tags: tags([("team", "red"), ("cost", "")]),
        policy: Some("{}".to_owned()),
        ..settings
    };
    assert_eq!(last, expected);

    let info = broker.engine.stream(&named("s")).unwrap().info();
    let broker = broker.crash().await;
    assert_eq!(broker.engine.stream(&named("s")).unwrap().info(), info);
    let broker = broker.reopen().await;
    assert_eq!(broker.engine.list_streams(&account(), None, 10).streams, [info]);

    // a stream of the same name begins anew
    broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap();
    let again = broker.stream("s", 1).await;
    assert_eq!(again.info().settings, StreamSettings::default());
    drop(again);
    let broker = broker.reopen().await;
    assert_eq!(broker.engine.stream(&named("s")).unwrap().info().settings, StreamSettings::default());
}

#[tokio::test]
async fn a_change_tells_how_the_stream_was_and_how_it_is() {
    let broker = Broker::new().await;
    broker.stream("s", 1).await;
    let one = StreamUpdate::EnableMonitoring(metrics(&["IncomingBytes"]));
    let first = broker.engine.update_stream(&named("s"), one.clone()).await.unwrap();
    assert_eq!(first.before.settings.monitoring.names().count(), 0);
    assert_eq!(first.after.settings.monitoring.names().collect::<Vec<_>>(), ["IncomingBytes"]);
    let again = broker.engine.update_stream(&named("s"), one).await.unwrap();
    assert_eq!(again.before, again.after);
    let unknown = broker.engine.update_stream(&named("t"), StreamUpdate::Policy(None)).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(unknown.to_string(), "Stream t under account 000000000000 not found.");
}

#[tokio::test]
async fn a_retention_is_refused_in_the_words_of_kinesis() {
    let broker = Broker::new().await;
    broker.stream("s", 1).await;
    update(&broker, StreamUpdate::IncreaseRetention(48)).await;
    for (bad, told) in [
        (
            StreamUpdate::DecreaseRetention(23),
            "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.",
        ),
        (
            StreamUpdate::IncreaseRetention(8761),
            "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.",
        ),
        (
            StreamUpdate::IncreaseRetention(47),
            "Requested retention period (47 hours) for stream s can not be shorter than existing retention period (48 hours). Use DecreaseRetentionPeriod API.",
        ),
        (
            StreamUpdate::DecreaseRetention(49),
            "Requested retention period (49 hours) for stream s can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API.",
        ),
    ] {
        assert_eq!(refused(&broker, bad).await, (ErrorKind::Invalid, told.to_owned()));
    }
    update(&broker, StreamUpdate::IncreaseRetention(48)).await;
    update(&broker, StreamUpdate::DecreaseRetention(48)).await;
    assert_eq!(update(&broker, StreamUpdate::IncreaseRetention(8760)).await.retention_hours, 8760);
}

#[tokio::test]
async fn a_shorter_retention_hides_older_records_at_once_and_for_good() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    update(&broker, StreamUpdate::IncreaseRetention(100)).await;
    let first = *stream.put(vec![first_shard_record("0 h")]).await[0].as_ref().unwrap();
    for data in ["30 h", "60 h"] {
        broker.clock.advance_ms(30 * HOUR_MS);
        stream.put(vec![first_shard_record(data)]).await[0].as_ref().unwrap();
    }
    assert_eq!(kept(&stream).await, ["0 h", "30 h", "60 h"]);
    let at_first = stream.resolve(shard(0), Position::At(first.number)).await.unwrap();
    update(&broker, StreamUpdate::DecreaseRetention(31)).await;
    assert_eq!(kept(&stream).await, ["30 h", "60 h"]);
    // an iterator from before, and a time from before, lead to what is kept
    let page = stream.read_records(shard(0), at_first, 1, 1 << 20).await.unwrap();
    assert_eq!(page.records[0].data, "30 h");
    let at_start = stream.resolve(shard(0), Position::AtTime(START)).await.unwrap();
    assert_eq!(at_start, stream.resolve(shard(0), Position::TrimHorizon).await.unwrap());
    update(&broker, StreamUpdate::IncreaseRetention(100)).await;
    assert_eq!(kept(&stream).await, ["30 h", "60 h"]);

    // neither a crash, which may forget where the log began, nor a restart brings them back
    drop(stream);
    let broker = broker.crash().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!(kept(&stream).await, ["30 h", "60 h"]);
    drop(stream);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!(kept(&stream).await, ["30 h", "60 h"]);
    stream.put(vec![first_shard_record("later")]).await[0].as_ref().unwrap();
    assert_eq!(kept(&stream).await, ["30 h", "60 h", "later"]);
}

/// It once could not be passed: the change was refused, and the retention of the shard stood still.
#[tokio::test]
async fn a_shorter_retention_passes_records_that_are_damaged() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    update(&broker, StreamUpdate::IncreaseRetention(100)).await;
    for data in ["0 h", "60 h"] {
        stream.put(vec![first_shard_record(data)]).await[0].as_ref().unwrap();
        broker.clock.advance_ms(60 * HOUR_MS);
    }
    let files = std::fs::read_dir(broker.dir.path().join("segments")).unwrap();
    let segment = files.map(|file| file.unwrap().path()).find(|path| path.extension().unwrap() == "segment");
    let segment = std::fs::OpenOptions::new().write(true).open(segment.unwrap()).unwrap();
    segment.write_all_at(&[0xff; 16], 64).unwrap();
    assert_eq!(kept(&stream).await, ["60 h"], "what is damaged is passed over");
    update(&broker, StreamUpdate::DecreaseRetention(80)).await;
    assert_eq!(kept(&stream).await, ["60 h"]);
    let from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let page = stream.read(shard(0), from, 1 << 20).await.unwrap();
    assert_eq!(page.frames.len(), 1, "the horizon lies behind the damage");
    update(&broker, StreamUpdate::DecreaseRetention(24)).await;
    assert!(kept(&stream).await.is_empty());
}

/// What the two kinds of readers meet where a record is damaged.
#[tokio::test]
async fn native_readers_are_told_which_numbers_are_lost_and_others_are_taken_over_them() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let mut numbers = Vec::new();
    for data in ["one", "two", "three"] {
        numbers.push(stream.put(vec![first_shard_record(data)]).await[0].as_ref().unwrap().number);
    }
    let files = std::fs::read_dir(broker.dir.path().join("segments")).unwrap();
    let segment = files.map(|file| file.unwrap().path()).find(|path| path.extension().unwrap() == "segment");
    let path = segment.unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|part| part == b"two").unwrap();
    let segment = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    segment.write_all_at(b"2wo", at as u64).unwrap();

    let page = stream.read(shard(0), numbers[0].index(), 1 << 20).await.unwrap();
    assert_eq!(page.next, numbers[1].index(), "a page ends before what is damaged");
    let error = stream.read(shard(0), page.next, 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let told = error.to_string();
    for part in ["stream s", "shardId-000000000000", &numbers[1].to_string(), &numbers[2].to_string()] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let behind = stream.resolve(shard(0), Position::At(numbers[2])).await.unwrap();
    assert_eq!(stream.read(shard(0), behind, 1 << 20).await.unwrap().frames.len(), 1);

    let mut told = stream.subscribe(shard(0), page.next).unwrap();
    assert_eq!(told.next(1 << 20).await.unwrap_err().kind(), ErrorKind::Damaged);
    let mut passing = stream.subscribe(shard(0), numbers[0].index()).unwrap().passing_over_damage();
    for expected in ["one", "three"] {
        let page = passing.next(1 << 20).await.unwrap().unwrap();
        let records: Vec<_> = page.frames.iter().flat_map(|frame| frame.records()).collect();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].data, expected.as_bytes());
    }
    assert_eq!(kept(&stream).await, ["one", "three"]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_takes_no_later_records() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    broker.clock.set_wall(TimestampMs::new(START.get() + 30 * 24 * HOUR_MS));
    update(&broker, StreamUpdate::IncreaseRetention(48)).await;
    broker.clock.set_wall(START);
    broker.engine.split_shard(&named("s"), shard(0), HashKey::new(1 << 127)).await.unwrap();
    let first = |stream: Stream| async move {
        let page = stream.read_records(shard(1), SequenceIndex::ZERO, 10, 1000).await.unwrap();
        page.records.into_iter().map(|record| record.data).collect::<Vec<_>>()
    };
    stream.put(vec![first_shard_record("kept")]).await[0].as_ref().unwrap();
    assert!(stream.kept_since(START) <= TimestampMs::new(START.get() - 24 * HOUR_MS));
    tokio::time::sleep(Duration::from_millis(1500)).await; // all shards are looked at each second
    assert_eq!(first(stream.clone()).await, ["kept"]);
    assert_eq!(stream.shards().len(), 3, "the one that was closed just now stays");
    drop(stream);
    let broker = broker.reopen().await;
    assert_eq!(first(broker.engine.stream(&named("s")).unwrap()).await, ["kept"]);
    assert_eq!(broker.engine.stream(&named("s")).unwrap().shards().len(), 3);

    // the next change forgets what the clock had said
    update(&broker, StreamUpdate::IncreaseRetention(72)).await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    let later = TimestampMs::new(START.get() + 40 * HOUR_MS);
    assert!(stream.kept_since(later) <= TimestampMs::new(START.get() - 24 * HOUR_MS));
}

#[tokio::test]
async fn a_shorter_retention_by_a_clock_that_was_set_lets_go_of_nothing_yet() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    update(&broker, StreamUpdate::IncreaseRetention(48)).await;
    stream.put(vec![first_shard_record("kept")]).await[0].as_ref().unwrap();
    for wall in [START.get() + 30 * 24 * HOUR_MS, START.get()] {
        broker.clock.set_wall(TimestampMs::new(wall));
        update(&broker, StreamUpdate::DecreaseRetention(24)).await;
        assert_eq!(kept(&stream).await, ["kept"]);
        update(&broker, StreamUpdate::IncreaseRetention(48)).await;
    }
    drop(stream);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await; // all shards are looked at each second
    assert_eq!(kept(&stream).await, ["kept"]);
    // once the clock has run evenly for long enough it is believed
    for _ in 0..26 {
        broker.clock.advance_ms(HOUR_MS);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    update(&broker, StreamUpdate::DecreaseRetention(24)).await;
    assert_eq!(kept(&stream).await, [""; 0]);
}

#[tokio::test]
async fn tags_are_merged_and_limited() {
    let broker = Broker::new().await;
    broker.stream("s", 1).await;
    let many: Tags = (0..50).map(|n| (format!("key-{n}"), n.to_string())).collect();
    update(&broker, StreamUpdate::Tag(many)).await;
    let (kind, told) = refused(&broker, StreamUpdate::Tag(tags([("one", "more")]))).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(told.contains("stream s under account 000000000000") && told.contains("50 tags"), "{told}");
    let changed = update(&broker, StreamUpdate::Tag(tags([("key-7", "new")]))).await;
    assert_eq!((changed.tags.len(), changed.tags["key-7"].as_str()), (50, "new"));
    let (kind, told) = refused(&broker, StreamUpdate::Tag(tags([("a;b", "")]))).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert_eq!(
        told,
        "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @."
    );
    assert_eq!(refused(&broker, StreamUpdate::Tag(tags([("aws:k", "")]))).await.0, ErrorKind::Invalid);
    let huge = StreamUpdate::Policy(Some(" ".repeat(20 * 1024 + 1)));
    assert_eq!(refused(&broker, huge).await.0, ErrorKind::Invalid);
}

#[tokio::test]
async fn what_needs_on_demand_mode_is_refused_without_it() {
    let broker = Broker::new().await;
    broker.stream("s", 2).await;
    let auto = StreamUpdate::Distribution(Distribution::Auto);
    assert_eq!(refused(&broker, auto.clone()).await.0, ErrorKind::Invalid);
    assert_eq!(refused(&broker, StreamUpdate::WarmThroughput(1)).await.0, ErrorKind::Precondition);
    let on_demand = StreamUpdate::Mode { mode: StreamMode::OnDemand, warm_mibps: None };
    update(&broker, on_demand).await;
    assert_eq!(broker.engine.stream(&named("s")).unwrap().info().open_shards, 2, "the shards stay");
    assert_eq!(broker.engine.account(&account()).on_demand_streams, 1);

    let (kind, told) = refused(&broker, StreamUpdate::WarmThroughput(1)).await;
    assert!(kind == ErrorKind::Precondition && told.contains("commitment"), "{told}");
    broker.engine.set_commitment(&account(), true).await.unwrap();
    assert_eq!(refused(&broker, StreamUpdate::WarmThroughput(10_241)).await.0, ErrorKind::Invalid);
    assert_eq!(update(&broker, StreamUpdate::WarmThroughput(7)).await.warm_mibps, Some(7));
    update(&broker, auto).await;
    let provisioned = StreamUpdate::Mode { mode: StreamMode::Provisioned, warm_mibps: None };
    assert_eq!(
        refused(&broker, provisioned.clone()).await.0,
        ErrorKind::Precondition,
        "records without keys"
    );
    update(&broker, StreamUpdate::Distribution(Distribution::PartitionKey)).await;
    let settings = update(&broker, provisioned).await;
    assert_eq!((settings.mode, settings.warm_mibps), (StreamMode::Provisioned, None));

    let new = |settings| StreamSpec { shard_count: 1, settings };
    let auto = StreamSettings { distribution: Distribution::Auto, ..StreamSettings::default() };
    let warm = StreamSettings { warm_mibps: Some(1), ..StreamSettings::default() };
    let small = StreamSettings { record_kib_max: 1023, ..StreamSettings::default() };
    let tagged = StreamSettings { tags: tags([("aws:x", "")]), ..StreamSettings::default() };
    for (settings, kind) in [
        (auto, ErrorKind::Invalid),
        (warm, ErrorKind::Precondition),
        (small, ErrorKind::Invalid),
        (tagged, ErrorKind::Invalid),
    ] {
        let made = broker.engine.create_stream(&named("t"), new(settings.clone())).await;
        assert_eq!(made.unwrap_err().kind(), kind, "{settings:?}");
    }
}

fn large(bytes: usize) -> Record {
    Record::new(PartitionKey::new("k").unwrap(), vec![7u8; bytes]).unwrap()
}

fn frame_of(records: &[usize]) -> Frame {
    let mut writer = FrameWriter::with_capacity(records.iter().sum());
    records.iter().for_each(|bytes| writer.push("k", &vec![7u8; *bytes]));
    writer.finish(ProducerId::NONE, 0)
}

#[tokio::test]
async fn the_largest_record_counts_its_key_and_is_enforced_at_both_doors() {
    const LIMIT: usize = 1 << 20;
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let version = stream.map().version();
    let put = stream.put(vec![large(1), large(LIMIT), large(LIMIT - 1)]).await;
    assert!(put[0].is_ok() && put[2].is_ok());
    let error = put[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("record 2 ") && error.to_string().contains("1048577"), "{error}");
    let error = stream.submit(shard(0), version, frame_of(&[1, 1, LIMIT])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("record 3 "), "{error}");
    stream.submit(shard(0), version, frame_of(&[LIMIT - 1, LIMIT - 1])).await.unwrap().await.unwrap();

    for bad in [1023, 10_241] {
        assert_eq!(refused(&broker, StreamUpdate::RecordLimit(bad)).await.0, ErrorKind::Invalid);
    }
    update(&broker, StreamUpdate::RecordLimit(10_240)).await;
    assert_eq!(stream.record_bytes_max(), 10 << 20);
    let from = stream.resolve(shard(0), Position::Latest).await.unwrap();
    let put = stream.put(vec![large((10 << 20) - 1), large(10 << 20), large(3)]).await;
    assert!(put[0].is_ok() && put[2].is_ok());
    assert_eq!(put[1].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    stream.submit(shard(0), version, frame_of(&[(10 << 20) - 1])).await.unwrap().await.unwrap();
    assert!(stream.submit(shard(0), version, frame_of(&[10 << 20])).await.is_err());
    let mut next = from;
    for expected in [(10 << 20) - 1, 3, (10 << 20) - 1] {
        let page = stream.read_records(shard(0), next, 1, 10 << 20).await.unwrap();
        assert_eq!(page.records[0].data.len(), expected);
        assert!(page.records[0].data.iter().all(|byte| *byte == 7));
        next = page.next;
    }

    // a lower limit is for new records
    let numbered = || {
        let mut writer = FrameWriter::with_capacity(3 << 20);
        writer.push("k", &vec![7u8; 2 << 20]);
        writer.finish(ProducerId::new(7), 1)
    };
    let first = stream.submit(shard(0), version, numbered()).await.unwrap().await.unwrap();
    update(&broker, StreamUpdate::RecordLimit(1024)).await;
    assert!(stream.put(vec![large(2 << 20)]).await[0].is_err());
    let again = stream.submit(shard(0), version, numbered()).await.unwrap().await.unwrap();
    assert!(again.duplicate && again.first == first.first, "a stored batch is answered as it was");
    let page = stream.read_records(shard(0), from, 1, 10 << 20).await.unwrap();
    assert_eq!(page.records[0].data.len(), (10 << 20) - 1);
}

#[tokio::test]
async fn records_without_a_key_go_anywhere_where_the_stream_chooses() {
    let broker = Broker::new().await;
    let settings = StreamSettings {
        mode: StreamMode::OnDemand,
        distribution: Distribution::Auto,
        ..StreamSettings::default()
    };
    broker.engine.create_stream(&named("s"), StreamSpec { shard_count: 4, settings }).await.unwrap();
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert!(stream.takes_keyless());
    let keyless = |n: u32| {
        let place = HashKey::new(u128::from(n) << 122);
        Record::without_key(place, Bytes::from(n.to_string())).unwrap()
    };
    let placed = stream.put((0..64).map(keyless).chain([record("k", "keyed")]).collect()).await;
    let shards: HashSet<_> = placed.iter().map(|placed| placed.as_ref().unwrap().shard).collect();
    assert_eq!(shards.len(), 4);
    let mut keys = Vec::new();
    for id in 0..4 {
        let from = stream.resolve(shard(id), Position::TrimHorizon).await.unwrap();
        let page = stream.read_records(shard(id), from, 100, 1 << 20).await.unwrap();
        keys.extend(page.records.into_iter().map(|record| record.key));
    }
    assert_eq!(keys.iter().filter(|key| key.is_empty()).count(), 64);
    assert_eq!(keys.iter().filter(|key| *key == "k").count(), 1);
    drop(stream);

    let broker = broker.reopen().await;
    update(&broker, StreamUpdate::Distribution(Distribution::PartitionKey)).await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    let put = stream.put(vec![record("k", "x"), keyless(1)]).await;
    assert!(put[0].is_ok());
    let error = put[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("record 2 ") && error.to_string().contains("no partition key"),
        "{error}"
    );
}

#[tokio::test]
async fn an_account_keeps_its_commitment_and_counts_its_own_streams() {
    let broker = Broker::new().await;
    let none = broker.engine.account(&account());
    assert_eq!((none.streams, none.commitment.status(START)), (0, CommitmentStatus::Disabled));
    broker.stream("a", 2).await;
    broker.stream("b", 3).await;
    broker.engine.set_commitment(&account(), true).await.unwrap();
    broker.clock.advance_ms(HOUR_MS);
    let info = broker.engine.set_commitment(&account(), false).await.unwrap();
    assert_eq!((info.streams, info.open_shards, info.on_demand_streams), (2, 5, 0));
    let now = broker.engine.clock().now();
    assert_eq!(
        (info.commitment.started, info.commitment.status(now)),
        (Some(START), CommitmentStatus::Ending)
    );
    let broker = broker.crash().await.reopen().await;
    assert_eq!(broker.engine.account(&account()), info);
    let other = tidemill_types::AccountId::new("111111111111").unwrap();
    assert_eq!(broker.engine.account(&other), tidemill_engine::AccountInfo::default());
}

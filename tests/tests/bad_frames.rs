//! What bad frames get over the native API: a refusal of that batch alone, nothing written, the call goes on.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_proto::client::Channel;
use tidemill_proto::v1::append_response::Outcome;
use tidemill_proto::v1::{AppendRequest, AppendResponse, ErrorKind, ListShardsRequest, ReadRequest};
use tidemill_tests::{Broker, create_stream, payload};
use tidemill_types::limits::{FRAME_BYTES_MAX, RECORD_BYTES_DEFAULT, RECORD_DATA_BYTES_MAX};
use tidemill_types::{Frame, FrameWriter, ProducerId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const STREAM: &str = "s";
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// One append call, used for one batch after the other.
struct Appending {
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
    map_version: u64,
    sent: u64,
}

impl Appending {
    async fn open(broker: &Broker) -> Result<Self> {
        let channel = Channel::connect(&broker.endpoint()?).await?;
        let list =
            channel.control().list_shards(ListShardsRequest { stream: STREAM.into() }).await?.into_inner();
        let (requests, stream) = mpsc::channel(8);
        let mut client = channel.data();
        let call = timeout(ANSWER_DEADLINE, client.append(ReceiverStream::new(stream)));
        let answers = call.await.context("the call is not taken")??.into_inner();
        Ok(Self { requests, answers, map_version: list.map_version, sent: 0 })
    }

    async fn append(&mut self, frame: Bytes) -> Result<Outcome> {
        self.append_to(STREAM, 0, self.map_version, frame).await
    }

    async fn append_to(
        &mut self,
        stream: &str,
        shard: u32,
        map_version: u64,
        frame: Bytes,
    ) -> Result<Outcome> {
        self.sent += 1;
        let request = AppendRequest {
            request_id: self.sent,
            stream: stream.into(),
            shard,
            map_version,
            frame,
            stream_incarnation: 0,
        };
        self.requests.send(request).await?;
        let answer = timeout(ANSWER_DEADLINE, self.answers.message()).await.context("no answer")??;
        let answer = answer.context("the broker ended the call")?;
        ensure!(answer.request_id == self.sent, "the answer to another request: {answer:?}");
        answer.outcome.context("an answer has an outcome")
    }
}

fn frame(id: u64, producer: u64, batch: u64) -> Frame {
    let mut writer = FrameWriter::with_capacity(1000);
    writer.push("key", &payload(id, 100));
    writer.finish(ProducerId::new(producer), batch)
}

/// A frame of zero bytes as body, with a header that fits it.
fn large_frame(records: usize, bytes: usize) -> Frame {
    let mut writer = FrameWriter::with_capacity(records * bytes);
    for _ in 0..records {
        writer.push("k", &vec![0; bytes]);
    }
    writer.finish(ProducerId::NONE, 0)
}

/// The same frame with its header changed and its checksum right for it.
fn with_header(frame: &Frame, change: impl FnOnce(&mut tidemill_types::FrameHeader)) -> Bytes {
    let mut header = *frame.header();
    change(&mut header);
    [&header.encode()[..], &frame.body()].concat().into()
}

fn with_byte(frame: &Frame, place: usize) -> Bytes {
    let mut bytes = frame.bytes().to_vec();
    bytes[place] ^= 0xff;
    bytes.into()
}

fn kind(outcome: &Outcome) -> Option<ErrorKind> {
    match outcome {
        Outcome::Appended(_) => None,
        Outcome::Failed(failed) => Some(failed.kind()),
    }
}

#[tokio::test]
async fn a_bad_frame_is_refused_as_invalid_and_the_call_goes_on() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    create_stream(&broker, STREAM, 2).await?;
    let mut appending = Appending::open(&broker).await?;
    let good = frame(99, 7, 1000);
    let bytes = good.bytes().len();
    let two = [good.bytes().as_ref(), good.bytes()].concat();
    let cases: Vec<(&str, Bytes)> = vec![
        ("nothing", Bytes::new()),
        ("half a header", good.bytes().slice(..32)),
        ("a header alone", good.bytes().slice(..64)),
        ("the last byte missing", good.bytes().slice(..bytes - 1)),
        ("a byte too many", [good.bytes().as_ref(), b"x"].concat().into()),
        ("two frames", two.into()),
        ("a corrupt header", with_byte(&good, 33)),
        ("a corrupt length", with_byte(&good, 0)),
        ("a corrupt body", with_byte(&good, bytes - 1)),
        ("a corrupt body checksum", with_header(&good, |header| header.body_crc ^= 1)),
        ("too few records", with_header(&good, |header| header.count = 0)),
        ("too many records", with_header(&good, |header| header.count = 2)),
        ("far too many records", with_header(&good, |header| header.count = u32::MAX)),
        ("attributes of the future", with_header(&good, |header| header.attributes = 1)),
        ("a close", Frame::close().bytes().clone()),
        ("zeroes", vec![0; 4096].into()),
    ];
    for (round, (what, frame_bytes)) in cases.into_iter().enumerate() {
        let refused = appending.append(frame_bytes).await.with_context(|| what.to_owned())?;
        assert_eq!(kind(&refused), Some(ErrorKind::Invalid), "{what}: {refused:?}");
        let batch = round as u64 + 1;
        let taken = appending.append(frame(batch, 7, batch).bytes().clone()).await?;
        assert_eq!(kind(&taken), None, "after {what}: {taken:?}");
    }
    let stored = tidemill_tests::read_stream(&broker, STREAM).await?;
    assert!(stored.iter().map(|record| record.id).eq(1..=16), "only good frames are stored: {stored:?}");
    broker.assert_alive().await
}

#[tokio::test]
async fn a_batch_for_what_is_not_there_fails_alone() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    create_stream(&broker, STREAM, 2).await?;
    let mut appending = Appending::open(&broker).await?;
    let version = appending.map_version;
    let good = frame(1, 7, 1).bytes().clone();
    for (stream, shard, expected) in [
        ("none", 0, ErrorKind::NotFound),
        (STREAM, 9, ErrorKind::NotFound),
        ("bad name", 0, ErrorKind::Invalid),
        ("", 0, ErrorKind::Invalid),
        (STREAM, u32::MAX, ErrorKind::Invalid),
    ] {
        let refused = appending.append_to(stream, shard, version, good.clone()).await?;
        assert_eq!(kind(&refused), Some(expected), "{stream:?} {shard}: {refused:?}");
    }
    let taken = appending.append(good.clone()).await?;
    let Outcome::Appended(first) = taken else { panic!("{taken:?}") };
    let again = appending.append(good).await?;
    let Outcome::Appended(second) = again else { panic!("{again:?}") };
    assert!(second.duplicate && !first.duplicate, "a batch sent twice is stored once: {first:?} {second:?}");
    assert_eq!(first.first_index, second.first_index);
    assert_eq!(tidemill_tests::read_stream(&broker, STREAM).await?.len(), 1);
    broker.assert_alive().await
}

#[tokio::test]
async fn frames_up_to_the_limit_are_taken_and_larger_messages_do_not_hurt_the_broker() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    create_stream(&broker, STREAM, 1).await?;
    let mut appending = Appending::open(&broker).await?;
    // the limit of a record counts its key
    let largest = large_frame(11, RECORD_BYTES_DEFAULT - 1);
    let taken = appending.append(largest.bytes().clone()).await?;
    assert_eq!(kind(&taken), None, "eleven records of 1 MiB: {taken:?}");
    let refused = appending.append(large_frame(1, RECORD_BYTES_DEFAULT).bytes().clone()).await?;
    assert_eq!(kind(&refused), Some(ErrorKind::Invalid), "{refused:?}");
    // a frame above the limit of frames, below that of messages
    let mut over = large_frame(1, RECORD_DATA_BYTES_MAX).bytes().to_vec();
    over.resize(FRAME_BYTES_MAX + 1, 0);
    let refused = appending.append(over.into()).await?;
    assert_eq!(kind(&refused), Some(ErrorKind::Invalid), "{refused:?}");
    // above that of messages: the call breaks, the broker does not
    let channel = Channel::connect(&broker.endpoint()?).await?;
    let mut client = channel.data().max_encoding_message_size(usize::MAX);
    let request = AppendRequest {
        request_id: 1,
        stream: STREAM.into(),
        shard: 0,
        map_version: appending.map_version,
        frame: vec![0; 40 << 20].into(),
        stream_incarnation: 0,
    };
    let call = client.append(tokio_stream::iter([request]));
    let ended = timeout(ANSWER_DEADLINE, async {
        match call.await {
            Ok(answers) => answers.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        }
    });
    ended.await.context("the call does not end")?.expect_err("a message of 40 MiB is not taken");
    let taken = appending.append(frame(1, 7, 1).bytes().clone()).await?;
    assert_eq!(kind(&taken), None, "the other call goes on: {taken:?}");
    broker.assert_alive().await
}

#[tokio::test]
async fn reads_of_what_is_not_there_are_told_apart() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    create_stream(&broker, STREAM, 1).await?;
    let channel = Channel::connect(&broker.endpoint()?).await?;
    let at = |text: &str| tidemill_proto::v1::Position {
        at: Some(tidemill_proto::v1::position::At::AtSequenceNumber(text.into())),
    };
    let horizon = tidemill_proto::v1::Position {
        at: Some(tidemill_proto::v1::position::At::TrimHorizon(tidemill_proto::v1::Empty {})),
    };
    let cases = [
        ("none", 0, Some(horizon.clone()), Code::NotFound),
        (STREAM, 5, Some(horizon.clone()), Code::NotFound),
        ("bad name", 0, Some(horizon.clone()), Code::InvalidArgument),
        (STREAM, 0, None, Code::InvalidArgument),
        (STREAM, 0, Some(at("x")), Code::InvalidArgument),
        // a number of another shard
        (
            STREAM,
            0,
            Some(at("49646437577175378652512468275250536580403374760793210930")),
            Code::InvalidArgument,
        ),
    ];
    for (stream, shard, position, code) in cases {
        let request = ReadRequest { stream: stream.into(), shard, position, max_bytes: 0, stop_at_tip: true };
        let mut client = channel.data();
        let ended = timeout(ANSWER_DEADLINE, async {
            match client.read(request.clone()).await {
                Ok(answers) => answers.into_inner().message().await.map(drop),
                Err(status) => Err(status),
            }
        });
        let status = ended.await.context("the read hangs")?.expect_err("there is nothing to read");
        assert_eq!(status.code(), code, "{request:?}: {status:?}");
    }
    broker.assert_alive().await
}

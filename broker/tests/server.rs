//! The one port, from outside: what answers on it, what a call looks like on the wire, how it ends.
#![allow(clippy::unwrap_used)] // of helpers; a test may

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tempfile::TempDir;
use tidemill::server::{Broker, BrokerSettings};
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_proto::v1::append_response::Outcome;
use tidemill_proto::v1::{AppendRequest, ErrorKind as WireKind, Position, ReadRequest, ReadResponse};
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{Frame, FrameWriter, ProducerId, StreamName};
use tokio_stream::StreamExt;

const SOON: Duration = Duration::from_secs(10);

fn settings(dir: &TempDir) -> BrokerSettings {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    BrokerSettings { listen, data_dir: dir.path().join("data"), ..BrokerSettings::default() }
}

async fn broker(dir: &TempDir) -> Broker {
    Broker::start(settings(dir)).await.unwrap()
}

async fn channel(broker: &Broker) -> Channel {
    Channel::connect(&Endpoint::new(&broker.endpoint()).unwrap()).await.unwrap()
}

/// Sends one HTTP/1.1 request on a fresh connection, returns the whole answer.
async fn http(broker: &Broker, request_line: &str) -> String {
    let (addr, request_line) = (broker.addr(), request_line.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        write!(
            socket,
            "{request_line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        // an error may be told in CBOR
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .unwrap()
}

fn append(request_id: u64, shard: u32, records: &[&str]) -> AppendRequest {
    let mut frame = FrameWriter::with_capacity(256);
    records.iter().for_each(|record| frame.push("key", record.as_bytes()));
    let frame = frame.finish(ProducerId::NONE, 0).bytes().clone();
    AppendRequest { request_id, stream: "s".into(), shard, map_version: 1, frame, stream_incarnation: 0 }
}

fn read(position: tidemill_types::Position, stop_at_tip: bool) -> ReadRequest {
    ReadRequest {
        stream: "s".into(),
        shard: 0,
        position: Some(Position::from(position)),
        max_bytes: 0,
        stop_at_tip,
    }
}

fn records(page: &ReadResponse) -> Vec<String> {
    let (mut bytes, mut found) = (page.frames.clone(), Vec::new());
    while !bytes.is_empty() {
        let frame = Frame::decode(&bytes).unwrap();
        found.extend(frame.records().map(|record| String::from_utf8(record.data.to_vec()).unwrap()));
        bytes = bytes.slice(frame.bytes().len()..);
    }
    found
}

#[tokio::test]
async fn one_port_answers_operators_kinesis_and_grpc() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    for (line, status) in [
        ("GET /health/live", "HTTP/1.1 200"),
        ("GET /health/ready", "HTTP/1.1 200"),
        ("GET /metrics", "HTTP/1.1 200"),
        ("POST /metrics", "HTTP/1.1 405"),
        ("GET /health/other", "HTTP/1.1 404"),
    ] {
        let answer = http(&broker, line).await;
        assert!(answer.starts_with(status), "{line}: {answer}");
    }
    assert!(http(&broker, "GET /health/ready").await.ends_with(r#"{"status":"ready"}"#));
    assert!(http(&broker, "GET /metrics").await.contains("tidemill_connections"));
    // what is neither goes to the Kinesis front end, which names its request
    assert!(http(&broker, "POST /").await.to_lowercase().contains("x-amzn-requestid"));

    let control = Control::new(channel(&broker).await, 1);
    let name = StreamName::new("s").unwrap();
    let made = control.create_stream(&name, 3, 0).await.unwrap();
    assert_eq!((made.open_shards, made.retention_hours), (3, 24));
    assert_eq!(control.describe_stream(&name).await.unwrap(), made);
    assert_eq!(control.list_streams(None, 10).await.unwrap().streams, [made]);
    assert_eq!(control.list_shards(&name).await.unwrap().map.open().len(), 3);
    assert_eq!(control.create_stream(&name, 1, 0).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    control.delete_stream(&name).await.unwrap();
    assert_eq!(control.describe_stream(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    broker.shutdown().await.unwrap();
}

/// A page in a browser could read the names of streams, or call the native services, on a broker that checks nobody.
#[tokio::test]
async fn pages_of_other_machines_are_served_by_no_front_end() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let grpc = "content-type: application/grpc\r\nx-rest:";
    for (path, rest, refusal) in [
        ("GET /metrics", "x-rest:", "HTTP/1.1 403"),
        ("GET /health/ready", "x-rest:", "HTTP/1.1 403"),
        ("POST /tidemill.v1.Control/ListStreams", grpc, "grpc-status: 7"),
        ("POST /", "x-rest:", "HTTP/1.1 403"),
    ] {
        for (origin, refused) in
            [("http://x.example", true), ("null", true), ("http://localhost:3000", false)]
        {
            let answer = http(&broker, &format!("{path} HTTP/1.1\r\norigin: {origin}\r\n{rest}")).await;
            assert_eq!(answer.contains(refusal), refused, "{path} {origin}: {answer}");
        }
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_that_goes_on_ends_when_it_is_no_longer_permitted() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let channel = channel(&broker).await;
    let name = StreamName::new("s").unwrap();
    Control::new(channel.clone(), 1).create_stream(&name, 1, 0).await.unwrap();
    let (requests, taken) = tokio::sync::mpsc::channel(4);
    let requested = tokio_stream::wrappers::ReceiverStream::new(taken);
    requests.send(append(1, 0, &["a"])).await.unwrap();
    let mut answers = channel.data().append(requested).await.unwrap().into_inner();
    let outcome = answers.message().await.unwrap().unwrap().outcome.unwrap();
    assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
    let from_now = read(tidemill_types::Position::Latest, false);
    let mut pages = channel.data().read(from_now).await.unwrap().into_inner();
    pages.message().await.unwrap().unwrap();

    let denial = r#"{"Statement":[{"Effect":"Deny","Principal":"*","Action":"kinesis:*","Resource":"*"}]}"#;
    let account = tidemill_types::AccountId::new("000000000000").unwrap();
    let key = tidemill_types::StreamKey::new(account, name);
    let update = tidemill_engine::StreamUpdate::Policy(Some(denial.to_owned()));
    broker.engine().update_stream(&key, update).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    requests.send(append(2, 0, &["b"])).await.unwrap();
    let outcome = answers.message().await.unwrap().unwrap().outcome.unwrap();
    let Outcome::Failed(failed) = outcome else { panic!("{outcome:?}") };
    assert!(failed.message.contains("explicit deny"), "{failed:?}");
    let ended = async {
        while pages.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let ended = tokio::time::timeout(SOON, ended).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), tonic::Code::PermissionDenied);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer_for_every_service() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let channel =
        tonic::transport::Endpoint::from_shared(broker.endpoint()).unwrap().connect().await.unwrap();
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers =
        ServerReflectionClient::new(channel.clone()).server_reflection_info(tokio_stream::once(ask)).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("not a list: {answer:?}");
    };
    let services: Vec<_> = listed.service.into_iter().map(|ServiceResponse { name }| name).collect();
    let mut health = HealthClient::new(channel);
    for service in ["tidemill.v1.Control", "tidemill.v1.Data", "tidemill.v1.Lease"] {
        assert!(services.iter().any(|name| name == service), "{service} not in {services:?}");
        let checked =
            health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving);
    }
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopped = tokio::time::timeout(SOON, broker.shutdown());
    let (stopped, last) = tokio::join!(stopped, watch.message());
    stopped.expect("shutdown does not wait for watchers").unwrap();
    assert_eq!(last.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_bad_batch_is_an_answer_and_the_call_goes_on_in_order() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let channel = channel(&broker).await;
    Control::new(channel.clone(), 1).create_stream(&StreamName::new("s").unwrap(), 1, 0).await.unwrap();
    let mut damaged = append(2, 0, &["never"]);
    damaged.frame = damaged.frame.iter().rev().copied().collect::<Vec<_>>().into();
    let requests = vec![
        append(1, 0, &["a", "b"]),
        damaged,
        append(3, 9, &["no such shard"]),
        AppendRequest { stream: "unknown".into(), ..append(4, 0, &["x"]) },
        append(5, 0, &["c"]),
        AppendRequest {
            stream_incarnation: 99,
            ..append(6, 0, &["meant for an earlier stream of this name"])
        },
    ];
    let answers = channel.data().append(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
    let of_shard_0 = answers.iter().map(|answer| answer.request_id).filter(|id| [1, 2, 5, 6].contains(id));
    assert_eq!(
        of_shard_0.collect::<Vec<_>>(),
        [1, 2, 5, 6],
        "answers of one shard come in the order of its requests"
    );
    answers.sort_by_key(|answer| answer.request_id);
    let kinds = answers.iter().map(|answer| match answer.outcome.as_ref().unwrap() {
        Outcome::Appended(appended) => Ok(appended.count),
        Outcome::Failed(failed) => Err(failed.kind()),
    });
    let gone = Err(WireKind::NotFound);
    let expected = [Ok(2), Err(WireKind::Invalid), gone, gone, Ok(1), gone];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);

    let from_start = read(tidemill_types::Position::TrimHorizon, true);
    let pages = channel.data().read(from_start).await.unwrap().into_inner();
    let pages: Vec<_> = pages.map(|page| page.unwrap()).collect().await;
    assert!(pages[0].shard.is_some(), "the first answer tells the shard");
    assert_eq!(pages.iter().flat_map(records).collect::<Vec<_>>(), ["a", "b", "c"]);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_subscription_answers_at_once_delivers_what_comes_and_ends_with_the_broker() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let channel = channel(&broker).await;
    Control::new(channel.clone(), 1).create_stream(&StreamName::new("s").unwrap(), 1, 0).await.unwrap();
    let from_now = read(tidemill_types::Position::Latest, false);
    let mut pages = channel.data().read(from_now).await.unwrap().into_inner();
    let first = tokio::time::timeout(SOON, pages.message()).await.unwrap().unwrap().unwrap();
    assert!(first.shard.is_some() && first.frames.is_empty() && !first.end_of_shard);
    assert_eq!(first.millis_behind, 0);

    let one = tokio_stream::iter(vec![append(1, 0, &["late"])]);
    let mut answers = channel.data().append(one).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let page = tokio::time::timeout(SOON, pages.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(records(&page), ["late"]);
    assert!(page.next_index > first.next_index);

    let stopped = tokio::time::timeout(SOON, broker.shutdown());
    let (stopped, ended) = tokio::join!(stopped, pages.message());
    stopped.expect("shutdown does not wait for readers").unwrap();
    assert_eq!(Error::from(ended.unwrap_err()).kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn grpc_requests_that_break_a_rule_are_told_so_and_the_connection_stays() {
    let dir = TempDir::new().unwrap();
    let broker = broker(&dir).await;
    let channel = channel(&broker).await;
    let kind_of_read = async |request| {
        let status = channel.data().read(request).await.map(drop).unwrap_err();
        Error::from(status).kind()
    };
    let good = || read(tidemill_types::Position::Latest, false);
    assert_eq!(kind_of_read(good()).await, ErrorKind::NotFound);
    assert_eq!(kind_of_read(ReadRequest { position: None, ..good() }).await, ErrorKind::Invalid);
    assert_eq!(kind_of_read(ReadRequest { stream: "a b".into(), ..good() }).await, ErrorKind::Invalid);
    assert_eq!(kind_of_read(ReadRequest { shard: u32::MAX, ..good() }).await, ErrorKind::Invalid);
    let control = Control::new(channel.clone(), 1);
    let name = StreamName::new("s").unwrap();
    for (shards, hours) in [(0, 24), (10_001, 24), (1, 23), (1, 8_761)] {
        let error = control.create_stream(&name, shards, hours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{shards} shards, {hours} h");
    }
    assert_eq!(control.list_streams(None, 1001).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(control.list_streams(None, 1000).await.unwrap().streams.is_empty());
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_connection_past_the_cap_waits_for_a_place_and_is_then_served() {
    let dir = TempDir::new().unwrap();
    let broker = Broker::start(BrokerSettings { connections_max: 1, ..settings(&dir) }).await.unwrap();
    let addr = broker.addr();
    let served = tokio::task::spawn_blocking(move || {
        let ask = || {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            socket
        };
        let answers = |socket: &mut TcpStream, within: Duration| {
            socket.set_read_timeout(Some(within)).unwrap();
            socket.read(&mut [0; 12]).is_ok_and(|bytes| bytes > 0)
        };
        let mut first = ask();
        assert!(answers(&mut first, SOON));
        let mut second = ask();
        assert!(!answers(&mut second, Duration::from_millis(200)), "the cap is one connection");
        drop(first);
        assert!(answers(&mut second, SOON), "its turn has come");
    });
    served.await.unwrap();
    broker.shutdown().await.unwrap();
}

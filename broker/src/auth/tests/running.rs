//! A broker with credentials, from outside: over the Kinesis API, over gRPC, and while its configuration changes.

use crate::config::{Config, Flags};
use crate::server::Broker;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tidemill_producer::{Config as ProducerConfig, Producer, Record};
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_proto::v1::{Position, ReadRequest};
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{ManualClock, PartitionKey, StreamName};

const PATIENCE: Duration = Duration::from_secs(20);

fn configuration(writer_secret: &str) -> String {
    format!(
        "
        [[credentials]]
        access_key_id = 'WRITER'
        secret_access_key = '{writer_secret}'
        name = 'writer'
        policies = ['all']
        [[credentials]]
        access_key_id = 'READER'
        secret_access_key = 'reader secret'
        name = 'reader'
        account = '000000000000'
        policies = ['look']
        [[credentials]]
        access_key_id = 'OTHER'
        secret_access_key = 'other secret'
        account = '222222222222'
        policies = ['all']
        [[credentials]]
        access_key_id = 'SHORT'
        secret_access_key = 'short secret'
        expires = 2024-01-02T03:04:07Z
        policies = ['all']
        [[policies]]
        name = 'all'
        statements = [{{ effect = 'allow', actions = ['kinesis:*'], streams = ['*'] }}]
        [[policies]]
        name = 'look'
        [[policies.statements]]
        effect = 'allow'
        actions = ['kinesis:Get*', 'kinesis:Describe*', 'kinesis:List*']
        streams = ['s*']
        "
    )
}

struct Running {
    broker: Broker,
    file: PathBuf,
    _dir: TempDir,
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidemill.toml");
        std::fs::write(&file, configuration("writer secret")).unwrap();
        let mut flags = Flags::default();
        flags.config = Some(file.clone());
        flags.listen = Some("127.0.0.1:0".parse().unwrap());
        flags.data_dir = Some(dir.path().join("data"));
        let mut settings = Config::load(flags).unwrap().broker;
        settings.clock = Arc::new(ManualClock::new(super::NOW));
        let broker = Broker::start(settings).await.unwrap();
        Self { broker, file, _dir: dir }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.broker.endpoint()).unwrap()
    }

    async fn control(&self, id: &str, secret: &str) -> Control {
        let endpoint = self.endpoint().credentials(id, secret).unwrap();
        Control::new(Channel::connect(&endpoint).await.unwrap(), 1)
    }

    /// Signed by the AWS crate, if there is someone to sign as.
    async fn ask(&self, who: Option<(&str, &str)>, operation: &str, body: &str) -> (u16, String) {
        let url = format!("{}/", self.broker.endpoint());
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("Kinesis_20131202.{operation}")),
        ];
        let mut request = Request::post(&url);
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        if let Some((id, secret)) = who {
            let identity = Credentials::new(id, secret, None, None, "test").into();
            let params = v4::SigningParams::builder()
                .identity(&identity)
                .region("us-east-1")
                .name("kinesis")
                .time(SystemTime::UNIX_EPOCH + Duration::from_millis(super::NOW.get()))
                .settings(SigningSettings::default())
                .build()
                .unwrap();
            let signable = SignableRequest::new(
                "POST",
                &url,
                headers.iter().map(|(name, value)| (*name, value.as_str())),
                SignableBody::Bytes(body.as_bytes()),
            );
            let (instructions, _) = sign(signable.unwrap(), &params.into()).unwrap().into_parts();
            instructions.apply_to_request_http1x(&mut request);
        }
        let reply = send(request).await;
        (reply.status().as_u16(), String::from_utf8(reply.into_body().to_vec()).unwrap())
    }

    /// Waits until the broker has read its file again, as seen by `is_there`.
    async fn until<F: Future<Output = bool>>(&self, is_there: impl Fn() -> F) {
        let waiting = async {
            while !is_there().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the change is in force soon");
    }
}

async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

const WRITER: Option<(&str, &str)> = Some(("WRITER", "writer secret"));
const READER: Option<(&str, &str)> = Some(("READER", "reader secret"));
const OTHER: Option<(&str, &str)> = Some(("OTHER", "other secret"));
const NEW: &str = r#"{"StreamName":"s","ShardCount":1}"#;
const SUMMARY: &str = r#"{"StreamName":"s"}"#;

#[tokio::test]
async fn the_kinesis_api_serves_those_who_sign_and_may() {
    let running = Running::start().await;
    let (status, told) = running.ask(None, "CreateStream", NEW).await;
    assert_eq!((status, told.contains("MissingAuthenticationTokenException")), (400, true), "{told}");
    let (status, told) = running.ask(Some(("WRITER", "wrong")), "CreateStream", NEW).await;
    assert_eq!((status, told.contains("InvalidSignatureException")), (400, true), "{told}");
    let (status, told) = running.ask(Some(("NOBODY", "wrong")), "CreateStream", NEW).await;
    assert_eq!((status, told.contains("UnrecognizedClientException")), (400, true), "{told}");
    let (status, told) = running.ask(READER, "CreateStream", NEW).await;
    assert_eq!((status, told.contains("AccessDeniedException")), (400, true), "{told}");
    assert!(
        told.contains(
            "User: arn:aws:iam::000000000000:user/reader is not authorized to perform: kinesis:CreateStream on \
             resource: arn:aws:kinesis:us-east-1:000000000000:stream/s because no identity-based policy allows the \
             kinesis:CreateStream action"
        ),
        "{told}"
    );
    assert_eq!(running.ask(WRITER, "CreateStream", NEW).await.0, 200);
    assert_eq!(running.ask(READER, "DescribeStreamSummary", SUMMARY).await.0, 200);
    let (status, told) = running.ask(OTHER, "DescribeStreamSummary", SUMMARY).await;
    assert_eq!((status, told.contains("under account 222222222222 not found")), (400, true), "{told}");
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn pages_from_anywhere_may_ask_once_they_must_sign() {
    let running = Running::start().await;
    let request = Request::post(format!("{}/", running.broker.endpoint()))
        .header("origin", "https://elsewhere.example")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "Kinesis_20131202.ListStreams")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let reply = send(request).await;
    assert_eq!(reply.headers()["access-control-allow-origin"], "*");
    assert_eq!(reply.headers()["x-amzn-errortype"], "MissingAuthenticationTokenException");
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn native_clients_are_served_if_they_prove_who_they_are_and_may() {
    let running = Running::start().await;
    let nobody = Control::new(Channel::connect(&running.endpoint()).await.unwrap(), 1);
    let refused = nobody.list_streams(None, 1).await.unwrap_err();
    assert!(refused.message().contains("access key id"), "{refused}");
    let liar = running.control("WRITER", "reader secret").await;
    assert_eq!(liar.list_streams(None, 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    let writer = running.control("WRITER", "writer secret").await;
    writer.create_stream(&stream("s"), 1, 24).await.unwrap();
    let reader = running.control("READER", "reader secret").await;
    reader.describe_stream(&stream("s")).await.unwrap();
    let refused = reader.delete_stream(&stream("s")).await.unwrap_err();
    assert!(refused.message().contains("kinesis:DeleteStream"), "{refused}");
    let refused = reader.list_streams(None, 1).await.unwrap_err();
    assert!(refused.message().contains("kinesis:ListStreams on resource: *"), "{refused}");
    let other = running.control("OTHER", "other secret").await;
    assert!(other.list_streams(None, 1).await.unwrap().streams.is_empty());

    let put = async |id: &str, secret: &str| {
        let config =
            ProducerConfig::new(&running.broker.endpoint()).unwrap().credentials(id, secret).unwrap();
        let producer = Producer::new(config).await.unwrap();
        let ticket = producer.put("s", Record::new(PartitionKey::new("k").unwrap(), "v").unwrap()).await?;
        ticket.await
    };
    put("WRITER", "writer secret").await.unwrap();
    let refused = put("READER", "reader secret").await.unwrap_err();
    assert!(refused.to_string().contains("kinesis:PutRecords"), "{refused}");
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn health_is_told_to_anyone() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let running = Running::start().await;
    let transport =
        tonic::transport::Endpoint::new(running.broker.endpoint()).unwrap().connect().await.unwrap();
    HealthClient::new(transport).check(HealthCheckRequest::default()).await.unwrap();
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn credentials_change_while_the_broker_runs() {
    let running = Running::start().await;
    assert_eq!(running.ask(WRITER, "CreateStream", NEW).await.0, 200);
    // a call that goes on for long
    let endpoint = running.endpoint().credentials("WRITER", "writer secret").unwrap();
    let request = ReadRequest {
        stream: "s".to_owned(),
        position: Some(Position::from(tidemill_types::Position::TrimHorizon)),
        ..ReadRequest::default()
    };
    let mut pages =
        Channel::connect(&endpoint).await.unwrap().data().read(request).await.unwrap().into_inner();
    pages.message().await.unwrap().unwrap();

    // a file with a mistake changes nothing
    write(&running.file, &(configuration("new secret") + "nonsense = 1"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(running.ask(WRITER, "DescribeStreamSummary", SUMMARY).await.0, 200);

    write(&running.file, &configuration("new secret"));
    running.until(async || running.ask(WRITER, "DescribeStreamSummary", SUMMARY).await.0 == 400).await;
    let renewed = Some(("WRITER", "new secret"));
    assert_eq!(running.ask(renewed, "DescribeStreamSummary", SUMMARY).await.0, 200);
    let ended = async {
        loop {
            match pages.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the call ended without a word"),
                Err(status) => return Error::from(status),
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(ended.kind(), ErrorKind::Unavailable);
    assert!(ended.message().contains("credentials"), "{ended}");

    // the word to read it again counts even where the file looks as before
    let written = std::fs::metadata(&running.file).unwrap().modified().unwrap();
    write(&running.file, &configuration("odd secret"));
    std::fs::File::options().write(true).open(&running.file).unwrap().set_modified(written).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    let renewed = Some(("WRITER", "odd secret"));
    running.until(async || running.ask(renewed, "DescribeStreamSummary", SUMMARY).await.0 == 200).await;

    // a file without any is taken on that word only; with none left it is shut, not open
    write(&running.file, "");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(running.ask(renewed, "DescribeStreamSummary", SUMMARY).await.0, 200);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    running.until(async || running.ask(renewed, "DescribeStreamSummary", SUMMARY).await.0 == 400).await;
    let (_, told) = running.ask(None, "ListStreams", "{}").await;
    assert!(told.contains("MissingAuthenticationToken"), "{told}");
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn native_calls_end_with_the_credential_that_they_were_made_with() {
    let running = Running::start().await;
    assert_eq!(running.ask(WRITER, "CreateStream", NEW).await.0, 200);
    let endpoint = running.endpoint().credentials("SHORT", "short secret").unwrap();
    let channel = Channel::connect(&endpoint).await.unwrap();
    let request = ReadRequest {
        stream: "s".to_owned(),
        position: Some(Position::from(tidemill_types::Position::TrimHorizon)),
        ..ReadRequest::default()
    };
    let mut pages = channel.data().read(request).await.unwrap().into_inner();
    let mut answers = channel.data().append(tokio_stream::pending()).await.unwrap().into_inner();
    let reading = async {
        while pages.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let both = async { tokio::join!(reading, answers.message()) };
    let (reading, appending) = tokio::time::timeout(Duration::from_secs(4), both).await.unwrap();
    for ended in [reading.unwrap_err(), appending.unwrap_err()].map(Error::from) {
        assert_eq!(ended.kind(), ErrorKind::Unavailable);
        assert!(ended.message().contains("expired"), "{ended}");
    }
    running.broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn metrics_are_for_credentials_of_the_brokers_own_account_and_tell_of_failed_logins() {
    let running = Running::start().await;
    let get = async |path: &str, who: Option<(&str, &str)>| {
        let mut request = Request::get(format!("{}{path}", running.broker.endpoint()));
        if let Some((id, secret)) = who {
            let basic = base64_simd::STANDARD.encode_to_string(format!("{id}:{secret}"));
            request = request.header("authorization", format!("Basic {basic}"));
        }
        let reply = send(request.body(Full::default()).unwrap()).await;
        (reply.status().as_u16(), String::from_utf8(reply.into_body().to_vec()).unwrap())
    };
    running.ask(Some(("NOBODY", "wrong")), "MergeShards", "{}").await;
    running.ask(None, "Fly", "{}").await;
    for (who, status) in
        [(None, 401), (Some(("WRITER", "wrong")), 401), (OTHER, 403), (READER, 200), (WRITER, 200)]
    {
        assert_eq!(get("/metrics", who).await.0, status, "{who:?}");
        assert_eq!(get("/health/ready", who).await.0, 200, "{who:?}");
        assert_eq!(get("/health/live", who).await.0, 200, "{who:?}");
    }
    let (_, page) = get("/metrics", WRITER).await;
    for labels in
        [r#"operation="MergeShards",result="UnrecognizedClientException""#, r#"operation="none",result="#]
    {
        assert!(page.contains(&format!("tidemill_kinesis_requests_total{{{labels}")), "{labels}: {page}");
    }
    assert!(!page.contains("Fly"), "names that callers make up are no labels");
    running.broker.shutdown().await.unwrap();
}

#[test]
fn a_broker_with_credentials_may_serve_a_public_address() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidemill.toml");
    let load = |text: &str| {
        write(&file, &format!("listen = '0.0.0.0:4567'\n{text}"));
        let mut flags = Flags::default();
        flags.config = Some(file.clone());
        Config::load(flags).map(drop)
    };
    load(&configuration("secret")).unwrap();
    let told = load("").unwrap_err().to_string();
    assert!(told.contains("configure credentials") && told.contains("--insecure"), "{told}");
    let told =
        load("[[credentials]]\naccess_key_id = 'A'\nsecret_access_key = 12345678").unwrap_err().to_string();
    assert!(told.contains("line 4") && !told.contains("12345678"), "{told}");
    let told =
        load(&configuration("secret").replace("policies = ['all']", "policies = ['none']")).unwrap_err();
    assert!(told.to_string().contains("no policy of the name \"none\""), "{told}");
}

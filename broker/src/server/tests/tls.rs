//! TLS and clear text on one port, as clients that trust a given authority see them.

use super::*;
use crate::tls::{self, Certificate, TlsSettings};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use tidemill_types::ManualClock;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Clients compare certificates with the real time.
fn clock() -> Arc<ManualClock> {
    use tidemill_types::{Clock, SystemClock};
    Arc::new(ManualClock::new(SystemClock::new().now()))
}

fn local() -> Certificate {
    Certificate::Local { names: vec!["broker.test".into()] }
}

fn settings(certificate: Certificate) -> TlsSettings {
    TlsSettings { certificate, required: false, listen: None }
}

/// A server of one text, and the folder with its authority.
struct Served {
    addr: SocketAddr,
    dir: tempfile::TempDir,
    stopping: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Served {
    async fn start(required: bool, patience: Patience) -> Self {
        Self::with(local(), tempfile::tempdir().unwrap(), required, patience).await
    }
    async fn with(
        certificate: Certificate,
        dir: tempfile::TempDir,
        required: bool,
        patience: Patience,
    ) -> Self {
        let stopping = CancellationToken::new();
        let (acceptor, _) =
            tls::start(&settings(certificate), dir.path(), &[], clock(), stopping.clone()).unwrap();
        let speaks = if required { Speaks::Tls(acceptor) } else { Speaks::Both(acceptor) };
        let aws = Router::new().route("/", get(|| async { "well met" }));
        let (addr, door, accepting) = speaking(speaks, aws, patience).await;
        tokio::spawn({
            let stopping = stopping.clone();
            async move {
                stopping.cancelled().await;
                door.cancel();
            }
        });
        Self { addr, dir, stopping, accepting }
    }
    fn ca(&self) -> PathBuf {
        self.dir.path().join("tls/ca.pem")
    }
    /// Shakes hands as a client that trusts `ca`, offering the protocols.
    async fn shake(&self, ca: &Path, name: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        shake(self.addr, ca, name, alpn).await
    }
    async fn stop(self) {
        self.stopping.cancel();
        self.accepting.await.unwrap();
    }
}

async fn shake(
    addr: SocketAddr,
    ca: &Path,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// One request over HTTP/1.1, the whole answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// Whether the server ends the connection soon, whatever it says before.
async fn is_ended(mut socket: TcpStream) -> bool {
    let mut said = Vec::new();
    tokio::time::timeout(SOON, socket.read_to_end(&mut said)).await.is_ok()
}

#[tokio::test]
async fn one_port_serves_tls_and_clear_text() {
    let served = Served::start(false, Patience::default()).await;
    let tls = served.shake(&served.ca(), "localhost", &["http/1.1"]).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(ask(tls).await.ends_with("well met"));
    let clear = TcpStream::connect(served.addr).await.unwrap();
    assert!(ask(clear).await.ends_with("well met"));
    for name in ["127.0.0.1", "::1", "broker.test"] {
        assert!(
            ask(served.shake(&served.ca(), name, &[]).await.unwrap()).await.ends_with("well met"),
            "{name}"
        );
    }
    assert!(served.shake(&served.ca(), "elsewhere.test", &[]).await.is_err(), "a name it is not good for");
    served.stop().await;
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let served = Served::start(false, Patience::default()).await;
    let tls = served.shake(&served.ca(), "localhost", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/").body(Body::empty()).unwrap();
    let answer = requests.send_request(request).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "well met");
    drop(requests);
    connection.await.unwrap().unwrap();
    served.stop().await;
}

#[tokio::test]
async fn where_tls_is_required_clear_text_is_told_so() {
    let served = Served::start(true, Patience::default()).await;
    let answer = ask(TcpStream::connect(served.addr).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https:// here\n"), "{answer}");
    let told: usize =
        answer.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    assert_eq!(told, answer.split("\r\n\r\n").nth(1).unwrap().len());
    assert!(ask(served.shake(&served.ca(), "localhost", &[]).await.unwrap()).await.ends_with("well met"));
    served.stop().await;
}

/// Two connections are all there are: silent ones would shut out everybody else.
#[tokio::test]
async fn peers_that_say_nothing_or_half_a_handshake_give_back_their_slots() {
    let short = Duration::from_millis(200);
    let served =
        Served::start(false, Patience { first_request: short, handshake: short, ..Patience::default() })
            .await;
    let silent = TcpStream::connect(served.addr).await.unwrap();
    let mut half = TcpStream::connect(served.addr).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let ca = served.ca();
    let third = served.shake(&ca, "localhost", &[]);
    let third = tokio::time::timeout(SOON, third).await.expect("a slot is free in time").unwrap();
    assert!(ask(third).await.ends_with("well met"));
    assert!(is_ended(silent).await && is_ended(half).await);
    let mut shaken = served.shake(&served.ca(), "localhost", &["h2"]).await.unwrap();
    let mut said = Vec::new();
    let ended = tokio::time::timeout(SOON, shaken.read_to_end(&mut said)).await;
    assert!(ended.is_ok(), "one that shakes hands and then says nothing is given up too");
    served.stop().await;
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let served = Served::start(false, Patience::default()).await;
    let records: [&[u8]; 4] = [
        &[0x16; 4096],
        &[0x16, 0x03, 0x01, 0xff, 0xff],
        &[0x16, 0x03, 0x03, 0x00, 0x04, 1, 0, 0, 0],
        &[0x80, 0x2e, 1],
    ];
    for record in records {
        let mut socket = TcpStream::connect(served.addr).await.unwrap();
        socket.write_all(record).await.unwrap();
        socket.shutdown().await.unwrap();
        assert!(is_ended(socket).await, "{:02x?}", &record[..3]);
    }
    assert!(ask(served.shake(&served.ca(), "localhost", &[]).await.unwrap()).await.ends_with("well met"));
    served.stop().await;
}

#[tokio::test]
async fn the_authority_outlives_a_restart_and_its_key_is_the_owners() {
    let first = Served::start(false, Patience::default()).await;
    let kept = tempfile::tempdir().unwrap();
    let trusted = kept.path().join("trusted.pem");
    std::fs::copy(first.ca(), &trusted).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(first.dir.path().join("tls/ca-key.pem")), 0o600);
        assert_eq!(mode(first.ca()), 0o644);
    }
    first.stopping.cancel();
    first.accepting.await.unwrap();
    std::fs::remove_file(first.dir.path().join("tls/ca.pem")).unwrap();
    let second = Served::with(local(), first.dir, false, Patience::default()).await;
    for ca in [&trusted, &second.ca()] {
        assert!(ask(second.shake(ca, "localhost", &[]).await.unwrap()).await.ends_with("well met"));
    }
    second.stop().await;
    let stranger = Served::start(false, Patience::default()).await;
    assert!(stranger.shake(&trusted, "localhost", &[]).await.is_err(), "another broker's authority");
    stranger.stop().await;
}

/// Writes a pair that signs itself.
fn write_pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

async fn within_soon(mut done: impl AsyncFnMut() -> bool) -> bool {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, waited).await.is_ok()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (old, old_key) = write_pair(dir.path(), "old");
    let (new, new_key) = write_pair(dir.path(), "new");
    let (certificate, key) = (dir.path().join("shown.pem"), dir.path().join("shown-key.pem"));
    std::fs::copy(&old, &certificate).unwrap();
    std::fs::copy(&old_key, &key).unwrap();
    let (log, _guard) = CapturedLog::start();
    let files = Certificate::Files { certificate: certificate.clone(), key: key.clone() };
    let served = Served::with(files, dir, false, Patience::default()).await;
    assert!(served.shake(&old, "localhost", &[]).await.is_ok());
    // half way: the certificate is new, the key is not yet
    std::fs::copy(&new, &certificate).unwrap();
    assert!(within_soon(async || log.lines().iter().any(|line| line.contains("cannot be used"))).await);
    assert!(served.shake(&old, "localhost", &[]).await.is_ok(), "what was shown before is shown on");
    std::fs::copy(&new_key, &key).unwrap();
    assert!(within_soon(async || served.shake(&new, "localhost", &[]).await.is_ok()).await);
    assert!(served.shake(&old, "localhost", &[]).await.is_err());
    served.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (one, one_key) = write_pair(dir.path(), "one");
    let (_, other_key) = write_pair(dir.path(), "other");
    let check = |certificate: &Path, key: &Path| {
        settings(Certificate::Files { certificate: certificate.to_owned(), key: key.to_owned() }).check()
    };
    assert!(check(&one, &one_key).is_ok());
    for (certificate, key, word) in [
        (one.as_path(), other_key.as_path(), "cannot be used with the key"),
        (&one_key, &one_key, "no certificate"),
        (&one, &one, "no private key"),
        (Path::new("/nowhere.pem"), &one_key, "cannot read"),
    ] {
        let error = check(certificate, key).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        assert!(error.to_string().contains(word), "{error}");
    }
    for name in ["", "a b", "ä"] {
        let error = settings(Certificate::Local { names: vec![name.into()] }).check().unwrap_err();
        assert!(error.to_string().contains("tls.names"), "{error}");
    }
}

#[tokio::test]
async fn a_broker_may_have_a_second_address_for_tls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let settings = BrokerSettings {
        listen: free,
        data_dir: dir.path().to_owned(),
        tls: Some(TlsSettings { listen: Some(free), ..settings(local()) }),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    assert!(broker.endpoint().starts_with("http://"), "clear text is served on the first");
    let ca = dir.path().join("tls/ca.pem");
    let second = broker.tls_addr().unwrap();
    for addr in [broker.addr(), second] {
        let tls = shake(addr, &ca, "127.0.0.1", &["http/1.1"]).await.unwrap();
        assert!(ask(tls).await.contains("x-amzn-requestid"));
    }
    let clear = TcpStream::connect(second).await.unwrap();
    assert!(ask(clear).await.contains("TLS only"));
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn native_clients_trust_the_authority_they_are_given() {
    use tidemill_proto::client::{Channel, Control, Endpoint};
    let dir = tempfile::tempdir().unwrap();
    let settings = BrokerSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.path().to_owned(),
        tls: Some(TlsSettings { required: true, ..settings(local()) }),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    assert!(broker.endpoint().starts_with("https://"), "clear text is refused");
    let ca = std::fs::read(dir.path().join("tls/ca.pem")).unwrap();
    let strangers = Endpoint::new(&broker.endpoint()).unwrap();
    let refused = Channel::connect(&strangers).await.unwrap_err();
    assert!(refused.message().contains("certificate"), "{refused}");
    let trusted = strangers.ca_certificate(ca.clone()).unwrap();
    let control = Control::new(Channel::connect(&trusted).await.unwrap(), 1);
    assert!(control.list_streams(None, 10).await.unwrap().streams.is_empty());
    let config = tidemill_producer::Config::new(&broker.endpoint()).unwrap().ca_certificate(ca).unwrap();
    tidemill_producer::Producer::new(config).await.unwrap();
    broker.shutdown().await.unwrap();
}

//! The accept loop before front ends made for the test.

mod hardening;
mod tls;

use super::accept::{Crowd, Listeners, accept};
use super::connection::{Patience, Speaks};
use super::*;
use crate::captured_log::CapturedLog;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const SOON: Duration = Duration::from_secs(20);

/// Larger than what sockets buffer.
const REPLY_BYTES: usize = 64 << 20;

/// Serves `aws` on a port of its own until the token is cancelled.
async fn serving(aws: Router, patience: Patience) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    speaking(Speaks::ClearText, aws, patience).await
}

/// The same, in a given tongue.
async fn speaking(
    speaks: Speaks,
    aws: Router,
    patience: Patience,
) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let settings = BrokerSettings::default();
    let gate = Gate::open(settings.account, settings.region);
    let front = Front { grpc: Router::new(), ops: Router::new(), aws, gate };
    let stopping = CancellationToken::new();
    let door = Door { front, stopping: stopping.clone(), patience };
    let listeners = Listeners::new(vec![(listener, speaks)]);
    (addr, stopping, tokio::spawn(accept(listeners, door, 2)))
}

async fn asked(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    socket
}

struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A few dozen clients that asked and did not read once held all the memory there is for replies, for ever.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_and_its_reply_freed() {
    let budget = Arc::new(Semaphore::new(1));
    let reply = {
        let budget = Arc::clone(&budget);
        move || async move {
            let share = budget.try_acquire_owned().expect("only one asks");
            Body::from(Bytes::from_owner(Held { bytes: vec![7; REPLY_BYTES], _share: share }))
        }
    };
    let aws = Router::new().route("/", get(reply));
    let patience = Patience { stalled: Duration::from_secs(1), ..Patience::default() };
    let (addr, stopping, accepting) = serving(aws, patience).await;
    let mut silent = asked(addr).await;
    silent.read_exact(&mut [0; 15]).await.unwrap();
    assert_eq!(budget.available_permits(), 0, "most of the reply waits");
    let freed = tokio::time::timeout(SOON, budget.acquire()).await;
    assert!(freed.is_ok(), "the reply was freed");
    drop(silent);
    stopping.cancel();
    accepting.await.unwrap();
}

#[tokio::test]
async fn a_request_that_panics_is_told_in_the_log_and_others_are_served() {
    let (log, _guard) = CapturedLog::start();
    async fn broken() -> &'static str {
        if std::hint::black_box(true) {
            panic!("a mistake of the test");
        }
        "never"
    }
    let (addr, stopping, accepting) =
        serving(Router::new().route("/", get(broken)), Patience::default()).await;
    for _ in 0..3 {
        let mut socket = asked(addr).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await.unwrap();
    }
    stopping.cancel();
    accepting.await.unwrap();
    let told = log.lines().into_iter().filter(|line| line.contains("ERROR") && line.contains("broke off"));
    assert_eq!(told.count(), 3, "{:?}", log.lines());
}

#[test]
fn a_crowd_is_told_once_until_it_is_over() {
    let mut crowd = Crowd { slots: 16, is_full: false };
    let free = [5, 1, 0, 0, 1, 0, 1, 0, 2, 1, 0, 16];
    let told: Vec<_> = free.into_iter().filter(|free| crowd.begins(*free)).collect();
    assert_eq!(told.len(), 2);
    let mut single = Crowd { slots: 1, is_full: false };
    assert_eq!([0, 0, 1, 0].map(|free| single.begins(free)), [true, false, false, true]);
}

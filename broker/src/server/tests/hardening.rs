//! Peers that mean no good, or do not care.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `GET http://x/` in indexed header fields, and a literal `:authority`.
const GET_ROOT: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Reads frames until the one asked for; its payload, or none when the connection ends first.
async fn read_until(socket: &mut TcpStream, kind: u8) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut payload).await.ok()?;
        if head[3] == kind {
            return Some(payload);
        }
    }
}

async fn http2(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    socket
}

fn well() -> Router {
    Router::new().route("/", get(|| async { "well met" }))
}

async fn is_well(addr: SocketAddr) -> bool {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.ends_with("well met")
}

/// Calls made and taken back at once cost a client nothing and a server its work (CVE-2023-44487).
#[tokio::test]
async fn a_client_that_takes_back_what_it_asks_is_cut_and_others_are_served() {
    let (addr, stopping, accepting) = serving(well(), Patience::default()).await;
    let mut rude = http2(addr).await;
    let mut burst = Vec::new();
    for call in 0..2000u32 {
        let stream = 2 * call + 1;
        burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_ROOT));
        burst.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    // the server may end the connection before it has taken everything
    let _ = rude.write_all(&burst).await;
    let told = tokio::time::timeout(SOON, read_until(&mut rude, GOAWAY)).await.expect("the client is cut");
    let reason = told.map(|payload| u32::from_be_bytes(payload[4..8].try_into().unwrap()));
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    assert!(is_well(addr).await);
    stopping.cancel();
    accepting.await.unwrap();
}

#[tokio::test]
async fn a_head_that_comes_by_drops_is_given_up() {
    let short = Duration::from_millis(300);
    let patience = Patience {
        idle: short,
        first_request: short,
        ping_every: short,
        ping_timeout: short,
        ..Patience::default()
    };
    let (addr, stopping, accepting) = serving(well(), patience).await;
    let mut slow = TcpStream::connect(addr).await.unwrap();
    let dripping = async {
        slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await?;
        loop {
            slow.write_all(b"a: b\r\n").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended: std::result::Result<std::io::Result<()>, _> = tokio::time::timeout(SOON, dripping).await;
    assert!(ended.expect("the HTTP/1 connection is ended").is_err());
    let mut slow = http2(addr).await;
    let dripping = async {
        // first a request that is whole, so that only the head is slow
        slow.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_ROOT)).await?;
        slow.write_all(&frame(HEADERS, END_STREAM, 3, GET_ROOT)).await?;
        loop {
            slow.write_all(&frame(CONTINUATION, 0, 3, &[0x40, 1, b'a', 1, b'b'])).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended: std::result::Result<std::io::Result<()>, _> = tokio::time::timeout(SOON, dripping).await;
    assert!(ended.expect("the HTTP/2 connection is ended").is_err());
    assert!(is_well(addr).await);
    stopping.cancel();
    accepting.await.unwrap();
}

/// A client that leaves its reply's window shut and answers every ping looks well to the socket. Whoever watches the
/// reply cuts the connection, and the memory comes back.
#[tokio::test]
async fn a_cut_connection_gives_back_the_reply_that_nobody_takes() {
    use axum::Extension;
    let budget = Arc::new(Semaphore::new(1));
    let (cuts, mut cut) = tokio::sync::mpsc::unbounded_channel::<Cut>();
    let reply = {
        let budget = Arc::clone(&budget);
        move |Extension(cut): Extension<Cut>| async move {
            cuts.send(cut).expect("the test waits");
            let share = budget.try_acquire_owned().expect("only one asks");
            Body::from(Bytes::from_owner(Held { bytes: vec![7; REPLY_BYTES], _share: share }))
        }
    };
    let (addr, stopping, accepting) =
        serving(Router::new().route("/", get(reply)), Patience::default()).await;
    let mut silent = http2(addr).await;
    silent.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_ROOT)).await.unwrap();
    assert!(read_until(&mut silent, HEADERS).await.is_some());
    assert_eq!(budget.available_permits(), 0, "the reply waits for a window");
    cut.recv().await.unwrap().now();
    let freed = tokio::time::timeout(SOON, budget.acquire()).await;
    assert!(freed.is_ok(), "the reply was freed");
    assert!(tokio::time::timeout(SOON, read_until(&mut silent, PING)).await.unwrap().is_none(), "it is cut");
    stopping.cancel();
    accepting.await.unwrap();
}

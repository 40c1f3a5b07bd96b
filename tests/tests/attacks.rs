//! A real broker under attacks of one peer, while a bystander puts records: the bystander never fails and is never kept waiting
//! long, the broker's memory stays bounded, and afterwards it is as it was.
//!
//! What each attack does to its own connection is tested beside the server (`broker/src/server/tests`); here is what it costs
//! the others, as figures too.

#![allow(clippy::unwrap_used)] // the whole crate is tests

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::{Broker, Kinesis, tell};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `POST http://x/metrics`, and the same as `GET`, in indexed fields and literals.
const POST: &[u8] = &[0x83, 0x86, 0x04, 8, b'/', b'm', b'e', b't', b'r', b'i', b'c', b's', 0x41, 1, b'x'];
const GET: &[u8] = &[0x82, 0x86, 0x04, 8, b'/', b'm', b'e', b't', b'r', b'i', b'c', b's', 0x41, 1, b'x'];

/// How long each attack goes on.
const ATTACK: Duration = Duration::from_secs(3);
/// No call of the bystander may take longer, on two cores that it shares with attacker and broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// What an attack may make the broker hold: the rooms of connections and replies are larger, none of these may fill them.
const GROWTH_KIB_MAX: u64 = 256 << 10;

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection that has said hello, with these settings.
async fn http2(addr: SocketAddr, settings: &[u8]) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await?;
    Ok(socket)
}

/// What a bystander lives through.
#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    slowest_us: AtomicU64,
}

/// Puts a record every few milliseconds, on one connection.
async fn bystand(mut kinesis: Kinesis, seen: Arc<Seen>, over: Arc<AtomicBool>) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let put = json!({ "StreamName": "s", "Data": "aGVsbG8=", "PartitionKey": "k" });
        let call = tokio::time::timeout(PATIENCE, kinesis.ok("PutRecord", &put));
        call.await.context("the bystander waits too long")??;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap();
        seen.slowest_us.fetch_max(took, Ordering::Relaxed);
        seen.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Runs an attack beside a bystander: `attack` is called again and again by several tasks, each call a connection; how often it was
/// cut off is told.
async fn under<F, A>(name: &str, attackers: usize, attack: F) -> Result<()>
where
    F: Fn(SocketAddr) -> A + Clone + Send + 'static,
    A: Future<Output = std::io::Result<u64>> + Send,
{
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &["--durability", "os"]).await?;
    broker.kinesis().create_stream("s", 1).await?;
    let (seen, over, done) =
        (Arc::<Seen>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let bystander = tokio::spawn(bystand(broker.kinesis(), Arc::clone(&seen), Arc::clone(&over)));
    sleep(Duration::from_millis(500)).await;
    let before = broker.resident_kib()?;
    let alone_us = seen.slowest_us.swap(0, Ordering::Relaxed);
    let cut = Arc::<AtomicU64>::default();
    let tasks: Vec<_> = (0..attackers)
        .map(|_| {
            let (attack, over, addr) = (attack.clone(), Arc::clone(&over), broker.addr());
            let (done, cut) = (Arc::clone(&done), Arc::clone(&cut));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match attack(addr).await {
                        Ok(times) => done.fetch_add(times, Ordering::Relaxed),
                        Err(_) => cut.fetch_add(1, Ordering::Relaxed),
                    };
                    // an attacker who uses up the ports of this machine harms himself
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let mut most = before;
    let until = Instant::now() + ATTACK;
    while Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
        most = most.max(broker.resident_kib()?);
    }
    over.store(true, Ordering::Relaxed);
    bystander.await?.context(name.to_owned())?;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let calls = seen.calls.load(Ordering::Relaxed);
    let (done, cut) = (done.load(Ordering::Relaxed), cut.load(Ordering::Relaxed));
    tell(&format!(
        "{name}: {done} done, cut off {cut} times; a bystander's {calls} puts took up to {:.1} ms (before it {:.1} ms); memory grew \
         by {} MiB",
        seen.slowest_us.load(Ordering::Relaxed) as f64 / 1000.0,
        alone_us as f64 / 1000.0,
        (most - before) >> 10,
    ));
    ensure!(done + cut > 0, "{name}: nothing was done");
    ensure!(calls > 20, "{name}: the bystander put {calls} records");
    ensure!(most - before < GROWTH_KIB_MAX, "{name}: the broker grew by {} KiB", most - before);
    broker.assert_alive().await?;
    broker.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_made_and_taken_back_cost_others_nothing() -> Result<()> {
    under("rapid reset", 4, async |addr| {
        let mut socket = http2(addr, &[]).await?;
        let mut burst = Vec::new();
        for call in 0..2000u32 {
            burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * call + 1, GET));
            burst.extend(frame(RST_STREAM, 0, 2 * call + 1, &8u32.to_be_bytes()));
        }
        socket.write_all(&burst).await?;
        Ok(2000)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_begun_and_never_ended_cost_others_nothing() -> Result<()> {
    under("flood of streams without an end", 8, async |addr| {
        let mut socket = http2(addr, &[]).await?;
        let mut burst = Vec::new();
        for call in 0..2000u32 {
            burst.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, POST));
            burst.extend(frame(DATA, 0, 2 * call + 1, &[b'x'; 100]));
        }
        socket.write_all(&burst).await?;
        sleep(Duration::from_millis(200)).await;
        Ok(2000)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_stay_shut_cost_others_nothing() -> Result<()> {
    under("replies into shut windows", 64, async |addr| {
        // SETTINGS_INITIAL_WINDOW_SIZE of 0: no reply can be sent
        let mut socket = http2(addr, &[0, 4, 0, 0, 0, 0]).await?;
        let calls: Vec<u8> = (0..100u32)
            .flat_map(|call| frame(HEADERS, END_STREAM | END_HEADERS, 2 * call + 1, GET))
            .collect();
        socket.write_all(&calls).await?;
        sleep(ATTACK / 2).await;
        Ok(100)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_ask_for_an_answer_cost_others_nothing() -> Result<()> {
    under("flood of SETTINGS, PING and WINDOW_UPDATE", 4, async |addr| {
        let mut socket = http2(addr, &[]).await?;
        let mut burst = Vec::new();
        for turn in 0..3000u32 {
            // the window is opened and shut: each time the server looks at all of its streams
            let window = if turn % 2 == 0 { [0, 4, 0, 0, 0, 0] } else { [0, 4, 0, 1, 0, 0] };
            burst.extend(frame(SETTINGS, 0, 0, &window));
            burst.extend(frame(PING, 0, 0, &[7; 8]));
            burst.extend(frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()));
        }
        socket.write_all(&burst).await?;
        Ok(9000)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_an_end_cost_others_nothing() -> Result<()> {
    under("heads that go on in CONTINUATION frames", 4, async |addr| {
        let mut socket = http2(addr, &[]).await?;
        socket.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await?;
        let mut piece = Vec::new();
        for _ in 0..200 {
            piece.extend([0x40, 1, b'a', 60]);
            piece.extend([b'b'; 60]);
        }
        for _ in 0..500 {
            socket.write_all(&frame(CONTINUATION, 0, 1, &piece)).await?;
        }
        Ok(500)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_opened_and_left_cost_others_nothing() -> Result<()> {
    under("connections that drip their heads", 400, async |addr| {
        let mut socket = TcpStream::connect(addr).await?;
        socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n").await?;
        for _ in 0..40 {
            socket.write_all(b"a: b\r\n").await?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok(1)
    })
    .await
}

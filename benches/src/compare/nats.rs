//! The load on NATS JetStream, over the bare protocol: publishes with acknowledgements, pull consumers that fetch ahead.
//!
//! Two ways to publish: message by message, each acknowledged by itself and many under way; and atomic batches
//! (`Nats-Batch-*`), each acknowledged as one. A consumer acknowledges nothing, so the server keeps nothing about it.
//!
//! What it does not do: answer pings; the servers are configured to send none in the time of a measurement.

use super::load::{CONNECTIONS, FILL_RECORDS, RECORD_BYTES, STREAMS, together};
use super::peer::Publish;
use super::wire::{Front, Load, Wire};
use crate::limits::raw_disk::noise;
use crate::window::{Meter, Window};
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Messages that are sent in one go, and such lots of one connection that wait for their answers.
const LOT: usize = 64;
const LOTS: usize = 8;
/// Messages of an atomic batch (at most 1,000), and batches of one connection that wait for their answers.
const BATCH: usize = 500;
const BATCHES: usize = 2;
/// Messages of one fetch, and fetches that are under way.
const FETCH: usize = 1000;
const FETCHES: usize = 4;

/// Publishes until the window closes.
pub(super) async fn produce(port: u16, publish: Publish, window: Window) -> Result<Meter> {
    create_streams(port).await?;
    send(port, publish, Meter::new(window), move |_| !window.is_over()).await
}

/// Fills the streams, then reads them from the beginning to the end, again and again.
pub(super) async fn consume(port: u16, window: impl Fn() -> Window) -> Result<Meter> {
    create_streams(port).await?;
    // whole rounds of the streams, so that each holds the same
    let lots = FILL_RECORDS / CONNECTIONS / LOT / STREAMS * STREAMS;
    send(port, Publish::Each, Meter::new(window()), move |sent| sent < lots).await?;
    let held = lots * LOT * CONNECTIONS / STREAMS;
    let window = window();
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        tasks.spawn(async move {
            let (mut client, mut meter) = (Client::connect(port).await?, Meter::new(window));
            for stream in (connection..STREAMS).step_by(CONNECTIONS).cycle() {
                if window.is_over() {
                    break;
                }
                client.read(stream, held, &mut meter).await?;
            }
            Ok(meter)
        });
    }
    together(tasks, window).await
}

async fn create_streams(port: u16) -> Result<()> {
    let mut client = Client::connect(port).await?;
    for stream in 0..STREAMS {
        let config = format!(
            r#"{{"name":"S{stream}","subjects":["records.{stream}"],"storage":"file","retention":"limits","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"discard":"old","allow_atomic":true}}"#
        );
        client.call(&format!("STREAM.CREATE.S{stream}"), &config).await?;
    }
    Ok(())
}

/// Publishes over all connections; `more` is told how many lots or batches a connection has sent.
async fn send(
    port: u16,
    publish: Publish,
    meter: Meter,
    more: impl Fn(usize) -> bool + Copy + Send + 'static,
) -> Result<Meter> {
    let window = meter.window();
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        tasks.spawn(async move {
            let client = Client::connect(port).await?;
            let streams = (0..STREAMS).map(|n| (connection + n) % STREAMS);
            let load = match publish {
                Publish::Each => load(streams.map(|n| client.lot(n)).collect(), LOTS, LOT, LOT),
                Publish::Batches => load(streams.map(|n| client.batch(n)).collect(), BATCHES, 1, BATCH),
            };
            let mut sent = 0;
            let more = move || {
                sent += 1;
                more(sent - 1)
            };
            client.wire.pipeline(load, Meter::new(window), more).await
        });
    }
    together(tasks, window).await
}

fn load(batches: Vec<Bytes>, window: usize, answers: usize, messages: usize) -> Load {
    Load { batches, window, answers, records: messages as u64, bytes: (messages * RECORD_BYTES) as u64 }
}

struct Client {
    wire: Wire,
    /// Where answers come to.
    inbox: String,
}

impl Client {
    async fn connect(port: u16) -> Result<Self> {
        let mut wire = Wire::connect(port, front).await?;
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"rust","version":"0","protocol":1}"#;
        let inbox = format!("_INBOX.{:016x}", rand::random::<u64>());
        wire.requests.write_all(format!("CONNECT {options}\r\nSUB {inbox} 1\r\n").as_bytes()).await?;
        Ok(Self { wire, inbox })
    }

    /// Calls an operation of JetStream.
    async fn call(&mut self, operation: &str, body: &str) -> Result<()> {
        let request = self.request(operation, body);
        let answer = self.wire.ask(request.as_bytes()).await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(!text.contains("\"error\""), "{operation}: {text}");
        Ok(())
    }

    fn request(&self, operation: &str, body: &str) -> String {
        format!("PUB $JS.API.{operation} {} {}\r\n{body}\r\n", self.inbox, body.len())
    }

    /// Messages for one stream, each to be acknowledged.
    fn lot(&self, stream: usize) -> Bytes {
        let mut lot = Vec::with_capacity(LOT * (RECORD_BYTES + 64));
        for _ in 0..LOT {
            let head = format!("PUB records.{stream} {} {RECORD_BYTES}\r\n", self.inbox);
            lot.extend_from_slice(head.as_bytes());
            lot.extend_from_slice(&noise(RECORD_BYTES));
            lot.extend_from_slice(b"\r\n");
        }
        lot.into()
    }

    /// An atomic batch for one stream. Its id is free again as soon as the batch is committed, so it can be sent again.
    fn batch(&self, stream: usize) -> Bytes {
        let id = format!("{:016x}", rand::random::<u64>());
        let mut batch = Vec::with_capacity(BATCH * (RECORD_BYTES + 128));
        for number in 1..=BATCH {
            let (commit, inbox) = match number {
                BATCH => ("Nats-Batch-Commit: 1\r\n", format!(" {}", self.inbox)),
                _ => ("", String::new()),
            };
            let headers =
                format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {number}\r\n{commit}\r\n");
            let bytes = headers.len();
            let head = format!("HPUB records.{stream}{inbox} {bytes} {}\r\n", bytes + RECORD_BYTES);
            batch.extend_from_slice(head.as_bytes());
            batch.extend_from_slice(headers.as_bytes());
            batch.extend_from_slice(&noise(RECORD_BYTES));
            batch.extend_from_slice(b"\r\n");
        }
        batch.into()
    }

    /// Reads a stream that holds so many messages to its end, or until the window closes.
    async fn read(&mut self, stream: usize, held: usize, meter: &mut Meter) -> Result<()> {
        let name = format!("c{:016x}", rand::random::<u64>());
        let config = format!(
            r#"{{"stream_name":"S{stream}","config":{{"name":"{name}","deliver_policy":"all","ack_policy":"none","replay_policy":"instant","mem_storage":true,"max_waiting":512}}}}"#
        );
        self.call(&format!("CONSUMER.CREATE.S{stream}.{name}"), &config).await?;
        let mut left = held;
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < FETCHES && left > 0 && !meter.window().is_over() {
                let messages = left.min(FETCH);
                let fetch = self.request(
                    &format!("CONSUMER.MSG.NEXT.S{stream}.{name}"),
                    &format!(r#"{{"batch":{messages}}}"#),
                );
                self.wire.requests.write_all(fetch.as_bytes()).await?;
                under_way.push_back((Instant::now(), messages));
                left -= messages;
            }
            let Some((began, messages)) = under_way.pop_front() else { break };
            for _ in 0..messages {
                self.wire.answers.next().await?;
            }
            meter.done(began, messages as u64, (messages * RECORD_BYTES) as u64);
        }
        self.call(&format!("CONSUMER.DELETE.S{stream}.{name}"), "").await
    }
}

/// `MSG subject sid [reply-to] bytes`, then the payload; everything else is of one line.
fn front(bytes: &[u8]) -> Result<Front> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1) else {
        return Ok(Front::Incomplete);
    };
    let line = String::from_utf8_lossy(&bytes[..end]);
    let line = line.trim_end();
    if line.starts_with("-ERR") {
        bail!("nats says {line}");
    }
    let is_message = line.starts_with("MSG ");
    if !is_message && !line.starts_with("HMSG ") {
        return Ok(Front::Other(end));
    }
    let payload: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
    let all = end + payload + 2;
    if bytes.len() < all {
        return Ok(Front::Incomplete);
    }
    let payload = &bytes[end..all];
    // what carries headers here are refusals: no responder, no message
    if !is_message || payload.starts_with(b"{\"error\"") {
        bail!("nats says {}", String::from_utf8_lossy(payload).trim());
    }
    Ok(Front::Answer(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_what_is_said_beside_them() {
        let message = b"MSG _INBOX.a 1 2\r\nhi\r\nPING\r\n";
        assert!(matches!(front(message).unwrap(), Front::Answer(22)));
        assert!(matches!(front(&message[..21]).unwrap(), Front::Incomplete));
        assert!(matches!(front(b"MSG records.0 1 $JS.ACK.x 2\r\nhi\r\n").unwrap(), Front::Answer(33)));
        assert!(matches!(front(b"PING\r\n").unwrap(), Front::Other(6)));
        assert!(front(b"-ERR 'Slow Consumer'\r\n").is_err());
        assert!(front(b"MSG a 1 12\r\n{\"error\":{}}\r\n").is_err());
        assert!(front(b"HMSG a 1 30 30\r\nNATS/1.0 503 No Responders\r\n\r\n\r\n").is_err());
    }
}

//! A connection to a server whose answers are told apart by a function: what the clients of Redis and NATS share.
//!
//! ```text
//!  batches, made before the clock starts ─► at most WINDOW of them unanswered ─► answers, counted in order ─► meter
//! ```
//!
//! What it does not do: match answers to what they answer. Both servers answer a connection in order, NATS within a stream
//! only; so a latency may be that of a neighbour, the throughput is exact.

use crate::window::Meter;
use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// An answer that does not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 1 << 20;

/// What stands at the front of what a server has sent.
pub(super) enum Front {
    /// Not all of it is there yet.
    Incomplete,
    /// An answer of so many bytes.
    Answer(usize),
    /// So many bytes that answer nothing.
    Other(usize),
}

/// Tells what stands at the front; an error when the server refuses something.
pub(super) type Parse = fn(&[u8]) -> Result<Front>;

/// What of a server's is read, answer by answer.
pub(super) struct Answers {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    parse: Parse,
}

impl Answers {
    pub(super) async fn next(&mut self) -> Result<Bytes> {
        loop {
            match (self.parse)(&self.buffer)? {
                Front::Answer(bytes) => return Ok(self.buffer.split_to(bytes).freeze()),
                Front::Other(bytes) => drop(self.buffer.split_to(bytes)),
                Front::Incomplete => {
                    self.buffer.reserve(READ_BYTES);
                    let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
                    let read = read.await.context("the server answers nothing any more")??;
                    ensure!(read > 0, "the server closed the connection");
                }
            }
        }
    }
}

/// A connection.
pub(super) struct Wire {
    pub(super) requests: OwnedWriteHalf,
    pub(super) answers: Answers,
}

impl Wire {
    pub(super) async fn connect(port: u16, parse: Parse) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (stream, requests) = stream.into_split();
        Ok(Self { requests, answers: Answers { stream, buffer: BytesMut::new(), parse } })
    }

    /// Sends something that has one answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Bytes> {
        self.requests.write_all(request).await?;
        self.answers.next().await
    }

    /// Sends batches, one after the other and from the first again, while `more` says so.
    pub(super) async fn pipeline(
        self,
        load: Load,
        mut meter: Meter,
        mut more: impl FnMut() -> bool,
    ) -> Result<Meter> {
        let Self { mut requests, mut answers } = self;
        let (sent, mut under_way) = mpsc::channel::<Instant>(load.window);
        let counting = tokio::spawn(async move {
            while let Some(began) = under_way.recv().await {
                for _ in 0..load.answers {
                    answers.next().await?;
                }
                meter.done(began, load.records, load.bytes);
            }
            Ok(meter)
        });
        for batch in load.batches.iter().cycle() {
            // whoever counts says why it stopped
            if !more() || sent.send(Instant::now()).await.is_err() {
                break;
            }
            requests.write_all(batch).await?;
        }
        drop(sent);
        counting.await.context("counting the answers broke off")?
    }
}

/// What a connection sends.
pub(super) struct Load {
    pub(super) batches: Vec<Bytes>,
    /// Batches that wait for their answers, at most one more.
    pub(super) window: usize,
    /// Of one batch.
    pub(super) answers: usize,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

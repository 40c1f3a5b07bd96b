//! The load on Redis Streams: `XADD` in pipelines, `XRANGE` in pages, over the bare protocol (RESP 2).
//!
//! Pipelines are what suits Redis best: one fsync serves all that arrived in a round of its loop.

use super::load::{CONNECTIONS, FILL_RECORDS, RECORD_BYTES, STREAMS, together};
use super::wire::{Answers, Front, Load, Wire};
use crate::limits::raw_disk::noise;
use crate::window::{Meter, Window};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use std::io::Write;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Records of one pipeline, and pipelines of one connection that wait for their answers.
const PIPELINE: usize = 64;
const WINDOW: usize = 8;
/// Records of a page.
const PAGE: usize = 1000;

/// Adds records until the window closes.
pub(super) async fn produce(port: u16, window: Window) -> Result<Meter> {
    add(port, Meter::new(window), move |_| !window.is_over()).await
}

/// Fills the streams, then reads them from the beginning to the end, again and again.
pub(super) async fn consume(port: u16, window: impl Fn() -> Window) -> Result<Meter> {
    let each = FILL_RECORDS / CONNECTIONS / PIPELINE;
    add(port, Meter::new(window()), move |sent| sent < each).await?;
    let window = window();
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        tasks.spawn(async move {
            let mut wire = Wire::connect(port, front_of_page).await?;
            let mut meter = Meter::new(window);
            for stream in (connection..STREAMS).step_by(CONNECTIONS).cycle() {
                if window.is_over() {
                    break;
                }
                read(&mut wire, stream, &mut meter).await?;
            }
            Ok(meter)
        });
    }
    together(tasks, window).await
}

/// Adds from all connections; `more` is told how many pipelines a connection has sent.
async fn add(port: u16, meter: Meter, more: impl Fn(usize) -> bool + Copy + Send + 'static) -> Result<Meter> {
    let window = meter.window();
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let load = Load {
            batches: (0..STREAMS).map(|n| adds((connection + n) % STREAMS)).collect(),
            window: WINDOW,
            answers: PIPELINE,
            records: PIPELINE as u64,
            bytes: (PIPELINE * RECORD_BYTES) as u64,
        };
        tasks.spawn(async move {
            let mut sent = 0;
            let more = move || {
                sent += 1;
                more(sent - 1)
            };
            Wire::connect(port, front).await?.pipeline(load, Meter::new(window), more).await
        });
    }
    together(tasks, window).await
}

/// A pipeline of records for one stream.
fn adds(stream: usize) -> Bytes {
    let mut pipeline = Vec::with_capacity(PIPELINE * (RECORD_BYTES + 64));
    for _ in 0..PIPELINE {
        let name = stream_name(stream);
        let head = format!("*5\r\n$4\r\nXADD\r\n${}\r\n{name}\r\n$1\r\n*\r\n$1\r\nd\r\n", name.len());
        pipeline.extend_from_slice(head.as_bytes());
        pipeline.extend_from_slice(format!("${RECORD_BYTES}\r\n").as_bytes());
        pipeline.extend_from_slice(&noise(RECORD_BYTES));
        pipeline.extend_from_slice(b"\r\n");
    }
    pipeline.into()
}

fn stream_name(stream: usize) -> String {
    format!("stream-{stream}")
}

/// Reads a stream to its end, or until the window closes.
async fn read(wire: &mut Wire, stream: usize, meter: &mut Meter) -> Result<()> {
    let (name, count, mut from) = (stream_name(stream), PAGE.to_string(), b"-".to_vec());
    while !meter.window().is_over() {
        let began = Instant::now();
        let mut request = Vec::new();
        request.extend_from_slice(b"*6\r\n");
        for word in [b"XRANGE", name.as_bytes(), &from, b"+", b"COUNT", count.as_bytes()] {
            write!(request, "${}\r\n", word.len())?;
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        wire.requests.write_all(&request).await?;
        let (records, last) = page(&mut wire.answers).await?;
        meter.done(began, records as u64, (records * RECORD_BYTES) as u64);
        if records < PAGE {
            return Ok(());
        }
        from = [b"(", last.as_slice()].concat();
    }
    Ok(())
}

/// The number of records of a page, and the id of the last.
async fn page(answers: &mut Answers) -> Result<(usize, Vec<u8>)> {
    let head = answers.next().await?;
    let records = usize::try_from(number(&head)?)?;
    let mut last = Bytes::new();
    for _ in 0..records {
        last = answers.next().await?;
    }
    let id = match records {
        0 => Vec::new(),
        _ => last.split(|byte| *byte == b'\n').nth(2).context("a record has an id")?.trim_ascii().to_vec(),
    };
    Ok((records, id))
}

/// The number of the line at the front, behind its kind.
fn number(bytes: &[u8]) -> Result<i64> {
    let line = bytes.get(1..).and_then(|rest| rest.split(|byte| *byte == b'\r').next());
    let text = std::str::from_utf8(line.context("an empty line")?)?;
    text.parse().with_context(|| format!("not a number: {text:?}"))
}

fn front(bytes: &[u8]) -> Result<Front> {
    Ok(value_bytes(bytes)?.map_or(Front::Incomplete, Front::Answer))
}

/// A page in parts: its head, then record by record, so that half a page is not looked through again and again.
fn front_of_page(bytes: &[u8]) -> Result<Front> {
    let Some(end) = line_end(bytes) else { return Ok(Front::Incomplete) };
    match (bytes[0], bytes.get(end)) {
        (b'*', _) if number(bytes)? == 0 => Ok(Front::Answer(end)),
        (b'*', None) => Ok(Front::Incomplete),
        (b'*', Some(b'*')) => Ok(Front::Answer(end)),
        _ => front(bytes),
    }
}

/// Where the line at the front ends, its end included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

/// Bytes of the value at the front, once all of it is there.
fn value_bytes(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(mut end) = line_end(bytes) else { return Ok(None) };
    match bytes[0] {
        b'+' | b':' => Ok(Some(end)),
        b'-' => bail!("redis says {}", String::from_utf8_lossy(&bytes[1..end]).trim()),
        b'$' => {
            // an absent one has a length of -1, and neither data nor a line's end
            end += usize::try_from(number(bytes)?).map_or(0, |length| length + 2);
            Ok((end <= bytes.len()).then_some(end))
        }
        b'*' => {
            for _ in 0..number(bytes)? {
                match value_bytes(&bytes[end..])? {
                    Some(length) => end += length,
                    None => return Ok(None),
                }
            }
            Ok(Some(end))
        }
        other => {
            ensure!(other.is_ascii_graphic(), "redis sends something else");
            bail!("redis sends a value of an unknown kind {:?}", char::from(other))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_OF_TWO: &[u8] =
        b"*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$2\r\nab\r\n*2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nd\r\n$2\r\ncd\r\n";

    #[test]
    fn a_value_is_known_once_its_last_byte_is_there() {
        assert_eq!(value_bytes(PAGE_OF_TWO).unwrap(), Some(PAGE_OF_TWO.len()));
        for end in 0..PAGE_OF_TWO.len() {
            assert_eq!(value_bytes(&PAGE_OF_TWO[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(value_bytes(b"$-1\r\n$1\r\na\r\n").unwrap(), Some(5));
        assert!(value_bytes(b"-ERR no\r\n").is_err());
    }

    #[test]
    fn a_page_comes_as_its_head_and_its_records() {
        let mut rest = PAGE_OF_TWO;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let Front::Answer(bytes) = front_of_page(rest).unwrap() else { panic!("all of it is there") };
            parts.push(bytes);
            rest = &rest[bytes..];
        }
        assert_eq!(parts, [4, 32, 32]);
        assert!(matches!(front_of_page(b"*0\r\n").unwrap(), Front::Answer(4)));
        assert!(matches!(front_of_page(b"*7\r\n").unwrap(), Front::Incomplete));
    }
}

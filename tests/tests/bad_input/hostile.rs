//! What somebody sends who means harm: bodies that unfold, names that look like paths, texts that look like lines of a log.

use crate::fixture::{Fixture, JSON, assert_exception};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;

/// `gzip` of a thousand million zeros would be a megabyte; nothing is ever unfolded, so a small one tells.
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV\x0a.)J\xcd\xcdu\xcb\xccI\xf5K\xccMU\xb2R*V\xaa\x05\x00";

#[tokio::test]
async fn compressed_bodies_are_refused_unopened() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip"] {
        let headers = [
            ("content-type", JSON),
            ("x-amz-target", "Kinesis_20131202.DescribeStreamSummary"),
            ("content-encoding", encoding),
        ];
        let reply = fixture.connection.request("POST", "/", &headers, GZIP).await?;
        assert_exception(&reply, "SerializationException", encoding);
        fixture.assert_usable(encoding).await?;
    }
    fixture.assert_nothing_written().await
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(names(&entry.path())?);
        }
        found.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(found)
}

/// Whether the broker gives such names of itself: numbers, and words of its own.
fn is_ours(name: &str) -> bool {
    const WORDS: [&str; 4] = ["lock", "metadata.redb", "checkpoint", "segments"];
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let between = |before: &str, after: &str| name.strip_prefix(before)?.strip_suffix(after);
    let segment = between("", ".segment").or(between("", ".index")).and_then(|stem| stem.split_once('-'));
    WORDS.contains(&name)
        || between("journal-", ".log").is_some_and(hex)
        || between("pool-", ".recycled").is_some_and(hex)
        || segment
            .is_some_and(|(log, number)| log.len() == 16 && number.len() == 8 && hex(log) && hex(number))
}

#[test]
fn names_of_others_are_not_taken_for_ours() {
    for name in ["-rf", "...", "..", "x", "passwd", "b", "a-b.segment", "journal-.log", "~", "%2e%2e%2f"] {
        assert!(!is_ours(name), "{name}");
    }
}

#[tokio::test]
async fn names_that_look_like_paths_make_no_files() -> Result<()> {
    let fixture = Fixture::new().await?;
    let mut kinesis = fixture.broker.kinesis();
    // beside the directory others are at work, and may have such files
    let beside = fixture.broker.dir().parent().context("a home")?.to_owned();
    let is_there = |name: &&str| beside.join(name).exists();
    let others: Vec<_> = ["x", "passwd", "b"].into_iter().filter(is_there).collect();
    let hostile =
        ["..", ".", "...", "../../x", "/etc/passwd", "a/../b", "a\\b", "a\u{0}b", "%2e%2e%2f", "~", "-rf"];
    for name in hostile {
        // some are good names of streams; then a stream it is, and nothing else
        let create = json!({ "StreamName": name, "ShardCount": 1 }).to_string();
        let reply = kinesis.call("CreateStream", create.as_bytes()).await?;
        let allowed = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        ensure!(
            reply.status == if allowed { 200 } else { 400 },
            "{name:?}: {} {}",
            reply.status,
            reply.text()
        );
        if allowed {
            let put = json!({ "StreamName": name, "Data": "aGVsbG8=", "PartitionKey": name });
            kinesis.ok("PutRecord", &put).await?;
        }
        let put = json!({ "StreamName": "s", "Data": "aGVsbG8=", "PartitionKey": name });
        kinesis
            .ok("PutRecord", &put)
            .await
            .with_context(|| format!("any text is a partition key: {name:?}"))?;
    }
    for name in names(fixture.broker.dir())? {
        ensure!(is_ours(&name), "a file has the name {name:?}");
    }
    for name in ["x", "passwd", "b"].into_iter().filter(is_there) {
        ensure!(others.contains(&name), "{name} was made beside the data directory");
    }
    Ok(())
}

/// Each line of the log begins with a time and a level; a sender who could begin one could tell lies about others. So nothing that
/// callers send is logged, at any level, but names that were found to be good ones.
#[tokio::test]
async fn what_callers_send_cannot_forge_a_line_of_the_log() -> Result<()> {
    const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR tidemill: all is lost";
    // everything that any library has to say is in such a log, also what peers sent
    let mut fixture = Fixture::logging("trace").await?;
    let hostile = format!("x\r\n{FORGED}\n\u{1b}[31m{FORGED}\u{2028}{FORGED}");
    for (operation, input) in [
        ("CreateStream", json!({ "StreamName": hostile, "ShardCount": 1 })),
        (
            "DescribeStream",
            json!({ "StreamARN": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{hostile}") }),
        ),
        ("PutRecord", json!({ "StreamName": hostile, "Data": hostile, "PartitionKey": hostile })),
        ("GetRecords", json!({ "ShardIterator": hostile })),
        ("GetShardIterator", json!({ "StreamName": "s", "ShardId": hostile, "ShardIteratorType": hostile })),
        ("AddTagsToStream", json!({ "StreamName": "s", "Tags": { hostile.clone(): hostile } })),
        ("PutResourcePolicy", json!({ "ResourceARN": hostile, "Policy": hostile })),
    ] {
        fixture.call(operation, input.to_string().as_bytes()).await?;
    }
    // what may stand in a header, and what may not
    let _ = fixture.connection.request("POST", "/\u{1b}[31m", &[("user-agent", "\u{1b}[31mx")], b"{}").await;
    for text in [format!("POST /{hostile} HTTP/1.1\r\n\r\n"), hostile] {
        let mut connection = fixture.broker.connect().await?;
        connection.send(text.as_bytes()).await?;
        let _ = connection.reply().await; // an error, or the end
    }
    let told = fixture.broker.stderr();
    ensure!(told.matches("kinesis request").count() >= 7, "the calls are not in this log: it proves nothing");
    ensure!(!told.contains("all is lost"), "what a caller sent is in the log: {told}");
    for line in told.lines() {
        ensure!(!line.chars().any(char::is_control), "a control character reached the log: {line:?}");
        let is_dated = line.get(..11).is_some_and(|date| date.starts_with("20") && date.ends_with('T'));
        ensure!(is_dated, "a line that the broker did not begin: {line:?}");
    }
    Ok(())
}

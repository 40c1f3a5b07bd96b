//! The comparison as a page, for people.

use super::load::{CONNECTIONS, FILL_RECORDS, RECORD_BYTES, STREAMS, WARMUP};
use super::peer::{Measure, PEERS, Peer};
use super::{Args, Comparison, goal};
use crate::figure::Series;
use crate::report::markdown;
use anyhow::Result;
use std::fmt::Write;

pub(super) fn text(
    args: &Args,
    facts: &[(&str, String)],
    comparison: &Comparison,
    all: &[Series],
) -> Result<String> {
    let mut page = String::from("# Tidemill beside its peers\n\n");
    writeln!(
        page,
        "Written by `cargo run --release -p tidemill-benches -- compare`: medians of {} interleaved repetitions of {} s each \
         behind {} s of warm-up; ± is the distance of the extremes over the median. Records of {RECORD_BYTES} bytes, {STREAMS} \
         shards, or streams where there are no shards. A megabyte is 10^6 bytes of record data. One server at a time, on a \
         fresh directory on the disk; load and server share the machine, as separate processes. Latencies are those of a full \
         queue: of a request on the Kinesis API, of a record of the producer library, of what is sent in one go elsewhere.\n",
        args.rounds.repetitions,
        args.rounds.seconds,
        WARMUP.as_secs(),
    )?;
    if args.directory.warm_memory {
        page.push_str("The page cache was full before each measurement (`--warm-memory`).\n\n");
    }
    for (name, value) in facts {
        writeln!(page, "- {name}: {value}")?;
    }
    page.push_str(&how());
    writeln!(page, "\n## Figures\n\n{}", figures(comparison, all))?;
    writeln!(page, "## Ratios\n\nTidemill with every acknowledgement on the device, over each peer.\n")?;
    writeln!(page, "{}", markdown(&goal::ratios(all)))?;
    writeln!(page, "## Versions\n")?;
    for (name, version) in &comparison.versions {
        writeln!(page, "- {name}: {version}")?;
    }
    Ok(page)
}

/// What is measured, in words.
fn how() -> String {
    format!(
        "\n## How\n\n\
         - **produce**, {CONNECTIONS} connections. Tidemill: the producer library with its defaults. Redis: `XADD` in pipelines \
         of 64, 8 of them under way per connection; no snapshots, no rewriting of the log. NATS: JetStream file storage, 512 \
         publishes under way per connection, or as `batches`: atomic batches of 500, 2 under way.\n\
         - **consume**: {FILL_RECORDS} records, read from the first to the last again and again over {CONNECTIONS} connections. \
         Tidemill: its read call. Redis: `XRANGE` of 1,000. NATS: pull consumers without acknowledgement, 4 fetches of 1,000 \
         under way.\n\
         - **PutRecords** (500 records, 8 connections), **PutRecord** (32 connections), **GetRecords** (8 connections; the \
         stream from the first record to the last again and again): HTTP/1.1 and JSON, one request under way per connection, \
         every request signed. Tidemill verifies the signatures; the others do not.\n"
    )
}

fn figures(comparison: &Comparison, all: &[Series]) -> String {
    let head = ["measured", "of: acknowledged is", "records/s", "MB/s", "± %", "p50 ms", "p99 ms", "errors"];
    let mut rows = vec![head.map(str::to_owned)];
    for measure in Measure::ALL {
        for peer in PEERS.iter().filter(|peer| peer.measures.contains(&measure)) {
            let series = all.iter().find(|s| s.workload == measure.name() && s.target == peer.name);
            if let Some(series) = series {
                rows.push(row(measure, peer, series));
            }
        }
    }
    let mut text = markdown(&rows);
    if !comparison.failures.is_empty() {
        text.push('\n');
    }
    for failure in &comparison.failures {
        let measure = failure.measure.map_or("everything", Measure::name);
        // a String takes all that is written to it
        let _ = writeln!(text, "- {measure} of {}: {}", failure.peer, failure.reason);
    }
    text
}

fn row(measure: Measure, peer: &Peer, series: &Series) -> [String; 8] {
    [
        measure.name().to_owned(),
        format!("{}: {}", peer.name, peer.durability),
        format!("{:.0}", series.median(|run| run.records_per_s)),
        format!("{:.1}", series.median(|run| run.mb_per_s)),
        format!("{:.0}", series.spread_percent()),
        format!("{:.3}", series.median(|run| run.p50_ms)),
        format!("{:.3}", series.median(|run| run.p99_ms)),
        series.errors().to_string(),
    ]
}

//! `tidemill verify`: a data directory that no broker has, against its checksums, without changing a byte.

use super::output;
use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use tidemill_engine::{Finding, Owners, Severity, Verification, verify};

/// Check every byte of a data directory that no broker is using
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory; it is only read
    data_dir: PathBuf,
    /// Print a line of JSON for each finding and one for the whole
    #[arg(long)]
    json: bool,
}

/// A finding, as it is told.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    file: &'a str,
    offset: u64,
    severity: &'static str,
    stream: Option<String>,
    shard: Option<String>,
    first_index: Option<u64>,
    last_index: Option<u64>,
    what: &'a str,
    /// Whether `tidemill repair` can make the rest usable again.
    can_be_mended: bool,
}

#[derive(Serialize)]
struct Whole {
    files: u64,
    bytes: u64,
    streams: usize,
    shards: usize,
    frames: u64,
    records: u64,
    findings: usize,
    damaged: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args { data_dir, json } = args;
    let named = data_dir.display().to_string();
    let checked = check(data_dir, json).await?;
    tell(&checked, json)?;
    if checked.is_damaged() {
        return Err(Error::failed(format!("{named} is damaged")));
    }
    Ok(())
}

/// Reads everything, with a bar for people.
pub(super) async fn check(data_dir: PathBuf, json: bool) -> Result<Verification> {
    let named = data_dir.display().to_string();
    let checked = tokio::task::spawn_blocking(move || {
        let bar = bar(json);
        let checked = verify(&data_dir, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        checked
    });
    let checked = checked.await.map_err(|e| Error::because("the check broke off", e))?;
    checked.map_err(|e| Error::because(&named, e))
}

pub(super) fn bar(json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {elapsed} left {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

/// Prints every finding, and a summary.
pub(super) fn tell(checked: &Verification, json: bool) -> Result<()> {
    let metadata = checked.metadata.as_ref().map(|(file, what)| Line {
        file,
        offset: 0,
        severity: name(Severity::Damage),
        stream: None,
        shard: None,
        first_index: None,
        last_index: None,
        what,
        can_be_mended: false,
    });
    let findings = checked.records.findings.iter().map(|finding| line(&checked.owners, finding));
    let mut count = 0;
    for line in metadata.into_iter().chain(findings) {
        count += 1;
        tell_line(&line, json)?;
    }
    let report = &checked.records;
    let whole = Whole {
        files: report.files,
        bytes: report.bytes,
        streams: checked.streams,
        shards: checked.owners.shard_count(),
        frames: report.frames,
        records: report.records,
        findings: count,
        damaged: checked.is_damaged(),
    };
    if json {
        return output::json(&whole);
    }
    let Whole { files, bytes, streams, shards, frames, records, findings, .. } = whole;
    output::line(&format!(
        "{files} files, {bytes} bytes: {streams} streams, {shards} shards, {records} records in {frames} intact frames; {findings} findings"
    ))
}

/// The finding with the names of stream and shard.
pub(super) fn line<'a>(owners: &Owners, finding: &'a Finding) -> Line<'a> {
    let owner = finding.log.and_then(|log| owners.of(log));
    Line {
        file: &finding.file,
        offset: finding.offset,
        severity: name(finding.severity),
        stream: owner.map(|(stream, _)| stream.to_string()),
        shard: owner.map(|(_, shard)| shard.to_string()),
        first_index: finding.records.map(|(first, _)| first.get()),
        last_index: finding.records.map(|(_, last)| last.get()),
        what: &finding.what,
        can_be_mended: finding.can_be_mended(),
    }
}

/// Prints a finding.
pub(super) fn tell_line(line: &Line<'_>, json: bool) -> Result<()> {
    if json { output::json(line) } else { output::line(&people(line)) }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Aid => "aid",
    }
}

fn people(line: &Line<'_>) -> String {
    let Line { file, offset, severity, what, .. } = line;
    let mut text = format!("{severity}: {file} at {offset}: {what}");
    if let (Some(stream), Some(shard)) = (&line.stream, &line.shard) {
        text.push_str(&format!("; {shard} of stream {stream}"));
    }
    if let (Some(first), Some(last)) = (line.first_index, line.last_index) {
        text.push_str(&format!("; records {first} to {last} of its log cannot be read"));
    }
    text
}

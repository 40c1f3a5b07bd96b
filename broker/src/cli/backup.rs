//! `tidemill backup`: a running broker's data as it is at one moment, into a folder; again into the same one it copies what is new.
//! `tidemill restore`: a data directory from it.

use super::{Connection, output};
use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tidemill_engine::{Copied, Held, HeldBackup, LogId, Part, Receiving, Row, restore};
use tidemill_proto::v1;
use tidemill_proto::v1::backup_part::Part as Wire;
use tokio::sync::mpsc;

/// Parts on their way to the disk: of a MiB each.
const WAITING_MAX: usize = 4;

/// Copy everything that a running broker holds, as it is at one moment, into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder: new, empty, or with an earlier backup of the same broker, of which what has not changed is kept
    dest: PathBuf,
    #[command(flatten)]
    connection: Connection,
    /// Print a line of JSON
    #[arg(long)]
    json: bool,
}

/// Make a data directory from a backup
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The folder with the backup; it is only read
    backup: PathBuf,
    /// The data directory to be made: new or empty
    data_dir: PathBuf,
    /// Print a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    segments: usize,
    bytes_copied: u64,
}

fn tell(copied: Copied, json: bool, what: &str) -> Result<()> {
    let Copied { segments, bytes } = copied;
    if json {
        return output::json(&Line { segments, bytes_copied: bytes });
    }
    output::line(&format!("{what}: {segments} segments, {bytes} bytes copied"))
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args { dest, connection, json } = args;
    let mut client = connection.channel().await?.admin();
    let (receiving, held) = blocking(move || Receiving::open(&dest).map_err(|e| failed(&e))).await?;
    let asked = client.backup(request(&held)).await;
    let mut answers = asked.map_err(|e| Error::from(tidemill_proto::Error::from(e)))?.into_inner();
    let (parts, waiting) = mpsc::channel(WAITING_MAX);
    let laying = tokio::task::spawn_blocking(move || lay_down(&receiving, waiting, json));
    loop {
        let part = answers.message().await.map_err(|e| Error::from(tidemill_proto::Error::from(e)));
        let part = match part? {
            Some(part) => Some(part.part.ok_or_else(|| Error::failed("the broker sent an empty part"))?),
            None => None,
        };
        let is_end = part.is_none();
        // who takes them has failed: it says why
        if parts.send(part).await.is_err() || is_end {
            break;
        }
    }
    drop(parts);
    let copied = laying.await.map_err(|e| Error::because("the backup broke off", e))??;
    tell(copied, json, "backup")
}

fn request(held: &HeldBackup) -> v1::BackupRequest {
    let to_wire = |held: &Held| v1::HeldSegment {
        log: held.log.get(),
        number: held.number,
        base: held.base.get(),
        capacity: held.capacity,
        end: held.end,
        next: held.next.get(),
    };
    v1::BackupRequest { lineage: held.lineage, held: held.segments.iter().map(to_wire).collect() }
}

/// Takes parts until the end, which is told by none; without it the backup is not whole, and the one before stands.
fn lay_down(receiving: &Receiving, mut parts: mpsc::Receiver<Option<Wire>>, json: bool) -> Result<Copied> {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::with_draw_target(None, target).with_style(style);
    let mut segments = receiving.receiver();
    let (mut rows, mut checkpoint): (Vec<Row>, Vec<u8>) = (Vec::new(), Vec::new());
    while let Some(part) = parts.blocking_recv() {
        match part {
            Some(Wire::Rows(more)) => rows.extend(more.rows.into_iter().map(|row| (row.key, row.value))),
            Some(Wire::Segment(v1::SegmentPart { log, number, capacity, offset, bytes })) => {
                let part = Part { log: LogId::new(log), number, capacity, offset, bytes };
                segments.take(&part).map_err(|e| Error::because("cannot write the backup", e))?;
                bar.set_position(segments.bytes());
            }
            Some(Wire::Checkpoint(bytes)) => checkpoint.extend_from_slice(&bytes),
            None if checkpoint.is_empty() => break,
            None => {
                bar.finish_and_clear();
                return receiving.finish(segments, rows, &checkpoint).map_err(|e| failed(&e));
            }
        }
    }
    Err(Error::failed("the backup ended before it was whole; what was there before still stands"))
}

fn failed(error: &tidemill_engine::Error) -> Error {
    Error::failed(error.to_string())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::because("it broke off", e))?
}

pub(super) async fn run_restore(args: RestoreArgs) -> Result<()> {
    let RestoreArgs { backup, data_dir, json } = args;
    let work = move |from: &Path, to: &Path| {
        let bar = super::verify::bar(json);
        let copied = restore(from, to, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        copied.map_err(|e| failed(&e))
    };
    let copied = blocking(move || work(&backup, &data_dir)).await?;
    tell(copied, json, "restored")
}

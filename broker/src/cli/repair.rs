//! `tidemill repair`: gives up what is damaged for good, so that the rest of a data directory can be used again.
//!
//! Without `--yes` it tells what that would cost, and changes nothing.

use super::{output, verify};
use crate::error::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tidemill_engine::{Finding, Owners, Repair, repair};
use tidemill_types::{Clock, SystemClock};

/// Give up the records that damage has hit, so that the rest of a data directory can be used again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory, which no broker may be using; better a copy of it is kept
    data_dir: PathBuf,
    /// Do it: without this word the damage is told, and nothing is changed
    #[arg(long)]
    yes: bool,
    /// Print a line of JSON for each thing that was mended or left, and one for the whole
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Done<'a> {
    mended: bool,
    #[serde(flatten)]
    finding: verify::Line<'a>,
}

#[derive(Serialize)]
struct Whole {
    mended: usize,
    left: usize,
    /// The least that it can be, where how many records lay there is not known.
    records_lost: u64,
    quarantine: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args { data_dir, yes, json } = args;
    if !yes {
        return plan(&data_dir, json).await;
    }
    let named = data_dir.display().to_string();
    let repaired = tokio::task::spawn_blocking(move || {
        let bar = verify::bar(json);
        let repaired = repair(&data_dir, SystemClock::new().now(), &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        repaired
    });
    let repaired = repaired.await.map_err(|e| Error::because("the repair broke off", e))?;
    let repaired = repaired.map_err(|e| Error::because(&named, e))?;
    tell(&repaired, json)?;
    if repaired.files.left.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("{named} is still damaged: what is left needs a backup")))
}

/// Tells what a repair would do.
async fn plan(data_dir: &Path, json: bool) -> Result<()> {
    let checked = verify::check(data_dir.to_owned(), json).await?;
    verify::tell(&checked, json)?;
    if !checked.is_damaged() && checked.records.findings.is_empty() {
        return Ok(());
    }
    let message = "nothing was changed: with --yes the records named are given up and the rest is mended; what is replaced is \
                   kept in a folder quarantine-… of the directory";
    Err(Error::failed(message))
}

fn tell(repaired: &Repair, json: bool) -> Result<()> {
    let files = &repaired.files;
    each(&repaired.owners, &files.mended, true, json)?;
    each(&repaired.owners, &files.left, false, json)?;
    let lost = |finding: &Finding| {
        finding.records.map_or(0, |(first, last)| match first.epoch() == last.epoch() {
            true => last.get() - first.get() + 1,
            false => 1,
        })
    };
    let whole = Whole {
        mended: files.mended.len(),
        left: files.left.len(),
        records_lost: files.mended.iter().map(lost).sum(),
        quarantine: repaired.quarantine.as_ref().map(|folder| folder.display().to_string()),
    };
    if json {
        return output::json(&whole);
    }
    let Whole { mended, left, records_lost, quarantine } = whole;
    output::line(&format!("{mended} mended, {left} left; {records_lost} records are lost"))?;
    quarantine.map_or(Ok(()), |folder| output::line(&format!("what was replaced lies in {folder}")))
}

fn each(owners: &Owners, findings: &[Finding], mended: bool, json: bool) -> Result<()> {
    for finding in findings {
        let finding = verify::line(owners, finding);
        if json {
            output::json(&Done { mended, finding })?;
        } else {
            output::line(if mended { "mended:" } else { "left:" })?;
            verify::tell_line(&finding, false)?;
        }
    }
    Ok(())
}

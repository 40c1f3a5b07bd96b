//! The suite: what the broker and its libraries do under every load, beside what the machine does without them.
//!
//! ```text
//!  repetition:  limits ─► rows a … n that repeat          (interleaved: a change of the machine's mood meets all alike)
//!  then once:   rows that take long or do not vary
//!  then:        medians ─► targets ─► RESULTS.md, plots/*.svg
//! ```
//!
//! Rows are independent: what cannot be measured is told with its reason, and the others go on. Broker, bare servers and load
//! generator are processes of their own. What it does not do: fail because a target is missed.

mod check;
mod device_bytes;
mod fanout;
mod findings;
mod latency;
mod limit;
mod load;
mod memory;
mod page;
mod pictures;
mod producer;
mod rows;
mod shards;
mod site;
mod stored;
mod throughput;
mod watch;

use crate::machine;
use anyhow::{Context, Result};
use findings::Findings;
use limit::Limit;
use rows::Row;
use site::Site;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    #[command(flatten)]
    rounds: crate::Rounds,
    /// Only these rows, with the limits they are judged by [default: all but i]
    #[arg(long, value_enum, value_name = "ROWS", value_delimiter = ',')]
    only: Vec<Row>,
    /// All rows, also those that take long
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Seconds of row k, memory at full load; 600 for a result that is to be told
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    soak_seconds: u64,
    /// How much is stored in row i, in GB
    #[arg(long, value_name = "GB", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    stored_gb: u64,
    /// Where to write the results; pictures go to `plots` beside it
    #[arg(long, value_name = "FILE", default_value = "benches/RESULTS.md")]
    results: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let site = Site::prepare(&args.directory, args.rounds.seconds)?;
    let facts = machine::facts(site.path());
    let (rows, limits) = (args.rows(), args.limits());
    let mut findings = Findings::default();
    for repetition in 1..=args.rounds.repetitions {
        eprintln!("repetition {repetition} of {}", args.rounds.repetitions);
        limits.iter().for_each(|limit| limit.measure(&site, &mut findings));
        rows.iter().for_each(|row| row.repeat(&site, &mut findings));
    }
    rows.iter().for_each(|row| row.once(&site, args, &mut findings));
    let checks: Vec<_> = rows.iter().flat_map(|row| row.checks(&findings)).collect();
    let text = page::tables(&findings, &checks);
    println!("{text}");
    let pictures = pictures::draw(&findings);
    let page = page::page(args, &facts, &text, &pictures);
    write(&args.results, &page)?;
    let folder = args.results.parent().unwrap_or(Path::new(".")).join(pictures::FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    pictures.iter().try_for_each(|picture| write(&folder.join(picture.file), &picture.svg))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Args {
    /// Those that were chosen, and those that they are judged by, in the order of the table.
    fn rows(&self) -> Vec<Row> {
        let chosen = match (&self.only[..], self.all) {
            ([], true) => Row::all(),
            ([], false) => Row::usual(),
            (only, _) => only.to_vec(),
        };
        let needed =
            |row: &Row| chosen.contains(row) || chosen.iter().any(|other| other.beside() == Some(*row));
        Row::all().into_iter().filter(needed).collect()
    }
    /// Those that rows are judged by, or all beside a whole run.
    fn limits(&self) -> Vec<Limit> {
        let rows = self.rows();
        let needed =
            |limit: &Limit| self.only.is_empty() || rows.iter().any(|row| row.limits().contains(limit));
        Limit::ALL.into_iter().filter(needed).collect()
    }
}

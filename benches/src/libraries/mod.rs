//! What the libraries cost: each beside the bare call that it stands on, on one stream of one broker, in one run.
//!
//! ```text
//!  durability:  fill a stream ─► repetition:  read bare ─► consumer library ─► append bare ─► producer library
//!                               the next one:  consumer library ─► read bare ─► producer library ─► append bare
//! ```
//!
//! The bare calls do what a program without a library would at best do: read streams whose frames are decoded and walked
//! record by record, append streams that are given frames made before the clock starts. Each has the library's number of
//! connections, batch size and batches in flight. Repetitions are interleaved, so that a change of the machine's mood meets
//! all alike. Server and load are separate processes.

pub(crate) mod append;
mod read;

use crate::figure::{Figure, Series, series};
use crate::process::Server;
use crate::window::Window;
use crate::{machine, report};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{Shard, StreamName};

const WARMUP: Duration = Duration::from_secs(1);
pub(crate) const RECORD_BYTES: usize = 1024;
const SHARDS: u32 = 8;
/// What is asked of the libraries.
const RATIO_MIN: f64 = 0.7;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    #[command(flatten)]
    rounds: crate::Rounds,
    /// Mebibytes of the stream that is read
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    stream_mib: u64,
    /// Only measurements whose name contains this: read or append
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, value_name = "FILE", default_value = "benches/LIBRARIES.md")]
    results: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.directory.make()?;
    let facts = machine::facts(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for durability in ["device", "os"] {
        let data = dir.path().join(durability);
        figures.extend(runtime.block_on(args.measure(dir.path(), &data, durability))?);
        std::fs::remove_dir_all(&data).context("cannot remove the data of the last broker")?;
    }
    let all = series(&figures);
    let text = format!("{}\n{}", report::table(&all), report::markdown(&ratios(&all)));
    println!("{text}");
    std::fs::write(&args.results, args.page(&facts, &text)?)
        .with_context(|| format!("cannot write {}", args.results.display()))
}

/// A broker to measure against.
struct Bench {
    endpoint: String,
    control: Control,
}

impl Bench {
    async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Channel::connect(&Endpoint::new(endpoint)?).await?;
        Ok(Self { endpoint: endpoint.to_owned(), control: Control::new(channel, rand::random()) })
    }

    /// Makes a stream that nobody has used.
    async fn create(&self, name: &str) -> Result<(StreamName, Vec<Shard>)> {
        let stream = StreamName::new(name)?;
        self.control.create_stream(&stream, SHARDS, RETENTION_HOURS_DEFAULT).await?;
        let shards = self.control.list_shards(&stream).await?.shards;
        Ok((stream, shards))
    }
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    async fn measure(&self, dir: &Path, data: &Path, durability: &str) -> Result<Vec<Figure>> {
        let ballast = self.directory.ballast(dir)?;
        let warm = || ballast.as_ref().map_or(Ok(()), |ballast| ballast.fill());
        let broker = Server::broker_with(data, durability)?;
        let bench = Bench::connect(&broker.endpoint).await?;
        let records = (self.stream_mib << 20) / RECORD_BYTES as u64;
        let (stream, shards) = bench.create("filled").await?;
        if self.wants("read") {
            append::fill(&bench, &stream, records).await?;
        }
        let mut figures = Vec::new();
        let mut took = |figure: Figure| {
            let Figure { workload, target, records_per_s, .. } = &figure;
            eprintln!("  {workload} · {target}: {records_per_s:.0} records/s");
            figures.push(figure);
        };
        for repetition in 1..=self.rounds.repetitions {
            eprintln!("{durability}, repetition {repetition} of {}", self.rounds.repetitions);
            // neither always comes first
            let order = if repetition % 2 == 1 { ["bare", "library"] } else { ["library", "bare"] };
            for target in order.into_iter().filter(|_| self.wants("read")) {
                let rate = match target {
                    "bare" => read::bare(&bench, &stream, &shards, records).await?,
                    _ => read::library(&bench, &stream, &format!("app-{repetition}"), records).await?,
                };
                took(rate.figure(&format!("read, {durability}"), target));
            }
            for target in order.into_iter().filter(|_| self.wants("append")) {
                let (stream, shards) = bench.create(&format!("{target}-{repetition}")).await?;
                warm()?;
                let window = Window::after(WARMUP, Duration::from_secs(self.rounds.seconds));
                let meter = match target {
                    "bare" => append::bare(&bench, &stream, &shards, window).await?,
                    _ => append::library(&bench, &stream, window).await?,
                };
                took(meter.figure(&format!("append, {durability}"), target));
                bench.control.delete_stream(&stream).await?;
            }
        }
        Ok(figures)
    }

    fn page(&self, facts: &[(&str, String)], text: &str) -> Result<String> {
        let mut page = String::from("# What the libraries cost\n\n");
        writeln!(
            page,
            "Written by `cargo run --release -p tidemill-benches -- libraries`: medians of {} interleaved repetitions; ± is \
             the distance of the extremes over the median. Records of {RECORD_BYTES} bytes, {SHARDS} shards, {} \
             connections. Reads are of a stream of {} MiB, from the first record to the last; appends of {} s each behind \
             {} s of warm-up. A megabyte is 10^6 bytes of record data. Load and broker share the machine, as separate \
             processes. The aim is a ratio of at least {RATIO_MIN}.\n",
            self.rounds.repetitions,
            append::CONNECTIONS,
            self.stream_mib,
            self.rounds.seconds,
            WARMUP.as_secs(),
        )?;
        page.push_str(
            "- **read, bare**: one read call per shard, frames decoded, every record counted and its bytes summed; **library**: \
             a worker of the consumer library whose processor does that.\n\
             - **append, bare**: frames of 512 KiB made before, 8 in flight per shard, on append calls; **library**: the \
             producer library with its defaults, given record by record, every ticket awaited. Latencies are those of a full \
             queue: of a frame there, of a record here.\n\n",
        );
        for (name, value) in facts {
            writeln!(page, "- {name}: {value}")?;
        }
        write!(page, "\n{text}")?;
        Ok(page)
    }
}

/// The libraries over the bare calls.
fn ratios(all: &[Series]) -> Vec<[String; 3]> {
    let mut rows = vec![["workload", "aim", "library / bare"].map(str::to_owned)];
    for bare in all.iter().filter(|series| series.target == "bare") {
        let library = all.iter().find(|s| s.workload == bare.workload && s.target == "library");
        let median = |series: &Series| series.median(|run| run.records_per_s);
        if let Some(library) = library.filter(|_| median(bare) > 0.0) {
            let ratio = median(library) / median(bare);
            rows.push([bare.workload.clone(), format!("{RATIO_MIN:.2}"), format!("{ratio:.2}")]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_set_beside_the_bare_call_of_the_same_workload() {
        let figure = |workload: &str, target: &str, records_per_s| Figure {
            workload: workload.to_owned(),
            target: target.to_owned(),
            records_per_s,
            ..Figure::default()
        };
        let figures = [
            figure("a", "bare", 100.0),
            figure("b", "bare", 1000.0),
            figure("a", "library", 80.0),
            figure("b", "library", 500.0),
        ];
        let rows = ratios(&series(&figures));
        assert_eq!(
            rows[1..],
            [["a", "0.70", "0.80"], ["b", "0.70", "0.50"]].map(|row| row.map(str::to_owned))
        );
    }
}

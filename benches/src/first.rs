//! The first suite: what a producer and a consumer get, beside what a bare gRPC server and the raw disk give.
//!
//! ```text
//!  repetition:  raw disk ─► bare gRPC ─► produce gRPC ─► consume gRPC ─► produce Kinesis ─► consume Kinesis
//! ```
//!
//! Repetitions are interleaved, so that a change of the machine's mood meets all alike. Server and load generator are
//! separate processes. The broker keeps its acknowledgements on the device.

use crate::figure::{Figure, Series, series};
use crate::process::{Server, tidemill};
use crate::window::Window;
use crate::{bare_grpc, machine, raw_disk, report};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const WARMUP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Repetitions, interleaved
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
    /// Bytes of a record
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    record_bytes: u32,
    /// Shards of the stream
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    shards: u32,
    /// Where to write the results
    #[arg(long, value_name = "FILE", default_value = "benches/RESULTS.md")]
    results: PathBuf,
}

/// Connections of the gRPC measurements and of their limits.
const GRPC_CONNECTIONS: usize = 4;

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.directory.make()?;
    let facts = machine::facts(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = Server::broker(&dir.path().join("data"))?;
    let peer = Server::peer()?;
    let time = Duration::from_secs(args.seconds);
    let window = || Window::after(WARMUP, time);
    let mut figures = Vec::new();
    let mut took = |figure: Figure| {
        eprintln!("  {} · {}: {:.1} MB/s", figure.workload, figure.target, figure.mb_per_s);
        figures.push(figure);
    };
    let ballast = args.directory.ballast(dir.path())?;
    let warm = || ballast.as_ref().map_or(Ok(()), |ballast| ballast.fill());
    for repetition in 1..=args.repetitions {
        eprintln!("repetition {repetition} of {}", args.repetitions);
        took(raw_disk::direct(dir.path(), 1 << 20, window)?);
        took(raw_disk::direct(dir.path(), 4 << 10, window)?);
        took(runtime.block_on(bare_grpc::sink(&peer.endpoint, GRPC_CONNECTIONS, window()))?);
        took(runtime.block_on(bare_grpc::source(&peer.endpoint, GRPC_CONNECTIONS, window()))?);
        for target in ["grpc", "kinesis"] {
            for workload in ["produce", "consume"] {
                warm()?;
                took(args.load(&broker.endpoint, workload, target)?);
            }
        }
    }
    let all = series(&figures);
    let memory = broker.anonymous_mib().map_or_else(String::new, |mib| {
        format!("Memory of the broker at the end, page cache not counted: {mib} MiB.\n")
    });
    let text = format!("{}\n{}\n{memory}", report::table(&all), report::markdown(&ratios(&all)));
    println!("{text}");
    std::fs::write(&args.results, args.page(&facts, &text)?)
        .with_context(|| format!("cannot write {}", args.results.display()))
}

impl Args {
    /// Runs the load generator once.
    fn load(&self, endpoint: &str, workload: &str, target: &str) -> Result<Figure> {
        let output = Command::new(tidemill()?)
            .args(["bench", workload, "--json", "--target", target, "--endpoint", endpoint])
            .args(["--seconds", &self.seconds.to_string(), "--shards", &self.shards.to_string()])
            .args(["--record-bytes", &self.record_bytes.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "tidemill bench {workload} --target {target}: {}", output.status);
        let line = String::from_utf8(output.stdout).context("the load generator prints text")?;
        serde_json::from_str(&line).with_context(|| format!("not a result: {line:?}"))
    }

    fn page(&self, facts: &[(&str, String)], text: &str) -> Result<String> {
        let mut page = String::from("# First results\n\n");
        writeln!(
            page,
            "Written by `cargo run --release -p tidemill-benches -- first`: medians of {} interleaved repetitions of {} s \
             each behind {} s of warm-up; ± is the distance of the extremes over the median. Records of {} bytes, {} \
             shards, every acknowledgement on the device. A megabyte is 10^6 bytes of record data. Load generator and \
             broker share the machine, as separate processes. Latencies of throughput measurements are those of a full \
             queue.\n",
            self.repetitions,
            self.seconds,
            WARMUP.as_secs(),
            self.record_bytes,
            self.shards
        )?;
        page.push_str(match self.directory.warm_memory {
            true => "The page cache was full before each measurement (`--warm-memory`).\n\n",
            false => {
                "Memory was as it came: on a virtual machine whose host provides it at first touch, that touch bounds \
                 `produce` (see `--warm-memory`).\n\n"
            }
        });
        for (name, value) in facts {
            writeln!(page, "- {name}: {value}")?;
        }
        write!(page, "\n{text}")?;
        Ok(page)
    }
}

/// What was measured over what bounds it.
fn ratios(all: &[Series]) -> Vec<[String; 3]> {
    let mb = |workload: &str, target: &str| {
        let found = all.iter().find(|s| s.workload == workload && s.target == target);
        found.map_or(0.0, |series| series.median(|run| run.mb_per_s))
    };
    let (sink, source) =
        (mb("produce 1 MiB messages", "bare gRPC"), mb("consume 1 MiB messages", "bare gRPC"));
    let disk = mb("write 1 MiB direct", "raw disk");
    let produced = mb("produce", "grpc");
    let row = |what: &str, of: &str, figure: f64, limit: f64| {
        let ratio = if limit > 0.0 { format!("{:.2}", figure / limit) } else { "-".to_owned() };
        [what.to_owned(), of.to_owned(), ratio]
    };
    vec![
        ["measured", "limit", "ratio"].map(str::to_owned),
        row("produce gRPC", "bare gRPC sink", produced, sink),
        row("produce gRPC", "raw 1 MiB direct-sync writes", produced, disk),
        row("consume gRPC", "bare gRPC source", mb("consume", "grpc"), source),
        row("produce Kinesis", "bare gRPC sink", mb("produce", "kinesis"), sink),
        row("consume Kinesis", "bare gRPC source", mb("consume", "kinesis"), source),
    ]
}

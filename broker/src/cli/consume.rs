//! `tidemill consume`: records to stdout, through the consumer library.
//!
//! A batch counts as processed once its lines were written to stdout and flushed, and only what is processed is
//! checkpointed: a reader behind a pipe that keeps what it got misses nothing. When stdout takes no more the worker stops
//! and gives its leases back; the command ends quietly if the reader is gone, else it tells why.

use super::Connection;
use super::signals::StopSignals;
use crate::error::{Error, Result};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemill_consumer::{
    Batch, Checkpointer, InitialPosition, ProcessError, Record, RecordProcessor, Worker,
};
use tidemill_types::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use tidemill_types::{AppName, StreamName, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Batches of lines that wait for stdout.
const BATCHES_WAITING_MAX: usize = 2;
/// By then the worker knows that it is to stop.
const STOP_NOTICED: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The stream to read
    stream: StreamName,
    /// The application whose workers share the stream's shards
    #[arg(long)]
    app: AppName,
    /// This worker's id, unique within the application [default: made up]
    #[arg(long)]
    worker: Option<WorkerId>,
    /// Where to begin in shards that the application has never worked on
    #[arg(long, value_enum, default_value_t = From::TrimHorizon)]
    from: From,
    /// End when everything there is has been read
    #[arg(long)]
    until_caught_up: bool,
    /// One line of JSON per record, instead of its data alone
    #[arg(long)]
    json: bool,
    /// How long a lease lasts without renewal, in milliseconds: others take over within twice this when a worker dies
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(LEASE_MS_MIN..=LEASE_MS_MAX))]
    lease_ms: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum From {
    /// The oldest record that is kept
    TrimHorizon,
    /// What arrives from now on
    Latest,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let worker = worker(&args)?;
    let mut signals = StopSignals::catch()?;
    let output = Output::open();
    let stdout = output.state.clone();
    let format = if args.json { Format::Json } else { Format::Data };
    let stop = async {
        tokio::select! {
            () = signals.any() => {}
            () = stdout.broken.cancelled() => {}
        }
    };
    let ended = worker.run(move |_| Printer { output: output.clone(), format }, stop).await;
    match stdout.failure.get() {
        Some(io::ErrorKind::BrokenPipe) => Ok(()),
        Some(kind) => Err(Error::because("cannot write to stdout", io::Error::from(*kind))),
        None => ended.map_err(|e| Error::failed(e.message())),
    }
}

fn worker(args: &Args) -> Result<Worker> {
    let initial = match args.from {
        From::TrimHorizon => InitialPosition::TrimHorizon,
        From::Latest => InitialPosition::Latest,
    };
    let endpoint = args.connection.endpoint.to_string();
    let mut builder = Worker::builder(&endpoint, args.app.as_str(), args.stream.as_str())
        .initial_position(initial)
        .lease_duration(Duration::from_millis(args.lease_ms))
        .until_caught_up(args.until_caught_up);
    if let Some(id) = &args.worker {
        builder = builder.worker_id(id.as_str());
    }
    if let Some(pem) = args.connection.authorities()? {
        builder = builder.ca_certificate(pem);
    }
    if let Some((id, secret)) = args.connection.credentials() {
        builder = builder.credentials(id, secret);
    }
    builder.build().map_err(|e| Error::usage(e.message()))
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Data,
    Json,
}

/// One line of the contract with whoever reads stdout.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    stream: &'a str,
    shard: String,
    sequence_number: String,
    sub_sequence_number: u64,
    partition_key: &'a str,
    arrival_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl Format {
    fn write(self, record: &Record, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Data => out.extend_from_slice(record.data()),
            Self::Json => {
                let text = std::str::from_utf8(record.data()).ok();
                let encoded = || base64_simd::STANDARD.encode_to_string(record.data());
                let line = JsonLine {
                    stream: record.stream().as_str(),
                    shard: record.shard().to_string(),
                    sequence_number: record.sequence_number().to_string(),
                    sub_sequence_number: record.sub_sequence_number(),
                    partition_key: record.partition_key(),
                    arrival_ms: record.arrival().get(),
                    data: text,
                    data_base64: text.is_none().then(encoded),
                };
                serde_json::to_writer(&mut *out, &line)?;
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Prints the records of one shard.
struct Printer {
    output: Output,
    format: Format,
}

impl RecordProcessor for Printer {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> std::result::Result<(), ProcessError> {
        let mut lines = Vec::new();
        for record in batch.records() {
            self.format.write(&record, &mut lines)?;
        }
        self.output.write(lines).await?;
        Ok(())
    }
}

type Lines = (Vec<u8>, oneshot::Sender<io::Result<()>>);

/// Stdout, behind a thread of its own: a slow reader must not hold up the renewal of leases.
#[derive(Clone)]
struct Output {
    lines: mpsc::Sender<Lines>,
    state: Arc<StdoutState>,
}

/// Whether stdout still takes lines, and why not.
#[derive(Default)]
struct StdoutState {
    failure: OnceLock<io::ErrorKind>,
    broken: CancellationToken,
}

impl Output {
    fn open() -> Self {
        let (lines, mut waiting) = mpsc::channel::<Lines>(BATCHES_WAITING_MAX);
        let state = Arc::<StdoutState>::default();
        let told = Arc::clone(&state);
        tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            while let Some((lines, done)) = waiting.blocking_recv() {
                let written = out.write_all(&lines).and_then(|()| out.flush());
                if let Err(error) = &written {
                    told.failure.get_or_init(|| error.kind());
                    told.broken.cancel();
                }
                // the processor may have been dropped; then its batch will be delivered again
                let _ = done.send(written);
            }
        });
        Self { lines, state }
    }

    /// Returns once the lines are flushed. After a failure it holds the processor until the worker is stopping, which
    /// then does not call it again.
    async fn write(&self, lines: Vec<u8>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let written = match self.lines.send((lines, done)).await {
            Ok(()) => written.await.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(closed()),
        };
        if written.is_err() {
            tokio::time::sleep(STOP_NOTICED).await;
        }
        written
    }
}

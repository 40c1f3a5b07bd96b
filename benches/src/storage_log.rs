//! The log alone: appends straight into `tidemill-storage`, with neither engine nor wire, beside the raw disk.
//!
//! One driver keeps a fixed number of frames of each log in flight: each answer sends the next. Frames are made before
//! the clock starts, so that what is measured is storage.

use crate::figure::{Figure, series};
use crate::limits::raw_disk::{self, Blocks, noise, size};
use crate::report;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Durability, LogId, Settings, ShardLog, Storage};
use tidemill_types::{Epoch, Frame, FrameWriter, ProducerId, SystemClock};
use tokio::time::Instant;

const RECORD_BYTES: usize = 1024;
const WARMUP: Duration = Duration::from_millis(500);
/// An answer that does not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    #[command(flatten)]
    rounds: crate::Rounds,
    /// Only measurements whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// What is appended.
struct Load {
    name: String,
    logs: u64,
    frame_records: usize,
    /// Frames of one log that are unanswered at a time.
    in_flight: usize,
    /// Frames of a log and group that reach this go straight to the segment; by default as in the broker.
    direct_bytes_min: Option<usize>,
}

fn loads() -> Vec<Load> {
    let load = |logs, frame_records: usize, in_flight| Load {
        name: format!(
            "append {} × {} in flight to {logs} logs",
            size(frame_records * RECORD_BYTES),
            in_flight
        ),
        logs,
        frame_records,
        in_flight,
        direct_bytes_min: None,
    };
    vec![load(8, 512, 4), load(1000, 1, 1), load(8, 16, 8), load(1, 1, 1)]
}

/// The two ways side by side, at sizes around the threshold between them.
fn ways() -> Vec<Load> {
    let sizes = [16, 32, 64, 128, 256].into_iter();
    sizes
        .flat_map(|records| [("journal", 1 << 20), ("segment", 4 << 10)].map(|way| (records, way)))
        .map(way)
        .collect()
}

fn way((frame_records, (way, direct_bytes_min)): (usize, (&str, usize))) -> Load {
    let name =
        format!("threshold: {} × 1 in flight to 8 logs by the {way}", size(frame_records * RECORD_BYTES));
    Load { name, logs: 8, frame_records, in_flight: 1, direct_bytes_min: Some(direct_bytes_min) }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.directory.make()?;
    let time = Duration::from_secs(args.rounds.seconds);
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut figures = Vec::new();
    let ballast = args.directory.ballast(dir.path())?;
    let warm = || ballast.as_ref().map_or(Ok(()), |ballast| ballast.fill());
    for repetition in 1..=args.rounds.repetitions {
        eprintln!("repetition {repetition} of {}", args.rounds.repetitions);
        if wanted("raw disk") {
            warm()?;
            figures.extend(limits(dir.path(), time)?);
        }
        for load in loads() {
            for (mode, durability) in [("device", Durability::Device), ("os", Durability::Os)] {
                if wanted(&format!("{}, {mode}", load.name)) {
                    warm()?;
                    figures.push(append(&dir.path().join("data"), &load, mode, durability, time)?);
                }
            }
        }
        for load in ways().iter().filter(|load| wanted(&load.name)) {
            warm()?;
            figures.push(append(&dir.path().join("data"), load, "device", Durability::Device, time)?);
        }
    }
    println!("{}", report::table(&series(&figures)));
    Ok(())
}

fn limits(dir: &Path, time: Duration) -> Result<Vec<Figure>> {
    let window = || Window::after(WARMUP, time);
    Ok(vec![
        raw_disk::direct(dir, 1 << 20, window)?,
        raw_disk::direct(dir, 4 << 10, window)?,
        raw_disk::buffered(dir, 512 << 10, Blocks::Fresh, 2, window)?,
        raw_disk::buffered(dir, 512 << 10, Blocks::Written, 2, window)?,
    ])
}

fn append(dir: &Path, load: &Load, mode: &str, durability: Durability, time: Duration) -> Result<Figure> {
    let disk = Arc::new(RealDisk::new(dir)?);
    let mut settings = Settings { durability, ..Settings::default() };
    settings.direct_bytes_min = load.direct_bytes_min.unwrap_or(settings.direct_bytes_min);
    let storage = Storage::open(disk, Arc::new(SystemClock::new()), settings, &[], Epoch::new(1)?)?;
    storage.start()?;
    let logs = (0..load.logs).map(|id| storage.create_log(LogId::new(id))).collect();
    let meter = Driver::new(logs, load, Window::after(WARMUP, time)).run()?;
    storage.close()?;
    drop(storage);
    std::fs::remove_dir_all(dir).context("cannot remove the data of the last measurement")?;
    Ok(meter.figure(&load.name, &format!("log, {mode}")))
}

/// The next frame goes to the log whose frame was answered.
struct Driver {
    logs: Vec<ShardLog>,
    frame: Frame,
    records: u64,
    in_flight: usize,
    meter: Meter,
    answered: mpsc::Receiver<(usize, Instant, tidemill_storage::Result<()>)>,
    answer: mpsc::Sender<(usize, Instant, tidemill_storage::Result<()>)>,
}

impl Driver {
    fn new(logs: Vec<ShardLog>, load: &Load, window: Window) -> Self {
        let data = noise(RECORD_BYTES);
        let mut frame = FrameWriter::with_capacity(load.frame_records * (RECORD_BYTES + 32));
        for _ in 0..load.frame_records {
            frame.push("key", &data);
        }
        let (answer, answered) = mpsc::channel();
        Self {
            logs,
            frame: frame.finish(ProducerId::NONE, 0),
            records: load.frame_records as u64,
            in_flight: load.in_flight,
            meter: Meter::new(window),
            answered,
            answer,
        }
    }

    fn append(&self, log: usize) {
        let (answer, began) = (self.answer.clone(), Instant::now());
        self.logs[log].append(self.frame.clone(), move |result| {
            // nobody listens any more once the driver has given up
            let _ = answer.send((log, began, result.map(drop)));
        });
    }

    fn run(mut self) -> Result<Meter> {
        for log in 0..self.logs.len() {
            (0..self.in_flight).for_each(|_| self.append(log));
        }
        let mut waiting = self.logs.len() * self.in_flight;
        while waiting > 0 {
            let (log, began, result) =
                self.answered.recv_timeout(PATIENCE).context("storage does not answer")?;
            match result {
                Ok(()) => self.meter.done(began, self.records, self.records * RECORD_BYTES as u64),
                Err(error) => {
                    self.meter.failed();
                    eprintln!("an append failed: {error}");
                }
            }
            if self.meter.window().is_over() {
                waiting -= 1;
            } else {
                self.append(log);
            }
        }
        Ok(self.meter)
    }
}

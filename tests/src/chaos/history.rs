//! What happened, put together from the logs of all processes, the observer and the director.

use super::line::{ProducerLine, WorkerLine};
use super::log::whole_lines;
use super::mark::{Mark, RecordId};
use anyhow::{Context, Error, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A producer was told that its record is stored there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The record.
    pub id: RecordId,
    /// The shard that has it.
    pub shard: u32,
    /// Its index there.
    pub index: u64,
}

/// The last call of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `shard_ended`.
    ShardEnded,
    /// `lease_lost`.
    LeaseLost,
    /// `shutdown`, which stored a checkpoint behind everything processed.
    Stopped,
    /// `shutdown`, whose checkpoint was not stored.
    StopFailed,
}

const ENDINGS: [(Ending, &str); 4] = [
    (Ending::ShardEnded, "shard-ended"),
    (Ending::LeaseLost, "lease-lost"),
    (Ending::Stopped, "stopped"),
    (Ending::StopFailed, "stop-failed"),
];

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = ENDINGS.iter().find(|(ending, _)| ending == self);
        f.write_str(found.map_or("", |(_, text)| text))
    }
}

impl FromStr for Ending {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let found = ENDINGS.iter().find(|(_, name)| *name == text);
        found.map(|(ending, _)| *ending).with_context(|| format!("no ending: {text}"))
    }
}

/// Records that were processed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When that began.
    pub at: u64,
    /// Index and name of each.
    pub records: Vec<(u64, RecordId)>,
}

/// One processor's life: one worker process, one shard, one epoch of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The worker.
    pub worker: String,
    /// Its shard.
    pub shard: u32,
    /// When it was initialized.
    pub began: u64,
    /// Where it starts behind.
    pub from: Mark,
    /// The epoch of its lease; unknown if it processed nothing.
    pub epoch: Option<u64>,
    /// What it processed.
    pub batches: Vec<Batch>,
    /// Checkpoints that it saw stored, and when.
    pub stored: Vec<(u64, Mark)>,
    /// Its last call; nothing if the process was killed before.
    pub end: Option<(u64, Ending)>,
}

impl Session {
    /// Index and name of each record, as they were processed.
    pub fn records(&self) -> impl Iterator<Item = (u64, RecordId)> {
        self.batches.iter().flat_map(|batch| batch.records.iter().copied())
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on shard {} (epoch {:?}, began {})", self.worker, self.shard, self.epoch, self.began)
    }
}

/// A lease as it was listed, when it had changed since the look before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// When the list was asked for.
    pub asked: u64,
    /// When it had come.
    pub answered: u64,
    /// The shard.
    pub shard: u32,
    /// The holder, if there is one.
    pub owner: Option<String>,
    /// The epoch.
    pub epoch: u64,
    /// How far it is processed; nothing before it was first taken.
    pub mark: Option<Mark>,
    /// Held, and not run out.
    pub live: bool,
}

/// A worker was stopped by SIGSTOP for longer than its leases last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The worker.
    pub worker: String,
    /// From when on it surely stood.
    pub from: u64,
    /// When it was let go on.
    pub until: u64,
}

/// A worker was killed by SIGKILL, and nothing else happened to workers or broker for two lease times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The worker.
    pub worker: String,
    /// When.
    pub at: u64,
}

/// Everything that is known of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Acknowledgements.
    pub acks: Vec<Ack>,
    /// Records whose tickets failed, and why.
    pub failed: Vec<(RecordId, String)>,
    /// What workers did.
    pub sessions: Vec<Session>,
    /// Leases as they changed, in the order in which they were seen.
    pub sightings: Vec<Sighting>,
    /// Workers that were paused.
    pub pauses: Vec<Pause>,
    /// Kills after which the time to the next owner counts.
    pub kills: Vec<Kill>,
}

impl History {
    /// Takes what the processes have logged in a directory so far: `worker-*.log` and `producer-*.log`.
    pub fn read_logs(&mut self, dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).context("a log has a plain name")?;
            let text = std::fs::read_to_string(&path)?;
            let told = || format!("in {}", path.display());
            if name.starts_with("producer-") {
                self.read_producer(&text).with_context(told)?;
            } else if name.starts_with("worker-") {
                self.sessions.extend(sessions(name, &text).with_context(told)?);
            }
        }
        Ok(())
    }

    fn read_producer(&mut self, text: &str) -> Result<()> {
        for line in whole_lines(text) {
            match line.parse()? {
                ProducerLine::Acked { id, shard, index, .. } => self.acks.push(Ack { id, shard, index }),
                ProducerLine::Failed { id, why, .. } => self.failed.push((id, why)),
            }
        }
        Ok(())
    }
}

/// The sessions of one worker process, from its log.
fn sessions(worker: &str, text: &str) -> Result<Vec<Session>> {
    let mut all: BTreeMap<u64, Session> = BTreeMap::new();
    for line in whole_lines(text) {
        let line: WorkerLine = line.parse()?;
        let number = match &line {
            WorkerLine::Began { session, .. }
            | WorkerLine::Batch { session, .. }
            | WorkerLine::Stored { session, .. }
            | WorkerLine::Over { session, .. } => *session,
        };
        if let WorkerLine::Began { at, shard, from, .. } = line {
            let (worker, stored) = (worker.to_owned(), vec![(at, from)]);
            let session = Session {
                worker,
                shard,
                began: at,
                from,
                epoch: None,
                batches: Vec::new(),
                stored,
                end: None,
            };
            ensure!(all.insert(number, session).is_none(), "session {number} began twice");
            continue;
        }
        let session = all.get_mut(&number).with_context(|| format!("session {number} never began"))?;
        ensure!(session.end.is_none(), "{session} goes on after its last call: {line:?}");
        note(session, line)?;
    }
    Ok(all.into_values().collect())
}

fn note(session: &mut Session, line: WorkerLine) -> Result<()> {
    match line {
        WorkerLine::Began { .. } => bail!("{session} began twice"),
        WorkerLine::Batch { at, epoch, records, .. } => {
            let known = *session.epoch.get_or_insert(epoch);
            ensure!(known == epoch, "{session} processes under epoch {epoch} too");
            session.batches.push(Batch { at, records });
        }
        WorkerLine::Stored { at, mark, .. } => session.stored.push((at, mark)),
        WorkerLine::Over { at, how, .. } => session.end = Some((at, how)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_cut_off_in_a_line_gives_what_was_written_before() {
        let id = RecordId::new(1, 2, 3);
        let log = format!(
            "began 10 0 4 horizon\nbatch 11 0 7 1:{0:x} 2:{0:x}\nstored 12 0 2.0\nbatch 13 0 7 3:{0:x}",
            id.get()
        );
        let found = sessions("w", &log).unwrap();
        assert_eq!(found.len(), 1);
        let session = &found[0];
        assert_eq!((session.shard, session.epoch, session.end), (4, Some(7), None));
        assert_eq!(session.records().collect::<Vec<_>>(), [(1, id), (2, id)]);
        assert_eq!(session.stored, [(10, Mark::TrimHorizon), (12, Mark::At(2, 0))]);
    }

    #[test]
    fn a_processor_that_is_called_after_its_last_call_is_told() {
        let log = "began 10 0 4 horizon\nover 11 0 lease-lost\nbatch 12 0 7 1:1\n";
        assert!(sessions("w", log).unwrap_err().to_string().contains("after its last call"));
        let log = "began 10 0 4 horizon\nbatch 12 0 7 1:1\nbatch 13 0 8 2:2\n";
        assert!(sessions("w", log).unwrap_err().to_string().contains("under epoch 8 too"));
    }
}

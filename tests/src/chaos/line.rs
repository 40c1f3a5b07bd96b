//! The lines of the log files, as text: the processes write them, the test reads them.
//!
//! ```text
//!  worker    began AT SESSION SHARD FROM · batch AT SESSION EPOCH INDEX:ID… · stored AT SESSION MARK · over AT SESSION HOW
//!  producer  acked AT ID SHARD INDEX · failed AT ID WHY
//! ```

use super::history::Ending;
use super::mark::{Mark, RecordId};
use anyhow::{Context, Error, Result, bail};
use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

/// What a worker writes. A session is one processor's life in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerLine {
    /// A processor was initialized, to go on behind a mark.
    Began {
        /// When.
        at: u64,
        /// Its number in the process.
        session: u64,
        /// Its shard.
        shard: u32,
        /// Where it starts behind.
        from: Mark,
    },
    /// A batch is processed.
    Batch {
        /// When that began.
        at: u64,
        /// The session.
        session: u64,
        /// The epoch of the lease it is processed under.
        epoch: u64,
        /// Index and name of each record.
        records: Vec<(u64, RecordId)>,
    },
    /// The checkpoint is seen to be stored.
    Stored {
        /// When it was seen.
        at: u64,
        /// The session.
        session: u64,
        /// The checkpoint.
        mark: Mark,
    },
    /// The last call of the processor.
    Over {
        /// When.
        at: u64,
        /// The session.
        session: u64,
        /// Which call, and what came of it.
        how: Ending,
    },
}

impl fmt::Display for WorkerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { at, session, shard, from } => write!(f, "began {at} {session} {shard} {from}"),
            Self::Batch { at, session, epoch, records } => {
                write!(f, "batch {at} {session} {epoch}")?;
                records.iter().try_for_each(|(index, id)| write!(f, " {index}:{:x}", id.get()))
            }
            Self::Stored { at, session, mark } => write!(f, "stored {at} {session} {mark}"),
            Self::Over { at, session, how } => write!(f, "over {at} {session} {how}"),
        }
    }
}

impl FromStr for WorkerLine {
    type Err = Error;
    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_ascii_whitespace();
        let what = words.next().context("an empty line")?;
        let (at, session) = (next(&mut words)?, next(&mut words)?);
        Ok(match what {
            "began" => Self::Began { at, session, shard: next(&mut words)?, from: next(&mut words)? },
            "batch" => {
                let epoch = next(&mut words)?;
                let records = words.map(placed).collect::<Result<_>>()?;
                Self::Batch { at, session, epoch, records }
            }
            "stored" => Self::Stored { at, session, mark: next(&mut words)? },
            "over" => Self::Over { at, session, how: next(&mut words)? },
            _ => bail!("no line of a worker: {line}"),
        })
    }
}

/// What a producer writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProducerLine {
    /// A ticket told the place of its record.
    Acked {
        /// When it was noticed.
        at: u64,
        /// The record.
        id: RecordId,
        /// The shard that has it.
        shard: u32,
        /// Its index there.
        index: u64,
    },
    /// A ticket told that its record is not stored, or perhaps not.
    Failed {
        /// When it was noticed.
        at: u64,
        /// The record.
        id: RecordId,
        /// Why, in one word.
        why: String,
    },
}

impl fmt::Display for ProducerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acked { at, id, shard, index } => write!(f, "acked {at} {} {shard} {index}", id.get()),
            Self::Failed { at, id, why } => write!(f, "failed {at} {} {why}", id.get()),
        }
    }
}

impl FromStr for ProducerLine {
    type Err = Error;
    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_ascii_whitespace();
        let what = words.next().context("an empty line")?;
        let (at, id) = (next(&mut words)?, RecordId::from_payload(next(&mut words)?));
        Ok(match what {
            "acked" => Self::Acked { at, id, shard: next(&mut words)?, index: next(&mut words)? },
            "failed" => Self::Failed { at, id, why: next(&mut words)? },
            _ => bail!("no line of a producer: {line}"),
        })
    }
}

fn next<T: FromStr<Err: Into<Error>>>(words: &mut SplitAsciiWhitespace<'_>) -> Result<T> {
    words.next().context("a line ends too early")?.parse().map_err(Into::into)
}

fn placed(word: &str) -> Result<(u64, RecordId)> {
    let (index, id) = word.split_once(':').with_context(|| format!("no record: {word}"))?;
    Ok((index.parse()?, RecordId::from_payload(u64::from_str_radix(id, 16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_written() {
        let id = RecordId::new(3, 7, 9);
        let lines = [
            WorkerLine::Began { at: 1, session: 2, shard: 3, from: Mark::At(4, 0) },
            WorkerLine::Batch { at: 1, session: 2, epoch: 3, records: vec![(4, id), (5, id)] },
            WorkerLine::Stored { at: 1, session: 2, mark: Mark::ShardEnd },
            WorkerLine::Over { at: 1, session: 2, how: Ending::StopFailed },
        ];
        for line in lines {
            assert_eq!(line.to_string().parse::<WorkerLine>().unwrap(), line);
        }
        let lines = [
            ProducerLine::Acked { at: 1, id, shard: 3, index: 4 },
            ProducerLine::Failed { at: 1, id, why: "Unavailable".into() },
        ];
        for line in lines {
            assert_eq!(line.to_string().parse::<ProducerLine>().unwrap(), line);
        }
        assert!("batch 1 2 3 4".parse::<WorkerLine>().is_err());
    }
}

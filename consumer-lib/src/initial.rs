//! Where an application begins in a shard that it has never worked on.

use crate::place::Checkpoint;
use tidemill_types::TimestampMs;

/// Where an application begins in a shard that it has never worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InitialPosition {
    /// At the oldest record that is kept.
    #[default]
    TrimHorizon,
    /// After the newest record at the time the shard is first read. Children of shards that the application works on
    /// are read from their beginning all the same, so that a split or merge loses nothing.
    Latest,
    /// At the first record that arrived at this time or later, by the wall clock of the service.
    AtTimestamp(TimestampMs),
}

impl InitialPosition {
    /// The time to begin at, if it is one.
    pub(crate) fn time(self) -> Option<TimestampMs> {
        match self {
            Self::AtTimestamp(time) => Some(time),
            Self::TrimHorizon | Self::Latest => None,
        }
    }
}

impl From<InitialPosition> for Checkpoint {
    fn from(position: InitialPosition) -> Self {
        match position {
            InitialPosition::TrimHorizon => Self::TrimHorizon,
            InitialPosition::Latest => Self::Latest,
            InitialPosition::AtTimestamp(_) => Self::AtTimestamp,
        }
    }
}

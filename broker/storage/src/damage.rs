//! Damage in a segment, met by who reads it: what is bad is one stretch, and behind it the log goes on.
//!
//! ```text
//!   frame | frame | bad bytes … | frame | frame          [`Frames`] gives: Frame, Frame, Bad, Frame, Frame
//!                   └ expected   └ the next intact frame of the log: reading goes on there
//! ```
//!
//! Why: one flipped bit must cost the records it hit, no others, whoever comes by: readers, searches by time, trimming.
//! Where a frame's length cannot be trusted the next frame is looked for: one whose two checksums match, of this log,
//! behind what came before.

use crate::LogId;
use crate::error::{Error, ErrorKind};
use crate::segment::{Pages, SegmentId};
use bytes::Bytes;
use tidemill_types::{Frame, FrameError, FrameHeader, SequenceIndex};

/// Where the log's number stands in the header of a frame.
const LOG_OFFSET: usize = 16;
/// How far the next intact frame is looked for at first.
const SEARCH_BYTES: usize = 256 << 10;

/// The error for bytes that are not what was written.
pub(crate) fn damaged(id: SegmentId, offset: u64, what: &FrameError) -> Error {
    let file = id.file();
    Error::new(ErrorKind::Damaged, format!("{file} is damaged at offset {offset}: {what}")).at(&file, offset)
}

/// The first intact frame of the log that begins at `from` or behind it, with an index not below `expected`.
pub(crate) fn intact_frame(
    bytes: &Bytes,
    from: usize,
    log: LogId,
    expected: SequenceIndex,
) -> Option<(usize, FrameHeader)> {
    let needle = log.get().to_le_bytes();
    let rest = bytes.get(from..)?;
    memchr::memmem::find_iter(rest, &needle).find_map(|found| {
        let at = (from + found).checked_sub(LOG_OFFSET).filter(|at| *at >= from)?;
        let frame = Frame::decode(&bytes.slice(at..)).ok()?;
        let header = *frame.header();
        (header.log == log.get() && header.first >= expected).then_some((at, header))
    })
}

/// The headers of frames that lie one behind the other, each checked, and the bad stretches between them.
pub(crate) struct Frames<'a> {
    log: LogId,
    bytes: &'a Bytes,
    at: usize,
    expected: Option<SequenceIndex>,
}

/// What lies next.
pub(crate) enum Lying {
    /// A frame of the log, the next one, at this place. Its body was not looked at.
    Frame(usize, FrameHeader),
    /// Bytes that are no frame of the log, or not its next.
    Bad(Bad),
}

/// A bad stretch.
pub(crate) struct Bad {
    /// Where it begins and ends.
    pub(crate) at: usize,
    pub(crate) end: usize,
    /// What is wrong there.
    pub(crate) why: FrameError,
    /// Index of the frame behind it; none if no other is there.
    pub(crate) next: Option<SequenceIndex>,
}

impl<'a> Frames<'a> {
    /// Over `bytes` of a segment of `log`, which begin with a frame.
    pub(crate) fn new(log: LogId, bytes: &'a Bytes) -> Self {
        Self { log, bytes, at: 0, expected: None }
    }

    /// The first frame must be the one behind `expected`.
    pub(crate) fn expecting(self, expected: SequenceIndex) -> Self {
        Self { expected: Some(expected), ..self }
    }

    /// What lies next, with its header ready to be touched and what had to be searched: an error if the disk cannot give it.
    pub(crate) fn next_in(&mut self, pages: &mut Pages<'_>) -> Result<Option<Lying>, Error> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        pages.up_to(self.at + FrameHeader::BYTES)?;
        Ok(Some(match self.look() {
            Ok(header) => self.pass(header),
            Err(why) => {
                let least = self.expected.unwrap_or(SequenceIndex::ZERO);
                // in windows that grow: what lies far behind need not be readable
                let mut window = SEARCH_BYTES;
                let behind = loop {
                    let end = self.at.saturating_add(window).min(self.bytes.len());
                    pages.up_to(end)?;
                    let found = intact_frame(&self.bytes.slice(..end), self.at + 1, self.log, least);
                    if found.is_some() || end == self.bytes.len() {
                        break found;
                    }
                    window = window.saturating_mul(2);
                };
                self.bad(why, behind)
            }
        }))
    }

    fn look(&self) -> Result<FrameHeader, FrameError> {
        let header = FrameHeader::decode(&self.bytes[self.at..])?;
        // a lost or misdirected write may have left an intact frame of an earlier use of the file in its place
        let follows = self.expected.is_none_or(|expected| header.first.follows(expected));
        if header.log != self.log.get() || !follows {
            return Err(FrameError::Malformed("the frame is intact but does not belong here"));
        }
        if self.at + header.frame_bytes as usize > self.bytes.len() {
            return Err(FrameError::Malformed("the frame goes on behind the end of what was written"));
        }
        Ok(header)
    }

    fn pass(&mut self, header: FrameHeader) -> Lying {
        let at = self.at;
        self.at += header.frame_bytes as usize;
        self.expected = Some(header.next());
        Lying::Frame(at, header)
    }

    fn bad(&mut self, why: FrameError, behind: Option<(usize, FrameHeader)>) -> Lying {
        let at = self.at;
        self.at = behind.map_or(self.bytes.len(), |(at, _)| at);
        self.expected = None;
        Lying::Bad(Bad { at, end: self.at, why, next: behind.map(|(_, header)| header.first) })
    }
}

impl Iterator for Frames<'_> {
    type Item = Lying;

    fn next(&mut self) -> Option<Lying> {
        if self.at >= self.bytes.len() {
            return None;
        }
        Some(match self.look() {
            Ok(header) => self.pass(header),
            Err(why) => {
                let least = self.expected.unwrap_or(SequenceIndex::ZERO);
                self.bad(why, intact_frame(self.bytes, self.at + 1, self.log, least))
            }
        })
    }
}

//! Makes the pages of a segment ready ahead of who walks over them, so that one that the disk cannot give is an error of this
//! walk, and not the end of the process ([`crate::disk::DiskFile::ready`]).

use super::OpenSegment;
use crate::error::Result;

/// Made ready at a time: few calls for who reads on, little that is read in vain for who does not.
const STEP: usize = 256 << 10;

/// A stretch of a segment, ready as far as it was asked for.
pub(crate) struct Pages<'a> {
    open: &'a OpenSegment,
    offset: u64,
    bytes: usize,
    ready: usize,
    /// How much more than asked for: nothing once that has failed, or a disk that tries for seconds would be asked again and again.
    ahead: usize,
}

impl<'a> Pages<'a> {
    /// Nothing of these bytes is ready.
    pub(crate) fn new(open: &'a OpenSegment, offset: u64, bytes: usize) -> Self {
        Self { open, offset, bytes, ready: 0, ahead: STEP }
    }

    /// Makes everything before `end` ready, which may lie behind the last byte, and some more.
    pub(crate) fn up_to(&mut self, end: usize) -> Result<()> {
        let end = end.min(self.bytes);
        if end <= self.ready {
            return Ok(());
        }
        let at = self.offset + self.ready as u64;
        let more = end.max(self.ready.saturating_add(self.ahead)).min(self.bytes);
        match self.open.ready(at, more - self.ready) {
            Ok(()) => self.ready = more,
            Err(error) if more == end => return Err(error),
            Err(_) => {
                self.ahead = 0;
                self.open.ready(at, end - self.ready)?;
                self.ready = end;
            }
        }
        Ok(())
    }
}

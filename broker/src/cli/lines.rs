//! Lines of bytes from a reader, each bounded, so that input without line ends cannot fill memory.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it; it need not be UTF-8.
    Whole(Vec<u8>),
    /// It was longer than allowed and has been skipped.
    TooLong,
}

/// Reads lines of at most `bytes_max` bytes.
pub(super) struct Lines<R> {
    reader: R,
    bytes_max: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, bytes_max }
    }

    /// The next line, or nothing at the end. What follows the last line end is a line if it is not empty.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let (mut begun, mut too_long) = (false, false);
        loop {
            let buffer = self.reader.fill_buf().await?;
            if buffer.is_empty() && !begun {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= line.len() + part.len() > self.bytes_max;
            if too_long {
                line = Vec::new();
            } else {
                line.extend_from_slice(part);
            }
            let ended = end.is_some() || buffer.is_empty();
            let taken = part.len() + usize::from(end.is_some());
            self.reader.consume(taken);
            begun = true;
            if ended {
                return Ok(Some(if too_long { Line::TooLong } else { Line::Whole(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn lines(text: &[u8], buffer: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text), 4);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_long_ones_are_skipped_whole() {
        let whole = |text: &[u8]| Line::Whole(text.to_vec());
        for buffer in [1, 2, 3, 5, 100] {
            let found = lines(b"one\n\n\xff\xfe\r\n12345\n1234\nend", buffer).await;
            let expected = [
                whole(b"one"),
                whole(b""),
                whole(b"\xff\xfe\r"),
                Line::TooLong,
                whole(b"1234"),
                whole(b"end"),
            ];
            assert_eq!(found, expected, "buffer of {buffer}");
        }
        assert_eq!(lines(b"", 8).await, []);
        assert_eq!(lines(b"\n", 8).await, [whole(b"")]);
        assert_eq!(lines(b"123456789", 2).await, [Line::TooLong]);
    }
}

//! A byte buffer whose memory begins at a multiple of [`ALIGNMENT`], as writes past the page cache need it.
//!
//! It owns a vector with room to spare and starts inside of it; only growing moves the bytes, to a vector with its own start.

use super::ALIGNMENT;

/// A growable byte buffer, aligned in memory. Kept and refilled by whoever writes, so that it is allocated once.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// An empty buffer that takes `bytes` before it grows.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(bytes + ALIGNMENT);
        let start = memory.as_ptr().addr().next_multiple_of(ALIGNMENT) - memory.as_ptr().addr();
        memory.resize(start, 0);
        Self { memory, start }
    }
    /// Empties it; the memory stays.
    pub fn clear(&mut self) {
        self.memory.truncate(self.start);
    }
    /// Bytes within.
    pub fn len(&self) -> usize {
        self.memory.len() - self.start
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Adds bytes at the end.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.memory.extend_from_slice(bytes);
    }
    /// Adds zeros at the end.
    pub fn extend_zeros(&mut self, bytes: usize) {
        self.reserve(bytes);
        self.memory.resize(self.memory.len() + bytes, 0);
    }
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..]
    }
    /// The bytes, to change them.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
    /// Fills with zeros up to a multiple of [`ALIGNMENT`].
    pub fn pad_to_alignment(&mut self) {
        self.extend_zeros(self.len().next_multiple_of(ALIGNMENT) - self.len());
    }

    /// Makes sure that `more` bytes fit without the vector moving them by itself, which would lose the alignment.
    fn reserve(&mut self, more: usize) {
        if self.memory.capacity() - self.memory.len() >= more {
            return;
        }
        let mut grown = Self::with_capacity((self.len() + more).max(self.len() * 2).max(ALIGNMENT));
        grown.memory.extend_from_slice(self.as_slice());
        *self = grown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(buffer: &AlignedBuffer) -> bool {
        buffer.as_slice().as_ptr().addr().is_multiple_of(ALIGNMENT)
    }

    #[test]
    fn growing_keeps_the_bytes_and_the_alignment() {
        for capacity in [0, 1, 100, ALIGNMENT, 3 * ALIGNMENT] {
            let mut buffer = AlignedBuffer::with_capacity(capacity);
            let mut expected = Vec::new();
            for round in 0..200u32 {
                let piece = vec![round as u8; (round * 7) as usize];
                buffer.extend_from_slice(&piece);
                expected.extend_from_slice(&piece);
                assert!(is_aligned(&buffer));
                assert_eq!(buffer.as_slice(), expected);
            }
        }
        let mut buffer = AlignedBuffer::default();
        buffer.extend_from_slice(b"made without a capacity");
        assert!(is_aligned(&buffer));
    }

    #[test]
    fn padding_fills_with_zeros_to_the_next_multiple_and_no_further() {
        let mut buffer = AlignedBuffer::with_capacity(10);
        buffer.pad_to_alignment();
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&[1; 10]);
        buffer.pad_to_alignment();
        assert_eq!(buffer.len(), ALIGNMENT);
        assert!(buffer.as_slice()[10..].iter().all(|byte| *byte == 0));
        buffer.pad_to_alignment();
        assert_eq!(buffer.len(), ALIGNMENT);
        buffer.clear();
        buffer.extend_from_slice(&[2; 5]);
        buffer.pad_to_alignment();
        assert_eq!(&buffer.as_slice()[..6], &[2, 2, 2, 2, 2, 0]);
        buffer.as_mut_slice()[0] = 9;
        assert_eq!(buffer.as_slice()[0], 9);
        assert!(is_aligned(&buffer));
    }
}

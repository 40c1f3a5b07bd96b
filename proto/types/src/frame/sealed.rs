//! Sealed frames: the body is ciphertext. Here is only where its parts lie; ciphers and keys are the broker's.
//!
//! ```text
//!  offset size   body of a frame with attribute bit 0
//!   0     4      number of the stream's data key
//!   4    16      salt: drawn whenever a broker begins to seal with the data key
//!  20     8      number: counts the frames sealed under this salt
//!  28            ciphertext of the plain body, as long as that
//!  end-16 16     tag
//! ```
//!
//! These bytes outlive the process: FORMAT.md describes them. Producers never send and readers never get them.

use super::{Frame, FrameHeader};
use bytes::{BufMut, BytesMut};

/// Bytes in front of the ciphertext.
const PREFIX_BYTES: usize = 28;
const TAG_BYTES: usize = 16;
/// Bytes by which sealing makes a frame longer.
pub(crate) const SEALED_EXTRA_BYTES: usize = PREFIX_BYTES + TAG_BYTES;

/// Which key a body is sealed with, and what makes the use of it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sealing {
    /// Which data key of the stream.
    pub data_key: u32,
    /// Random; together with the data key it names the key of the cipher.
    pub salt: [u8; 16],
    /// Never used twice with one salt.
    pub number: u64,
}

/// A sealed body, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// How it was sealed.
    pub sealing: Sealing,
    /// As long as the plain body.
    pub ciphertext: &'a [u8],
    /// What proves it authentic.
    pub tag: &'a [u8; TAG_BYTES],
}

impl Frame {
    /// This frame with its body sealed: `encrypt` turns the plain bytes into ciphertext in place and returns the tag.
    pub fn seal<E>(
        &self,
        sealing: Sealing,
        encrypt: impl FnOnce(&mut [u8]) -> Result<[u8; TAG_BYTES], E>,
    ) -> Result<Self, E> {
        assert!(!self.header.is_sealed(), "a frame is sealed once");
        let plain = &self.bytes[FrameHeader::BYTES..];
        let mut buffer = BytesMut::with_capacity(self.bytes.len() + SEALED_EXTRA_BYTES);
        buffer.put_bytes(0, FrameHeader::BYTES);
        buffer.put_u32_le(sealing.data_key);
        buffer.put_slice(&sealing.salt);
        buffer.put_u64_le(sealing.number);
        buffer.put_slice(plain);
        let tag = encrypt(&mut buffer[FrameHeader::BYTES + PREFIX_BYTES..])?;
        buffer.put_slice(&tag);
        Ok(Self::rebuilt(FrameHeader { attributes: FrameHeader::SEALED, ..self.header }, buffer))
    }

    /// The parts of a sealed body; none if the frame is not sealed.
    pub fn sealed(&self) -> Option<Sealed<'_>> {
        if !self.header.is_sealed() {
            return None;
        }
        let body = &self.bytes[FrameHeader::BYTES..];
        let (data_key, rest) = body.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        let (data_key, number) = (u32::from_le_bytes(*data_key), u64::from_le_bytes(*number));
        Some(Sealed { sealing: Sealing { data_key, salt: *salt, number }, ciphertext, tag })
    }

    /// The plain frame that `sealed`, the parts of this one, was made from, under the same numbers: `decrypt` fills in
    /// the plain body, as long as the ciphertext.
    pub fn open<E>(
        &self,
        sealed: &Sealed<'_>,
        decrypt: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut buffer = BytesMut::zeroed(FrameHeader::BYTES + sealed.ciphertext.len());
        decrypt(&mut buffer[FrameHeader::BYTES..])?;
        Ok(Self::rebuilt(FrameHeader { attributes: 0, ..self.header }, buffer))
    }

    /// A frame over `buffer`, which has room for the header in front; length and checksums are made anew.
    fn rebuilt(header: FrameHeader, mut buffer: BytesMut) -> Self {
        let header = FrameHeader {
            frame_bytes: u32::try_from(buffer.len()).expect("bounded by the size of a stored frame"),
            body_crc: crc32fast::hash(&buffer[FrameHeader::BYTES..]),
            ..header
        };
        buffer[..FrameHeader::BYTES].copy_from_slice(&header.encode());
        Self { header, bytes: buffer.freeze() }
    }
}

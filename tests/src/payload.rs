//! Payloads that tell who they are and that they are whole: `id length filler`, all ASCII, without line ends.

use anyhow::{Context, Result, ensure};

/// Bytes of the head: two numbers of 16 and 8 hexadecimal digits, each with a space.
const HEAD: usize = 26;
/// Bytes of filler that every payload has, so that a changed id is noticed.
const FILLER_MIN: usize = 8;

/// The payload `id` of `bytes` bytes, at least 34.
pub fn payload(id: u64, bytes: usize) -> Vec<u8> {
    let bytes = bytes.max(HEAD + FILLER_MIN);
    let mut data = format!("{id:016x} {bytes:08x} ").into_bytes();
    // xorshift; the state must not be zero
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.push(b'a' + u8::try_from(state % 26).expect("below 26"));
    }
    data
}

/// The id of a payload; an error when any byte is not as it was made.
pub fn id_of(data: &[u8]) -> Result<u64> {
    let head =
        data.get(..HEAD).and_then(|head| std::str::from_utf8(head).ok()).context("a payload has a head")?;
    let id = u64::from_str_radix(&head[..16], 16).context("the id of a payload")?;
    let bytes = usize::from_str_radix(&head[17..25], 16).context("the length of a payload")?;
    ensure!(bytes == data.len(), "payload {id:x} has {} bytes instead of {bytes}", data.len());
    ensure!(payload(id, bytes) == data, "payload {id:x} is not as it was made");
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_was_changed_is_noticed() {
        for bytes in [0, 34, 35, 5000] {
            let data = payload(7, bytes);
            assert_eq!(id_of(&data).unwrap(), 7);
            for place in [0, 18, data.len() - 1] {
                let mut changed = data.clone();
                changed[place] ^= 1;
                assert!(id_of(&changed).is_err(), "{bytes} {place}");
            }
            assert!(id_of(&data[..data.len() - 1]).is_err());
        }
    }
}

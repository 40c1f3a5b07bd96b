//! Tokens that clients hand back: shard iterators and page tokens. Self-contained, so that they survive a restart and
//! mean the same on every node; authenticated with a key of the data directory, so that only what the broker wrote is
//! believed; bound to the account and the incarnation of the stream, so that they die with it.
//!
//! ```text
//!  base64( version 2, kind 1, fields…, first 16 bytes of HMAC-SHA256(key, all before) )
//!  integers big-endian; a name is its length in one byte and its characters; an account is twelve digits
//! ```
//!
//! A token that does not verify is told apart from one that is too old: see [`TokenError`]. Tokens are not secret.

use super::error::{ApiError, Code};
use super::listing::ShardFilter;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::atomic::{AtomicU32, Ordering};
use tidemill_types::{
    AccountId, ConsumerName, SequenceIndex, ShardId, StreamIncarnation, StreamKey, StreamName, TimestampMs,
};

/// How long a token is good (Kinesis).
pub(crate) const TOKEN_LIFE_MS: u64 = 300_000;

const VERSION: u8 = 2;
const MAC_BYTES: usize = 16;
/// Longest token that is looked at, in base64 characters.
const TOKEN_CHARS_MAX: usize = 512;

/// The kind byte of each token; never used again for another meaning.
mod kind {
    pub(super) const SHARD_ITERATOR: u8 = 1;
    pub(super) const STREAM_PAGE: u8 = 2;
    pub(super) const SHARD_PAGE: u8 = 3;
    pub(super) const CONSUMER_PAGE: u8 = 4;
}

/// A place in a shard, as a client carries it from read to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardIterator {
    pub(crate) stream: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) shard: ShardId,
    /// The next record to read.
    pub(crate) index: SequenceIndex,
    pub(crate) minted: TimestampMs,
}

/// Where the next page of ListStreams begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPageToken {
    /// The last stream shown, and whose list it is.
    pub(crate) after: StreamKey,
    pub(crate) minted: TimestampMs,
}

/// Where the next page of ListShards begins, and of which selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardPageToken {
    pub(crate) stream: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) after: ShardId,
    pub(crate) filter: ShardFilter,
    pub(crate) minted: TimestampMs,
}

/// Where the next page of ListStreamConsumers begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerPageToken {
    pub(crate) stream: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) after: ConsumerName,
    pub(crate) minted: TimestampMs,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// This broker did not write it, or it was changed.
    Invalid,
    /// It was written longer ago than [`TOKEN_LIFE_MS`], at this time.
    Expired(TimestampMs),
}

impl TokenError {
    /// As GetRecords tells it.
    pub(crate) fn of_iterator(self, now: TimestampMs) -> ApiError {
        match self {
            Self::Invalid => ApiError::invalid("Invalid ShardIterator."),
            Self::Expired(minted) => ApiError::new(
                Code::ExpiredIterator,
                format!(
                    "Iterator expired. The iterator was created at time {} while right now it is {} which is \
                     further in the future than the tolerated delay of {TOKEN_LIFE_MS} milliseconds.",
                    java_date(minted),
                    java_date(now)
                ),
            ),
        }
    }
    /// As the listing operations tell it.
    pub(crate) fn of_page(self) -> ApiError {
        match self {
            Self::Invalid => ApiError::invalid("Invalid NextToken."),
            Self::Expired(_) => ApiError::new(
                Code::ExpiredNextToken,
                format!("The NextToken is older than {TOKEN_LIFE_MS} milliseconds. List again without it."),
            ),
        }
    }
    /// As the listing operations tell that the stream of a token is gone, and another has its name.
    pub(crate) fn of_earlier_stream(key: &StreamKey) -> ApiError {
        ApiError::new(
            Code::ExpiredNextToken,
            format!("The NextToken is of an earlier stream named {}. List again without it.", key.name),
        )
    }
}

type Result<T> = std::result::Result<T, TokenError>;

/// Writes and reads tokens with the key of one data directory.
pub(crate) struct Tokens {
    mac: Hmac<Sha256>,
    /// Part of each iterator, so that no two are the same, even of one place and one millisecond: a client that polls
    /// at the tip may take the same iterator for a standstill.
    minted: AtomicU32,
}

impl Tokens {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut mac = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(b"tidemill kinesis token");
        Self { mac, minted: AtomicU32::new(0) }
    }

    pub(crate) fn seal_iterator(&self, iterator: &ShardIterator) -> String {
        let mut token = TokenWriter::new(kind::SHARD_ITERATOR);
        token.stream(&iterator.stream);
        token.u64(iterator.incarnation.get());
        token.u32(iterator.shard.get());
        token.u64(iterator.index.get());
        token.u64(iterator.minted.get());
        token.u32(self.minted.fetch_add(1, Ordering::Relaxed));
        self.seal(token)
    }
    pub(crate) fn open_iterator(&self, text: &str, now: TimestampMs) -> Result<ShardIterator> {
        self.open(text, kind::SHARD_ITERATOR, |token| {
            let stream = token.stream()?;
            let incarnation = StreamIncarnation::new(token.u64()?);
            let (shard, index) = (token.shard()?, SequenceIndex::new(token.u64()?).ok()?);
            let minted = token.time()?;
            token.u32()?; // tells it from others of this moment, and nothing else
            Some(ShardIterator { stream, incarnation, shard, index, minted })
        })
        .and_then(|iterator| fresh(iterator.minted, now).map(|()| iterator))
    }

    pub(crate) fn seal_stream_page(&self, page: &StreamPageToken) -> String {
        let mut token = TokenWriter::new(kind::STREAM_PAGE);
        token.stream(&page.after);
        token.u64(page.minted.get());
        self.seal(token)
    }
    pub(crate) fn open_stream_page(&self, text: &str, now: TimestampMs) -> Result<StreamPageToken> {
        self.open(text, kind::STREAM_PAGE, |token| {
            Some(StreamPageToken { after: token.stream()?, minted: token.time()? })
        })
        .and_then(|page| fresh(page.minted, now).map(|()| page))
    }

    pub(crate) fn seal_shard_page(&self, page: &ShardPageToken) -> String {
        let mut token = TokenWriter::new(kind::SHARD_PAGE);
        token.stream(&page.stream);
        token.u64(page.incarnation.get());
        token.u32(page.after.get());
        let (filter, argument) = page.filter.to_stored();
        token.u8(filter);
        token.u64(argument);
        token.u64(page.minted.get());
        self.seal(token)
    }
    pub(crate) fn open_shard_page(&self, text: &str, now: TimestampMs) -> Result<ShardPageToken> {
        self.open(text, kind::SHARD_PAGE, |token| {
            let (stream, incarnation) = (token.stream()?, StreamIncarnation::new(token.u64()?));
            let after = token.shard()?;
            let filter = ShardFilter::from_stored(token.u8()?, token.u64()?)?;
            Some(ShardPageToken { stream, incarnation, after, filter, minted: token.time()? })
        })
        .and_then(|page| fresh(page.minted, now).map(|()| page))
    }

    pub(crate) fn seal_consumer_page(&self, page: &ConsumerPageToken) -> String {
        let mut token = TokenWriter::new(kind::CONSUMER_PAGE);
        token.stream(&page.stream);
        token.u64(page.incarnation.get());
        token.name(page.after.as_str());
        token.u64(page.minted.get());
        self.seal(token)
    }
    pub(crate) fn open_consumer_page(&self, text: &str, now: TimestampMs) -> Result<ConsumerPageToken> {
        self.open(text, kind::CONSUMER_PAGE, |token| {
            let (stream, incarnation) = (token.stream()?, StreamIncarnation::new(token.u64()?));
            let after = ConsumerName::new(token.name()?).ok()?;
            Some(ConsumerPageToken { stream, incarnation, after, minted: token.time()? })
        })
        .and_then(|page| fresh(page.minted, now).map(|()| page))
    }

    fn seal(&self, token: TokenWriter) -> String {
        let mut bytes = token.0;
        let tag = self.mac.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..MAC_BYTES]);
        base64_simd::STANDARD.encode_to_string(bytes)
    }

    /// Verifies a token of the kind and reads its fields, all of them.
    fn open<T>(&self, text: &str, kind: u8, read: impl Fn(&mut TokenReader<'_>) -> Option<T>) -> Result<T> {
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Invalid);
        }
        let bytes = base64_simd::STANDARD.decode_to_vec(text).map_err(|_| TokenError::Invalid)?;
        let (fields, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(TokenError::Invalid)?;
        let verified = self.mac.clone().chain_update(fields).verify_truncated_left(tag);
        match (verified, fields) {
            (Ok(()), [VERSION, found, rest @ ..]) if *found == kind => {
                let mut token = TokenReader(rest);
                read(&mut token).filter(|_| token.0.is_empty()).ok_or(TokenError::Invalid)
            }
            _ => Err(TokenError::Invalid),
        }
    }
}

fn fresh(minted: TimestampMs, now: TimestampMs) -> Result<()> {
    let oldest = now.saturating_sub_ms(TOKEN_LIFE_MS);
    if minted < oldest { Err(TokenError::Expired(minted)) } else { Ok(()) }
}

struct TokenWriter(Vec<u8>);

impl TokenWriter {
    fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn name(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).expect("a name has at most 128 bytes"));
        self.0.extend_from_slice(text.as_bytes());
    }
    fn stream(&mut self, key: &StreamKey) {
        self.0.extend_from_slice(key.account.as_str().as_bytes());
        self.name(key.name.as_str());
    }
}

struct TokenReader<'a>(&'a [u8]);

impl<'a> TokenReader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }
    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_be_bytes)
    }
    fn text(&mut self, length: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(length)?).ok()
    }
    fn name(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        self.text(length)
    }
    fn stream(&mut self) -> Option<StreamKey> {
        const ACCOUNT_BYTES: usize = 12;
        let account = AccountId::new(self.text(ACCOUNT_BYTES)?).ok()?;
        Some(StreamKey::new(account, StreamName::new(self.name()?).ok()?))
    }
    fn shard(&mut self) -> Option<ShardId> {
        ShardId::new(self.u32()?).ok()
    }
    fn time(&mut self) -> Option<TimestampMs> {
        self.u64().map(TimestampMs::new)
    }
}

/// A time as Java's `Date` prints it in UTC: `Thu Jan 22 01:22:02 UTC 2015`.
fn java_date(time: TimestampMs) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // the epoch was a Thursday
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let (days, second) = (time.seconds() / 86_400, time.seconds() % 86_400);
    // 400 Gregorian years have 146,097 days
    let mut year = 1970 + days / 146_097 * 400;
    let mut left = days % 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let length = |month: usize, year| MONTHS[month].1 + u64::from(month == 1 && leap(year));
    while left >= length(month, year) {
        left -= length(month, year);
        month += 1;
    }
    let weekday = DAYS[usize::try_from(days % 7).expect("a remainder of 7 is small")];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday} {} {:02} {hour:02}:{minute:02}:{second:02} UTC {year}", MONTHS[month].0, left + 1)
}

#[cfg(test)]
mod tests;

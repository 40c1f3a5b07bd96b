//! The aggregated record of the Kinesis Producer Library: many user records in the data of one record of a stream.
//!
//! Why: the KPL, the KCL and the aggregation libraries of other languages exchange it, so what is packed here they can
//! read, and what they packed is read here. How it lies in the record's data:
//!
//! ```text
//!  F3 89 9A C2 | body: a protobuf (proto2) message | MD5 of the body, 16 bytes
//!
//!  body:   1 repeated string  partition keys         record:  1 required uint64  index of its partition key
//!          2 repeated string  explicit hash keys              2 optional uint64  index of its explicit hash key
//!          3 repeated message records                         3 required bytes   data
//!                                                             4 repeated message tags; nobody writes them
//! ```
//!
//! [`pack`] and [`unpack`] are pure. What does not follow the format is no error but a plain record, as for the KCL.
//! What this does not do: decide which records travel together (the producer's aggregator), or which of them belong to
//! a shard (the consumer's).

mod size;
mod wire;

pub use size::PackedSize;

#[cfg(test)]
mod tests;

use crate::{Error, Result};
use bytes::Bytes;
use md5::{Digest, Md5};
use std::collections::HashMap;
use std::ops::Range;
use tidemill_types::limits::RECORD_DATA_BYTES_MAX;
use tidemill_types::{HashKey, PartitionKey, Record};
use wire::{Field, Malformed, Value, fields, put_bytes, put_varint};

/// What the data of an aggregated record starts with.
pub const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
/// The MD5 of the body, behind it.
const DIGEST_BYTES: usize = 16;
/// The partition key of a record that holds several: a constant, as its explicit hash key routes it.
const OUTER_KEY: &str = "a";

const BODY_KEYS: u64 = 1;
const BODY_HASHES: u64 = 2;
const BODY_RECORDS: u64 = 3;
const RECORD_KEY: u64 = 1;
const RECORD_HASH: u64 = 2;
const RECORD_DATA: u64 = 3;

/// The record of a stream that carries `records`, in their order. It goes where the first of them would go, so all of
/// them must be meant for one shard.
///
/// A single record travels as it is, its hash key written out, unless its own data would be taken for an aggregate. An
/// error when there are none, or when together they are larger than a record may be (10 MiB).
pub fn pack(records: &[Record]) -> Result<Record> {
    let Some(first) = records.first() else {
        return Err(Error::invalid("an aggregated record holds at least one record"));
    };
    let hash = first.hash_key();
    if records.len() == 1 && unpack(first.data()).is_none() {
        return Ok(first.clone().with_explicit_hash(hash));
    }
    let body = body_of(records);
    let mut data = Vec::with_capacity(MAGIC.len() + body.len() + DIGEST_BYTES);
    data.extend_from_slice(&MAGIC);
    data.extend_from_slice(&body);
    data.extend_from_slice(&Md5::digest(&body));
    Ok(Record::new(PartitionKey::new(OUTER_KEY)?, data)?.with_explicit_hash(hash))
}

/// The records in the data of an aggregated record, or nothing when it is a plain one: it does not start with the magic,
/// its MD5 is wrong, or its body is not what the format says.
///
/// A body with one record out of place, such as an index without a key, is a plain record as a whole, so that nothing in
/// it is lost; the KCL drops the records from there on. Works on any bytes, in memory of a small multiple of their size.
pub fn unpack(data: &Bytes) -> Option<UserRecords> {
    let inner = data.strip_prefix(&MAGIC)?;
    let body_bytes = inner.len().checked_sub(DIGEST_BYTES).filter(|bytes| *bytes > 0)?;
    let (body, digest) = inner.split_at(body_bytes);
    if digest != Md5::digest(body).as_slice() {
        return None;
    }
    UserRecords::of(data.slice_ref(body)).ok()
}

/// The records of an aggregated record, in their order; made by [`unpack`]. The position of each is its sub-sequence
/// number. They share the memory of the record that they came in.
#[derive(Debug, Clone)]
pub struct UserRecords {
    body: Bytes,
    keys: Vec<Range<u32>>,
    hashes: Vec<HashKey>,
    at: usize,
    left: usize,
}

impl UserRecords {
    /// Checks all of a body, so that nothing is left to go wrong while iterating.
    fn of(body: Bytes) -> std::result::Result<Self, Malformed> {
        // so that places fit 32 bits; no record of a stream is that large
        if u32::try_from(body.len()).is_err() {
            return Err(Malformed);
        }
        let mut all = Self { body, keys: Vec::new(), hashes: Vec::new(), at: 0, left: 0 };
        for field in fields(&all.body) {
            let Field { number, value: Value::Bytes(range) } = field? else { continue };
            match number {
                BODY_KEYS => {
                    PartitionKey::check(text(&all.body, &range)?).map_err(|_| Malformed)?;
                    let place = |at| u32::try_from(at).map_err(|_| Malformed);
                    all.keys.push(place(range.start)?..place(range.end)?);
                }
                BODY_HASHES => all.hashes.push(hash_key(text(&all.body, &range)?)?),
                BODY_RECORDS => all.left += 1,
                _ => {}
            }
        }
        // the tables may lie behind records
        let mut at = 0;
        for _ in 0..all.left {
            all.record(&mut at)?;
        }
        Ok(all)
    }

    /// The record at or behind `at`, which moves behind it.
    fn record(&self, at: &mut usize) -> std::result::Result<Parts, Malformed> {
        let mut walk = fields(&self.body[*at..]);
        loop {
            let Field { number, value } = walk.next().ok_or(Malformed)??;
            if let (BODY_RECORDS, Value::Bytes(range)) = (number, value) {
                let parts = self.parts(*at + range.start..*at + range.end)?;
                *at += walk.at();
                return Ok(parts);
            }
        }
    }

    fn parts(&self, place: Range<usize>) -> std::result::Result<Parts, Malformed> {
        let (mut key, mut hash, mut data) = (None, None, None);
        for field in fields(&self.body[place.clone()]) {
            match field? {
                Field { number: RECORD_KEY, value: Value::Varint(index) } => key = Some(index),
                Field { number: RECORD_HASH, value: Value::Varint(index) } => hash = Some(index),
                Field { number: RECORD_DATA, value: Value::Bytes(range) } => data = Some(range),
                _ => {}
            }
        }
        let (key, data) = (key.ok_or(Malformed)?, data.ok_or(Malformed)?);
        let hash = hash.map(|index| entry(&self.hashes, index).copied()).transpose()?;
        if data.len() > RECORD_DATA_BYTES_MAX {
            return Err(Malformed);
        }
        let data = place.start + data.start..place.start + data.end;
        Ok(Parts { key: entry(&self.keys, key)?.clone(), hash, data })
    }

    fn made(&self, parts: Parts) -> Record {
        let key = parts.key.start as usize..parts.key.end as usize;
        let key = text(&self.body, &key).ok().and_then(|key| PartitionKey::new(key).ok());
        let key = key.expect("checked when the records were unpacked");
        let record = Record::new(key, self.body.slice(parts.data)).expect("likewise");
        match parts.hash {
            Some(hash) => record.with_explicit_hash(hash),
            None => record,
        }
    }
}

impl Iterator for UserRecords {
    type Item = Record;
    fn next(&mut self) -> Option<Record> {
        self.left = self.left.checked_sub(1)?;
        let mut at = self.at;
        let parts = self.record(&mut at).expect("checked when the records were unpacked");
        self.at = at;
        Some(self.made(parts))
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for UserRecords {}

/// Where the parts of a record lie in the body.
struct Parts {
    key: Range<u32>,
    hash: Option<HashKey>,
    data: Range<usize>,
}

fn entry<T>(table: &[T], index: u64) -> std::result::Result<&T, Malformed> {
    usize::try_from(index).ok().and_then(|index| table.get(index)).ok_or(Malformed)
}

fn text<'a>(body: &'a [u8], range: &Range<usize>) -> std::result::Result<&'a str, Malformed> {
    std::str::from_utf8(&body[range.clone()]).map_err(|_| Malformed)
}

/// Other writers may put zeros in front.
fn hash_key(digits: &str) -> std::result::Result<HashKey, Malformed> {
    match digits.bytes().all(|digit| digit.is_ascii_digit()) {
        true => digits.parse().map(HashKey::new).map_err(|_| Malformed),
        false => Err(Malformed),
    }
}

/// Keys once each, in the order of their first use, then the records.
fn body_of(records: &[Record]) -> Vec<u8> {
    let (mut keys, mut hashes) = (Table::default(), Table::default());
    let mut inner = Vec::new();
    let mut entries = Vec::new();
    for record in records {
        inner.clear();
        put_varint(&mut inner, RECORD_KEY, keys.index_of(record.key().as_str()));
        if let Some(hash) = record.explicit_hash() {
            put_varint(&mut inner, RECORD_HASH, hashes.index_of(&hash.to_string()));
        }
        put_bytes(&mut inner, RECORD_DATA, record.data());
        put_bytes(&mut entries, BODY_RECORDS, &inner);
    }
    let mut body = Vec::with_capacity(entries.len());
    keys.entries.iter().for_each(|key| put_bytes(&mut body, BODY_KEYS, key.as_bytes()));
    hashes.entries.iter().for_each(|hash| put_bytes(&mut body, BODY_HASHES, hash.as_bytes()));
    body.append(&mut entries);
    body
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<String>,
    known: HashMap<String, u64>,
}

impl Table {
    fn index_of(&mut self, entry: &str) -> u64 {
        if let Some(index) = self.known.get(entry) {
            return *index;
        }
        let index = self.entries.len() as u64;
        self.entries.push(entry.to_owned());
        self.known.insert(entry.to_owned(), index);
        index
    }
}

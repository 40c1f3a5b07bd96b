//! What the fuzz targets do with their input: bytes from the network must not panic, and what is taken must be what was
//! sent.
//!
//! Two runners: the tests below with random and with mutated input, and the crate in `broker/fuzz` with libFuzzer.
//! Compiled for these two only.

use super::codec::{Encoding, Node};
use super::iterator::{ShardIterator, TOKEN_LIFE_MS, Tokens};
use super::shape::*;
use super::validate::Check;
use super::{error::ApiError, eventstream};
use crate::auth::Gate;
use crate::{AccessSettings, CredentialSettings, Secret};
use http::Request;
use tidemill_engine::ReadRecord;
use tidemill_types::{
    AccountId, Region, SequenceIndex, SequenceNumber, ShardId, StreamIncarnation, StreamKey, StreamName,
    TimestampMs,
};

const NOW: TimestampMs = TimestampMs::new(1_704_164_645_000);

/// A JSON body as the input of every operation.
pub fn json(input: &[u8]) {
    body(Encoding::Json, input);
}

/// A CBOR body as the input of every operation.
pub fn cbor(input: &[u8]) {
    body(Encoding::Cbor, input);
}

fn body(encoding: Encoding, bytes: &[u8]) {
    let Ok(tree) = encoding.decode(bytes) else { return };
    assert!(matches!(tree, Node::Map(_)), "a request is a structure");
    macro_rules! each {
        ($($input:ident)*) => { $( read::<$input>(encoding, tree.clone()); )* };
    }
    each! {
        AddTagsToStreamInput ConsumerInput CreateStreamInput DeleteStreamInput DescribeStreamInput
        DescribeStreamSummaryInput EncryptionInput GetRecordsInput GetShardIteratorInput ListShardsInput
        ListStreamConsumersInput ListStreamsInput ListTagsForStreamInput MergeShardsInput MonitoringInput
        NoInput PutRecordInput PutRecordsInput PutResourcePolicyInput RegisterStreamConsumerInput
        RemoveTagsFromStreamInput ResourceInput RetentionInput SplitShardInput SubscribeToShardInput
        TagResourceInput UntagResourceInput UpdateAccountSettingsInput UpdateDistributionInput
        UpdateMaxRecordSizeInput UpdateShardCountInput UpdateStreamModeInput UpdateStreamWarmThroughputInput
    }
}

/// Reads one input, judges it, and renders what is wrong with it in the encoding it came in.
fn read<I: Input>(encoding: Encoding, tree: Node<'_>) {
    let outcome = tree.into_fields(encoding).and_then(|mut fields| I::read(&mut fields));
    let error: Option<ApiError> = outcome.and_then(|input| Check::all(&input)).err();
    if let Some(error) = error {
        let told = encoding.encode_error(&error);
        assert!(encoding.decode(&told).is_ok(), "an error is told in the encoding of the request");
    }
}

/// The first two lines are the path and the `Authorization` header, the next ones headers, the rest is the body.
pub fn signature(input: &[u8]) {
    let gate = gate();
    let mut lines = input.splitn(7, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let path = String::from_utf8_lossy(line()).into_owned();
    let mut request = Request::post(path);
    for name in ["authorization", "x-amz-date", "x-amz-security-token", "host", "x-amz-content-sha256"] {
        let value = line();
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    let told = gate.verify(&parts, line(), NOW);
    assert!(told.is_err(), "nobody signs by chance");
    let _ = gate.verify_basic(&parts.headers, NOW);
    let _ = Gate::open(account(), region()).verify(&parts, b"", NOW);
}

fn account() -> AccountId {
    AccountId::new("000000000000").expect("twelve digits")
}

fn region() -> Region {
    Region::new("us-east-1").expect("a valid name")
}

fn gate() -> Gate {
    let credential = CredentialSettings {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Secret::new("never signs anything here".to_owned()),
        session_token: None,
        expires: None,
        name: None,
        account: None,
        policies: Vec::new(),
    };
    let access = AccessSettings { credentials: vec![credential], ..AccessSettings::default() };
    Gate::new(&access, account(), region()).expect("the settings are right")
}

/// A text as each kind of token; and a token of ours with the input laid over it.
pub fn iterator(input: &[u8]) {
    let tokens = Tokens::new(&[7; 32]);
    let text = String::from_utf8_lossy(input);
    assert!(tokens.open_iterator(&text, NOW).is_err(), "nobody makes a token by chance");
    let _ = tokens.open_stream_page(&text, NOW);
    let _ = tokens.open_shard_page(&text, NOW);
    let _ = tokens.open_consumer_page(&text, NOW);
    let made = ShardIterator {
        stream: StreamKey::new(account(), StreamName::new("stream").expect("a valid name")),
        incarnation: StreamIncarnation::new(3),
        shard: ShardId::new(9).expect("a small number"),
        index: SequenceIndex::new(77).expect("a small number"),
        minted: NOW,
    };
    let sealed = tokens.seal_iterator(&made);
    assert_eq!(tokens.open_iterator(&sealed, NOW), Ok(made));
    let late = TimestampMs::new(NOW.get() + TOKEN_LIFE_MS + 1);
    assert!(tokens.open_iterator(&sealed, late).is_err());
    let mut changed = sealed.clone().into_bytes();
    for (place, byte) in input.iter().enumerate().take(changed.len()) {
        changed[place] ^= byte;
    }
    if changed != sealed.as_bytes()
        && let Ok(text) = String::from_utf8(changed)
    {
        assert!(tokens.open_iterator(&text, NOW).is_err(), "a changed token is refused");
    }
}

/// The input as key and data of records in an event; the frame reads back as what was put into it.
pub fn event_stream(input: &[u8]) {
    let (key, data) = input.split_at(input.len().min(usize::from(input.first().copied().unwrap_or(0)) + 1));
    let key = String::from_utf8_lossy(key).into_owned();
    let shard = ShardId::new(1).expect("a small number");
    let number = SequenceNumber::new(NOW, shard, SequenceIndex::new(5).expect("a small number"), NOW);
    let record = ReadRecord {
        number,
        arrival: NOW,
        key: key.clone(),
        data: data.to_vec().into(),
        encrypted: data.len().is_multiple_of(2),
    };
    let event = SubscribeToShardEvent {
        records: vec![record; 1 + key.len() % 3],
        continuation: Some(number),
        millis_behind: data.len() as u64,
        children: Vec::new(),
    };
    let frame = eventstream::event("SubscribeToShardEvent", &Encoding::Json.encode(&event));
    let payload = payload_of(&frame);
    let read: serde_json::Value = serde_json::from_slice(payload).expect("a payload is JSON");
    let records = read["Records"].as_array().expect("a list");
    assert_eq!(records.len(), 1 + key.len() % 3);
    for record in records {
        assert_eq!(record["Data"], base64_simd::STANDARD.encode_to_string(data));
        assert_eq!(record["PartitionKey"].as_str().unwrap_or_default(), key);
    }
    let told = String::from_utf8_lossy(data);
    let error = ApiError::new(super::Code::InternalFailure, told);
    let frame = eventstream::exception(error.code().name(), &Encoding::Json.encode_error(&error));
    assert!(serde_json::from_slice::<serde_json::Value>(payload_of(&frame)).is_ok());
}

/// Checks lengths and both checksums of a frame.
fn payload_of(frame: &[u8]) -> &[u8] {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    let (total, headers) = (word(0) as usize, word(4) as usize);
    assert_eq!(total, frame.len());
    assert_eq!(word(8), crc32fast::hash(&frame[..8]));
    assert_eq!(word(total - 4), crc32fast::hash(&frame[..total - 4]));
    &frame[12 + headers..total - 4]
}

/// Inputs to begin with: right ones.
pub fn examples() -> Vec<Vec<u8>> {
    let unhex = |text: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(digit).collect()
    };
    let authorization = "/\nAWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/kinesis/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=ce06bbc52a0da2dc2e4168539f938c3188f14dd8a8af44ec8fdedcf1354e4abc\n\
         20240102T030405Z\n\nlocalhost:4567\n\n{}";
    let query = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20240102%2Fus-east-1%2Fkinesis%2F\
         aws4_request&X-Amz-Date=20240102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00\n\n\n\nx";
    vec![
        br#"{"StreamName":"s1","Records":[{"Data":"aGk=","PartitionKey":"a"},{"Data":"eW8=","PartitionKey":"b","ExplicitHashKey":"0"}]}"#.to_vec(),
        br#"{"StreamName":"s","Tags":{"k":"v"},"ShardCount":2,"StreamModeDetails":{"StreamMode":"ON_DEMAND"},"Timestamp":1700000000.123}"#.to_vec(),
        br#"{"ConsumerARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1700000000","ShardId":"shardId-0","StartingPosition":{"Type":"AT_TIMESTAMP","Timestamp":1}}"#.to_vec(),
        br#"{"TagKeys":["a","b",null],"ShardFilter":{"Type":"FROM_TIMESTAMP"},"Limit":1.5,"DryRun":true}"#.to_vec(),
        unhex("bf6a53747265616d4e616d6562733164446174614268696c506172746974696f6e4b65796161ff"),
        unhex("bf675265636f7264739fbf6e53657175656e63654e756d6265726131781b417070726f78696d6174654172726976616c54696d657374616d70c11b0000018bcfe5687b64446174614268696c506172746974696f6e4b65796161ffff714e65787453686172644974657261746f7263414141724d696c6c6973426568696e644c617465737400ff"),
        authorization.as_bytes().to_vec(),
        query.as_bytes().to_vec(),
        b"AQEwMDAwMDAwMDAwMDAGc3RyZWFtAAAAAAAAAAMAAAAJAAAAAAAAAE0AAAGMyFl8iAAAAAA=".to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};
    use std::path::Path;
    use tidemill_types::{Clock, MonotonicMs, SystemClock};

    const INPUTS: usize = 4000;

    /// For longer than so many inputs take: seconds from the environment.
    fn duration() -> MonotonicMs {
        let seconds = std::env::var("TIDEMILL_FUZZ_SECONDS").ok();
        let seconds: u64 = seconds.map_or(0, |text| text.parse().expect("TIDEMILL_FUZZ_SECONDS is a number"));
        MonotonicMs::new(seconds * 1000)
    }

    /// Gives a target what is kept for it (`fuzz/corpus`), then pure chance, and examples with bytes changed, inserted, cut
    /// out and repeated.
    fn smoke(name: &str, target: fn(&[u8]), seed: u64) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        for file in kept.read_dir().unwrap_or_else(|error| panic!("{}: {error}", kept.display())) {
            let file = file.expect("a corpus is readable").path();
            target(&std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let (examples, clock, duration) = (examples(), SystemClock::new(), duration());
        for round in (0..).take_while(|round| *round < INPUTS || clock.monotonic() < duration) {
            let mut input = examples[rng.random_range(0..examples.len())].clone();
            if round % 4 == 0 {
                input = vec![0; rng.random_range(0..300)];
                rng.fill_bytes(&mut input);
            }
            for _ in 0..rng.random_range(0..6) {
                if input.is_empty() {
                    break;
                }
                let at = rng.random_range(0..input.len());
                match rng.random_range(0..4) {
                    0 => input[at] = rng.random(),
                    1 => input.insert(at, rng.random()),
                    2 => input.truncate(at),
                    _ => input.extend_from_within(at..),
                }
            }
            target(&input);
        }
    }

    #[test]
    fn arbitrary_bytes_as_json_are_taken_or_refused() {
        smoke("json", json, 1);
    }

    #[test]
    fn arbitrary_bytes_as_cbor_are_taken_or_refused() {
        smoke("cbor", cbor, 2);
    }

    #[test]
    fn arbitrary_bytes_as_a_signed_request_are_refused() {
        smoke("signature", signature, 3);
    }

    #[test]
    fn arbitrary_bytes_as_tokens_are_refused() {
        smoke("iterator", iterator, 4);
    }

    #[test]
    fn arbitrary_records_come_out_of_an_event_as_they_went_in() {
        smoke("event_stream", event_stream, 5);
    }
}

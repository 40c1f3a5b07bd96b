//! Micro benchmarks of what a Kinesis request costs before the engine sees it: decoding PutRecords, verifying its signature.
//!
//! `cargo bench -p tidemill --features bench --bench requests`; the doors are in `src/aws/measured.rs`.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::Request;
use http::request::Parts;
use std::hint::black_box;
use std::time::{Duration, SystemTime};
use tidemill::aws::measured::{Verifier, put_records_cbor, put_records_json};
use tidemill_types::TimestampMs;

const RECORDS: usize = 500;
const RECORD_BYTES: usize = 1024;
const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const NOW: TimestampMs = TimestampMs::new(1_704_164_645_000);

fn json() -> Vec<u8> {
    let data = base64_simd::STANDARD.encode_to_string(vec![0xa5; RECORD_BYTES]);
    let records: Vec<String> =
        (0..RECORDS).map(|n| format!(r#"{{"Data":"{data}","PartitionKey":"key-{n}"}}"#)).collect();
    format!(r#"{{"StreamName":"orders","Records":[{}]}}"#, records.join(",")).into_bytes()
}

fn cbor() -> Vec<u8> {
    let data = vec![0xa5; RECORD_BYTES];
    let mut encoder = minicbor::Encoder::new(Vec::new());
    let mut write = || {
        encoder.map(2)?.str("StreamName")?.str("orders")?.str("Records")?.array(RECORDS as u64)?;
        for n in 0..RECORDS {
            encoder.map(2)?.str("Data")?.bytes(&data)?.str("PartitionKey")?.str(&format!("key-{n}"))?;
        }
        Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
    };
    write().expect("a vector takes all that is written");
    encoder.into_writer()
}

/// The head of a request, signed as the AWS SDK signs it.
fn signed(body: &[u8]) -> Parts {
    let identity = Credentials::new(KEY_ID, SECRET, None, None, "bench").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("kinesis")
        .time(SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.get()))
        .settings(SigningSettings::default())
        .build()
        .expect("all that is needed is given");
    let url = "http://localhost:4567/";
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Kinesis_20131202.PutRecords")];
    let signable = SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body));
    let (instructions, _) =
        sign(signable.expect("a valid request"), &params.into()).expect("it can be signed").into_parts();
    let mut request = Request::post("/").header("host", "localhost:4567");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    for (name, value) in instructions.headers() {
        request = request.header(name, value);
    }
    request.body(()).expect("a valid request").into_parts().0
}

fn decoding(criterion: &mut Criterion) {
    let (json, cbor) = (json(), cbor());
    assert_eq!((put_records_json(&json), put_records_cbor(&cbor)), (Some(RECORDS), Some(RECORDS)));
    let mut group = criterion.benchmark_group("PutRecords of 500 × 1 KiB");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("JSON", |bencher| bencher.iter(|| put_records_json(black_box(&json))));
    group.bench_function("CBOR", |bencher| bencher.iter(|| put_records_cbor(black_box(&cbor))));
    group.finish();
}

fn signatures(criterion: &mut Criterion) {
    let verifier = Verifier::new(KEY_ID, SECRET).expect("a valid credential");
    let mut group = criterion.benchmark_group("signature");
    for (name, body) in [("of a small request", b"{}".to_vec()), ("of PutRecords of 500 × 1 KiB", json())] {
        let parts = signed(&body);
        assert!(verifier.verifies(&parts, &body, NOW), "what is measured is the way of a right one");
        group.bench_function(name, |bencher| {
            bencher.iter(|| verifier.verifies(black_box(&parts), black_box(&body), NOW));
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, signatures);
criterion_main!(benches);

//! Rows a to e: how much goes in and comes out, by each protocol.

use super::check::{Check, ratio};
use super::findings::Findings;
use super::load::Load;
use super::site::Site;
use crate::figure::Name;
use crate::limits;

pub(super) const SHARDS: u64 = 8;
/// Of the native protocol, and of its limits.
pub(super) const GRPC_CONNECTIONS: u64 = 4;
const KINESIS_CONNECTIONS: u64 = 8;
/// Of PutRecord, and of its limit.
pub(super) const PUT_RECORD_CONNECTIONS: u64 = 32;
const PUT_RECORDS_ENTRIES: u64 = 500;

const PRODUCE_DEVICE: Name<'_> = Name::new("produce, device", "producer library");
const PRODUCE_OS: Name<'_> = Name::new("produce, os", "producer library");
const READ: Name<'_> = Name::new("consume", "bare read calls");
const CONSUME: Name<'_> = Name::new("consume", "consumer library");
const PUT_RECORDS: Name<'_> = Name::new("PutRecords, signed", "Kinesis");
const PUT_RECORD: Name<'_> = Name::new("PutRecord, signed", "Kinesis");
const GET_RECORDS: Name<'_> = Name::new("GetRecords, signed", "Kinesis");

const DEVICE_MIN: f64 = 0.45;
const OS_MIN: f64 = 0.55;
const READ_MIN: f64 = 1.3;
const CONSUME_MIN: f64 = 0.9;
const PUT_RECORD_MIN: f64 = 0.25;

fn load(workload: &'static str, target: &'static str, connections: u64) -> Load {
    Load::new(workload, target).with("--shards", SHARDS).with("--connections", connections)
}

pub(super) fn produce(site: &Site, findings: &mut Findings) {
    let load = load("produce", "grpc", GRPC_CONNECTIONS);
    findings.took(PRODUCE_DEVICE, site.load(&load, &site.device));
    findings.took(PRODUCE_OS, site.load(&load, &site.os));
}

pub(super) fn produce_checks(findings: &Findings) -> Vec<Check> {
    let over_sink = |name| {
        let mb = |name| findings.median(name, |run| run.mb_per_s);
        ratio(mb(name), mb(limits::SINK))
    };
    vec![
        Check::at_least(
            "producer library, device / bare gRPC sink",
            "×",
            over_sink(PRODUCE_DEVICE),
            DEVICE_MIN,
        ),
        Check::at_least("producer library, os / bare gRPC sink", "×", over_sink(PRODUCE_OS), OS_MIN),
    ]
}

pub(super) fn consume(site: &Site, findings: &mut Findings) {
    let measured = |target| site.load(&load("consume", target, GRPC_CONNECTIONS), &site.device);
    findings.took(READ, measured("bare"));
    findings.took(CONSUME, measured("grpc"));
}

pub(super) fn consume_checks(findings: &Findings) -> Vec<Check> {
    let over_source = |name| {
        let mb = |name| findings.median(name, |run| run.mb_per_s);
        ratio(mb(name), mb(limits::SOURCE))
    };
    vec![
        Check::at_least("bare read calls / bare gRPC source", "×", over_source(READ), READ_MIN),
        Check::at_least("consumer library / bare gRPC source", "×", over_source(CONSUME), CONSUME_MIN),
    ]
}

pub(super) fn put_records(site: &Site, findings: &mut Findings) {
    let load = load("produce", "kinesis", KINESIS_CONNECTIONS).with("--batch-records", PUT_RECORDS_ENTRIES);
    findings.took(PUT_RECORDS, site.load(&load.signed(), &site.signed));
}

pub(super) fn put_records_checks(findings: &Findings) -> Vec<Check> {
    let found = findings.median(PUT_RECORDS, |run| run.records_per_s);
    vec![Check::figure("PutRecords of 500, signed", "records/s", found)]
}

pub(super) fn put_record(site: &Site, findings: &mut Findings) {
    let load = load("produce", "kinesis", PUT_RECORD_CONNECTIONS).with("--batch-records", 1);
    findings.took(PUT_RECORD, site.load(&load.signed(), &site.signed));
}

pub(super) fn put_record_checks(findings: &Findings) -> Vec<Check> {
    let rate = |name| findings.median(name, |run| run.records_per_s);
    let found = ratio(rate(PUT_RECORD), rate(limits::HELLO));
    vec![Check::at_least("PutRecord, signed / bare HTTP requests", "×", found, PUT_RECORD_MIN)]
}

pub(super) fn get_records(site: &Site, findings: &mut Findings) {
    let load = load("consume", "kinesis", KINESIS_CONNECTIONS).signed();
    findings.took(GET_RECORDS, site.load(&load, &site.signed));
}

pub(super) fn get_records_checks(findings: &Findings) -> Vec<Check> {
    let found = findings.median(GET_RECORDS, |run| run.records_per_s);
    vec![Check::figure("GetRecords, catching up", "records/s", found)]
}

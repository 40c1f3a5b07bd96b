//! Micro benchmarks of what every record passes: frames, and the way from a partition key to a shard.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidemill_types::{
    Frame, FrameWriter, HashKey, HashKeyRange, ProducerId, Shard, ShardId, ShardMap, ShardMapVersion,
    ShardState, TimestampMs,
};

const RECORDS: usize = 64;
const RECORD_BYTES: usize = 1024;
const SHARDS: u32 = 64;

fn encode(data: &[u8]) -> Frame {
    let mut frame = FrameWriter::with_capacity(RECORDS * (RECORD_BYTES + 32));
    (0..RECORDS).for_each(|_| frame.push("some-partition-key", data));
    frame.finish(ProducerId::NONE, 0)
}

fn shard_map() -> ShardMap {
    let shards = (0..).zip(HashKeyRange::uniform(SHARDS)).map(|(id, range)| Shard {
        id: ShardId::new(id).expect("a small number"),
        parent: None,
        adjacent_parent: None,
        range,
        created: TimestampMs::new(0),
        state: ShardState::Open,
    });
    ShardMap::new(ShardMapVersion::default(), shards).expect("uniform ranges tile the hash space")
}

fn frames(criterion: &mut Criterion) {
    let data = vec![7; RECORD_BYTES];
    let bytes = encode(&data).bytes().clone();
    let mut group = criterion.benchmark_group("frame of 64 × 1 KiB");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| encode(black_box(&data))));
    group.bench_function("check both checksums", |bencher| bencher.iter(|| Frame::decode(black_box(&bytes))));
    group.bench_function("check every record too", |bencher| {
        bencher.iter(|| Frame::decode_untrusted(black_box(&bytes)));
    });
    group.finish();
}

fn routing(criterion: &mut Criterion) {
    let map = shard_map();
    let mut group = criterion.benchmark_group("routing");
    group.bench_function("partition key to hash key", |bencher| {
        bencher.iter(|| HashKey::of(black_box("some-partition-key")));
    });
    let key = HashKey::of("some-partition-key");
    group.bench_function("hash key to one of 64 shards", |bencher| {
        bencher.iter(|| map.route(black_box(key)).id);
    });
    group.finish();
}

criterion_group!(benches, frames, routing);
criterion_main!(benches);

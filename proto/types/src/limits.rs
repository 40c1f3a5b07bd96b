//! Every limit that both sides of a wire must agree on, named once.
//!
//! Limits of one component (queue lengths, cache sizes) live in that component's `Settings`.

/// Largest record data, in bytes (Kinesis: `Data` ≤ 10,485,760).
pub const RECORD_DATA_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Default largest record, data and partition key together, in bytes (Kinesis: 1 MiB per stream unless raised).
pub const RECORD_BYTES_DEFAULT: usize = 1024 * 1024;
/// Smallest limit of the largest record that a stream may set, in KiB (Kinesis).
pub const RECORD_KIB_MIN: u32 = 1024;
/// Largest limit of the largest record that a stream may set, in KiB (Kinesis).
pub const RECORD_KIB_MAX: u32 = 10 * 1024;
/// Longest partition key, in Unicode scalar values (Kinesis).
pub const PARTITION_KEY_CHARS_MAX: usize = 256;
/// Longest partition key in bytes: every character may take four.
pub const PARTITION_KEY_BYTES_MAX: usize = PARTITION_KEY_CHARS_MAX * 4;
/// Largest frame, header and body, in bytes: a record of the maximum size with room for smaller ones beside it.
pub const FRAME_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Largest frame as it is stored: one of [`FRAME_BYTES_MAX`] that was sealed.
pub const FRAME_STORED_BYTES_MAX: usize = FRAME_BYTES_MAX + crate::frame::SEALED_EXTRA_BYTES;
/// Most records in one frame.
pub const FRAME_RECORDS_MAX: u32 = 65_536;
/// Most entries in one PutRecords request (Kinesis).
pub const PUT_RECORDS_ENTRIES_MAX: usize = 500;
/// Most bytes, data and keys, in one PutRecords request (Kinesis).
pub const PUT_RECORDS_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Most records in one GetRecords reply (Kinesis).
pub const GET_RECORDS_MAX: usize = 10_000;
/// Most bytes, data and keys, in one GetRecords reply (Kinesis).
pub const GET_RECORDS_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Longest stream, consumer or shard name, in characters (Kinesis).
pub const NAME_CHARS_MAX: usize = 128;
/// Longest worker id, in bytes.
pub const WORKER_ID_BYTES_MAX: usize = 256;
/// Most shards of one stream.
pub const SHARDS_PER_STREAM_MAX: u32 = 10_000;
/// Shards of a new stream in on-demand mode (Kinesis).
pub const ON_DEMAND_SHARDS: u32 = 4;
/// Highest warm throughput of a stream, in MiB/s (Kinesis: 10 GiB/s).
pub const WARM_MIBPS_MAX: u32 = 10 * 1024;
/// Most tags of one stream or consumer (Kinesis).
pub const TAGS_MAX: usize = 50;
/// Longest key of a tag, in characters (Kinesis).
pub const TAG_KEY_CHARS_MAX: usize = 128;
/// Longest value of a tag, in characters (Kinesis).
pub const TAG_VALUE_CHARS_MAX: usize = 256;
/// Longest resource policy, in bytes (AWS: 20 KB).
pub const POLICY_BYTES_MAX: usize = 20 * 1024;
/// Most registered consumers of one stream (Kinesis).
pub const CONSUMERS_MAX: usize = 20;
/// The same for accounts that have committed to a minimum throughput (Kinesis).
pub const CONSUMERS_MAX_COMMITTED: usize = 50;
/// Retention of a stream unless it says otherwise, in hours (Kinesis).
pub const RETENTION_HOURS_DEFAULT: u32 = 24;
/// Shortest retention, in hours (Kinesis).
pub const RETENTION_HOURS_MIN: u32 = 24;
/// Longest retention, in hours (Kinesis: 365 days).
pub const RETENTION_HOURS_MAX: u32 = 8_760;
/// Largest gRPC message either side accepts, in bytes: one frame and its envelope.
pub const GRPC_MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 64 * 1024;
/// Batches of one producer that may be unacknowledged on one shard at a time; a retry is recognised this far back.
pub const PRODUCER_BATCHES_IN_FLIGHT_MAX: usize = 32;
/// Shortest and longest lease a worker may ask for, in milliseconds.
pub const LEASE_MS_MIN: u64 = 500;
/// See [`LEASE_MS_MIN`].
pub const LEASE_MS_MAX: u64 = 10 * 60 * 1000;
/// Longest time a worker may give the holder of a lease to hand it over, in milliseconds.
pub const HANDOFF_MS_MAX: u64 = 10 * 60 * 1000;
/// Most bytes an application may keep with a checkpoint that it prepares.
pub const LEASE_STATE_BYTES_MAX: usize = 4096;

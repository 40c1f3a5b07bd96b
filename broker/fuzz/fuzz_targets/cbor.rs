//! See `src/aws/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemill::aws::fuzz::cbor(input));

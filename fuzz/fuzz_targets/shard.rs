//! The catalogue as it comes to a client: shards, pages, manifests, and what they are packed in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync::shard::fuzz(bytes));

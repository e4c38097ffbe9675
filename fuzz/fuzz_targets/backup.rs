//! A site's backup, which came from who knows where.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| backup::fuzz(bytes));

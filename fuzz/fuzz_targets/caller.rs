//! What a server of a site says to another of whose request it hands on.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dp::fuzzing::caller(bytes));

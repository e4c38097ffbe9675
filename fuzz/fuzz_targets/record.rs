//! A pack of records that somebody made up: scanned, indexed and read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| contentlib::fuzzing::record(bytes));

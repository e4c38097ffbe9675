//! A sealed pack's list of records.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| contentlib::fuzzing::footer(bytes));

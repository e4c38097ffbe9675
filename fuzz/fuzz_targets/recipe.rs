//! A recipe from the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| contentlib::fuzzing::recipe(bytes));

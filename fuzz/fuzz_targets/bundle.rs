//! A bundle from a medium, in pieces. Its head is signed and its checksums are made right first.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| packager::prestage::fuzzing::bundle(bytes));

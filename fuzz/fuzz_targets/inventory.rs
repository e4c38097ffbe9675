//! An inventory from a medium. Its digest is made right first: what is tested is what somebody can
//! write who computes it too.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| packager::prestage::fuzzing::inventory(bytes));

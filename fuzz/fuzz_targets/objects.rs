//! What an object store says: names and lengths of objects, and the lease.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| contentlib::fuzzing::objects(bytes));

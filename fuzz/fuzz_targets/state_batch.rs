//! A batch of state messages from somebody who says to be a client: it is read or refused, and what was read
//! reads back from what it is written as.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| compliance::message::fuzz_batch(bytes.to_vec()));

//! A page of a catalogue's feed from somebody who says to be the parent: it is read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync::hierarchy::fuzz_page(bytes));

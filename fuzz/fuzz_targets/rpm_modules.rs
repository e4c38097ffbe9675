//! The module streams of an RPM repository.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(sync::rpm::modules::Modules::read(bytes)));

//! A `repomd.xml` of an RPM repository.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| drop(sync::rpm::repomd::Repomd::parse(text)));

//! A page of clients' states from somebody who says to be a child site: it is read or refused, and what was
//! read reads back from what it is written as.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| compliance::forward::fuzz_page(bytes.to_vec()));

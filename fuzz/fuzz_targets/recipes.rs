//! Many recipes in one stream: refused, not all there yet, or read back as the same bytes.
#![no_main]

use dp::recipes::{decode_first, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((digest, recipe, length))) = decode_first(rest) {
        let mut out = Vec::new();
        encode(digest, &recipe, &mut out);
        assert_eq!(out, &rest[..length]);
        rest = &rest[length..];
    }
});

//! A request to the content plane. The first byte chooses what of it the rest is: the path, the headers
//! that are conditions, or the body that names chunks.
#![no_main]

use dp::fuzzing::{chunk_ids, conditions, path};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => path(bytes),
        1 => conditions(bytes),
        _ => chunk_ids(bytes),
    }
});

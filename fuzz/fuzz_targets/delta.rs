//! A delta to a base, whole and cut off. The first two bytes say how long the base is, the next two how
//! long the result is said to be.
#![no_main]

use contentlib::delta::{decode, decode_beginning};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[a, b, c, d], rest)) = bytes.split_first_chunk::<4>() else { return };
    let n_base = usize::from(u16::from_le_bytes([a, b])).min(rest.len());
    let length = usize::from(u16::from_le_bytes([c, d]));
    let (base, delta) = rest.split_at(n_base);
    let beginning = decode_beginning(base, delta, length);
    assert!(beginning.len() <= length);
    if let Ok(whole) = decode(base, delta, length) {
        assert_eq!(whole.len(), length);
    }
});

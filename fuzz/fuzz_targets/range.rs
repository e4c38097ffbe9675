//! The `Range` header, for a content whose size is the first eight bytes.
#![no_main]

use dp::range::{MAX_RANGES, Wanted, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, header)) = bytes.split_at_checked(8) else { return };
    let size = u64::from_le_bytes(size.try_into().expect("eight bytes"));
    let Ok(header) = std::str::from_utf8(header) else { return };
    let ranges = match parse(header, size) {
        Wanted::Whole | Wanted::Unsatisfiable => return,
        Wanted::One(range) => vec![range],
        Wanted::Some(ranges) => {
            assert!((2..=MAX_RANGES).contains(&ranges.len()));
            ranges
        }
    };
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
});

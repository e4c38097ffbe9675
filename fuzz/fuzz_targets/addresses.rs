//! Boundaries as people write them, a line each, and who is in the smallest of them.
#![no_main]

use dp::locate::{AddressRange, Atlas, Overlap};
use std::net::IpAddr;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let ranges: Vec<AddressRange> =
        text.lines().take(20).filter_map(|line| line.parse().ok()).collect();
    let atlas: Atlas = ranges.iter().copied().collect();
    for one in &ranges {
        assert_eq!(one.to_string().parse(), Ok(*one));
        for other in &ranges {
            let turned = other.overlap(one).map(|overlap| match overlap {
                Overlap::Contains => Overlap::Inside,
                Overlap::Inside => Overlap::Contains,
                Overlap::Crosses => Overlap::Crosses,
            });
            assert_eq!(one.overlap(other), turned);
        }
    }
    let addresses = text.lines().filter_map(|line| line.parse::<IpAddr>().ok());
    for address in addresses.take(20) {
        let found: Vec<AddressRange> = atlas.smallest(address).collect();
        assert!(found.iter().all(|range| range.contains(address) && ranges.contains(range)));
        let hit: Vec<&AddressRange> = ranges.iter().filter(|r| r.contains(address)).collect();
        assert_eq!(found.is_empty(), hit.is_empty());
        // Nothing that has it is inside of what was found.
        let is_smaller = |range: &&AddressRange| {
            found.iter().all(|found| found.overlap(range) == Some(Overlap::Contains))
        };
        assert!(!hit.iter().any(|range| is_smaller(range)));
    }
});

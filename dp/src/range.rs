//! Which bytes a `Range` header asks for (RFC 9110, section 14).
//!
//! Pure: a header and a size in, byte ranges out. A header that is not understood is ignored, as
//! the RFC wants, so that the whole content is sent; only ranges that all lie past the end are an
//! error.
//!
//! Always true of the ranges in [`Wanted::Some`]: 1 to [`MAX_RANGES`] of them, none empty, all
//! inside the content, ascending, with a gap between each and the next.

use std::ops::Range;

/// The most ranges of one answer, after those that touch are merged. A request for more gets the
/// whole content: many small ranges cost the server far more than the client.
pub const MAX_RANGES: usize = 16;
/// The most ranges of one header before merging; a header with more is ignored.
const MAX_SPECS: usize = 256;
/// A longer header is ignored.
const MAX_HEADER: usize = 8 << 10;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: the header is not one of byte ranges, is malformed, or asks for too many.
    Whole,
    /// One range.
    One(Range<u64>),
    /// Two ranges or more. The module header says what holds.
    Some(Vec<Range<u64>>),
    /// Well formed, and nothing of it lies inside the content: status 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a content of `size` bytes.
pub fn parse(header: &str, size: u64) -> Wanted {
    match ranges(header, size) {
        None => Wanted::Whole,
        Some(ranges) => merge(ranges),
    }
}

/// The satisfiable ranges as they stand, or `None` if the header is to be ignored.
fn ranges(header: &str, size: u64) -> Option<Vec<Range<u64>>> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (mut ranges, mut specs) = (Vec::new(), 0);
    for spec in set.split(',').map(|s| s.trim_matches([' ', '\t'])) {
        // Section 5.6.1: a list may have empty elements.
        if spec.is_empty() {
            continue;
        }
        specs += 1;
        if specs > MAX_SPECS {
            return None;
        }
        ranges.extend(range(spec, size)?);
    }
    // An empty content has no byte to name in `Content-Range`, though a suffix of it is satisfiable.
    let nothing_to_cut = specs == 0 || size == 0 && has_suffix(set);
    (!nothing_to_cut).then_some(ranges)
}

/// Whether one of the ranges is the last n bytes, n above 0.
fn has_suffix(set: &str) -> bool {
    set.split(',').any(|spec| {
        let digits = spec.trim_matches([' ', '\t']).strip_prefix('-');
        digits.and_then(number).is_some_and(|n| n > 0)
    })
}

/// One range inside the content; the inner `None` if it lies outside, the outer if it is none.
fn range(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        // Section 14.1.2, suffix-range: the last n bytes.
        let n = number(last)?.min(size);
        return Some((n > 0).then(|| size - n..size));
    }
    let first = number(first)?;
    let past = match last {
        "" => size,
        _ => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some((first < past).then_some(first..past))
}

/// Digits only: `u64::from_str` alone would take a sign. Numbers past `u64` are as good as its end.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn merge(mut ranges: Vec<Range<u64>>) -> Wanted {
    ranges.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    match merged.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::One(merged.swap_remove(0)),
        2..=MAX_RANGES => Wanted::Some(merged),
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_of_the_rfc_is_read() {
        let cases = [
            ("bytes=0-499", Wanted::One(0..500)),
            ("bytes=500-", Wanted::One(500..1000)),
            ("bytes=-1", Wanted::One(999..1000)),
            ("bytes=-2000", Wanted::One(0..1000)),
            ("bytes=990-5000", Wanted::One(990..1000)),
            ("BYTES=0-0", Wanted::One(0..1)),
            ("bytes= 0-0 , 2-2 ", Wanted::Some(vec![0..1, 2..3])),
            ("bytes=0-0,,-1", Wanted::Some(vec![0..1, 999..1000])),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=0-99999999999999999999", Wanted::One(0..1000)),
        ];
        for (header, want) in cases {
            assert_eq!(parse(header, 1000), want, "{header}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=0x0-1",
            "items=0-1",
            "bytes=0-1;2-3",
            "bytes=0-1-2",
            "bytes=--1",
        ] {
            assert_eq!(parse(header, 1000), Wanted::Whole, "{header}");
        }
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(parse("bytes=10-19,0-9", 1000), Wanted::One(0..20));
        assert_eq!(parse("bytes=0-9,5-14,30-39", 1000), Wanted::Some(vec![0..15, 30..40]));
        assert_eq!(parse("bytes=0-9,11-19", 1000), Wanted::Some(vec![0..10, 11..20]));
    }

    #[test]
    fn more_ranges_than_the_limit_get_everything() {
        let header = |n: u64| {
            let specs: Vec<String> = (0..n).map(|i| format!("{0}-{0}", 2 * i)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(parse(&header(16), 1000), Wanted::Some(r) if r.len() == 16));
        assert_eq!(parse(&header(17), 1000), Wanted::Whole);
        let touching = format!("bytes={}", vec!["0-0"; 256].join(","));
        assert_eq!(parse(&touching, 1000), Wanted::One(0..1));
        let too_many = format!("bytes={}", vec!["0-0"; 257].join(","));
        assert_eq!(parse(&too_many, 1000), Wanted::Whole);
    }

    #[test]
    fn nothing_inside_the_content_is_unsatisfiable() {
        for header in ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=1000-,-0"] {
            assert_eq!(parse(header, 1000), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=-5", 0), Wanted::Whole);
        assert_eq!(parse("bytes=1000-,0-0", 1000), Wanted::One(0..1));
    }

    proptest! {
        #[test]
        fn any_header_gives_ranges_as_promised(header in "(bytes=)?[0-9, -]{0,60}", size in 0u64..2000) {
            let ranges = match parse(&header, size) {
                Wanted::One(range) => vec![range],
                Wanted::Some(ranges) => {
                    prop_assert!((2..=MAX_RANGES).contains(&ranges.len()));
                    ranges
                }
                Wanted::Whole | Wanted::Unsatisfiable => vec![],
            };
            prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= size));
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
        }

        #[test]
        fn the_bytes_are_those_asked_for(specs in prop::collection::vec((0u64..300, 0u64..50), 1..10)) {
            let size = 256;
            let text: Vec<String> = specs.iter().map(|(a, n)| format!("{a}-{}", a + n)).collect();
            let asked = |at: u64| specs.iter().any(|&(a, n)| (a..=a + n).contains(&at));
            let found = match parse(&format!("bytes={}", text.join(",")), size) {
                Wanted::One(range) => vec![range],
                Wanted::Some(ranges) => ranges,
                Wanted::Unsatisfiable => vec![],
                Wanted::Whole => return Err(TestCaseError::fail("ignored")),
            };
            for at in 0..size {
                prop_assert_eq!(found.iter().any(|r| r.contains(&at)), asked(at), "{}", at);
            }
        }
    }
}

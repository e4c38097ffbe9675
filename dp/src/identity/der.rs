//! As much of DER (X.690) as it takes to find the parts of a request and the dates of a certificate.
//!
//! Whatever it reads may be anybody's bytes: what is malformed is `None`, and nothing is allocated.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: a certificate's version, a request's attributes.
pub(super) const CONTEXT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One value and how it is written.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub tag: u8,
    /// Without tag and length.
    pub content: &'a [u8],
    /// With them.
    pub whole: &'a [u8],
}

/// Takes one value off the front of `input`.
pub(super) fn next<'a>(input: &mut &'a [u8]) -> Option<Value<'a>> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Nothing here is longer than what three bytes can say.
        let n = usize::from(first & 0x7f);
        let (len, rest) = rest.split_at_checked(n).filter(|_| (1..=3).contains(&n))?;
        (len.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    let whole = &input[..input.len() - rest.len()];
    *input = rest;
    Some(Value { tag, content, whole })
}

/// Takes one value of kind `tag` off the front of `input`.
pub(super) fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<Value<'a>> {
    next(input).filter(|value| value.tag == tag)
}

/// The one value that `input` is.
pub(super) fn only(mut input: &[u8], tag: u8) -> Option<Value<'_>> {
    expect(&mut input, tag).filter(|_| input.is_empty())
}

/// The whole bytes of a bit string.
pub(super) fn bits<'a>(value: Value<'a>) -> Option<&'a [u8]> {
    let (&unused, bytes) = value.content.split_first()?;
    (unused == 0).then_some(bytes)
}

/// A time as certificates have it (RFC 5280, section 4.1.2.5).
pub(super) fn time(value: Value<'_>) -> Option<Timestamp> {
    let digits = value.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |part: &[u8]| part.iter().fold(0i16, |n, b| n * 10 + i16::from(b - b'0'));
    let (year, rest) = match (value.tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ ..50 => (2000 + year, &digits[2..]),
            year => (1900 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    // Two digits always fit.
    let mut parts = rest.chunks_exact(2).map(|part| number(part) as i8);
    let mut part = || parts.next();
    let at = DateTime::new(year, part()?, part()?, part()?, part()?, part()?, 0).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_taken_one_after_the_other() {
        let mut input = &[0x02, 1, 7, 0x30, 0x81, 2, 0x05, 0][..];
        assert_eq!(expect(&mut input, INTEGER).unwrap().content, [7]);
        let sequence = expect(&mut input, SEQUENCE).unwrap();
        assert_eq!((sequence.content, sequence.whole.len()), (&[5, 0][..], 5));
        assert!(input.is_empty() && next(&mut input).is_none());
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        for mut bad in [&[][..], &[2], &[2, 1], &[2, 0x80], &[2, 0x84, 0, 0, 0, 1, 7], &[2, 0x81]] {
            assert!(next(&mut bad).is_none(), "{bad:?}");
        }
        assert!(only(&[2, 1, 7, 0], INTEGER).is_none());
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag, text: &'static str| {
            time(Value { tag, content: text.as_bytes(), whole: &[] }).map(|at| at.to_string())
        };
        assert_eq!(read(UTC_TIME, "261122120000Z").unwrap(), "2026-11-22T12:00:00Z");
        assert_eq!(read(UTC_TIME, "501122120000Z").unwrap(), "1950-11-22T12:00:00Z");
        assert_eq!(read(GENERALIZED_TIME, "20761122120001Z").unwrap(), "2076-11-22T12:00:01Z");
        for bad in ["", "Z", "261322120000Z", "261122120000", "26112212000Z", "+61122120000Z"] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut input = &bytes[..];
            while let Some(value) = next(&mut input) {
                prop_assert!(value.whole.len() >= 2);
                let _ = (time(value), bits(value));
            }
        }
    }
}

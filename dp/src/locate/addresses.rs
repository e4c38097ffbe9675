//! Ranges of IP addresses: what a boundary is made of.
//!
//! Always true of an [`AddressRange`]:
//! * it is not empty, and all of it is of one family;
//! * an address that IPv6 only wraps around one of IPv4 (`::ffff:10.0.0.1`, RFC 4291, section
//!   2.5.5.2) is that one, so a client is found however its connection came;
//! * however it is written, the same addresses are the same range.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest text that can be a range: two addresses of IPv6, and what is between them.
const MAX_TEXT: usize = 96;

/// Addresses that follow each other. Written as one address, as a prefix (`10.7.0.0/16`) where it
/// is one, or else as `FROM-TO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    family: Family,
    from: u128,
    /// Inclusive.
    to: u128,
}

/// Which kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

/// How two ranges lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The other is inside this one, and counts for the addresses in it.
    Contains,
    /// This one is inside the other, and counts for the addresses in it.
    Inside,
    /// Each has addresses that the other has not; the smaller counts where both have them.
    Crosses,
}

/// Text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRange {
    /// Neither address nor prefix nor range.
    #[error(
        "{0:?} is no address, prefix or range: want for example 10.7.0.0/16, 2001:db8::/32, \
         10.7.3.1-10.7.3.99 or 10.7.3.4"
    )]
    Text(String),
    /// A prefix longer than an address, or none.
    #[error("{0:?} has no good prefix length: want 0 to {1}")]
    Length(String, u8),
    /// Bits beyond the prefix, which tell that the length or the address was meant differently.
    #[error("{given:?} has bits beyond its prefix: did you mean {prefix}, or {address}?")]
    Bits {
        /// What was written.
        given: String,
        /// The prefix that it lies in.
        prefix: AddressRange,
        /// The address alone.
        address: IpAddr,
    },
    /// From one family to the other.
    #[error("{0:?} begins in one of IPv4 and IPv6 and ends in the other")]
    Families(String),
    /// It ends before it begins.
    #[error("{0:?} ends before it begins")]
    Backwards(String),
}

/// The family of an address, and the address as a number.
pub(super) fn number_of(address: IpAddr) -> (Family, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => (Family::V4, u32::from(address).into()),
        IpAddr::V6(address) => (Family::V6, address.into()),
    }
}

impl Family {
    fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            // A range of this family holds none that is larger.
            Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Family::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

impl AddressRange {
    pub(super) fn of_numbers(family: Family, from: u128, to: u128) -> Self {
        debug_assert!(from <= to);
        Self { family, from, to }
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, number) = number_of(address);
        family == self.family && (self.from..=self.to).contains(&number)
    }

    /// How `self` lies to `other`; nothing if no address is in both, or if they are the same.
    pub fn overlap(&self, other: &Self) -> Option<Overlap> {
        let apart = self.family != other.family || self.to < other.from || other.to < self.from;
        if apart || self == other {
            return None;
        }
        Some(if self.from <= other.from && other.to <= self.to {
            Overlap::Contains
        } else if other.from <= self.from && self.to <= other.to {
            Overlap::Inside
        } else {
            Overlap::Crosses
        })
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn first(&self) -> u128 {
        self.from
    }

    pub(super) fn last(&self) -> u128 {
        self.to
    }

    /// The length of the prefix that it is; nothing if it is none.
    fn prefix(&self) -> Option<u8> {
        let span = self.from ^ self.to;
        // The bits that differ are the last ones, all 0 in the one and 1 in the other.
        let is_prefix = span & span.wrapping_add(1) == 0 && self.from & span == 0;
        is_prefix.then(|| self.family.bits() - (128 - span.leading_zeros()) as u8)
    }
}

/// The range of the prefix of `length` bits that `number` lies in.
fn prefixed(family: Family, number: u128, length: u8) -> AddressRange {
    let host = u32::from(family.bits() - length);
    let span = 1u128.checked_shl(host).map_or(u128::MAX, |n| n - 1);
    AddressRange { family, from: number & !span, to: number | span }
}

impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let given = || text.chars().take(MAX_TEXT).collect::<String>();
        let bad = || BadRange::Text(given());
        if text.len() > MAX_TEXT {
            return Err(bad());
        }
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| bad());
        if let Some((start, length)) = text.split_once('/') {
            let start = address(start)?;
            let (family, number) = number_of(start);
            // Of an IPv4 address in IPv6 the first 96 bits are what wraps it.
            let wrap = if start.is_ipv6() && family == Family::V4 { 96 } else { 0 };
            let most = family.bits() + wrap;
            let plain = length.bytes().all(|b| b.is_ascii_digit());
            let length: Option<u8> = length.parse().ok().filter(|_| plain);
            let length = length.filter(|length| (wrap..=most).contains(length));
            let length = length.ok_or_else(|| BadRange::Length(given(), most))? - wrap;
            let range = prefixed(family, number, length);
            if range.from != number {
                let address = family.address(number);
                return Err(BadRange::Bits { given: given(), prefix: range, address });
            }
            return Ok(range);
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let ((family, from), (other, to)) = (number_of(address(from)?), number_of(address(to)?));
        match () {
            () if family != other => Err(BadRange::Families(given())),
            () if to < from => Err(BadRange::Backwards(given())),
            () => Ok(Self { family, from, to }),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.family.address(self.from), self.family.address(self.to));
        match self.prefix() {
            _ if self.from == self.to => write!(f, "{from}"),
            Some(length) => write!(f, "{from}/{length}"),
            None => write!(f, "{from}-{to}"),
        }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_addresses_are_the_same_range_however_written() {
        for (written, plain) in [
            ("10.7.0.0/16", "10.7.0.0/16"),
            ("10.7.0.0-10.7.255.255", "10.7.0.0/16"),
            ("10.7.3.4/32", "10.7.3.4"),
            ("10.7.3.4 - 10.7.3.4", "10.7.3.4"),
            ("::ffff:10.7.0.0/112", "10.7.0.0/16"),
            ("::ffff:10.7.3.4", "10.7.3.4"),
            ("10.7.3.1-10.7.3.99", "10.7.3.1-10.7.3.99"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1-2001:db8::9", "2001:db8::1-2001:db8::9"),
            ("2001:db8::/128", "2001:db8::"),
        ] {
            assert_eq!(range(written).to_string(), plain, "{written}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_write() {
        for bad in ["", "10.7", "10.7.0.0/", "10.7.3.4-", "-", "a-b", "fe80::1%eth0", "paris"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        let said = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        assert!(said("10.7.3.4/16").ends_with("did you mean 10.7.0.0/16, or 10.7.3.4?"));
        assert!(said("10.0.0.0/33").contains("0 to 32"));
        assert!(said("10.0.0.0/+8").contains("0 to 32"));
        assert!(said("::ffff:10.0.0.0/95").contains("to 128"));
        assert!(said("10.0.0.9-10.0.0.1").contains("before it begins"));
        assert!(said("10.0.0.1-::1").contains("IPv6"));
        assert!(said(&"1".repeat(999)).len() < 300);
    }

    #[test]
    fn overlaps_are_told_by_how_they_lie() {
        let how = |a: &str, b: &str| range(a).overlap(&range(b));
        assert_eq!(how("10.0.0.0/8", "10.7.0.0/16"), Some(Overlap::Contains));
        assert_eq!(how("10.7.0.0/16", "10.0.0.0/8"), Some(Overlap::Inside));
        assert_eq!(how("10.0.0.1-10.0.0.9", "10.0.0.5-10.0.0.20"), Some(Overlap::Crosses));
        assert_eq!(how("10.0.0.0/8", "11.0.0.0/8"), None);
        assert_eq!(how("10.0.0.0/8", "10.0.0.0/8"), None);
        assert_eq!(how("0.0.0.0/0", "::/0"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(v6: bool, a: u128, b: u128, host in 0..129_u32) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mask = if v6 { u128::MAX } else { u128::from(u32::MAX) };
            // Near ones too, which are prefixes more often.
            let a = a & mask;
            let b = if host < 128 { a ^ (b & ((1 << host) - 1) & mask) } else { b & mask };
            let made = AddressRange::of_numbers(family, a.min(b), a.max(b));
            let read: AddressRange = made.to_string().parse().unwrap();
            // A range of wrapped addresses is one of IPv4 once it is read.
            prop_assert_eq!(read.to_string(), made.to_string().parse::<AddressRange>().unwrap().to_string());
            let is_wrapped = v6 && family.address(made.from).to_canonical().is_ipv4();
            if !is_wrapped {
                prop_assert_eq!(read, made);
            }
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,40}|[0-9a-f:./-]{0,60}") {
            let _ = text.parse::<AddressRange>();
        }
    }
}

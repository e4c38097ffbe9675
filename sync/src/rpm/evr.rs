//! Versions of RPM packages, and their order.
//!
//! A version is three texts: epoch, version and release. They are compared in this order, the epoch as
//! a number, the others as rpm's `rpmvercmp` does. The order is rpm's own and not a sensible one: `1.05`
//! and `1.5` are equal, and so are `1_0` and `1.0`, though they are different texts. For this reason
//! [`Evr`] has [`Evr::compare`] and is not `Ord`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest version and release together, in bytes.
const MAX_LEN: usize = 512;

/// Epoch, version and release of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evr {
    /// The epoch; 0 where none is stated.
    pub epoch: u32,
    /// The version.
    pub version: Box<str>,
    /// The release; may be empty.
    pub release: Box<str>,
}

/// Text that is no version of a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of an RPM package; want [epoch:]version[-release]")]
pub struct NotAnEvr(String);

impl Evr {
    /// One of what an element's attributes say. An epoch that is empty or `(none)` is 0.
    pub fn new(epoch: &str, version: &str, release: &str) -> Result<Self, NotAnEvr> {
        let wrong = || NotAnEvr(format!("{epoch}:{version}-{release}").chars().take(200).collect());
        let epoch = match epoch.trim() {
            "" | "(none)" => 0,
            digits => digits.parse().map_err(|_| wrong())?,
        };
        let fits = |text: &str| !text.bytes().any(|b| b <= b' ' || matches!(b, b':' | b'-'));
        let is_long = version.len() + release.len() > MAX_LEN;
        if version.is_empty() || is_long || !fits(version) || !fits(release) {
            return Err(wrong());
        }
        Ok(Self { epoch, version: version.into(), release: release.into() })
    }

    /// How this one stands to `other`, as rpm has it. A release that is not stated is the least one.
    pub fn compare(&self, other: &Self) -> Ordering {
        let epoch = self.epoch.cmp(&other.epoch);
        epoch
            .then_with(|| compare(&self.version, &other.version))
            .then_with(|| compare(&self.release, &other.release))
    }
}

impl FromStr for Evr {
    type Err = NotAnEvr;
    fn from_str(text: &str) -> Result<Self, NotAnEvr> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (version, release) = rest.split_once('-').unwrap_or((rest, ""));
        Self::new(epoch, version, release).map_err(|_| NotAnEvr(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Evr {
    /// As rpm writes it: an epoch of 0 is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch > 0 {
            write!(f, "{}:", self.epoch)?;
        }
        f.write_str(&self.version)?;
        if !self.release.is_empty() {
            write!(f, "-{}", self.release)?;
        }
        Ok(())
    }
}

/// How one version, or one release, stands to another: `rpmvercmp`.
///
/// Both are read as runs of digits or of letters, whatever stands between; runs are compared in pairs.
/// `~` sorts before everything, the end included; `^` after the end, but before any further run
/// (rpm-version(7)).
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        (one, other) = (past_separators(one), past_separators(other));
        match (one.first(), other.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (one, other) = (&one[1..], &other[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (Some(_), Some(_)) => {}
        }
        // The first text says of which kind the runs are; where the other has none, digits win.
        let are_digits = one[0].is_ascii_digit();
        let (left, right) = (run(one, are_digits), run(other, are_digits));
        if right.is_empty() {
            return if are_digits { Ordering::Greater } else { Ordering::Less };
        }
        (one, other) = (&one[left.len()..], &other[right.len()..]);
        let order = if are_digits { as_numbers(left, right) } else { left.cmp(right) };
        if order.is_ne() {
            return order;
        }
    }
}

fn past_separators(text: &[u8]) -> &[u8] {
    let at = text.iter().position(|b| b.is_ascii_alphanumeric() || matches!(b, b'~' | b'^'));
    &text[at.unwrap_or(text.len())..]
}

fn run(text: &[u8], of_digits: bool) -> &[u8] {
    let fits = |b: &u8| if of_digits { b.is_ascii_digit() } else { b.is_ascii_alphabetic() };
    &text[..text.iter().position(|b| !fits(b)).unwrap_or(text.len())]
}

/// Digits of any number, so not as integers.
fn as_numbers(left: &[u8], right: &[u8]) -> Ordering {
    let significant = |text: &'_ [u8]| text.iter().position(|b| *b != b'0').unwrap_or(text.len());
    let (left, right) = (&left[significant(left)..], &right[significant(right)..]);
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_rpm_sorts_them() {
        for (less, greater) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0^git1"),
            ("1.0^git1", "1.0.1"),
            ("1.0a", "1.0.1"),
            ("2.0.1", "2.0.1a"),
            ("1.0~~", "1.0~"),
            ("1.0^", "1.0a"),
            ("a", "1"),
            ("9", "10"),
            ("1", "1.1"),
            ("1.0~rc1^git1", "1.0"),
            ("1.0^git1~pre", "1.0^git1"),
        ] {
            assert_eq!(compare(less, greater), Ordering::Less, "{less} < {greater}");
            assert_eq!(compare(greater, less), Ordering::Greater, "{greater} > {less}");
        }
        for (one, other) in
            [("1.05", "1.5"), ("1_0", "1.0"), ("1.0.", "1.0"), ("007", "7"), ("", "")]
        {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} = {other}");
        }
        let huge = ("1".repeat(90), "2".repeat(90));
        assert_eq!(compare(&huge.0, &huge.1), Ordering::Less);
    }

    #[test]
    fn the_epoch_counts_first_and_the_release_last() {
        let evr = |text: &str| text.parse::<Evr>().unwrap();
        assert_eq!(evr("1:1.0-1").compare(&evr("2.0-1")), Ordering::Greater);
        assert_eq!(evr("0:1.0-1").compare(&evr("1.0-1")), Ordering::Equal);
        assert_eq!(evr("1.0-1").compare(&evr("1.0-2")), Ordering::Less);
        assert_eq!(evr("1.0").compare(&evr("1.0-1")), Ordering::Less);
        assert_eq!(evr("0:1.0-1.el9").to_string(), "1.0-1.el9");
        assert_eq!(evr("3:1.0-1").to_string(), "3:1.0-1");
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for wrong in ["", ":", "x:1-1", "1:", "-1", "1.0-1 x", "99999999999:1-1", "1-a:b"] {
            assert!(wrong.parse::<Evr>().is_err(), "{wrong:?}");
        }
        assert!(Evr::new("(none)", "1", "").is_ok());
        assert!(Evr::new("0", "1-2", "3").is_err());
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_the_same_from_both_sides(a in "[0-2ab.~^_]{0,8}", b in "[0-2ab.~^_]{0,8}") {
            proptest::prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            proptest::prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }

        #[test]
        fn the_order_can_be_sorted_by(a in "[0-1a.~^]{0,4}", b in "[0-1a.~^]{0,4}", c in "[0-1a.~^]{0,4}") {
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                proptest::prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}

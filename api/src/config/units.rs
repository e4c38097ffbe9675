//! Sizes, spans of time and rates as people write them: `256MiB`, `30s`, `1h30m`, `20Mbit`.

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
];

const BIT_UNITS: [(&str, u64); 4] =
    [("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)];

const TIME_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl ByteSize {
    /// Reads `256MiB`, `1.5 GiB`, or a plain number of bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_number(text.trim())?;
        let scale = match unit {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        scaled(number, scale).map(Self)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(&str, u64)| self.0 >= *scale && self.0.is_multiple_of(*scale);
        let (name, scale) = SIZE_UNITS[..5].iter().rev().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

/// Reads `30s`, `24h`, `7d`, or a sum such as `1h30m`. A number needs its unit, except 0.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = None;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let scale = TIME_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = Some(scaled(number, scale)?.checked_add(total.unwrap_or(0))?);
        rest = next.trim_start();
    }
    total.map(Duration::from_millis)
}

/// The way back: the largest unit that needs no fraction.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (name, scale) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{name}", ms / scale);
        }
    }
    format!("{ms}ms")
}

/// Reads how many bytes come in a second: `20Mbit`, `256 kbit/s`, `2.5MB/s`. What is neither said to be
/// bits nor to be by the second could be meant either way, and is none.
pub fn parse_rate(text: &str) -> Option<u64> {
    let text = text.trim();
    let (amount, is_a_second) = match text.strip_suffix("/s") {
        Some(amount) => (amount.trim_end(), true),
        None => (text, false),
    };
    let (number, unit) = split_number(amount)?;
    if let Some((_, scale)) = BIT_UNITS.iter().find(|(name, _)| *name == unit) {
        return Some(scaled(number, *scale)? / 8);
    }
    ByteSize::parse(amount).filter(|_| is_a_second && !unit.is_empty()).map(|size| size.0)
}

/// How many bytes come in a second, as lines are sold: `20 Mbit/s`. Rounded to a thousandth.
pub fn format_rate(bytes: u64) -> String {
    let bits = u128::from(bytes) * 8;
    let (name, scale) = BIT_UNITS
        .iter()
        .rev()
        .find(|(_, scale)| bits >= u128::from(*scale))
        .unwrap_or(&BIT_UNITS[0]);
    let thousandths = bits * 1000 / u128::from(*scale);
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let shown = format!("{whole}.{rest:03}");
    format!("{} {name}/s", shown.trim_end_matches('0').trim_end_matches('.'))
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(len);
    (!number.is_empty()).then_some((number, unit.trim_start()))
}

/// `number` (which may have a fraction) times `scale`, if that is a whole number.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let base = whole.checked_mul(scale)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(base);
    }
    if fraction.len() > 6 {
        return None;
    }
    let part: u64 = fraction.parse().ok()?;
    let part = u128::from(part) * u128::from(scale);
    let divisor = 10_u128.pow(fraction.len() as u32);
    if !part.is_multiple_of(divisor) {
        return None;
    }
    base.checked_add(u64::try_from(part / divisor).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text| ByteSize::parse(text).map(|size| size.0);
        assert_eq!(read("256MiB"), Some(256 << 20));
        assert_eq!(read(" 1.5 GiB "), Some(3 << 29));
        assert_eq!(read("4096"), Some(4096));
        assert_eq!(read("10MB"), Some(10_000_000));
        assert_eq!(read("2G"), Some(2 << 30));
        for wrong in ["", "MiB", "1 mib", "1.0001B", "-1", "1.", "99999999TiB", "1.2.3MiB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(read("30s"), Some(30_000));
        assert_eq!(read("1h30m"), Some(5_400_000));
        assert_eq!(read("1h 30min"), Some(5_400_000));
        assert_eq!(read("1.5h"), Some(5_400_000));
        assert_eq!(read("7d"), Some(7 * 86_400_000));
        assert_eq!(read("0"), Some(0));
        for wrong in ["", "30", "s", "1y", "1h30", "-1s"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_of_bits_or_of_bytes_a_second_and_say_which() {
        assert_eq!(parse_rate("20Mbit"), Some(2_500_000));
        assert_eq!(parse_rate(" 256 kbit/s "), Some(32_000));
        assert_eq!(parse_rate("1.5Gbit/s"), Some(187_500_000));
        assert_eq!(parse_rate("2.5MB/s"), Some(2_500_000));
        assert_eq!(parse_rate("64KiB/s"), Some(65_536));
        for wrong in
            ["", "20", "20/s", "20M", "20MB", "Mbit", "-1Mbit", "20mbit", "1e6bit", "20Mbit/h"]
        {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
        let shown = [2_500_000, 32_000, 187_500_000, 65_536, 0, 1].map(format_rate);
        let want =
            ["20 Mbit/s", "256 kbit/s", "1.5 Gbit/s", "524.288 kbit/s", "0 bit/s", "8 bit/s"];
        assert_eq!(shown, want);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, ms in 0..u64::MAX / 2) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(time)), Some(time));
        }
    }
}

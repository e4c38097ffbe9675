//! Numbers as people read and write them: sizes, speeds, counts, spans of time, points in time.
//!
//! `--json` never passes through here: scripts get plain numbers in bytes, seconds and RFC 3339.

use std::time::Duration;

const SIZES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in bytes with three significant digits: `812 B`, `1.43 GiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would print as 1000: the next unit reads better.
    while value >= 999.5 && unit + 1 < SIZES.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), SIZES[unit])
}

/// How fast `n` bytes went, to stand behind what says so: ` (312 MiB/s)`; nothing if it was not a
/// byte a second.
pub fn speed(n: u64, took: Duration) -> String {
    match rate(n, took).as_str() {
        "0 B/s" => String::new(),
        rate => format!(" ({rate})"),
    }
}

/// How fast `n` bytes went in `took`: `312 MiB/s`.
pub fn rate(n: u64, took: Duration) -> String {
    let per_second = n as f64 / took.as_secs_f64().max(1e-6);
    format!("{}/s", bytes(per_second as u64))
}

/// A count with its thousands apart: `104,857`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A span of time: `34 ms`, `2.41 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{} ms", d.as_millis()),
        1..60 => format!("{} s", three_digits(d.as_secs_f64())),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// How many plain bytes stand behind each stored one: `2.94`; `-` if nothing is stored.
pub fn ratio(plain: u64, stored: u64) -> String {
    match stored {
        0 => "-".to_owned(),
        _ => format!("{:.2}", plain as f64 / stored as f64),
    }
}

/// A point in time in this machine's time zone, to the minute.
pub fn when(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// How long ago `at` was: `3 min 5 s`.
pub fn since(at: jiff::Timestamp, now: jiff::Timestamp) -> String {
    duration(Duration::try_from(now.duration_since(at)).unwrap_or_default())
}

/// Reads a span of time as a person writes it, on the command line as in the configuration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    api::config::parse_duration(text)
        .ok_or_else(|| "want numbers with units, for example 90s, 24h, 30d or 1h30m".to_owned())
}

/// Reads how much comes in a second; bytes a second.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    api::config::parse_rate(text).ok_or_else(|| {
        "want a rate with its unit, for example 20Mbit, 256kbit or 2.5MB/s".to_owned()
    })
}

/// Three significant digits, no trailing point: `1.43`, `14.3`, `143`.
fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_binary_unit() {
        let shown = [0, 1023, 1024, 1536, 10_240, 1_048_575, 1_500_000_000, u64::MAX].map(bytes);
        let want = [
            "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 KiB", "1.00 MiB", "1.40 GiB", "16.0 EiB",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn a_speed_of_nothing_is_not_told() {
        let second = Duration::from_secs(1);
        assert_eq!([0, 2048].map(|n| speed(n, second)), ["", " (2.00 KiB/s)"]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn spans_of_time_name_two_units_at_most() {
        let shown = [0, 34, 2410, 185_000, 7_800_000, 273_600_000]
            .map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0 ms", "34 ms", "2.41 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"]);
    }
}

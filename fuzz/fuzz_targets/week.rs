//! A week, from the wire or from a person's `week.toml`: at each of its changes holds what it says. The
//! first byte chooses where it is from and whether the clock is set in its zone, the next eight a moment.
#![no_main]

use dp::pace::{Hours, Week};
use jiff::Timestamp;

const ZONES: [&str; 4] = ["Europe/Paris", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, ref moment @ ..], text)) = bytes.split_first_chunk::<9>() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let week = match kind % 2 {
        0 => serde_json::from_str::<Week>(text).ok(),
        _ => api::week_file::parse(text, ZONES[usize::from(kind / 2) % ZONES.len()]).ok(),
    };
    let Some(week) = week else { return };
    let said = serde_json::to_string(&week).unwrap();
    assert_eq!(serde_json::from_str::<Week>(&said).unwrap(), week);
    for change in week.changes() {
        assert_eq!(week.at_wall(change.at), change.hours);
        assert_eq!(change.at.to_string().parse(), Ok(change.at));
    }
    let (Ok(zone), Ok(now)) =
        (week.zone(), Timestamp::from_millisecond(i64::from_le_bytes(*moment)))
    else {
        return;
    };
    let before = week.at(now, &zone);
    let is_other = |hours: Hours| hours != before;
    if let Some(then) = week.next(now, &zone, is_other) {
        assert!(then > now && is_other(week.at(then, &zone)));
    }
});

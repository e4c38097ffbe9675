use super::*;
use jiff::ToSpan;
use proptest::prelude::*;
use proptest::sample::select;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(schedule: &str, after: &str) -> String {
    let schedule: Schedule = schedule.parse().unwrap();
    schedule.next(at(after)).unwrap().unwrap().to_string()
}

#[test]
fn sentences_read_back_as_they_are_written() {
    for (text, canonical) in [
        ("every day 03:00 Europe/Berlin", "every day 03:00 Europe/Berlin"),
        ("Daily 3:00", "every day 03:00 UTC"),
        ("every Thu, Monday 02:30 Europe/Paris", "every monday and thursday 02:30 Europe/Paris"),
        ("second tuesday 19:00 UTC", "second tuesday 19:00 UTC"),
        ("last fri 22:15", "last friday 22:15 UTC"),
        ("last day 23:59 America/New_York", "day 31 23:59 America/New_York"),
        ("day 15 00:00", "day 15 00:00 UTC"),
        ("every 4 hours", "every 4 hours"),
        ("every 90 minutes", "every 90 minutes"),
        ("every 60 minutes", "every hour"),
        ("never", "never"),
    ] {
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(schedule.clone()));
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }
}

#[test]
fn what_is_no_schedule_says_what_is_wrong() {
    let said = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
    for text in [
        "",
        "sometimes",
        "every",
        "every day",
        "every 3 days",
        "fifth monday 03:00",
        "day 32 03:00",
        "every day 03:00 Europe/Berlin please",
        "every 3.5 hours",
        "first 03:00",
    ] {
        assert!(said(text).contains("want for example"), "{text}");
    }
    assert!(said("every 0 minutes").contains("from 1 minute to 7 days"));
    assert!(said("every 9999999 hours").contains("from 1 minute to 7 days"));
    for time in ["24:00", "3", "03:60", "-3:00", "+3:00", "003:00"] {
        assert!(said(&format!("every day {time} UTC")).contains("no time of a day"), "{time}");
    }
    assert!(said("every day 03:00 Europe/Atlantis").contains("no time zone \"Europe/Atlantis\""));
    assert!(said(&"x".repeat(10_000)).len() < 1_000);
    // What a machine with other zones wrote is read all the same, and fails where it is used.
    let foreign: Schedule = serde_json::from_str("\"every day 03:00 Mars/Olympus\"").unwrap();
    assert!(foreign.next(Timestamp::UNIX_EPOCH).is_err());
}

#[test]
fn a_clock_that_jumps_neither_loses_nor_doubles_a_time() {
    let daily = "every day 02:30 Europe/Berlin";
    // The last Sunday of March: 02:00 becomes 03:00.
    assert_eq!(next(daily, "2026-03-28T12:00:00Z"), "2026-03-29T01:30:00Z");
    assert_eq!(next(daily, "2026-03-29T01:30:00Z"), "2026-03-30T00:30:00Z");
    // The last Sunday of October: 03:00 becomes 02:00.
    assert_eq!(next(daily, "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(next(daily, "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    // Samoa had no 30th of December 2011.
    let samoa = "every friday 12:00 Pacific/Apia";
    assert_eq!(next(samoa, "2011-12-29T12:00:00Z"), "2011-12-30T22:00:00Z");
}

#[test]
fn months_end_where_they_end() {
    let last = "day 31 23:00 UTC";
    assert_eq!(next(last, "2027-02-01T00:00:00Z"), "2027-02-28T23:00:00Z");
    assert_eq!(next(last, "2028-02-28T23:00:00Z"), "2028-02-29T23:00:00Z");
    assert_eq!(next(last, "2028-02-29T23:00:00Z"), "2028-03-31T23:00:00Z");
    assert_eq!(next("second tuesday 19:00 UTC", "2026-09-08T19:00:00Z"), "2026-10-13T19:00:00Z");
    assert_eq!(next("last friday 22:00 UTC", "2026-01-01T00:00:00Z"), "2026-01-30T22:00:00Z");
    assert_eq!(next("first monday 00:00 UTC", "2026-12-07T00:00:00Z"), "2027-01-04T00:00:00Z");
}

#[test]
fn steps_are_the_same_whatever_the_time_they_are_asked_at() {
    assert_eq!(next("every 15 minutes", "2026-11-27T10:07:31Z"), "2026-11-27T10:15:00Z");
    assert_eq!(next("every 4 hours", "2026-11-27T12:00:00Z"), "2026-11-27T16:00:00Z");
    assert_eq!(next("every hour", "1969-12-31T23:59:59Z"), "1970-01-01T00:00:00Z");
    assert_eq!(Schedule::NEVER.next(at("2026-11-27T10:07:31Z")), Ok(None));
}

#[test]
fn at_the_end_of_time_it_never_happens_again() {
    for text in ["every day 03:00 Europe/Berlin", "last friday 22:00 UTC", "every 4 hours"] {
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.next(Timestamp::MAX), Ok(None), "{text}");
    }
}

/// The same by looking at the clock on the wall minute after minute.
fn scan(days: Days, wanted: Time, zone: &TimeZone, after: Timestamp) -> Timestamp {
    let mut seen = std::collections::BTreeSet::new();
    let mut now = at("1970-01-01T00:00:00Z");
    // From two days before, so that the second of two equal times is known for what it is.
    now += (after.as_second() / 60 * 60 - 2 * 86_400).seconds();
    let mut wall = (now - 1.minute()).to_zoned(zone.clone()).datetime();
    loop {
        let before = wall;
        wall = now.to_zoned(zone.clone()).datetime();
        // What the clock jumped over, oldest first, happens as much later as it jumped.
        let mut skipped = before + 1.minute();
        let gap_begins = now;
        let mut hits = Vec::new();
        let mut offset = 0;
        while skipped < wall {
            if skipped.time() == wanted && days.have(skipped.date()) && seen.insert(skipped) {
                hits.push(gap_begins + offset.minutes());
            }
            skipped += 1.minute();
            offset += 1;
        }
        if wall.time() == wanted && days.have(wall.date()) && seen.insert(wall) {
            hits.push(now);
        }
        hits.sort();
        if let Some(hit) = hits.into_iter().find(|hit| *hit > after) {
            return hit;
        }
        now += 1.minute();
    }
}

fn any_days() -> impl Strategy<Value = Days> {
    let weekday = || select(WEEKDAYS.map(|(_, day)| day).to_vec());
    prop_oneof![
        Just(Days::Every),
        (1u8..128).prop_map(Days::Week),
        (select(vec![1i8, 2, 3, 4, -1]), weekday()).prop_map(|(nth, day)| Days::Nth(nth, day)),
        (1i8..=31).prop_map(Days::OfMonth),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Around the days on which the clocks of these zones jump.
    #[test]
    fn the_next_time_is_the_one_that_a_plain_scan_finds(
        days in any_days(),
        hour in 0i8..4,
        minute in select(vec![0i8, 15, 30, 59]),
        (zone, jump) in select(vec![
            ("Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
            ("Asia/Kolkata", "2028-02-28T18:30:00Z"),
        ]),
        before in -3_000i64..3_000,
    ) {
        let wanted = Time::constant(0, 0, 0, 0) + (i64::from(hour) * 60 + i64::from(minute)).minutes();
        let after = at(jump) + before.minutes();
        let zone = TimeZone::get(zone).unwrap();
        let found = next_wall(days, wanted, &zone, after);
        prop_assert_eq!(found, Some(scan(days, wanted, &zone, after)));
    }

    #[test]
    fn each_time_is_later_and_a_step_before_it_gives_the_same(seconds in 0i64..4_000_000_000, n in 1u32..500) {
        let after = Timestamp::from_second(seconds).unwrap();
        let schedule = Schedule(When::Step(n));
        let next = schedule.next(after).unwrap().unwrap();
        prop_assert!(next > after && next.as_second() % (i64::from(n) * 60) == 0);
        prop_assert!(next.duration_since(after).as_secs() <= i64::from(n) * 60);
        prop_assert_eq!(schedule.next(next - 1.second()).unwrap(), Some(next));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(every|first|last|day|and|monday|[0-9:]{1,5}|UTC| |,){0,12}") {
        let _ = text.parse::<Schedule>();
    }
}

//! What a point may bring at a moment, and how fast: a pure function of what is set for it.

use crate::field::{Limit, Priority, Settings};
use crate::pace::{Hours, Level, Week};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    /// What may be brought.
    pub level: Level,
    /// How fast.
    pub limit: Option<Limit>,
    /// Why what has these priorities is not brought now; in the words that people read.
    pub shut: BTreeMap<Priority, String>,
}

/// What holds at `now`.
pub(super) fn schedule(settings: &Settings, now: Timestamp) -> Schedule {
    let Some(week) = &settings.window else {
        return Schedule { limit: settings.limit, ..Schedule::default() };
    };
    let priorities = [Priority::Low, Priority::Medium, Priority::High];
    let zone = match week.zone() {
        Ok(zone) => zone,
        Err(unknown) => {
            // Whoever set a window meant to keep the line free at some hours, and these may be they.
            let shut = priorities.map(|priority| (priority, unknown.to_string())).into();
            return Schedule { level: Level::Closed, limit: settings.limit, shut };
        }
    };
    let hours = week.at(now, &zone);
    let shut = priorities.into_iter().filter(|priority| !hours.level.allows(*priority));
    let why = |priority| match week.next(now, &zone, |hours| hours.level.allows(priority)) {
        Some(at) => {
            let at = at.to_zoned(zone.clone());
            format!("the window opens {} {}", at.strftime("%a %H:%M"), week.timezone())
        }
        None => "the window never opens for what has this priority".to_owned(),
    };
    let shut = shut.map(|priority| (priority, why(priority))).collect();
    Schedule { level: hours.level, limit: both(settings.limit, hours), shut }
}

/// The point's limit, and that of these hours.
fn both(limit: Option<Limit>, hours: Hours) -> Option<Limit> {
    let Some(rate) = hours.rate else { return limit };
    Some(match limit {
        Some(limit) => Limit { rate: rate.min(limit.rate), ..limit },
        None => Limit::of(rate, None),
    })
}

/// Whether a window is set: then what holds may change by itself.
pub(super) fn may_change(settings: &Settings) -> bool {
    settings
        .window
        .as_ref()
        .is_some_and(|week: &Week| week.changes().len() > 1 || week.zone().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Change;

    fn settings(
        limit: Option<Limit>,
        zone: &str,
        changes: &[(&str, Level, Option<u64>)],
    ) -> Settings {
        let change = |&(at, level, rate): &(&str, Level, Option<u64>)| Change {
            at: at.parse::<crate::pace::WeekTime>().unwrap(),
            hours: Hours { level, rate },
        };
        let week = Week::new(zone.into(), changes.iter().map(change).collect()).unwrap();
        let set = Settings { limit, ..Settings::default() };
        Settings { window: Some(week), ..set }
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_window_all_may_come_at_the_limit() {
        let limit = Some(Limit { rate: 5, burst: 6 });
        let set = Settings { limit, ..Settings::default() };
        assert!(!may_change(&set));
        let found = schedule(&set, Timestamp::UNIX_EPOCH);
        assert_eq!(found, Schedule { level: Level::Open, limit, shut: BTreeMap::new() });
    }

    #[test]
    fn what_may_not_come_is_told_when_it_may() {
        let changes = [("mon 06:00", Level::High, None), ("mon 20:00", Level::Open, None)];
        let set = settings(None, "Europe/Paris", &changes);
        assert!(may_change(&set));
        // A Monday noon in summer.
        let found = schedule(&set, utc("2026-07-13T10:00:00Z"));
        assert_eq!(found.level, Level::High);
        let opens = "the window opens Mon 20:00 Europe/Paris".to_owned();
        let want = [(Priority::Low, opens.clone()), (Priority::Medium, opens)];
        assert_eq!(found.shut, want.into());
        assert!(schedule(&set, utc("2026-07-13T18:00:00Z")).shut.is_empty());
        let never = settings(None, "UTC", &[("mon 00:00", Level::Closed, None)]);
        let found = schedule(&never, Timestamp::UNIX_EPOCH);
        assert!(found.shut[&Priority::High].contains("never"), "{found:?}");
    }

    #[test]
    fn the_lower_of_two_rates_counts() {
        let changes = [("mon 00:00", Level::Open, Some(10_000)), ("sat 00:00", Level::Open, None)];
        let of = |limit, now| schedule(&settings(limit, "UTC", &changes), utc(now)).limit;
        let (monday, sunday) = ("2026-07-13T10:00:00Z", "2026-07-12T10:00:00Z");
        let set = |rate| Some(Limit { rate, burst: 7 });
        assert_eq!(of(set(5000), monday), set(5000));
        assert_eq!(of(set(50_000), monday), set(10_000));
        assert_eq!(of(set(50_000), sunday), set(50_000));
        assert_eq!(of(None, monday), Some(Limit::of(10_000, None)));
        assert_eq!(of(None, sunday), None);
    }

    #[test]
    fn where_nobody_knows_the_hour_nothing_comes_and_it_is_said_why() {
        let set = settings(None, "Europe/Nowhere", &[("mon 00:00", Level::Open, None)]);
        let found = schedule(&set, Timestamp::UNIX_EPOCH);
        assert_eq!(found.level, Level::Closed);
        assert!(found.shut[&Priority::High].contains("Europe/Nowhere"), "{found:?}");
        assert!(may_change(&set), "the data may be installed meanwhile");
    }
}

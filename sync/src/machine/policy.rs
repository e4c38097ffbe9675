//! When a source is synchronised next: a pure decision over schedule, settings and what happened.

use crate::error::{Cause, Retry};
use crate::schedule::{BadSchedule, Schedule};
use crate::source::{SiteSettings, Source, Standing, Trigger};
use jiff::Timestamp;
use std::time::Duration;

/// When, and why; none where nothing begins it but a person.
pub fn next(
    source: &Source,
    site: &SiteSettings,
    standing: &Standing,
) -> Result<Option<(Timestamp, Trigger)>, BadSchedule> {
    let is_waiting =
        standing.waits.as_deref().is_some_and(|waits| waits == source.fingerprint(&site.criteria));
    if !source.enabled || is_waiting {
        return Ok(None);
    }
    let (schedule, since) = schedule_of(source, site);
    // A time before somebody chose the schedule is none of it; one that passed while no server ran is.
    let since = standing.attempted.map_or(since, |attempted| attempted.max(since));
    let regular = schedule.next(since)?.map(|at| (at, Trigger::Schedule));
    let again = standing.again.as_ref().map(|again| (again.at, again.trigger.clone()));
    Ok(match (regular, again) {
        (Some(regular), Some(again)) => Some(if again.0 <= regular.0 { again } else { regular }),
        (regular, again) => again.or(regular),
    })
}

/// The schedule that holds for a source, and since when it does.
pub fn schedule_of<'a>(source: &'a Source, site: &'a SiteSettings) -> (&'a Schedule, Timestamp) {
    match &source.schedule {
        Some(schedule) => (schedule, source.scheduled),
        None => (&site.schedule, site.scheduled.max(source.scheduled)),
    }
}

/// How long to wait after the so-many-th failure in a row, from 1, before another try; none if it is to
/// wait for its schedule. `dice`, from 0 to 1, moves it by a quarter to either side, so that what failed
/// together is not tried together.
pub fn pause(cause: Cause, failures: u32, dice: f64) -> Option<Duration> {
    let Retry::Soon { first, longest, tries } = cause.retry() else { return None };
    if failures == 0 || failures > tries {
        return None;
    }
    let pause = first.saturating_mul(2u32.saturating_pow(failures - 1)).min(longest);
    Some(pause.mul_f64(0.75 + dice.clamp(0.0, 1.0) / 2.0))
}

/// Whether a failure of this cause comes again until a person has changed something.
pub fn waits_for_a_person(cause: Cause) -> bool {
    cause.retry() == Retry::Never && cause != Cause::Cancelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Again, SourceKind};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn source() -> Source {
        Source::new("a".parse().unwrap(), SourceKind::Parent, at("2026-11-27T10:00:00Z"))
    }

    fn when(source: &Source, standing: &Standing) -> Option<String> {
        let next = next(source, &SiteSettings::default(), standing).unwrap();
        next.map(|(at, trigger)| format!("{at} {trigger:?}"))
    }

    #[test]
    fn a_source_has_its_own_times_or_those_of_the_site() {
        let (mut a, mut standing) = (source(), Standing::default());
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-28T03:00:00Z Schedule");
        // A night on which no server ran is made good for.
        standing.attempted = Some(at("2026-11-28T03:00:07Z"));
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-29T03:00:00Z Schedule");
        a.schedule = Some("every 4 hours".parse().unwrap());
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-28T04:00:00Z Schedule");
        // What was chosen later begins then.
        a.scheduled = at("2026-11-30T13:00:00Z");
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-30T16:00:00Z Schedule");
        a.schedule = Some(Schedule::NEVER);
        assert_eq!(when(&a, &standing), None);
    }

    #[test]
    fn a_try_that_is_due_comes_before_the_schedule_and_never_of_what_is_disabled() {
        let mut a = source();
        let again = |text| Some(Again { at: at(text), trigger: Trigger::Retry });
        let mut standing = Standing { again: again("2026-11-27T10:00:15Z"), ..Standing::default() };
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-27T10:00:15Z Retry");
        standing.again = again("2026-11-28T03:00:01Z");
        assert_eq!(when(&a, &standing).unwrap(), "2026-11-28T03:00:00Z Schedule");
        a.enabled = false;
        assert_eq!(when(&a, &standing), None);
    }

    #[test]
    fn what_only_a_person_can_mend_waits_until_somebody_changed_something() {
        let mut a = source();
        let site = SiteSettings::default();
        let waits = Some(a.fingerprint(&site.criteria));
        let standing = Standing { waits, ..Standing::default() };
        assert_eq!(when(&a, &standing), None);
        a.priority = 60;
        assert_eq!(when(&a, &standing), None, "that mends nothing");
        let mut site = site;
        site.criteria.products.insert("debian-12".into());
        assert!(next(&a, &site, &standing).unwrap().is_some());
        assert!(waits_for_a_person(Cause::Altered) && waits_for_a_person(Cause::Misconfigured));
        assert!(!waits_for_a_person(Cause::Cancelled) && !waits_for_a_person(Cause::Expired));
    }

    #[test]
    fn pauses_double_within_bounds_and_end() {
        let pauses = |cause, dice| -> Vec<f64> {
            let each = (1..).map_while(|n| pause(cause, n, dice));
            each.map(|pause| pause.as_secs_f64()).collect()
        };
        assert_eq!(pauses(Cause::Unreachable, 0.5), [15.0, 30.0, 60.0, 120.0, 240.0]);
        assert_eq!(pauses(Cause::Mismatch, 0.5), [60.0, 120.0, 240.0, 480.0]);
        assert_eq!(pauses(Cause::NotFound, 0.0), [225.0, 450.0]);
        assert_eq!(pauses(Cause::NotFound, 1.0), [375.0, 750.0]);
        assert_eq!(pauses(Cause::BadSignature, 0.5), [0.0; 0]);
        assert_eq!(pause(Cause::Unreachable, 0, 0.5), None);
    }
}

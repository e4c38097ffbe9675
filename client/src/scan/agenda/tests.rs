use super::super::retry::{Class, NEXT_ONE, SAME_AGAIN};
use super::*;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

fn at(hours: u32) -> Moment {
    Moment(hours * HOUR)
}

fn half() -> f64 {
    0.5
}

fn points() -> Vec<String> {
    vec!["a".into(), "b".into()]
}

/// One that got its first policy at hour 0, and scanned at hour 1.
fn scanned() -> Agenda {
    let mut agenda = Agenda::default();
    agenda.policy(at(0), Settings::default(), points(), &mut half);
    agenda.begin(at(1), &mut half).unwrap();
    agenda.succeeded(at(1));
    agenda
}

fn busy() -> Failure {
    Failure { class: Class::Busy, why: "503".into() }
}

#[test]
fn the_first_scan_is_at_random_within_two_hours_of_the_first_policy() {
    for (chance, want) in [(0.0, 0), (0.25, 30), (0.999, 119)] {
        let mut agenda = Agenda::default();
        agenda.policy(at(5), Settings::default(), points(), &mut || chance);
        let due = agenda.wake(at(5)).unwrap();
        assert_eq!(due.since(at(5)).as_secs() / 60, want);
        assert!(chance == 0.0 || agenda.begin(at(5), &mut half).is_none(), "not before");
        let scan = agenda.begin(due, &mut half).unwrap();
        assert_eq!(scan.answers, [Trigger::Schedule].into());
        assert_eq!(scan.point.as_deref(), Some("a"));
        assert_eq!(scan.steps.first(), Some(&Step::ClearHistory));
    }
}

#[test]
fn a_later_policy_starts_no_scan() {
    let mut agenda = scanned();
    let before = agenda.wake(at(2));
    agenda.policy(at(2), Settings::default(), points(), &mut half);
    assert_eq!(agenda.wake(at(2)), before);
    assert!(agenda.begin(at(3), &mut half).is_none());
}

#[test]
fn without_a_policy_or_with_one_that_disables_updates_nothing_is_scanned() {
    let mut agenda = Agenda::default();
    agenda.ask(Trigger::UserAction);
    assert_eq!((agenda.begin(at(9), &mut half), agenda.wake(at(9))), (None, None));
    let mut agenda = scanned();
    agenda.ask(Trigger::UserAction);
    agenda.disable();
    assert_eq!((agenda.begin(at(900), &mut half), agenda.wake(at(9))), (None, None));
    assert_eq!(agenda.point(), None, "where the update points are is forgotten too");
}

#[test]
fn scans_recur_every_seven_days_at_random_within_two_hours() {
    let mut agenda = scanned();
    let due = agenda.wake(at(1)).unwrap();
    assert_eq!(due, at(7 * 24 + 1), "seven days after the policy, and half of two hours");
    let scan = agenda.begin(due, &mut half).unwrap();
    assert!(scan.answers.contains(&Trigger::Schedule));
}

#[test]
fn a_period_of_less_than_a_day_counts_as_a_day() {
    let mut agenda = scanned();
    let settings = Settings { scan_every: 5 * MINUTE, ..Settings::default() };
    agenda.policy(at(2), settings, points(), &mut || 0.0);
    assert_eq!(agenda.wake(at(2)), Some(at(26)));
    assert!(agenda.begin(at(26), &mut || 0.0).is_some());
    agenda.succeeded(at(26));
    assert_eq!(agenda.wake(at(26)), Some(at(50)));
}

#[test]
fn a_scan_that_somebody_asks_for_begins_the_time_to_live_anew() {
    let mut agenda = scanned();
    agenda.ask(Trigger::UserAction);
    assert!(agenda.begin(at(20), &mut half).unwrap().point.is_some());
    agenda.succeeded(at(20));
    // 43 hours after the first, 23 after the one that was asked for.
    agenda.ask(Trigger::BeforeInstall);
    let scan = agenda.begin(at(43), &mut half).unwrap();
    assert_eq!((scan.point, scan.steps), (None, plan(false)));
    agenda.succeeded(at(43));
    // One that did not ask leaves it as it is.
    agenda.ask(Trigger::BeforeInstall);
    assert!(agenda.begin(at(44), &mut half).unwrap().point.is_some());
}

#[test]
fn a_scan_after_an_installation_is_made_at_once_while_update_points_are_avoided() {
    let mut agenda = scanned();
    agenda.ask(Trigger::BeforeDownload);
    agenda.begin(at(30), &mut half).unwrap();
    agenda.failed(at(30), busy());
    agenda.ask(Trigger::AfterInstall);
    let scan = agenda.begin(at(30), &mut half).unwrap();
    assert_eq!((scan.answers, scan.point), ([Trigger::AfterInstall].into(), None));
    agenda.succeeded(at(30));
    assert_eq!(agenda.last_failure(), None);
    assert_eq!(agenda.wake(at(30)), Some(at(30) + SAME_AGAIN));
}

#[test]
fn a_scan_that_asks_answers_all_that_wait() {
    let mut agenda = scanned();
    for trigger in [Trigger::Reevaluation, Trigger::BeforeDownload, Trigger::UserAction] {
        agenda.ask(trigger);
    }
    let scan = agenda.begin(at(40), &mut half).unwrap();
    assert_eq!(scan.answers.len(), 3);
    // What is asked while it runs is another.
    agenda.ask(Trigger::UserAction);
    assert!(agenda.begin(at(40), &mut half).is_none(), "one at a time");
    agenda.succeeded(at(40));
    assert_eq!(agenda.begin(at(40), &mut half).unwrap().answers, [Trigger::UserAction].into());
}

#[test]
fn a_failure_that_may_pass_is_tried_again_four_times_then_at_the_next_point() {
    let mut agenda = scanned();
    agenda.ask(Trigger::UserAction);
    let (mut now, mut seen) = (at(30), Vec::new());
    for _ in 0..5 {
        let scan = agenda.begin(now, &mut half).unwrap();
        seen.push((now.since(at(30)), scan.point.unwrap()));
        agenda.failed(now, busy());
        assert!(agenda.begin(now + MINUTE, &mut half).is_none());
        now = agenda.wake(now).unwrap();
    }
    let minutes: Vec<_> = seen.iter().map(|(t, p)| (t.as_secs() / 60, p.as_str())).collect();
    assert_eq!(minutes, [(0, "a"), (30, "a"), (60, "a"), (90, "a"), (92, "b")]);
    assert_eq!(NEXT_ONE, 2 * MINUTE);
    // Somebody who wants it now gets it now.
    agenda.ask(Trigger::UserAction);
    assert!(agenda.begin(now, &mut half).is_some());
    agenda.succeeded(now);
    assert_eq!(agenda.point(), Some("b"), "it stays with the one that served");
}

#[test]
fn a_failure_that_does_not_pass_waits_for_the_next_scan() {
    let mut agenda = scanned();
    let next = agenda.wake(at(2));
    agenda.ask(Trigger::UserAction);
    agenda.begin(at(2), &mut half).unwrap();
    agenda.failed(at(2), Failure { class: Class::Local, why: "no status file".into() });
    assert_eq!(agenda.wake(at(2)), next);
    assert_eq!(agenda.last_failure().unwrap().why, "no status file");
}

#[test]
fn power_that_fails_in_mid_scan_is_no_failure() {
    let mut agenda = scanned();
    agenda.ask(Trigger::UserAction);
    agenda.begin(at(30), &mut half).unwrap();
    let json = serde_json::to_string(&agenda).unwrap();
    let mut agenda: Agenda = serde_json::from_str(&json).unwrap();
    agenda.interrupted();
    assert_eq!(agenda.last_failure(), None);
    let again = agenda.begin(at(31), &mut half).unwrap();
    assert_eq!((again.answers, again.point.as_deref()), ([Trigger::UserAction].into(), Some("a")));
}

#[test]
fn a_machine_that_was_away_for_a_month_scans_within_two_hours_and_not_at_once() {
    let mut agenda = scanned();
    let now = at(31 * 24);
    assert!(agenda.begin(now, &mut half).is_none());
    let due = agenda.wake(now).unwrap();
    assert_eq!(due, now + HOUR);
    // It is put off once: an agent that looks seldom scans too.
    let late = due + 5 * HOUR;
    assert!(agenda.begin(late, &mut half).is_some());
    agenda.succeeded(late);
    assert!(agenda.wake(late).unwrap() > late + 6 * DAY, "what was missed is not made up for");
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u32),
    Ask(usize),
    Fail(bool),
    PowerLoss,
    Policy,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_000u32).prop_map(Event::Pass),
        2 => (0..7usize).prop_map(Event::Ask),
        2 => any::<bool>().prop_map(Event::Fail),
        1 => Just(Event::PowerLoss),
        1 => Just(Event::Policy),
    ]
}

proptest! {
    #[test]
    fn scanning_neither_stops_nor_storms(
        events in prop::collection::vec(event(), 1..80), seed in 0.0..1.0f64,
    ) {
        let mut chance = seed;
        let mut dice = move || { chance = (chance * 997.0 + 0.31).fract(); chance };
        let (mut agenda, mut now) = (Agenda::default(), Moment::default());
        agenda.policy(now, Settings::default(), points(), &mut dice);
        let (mut asked, mut fails, mut failures, mut begun, mut losses) = (0, false, 0, 0, 0);
        let start = now;
        for event in events {
            match event {
                Event::Pass(minutes) => now = now + minutes * MINUTE,
                Event::Ask(which) => { asked += 1; agenda.ask(Trigger::ALL[which]); }
                Event::Fail(so) => fails = so,
                Event::Policy => agenda.policy(now, Settings::default(), points(), &mut dice),
                Event::PowerLoss => {
                    if agenda.begin(now, &mut dice).is_some() { losses += 1; begun += 1; }
                    agenda.interrupted();
                }
            }
            while let Some(scan) = agenda.begin(now, &mut dice) {
                begun += 1;
                prop_assert!(!scan.answers.is_empty());
                if scan.point.is_none() {
                    prop_assert!(scan.answers.iter().all(|it| *it != Trigger::UserAction));
                }
                if fails && scan.point.is_some() {
                    failures += 1;
                    agenda.failed(now, busy());
                } else {
                    agenda.succeeded(now);
                }
            }
            // It never falls asleep, and never wakes for nothing twice.
            let wake = agenda.wake(now);
            prop_assert!(wake.is_some_and(|wake| wake > now), "{wake:?} at {now:?}");
            prop_assert!(wake.unwrap().since(now) <= 8 * DAY);
        }
        let weeks = now.since(start).as_secs() / (7 * 86_400) + 1;
        prop_assert!(begun <= asked + failures + losses + 2 * weeks as usize + 2, "{begun}");
    }
}

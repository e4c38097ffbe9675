//! What each kind of batch is answered, and what administrators are told.

use crate::client::{Client, update};
use compliance::fleet::{EnrolError, Enrolment, Fingerprint, Standing};
use compliance::message::{Answer, Kind, MAX_SENT, Refusal, Resync, State};
use compliance::summary::GroupCounts;
use compliance::unknown::Cause;
use compliance::{Compliance, Event, Settings};
use jiff::{SignedDuration, Timestamp};
use roaring::RoaringBitmap;
use sitedb::{Db, FaultyKv};
use std::sync::Arc;
use sync::catalogue::RequiredCounts as _;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn enrol(site: &Compliance, client: &Client, standing: Standing) -> u32 {
    let (id, key) = (client.id, client.key);
    site.enrol(Enrolment { id, key, name: "host".into(), standing }, at(0)).unwrap()
}

fn site_with(clients: &[Client]) -> Compliance {
    let site = Compliance::open(Db::in_memory(), Settings::default()).unwrap();
    for client in clients {
        enrol(&site, client, Standing::Approved);
    }
    site
}

fn send(site: &Compliance, client: &mut Client) -> Answer {
    let bytes = client.batch(NOW).encode().unwrap();
    let answer = site.accept(&client.key, bytes, at(0)).unwrap();
    client.hear(&answer);
    answer
}

#[test]
fn who_may_not_report_is_refused_with_the_reason() {
    let mut client = Client::new(1, 1);
    client.change(update(1), 1, State::Required);
    let site = site_with(&[]);
    let refused = |site: &Compliance, client: &mut Client| match send(site, client) {
        Answer::Refused { why } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&site, &mut client), Refusal::UnknownClient);
    let ordinal = enrol(&site, &client, Standing::Pending);
    assert_eq!(refused(&site, &mut client), Refusal::Pending);
    site.set_standing(ordinal, Standing::Blocked, at(0)).unwrap();
    assert_eq!(refused(&site, &mut client), Refusal::Blocked);
    site.set_standing(ordinal, Standing::Approved, at(0)).unwrap();
    assert!(matches!(send(&site, &mut client), Answer::Accepted { next: 1, resync: None }));
    let other = Client::new(2, 1);
    enrol(&site, &other, Standing::Approved);
    let bytes = client.batch(NOW).encode().unwrap();
    let answer = site.accept(&other.key, bytes, at(0)).unwrap();
    assert_eq!(answer, Answer::Refused { why: Refusal::ForeignKey });
    let answer = site.accept(&other.key, vec![1; MAX_SENT + 1], at(0)).unwrap();
    assert_eq!(answer, Answer::Refused { why: Refusal::TooLarge });
}

#[test]
fn an_identity_belongs_to_one_key_and_a_key_to_one_identity() {
    let client = Client::new(1, 1);
    let site = site_with(std::slice::from_ref(&client));
    let enrol = |id, key| {
        site.enrol(Enrolment { id, key, name: String::new(), standing: Standing::Approved }, at(0))
    };
    assert!(matches!(enrol(client.id, Fingerprint([9; 32])), Err(EnrolError::OtherKey(_))));
    assert!(matches!(enrol(Client::new(2, 1).id, client.key), Err(EnrolError::KeyInUse(_))));
    let ordinal = site.find(client.id).unwrap();
    assert_eq!(enrol(client.id, client.key).unwrap(), ordinal);
    site.set_standing(ordinal, Standing::Blocked, at(0)).unwrap();
    assert!(matches!(enrol(client.id, client.key), Err(EnrolError::Blocked(_))));
    site.remove(ordinal, at(0)).unwrap();
    assert!(enrol(client.id, Fingerprint([9; 32])).is_ok());
}

#[test]
fn what_cannot_be_read_is_kept_and_the_client_is_unknown_until_it_tells_all() {
    let mut client = Client::new(1, 1);
    client.change(update(1), 1, State::Required);
    let site = site_with(std::slice::from_ref(&client));
    send(&site, &mut client);
    let whole_fleet = site.fleet();
    assert_eq!(site.of(update(1)), 1);

    let mut bytes = client.batch(NOW).encode().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let answer = site.accept(&client.key, bytes.clone(), at(60)).unwrap();
    assert_eq!(answer, Answer::Refused { why: Refusal::Malformed { quarantine: 1 } });
    let held = site.quarantined(None, 10).unwrap();
    assert_eq!((held.len(), &held[0].bytes, held[0].client), (1, &bytes, client.id));
    assert!(matches!(site.events()[..], [Event::Quarantined { number: 1, .. }]));
    for collection in [None, Some(&whole_fleet)] {
        let counts = site.summary(&[update(1)], collection)[0];
        assert_eq!((counts.required, counts.unknown), (0, 1));
    }
    let unknown = site.unknown(update(1), None, (None, 9), at(120));
    assert_eq!(unknown[0].cause, Cause::Corrupt);
    assert_eq!(unknown[0].age(at(120)), SignedDuration::from_secs(60));

    // Changes are taken, and do not make it known again.
    client.change(update(2), 1, State::Installed);
    let answer = send(&site, &mut client);
    assert!(matches!(answer, Answer::Accepted { resync: Some(Resync::Corrupt), .. }));
    assert_eq!(site.of(update(1)), 0);
    assert_eq!(client.batch(NOW).kind, Kind::Full);
    assert!(matches!(send(&site, &mut client), Answer::Accepted { resync: None, .. }));
    assert_eq!(site.of(update(1)), 1);
    assert!(site.unknown(update(1), None, (None, 9), at(120)).is_empty());
}

#[test]
fn a_lost_change_is_noticed_by_the_digest() {
    let mut client = Client::new(1, 1);
    client.change(update(1), 1, State::Required);
    let site = site_with(std::slice::from_ref(&client));
    // The change is in the digest and not among the states.
    let mut batch = client.batch(NOW);
    batch.states.clear();
    let answer = site.accept(&client.key, batch.encode().unwrap(), at(0)).unwrap();
    assert!(matches!(answer, Answer::Accepted { resync: Some(Resync::Diverged), .. }));
    client.hear(&answer);
    assert!(matches!(send(&site, &mut client), Answer::Accepted { resync: None, .. }));
    assert_eq!(site.of(update(1)), 1);
}

#[test]
fn two_machines_with_one_identity_are_told_of() {
    let mut one = Client::new(1, 1);
    let mut two = Client::new(1, 2);
    let site = site_with(std::slice::from_ref(&one));
    for client in [&mut one, &mut two] {
        client.wants_full = true;
        send(&site, client);
    }
    assert!(site.cloned().is_empty(), "set up anew once");
    one.wants_full = true;
    send(&site, &mut one);
    assert_eq!(site.cloned(), [(one.id, 1)]);
    assert!(matches!(site.events()[..], [Event::Cloned { returns: 1, .. }]));
}

#[test]
fn bytes_in_the_works_are_bounded() {
    let settings = Settings { max_in_flight: 100, ..Settings::default() };
    let site = Compliance::open(Db::in_memory(), settings).unwrap();
    let mut client = Client::new(1, 1);
    enrol(&site, &client, Standing::Approved);
    (0..20).for_each(|n| client.change(update(n), 1, State::Required));
    assert!(matches!(send(&site, &mut client), Answer::Busy { retry_after: 5..60 }));
    assert_eq!(site.of(update(1)), 0);
    let small = Client::new(1, 1).batch(NOW).encode().unwrap();
    let answer = site.accept(&client.key, small, at(0)).unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "what was turned away takes no room");
}

#[test]
fn updates_are_bounded() {
    let settings = Settings { max_updates: 3, ..Settings::default() };
    let site = Compliance::open(Db::in_memory(), settings).unwrap();
    let mut client = Client::new(1, 1);
    enrol(&site, &client, Standing::Approved);
    (0..3).for_each(|n| client.change(update(n), 1, State::Required));
    assert!(matches!(send(&site, &mut client), Answer::Accepted { .. }));
    client.change(update(3), 1, State::Required);
    let refused = Answer::Refused { why: Refusal::TooManyUpdates };
    assert_eq!(send(&site, &mut client), refused);
}

#[test]
fn a_database_that_fails_takes_nothing_and_loses_nothing() {
    let kv = Arc::new(FaultyKv::default());
    let site = Compliance::open(Db::open(kv.clone()).unwrap(), Settings::default()).unwrap();
    let mut client = Client::new(1, 1);
    enrol(&site, &client, Standing::Approved);
    client.change(update(1), 1, State::Required);
    kv.fail_after(0, false);
    let bytes = client.batch(NOW).encode().unwrap();
    assert!(site.accept(&client.key, bytes, at(0)).is_err());
    assert!(site.checkpoint().is_err());
    assert_eq!(site.of(update(1)), 0);
    kv.heal();
    assert!(matches!(send(&site, &mut client), Answer::Accepted { next: 1, resync: None }));
    assert_eq!(site.of(update(1)), 1);
}

#[test]
fn collections_and_groups_add_up() {
    let states = [State::Required, State::Installed, State::NotRequired, State::Unknown];
    let mut clients: Vec<_> = (0..8).map(|n| Client::new(n, 1)).collect();
    let site = site_with(&clients);
    for (n, client) in clients.iter_mut().enumerate() {
        client.change(update(1), 1, states[n % 4]);
        client.change(update(2), 1, states[n / 2]);
        send(&site, client);
    }
    let even: RoaringBitmap = (0..8).step_by(2).collect();
    let counts = site.summary(&[update(1), update(9)], Some(&even));
    assert_eq!((counts[0].required, counts[0].not_required, counts[0].unknown), (2, 2, 0));
    assert_eq!(counts[1].unknown, 4);
    let devices = site.devices(update(2), State::Installed, None, (None, 9));
    assert_eq!(devices.iter().map(|(it, _)| *it).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(site.devices(update(2), State::Installed, None, (Some(2), 9)).len(), 1);
    // Client 0 needs both, 1 and 4 one; 3, 6 and 7 have an unknown one; 2 and 5 have all.
    let group = site.group(&[update(1), update(2)], None);
    assert_eq!(group, GroupCounts { compliant: 2, non_compliant: 3, unknown: 3 });
    let mut required = Vec::new();
    site.each(&mut |update, count| required.push((update, count)));
    required.sort();
    let mut expected = vec![(update(1), 2), (update(2), 2)];
    expected.sort();
    assert_eq!(required, expected);
    assert_eq!(site.unknown_totals(update(2), None, at(0))["not-assessed"], 2);
}

#[test]
fn history_is_kept_by_the_day_and_for_so_many_days() {
    let settings = Settings { history_days: 3, ..Settings::default() };
    let site = Compliance::open(Db::in_memory(), settings).unwrap();
    let mut client = Client::new(1, 1);
    enrol(&site, &client, Standing::Approved);
    const DAY: i64 = 86_400;
    for day in 0..5 {
        let state = if day < 3 { State::Required } else { State::Installed };
        client.change(update(1), 1, state);
        send(&site, &mut client);
        site.record_day(at(day * DAY)).unwrap();
        site.record_day(at(day * DAY + 60)).unwrap();
    }
    let date = |day: i64| at(day * DAY).to_zoned(jiff::tz::TimeZone::UTC).date();
    let trend = site.trend(update(1), date(0)..=date(9)).unwrap();
    let told: Vec<_> = trend.iter().map(|(date, it)| (*date, it.required, it.installed)).collect();
    assert_eq!(told, [(date(2), 1, 0), (date(3), 0, 1), (date(4), 0, 1)]);
    assert_eq!(site.day(date(4)).unwrap().unwrap().clients, 1);
    assert_eq!(site.day(date(1)).unwrap(), None);
}

#[test]
fn whoever_comes_after_a_removed_client_has_none_of_its_states() {
    let mut one = Client::new(1, 1);
    one.change(update(1), 1, State::Required);
    let site = site_with(std::slice::from_ref(&one));
    send(&site, &mut one);
    let ordinal = site.find(one.id).unwrap();
    assert!(site.remove(ordinal, at(0)).unwrap());
    assert_eq!(site.of(update(1)), 0);
    let two = Client::new(2, 1);
    assert_ne!(enrol(&site, &two, Standing::Approved), ordinal, "a bitmap on disk may name it");
    site.checkpoint().unwrap();
    let three = Client::new(3, 1);
    assert_eq!(enrol(&site, &three, Standing::Approved), ordinal);
    assert!(site.states_of(ordinal).is_empty());
    assert_eq!(site.client(ordinal).unwrap().unwrap().heard, None);
}

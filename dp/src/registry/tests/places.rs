//! Boundaries, their groups, whom clients are sent to, and what is brought on demand.

use super::*;
use crate::locate::{AddressRange, Client, Fallback, Located, OnDemand, Overlap, Unfit, Why};
use packager::sign::VersionInfo;
use std::collections::BTreeSet;
use std::time::Duration;

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn in_groups(names: &[&str]) -> BTreeSet<BoundaryGroupName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn group(registry: &Registry, name: &str, points: &[&str]) {
    let points: Vec<String> = points.iter().map(|&name| name.into()).collect();
    registry.create_boundary_group(name.parse().unwrap(), &points, None, "admin", now()).unwrap();
}

fn boundary(registry: &Registry, text: &str, groups: &[&str]) {
    registry.create_boundary(range(text), in_groups(groups), "admin", now()).unwrap();
}

fn from(address: &str) -> Client {
    Client { address: address.parse().unwrap(), elapsed: Duration::ZERO }
}

/// A point that reported `facts` from an address of its own.
fn reporting(registry: &Registry, name: &str, facts: Vec<Fact>) -> Point {
    let point = joined(registry, name);
    heard(registry, &point, facts);
    point
}

fn heard(registry: &Registry, point: &Point, facts: Vec<Fact>) {
    let said = Report { address: "192.0.2.7:8520".into(), ..report(&point.id, facts) };
    registry.report(&point.id, said, None, now()).unwrap();
}

fn names(located: &Located) -> Vec<&str> {
    located.sources.iter().map(|s| s.point.as_ref().map_or("site", |p| p.name.as_str())).collect()
}

fn version(site: &Site, name: &PackageName) -> VersionInfo {
    site.packages.resolve(name, &Selector::Latest).unwrap()
}

#[test]
fn boundaries_are_told_of_what_they_overlap_and_none_is_twice() {
    let registry = registry();
    group(&registry, "paris", &[]);
    group(&registry, "lyon", &[]);
    boundary(&registry, "10.0.0.0/8", &["paris"]);
    boundary(&registry, "10.7.0.0/16", &["lyon"]);
    let said = registry.overlaps(&range("10.7.0.0-10.7.3.9"));
    assert_eq!(said.n, 2);
    assert!(said.told.iter().all(|(_, overlap)| *overlap == Overlap::Inside));
    assert_eq!(registry.overlaps(&range("10.0.0.0/8")).n, 1, "itself is none");
    let twice =
        registry.create_boundary(range("10.7.0.0-10.7.255.255"), in_groups(&["paris"]), "x", now());
    assert!(twice.unwrap_err().to_string().contains("of lyon"));
    let unknown = registry.create_boundary(range("::/0"), in_groups(&["rome"]), "x", now());
    assert!(matches!(unknown, Err(RegistryError::UnknownBoundaryGroup(_))));
    let none = registry.change_boundary(&range("10.0.0.0/8"), in_groups(&[]));
    assert!(matches!(none, Err(RegistryError::NoGroup)));
    registry.change_boundary(&range("10.0.0.0/8"), in_groups(&["paris", "lyon"])).unwrap();
    let first = registry.boundaries(None, None, 1);
    assert_eq!(first[0].groups.len(), 2);
    let rest = registry.boundaries(None, Some(&first[0].range), 9);
    assert_eq!(rest[0].range.to_string(), "10.7.0.0/16");
    registry.delete_boundary(&rest[0].range).unwrap();
    assert!(matches!(
        registry.delete_boundary(&rest[0].range),
        Err(RegistryError::UnknownBoundary(_))
    ));
}

#[test]
fn places_are_there_again_after_a_restart() {
    let db = Db::in_memory();
    let registry = Registry::open(db.clone()).unwrap();
    let docs: PackageName = "docs".parse().unwrap();
    let point = reporting(&registry, "a", vec![fact(&docs, 1, FactState::Held)]);
    group(&registry, "paris", &["a"]);
    group(&registry, "lyon", &[]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    registry.set_neighbour("paris", "lyon", Fallback::After(Duration::from_secs(1200))).unwrap();
    registry.set_locating_rules(|rules| rules.default = Some("lyon".parse().unwrap())).unwrap();
    let again = Registry::open(db).unwrap();
    assert_eq!(again.areas(), registry.areas());
    let located = again.locate(from("10.7.0.1"), None, now()).unwrap();
    assert_eq!(names(&located), ["a", "site"]);
    // From the report, which nobody asked about in this run yet.
    let mark = super::super::holdings::mark(&docs, 1);
    assert!(again.holdings.holds(&again.db, &point.id, mark).unwrap());
}

#[test]
fn what_is_gone_is_named_nowhere() {
    let registry = registry();
    joined(&registry, "a");
    for name in ["paris", "lyon"] {
        group(&registry, name, &["a"]);
    }
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    boundary(&registry, "10.8.0.0/16", &["paris", "lyon"]);
    registry.set_neighbour("lyon", "paris", Fallback::Never).unwrap();
    let own = registry.set_neighbour("lyon", "lyon", Fallback::Never);
    assert!(matches!(own, Err(RegistryError::OwnNeighbour(_))));
    let late = Fallback::After(LONGEST_FALLBACK + Duration::from_secs(1));
    assert!(matches!(registry.set_neighbour("lyon", "paris", late), Err(RegistryError::TooLate)));
    registry.set_locating_rules(|rules| rules.default = Some("paris".parse().unwrap())).unwrap();
    assert!(matches!(registry.delete_boundary_group("paris"), Err(RegistryError::IsDefault(_))));
    registry.set_locating_rules(|rules| rules.default = None).unwrap();
    let gone = registry.delete_boundary_group("paris").unwrap();
    assert_eq!(gone.boundaries, [range("10.7.0.0/16")], "what is in no other group goes too");
    assert_eq!(registry.boundaries(None, None, 9)[0].groups, in_groups(&["lyon"]));
    assert!(registry.boundary_group("lyon").unwrap().neighbours.is_empty());
    registry.remove_point("a").unwrap();
    assert!(registry.boundary_group("lyon").unwrap().points.is_empty());
    assert!(registry.add_to_boundary_group("lyon", "a").is_err());
}

#[test]
fn clients_are_sent_to_those_who_hold_the_version_now() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let a = reporting(&registry, "a", vec![fact(&docs, 1, FactState::Held)]);
    reporting(&registry, "b", vec![fact(&docs, 1, FactState::Leaving)]);
    reporting(&registry, "c", vec![fact(&docs, 1, FactState::Held)]);
    group(&registry, "paris", &["a", "b"]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    let docs = version(&site, &docs);
    let ask = |now| registry.locate(from("10.7.0.1"), Some(&docs), now).unwrap();
    let located = ask(now());
    assert_eq!(names(&located), ["a", "site"]);
    assert_eq!(located.sources[0].point.as_ref().unwrap().base, "http://192.0.2.7:8520");
    let elsewhere = registry.elsewhere(&located, &docs).unwrap();
    assert_eq!(elsewhere[0].point.as_ref().unwrap().1.as_str(), "c");
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(names(&ask(now() + HOUR)), ["site"], "nobody was heard of for an hour");
    heard(&registry, &a, vec![fact(&docs.package, 1, FactState::Failed)]);
    assert_eq!(names(&ask(now())), ["site"], "by its last report it holds it no more");
    heard(&registry, &a, vec![fact(&docs.package, 1, FactState::Held)]);
    assert_eq!(names(&ask(now())), ["a", "site"]);
    registry.delete_boundary(&range("10.7.0.0/16")).unwrap();
    assert_eq!(names(&ask(now())), ["site"]);
    registry.remove_point("a").unwrap();
    assert!(registry.elsewhere(&ask(now()), &docs).unwrap().len() == 1, "only c is left");
}

#[test]
fn what_nobody_near_holds_is_brought_on_demand_and_goes_again() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let a = reporting(&registry, "a", vec![]);
    joined(&registry, "silent");
    group(&registry, "paris", &["a", "silent"]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    let docs = version(&site, &docs);
    let located = |now| registry.locate(from("10.7.0.1"), Some(&docs), now).unwrap();
    let demand =
        |now, ask| registry.demand(&located(now), &docs, &site.packages, now, ask).unwrap();
    assert_eq!(demand(now(), Ask::Really), Demanded::Off);
    let on_demand = OnDemand { priority: Priority::Low, days: 2 };
    registry.set_on_demand("paris", Some(on_demand)).unwrap();
    let mut changes = registry.changes();
    changes.mark_unchanged();
    assert_eq!(demand(now(), Ask::WhatIf), Demanded::Asked(a.name.clone()));
    assert!(registry.assignments(None).is_empty() && !changes.has_changed().unwrap());
    assert_eq!(demand(now(), Ask::Really), Demanded::Asked(a.name.clone()));
    assert!(changes.has_changed().unwrap(), "the point is told");
    assert_eq!(demand(now(), Ask::Really), Demanded::OnTheWay(a.name.clone()));
    let made = &registry.assignments(None)[0];
    assert_eq!(made.version, Selector::Number(1));
    assert_eq!((made.priority, made.on_demand.is_some()), (Priority::Low, true));
    let filter = StatusFilter::default();
    let rows = registry.status(&site.packages, &filter, None, 9, now()).unwrap();
    assert!(rows[0].on_demand);

    let held = vec![fact(&docs.package, 1, FactState::Held)];
    let at = |now: Timestamp| {
        let said = Report { address: "192.0.2.7:8520".into(), ..report(&a.id, held.clone()) };
        registry.report(&a.id, said, None, now).unwrap();
    };
    at(now());
    assert_eq!(demand(now(), Ask::Really), Demanded::Held);
    // A day later somebody asks, and two days after that nobody has.
    let day = SignedDuration::from_hours(24);
    at(now() + day);
    changes.mark_unchanged();
    assert_eq!(demand(now() + day, Ask::Really), Demanded::Held);
    assert!(!changes.has_changed().unwrap(), "no wish follows from a question");
    let expire = |now| registry.expire_on_demand(&site.packages, now).unwrap().len();
    assert_eq!(expire(now() + 2 * day), 0);
    assert_eq!(expire(now() + 3 * day), 1);
    assert!(registry.assignments(None).is_empty());

    // What a person assigns stays until a person takes it back, whichever came first.
    heard(&registry, &a, vec![]);
    demand(now(), Ask::Really);
    let to = Target::Point(a.id.clone());
    let by_hand = assignment(&docs.package, "1", to.clone(), Priority::High);
    registry.assign(by_hand.clone()).unwrap();
    assert_eq!(expire(now() + 99 * day), 0);
    assert_eq!(registry.assignments(None), std::slice::from_ref(&by_hand));
    let demanded = Demand { group: "paris".parse().unwrap(), asked: now(), days: 1 };
    registry.assign(Assignment { on_demand: Some(demanded), ..by_hand.clone() }).unwrap();
    assert_eq!(registry.assignments(None), [by_hand]);
    assert!(!registry.status(&site.packages, &filter, None, 9, now()).unwrap()[0].on_demand);
}

#[test]
fn a_demand_that_no_point_can_meet_is_told() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let a = joined(&registry, "a");
    group(&registry, "paris", &["a"]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    let on_demand = OnDemand { priority: Priority::Medium, days: 1 };
    registry.set_on_demand("paris", Some(on_demand)).unwrap();
    let version = VersionInfo { bytes: 6, ..version(&site, &docs) };
    let demand = || {
        let located = registry.locate(from("10.7.0.1"), Some(&version), now()).unwrap();
        registry.demand(&located, &version, &site.packages, now(), Ask::Really).unwrap()
    };
    let nobody = Demanded::Nobody("paris".parse().unwrap());
    assert_eq!(demand(), nobody, "it never reported");
    heard(&registry, &a, vec![]);
    assert_eq!(demand(), nobody, "it has room for 5 bytes, as it reported");
    let version = VersionInfo { bytes: 5, ..version.clone() };
    let located = registry.locate(from("10.7.0.1"), Some(&version), now()).unwrap();
    let demand =
        |what, located| registry.demand(located, &version, &site.packages, now(), what).unwrap();
    assert_eq!(demand(Ask::WhatIf, &located), Demanded::Asked(a.name.clone()));
    let mut away = located.clone();
    let to = "http://127.0.0.1:1".to_owned();
    away.passed_over.iter_mut().for_each(|passed| passed.because = Unfit::Loopback(to.clone()));
    assert_eq!(demand(Ask::Really, &away), nobody, "this client could not ask it afterwards");
    assert_eq!(demand(Ask::Really, &located), Demanded::Asked(a.name.clone()));
    assert_eq!(demand(Ask::Really, &located), Demanded::OnTheWay(a.name));
    assert_eq!(demand(Ask::Really, &away), nobody, "whether it comes there or not");
    // Of a version that is gone from the site nothing can be brought.
    site.packages.delete_package(&docs).unwrap();
    assert_eq!(registry.expire_on_demand(&site.packages, now()).unwrap().len(), 1);
}

#[test]
fn a_neighbour_serves_while_the_own_group_waits() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let a = reporting(&registry, "a", vec![]);
    reporting(&registry, "b", vec![fact(&docs, 1, FactState::Held)]);
    group(&registry, "paris", &["a"]);
    group(&registry, "lyon", &["b"]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    registry.set_neighbour("paris", "lyon", Fallback::After(Duration::ZERO)).unwrap();
    let on_demand = OnDemand { priority: Priority::Low, days: 1 };
    registry.set_on_demand("paris", Some(on_demand)).unwrap();
    let docs = version(&site, &docs);
    let located = registry.locate(from("10.7.0.1"), Some(&docs), now()).unwrap();
    assert!(matches!(located.sources[0].why, Why::Neighbour { .. }));
    let met = registry.demand(&located, &docs, &site.packages, now(), Ask::Really).unwrap();
    assert_eq!(met, Demanded::Asked(a.name));
}

#[test]
fn what_is_told_ahead_follows_from_what_people_set_and_not_from_the_minute() {
    let registry = registry();
    let a = reporting(&registry, "a", Vec::new());
    let b = reporting(&registry, "b", Vec::new());
    group(&registry, "paris", &["a"]);
    group(&registry, "lyon", &["b"]);
    boundary(&registry, "10.7.0.0/16", &["paris"]);
    let after = Duration::from_secs(1200);
    registry.set_neighbour("paris", "lyon", Fallback::After(after)).unwrap();
    let first = registry.places();
    let told = |places: &Places, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let name = |source: &crate::locate::Source| {
            source.point.as_ref().map_or("site".to_owned(), |place| place.name.to_string())
        };
        places.sources(&addresses).iter().map(|it| (name(it), it.after)).collect::<Vec<_>>()
    };
    let want: Vec<_> = [("a", 0), ("b", 1200), ("site", 0)]
        .map(|(n, s)| (n.to_owned(), Duration::from_secs(s)))
        .into();
    assert_eq!(told(&first, &["192.0.2.1", "10.7.1.1"]), want, "the first that is in a boundary");
    assert_eq!(told(&first, &["192.0.2.1"]).len(), 1);
    assert_eq!(told(&first, &[]), []);
    // A point that reports anew, or is silent, changes nothing.
    heard(&registry, &a, Vec::new());
    assert_eq!(registry.places(), first);
    registry.remove_point(b.id.as_str()).unwrap();
    let then = registry.places();
    assert_ne!(then, first);
    assert_eq!(told(&then, &["10.7.1.1"]).len(), 2);
}

//! What the registry promises, with real tables and real packages.

use super::*;
use crate::field::{Fact, FactState, JoinToken, Limit, PointId, Priority, Report, Tree, branch_of};
use contentlib::{Library, Options};
use jiff::{SignedDuration, Timestamp};
use packager::name::Selector;
use packager::packages::NewPackage;
use packager::retention::Retention;
use packager::sign::SiteKey;
use packager::{PackageName, Packages};
use proptest::prelude::*;
use sitedb::Db;
use std::num::NonZeroU32;
use std::sync::Arc;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(super) fn registry() -> Registry {
    Registry::open(Db::in_memory()).unwrap()
}

fn secret(token: &JoinToken) -> String {
    token.secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn token(registry: &Registry, name: &str) -> Result<(TokenInfo, JoinToken), RegistryError> {
    let new = NewToken {
        kind: None,
        name: name.parse().unwrap(),
        expires: now() + HOUR,
        sites: vec!["https://127.0.0.1:8520".into()],
        by: "admin".into(),
    };
    registry.create_token(new, [7; 32], now())
}

pub(super) fn joined(registry: &Registry, name: &str) -> Point {
    let (_, token) = token(registry, name).unwrap();
    let admission = registry.admit(&secret(&token), [1; 32], now()).unwrap();
    registry.join(admission).unwrap()
}

mod places;

/// Packages in a folder that is gone with the test.
struct Site {
    packages: Packages,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { reserve: 0, ..Options::default() };
        let library = Library::open(&folder.path().join("library"), options).unwrap();
        let key = SiteKey::open(&folder.path().join("key")).unwrap();
        let cache = folder.path().join("cache");
        let packages = Packages::open(library, key, cache, Arc::new(Timestamp::now)).unwrap();
        Self { packages, _folder: folder }
    }

    /// Makes a package with its empty version 1.
    fn package(&self, name: &str) -> PackageName {
        let name: PackageName = name.parse().unwrap();
        let retention = Retention { keep: NonZeroU32::MIN, days: None };
        self.packages.create(NewPackage { name: name.clone(), source: None, retention }).unwrap();
        name
    }
}

fn assignment(package: &PackageName, version: &str, to: Target, priority: Priority) -> Assignment {
    let version = version.parse().unwrap();
    let (created, created_by, on_demand) = (now(), "admin".into(), None);
    Assignment {
        package: package.clone(),
        version,
        to,
        priority,
        created,
        created_by,
        on_demand,
        staged: false,
    }
}

fn fact(package: &PackageName, version: u64, state: FactState) -> Fact {
    let package = package.clone();
    Fact { package, version, state, bytes: 10, bytes_left: 3, cause: None, since: now() }
}

pub(super) fn report(point: &PointId, facts: Vec<Fact>) -> Report {
    Report {
        point: point.clone(),
        at: now(),
        program: "0.1.0".into(),
        address: "http://0.0.0.0:80".into(),
        revision: "r".into(),
        free_bytes: 5,
        grace: None,
        root: None,
        branches: None,
        facts,
        orders: Vec::new(),
    }
}

#[test]
fn a_token_lets_in_one_machine() {
    let registry = registry();
    let (info, token) = token(&registry, "branch-7").unwrap();
    assert_eq!((token.authority, info.used_by), ([7; 32], None));
    let secret = secret(&token);
    let first = registry.admit(&secret, [1; 32], now()).unwrap();
    let second = registry.admit(&secret, [2; 32], now()).unwrap();
    let point = registry.join(first).unwrap();
    assert_eq!(point.name.as_str(), "branch-7");
    assert!(matches!(registry.join(second), Err(RegistryError::NotAdmitted)));
    assert!(matches!(registry.admit(&secret, [3; 32], now()), Err(RegistryError::NotAdmitted)));
    let again = registry.admit(&secret, [1; 32], now()).unwrap();
    assert_eq!(registry.join(again).unwrap(), point, "an answer that was lost is given again");
    assert_eq!(registry.tokens(now())[0].used_by, Some(point.id.clone()));
    registry.remove_point("branch-7").unwrap();
    assert!(registry.admit(&secret, [1; 32], now()).is_err(), "not after it was removed");
}

#[test]
fn what_is_no_good_token_lets_nobody_in() {
    let registry = registry();
    let (info, good) = token(&registry, "a").unwrap();
    for wrong in ["", "0", "zz", &"0".repeat(32), &"0".repeat(64), &"é".repeat(16)] {
        assert!(matches!(registry.admit(wrong, [1; 32], now()), Err(RegistryError::NotAdmitted)));
    }
    let late = registry.admit(&secret(&good), [1; 32], now() + HOUR);
    assert!(matches!(late, Err(RegistryError::NotAdmitted)));
    let admission = registry.admit(&secret(&good), [1; 32], now()).unwrap();
    registry.revoke_token(&info.id).unwrap();
    assert!(matches!(registry.join(admission), Err(RegistryError::NotAdmitted)));
    assert!(matches!(registry.revoke_token("a"), Err(RegistryError::UnknownToken(_))));
}

#[test]
fn names_are_one_points_only() {
    let registry = registry();
    token(&registry, "a").unwrap();
    assert!(matches!(token(&registry, "a"), Err(RegistryError::TokenExists(_))));
    registry.revoke_token("a").unwrap();
    joined(&registry, "a");
    assert!(matches!(token(&registry, "a"), Err(RegistryError::PointExists(_))));
    let made = registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    let again = registry.create_group(made.name, "admin", now());
    assert!(matches!(again, Err(RegistryError::GroupExists(_))));
}

#[test]
fn everything_is_there_again_after_a_restart_but_no_secret() {
    let db = Db::in_memory();
    let site = Site::new();
    let docs = site.package("docs");
    let registry = Registry::open(db.clone()).unwrap();
    let (_, open) = token(&registry, "later").unwrap();
    let point = joined(&registry, "a");
    registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    registry.add_to_group("g", "a").unwrap();
    let to = registry.target(None, Some("g")).unwrap().unwrap();
    registry.assign(assignment(&docs, "latest", to, Priority::High)).unwrap();
    registry.report(&point.id, report(&point.id, vec![]), None, now()).unwrap();
    let wish = registry.wish(&point.id, &site.packages).unwrap();

    let all = db.kv().scan(&sitedb::Range::default(), Order::Ascending, 999).unwrap();
    let open = secret(&open);
    assert!(all.iter().all(|(_, value)| !String::from_utf8_lossy(value).contains(&open)));
    let again = Registry::open(db).unwrap();
    assert_eq!(again.points(), registry.points());
    assert_eq!(again.groups(), registry.groups());
    assert_eq!(again.assignments(None), registry.assignments(None));
    assert_eq!(again.standing(&point.id), registry.standing(&point.id));
    assert_eq!(again.wish(&point.id, &site.packages).unwrap(), wish);
    assert!(again.admit(&open, [1; 32], now()).is_ok());
}

#[test]
fn a_removed_point_leaves_nothing_behind() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let point = joined(&registry, "a");
    registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    registry.add_to_group("g", "a").unwrap();
    let to = Target::Point(point.id.clone());
    registry.assign(assignment(&docs, "1", to.clone(), Priority::Low)).unwrap();
    let feed = registry.feed(&point.id);
    registry.remove_point(point.id.as_str()).unwrap();
    assert!(feed.is_cancelled() && !registry.knows(&point.id));
    // What it asked a moment before, and is answered now.
    registry.saw(&point.id, now());
    assert_eq!(registry.seen(&point.id), None);
    assert!(registry.feed(&point.id).is_cancelled());
    assert!(registry.assignments(None).is_empty() && registry.groups()[0].members.is_empty());
    assert!(registry.report(&point.id, report(&point.id, vec![]), None, now()).is_err());
    assert!(registry.assign(assignment(&docs, "1", to, Priority::Low)).is_err());
    assert!(registry.wish(&point.id, &site.packages).is_err());
}

#[test]
fn a_wish_follows_groups_channels_and_versions() {
    let (registry, site) = (registry(), Site::new());
    let (docs, tools) = (site.package("docs"), site.package("tools"));
    let stable = "stable".parse().unwrap();
    site.packages.set_channel(&docs, &stable, &Selector::Latest).unwrap();
    let point = joined(&registry, "a");
    registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    let group = registry.target(None, Some("g")).unwrap().unwrap();
    let wish = || registry.wish(&point.id, &site.packages).unwrap();
    let nothing = wish();
    assert!(nothing.versions.is_empty() && nothing.names.is_empty());
    registry.assign(assignment(&docs, "stable", group, Priority::Low)).unwrap();
    assert_eq!(wish(), nothing, "the point is in no group yet");
    registry.add_to_group("g", "a").unwrap();
    let with_docs = wish();
    assert_ne!(with_docs.revision, nothing.revision);
    assert_eq!(with_docs.versions[0].version.package, docs);
    assert_eq!(with_docs.versions[0].priority, Priority::Low);
    assert_eq!(with_docs.names[&docs].latest, Some(1));
    assert_eq!(with_docs.names[&docs].channels[&stable], 1);

    let own = Target::Point(point.id.clone());
    registry.assign(assignment(&docs, "1", own.clone(), Priority::High)).unwrap();
    registry.assign(assignment(&tools, "latest", own.clone(), Priority::Medium)).unwrap();
    let both = wish();
    assert_eq!(both.versions.len(), 2, "one version that is meant twice is held once");
    assert_eq!(both.versions[0].priority, Priority::High);
    registry.unassign(&docs, None, &own).unwrap();
    registry.unassign(&tools, Some(&Selector::Latest), &own).unwrap();
    assert_eq!(wish().revision, with_docs.revision, "the same wish has the same revision");
    let gone = registry.unassign(&tools, None, &own);
    assert!(matches!(gone, Err(RegistryError::NotAssigned { .. })));

    site.packages.remove_channel(&docs, &stable).unwrap();
    assert_eq!(*wish(), *nothing, "what means no version is left out");
    let filter = StatusFilter::default();
    let rows = registry.status(&site.packages, &filter, None, 9, now()).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].state, StatusState::Unavailable);
    assert!(rows[0].cause.as_ref().unwrap().contains("no channel stable"));
}

#[test]
fn of_many_packages_only_those_are_read_again_that_changed() {
    let site = Site::new();
    let names = ["a", "b", "c"].map(|name| site.package(name));
    let wanted = names.iter().cloned().collect();
    let read = |before: &Stock| Stock::read(&site.packages, &wanted, before).unwrap();
    let before = read(&Stock::default());
    let stable = "stable".parse().unwrap();
    site.packages.set_channel(&names[1], &stable, &Selector::Latest).unwrap();
    let after = read(&before);
    let is_same = |name: &PackageName| Arc::ptr_eq(&before.0[name], &after.0[name]);
    assert_eq!([0, 1, 2].map(|at| is_same(&names[at])), [true, false, true]);
    assert_eq!(after, read(&Stock::default()), "as if all were read");
    // Another of the same name is another, whatever its number.
    site.packages.delete_package(&names[2]).unwrap();
    assert!(!read(&after).0.contains_key(&names[2]));
    let again = site.package("c");
    site.packages.set_channel(&again, &stable, &Selector::Latest).unwrap();
    assert!(!read(&after).0[&again].channels.is_empty());
}

#[test]
fn points_that_should_hold_the_same_share_a_wish() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
    for point in [&a, &b] {
        let to = Target::Point(point.id.clone());
        registry.assign(assignment(&docs, "latest", to, Priority::Medium)).unwrap();
    }
    let of = |point: &Point| registry.wish(&point.id, &site.packages).unwrap();
    assert!(Arc::ptr_eq(&of(&a), &of(&b)));
    let before = of(&a);
    site.package("other");
    assert!(Arc::ptr_eq(&before, &of(&a)), "what is not assigned changes no wish");
}

#[test]
fn what_is_set_for_a_point_is_told_with_its_wish_to_it_alone() {
    let (db, site) = (Db::in_memory(), Site::new());
    let registry = Registry::open(db.clone()).unwrap();
    let docs = site.package("docs");
    let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
    for point in [&a, &b] {
        let to = Target::Point(point.id.clone());
        registry.assign(assignment(&docs, "latest", to, Priority::Medium)).unwrap();
    }
    let of = |point: &Point| registry.wish(&point.id, &site.packages).unwrap();
    let before = of(&a);
    let mut changes = registry.changes();
    changes.mark_unchanged();
    let set = |limit: Option<Limit>| {
        let change = |point: &mut Point| {
            point.limit = limit;
            Ok::<_, RegistryError>(())
        };
        registry.set("a", change).unwrap()
    };
    let limit = Some(Limit { rate: 1000, burst: 2000 });
    assert_eq!(set(limit).limit, limit);
    assert!(changes.has_changed().unwrap(), "the point is told at once");
    assert_eq!(of(&a).settings.limit, limit);
    assert_ne!(of(&a).revision, before.revision);
    assert!(Arc::ptr_eq(&of(&a).versions, &of(&b).versions), "versions are shared all the same");
    assert_eq!(of(&b), before);

    changes.mark_unchanged();
    set(limit);
    assert!(!changes.has_changed().unwrap(), "nothing changed");
    let json = serde_json::to_vec(&*of(&a)).unwrap();
    assert_eq!(serde_json::from_slice::<crate::field::Wish>(&json).unwrap(), *of(&a));
    let again = Registry::open(db).unwrap();
    assert_eq!(again.wish(&a.id, &site.packages).unwrap(), of(&a));
    set(None);
    assert_eq!(of(&a), before);
    let unknown = registry.set("c", |_| Ok::<_, RegistryError>(()));
    assert!(matches!(unknown, Err(RegistryError::UnknownPoint(_))));
}

#[test]
fn changes_are_told_and_a_newer_feed_ends_the_older() {
    let registry = registry();
    let point = joined(&registry, "a");
    let mut changes = registry.changes();
    changes.mark_unchanged();
    registry.report(&point.id, report(&point.id, vec![]), None, now()).unwrap();
    assert!(!changes.has_changed().unwrap(), "no wish follows from a report");
    registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    assert!(changes.has_changed().unwrap());
    let docs = "docs".parse().unwrap();
    let assign = |priority| {
        let to = Target::Point(point.id.clone());
        registry.assign(assignment(&docs, "latest", to, priority)).unwrap()
    };
    assign(Priority::Low);
    changes.mark_unchanged();
    assign(Priority::Low);
    assert!(!changes.has_changed().unwrap(), "nothing follows from what is so already");
    assign(Priority::High);
    assert!(changes.has_changed().unwrap());
    let older = registry.feed(&point.id);
    let newer = registry.feed(&point.id);
    assert!(older.is_cancelled() && !newer.is_cancelled());
    registry.close();
    assert!(newer.is_cancelled() && registry.feed(&point.id).is_cancelled());
}

#[test]
fn status_is_wish_and_report_side_by_side() {
    let (registry, site) = (registry(), Site::new());
    let (docs, tools) = (site.package("docs"), site.package("tools"));
    let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
    for point in [&a, &b] {
        let to = Target::Point(point.id.clone());
        registry.assign(assignment(&docs, "latest", to, Priority::Medium)).unwrap();
    }
    let rows =
        |filter: &StatusFilter| registry.status(&site.packages, filter, None, 99, now()).unwrap();
    assert!(rows(&StatusFilter::default()).iter().all(|row| row.state == StatusState::Unknown));

    let mut late =
        report(&a.id, vec![fact(&docs, 1, FactState::Fetching), fact(&tools, 4, FactState::Held)]);
    late.at = now() - HOUR;
    let from = Some("192.0.2.7".parse().unwrap());
    registry.report(&a.id, late, from, now()).unwrap();
    let standing = registry.standing(&a.id).unwrap();
    assert_eq!(standing.address, "http://192.0.2.7:80");
    assert_eq!((standing.n_held, standing.n_missing, standing.bytes_left), (1, 1, 3));
    let found = rows(&StatusFilter::default());
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].state, StatusState::Said(FactState::Fetching));
    assert_eq!((found[0].percent(), found[0].wished.len()), (70, 1));
    assert_eq!(found[0].since, Some(now()), "by the site's clock, and not in the future");
    assert_eq!(found[1].state, StatusState::Said(FactState::Leaving), "held, and not wished");
    assert_eq!(found[1].held, Some(4));
    assert_eq!(found[2].point, b.name);

    let of_b = StatusFilter { point: Some(b.id.to_string()), ..StatusFilter::default() };
    assert_eq!(rows(&of_b), found[2..]);
    let of_tools = StatusFilter { package: Some(tools), ..StatusFilter::default() };
    assert_eq!(rows(&of_tools), found[1..2]);
    let mut paged = Vec::new();
    while let [row] = &registry
        .status(
            &site.packages,
            &StatusFilter::default(),
            paged.last().map(StatusRow::key).as_ref(),
            1,
            now(),
        )
        .unwrap()[..]
    {
        paged.push(row.clone());
    }
    assert_eq!(paged, found);
}

#[test]
fn what_is_gone_is_told_once_however_often_it_is_wished() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let point = joined(&registry, "a");
    registry.create_group("g".parse().unwrap(), "admin", now()).unwrap();
    registry.add_to_group("g", "a").unwrap();
    let group = registry.target(None, Some("g")).unwrap().unwrap();
    for (to, priority) in [(Target::Point(point.id), Priority::Low), (group, Priority::High)] {
        registry.assign(assignment(&docs, "stable", to.clone(), priority)).unwrap();
        registry.assign(assignment(&docs, "9", to, priority)).unwrap();
    }
    let rows = registry.status(&site.packages, &StatusFilter::default(), None, 99, now()).unwrap();
    assert_eq!(rows.len(), 2, "each has a place of its own in the list");
    assert!(rows.iter().all(|row| row.priority == Some(Priority::High)));
}

#[test]
fn a_version_is_held_until_the_one_that_takes_its_place_is_there() {
    let (registry, site) = (registry(), Site::new());
    let docs = site.package("docs");
    let point = joined(&registry, "a");
    let to = Target::Point(point.id.clone());
    registry.assign(assignment(&docs, "latest", to, Priority::Medium)).unwrap();
    let facts = vec![fact(&docs, 1, FactState::Failed), fact(&docs, 4, FactState::Leaving)];
    registry.report(&point.id, report(&point.id, facts), None, now()).unwrap();
    let rows = registry.status(&site.packages, &StatusFilter::default(), None, 99, now()).unwrap();
    assert_eq!(rows.iter().map(|row| row.held).collect::<Vec<_>>(), [Some(4), Some(4)]);
}

#[test]
fn a_report_of_another_point_or_of_endless_texts_is_refused() {
    let registry = registry();
    let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
    let bad = |report: Report| registry.report(&a.id, report, None, now()).unwrap_err();
    assert!(matches!(bad(report(&b.id, vec![])), RegistryError::BadReport(_)));
    let long = Report { address: "x".repeat(301), ..report(&a.id, vec![]) };
    assert!(matches!(bad(long), RegistryError::BadReport(_)));
    let mut cause = fact(&"docs".parse().unwrap(), 1, FactState::Failed);
    cause.cause = Some("ü".repeat(9999));
    registry.report(&a.id, report(&a.id, vec![cause]), None, now()).unwrap();
    let kept = registry.facts(&a.id).unwrap();
    assert_eq!(kept[0].cause.as_ref().unwrap().chars().count(), 500);
}

#[test]
fn a_point_tells_what_changed_and_the_site_asks_for_what_it_lacks() {
    let (registry, site) = (registry(), Site::new());
    let a = joined(&registry, "a");
    let name = |n: u64| -> PackageName { format!("p{n}").parse().unwrap() };
    let mut facts: Vec<Fact> = (0..2000).map(|n| fact(&name(n), 1, FactState::Held)).collect();
    let told = |facts: &[Fact], branches: Vec<u8>, at: Timestamp| {
        let of = |fact: &&Fact| branches.contains(&branch_of(&fact.package));
        let said = facts.iter().filter(of).cloned().collect();
        let root = Some(Tree::of(facts).root());
        let said = Report { root, branches: Some(branches), at, ..report(&a.id, said) };
        registry.report(&a.id, said, None, at).unwrap()
    };
    let status = || {
        let filter = StatusFilter::default();
        let rows = registry.status(&site.packages, &filter, None, 9999, now()).unwrap();
        rows.into_iter().map(|row| (row.package, row.since.unwrap())).collect::<Vec<_>>()
    };
    // It does not say what, so it is asked for all.
    let known = told(&facts, vec![], now()).unwrap();
    let all = Tree::of(&facts).differing(&known);
    assert_eq!(all.len(), 256);
    assert_eq!(told(&facts, all, now()), None);
    assert_eq!(registry.standing(&a.id).unwrap().n_held, 2000);
    assert_eq!(status().len(), 2000);
    // Nothing changed: nothing is told, and what is known stays, with its age.
    assert_eq!(told(&facts, vec![], now() + HOUR), None);
    facts[7].state = FactState::Failed;
    facts[7].since = now() + HOUR + HOUR;
    let known = told(&facts, vec![], now() + HOUR + HOUR).unwrap();
    let changed = Tree::of(&facts).differing(&known);
    assert_eq!(changed, [branch_of(&name(7))]);
    assert_eq!(told(&facts, changed, now() + HOUR + HOUR), None);
    let standing = registry.standing(&a.id).unwrap();
    assert_eq!((standing.n_held, standing.n_failed, standing.bytes_left), (1999, 1, 3));
    for (package, since) in status() {
        let began = if package == name(7) { now() + HOUR + HOUR } else { now() };
        assert_eq!(since, began, "{package}");
    }
    // Started anew, the point does not know when states began; the site does.
    facts.iter_mut().for_each(|fact| fact.since = now() + HOUR + HOUR + HOUR);
    facts[8].bytes_left = 0;
    let branch = vec![branch_of(&name(8))];
    assert_eq!(told(&facts, branch, now() + HOUR + HOUR + HOUR), None);
    assert!(status().iter().all(|(package, since)| *since == now() || *package == name(7)));
    // Of a branch that is not told nothing may be said.
    let bad = Report { branches: Some(vec![]), ..report(&a.id, facts[..1].to_vec()) };
    let refused = registry.report(&a.id, bad, None, now());
    assert!(matches!(refused, Err(RegistryError::BadReport(_))));
    // What a point holds is gone with it.
    registry.remove_point("a").unwrap();
    let again = joined(&registry, "a");
    assert!(
        registry.facts(&again.id).unwrap().is_empty() && registry.facts(&a.id).unwrap().is_empty()
    );
}

proptest! {
    /// The wish of a point is what a plain reading of the assignments says.
    #[test]
    fn a_wish_is_what_the_assignments_say(
        assigned in proptest::collection::vec((0..3_usize, 1..4_u64, any::<bool>(), 0..3_usize), 0..12),
        is_member: bool,
    ) {
        static SITE: std::sync::LazyLock<Site> = std::sync::LazyLock::new(|| {
            let site = Site::new();
            for name in ["p0", "p1", "p2"] {
                site.package(name);
            }
            site
        });
        let names: Vec<PackageName> = ["p0", "p1", "p2"].map(|name| name.parse().unwrap()).into();
        let stock = Stock::read(&SITE.packages, &names.iter().cloned().collect(), &Stock::default()).unwrap();
        let point = PointId::from_random(1);
        let group: GroupName = "g".parse().unwrap();
        let members = is_member.then(|| point.clone()).into_iter().collect();
        let made = Group { name: group.clone(), created: now(), created_by: "x".into(), members };
        let groups = std::collections::BTreeMap::from([(group.clone(), made)]);
        let priorities = [Priority::Low, Priority::Medium, Priority::High];
        let assignments: Vec<Assignment> = assigned.iter().map(|(package, version, own, priority)| {
            let to = if *own { Target::Point(point.clone()) } else { Target::Group(group.clone()) };
            assignment(&names[*package], &version.to_string(), to, priorities[*priority])
        }).collect();
        let found = wish(&assignments, &groups, &point, &stock);
        // Only version 1 of each package is there.
        let want = |package: usize| assigned.iter()
            .filter(|(p, version, own, _)| *p == package && *version == 1 && (*own || is_member))
            .map(|(.., priority)| priorities[*priority])
            .max();
        let have: Vec<_> = found.versions.iter().map(|w| (w.version.package.clone(), w.priority)).collect();
        let wanted: Vec<_> = (0..3).filter_map(|p| Some((names[p].clone(), want(p)?))).collect();
        prop_assert_eq!(have, wanted);
        prop_assert_eq!(found.names.len(), found.versions.len());
        let mut shuffled = assignments.clone();
        shuffled.reverse();
        prop_assert_eq!(wish(&shuffled, &groups, &point, &stock), found);
    }
}

#[test]
fn what_a_silent_point_was_about_to_do_says_since_when_it_is_not_heard() {
    let (registry, site) = (registry(), Site::new());
    let [docs, tools, rest] = ["docs", "tools", "rest"].map(|name| site.package(name));
    let point = joined(&registry, "a");
    for package in [&docs, &tools, &rest] {
        let to = Target::Point(point.id.clone());
        registry.assign(assignment(package, "latest", to, Priority::Medium)).unwrap();
    }
    let failed = Fact { cause: Some("no room".into()), ..fact(&tools, 1, FactState::Failed) };
    let facts = vec![fact(&docs, 1, FactState::Fetching), failed, fact(&rest, 1, FactState::Held)];
    registry.report(&point.id, report(&point.id, facts), None, now()).unwrap();
    let causes = |seconds| {
        let at = now() + jiff::SignedDuration::from_secs(seconds);
        let rows = registry.status(&site.packages, &StatusFilter::default(), None, 99, at).unwrap();
        rows.into_iter().map(|row| (row.package.to_string(), row.cause)).collect::<BTreeMap<_, _>>()
    };
    let told = causes(60);
    assert_eq!((&told["docs"], &told["rest"]), (&None, &None));
    let told = causes(150);
    assert_eq!(told["docs"].as_deref(), Some("not heard for 2 min"));
    assert_eq!(told["tools"].as_deref(), Some("not heard for 2 min; before: no room"));
    assert_eq!(told["rest"], None, "what is there is there");
}

#[test]
fn what_is_staged_comes_and_goes_and_what_people_assigned_stays() {
    let registry = registry();
    let paris = joined(&registry, "paris").id;
    let (docs, tools): (PackageName, PackageName) =
        ("docs".parse().unwrap(), "tools".parse().unwrap());
    let stage = |wanted: &[(&PackageName, &PointId)]| {
        let wanted = wanted.iter().map(|(package, point)| ((*package).clone(), (*point).clone()));
        registry.stage(&wanted.collect(), now()).unwrap()
    };
    let done = stage(&[(&docs, &paris), (&tools, &paris)]);
    assert_eq!((done.assigned.len(), done.released.len()), (2, 0));
    assert_eq!(stage(&[(&docs, &paris), (&tools, &paris)]), Restaged::default());
    // A person assigns the same: from now on it is the person's.
    let to = Target::Point(paris.clone());
    let mine = assignment(&tools, "latest", to, Priority::Medium);
    assert!(!registry.assign(mine).unwrap().staged);
    let done = stage(&[]);
    assert_eq!((done.assigned.len(), done.released), (0, vec![(docs, paris.clone())]));
    let left = registry.assignments(None);
    assert_eq!((left.len(), left[0].is_by_a_person()), (1, true));
    // And it is not taken over.
    assert_eq!(stage(&[(&tools, &paris)]), Restaged::default());
    assert_eq!(registry.staged(), Default::default());
    // One that is gone is passed over.
    registry.remove_point("paris").unwrap();
    assert_eq!(stage(&[(&tools, &paris)]), Restaged::default());
}

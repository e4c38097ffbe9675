//! What locating promises, case by case and against a plain reading of the tables.

use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn group(name: &str) -> BoundaryGroupName {
    name.parse().unwrap()
}

fn point(n: u128) -> PointId {
    PointId::from_random(n)
}

/// Tables with these groups and their points, and these boundaries, each in groups.
fn areas(groups: &[(&str, &[u128])], boundaries: &[(&str, &[&str])]) -> Areas {
    let (created, created_by) = (now(), String::from("admin"));
    let mut areas = Areas::default();
    for (name, points) in groups {
        let name = group(name);
        let points = points.iter().map(|n| point(*n)).collect();
        let (neighbours, by) = (BTreeMap::new(), created_by.clone());
        let made = BoundaryGroup {
            name: name.clone(),
            created,
            created_by: by,
            points,
            neighbours,
            on_demand: None,
        };
        areas.groups.insert(name, made);
    }
    for (range, names) in boundaries {
        let range: AddressRange = range.parse().unwrap();
        let groups = names.iter().map(|name| group(name)).collect();
        let made = Boundary { range, groups, created, created_by: created_by.clone() };
        areas.boundaries.insert(range, made);
    }
    areas
}

fn neighbour(areas: &mut Areas, of: &str, name: &str, fallback: Fallback) {
    areas.groups.get_mut(&group(of)).unwrap().neighbours.insert(group(name), fallback);
}

fn well(id: &PointId) -> Candidate {
    Candidate {
        name: format!("p{}", &id.as_str()[28..]).parse().unwrap(),
        base: Some("http://192.0.2.7:8520".into()),
        reported: Some(now() - SignedDuration::from_secs(30)),
        cut_off: None,
        is_offered: true,
        holds: true,
    }
}

fn ask(
    areas: &Areas,
    address: &str,
    elapsed: Duration,
    candidate: impl Fn(&PointId) -> Option<Candidate>,
) -> Located {
    let atlas = areas.boundaries.keys().copied().collect();
    let client = Client { address: address.parse().unwrap(), elapsed };
    locate(client, areas, &atlas, now(), candidate)
}

/// Names of points, and minutes after which; `site` for the site.
fn order(located: &Located) -> Vec<(String, u64)> {
    let name = |source: &Source| match &source.point {
        Some(place) => place.name.to_string(),
        None => "site".into(),
    };
    located.sources.iter().map(|s| (name(s), s.after.as_secs() / 60)).collect()
}

#[test]
fn own_points_come_before_neighbours_the_default_group_and_the_site() {
    let mut areas = areas(
        &[("paris", &[1]), ("lyon", &[2]), ("rome", &[3]), ("far", &[4]), ("hub", &[5, 1])],
        &[("10.7.0.0/16", &["paris"])],
    );
    neighbour(&mut areas, "paris", "lyon", Fallback::After(20 * MINUTE));
    neighbour(&mut areas, "paris", "rome", Fallback::After(5 * MINUTE));
    neighbour(&mut areas, "paris", "far", Fallback::Never);
    // Neighbours of neighbours do not count.
    neighbour(&mut areas, "lyon", "far", Fallback::After(MINUTE));
    areas.rules.default = Some(group("hub"));
    areas.rules.default_after = 120 * MINUTE;
    areas.rules.site = Fallback::After(240 * MINUTE);
    let located = ask(&areas, "::ffff:10.7.3.4", 6 * MINUTE, |id| Some(well(id)));
    let want = [("p0001", 0), ("p0003", 5), ("p0002", 20), ("p0005", 120), ("site", 240)];
    assert_eq!(order(&located), want.map(|(name, after)| (name.to_owned(), after)));
    let usable: Vec<bool> = located.sources.iter().map(|s| s.is_usable).collect();
    assert_eq!(usable, [true, true, false, false, false]);
    assert_eq!(located.groups, BTreeSet::from([group("paris")]));
    assert_eq!(located.boundaries[0].to_string(), "10.7.0.0/16");
    assert_eq!(located.client.to_string(), "10.7.3.4");
    let [passed] = &located.passed_over[..] else { panic!("{:?}", located.passed_over) };
    assert_eq!(passed.because, Unfit::Never(group("far")));

    // Of none: the default group and the site, at once.
    let unknown = ask(&areas, "192.0.2.1", Duration::ZERO, |id| Some(well(id)));
    assert!(unknown.groups.is_empty() && unknown.boundaries.is_empty());
    assert!(unknown.sources.iter().all(|source| source.is_usable));
    assert_eq!(unknown.sources.len(), 3);
    assert_eq!(unknown.sources[0].why, Why::Default(group("hub")));

    // The default group, where a group says that it never turns to it.
    neighbour(&mut areas, "paris", "hub", Fallback::Never);
    areas.rules.site = Fallback::Never;
    let located = ask(&areas, "10.7.3.4", Duration::ZERO, |id| Some(well(id)));
    assert_eq!(located.sources.last().unwrap().why, {
        let (of, group) = (group("paris"), group("lyon"));
        Why::Neighbour { of, group }
    });
    assert!(located.passed_over.iter().any(|passed| passed.because == Unfit::SiteNever));
}

#[test]
fn the_smallest_boundary_alone_says_which_groups_and_all_of_its() {
    let areas = areas(
        &[("all", &[1]), ("paris", &[2]), ("guests", &[3])],
        &[("10.0.0.0/8", &["all"]), ("10.7.0.0/16", &["paris", "guests"])],
    );
    let in_paris = ask(&areas, "10.7.3.4", Duration::ZERO, |id| Some(well(id)));
    let of = |located: &Located| {
        let mut names: Vec<String> = order(located).into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    };
    assert_eq!(of(&in_paris), ["p0002", "p0003", "site"]);
    let elsewhere = ask(&areas, "10.8.3.4", Duration::ZERO, |id| Some(well(id)));
    assert_eq!(of(&elsewhere), ["p0001", "site"]);
}

#[test]
fn who_cannot_serve_is_passed_over_and_it_is_said_why() {
    let points: Vec<u128> = (1..=9).collect();
    let areas = areas(&[("paris", &points)], &[("10.7.0.0/16", &["paris"])]);
    let gone = SignedDuration::from_secs(20);
    let look = |id: &PointId| {
        let good = well(id);
        let n = u128::from_str_radix(id.as_str(), 16).unwrap();
        Some(match n {
            1 => good,
            2 => Candidate { holds: false, ..good },
            3 => Candidate { is_offered: false, ..good },
            4 => Candidate { reported: Some(now() - SILENT_AFTER), ..good },
            5 => Candidate { reported: None, ..good },
            6 => Candidate { base: None, ..good },
            7 => Candidate { base: Some("http://127.0.0.1:80".into()), ..good },
            8 => Candidate { cut_off: Some(gone), ..good },
            // It was removed in this moment.
            _ => return None,
        })
    };
    let located = ask(&areas, "10.7.3.4", Duration::ZERO, look);
    assert_eq!(order(&located), [("p0001".into(), 0), ("site".into(), 0)]);
    let because = |name: &str| {
        let named = |p: &&PassedOver| p.point.as_ref().is_some_and(|(_, n)| n.as_str() == name);
        located.passed_over.iter().find(named).unwrap().because.clone()
    };
    assert_eq!(because("p0002"), Unfit::Lacks);
    assert_eq!(because("p0003"), Unfit::NotOffered);
    assert_eq!(because("p0004"), Unfit::Silent(SILENT_AFTER));
    assert_eq!(because("p0005"), Unfit::NeverHeard);
    assert_eq!(because("p0006"), Unfit::NoAddress);
    assert_eq!(because("p0007"), Unfit::Loopback("http://127.0.0.1:80".into()));
    assert_eq!(because("p0008"), Unfit::CutOff(gone));
    assert_eq!(located.passed_over.len(), 7);
    // A report from a time that is not yet says nothing about now.
    let ahead = Some(now() + SignedDuration::from_hours(1));
    assert!(is_heard(ahead, now()).is_err());
    // On one machine its own address is good.
    let areas = self::areas(&[("paris", &[7])], &[("127.0.0.0/8", &["paris"])]);
    assert_eq!(order(&ask(&areas, "127.0.0.9", Duration::ZERO, look))[0].0, "p0007");
}

#[test]
fn clients_share_equal_points_and_each_keeps_its_order() {
    let areas = areas(&[("paris", &[1, 2, 3, 4])], &[("10.7.0.0/16", &["paris"])]);
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..400 {
        let client = format!("10.7.{}.{}", n / 200, n % 200);
        let located = ask(&areas, &client, Duration::ZERO, |id| Some(well(id)));
        let again = ask(&areas, &client, Duration::ZERO, |id| Some(well(id)));
        assert_eq!(located, again);
        let names = order(&located);
        *first.entry(names[0].0.clone()).or_default() += 1;
        // Without the first, the others keep their order: who leaves moves no other client.
        let gone = located.sources[0].point.as_ref().unwrap().id.clone();
        let rest = ask(&areas, &client, Duration::ZERO, |id| (*id != gone).then(|| well(id)));
        assert_eq!(order(&rest), names[1..]);
    }
    assert_eq!(first.len(), 4);
    assert!(first.values().all(|n| (60..140).contains(n)), "{first:?}");
}

#[test]
fn a_long_list_ends() {
    let points: Vec<u128> = (0..100).collect();
    let areas = areas(&[("paris", &points)], &[("10.7.0.0/16", &["paris"])]);
    let located = ask(&areas, "10.7.3.4", Duration::ZERO, |id| Some(well(id)));
    assert_eq!(located.sources.len(), MOST_SOURCES + 1);
    assert_eq!(located.sources.last().unwrap().why, Why::Site);
    assert_eq!(located.passed_over.len(), 100 - MOST_SOURCES);
}

proptest! {
    /// What a plain reading of the tables says of each point: its best reason, and from when.
    #[test]
    fn the_list_is_what_the_tables_say(
        members in prop::collection::vec(prop::collection::btree_set(0..6_u128, 0..4), 4),
        own in prop::collection::btree_set(0..4_usize, 0..3),
        links in prop::collection::vec((0..4_usize, 0..4_usize, prop::option::of(0..4_u64)), 0..6),
        default in prop::option::of(0..4_usize),
        default_after in 0..4_u64,
        fit in prop::collection::btree_set(0..6_u128, 0..6),
    ) {
        let names = ["g0", "g1", "g2", "g3"];
        let members: Vec<Vec<u128>> = members.into_iter().map(|m| m.into_iter().collect()).collect();
        let groups: Vec<(&str, &[u128])> =
            names.iter().zip(&members).map(|(name, points)| (*name, &points[..])).collect();
        let its: Vec<&str> = own.iter().map(|g| names[*g]).collect();
        let mut areas = areas(&groups, &[("10.0.0.0/8", &its)]);
        let links: BTreeMap<(usize, usize), Option<u64>> =
            links.into_iter().map(|(of, to, after)| ((of, to), after)).collect();
        for ((of, to), after) in &links {
            let fallback = after.map_or(Fallback::Never, |n| Fallback::After(MINUTE * n as u32));
            neighbour(&mut areas, names[*of], names[*to], fallback);
        }
        areas.rules.default = default.map(|g| group(names[g]));
        areas.rules.default_after = MINUTE * default_after as u32;
        let located = ask(&areas, "10.1.2.3", Duration::ZERO, |id| {
            let n = u128::from_str_radix(id.as_str(), 16).unwrap();
            Some(Candidate { holds: fit.contains(&n), ..well(id) })
        });
        let best = |n: u128| {
            let has = |g: usize| members[g].contains(&n);
            if own.iter().any(|g| has(*g)) {
                return Some((0, 0));
            }
            let near = links.iter().filter(|((of, to), _)| own.contains(of) && has(*to));
            if let Some(after) = near.filter_map(|(_, after)| *after).min() {
                return Some((1, after));
            }
            let d = default.filter(|d| has(*d))?;
            let is_neighbour = links.keys().any(|(of, to)| own.contains(of) && *to == d);
            let after = if own.is_empty() { 0 } else { default_after };
            (!is_neighbour).then_some((2, after))
        };
        let mut want: Vec<(u8, u64)> =
            (0..6).filter(|n| fit.contains(n)).filter_map(best).collect();
        want.sort_unstable();
        let found: Vec<(u8, u64)> = located.sources.iter().map(|source| {
            let rank = match source.why {
                Why::Group(_) => 0,
                Why::Neighbour { .. } => 1,
                Why::Default(_) => 2,
                Why::Site => 3,
            };
            (rank, source.after.as_secs() / 60)
        }).collect();
        let (site, points) = found.split_last().unwrap();
        prop_assert_eq!(points, want);
        prop_assert_eq!(*site, (3, 0));
        let ids: BTreeSet<_> = located.sources.iter().filter_map(|s| s.point.as_ref().map(|p| &p.id)).collect();
        prop_assert_eq!(ids.len(), points.len(), "each once");
    }
}

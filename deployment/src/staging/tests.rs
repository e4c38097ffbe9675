//! What a plan promises, held against a plain look at each machine.

use super::*;
use proptest::prelude::*;

fn id(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * 3_600).unwrap()
}

/// A fleet without references, that a test can make.
#[derive(Clone, Debug)]
struct Made {
    /// Enabled, available, members, updates.
    deployments: Vec<(bool, i64, RoaringBitmap, Vec<UpdateId>)>,
    packages: Vec<Package>,
    points: Vec<Point>,
    places: Vec<Place>,
    required: BTreeMap<UpdateId, RoaringBitmap>,
}

impl Made {
    fn plan(&self, now: i64) -> Plan {
        let deployment = |(n, it): (usize, &(bool, i64, RoaringBitmap, Vec<UpdateId>))| Staged {
            name: format!("d{n}"),
            enabled: it.0,
            available: When::Utc(at(it.1)),
            collection: CollectionName::all(),
            members: &self.deployments[n].2,
            updates: &self.deployments[n].3,
        };
        let required = |id| self.required.get(&id).cloned().unwrap_or_default();
        plan(&Fleet {
            deployments: self.deployments.iter().enumerate().map(deployment).collect(),
            packages: self.packages.clone(),
            points: self.points.clone(),
            places: self.places.clone(),
            required: &required,
            lead: SignedDuration::from_hours(8),
            now: at(now),
        })
    }
}

fn bits(all: impl IntoIterator<Item = u32>) -> RoaringBitmap {
    all.into_iter().collect()
}

fn made() -> impl Strategy<Value = Made> {
    let some = |of: u32, most: usize| prop::collection::btree_set(0..of, 0..most);
    let updates = move || some(12, 8).prop_map(|all| all.into_iter().map(id).collect::<Vec<_>>());
    let deployment = (prop::bool::weighted(0.9), -20..20_i64, some(20, 15), updates());
    let package = (0..100_u64, updates());
    let point = (prop_oneof![Just(u64::MAX), 0..200_u64], some(4, 2), some(4, 2));
    let place = (some(5, 3), some(20, 10));
    (
        prop::collection::vec(deployment, 0..5),
        prop::collection::vec(package, 0..5),
        prop::collection::vec(point, 5),
        prop::collection::vec(place, 0..6),
        prop::collection::vec(some(20, 6), 12),
    )
        .prop_map(|(deployments, packages, points, places, required)| Made {
            deployments: deployments
                .into_iter()
                .map(|(enabled, at, members, updates)| (enabled, at, bits(members), updates))
                .collect(),
            packages: packages
                .into_iter()
                .map(|(bytes, all)| Package {
                    bytes,
                    updates: all.into_iter().collect(),
                    ..Package::default()
                })
                .collect(),
            points: points
                .into_iter()
                .map(|(free, distributed, holds)| Point {
                    free,
                    distributed,
                    holds,
                    ..Point::default()
                })
                .collect(),
            places: places
                .into_iter()
                .map(|(points, clients)| Place {
                    points: points.into_iter().collect(),
                    clients: bits(clients),
                    ..Place::default()
                })
                .collect(),
            required: (0..).map(id).zip(required.into_iter().map(bits)).collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_a_machine_requires_is_near_to_it_and_nothing_else(made in made()) {
        let plan = made.plan(0);
        let on = |point: u32| -> Vec<&Line> {
            plan.lines.iter().filter(|line| line.point == point).collect()
        };
        let is_due = |it: &(bool, i64, RoaringBitmap, Vec<UpdateId>)| it.0 && it.1 - 8 <= 0;
        // What is required, deployed and in a package is on each point of each place of the machine.
        for deployment in made.deployments.iter().filter(|it| is_due(it)) {
            for update in &deployment.3 {
                let has = |line: &Line| made.packages[line.package as usize].updates.contains(update);
                let is_packed = made.packages.iter().any(|package| package.updates.contains(update));
                for place in &made.places {
                    let machines = &made.required[update] & &deployment.2 & &place.clients;
                    for point in place.points.iter().filter(|_| is_packed && !machines.is_empty()) {
                        prop_assert!(on(*point).into_iter().any(has));
                    }
                }
            }
        }
        // Each line has a machine that requires something of the package.
        for line in &plan.lines {
            let package = &made.packages[line.package as usize];
            for because in &line.because {
                let deployment = &made.deployments[because.deployment as usize];
                let place = &made.places[because.place as usize];
                prop_assert!(is_due(deployment) && place.points.contains(&line.point));
                let deployed = deployment.3.iter().filter(|id| package.updates.contains(id));
                let machines = deployed.fold(RoaringBitmap::new(), |all, id| all | &made.required[id]);
                let machines = machines & &deployment.2 & &place.clients;
                prop_assert!(because.machines > 0 && u64::from(because.machines) <= machines.len());
                prop_assert!(line.by <= at(deployment.1));
            }
            prop_assert!(!line.because.is_empty());
            // Each machine counts once, in however many deployments and boundary groups it is.
            let machines = line.because.iter().fold(RoaringBitmap::new(), |all, because| {
                let deployment = &made.deployments[because.deployment as usize];
                let clients = &made.places[because.place as usize].clients;
                let deployed = deployment.3.iter().filter(|id| package.updates.contains(id));
                let requiring = deployed.fold(RoaringBitmap::new(), |all, id| all | &made.required[id]);
                all | (requiring & &deployment.2 & clients)
            });
            let most: u64 = line.because.iter().map(|because| u64::from(because.machines)).sum();
            let least = line.because.iter().map(|because| because.machines).max().unwrap_or(0);
            prop_assert!(least <= line.machines && u64::from(line.machines) <= most.min(machines.len()));
            let point = &made.points[line.point as usize];
            let is_distributed = point.distributed.contains(&line.package);
            let is_there = is_distributed || point.holds.contains(&line.package);
            prop_assert_eq!(line.state == LineState::Held, is_there);
            prop_assert_eq!(line.assigned, !is_distributed && line.state != LineState::NoRoom);
        }
        // Nobody is given more than there is room for.
        for (number, point) in (0..).zip(&made.points) {
            let assigned = plan.assigned();
            let come = assigned.iter().filter(|(on, it)| *on == number && !point.holds.contains(it));
            let bytes: u64 = come.map(|(_, it)| made.packages[*it as usize].bytes).sum();
            prop_assert!(bytes <= point.free);
        }
        prop_assert_eq!(&plan, &made.plan(0));
    }

    #[test]
    fn whoever_leaves_lets_go_and_touches_nothing_else(made in made(), gone in 0..5_usize) {
        let mut roomy = made;
        roomy.points.iter_mut().for_each(|point| point.free = u64::MAX);
        let before = roomy.plan(0);
        let Some(deployment) = roomy.deployments.get_mut(gone) else { return Ok(()) };
        deployment.0 = false;
        let after = roomy.plan(0);
        prop_assert!(after.assigned().is_subset(&before.assigned()));
        for line in &before.lines {
            let others = line.because.iter().any(|because| because.deployment as usize != gone);
            let stays = after.lines.iter().any(|it| (it.point, it.package) == (line.point, line.package));
            prop_assert_eq!(others, stays);
        }
    }
}

#[test]
fn a_plan_says_why_something_is_not_brought() {
    let package = |name: &str, ids: &[u32]| Package {
        name: name.into(),
        bytes: 10,
        updates: ids.iter().map(|n| id(*n)).collect(),
    };
    let mut made = Made {
        deployments: vec![(true, 4, bits(0..10), (0..4).map(id).collect())],
        packages: vec![package("small", &[0]), package("large", &[0, 1])],
        points: vec![Point { free: 15, ..Point::default() }, Point { free: 5, ..Point::default() }],
        places: vec![
            Place { points: vec![0, 1], clients: bits(0..3), ..Place::default() },
            Place { points: vec![], clients: bits(3..5), ..Place::default() },
        ],
        required: (0..3).map(|n| (id(n), bits([n, 3, 9]))).collect(),
    };
    let plan = made.plan(0);
    let lines: Vec<_> =
        plan.lines.iter().map(|line| (line.package, line.point, line.state)).collect();
    assert_eq!(lines, [(1, 0, LineState::Bring), (1, 1, LineState::NoRoom)]);
    assert_eq!(plan.lines[0].because, [Because { deployment: 0, place: 0, machines: 2 }]);
    let why: Vec<_> = plan.left.iter().map(|left| left.why.clone()).collect();
    assert_eq!(why, [Why::NotRequired(1), Why::InNoPackage(vec![id(2)]), Why::Nowhere(2)]);
    assert!(why[2].to_string().starts_with("2 machines"));
    // What was assigned before needs no more room, and once the point says to hold it, it is held, and stays assigned.
    made.points[1].staged.insert(1);
    assert_eq!(made.plan(0).lines[1].state, LineState::Bring);
    made.points[1].holds.insert(1);
    let held = made.plan(0);
    assert_eq!((held.lines[1].state, held.lines[1].assigned), (LineState::Held, true));
    assert!(held.assigned().contains(&(1, 1)));
    // A machine that two deployments and two boundary groups are about is one machine.
    let mut twice = made.clone();
    twice.deployments.push(twice.deployments[0].clone());
    twice.places.push(twice.places[0].clone());
    let line = &twice.plan(0).lines[0];
    assert_eq!((line.because.len(), line.machines), (4, 2));
    assert_eq!(made.plan(-5).left[0].why, Why::Until(at(-4)));
    made.deployments[0].0 = false;
    assert_eq!(
        made.plan(0),
        Plan { lines: vec![], left: vec![Left { deployment: 0, why: Why::Disabled }] }
    );
}

#[test]
fn what_is_available_by_local_clocks_is_there_for_the_first_of_them() {
    let local = When::Local("2026-03-01T20:00:00".parse().unwrap());
    assert_eq!(first_available(local).to_string(), "2026-03-01T06:00:00Z");
}

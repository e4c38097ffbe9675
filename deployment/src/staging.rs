//! Staging: what is deployed is brought to the distribution points near the machines that require it, before it is
//! available.
//!
//! [`plan`] says which deployment packages are to lie on which points, and of each line why; of what is not brought, why not.
//! It is pure: who requires what, where clients are, and what points hold, is handed in ([`Fleet`]), and the same input
//! makes the same plan. Whoever calls it makes assignments of it and takes back those that it made before and that
//! are in the plan no more: a deployment that ends lets go of its content.
//!
//! A point holds versions of packages, so a package is what is brought: the fewest that have all updates which
//! a place requires, the most useful first. What no machine of a place requires brings nothing there.
//!
//! Always true of a plan:
//! * it brings to a point only packages with an update that a machine of one of its boundary groups requires and a deployment
//!   is for, which is available within the lead time;
//! * of each such update that is in any package, one package that has it is on each of these points, or it is said
//!   why not.

use crate::CollectionName;
use crate::policy::When;
use jiff::{SignedDuration, Timestamp};
use roaring::RoaringBitmap;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use sync::name::UpdateId;

/// Clocks are at most so far ahead of UTC: what is available by the clock of clients is so there first.
const FIRST_CLOCK: SignedDuration = SignedDuration::from_hours(14);

/// A deployment, to be staged.
#[derive(Clone, Debug)]
pub struct Staged<'a> {
    /// What people call it.
    pub name: String,
    /// Whether clients are told of it.
    pub enabled: bool,
    /// When it is available.
    pub available: When,
    /// The collection.
    pub collection: CollectionName,
    /// Who is in it.
    pub members: &'a RoaringBitmap,
    /// Its updates.
    pub updates: &'a [UpdateId],
}

/// A deployment package.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// What people call it.
    pub name: String,
    /// The bytes of its newest version.
    pub bytes: u64,
    /// The updates all of whose files are in that version.
    pub updates: BTreeSet<UpdateId>,
}

/// A distribution point.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// What people call it.
    pub name: String,
    /// Bytes that it has room for.
    pub free: u64,
    /// Packages that staging assigned to it before, as places in [`Fleet::packages`]: they are there or on their way, and
    /// need no more room.
    pub staged: BTreeSet<u32>,
    /// Packages that a person assigned to it.
    pub distributed: BTreeSet<u32>,
    /// Packages whose newest version it says to hold whole.
    pub holds: BTreeSet<u32>,
}

/// A boundary group: machines that are near to each other, and the points near to them.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// What people call it.
    pub name: String,
    /// Its points, as places in [`Fleet::points`].
    pub points: Vec<u32>,
    /// The machines in it.
    pub clients: RoaringBitmap,
}

/// All that a plan depends on.
pub struct Fleet<'a> {
    /// What is deployed.
    pub deployments: Vec<Staged<'a>>,
    /// Which deployment packages there are.
    pub packages: Vec<Package>,
    /// Which points there are.
    pub points: Vec<Point>,
    /// Where clients are.
    pub places: Vec<Place>,
    /// The machines on which an update is required.
    pub required: &'a dyn Fn(UpdateId) -> RoaringBitmap,
    /// So long before it is available something is brought.
    pub lead: SignedDuration,
    /// The time.
    pub now: Timestamp,
}

/// A package that is to lie on a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which, as a place in [`Fleet::packages`].
    pub package: u32,
    /// Where, as a place in [`Fleet::points`].
    pub point: u32,
    /// When the first of what needs it is available.
    pub by: Timestamp,
    /// Why: of each deployment and boundary group, how many machines require what.
    pub because: Vec<Because>,
    /// Machines that require something of it, each counted once for all reasons.
    pub machines: u32,
    /// What becomes of it.
    pub state: LineState,
    /// Whether staging is to assign it: no person did, and there is room for it.
    pub assigned: bool,
}

/// A reason for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Because {
    /// The deployment, as a place in [`Fleet::deployments`].
    pub deployment: u32,
    /// The boundary group, as a place in [`Fleet::places`].
    pub place: u32,
    /// How many of its machines require something of the package that is deployed so.
    pub machines: u32,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineState {
    /// It is brought, and is not all there yet.
    Bring,
    /// It lies there, or comes by the word of a person.
    Held,
    /// There is no room for it.
    NoRoom,
}

/// What of a deployment is not brought, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which, as a place in [`Fleet::deployments`].
    pub deployment: u32,
    /// Why.
    pub why: Why,
}

/// Why something is not brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Clients are not told of it.
    Disabled,
    /// It is not time yet.
    Until(Timestamp),
    /// So many of its updates no machine of the collection requires.
    NotRequired(usize),
    /// These updates are in no deployment package.
    InNoPackage(Vec<UpdateId>),
    /// So many machines that require something are in no boundary group that has a point.
    Nowhere(u64),
}

/// What is to lie where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of points, then packages.
    pub lines: Vec<Line>,
    /// In the order of deployments.
    pub left: Vec<Left>,
}

impl Plan {
    /// What is to be assigned, as pairs of point and package: that is, all but what a person saw to and what has no room.
    pub fn assigned(&self) -> BTreeSet<(u32, u32)> {
        let lines = self.lines.iter().filter(|line| line.assigned);
        lines.map(|line| (line.point, line.package)).collect()
    }
}

/// That a package is needed in a boundary group, from then on.
struct Need {
    package: u32,
    by: Timestamp,
    because: Because,
}

/// Which packages are to lie on which points, and why.
///
/// For each deployment it costs one look at the machines of each update that is required, and one at the boundary group of
/// each machine for each package.
pub fn plan(fleet: &Fleet<'_>) -> Plan {
    let (mut left, mut needs) = (Vec::new(), Vec::new());
    let mut machines_of = vec![RoaringBitmap::new(); fleet.packages.len()];
    let places = Places::new(&fleet.places);
    let mut having: HashMap<UpdateId, Vec<u32>> = HashMap::new();
    for (number, package) in (0..).zip(&fleet.packages) {
        for id in &package.updates {
            having.entry(*id).or_default().push(number);
        }
    }
    for (number, deployment) in (0..).zip(&fleet.deployments) {
        let mut leave = |why| left.push(Left { deployment: number, why });
        if !deployment.enabled {
            leave(Why::Disabled);
            continue;
        }
        let by = first_available(deployment.available);
        let from = by.saturating_sub(fleet.lead).unwrap_or(Timestamp::MIN);
        if fleet.now < from {
            leave(Why::Until(from));
            continue;
        }
        let mut wanted = Vec::new();
        let (mut n_unwanted, mut nowhere) = (0, Vec::new());
        for id in deployment.updates {
            let machines = (fleet.required)(*id) & deployment.members;
            match (machines.is_empty(), having.contains_key(id)) {
                (true, _) => n_unwanted += 1,
                (false, true) => wanted.push((*id, machines)),
                (false, false) => nowhere.push(*id),
            }
        }
        if n_unwanted > 0 {
            leave(Why::NotRequired(n_unwanted));
        }
        if !nowhere.is_empty() {
            leave(Why::InNoPackage(nowhere));
        }
        let mut lost = RoaringBitmap::new();
        for (package, machines) in cover(&wanted, &having) {
            for (place, count) in places.count(&machines, &mut lost) {
                let because = Because { deployment: number, place, machines: count };
                needs.push(Need { package, by, because });
            }
            machines_of[package as usize] |= machines;
        }
        if !lost.is_empty() {
            leave(Why::Nowhere(lost.len()));
        }
    }
    Plan { lines: lines(fleet, needs, &machines_of), left }
}

/// The first moment at which it is available anywhere.
fn first_available(when: When) -> Timestamp {
    match when {
        When::Utc(at) => at,
        When::Local(time) => {
            let utc = time.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp());
            let utc = utc.unwrap_or(Timestamp::MAX);
            utc.saturating_sub(FIRST_CLOCK).unwrap_or(Timestamp::MIN)
        }
    }
}

/// The fewest packages that have all of these updates, found by taking the one that has most of the rest, again and again;
/// of equals the first. With each, the machines for which it is taken.
fn cover(
    wanted: &[(UpdateId, RoaringBitmap)],
    having: &HashMap<UpdateId, Vec<u32>>,
) -> Vec<(u32, RoaringBitmap)> {
    let of = |id: &UpdateId| having.get(id).into_iter().flatten().copied();
    let mut has: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    for (place, (id, _)) in wanted.iter().enumerate() {
        for package in of(id) {
            has.entry(package).or_default().insert(place);
        }
    }
    let mut taken = Vec::new();
    while let Some((package, _)) =
        has.iter().max_by_key(|(package, all)| (all.len(), std::cmp::Reverse(**package)))
    {
        let package = *package;
        let places = has.remove(&package).unwrap_or_default();
        if places.is_empty() {
            break;
        }
        let mut machines = RoaringBitmap::new();
        for place in &places {
            let (id, of_it) = &wanted[*place];
            machines |= of_it;
            for other in of(id) {
                if let Some(all) = has.get_mut(&other) {
                    all.remove(place);
                }
            }
        }
        taken.push((package, machines));
    }
    taken
}

/// In which boundary groups machines are.
struct Places<'a> {
    places: &'a [Place],
    /// By machine: the first of its places, in `more` the others.
    first: Vec<u32>,
    more: HashMap<u32, Vec<u32>>,
}

/// A machine in no place that has a point.
const NONE: u32 = u32::MAX;

impl<'a> Places<'a> {
    fn new(places: &'a [Place]) -> Self {
        let most = places.iter().filter_map(|place| place.clients.max()).max();
        let mut first = vec![NONE; most.map_or(0, |most| most as usize + 1)];
        let mut more: HashMap<u32, Vec<u32>> = HashMap::new();
        for (number, place) in (0..).zip(places).filter(|(_, place)| !place.points.is_empty()) {
            for client in &place.clients {
                match &mut first[client as usize] {
                    none if *none == NONE => *none = number,
                    _ => more.entry(client).or_default().push(number),
                }
            }
        }
        Self { places, first, more }
    }

    /// How many of these machines are in each place; those that are in none are added to `lost`.
    fn count(&self, machines: &RoaringBitmap, lost: &mut RoaringBitmap) -> Vec<(u32, u32)> {
        let mut counts = vec![0_u32; self.places.len()];
        for client in machines {
            match self.first.get(client as usize) {
                None | Some(&NONE) => drop(lost.insert(client)),
                Some(place) => {
                    counts[*place as usize] += 1;
                    for other in self.more.get(&client).into_iter().flatten() {
                        counts[*other as usize] += 1;
                    }
                }
            }
        }
        (0..).zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

/// Which points need what, and whether there is room for it: first for what is available first. `machines_of` has for each
/// package all machines for which it is needed anywhere.
fn lines(fleet: &Fleet<'_>, needs: Vec<Need>, machines_of: &[RoaringBitmap]) -> Vec<Line> {
    let mut near = vec![RoaringBitmap::new(); fleet.points.len()];
    for place in &fleet.places {
        place.points.iter().for_each(|point| near[*point as usize] |= &place.clients);
    }
    // Flat and sorted: there may be millions.
    let points = |need: &Need| fleet.places[need.because.place as usize].points.iter().copied();
    let mut on: Vec<(u32, u32, Because, Timestamp)> = needs
        .iter()
        .flat_map(|need| points(need).map(|point| (point, need.package, need.because, need.by)))
        .collect();
    on.sort_unstable();
    let mut lines: Vec<Line> = Vec::new();
    for same in on.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (Some((point, package, ..)), Some(by)) =
            (same.first(), same.iter().map(|it| it.3).min())
        else {
            continue;
        };
        let because: Vec<Because> = same.iter().map(|it| it.2).collect();
        let (point, package) = (*point, *package);
        let machines = match because.as_slice() {
            [one] => one.machines,
            // Deployments have machines in common, and so have boundary groups.
            _ => machines_of[package as usize].intersection_len(&near[point as usize]) as u32,
        };
        let state = LineState::NoRoom;
        lines.push(Line { package, point, by, because, machines, state, assigned: false });
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|at| (lines[*at].by, *at));
    let mut free: Vec<u64> = fleet.points.iter().map(|point| point.free).collect();
    for at in order {
        let line = &mut lines[at];
        let (room, point) = (&mut free[line.point as usize], &fleet.points[line.point as usize]);
        let is_there = point.holds.contains(&line.package);
        if point.distributed.contains(&line.package) {
            line.state = LineState::Held;
            continue;
        }
        let bytes = match is_there || point.staged.contains(&line.package) {
            true => 0,
            false => fleet.packages[line.package as usize].bytes,
        };
        if bytes > *room {
            continue;
        }
        *room -= bytes;
        line.assigned = true;
        line.state = if is_there { LineState::Held } else { LineState::Bring };
    }
    lines
}

impl LineState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bring => "bring",
            Self::Held => "held",
            Self::NoRoom => "no-room",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("it is disabled"),
            Self::Until(from) => write!(f, "it is brought from {from} on"),
            Self::NotRequired(1) => {
                f.write_str("no machine of its collection requires 1 of its updates")
            }
            Self::NotRequired(n) => {
                write!(f, "no machine of its collection requires {n} of its updates")
            }
            Self::InNoPackage(ids) => {
                let shown: Vec<String> = ids.iter().take(5).map(ToString::to_string).collect();
                let more = ids.len().saturating_sub(shown.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "no deployment package has {}{more}: download them", shown.join(", "))
            }
            Self::Nowhere(n) => {
                write!(
                    f,
                    "{n} machines that require it are in no boundary group with a distribution point"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Distribution on demand: a group whose points hold nothing of what its clients ask for lets one of
//! them bring it.
//!
//! What is brought so is an [`Assignment`] like any other, with a mark: it is seen where others are
//! seen, and can be taken back as they are. It goes by itself when nobody asked for it for a while.

use super::assign::{ASSIGNMENTS, Assignment, AssignmentKey, Target};
use super::wishes::{WishError, is_for};
use super::{BoundaryGroupName, PointName, Registry, RegistryError};
use crate::field::PointId;
use crate::locate::{Located, OnDemand, Unfit, Why};
use jiff::{SignedDuration, Timestamp};
use packager::name::Selector;
use packager::sign::VersionInfo;
use packager::{PackageName, Packages};
use serde::{Deserialize, Serialize};
use sitedb::Batch;
use std::collections::HashSet;

/// The most assignments on demand, so that clients leave room for those of people.
const MOST_ON_DEMAND: usize = 20_000;
/// How old the time of the last question may grow before it is written anew.
const ASKED_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// Who assigns what clients demand.
const BY: &str = "on demand";

/// Why something is assigned on demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// For whose clients.
    pub group: BoundaryGroupName,
    /// When a client asked last, to the hour.
    pub asked: Timestamp,
    /// For how many days from then it is kept.
    pub days: u16,
}

impl Demand {
    /// When it goes, if no client asks until then.
    pub fn expires(&self) -> Timestamp {
        let days = SignedDuration::from_hours(24 * i64::from(self.days));
        self.asked.saturating_add(days).unwrap_or(Timestamp::MAX)
    }
}

/// What came of asking for something that no point of a client's groups holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demanded {
    /// Nothing was to be done: one of them holds it.
    Held,
    /// None of its groups brings anything on demand.
    Off,
    /// A point is to bring it already.
    OnTheWay(PointName),
    /// A point was told to bring it, or would be.
    Asked(PointName),
    /// No point can: none is there that the client could ask then, or none has the room.
    Nobody(BoundaryGroupName),
}

/// Whether something is done about a demand, or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// It is done.
    Really,
    /// It is told what would be.
    WhatIf,
}

impl Registry {
    /// Sees to it that what a client asked for comes near to it, where its groups say so; and that
    /// what came so is kept for as long as clients ask.
    pub fn demand(
        &self,
        located: &Located,
        version: &VersionInfo,
        packages: &Packages,
        now: Timestamp,
        ask: Ask,
    ) -> Result<Demanded, WishError> {
        let own = located.sources.iter().filter(|source| matches!(source.why, Why::Group(_)));
        let holders: Vec<&PointId> = own.filter_map(|s| s.point.as_ref().map(|p| &p.id)).collect();
        if !holders.is_empty() {
            if ask == Ask::Really {
                self.asked_again(&holders, version, now)?;
            }
            return Ok(Demanded::Held);
        }
        // Those of which nothing else keeps the client: others it could not ask afterwards, either.
        let lacks = located.passed_over.iter().filter(|passed| passed.because == Unfit::Lacks);
        let lacking: HashSet<&PointId> =
            lacks.filter_map(|passed| passed.point.as_ref().map(|(id, _)| id)).collect();
        let areas = self.areas();
        let groups = located.groups.iter().filter_map(|name| areas.groups.get(name));
        let mut nobody = None;
        for group in groups {
            let Some(on_demand) = group.on_demand else { continue };
            let ready: Vec<(PointId, PointName, u64)> = {
                let state = self.state.read();
                let of = |id: &PointId| {
                    let (point, standing) = (state.points.get(id)?, state.standings.get(id)?);
                    Some((id.clone(), point.name.clone(), standing.free_bytes))
                };
                group.points.iter().filter(|id| lacking.contains(id)).filter_map(of).collect()
            };
            for (id, name, _) in &ready {
                if self.is_meant_for(id, version, packages)? {
                    return Ok(Demanded::OnTheWay(name.clone()));
                }
            }
            let fitting = ready.into_iter().filter(|(_, _, free)| *free >= version.bytes);
            let chosen = fitting.min_by_key(|(id, _, _)| turn(&version.package, version, id));
            let Some((id, name, _)) = chosen else {
                nobody.get_or_insert(Demanded::Nobody(group.name.clone()));
                continue;
            };
            if ask == Ask::Really {
                self.assign_on_demand(id, &group.name, on_demand, version, now)?;
            }
            return Ok(Demanded::Asked(name));
        }
        Ok(nobody.unwrap_or(Demanded::Off))
    }

    /// Whether anything that is assigned means this version for the point.
    fn is_meant_for(
        &self,
        point: &PointId,
        version: &VersionInfo,
        packages: &Packages,
    ) -> Result<bool, WishError> {
        let stock = self.stock(packages)?;
        let state = self.state.read();
        let its = of_package(&state.assignments, &version.package);
        let mut its = its.filter(|assignment| is_for(assignment, &state.groups, point));
        Ok(its.any(|a| stock.resolve(a).is_ok_and(|meant| meant.version == version.version)))
    }

    fn assign_on_demand(
        &self,
        point: PointId,
        group: &BoundaryGroupName,
        on_demand: OnDemand,
        version: &VersionInfo,
        now: Timestamp,
    ) -> Result<Assignment, RegistryError> {
        let n = {
            let state = self.state.read();
            state.assignments.values().filter(|a| a.on_demand.is_some()).count()
        };
        if n >= MOST_ON_DEMAND {
            let (what, most) = ("assignments on demand", MOST_ON_DEMAND);
            return Err(RegistryError::TooMany { what, most });
        }
        let demand = Demand { group: group.clone(), asked: now, days: on_demand.days };
        self.assign(Assignment {
            package: version.package.clone(),
            version: Selector::Number(version.version),
            to: Target::Point(point),
            priority: on_demand.priority,
            created: now,
            created_by: BY.into(),
            on_demand: Some(demand),
            staged: false,
        })
    }

    /// Notes that a client asked for what was brought on demand.
    fn asked_again(
        &self,
        holders: &[&PointId],
        version: &VersionInfo,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let due = || -> Vec<Assignment> {
            let state = self.state.read();
            let of = |id: &&PointId| {
                let to = Target::Point((*id).clone()).to_string();
                let key = (version.package.to_string(), (to, version.version.to_string()));
                let assignment = state.assignments.get(&key)?;
                let asked = assignment.on_demand.as_ref()?.asked;
                let is_due = now.duration_since(asked).abs() >= ASKED_AGAIN;
                is_due.then(|| assignment.clone())
            };
            holders.iter().filter_map(of).collect()
        };
        if due().is_empty() {
            return Ok(());
        }
        let _changing = self.change();
        let mut due = due();
        let mut batch = Batch::relaxed();
        for assignment in &mut due {
            if let Some(demand) = &mut assignment.on_demand {
                demand.asked = now;
            }
            ASSIGNMENTS.put(&mut batch, &assignment.key(), assignment);
        }
        self.db.kv().write(batch)?;
        // No wish follows from it, so nobody is told.
        let mut state = self.state.write();
        state.assignments.extend(due.into_iter().map(|assignment| (assignment.key(), assignment)));
        Ok(())
    }

    /// Takes back what was brought on demand and nobody asked for any more, and what the site has no
    /// version of.
    pub fn expire_on_demand(
        &self,
        packages: &Packages,
        now: Timestamp,
    ) -> Result<Vec<Assignment>, WishError> {
        // In this order, or what is assigned in between is of a package that the stock has not.
        let changing = self.change();
        let stock = self.stock(packages)?;
        let over: Vec<Assignment> = {
            let state = self.state.read();
            let is_over = |assignment: &&Assignment| {
                let demand = assignment.on_demand.as_ref();
                demand.is_some_and(|d| d.expires() <= now || stock.resolve(assignment).is_err())
            };
            state.assignments.values().filter(is_over).cloned().collect()
        };
        if over.is_empty() {
            return Ok(over);
        }
        let mut batch = Batch::new();
        over.iter().for_each(|assignment| ASSIGNMENTS.delete(&mut batch, &assignment.key()));
        self.apply(&changing, batch, |state| {
            over.iter().for_each(|a| drop(state.assignments.remove(&a.key())));
        })?;
        Ok(over)
    }
}

/// What is assigned of one package.
fn of_package<'a>(
    assignments: &'a std::collections::BTreeMap<AssignmentKey, Assignment>,
    package: &PackageName,
) -> impl Iterator<Item = &'a Assignment> {
    let first = (package.to_string(), Default::default());
    let name = package.to_string();
    assignments.range(first..).take_while(move |(key, _)| key.0 == name).map(|(_, a)| a)
}

/// A version's order of points: each is the first of some, so that they share what is demanded.
fn turn(package: &PackageName, version: &VersionInfo, point: &PointId) -> [u8; 32] {
    let text = format!("{package}\0{}\0{point}", version.version);
    blake3::hash(text.as_bytes()).into()
}

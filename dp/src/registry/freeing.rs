//! What becomes free on points when something is not distributed to them any more.

use super::wishes::{WishError, is_for};
use super::{Assignment, PointName, Registry, Stock, Target};
use crate::field::{FactState, PointId};
use packager::packages::Unshared;
use packager::sign::VersionInfo;
use packager::{PackageError, PackageName, Packages, Selector};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// What becomes free on one point.
#[derive(Debug)]
pub struct Freeing {
    /// The point.
    pub point: PointName,
    /// The versions that it lets go of.
    pub versions: Vec<u64>,
    /// What they have to themselves; an error if that cannot be told.
    pub unshared: Result<Unshared, PackageError>,
    /// How long its library keeps what is not used any more, if it has said so.
    pub grace: Option<Duration>,
}

/// Versions by name.
type Keys = Vec<(PackageName, u64)>;

impl Registry {
    /// What points let go of, and what becomes free there, when the assignments `removed` are taken
    /// back: versions that they hold whole, by their last reports, and that nothing else wishes there.
    /// What else is wished of a point stays, whether or not it is there yet.
    pub fn freeing(
        &self,
        removed: &[Assignment],
        packages: &Packages,
    ) -> Result<Vec<Freeing>, WishError> {
        let stock = self.stock(packages)?;
        let (points, packages_gone) = (self.meant_by(removed), packages_of(removed));
        let mut known: HashMap<(Keys, Keys), Unshared> = HashMap::new();
        let mut freeing = Vec::new();
        for (point, id) in points {
            let facts = self.facts(&id)?;
            let (stays, grace) = {
                let state = self.state.read();
                let its = state.assignments.values().filter(|assignment| {
                    !removed.contains(assignment) && is_for(assignment, &state.groups, &id)
                });
                let stays: BTreeMap<_, VersionInfo> = its
                    .filter_map(|assignment| stock.resolve(assignment).ok())
                    .map(|version| ((version.package.clone(), version.version), version.clone()))
                    .collect();
                let grace = state.standings.get(&id).and_then(|standing| standing.grace);
                (stays, grace.map(Duration::from_secs))
            };
            let is_here = |state| {
                matches!(state, FactState::Held | FactState::Repairing | FactState::Leaving)
            };
            let gone = facts.iter().filter(|fact| {
                let key = (fact.package.clone(), fact.version);
                is_here(fact.state)
                    && packages_gone.contains(&fact.package)
                    && !stays.contains_key(&key)
            });
            let gone: Keys = gone.map(|fact| (fact.package.clone(), fact.version)).collect();
            let versions = gone.iter().map(|(_, version)| *version).collect();
            // Points of a group mostly hold the same.
            let key = (gone, stays.keys().cloned().collect());
            let unshared = match known.get(&key) {
                Some(unshared) => Ok(*unshared),
                None => {
                    let of_site = key.0.iter().map(|(package, version)| {
                        let none = || PackageError::UnknownVersion {
                            package: package.clone(),
                            version: Selector::Number(*version),
                        };
                        described(&stock, package, *version).ok_or_else(none)
                    });
                    let of_site = of_site.collect::<Result<Vec<VersionInfo>, PackageError>>();
                    let stays: Vec<VersionInfo> = stays.into_values().collect();
                    of_site.and_then(|gone| packages.unshared(&gone, &stays))
                }
            };
            if let Ok(unshared) = &unshared {
                known.insert(key, *unshared);
            }
            freeing.push(Freeing { point, versions, unshared, grace });
        }
        Ok(freeing)
    }

    /// The points that assignments are for, by name.
    fn meant_by(&self, assignments: &[Assignment]) -> BTreeMap<PointName, PointId> {
        let state = self.state.read();
        let mut ids = BTreeSet::new();
        for assignment in assignments {
            match &assignment.to {
                Target::Point(id) => {
                    ids.insert(id.clone());
                }
                Target::Group(name) => {
                    let group = state.groups.get(name);
                    ids.extend(group.into_iter().flat_map(|group| group.members.iter().cloned()));
                }
            }
        }
        let named = |id: PointId| Some((state.points.get(&id)?.name.clone(), id));
        ids.into_iter().filter_map(named).collect()
    }
}

fn packages_of(assignments: &[Assignment]) -> BTreeSet<PackageName> {
    assignments.iter().map(|assignment| assignment.package.clone()).collect()
}

fn described(stock: &Stock, package: &PackageName, version: u64) -> Option<VersionInfo> {
    stock.0.get(package)?.versions.get(&version).cloned()
}

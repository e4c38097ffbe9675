//! Boundary groups: which points are near to which clients, whom these turn to next, and the rules
//! for all.

use super::boundaries::BOUNDARIES;
use super::{BoundaryGroupName, MOST, Registry, RegistryError};
use crate::field::PointId;
use crate::locate::{AddressRange, Areas, Boundary, BoundaryGroup, Fallback, OnDemand, Rules};
use jiff::Timestamp;
use sitedb::{Batch, Table};
use std::collections::BTreeSet;
use std::time::Duration;

/// The most neighbours of a group.
const MOST_NEIGHBOURS: usize = 1000;
/// The longest time after which clients may turn elsewhere: beyond it, `Never` is meant.
pub const LONGEST_FALLBACK: Duration = Duration::from_secs(30 * 24 * 3600);

/// Boundary groups by name.
pub(super) const BOUNDARY_GROUPS: Table<String, BoundaryGroup> = Table::new("boundary-groups");
/// The one record of what counts for all.
pub(super) const RULES: Table<(), Rules> = Table::new("locating-rules");

/// A boundary group that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedBoundaryGroup {
    /// What it was.
    pub group: BoundaryGroup,
    /// The boundaries that were in no other group, and went with it.
    pub boundaries: Vec<AddressRange>,
}

/// The group called `which`.
fn find<'a>(areas: &'a Areas, which: &str) -> Result<&'a BoundaryGroup, RegistryError> {
    let found = which.parse().ok().and_then(|name: BoundaryGroupName| areas.groups.get(&name));
    found.ok_or_else(|| RegistryError::UnknownBoundaryGroup(which.chars().take(100).collect()))
}

impl Registry {
    /// All boundary groups, by name.
    pub fn boundary_groups(&self) -> Vec<BoundaryGroup> {
        self.areas().groups.values().cloned().collect()
    }

    /// The boundary group called `which`.
    pub fn boundary_group(&self, which: &str) -> Result<BoundaryGroup, RegistryError> {
        find(&self.areas(), which).cloned()
    }

    /// Makes a group with these points, named or numbered, and nothing else.
    pub fn create_boundary_group(
        &self,
        name: BoundaryGroupName,
        points: &[String],
        on_demand: Option<OnDemand>,
        by: &str,
        now: Timestamp,
    ) -> Result<BoundaryGroup, RegistryError> {
        let changing = self.change();
        let areas = self.areas();
        if areas.groups.contains_key(&name) {
            return Err(RegistryError::BoundaryGroupExists(name));
        }
        if areas.groups.len() >= MOST {
            return Err(RegistryError::TooMany { what: "boundary groups", most: MOST });
        }
        drop(areas);
        let points = points.iter().map(|which| Ok(self.point(which)?.id));
        let group = BoundaryGroup {
            name,
            created: now,
            created_by: by.into(),
            points: points.collect::<Result<_, RegistryError>>()?,
            neighbours: Default::default(),
            on_demand,
        };
        self.put_boundary_group(&changing, group)
    }

    /// Puts a point into a group. It may be in it already.
    pub fn add_to_boundary_group(
        &self,
        group: &str,
        point: &str,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_points(group, point, |points, id| points.insert(id))
    }

    /// Takes a point out of a group. It need not be in it.
    pub fn remove_from_boundary_group(
        &self,
        group: &str,
        point: &str,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_points(group, point, |points, id| points.remove(&id))
    }

    fn change_points(
        &self,
        group: &str,
        point: &str,
        change: impl FnOnce(&mut BTreeSet<PointId>, PointId) -> bool,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_boundary_group(group, |registry, _, group| {
            change(&mut group.points, registry.point(point)?.id);
            Ok(())
        })
    }

    /// Says when clients of `group` may turn to `neighbour`.
    pub fn set_neighbour(
        &self,
        group: &str,
        neighbour: &str,
        fallback: Fallback,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_boundary_group(group, |_, areas, group| {
            let neighbour = find(areas, neighbour)?.name.clone();
            if neighbour == group.name {
                return Err(RegistryError::OwnNeighbour(neighbour));
            }
            check_fallback(fallback)?;
            group.neighbours.insert(neighbour, fallback);
            if group.neighbours.len() > MOST_NEIGHBOURS {
                let (what, most) = ("neighbours", MOST_NEIGHBOURS);
                return Err(RegistryError::TooMany { what, most });
            }
            Ok(())
        })
    }

    /// Lets `neighbour` be none of `group` any more.
    pub fn unset_neighbour(
        &self,
        group: &str,
        neighbour: &str,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_boundary_group(group, |_, _, group| {
            let name = neighbour.parse().ok();
            let gone = name.and_then(|name: BoundaryGroupName| group.neighbours.remove(&name));
            let (of, neighbour) = (group.name.clone(), neighbour.chars().take(100).collect());
            gone.map(drop).ok_or(RegistryError::NotANeighbour { of, neighbour })
        })
    }

    /// Says what is done when no point of a group holds what its clients ask for.
    pub fn set_on_demand(
        &self,
        group: &str,
        on_demand: Option<OnDemand>,
    ) -> Result<BoundaryGroup, RegistryError> {
        self.change_boundary_group(group, |_, _, group| {
            group.on_demand = on_demand;
            Ok(())
        })
    }

    /// Removes a group, and the boundaries that are in no other: clients of these would belong to
    /// none, and no larger boundary would count for them.
    pub fn delete_boundary_group(
        &self,
        which: &str,
    ) -> Result<DeletedBoundaryGroup, RegistryError> {
        let changing = self.change();
        let areas = self.areas();
        let group = find(&areas, which)?.clone();
        let name = &group.name;
        if areas.rules.default.as_ref() == Some(name) {
            return Err(RegistryError::IsDefault(name.clone()));
        }
        let with = areas.boundaries.values().filter(|boundary| boundary.groups.contains(name));
        let without = with.map(|boundary| {
            let mut boundary = boundary.clone();
            boundary.groups.remove(name);
            boundary
        });
        let (gone, left): (Vec<Boundary>, Vec<Boundary>) =
            without.partition(|boundary| boundary.groups.is_empty());
        let near = areas.groups.values().filter(|other| other.neighbours.contains_key(name));
        let near: Vec<BoundaryGroup> = near
            .map(|other| {
                let mut other = other.clone();
                other.neighbours.remove(name);
                other
            })
            .collect();
        drop(areas);
        let mut batch = Batch::new();
        BOUNDARY_GROUPS.delete(&mut batch, &name.to_string());
        gone.iter().for_each(|b| BOUNDARIES.delete(&mut batch, &b.range.to_string()));
        left.iter().for_each(|b| BOUNDARIES.put(&mut batch, &b.range.to_string(), b));
        near.iter().for_each(|g| BOUNDARY_GROUPS.put(&mut batch, &g.name.to_string(), g));
        let boundaries: Vec<AddressRange> = gone.iter().map(|boundary| boundary.range).collect();
        self.apply_to_areas(&changing, batch, |areas| {
            areas.groups.remove(name);
            boundaries.iter().for_each(|range| drop(areas.boundaries.remove(range)));
            areas.boundaries.extend(left.into_iter().map(|boundary| (boundary.range, boundary)));
            areas.groups.extend(near.into_iter().map(|group| (group.name.clone(), group)));
        })?;
        Ok(DeletedBoundaryGroup { group, boundaries })
    }

    /// What counts for all.
    pub fn locating_rules(&self) -> Rules {
        self.areas().rules.clone()
    }

    /// Says what counts for all.
    pub fn set_locating_rules(
        &self,
        change: impl FnOnce(&mut Rules),
    ) -> Result<Rules, RegistryError> {
        let changing = self.change();
        let mut rules = self.locating_rules();
        change(&mut rules);
        if let Some(name) = &rules.default {
            find(&self.areas(), name.as_str())?;
        }
        check_fallback(Fallback::After(rules.default_after))?;
        check_fallback(rules.site)?;
        let mut batch = Batch::new();
        RULES.put(&mut batch, &(), &rules);
        self.apply_to_areas(&changing, batch, |areas| areas.rules = rules.clone())?;
        Ok(rules)
    }

    fn change_boundary_group(
        &self,
        which: &str,
        change: impl FnOnce(&Self, &Areas, &mut BoundaryGroup) -> Result<(), RegistryError>,
    ) -> Result<BoundaryGroup, RegistryError> {
        let changing = self.change();
        let areas = self.areas();
        let before = find(&areas, which)?;
        let mut group = before.clone();
        change(self, &areas, &mut group)?;
        if group == *before {
            return Ok(group);
        }
        drop(areas);
        self.put_boundary_group(&changing, group)
    }

    fn put_boundary_group(
        &self,
        changing: &parking_lot::MutexGuard<'_, ()>,
        group: BoundaryGroup,
    ) -> Result<BoundaryGroup, RegistryError> {
        let mut batch = Batch::new();
        BOUNDARY_GROUPS.put(&mut batch, &group.name.to_string(), &group);
        self.apply_to_areas(changing, batch, |areas| {
            areas.groups.insert(group.name.clone(), group.clone());
        })?;
        Ok(group)
    }
}

fn check_fallback(fallback: Fallback) -> Result<(), RegistryError> {
    match fallback {
        Fallback::After(after) if after > LONGEST_FALLBACK => Err(RegistryError::TooLate),
        _ => Ok(()),
    }
}

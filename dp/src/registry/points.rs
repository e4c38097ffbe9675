//! The points of a site: from the day a machine joined until it is removed.

use super::assign::{ASSIGNMENTS, Assignment, AssignmentKey, Target};
use super::boundary_groups::BOUNDARY_GROUPS;
use super::drain::Drained;
use super::groups::{GROUPS, Group};
use super::orders::delete_orders;
use super::reports::delete_reports;
use super::{GroupName, PointName, Registry, RegistryError, State};
use crate::field::{Limit, PointId};
use crate::locate::BoundaryGroup;
use crate::pace::Week;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A distribution point of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Who it is.
    pub id: PointId,
    /// What people call it.
    pub name: PointName,
    /// When it joined.
    pub joined: Timestamp,
    /// Who made the token that it joined with.
    pub invited_by: String,
    /// When it last got a new certificate.
    #[serde(default)]
    pub renewed: Option<Timestamp>,
    /// How fast it may bring what it lacks.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// When it may.
    #[serde(default)]
    pub window: Option<Week>,
    /// Points that it brings from before it asks the site: from the first ones by turns, then from the
    /// next.
    #[serde(default)]
    pub sources: Vec<Vec<PointId>>,
    /// Whether it gets nothing new and no clients.
    #[serde(default)]
    pub drained: Option<Drained>,
}
impl Value for Point {}

/// Points by their id.
pub(super) const POINTS: Table<String, Point> = Table::new("points");

impl State {
    /// The point called or numbered `which`.
    pub(super) fn find(&self, which: &str) -> Result<&Point, RegistryError> {
        let id = which.parse().ok().or_else(|| self.by_name.get(&which.parse().ok()?).cloned());
        let found = id.and_then(|id: PointId| self.points.get(&id));
        found.ok_or_else(|| RegistryError::UnknownPoint(which.chars().take(100).collect()))
    }
}

impl Registry {
    /// Whether there is a point of that id. Reads memory only.
    pub fn knows(&self, id: &PointId) -> bool {
        self.state.read().points.contains_key(id)
    }

    /// The point called or numbered `which`.
    pub fn point(&self, which: &str) -> Result<Point, RegistryError> {
        self.state.read().find(which).cloned()
    }

    /// All points, by name.
    pub fn points(&self) -> Vec<Point> {
        let state = self.state.read();
        state.by_name.values().filter_map(|id| state.points.get(id).cloned()).collect()
    }

    /// The groups that a point is in.
    pub fn groups_of(&self, id: &PointId) -> Vec<GroupName> {
        let state = self.state.read();
        let of = state.groups.values().filter(|group| group.members.contains(id));
        of.map(|group| group.name.clone()).collect()
    }

    /// Notes that a point got a new certificate.
    pub fn renewed(&self, id: &PointId, now: Timestamp) -> Result<(), RegistryError> {
        let changing = self.change();
        let mut point = self.point(id.as_str())?;
        point.renewed = Some(now);
        let mut batch = Batch::new();
        POINTS.put(&mut batch, &id.to_string(), &point);
        self.apply(&changing, batch, |state| drop(state.points.insert(id.clone(), point)))
    }

    /// Removes the point called or numbered `which`: from now on it is refused, and nothing is
    /// assigned to it any more.
    pub fn remove_point(&self, which: &str) -> Result<Point, RegistryError> {
        let changing = self.change();
        let areas = self.areas();
        let (point, groups, assignments, others) = {
            let state = self.state.read();
            let point = state.find(which)?.clone();
            let without = |group: &Group| {
                let mut group = group.clone();
                group.members.remove(&point.id).then_some(group)
            };
            let groups: Vec<Group> = state.groups.values().filter_map(without).collect();
            let to = Target::Point(point.id.clone());
            let its = state.assignments.values().filter(|assignment| assignment.to == to);
            let assignments: Vec<AssignmentKey> = its.map(Assignment::key).collect();
            let others = state.without_source(&point.id);
            (point, groups, assignments, others)
        };
        let near = areas.groups.values().filter(|group| group.points.contains(&point.id));
        let near: Vec<BoundaryGroup> = near
            .map(|group| {
                let mut group = group.clone();
                group.points.remove(&point.id);
                group
            })
            .collect();
        drop(areas);
        let mut batch = Batch::new();
        let key = point.id.to_string();
        POINTS.delete(&mut batch, &key);
        others.iter().for_each(|other| POINTS.put(&mut batch, &other.id.to_string(), other));
        delete_reports(&mut batch, &point.id);
        delete_orders(&mut batch, &point.id, &self.state.read());
        groups.iter().for_each(|group| GROUPS.put(&mut batch, &group.name.to_string(), group));
        assignments.iter().for_each(|key| ASSIGNMENTS.delete(&mut batch, key));
        near.iter().for_each(|g| BOUNDARY_GROUPS.put(&mut batch, &g.name.to_string(), g));
        self.apply(&changing, batch, |state| {
            state.points.remove(&point.id);
            state.points.extend(others.into_iter().map(|other| (other.id.clone(), other)));
            state.by_name.remove(&point.name);
            state.standings.remove(&point.id);
            state.outlines.remove(&point.id);
            state.orders.remove(&point.id);
            state.groups.extend(groups.into_iter().map(|group| (group.name.clone(), group)));
            assignments.iter().for_each(|key| drop(state.assignments.remove(key)));
            if !near.is_empty() {
                let near = near.into_iter().map(|group| (group.name.clone(), group));
                Arc::make_mut(&mut state.areas).groups.extend(near);
            }
        })?;
        self.holdings.remove(&point.id);
        if let Some(feed) = self.feeds.lock().remove(&point.id) {
            feed.cancel();
        }
        self.heard.lock().remove(&point.id);
        Ok(point)
    }
}

/// Where a point is reached that says `address`, with a scheme or without, and is heard of from
/// `from`: if it listens on all its addresses, that is one of them.
pub(super) fn reached_at(address: &str, from: Option<IpAddr>) -> String {
    let at = address.find("://").map_or(0, |at| at + "://".len());
    let (scheme, place) = address.split_at(at);
    match (place.parse::<SocketAddr>(), from) {
        (Ok(place), Some(from)) if place.ip().is_unspecified() => {
            format!("{scheme}{}", SocketAddr::new(from.to_canonical(), place.port()))
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_a_point_does_not_know_is_the_one_it_is_heard_of_from() {
        let v4 = Some("192.0.2.7".parse().unwrap());
        let v6 = Some("2001:db8::7".parse().unwrap());
        assert_eq!(reached_at("http://0.0.0.0:80", v4), "http://192.0.2.7:80");
        assert_eq!(reached_at("https://[::]:80", v6), "https://[2001:db8::7]:80");
        assert_eq!(reached_at("0.0.0.0:80", v4), "192.0.2.7:80");
        assert_eq!(reached_at("[::1]:80", v4), "[::1]:80");
        assert_eq!(reached_at("http://h:80", v4), "http://h:80");
        assert_eq!(reached_at("http://0.0.0.0:80", None), "http://0.0.0.0:80");
    }
}

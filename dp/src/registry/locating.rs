//! Locating with what the site knows: its tables, and what its points last reported.
//!
//! [`Registry::locate`] is for one version at one moment. [`Places`] is for what is told ahead: whom a client
//! turns to as people set it, whoever happens to be silent in this minute.

use super::holdings::{Mark, mark};
use super::{BoundaryGroupName, PointName, Registry, RegistryError};
use crate::field::PointId;
use crate::locate::{
    Areas, Atlas, Candidate, Client, Located, PassedOver, Source, Unfit, base_url, locate,
};
use jiff::Timestamp;
use packager::sign::VersionInfo;
use sitedb::DbError;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The most points of other places that an explanation names.
const MOST_ELSEWHERE: usize = 100;

/// Which points there are for which addresses, as it was at one moment. It is asked without a lock, and two
/// that say the same are equal.
#[derive(Clone, Debug)]
pub struct Places {
    areas: Arc<Areas>,
    atlas: Arc<Atlas>,
    points: BTreeMap<PointId, Fixed>,
}

/// What of a point does not change by the minute.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fixed {
    name: PointName,
    base: Option<String>,
    is_offered: bool,
}

// The atlas follows from the areas.
impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        self.areas == other.areas && self.points == other.points
    }
}
impl Eq for Places {}

impl Places {
    /// Whom a client of these addresses turns to, the first first. Of its addresses the first counts that is
    /// in a boundary; where none is, the first.
    pub fn sources(&self, addresses: &[IpAddr]) -> Vec<Source> {
        let placed = self.placed(addresses);
        let Some(address) = placed.or(addresses.first()) else { return Vec::new() };
        let client = Client { address: *address, elapsed: Duration::ZERO };
        // Any moment: all points are as good as just heard.
        let now = Timestamp::UNIX_EPOCH;
        let candidate = |id: &PointId| {
            let Fixed { name, base, is_offered } = self.points.get(id)?.clone();
            let (reported, cut_off, holds) = (Some(now), None, true);
            Some(Candidate { name, base, reported, cut_off, is_offered, holds })
        };
        locate(client, &self.areas, &self.atlas, now, candidate).sources
    }

    /// The boundary groups that a client with these addresses belongs to; the default group, if it belongs to none.
    pub fn groups_of(&self, addresses: &[IpAddr]) -> BTreeSet<BoundaryGroupName> {
        let ranges =
            self.placed(addresses).map(|address| self.atlas.smallest(address.to_canonical()));
        let boundaries =
            ranges.into_iter().flatten().filter_map(|it| self.areas.boundaries.get(&it));
        let groups: BTreeSet<_> = boundaries.flat_map(|it| it.groups.iter().cloned()).collect();
        match groups.is_empty() {
            true => self.areas.rules.default.iter().cloned().collect(),
            false => groups,
        }
    }

    /// All boundary groups, and the points of each.
    pub fn points_of(&self) -> impl Iterator<Item = (&BoundaryGroupName, &BTreeSet<PointId>)> {
        self.areas.groups.iter().map(|(name, group)| (name, &group.points))
    }

    /// The first of the addresses that is in a boundary.
    fn placed<'a>(&self, addresses: &'a [IpAddr]) -> Option<&'a IpAddr> {
        addresses.iter().find(|it| self.atlas.smallest(it.to_canonical()).next().is_some())
    }
}

impl Registry {
    /// Which points there are for which addresses.
    pub fn places(&self) -> Places {
        let atlas = self.atlas();
        let state = self.state.read();
        let fixed = |(id, point): (&PointId, &super::Point)| {
            let address = state.standings.get(id).map(|standing| standing.address.as_str());
            let (name, base) = (point.name.clone(), address.and_then(base_url));
            (id.clone(), Fixed { name, base, is_offered: point.is_offered() })
        };
        let points = state.points.iter().map(fixed).collect();
        Places { areas: state.areas.clone(), atlas, points }
    }

    /// Whom `client` should ask for `version`; without one, whom it would ask for what all hold.
    ///
    /// Reads the database where it was not asked about a point before.
    pub fn locate(
        &self,
        client: Client,
        version: Option<&VersionInfo>,
        now: Timestamp,
    ) -> Result<Located, RegistryError> {
        let (areas, atlas) = (self.areas(), self.atlas());
        let sought = version.map(|version| mark(&version.package, version.version));
        let failed: std::cell::Cell<Option<DbError>> = Default::default();
        let candidate = |id: &PointId| match self.candidate(id, sought, now) {
            Ok(candidate) => candidate,
            Err(error) => {
                failed.set(Some(error));
                None
            }
        };
        let located = locate(client, &areas, &atlas, now, candidate);
        match failed.into_inner() {
            Some(error) => Err(error.into()),
            None => Ok(located),
        }
    }

    /// What is known of a point; nothing if it is gone.
    fn candidate(
        &self,
        id: &PointId,
        sought: Option<Mark>,
        now: Timestamp,
    ) -> Result<Option<Candidate>, DbError> {
        let (name, is_offered, reported, address) = {
            let state = self.state.read();
            let Some(point) = state.points.get(id) else { return Ok(None) };
            let standing = state.standings.get(id);
            let reported = standing.map(|standing| standing.received);
            let address = standing.map(|standing| standing.address.clone());
            (point.name.clone(), point.is_offered(), reported, address)
        };
        let holds = match sought {
            Some(sought) => self.holdings.holds(&self.db, id, sought)?,
            None => true,
        };
        let base = address.as_deref().and_then(base_url);
        let cut_off = self.cut_off(id, now);
        Ok(Some(Candidate { name, base, reported, cut_off, is_offered, holds }))
    }

    /// Points that hold `version`, and that `located` has no reason to name: the first hundred, by
    /// name.
    pub fn elsewhere(
        &self,
        located: &Located,
        version: &VersionInfo,
    ) -> Result<Vec<PassedOver>, RegistryError> {
        let offered = located.sources.iter().filter_map(|s| s.point.as_ref().map(|p| &p.id));
        let passed = located.passed_over.iter().filter_map(|p| p.point.as_ref().map(|(id, _)| id));
        let named: HashSet<&PointId> = offered.chain(passed).collect();
        let all: Vec<(PointName, PointId)> = {
            let state = self.state.read();
            state.by_name.iter().map(|(name, id)| (name.clone(), id.clone())).collect()
        };
        let sought = mark(&version.package, version.version);
        let mut elsewhere = Vec::new();
        for (name, id) in all {
            if !named.contains(&id) && self.holdings.holds(&self.db, &id, sought)? {
                let point = Some((id, name));
                elsewhere.push(PassedOver { point, why: None, because: Unfit::Elsewhere });
                if elsewhere.len() == MOST_ELSEWHERE {
                    break;
                }
            }
        }
        Ok(elsewhere)
    }
}

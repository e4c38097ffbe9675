//! Locating with what the site knows: its tables, and what its points last reported.

use super::holdings::{Mark, mark};
use super::{PointName, Registry, RegistryError};
use crate::field::PointId;
use crate::locate::{Candidate, Client, Located, PassedOver, Unfit, base_url, locate};
use jiff::Timestamp;
use packager::sign::VersionInfo;
use sitedb::DbError;
use std::collections::HashSet;

/// The most points of other places that an explanation names.
const MOST_ELSEWHERE: usize = 100;

impl Registry {
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

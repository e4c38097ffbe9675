//! What people set for one point: kept in its record, and told to it with its wish.

use super::points::{POINTS, Point};
use super::{Registry, RegistryError, State, orders, sources};
use crate::field::Settings;
use sitedb::Batch;

/// What is set for `point`, as it is told. What follows from other points follows from `state`.
pub(super) fn settings(point: &Point, state: &State) -> Settings {
    let (limit, window) = (point.limit, point.window.clone());
    let (sources, drained) = (sources::told(point, state), point.drained.is_some());
    let orders = orders::told(&point.id, state);
    Settings { limit, window, sources, drained, orders }
}

impl Registry {
    /// Changes what is set for the point called or numbered `which`. It hears of it as of any change
    /// of its wish. `change` gets the point as it is at that moment, and leaves alone who it is: its
    /// id and its name.
    ///
    /// Answers the point as it is now. One that is as it was is not written.
    pub fn set<E: From<RegistryError>>(
        &self,
        which: &str,
        change: impl FnOnce(&mut Point) -> Result<(), E>,
    ) -> Result<Point, E> {
        let changing = self.change();
        let before = self.point(which)?;
        let mut point = before.clone();
        change(&mut point)?;
        debug_assert!((&point.id, &point.name) == (&before.id, &before.name));
        if point == before {
            return Ok(point);
        }
        let mut batch = Batch::new();
        POINTS.put(&mut batch, &point.id.to_string(), &point);
        self.apply(&changing, batch, |state| {
            state.points.insert(point.id.clone(), point.clone());
        })?;
        Ok(point)
    }
}

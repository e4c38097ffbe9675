//! Orders: what points are told to do once, and what came of it.
//!
//! An order is kept, and told with the point's wish, until the point has told its end; then it is
//! kept for whoever looks, the last few of each point. Giving one that waits already gives no second
//! one.
//!
//! Always true: a point's orders are numbered as they were given, and no number is used again.

use super::wishes::is_for;
use super::{Registry, RegistryError, State, Target};
use crate::field::{Order, Outcome, OutcomeState, PointId, Task};
use jiff::Timestamp;
use packager::PackageName;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::collections::BTreeMap;

/// The most orders of a point that have not ended.
const MOST_OPEN: usize = 100;
/// So many that have ended are kept of each point.
const KEPT: usize = 20;
/// The longest cause, in characters.
const MAX_CAUSE: usize = 500;

/// An order, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Whose it is.
    pub point: PointId,
    /// What is to be done.
    pub order: Order,
    /// Who gave it.
    pub by: String,
    /// What came of it, by the site's clock; nothing until the point has begun.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}
impl Value for Ordered {}

impl Ordered {
    /// Whether nothing more comes of it.
    pub fn has_ended(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.state.is_end())
    }
}

/// An order that is to be given.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// What is to be done.
    pub task: Task,
    /// With what; nothing: with all that is held.
    pub package: Option<PackageName>,
    /// With which of its versions; nothing: with each.
    pub version: Option<u64>,
    /// Who gives it.
    pub by: String,
}

/// Orders by point and number.
pub(super) const ORDERS: Table<(String, u64), Ordered> = Table::new("point-orders");

/// The orders of each point, by number.
pub(super) type Orders = BTreeMap<PointId, BTreeMap<u64, Ordered>>;

/// What a point is told to do: what has not ended.
pub(super) fn told(point: &PointId, state: &State) -> Vec<Order> {
    let its = state.orders.get(point).into_iter().flat_map(BTreeMap::values);
    its.filter(|ordered| !ordered.has_ended()).map(|ordered| ordered.order.clone()).collect()
}

/// Has `batch` delete all orders of a point.
pub(super) fn delete_orders(batch: &mut Batch, point: &PointId, state: &State) {
    for number in state.orders.get(point).into_iter().flat_map(BTreeMap::keys) {
        ORDERS.delete(batch, &(point.to_string(), *number));
    }
}

/// The orders that go when another is given: the oldest that have ended. That one then tells which
/// numbers were used.
fn stale(orders: &BTreeMap<u64, Ordered>) -> Vec<u64> {
    let ended = orders.values().filter(|ordered| ordered.has_ended());
    let mut ended: Vec<u64> = ended.map(|ordered| ordered.order.number).collect();
    ended.truncate(ended.len().saturating_sub(KEPT));
    ended
}

impl Registry {
    /// Orders `new` of a point, or of each point of a group that the package is distributed to or
    /// that holds some of it. The same order, where it was given already and not begun, is the answer
    /// as it stands.
    pub fn order(
        &self,
        new: &NewOrder,
        to: &Target,
        now: Timestamp,
    ) -> Result<Vec<Ordered>, RegistryError> {
        let changing = self.change();
        let mut points = Vec::new();
        for id in self.points_of(to)? {
            let is_meant = match &new.package {
                None => true,
                Some(package) => self.has_to_do(&id, package, new.task)?,
            };
            if is_meant {
                points.push(id);
            }
        }
        if let (true, Some(package)) = (points.is_empty(), &new.package) {
            let (package, to) = (package.to_string(), self.name_of(to));
            return Err(RegistryError::NotAssigned { package, to });
        }
        let mut batch = Batch::new();
        let (mut given, mut fresh, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        {
            let state = self.state.read();
            let none = BTreeMap::new();
            for id in points {
                let its = state.orders.get(&id).unwrap_or(&none);
                let is_it = |ordered: &&Ordered| {
                    let Order { task, package, version, .. } = &ordered.order;
                    ordered.outcome.is_none()
                        && (task, package, version) == (&new.task, &new.package, &new.version)
                };
                if let Some(before) = its.values().find(is_it) {
                    given.push(before.clone());
                    continue;
                }
                if its.values().filter(|ordered| !ordered.has_ended()).count() >= MOST_OPEN {
                    let what = "orders of a distribution point that have not ended";
                    return Err(RegistryError::TooMany { what, most: MOST_OPEN });
                }
                let number = its.keys().next_back().map_or(1, |last| last.saturating_add(1));
                let NewOrder { task, package, version, by } = new.clone();
                let order = Order { number, given: now, task, package, version };
                let ordered = Ordered { point: id.clone(), order, by, outcome: None };
                ORDERS.put(&mut batch, &(id.to_string(), number), &ordered);
                for number in stale(its) {
                    ORDERS.delete(&mut batch, &(id.to_string(), number));
                    gone.push((id.clone(), number));
                }
                given.push(ordered.clone());
                fresh.push(ordered);
            }
        }
        if !fresh.is_empty() {
            self.apply(&changing, batch, |state| {
                for (id, number) in gone {
                    state.orders.entry(id).or_default().remove(&number);
                }
                for ordered in fresh {
                    let its = state.orders.entry(ordered.point.clone()).or_default();
                    its.insert(ordered.order.number, ordered);
                }
            })?;
        }
        Ok(given)
    }

    /// The orders of one point, by name or id, or of all: by the point's name, then as they were
    /// given.
    pub fn orders(&self, point: Option<&str>) -> Result<Vec<Ordered>, RegistryError> {
        let state = self.state.read();
        let ids: Vec<&PointId> = match point {
            Some(which) => vec![&state.find(which)?.id],
            None => state.by_name.values().collect(),
        };
        let of = |id| state.orders.get(id).into_iter().flat_map(BTreeMap::values).cloned();
        Ok(ids.into_iter().flat_map(of).collect())
    }

    /// One order of the point called or numbered `which`.
    pub fn ordered(&self, which: &str, number: u64) -> Result<Ordered, RegistryError> {
        let state = self.state.read();
        let point = state.find(which)?;
        let found = state.orders.get(&point.id).and_then(|its| its.get(&number));
        let unknown = || RegistryError::UnknownOrder { number, point: point.name.clone() };
        found.cloned().ok_or_else(unknown)
    }

    /// Ends an order that has not ended, because `by` wants no more of it. One that has is the answer
    /// as it stands.
    pub fn cancel_order(
        &self,
        which: &str,
        number: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<Ordered, RegistryError> {
        let changing = self.change();
        let before = self.ordered(which, number)?;
        if before.has_ended() {
            return Ok(before);
        }
        let Order { number, given, .. } = before.order;
        let (n_checked, bytes, n_damaged, n_mended) = (0, 0, 0, 0);
        let state = OutcomeState::Failed;
        let (began, ended, cause) = (now, None, None);
        let outcome = before.outcome.clone().unwrap_or(Outcome {
            number,
            given,
            state,
            began,
            ended,
            n_checked,
            bytes,
            n_damaged,
            n_mended,
            cause,
        });
        let (ended, cause) = (Some(now), Some(format!("cancelled by {by}")));
        let outcome = Some(Outcome { state, ended, cause, ..outcome });
        let after = Ordered { outcome, ..before };
        let mut batch = Batch::new();
        ORDERS.put(&mut batch, &(after.point.to_string(), number), &after);
        self.apply(&changing, batch, |state| {
            let its = state.orders.entry(after.point.clone()).or_default();
            its.insert(number, after.clone());
        })?;
        Ok(after)
    }

    /// The points that a target means.
    fn points_of(&self, to: &Target) -> Result<Vec<PointId>, RegistryError> {
        let state = self.state.read();
        Ok(match to {
            Target::Point(id) => vec![state.find(id.as_str())?.id.clone()],
            Target::Group(name) => state.group(name.as_str())?.members.iter().cloned().collect(),
        })
    }

    /// Whether a point has to do with a package: it is distributed to it, or, where the task is only
    /// about what is there, some of it is on the point.
    fn has_to_do(
        &self,
        point: &PointId,
        package: &PackageName,
        task: Task,
    ) -> Result<bool, RegistryError> {
        let is_assigned = {
            let state = self.state.read();
            let mut its = state.assignments.values().filter(|a| a.package == *package);
            its.any(|assignment| is_for(assignment, &state.groups, point))
        };
        if is_assigned || task == Task::Redistribute {
            return Ok(is_assigned);
        }
        Ok(self.facts(point)?.iter().any(|fact| fact.package == *package))
    }

    /// Takes note of what a point told of its orders at `at`, by its clock, when it is `now` by the
    /// site's. Answers what changed, for `batch` to write; the caller holds the right to change.
    pub(super) fn outcomes(
        &self,
        point: &PointId,
        told: Vec<Outcome>,
        at: Timestamp,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Vec<Ordered> {
        let state = self.state.read();
        let Some(its) = state.orders.get(point) else { return Vec::new() };
        let mut changed = Vec::new();
        for told in told {
            let Some(before) = its.get(&told.number) else { continue };
            // What has ended stays as it was told.
            if before.order.given != told.given || before.has_ended() {
                continue;
            }
            let outcome = kept(told, before.outcome.as_ref(), at, now);
            if before.outcome.as_ref() != Some(&outcome) {
                let after = Ordered { outcome: Some(outcome), ..before.clone() };
                ORDERS.put(batch, &(point.to_string(), after.order.number), &after);
                changed.push(after);
            }
        }
        changed
    }
}

/// An outcome as it is kept: by the site's clock, which is at `now` when the point's is at `at`. When
/// it began stays as it was first told, since two clocks are never apart by the same twice.
fn kept(mut told: Outcome, before: Option<&Outcome>, at: Timestamp, now: Timestamp) -> Outcome {
    let off = now.duration_since(at);
    let here = |time: Timestamp| time.saturating_add(off).unwrap_or(time).min(now);
    told.began = before.map_or_else(|| here(told.began), |before| before.began);
    told.ended = told.ended.map(here).filter(|_| told.state.is_end());
    if let Some((cut, _)) = told.cause.as_ref().and_then(|c| c.char_indices().nth(MAX_CAUSE)) {
        told.cause.as_mut().expect("it was cut in").truncate(cut);
    }
    if told.state == OutcomeState::Done {
        told.cause = None;
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::tests::{joined, now, registry, report};
    use super::super::{GroupName, Point};
    use super::*;
    use crate::field::{Fact, FactState, Report};
    use jiff::SignedDuration;

    fn validate(package: Option<&str>) -> NewOrder {
        let package = package.map(|name| name.parse().unwrap());
        NewOrder { task: Task::Validate, package, version: None, by: "admin".into() }
    }

    fn to(point: &Point) -> Target {
        Target::Point(point.id.clone())
    }

    fn wished(registry: &Registry, point: &Point) -> Vec<u64> {
        told(&point.id, &registry.state.read()).iter().map(|order| order.number).collect()
    }

    fn outcome(ordered: &Ordered, state: OutcomeState) -> Outcome {
        let Order { number, given, .. } = ordered.order;
        Outcome {
            number,
            given,
            state,
            began: now(),
            ended: state.is_end().then(now),
            n_checked: 7,
            bytes: 900,
            n_damaged: 2,
            n_mended: 1,
            cause: Some("the site is not reached".into()),
        }
    }

    fn tell(registry: &Registry, point: &Point, outcome: Outcome) {
        let told = Report { orders: vec![outcome], ..report(&point.id, vec![]) };
        registry.report(&point.id, told, None, now()).unwrap();
    }

    #[test]
    fn an_order_is_told_until_its_end_was_told_and_given_once_while_it_waits() {
        let registry = registry();
        let a = joined(&registry, "a");
        let first = registry.order(&validate(None), &to(&a), now()).unwrap().remove(0);
        let again = registry.order(&validate(None), &to(&a), now()).unwrap().remove(0);
        assert_eq!((&again, wished(&registry, &a)), (&first, vec![1]));
        let changes = registry.changes();
        let before = *changes.borrow();
        tell(&registry, &a, outcome(&first, OutcomeState::Mending));
        assert_eq!(*changes.borrow(), before, "its wish is as it was");
        assert_eq!(wished(&registry, &a), [1]);
        let second = registry.order(&validate(None), &to(&a), now()).unwrap().remove(0);
        assert_eq!(second.order.number, 2, "what was begun is no look at what is there now");
        tell(&registry, &a, outcome(&first, OutcomeState::Done));
        assert!(*changes.borrow() > before && wished(&registry, &a) == [2]);
        let ended = registry.ordered("a", 1).unwrap().outcome.unwrap();
        assert_eq!((ended.state, ended.cause, ended.n_damaged), (OutcomeState::Done, None, 2));
        // What a report that was late says does not begin it again.
        tell(&registry, &a, outcome(&first, OutcomeState::Checking));
        assert_eq!(wished(&registry, &a), [2]);
        // Nor does what is told of an order that had the number before.
        let mut other = outcome(&second, OutcomeState::Done);
        other.given -= SignedDuration::from_hours(1);
        tell(&registry, &a, other);
        assert_eq!(wished(&registry, &a), [2]);
        assert!(matches!(registry.ordered("a", 9), Err(RegistryError::UnknownOrder { .. })));
    }

    #[test]
    fn one_that_is_cancelled_is_told_no_more_and_has_ended() {
        let registry = registry();
        let a = joined(&registry, "a");
        for begun in [None, Some(OutcomeState::Mending)] {
            let given = registry.order(&validate(None), &to(&a), now()).unwrap().remove(0);
            begun.into_iter().for_each(|state| tell(&registry, &a, outcome(&given, state)));
            let number = given.order.number;
            let cancelled = registry.cancel_order("a", number, "kim", now()).unwrap();
            let ended = cancelled.outcome.clone().unwrap();
            assert_eq!((ended.state, ended.ended), (OutcomeState::Failed, Some(now())));
            assert_eq!(ended.cause.as_deref(), Some("cancelled by kim"));
            assert_eq!(ended.n_damaged, if begun.is_some() { 2 } else { 0 }, "what it had found");
            assert!(wished(&registry, &a).is_empty());
            // Nothing changes it any more.
            tell(&registry, &a, outcome(&given, OutcomeState::Done));
            assert_eq!(registry.ordered("a", number).unwrap(), cancelled);
            assert_eq!(registry.cancel_order("a", number, "lee", now()).unwrap(), cancelled);
        }
        let unknown = registry.cancel_order("a", 9, "kim", now()).unwrap_err();
        assert!(matches!(unknown, RegistryError::UnknownOrder { .. }));
    }

    #[test]
    fn orders_outlive_the_site_and_go_with_the_point() {
        let db = sitedb::Db::in_memory();
        let registry = Registry::open(db.clone()).unwrap();
        let a = joined(&registry, "a");
        let given = registry.order(&validate(None), &to(&a), now()).unwrap();
        let registry = Registry::open(db.clone()).unwrap();
        assert_eq!(registry.orders(Some("a")).unwrap(), given);
        assert_eq!(registry.orders(None).unwrap(), given);
        registry.remove_point("a").unwrap();
        assert!(registry.orders(None).unwrap().is_empty());
        assert!(Registry::open(db).unwrap().state.read().orders.is_empty());
    }

    #[test]
    fn those_that_ended_go_in_time_and_their_numbers_are_not_used_again() {
        let registry = registry();
        let a = joined(&registry, "a");
        for n in 1..=KEPT as u64 + 5 {
            let ordered = registry.order(&validate(None), &to(&a), now()).unwrap().remove(0);
            assert_eq!(ordered.order.number, n);
            tell(&registry, &a, outcome(&ordered, OutcomeState::Failed));
        }
        assert!(registry.orders(None).unwrap().len() <= KEPT + 1);
        let mut open = validate(None);
        for version in 0..MOST_OPEN as u64 {
            open.version = Some(version);
            registry.order(&open, &to(&a), now()).unwrap();
        }
        open.version = Some(MOST_OPEN as u64);
        let refused = registry.order(&open, &to(&a), now()).unwrap_err();
        assert!(matches!(refused, RegistryError::TooMany { most: MOST_OPEN, .. }));
    }

    #[test]
    fn a_group_is_ordered_where_the_package_is_and_a_typing_error_is_told() {
        let registry = registry();
        let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
        let group: GroupName = "g".parse().unwrap();
        registry.create_group(group.clone(), "admin", now()).unwrap();
        registry.add_to_group("g", "a").unwrap();
        registry.add_to_group("g", "b").unwrap();
        let docs: PackageName = "docs".parse().unwrap();
        let group = Target::Group(group);
        let refused = registry.order(&validate(Some("docs")), &group, now()).unwrap_err();
        assert!(matches!(refused, RegistryError::NotAssigned { .. }));
        let (package, state) = (docs.clone(), FactState::Leaving);
        let (bytes, bytes_left, cause, since) = (1, 0, None, now());
        let fact = Fact { package, version: 2, state, bytes, bytes_left, cause, since };
        registry.report(&b.id, report(&b.id, vec![fact]), None, now()).unwrap();
        let given = registry.order(&validate(Some("docs")), &group, now()).unwrap();
        assert_eq!(given.iter().map(|o| &o.point).collect::<Vec<_>>(), [&b.id], "it holds some");
        let mut bring = validate(Some("docs"));
        bring.task = Task::Redistribute;
        let refused = registry.order(&bring, &group, now()).unwrap_err();
        assert!(matches!(refused, RegistryError::NotAssigned { .. }), "nobody wishes it there");
        assert!(wished(&registry, &a).is_empty());
        assert_eq!(registry.order(&validate(None), &group, now()).unwrap().len(), 2);
    }
}

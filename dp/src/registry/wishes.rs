//! What each point should hold, from what is assigned and what the site has.
//!
//! A wish is made anew only when one of the two changed. Its versions are shared by all points that
//! should hold the same: a site of hundreds of points makes few. What is set for a point is put
//! beside them.

use super::settings::settings;
use super::{Assignment, Group, GroupName, Registry, RegistryError, Stock, Target};
use crate::field::{
    Names, PointId, Priority, Settings, Tree, Wanted, Wish, WishAnswer, content_of,
};
use packager::{PackageError, PackageName, Packages};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Why a wish could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// The registry said no.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A package that is assigned cannot be read.
    #[error("what is distributed cannot be read")]
    Packages(#[from] PackageError),
}

/// The versions that a point should hold, and how soon.
type Effective = BTreeMap<(PackageName, u64), Priority>;

/// What `point` should hold of `stock`: all that is assigned to it, or to a group that it is in.
/// Nothing is set for it.
///
/// Of two assignments that mean one version, the higher priority counts. What means no version is
/// left out; [`Registry::status`] says why. The revision is a digest of all else.
pub fn wish<'a>(
    assignments: impl IntoIterator<Item = &'a Assignment>,
    groups: &BTreeMap<GroupName, Group>,
    point: &PointId,
    stock: &Stock,
) -> Wish {
    let its = assignments.into_iter().filter(|assignment| is_for(assignment, groups, point));
    wish_of(&effective(its, stock), stock)
}

/// Whether an assignment is meant for `point`.
pub(super) fn is_for(
    assignment: &Assignment,
    groups: &BTreeMap<GroupName, Group>,
    point: &PointId,
) -> bool {
    match &assignment.to {
        Target::Point(id) => id == point,
        Target::Group(name) => groups.get(name).is_some_and(|group| group.members.contains(point)),
    }
}

fn effective<'a>(
    assignments: impl IntoIterator<Item = &'a Assignment>,
    stock: &Stock,
) -> Effective {
    let mut effective = Effective::new();
    for assignment in assignments {
        if let Ok(version) = stock.resolve(assignment) {
            let key = (assignment.package.clone(), version.version);
            let priority = effective.entry(key).or_insert(assignment.priority);
            *priority = assignment.priority.max(*priority);
        }
    }
    effective
}

fn wish_of(effective: &Effective, stock: &Stock) -> Wish {
    let (mut versions, mut names) = (Vec::new(), BTreeMap::new());
    for ((package, number), priority) in effective {
        let Some(stocked) = stock.0.get(package) else { continue };
        let Some(version) = stocked.versions.get(number) else { continue };
        versions.push(Wanted { version: version.clone(), priority: *priority });
        let names = names.entry(package.clone()).or_insert_with(Names::default);
        names.latest = names.latest.max(Some(*number));
        let here = stocked.channels.iter().filter(|(_, to)| *to == number);
        names.channels.extend(here.map(|(channel, to)| (channel.clone(), *to)));
    }
    Wish::new(versions, names)
}

/// The wishes that were made, and of what.
#[derive(Default)]
pub(super) struct Known {
    /// The count of changes of the tables, and the generation of the packages, that they are of.
    of: Option<(u64, u64)>,
    stock: Arc<Stock>,
    by_point: HashMap<PointId, Arc<Wish>>,
    /// Nothing is set in these.
    by_content: HashMap<Effective, Arc<Wish>>,
    /// Of what was wished last, the newest last: what it is called, and its tree.
    trees: VecDeque<(String, Arc<Tree>)>,
}

/// So many trees are kept, of some kilobytes each.
const MOST_TREES: usize = 1024;

impl Known {
    /// The tree of what is wished under that revision, if it is still known.
    fn tree(&self, revision: &str) -> Option<&Arc<Tree>> {
        let content = content_of(revision);
        self.trees.iter().rev().find(|(of, _)| of == content).map(|(_, tree)| tree)
    }

    fn remember(&mut self, wish: &Wish) {
        if self.tree(&wish.revision).is_none() {
            self.trees.push_back((content_of(&wish.revision).to_owned(), Arc::new(wish.tree())));
            let over = self.trees.len().saturating_sub(MOST_TREES);
            self.trees.drain(..over);
        }
    }
}

impl Registry {
    /// What the point should hold now.
    pub fn wish(&self, point: &PointId, packages: &Packages) -> Result<Arc<Wish>, WishError> {
        let mut known = self.wishes.lock();
        self.renew(&mut known, packages)?;
        let state = self.state.read();
        let Some(record) = state.points.get(point) else {
            return Err(RegistryError::UnknownPoint(point.to_string()).into());
        };
        if let Some(wish) = known.by_point.get(point) {
            return Ok(wish.clone());
        }
        let its = state.assignments.values().filter(|a| is_for(a, &state.groups, point));
        let effective = effective(its, &known.stock);
        let made = match known.by_content.get(&effective) {
            Some(made) => made.clone(),
            None => {
                let made = Arc::new(wish_of(&effective, &known.stock));
                known.remember(&made);
                known.by_content.insert(effective, made.clone());
                made
            }
        };
        let made = match settings(record, &state) {
            nothing if nothing == Settings::default() => made,
            settings => Arc::new(made.set(settings)),
        };
        known.by_point.insert(point.clone(), made.clone());
        Ok(made)
    }

    /// What to answer a point that should have `wish` and says that it has the one called `before`: what
    /// is not the same, or all if it is not known any more what that one was.
    pub fn wish_since(&self, wish: &Wish, before: Option<&str>) -> WishAnswer {
        let known = self.wishes.lock();
        let tree = |revision| known.tree(revision).cloned();
        let trees = before.and_then(|before| Some((before, tree(before)?, tree(&wish.revision)?)));
        drop(known);
        match trees {
            Some((before, old, new)) => wish.change(before, new.differing(&old)),
            None => wish.whole(),
        }
    }

    /// What the site has of all that is assigned.
    pub(super) fn stock(&self, packages: &Packages) -> Result<Arc<Stock>, PackageError> {
        let mut known = self.wishes.lock();
        self.renew(&mut known, packages)?;
        Ok(known.stock.clone())
    }

    /// Reads the packages again if they or the tables changed, and forgets wishes that may have.
    fn renew(&self, known: &mut Known, packages: &Packages) -> Result<(), PackageError> {
        // Before what they count is read: a change in between is seen the next time.
        let tables = *self.changes.borrow();
        let generation = packages.library().refs_generation();
        if known.of == Some((tables, generation)) {
            return Ok(());
        }
        let wanted: BTreeSet<PackageName> =
            self.state.read().assignments.values().map(|a| a.package.clone()).collect();
        let stock = Stock::read(packages, &wanted, &known.stock)?;
        if known.of.is_none_or(|(before, _)| before != tables) || *known.stock != stock {
            known.stock = Arc::new(stock);
            known.by_point.clear();
            known.by_content.clear();
        }
        known.of = Some((tables, generation));
        Ok(())
    }
}

//! What a site knows of its distribution points: who they are, what each should hold, and what each
//! said last.
//!
//! In the order to read it: a machine is let in once by a token ([`Registry::admit`]), and is a
//! [`Point`] until it is removed; points are put into groups; packages are assigned to points and
//! groups; what follows from all of it for one point is its [wish](wish()), with which go
//! [orders](Registry::order) of what it is to do once; what it reports is kept, and compared with the wish, is its [`StatusRow`]s. Beside that stands which clients
//! each is for: boundaries and boundary groups, by which [`Registry::locate`] finds sources. And, let in by
//! tokens of the same kind, the [`Follower`]s of its catalogue of updates: child sites and other update points.
//!
//! Always true:
//! * everything but reports is in memory as it is in the tables, so a check costs no read;
//! * a change is on disk before it is seen, and whoever waits for it is told ([`Registry::changes`]);
//! * a token lets in one machine, and its secret is not kept;
//! * a point that was removed is unknown from that moment on, and nothing names it any more.

mod assign;
mod boundaries;
mod boundary_groups;
mod drain;
mod followers;
mod freeing;
mod groups;
mod holdings;
mod join;
mod locating;
mod name;
mod on_demand;
mod orders;
mod points;
mod presence;
mod reports;
mod settings;
mod sources;
mod staging;
mod status;
mod stock;
mod wishes;

pub use assign::{Assignment, Target};
pub use boundaries::Overlaps;
pub use boundary_groups::{DeletedBoundaryGroup, LONGEST_FALLBACK};
pub use drain::Drained;
pub use followers::{Follower, FollowerReport, FollowerState};
pub use freeing::Freeing;
pub use groups::Group;
pub use holdings::Sought;
pub use join::{Admission, NewToken, TokenInfo};
pub use locating::Places;
pub use name::{BadName, BoundaryGroupName, GroupName, PointName};
pub use on_demand::{Ask, Demand, Demanded};
pub use orders::{NewOrder, Ordered};
pub use points::Point;
pub use reports::Standing;
pub use staging::Restaged;
pub use status::{StatusFilter, StatusKey, StatusRow, StatusState};
pub use stock::{Lack, Stock, Stocked};
pub use wishes::{WishError, wish};

use crate::field::{FollowerId, PointId};
use crate::locate::{AddressRange, Areas, Atlas};
use assign::{ASSIGNMENTS, AssignmentKey};
use boundaries::BOUNDARIES;
use boundary_groups::{BOUNDARY_GROUPS, RULES};
use groups::GROUPS;
use join::{TOKENS, TokenRecord};
use parking_lot::{Mutex, MutexGuard, RwLock};
use points::POINTS;
use sitedb::{Batch, CommitError, Db, DbError, Order};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why the registry could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No point has that name or id.
    #[error("there is no distribution point {0}")]
    UnknownPoint(String),
    /// No group has that name.
    #[error("there is no group {0} of distribution points")]
    UnknownGroup(String),
    /// The point has no order of that number.
    #[error("{point} has no order {number}, or has no longer")]
    UnknownOrder {
        /// The number.
        number: u64,
        /// The point.
        point: PointName,
    },
    /// No token has that name or id.
    #[error("there is no join token {0}")]
    UnknownToken(String),
    /// A point has the name already.
    #[error("there is a distribution point {0} already: remove it first, or choose another name")]
    PointExists(PointName),
    /// A token that was not used yet is for that name.
    #[error("there is a join token for {0} already: use it, or revoke it first")]
    TokenExists(PointName),
    /// No child site and no update point has that name or id.
    #[error("there is no child site or update point {0}")]
    UnknownFollower(String),
    /// One has the name already.
    #[error(
        "there is a child site or update point {0} already: remove it first, or choose another name"
    )]
    FollowerExists(PointName),
    /// A group has the name already.
    #[error("there is a group {0} already: choose another name")]
    GroupExists(GroupName),
    /// The secret is not one of a token that is still good.
    #[error(
        "the join token is not known here, is for something else, was used by another machine, or has \
         expired: make a new one"
    )]
    NotAdmitted,
    /// Nothing of the package is assigned there.
    #[error("nothing of {package} is distributed to {to}")]
    NotAssigned {
        /// The package, perhaps with a version.
        package: String,
        /// The point or group.
        to: String,
    },
    /// There is no boundary of exactly these addresses.
    #[error("there is no boundary {0}; `depot boundary test` says which one an address is in")]
    UnknownBoundary(AddressRange),
    /// No boundary group has that name.
    #[error("there is no boundary group {0}: make it with `depot boundary-group create`")]
    UnknownBoundaryGroup(String),
    /// There is a boundary of exactly these addresses.
    #[error(
        "{range} is a boundary already, of {}: change its groups with `depot boundary change`",
        names(groups)
    )]
    BoundaryExists {
        /// The addresses.
        range: AddressRange,
        /// The groups that it is in.
        groups: Vec<BoundaryGroupName>,
    },
    /// A boundary group has the name already.
    #[error("there is a boundary group {0} already: choose another name")]
    BoundaryGroupExists(BoundaryGroupName),
    /// A boundary that is in no group says nothing.
    #[error("a boundary is in at least one boundary group: name it")]
    NoGroup,
    /// A group as a neighbour of itself.
    #[error("{0} cannot be its own neighbour: its clients turn to its points at once")]
    OwnNeighbour(BoundaryGroupName),
    /// There is no such neighbour.
    #[error("{neighbour} is no neighbour of {of}")]
    NotANeighbour {
        /// The group.
        of: BoundaryGroupName,
        /// What is none.
        neighbour: String,
    },
    /// A time that stands for never.
    #[error("clients cannot be let wait for more than 30 days: say that they never turn there")]
    TooLate,
    /// The default group is needed.
    #[error("{0} is the default group: choose another, or none, before it is deleted")]
    IsDefault(BoundaryGroupName),
    /// A point would bring from itself.
    #[error("{point} cannot bring from {}: {}", way[0], circle(point, way))]
    Circle {
        /// The point.
        point: PointName,
        /// The names of those on the way from the source to the point, both included.
        way: Vec<String>,
    },
    /// More sources than a point may have.
    #[error("a distribution point brings from {0} others at most")]
    TooManySources(usize),
    /// A report that cannot be kept.
    #[error("the report {0}")]
    BadReport(&'static str),
    /// The site has as many as it takes.
    #[error("there are {most} {what} already, which is the most there can be")]
    TooMany {
        /// What there are many of.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The database could not be written.
    #[error(transparent)]
    Write(#[from] CommitError),
}

/// Why a way leads in a circle.
fn circle(point: &PointName, way: &[String]) -> String {
    let steps: Vec<String> =
        way.windows(2).map(|s| format!("{} brings from {}", s[0], s[1])).collect();
    match steps.is_empty() {
        true => format!("it is {point} itself"),
        false => steps.join(", and "),
    }
}

/// `paris, lyon`.
fn names(groups: &[BoundaryGroupName]) -> String {
    groups.iter().map(BoundaryGroupName::as_str).collect::<Vec<_>>().join(", ")
}

/// The most points, groups, boundary groups and tokens that a site takes: of each so many.
const MOST: usize = 20_000;

/// What a site knows of its points. Calls that change something block on the disk.
pub struct Registry {
    db: Db,
    /// Held by whoever makes a change, while it is checked and written.
    changing: Mutex<()>,
    state: RwLock<State>,
    /// Counts changes of the tables.
    changes: watch::Sender<u64>,
    closed: CancellationToken,
    /// The feed of each point, so that a newer one ends the older.
    feeds: Mutex<HashMap<PointId, CancellationToken>>,
    heard: Mutex<HashMap<PointId, presence::Heard>>,
    heard_followers: Mutex<HashMap<FollowerId, presence::Heard>>,
    /// Counts what followers are asked and tell.
    following: watch::Sender<u64>,
    wishes: Mutex<wishes::Known>,
    holdings: holdings::Holdings,
    read: Mutex<reports::Read>,
    /// The boundaries, ready to be asked; nothing since one changed.
    atlas: Mutex<Option<Arc<Atlas>>>,
}

/// The tables as they are, in memory.
#[derive(Default)]
struct State {
    points: BTreeMap<PointId, Point>,
    by_name: BTreeMap<PointName, PointId>,
    tokens: BTreeMap<String, TokenRecord>,
    groups: BTreeMap<GroupName, Group>,
    assignments: BTreeMap<AssignmentKey, Assignment>,
    followers: BTreeMap<FollowerId, Follower>,
    standings: BTreeMap<PointId, Standing>,
    outlines: BTreeMap<PointId, reports::Outlines>,
    orders: orders::Orders,
    /// Shared with those who look something up in it.
    areas: Arc<Areas>,
}

impl Registry {
    /// Reads what `db` knows.
    pub fn open(db: Db) -> Result<Self, DbError> {
        let mut state = State::default();
        for (_, point) in POINTS.scan(&db, Order::Ascending, None, usize::MAX)? {
            state.by_name.insert(point.name.clone(), point.id.clone());
            state.points.insert(point.id.clone(), point);
        }
        state.tokens = all(TOKENS.scan(&db, Order::Ascending, None, usize::MAX)?, |t| t.id());
        state.groups =
            all(GROUPS.scan(&db, Order::Ascending, None, usize::MAX)?, |g| g.name.clone());
        let followers = followers::FOLLOWERS.scan(&db, Order::Ascending, None, usize::MAX)?;
        state.followers = all(followers, |follower| follower.id.clone());
        let assignments = ASSIGNMENTS.scan(&db, Order::Ascending, None, usize::MAX)?;
        state.assignments = all(assignments, Assignment::key);
        for (_, standing) in reports::STANDINGS.scan(&db, Order::Ascending, None, usize::MAX)? {
            state.standings.insert(standing.point.clone(), standing);
        }
        for (id, outlines) in reports::OUTLINES.scan(&db, Order::Ascending, None, usize::MAX)? {
            if let Ok(id) = id.parse() {
                state.outlines.insert(id, outlines);
            }
        }
        for (_, ordered) in orders::ORDERS.scan(&db, Order::Ascending, None, usize::MAX)? {
            let its = state.orders.entry(ordered.point.clone()).or_default();
            its.insert(ordered.order.number, ordered);
        }
        let areas = Areas {
            boundaries: all(BOUNDARIES.scan(&db, Order::Ascending, None, usize::MAX)?, |b| b.range),
            groups: all(BOUNDARY_GROUPS.scan(&db, Order::Ascending, None, usize::MAX)?, |g| {
                g.name.clone()
            }),
            rules: RULES.get(&db, &())?.unwrap_or_default(),
        };
        state.areas = Arc::new(areas);
        Ok(Self {
            db,
            changing: Mutex::default(),
            state: RwLock::new(state),
            changes: watch::Sender::new(1),
            closed: CancellationToken::new(),
            feeds: Mutex::default(),
            heard: Mutex::default(),
            heard_followers: Mutex::default(),
            following: watch::Sender::new(1),
            wishes: Mutex::default(),
            holdings: holdings::Holdings::default(),
            read: Mutex::default(),
            atlas: Mutex::default(),
        })
    }

    /// Tells of each change of a table that may change a wish. What a site's packages are changes
    /// beside it: [`contentlib::Library::refs_generation`] tells of that.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends all feeds, now and from now on: the site is stopping.
    pub fn close(&self) {
        self.closed.cancel();
        self.following.send_modify(|n| *n += 1);
    }

    /// The right to wait for a wish of `point`. It ends when the point begins to wait again, is
    /// removed, or the registry is closed; that of an unknown point has ended already.
    pub fn feed(&self, point: &PointId) -> CancellationToken {
        let feed = self.closed.child_token();
        let mut feeds = self.feeds.lock();
        // Under the lock that a removal takes after it: one in this moment is seen here, or sees this.
        if !self.knows(point) {
            feed.cancel();
        } else if let Some(older) = feeds.insert(point.clone(), feed.clone()) {
            older.cancel();
        }
        feed
    }

    /// Whether the registry was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Writes `batch`, then makes the same change in memory, and tells those who wait. The caller
    /// holds the right to change.
    fn apply<T>(
        &self,
        _changing: &MutexGuard<'_, ()>,
        batch: Batch,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, RegistryError> {
        self.db.kv().write(batch)?;
        let done = change(&mut self.state.write());
        self.changes.send_modify(|n| *n += 1);
        Ok(done)
    }
}

fn all<P, K: Ord, V>(found: Vec<(P, V)>, key: impl Fn(&V) -> K) -> BTreeMap<K, V> {
    found.into_iter().map(|(_, value)| (key(&value), value)).collect()
}

#[cfg(test)]
mod tests;

//! Which distribution points a client should turn to: from its address to an ordered list, with the
//! reason for each place.
//!
//! In the order to read it: [`AddressRange`] is what a boundary is made of, [`Areas`] what people set,
//! [`Atlas`] finds the boundaries of an address, and [`locate`] makes the list. All of it is pure; the
//! site's tables and the reports of the points are what [`Registry::locate`] hands in.
//!
//! Always true of the list:
//! * who is on it holds the version whole, by a report of the last minutes, and may be sent clients;
//! * it depends on nothing but what is handed in: asked again, it is the same;
//! * clients beside each other begin at different points among equals, so that these share the load.
//!
//! [`Registry::locate`]: crate::registry::Registry::locate

mod addresses;
mod areas;
mod atlas;
mod base;

pub use addresses::{AddressRange, BadRange, Overlap};
pub use areas::{Areas, Boundary, BoundaryGroup, Fallback, OnDemand, Rules};
pub use atlas::Atlas;
pub use base::base_url;

use crate::field::PointId;
use crate::registry::{BoundaryGroupName, PointName};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A point whose last report is older is not sent any clients: it reports once a minute, and two
/// reports may get lost.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(3 * 60);
/// The most points that a client is told of: with the site as many as [`crate::remote`] asks.
pub const MOST_SOURCES: usize = 31;

/// What is known of a point that clients may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What people call it.
    pub name: PointName,
    /// Where clients reach it, as [`base_url`] says; nothing if that is not known.
    pub base: Option<String>,
    /// When its last report came.
    pub reported: Option<Timestamp>,
    /// For how long it has been cut off from the site, if it is.
    pub cut_off: Option<SignedDuration>,
    /// Whether people let it have clients.
    pub is_offered: bool,
    /// Whether it holds the version whole.
    pub holds: bool,
}

/// Why a point has its place on the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is of a group that the client belongs to.
    Group(BoundaryGroupName),
    /// It is of a neighbour of one.
    Neighbour {
        /// The group that the client belongs to.
        of: BoundaryGroupName,
        /// The neighbour.
        group: BoundaryGroupName,
    },
    /// It is of the default group.
    Default(BoundaryGroupName),
    /// It is the site.
    Site,
}

/// Somebody whom a client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Who; nothing for the site.
    pub point: Option<Place>,
    /// Why here.
    pub why: Why,
    /// When the client may ask it, counted from when it began to look.
    pub after: Duration,
    /// Whether that time has come.
    pub is_usable: bool,
}

/// A point that is on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub id: PointId,
    /// What people call it.
    pub name: PointName,
    /// Where clients reach it, as [`base_url`] says.
    pub base: String,
}

/// Why a point is not on a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// No group that counts has it.
    #[error("is in none of the client's groups, nor of their neighbours, nor of the default group")]
    Elsewhere,
    /// Only groups have it that the client's may never turn to.
    #[error("is in {0}, which the client's group never turns to")]
    Never(BoundaryGroupName),
    /// People keep clients away from it.
    #[error("is drained, or in maintenance")]
    NotOffered,
    /// It did not say anything.
    #[error("has not reported yet")]
    NeverHeard,
    /// It did not say anything for a while.
    #[error("has not reported for {} min", .0.as_mins())]
    Silent(SignedDuration),
    /// Its connection broke, and it did not come again.
    #[error("is cut off from the site for {} s", .0.as_secs())]
    CutOff(SignedDuration),
    /// It does not hold the version.
    #[error("does not hold this version")]
    Lacks,
    /// It said nowhere where it is reached.
    #[error("has told no address that clients can reach")]
    NoAddress,
    /// It is reached from its own machine alone.
    #[error("is reached at {0}, from its own machine alone")]
    Loopback(String),
    /// Enough others come first.
    #[error("comes after {MOST_SOURCES} others")]
    Enough,
    /// The rules keep clients away from the site.
    #[error("the rules let no client turn to it")]
    SiteNever,
}

/// A point, or the site, that is not on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The point; nothing for the site.
    pub point: Option<(PointId, PointName)>,
    /// Why it might have been on it; nothing if it might not.
    pub why: Option<Why>,
    /// Why it is not.
    pub because: Unfit,
}

/// Where a client is, and whom it may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The client's address, IPv4 if it is one wrapped in IPv6.
    pub client: IpAddr,
    /// The boundaries that count for it: the smallest that have it.
    pub boundaries: Vec<AddressRange>,
    /// The groups that it belongs to: all that these are in.
    pub groups: BTreeSet<BoundaryGroupName>,
    /// Whom it may ask, in the order in which it should.
    pub sources: Vec<Source>,
    /// Those of its groups, their neighbours and the default group that it is not sent to.
    pub passed_over: Vec<PassedOver>,
}

/// A client that looks for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How long it has been looking.
    pub elapsed: Duration,
}

/// Whom `client` should ask.
///
/// `candidate` tells of a point of the tables; nothing if it is gone. First come the points of the
/// client's groups, then those of their direct neighbours by the time after which they may be asked,
/// then those of the default group, then the site. Of a point with several reasons the best counts.
/// Equals are ordered by a hash of point and client.
pub fn locate(
    client: Client,
    areas: &Areas,
    atlas: &Atlas,
    now: Timestamp,
    candidate: impl Fn(&PointId) -> Option<Candidate>,
) -> Located {
    let address = client.address.to_canonical();
    let boundaries: Vec<AddressRange> = atlas.smallest(address).collect();
    let of = boundaries.iter().filter_map(|range| areas.boundaries.get(range));
    let groups: BTreeSet<BoundaryGroupName> =
        of.flat_map(|boundary| boundary.groups.iter().cloned()).collect();
    let mut related: Vec<(Relation, PointId)> =
        relations(areas, &groups).into_iter().map(|(point, relation)| (relation, point)).collect();
    related.sort_by_cached_key(|(relation, point)| {
        (relation.rank(), share(address, point), point.clone())
    });
    let (mut sources, mut passed_over) = (Vec::new(), Vec::new());
    for (relation, id) in related {
        let Some(candidate) = candidate(&id) else { continue };
        let (name, base) = (candidate.name.clone(), candidate.base.clone());
        let (why, because) = match (relation, fitness(&candidate, address, now)) {
            (Relation::Never(group), _) => (None, Unfit::Never(group)),
            (Relation::After(_, why), Err(unfit)) => (Some(why), unfit),
            (Relation::After(_, why), Ok(())) if sources.len() >= MOST_SOURCES => {
                (Some(why), Unfit::Enough)
            }
            (Relation::After(after, why), Ok(())) => {
                // What has none is not fit.
                let base = base.unwrap_or_default();
                let point = Some(Place { id, name, base });
                sources.push(Source { point, why, after, is_usable: after <= client.elapsed });
                continue;
            }
        };
        passed_over.push(PassedOver { point: Some((id, name)), why, because });
    }
    match areas.rules.site {
        Fallback::After(after) => {
            let after = if groups.is_empty() { Duration::ZERO } else { after };
            let is_usable = after <= client.elapsed;
            sources.push(Source { point: None, why: Why::Site, after, is_usable });
        }
        Fallback::Never => {
            let (why, because) = (Some(Why::Site), Unfit::SiteNever);
            passed_over.push(PassedOver { point: None, why, because });
        }
    }
    Located { client: address, boundaries, groups, sources, passed_over }
}

/// How a point stands to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Relation {
    /// It may be asked, from then on.
    After(Duration, Why),
    /// It is of a group that must not be turned to.
    Never(BoundaryGroupName),
}

impl Relation {
    /// Its place before those of a higher rank.
    fn rank(&self) -> (u8, Duration) {
        match self {
            Relation::After(after, Why::Group(_)) => (0, *after),
            Relation::After(after, Why::Neighbour { .. }) => (1, *after),
            Relation::After(after, Why::Default(_) | Why::Site) => (2, *after),
            Relation::Never(_) => (3, Duration::ZERO),
        }
    }
}

/// How each point stands to a client of `groups`, by the best reason that it has.
fn relations(areas: &Areas, groups: &BTreeSet<BoundaryGroupName>) -> BTreeMap<PointId, Relation> {
    let mut found: BTreeMap<PointId, Relation> = BTreeMap::new();
    let mut add = |group: &BoundaryGroupName, relation: Relation| {
        let points = areas.groups.get(group).map(|group| &group.points);
        for point in points.into_iter().flatten() {
            let better = |old: &Relation| relation.rank() < old.rank();
            if found.get(point).is_none_or(better) {
                found.insert(point.clone(), relation.clone());
            }
        }
    };
    let mut neighbours = BTreeSet::new();
    for of in groups {
        add(of, Relation::After(Duration::ZERO, Why::Group(of.clone())));
        let its = areas.groups.get(of).map(|group| &group.neighbours);
        for (group, fallback) in its.into_iter().flatten() {
            neighbours.insert(group);
            let (of, name) = (of.clone(), group.clone());
            let relation = match fallback {
                Fallback::After(after) => {
                    Relation::After(*after, Why::Neighbour { of, group: name })
                }
                Fallback::Never => Relation::Never(name),
            };
            add(group, relation);
        }
    }
    // Where it is set as a neighbour, that is what counts.
    if let Some(default) = areas.rules.default.as_ref().filter(|name| !neighbours.contains(name)) {
        let after = if groups.is_empty() { Duration::ZERO } else { areas.rules.default_after };
        add(default, Relation::After(after, Why::Default(default.clone())));
    }
    found
}

/// Whether clients can be sent to a point.
fn fitness(candidate: &Candidate, client: IpAddr, now: Timestamp) -> Result<(), Unfit> {
    if !candidate.is_offered {
        return Err(Unfit::NotOffered);
    }
    is_heard(candidate.reported, now)?;
    if let Some(since) = candidate.cut_off {
        return Err(Unfit::CutOff(since));
    }
    let base = candidate.base.as_ref().ok_or(Unfit::NoAddress)?;
    if base::is_loopback(base) && !client.is_loopback() {
        return Err(Unfit::Loopback(base.clone()));
    }
    if !candidate.holds {
        return Err(Unfit::Lacks);
    }
    Ok(())
}

/// Whether a point's last report is young enough to count on it.
fn is_heard(reported: Option<Timestamp>, now: Timestamp) -> Result<(), Unfit> {
    // One from the future is of a clock that was set back, and its age is not known.
    let age = now.duration_since(reported.ok_or(Unfit::NeverHeard)?).abs();
    if age < SILENT_AFTER { Ok(()) } else { Err(Unfit::Silent(age)) }
}

/// A client's order of points that are equal: the same each time, and another for other clients
/// (rendezvous hashing; Thaler and Ravishankar, 1998).
fn share(client: IpAddr, point: &PointId) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    match client {
        IpAddr::V4(address) => hash.update(&address.octets()),
        IpAddr::V6(address) => hash.update(&address.octets()),
    };
    hash.update(point.as_str().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests;

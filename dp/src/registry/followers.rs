//! Who follows the site's catalogue of updates: child sites and its other update points.
//!
//! Each waits at the site for a request to synchronise. A request has a number, and a place in the order of
//! the catalogue's changes; it is kept until a later one takes its place, so a follower that was away learns of
//! it the moment it is back. What it came to is the follower's report.

use super::points::reached_at;
use super::presence::{Heard, is_there};
use super::{PointName, Registry, RegistryError, State};
use crate::field::{FollowerId, FollowerKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Order, Table, Value};
use std::net::IpAddr;
use tokio::sync::watch;

/// The longest text of a report, in characters.
const MAX_TEXT: usize = 500;

/// One who follows the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// Who it is.
    pub id: FollowerId,
    /// What people call it.
    pub name: PointName,
    /// What it is.
    pub kind: FollowerKind,
    /// When it joined.
    pub joined: Timestamp,
    /// Who made the token that it joined with.
    pub invited_by: String,
    /// When it last got a new certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// The number of the last request to synchronise; 0 is none.
    #[serde(default)]
    pub asked: u64,
    /// Up to which place of the catalogue that was.
    #[serde(default)]
    pub place: u64,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// What it told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<FollowerReport>,
}
impl Value for Follower {}

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowerState {
    /// It synchronises.
    Running,
    /// It has what it was asked for.
    Done,
    /// It tried in vain.
    Failed,
}

impl FollowerState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// What a follower tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerReport {
    /// The request that it is about.
    pub asked: u64,
    /// How far it is.
    pub state: FollowerState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `https://HOST:PORT`, where others reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The version of its program.
    #[serde(default)]
    pub program: String,
    /// How many updates it has.
    #[serde(default)]
    pub updates: u64,
    /// When it last had all that there was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Timestamp>,
    /// When it was told, by the site's clock.
    pub received: Timestamp,
}

impl Follower {
    pub(super) fn new(
        id: FollowerId,
        name: PointName,
        kind: FollowerKind,
        joined: Timestamp,
        invited_by: String,
    ) -> Self {
        let (renewed, asked_at, report) = (None, None, None);
        let (asked, place) = (0, 0);
        Self { id, name, kind, joined, invited_by, renewed, asked, place, asked_at, report }
    }

    /// Whether it has ever had all that there was.
    pub fn has_synced(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.synced.is_some())
    }
}

/// More requests than a site makes between two backups.
const BEYOND: u64 = 1 << 20;

/// Followers by their id.
pub(super) const FOLLOWERS: Table<String, Follower> = Table::new("followers");

impl State {
    pub(super) fn follower_called(&self, name: &PointName) -> Option<&Follower> {
        self.followers.values().find(|follower| follower.name == *name)
    }
}

impl Registry {
    /// Whether there is a follower of that id. Reads memory only.
    pub fn knows_follower(&self, id: &FollowerId) -> bool {
        self.state.read().followers.contains_key(id)
    }

    /// The follower called or numbered `which`.
    pub fn follower(&self, which: &str) -> Result<Follower, RegistryError> {
        let state = self.state.read();
        let by_id = which.parse().ok().and_then(|id: FollowerId| state.followers.get(&id));
        let by_name = || state.follower_called(&which.parse().ok()?);
        let found = by_id.or_else(by_name).cloned();
        found.ok_or_else(|| RegistryError::UnknownFollower(which.chars().take(100).collect()))
    }

    /// All followers, in the order in which they joined.
    pub fn followers(&self) -> Vec<Follower> {
        let mut all: Vec<Follower> = self.state.read().followers.values().cloned().collect();
        all.sort_by(|a, b| a.joined.cmp(&b.joined).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// Tells of each request and report, and of the end of the registry.
    pub fn following(&self) -> watch::Receiver<u64> {
        self.following.subscribe()
    }

    /// Has `batch` put the numbers of requests, in a database that was put back, beyond those that followers may
    /// have done since: each takes the next request for a new one.
    pub fn renew_requests(db: &Db, batch: &mut Batch) -> Result<(), DbError> {
        for (id, mut follower) in FOLLOWERS.scan(db, Order::Ascending, None, usize::MAX)? {
            follower.asked = follower.asked.saturating_add(BEYOND);
            FOLLOWERS.put(batch, &id, &follower);
        }
        Ok(())
    }

    /// Has each follower look again at what it is asked: where it is to read has changed.
    pub fn direct_followers(&self) {
        self.following.send_modify(|n| *n += 1);
    }

    /// Asks a follower to synchronise up to a place of the catalogue; the request has another number than those
    /// before.
    pub fn ask_follower(
        &self,
        id: &FollowerId,
        place: u64,
        now: Timestamp,
    ) -> Result<Follower, RegistryError> {
        self.change_follower(id, |follower| {
            follower.asked += 1;
            follower.place = place;
            follower.asked_at = Some(now);
        })
    }

    /// Keeps what a follower told.
    pub fn follower_told(
        &self,
        id: &FollowerId,
        mut report: FollowerReport,
        from: Option<IpAddr>,
    ) -> Result<Follower, RegistryError> {
        let clip = |text: String| -> String { text.chars().take(MAX_TEXT).collect() };
        report.detail = report.detail.map(clip);
        report.address = report.address.map(|address| reached_at(&clip(address), from));
        report.program = clip(report.program);
        self.saw_follower(id, report.received);
        self.change_follower(id, |follower| follower.report = Some(report))
    }

    /// Notes that a follower got a new certificate.
    pub fn follower_renewed(&self, id: &FollowerId, now: Timestamp) -> Result<(), RegistryError> {
        self.change_follower(id, |follower| follower.renewed = Some(now)).map(drop)
    }

    fn change_follower(
        &self,
        id: &FollowerId,
        change: impl FnOnce(&mut Follower),
    ) -> Result<Follower, RegistryError> {
        let _changing = self.change();
        let mut follower = self.follower(id.as_str())?;
        change(&mut follower);
        let mut batch = Batch::new();
        FOLLOWERS.put(&mut batch, &id.to_string(), &follower);
        // Not as a change of the tables that wishes of points follow from.
        self.db.kv().write(batch)?;
        self.state.write().followers.insert(id.clone(), follower.clone());
        self.following.send_modify(|n| *n += 1);
        Ok(follower)
    }

    /// Removes the follower called or numbered `which`: from now on it is refused.
    pub fn remove_follower(&self, which: &str) -> Result<Follower, RegistryError> {
        let _changing = self.change();
        let follower = self.follower(which)?;
        let mut batch = Batch::new();
        FOLLOWERS.delete(&mut batch, &follower.id.to_string());
        self.db.kv().write(batch)?;
        self.state.write().followers.remove(&follower.id);
        self.heard_followers.lock().remove(&follower.id);
        self.following.send_modify(|n| *n += 1);
        Ok(follower)
    }

    /// Notes that a follower was heard of.
    pub fn saw_follower(&self, id: &FollowerId, now: Timestamp) {
        if self.knows_follower(id) {
            self.heard_followers
                .lock()
                .insert(id.clone(), Heard { at: now, broke: None, left: false });
        }
    }

    /// Notes that the connection broke on which a follower waited.
    pub fn follower_broke(&self, id: &FollowerId, now: Timestamp) {
        if let Some(heard) = self.heard_followers.lock().get_mut(id) {
            heard.broke = Some(now);
        }
    }

    /// When a follower was heard of last, as far as this run of the site, or its last report, tells.
    pub fn follower_seen(&self, id: &FollowerId) -> Option<Timestamp> {
        let heard = self.heard_followers.lock().get(id).map(|heard| heard.at);
        heard.max(self.follower_reported(id))
    }

    /// Whether a follower is there.
    pub fn is_follower_online(&self, id: &FollowerId, now: Timestamp) -> bool {
        let heard = self.heard_followers.lock().get(id).copied();
        is_there(heard, None, now)
    }

    /// Whether a follower was heard of since this registry was opened, and is not there any more.
    pub fn is_follower_lost(&self, id: &FollowerId, now: Timestamp) -> bool {
        let heard = self.heard_followers.lock().get(id).copied();
        heard.is_some() && !is_there(heard, None, now)
    }

    /// Whether a follower was silent for `patience` at `now`.
    pub fn is_follower_silent(
        &self,
        id: &FollowerId,
        patience: SignedDuration,
        now: Timestamp,
    ) -> bool {
        let seen = self.follower_seen(id);
        seen.is_none_or(|seen| now.duration_since(seen).abs() >= patience)
    }

    fn follower_reported(&self, id: &FollowerId) -> Option<Timestamp> {
        let state = self.state.read();
        state.followers.get(id)?.report.as_ref().map(|report| report.received)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{now, registry};
    use super::*;
    use crate::registry::NewToken;
    use sitedb::Db;

    fn token(registry: &Registry, name: &str, kind: Option<FollowerKind>) -> String {
        let new = NewToken {
            name: name.parse().unwrap(),
            kind,
            expires: now() + SignedDuration::from_hours(1),
            sites: vec!["https://top:8520".into()],
            by: "admin".into(),
        };
        let (_, token) = registry.create_token(new, [7; 32], now()).unwrap();
        token.secret.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn joined(registry: &Registry, name: &str, kind: FollowerKind) -> Follower {
        let secret = token(registry, name, Some(kind));
        let admission = registry.admit_follower(&secret, [1; 32], now()).unwrap();
        registry.join_follower(admission).unwrap()
    }

    #[test]
    fn a_token_lets_in_one_machine_as_what_it_says_and_nothing_else() {
        let registry = registry();
        let secret = token(&registry, "berlin", Some(FollowerKind::Primary));
        assert!(matches!(registry.admit(&secret, [1; 32], now()), Err(RegistryError::NotAdmitted)));
        let first = registry.admit_follower(&secret, [1; 32], now()).unwrap();
        let first = registry.join_follower(first).unwrap();
        assert_eq!((first.name.as_str(), first.kind), ("berlin", FollowerKind::Primary));
        let again = registry.admit_follower(&secret, [1; 32], now()).unwrap();
        assert_eq!(registry.join_follower(again).unwrap(), first, "it lost the answer");
        assert!(registry.admit_follower(&secret, [2; 32], now()).is_err(), "another machine");
        let late = now() + SignedDuration::from_hours(2);
        assert!(registry.admit_follower(&secret, [1; 32], late).is_err());
        // A point may have the same name; its token is no follower's.
        let point = token(&registry, "berlin", None);
        assert!(registry.admit_follower(&point, [1; 32], now()).is_err());
        let new = |kind| NewToken {
            name: "berlin".parse().unwrap(),
            kind: Some(kind),
            expires: now() + SignedDuration::from_hours(1),
            sites: vec!["https://top:8520".into()],
            by: "admin".into(),
        };
        let taken = registry.create_token(new(FollowerKind::UpdatePoint), [7; 32], now());
        assert!(matches!(taken, Err(RegistryError::FollowerExists(_))));
    }

    #[test]
    fn requests_and_reports_are_kept_and_a_removed_follower_is_unknown() {
        let db = Db::in_memory();
        let registry = Registry::open(db.clone()).unwrap();
        let berlin = joined(&registry, "berlin", FollowerKind::Secondary);
        let mut following = registry.following();
        following.mark_unchanged();
        registry.ask_follower(&berlin.id, 42, now()).unwrap();
        assert!(following.has_changed().unwrap());
        let report = FollowerReport {
            asked: 42,
            state: FollowerState::Failed,
            detail: Some("x".repeat(9_999)),
            address: None,
            program: "1".into(),
            updates: 7,
            synced: None,
            received: now(),
        };
        registry.follower_told(&berlin.id, report, None).unwrap();
        let kept = Registry::open(db.clone()).unwrap().follower("berlin").unwrap();
        assert_eq!((kept.asked, kept.place, kept.asked_at), (1, 42, Some(now())));
        assert_eq!(kept.report.unwrap().detail.unwrap().len(), MAX_TEXT);
        assert!(registry.is_follower_online(&berlin.id, now()));
        registry.follower_broke(&berlin.id, now());
        let later = now() + SignedDuration::from_secs(20);
        assert!(!registry.is_follower_online(&berlin.id, later));
        assert!(registry.is_follower_lost(&berlin.id, later));
        // Who was not heard of since the start may still be on the way.
        assert!(!Registry::open(db.clone()).unwrap().is_follower_lost(&berlin.id, later));
        assert!(!registry.is_follower_silent(&berlin.id, SignedDuration::from_secs(60), later));
        registry.remove_follower("berlin").unwrap();
        assert!(!registry.knows_follower(&berlin.id));
        assert!(registry.ask_follower(&berlin.id, 43, now()).is_err());
        assert!(Registry::open(db).unwrap().followers().is_empty());
    }
}

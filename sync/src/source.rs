//! Sources: the upstreams that a site is set to read, and what is set for all of them.
//!
//! What a source is (its kind and the settings of that) decides what its updates are. So what an
//! adapter remembered of the last sync counts only while kind, settings and criteria are the same:
//! [`Source::fingerprint`] tells. The rest (whether, when, how urgent) may change at any time.
//!
//! Criteria are set at the top site alone. A site that has a parent is told by it what they are, and
//! refuses to set them, with the name of the site that may.

mod kind;
mod standing;

pub use kind::SourceKind;
pub use standing::{Again, Outcome, RunNumber, RunRecord, Running, Standing, Trigger};

use crate::adapter::Criteria;
use crate::hierarchy::Above;
use crate::lifecycle::Policy;
use crate::name::SourceName;
use crate::schedule::Schedule;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use sitedb::{Batch, CommitError, Db, DbError, Order, Table, Value};

/// The most sources of a site.
pub const MAX_SOURCES: usize = 1_000;
/// The most words of one kind in criteria.
const MAX_CRITERIA: usize = 10_000;
/// Changes with the meaning of what adapters read: another number has all sources read anew.
const READING: u32 = 1;

/// An upstream that a site is set to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What it is called here.
    pub name: SourceName,
    /// What it is.
    #[serde(flatten)]
    pub kind: SourceKind,
    /// Whether it is synchronised.
    pub enabled: bool,
    /// Of sources that wait for their turn, the one with the highest comes first; 0 to 100.
    pub priority: u8,
    /// When it is synchronised; none, as the site's schedule says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Since when that is so: times before are of another schedule.
    pub scheduled: Timestamp,
    /// When it was made.
    pub created: Timestamp,
}
impl Value for Source {}

impl Source {
    /// The priority of a source that says nothing of it.
    pub const PRIORITY: u8 = 50;

    /// A new one.
    pub fn new(name: SourceName, kind: SourceKind, now: Timestamp) -> Self {
        let (enabled, priority) = (true, Self::PRIORITY);
        Self { name, kind, enabled, priority, schedule: None, scheduled: now, created: now }
    }

    /// A text that differs where kind, settings, criteria, or the way in which they are read differ.
    pub fn fingerprint(&self, criteria: &Criteria) -> String {
        // A parent says only what its criteria leave.
        let criteria = (self.kind != SourceKind::Parent).then_some(criteria);
        // Maps are sorted, so equal values are equal texts.
        let facts = serde_json::json!([READING, self.kind, criteria]);
        let digest = sha2::Sha256::digest(facts.to_string().as_bytes());
        crate::digests::to_hex(&digest)
    }
}

/// What is set for all sources of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSettings {
    /// When sources are synchronised that do not say otherwise.
    pub schedule: Schedule,
    /// Since when that is so.
    pub scheduled: Timestamp,
    /// Which updates are wanted.
    pub criteria: Criteria,
    /// When updates expire and go.
    #[serde(default)]
    pub policy: Policy,
    /// The site at the top of the tree, if this one is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// What is set for clients there, as it came down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<serde_json::Value>,
}
impl Value for SiteSettings {}

impl Default for SiteSettings {
    fn default() -> Self {
        Self {
            schedule: Schedule::nightly(),
            scheduled: Timestamp::UNIX_EPOCH,
            criteria: Criteria::default(),
            policy: Policy::default(),
            top: None,
            clients: None,
        }
    }
}

/// Why a source, or what is set for all, could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is none of that name.
    #[error("there is no source {0}")]
    Unknown(SourceName),
    /// The name is taken.
    #[error("there is a source {0} already")]
    Exists(SourceName),
    /// The name was that of another one, whose updates are still being let go of.
    #[error("the source {0} that was removed is still being taken away: try again in a moment")]
    StillGoing(SourceName),
    /// There are enough.
    #[error("a site has at most {MAX_SOURCES} sources")]
    TooMany,
    /// The value of a field cannot be.
    #[error("{field} {detail}")]
    Invalid {
        /// Which.
        field: String,
        /// What it must be.
        detail: String,
    },
    /// The criteria are those of another site.
    #[error(
        "this site takes its updates from a parent, so criteria and the updates' lifecycle are set at the top \
         site alone: at {top}"
    )]
    NotTheTop {
        /// The site that may.
        top: String,
    },
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The database could not be written.
    #[error(transparent)]
    Write(#[from] CommitError),
}

impl SourceError {
    fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), detail: detail.into() }
    }
}

const SOURCES: Table<String, Source> = Table::new("sync-upstreams");
const REMOVED: Table<String, Removed> = Table::new("sync-upstreams-removed");
const SITE: Table<(), SiteSettings> = Table::new("sync-site");

#[derive(Serialize, Deserialize)]
struct Removed {
    name: SourceName,
}
impl Value for Removed {}

/// The sources of a site.
pub struct Sources {
    db: Db,
    /// Held while something is changed: each change reads first.
    changing: Mutex<()>,
}

impl Sources {
    /// Those in `db`.
    pub fn open(db: Db) -> Self {
        Self { db, changing: Mutex::new(()) }
    }

    /// All of them, by name.
    pub fn list(&self) -> Result<Vec<Source>, DbError> {
        let all = SOURCES.scan(&self.db, Order::Ascending, None, MAX_SOURCES)?;
        Ok(all.into_iter().map(|(_, source)| source).collect())
    }

    /// One of them.
    pub fn get(&self, name: &SourceName) -> Result<Source, SourceError> {
        let found = SOURCES.get(&self.db, &name.to_string())?;
        found.ok_or_else(|| SourceError::Unknown(name.clone()))
    }

    /// Makes one.
    pub fn add(&self, source: &Source) -> Result<(), SourceError> {
        let _changing = self.changing.lock();
        check(source)?;
        if source.name == SourceName::own() {
            let detail =
                format!("cannot be {}: so this site's own updates are called", source.name);
            return Err(SourceError::Invalid { field: "name".into(), detail });
        }
        if SOURCES.get(&self.db, &source.name.to_string())?.is_some() {
            return Err(SourceError::Exists(source.name.clone()));
        }
        if REMOVED.get(&self.db, &source.name.to_string())?.is_some() {
            return Err(SourceError::StillGoing(source.name.clone()));
        }
        if self.list()?.len() >= MAX_SOURCES {
            return Err(SourceError::TooMany);
        }
        SOURCES.set(&self.db, &source.name.to_string(), source)?;
        Ok(())
    }

    /// Changes one; what it is then. Its name stays.
    pub fn change<E: From<SourceError>>(
        &self,
        name: &SourceName,
        change: impl FnOnce(&mut Source) -> Result<(), E>,
        now: Timestamp,
    ) -> Result<Source, E> {
        let _changing = self.changing.lock();
        let mut source = self.get(name)?;
        let before = source.clone();
        change(&mut source)?;
        source.name = name.clone();
        if source.schedule != before.schedule || source.enabled && !before.enabled {
            source.scheduled = now;
        }
        check(&source)?;
        let set = SOURCES.set(&self.db, &name.to_string(), &source);
        set.map_err(SourceError::from)?;
        Ok(source)
    }

    /// Takes one away; what it was. Until [`Sources::is_gone`] is told that nothing of it is left, it is
    /// among those that were [`Sources::removed`].
    pub fn remove(&self, name: &SourceName) -> Result<Source, SourceError> {
        let _changing = self.changing.lock();
        let source = self.get(name)?;
        let mut batch = Batch::new();
        SOURCES.delete(&mut batch, &name.to_string());
        REMOVED.put(&mut batch, &name.to_string(), &Removed { name: name.clone() });
        self.db.kv().write(batch)?;
        Ok(source)
    }

    /// Those that were removed, but of which something may be left.
    pub fn removed(&self) -> Result<Vec<SourceName>, DbError> {
        let all = REMOVED.scan(&self.db, Order::Ascending, None, usize::MAX)?;
        Ok(all.into_iter().map(|(_, removed)| removed.name).collect())
    }

    /// Says that nothing is left of one that was removed.
    pub fn is_gone(&self, name: &SourceName) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        REMOVED.delete(&mut batch, &name.to_string());
        self.db.kv().write(batch).map(drop)
    }

    /// Does `work` while nobody can change a source or what is set for all, if `name` is still as
    /// `fingerprint` says; else nothing.
    pub(crate) fn while_it_is<T>(
        &self,
        name: &SourceName,
        fingerprint: &str,
        work: impl FnOnce() -> T,
    ) -> Result<Option<T>, SourceError> {
        let _changing = self.changing.lock();
        let source = match self.get(name) {
            Ok(source) => source,
            Err(SourceError::Unknown(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if source.fingerprint(&self.site()?.criteria) != fingerprint {
            return Ok(None);
        }
        Ok(Some(work()))
    }

    /// What is set for all.
    pub fn site(&self) -> Result<SiteSettings, DbError> {
        Ok(SITE.get(&self.db, &())?.unwrap_or_default())
    }

    /// Sets which updates are wanted.
    ///
    /// # Errors
    /// This site has a parent: [`SourceError::NotTheTop`]. [`Sources::take_over`] is for what that says.
    pub fn set_criteria(&self, criteria: Criteria) -> Result<(), SourceError> {
        self.set_site(|site| {
            if let Some(top) = &site.top {
                return Err(SourceError::NotTheTop { top: top.clone() });
            }
            let n = [
                ("classifications", criteria.classifications.len()),
                ("products", criteria.products.len()),
                ("languages", criteria.languages.len()),
            ];
            if let Some((field, _)) = n.into_iter().find(|(_, n)| *n > MAX_CRITERIA) {
                return Err(SourceError::invalid(field, format!("has more than {MAX_CRITERIA}")));
            }
            site.criteria = criteria;
            Ok(())
        })
        .map(drop)
    }

    /// Takes over what the site at the top has set, under the name of that site; with no name, this site
    /// is the top from now on, and keeps the criteria that it has. Whether anything is otherwise now.
    pub fn take_over(&self, above: Option<Above>) -> Result<bool, SourceError> {
        self.set_site(|site| {
            match above {
                Some(Above { top, criteria, policy, clients }) => {
                    site.top = Some(top);
                    site.criteria = criteria;
                    site.policy = policy;
                    site.clients = clients;
                }
                None => (site.top, site.clients) = (None, None),
            }
            Ok(())
        })
    }

    /// Sets when updates expire and go.
    ///
    /// # Errors
    /// This site has a parent: [`SourceError::NotTheTop`].
    pub fn set_policy(&self, policy: Policy) -> Result<(), SourceError> {
        self.set_site(|site| {
            if let Some(top) = &site.top {
                return Err(SourceError::NotTheTop { top: top.clone() });
            }
            site.policy = policy;
            Ok(())
        })
        .map(drop)
    }

    /// Sets when sources are synchronised that do not say otherwise.
    pub fn set_schedule(&self, schedule: Schedule, now: Timestamp) -> Result<(), SourceError> {
        self.set_site(|site| {
            if site.schedule != schedule {
                site.scheduled = now;
            }
            site.schedule = schedule;
            Ok(())
        })
        .map(drop)
    }

    /// Changes what is set for all; whether anything is otherwise now.
    fn set_site(
        &self,
        change: impl FnOnce(&mut SiteSettings) -> Result<(), SourceError>,
    ) -> Result<bool, SourceError> {
        let _changing = self.changing.lock();
        let before = self.site()?;
        let mut site = before.clone();
        change(&mut site)?;
        let is_other = site != before;
        if is_other {
            SITE.set(&self.db, &(), &site)?;
        }
        Ok(is_other)
    }
}

fn check(source: &Source) -> Result<(), SourceError> {
    if source.priority > 100 {
        return Err(SourceError::invalid("priority", "must be from 0 to 100"));
    }
    source.kind.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T10:00:00Z".parse().unwrap()
    }

    fn source(name: &str) -> Source {
        Source::new(name.parse().unwrap(), SourceKind::Parent, now())
    }

    fn of_web(name: &str) -> Source {
        let settings =
            serde_json::json!({"kind": "rpm", "settings": {"url": "https://rpm.example/"}});
        let kind = serde_json::from_value(settings).unwrap();
        Source::new(name.parse().unwrap(), kind, now())
    }

    #[test]
    fn sources_are_made_changed_and_removed_by_name() {
        let sources = Sources::open(Db::in_memory());
        let (a, b) = (source("a"), source("b"));
        sources.add(&b).unwrap();
        sources.add(&a).unwrap();
        assert!(matches!(sources.add(&a), Err(SourceError::Exists(_))));
        assert_eq!(sources.list().unwrap(), [a.clone(), b.clone()]);
        let later = "2026-11-28T10:00:00Z".parse().unwrap();
        let changed = sources.change(
            &a.name,
            |source| {
                source.schedule = Some(Schedule::NEVER);
                source.name = "other".parse().unwrap();
                Ok::<_, SourceError>(())
            },
            later,
        );
        let changed = changed.unwrap();
        assert_eq!((&changed.name, changed.scheduled, changed.created), (&a.name, later, now()));
        let wrong = sources.change(
            &a.name,
            |source| {
                source.priority = 101;
                Ok::<_, SourceError>(())
            },
            later,
        );
        assert_eq!(wrong.unwrap_err().to_string(), "priority must be from 0 to 100");
        assert_eq!(sources.get(&a.name).unwrap(), changed);
        sources.remove(&b.name).unwrap();
        assert!(matches!(sources.remove(&b.name), Err(SourceError::Unknown(_))));
        assert_eq!(sources.list().unwrap().len(), 1);
    }

    #[test]
    fn a_source_reads_back_as_one_flat_object() {
        let json = serde_json::to_value(source("a")).unwrap();
        assert_eq!(json["kind"], "parent");
        assert_eq!(serde_json::from_value::<Source>(json).unwrap(), source("a"));
    }

    #[test]
    fn only_what_decides_on_updates_changes_the_fingerprint() {
        let (mut a, none) = (of_web("a"), Criteria::default());
        let first = a.fingerprint(&none);
        a.priority = 7;
        a.enabled = false;
        a.schedule = Some(Schedule::NEVER);
        assert_eq!(a.fingerprint(&none), first);
        let wanted = Criteria { products: ["debian-12".to_owned()].into(), ..none.clone() };
        assert_ne!(a.fingerprint(&wanted), first);
        let parent = source("a");
        assert_eq!(
            parent.fingerprint(&wanted),
            parent.fingerprint(&none),
            "it is told what is wanted"
        );
    }

    #[test]
    fn criteria_are_set_at_the_top_alone() {
        let sources = Sources::open(Db::in_memory());
        let wanted = Criteria { products: ["debian-12".to_owned()].into(), ..Criteria::default() };
        sources.set_criteria(wanted.clone()).unwrap();
        let of_top = Criteria::default();
        let policy = Policy { purge_after_days: Some(7), ..Policy::default() };
        let above = Above {
            top: "https://top:8520".into(),
            criteria: of_top.clone(),
            policy: policy.clone(),
            clients: Some(serde_json::json!({"updates": {"enabled": false}})),
        };
        assert!(sources.take_over(Some(above.clone())).unwrap());
        assert!(!sources.take_over(Some(above.clone())).unwrap(), "nothing is otherwise");
        assert_eq!(sources.site().unwrap().clients, above.clients);
        assert!(sources.set_policy(Policy::default()).is_err());
        assert_eq!(sources.site().unwrap().policy, policy);
        let refused = sources.set_criteria(wanted.clone()).unwrap_err();
        assert!(refused.to_string().contains("at https://top:8520"), "{refused}");
        assert_eq!(sources.site().unwrap().criteria, of_top);
        sources.take_over(None).unwrap();
        sources.set_criteria(wanted.clone()).unwrap();
        assert_eq!(sources.site().unwrap().criteria, wanted);
    }
}

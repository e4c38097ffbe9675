//! Telling those who follow this site, after a sync, in the order that is promised: policy, child sites,
//! then the other update points one at a time.

use crate::site::Ledger;
use dp::field::FollowerKind;
use dp::registry::{Follower, FollowerState, Registry, RegistryError};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sitedb::{Db, DbError, Table, Value};
use std::sync::Arc;
use std::time::Duration;
use sync::error::{Cause, SyncError};
use sync::machine::Notify;

/// How often it is looked whether somebody fell silent.
const LOOK: Duration = Duration::from_secs(1);

/// That clients may be led to update points, since a sync was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The place of the catalogue.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
}
impl Value for Published {}

const PUBLISHED: Table<(), Published> = Table::new("update-policy");

/// Which update point the others of the site read from; without it, the site's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PointSource {
    id: String,
}
impl Value for PointSource {}

const POINT_SOURCE: Table<(), PointSource> = Table::new("update-point-source");

/// The last sync that was published, if one was.
pub fn published(db: &Db) -> Result<Option<Published>, DbError> {
    PUBLISHED.get(db, &())
}

/// The update point that the others read from, if that is not the site's own.
pub fn point_source(ledger: &Ledger) -> Result<Option<Follower>, DbError> {
    let found = POINT_SOURCE.get(&ledger.db, &())?;
    Ok(found.and_then(|PointSource { id }| ledger.registry.follower(&id).ok()))
}

/// Has the others read from that update point, or from the site's own.
pub fn set_point_source(ledger: &Ledger, to: Option<&Follower>) -> Result<(), crate::Problem> {
    match to {
        Some(to) => {
            let id = to.id.to_string();
            POINT_SOURCE.set(&ledger.db, &(), &PointSource { id })?;
        }
        None => {
            let mut batch = sitedb::Batch::new();
            POINT_SOURCE.delete(&mut batch, &());
            ledger.db.kv().write(batch)?;
        }
    }
    ledger.registry.direct_followers();
    Ok(())
}

/// What the sync machine tells others by.
pub struct Telling {
    ledger: Arc<Ledger>,
    patience: SignedDuration,
}

impl Telling {
    /// An update point that is silent for `patience` is waited for no longer.
    pub fn new(ledger: Arc<Ledger>, patience: Duration) -> Self {
        let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
        Self { ledger, patience }
    }

    fn registry(&self) -> &Registry {
        &self.ledger.registry
    }

    async fn ask(&self, name: &str, seq: u64) -> Result<Follower, SyncError> {
        let (ledger, name) = (self.ledger.clone(), name.to_owned());
        let ask = move || {
            let id = ledger.registry.follower(&name)?.id;
            ledger.registry.ask_follower(&id, seq, Timestamp::now())
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let asked = asked.map_err(|error| {
            SyncError::because(Cause::Local, "a fault in the program; the log has more", error)
        })?;
        asked.map_err(|error| match error {
            RegistryError::UnknownFollower(_) => {
                SyncError::new(Cause::NotFound, "it was removed in this moment")
            }
            error => SyncError::because(Cause::Local, "the request cannot be kept", error),
        })
    }
}

impl Notify for Telling {
    fn publish(&self, seq: u64) -> BoxFuture<'_, Result<(), SyncError>> {
        Box::pin(async move {
            let db = self.ledger.db.clone();
            let publish = move || PUBLISHED.set(&db, &(), &Published { seq, at: Timestamp::now() });
            let published = tokio::task::spawn_blocking(publish).await.map_err(|error| {
                SyncError::because(Cause::Local, "a fault in the program; the log has more", error)
            })?;
            published?;
            Ok(())
        })
    }

    fn children(&self) -> Vec<String> {
        let all = self.registry().followers().into_iter();
        all.filter(|it| it.kind.is_site()).map(|it| it.name.to_string()).collect()
    }

    fn tell_child<'a>(&'a self, child: &'a str, seq: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        Box::pin(async move {
            let asked = self.ask(child, seq).await?;
            let now = Timestamp::now();
            if self.registry().is_follower_online(&asked.id, now) {
                return Ok(());
            }
            let detail = match self.registry().follower_seen(&asked.id) {
                Some(seen) => format!("it was heard of last at {seen:.0}"),
                None => "it was never heard of".into(),
            };
            Err(SyncError::new(Cause::Unreachable, detail))
        })
    }

    fn points(&self) -> Vec<String> {
        let source = point_source(&self.ledger).ok().flatten().map(|source| source.id);
        let all = self.registry().followers();
        let mut all: Vec<Follower> =
            all.into_iter().filter(|it| it.kind == FollowerKind::UpdatePoint).collect();
        // The one that the others read from comes first; the rest in the order in which they joined.
        all.sort_by_key(|it| Some(&it.id) != source.as_ref());
        all.into_iter().map(|it| it.name.to_string()).collect()
    }

    fn replicate<'a>(&'a self, point: &'a str, seq: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        Box::pin(async move {
            let mut following = self.registry().following();
            let asked = self.ask(point, seq).await?;
            if self.registry().is_follower_lost(&asked.id, Timestamp::now()) {
                let seen = self.registry().follower_seen(&asked.id);
                let detail = seen.map_or("it was never heard of".into(), |seen| {
                    format!("it was heard of last at {seen:.0}; it follows when it is there again")
                });
                return Err(SyncError::new(Cause::Unreachable, detail));
            }
            loop {
                following.mark_unchanged();
                let Ok(now) = self.registry().follower(asked.id.as_str()) else {
                    let detail = "it was removed in this moment";
                    return Err(SyncError::new(Cause::NotFound, detail));
                };
                let report = now.report.filter(|report| report.asked == asked.asked);
                match report.map(|report| (report.state, report.detail)) {
                    Some((FollowerState::Done, _)) => return Ok(()),
                    Some((FollowerState::Failed, detail)) => {
                        let detail = detail.unwrap_or_else(|| "it did not say why".into());
                        return Err(SyncError::new(Cause::Busy, format!("it failed: {detail}")));
                    }
                    Some((FollowerState::Running, _)) | None => {}
                }
                if self.registry().is_closed() {
                    return Err(SyncError::new(Cause::Cancelled, "the site is stopping"));
                }
                let silent =
                    |now| self.registry().is_follower_silent(&asked.id, self.patience, now);
                if silent(Timestamp::now()) {
                    let detail = format!("it has been silent for {:#}", self.patience);
                    return Err(SyncError::new(Cause::Stalled, detail));
                }
                tokio::select! {
                    _ = following.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        })
    }
}

//! What the catalogue promises, held against plain models of it.

mod ageing;
mod crashes;
pub(crate) mod faulty;
mod intake;
mod lists;
mod readers;
mod replication;

use super::*;
use crate::adapter::Said;
use crate::error::SyncError;
use std::collections::BTreeSet;

/// A time so many days after the beginning of 2026.
pub(crate) fn day(days: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + days * 86_400).unwrap()
}

pub(crate) fn source(name: &str) -> SourceName {
    name.parse().unwrap()
}

pub(crate) fn id(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

/// Update `n`, made on that day, with that title.
pub(crate) fn update(n: u32, title: &str, created: i64) -> Update {
    Update::new(id(n), &format!("U-{n}"), title, day(created))
}

pub(crate) fn said(update: Update) -> Said {
    Said::Update(Box::new(update))
}

/// A sync that says these, and all of it.
pub(crate) fn whole(
    catalogue: &Catalogue,
    by: &str,
    updates: impl IntoIterator<Item = Update>,
    now: Timestamp,
) -> Result<Changes, SyncError> {
    sync(catalogue, by, Extent::Whole, updates.into_iter().map(said), now, Criteria::default())
}

pub(crate) fn sync(
    catalogue: &Catalogue,
    by: &str,
    extent: Extent,
    all: impl IntoIterator<Item = Said>,
    now: Timestamp,
    criteria: Criteria,
) -> Result<Changes, SyncError> {
    let mut intake = catalogue.intake(&source(by), 1, Arc::new(criteria), now)?;
    all.into_iter().try_for_each(|said| intake.take(said))?;
    intake.settle(extent)?;
    intake.commit(serde_json::json!({ "at": now }))
}

/// Nothing is kept that nothing shows, and nothing is missing.
pub(crate) fn assert_tidy(catalogue: &Catalogue) {
    let db = &catalogue.0.db;
    let all = sitedb::Order::Ascending;
    let heads = HEADS.scan(db, all, None, usize::MAX).unwrap();
    let wanted: BTreeSet<BodyKey> =
        heads.iter().flat_map(|(id, head)| merge::bodies(*id, head)).collect();
    let bodies = BODIES.scan(db, all, None, usize::MAX).unwrap();
    let found: BTreeSet<BodyKey> = bodies.into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, wanted);
    assert!(record::DROPPED.scan(db, all, None, 1).unwrap().is_empty());
    assert!(record::STAGED.scan(db, all, None, 1).unwrap().is_empty());
    assert!(record::STAGED_PRODUCTS.scan(db, all, None, 1).unwrap().is_empty());
    assert!(record::COMMIT.get(db, &()).unwrap().is_none());
    // The board in memory is the one that would be read.
    let (shown, read) = (catalogue.0.board(), Board::load(db).unwrap());
    assert_eq!(shown.ids, read.ids);
    assert_eq!(shown.seqs, read.seqs);
    assert_eq!(shown.states, read.states);
    assert_eq!(shown.hashes, read.hashes);
    let mut seqs = read.seqs.clone();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), read.seqs.len(), "no two updates have one place");
}

//! What becomes of an update when a source says something of it: a decision over its head.

use super::record::{BodyKey, Card, Claim, Head, Staged, body_key};
use crate::lifecycle::{Expiry, Why};
use crate::name::{SourceName, UpdateId};
use crate::update::{Publication, Update};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What a decision is made with.
pub(super) struct Merge<'a> {
    /// Which update.
    pub id: UpdateId,
    /// Whose word counts first.
    pub order: &'a [SourceName],
    /// The time.
    pub now: Timestamp,
    /// The place in the order of changes that the update gets if it is seen to change.
    pub seq: u64,
}

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) struct Merged {
    pub head: Head,
    /// Bodies that nothing shows any more.
    pub dropped: Vec<BodyKey>,
}

impl Merge<'_> {
    /// What becomes of `old` now that `source` says this. `body` reads what another source said, where its
    /// word counts now. Nothing, if there is nothing to be changed.
    pub fn said<E>(
        &self,
        old: Option<Head>,
        source: &SourceName,
        staged: Staged,
        body: impl FnOnce(&BodyKey) -> Result<Option<Update>, E>,
    ) -> Result<Option<Merged>, E> {
        let mut claims = match &old {
            // Of a purged update no body is left, so only who says it again says it.
            Some(head) if head.purged.is_some() && matches!(staged, Staged::Said { .. }) => {
                BTreeMap::new()
            }
            Some(head) => head.claims.clone(),
            None => BTreeMap::new(),
        };
        let (card, left) = match staged {
            Staged::Said { claim, card } => {
                claims.insert(source.clone(), claim);
                (Some((source, *card)), Why::Withdrawn)
            }
            Staged::Gone => {
                claims.remove(source);
                (None, Why::Withdrawn)
            }
            Staged::Outside => {
                claims.remove(source);
                (None, Why::Criteria)
            }
        };
        self.resolve(old, claims, card, left, body)
    }

    /// What becomes of `old` when the order of sources is another.
    pub fn reordered<E>(
        &self,
        old: Head,
        body: impl FnOnce(&BodyKey) -> Result<Option<Update>, E>,
    ) -> Result<Option<Merged>, E> {
        let claims = old.claims.clone();
        self.resolve(Some(old), claims, None, Why::Withdrawn, body)
    }

    fn resolve<E>(
        &self,
        old: Option<Head>,
        claims: BTreeMap<SourceName, Claim>,
        said: Option<(&SourceName, Card)>,
        left: Why,
        body: impl FnOnce(&BodyKey) -> Result<Option<Update>, E>,
    ) -> Result<Option<Merged>, E> {
        let first = self.first(&claims).map(|(source, claim)| (source.clone(), claim.clone()));
        let Some((source, claim)) = first else {
            // Nobody says it: what was shown last stays shown.
            return Ok(old.and_then(|old| {
                let at = old.expired.map_or(self.now, |expired| expired.at);
                let stands =
                    old.purged.is_some() || old.expired.is_some_and(|e| !e.why.is_by_policy());
                let expired = if stands { old.expired } else { Some(Expiry { at, why: left }) };
                let head = Head { claims, expired, ..old.clone() };
                self.merged(Some(&old), head)
            }));
        };
        let is_alive = old.as_ref().is_some_and(|old| old.purged.is_none());
        let shown =
            old.as_ref().filter(|old| is_alive && old.source == source && old.hash == claim.hash);
        let card = match (said, shown) {
            (_, Some(old)) => old.card.clone(),
            (Some((by, card)), None) if *by == source => card,
            (_, None) => {
                let found = body(&body_key(self.id, &source, claim.hash))?;
                let Some(update) = found else { return Ok(None) };
                Card::of(&update)
            }
        };
        let counted = old.as_ref().map_or(0, |old| old.revision);
        // Another source that says the same, word by word, does not make a revision.
        let says_the_same = is_alive && old.as_ref().is_some_and(|old| old.hash == claim.hash);
        let counted = if says_the_same { counted } else { counted.saturating_add(1) };
        let before = old.as_ref().and_then(|old| old.expired);
        let forced = match (card.publication, claim.expired) {
            (Publication::Expired, _) => Some(Expiry { at: self.now, why: Why::Upstream }),
            (_, given) => given,
        };
        let expired = match (forced, before) {
            (Some(forced), Some(before)) if forced.why == before.why => Some(before),
            (Some(forced), _) => Some(forced),
            (None, before) => before.filter(|before| is_alive && before.why.is_by_policy()),
        };
        let head = Head {
            seq: self.seq,
            source,
            hash: claim.hash,
            revision: claim.revision.unwrap_or(counted),
            first_seen: old.as_ref().map_or(self.now, |old| old.first_seen),
            changed: shown.map_or(self.now, |old| old.changed),
            expired,
            purged: None,
            card,
            claims,
        };
        Ok(self.merged(old.as_ref(), head))
    }

    /// The source whose word counts.
    fn first<'a>(
        &self,
        claims: &'a BTreeMap<SourceName, Claim>,
    ) -> Option<(&'a SourceName, &'a Claim)> {
        let place = |source: &SourceName| self.order.iter().position(|other| other == source);
        claims.iter().min_by_key(|(source, _)| place(source).unwrap_or(usize::MAX))
    }

    fn merged(&self, old: Option<&Head>, mut head: Head) -> Option<Merged> {
        let Some(old) = old else { return Some(Merged { head, dropped: Vec::new() }) };
        let is_seen = |head: &Head| (head.hash, head.revision, head.expired, head.purged);
        head.seq = if is_seen(old) == is_seen(&head) { old.seq } else { self.seq };
        if *old == head {
            return None;
        }
        let before = bodies(self.id, old);
        let dropped = before.difference(&bodies(self.id, &head)).cloned().collect();
        Some(Merged { head, dropped })
    }
}

/// The bodies that are kept for a head: what is shown, and what else is said.
pub(super) fn bodies(id: UpdateId, head: &Head) -> BTreeSet<BodyKey> {
    if head.purged.is_some() {
        return BTreeSet::new();
    }
    let said = head.claims.iter().map(|(source, claim)| body_key(id, source, claim.hash));
    said.chain([head.body(id)]).collect()
}

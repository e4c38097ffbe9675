//! Updates grow old: what a policy would do, and doing it in bounded steps.

use super::board::{Board, time};
use super::merge::{Merged, bodies};
use super::publish::{STEP, Work, put};
use super::record::{Card, HEADS, Head, MARKS, Marks};
use super::{Ageing, Deployments, Named, Shared, Step};
use crate::error::SyncError;
use crate::lifecycle::{Decision, Expiry, Facts, Policy, State, Why, decide};
use crate::name::UpdateId;
use jiff::{Span, Timestamp};
use sitedb::Batch;

/// The mark of a purged update that no source says any more is kept so long: a child site that was away
/// longer reads the catalogue anew.
const MARK_DAYS: i64 = 400;

/// The updates of a board whose life goes on under a policy, and how. Not those that the parent site says: it
/// decides for both.
fn steps<'a>(
    board: &'a Board,
    policy: &'a Policy,
    deployments: &'a dyn Deployments,
    now: Timestamp,
) -> impl Iterator<Item = (usize, Decision)> + 'a {
    let is_ours = |row: &usize| board.states[*row] != State::Purged && !board.is_given[*row];
    (0..board.len()).filter(is_ours).filter_map(move |row| {
        let facts = |used| Facts {
            classification: board.classifications[row],
            superseded: board
                .first_superseder(row)
                .map(|by| (board.ids[by], time(board.created[by]))),
            expired: board.expired(row),
            used,
        };
        // Who keeps deployments is asked only of what could be purged.
        let unused = facts(crate::lifecycle::Use::Never);
        let mut decision = decide(&unused, policy, now);
        if decision.state == State::Purged {
            decision = decide(&facts(deployments.of(board.ids[row])), policy, now);
        }
        let is_same = decision.state == board.states[row] && decision.expired == board.expired(row);
        (!is_same).then_some((row, decision))
    })
}

impl Ageing {
    fn count(&mut self, from: State, to: State) {
        match to {
            State::Purged => self.purge += 1,
            State::Expired if from < State::Expired => self.expire += 1,
            State::Current | State::Superseded => self.reinstate += 1,
            State::Expired => {}
        }
    }
}

impl Shared {
    /// See [`super::Catalogue::preview`].
    pub(super) fn preview(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Result<Ageing, SyncError> {
        self.on_one_board(|board| {
            let mut ageing = Ageing { complete: true, ..Ageing::default() };
            for (row, decision) in steps(board, policy, deployments, now) {
                let (from, to) = (board.states[row], decision.state);
                ageing.count(from, to);
                if ageing.steps.len() < most {
                    let Some(card) = self.card(board, row)? else { return Ok(None) };
                    let (id, name, expired) = (board.ids[row], card.name, decision.expired);
                    let superseded_by = self.replacing(expired)?;
                    ageing.steps.push(Step { id, name, from, to, expired, superseded_by });
                }
            }
            Ok(Some(ageing))
        })
    }

    /// What an expired update was replaced by, where that is why.
    fn replacing(&self, expired: Option<Expiry>) -> Result<Option<Named>, SyncError> {
        match expired.map(|expired| expired.why) {
            Some(Why::Superseded { by }) => Ok(self.named(std::iter::once(by))?.pop()),
            _ => Ok(None),
        }
    }

    /// See [`super::Catalogue::age`].
    pub(super) fn age(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Result<Ageing, SyncError> {
        let mut work = self.work.lock();
        self.catch_up(&mut work)?;
        let board = self.board();
        let mut ageing = Ageing::default();
        let mut to_do: Vec<_> = steps(&board, policy, deployments, now).take(most + 1).collect();
        ageing.complete = to_do.len() <= most;
        to_do.truncate(most);
        let forgotten = self.forgettable(&board, now, most);
        if to_do.is_empty() && forgotten.is_empty() {
            return Ok(ageing);
        }
        let was_behind = std::mem::replace(&mut work.is_behind, true);
        let mut changed = Vec::with_capacity(to_do.len());
        for rows in to_do.chunks(STEP) {
            let mut batch = Batch::relaxed();
            for (row, decision) in rows {
                let id = board.ids[*row];
                let Some(head) = HEADS.get(&self.db, &id)? else { continue };
                let (from, to) = (board.states[*row], decision.state);
                ageing.count(from, to);
                let (name, expired) = (head.card.name.clone(), decision.expired);
                let superseded_by = self.replacing(expired)?;
                ageing.steps.push(Step { id, name, from, to, expired, superseded_by });
                put(&mut batch, id, &aged(&mut work, id, head, decision, now));
                changed.push(id);
            }
            self.db.kv().write(batch)?;
        }
        let mut marks = MARKS.get(&self.db, &())?.unwrap_or_default();
        for rows in forgotten.chunks(STEP) {
            let mut batch = Batch::relaxed();
            for row in rows {
                HEADS.delete(&mut batch, &board.ids[*row]);
                changed.push(board.ids[*row]);
                marks.forgotten = marks.forgotten.max(board.seqs[*row]);
            }
            // Before the marks are gone it is written that they are.
            MARKS.put(&mut batch, &(), &Marks { seq: work.seq, ..marks });
            self.db.kv().write(batch)?;
        }
        let mut batch = Batch::new();
        MARKS.put(&mut batch, &(), &Marks { seq: work.seq, ..marks });
        self.db.kv().write(batch)?;
        work.is_behind = was_behind;
        changed.sort_unstable();
        self.show(&mut work, &changed)?;
        Ok(ageing)
    }

    /// The marks of purged updates that nobody needs any more: no source says them, all children have read
    /// of them, and what they replaced is gone too.
    fn forgettable(&self, board: &Board, now: Timestamp, most: usize) -> Vec<usize> {
        let Ok(long_ago) = now.checked_sub(Span::new().hours(MARK_DAYS * 24)) else {
            return Vec::new();
        };
        let is_old = |row: &usize| {
            board.states[*row] == State::Purged
                && board.changed[*row] < long_ago.as_second()
                && board.said_by(*row).next().is_none()
                && board.supersedes(*row).iter().all(|id| board.visible(*id).is_none())
        };
        (0..board.len()).filter(is_old).take(most).collect()
    }
}

/// The head of an update after a step.
fn aged(work: &mut Work, id: UpdateId, old: Head, decision: &Decision, now: Timestamp) -> Merged {
    let seq = work.next_seq();
    if decision.state != State::Purged {
        let head = Head { seq, expired: decision.expired, ..old };
        return Merged { head, dropped: Vec::new() };
    }
    let dropped = bodies(id, &old).into_iter().collect();
    // What the graph of supersedence needs stays, and what messages call it.
    let card = Card {
        name: old.card.name.clone(),
        kind: old.card.kind,
        created: old.card.created,
        released: old.card.released,
        publication: old.card.publication,
        supersedes: old.card.supersedes.clone(),
        ..Card::default()
    };
    let expired = decision.expired;
    let head = Head { seq, expired, purged: Some(now), changed: now, card, ..old };
    Merged { head, dropped }
}

//! Assessing all updates of the catalogue that lies on the machine.
//!
//! They are read shard after shard, and one is in memory at a time; what is kept is their states.

use crate::applicability::{Assessor, State};
use crate::catalogue::{Shelf, platform_of};
use crate::facts::Facts;
use crate::ledger::Known;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use sync::name::UpdateId;
use sync::update::Kind;

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Each update and its state.
    pub found: BTreeMap<UpdateId, Known>,
    /// How many are in which state.
    pub counts: Counts,
    /// The place of the catalogue.
    pub catalogue: u64,
    /// Of required updates with items that do not all apply, those that do.
    pub items: BTreeMap<UpdateId, BTreeSet<u32>>,
}

/// How many updates are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Those that the machine needs.
    pub required: u64,
    /// Of these, those that only await a restart.
    pub awaits_restart: u64,
    /// Those that it has.
    pub installed: u64,
    /// Those that are not for it.
    pub not_required: u64,
    /// Those of which nobody can tell.
    pub unknown: u64,
    /// Those that this program cannot read: a newer site says more of them.
    pub unreadable: u64,
}

impl Counts {
    fn add(&mut self, known: Known) {
        self.awaits_restart += u64::from(known.awaits_restart);
        *match known.state {
            State::Required => &mut self.required,
            State::Installed => &mut self.installed,
            State::NotRequired => &mut self.not_required,
            State::Unknown => &mut self.unknown,
        } += 1;
    }
}

/// Assesses each update for a machine.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where some of the catalogue must be brought first; else the disk failed.
pub fn evaluate(
    facts: &dyn Facts,
    shelf: &Shelf,
    awaiting_restart: &BTreeSet<UpdateId>,
) -> io::Result<Evaluation> {
    let shelved = shelf.shelved(platform_of(facts.system().platform))?;
    let mut assessor = Assessor::new(facts, &shelved).awaiting_restart(awaiting_restart);
    let catalogue = shelf.manifest().map_or(0, |manifest| manifest.seq);
    let mut evaluation = Evaluation { catalogue, ..Evaluation::default() };
    shelved.each(|entry| match entry {
        // What others speak of, and nobody installs.
        Ok(entry) if matches!(entry.update.kind, Kind::Category | Kind::Detectoid) => {}
        Ok(entry) => {
            let verdict = assessor.assess(&entry.update);
            let (state, awaits_restart) = (verdict.state, verdict.awaits_restart);
            let known = Known { state, revision: entry.revision, awaits_restart };
            if state == State::Required && entry.update.items.iter().any(|it| !it.rules.is_empty())
            {
                evaluation.items.insert(entry.update.id, assessor.items(&entry.update));
            }
            evaluation.counts.add(known);
            evaluation.found.insert(entry.update.id, known);
        }
        Err(_) => evaluation.counts.unreadable += 1,
    })?;
    Ok(evaluation)
}

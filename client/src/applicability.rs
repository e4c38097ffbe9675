//! Whether an update applies to a machine, and in which state it is there.
//!
//! Of each update four things are asked, with three answers each ([`Truths`]): whether what it requires is
//! there, whether something newer is in its place, whether it is installed, whether it can be. Its state is
//! the one that follows however the unknown among these turns out; where several could, it is unknown.
//!
//! * An update whose rules speak of other kinds of machines only is not required.
//! * Of several items those count that can be installed, and are not superseded: the update is installed
//!   where one is and none of these lacks.
//! * A bundle is installed where each of its groups has a part that is, and can be where a part can be that
//!   is not installed yet.
//! * Of an update that has no rule for it, it is not known to be installed and taken to be installable, as
//!   clients of WSUS do; a category without one is there, and a detectoid without one nobody can judge.

mod graph;
pub(crate) mod leaf;
mod windows;

use crate::facts::Facts;
use crate::truth::Truth;
use graph::Standing;
use leaf::{Scope, Tell};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use sync::name::UpdateId;
use sync::rule::{Rule, Rules};
use sync::update::{AnyOf, Item, Kind, Update};

/// Where the updates are found that others require or hold.
///
/// * One id gives the same update all the while a scan goes on.
pub trait Catalogue {
    /// The update of that id; none, if there is none.
    fn update(&self, id: UpdateId) -> Option<Arc<Update>>;
}

impl Catalogue for HashMap<UpdateId, Arc<Update>> {
    fn update(&self, id: UpdateId) -> Option<Arc<Update>> {
        self.get(&id).cloned()
    }
}

/// The state of an update on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody can tell.
    Unknown,
    /// It does not apply, or something newer is in its place.
    NotRequired,
    /// It applies and is not installed, or is not before the machine was restarted.
    Required,
    /// It applies and is installed.
    Installed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::NotRequired => "not required",
            Self::Required => "required",
            Self::Installed => "installed",
        })
    }
}

/// What came of assessing an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its state.
    pub state: State,
    /// Whether it is required only until the machine is restarted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub awaits_restart: bool,
    /// Of one that is unknown, what it is that nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What is asked of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truths {
    /// Whether of each group that it requires one is there.
    pub prerequisites: Truth,
    /// Whether something newer is installed in its place.
    pub superseded: Truth,
    /// Whether it is installed.
    pub installed: Truth,
    /// Whether it can be.
    pub installable: Truth,
}

impl Truths {
    /// Those of an update that is for other machines.
    const FOREIGN: Truths = Truths {
        prerequisites: Truth::True,
        superseded: Truth::False,
        installed: Truth::False,
        installable: Truth::False,
    };
    /// Those of one that cannot be judged.
    const UNKNOWN: Truths = Truths {
        prerequisites: Truth::Unknown,
        superseded: Truth::Unknown,
        installed: Truth::Unknown,
        installable: Truth::Unknown,
    };

    /// The state that follows, however the unknown turns out.
    pub fn state(self) -> State {
        let mut found: Option<State> = None;
        for prerequisites in self.prerequisites.outcomes() {
            for superseded in self.superseded.outcomes() {
                for installed in self.installed.outcomes() {
                    for installable in self.installable.outcomes() {
                        let state = match (prerequisites, superseded, installed, installable) {
                            (false, ..) | (_, true, ..) => State::NotRequired,
                            (_, _, true, _) => State::Installed,
                            (_, _, false, true) => State::Required,
                            (_, _, false, false) => State::NotRequired,
                        };
                        if found.is_some_and(|other| other != state) {
                            return State::Unknown;
                        }
                        found = Some(state);
                    }
                }
            }
        }
        found.unwrap_or(State::Unknown)
    }

    /// Whether it is there, as what others require.
    fn is_there(self) -> Truth {
        self.prerequisites.and(self.installed)
    }

    /// Whether it is to be installed, as a part of a bundle.
    fn is_wanted(self) -> Truth {
        Truth::all([self.prerequisites, !self.superseded, self.installable, !self.installed])
    }
}

/// Assesses updates on one machine. What is found of an update that others speak of is kept for the next.
pub struct Assessor<'a> {
    facts: &'a dyn Facts,
    catalogue: &'a dyn Catalogue,
    awaiting_restart: Option<&'a BTreeSet<UpdateId>>,
    known: HashMap<UpdateId, Standing>,
}

impl<'a> Assessor<'a> {
    /// For the machine of these facts, with the updates of this catalogue.
    pub fn new(facts: &'a dyn Facts, catalogue: &'a dyn Catalogue) -> Self {
        Self { facts, catalogue, awaiting_restart: None, known: HashMap::new() }
    }

    /// With the updates that were installed and wait for a restart of the machine.
    pub fn awaiting_restart(mut self, updates: &'a BTreeSet<UpdateId>) -> Self {
        self.awaiting_restart = Some(updates);
        self
    }

    /// The machine.
    pub fn facts(&self) -> &'a dyn Facts {
        self.facts
    }

    /// The catalogue.
    pub(crate) fn catalogue(&self) -> &'a dyn Catalogue {
        self.catalogue
    }

    /// The state of an update.
    pub fn assess(&mut self, update: &Update) -> Verdict {
        let state = self.truths(update).state();
        let waits = self.awaiting_restart.is_some_and(|waiting| waiting.contains(&update.id));
        let awaits_restart = waits && state == State::Installed;
        let state = if awaits_restart { State::Required } else { state };
        let why = (state == State::Unknown).then(|| self.why_unknown(update));
        Verdict { state, awaits_restart, why }
    }

    /// The items of an update that are to be installed, by their places: those that are not known to be there, or not
    /// to apply.
    pub fn items(&self, update: &Update) -> BTreeSet<u32> {
        let is_wanted = |item: &Item| {
            let truths = self.item(update, item);
            truths.can_be.and(!truths.is) != Truth::False
        };
        let items = (0..).zip(&update.items).filter(|(_, item)| is_wanted(item));
        items.map(|(place, _)| place).collect()
    }

    /// What is asked of an update.
    pub fn truths(&mut self, update: &Update) -> Truths {
        graph::settle(self, update);
        match self.known.get(&update.id) {
            Some(Standing::InCircle) => Truths::UNKNOWN,
            _ => self.truths_of(update),
        }
    }

    /// The same, where those of all that it speaks of are known.
    fn truths_of(&self, update: &Update) -> Truths {
        if leaf::is_for_others(update, self.facts) {
            return Truths::FOREIGN;
        }
        let holds = |rule: &Option<Rule>, otherwise: Truth| match rule {
            Some(rule) => self.holds(rule, &Scope::of(update, &update.rules)),
            None => otherwise,
        };
        let items = update.items.iter().filter(|item| !item.rules.is_empty());
        let items: Vec<ItemTruths> = items.map(|item| self.item(update, item)).collect();
        let parts = |of: fn(Truths) -> Truth, otherwise: Truth| {
            move |group: &AnyOf| {
                Truth::any(group.ids.iter().map(|id| self.of_other(*id, of, otherwise)))
            }
        };
        let installed = match (&update.rules.installed, update.kind) {
            (Some(rule), _) => self.holds(rule, &Scope::of(update, &update.rules)),
            (None, Kind::Category) => Truth::True,
            (None, Kind::Detectoid) => Truth::Unknown,
            (None, _) if !update.bundles.is_empty() => {
                Truth::all(update.bundles.iter().map(parts(Truths::is_there, Truth::Unknown)))
            }
            (None, _) => installed(&items),
        };
        let installable = holds(&update.rules.installable, Truth::True);
        let installable = match (update.bundles.is_empty(), items.is_empty()) {
            (false, _) => {
                let mut groups = update.bundles.iter();
                installable
                    .and(Truth::any(groups.by_ref().map(parts(Truths::is_wanted, Truth::Unknown))))
            }
            (true, false) => installable.and(Truth::any(items.iter().map(|item| item.can_be))),
            (true, true) => installable,
        };
        let prerequisites = update.prerequisites.iter().filter(|group| !group.ids.is_empty());
        let prerequisites = Truth::all(prerequisites.map(|group| {
            // A category that is not held says where an update belongs, not what it needs.
            let otherwise = if group.is_category { Truth::True } else { Truth::Unknown };
            parts(Truths::is_there, otherwise)(group)
        }));
        let superseded = holds(&update.rules.superseded, Truth::False);
        Truths { prerequisites, superseded, installed, installable }
    }

    /// What an update is to others that speak of it; `otherwise`, if there is no such update.
    pub(crate) fn of_other(
        &self,
        id: UpdateId,
        of: fn(Truths) -> Truth,
        otherwise: Truth,
    ) -> Truth {
        match self.known.get(&id) {
            Some(Standing::Known(truths)) => of(*truths),
            Some(Standing::InCircle) => Truth::Unknown,
            Some(Standing::Missing) | None => otherwise,
        }
    }

    /// Whether an update that others speak of is there.
    pub(crate) fn other_is_there(&self, id: UpdateId, otherwise: Truth) -> Truth {
        self.of_other(id, Truths::is_there, otherwise)
    }

    /// Whether it is one of a circle of updates that require each other.
    pub(crate) fn is_in_circle(&self, id: UpdateId) -> bool {
        matches!(self.known.get(&id), Some(Standing::InCircle))
    }

    fn item(&self, update: &Update, item: &Item) -> ItemTruths {
        let scope = Scope::of(update, &item.rules);
        let holds = |rule: &Option<Rule>, otherwise| match rule {
            Some(rule) => self.holds(rule, &scope),
            None => otherwise,
        };
        let can_be = holds(&item.rules.installable, Truth::True);
        ItemTruths {
            is: holds(&item.rules.installed, Truth::False),
            can_be: can_be.and(!holds(&item.rules.superseded, Truth::False)),
        }
    }

    /// Whether a rule holds.
    pub(crate) fn holds(&self, rule: &Rule, scope: &Scope<'_>) -> Truth {
        holds(rule, self.facts, scope)
    }

    /// What it is that nobody knows of an update.
    fn why_unknown(&self, update: &Update) -> String {
        if self.is_in_circle(update.id) {
            return "it requires an update that requires it".into();
        }
        let groups = update.prerequisites.iter().chain(&update.bundles);
        for id in groups.flat_map(|group| &group.ids) {
            match self.known.get(id) {
                Some(Standing::Missing) | None => {
                    return format!("the update {id}, of which it speaks, is not in the catalogue");
                }
                Some(Standing::InCircle) => {
                    return format!("the update {id}, of which it speaks, is one of a circle");
                }
                Some(Standing::Known(truths)) => {
                    if truths.is_there() == Truth::Unknown {
                        return format!(
                            "of the update {id}, of which it speaks, too little is known"
                        );
                    }
                }
            }
        }
        let own = |rules: &Rules| {
            let scope = Scope::of(update, rules);
            let mut rules = [&rules.installed, &rules.installable, &rules.superseded].into_iter();
            rules.find_map(|rule| first_unknown(rule.as_ref()?, self.facts, &scope))
        };
        let found = own(&update.rules);
        found
            .or_else(|| update.items.iter().find_map(|item| own(&item.rules)))
            .unwrap_or_else(|| "too little is known of it".into())
    }
}

/// What is asked of an item.
struct ItemTruths {
    is: Truth,
    can_be: Truth,
}

/// Whether an update of these items is installed: one is, and none lacks that can be.
fn installed(items: &[ItemTruths]) -> Truth {
    let lacks = |item: &ItemTruths| item.can_be.and(!item.is);
    let one_is = Truth::any(items.iter().map(|item| item.is));
    one_is.and(!Truth::any(items.iter().map(lacks)))
}

/// Whether a rule holds on a machine.
pub(crate) fn holds(rule: &Rule, facts: &dyn Facts, scope: &Scope<'_>) -> Truth {
    match rule {
        Rule::True => Truth::True,
        Rule::False => Truth::False,
        Rule::And(parts) => Truth::all(parts.iter().map(|part| holds(part, facts, scope))),
        Rule::Or(parts) => Truth::any(parts.iter().map(|part| holds(part, facts, scope))),
        Rule::Not(part) => !holds(part, facts, scope),
        leaf => leaf::holds(leaf, facts, scope, &mut Tell::none()),
    }
}

/// Whether a rule that stands alone holds on a machine.
pub fn rule_holds(rule: &Rule, facts: &dyn Facts) -> Truth {
    holds(rule, facts, &Scope::default())
}

/// Of a rule whose answer is unknown, what the first part of it lacks of which nobody knows.
fn first_unknown(rule: &Rule, facts: &dyn Facts, scope: &Scope<'_>) -> Option<String> {
    if holds(rule, facts, scope) != Truth::Unknown {
        return None;
    }
    match rule {
        Rule::And(parts) | Rule::Or(parts) => {
            parts.iter().find_map(|part| first_unknown(part, facts, scope))
        }
        Rule::Not(part) => first_unknown(part, facts, scope),
        leaf => {
            let mut said = String::new();
            leaf::holds(leaf, facts, scope, &mut Tell::into(&mut said));
            Some(said)
        }
    }
}

#[cfg(test)]
mod tests;

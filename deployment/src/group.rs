//! Groups of updates: what is deployed together.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::collections::{BTreeMap, BTreeSet};
use sync::name::UpdateId;

/// How many updates a group may have: as many as a client tells of one deployment.
pub const MAX_UPDATES: usize = crate::enforcement::MAX_ITEMS;
/// The longest comment, in bytes.
pub const MAX_COMMENT: usize = 1_000;

/// What a group is, but for its updates: those are kept apart, since there may be many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// When it was made.
    pub created: Timestamp,
}
impl Value for GroupRecord {}

/// A group of updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is.
    pub record: GroupRecord,
    /// Its updates, and since when each is in it.
    pub updates: BTreeMap<UpdateId, Timestamp>,
}

impl Group {
    /// Its updates.
    pub fn ids(&self) -> impl Iterator<Item = UpdateId> + '_ {
        self.updates.keys().copied()
    }
}

/// What became of a group's updates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regrouped {
    /// Those that came into it.
    pub added: BTreeSet<UpdateId>,
    /// Those that are out of it.
    pub removed: BTreeSet<UpdateId>,
}

/// What is changed of a group's updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regroup {
    /// Some come into it, and some out of it.
    Change {
        /// Which come.
        add: BTreeSet<UpdateId>,
        /// Which go.
        remove: BTreeSet<UpdateId>,
    },
    /// These are its updates from now on, and no others.
    Replace(BTreeSet<UpdateId>),
}

impl Regroup {
    /// What becomes of these updates.
    pub fn of(self, updates: &BTreeMap<UpdateId, Timestamp>) -> Regrouped {
        let (add, remove) = match self {
            Self::Change { add, remove } => (add, remove),
            Self::Replace(all) => {
                let remove = updates.keys().filter(|id| !all.contains(id)).copied().collect();
                (all, remove)
            }
        };
        Regrouped {
            added: add.into_iter().filter(|id| !updates.contains_key(id)).collect(),
            removed: remove.into_iter().filter(|id| updates.contains_key(id)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_keeps_its_time() {
        let id = |name: &str| UpdateId::named(&[name]);
        let had = BTreeMap::from([(id("a"), Timestamp::UNIX_EPOCH), (id("b"), Timestamp::MIN)]);
        let done = Regroup::Replace([id("b"), id("c")].into()).of(&had);
        assert_eq!((done.added, done.removed), ([id("c")].into(), [id("a")].into()));
        let both = Regroup::Change { add: [id("a")].into(), remove: [id("x"), id("b")].into() };
        assert_eq!(both.of(&had), Regrouped { added: [].into(), removed: [id("b")].into() });
    }
}

//! Collections: sets of clients, by name and by what is true of them.

use crate::name::CollectionName;
use crate::rule::Rule;
use crate::window::Window;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How many rules or windows a collection may have.
pub const MAX_RULES: usize = 200;
/// How many collections it may name.
pub const MAX_NAMED: usize = 1_000;
/// The longest comment, in bytes.
pub const MAX_COMMENT: usize = 1_000;

/// What a collection is, but for the clients that it names: those are kept apart, since there may be many.
///
/// Its members are the clients that it names, that one of its rules means, or that are in a collection which
/// it includes; of them only who is in the limiting collection; and nobody who is in one that it excludes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collection {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Nobody is in it who is not in this one; without it, all may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<CollectionName>,
    /// Who is meant by one of them is in it.
    pub rules: BTreeMap<CollectionName, Rule>,
    /// Who is in one of these is in it.
    pub include: BTreeSet<CollectionName>,
    /// Who is in one of these is not.
    pub exclude: BTreeSet<CollectionName>,
    /// When its members may be worked on.
    pub windows: BTreeMap<CollectionName, Window>,
}

impl Value for Collection {}

impl Collection {
    /// The collections that its members depend on.
    pub fn needs(&self) -> impl Iterator<Item = &CollectionName> {
        self.limit.iter().chain(&self.include).chain(&self.exclude)
    }

    /// What of it is over the limits, in words.
    pub(crate) fn too_much(&self) -> Option<String> {
        let n_named = self.include.len() + self.exclude.len();
        if self.rules.len() > MAX_RULES {
            return Some(format!("has more than {MAX_RULES} rules"));
        }
        if self.windows.len() > MAX_RULES {
            return Some(format!("has more than {MAX_RULES} maintenance windows"));
        }
        if n_named > MAX_NAMED {
            return Some(format!("includes and excludes more than {MAX_NAMED} others"));
        }
        (self.comment.len() > MAX_COMMENT)
            .then(|| format!("has a comment of more than {MAX_COMMENT} bytes"))
    }
}

//! Refs: the named roots that keep content alive.
//!
//! A ref is a name, an optional root content, and a value that only the layer above understands.
//! Ref changes are records in packs, so that packages outlive the index. A commit changes any
//! number of refs together or none.

use crate::digest::Digest;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The longest ref name in bytes.
pub const MAX_REF_NAME: usize = 512;
/// The longest ref value in bytes.
pub const MAX_REF_VALUE: usize = 1 << 20;

/// A named root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// The content that the ref keeps alive, with all that [`crate::Links`] says it names.
    pub root: Option<Digest>,
    /// What the layer above wants to remember with it.
    pub value: Bytes,
}

/// What must hold of a ref for its change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// It is not there.
    Absent,
    /// It is exactly this.
    Is(Ref),
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefChange {
    /// Makes or replaces a ref.
    Set {
        /// Its name.
        name: String,
        /// What it becomes.
        to: Ref,
        /// What must hold before.
        expect: Expect,
    },
    /// Removes a ref.
    Delete {
        /// Its name.
        name: String,
        /// What must hold before.
        expect: Expect,
    },
}

impl RefChange {
    /// The name of the ref it changes.
    pub fn name(&self) -> &str {
        match self {
            RefChange::Set { name, .. } | RefChange::Delete { name, .. } => name,
        }
    }

    pub(crate) fn expect(&self) -> &Expect {
        match self {
            RefChange::Set { expect, .. } | RefChange::Delete { expect, .. } => expect,
        }
    }

    pub(crate) fn outcome(&self) -> Option<&Ref> {
        match self {
            RefChange::Set { to, .. } => Some(to),
            RefChange::Delete { .. } => None,
        }
    }
}

/// Ref changes as a commit record holds them: name to new value, or to nothing.
pub(crate) type Outcomes = BTreeMap<String, Option<Ref>>;

/// A ref as the index keeps it.
pub(crate) fn encode_ref(found: &Ref) -> Vec<u8> {
    let mut out = Vec::with_capacity(33 + found.value.len());
    match &found.root {
        Some(root) => {
            out.push(1);
            out.extend_from_slice(root.as_bytes());
        }
        None => out.push(0),
    }
    out.extend_from_slice(&found.value);
    out
}

/// Reads what [`encode_ref`] wrote.
pub(crate) fn decode_ref(bytes: &[u8]) -> Option<Ref> {
    let (&flag, rest) = bytes.split_first()?;
    let (root, value) = match flag {
        0 => (None, rest),
        1 => {
            let (root, value) = rest.split_at_checked(32)?;
            (Some(Digest::from_bytes(root.try_into().ok()?)), value)
        }
        _ => return None,
    };
    (value.len() <= MAX_REF_VALUE).then(|| Ref { root, value: Bytes::copy_from_slice(value) })
}

/// The body of a commit or checkpoint record.
pub(crate) fn encode_outcomes(outcomes: &Outcomes) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(outcomes.len() as u32).to_le_bytes());
    for (name, outcome) in outcomes {
        let value = outcome.as_ref().map(encode_ref).unwrap_or_default();
        out.push(outcome.is_some().into());
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&value);
    }
    out
}

/// Reads what [`encode_outcomes`] wrote.
pub(crate) fn decode_outcomes(bytes: &[u8]) -> Option<Outcomes> {
    let (count, mut rest) = bytes.split_at_checked(4)?;
    let count = u32::from_le_bytes(count.try_into().ok()?);
    let mut outcomes = Outcomes::new();
    for _ in 0..count {
        let (head, tail) = rest.split_at_checked(7)?;
        let name_len = usize::from(u16::from_le_bytes([head[1], head[2]]));
        let value_len = u32::from_le_bytes(head[3..].try_into().ok()?) as usize;
        let (name, tail) = tail.split_at_checked(name_len)?;
        let (value, tail) = tail.split_at_checked(value_len)?;
        let outcome = if head[0] == 1 { Some(decode_ref(value)?) } else { None };
        outcomes.insert(String::from_utf8(name.to_vec()).ok()?, outcome);
        rest = tail;
    }
    rest.is_empty().then_some(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn commits_read_back(
            changes in prop::collection::btree_map(".{0,20}", prop::option::of((any::<bool>(), prop::collection::vec(any::<u8>(), 0..50))), 0..10),
        ) {
            let outcomes: Outcomes = changes.into_iter().map(|(name, to)| (name, to.map(|(root, value)| Ref {
                root: root.then_some(Digest::EMPTY),
                value: value.into(),
            }))).collect();
            prop_assert_eq!(decode_outcomes(&encode_outcomes(&outcomes)), Some(outcomes));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_outcomes(&bytes);
        }
    }
}

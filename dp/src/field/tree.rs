//! A digest tree over facts: whether two sides know the same, and if not, which part to tell again.
//!
//! What a point should hold ([`Wish::tree`](super::Wish::tree)) is told in the same way as what it does.
//!
//! A package's name decides which of 256 branches its facts are in. A branch has a digest of its facts,
//! and the root one of the branches. A point whose state is still as the site knows it says so in one
//! root, however much it holds; where something changed, it tells the branch that it is in.

use super::{Fact, FactState};
use packager::PackageName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A branch's number.
pub type Branch = u8;

/// Which branch the facts of a package are in.
pub fn branch_of(package: &PackageName) -> Branch {
    blake3::hash(package.as_str().as_bytes()).as_bytes()[0]
}

/// The first half of a BLAKE3: of a branch's facts or wishes, or of a tree's branches. In JSON 32 hex
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactsDigest([u8; 16]);

impl FactsDigest {
    fn of(hash: &blake3::Hasher) -> Self {
        let mut half = [0; 16];
        hash.finalize_xof().fill(&mut half);
        Self(half)
    }

    /// Of what `it` is in JSON. It has text for keys and whole numbers.
    pub(super) fn of_json(it: &impl Serialize) -> Self {
        let mut hash = blake3::Hasher::new();
        let hashed = serde_json::to_writer(&mut hash, it);
        debug_assert!(hashed.is_ok(), "a hash takes all");
        Self::of(&hash)
    }
}

impl fmt::Display for FactsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that is no digest of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want 32 hex digits")]
pub struct NotADigest;

impl FromStr for FactsDigest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        bits.map(|bits| Self(bits.to_be_bytes())).ok_or(NotADigest)
    }
}

impl Serialize for FactsDigest {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FactsDigest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The digests of all branches that have facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree(pub BTreeMap<Branch, FactsDigest>);

impl Tree {
    /// The tree of these facts, in whatever order they come. When a state began is left out: it
    /// follows from the state, and each side has a clock of its own.
    pub fn of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Self {
        let mut branches: BTreeMap<Branch, Vec<&Fact>> = BTreeMap::new();
        for fact in facts {
            branches.entry(branch_of(&fact.package)).or_default().push(fact);
        }
        let digest = |mut facts: Vec<&Fact>| {
            facts.sort_unstable_by_key(|fact| (&fact.package, fact.version));
            let mut hash = blake3::Hasher::new();
            for Fact { package, version, state, bytes, bytes_left, cause, since: _ } in facts {
                // It has text and whole numbers, and a hash takes all.
                let said: (&PackageName, &u64, &FactState, &u64, &u64, &Option<String>) =
                    (package, version, state, bytes, bytes_left, cause);
                let hashed = serde_json::to_writer(&mut hash, &said);
                debug_assert!(hashed.is_ok());
            }
            FactsDigest::of(&hash)
        };
        Self(branches.into_iter().map(|(branch, facts)| (branch, digest(facts))).collect())
    }

    /// The digest of all branches.
    pub fn root(&self) -> FactsDigest {
        let mut hash = blake3::Hasher::new();
        for (branch, digest) in &self.0 {
            hash.update(&[*branch]);
            hash.update(&digest.0);
        }
        FactsDigest::of(&hash)
    }

    /// The branches in which `other` differs.
    pub fn differing(&self, other: &Tree) -> Vec<Branch> {
        (0..=u8::MAX).filter(|branch| self.0.get(branch) != other.0.get(branch)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn fact(n: u64, state: FactState, left: u64) -> Fact {
        Fact {
            package: format!("package-{}", n / 2).parse().unwrap(),
            version: n,
            state,
            bytes: 10,
            bytes_left: left,
            cause: (left > 3).then(|| "late".into()),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_changed_is_in_one_branch_and_when_it_began_does_not_count() {
        let facts: Vec<Fact> = (0..9000).map(|n| fact(n, FactState::Held, 0)).collect();
        let tree = Tree::of(&facts);
        assert_eq!(tree.0.len(), 256);
        let mut other = facts.clone();
        other.reverse();
        other.iter_mut().for_each(|fact| fact.since = Timestamp::MAX);
        assert_eq!(Tree::of(&other), tree);
        other[7].bytes_left = 1;
        let changed = Tree::of(&other);
        assert_ne!(changed.root(), tree.root());
        assert_eq!(changed.differing(&tree), [branch_of(&other[7].package)]);
        other.retain(|fact| branch_of(&fact.package) != 9);
        assert!(Tree::of(&other).differing(&tree).contains(&9));
    }

    #[test]
    fn a_digest_reads_back_and_what_is_none_is_refused() {
        let root = Tree::default().root();
        assert_eq!(root.to_string().parse(), Ok(root));
        for bad in ["", "+0000000000000000000000000000000", "00", "zz"] {
            assert_eq!(bad.parse::<FactsDigest>(), Err(NotADigest));
        }
    }

    proptest! {
        /// Telling only the branches that differ comes to the same as telling all.
        #[test]
        fn branches_that_differ_are_all_that_need_be_told(
            before in proptest::collection::vec((0..400_u64, 0..9_u64), 0..80),
            after in proptest::collection::vec((0..400_u64, 0..9_u64), 0..80),
        ) {
            let facts = |said: Vec<(u64, u64)>| -> BTreeMap<u64, Fact> {
                let fact = |(n, left)| (n, fact(n, FactState::Failed, left));
                said.into_iter().map(fact).collect()
            };
            let (mut known, now) = (facts(before), facts(after));
            let (old, new) = (Tree::of(known.values()), Tree::of(now.values()));
            let told = new.differing(&old);
            let is_told = |fact: &Fact| told.contains(&branch_of(&fact.package));
            known.retain(|_, fact| !is_told(fact));
            known.extend(now.iter().filter(|(_, f)| is_told(f)).map(|(n, f)| (*n, f.clone())));
            prop_assert_eq!(Tree::of(known.values()).root(), new.root());
            prop_assert_eq!(known, now);
        }
    }
}

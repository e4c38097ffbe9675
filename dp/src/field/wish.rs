//! What a distribution point should hold, and what else it should do.
//!
//! A wish may be long, and mostly one package of it changes. So it is told by the branches of a digest tree
//! as facts are: a point that says which wish it has is told those that differ. The revision of a wish has
//! the tree's root, so both sides see that they came to the same.

use super::{Branch, FactsDigest, Settings, Tree, branch_of};
use packager::PackageName;
use packager::name::ChannelName;
use packager::sign::VersionInfo;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that a point should hold, under which names it should answer for it, and what is set for it.
///
/// Versions and names are many, and points that should hold the same share them in memory; what is
/// set is each point's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Names this state of the wish; a point says which it has when it asks for a newer one.
    pub revision: String,
    /// Each version to be held, each once.
    #[serde(with = "shared")]
    pub versions: Arc<Vec<Wanted>>,
    /// What `latest` and the channels of each package mean.
    #[serde(with = "shared")]
    pub names: Arc<BTreeMap<PackageName, Names>>,
    /// What is set for the point.
    #[serde(default)]
    pub settings: Settings,
}

/// What a site answers a point that asks for its wish: all of it, or what is not as the point has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishAnswer {
    /// The wish's name.
    pub revision: String,
    /// Its versions; where a change is told, those of the branches that changed.
    #[serde(with = "shared")]
    pub versions: Arc<Vec<Wanted>>,
    /// Its names, of the same packages.
    #[serde(with = "shared")]
    pub names: Arc<BTreeMap<PackageName, Names>>,
    /// What is set for the point, whole in any case.
    #[serde(default)]
    pub settings: Settings,
    /// What it changes; nothing where it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<WishChange>,
}

/// Which part of which wish an answer is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishChange {
    /// The revision of the wish that the point has.
    pub of: String,
    /// The branches whose versions and names take the place of those that it has.
    pub branches: Vec<Branch>,
}

/// A change that does not lead from the wish that is known to the one that it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change does not fit the wish that it is told for")]
pub struct Unfit;

/// Stands in a revision between what is wished and what is set.
const AND_SET: char = '.';

impl Wish {
    /// The wish for these versions and names, of which each is in the order of its packages and numbers.
    /// Nothing is set.
    pub fn new(versions: Vec<Wanted>, names: BTreeMap<PackageName, Names>) -> Self {
        let (versions, names) = (Arc::new(versions), Arc::new(names));
        let unnamed = Self { versions, names, ..Self::default() };
        Self { revision: unnamed.tree().root().to_string(), ..unnamed }
    }

    /// The same wish with these settings, under the revision that it has with them.
    pub fn set(&self, settings: Settings) -> Self {
        let mut revision = content_of(&self.revision).to_owned();
        if settings != Settings::default() {
            let set = FactsDigest::of_json(&settings);
            revision = format!("{revision}{AND_SET}{set}");
        }
        Self { revision, settings, ..self.clone() }
    }

    /// The digests of what is wished, by branch.
    pub fn tree(&self) -> Tree {
        type Its<'a> = (Vec<&'a Wanted>, Vec<(&'a PackageName, &'a Names)>);
        let mut branches: BTreeMap<Branch, Its<'_>> = BTreeMap::new();
        for wanted in self.versions.iter() {
            branches.entry(branch_of(&wanted.version.package)).or_default().0.push(wanted);
        }
        for names in self.names.iter() {
            branches.entry(branch_of(names.0)).or_default().1.push(names);
        }
        let digest = |(branch, its): (Branch, Its<'_>)| (branch, FactsDigest::of_json(&its));
        Tree(branches.into_iter().map(digest).collect())
    }

    /// All of it, as an answer.
    pub fn whole(&self) -> WishAnswer {
        let Self { revision, versions, names, settings } = self.clone();
        WishAnswer { revision, versions, names, settings, change: None }
    }

    /// What to tell a point that has the wish called `of`, which differs in these branches.
    pub fn change(&self, of: &str, branches: Vec<Branch>) -> WishAnswer {
        let is_in = is_in(&branches);
        let versions = self.versions.iter().filter(|wanted| is_in(&wanted.version.package));
        let names = self.names.iter().filter(|(package, _)| is_in(package));
        WishAnswer {
            revision: self.revision.clone(),
            versions: Arc::new(versions.cloned().collect()),
            names: Arc::new(names.map(|(package, its)| (package.clone(), its.clone())).collect()),
            settings: self.settings.clone(),
            change: Some(WishChange { of: of.to_owned(), branches }),
        }
    }

    /// The wish that an answer tells of, to a point that has this one, if it has any.
    pub fn told(before: Option<&Self>, answer: WishAnswer) -> Result<Self, Unfit> {
        let WishAnswer { revision, versions, names, settings, change } = answer;
        let Some(change) = change else {
            return Ok(Self { revision, versions, names, settings });
        };
        let before = before.filter(|before| before.revision == change.of).ok_or(Unfit)?;
        let is_told = is_in(&change.branches);
        let kept = before.versions.iter().filter(|wanted| !is_told(&wanted.version.package));
        let mut all: Vec<Wanted> = kept.chain(versions.iter()).cloned().collect();
        all.sort_by(|a, b| {
            let key = |wanted: &'_ Wanted| wanted.version.version;
            (&a.version.package, key(a)).cmp(&(&b.version.package, key(b)))
        });
        let kept = before.names.iter().filter(|(package, _)| !is_told(package));
        let names = kept.chain(names.iter()).map(|(package, its)| (package.clone(), its.clone()));
        let wish = Self::new(all, names.collect()).set(settings);
        if wish.revision == revision { Ok(wish) } else { Err(Unfit) }
    }
}

/// Whether packages are in one of these branches.
fn is_in(branches: &[Branch]) -> impl Fn(&PackageName) -> bool + use<> {
    let branches: BTreeSet<Branch> = branches.iter().copied().collect();
    move |package| branches.contains(&branch_of(package))
}

/// The part of a revision that tells what is wished, whatever is set.
pub fn content_of(revision: &str) -> &str {
    revision.split(AND_SET).next().unwrap_or(revision)
}

/// Writes what is shared as what it is.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<T: Serialize, S: Serializer>(it: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        it.as_ref().serialize(to)
    }

    pub fn deserialize<'a, T: Deserialize<'a>, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }
}

/// One version that a point should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The version, signed by the site.
    pub version: VersionInfo,
    /// How soon.
    pub priority: Priority,
}

/// Which of a package's versions its names mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The newest version among those that are wished here.
    pub latest: Option<u64>,
    /// The channels that mean a version that is wished here.
    pub channels: BTreeMap<ChannelName, u64>,
}

/// How soon something is brought: all of a higher priority before any of a lower.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Before all else.
    High,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Limit;
    use crate::node::made_up::wish;
    use proptest::prelude::*;

    fn of(packages: &BTreeMap<u8, u64>) -> Wish {
        let named: Vec<(String, u64)> =
            packages.iter().map(|(n, version)| (format!("p{n:03}"), *version)).collect();
        let wanted: Vec<_> =
            named.iter().map(|(name, n)| (name.as_str(), *n, Priority::Medium)).collect();
        let made = wish(&wanted);
        Wish::new(made.versions.to_vec(), made.names.as_ref().clone())
    }

    fn limited(rate: u64) -> Settings {
        Settings { limit: Some(Limit { rate, burst: 1 << 20 }), ..Settings::default() }
    }

    #[test]
    fn a_change_is_told_by_its_branches_alone() {
        let mut packages: BTreeMap<u8, u64> = (0..200).map(|n| (n, 2)).collect();
        let before = of(&packages);
        packages.insert(7, 3);
        let after = of(&packages).set(limited(9_000));
        let branches = after.tree().differing(&before.tree());
        assert_eq!(branches.len(), 1);
        let answer = after.change(&before.revision, branches);
        assert!(answer.versions.len() < 10, "{}", answer.versions.len());
        let wire = serde_json::to_vec(&answer).unwrap();
        let read: WishAnswer = serde_json::from_slice(&wire).unwrap();
        assert_eq!(Wish::told(Some(&before), read), Ok(after.clone()));
        // To a point that has another one, or none, it says nothing; nor does one that is not whole.
        assert_eq!(Wish::told(None, answer.clone()), Err(Unfit));
        assert_eq!(Wish::told(Some(&before.set(limited(8_000))), answer.clone()), Err(Unfit));
        let other = WishAnswer { versions: Arc::default(), ..answer };
        assert_eq!(Wish::told(Some(&before), other), Err(Unfit));
        assert_eq!(Wish::told(None, after.whole()), Ok(after));
    }

    #[test]
    fn what_is_set_is_part_of_the_revision_and_not_of_what_is_wished() {
        let plain = of(&BTreeMap::from([(1, 2)]));
        let (slow, fast) = (plain.set(limited(8_000)), plain.set(limited(9_000)));
        assert_ne!(slow.revision, fast.revision);
        assert_eq!(content_of(&slow.revision), plain.revision);
        assert_eq!(fast.set(Settings::default()), plain);
        let answer = fast.change(&slow.revision, Vec::new());
        assert_eq!(Wish::told(Some(&slow), answer), Ok(fast));
    }

    proptest! {
        /// However a wish changes, being told the branches that differ comes to being told all.
        #[test]
        fn a_wish_that_is_told_by_what_changed_is_the_wish(
            before in proptest::collection::btree_map(0..60_u8, 2..4_u64, 0..40),
            after in proptest::collection::btree_map(0..60_u8, 2..4_u64, 0..40),
        ) {
            let (before, after) = (of(&before), of(&after));
            let branches = after.tree().differing(&before.tree());
            let told = Wish::told(Some(&before), after.change(&before.revision, branches));
            prop_assert_eq!(told, Ok(after));
        }
    }
}

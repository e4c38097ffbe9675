//! The packages that a client has, and changes of them, as they travel.
//!
//! A change names each package of which another version is there than before, or another architecture, with
//! all that is now installed under that name; and the names that are gone. It says the same however often
//! it is applied.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use sync::rpm::evr::Evr;

/// The most packages that a client may tell.
pub const MAX_PACKAGES: usize = 20_000;
/// The longest name or version of a package, in bytes.
pub const MAX_WORD: usize = 255;
/// The longest name of an architecture, in bytes.
const MAX_ARCHITECTURE: usize = 32;

/// By which order versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// dpkg's.
    Deb,
    /// rpm's.
    Rpm,
    /// Numbers with dots, as programs for Windows have.
    Other,
}

impl PackageKind {
    /// How one version compares with another.
    pub fn compare(self, one: &str, other: &str) -> Ordering {
        match self {
            Self::Deb | Self::Other => sync::apt::version::compare(one, other),
            Self::Rpm => match (one.parse::<Evr>(), other.parse::<Evr>()) {
                (Ok(one), Ok(other)) => one.compare(&other),
                _ => sync::rpm::evr::compare(one, other),
            },
        }
    }
}

/// What is installed under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its version as its packager writes it: `3.0.15-1~deb12u1`, `1:3.0.7-28.el9`.
    pub version: String,
    /// Its architecture as its packager calls it: `amd64`, `noarch`.
    pub arch: String,
}

/// All packages of a machine: by name what is installed under it, in order. No name has nothing.
pub type Packages = BTreeMap<String, Vec<Package>>;

/// A change of the packages of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagesChange {
    /// Of which kind they are; it is the same for all of a machine.
    pub kind: PackageKind,
    /// By name all that is installed now, where that is another than before.
    #[serde(default)]
    pub changed: Packages,
    /// Names under which nothing is installed any more.
    #[serde(default)]
    pub removed: BTreeSet<String>,
}

/// Packages that are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPackages {
    /// There are too many.
    #[error("{0} packages; at most {MAX_PACKAGES} of a client are kept")]
    TooMany(usize),
    /// The fleet has too many different ones.
    #[error("the fleet has {0} different packages and versions already; no new one is kept")]
    TooManyKnown(usize),
    /// A word is empty or too long, or has a character that no package's has.
    #[error("{what} {word:?} is not that of a package")]
    Word {
        /// Which word.
        what: &'static str,
        /// Its beginning.
        word: String,
    },
    /// A name is there and is gone.
    #[error("package {0:?} is among both the changed and the removed ones")]
    Both(String),
    /// A changed name has nothing, or the same twice.
    #[error("package {0:?} has nothing installed, or the same twice")]
    Listed(String),
}

impl PackagesChange {
    /// Whether it is one that is taken.
    ///
    /// # Errors
    /// It is over the limits, or contradicts itself.
    pub fn check(&self) -> Result<(), BadPackages> {
        let n_packages = self.changed.values().map(Vec::len).sum::<usize>();
        let most = n_packages.max(self.removed.len());
        if most > MAX_PACKAGES {
            return Err(BadPackages::TooMany(most));
        }
        for (name, packages) in &self.changed {
            word("the name", name, MAX_WORD)?;
            if self.removed.contains(name) {
                return Err(BadPackages::Both(name.clone()));
            }
            let distinct: BTreeSet<_> = packages.iter().collect();
            if packages.is_empty() || distinct.len() != packages.len() {
                return Err(BadPackages::Listed(name.clone()));
            }
            for package in packages {
                word("the version", &package.version, MAX_WORD)?;
                word("the architecture", &package.arch, MAX_ARCHITECTURE)?;
            }
        }
        self.removed.iter().try_for_each(|name| word("the name", name, MAX_WORD))
    }

    /// Makes the change.
    pub fn apply(self, to: &mut Packages) {
        for name in &self.removed {
            to.remove(name);
        }
        for (name, mut packages) in self.changed {
            packages.sort_unstable();
            to.insert(name, packages);
        }
    }
}

fn word(what: &'static str, word: &str, longest: usize) -> Result<(), BadPackages> {
    let is_one = !word.is_empty() && word.len() <= longest && !word.chars().any(char::is_control);
    if is_one {
        return Ok(());
    }
    Err(BadPackages::Word { what, word: word.chars().take(50).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> PackagesChange {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_change_leads_to_the_same_however_often_it_is_made() {
        let first = change(
            r#"{"kind": "deb", "changed": {"libc6": [{"version": "2.36-9", "arch": "i386"},
                {"version": "2.36-9", "arch": "amd64"}], "vim": [{"version": "2:9", "arch": "amd64"}]}}"#,
        );
        let second = change(
            r#"{"kind": "deb", "changed": {"libc6": [{"version": "2.36-10", "arch": "amd64"}]},
                "removed": ["vim", "never-there"]}"#,
        );
        let mut packages = Packages::new();
        first.apply(&mut packages);
        assert_eq!((packages.len(), packages["libc6"][0].arch.as_str()), (2, "amd64"));
        second.clone().apply(&mut packages);
        let once = packages.clone();
        second.apply(&mut packages);
        assert_eq!((packages.len(), &packages), (1, &once));
        assert_eq!(packages["libc6"][0].version, "2.36-10");
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let long = "x".repeat(MAX_WORD + 1);
        for (json, says) in [
            (r#"{"kind": "rpm", "changed": {"": [{"version": "1", "arch": "a"}]}}"#, "name"),
            (r#"{"kind": "rpm", "changed": {"a": [{"version": "", "arch": "a"}]}}"#, "version"),
            (r#"{"kind": "rpm", "changed": {"a": []}}"#, "nothing installed"),
            (
                r#"{"kind": "rpm", "changed": {"a": [{"version": "1", "arch": "a"}]}, "removed": ["a"]}"#,
                "both",
            ),
            (&format!(r#"{{"kind": "other", "removed": [{long:?}]}}"#), "name"),
        ] {
            let error = change(json).check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let removed = (0..=MAX_PACKAGES).map(|n| n.to_string()).collect();
        let all = PackagesChange { kind: PackageKind::Deb, changed: Packages::new(), removed };
        assert_eq!(all.check(), Err(BadPackages::TooMany(MAX_PACKAGES + 1)));
    }
}

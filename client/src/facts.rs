//! What a machine is: the questions that rules ask of it.
//!
//! Three kinds of machine answer: Debian's ([`debian`]), those of the RPM family ([`rpm`]), and Windows, of
//! which what was recorded is known and nothing else ([`recorded`]). A question that cannot be answered is
//! unknown, which is another thing than no.
//! What of all that a site is told is in [`told`].

pub mod debian;
pub mod network;
pub mod os_release;
pub mod recorded;
pub mod rpm;
pub mod told;

use crate::truth::Truth;
pub use os_release::OsRelease;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// How many packages a machine may have.
pub const MAX_PACKAGES: usize = 500_000;

/// A machine, as it was when its facts were read.
///
/// * The answers of one value never change: a scan asks the same machine all the time.
/// * What is not known is said to be unknown, never guessed.
pub trait Facts {
    /// What every machine has.
    fn system(&self) -> &System;
    /// Whether a module stream, as `nodejs:18`, is enabled.
    fn has_stream(&self, _stream: &str) -> Truth {
        Truth::False
    }
    /// Another one where what they say of packages is another.
    fn digest(&self) -> String {
        self.system().packages.digest().to_hex().to_string()
    }
    /// What only a Windows machine has.
    fn windows(&self) -> Option<&recorded::Recorded> {
        None
    }
}

/// What every machine has.
#[derive(Clone, Debug)]
pub struct System {
    /// Of which kind it is.
    pub platform: Platform,
    /// What its `os-release` says; an empty one where there is none.
    pub release: OsRelease,
    /// The packages that are installed.
    pub packages: Inventory,
    /// The architecture that its packages without one are for, as its packager calls it.
    pub architecture: String,
}

/// Kinds of machines, by what rules about them speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Packages of dpkg.
    Debian,
    /// Packages of rpm.
    Rpm,
    /// Registry, files, Windows Installer.
    Windows,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "a machine with dpkg",
            Self::Rpm => "a machine with rpm",
            Self::Windows => "a Windows machine",
        })
    }
}

/// The packages that are installed, by name.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    by_name: HashMap<Box<str>, Vec<Installed>>,
    count: usize,
    unreadable: u64,
}

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// As its packager compares it.
    pub version: Box<str>,
    /// Its architecture.
    pub arch: Box<str>,
    /// How far it is installed.
    pub condition: Condition,
    /// Whether somebody said that it shall stay as it is.
    pub is_held: bool,
}

/// How far a package is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Wholly.
    Whole,
    /// An installation was begun and is not finished: some of it is of this version, some may be of another.
    Unfinished,
}

impl Inventory {
    /// Adds a package; false, if there are too many.
    pub fn add(&mut self, name: &str, package: Installed) -> bool {
        if self.count == MAX_PACKAGES {
            return false;
        }
        self.count += 1;
        match self.by_name.get_mut(name) {
            Some(others) => others.push(package),
            None => drop(self.by_name.insert(name.into(), vec![package])),
        }
        true
    }

    /// Notes that something of the packages could not be read: a package that is not found may be that one.
    pub fn add_unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// What is installed under that name; none, if that is not known.
    pub fn get(&self, name: &str) -> Option<&[Installed]> {
        match self.by_name.get(name) {
            Some(found) => Some(found),
            None if self.unreadable == 0 => Some(&[]),
            None => None,
        }
    }

    /// All of them, with their names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Installed)> {
        self.by_name.iter().flat_map(|(name, all)| all.iter().map(move |it| (&**name, it)))
    }

    /// A digest of all of them, in whatever order they were added.
    pub fn digest(&self) -> blake3::Hash {
        let mut all: Vec<String> = self
            .iter()
            .map(|(name, it)| {
                let Installed { version, arch, condition, is_held } = it;
                format!("{name}\t{version}\t{arch}\t{condition:?}\t{is_held}\n")
            })
            .collect();
        all.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.unreadable.to_le_bytes());
        for line in all {
            hasher.update(line.as_bytes());
        }
        hasher.finalize()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many entries could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// Why the facts of a machine cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something has more than is taken.
    #[error("{what} is larger than is taken: {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// The limit, in words.
        limit: String,
    },
    /// A program cannot be asked.
    #[error("{program} cannot be asked for the installed packages: {why}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        why: String,
    },
    /// It has neither kind of package.
    #[error(
        "neither dpkg's var/lib/dpkg/status nor a database of rpm is below {}: is that the root of a machine, and whole?",
        root.display()
    )]
    NoPackages {
        /// Where was looked.
        root: PathBuf,
    },
    /// A recorded document cannot be read.
    #[error("the recorded facts cannot be read")]
    Recorded(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_beside_unreadable_entries_is_unknown() {
        let mut inventory = Inventory::default();
        assert_eq!(inventory.get("a"), Some(&[][..]));
        let package = Installed {
            version: "1".into(),
            arch: "amd64".into(),
            condition: Condition::Whole,
            is_held: false,
        };
        assert!(inventory.add("a", package.clone()) && inventory.add("a", package));
        inventory.add_unreadable();
        assert_eq!(inventory.get("a").unwrap().len(), 2);
        assert_eq!(inventory.get("b"), None);
        assert_eq!((inventory.len(), inventory.iter().count()), (2, 2));
    }

    #[test]
    fn a_digest_is_another_where_a_package_is_and_has_no_order() {
        let of = |all: &[(&str, &str, Condition)]| {
            let mut inventory = Inventory::default();
            for (name, version, condition) in all {
                let (version, arch) = ((*version).into(), "amd64".into());
                let condition = *condition;
                inventory.add(name, Installed { version, arch, condition, is_held: false });
            }
            inventory.digest()
        };
        use Condition::{Unfinished, Whole};
        let (a, b) = (("a", "1", Whole), ("b", "1", Whole));
        assert_eq!(of(&[a, b]), of(&[b, a]));
        for other in [&[a][..], &[a, ("b", "2", Whole)], &[a, ("b", "1", Unfinished)], &[a, b, b]] {
            assert_ne!(of(other), of(&[a, b]), "{other:?}");
        }
    }
}

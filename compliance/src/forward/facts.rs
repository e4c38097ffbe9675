//! What a page tells of clients' facts: all of a client's, where they changed since the place it begins at.
//!
//! Packages are many, and the same on many machines: a page names each once, in one version and architecture, and
//! a client has their numbers in that list.

use crate::fleet::{Facts, Package, PackageKind, Packages, PackagesChange};
use crate::fleet::{MAX_FACTS, MAX_PACKAGES};
use crate::message::Malformed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A package in one version and architecture.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Listed {
    kind: PackageKind,
    name: String,
    package: Package,
}

/// All facts of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldFacts {
    revision: u64,
    os: String,
    os_version: String,
    codename: Option<String>,
    architecture: String,
    addresses: Vec<IpAddr>,
    attributes: BTreeMap<String, String>,
    /// Numbers in the page's list, in order; none if it told of none.
    packages: Option<Vec<u32>>,
}

/// The list of a page that is made.
#[derive(Default)]
pub(super) struct Listing {
    numbers: HashMap<Listed, u32>,
    list: Vec<Listed>,
    /// What the list and the facts take, in bytes, about.
    pub size: usize,
}

impl Listing {
    /// A client's facts as they are told, once its packages are in the list.
    pub fn told(&mut self, facts: Facts, packages: Option<PackagesChange>) -> ToldFacts {
        self.size += facts.size();
        ToldFacts {
            revision: facts.revision,
            os: facts.os,
            os_version: facts.os_version,
            codename: facts.codename,
            architecture: facts.architecture,
            addresses: facts.addresses,
            attributes: facts.attributes,
            packages: packages.map(|all| self.numbers(all)),
        }
    }

    fn numbers(&mut self, all: PackagesChange) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (name, packages) in all.changed {
            for package in packages {
                let listed = Listed { kind: all.kind, name: name.clone(), package };
                let next = self.list.len() as u32;
                let number = *self.numbers.entry(listed).or_insert_with_key(|listed| {
                    let Package { version, arch } = &listed.package;
                    self.size += 8 + listed.name.len() + version.len() + arch.len();
                    self.list.push(listed.clone());
                    next
                });
                self.size += 4;
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// The list.
    pub fn list(self) -> Vec<Listed> {
        self.list
    }
}

impl ToldFacts {
    /// Whether they are within the limits; the list was checked.
    pub(super) fn check(&self, list: &[Listed]) -> Result<(), Malformed> {
        if self.facts().size() > MAX_FACTS {
            return Err(Malformed::Form("facts of a client are too large"));
        }
        let Some(numbers) = &self.packages else { return Ok(()) };
        let is_one_kind = numbers.iter().map(|number| list.get(*number as usize));
        let kinds: Option<Vec<_>> = is_one_kind.map(|it| it.map(|it| it.kind)).collect();
        let is_sound = numbers.len() <= MAX_PACKAGES
            && numbers.windows(2).all(|two| two[0] < two[1])
            && kinds.is_some_and(|kinds| kinds.windows(2).all(|two| two[0] == two[1]));
        match is_sound {
            true => Ok(()),
            false => Err(Malformed::Form("packages of a client are not in the page's list")),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            revision: self.revision,
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            codename: self.codename.clone(),
            architecture: self.architecture.clone(),
            addresses: self.addresses.clone(),
            attributes: self.attributes.clone(),
            packages: None,
            changed: 0,
        }
    }

    /// The facts, and the packages as a change from nothing, by the page's list.
    pub(super) fn read(&self, list: &[Listed]) -> (Facts, Option<PackagesChange>) {
        let packages = self.packages.as_ref().map(|numbers| {
            let listed = numbers.iter().filter_map(|number| list.get(*number as usize));
            let (mut kind, mut changed) = (PackageKind::Other, Packages::new());
            for it in listed {
                kind = it.kind;
                changed.entry(it.name.clone()).or_default().push(it.package.clone());
            }
            PackagesChange { kind, changed, removed: Default::default() }
        });
        (self.facts(), packages)
    }
}

/// Whether a list names packages, each once.
pub(super) fn check_list(list: &[Listed]) -> Result<(), Malformed> {
    let is_one = |listed: &Listed| {
        let (changed, removed) =
            ([(listed.name.clone(), vec![listed.package.clone()])].into(), Default::default());
        PackagesChange { kind: listed.kind, changed, removed }.check().is_ok()
    };
    let distinct: std::collections::HashSet<&Listed> = list.iter().collect();
    match distinct.len() == list.len() && list.iter().all(is_one) {
        true => Ok(()),
        false => Err(Malformed::Form("it lists what is no package, or one twice")),
    }
}

//! What a client tells its site of the machine, and what of that changed since it last did.

use super::{Condition, Facts, Platform};
use compliance::fleet::{
    FactsChange, MAX_PACKAGES, MAX_WORD, Package, PackageKind, Packages, PackagesChange,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The longest name or value of an attribute, in bytes.
const MAX_ATTRIBUTE: usize = 1_000;
/// The most attributes, and the most addresses.
const MAX_MANY: usize = 100;

/// All that a site is told of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Counted from 1; the site has the one that it acknowledged.
    pub revision: u64,
    /// `ID` of os-release.
    pub os: String,
    /// `VERSION_ID`.
    pub os_version: String,
    /// `VERSION_CODENAME`, or nothing.
    pub codename: String,
    /// The architecture.
    pub architecture: String,
    /// Its network addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// What administrators set on it.
    pub attributes: BTreeMap<String, String>,
    /// By whose order versions are compared.
    pub kind: PackageKind,
    /// What is installed.
    pub packages: Packages,
}

impl Told {
    /// What is to be told now. What is beyond the site's limits is left out.
    pub fn of(
        facts: &dyn Facts,
        mut addresses: Vec<IpAddr>,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        let system = facts.system();
        let mut packages = Packages::new();
        let all = system.packages.iter().filter(|(_, it)| it.condition == Condition::Whole);
        for (name, installed) in all {
            let architecture = match &*installed.arch {
                "" => &*system.architecture,
                arch => arch,
            };
            let package =
                Package { version: installed.version.to_string(), arch: architecture.to_owned() };
            let is_word = |word: &str| {
                !word.is_empty() && word.len() <= MAX_WORD && !word.chars().any(char::is_control)
            };
            let is_told = [name, &package.version, &package.arch].into_iter().all(is_word);
            let under: &mut Vec<Package> = packages.entry(name.to_owned()).or_default();
            if is_told && !under.contains(&package) {
                under.push(package);
            }
        }
        packages.retain(|_, under| {
            under.sort_unstable();
            !under.is_empty()
        });
        let mut count: usize = packages.values().map(Vec::len).sum();
        while count > MAX_PACKAGES
            && let Some((_, last)) = packages.pop_last()
        {
            count -= last.len();
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_MANY);
        let fits = |text: &String| text.len() <= MAX_ATTRIBUTE;
        let attributes = attributes.into_iter().filter(|(name, value)| fits(name) && fits(value));
        Self {
            revision: 0,
            os: system.release.id.clone(),
            os_version: system.release.version.clone(),
            codename: system.release.codename.clone(),
            architecture: system.architecture.clone(),
            addresses,
            attributes: attributes.take(MAX_MANY).collect(),
            kind: match system.platform {
                Platform::Debian => PackageKind::Deb,
                Platform::Rpm => PackageKind::Rpm,
                Platform::Windows => PackageKind::Other,
            },
            packages,
        }
    }

    /// What changed since `before`, which the site has, and the revision that this gets by it; none, if nothing
    /// did. Without it all is told.
    pub fn since(&mut self, before: Option<&Self>) -> Option<FactsChange> {
        let before = before.filter(|before| before.kind == self.kind);
        let Some(before) = before else {
            // Beyond any that the site may have of an earlier life.
            self.revision = 1;
            return Some(self.all());
        };
        self.revision = before.revision;
        if self == before {
            return None;
        }
        self.revision = before.revision.saturating_add(1);
        let text = |old: &String, new: &String| (old != new).then(|| new.clone());
        let set = self
            .attributes
            .iter()
            .filter(|(name, value)| before.attributes.get(*name) != Some(*value));
        let set = set.map(|(name, value)| (name.clone(), Some(value.clone())));
        let gone = before.attributes.keys().filter(|name| !self.attributes.contains_key(*name));
        let gone = gone.map(|name| (name.clone(), None));
        let changed =
            self.packages.iter().filter(|(name, it)| before.packages.get(*name) != Some(*it));
        let changed: Packages = changed.map(|(name, it)| (name.clone(), it.clone())).collect();
        let removed = before.packages.keys().filter(|name| !self.packages.contains_key(*name));
        let packages =
            PackagesChange { kind: self.kind, changed, removed: removed.cloned().collect() };
        let is_none = packages.changed.is_empty() && packages.removed.is_empty();
        Some(FactsChange {
            base: before.revision,
            revision: self.revision,
            os: text(&before.os, &self.os),
            os_version: text(&before.os_version, &self.os_version),
            codename: text(&before.codename, &self.codename),
            architecture: text(&before.architecture, &self.architecture),
            addresses: (before.addresses != self.addresses).then(|| self.addresses.clone()),
            attributes: set.chain(gone).collect(),
            packages: (!is_none).then_some(packages),
        })
    }

    fn all(&self) -> FactsChange {
        let attributes = self.attributes.iter();
        let removed = Default::default();
        let packages = PackagesChange { kind: self.kind, changed: self.packages.clone(), removed };
        FactsChange {
            base: 0,
            revision: self.revision,
            os: Some(self.os.clone()),
            os_version: Some(self.os_version.clone()),
            codename: Some(self.codename.clone()),
            architecture: Some(self.architecture.clone()),
            addresses: Some(self.addresses.clone()),
            attributes: attributes.map(|(n, value)| (n.clone(), Some(value.clone()))).collect(),
            packages: Some(packages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compliance::fleet::Facts as Kept;
    use proptest::prelude::*;

    fn told(packages: &[(u8, u8)], attribute: Option<u8>, address: u8) -> Told {
        let package = |(name, version): &(u8, u8)| {
            let package = Package { version: version.to_string(), arch: "amd64".into() };
            (format!("p{name}"), vec![package])
        };
        Told {
            revision: 0,
            os: "debian".into(),
            os_version: "12".into(),
            codename: if address > 100 { "bookworm".into() } else { String::new() },
            architecture: "amd64".into(),
            addresses: vec![IpAddr::from([192, 0, 2, address])],
            attributes: attribute.map(|it| ("ring".into(), it.to_string())).into_iter().collect(),
            kind: PackageKind::Deb,
            packages: packages.iter().map(package).collect(),
        }
    }

    proptest! {
        #[test]
        fn changes_lead_to_what_is_so(steps in prop::collection::vec(
            (prop::collection::vec((0..6u8, 0..3u8), 0..6), prop::option::of(0..3u8), any::<u8>()), 1..8,
        )) {
            let (mut site, mut packages, mut before) = (Kept::default(), Packages::new(), None);
            for (these, attribute, address) in steps {
                let mut now = told(&these, attribute, address);
                let Some(change) = now.since(before.as_ref()) else {
                    prop_assert_eq!(before.as_ref(), Some(&now));
                    continue;
                };
                if change.base == 0 {
                    packages.clear();
                }
                if let Some(change) = change.packages.clone() {
                    change.check().unwrap();
                    change.apply(&mut packages);
                }
                site = site.with(FactsChange { packages: None, ..change }).unwrap();
                prop_assert_eq!(&packages, &now.packages);
                prop_assert_eq!(site.revision, now.revision);
                prop_assert_eq!(&site.attributes, &now.attributes);
                prop_assert_eq!(&site.addresses, &now.addresses);
                prop_assert_eq!(site.codename.clone().unwrap_or_default(), now.codename.clone());
                before = Some(now);
            }
        }
    }

    #[test]
    fn a_change_of_one_package_is_told_by_that_alone() {
        let (mut old, mut new) =
            (told(&[(1, 1), (2, 1)], None, 1), told(&[(1, 1), (2, 2)], None, 1));
        assert_eq!(old.since(None).unwrap().packages.unwrap().changed.len(), 2);
        let change = new.since(Some(&old)).unwrap();
        assert_eq!((change.base, change.revision, change.os, change.addresses), (1, 2, None, None));
        assert_eq!(change.packages.unwrap().changed.keys().collect::<Vec<_>>(), ["p2"]);
        assert_eq!(new.clone().since(Some(&new)), None);
    }
}

//! Which packages hold which contents: what the newest version of each has, and what channels point to.
//!
//! It follows the packages: each that is as it was costs one look at its stamp, and of one that changed its manifests are
//! read. It says nothing of versions that only their numbers name: those are on their way out.

use crate::problem::Problem;
use contentlib::Digest;
use packager::Packages;
use packager::error::PackageError;
use packager::name::{PackageName, Selector};
use packager::packages::Stamp;
use std::collections::{BTreeMap, BTreeSet};

/// Which packages hold which contents.
#[derive(Default)]
pub struct Holdings {
    packages: BTreeMap<PackageName, Held>,
    names: BTreeMap<u32, PackageName>,
    next: u32,
    /// Each content with the packages that have it.
    holders: BTreeSet<(Digest, u32)>,
    revision: u64,
}

/// What one package has.
struct Held {
    number: u32,
    stamp: Stamp,
    contents: Vec<Digest>,
}

impl Holdings {
    /// Looks at the packages that changed; whether anything is held elsewhere than before.
    ///
    /// # Errors
    /// If the library fails. What was looked at counts.
    pub fn follow(&mut self, packages: &Packages) -> Result<bool, Problem> {
        let (before, now) = (self.revision, packages.stamps()?);
        let gone: Vec<PackageName> =
            self.packages.keys().filter(|name| !now.contains_key(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        for (name, stamp) in now {
            if self.packages.get(&name).is_some_and(|held| held.stamp == stamp) {
                continue;
            }
            match contents(packages, &name) {
                Ok(contents) => self.take(name, stamp, contents),
                Err(PackageError::UnknownPackage(_) | PackageError::UnknownVersion { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.revision != before)
    }

    /// The packages that hold a content, by name.
    pub fn of(&self, content: Digest) -> impl Iterator<Item = &PackageName> {
        let all = self.holders.range((content, 0)..=(content, u32::MAX));
        all.filter_map(|(_, number)| self.names.get(number))
    }

    /// Whether a package holds a content that is not this one.
    pub fn is_held_beside(&self, content: Digest, package: Option<&PackageName>) -> bool {
        self.of(content).any(|holder| Some(holder) != package)
    }

    /// Counts changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn take(&mut self, name: PackageName, stamp: Stamp, contents: Vec<Digest>) {
        if let Some(held) = self.packages.get_mut(&name)
            && held.contents == contents
        {
            held.stamp = stamp;
            return;
        }
        self.forget(&name);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.holders.extend(contents.iter().map(|content| (*content, number)));
        self.names.insert(number, name.clone());
        self.packages.insert(name, Held { number, stamp, contents });
        self.revision += 1;
    }

    fn forget(&mut self, name: &PackageName) {
        let Some(held) = self.packages.remove(name) else { return };
        for content in held.contents {
            self.holders.remove(&(content, held.number));
        }
        self.names.remove(&held.number);
        self.revision += 1;
    }
}

/// All contents of a package, in order, each once.
fn contents(packages: &Packages, name: &PackageName) -> Result<Vec<Digest>, PackageError> {
    let info = packages.show(name)?;
    let mut manifests: BTreeSet<Digest> = info.latest.iter().map(|it| it.manifest).collect();
    for version in info.channels.values() {
        manifests.insert(packages.resolve(name, &Selector::Number(*version))?.manifest);
    }
    let mut contents = Vec::new();
    for manifest in manifests {
        contents.extend_from_slice(packages.manifest(manifest)?.digests());
    }
    contents.sort_unstable();
    contents.dedup();
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packager::SiteKey;
    use packager::compose::Base;
    use packager::path::TreePath;
    use packager::retention::Retention;
    use std::num::NonZeroU32;
    use std::sync::Arc;

    #[test]
    fn a_content_is_held_by_the_packages_that_have_it_now() {
        let folder = tempfile::tempdir().unwrap();
        let library = contentlib::Library::open(
            &folder.path().join("library"),
            contentlib::Options::default(),
        );
        let key = SiteKey::from_seed([1; 32]);
        let clock = Arc::new(jiff::Timestamp::now);
        let cache = folder.path().join("cache");
        let packages = Packages::open(library.unwrap(), key, cache, clock).unwrap();
        let keep = Retention { keep: NonZeroU32::MIN, days: None };
        let put = |name: &str, bytes: &'static [u8], path: &str| {
            let name: PackageName = name.parse().unwrap();
            let _ = packages.create_composed(name.clone(), keep);
            let composition = packages.compose(&name, Base::Nothing, Arc::default()).unwrap();
            let options = contentlib::AddOptions::default();
            let path = TreePath::new(path.as_bytes()).unwrap();
            composition.place(&path, None, bytes, &options).unwrap();
            composition.finish().unwrap();
        };
        let mut holdings = Holdings::default();
        assert!(!holdings.follow(&packages).unwrap());
        put("a", b"one", "x");
        put("b", b"one", "y");
        assert!(holdings.follow(&packages).unwrap());
        let who = |holdings: &Holdings| {
            holdings.of(Digest::of(b"one")).map(|name| name.to_string()).collect::<Vec<_>>()
        };
        let mut found = who(&holdings);
        found.sort();
        assert_eq!(found, ["a", "b"]);
        assert!(holdings.is_held_beside(Digest::of(b"one"), Some(&"a".parse().unwrap())));
        // What a newer version does not have is not held by the package any more.
        put("a", b"two", "x");
        assert!(holdings.follow(&packages).unwrap());
        assert_eq!(who(&holdings), ["b"]);
        packages.delete_package(&"b".parse().unwrap()).unwrap();
        assert!(holdings.follow(&packages).unwrap());
        assert_eq!(who(&holdings), [""; 0]);
        assert!(!holdings.follow(&packages).unwrap(), "nothing changed");
    }
}

//! Which advisory replaces which.
//!
//! No repository says so. One is replaced by another that lists every package of it, by name,
//! architecture and module stream, in a higher version. This relation is transitive, so of all that
//! replace one only the nearest is told, and the others follow from it.

use super::evr::Evr;
use std::collections::HashMap;

/// Later ones that are looked at, for one advisory. Packages mostly go the same way together, and then
/// the first one fits.
const MOST_CANDIDATES: usize = 1_000;

/// Collects what advisories list; each is named by the number of its turn.
#[derive(Default)]
pub struct Supersedence {
    /// Names, architectures and streams: each once, by number.
    keys: HashMap<Key, u32>,
    /// Versions: each once, by number.
    versions: HashMap<Evr, u32>,
    /// By advisory, what it lists: key and version.
    listed: Vec<Vec<(u32, u32)>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    name: Box<str>,
    arch: Box<str>,
    module: Option<Box<str>>,
}

impl Supersedence {
    /// Takes the next advisory: name, architecture, module stream and version of its packages.
    pub fn add<'p>(
        &mut self,
        packages: impl IntoIterator<Item = (&'p str, &'p str, Option<&'p str>, &'p Evr)>,
    ) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let listed = packages.into_iter().map(|(name, arch, module, evr)| {
            let module = module.map(Into::into);
            let key = Key { name: name.into(), arch: arch.into(), module };
            let (next_key, next_version) = (number(self.keys.len()), number(self.versions.len()));
            let key = *self.keys.entry(key).or_insert(next_key);
            (key, *self.versions.entry(evr.clone()).or_insert(next_version))
        });
        let listed = listed.collect();
        self.listed.push(listed);
    }

    /// Leaves one out: it neither replaces others nor is replaced.
    pub fn forget(&mut self, advisory: usize) {
        self.listed[advisory].clear();
    }

    /// By advisory, the nearest one that replaces it.
    pub fn nearest(mut self) -> Vec<Option<usize>> {
        let ranks = ranks(&self.versions);
        let mut by_key: Vec<Vec<(u32, usize)>> = vec![Vec::new(); self.keys.len()];
        for (advisory, listed) in self.listed.iter_mut().enumerate() {
            for (_, version) in &mut *listed {
                *version = ranks[*version as usize];
            }
            // Of one that lists a package twice, the higher version counts.
            listed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            listed.dedup_by_key(|(key, _)| *key);
            for (key, rank) in listed {
                by_key[*key as usize].push((*rank, advisory));
            }
        }
        by_key.iter_mut().for_each(|listings| listings.sort_unstable());

        let replaces = |candidate: usize, listed: &[(u32, u32)]| {
            let its = &self.listed[candidate];
            listed.iter().all(|(key, rank)| {
                its.binary_search_by_key(key, |(key, _)| *key).is_ok_and(|at| its[at].1 > *rank)
            })
        };
        let nearest_of = |listed: &Vec<(u32, u32)>| {
            // Of the package with the fewest higher versions, those that list one.
            let higher = listed.iter().map(|(key, rank)| {
                let listings = &by_key[*key as usize];
                &listings[listings.partition_point(|(other, _)| other <= rank)..]
            });
            let candidates = higher.min_by_key(|higher| higher.len())?;
            let mut candidates = candidates.iter().take(MOST_CANDIDATES).map(|(_, it)| *it);
            candidates.find(|candidate| replaces(*candidate, listed))
        };
        self.listed.iter().map(nearest_of).collect()
    }
}

/// By number of a version, its place in the order of all; those that rpm holds for equal share one.
fn ranks(versions: &HashMap<Evr, u32>) -> Vec<u32> {
    let mut sorted: Vec<(&Evr, u32)> = versions.iter().map(|(evr, at)| (evr, *at)).collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| one.compare(other));
    let (mut ranks, mut rank) = (vec![0; sorted.len()], 0);
    for (place, (evr, at)) in sorted.iter().enumerate() {
        if place > 0 && sorted[place - 1].0.compare(evr).is_ne() {
            rank += 1;
        }
        ranks[*at as usize] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;

    type Package = (&'static str, &'static str, Option<&'static str>, Evr);

    fn nearest(advisories: &[Vec<Package>]) -> Vec<Option<usize>> {
        let mut found = Supersedence::default();
        for packages in advisories {
            found
                .add(packages.iter().map(|(name, arch, module, evr)| (*name, *arch, *module, evr)));
        }
        found.nearest()
    }

    fn package(name: &'static str, evr: &str) -> Package {
        (name, "x86_64", None, evr.parse().unwrap())
    }

    #[test]
    fn one_is_replaced_by_the_next_that_has_all_of_it() {
        let found = nearest(&[
            vec![package("ssl", "1-1"), package("ssl-libs", "1-1")],
            vec![package("ssl", "2-1")],
            vec![package("ssl", "10-1"), package("ssl-libs", "10-1")],
            vec![package("ssl", "3-1"), package("ssl-libs", "3-1")],
            vec![],
        ]);
        assert_eq!(found, [Some(3), Some(3), None, Some(2), None]);
    }

    #[test]
    fn other_streams_and_architectures_and_equal_versions_replace_nothing() {
        let of = |arch, module, evr: &str| vec![("npm", arch, module, evr.parse().unwrap())];
        let found = nearest(&[
            of("x86_64", Some("nodejs:16"), "1-1"),
            of("x86_64", Some("nodejs:18"), "2-1"),
            of("aarch64", Some("nodejs:16"), "2-1"),
            of("x86_64", None, "2-1"),
            of("x86_64", Some("nodejs:18"), "0:2-01"),
        ]);
        assert_eq!(found, [None; 5]);
    }

    proptest::proptest! {
        /// Against the definition: each has a nearest exactly where some other replaces it, and that
        /// one does.
        #[test]
        fn it_is_what_the_definition_says(all in vec(vec((0..4_usize, 0..5_u32), 0..4), 0..12)) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let advisories: Vec<Vec<Package>> = all.iter().map(|packages| {
                packages.iter().map(|(n, v)| package(NAMES[*n], &format!("{v}-1"))).collect()
            }).collect();
            let best = |packages: &[(usize, u32)], name| {
                packages.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).max()
            };
            let replaces = |b: &[(usize, u32)], a: &[(usize, u32)]| !a.is_empty() && a.iter()
                .all(|(name, _)| best(b, *name) > best(a, *name));
            for (a, nearest) in nearest(&advisories).into_iter().enumerate() {
                match nearest {
                    Some(b) => proptest::prop_assert!(replaces(&all[b], &all[a])),
                    None => proptest::prop_assert!(!all.iter().any(|b| replaces(b, &all[a]))),
                }
            }
        }
    }
}

//! What chosen packages depend on, within the same archive, so that a mirror of them installs on its own.
//!
//! `Pre-Depends` and `Depends` are followed, after Debian Policy, sections 7.1 to 7.5: each clause is met by
//! one of its alternatives, by a package of that name and a version in that relation, or by one that
//! provides it. A clause that something chosen meets already adds nothing. Else the first alternative that
//! the archive can meet is taken: the newest package of that name, or the newest of the first name that
//! provides it. So the same choice of the same state gives the same packages. Each package is looked at
//! once.

use super::packages::Package;
use super::version;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A package as name, version and architecture.
pub(super) type Key = (String, String, String);

/// The packages of an archive, and which are chosen.
#[derive(Default)]
pub(super) struct Closure {
    units: Vec<Unit>,
    /// By name, and by what is provided.
    names: HashMap<String, Vec<usize>>,
    provided: HashMap<String, Vec<usize>>,
    /// Those of machines: without that of what is for all.
    arches: BTreeSet<String>,
    is_taken: Vec<bool>,
}

struct Unit {
    key: Key,
    depends: Box<str>,
    provides: Box<str>,
}

/// What came of following dependencies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// All packages: those that were chosen, and what they depend on.
    pub packages: BTreeSet<Key>,
    /// Clauses that nothing in the archive meets, each with the first package that has it.
    pub unmet: BTreeMap<String, String>,
}

/// One alternative of a clause: `libc6 (>= 2.36)`.
struct Alternative<'a> {
    name: &'a str,
    relation: Option<(&'a str, &'a str)>,
}

impl Closure {
    /// Adds a package of the archive.
    pub fn add(&mut self, package: &Package<'_>, is_chosen: bool) {
        let owned = |text: &str| text.to_owned();
        let key = (owned(package.name), owned(package.version), owned(package.arch));
        let at = self.units.len();
        // The same package stands in the index of each suite that has it.
        let same = self.names.get(package.name).into_iter().flatten();
        if let Some(same) = same.copied().find(|at| self.units[*at].key == key) {
            self.is_taken[same] |= is_chosen;
            return;
        }
        let depends = [package.field("Pre-Depends"), package.field("Depends")];
        let depends: Vec<&str> = depends.into_iter().flatten().collect();
        let provides: Box<str> = package.field("Provides").unwrap_or_default().into();
        for provided in clauses(&provides).filter_map(Alternative::of) {
            self.provided.entry(owned(provided.name)).or_default().push(at);
        }
        self.names.entry(owned(package.name)).or_default().push(at);
        if package.arch != "all" {
            self.arches.insert(owned(package.arch));
        }
        self.units.push(Unit { key, depends: depends.join(", ").into(), provides });
        self.is_taken.push(is_chosen);
    }

    /// Follows what the chosen ones depend on.
    pub fn close(mut self) -> Closed {
        let mut closed = Closed::default();
        if self.arches.is_empty() {
            // Where everything is for all, that is the one on which it is met.
            self.arches.insert("all".into());
        }
        let mut order: Vec<usize> = (0..self.units.len()).filter(|at| self.is_taken[*at]).collect();
        order.sort_by(|a, b| self.units[*a].key.cmp(&self.units[*b].key));
        let mut queue = VecDeque::from(order);
        while let Some(at) = queue.pop_front() {
            // What is for all architectures needs what it needs on each.
            let unit = &self.units[at];
            let arches: Vec<String> = match unit.key.2.as_str() {
                "all" => self.arches.iter().cloned().collect(),
                arch => vec![arch.to_owned()],
            };
            let mut added = Vec::new();
            for clause in clauses(&unit.depends) {
                for arch in &arches {
                    match self.meets(clause, arch) {
                        Met::Already => {}
                        Met::By(found) => {
                            self.is_taken[found] = true;
                            added.push(found);
                        }
                        Met::ByNothing => {
                            let who = || unit.key.0.clone();
                            closed.unmet.entry(clause.to_owned()).or_insert_with(who);
                        }
                    }
                }
            }
            queue.extend(added);
        }
        let taken = self.units.into_iter().zip(self.is_taken).filter(|(_, is_taken)| *is_taken);
        closed.packages = taken.map(|(unit, _)| unit.key).collect();
        closed
    }

    fn meets(&self, clause: &str, arch: &str) -> Met {
        let mut first = None;
        for alternative in clause.split('|').filter_map(Alternative::of) {
            let of_name = self.candidates(&self.names, &alternative, arch, |unit| {
                alternative.allows(Some(&unit.key.1))
            });
            let providers = self.candidates(&self.provided, &alternative, arch, |unit| {
                clauses(&unit.provides).filter_map(Alternative::of).any(|provided| {
                    let version = provided.relation.map(|(_, version)| version);
                    provided.name == alternative.name && alternative.allows(version)
                })
            });
            if of_name.iter().chain(&providers).any(|at| self.is_taken[*at]) {
                return Met::Already;
            }
            if first.is_none() {
                let newer = |a: &&usize, b: &&usize| self.order(**a, **b);
                let newest = of_name.iter().max_by(newer);
                let by_name = |at: &&usize| self.units[**at].key.0.as_str();
                let name = providers.iter().map(|at| by_name(&at)).min();
                let of_first = providers.iter().filter(|at| Some(by_name(at)) == name);
                first = newest.or_else(|| of_first.max_by(newer)).copied();
            }
        }
        first.map_or(Met::ByNothing, Met::By)
    }

    fn candidates(
        &self,
        index: &HashMap<String, Vec<usize>>,
        alternative: &Alternative<'_>,
        arch: &str,
        fits: impl Fn(&Unit) -> bool,
    ) -> Vec<usize> {
        let found = index.get(alternative.name).into_iter().flatten().copied();
        let is_of = |unit: &Unit| unit.key.2 == arch || unit.key.2 == "all";
        found.filter(|at| is_of(&self.units[*at]) && fits(&self.units[*at])).collect()
    }

    /// By version, then by architecture, so that of two equals one is always the one.
    fn order(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (&self.units[a].key, &self.units[b].key);
        version::compare(&a.1, &b.1).then_with(|| a.2.cmp(&b.2))
    }
}

enum Met {
    Already,
    By(usize),
    ByNothing,
}

fn clauses(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|clause| !clause.is_empty())
}

impl<'a> Alternative<'a> {
    /// Reads `name[:arch] [(relation version)]`; nothing of what is none.
    fn of(text: &'a str) -> Option<Self> {
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let name = name.split('[').next()?.trim().split(':').next()?;
        let relation = match rest {
            None => None,
            Some(rest) => {
                let inside = rest.split(')').next()?.trim();
                let end = inside.find(|c: char| !matches!(c, '<' | '=' | '>'))?;
                let (relation, version) = inside.split_at(end);
                Some((relation, version.trim()))
            }
        };
        (!name.is_empty()).then_some(Self { name, relation })
    }

    /// Whether a version of it is in the relation; what is provided without one is in none.
    fn allows(&self, version: Option<&str>) -> bool {
        let Some((relation, wanted)) = self.relation else { return true };
        let Some(version) = version else { return false };
        let order = version::compare(version, wanted);
        match relation {
            "<<" => order.is_lt(),
            "<=" | "<" => order.is_le(),
            "=" => order.is_eq(),
            ">=" | ">" => order.is_ge(),
            ">>" => order.is_gt(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deb822::Stanzas;
    use super::*;
    use proptest::prelude::*;

    /// Packages as `name version arch / Depends / Provides`; those with a star are chosen.
    fn closed(lines: &[&str]) -> Closed {
        let mut closure = Closure::default();
        for line in lines {
            let mut parts = line.split('/').map(str::trim);
            let head = parts.next().unwrap();
            let words: Vec<&str> = head.trim_start_matches('*').split(' ').collect();
            let mut text = format!(
                "Package: {}\nVersion: {}\nArchitecture: {}\nFilename: x.deb\nSize: 1\n",
                words[0], words[1], words[2]
            );
            for (field, value) in ["Depends", "Provides"].iter().zip(parts) {
                if !value.is_empty() {
                    text.push_str(&format!("{field}: {value}\n"));
                }
            }
            let mut stanzas = Stanzas::new(text.as_bytes());
            let stanza = stanzas.next_stanza().unwrap().unwrap().unwrap();
            closure.add(&Package::of(stanza).unwrap(), head.starts_with('*'));
        }
        closure.close()
    }

    fn taken(lines: &[&str]) -> Vec<String> {
        let text = |(name, version, arch): Key| format!("{name} {version} {arch}");
        closed(lines).packages.into_iter().map(text).collect()
    }

    #[test]
    fn what_is_depended_on_comes_along_and_the_newest_of_it() {
        let lines = [
            "*web 1 amd64 / tls (>= 2), base:any",
            "tls 1 amd64",
            "tls 2 amd64 / libc",
            "tls 3 amd64 / libc",
            "tls 4 arm64",
            "base 1 all",
            "libc 1 amd64 / tls",
            "other 1 amd64",
        ];
        let found = ["base 1 all", "libc 1 amd64", "tls 3 amd64", "web 1 amd64"];
        assert_eq!(taken(&lines), found);
    }

    #[test]
    fn the_first_alternative_is_taken_unless_another_is_chosen_already() {
        let all = ["*a 1 amd64 / x | y", "x 1 amd64", "y 1 amd64"];
        assert_eq!(taken(&all), ["a 1 amd64", "x 1 amd64"]);
        let one = ["*a 1 amd64 / x | y", "x 1 amd64", "*y 1 amd64"];
        assert_eq!(taken(&one), ["a 1 amd64", "y 1 amd64"]);
        let second = ["*a 1 amd64 / x (<< 1) | y", "x 1 amd64", "y 1 amd64"];
        assert_eq!(taken(&second), ["a 1 amd64", "y 1 amd64"]);
    }

    #[test]
    fn what_provides_a_name_meets_it_with_a_version_only_if_it_has_one() {
        let plain = ["*a 1 amd64 / mta", "post 1 amd64 / / mta", "exim 1 amd64 / / mta"];
        assert_eq!(taken(&plain), ["a 1 amd64", "exim 1 amd64"]);
        let needs =
            ["*a 1 amd64 / mta (>= 2)", "post 1 amd64 / / mta (= 2)", "exim 3 amd64 / / mta"];
        assert_eq!(taken(&needs), ["a 1 amd64", "post 1 amd64"]);
    }

    #[test]
    fn what_is_for_all_architectures_needs_what_it_needs_on_each() {
        let lines = ["*docs 1 all / tool", "tool 1 amd64", "tool 2 arm64"];
        assert_eq!(taken(&lines), ["docs 1 all", "tool 1 amd64", "tool 2 arm64"]);
    }

    #[test]
    fn where_everything_is_for_all_architectures_it_is_followed_too() {
        let found = closed(&["*docs 1 all / tool, gone", "tool 1 all / base", "base 1 all"]);
        let names: Vec<&str> = found.packages.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["base", "docs", "tool"]);
        assert_eq!(found.unmet.keys().collect::<Vec<_>>(), ["gone"]);
    }

    #[test]
    fn what_nothing_meets_is_told_once() {
        let found = closed(&["*a 1 amd64 / gone (>= 1), x (", "*b 1 amd64 / gone (>= 1)"]);
        let unmet: Vec<(&str, &str)> =
            found.unmet.iter().map(|(clause, who)| (clause.as_str(), who.as_str())).collect();
        assert_eq!(unmet, [("gone (>= 1)", "a"), ("x (", "a")]);
    }

    proptest! {
        #[test]
        fn all_that_can_be_met_is_met_whatever_the_order(
            depends in prop::collection::vec(prop::collection::btree_set(0usize..8, 0..3), 8),
            chosen in 0usize..8,
        ) {
            let line = |n: usize, of: &BTreeSet<usize>| {
                let names: Vec<String> = of.iter().map(|n| format!("p{n}")).collect();
                let star = if n == chosen { "*" } else { "" };
                format!("{star}p{n} 1 amd64 / {}", names.join(", "))
            };
            let lines: Vec<String> = depends.iter().enumerate().map(|(n, of)| line(n, of)).collect();
            let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let found = taken(&lines);
            let has = |n: usize| found.contains(&format!("p{n} 1 amd64"));
            for (n, of) in depends.iter().enumerate() {
                prop_assert!(!has(n) || of.iter().all(|n| has(*n)));
            }
            lines.reverse();
            prop_assert_eq!(taken(&lines), found);
        }
    }
}

//! What chosen packages require, within the same repository, so that a mirror of them installs on its own.
//!
//! Each requirement is met by what a package provides, or by a path that it has. What something chosen
//! meets already adds nothing. Else one package is taken: of those for the same architecture before those
//! that merely run on it; before packages of module streams that the requiring one is not in, as `dnf` shows
//! these only where somebody enabled them; called by the name that is required, else the first by name; of
//! that the newest. So the same choice of the same state gives the same packages. Conditions ("b, if a is
//! there") are judged again until nothing is added. Weak dependencies are not followed, nor are sources.

use super::capability::{Capability, Interner, Need};
use super::evr::Evr;
use super::primary::{Package, is_source};
use super::xml::{Cursor, XmlError};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Capabilities of all packages together: the largest real repositories have some five million.
const MAX_CAPABILITIES: usize = 20_000_000;
/// What packages of 64 bits run beside: those of the same family with 32.
const RUNS_ON: &[(&str, &[&str])] = &[
    ("x86_64", &["i686", "i586", "i486", "i386", "athlon"]),
    ("aarch64", &["armv8hl", "armv7hl"]),
    ("s390x", &["s390"]),
    ("ppc64", &["ppc"]),
];
const NOARCH: &str = "noarch";

/// The packages of a repository, and which are chosen.
#[derive(Default)]
pub struct Closure {
    all: Interner,
    units: Vec<Unit>,
    /// By what is provided, of that which something requires.
    provided: HashMap<Arc<str>, Vec<usize>>,
    is_taken: Vec<bool>,
    n_capabilities: usize,
}

struct Unit {
    pkgid: Box<str>,
    name: Arc<str>,
    evr: Arc<Evr>,
    arch: Arc<str>,
    /// The module stream that it is of.
    stream: Option<Arc<str>>,
    provides: Vec<Capability>,
    needs: Vec<Need>,
}

/// What came of following what is required.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// The packages that were added, as places in the order in which they were.
    pub added: Vec<usize>,
    /// What nothing in the repository meets, each with the first package that requires it.
    pub unmet: BTreeMap<String, String>,
}

/// Why a package was not added.
#[derive(Debug, thiserror::Error)]
pub enum NotAdded {
    /// What describes it cannot be read.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// All that packages provide and require would take too much memory.
    #[error("the packages provide and require more than {MAX_CAPABILITIES} things")]
    TooMany,
}

impl Closure {
    /// Adds a package, with the element of `primary.xml` that describes it. Sources are none that anything
    /// requires, and what they require is for building.
    pub fn add(
        &mut self,
        package: &Package,
        element: &str,
        stream: Option<&str>,
        is_chosen: bool,
    ) -> Result<(), NotAdded> {
        let (provides, needs) = match is_source(&package.arch) {
            true => (Vec::new(), Vec::new()),
            false => capabilities(element, &mut self.all)?,
        };
        self.n_capabilities += provides.len() + needs.len();
        if self.n_capabilities > MAX_CAPABILITIES {
            return Err(NotAdded::TooMany);
        }
        self.units.push(Unit {
            pkgid: package.pkgid.as_str().into(),
            name: self.all.name(&package.name),
            evr: self.all.version(package.evr.clone()),
            arch: self.all.name(&package.arch),
            stream: stream.map(|stream| self.all.name(stream)),
            provides,
            needs,
        });
        self.is_taken.push(is_chosen);
        Ok(())
    }

    /// Paths that something requires and no package that was added says it has: to be looked for in the list
    /// of all files.
    pub fn paths_to_find(&self) -> HashSet<Arc<str>> {
        let mut paths: HashSet<Arc<str>> = self.required();
        paths.retain(|name| name.starts_with('/'));
        for provided in self.units.iter().flat_map(|unit| &unit.provides) {
            paths.remove(&provided.name);
        }
        paths
    }

    /// Says which packages have which of these paths: by checksum.
    pub fn add_paths(&mut self, found: &HashMap<String, Vec<Arc<str>>>) {
        for unit in &mut self.units {
            let paths = found.get(&*unit.pkgid).into_iter().flatten();
            unit.provides.extend(paths.map(|path| Capability::any(path.clone())));
        }
    }

    fn required(&self) -> HashSet<Arc<str>> {
        let needs = self.units.iter().flat_map(|unit| &unit.needs);
        needs.flat_map(Need::capabilities).map(|wanted| wanted.name.clone()).collect()
    }

    /// Follows what the chosen ones require.
    pub fn close(mut self) -> Closed {
        let required = self.required();
        for (at, unit) in self.units.iter_mut().enumerate() {
            unit.provides.retain(|provided| required.contains(&provided.name));
            for provided in &unit.provides {
                let of = self.provided.entry(provided.name.clone()).or_default();
                if of.last() != Some(&at) {
                    of.push(at);
                }
            }
        }
        let was_chosen = self.is_taken.clone();
        let main = self.main_arches();
        let mut taken: Vec<usize> = (0..self.units.len()).filter(|at| self.is_taken[*at]).collect();
        taken.sort_by(|a, b| self.order(*a, *b));
        let mut queue = VecDeque::from(taken.clone());
        while !queue.is_empty() {
            while let Some(at) = queue.pop_front() {
                let added = self.follow(at, &main);
                taken.extend(&added);
                queue.extend(added);
            }
            // Conditions may hold now that did not before.
            for at in taken.clone() {
                let added = self.follow(at, &main);
                taken.extend(&added);
                queue.extend(added);
            }
        }
        let mut closed = Closed::default();
        for at in &taken {
            let unit = &self.units[*at];
            for need in &unit.needs {
                if !main_of(unit, &main).iter().all(|arch| self.is_met(need, arch)) {
                    let who = || unit.name.to_string();
                    closed.unmet.entry(need.to_string()).or_insert_with(who);
                }
            }
        }
        closed.added = taken.into_iter().filter(|at| !was_chosen[*at]).collect();
        closed.added.sort_unstable();
        closed
    }

    /// The architectures of machines that the repository is for.
    fn main_arches(&self) -> Vec<Arc<str>> {
        let all: BTreeSet<&Arc<str>> = self.units.iter().map(|unit| &unit.arch).collect();
        let is_beside = |arch: &str| {
            let of = RUNS_ON.iter().filter(|(_, beside)| beside.contains(&arch));
            of.map(|(main, _)| *main).any(|main| all.iter().any(|arch| &***arch == main))
        };
        let main =
            all.iter().filter(|arch| &****arch != NOARCH && !is_source(arch) && !is_beside(arch));
        let main: Vec<Arc<str>> = main.map(|arch| (*arch).clone()).collect();
        if main.is_empty() { vec![NOARCH.into()] } else { main }
    }

    /// Takes what a package requires and is not taken yet; what that is.
    fn follow(&mut self, at: usize, main: &[Arc<str>]) -> Vec<usize> {
        let mut found = Vec::new();
        let unit = &self.units[at];
        for need in &unit.needs {
            for arch in main_of(unit, main) {
                let mut taking = Vec::new();
                self.find(need, &arch, unit.stream.as_ref(), &mut taking);
                for one in taking {
                    if !std::mem::replace(&mut self.is_taken[one], true) {
                        found.push(one);
                    }
                }
            }
        }
        found
    }

    /// Finds the packages that, taken, meet a need, if it is not met and can be.
    fn find(&self, need: &Need, arch: &str, stream: Option<&Arc<str>>, taking: &mut Vec<usize>) {
        if self.is_met(need, arch) {
            return;
        }
        match need {
            Need::All(needs) => {
                needs.iter().for_each(|need| self.find(need, arch, stream, taking));
            }
            Need::Any(needs) => {
                let first = needs.iter().find(|need| self.can_be_met(need, arch));
                if let Some(first) = first {
                    self.find(first, arch, stream, taking);
                }
            }
            Need::If(two, otherwise) => {
                // It is not met, so what is asked for now is what the condition leads to.
                match self.is_met(&two[1], arch) {
                    true => self.find(&two[0], arch, stream, taking),
                    false => {
                        otherwise.iter().for_each(|need| self.find(need, arch, stream, taking));
                    }
                }
            }
            Need::Unless(two, otherwise) => match self.is_met(&two[1], arch) {
                false => self.find(&two[0], arch, stream, taking),
                true => otherwise.iter().for_each(|need| self.find(need, arch, stream, taking)),
            },
            Need::One(_) | Need::With(_) | Need::Without(_) => {
                let name = match need {
                    Need::One(capability) => Some(&capability.name),
                    _ => None,
                };
                let place = |at: usize| {
                    let unit = &self.units[at];
                    let is_hidden = unit.stream.is_some() && unit.stream.as_ref() != stream;
                    let is_beside = !matches!(&*unit.arch, of if of == arch || of == NOARCH);
                    (is_beside, is_hidden, Some(&unit.name) != name, unit.name.clone())
                };
                let best = self.meeting(need, arch).into_iter().min_by(|a, b| {
                    let newest_first =
                        || self.units[*b].evr.compare(&self.units[*a].evr).then(a.cmp(b));
                    place(*a).cmp(&place(*b)).then_with(newest_first)
                });
                taking.extend(best);
            }
        }
    }

    fn is_met(&self, need: &Need, arch: &str) -> bool {
        match need {
            Need::All(needs) => needs.iter().all(|need| self.is_met(need, arch)),
            Need::Any(needs) => needs.iter().any(|need| self.is_met(need, arch)),
            Need::If(two, otherwise) => {
                let wanted =
                    if self.is_met(&two[1], arch) { Some(&two[0]) } else { otherwise.as_deref() };
                wanted.is_none_or(|need| self.is_met(need, arch))
            }
            Need::Unless(two, otherwise) => {
                let wanted =
                    if self.is_met(&two[1], arch) { otherwise.as_deref() } else { Some(&two[0]) };
                wanted.is_none_or(|need| self.is_met(need, arch))
            }
            Need::One(_) | Need::With(_) | Need::Without(_) => {
                self.meeting(need, arch).iter().any(|at| self.is_taken[*at])
            }
        }
    }

    /// Whether there are packages that would meet it. Of a condition that is not decided yet, that is so.
    fn can_be_met(&self, need: &Need, arch: &str) -> bool {
        match need {
            Need::All(needs) => needs.iter().all(|need| self.can_be_met(need, arch)),
            Need::Any(needs) => needs.iter().any(|need| self.can_be_met(need, arch)),
            Need::If(..) | Need::Unless(..) => true,
            Need::One(_) | Need::With(_) | Need::Without(_) => !self.meeting(need, arch).is_empty(),
        }
    }

    /// The packages of which each alone meets a need, in order.
    fn meeting(&self, need: &Need, arch: &str) -> BTreeSet<usize> {
        match need {
            Need::One(wanted) => {
                let of_name = self.provided.get(&wanted.name).into_iter().flatten();
                let meets = |at: &&usize| {
                    let unit = &self.units[**at];
                    runs_on(&unit.arch, arch) && unit.provides.iter().any(|it| it.meets(wanted))
                };
                of_name.filter(meets).copied().collect()
            }
            Need::With(needs) => {
                let each = needs.iter().map(|need| self.meeting(need, arch));
                each.reduce(|one, other| &one & &other).unwrap_or_default()
            }
            Need::Without(two) => &self.meeting(&two[0], arch) - &self.meeting(&two[1], arch),
            Need::Any(needs) => needs.iter().flat_map(|need| self.meeting(need, arch)).collect(),
            Need::All(_) | Need::If(..) | Need::Unless(..) => BTreeSet::new(),
        }
    }

    /// By name, then version, then architecture.
    fn order(&self, a: usize, b: usize) -> Ordering {
        let (one, other) = (&self.units[a], &self.units[b]);
        let name = one.name.cmp(&other.name);
        name.then_with(|| one.evr.compare(&other.evr)).then_with(|| one.arch.cmp(&other.arch))
    }
}

/// On which architectures what a package requires must be met: what is for all of them needs it on each.
fn main_of(unit: &Unit, main: &[Arc<str>]) -> Vec<Arc<str>> {
    if &*unit.arch == NOARCH { main.to_vec() } else { vec![unit.arch.clone()] }
}

fn runs_on(arch: &str, on: &str) -> bool {
    arch == on
        || arch == NOARCH
        || RUNS_ON.iter().any(|(main, beside)| *main == on && beside.contains(&arch))
}

/// What a package provides, the files named beside it too, and what it requires.
fn capabilities(
    element: &str,
    all: &mut Interner,
) -> Result<(Vec<Capability>, Vec<Need>), XmlError> {
    let (mut provides, mut needs) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new(element);
    cursor.child()?;
    while let Some(tag) = cursor.child()? {
        if tag.name() != "format" {
            cursor.skip()?;
            continue;
        }
        while let Some(tag) = cursor.child()? {
            match tag.name() {
                "provides" => {
                    while let Some(tag) = cursor.child()? {
                        provides.push(Capability::read(&tag, all)?);
                        cursor.skip()?;
                    }
                }
                "requires" => {
                    while let Some(tag) = cursor.child()? {
                        needs.extend(Need::read(&tag, all)?);
                        cursor.skip()?;
                    }
                }
                "file" => provides.push(Capability::any(all.name(cursor.text()?.trim()))),
                _ => cursor.skip()?,
            }
        }
    }
    Ok((provides, needs))
}

/// Those of `wanted` that a package has, from its element of `filelists.xml`.
pub fn paths_in(element: &str, wanted: &HashSet<Arc<str>>) -> Result<Vec<Arc<str>>, XmlError> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(element);
    cursor.child()?;
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "file" => found.extend(wanted.get(cursor.text()?.trim()).cloned()),
            _ => cursor.skip()?,
        }
    }
    Ok(found)
}

/// What the fuzz target does with an element of either list.
#[doc(hidden)]
pub fn fuzz_element(package: &Package, element: &str) {
    let mut closure = Closure::default();
    if closure.add(package, element, None, true).is_ok() {
        let paths = closure.paths_to_find();
        let _ = paths_in(element, &paths);
        let closed = closure.close();
        assert!(closed.added.is_empty(), "there is no other package");
    }
}

#[cfg(test)]
mod tests {
    use super::super::primary;
    use super::*;
    use proptest::prelude::*;

    /// Packages as `name evr arch / requires / provides`, in commas; those with a star are chosen.
    fn closure(lines: &[&str]) -> (Closure, Vec<String>) {
        let (mut closure, mut names) = (Closure::default(), Vec::new());
        for (n, line) in lines.iter().enumerate() {
            let mut parts = line.split('/').map(str::trim);
            let head = parts.next().unwrap();
            let (head, stream) = head.split_once('@').map_or((head, None), |(h, s)| (h, Some(s)));
            let words: Vec<&str> = head.trim_start_matches('*').split_whitespace().collect();
            let (name, evr, arch) = (words[0], words[1], words[2]);
            let entry = |text: &str| {
                let text = text.replace('%', "/");
                let words: Vec<&str> = text.split(' ').collect();
                match words.as_slice() {
                    [name, sign, evr] if !name.starts_with('(') => {
                        let sign = match *sign {
                            ">=" => "GE",
                            "<" => "LT",
                            _ => "EQ",
                        };
                        format!("<rpm:entry name='{name}' flags='{sign}' ver='{evr}'/>")
                    }
                    _ => format!("<rpm:entry name='{}'/>", text.replace('<', "&lt;")),
                }
            };
            let list = |text: &str| -> String {
                text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(entry).collect()
            };
            let requires = list(parts.next().unwrap_or_default());
            let provides = list(parts.next().unwrap_or_default());
            let element = format!(
                "<package><name>{name}</name><arch>{arch}</arch><version ver='{evr}' rel=''/>\
                 <checksum type='sha256'>{n:064x}</checksum><size package='1'/>\
                 <location href='{n}.rpm'/><format><rpm:provides>{provides}\
                 <rpm:entry name='{name}' flags='EQ' ver='{evr}'/></rpm:provides>\
                 <rpm:requires>{requires}</rpm:requires></format></package>"
            );
            let package = primary::package(&element).unwrap();
            let is_chosen = head.starts_with('*');
            closure.add(&package, &element, stream, is_chosen).unwrap();
            names.push(format!("{name} {evr} {arch}"));
        }
        (closure, names)
    }

    fn added(lines: &[&str]) -> Vec<String> {
        let (closure, names) = closure(lines);
        closure.close().added.into_iter().map(|at| names[at].clone()).collect()
    }

    #[test]
    fn what_is_required_comes_along_and_the_newest_of_it() {
        let lines = [
            "*web 1 x86_64 / tls >= 2, base, rpmlib(X) = 1",
            "tls 1 x86_64",
            "tls 2 x86_64 / libc",
            "tls 3 x86_64 / libc",
            "tls 4 i686",
            "base 1 noarch",
            "libc 1 x86_64 / tls",
            "other 1 x86_64",
            "tls 5 src",
        ];
        assert_eq!(added(&lines), ["tls 3 x86_64", "base 1 noarch", "libc 1 x86_64"]);
    }

    #[test]
    fn what_provides_a_name_meets_it_and_its_own_name_comes_first() {
        let lines = ["*a 1 noarch / mta", "post 1 noarch / / mta", "exim 1 noarch / / mta = 3"];
        assert_eq!(added(&lines), ["exim 1 noarch"]);
        let lines =
            ["*a 1 noarch / mta >= 2", "post 1 noarch / / mta = 1", "exim 1 noarch / / mta"];
        assert_eq!(added(&lines), ["exim 1 noarch"], "without a version it is in each relation");
        let lines = ["*a 1 noarch / mta", "aa 9 noarch / / mta", "mta 1 noarch"];
        assert_eq!(added(&lines), ["mta 1 noarch"]);
    }

    #[test]
    fn conditions_are_judged_until_nothing_is_added() {
        let lines = [
            "*a 1 noarch / (c if b), (x or y), d",
            "b 1 noarch",
            "c 1 noarch",
            "d 1 noarch / b",
            "y 1 noarch",
            "z 1 noarch",
        ];
        assert_eq!(added(&lines), ["b 1 noarch", "c 1 noarch", "d 1 noarch", "y 1 noarch"]);
        let lines = ["*a 1 noarch / (c if b else z)", "c 1 noarch", "z 1 noarch"];
        assert_eq!(added(&lines), ["z 1 noarch"]);
        let lines = [
            "*a 1 noarch / (lib >= 2 with lib < 3)",
            "lib 1 noarch",
            "lib 2 noarch",
            "lib 3 noarch",
        ];
        assert_eq!(added(&lines), ["lib 2 noarch"]);
        let lines = ["*a 1 noarch / (m without n)", "p 1 noarch / / m, n", "q 1 noarch / / m"];
        assert_eq!(added(&lines), ["q 1 noarch"]);
    }

    #[test]
    fn what_a_machine_would_not_see_comes_last() {
        // Of a stream that nobody enabled; then of the 32 bits beside.
        let lines = ["*a 1 x86_64 / js", "js 20 x86_64 @nodejs:20", "js 16 x86_64", "js 30 i686"];
        assert_eq!(added(&lines), ["js 16 x86_64"]);
        let lines =
            ["*npm 1 x86_64 @nodejs:20 / js", "js 20 x86_64 @nodejs:20", "js 18 x86_64 @nodejs:18"];
        assert_eq!(added(&lines), ["js 20 x86_64"]);
        let lines = ["*a 1 x86_64 / b", "b 1 i686 / c", "c 1 i686", "c 1 x86_64"];
        assert_eq!(added(&lines), ["b 1 i686", "c 1 i686"]);
    }

    #[test]
    fn paths_are_found_in_the_list_of_all_files_where_the_short_one_has_them_not() {
        let (mut closure, names) = closure(&[
            "*a 1 noarch / %usr%lib%x, %bin%sh",
            "b 1 noarch",
            "sh 1 noarch / / %bin%sh",
        ]);
        let wanted = closure.paths_to_find();
        assert_eq!(wanted.iter().map(|path| &**path).collect::<Vec<_>>(), ["/usr/lib/x"]);
        let element = format!(
            "<package pkgid='{:064x}' name='b'><version ver='1'/><file>/etc/b</file><file \
             type='dir'>/usr/lib/x</file></package>",
            1
        );
        let found = paths_in(&element, &wanted).unwrap();
        closure.add_paths(&HashMap::from([(format!("{:064x}", 1), found)]));
        let added: Vec<_> = closure.close().added.into_iter().map(|at| &names[at]).collect();
        assert_eq!(added, ["b 1 noarch", "sh 1 noarch"]);
    }

    #[test]
    fn what_nothing_meets_is_told_once() {
        let lines = ["*a 1 noarch / gone >= 1, (x or y)", "*b 1 noarch / gone >= 1"];
        let unmet = closure(&lines).0.close().unmet;
        let unmet: Vec<(&str, &str)> = unmet.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(unmet, [("(x or y)", "a"), ("gone >= 1", "a")]);
    }

    proptest! {
        #[test]
        fn all_that_can_be_met_is_met_whatever_the_order(
            requires in prop::collection::vec(prop::collection::btree_set(0usize..8, 0..3), 8),
            chosen in 0usize..8,
        ) {
            let line = |n: usize, of: &BTreeSet<usize>| {
                let names: Vec<String> = of.iter().map(|n| format!("p{n}")).collect();
                let star = if n == chosen { "*" } else { "" };
                format!("{star}p{n} 1 x86_64 / {}", names.join(", "))
            };
            let lines: Vec<String> =
                requires.iter().enumerate().map(|(n, of)| line(n, of)).collect();
            let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut found = added(&lines);
            let has = |n: usize| n == chosen || found.contains(&format!("p{n} 1 x86_64"));
            for (n, of) in requires.iter().enumerate() {
                prop_assert!(!has(n) || of.iter().all(|n| has(*n)));
            }
            lines.reverse();
            let mut other = added(&lines);
            found.sort();
            other.sort();
            prop_assert_eq!(other, found);
        }
    }
}

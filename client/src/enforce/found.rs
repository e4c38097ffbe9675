//! What a scan found of the updates that are deployed: which the machine requires, and what of them it needs.
//!
//! Documents of deployments may be large, and most of what they hold is nothing to one machine. After each scan the
//! documents are read once, and what is kept is this.

use crate::applicability::State;
use crate::facts::{Condition, Facts, Installed, Platform};
use deployment::policy::{DeployedFile, DeployedItem, DeployedUpdate, DeployedUpdates};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use sync::apt::version;
use sync::name::UpdateId;
use sync::rpm::evr::Evr;
use sync::taxonomy::Language;
use sync::update::{Behaviour, Handler, PackageFile};

/// What the last scan found. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// The documents that were there, by digest.
    pub documents: BTreeMap<String, Evaluated>,
    /// The updates that are required.
    pub updates: BTreeMap<UpdateId, Needed>,
    /// The updates that something was done for, and that are not required any more.
    pub done: BTreeMap<UpdateId, Done>,
    /// The packages that installers said to lack, as far as a deployment has them, by name.
    pub beside: BTreeMap<String, DeployedFile>,
}

/// What was found of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Its updates that are required, or that something was done for.
    pub updates: BTreeSet<UpdateId>,
    /// How many of its updates nobody can tell the state of.
    pub unknown: u64,
    /// How many the catalogue here does not have. It may be older than the deployment; or they are for other machines.
    pub missing: u64,
}

/// An update that is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needed {
    /// What people call it.
    pub name: String,
    /// What it is, in a line.
    pub title: String,
    /// What installing it does to the machine.
    pub behaviour: Behaviour,
    /// Whether it is installed by way of its parts.
    pub is_bundle: bool,
    /// Whether it is installed, and required only as the machine was not restarted since.
    pub awaits_restart: bool,
    /// What is to be installed, with the files that this machine needs of it.
    pub items: Vec<DeployedItem>,
}

/// An update that something was done for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What people call it.
    pub name: String,
    /// Whether it is installed; else it does not apply any more, or something newer is in its place.
    pub is_installed: bool,
}

/// What documents are looked at by.
pub struct Looks<'a> {
    /// The machine.
    pub facts: &'a dyn Facts,
    /// Its language, if it says one.
    pub language: Option<&'a Language>,
    /// The states of updates, as the scan found them.
    pub state: &'a dyn Fn(UpdateId) -> Option<State>,
    /// Which of those that are required only await a restart.
    pub awaits_restart: &'a dyn Fn(UpdateId) -> bool,
    /// The items of a required update that apply, by their number; all, where that is none.
    pub items: &'a BTreeMap<UpdateId, BTreeSet<u32>>,
    /// The updates that something was done for.
    pub known: &'a BTreeSet<UpdateId>,
    /// The packages that installers said to lack.
    pub lacks: &'a BTreeSet<String>,
}

impl Found {
    /// Takes in a document.
    pub fn add(&mut self, digest: &str, document: DeployedUpdates, looks: &Looks<'_>) {
        let mut evaluated = Evaluated::default();
        for update in document.updates {
            looks.beside(&update, &mut self.beside);
            let (id, state) = (update.id, (looks.state)(update.id));
            let is_required = match state {
                Some(State::Required) => true,
                // It was begun, or a package of it is half installed: nobody can tell what is there, but that it is
                // not whole.
                Some(State::Unknown) if looks.known.contains(&id) || looks.is_begun(&update) => {
                    true
                }
                Some(State::Unknown) => {
                    evaluated.unknown += 1;
                    false
                }
                None => {
                    evaluated.missing += u64::from(!looks.is_of_another_platform(&update));
                    false
                }
                _ => false,
            };
            if is_required {
                self.updates.entry(id).or_insert_with(|| looks.needed(update));
            } else if looks.known.contains(&id) {
                let is_installed = state == Some(State::Installed);
                self.done.entry(id).or_insert(Done { name: update.name, is_installed });
            } else {
                continue;
            }
            evaluated.updates.insert(id);
        }
        self.documents.insert(digest.to_owned(), evaluated);
    }
}

impl Needed {
    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = &DeployedFile> {
        self.items.iter().flat_map(|item| &item.files)
    }
}

impl Looks<'_> {
    fn needed(&self, update: DeployedUpdate) -> Needed {
        let applies = |item: &DeployedItem| {
            self.items.get(&update.id).is_none_or(|items| items.contains(&item.item))
        };
        let is_bundle = update.items.is_empty() && !update.parts.is_empty();
        let items = update.items.into_iter().filter(applies);
        let items = items.filter(|item| self.speaks_any(&item.languages));
        Needed {
            name: update.name,
            title: update.title,
            behaviour: update.behaviour,
            is_bundle,
            awaits_restart: (self.awaits_restart)(update.id),
            items: items.map(|item| self.item(item)).collect(),
        }
    }

    /// An item with the files that this machine needs of it: of packages those that replace an older one.
    fn item(&self, mut item: DeployedItem) -> DeployedItem {
        item.files.retain(|file| file.language.as_ref().is_none_or(|it| self.speaks(it)));
        if matches!(item.handler, Some(Handler::Apt | Handler::Rpm)) {
            let replaces = |file: &DeployedFile| {
                file.package.as_ref().is_none_or(|package| self.replaces_older(package))
            };
            let is_for =
                |file: &DeployedFile| file.package.as_ref().is_none_or(|it| self.is_for_this(it));
            match item.files.iter().any(replaces) {
                true => item.files.retain(replaces),
                // It is required, and of nothing that is installed: then it is something new.
                false => item.files.retain(is_for),
            }
        }
        item
    }

    /// Whether an update is installed in a way that this machine does not have.
    fn is_of_another_platform(&self, update: &DeployedUpdate) -> bool {
        let platform = self.facts.system().platform;
        let is_foreign = |item: &DeployedItem| match item.handler {
            Some(Handler::Apt) => platform != Platform::Debian,
            Some(Handler::Rpm) => platform != Platform::Rpm,
            Some(Handler::Msi { .. } | Handler::Msp { .. }) => platform != Platform::Windows,
            _ => false,
        };
        !update.items.is_empty() && update.items.iter().all(is_foreign)
    }

    /// Whether a package of an update was begun to be installed and is not.
    fn is_begun(&self, update: &DeployedUpdate) -> bool {
        let files = update.items.iter().flat_map(|item| &item.files);
        files.filter_map(|file| file.package.as_ref()).any(|package| {
            let all = self.installed(&package.name);
            all.iter().any(|it| it.condition == Condition::Unfinished)
        })
    }

    fn speaks(&self, language: &Language) -> bool {
        let first = |it: &Language| it.as_str().split('-').next().unwrap_or_default().to_owned();
        self.language.is_none_or(|own| first(own) == first(language))
    }

    fn speaks_any(&self, languages: &BTreeSet<Language>) -> bool {
        languages.is_empty() || languages.iter().any(|it| self.speaks(it))
    }

    fn installed(&self, name: &str) -> &[Installed] {
        self.facts.system().packages.get(name).unwrap_or_default()
    }

    fn replaces_older(&self, package: &PackageFile) -> bool {
        let of_arch = |it: &&Installed| {
            is_for_all(&package.arch) || is_for_all(&it.arch) || *it.arch == *package.arch
        };
        let mut all = self.installed(&package.name).iter().filter(of_arch).peekable();
        all.peek().is_some() && all.all(|it| self.is_older(&it.version, &package.version))
    }

    fn is_for_this(&self, package: &PackageFile) -> bool {
        is_for_all(&package.arch) || package.arch == self.facts.system().architecture
    }

    fn is_older(&self, a: &str, b: &str) -> bool {
        let order = match self.facts.system().platform {
            Platform::Rpm => compare_evr(a, b),
            _ => version::compare(a, b),
        };
        order == Ordering::Less
    }

    /// Takes what an installer lacked from an update that has it; of several the newest.
    fn beside(&self, update: &DeployedUpdate, found: &mut BTreeMap<String, DeployedFile>) {
        if self.lacks.is_empty() {
            return;
        }
        for file in update.items.iter().flat_map(|item| &item.files) {
            let Some(package) = &file.package else { continue };
            if !self.lacks.contains(&package.name) || !self.is_for_this(package) {
                continue;
            }
            let has = found.get(&package.name).and_then(|it| it.package.as_ref());
            if has.is_none_or(|has| self.is_older(&has.version, &package.version)) {
                found.insert(package.name.clone(), file.clone());
            }
        }
    }
}

fn is_for_all(arch: &str) -> bool {
    matches!(arch, "all" | "noarch")
}

/// Versions of RPM packages; one that is none is not older than another.
fn compare_evr(a: &str, b: &str) -> Ordering {
    match (a.parse::<Evr>(), b.parse::<Evr>()) {
        (Ok(a), Ok(b)) => a.compare(&b),
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Inventory, OsRelease, System};

    struct Machine(System);

    impl Facts for Machine {
        fn system(&self) -> &System {
            &self.0
        }
    }

    fn machine(platform: Platform, packages: &[(&str, &str, &str)]) -> Machine {
        let mut inventory = Inventory::default();
        for (name, version, arch) in packages {
            let package = Installed {
                version: (*version).into(),
                arch: (*arch).into(),
                condition: Condition::Whole,
                is_held: false,
            };
            inventory.add(name, package);
        }
        Machine(System {
            platform,
            release: OsRelease::default(),
            packages: inventory,
            architecture: "amd64".into(),
        })
    }

    fn file(name: &str, version: &str, arch: &str) -> DeployedFile {
        DeployedFile {
            name: format!("{name}-{version}-{arch}"),
            package: Some(PackageFile {
                name: name.into(),
                version: version.into(),
                arch: arch.into(),
            }),
            ..DeployedFile::default()
        }
    }

    fn update(name: &str, items: Vec<DeployedItem>) -> DeployedUpdate {
        DeployedUpdate {
            id: UpdateId::named(&[name]),
            revision: 1,
            name: name.into(),
            title: name.into(),
            behaviour: Behaviour::default(),
            parts: BTreeSet::new(),
            items,
        }
    }

    fn item(handler: Option<Handler>, files: Vec<DeployedFile>) -> DeployedItem {
        DeployedItem { handler, files, ..DeployedItem::default() }
    }

    /// What of these updates is needed, all being required but those called so.
    fn found(
        machine: &Machine,
        updates: Vec<DeployedUpdate>,
        lacks: &[&str],
        language: Option<&Language>,
    ) -> Found {
        let items = BTreeMap::new();
        let known = ["done", "superseded"].map(|name| UpdateId::named(&[name])).into();
        let lacks = lacks.iter().map(|it| (*it).to_owned()).collect();
        let state = |id: UpdateId| match id {
            id if ["installed", "done"].map(|name| UpdateId::named(&[name])).contains(&id) => {
                Some(State::Installed)
            }
            id if id == UpdateId::named(&["superseded"]) => Some(State::NotRequired),
            id if id == UpdateId::named(&["unknown"]) => Some(State::Unknown),
            id if id == UpdateId::named(&["newer"]) => None,
            _ => Some(State::Required),
        };
        let looks = Looks {
            facts: machine,
            language,
            state: &state,
            awaits_restart: &|id| id == UpdateId::named(&["waits"]),
            items: &items,
            known: &known,
            lacks: &lacks,
        };
        let mut found = Found::default();
        found.add("d", DeployedUpdates { updates }, &looks);
        found
    }

    fn files(found: &Found, name: &str) -> Vec<String> {
        found.updates[&UpdateId::named(&[name])].files().map(|it| it.name.clone()).collect()
    }

    #[test]
    fn of_a_source_those_packages_are_needed_that_replace_older_ones() {
        let installed = [
            ("libssl3", "3.0.16-1", "amd64"),
            ("openssl", "3.0.17-1", "amd64"),
            ("doc", "1", "all"),
        ];
        let all = vec![
            file("libssl3", "3.0.17-1", "amd64"),
            file("libssl3", "3.0.17-1", "i386"),
            file("libssl-dev", "3.0.17-1", "amd64"),
            file("openssl", "3.0.17-1", "amd64"),
            file("doc", "3.0.17-1", "all"),
        ];
        let of = update("openssl", vec![item(Some(Handler::Apt), all)]);
        let found =
            found(&machine(Platform::Debian, &installed), vec![of], &["libssl-dev", "x"], None);
        assert_eq!(files(&found, "openssl"), ["libssl3-3.0.17-1-amd64", "doc-3.0.17-1-all"]);
        assert_eq!(found.beside.keys().collect::<Vec<_>>(), ["libssl-dev"]);
    }

    #[test]
    fn what_is_half_installed_is_installed_again_though_nobody_can_tell_its_state() {
        let mut machine = machine(Platform::Debian, &[("a", "2", "amd64")]);
        let of = || vec![update("unknown", vec![item(None, vec![file("a", "2", "amd64")])])];
        assert!(found(&machine, of(), &[], None).updates.is_empty());
        let mut inventory = Inventory::default();
        let package = machine.0.packages.get("a").unwrap()[0].clone();
        inventory.add("a", Installed { condition: Condition::Unfinished, ..package });
        machine.0.packages = inventory;
        assert_eq!(files(&found(&machine, of(), &[], None), "unknown"), ["a-2-amd64"]);
    }

    #[test]
    fn versions_are_compared_as_the_packager_does() {
        let installed = [("bash", "0:5.1-10.el9", "x86_64")];
        let all = vec![file("bash", "5.1-9.el9", "x86_64"), file("bash", "5.1-11.el9", "x86_64")];
        let of =
            update("bash", vec![item(None, vec![all[1].clone()]), item(Some(Handler::Rpm), all)]);
        let found = found(&machine(Platform::Rpm, &installed), vec![of], &[], None);
        assert_eq!(files(&found, "bash"), ["bash-5.1-11.el9-x86_64"; 2]);
    }

    #[test]
    fn what_is_not_required_is_left_out_and_what_nobody_knows_is_counted() {
        let all = ["installed", "unknown", "newer", "other", "waits"];
        let of = all.map(|name| update(name, vec![item(None, Vec::new())])).into();
        let found = found(&machine(Platform::Debian, &[]), of, &[], None);
        let evaluated = &found.documents["d"];
        assert_eq!((evaluated.unknown, evaluated.missing), (1, 1));
        let [other, waits] = ["other", "waits"].map(|name| UpdateId::named(&[name]));
        assert_eq!(evaluated.updates, BTreeSet::from([other, waits]));
        assert!(found.updates[&waits].awaits_restart && !found.updates[&other].awaits_restart);
    }

    #[test]
    fn what_something_was_done_for_keeps_its_name_and_is_called_installed_only_if_it_is() {
        let of = ["done", "superseded", "installed"].map(|name| update(name, Vec::new())).into();
        let found = found(&machine(Platform::Debian, &[]), of, &[], None);
        let [done, superseded] = ["done", "superseded"].map(|name| UpdateId::named(&[name]));
        assert_eq!(found.documents["d"].updates, BTreeSet::from([done, superseded]));
        let is = |name: &str, is_installed| Done { name: name.into(), is_installed };
        let all = [(done, is("done", true)), (superseded, is("superseded", false))];
        assert_eq!(found.done, BTreeMap::from(all));
    }

    #[test]
    fn a_bundle_is_installed_by_way_of_its_parts_and_files_in_the_machines_language() {
        let mut bundle = update("bundle", Vec::new());
        bundle.parts.insert(UpdateId::named(&["part"]));
        let of = |language: &str| DeployedFile {
            name: language.into(),
            language: Some(language.parse().unwrap()),
            ..DeployedFile::default()
        };
        let part =
            update("part", vec![item(None, vec![of("de"), of("en"), DeployedFile::default()])]);
        let german: Language = "de-at".parse().unwrap();
        let found = found(&machine(Platform::Debian, &[]), vec![bundle, part], &[], Some(&german));
        assert!(found.updates[&UpdateId::named(&["bundle"])].is_bundle);
        assert_eq!(files(&found, "part"), ["de", ""]);
    }
}

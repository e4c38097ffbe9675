//! One update: what it is, what it mends, what it replaces, which machines it is for, its files.
//!
//! All upstreams are read into this one form. An update has an id, which stays, and revisions, of
//! which each is immutable. Its relations may name updates that no catalogue has: upstreams do so.

use crate::digests::Digests;
use crate::name::UpdateId;
use crate::rule::Rules;
use crate::taxonomy::{Classification, Language, Severity};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The longest title, in bytes; what is longer is cut by [`Update::clip`].
pub const MAX_TITLE: usize = 1_000;
/// The longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 64 << 10;
/// Files, relations, CVEs and the like: at most so many of each in one update.
pub const MAX_ITEMS: usize = 20_000;

/// One revision of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which update it is.
    pub id: UpdateId,
    /// What its upstream calls it, or people do: `DSA-5545-1`, `ALSA-2023:1930`, `KB5031354`, `openssl
    /// 3.0.17-1`.
    pub name: String,
    /// The revision that its upstream states. Where it states none, the catalogue counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// What it is to the catalogue.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// Title and description by language. There is one at least.
    pub texts: BTreeMap<Language, Text>,
    /// Its classification; none where the upstream has one that is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// How bad what it mends is; none where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Ids of the products that it is for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub products: BTreeSet<String>,
    /// Advisories, bulletins and articles: `DSA-5545-1`, `MS17-010`, `KB4012598`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub articles: BTreeSet<String>,
    /// CVE ids.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cves: BTreeSet<String>,
    /// When its upstream made it.
    pub created: Timestamp,
    /// When it was released, where that is another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
    /// Whether its upstream still offers it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publication: Publication,
    /// The updates that it replaces.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<UpdateId>,
    /// What must be installed, or true, before it: of each group one at least.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<AnyOf>,
    /// What it is a bundle of: of each group one at least. A bundle has no files, its parts do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<AnyOf>,
    /// The revisions of those parts, where its upstream states them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bundled_revisions: BTreeMap<UpdateId, u32>,
    /// The terms that a person must accept first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
    /// What installing it does to the machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub behaviour: Behaviour,
    /// Whether it applies.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
    /// What is installed; several in third-party packages, of which those apply whose rules hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub links: BTreeSet<String>,
    /// The document it was read from, where another server may ask for it word by word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
}

/// What an entry of the catalogue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An update of software.
    #[default]
    Software,
    /// An update of a driver.
    Driver,
    /// A product, family, company or classification, as Microsoft's catalogues have them.
    Category,
    /// A fact about machines that other updates require.
    Detectoid,
}

/// Whether an upstream still offers an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publication {
    /// It does.
    #[default]
    Published,
    /// It took it back: no new deployment may have it.
    Expired,
}

/// What people read of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// One line.
    pub title: String,
    /// Some sentences; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Updates of which one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnyOf {
    /// Which.
    pub ids: BTreeSet<UpdateId>,
    /// Whether the group says to which products and classifications the update belongs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_category: bool,
}

/// Terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// Their id: terms that were accepted once are accepted for all that have them.
    pub id: String,
    /// The texts, one for each language.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// What installing does to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Whether the machine restarts.
    pub restart: Restart,
    /// Whether it must be installed alone.
    pub impact: Impact,
    /// Whether somebody may have to answer questions.
    pub may_ask: bool,
    /// Whether it needs the network.
    pub needs_network: bool,
    /// Whether it can be taken off again.
    pub can_uninstall: bool,
}

/// Whether an update restarts a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It never does.
    Never,
    /// It may ask for it.
    #[default]
    MayAsk,
    /// It always does.
    Always,
}

/// What else may run while an update is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Anything.
    #[default]
    Normal,
    /// Anything, and nobody notices.
    Minor,
    /// Nothing.
    Exclusive,
}

/// One thing to install.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    /// Its id, where the upstream has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<UpdateId>,
    /// Whether it applies; beside those of the update.
    #[serde(skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
    /// How it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<Handler>,
    /// What is downloaded for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// The languages it is for; all, if none is named.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub languages: BTreeSet<Language>,
}

/// One file of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// Its name: a plain one, without folders.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What is stated about them.
    pub digests: Digests,
    /// Where it can be had, in the order to try; absolute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Its language, if it is for one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// The path in its repository, where it is of one: `pool/main/o/openssl/…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What packagers call it, where it is a package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageFile>,
}

/// The package that a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// Its name.
    pub name: String,
    /// Its version as its packager compares it.
    pub version: String,
    /// Its architecture.
    pub arch: String,
}

/// How something is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handler {
    /// By `apt`, as the packages of the item's files.
    Apt,
    /// By `dnf`, likewise.
    Rpm,
    /// By running a program of the item's files.
    CommandLine {
        /// The program.
        program: String,
        /// What it is given.
        arguments: String,
        /// What a code means that is not listed.
        default_result: CodeResult,
        /// Whether a restart follows then.
        restart_by_default: bool,
        /// What codes mean.
        codes: Vec<ReturnCode>,
    },
    /// By Windows Installer, from a package.
    Msi {
        /// The file.
        file: String,
        /// The product's code.
        product_code: String,
        /// Further arguments.
        command_line: String,
        /// The same to take it off; none, where it cannot be.
        uninstall: Option<String>,
    },
    /// By Windows Installer, as a patch.
    Msp {
        /// The files.
        files: Vec<String>,
        /// The patch's code.
        patch_code: String,
        /// Further arguments.
        command_line: String,
        /// The same to take it off; none, where it cannot be.
        uninstall: Option<String>,
    },
    /// In another way, which is kept as it was stated: the handler's namespace or name, and its data.
    Other {
        /// Which.
        name: String,
        /// The element, as XML.
        data: String,
    },
}

/// What a program's end means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeResult {
    /// It failed.
    #[default]
    Failed,
    /// It is installed.
    Succeeded,
    /// Somebody cancelled it.
    Cancelled,
}

/// What one code means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnCode {
    /// The code.
    pub code: i64,
    /// What came of it.
    pub result: CodeResult,
    /// Whether a restart is needed.
    pub restart: bool,
}

impl Update {
    /// An update of that id and name, titled so in English, and nothing else.
    pub fn new(id: UpdateId, name: &str, title: &str, created: Timestamp) -> Self {
        let text = Text { title: title.into(), description: String::new() };
        Self {
            id,
            name: name.into(),
            revision: None,
            kind: Kind::default(),
            texts: BTreeMap::from([(Language::english(), text)]),
            classification: None,
            severity: None,
            products: BTreeSet::new(),
            articles: BTreeSet::new(),
            cves: BTreeSet::new(),
            created,
            released: None,
            publication: Publication::default(),
            supersedes: BTreeSet::new(),
            prerequisites: Vec::new(),
            bundles: Vec::new(),
            bundled_revisions: BTreeMap::new(),
            licence: None,
            behaviour: Behaviour::default(),
            rules: Rules::default(),
            items: Vec::new(),
            links: BTreeSet::new(),
            original: None,
        }
    }

    /// Its text in the first of `languages` that it has; else in English; else in any.
    pub fn text(&self, languages: &[Language]) -> Option<&Text> {
        let wished = languages.iter().find_map(|language| self.texts.get(language));
        wished
            .or_else(|| self.texts.get(&Language::english()))
            .or_else(|| self.texts.values().next())
    }

    /// All files of its items.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.items.iter().flat_map(|item| &item.files)
    }

    /// Cuts texts that are too long, at a character.
    pub fn clip(&mut self) {
        for text in self.texts.values_mut() {
            clip(&mut text.title, MAX_TITLE);
            clip(&mut text.description, MAX_DESCRIPTION);
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn clip(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let id = UpdateId::named(&["x"]);
        let title = format!("a{}", "ä".repeat(MAX_TITLE));
        let mut update = Update::new(id, "x", &title, Timestamp::UNIX_EPOCH);
        update.clip();
        let text = update.text(&["de".parse().unwrap()]).unwrap();
        assert_eq!(text.title.len(), MAX_TITLE - 1);
    }

    #[test]
    fn an_update_reads_back_as_it_was_written() {
        let mut update = Update::new(UpdateId::named(&["x"]), "x", "X", Timestamp::UNIX_EPOCH);
        update.items.push(Item { handler: Some(Handler::Apt), ..Item::default() });
        let json = serde_json::to_string(&update).unwrap();
        assert_eq!(serde_json::from_str::<Update>(&json).unwrap(), update);
        assert!(json.len() < 300, "what is not stated is not written: {json}");
    }
}

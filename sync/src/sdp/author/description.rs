//! What a person writes of an update: a plain description, in TOML or JSON.

use crate::name::UpdateId;
use crate::rule::Rule;
use crate::taxonomy::{Classification, Language, Severity};
use crate::update::{CodeResult, Impact, Restart, ReturnCode, Text};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a person writes of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Its id; a new one is made where there is none. It stays, when the update is issued again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<UpdateId>,
    /// One line: 1 to 200 characters.
    pub title: String,
    /// Some sentences: 1 to 1500 characters.
    pub description: String,
    /// The same in further languages.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub translations: BTreeMap<Language, Text>,
    /// Who makes the software.
    pub vendor: String,
    /// What it is called.
    pub product: String,
    /// What kind of update it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// How bad what it mends is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The article that describes it: up to 15 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
    /// The bulletin of the vulnerability: up to 15 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulletin: Option<String>,
    /// CVE ids: each up to 40 characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cves: Vec<String>,
    /// Where to read more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// The updates that it replaces.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<UpdateId>,
    /// Updates that must be installed before: of each group one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<BTreeSet<UpdateId>>,
    /// Its files.
    pub files: Vec<FileDescription>,
    /// How it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Whether the machine restarts.
    pub restart: Restart,
    /// What else may run meanwhile.
    pub impact: Impact,
    /// Whether somebody may have to answer questions.
    pub may_ask: bool,
    /// Whether it needs the network.
    pub needs_network: bool,
    /// Whether it can be installed on a machine; everywhere, where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installable: Option<RuleText>,
    /// Whether it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<RuleText>,
    /// Whether something newer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<RuleText>,
    /// Whether it is taken back.
    pub expired: bool,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileDescription {
    /// Where it lies now; its size and digests are computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where it can be had: `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its name; the last part of path or address, where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its bytes, where there is no path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-256, where there is no path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its SHA-1, which older clients want beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// Its language, if it is for one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// How an update is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Installer {
    /// By running one of the files.
    Command {
        /// Which.
        program: String,
        /// What it is given.
        #[serde(default)]
        arguments: String,
        /// What its codes mean; without any, 0 is success and 3010 success that wants a restart.
        #[serde(default)]
        codes: Vec<ReturnCode>,
        /// What all others mean.
        #[serde(default)]
        otherwise: CodeResult,
    },
    /// By Windows Installer, from a package.
    Msi {
        /// Which of the files.
        file: String,
        /// `{8-4-4-4-12}`.
        #[serde(rename = "product-code")]
        product_code: String,
        /// Further arguments.
        #[serde(default)]
        arguments: String,
        /// Arguments to take it off again; none, where it cannot be.
        #[serde(default)]
        uninstall: Option<String>,
    },
    /// By Windows Installer, as a patch.
    Msp {
        /// `{8-4-4-4-12}`.
        #[serde(rename = "patch-code")]
        patch_code: String,
        /// Further arguments.
        #[serde(default)]
        arguments: String,
        /// Arguments to take it off again; none, where it cannot be.
        #[serde(default)]
        uninstall: Option<String>,
    },
}

/// A rule as a person writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RuleText {
    /// XML, of either family of namespaces or with the letters of fragments: `<b.Processor
    /// Architecture="9"/>`.
    Xml(String),
    /// The same as data.
    Data(Rule),
}

impl Description {
    /// The id that it has, or that is made of vendor, product and title: said again, an update is the same.
    pub fn id(&self) -> UpdateId {
        let parts = ["own", self.vendor.trim(), self.product.trim(), self.title.trim()];
        self.id.unwrap_or_else(|| UpdateId::named(&parts))
    }
}

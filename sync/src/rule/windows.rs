//! Rules about Windows machines, kept as the schema has them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One rule element of Microsoft's schemas, without loss: its vocabulary, its name, what it says.
///
/// The names and their meaning are those of the published schemas (BaseApplicabilityRules,
/// MsiApplicabilityRules, CbsApplicabilityRules, WindowsDriver).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowsRule {
    /// Which schema names it.
    pub vocabulary: Vocabulary,
    /// The element's name, as `FileVersion`.
    pub name: String,
    /// Its attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Elements in it, in order: rules, or data such as product codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<WindowsPart>,
}

/// What stands in a rule element.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowsPart {
    /// A rule, as that of a loop over registry keys.
    Rule(super::Rule),
    /// An element that is data.
    Element(WindowsRule),
    /// Text.
    Text(String),
}

/// A schema of rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// BaseApplicabilityRules: registry, files, WMI, versions.
    Base,
    /// MsiApplicabilityRules: Windows Installer.
    Msi,
    /// CbsApplicabilityRules: servicing of Windows itself.
    Cbs,
    /// WindowsDriver.
    Driver,
    /// Another one, by its namespace.
    Other(String),
}

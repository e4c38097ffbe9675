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

/// A rule of the published schemas: its name, the attributes that it must have, those that it may
/// have, and what stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Which schema names it.
    pub vocabulary: &'static Vocabulary,
    /// The element's name.
    pub name: &'static str,
    /// Attributes that it must have.
    pub must: &'static [&'static str],
    /// Attributes that it may have.
    pub may: &'static [&'static str],
    /// Elements that must stand in it.
    pub holds: Holds,
}

/// What stands in a known rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing.
    Nothing,
    /// One rule.
    Rule,
    /// Data, of these names, each at least once.
    Data(&'static [&'static str]),
    /// Anything: the vendor's own data.
    Anything,
}

macro_rules! known {
    ($($vocabulary:ident $name:literal [$($must:literal)*] [$($may:literal)*] $holds:expr;)*) => {
        &[$(Known {
            vocabulary: &Vocabulary::$vocabulary,
            name: $name,
            must: &[$($must),*],
            may: &[$($may),*],
            holds: $holds,
        },)*]
    };
}

/// The rules of the published schemas. A catalogue may have others; they are kept, and are unknown
/// to whoever evaluates them.
pub const KNOWN: &[Known] = {
    use Holds::{Anything, Data, Nothing, Rule};
    known! {
        Base "WindowsVersion" [] ["Comparison" "MajorVersion" "MinorVersion" "BuildNumber" "ServicePackMajor" "ServicePackMinor" "SuiteMask" "AllSuitesMustBePresent" "ProductType"] Nothing;
        Base "PlatformVersion" [] ["Comparison" "MajorVersion" "MinorVersion" "BuildNumber" "ServicePackMajor" "ServicePackMinor" "SuiteMask" "AllSuitesMustBePresent" "ProductType"] Nothing;
        Base "Platform" ["PlatformID"] [] Nothing;
        Base "WindowsLanguage" ["Language"] [] Nothing;
        Base "PlatformLanguage" ["Language"] [] Nothing;
        Base "MuiLanguageInstalled" ["Language"] [] Nothing;
        Base "MuiInstalled" [] [] Nothing;
        Base "ClusteredOS" [] [] Nothing;
        Base "InstalledOnce" [] [] Nothing;
        Base "SystemMetric" ["Comparison" "Index" "Value"] [] Nothing;
        Base "Processor" ["Architecture"] ["Level" "Revision"] Nothing;
        Base "NumberOfProcessors" ["Comparison" "Number"] [] Nothing;
        Base "FileExists" ["Path"] ["Csidl" "Version" "Created" "Modified" "Size" "Language"] Nothing;
        Base "FileVersion" ["Path" "Comparison" "Version"] ["Csidl"] Nothing;
        Base "FileCreated" ["Path" "Comparison" "Created"] ["Csidl"] Nothing;
        Base "FileModified" ["Path" "Comparison" "Modified"] ["Csidl"] Nothing;
        Base "FileSize" ["Path" "Comparison" "Size"] ["Csidl"] Nothing;
        Base "FileExistsPrependRegSz" ["Path" "Key" "Subkey" "Value"] ["RegType32" "Version" "Created" "Modified" "Size" "Language"] Nothing;
        Base "FileVersionPrependRegSz" ["Path" "Comparison" "Version" "Key" "Subkey" "Value"] ["RegType32"] Nothing;
        Base "FileCreatedPrependRegSz" ["Path" "Comparison" "Created" "Key" "Subkey" "Value"] ["RegType32"] Nothing;
        Base "FileModifiedPrependRegSz" ["Path" "Comparison" "Modified" "Key" "Subkey" "Value"] ["RegType32"] Nothing;
        Base "FileSizePrependRegSz" ["Path" "Comparison" "Size" "Key" "Subkey" "Value"] ["RegType32"] Nothing;
        Base "RegKeyExists" ["Key" "Subkey"] ["RegType32"] Nothing;
        Base "RegValueExists" ["Key" "Subkey"] ["RegType32" "Value" "Type"] Nothing;
        Base "RegDword" ["Key" "Subkey" "Value" "Comparison" "Data"] ["RegType32"] Nothing;
        Base "RegSz" ["Key" "Subkey" "Value" "Comparison" "Data"] ["RegType32"] Nothing;
        Base "RegExpandSz" ["Key" "Subkey" "Value" "Comparison" "Data"] ["RegType32"] Nothing;
        Base "RegSzToVersion" ["Key" "Subkey" "Value" "Comparison" "Data"] ["RegType32"] Nothing;
        Base "RegKeyLoop" ["Key" "Subkey" "TrueIf"] ["RegType32"] Rule;
        Base "WUv4RegKeyValue" ["Key" "Subkey" "Data"] ["RegType32" "Value"] Nothing;
        Base "WUv4RegKeySubstring" ["Key" "Subkey" "Data"] ["RegType32" "Value"] Nothing;
        Base "LicenseValueExists" ["Value"] [] Nothing;
        Base "LicenseDword" ["Value" "Comparison" "Data"] [] Nothing;
        Base "WmiQuery" ["WqlQuery"] ["Namespace"] Nothing;
        Base "ClusterResourceOwner" ["Key" "Subkey" "Value"] ["RegType32" "Prefix" "Suffix"] Nothing;
        Base "GenericQuery" ["Namespace" "Type" "Parameter"] ["Comparison" "Value"] Nothing;
        Msi "MsiProductInstalled" ["ProductCode"] ["VersionMin" "VersionMax" "ExcludeVersionMin" "ExcludeVersionMax" "Language"] Nothing;
        Msi "MsiPatchInstalledForProduct" ["PatchCode" "ProductCode"] ["VersionMin" "VersionMax" "ExcludeVersionMin" "ExcludeVersionMax" "Language"] Nothing;
        Msi "MsiFeatureInstalledForProduct" [] ["AllFeaturesRequired" "AllProductsRequired"] Data(&["Feature", "Product"]);
        Msi "MsiComponentInstalledForProduct" [] ["AllComponentsRequired" "AllProductsRequired"] Data(&["Component", "Product"]);
        Msi "MsiPatchInstalled" [] [] Nothing;
        Msi "MsiPatchSuperseded" [] [] Nothing;
        Msi "MsiPatchInstallable" [] [] Nothing;
        Msi "MsiApplicationInstalled" [] [] Nothing;
        Msi "MsiApplicationSuperseded" [] [] Nothing;
        Msi "MsiApplicationInstallable" [] [] Nothing;
        Cbs "CbsPackageInstalledByIdentity" ["PackageIdentity"] [] Nothing;
        Cbs "CbsPackageInstalled" [] [] Anything;
        Cbs "CbsPackageInstallable" [] [] Anything;
        Driver "WindowsDriverInstalled" [] [] Nothing;
        Driver "WindowsDriverSuperseded" [] [] Nothing;
        Driver "WindowsDriverInstallable" [] [] Nothing;
    }
};

/// What is wrong with a rule, as the published schemas have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsPublished {
    /// There is no such rule.
    #[error("there is no rule {0}")]
    NoSuchRule(String),
    /// It lacks something.
    #[error("the rule {rule} wants {what}")]
    Wants {
        /// The rule.
        rule: &'static str,
        /// What it wants.
        what: String,
    },
    /// It has something that it may not have.
    #[error("the rule {rule} has no {what}")]
    HasNo {
        /// The rule.
        rule: &'static str,
        /// What it has.
        what: String,
    },
}

impl WindowsRule {
    /// What the published schemas say of a rule of its name, if they have it.
    pub fn known(&self) -> Option<&'static Known> {
        KNOWN.iter().find(|it| it.name == self.name && *it.vocabulary == self.vocabulary)
    }

    /// Whether it is as the published schemas have it: for rules that people write, in which a word
    /// that is not known is a slip.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub fn check(&self) -> Result<(), NotAsPublished> {
        let known = self.known().ok_or_else(|| NotAsPublished::NoSuchRule(self.name.clone()))?;
        let rule = known.name;
        let wants = |what: String| Err(NotAsPublished::Wants { rule, what });
        let has_no = |what: String| Err(NotAsPublished::HasNo { rule, what });
        if let Some(missing) = known.must.iter().find(|it| !self.attributes.contains_key(**it)) {
            return wants(format!("the attribute {missing}"));
        }
        let is_known = |name: &&String| !known.must.iter().chain(known.may).any(|it| it == name);
        if let Some(name) = self.attributes.keys().find(is_known) {
            return has_no(format!("attribute {name}"));
        }
        match (known.holds, self.children.as_slice()) {
            (Holds::Anything, _) | (Holds::Nothing, []) => Ok(()),
            (Holds::Nothing, _) => has_no("elements in it".into()),
            (Holds::Rule, [WindowsPart::Rule(_)]) => Ok(()),
            (Holds::Rule, _) => wants("one rule in it".into()),
            (Holds::Data(names), parts) => {
                let has = |name: &&&str| {
                    parts
                        .iter()
                        .any(|part| matches!(part, WindowsPart::Element(it) if it.name == **name))
                };
                match names.iter().find(|name| !has(name)) {
                    Some(missing) => wants(format!("an element {missing} in it")),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_rule_is_told() {
        let rule = |name: &str, attributes: &[(&str, &str)]| WindowsRule {
            vocabulary: Vocabulary::Base,
            name: name.into(),
            attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            children: vec![],
        };
        let (path, version) = (("Path", "a.exe"), ("Version", "1.0.0.0"));
        let good = rule("FileVersion", &[path, version, ("Comparison", "EqualTo")]);
        assert_eq!(good.check(), Ok(()));
        let told = |rule: WindowsRule| rule.check().unwrap_err().to_string();
        assert_eq!(told(rule("FileVersio", &[])), "there is no rule FileVersio");
        let missing = told(rule("FileVersion", &[path, version]));
        assert_eq!(missing, "the rule FileVersion wants the attribute Comparison");
        let more = rule("MuiInstalled", &[path]);
        assert_eq!(told(more), "the rule MuiInstalled has no attribute Path");
        let reg = [("Key", "HKEY_LOCAL_MACHINE"), ("Subkey", "x"), ("TrueIf", "Any")];
        assert_eq!(told(rule("RegKeyLoop", &reg)), "the rule RegKeyLoop wants one rule in it");
    }

    #[test]
    fn no_rule_is_listed_twice() {
        let names: std::collections::BTreeSet<_> = KNOWN.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), KNOWN.len());
    }
}

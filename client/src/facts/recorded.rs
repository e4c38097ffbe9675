//! A Windows machine, as somebody recorded it: one JSON document.
//!
//! What is recorded is known, and so is what is recorded to be whole: of a registry key its values, of a
//! folder or a part of the registry that `whole` names everything below it, of a list that is there all its
//! entries. What the document does not speak of is unknown. So a record of a few facts is worth as much as
//! it says, and no rule takes silence for a no.

pub mod files;
pub mod registry;

use super::{Facts, FactsError, Inventory, OsRelease, Platform, System};
use files::Files;
use registry::Registry;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use sync::name::UpdateId;

/// The largest document, in bytes.
pub const MAX_DOCUMENT: usize = 64 << 20;

/// Something that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// It is there.
    Here(T),
    /// It is known not to be there.
    Absent,
    /// The document does not say.
    Unknown,
}

/// What was recorded of a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Recorded {
    /// The system.
    pub os: Os,
    /// The version of the platform, where it is another thing than the system.
    pub platform: Option<Version>,
    /// The processors.
    pub processor: Processor,
    /// `GetSystemMetrics`, by index.
    pub metrics: BTreeMap<i64, i64>,
    /// Variables of the environment that stand in paths, as `ProgramFiles`.
    pub environment: BTreeMap<String, String>,
    /// Folders by their CSIDL, as 37 for `C:\Windows\System32`.
    pub folders: BTreeMap<u32, String>,
    /// The registry.
    pub registry: Registry,
    /// Files.
    pub files: Files,
    /// Queries that Windows Management Instrumentation answered.
    pub wmi: Vec<WmiAnswer>,
    /// Queries of other kinds that were answered.
    pub queries: Vec<GenericAnswer>,
    /// All products of Windows Installer.
    pub msi: Option<Vec<Product>>,
    /// The identities of all packages of Windows' own servicing.
    pub cbs: Option<BTreeSet<String>>,
    /// All licence values, by name.
    pub licences: Option<BTreeMap<String, u32>>,
    /// The cluster that it is a node of.
    pub cluster: Option<Cluster>,
    /// All devices.
    pub devices: Option<Vec<Device>>,
    /// All updates that were installed on it once.
    pub installed_once: Option<BTreeSet<UpdateId>>,
    /// What Windows itself answers of an update, as its servicing does of `CbsPackageInstallable`.
    pub answers: Vec<OwnAnswer>,
    #[serde(skip)]
    system: Windows,
    /// Of the document.
    #[serde(skip)]
    digest: String,
}

/// What a Windows machine has of what all have: nothing.
#[derive(Clone, Debug)]
struct Windows(System);

impl Default for Windows {
    fn default() -> Self {
        Self(System {
            platform: Platform::Windows,
            release: OsRelease::default(),
            packages: Inventory::default(),
            architecture: String::new(),
        })
    }
}

/// A version of Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Version {
    /// As 10.
    pub major: Option<u64>,
    /// As 0.
    pub minor: Option<u64>,
    /// As 22631.
    pub build: Option<u64>,
    /// Of the service pack.
    pub service_pack_major: Option<u64>,
    /// Of the service pack.
    pub service_pack_minor: Option<u64>,
    /// Bits of the suites that are installed.
    pub suite_mask: Option<u64>,
    /// 1 for a workstation, 2 for a domain controller, 3 for a server.
    pub product_type: Option<u64>,
}

/// What is known of the system.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Os {
    /// Its version.
    pub version: Version,
    /// `PlatformID`: 2 for Windows NT.
    pub platform_id: Option<i64>,
    /// Its language, as `en-us`.
    pub language: Option<String>,
    /// The language of the platform, as of a system on which Windows is a guest.
    pub platform_language: Option<String>,
    /// The languages of its user interface that can be chosen, all of them.
    pub mui_languages: Option<BTreeSet<String>>,
    /// Whether it is a node of a cluster.
    pub clustered: Option<bool>,
}

/// The processors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Processor {
    /// 0 for x86, 5 for ARM, 6 for Itanium, 9 for x64, 12 for ARM64.
    pub architecture: Option<i64>,
    /// Its family.
    pub level: Option<i64>,
    /// Its revision.
    pub revision: Option<i64>,
    /// How many there are.
    pub count: Option<i64>,
}

/// An answer to a query in WQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WmiAnswer {
    /// As `root\cimv2`.
    pub namespace: String,
    /// The query, word by word.
    pub query: String,
    /// How many objects it found.
    pub rows: u64,
}

/// An answer to a query of another kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GenericAnswer {
    /// Whose query it is.
    pub namespace: String,
    /// Of which type.
    pub r#type: String,
    /// What it asks for.
    pub parameter: String,
    /// What was answered; null, if there is nothing.
    pub value: Option<String>,
}

/// A product of Windows Installer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Product {
    /// Its code, a GUID.
    pub code: String,
    /// Its version.
    pub version: Option<String>,
    /// Its language, as 1033.
    pub language: Option<u32>,
    /// The codes of all patches of it.
    pub patches: Option<BTreeSet<String>>,
    /// All its features that are installed.
    pub features: Option<BTreeSet<String>>,
    /// The codes of all its components that are installed.
    pub components: Option<BTreeSet<String>>,
}

/// A cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Cluster {
    /// The names of all resources that this node owns.
    pub owns: BTreeSet<String>,
}

/// A device and its driver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Device {
    /// Its hardware and compatible ids.
    pub ids: BTreeSet<String>,
    /// When its driver was made, as `2024-05-31`; none, if there is no driver.
    pub driver_date: Option<String>,
    /// The driver's version.
    pub driver_version: Option<String>,
}

/// What Windows answers of an update.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnAnswer {
    /// The update.
    pub update: UpdateId,
    /// The rule's name.
    pub rule: String,
    /// Whether it holds.
    pub holds: bool,
}

impl Recorded {
    /// Reads a document.
    ///
    /// # Errors
    /// It is too large, or says what is not known here: a slip in a fact's name would else be a silence.
    pub fn parse(document: &[u8]) -> Result<Self, FactsError> {
        if document.len() > MAX_DOCUMENT {
            let limit = format!("{MAX_DOCUMENT} bytes");
            return Err(FactsError::TooLarge {
                what: "a document of recorded facts".into(),
                limit,
            });
        }
        let digest = blake3::hash(document).to_hex().to_string();
        Ok(Self { digest, ..serde_json::from_slice(document)? })
    }

    /// How many objects a query finds.
    pub fn wmi_rows(&self, namespace: &str, query: &str) -> Option<u64> {
        let same = |a: &str, b: &str| {
            a.split_whitespace()
                .map(str::to_lowercase)
                .eq(b.split_whitespace().map(str::to_lowercase))
        };
        let asked = |it: &&WmiAnswer| same(&it.namespace, namespace) && same(&it.query, query);
        self.wmi.iter().find(asked).map(|it| it.rows)
    }

    /// A text with its variables, `%ProgramFiles%`, put in; none, if one is not recorded.
    pub fn expand(&self, text: &str) -> Option<String> {
        let mut parts = text.split('%');
        let mut out = parts.next().unwrap_or_default().to_owned();
        while let Some(name) = parts.next() {
            let Some(rest) = parts.next() else {
                // A sign without its pair stands for itself.
                out.push('%');
                out.push_str(name);
                break;
            };
            let is_it = |(key, _): &(&String, &String)| key.eq_ignore_ascii_case(name);
            out.push_str(self.environment.iter().find(is_it)?.1);
            out.push_str(rest);
        }
        Some(out)
    }

    /// The path that a rule means: below the folder of a CSIDL, if it names one.
    pub fn path(&self, csidl: Option<&str>, path: &str) -> Option<String> {
        let path = self.expand(path)?;
        match csidl {
            None => Some(path),
            Some(csidl) => {
                let folder = self.folders.get(&csidl.trim().parse().ok()?)?;
                Some(join(folder, &path))
            }
        }
    }
}

/// A path below a folder.
pub fn join(folder: &str, path: &str) -> String {
    format!("{}\\{}", folder.trim_end_matches('\\'), path.trim_start_matches('\\'))
}

impl Facts for Recorded {
    fn system(&self) -> &System {
        &self.system.0
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }

    fn windows(&self) -> Option<&Recorded> {
        Some(self)
    }
}

/// Whether a path is `above`, or below it. Both in lower case; the empty one is above all.
fn is_within(path: &str, above: &str) -> bool {
    above.is_empty()
        || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
}

/// How paths are compared: without regard to case, and without a separator at the end.
fn folded(path: &str) -> String {
    path.trim_end_matches('\\').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_document_is_told() {
        assert!(Recorded::parse(b"{}").is_ok());
        let slip = Recorded::parse(br#"{"os":{"versio":{}}}"#).unwrap_err();
        let why = std::error::Error::source(&slip).unwrap().to_string();
        assert!(why.contains("versio"), "{why}");
    }

    #[test]
    fn paths_are_put_together_of_what_is_recorded() {
        let facts = Recorded::parse(
            br#"{"folders":{"37":"C:\\Windows\\System32\\"},"environment":{"ProgramFiles":"C:\\Programs"}}"#,
        )
        .unwrap();
        assert_eq!(facts.path(Some("37"), r"\a.dll").unwrap(), r"C:\Windows\System32\a.dll");
        assert_eq!(facts.path(None, r"%programfiles%\x").unwrap(), r"C:\Programs\x");
        assert_eq!(facts.path(None, r"50%\x").unwrap(), r"50%\x");
        assert_eq!(facts.path(Some("36"), "x"), None);
        assert_eq!(facts.path(None, r"%other%\x"), None);
    }

    #[test]
    fn a_query_is_the_same_whatever_its_spaces() {
        let facts = Recorded::parse(
            br#"{"wmi":[{"namespace":"root\\cimv2","query":"select * from Win32_BIOS","rows":1}]}"#,
        )
        .unwrap();
        assert_eq!(facts.wmi_rows("Root\\CIMV2", "Select *  from Win32_Bios "), Some(1));
        assert_eq!(facts.wmi_rows("root\\cimv2", "select * from Win32_Disk"), None);
    }
}

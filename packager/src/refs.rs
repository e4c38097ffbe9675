//! How packages are kept as references of the content library.
//!
//! All state of packages is in references, whose changes lie in the packs: it survives the loss
//! of the index. Values are JSON, so that fields can be added; keys are made here and nowhere
//! else. `packager/FORMAT.md`, "References".
//!
//! | reference | root | value |
//! | --- | --- | --- |
//! | `package/<name>` | none | `PackageRecord` |
//! | `version/<name>/<number, 10 digits>` | the manifest | [`VersionInfo`] |
//! | `upload/<id>` | none | [`crate::upload::UploadInfo`] |
//! | `site/key` | none | the public keys that versions are signed with, newest last |

use crate::name::{ChannelName, PackageName};
use crate::path::{Shown, unescape};
use crate::retention::Retention;
use crate::sign::{PublicKey, VersionInfo};
use contentlib::kv::KvError;
use contentlib::{Digest, Expect, Library, Ref, RefChange};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// References of packages.
pub(crate) const PACKAGES: &str = "package/";
/// References of versions; their roots are manifests.
pub(crate) const VERSIONS: &str = "version/";
/// References of uploads that are under way.
pub(crate) const UPLOADS: &str = "upload/";
/// The leases of what comes for compositions.
pub(crate) const COMPOSING: &str = "compose/";
/// The reference that says what signatures are checked with.
pub(crate) const SITE_KEY: &str = "site/key";

/// The version of the records that this code reads and writes.
const FORMAT: u32 = 1;

/// The reference of a package.
pub(crate) fn package_key(name: &PackageName) -> String {
    format!("{PACKAGES}{name}")
}

/// What the references of all versions of a package begin with.
pub(crate) fn versions_key(name: &PackageName) -> String {
    format!("{VERSIONS}{name}/")
}

/// The reference of a version. Ten digits, so that names sort as numbers do.
pub(crate) fn version_key(name: &PackageName, version: u64) -> String {
    format!("{VERSIONS}{name}/{version:010}")
}

/// What a reference is called to people: a version as commands take it, `docs@1`; another as it is.
pub fn shown(reference: &str) -> String {
    let version = || {
        let (package, number) = reference.strip_prefix(VERSIONS)?.rsplit_once('/')?;
        Some(format!("{package}@{}", number.parse::<u64>().ok()?))
    };
    version().unwrap_or_else(|| reference.to_owned())
}

/// Where a package's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A folder of this machine, by its canonical path.
    Folder(SourceFolder),
    /// Clients send them.
    Upload,
    /// The site puts them together from files of upstreams.
    Composed,
    /// The package is a copy of another site's.
    Site,
}

/// The canonical path of a source folder; in JSON as [`Shown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceFolder(pub PathBuf);

impl TryFrom<String> for SourceFolder {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = unescape(&text).ok_or("a backslash that starts no escape")?;
        Ok(Self(OsString::from_vec(bytes).into()))
    }
}

impl From<SourceFolder> for String {
    fn from(folder: SourceFolder) -> String {
        folder.to_string()
    }
}

impl std::fmt::Display for SourceFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Shown(self.0.as_os_str().as_bytes()).fmt(f)
    }
}

impl SourceFolder {
    /// Whether a file could lie in both: one of them is the other, or inside it.
    pub(crate) fn overlaps(&self, other: &Path) -> bool {
        self.0.starts_with(other) || other.starts_with(&self.0)
    }
}

/// What is kept of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackageRecord {
    format: u32,
    pub(crate) source: Source,
    pub(crate) retention: Retention,
    #[serde(default)]
    pub(crate) channels: BTreeMap<ChannelName, u64>,
    /// The number of the next version. Numbers are never used again.
    pub(crate) next: u64,
    /// The newest version that is there.
    pub(crate) latest: Option<u64>,
    pub(crate) created: Timestamp,
    /// Grows with every change of the package or its versions, so that of two changes at once one
    /// finds the record changed.
    revision: u64,
}

impl PackageRecord {
    pub(crate) fn new(source: Source, retention: Retention, created: Timestamp) -> Self {
        Self {
            format: FORMAT,
            source,
            retention,
            channels: BTreeMap::new(),
            next: 1,
            latest: None,
            created,
            revision: 0,
        }
    }

    /// The record with one change more.
    pub(crate) fn next_revision(mut self) -> Self {
        self.revision += 1;
        self
    }

    /// How often the package or its versions changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The versions that channels point to.
    pub(crate) fn held(&self) -> BTreeSet<u64> {
        self.channels.values().copied().collect()
    }
}

/// What is kept of a key change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) keys: Vec<PublicKey>,
    /// Whether the keys are another site's, and all packages here copies of its.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replica: bool,
}

impl KeyRecord {
    pub(crate) fn new(replica: bool) -> Self {
        Self { keys: Vec::new(), replica }
    }
}

/// Whether a key has signed for this library, so that any other would be a stranger's to clients.
pub fn is_signed(library: &Library) -> Result<bool, RecordError> {
    let stored = get::<KeyRecord>(library, SITE_KEY)?;
    Ok(stored.is_some_and(|stored| !stored.record.keys.is_empty()))
}

/// A reference that does not read as what its name says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] KvError),
    /// A newer depot wrote it.
    #[error("a newer depot wrote {key:?} (format {found}; this one reads {FORMAT})")]
    NewerFormat {
        /// The reference.
        key: String,
        /// Its format.
        found: u32,
    },
    /// It is no JSON, or fields are missing.
    #[error("reference {key:?} cannot be read")]
    Malformed {
        /// The reference.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A record as read, with the reference it was, for a change on the condition that it still is.
pub(crate) struct Stored<T> {
    pub(crate) record: T,
    pub(crate) found: Ref,
}

/// The record that `found`, the reference `key`, holds.
pub(crate) fn read<T: DeserializeOwned>(key: &str, found: Ref) -> Result<Stored<T>, RecordError> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: u32,
    }
    let malformed = |source| RecordError::Malformed { key: key.into(), source };
    let record = serde_json::from_slice(&found.value);
    // Only a record that does not read is looked at twice: a newer format is the likeliest cause.
    match record {
        Ok(record) => Ok(Stored { record, found }),
        Err(error) => match serde_json::from_slice::<Format>(&found.value) {
            Ok(Format { format }) if format > FORMAT => {
                Err(RecordError::NewerFormat { key: key.into(), found: format })
            }
            _ => Err(malformed(error)),
        },
    }
}

/// The record under `key`, if there is one.
pub(crate) fn get<T: DeserializeOwned>(
    library: &Library,
    key: &str,
) -> Result<Option<Stored<T>>, RecordError> {
    library.get_ref(key)?.map(|found| read(key, found)).transpose()
}

/// The records under all keys that begin with `prefix`, by key.
pub(crate) fn list<T: DeserializeOwned>(
    library: &Library,
    prefix: &str,
) -> Result<Vec<(String, Stored<T>)>, RecordError> {
    let refs = library.list_refs(prefix)?;
    refs.into_iter().map(|(key, found)| read(&key, found).map(|stored| (key, stored))).collect()
}

/// The package's record.
pub(crate) fn get_package(
    library: &Library,
    name: &PackageName,
) -> Result<Option<Stored<PackageRecord>>, RecordError> {
    let stored = get::<PackageRecord>(library, &package_key(name))?;
    match stored {
        Some(Stored { record: PackageRecord { format, .. }, .. }) if format > FORMAT => {
            Err(RecordError::NewerFormat { key: package_key(name), found: format })
        }
        stored => Ok(stored),
    }
}

/// The version's record.
pub(crate) fn get_version(
    library: &Library,
    name: &PackageName,
    version: u64,
) -> Result<Option<Stored<VersionInfo>>, RecordError> {
    get(library, &version_key(name, version))
}

/// All versions of a package, oldest first.
pub(crate) fn list_versions(
    library: &Library,
    name: &PackageName,
) -> Result<Vec<VersionInfo>, RecordError> {
    let found = list::<VersionInfo>(library, &versions_key(name))?;
    Ok(found.into_iter().map(|(_, stored)| stored.record).collect())
}

/// The change that writes `record` under `key`.
pub(crate) fn set<T: Serialize>(
    key: String,
    root: Option<Digest>,
    record: &T,
    expect: Expect,
) -> RefChange {
    let value = serde_json::to_vec(record).expect("records have text keys and no failing parts");
    RefChange::Set { name: key, to: Ref { root, value: value.into() }, expect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_their_numbers() {
        let name: PackageName = "docs".parse().unwrap();
        let keys = [2, 10, 999_999_999].map(|version| version_key(&name, version));
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_version_is_shown_as_commands_take_it() {
        let name: PackageName = "docs".parse().unwrap();
        assert_eq!(shown(&version_key(&name, 2)), "docs@2");
        assert_eq!(shown("upload/0f3c"), "upload/0f3c");
    }

    #[test]
    fn folders_share_files_if_one_is_in_the_other() {
        let folder = SourceFolder("/srv/a".into());
        for (other, overlaps) in [("/srv/a", true), ("/srv/a/b", true), ("/srv", true), ("/", true)]
            .into_iter()
            .chain([("/srv/ab", false), ("/srv/b", false)])
        {
            assert_eq!(folder.overlaps(Path::new(other)), overlaps, "{other}");
        }
    }

    #[test]
    fn a_folder_of_any_bytes_is_kept_exactly() {
        let folder = SourceFolder(OsString::from_vec(b"/srv/\xff\n\\".to_vec()).into());
        let json = serde_json::to_string(&Source::Folder(folder.clone())).unwrap();
        assert_eq!(json, r#"{"folder":"/srv/\\xff\\x0a\\\\"}"#);
        assert_eq!(serde_json::from_str::<Source>(&json).unwrap(), Source::Folder(folder));
    }

    #[test]
    fn a_newer_record_is_named_as_such() {
        let value = r#"{"format": 2, "what": "this code cannot know"}"#.into();
        let found = read::<PackageRecord>("package/x", Ref { root: None, value });
        assert!(matches!(found, Err(RecordError::NewerFormat { found: 2, .. })));
    }
}

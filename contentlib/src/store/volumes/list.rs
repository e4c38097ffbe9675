//! The list of a library's volumes, and the marker in each volume's folder
//! (`contentlib/FORMAT.md`, "Volumes").
//!
//! Small TOML files that a person can read, and mend. The list is not in the index, which must be
//! made again from the packs alone; the marker tells that a folder is the volume it is taken for,
//! and not the empty place where a disk was not mounted.

use crate::error::VolumeError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The newest version of both files that this code knows.
const VERSION: u64 = 1;
/// The longest file that is read, in bytes.
pub(super) const MAX_FILE: u64 = 256 << 10;
/// The most volumes beside the home.
const MAX_VOLUMES: usize = 64;
/// The longest name of a volume, in bytes.
const MAX_NAME: usize = 64;
/// The longest path of a volume, in bytes.
const MAX_PATH: usize = 2048;
/// The largest reserve: more than any disk has.
const MAX_RESERVE: u64 = 1 << 60;

/// Names a volume for ever: random, and written to its marker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u128);

impl VolumeId {
    /// The home volume, which has no marker: its folder lies in the library's.
    pub const HOME: Self = Self(0);
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a volume takes new packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    /// It does.
    #[default]
    Active,
    /// Its packs are moved to other volumes, and it gets no new ones.
    Draining,
}

/// A volume beside the home, as the list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeEntry {
    /// Names it for ever.
    pub id: VolumeId,
    /// What people call it; empty for one that is to be made up from the path.
    pub name: String,
    /// Its folder, absolute.
    pub path: PathBuf,
    /// Whether it takes new packs.
    pub state: VolumeState,
    /// Bytes that stay free on it; `None` for as many as on the home volume.
    pub reserve: Option<u64>,
}

impl VolumeEntry {
    /// An active volume.
    pub fn new(id: u128, name: &str, path: &Path, reserve: Option<u64>) -> Self {
        let (id, state) = (VolumeId(id), VolumeState::Active);
        Self { id, name: name.into(), path: path.into(), state, reserve }
    }
}

/// The volumes of a library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeList {
    /// The library that the volumes belong to, as their markers have it.
    pub library: u128,
    /// The state of the home volume.
    pub home: VolumeState,
    /// The others, in the order they were added.
    pub volumes: Vec<VolumeEntry>,
}

impl VolumeList {
    /// Checks an entry that is to be added, and gives it a name if it has none.
    pub(super) fn admit(&self, mut entry: VolumeEntry) -> Result<VolumeEntry, VolumeError> {
        let is_taken = |name: &str| {
            let mut names = self.volumes.iter().map(|volume| volume.name.as_str());
            name == super::HOME || names.any(|taken| taken == name)
        };
        if entry.name.is_empty() {
            let last = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let numbered = (2..).map(|n| format!("volume-{n}"));
            let mut names = [last.to_lowercase()].into_iter().chain(numbered);
            entry.name = names.find(|name| is_name(name) && !is_taken(name)).expect("endless");
        }
        if self.volumes.len() >= MAX_VOLUMES {
            return Err(VolumeError::TooMany { most: MAX_VOLUMES });
        }
        if is_taken(&entry.name) {
            return Err(VolumeError::NameTaken { name: entry.name });
        }
        check(&entry)?;
        Ok(entry)
    }
}

/// What a person may call a volume: it stands in addresses and on command lines.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || "._-".contains(c))
}

fn check(entry: &VolumeEntry) -> Result<(), VolumeError> {
    if !is_name(&entry.name) {
        return Err(VolumeError::BadName { name: entry.name.clone() });
    }
    let path = entry.path.to_str().unwrap_or_default();
    if !entry.path.is_absolute() || path.is_empty() || path.len() > MAX_PATH {
        return Err(VolumeError::NotAbsolute { path: entry.path.clone() });
    }
    if entry.reserve.is_some_and(|reserve| reserve > MAX_RESERVE) {
        return Err(VolumeError::Reserve { most: MAX_RESERVE });
    }
    Ok(())
}

// The files. Both begin with the version, which is looked at before anything else is believed.

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    version: u64,
    library: String,
    home: VolumeState,
    #[serde(default)]
    volume: Vec<EntryFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    id: String,
    name: String,
    path: String,
    state: VolumeState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<u64>,
}

/// What the marker in a volume's folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub library: u128,
    pub volume: VolumeId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkerFile {
    version: u64,
    library: String,
    volume: String,
}

const LIST_HEAD: &str = "\
# The volumes of this library beside its own folder `packs`. Written by depot; change it with
# `depot library volume`. A volume whose disk has moved may be given its new path here while no
# server runs.

";

const MARKER_HEAD: &str = "\
# This folder is a volume of a depot content library, and holds part of it. To take it out:
# `depot library volume drain`, then `depot library volume remove`.

";

impl VolumeList {
    pub(super) fn encode(&self) -> String {
        let entry = |entry: &VolumeEntry| EntryFile {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            path: entry.path.to_string_lossy().into_owned(),
            state: entry.state,
            reserve: entry.reserve,
        };
        let file = ListFile {
            version: VERSION,
            library: format!("{:032x}", self.library),
            home: self.home,
            volume: self.volumes.iter().map(entry).collect(),
        };
        let text = toml::to_string(&file).expect("texts and numbers below 2^63 are TOML");
        format!("{LIST_HEAD}{text}")
    }

    pub(super) fn decode(text: &str, file: &Path) -> Result<Self, VolumeError> {
        let unreadable = |detail: String| VolumeError::Unreadable { file: file.into(), detail };
        let found: ListFile = versioned(text, file)?;
        let mut list = Self { home: found.home, ..Self::default() };
        list.library = hex(&found.library).ok_or_else(|| unreadable("library is no id".into()))?;
        for entry in found.volume {
            let id = hex(&entry.id).filter(|id| *id != VolumeId::HOME.0);
            let Some(id) = id.filter(|id| list.volumes.iter().all(|v| v.id.0 != *id)) else {
                return Err(unreadable(format!("{:?} is no id, or stands twice", entry.id)));
            };
            let EntryFile { name, path, state, reserve, .. } = entry;
            if name.is_empty() {
                return Err(unreadable("a volume has no name".into()));
            }
            let path = path.into();
            let entry = VolumeEntry { id: VolumeId(id), name, path, state, reserve };
            let entry = list.admit(entry).map_err(|error| unreadable(error.to_string()))?;
            list.volumes.push(entry);
        }
        Ok(list)
    }
}

impl Marker {
    pub(super) fn encode(&self) -> String {
        let (library, volume) = (format!("{:032x}", self.library), self.volume.to_string());
        let file = MarkerFile { version: VERSION, library, volume };
        let text = toml::to_string(&file).expect("texts and small numbers are TOML");
        format!("{MARKER_HEAD}{text}")
    }

    pub(super) fn decode(text: &str, file: &Path) -> Result<Self, VolumeError> {
        let found: MarkerFile = versioned(text, file)?;
        let ids = hex(&found.library).zip(hex(&found.volume));
        let (library, volume) = ids.ok_or_else(|| VolumeError::Unreadable {
            file: file.into(),
            detail: "library or volume is no id".into(),
        })?;
        Ok(Self { library, volume: VolumeId(volume) })
    }
}

fn versioned<T: for<'a> Deserialize<'a>>(text: &str, file: &Path) -> Result<T, VolumeError> {
    let unreadable = |error: toml::de::Error| VolumeError::Unreadable {
        file: file.into(),
        detail: error.message().into(),
    };
    let Versioned { version } = toml::from_str(text).map_err(unreadable)?;
    if version > VERSION {
        return Err(VolumeError::Newer { file: file.into(), found: version, known: VERSION });
    }
    toml::from_str(text).map_err(unreadable)
}

/// 32 hex digits.
fn hex(text: &str) -> Option<u128> {
    let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: u128, name: &str, path: &str) -> VolumeEntry {
        let state = VolumeState::Draining;
        VolumeEntry { id: VolumeId(id), name: name.into(), path: path.into(), state, reserve: None }
    }

    fn decode(text: &str) -> Result<VolumeList, VolumeError> {
        VolumeList::decode(text, Path::new("volumes.toml"))
    }

    #[test]
    fn a_list_reads_back() {
        let with = VolumeEntry { reserve: Some(5 << 30), ..entry(7, "disk2", "/mnt/\"odd\"\n/2") };
        let volumes = vec![entry(u128::MAX, "a", "/a"), with];
        let list = VolumeList { library: 9, home: VolumeState::Draining, volumes };
        assert_eq!(decode(&list.encode()).unwrap(), list);
        let marker = Marker { library: 3, volume: VolumeId(u128::MAX) };
        assert_eq!(Marker::decode(&marker.encode(), Path::new("marker")).unwrap(), marker);
    }

    #[test]
    fn a_newer_file_is_refused_by_its_number_before_anything_else() {
        let text = "version = 2\nsomething = \"else\"\n";
        assert!(matches!(decode(text), Err(VolumeError::Newer { found: 2, known: 1, .. })));
        let marker = Marker::decode(text, Path::new("marker"));
        assert!(matches!(marker, Err(VolumeError::Newer { .. })));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let list = VolumeList { volumes: vec![entry(7, "disk2", "/mnt")], ..Default::default() };
        let text = list.encode();
        for (right, wrong) in [
            ("name = \"disk2\"", "name = \"home\""),
            ("name = \"disk2\"", "name = \"\""),
            ("name = \"disk2\"", "name = \"a/b\""),
            ("path = \"/mnt\"", "path = \"mnt\""),
            ("state = \"draining\"", "state = \"gone\""),
            ("state = \"draining\"", "state = \"active\"\nreserve = -1"),
            ("state = \"draining\"", "state = \"active\"\nmore = 1"),
            ("id = \"00", "id = \"x0"),
            ("id = \"00", "id = \"0"),
        ] {
            assert!(text.contains(right), "{text}");
            let error = decode(&text.replace(right, wrong)).unwrap_err();
            assert!(matches!(error, VolumeError::Unreadable { .. }), "{wrong}: {error:?}");
        }
        let twice = text.clone() + text.split_once("[[volume]]").unwrap().1;
        assert!(decode(&twice).is_err());
    }

    #[test]
    fn a_volume_is_named_after_its_folder_where_that_is_a_name() {
        let list = VolumeList { volumes: vec![entry(7, "disk2", "/2")], ..Default::default() };
        let named = |path: &str| list.admit(entry(8, "", path)).unwrap().name;
        assert_eq!(named("/mnt/Disk3"), "disk3");
        assert_eq!(named("/mnt/disk2"), "volume-2");
        assert_eq!(named("/"), "volume-2");
        assert_eq!(named("/mnt/home"), "volume-2");
        assert!(matches!(list.admit(entry(8, "disk2", "/3")), Err(VolumeError::NameTaken { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(text in ".{0,400}") {
            let _ = decode(&text);
            let _ = decode(&format!("version = 1\n{text}"));
        }
    }
}

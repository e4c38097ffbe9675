//! Where the list of volumes is kept, and how the folder of one becomes a store.
//!
//! Two implementations: [`FolderKeeper`], files and folders, and [`super::MemoryKeeper`], for
//! simulation.
//!
//! In a volume's folder lie a marker, `depot-volume.toml`, and the packs, as in the home volume.
//! The marker is written before the list names the volume and goes after the list forgot it, so a
//! kill leaves at most a marker too many, which the next `add` of that folder takes over.

use super::list::{MAX_FILE, Marker, VolumeEntry, VolumeList};
use crate::error::VolumeError;
use crate::store::PackStore;
use crate::store::folder::{FolderStore, sync_folder};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MARKER: &str = "depot-volume.toml";
const PACKS: &str = "packs";
/// What a file system puts into its own root.
const LOST_AND_FOUND: &str = "lost+found";

/// The list of a library's volumes, and what makes a store of each.
///
/// * What [`VolumeKeeper::save`] was given is durable when it returns. If it fails, either list
///   may be found later, never a mixture.
/// * A claimed volume can be opened until it is released, wherever the process ends between.
pub trait VolumeKeeper: Send + Sync {
    /// Where the home volume is, for people.
    fn home(&self) -> PathBuf;
    /// The list; the empty one if none was saved.
    fn load(&self) -> Result<VolumeList, VolumeError>;
    /// Replaces the list.
    fn save(&self, list: &VolumeList) -> Result<(), VolumeError>;
    /// Makes a new, empty volume of the place that `entry` names, which `list` does not name.
    fn claim(&self, list: &VolumeList, entry: &VolumeEntry) -> Result<(), VolumeError>;
    /// Opens a claimed volume of the library.
    fn open(&self, library: u128, entry: &VolumeEntry) -> Result<Arc<dyn PackStore>, VolumeError>;
    /// Gives the place of an empty volume back.
    fn release(&self, path: &Path) -> Result<(), VolumeError>;
}

/// Volumes as folders, listed in the library's folder.
pub struct FolderKeeper {
    folder: PathBuf,
}

impl FolderKeeper {
    /// The volumes of the library in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: std::path::absolute(folder).unwrap_or_else(|_| folder.into()) }
    }

    /// Whether the disk of a listed volume is where the list says.
    pub(crate) fn is_there(&self, library: u128, entry: &VolumeEntry) -> bool {
        let wanted = Marker { library, volume: entry.id };
        matches!(read_marker(entry), Ok(Some(found)) if found == wanted)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("volumes.toml")
    }

    /// Refuses a place that another volume, or the library itself, uses.
    fn check_apart(&self, list: &VolumeList, path: &Path) -> Result<(), VolumeError> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let wanted = real(path);
        let others = list.volumes.iter().map(|volume| (volume.name.as_str(), real(&volume.path)));
        for (name, taken) in others.chain([(super::HOME, real(&self.folder))]) {
            if wanted.starts_with(&taken) || taken.starts_with(&wanted) {
                return Err(VolumeError::InUse { path: path.into(), name: name.into() });
            }
        }
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { path, source }
}

/// The text of a small file; `None` if there is none.
fn read_small(path: &Path) -> Result<Option<String>, VolumeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(path)(error)),
    };
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    match read {
        Ok(n) if n as u64 <= MAX_FILE => Ok(Some(text)),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(failed(path)(error)),
        _ => {
            let detail = format!("it is no text of at most {MAX_FILE} bytes");
            Err(VolumeError::Unreadable { file: path.into(), detail })
        }
    }
}

/// Writes a file whole or not at all, durably.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("toml.part");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&part, path)) {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    sync_folder(path.parent().expect("a file lies in a folder"))
}

fn read_marker(entry: &VolumeEntry) -> Result<Option<Marker>, VolumeError> {
    let path = entry.path.join(MARKER);
    read_small(&path)?.map(|text| Marker::decode(&text, &path)).transpose()
}

/// Removes the folder of packs with its subfolders, those that are empty. Whether it is gone.
fn remove_empty(packs: &Path) -> bool {
    let Ok(entries) = fs::read_dir(packs) else { return !packs.exists() };
    for entry in entries.flatten() {
        let _ = fs::remove_dir(entry.path());
    }
    fs::remove_dir(packs).is_ok()
}

impl VolumeKeeper for FolderKeeper {
    fn home(&self) -> PathBuf {
        self.folder.join(PACKS)
    }

    fn load(&self) -> Result<VolumeList, VolumeError> {
        let path = self.file();
        let text = read_small(&path)?;
        Ok(text.map(|text| VolumeList::decode(&text, &path)).transpose()?.unwrap_or_default())
    }

    fn save(&self, list: &VolumeList) -> Result<(), VolumeError> {
        let path = self.file();
        write_whole(&path, &list.encode()).map_err(failed(&path))
    }

    fn claim(&self, list: &VolumeList, entry: &VolumeEntry) -> Result<(), VolumeError> {
        let path = &entry.path;
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(VolumeError::NotAFolder { path: path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NotAFolder { path: path.clone() });
            }
            Err(error) => return Err(failed(path)(error)),
        }
        self.check_apart(list, path)?;
        match read_marker(entry)? {
            Some(marker) if marker.library != list.library => {
                return Err(VolumeError::OfAnotherLibrary { path: path.clone() });
            }
            Some(marker) => {
                // The same disk by another path.
                let known = list.volumes.iter().find(|volume| volume.id == marker.volume);
                if let Some(VolumeEntry { name, .. }) = known {
                    let (path, name) = (path.clone(), name.clone());
                    return Err(VolumeError::InUse { path, name });
                }
            }
            None => {}
        }
        let packs_left = !remove_empty(&path.join(PACKS));
        for found in fs::read_dir(path).map_err(failed(path))? {
            let name = found.map_err(failed(path))?.file_name();
            if packs_left || (name != MARKER && name != LOST_AND_FOUND) {
                return Err(VolumeError::NotEmpty { path: path.clone() });
            }
        }
        let marker = Marker { library: list.library, volume: entry.id };
        write_whole(&path.join(MARKER), &marker.encode()).map_err(failed(path))
    }

    fn open(&self, library: u128, entry: &VolumeEntry) -> Result<Arc<dyn PackStore>, VolumeError> {
        let (name, path) = (entry.name.clone(), entry.path.clone());
        match read_marker(entry)? {
            None => return Err(VolumeError::Missing { name, path }),
            Some(found) if found != (Marker { library, volume: entry.id }) => {
                return Err(VolumeError::WrongVolume { name, path });
            }
            Some(_) => {}
        }
        let packs = path.join(PACKS);
        match DirBuilder::new().mode(0o700).create(&packs) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&packs)(error));
            }
            _ => sync_folder(&path).map_err(failed(&path))?,
        }
        Ok(Arc::new(FolderStore::new(packs.clone()).map_err(failed(&packs))?))
    }

    fn release(&self, path: &Path) -> Result<(), VolumeError> {
        remove_empty(&path.join(PACKS));
        let marker = path.join(MARKER);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&marker)(error)),
            _ => Ok(()),
        }
    }
}

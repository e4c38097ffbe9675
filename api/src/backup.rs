//! Backups of a site: made while it is used, read through, and put back into an empty folder.
//!
//! A backup shows one moment: what a power cut just then would have left on the disks. No commit of the library
//! comes between its references and the database's snapshot ([`contentlib::Library::capture`]); and a site
//! that was cut off at any moment goes on ([`create`](mod@create)). [`restore`](mod@restore) makes a site of it, which `settle` gets
//! ready, the first time that it is opened, for those who remember what came after that moment.

pub mod create;
pub mod restore;
pub(crate) mod settle;

use crate::problem::{Kind, Problem, with_causes};
use crate::site::Site;
use backup::BadBackup;
use backup::keys::Passphrase;
use backup::series::{self, Name};
use contentlib::{Library, Links, Progress, Ref};
use jiff::Timestamp;
use packager::ManifestLinks;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest file with a passphrase, in bytes.
const MAX_PASSPHRASE: u64 = 64 << 10;
/// Contents that a result names; the others are counted.
pub const NAMED: usize = 1000;

impl From<BadBackup> for Problem {
    fn from(error: BadBackup) -> Self {
        let kind = match &error {
            BadBackup::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Kind::StorageFull
            }
            BadBackup::Io(_) => return Problem::internal(&error),
            BadBackup::WrongPassphrase | BadBackup::WeakPassphrase { .. } => {
                return Problem::field("passphrase_file", error.to_string());
            }
            BadBackup::NewerFormat { .. } => Kind::Unavailable,
            _ => Kind::Damaged,
        };
        Problem::new(kind, with_causes(&error))
    }
}

/// The passphrase in a file that nobody else may read: its first line.
pub fn read_passphrase(path: &Path) -> Result<Passphrase, Problem> {
    let refused = |detail: String| Problem::field("passphrase_file", format!("{path:?} {detail}"));
    let meta = fs::metadata(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(refused("can be read by others: chmod 600 it".into()));
    }
    if meta.len() > MAX_PASSPHRASE || !meta.is_file() {
        return Err(refused("is no file with a passphrase".into()));
    }
    let text =
        fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    Ok(Passphrase::of_text(&text)?)
}

/// The backup that `path` means: the file itself, or of a folder the newest, or the newest not after `at`.
pub fn find(path: &Path, at: Option<Timestamp>) -> Result<PathBuf, Problem> {
    if !path.is_dir() {
        return match path.exists() {
            true => Ok(path.to_owned()),
            false => Err(Problem::new(Kind::NotFound, format!("there is no backup {path:?}"))),
        };
    }
    let names = names(path)?;
    match series::pick(&names, at) {
        Some(name) => Ok(path.join(name.to_string())),
        None => {
            let of = at.map_or(String::new(), |at| format!(" of {at} or before"));
            Err(Problem::new(Kind::NotFound, format!("in {path:?} is no backup{of}")))
        }
    }
}

fn names(folder: &Path) -> Result<Vec<Name>, Problem> {
    let failed = |error| Problem::internal(&failed(folder, error));
    series::list(folder).map_err(failed)
}

fn failed(path: &Path, source: std::io::Error) -> crate::SiteError {
    crate::SiteError::Io { path: path.to_owned(), source }
}

/// A backup in a folder of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// Bytes of its file; packs beside it are not counted.
    pub bytes: u64,
    /// What of the content is kept with it; nothing where its head cannot be read.
    pub content: Option<backup::parts::Content>,
    /// What became of the keys.
    pub keys: Option<backup::parts::Keys>,
    /// Why its head cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The backups in `folder`, the newest first.
pub fn list(folder: &Path) -> Result<Vec<Listed>, Problem> {
    let mut all = Vec::new();
    for name in names(folder)?.into_iter().rev() {
        let path = folder.join(name.to_string());
        let bytes =
            fs::metadata(&path).map_err(|error| Problem::internal(&failed(&path, error)))?;
        let head = fs::File::open(&path)
            .map_err(BadBackup::from)
            .and_then(|file| backup::parts::Open::new(BufReader::new(file)))
            .map(|open| open.head().clone());
        let (head, error) = match head {
            Ok(head) => (Some(head), None),
            Err(error) => (None, Some(with_causes(&error))),
        };
        all.push(Listed {
            name: name.to_string(),
            taken: name.taken,
            bytes: bytes.len(),
            content: head.as_ref().map(|head| head.content),
            keys: head.as_ref().map(|head| head.keys),
            error,
        });
    }
    Ok(all)
}

/// What a library lacks of what a backup names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lacking {
    /// References that were looked at.
    pub references: u64,
    /// Contents that are not held whole.
    pub n_missing: u64,
    /// Of them the first, each once.
    pub missing: Vec<Missing>,
}

/// A content that is not held whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The content.
    pub digest: String,
    /// A reference that names it.
    pub reference: String,
}

/// Looks whether the library of `site` holds what the backup in `file` names.
pub(crate) fn against(site: &Site, file: &Path, progress: &Progress) -> Result<Lacking, Problem> {
    let library = site.content()?.library;
    let mut open = open(file)?;
    let mut refs = Vec::new();
    while let Some(kind) = open.next_part()? {
        match kind {
            backup::frames::Kind::References => refs = references(&mut open)?,
            _ => break,
        }
    }
    lacking(&library, &refs, progress)
}

fn open(file: &Path) -> Result<backup::parts::Open<BufReader<fs::File>>, Problem> {
    let file = fs::File::open(file).map_err(|error| Problem::internal(&failed(file, error)))?;
    Ok(backup::parts::Open::new(BufReader::with_capacity(1 << 20, file))?)
}

/// The references of a backup, as a library has them.
fn references<R: std::io::Read>(
    open: &mut backup::parts::Open<R>,
) -> Result<Vec<(String, Ref)>, Problem> {
    let mut all = Vec::new();
    while let Some(it) = open.reference()? {
        let root = it.root.map(contentlib::Digest::from_bytes);
        all.push((it.name, Ref { root, value: it.value.into() }));
    }
    Ok(all)
}

/// What of all that these references name is not held whole.
fn lacking(
    library: &Library,
    refs: &[(String, Ref)],
    progress: &Progress,
) -> Result<Lacking, Problem> {
    let mut found = Lacking { references: refs.len() as u64, ..Lacking::default() };
    let mut known = std::collections::HashSet::new();
    for (name, to) in refs {
        progress.check().map_err(contentlib::MaintainError::from)?;
        let Some(root) = to.root else { continue };
        let mut named = vec![root];
        // Of a manifest that is missing nobody knows what it names; when it is back, the others show.
        if let Ok(links) = ManifestLinks.links(name, to, library) {
            named.extend(links.into_iter().map(|link| link.digest));
        }
        named.retain(|digest| known.insert(*digest));
        let missing = library.missing_contents(&named)?;
        for (digest, _) in named.iter().zip(missing).filter(|(_, is_missing)| *is_missing) {
            found.n_missing += 1;
            if found.missing.len() < NAMED {
                let (digest, reference) = (digest.to_string(), packager::refs::shown(name));
                found.missing.push(Missing { digest, reference });
            }
        }
        progress.files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(found)
}

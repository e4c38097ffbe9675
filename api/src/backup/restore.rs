//! Putting a backup back: a site in an empty data folder, as it was at the backup's moment.
//!
//! `DIR/restore.json` stands there from the beginning to the end; a folder with it is not served. A restore
//! that was killed goes on when it is asked for again: packs are there whole or not at all, and the database
//! goes on after the last key that it has.
//!
//! The backup is read to its end once before anything is written, so that damage, or a wrong passphrase, does
//! not show after an hour.

use super::create::sync_folder;
use super::settle::{self, mark};
use super::{Lacking, failed, lacking, open, references};
use crate::config::Config;
use crate::database::{MigrateError, Restoring};
use crate::lock::{DataLock, NotLocked};
use crate::problem::{Kind, Problem, with_causes};
use crate::site::{SiteError, make_folder, write_secret};
use backup::BadBackup;
use backup::frames::Kind as Part;
use backup::keys::{KeyFile, Passphrase};
use backup::parts::{Content, Head, Keys, Pack};
use backup::series;
use contentlib::{CapturedPack, Library, MaintainError, OpenError, PackId, Progress};
use jiff::Timestamp;
use packager::packages::skip_numbers;
use serde::{Deserialize, Serialize};
use sitedb::transfer::{Step, TransferError, restore as put_back};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// Entries of the database that are put back at once.
const PAGE: usize = 512;
const PAGE_BYTES: usize = 4 << 20;
/// How far the numbers of versions go on: more than are made of one package between two backups.
const BEYOND: u64 = 1000;

/// What is being put back into a folder, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// The name of the backup's file.
    pub backup: String,
    /// Which one it is, wherever it lies.
    of: String,
    /// All packs are there, and the library may have been written to since.
    #[serde(default)]
    has_packs: bool,
}

impl Begun {
    fn write(&self, data: &Path) -> Result<(), Problem> {
        let json = serde_json::to_vec(self).map_err(|error| Problem::internal(&error))?;
        write_secret(&marker(data), &json).map_err(|error| Problem::internal(&failed(data, error)))
    }
}

fn marker(data: &Path) -> PathBuf {
    data.join("restore.json")
}

/// What is half restored in a folder, if something is.
pub(crate) fn begun(data: &Path) -> io::Result<Option<Begun>> {
    match fs::read(marker(data)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A site that was put back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// Its data folder.
    pub data: PathBuf,
    /// Where its database is.
    pub database: String,
    /// The backup.
    pub backup: PathBuf,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// Records of the database.
    pub records: u64,
    /// References of the library that the backup names.
    pub references: u64,
    /// Of them, those that the library did not have.
    pub references_set: u64,
    /// Packs that were put there.
    pub packs: u64,
    /// Key files that were put there.
    pub keys: u64,
    /// Packs that the backup should have kept and has not, or not as they were.
    pub lost_packs: Vec<String>,
    /// What the library lacks now.
    pub library: Lacking,
}

/// Puts the backup in `file` back, into the data folder, the library and the database that `config` names.
/// Without a passphrase the keys stay away.
pub fn restore(
    config: &Config,
    file: &Path,
    passphrase: Option<&Passphrase>,
    progress: &Progress,
) -> Result<Restored, Problem> {
    progress.set_stage("reading the backup".into());
    let verified = read_through(file, passphrase)?;
    let head = &verified.head;
    let data = &config.data;
    let (_lock, mut begun) = begin(data, file, head)?;

    let mut open = open(file)?;
    let (mut refs, mut packs, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = Done::default();
    let mut database = None;
    while let Some(part) = open.next_part()? {
        match part {
            Part::References => refs = references(&mut open)?,
            Part::Packs => {
                while let Some(pack) = open.pack()? {
                    packs.push(pack);
                }
                if !begun.has_packs {
                    put_packs(config, file, head, &packs, &mut done, progress)?;
                }
            }
            Part::Records => {
                progress.set_stage("putting records back".into());
                let target = Restoring::open(config).map_err(of_database)?;
                put_records(&mut open, head, file, &target, progress)?;
                database = Some(target);
            }
            Part::Keys => {
                let sealed = open.keys()?;
                keys = passphrase.map(|it| sealed.open(it)).transpose()?.unwrap_or_default();
            }
            Part::Head | Part::End => break,
        }
    }
    let (totals, digest) = open.end()?;
    if digest != verified.digest {
        let detail = format!("{file:?} became another one while it was read: do this again");
        return Err(Problem::new(Kind::Conflict, detail));
    }
    for key in &keys {
        put_key(data, key).map_err(|error| Problem::internal(&failed(data, error)))?;
    }
    begun.has_packs = true;
    begun.write(data)?;
    progress.set_stage("looking at the library".into());
    let library = open_library(config, progress)?;
    let references_set = library.restore_refs(refs.clone())?;
    if head.content == Content::Packs || references_set > 0 {
        skip_numbers(&library, BEYOND)?;
    }
    let lacking = lacking(&library, &refs, progress)?;
    library.close()?;
    drop(library);
    let database = match database {
        Some(database) => database.own().map_err(of_database)?,
        None => return Err(Problem::new(Kind::Damaged, format!("{file:?} has no records"))),
    };
    // From here on it is a site.
    let io = |error| Problem::internal(&failed(data, error));
    fs::remove_file(marker(data)).map_err(io)?;
    sync_folder(data).map_err(io)?;
    Ok(Restored {
        data: data.clone(),
        database,
        backup: file.to_owned(),
        taken: head.taken,
        records: totals.records,
        references: totals.references,
        references_set,
        packs: done.put,
        keys: keys.len() as u64,
        lost_packs: done.lost.iter().map(ToString::to_string).collect(),
        library: lacking,
    })
}

fn of_database(error: MigrateError) -> Problem {
    match error {
        MigrateError::Site(SiteError::Io { .. }) => Problem::internal(&error),
        error if error.is_conflict() => Problem::new(Kind::Conflict, with_causes(&error)),
        error => Problem::new(Kind::Unavailable, with_causes(&error)),
    }
}

/// Reads all of it but packs, and opens the keys.
fn read_through(file: &Path, passphrase: Option<&Passphrase>) -> Result<backup::Verified, Problem> {
    let verified = backup::verify_file(file, passphrase)?;
    match (verified.head.keys, passphrase) {
        (Keys::Absent, Some(_)) => {
            let detail = "is given, but the backup was made without keys: put them into the keys \
                          folder afterwards, from where they are kept";
            Err(Problem::field("passphrase_file", detail))
        }
        _ => Ok(verified),
    }
}

/// Takes the folder, which is empty, or half restored from the same backup.
fn begin(data: &Path, file: &Path, head: &Head) -> Result<(DataLock, Begun), Problem> {
    let io = |error| Problem::internal(&failed(data, error));
    make_folder(data).map_err(io)?;
    let lock = DataLock::take(&data.join("lock"), "depot backup restore");
    let lock = lock.map_err(|error| match error {
        NotLocked::Held(holder) => {
            let error = SiteError::InUse { folder: data.to_owned(), holder };
            Problem::new(Kind::Conflict, error.to_string())
        }
        NotLocked::Io(error) => io(error),
    })?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let of = format!("{} {} {}", head.library, head.seq, head.taken);
    let new = Begun { backup: name.unwrap_or_default(), of, has_packs: false };
    match begun(data).map_err(io)? {
        Some(begun) if begun.of == new.of => return Ok((lock, begun)),
        Some(begun) => {
            let detail = format!(
                "in {data:?} is half of what was restored from {}: end that with the same command, or \
                 name another folder",
                begun.backup
            );
            return Err(Problem::new(Kind::Conflict, detail));
        }
        None => {}
    }
    for entry in fs::read_dir(data).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        // A library may have been put there: its packs are where the content is kept.
        if !["lock", "lost+found", "library"].iter().any(|may| name == *may) {
            let detail = format!(
                "{data:?} is not empty: a backup is put back into a new folder. To go back to an earlier \
                 moment, stop the site, move its folder away, and restore in its place"
            );
            return Err(Problem::new(Kind::Conflict, detail));
        }
    }
    new.write(data)?;
    Ok((lock, new))
}

/// What became of the packs.
#[derive(Default)]
struct Done {
    put: u64,
    lost: BTreeSet<PackId>,
}

/// Puts the packs back that are kept with the backup. Those that are lost are left out.
fn put_packs(
    config: &Config,
    file: &Path,
    head: &Head,
    packs: &[Pack],
    done: &mut Done,
    progress: &Progress,
) -> Result<(), Problem> {
    if head.content == Content::References {
        return Ok(());
    }
    progress.set_stage("putting packs back".into());
    progress.total_bytes.store(packs.iter().map(|pack| pack.len).sum(), Relaxed);
    let folder = series::packs_beside(file);
    let digests: HashMap<u128, [u8; 32]> =
        packs.iter().filter_map(|pack| Some((pack.id, pack.digest?))).collect();
    let path = |pack: &CapturedPack| folder.join(series::pack_name(pack.id.0, pack.len));
    loop {
        let wanted: Vec<CapturedPack> = packs
            .iter()
            .map(|pack| CapturedPack { id: PackId(pack.id), len: pack.len })
            .filter(|pack| !done.lost.contains(&pack.id))
            .collect();
        let wanted: Vec<CapturedPack> = wanted
            .into_iter()
            .filter(|pack| path(pack).exists() || !done.lost.insert(pack.id))
            .collect();
        let mut bad = None;
        let mut source = |pack: CapturedPack| -> io::Result<Box<dyn Read>> {
            bad = Some(pack.id);
            let digest = digests.get(&pack.id.0).copied().unwrap_or_default();
            let file = File::open(path(&pack))?;
            Ok(Box::new(Checked {
                file,
                len: 0,
                want: (pack.len, digest),
                hasher: blake3::Hasher::new(),
            }))
        };
        let options = config.library_options();
        let put = Library::restore_packs(
            &config.data.join("library"),
            options,
            &wanted,
            &mut source,
            progress,
        );
        match put {
            Ok(n) => {
                done.put += n;
                progress.total_bytes.store(0, Relaxed);
                return Ok(());
            }
            Err(MaintainError::Store { pack, source })
                if source.kind() == io::ErrorKind::InvalidData && bad == Some(pack) =>
            {
                tracing::error!(%pack, "a pack of the backup is damaged, and is left out");
                done.lost.insert(pack);
            }
            Err(MaintainError::Store { pack, source })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                let detail = format!("the library is not empty: pack {pack} {source}");
                return Err(Problem::new(Kind::Conflict, detail));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A pack, which ends with an error if it is not what it should be.
struct Checked {
    file: File,
    len: u64,
    want: (u64, [u8; 32]),
    hasher: blake3::Hasher,
}

impl Read for Checked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(into)?;
        self.len += n as u64;
        self.hasher.update(into.get(..n).unwrap_or_default());
        let is_other = n == 0 && (self.len, *self.hasher.finalize().as_bytes()) != self.want;
        if is_other { Err(io::ErrorKind::InvalidData.into()) } else { Ok(n) }
    }
}

/// Why records were not put back.
enum NotPut {
    Read(BadBackup),
    Transfer(TransferError),
}

impl From<TransferError> for NotPut {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

fn put_records<R: Read>(
    open: &mut backup::parts::Open<R>,
    head: &Head,
    file: &Path,
    target: &Restoring,
    progress: &Progress,
) -> Result<(), Problem> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let restored = settle::Restored {
        backup: name.unwrap_or_default(),
        taken: head.taken,
        at: Timestamp::now(),
    };
    let mark = mark(&restored)?;
    let source = format!("backup:{}:{}:{}", head.library, head.seq, head.taken);
    let pages = || {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE && bytes < PAGE_BYTES {
            let Some((key, value)) = open.record().map_err(NotPut::Read)? else { break };
            bytes += key.len() + value.len();
            page.push((key, value));
        }
        Ok(page)
    };
    let before = progress.bytes.load(Relaxed);
    let watch = |step, entries, bytes| {
        if step == Step::Copying {
            progress.files.store(entries, Relaxed);
            progress.bytes.store(before + bytes, Relaxed);
        }
        match progress.check() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    match put_back((source.as_str(), head.seq), pages, &mark, target.import(), watch) {
        Ok(_) => Ok(()),
        Err(NotPut::Read(bad)) => Err(bad.into()),
        Err(NotPut::Transfer(TransferError::Interrupted)) => {
            Err(Problem::new(Kind::Cancelled, "interrupted: the same command goes on from there"))
        }
        Err(NotPut::Transfer(error)) => Err(of_database(error.into())),
    }
}

fn put_key(data: &Path, key: &KeyFile) -> io::Result<()> {
    let path = data.join(&key.name);
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    write_secret(&path, &key.bytes)
}

/// The library, whose index is made if it has none.
fn open_library(config: &Config, progress: &Progress) -> Result<Library, Problem> {
    let folder = config.data.join("library");
    match Library::open(&folder, config.library_options()) {
        Err(OpenError::IndexMissing { .. }) => {
            Library::rebuild_index(&folder, config.library_options(), progress)?;
            Ok(Library::open(&folder, config.library_options())?)
        }
        library => Ok(library?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn head() -> Head {
        let json = serde_json::json!({
            "program": "0", "taken": "2026-11-28T12:00:00Z", "library": "00", "seq": 7,
            "content": "references", "keys": "absent",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_folder_is_taken_if_it_is_empty_or_half_restored_from_the_same_backup() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("library")).unwrap();
        let take = |head: &Head| begin(&data, Path::new("/b/it.depot-backup"), head).map(drop);
        take(&head()).unwrap();
        fs::write(data.join("half"), "").unwrap();
        take(&head()).unwrap();
        let refused = take(&Head { seq: 8, ..head() }).unwrap_err();
        assert!(refused.is(Kind::Conflict) && refused.to_string().contains("it.depot-backup"));
        fs::remove_file(marker(&data)).unwrap();
        let refused = take(&head()).unwrap_err();
        assert!(refused.is(Kind::Conflict) && refused.to_string().contains("not empty"));
        assert_eq!(begun(&data).unwrap(), None);
    }

    #[test]
    fn a_pack_that_is_another_is_an_error_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        fs::write(&path, "whole pack").unwrap();
        let read = |want| {
            let file = File::open(&path).unwrap();
            let mut it = Checked { file, len: 0, want, hasher: blake3::Hasher::new() };
            it.read_to_end(&mut Vec::new())
        };
        let digest = *blake3::hash(b"whole pack").as_bytes();
        assert_eq!(read((10, digest)).unwrap(), 10);
        assert!(read((11, digest)).is_err() && read((10, [0; 32])).is_err());
    }
}

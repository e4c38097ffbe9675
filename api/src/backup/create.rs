//! Making a backup of a site that is used meanwhile.
//!
//! Packs that are kept with it are copied in two rounds: all there are, while the site goes on; then, once the
//! moment is taken, the few that came since. So the database's snapshot is held for as long as its records take,
//! and not for as long as the content does. A file has its name only when it is whole, durable, and all packs
//! that it lists are; what a killed run copied is there for the next one.

use super::{failed, names};
use crate::lock::{DataLock, NotLocked};
use crate::problem::{Kind, Problem};
use crate::site::{Site, make_folder};
use backup::keys::{KeyFile, Passphrase, is_inside, seal};
use backup::parts::{Content, Head, Keys, Pack, Parts};
use backup::series::{self, Name, SUFFIX};
use contentlib::{Capture, CapturedPack, MaintainError, PackId, Progress};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The largest file of a key, in bytes.
const MAX_KEY: u64 = 1 << 20;

/// What kind of backup is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The folder of the series.
    pub folder: PathBuf,
    /// What of the content is kept.
    pub content: Content,
    /// What the keys are sealed by; without it they are left out.
    pub passphrase: Option<Passphrase>,
    /// So many backups stay; without it, all.
    pub keep: Option<usize>,
}

/// A backup that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// The bytes of the file.
    pub bytes: u64,
    /// The BLAKE3 that it ends with, in hex.
    pub digest: String,
    /// Records of the site database.
    pub records: u64,
    /// References of the library.
    pub references: u64,
    /// Packs of the library.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that were copied for this backup; others were there, or are not kept with it.
    pub copied_packs: u64,
    /// Key files that are in it.
    pub keys: u64,
    /// Packs that the library should have and has not: they are not in it.
    pub lost_packs: Vec<String>,
    /// Older backups that went.
    pub removed: Vec<String>,
    /// Why packs that no backup needs were not looked for, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_cleaned: Option<String>,
}

/// Makes a backup of `site`.
pub(crate) fn create(site: &Site, wanted: &Wanted, progress: &Progress) -> Result<Made, Problem> {
    let series = Series::open(site, wanted)?;
    let (content, ledger) = (site.content()?, site.ledger()?);
    let library = content.library;
    let id = format!("{:032x}", library.id());
    let known = series.known(&id)?;
    let mut copies = Copies { folder: wanted.folder.join(series::PACKS), known, n: 0 };
    let keys = match &wanted.passphrase {
        Some(passphrase) => Some((key_files(site.folder())?, passphrase)),
        None => None,
    };

    // Held until the moment is taken, so that nothing of it goes in between.
    let mut earlier = None;
    if wanted.content == Content::Packs {
        let (capture, ()) = library.capture(|| ())?;
        progress.set_stage("copying packs".into());
        copies.all(&capture, progress)?;
        earlier = Some(capture);
    }
    let before = series::list(&wanted.folder);
    let before = before.map_err(|error| Problem::internal(&failed(&wanted.folder, error)))?;
    let (capture, mut records, name) = loop {
        let ((capture, taken), now) = {
            let moment = || (ledger.db.kv().snapshot(), Timestamp::now());
            let (capture, (records, now)) = library.capture(moment)?;
            ((capture, records?), now)
        };
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let name = Name { taken: second, seq: taken.seq() };
        if before.iter().all(|it| it.taken != second) {
            break (capture, taken, name);
        }
        // Two within one second could not be told apart by their moments.
        std::thread::sleep(Duration::from_millis(200));
    };
    drop(earlier);
    let packs = match wanted.content {
        Content::Packs => copies.all(&capture, progress)?,
        Content::References => {
            let pack = |pack: &CapturedPack| Pack { id: pack.id.0, len: pack.len, digest: None };
            capture.packs.iter().map(pack).collect()
        }
    };

    progress.set_stage("copying records".into());
    let head = Head {
        program: env!("CARGO_PKG_VERSION").into(),
        taken: name.taken,
        library: id,
        seq: name.seq,
        content: wanted.content,
        keys: if keys.is_some() { Keys::Sealed } else { Keys::Absent },
    };
    let path = wanted.folder.join(name.to_string());
    let part = wanted.folder.join(format!("{name}.part"));
    let io = |error| Problem::internal(&failed(&part, error));
    let mut parts =
        Parts::new(BufWriter::with_capacity(1 << 20, new_file(&part).map_err(io)?), &head)
            .map_err(io)?;
    let all = capture.refs.iter().map(|(name, to)| {
        (name.as_str(), to.root.as_ref().map(|root| root.as_bytes()), &*to.value)
    });
    parts.references(all).map_err(io)?;
    parts.packs(&packs).map_err(io)?;
    parts.begin_records().map_err(io)?;
    loop {
        progress.check().map_err(MaintainError::from)?;
        let page = records.next_page()?;
        if page.is_empty() {
            break;
        }
        for (key, value) in &page {
            parts.record(key, value).map_err(io)?;
            progress.bytes.fetch_add((key.len() + value.len()) as u64, Relaxed);
        }
        progress.files.fetch_add(page.len() as u64, Relaxed);
    }
    drop(records);
    let mut n_keys = 0;
    if let Some((files, passphrase)) = keys {
        n_keys = files.len() as u64;
        parts.keys(&seal(&files, passphrase)?).map_err(io)?;
    }
    let (out, bytes, digest, totals) = parts.finish().map_err(io)?;
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    fs::rename(&part, &path).map_err(io)?;
    sync_folder(&wanted.folder).map_err(io)?;

    let mut made = Made {
        name: name.to_string(),
        path,
        taken: name.taken,
        bytes,
        digest: blake3::Hash::from_bytes(digest).to_hex().to_string(),
        records: totals.records,
        references: totals.references,
        packs: totals.packs,
        pack_bytes: totals.pack_bytes,
        copied_packs: copies.n,
        keys: n_keys,
        lost_packs: capture.bad_packs.iter().map(|bad| bad.pack.to_string()).collect(),
        removed: Vec::new(),
        not_cleaned: None,
    };
    if let Some(keep) = wanted.keep {
        series.clean(keep, &mut made)?;
    }
    Ok(made)
}

/// The folder of a series, which nobody else writes to.
struct Series {
    folder: PathBuf,
    _lock: DataLock,
}

impl Series {
    fn open(site: &Site, wanted: &Wanted) -> Result<Self, Problem> {
        let folder = wanted.folder.clone();
        let io = |error| Problem::internal(&failed(&folder, error));
        if !folder.is_absolute() {
            return Err(Problem::field("folder", "must be an absolute path"));
        }
        make_folder(&folder).map_err(io)?;
        let (real, data) = (folder.canonicalize().map_err(io)?, site.folder().canonicalize());
        if data.is_ok_and(|data| real.starts_with(data)) {
            let detail = "lies in the data folder, and would be lost with it: name one elsewhere";
            return Err(Problem::field("folder", detail));
        }
        let lock =
            DataLock::take(&folder.join("lock"), "making a backup").map_err(|e| match e {
                NotLocked::Held(who) => Problem::new(
                    Kind::Conflict,
                    format!("a backup is being made in {folder:?} by {who}: wait for its end"),
                ),
                NotLocked::Io(error) => io(error),
            })?;
        for entry in fs::read_dir(&folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let is_left = name.to_str().is_some_and(|it| it.ends_with(&format!("{SUFFIX}.part")));
            if is_left {
                fs::remove_file(folder.join(name)).map_err(io)?;
            }
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The packs of all backups that can be read, with their digests; an error if one is of another site.
    fn known(&self, library: &str) -> Result<HashMap<(u128, u64), [u8; 32]>, Problem> {
        let mut known = HashMap::new();
        for name in names(&self.folder)? {
            match series::outline(&self.folder.join(name.to_string())) {
                Ok((head, _)) if head.library != library => {
                    let folder = &self.folder;
                    let detail = format!(
                        "{folder:?} has backups of another site, {name} for one: name another folder"
                    );
                    return Err(Problem::new(Kind::Conflict, detail));
                }
                Ok((_, packs)) => {
                    let its = |pack: Pack| Some(((pack.id, pack.len), pack.digest?));
                    known.extend(packs.into_iter().filter_map(its));
                }
                Err(error) => tracing::warn!(%name, %error, "an older backup cannot be read"),
            }
        }
        Ok(known)
    }

    /// Lets go of all backups but the newest, and of packs that no other needs.
    fn clean(&self, keep: usize, made: &mut Made) -> Result<(), Problem> {
        let io = |path: &Path, error| Problem::internal(&failed(path, error));
        let all = names(&self.folder)?;
        let stale = series::stale(&all, keep);
        for name in &stale {
            let path = self.folder.join(name.to_string());
            fs::remove_file(&path).map_err(|error| io(&path, error))?;
            made.removed.push(name.to_string());
        }
        // Before the packs: a backup that is there has its packs.
        sync_folder(&self.folder).map_err(|error| io(&self.folder, error))?;
        let left: Vec<Name> = all.into_iter().filter(|name| !stale.contains(name)).collect();
        match series::unused_packs(&self.folder, &left) {
            Ok(unused) => {
                for path in unused {
                    fs::remove_file(&path).map_err(|error| io(&path, error))?;
                }
            }
            Err(error) => made.not_cleaned = Some(crate::problem::with_causes(&error)),
        }
        Ok(())
    }
}

/// The folder of packs that the backups of a series share.
struct Copies {
    folder: PathBuf,
    /// The digests of those that backups list.
    known: HashMap<(u128, u64), [u8; 32]>,
    n: u64,
}

impl Copies {
    /// Copies the packs of `capture` that are not there.
    fn all(&mut self, capture: &Capture, progress: &Progress) -> Result<Vec<Pack>, Problem> {
        let io = |error| Problem::internal(&failed(&self.folder, error));
        make_folder(&self.folder).map_err(io)?;
        let total = capture.packs.iter().map(|pack| pack.len).sum();
        progress.total_bytes.store(total, Relaxed);
        let mut packs = Vec::new();
        for pack in &capture.packs {
            let digest = self.one(capture, *pack, progress)?;
            packs.push(Pack { id: pack.id.0, len: pack.len, digest: Some(digest) });
        }
        progress.total_bytes.store(0, Relaxed);
        sync_folder(&self.folder)
            .map_err(|error| Problem::internal(&failed(&self.folder, error)))?;
        Ok(packs)
    }

    fn one(
        &mut self,
        capture: &Capture,
        pack: CapturedPack,
        progress: &Progress,
    ) -> Result<[u8; 32], Problem> {
        let CapturedPack { id: PackId(id), len } = pack;
        let path = self.folder.join(series::pack_name(id, len));
        let io = |error| Problem::internal(&failed(&path, error));
        let is_there = fs::metadata(&path).is_ok_and(|meta| meta.len() == len);
        if is_there && let Some(digest) = self.known.get(&(id, len)) {
            return Ok(*digest);
        }
        let digest = if is_there {
            // A killed run copied it, and no backup says yet what it is.
            hash(&path, progress).map_err(io)?
        } else {
            let part = path.with_extension("part");
            let _ = fs::remove_file(&part);
            let mut file = new_file(&part).map_err(io)?;
            let mut hasher = blake3::Hasher::new();
            capture.read(pack, progress, |bytes| {
                hasher.update(bytes);
                file.write_all(bytes)
            })?;
            file.sync_all().map_err(io)?;
            fs::rename(&part, &path).map_err(io)?;
            self.n += 1;
            *hasher.finalize().as_bytes()
        };
        self.known.insert((id, len), digest);
        Ok(digest)
    }
}

fn hash(path: &Path, progress: &Progress) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let mut step = vec![0; 1 << 20];
    loop {
        progress.check().map_err(io::Error::other)?;
        match file.read(&mut step)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => hasher.update(step.get(..n).unwrap_or_default()),
        };
    }
}

/// A file that nobody else may read.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What of a data folder must be kept from others and cannot be made again.
fn key_files(data: &Path) -> Result<Vec<KeyFile>, Problem> {
    let mut files = Vec::new();
    let mut folders = vec![("keys".to_owned(), data.join("keys"))];
    let mut found = vec![("admin.token".to_owned(), data.join("admin.token"))];
    while let Some((name, folder)) = folders.pop() {
        let io = |error| Problem::internal(&failed(&folder, error));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            let is_folder = entry.file_type().map_err(io)?.is_dir();
            if is_folder { &mut folders } else { &mut found }.push((name, entry.path()));
        }
    }
    found.sort();
    for (name, path) in found {
        let io = |error| Problem::internal(&failed(&path, error));
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta.map_err(io)?,
        };
        if name.ends_with(".part") || !meta.is_file() {
            continue;
        }
        if meta.len() > MAX_KEY || !is_inside(&name) {
            let detail =
                format!("{path:?} is no key, and so cannot be kept with the keys: move it");
            return Err(Problem::new(Kind::Conflict, detail));
        }
        files.push(KeyFile { name, bytes: fs::read(&path).map_err(io)? });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_all_that_is_below_and_the_first_token() {
        let folder = tempfile::tempdir().unwrap();
        assert!(key_files(folder.path()).unwrap().is_empty());
        fs::create_dir_all(folder.path().join("keys/parent")).unwrap();
        for name in
            ["admin.token", "keys/site.ed25519", "keys/parent/key.pem", "keys/x.part", "lock"]
        {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let found = key_files(folder.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["admin.token", "keys/parent/key.pem", "keys/site.ed25519"]);
        fs::write(folder.path().join("keys/ä"), "").unwrap();
        assert!(key_files(folder.path()).unwrap_err().is(Kind::Conflict));
    }
}

//! Uploads: a client sends a tree, and of its bytes only those that the library does not hold.
//!
//! A client begins an upload, offers the chunks of its files, sends those that are missing as
//! frames, says with recipes how they make up its larger files, and at last commits a manifest:
//! the next version. An upload is kept in the library, so a client may go on after it, or the
//! site, was interrupted: it offers again, and what arrived is not missing any more. One that is
//! not used for a time ([`Packages::with_upload_expiry`]) expires: its lease ends, and what only it
//! held is garbage. One that is in use right now never does.
//!
//! An upload whose record cannot be read keeps no other from being used: it is listed with the
//! reason, and stays until it is given up.
//!
//! Nothing a client says is believed: chunks and contents are named by what they hash to here,
//! sizes and recipes are looked up.

mod in_use;

pub(crate) use in_use::InUse;

use crate::error::PackageError;
use crate::fetch_state::{self, ReservedName};
use crate::manifest::{Entry, FileEntry, Kind, Manifest, ManifestBuilder};
use crate::name::PackageName;
use crate::packages::{NewVersion, Packages};
use crate::path::Shown;
use crate::refs::{self, RecordError, Stored};
use crate::update::{Tally, UpdateReport};
use contentlib::frames::{BadFrame, FrameDecoder, FrameItem};
use contentlib::{
    AddError, ChunkId, CommitError, Digest, Expect, Frame, Keeps, Progress, ReadError, Recipe,
    RefChange, Session,
};
use in_use::Mark;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long an upload is kept after it was last used, unless the site says otherwise.
pub(crate) const EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// The most missing contents that an error names.
const MAX_NAMED: usize = 1000;

/// The name of an upload: 32 lower-case hex digits, chosen at random.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadId(u128);

/// Text that names no upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an upload is named by 32 lower-case hex digits")]
pub struct BadUploadId;

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for UploadId {
    type Err = BadUploadId;
    fn from_str(text: &str) -> Result<Self, BadUploadId> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = u128::from_str_radix(text, 16).ok().filter(|_| lower && text.len() == 32);
        id.map(Self).ok_or(BadUploadId)
    }
}

impl TryFrom<String> for UploadId {
    type Error = BadUploadId;
    fn try_from(text: String) -> Result<Self, BadUploadId> {
        text.parse()
    }
}

impl From<UploadId> for String {
    fn from(id: UploadId) -> String {
        id.to_string()
    }
}

impl UploadId {
    /// The reference of the upload, and the name of its lease.
    fn key(&self) -> String {
        format!("{}{self}", refs::UPLOADS)
    }
}

/// What is kept of an upload.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UploadInfo {
    /// Its name.
    pub id: UploadId,
    /// The package that it makes the next version of.
    pub package: PackageName,
    /// When it was begun.
    pub created: Timestamp,
    /// When it goes, if it is not used before.
    pub expires: Timestamp,
    /// Plain bytes of the chunks that were sent.
    pub received_bytes: u64,
    /// What they take as they were sent, compressed.
    pub stored_bytes: u64,
}

/// Uploads by id, each as its record reads.
pub type EachUpload<T> = Vec<(UploadId, Result<T, RecordError>)>;

/// Why an upload did not go on. What it has so far stays, unless it is said to be gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// There is no such upload: it never was, was committed or given up, or has expired.
    #[error(
        "there is no upload {0}: it was committed or given up, or not used for too long; begin \
         another, which is asked only for what is not held any more"
    )]
    Unknown(UploadId),
    /// What is kept of it does not read: of it nothing can be done but to give it up.
    #[error("upload {id} cannot be read, so give it up and begin another")]
    Unreadable {
        /// The upload.
        id: UploadId,
        /// What is wrong with its record.
        source: RecordError,
    },
    /// The stream is not one of frames.
    #[error(transparent)]
    Frames(#[from] BadFrame),
    /// The stream of frames ended before its end mark.
    #[error(
        "the frames end without an end mark after {frames} whole ones, which are kept; offer the \
         chunks again and send what is missing"
    )]
    CutOff {
        /// Whole frames before that.
        frames: u64,
    },
    /// The stream could not be read to its end.
    #[error(
        "the frames broke off after {frames} whole ones, which are kept; offer the chunks again \
         and send what is missing"
    )]
    Stream {
        /// Whole frames before that.
        frames: u64,
        /// Why.
        source: io::Error,
    },
    /// A chunk or content could not be taken.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The manifest names contents that are not held. Send them, then commit again.
    #[error("{total} contents of the manifest are not held, such as {}; send them first",
        .missing.first().map_or_else(String::new, Digest::to_string))]
    Missing {
        /// The first thousand of them.
        missing: Vec<Digest>,
        /// How many there are.
        total: u64,
    },
    /// The manifest states a size that the content does not have.
    #[error("{path} is said to have {stated} bytes, and its content has {found}")]
    WrongSize {
        /// The file, as [`Shown`].
        path: String,
        /// What the manifest says.
        stated: u64,
        /// What is true.
        found: u64,
    },
    /// The manifest names a content that was revoked.
    #[error("{path} has content {digest}, which was revoked")]
    Revoked {
        /// The file, as [`Shown`].
        path: String,
        /// The content.
        digest: Digest,
    },
    /// The manifest has an entry whose name is taken.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
    /// The package or the library did not take it.
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl From<CommitError> for UploadError {
    fn from(error: CommitError) -> Self {
        Self::Package(error.into())
    }
}

/// What became of a recipe that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRecipe {
    /// The content is whole now.
    Whole,
    /// These chunks are missing still.
    MissingChunks(Vec<ChunkId>),
}

impl Packages {
    /// Begins an upload of a package's next version.
    pub fn begin_upload(&self, package: &PackageName) -> Result<UploadInfo, PackageError> {
        self.takes_uploads(package)?;
        self.expire_uploads()?;
        let now = self.now();
        let info = UploadInfo {
            id: UploadId(rand::random()),
            package: package.clone(),
            created: now,
            expires: self.upload_expires(now),
            received_bytes: 0,
            stored_bytes: 0,
        };
        let session =
            self.library().open_session(&info.id.key(), self.inner.upload_expiry, Keeps::All)?;
        session.commit(vec![refs::set(info.id.key(), None, &info, Expect::Absent)])?;
        Ok(info)
    }

    /// Goes on with an upload.
    pub fn upload(&self, id: &UploadId) -> Result<Upload, UploadError> {
        let now = self.now();
        let (stored, mark) = self.inner.uploads_in_use.take(id, |in_use| {
            let stored = self.stored_upload(id)?;
            let lives = in_use || stored.record.expires > now;
            if lives { Ok(stored) } else { Err(UploadError::Unknown(id.clone())) }
        })?;
        let expiry = self.inner.upload_expiry;
        let session = self
            .library()
            .open_session(&id.key(), expiry, Keeps::All)
            .map_err(PackageError::from)?;
        let (package, expires) = (stored.record.package, stored.record.expires);
        let upload = Upload { packages: self.clone(), package, session, mark };
        // Offering is a use, too. A commit for each would slow down a push of what is all held.
        if expires.duration_since(now) < self.upload_expires(now).duration_since(now) / 4 * 3 {
            upload.used(0, 0)?;
        }
        Ok(upload)
    }

    /// All uploads under way, by id, and those whose record cannot be read, with the reason.
    pub fn uploads(&self) -> Result<EachUpload<UploadInfo>, PackageError> {
        let mut all = self.stored_uploads()?;
        all.retain(|(id, stored)| stored.as_ref().map_or(true, |stored| self.lives(id, stored)));
        Ok(all.into_iter().map(|(id, stored)| (id, stored.map(|stored| stored.record))).collect())
    }

    /// One upload under way.
    pub fn show_upload(&self, id: &UploadId) -> Result<UploadInfo, UploadError> {
        let stored = self.stored_upload(id)?;
        match self.lives(id, &stored) {
            true => Ok(stored.record),
            false => Err(UploadError::Unknown(id.clone())),
        }
    }

    /// Ends an upload, also one whose record cannot be read; what only it held is collected as
    /// garbage.
    pub fn abort_upload(&self, id: &UploadId) -> Result<(), UploadError> {
        let found = self.library().get_ref(&id.key()).map_err(PackageError::from)?;
        let found = found.ok_or_else(|| UploadError::Unknown(id.clone()))?;
        match refs::read(&id.key(), found) {
            Ok(stored) if !self.lives(id, &stored) => Err(UploadError::Unknown(id.clone())),
            // Whoever uses it meanwhile finds it gone.
            _ => Ok(self.end_upload(id, Expect::Any).map(drop)?),
        }
    }

    /// Ends uploads that were not used for too long. Answers how many.
    pub fn expire_uploads(&self) -> Result<u64, PackageError> {
        let mut n = 0;
        for (id, stored) in self.stored_uploads()? {
            // When one that cannot be read was last used, nobody knows.
            let Ok(stored) = stored else { continue };
            if !self.lives(&id, &stored) {
                // Unless it is used or ended meanwhile.
                n += u64::from(self.end_upload(&id, Expect::Is(stored.found))?);
            }
        }
        Ok(n)
    }

    /// Whether an upload is under way: used not long ago, or right now.
    fn lives(&self, id: &UploadId, stored: &Stored<UploadInfo>) -> bool {
        stored.record.expires > self.now() || self.inner.uploads_in_use.contains(id)
    }

    /// Ends an upload whose record is as expected; answers whether it was.
    fn end_upload(&self, id: &UploadId, expect: Expect) -> Result<bool, PackageError> {
        let session =
            self.library().open_session(&id.key(), self.inner.upload_expiry, Keeps::All)?;
        match session.commit(vec![RefChange::Delete { name: id.key(), expect }]) {
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(()) => {
                session.end()?;
                Ok(true)
            }
        }
    }

    fn stored_upload(&self, id: &UploadId) -> Result<Stored<UploadInfo>, UploadError> {
        match refs::get(self.library(), &id.key()) {
            Ok(stored) => stored.ok_or_else(|| UploadError::Unknown(id.clone())),
            Err(RecordError::Index(error)) => Err(PackageError::from(error).into()),
            Err(source) => Err(UploadError::Unreadable { id: id.clone(), source }),
        }
    }

    /// Every upload that is kept, by id. The log names each that cannot be read, once.
    fn stored_uploads(&self) -> Result<EachUpload<Stored<UploadInfo>>, PackageError> {
        let mut all = Vec::new();
        for (key, found) in self.library().list_refs(refs::UPLOADS)? {
            // No other keys are ever made.
            let Some(Ok(id)) = key.strip_prefix(refs::UPLOADS).map(str::parse) else { continue };
            let id: UploadId = id;
            let stored = refs::read(&key, found);
            if let Err(error) = &stored
                && self.inner.uploads_told.lock().insert(id.clone())
            {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::warn!(upload = %id, error, "an upload cannot be read: give it up");
            }
            all.push((id, stored));
        }
        Ok(all)
    }

    /// When an upload that is used `now` goes.
    fn upload_expires(&self, now: Timestamp) -> Timestamp {
        let expiry = SignedDuration::try_from(self.inner.upload_expiry);
        now.checked_add(expiry.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }
}

/// An upload that a client goes on with. What its calls took is durable when they return.
pub struct Upload {
    packages: Packages,
    package: PackageName,
    session: Session,
    mark: Mark,
}

impl Upload {
    /// The package that it is for.
    pub fn package(&self) -> &PackageName {
        &self.package
    }

    /// Which of these chunks are to be sent.
    pub fn missing_chunks(&self, chunks: &[ChunkId]) -> Result<Vec<bool>, UploadError> {
        Ok(self.packages.library().missing_chunks(chunks).map_err(PackageError::from)?)
    }

    /// Which of these contents are not whole yet: of those, chunks and recipes are to be sent.
    pub fn missing_contents(&self, contents: &[Digest]) -> Result<Vec<bool>, UploadError> {
        Ok(self.packages.library().missing_contents(contents).map_err(PackageError::from)?)
    }

    /// Takes a stream of frames. Answers how many plain bytes it had. If it breaks off, what
    /// arrived whole is kept.
    pub fn put_frames(&self, mut stream: impl Read) -> Result<u64, UploadError> {
        let (mut received, mut stored) = (0, 0);
        let result = self.take_frames(&mut stream, |frame| {
            received += frame.lens().iter().map(|&len| u64::from(len)).sum::<u64>();
            stored += frame.stored().len() as u64;
        });
        self.used(received, stored)?;
        result.map(|()| received)
    }

    fn take_frames(
        &self,
        stream: &mut impl Read,
        mut taken: impl FnMut(&Frame),
    ) -> Result<(), UploadError> {
        let mut decoder = FrameDecoder::default();
        let mut buffer = vec![0; 256 << 10];
        let mut frames = 0;
        loop {
            while let Some(item) = decoder.next_item()? {
                if let FrameItem::Block(frame) = item {
                    self.session.put_frame(&frame)?;
                    taken(&frame);
                    frames += 1;
                }
            }
            match stream.read(&mut buffer) {
                Ok(0) if decoder.is_complete() => return Ok(()),
                Ok(0) => return Err(UploadError::CutOff { frames }),
                Ok(n) => decoder.push(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(UploadError::Stream { frames, source }),
            }
        }
    }

    /// Takes recipes of contents of more than one chunk, whose chunks were sent or are held. Each
    /// content is read and hashed before it counts.
    pub fn put_recipes(&self, recipes: &[(Digest, Recipe)]) -> Result<Vec<PutRecipe>, UploadError> {
        let mut results = Vec::with_capacity(recipes.len());
        for (digest, recipe) in recipes {
            results.push(match self.session.put_recipe(*digest, recipe) {
                Ok(()) => PutRecipe::Whole,
                Err(AddError::MissingChunks(chunks)) => PutRecipe::MissingChunks(chunks),
                Err(error) => return Err(error.into()),
            });
        }
        self.used(0, 0)?;
        Ok(results)
    }

    /// Makes what was taken durable, and puts off the upload's expiry.
    fn used(&self, received: u64, stored: u64) -> Result<(), UploadError> {
        loop {
            let Stored { mut record, found } = self.packages.stored_upload(&self.mark.id)?;
            record.expires = self.packages.upload_expires(self.packages.now());
            record.received_bytes += received;
            record.stored_bytes += stored;
            let change = refs::set(self.mark.id.key(), None, &record, Expect::Is(found));
            match self.session.commit(vec![change]) {
                // The client sends over several connections at once.
                Err(CommitError::Conflict { .. }) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Makes `manifest` the package's next version, unless it is what the newest version is
    /// already, and ends the upload. What the manifest says of recipes is not looked at: the
    /// version states those of the library.
    pub fn commit(self, manifest: &Manifest) -> Result<UpdateReport, UploadError> {
        let packages = &self.packages;
        let _guard = packages.busy(&self.package)?;
        packages.takes_uploads(&self.package)?;
        let stored = packages.stored_upload(&self.mark.id)?;
        let progress = Progress::default();
        let tally = Tally::begin(&progress, stored.record.created);
        progress.new_bytes.fetch_add(stored.record.received_bytes, Relaxed);
        progress.stored_bytes.fetch_add(stored.record.stored_bytes, Relaxed);
        let manifest = &self.checked(manifest)?;
        self.session.keep(manifest.digests().iter().copied());
        let new = NewVersion {
            name: &self.package,
            manifest,
            tree: manifest.tree_digest(),
            source: None,
            files_read: manifest.n_files(),
            new_bytes: tally.new_bytes(),
        };
        let newest = packages.newest(&self.package)?;
        let made = packages.make(&self.session, newest.as_ref(), &new)?;
        // The version stands by itself now. If this does not happen, the upload expires.
        if let Err(error) = packages.abort_upload(&self.mark.id) {
            tracing::warn!(%error, upload = %self.mark.id, "a committed upload was not ended");
        }
        Ok(tally.report(&self.package, made, manifest, packages.now()))
    }

    /// The manifest as it is true here: all contents held, with their sizes and recipes.
    fn checked(&self, manifest: &Manifest) -> Result<Manifest, UploadError> {
        if manifest.lookup(fetch_state::FOLDER.as_bytes()).is_some() {
            return Err(ReservedName.into());
        }
        let library = self.packages.library();
        let mut known: HashMap<Digest, (u64, Option<Digest>)> = HashMap::new();
        let mut missing: HashSet<Digest> = HashSet::new();
        let mut builder = ManifestBuilder::with_capacity(manifest.len());
        for entry in manifest.entries() {
            let Kind::File(file) = entry.kind else {
                builder.push(entry).map_err(PackageError::from)?;
                continue;
            };
            let path = || Shown(entry.path).to_string();
            let (size, recipe) = match known.get(&file.digest) {
                Some(found) => *found,
                None => match held(library, file.digest) {
                    Ok(found) => *known.entry(file.digest).or_insert(found),
                    Err(ReadError::Revoked(digest)) => {
                        return Err(UploadError::Revoked { path: path(), digest });
                    }
                    Err(
                        ReadError::Unknown(_)
                        | ReadError::MissingChunk { .. }
                        | ReadError::Suspect { .. },
                    ) => {
                        missing.insert(file.digest);
                        continue;
                    }
                    Err(error) => return Err(PackageError::from(error).into()),
                },
            };
            if size != file.size {
                return Err(UploadError::WrongSize {
                    path: path(),
                    stated: file.size,
                    found: size,
                });
            }
            let kind = Kind::File(FileEntry { size, digest: file.digest, recipe });
            builder.push(Entry { kind, ..entry }).map_err(PackageError::from)?;
        }
        match missing.is_empty() {
            true => Ok(builder.finish()),
            false => {
                let total = missing.len() as u64;
                let mut missing: Vec<_> = missing.into_iter().collect();
                missing.sort();
                missing.truncate(MAX_NAMED);
                Err(UploadError::Missing { missing, total })
            }
        }
    }
}

/// The size of a content that is held whole, and the digest of its recipe if it has one.
pub(crate) fn held(
    library: &contentlib::Library,
    digest: Digest,
) -> Result<(u64, Option<Digest>), ReadError> {
    let stat = library.stat(digest)?;
    if stat.suspect {
        return Err(ReadError::Unknown(digest.into()));
    }
    match stat.n_chunks {
        0 | 1 => Ok((stat.size, None)),
        _ => Ok((stat.size, Some(library.recipe(digest)?.digest()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_has_one_name() {
        let id = UploadId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "abc", "+0000000000000000000000000000abc", &"A".repeat(32)] {
            assert_eq!(bad.parse::<UploadId>(), Err(BadUploadId), "{bad}");
        }
    }
}

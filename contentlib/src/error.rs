//! Why the library could not do what was asked.
//!
//! One enum per operation; a variant is a case that a caller can act on.

use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::kv::KvError;
use crate::pack::format::BadPack;
use crate::progress::Cancelled;
use crate::recipe::NotARecipe;
use crate::store::objects::ObjectsError;
use std::io;
use std::path::PathBuf;

/// Why a library could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{folder:?} is in use by process {holder}; stop it, or talk to it with --url")]
    Locked {
        /// The library's folder.
        folder: PathBuf,
        /// Who holds the lock, as far as known.
        holder: String,
    },
    /// A newer depot wrote it.
    #[error("a newer depot wrote {what} (format {found}, this one reads up to {known})")]
    NewerFormat {
        /// Which part.
        what: String,
        /// Its format version.
        found: u64,
        /// The newest known here.
        known: u64,
    },
    /// There are packs but no index.
    #[error("{folder:?} holds packs but no index; run `depot library rebuild-index`")]
    IndexMissing {
        /// The library's folder.
        folder: PathBuf,
    },
    /// The index cannot be read.
    #[error("the index cannot be opened; if this stays, run `depot library rebuild-index`")]
    Index(#[source] KvError),
    /// The disk of the index has no room left, and opening takes some.
    #[error(
        "the disk is full, so the library cannot be opened; nothing that was stored is lost: free \
         space on the volume of the data folder"
    )]
    Full,
    /// A pack is not what the index says.
    #[error("pack {pack} cannot be read")]
    Pack {
        /// Which.
        pack: PackId,
        /// What is wrong with it.
        source: BadPack,
    },
    /// The disk cannot give back the end of the log.
    #[error(
        "pack {pack} cannot be read where its newest records are: copy it to a good disk, or run \
         `depot library rebuild-index` to do without them"
    )]
    BadSector {
        /// Which pack.
        pack: PackId,
        /// What the system said.
        source: io::Error,
    },
    /// A volume is not as the list of volumes has it.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The object store that holds it cannot be used.
    #[error(transparent)]
    Objects(Box<ObjectsError>),
    /// Its index had to be made anew, and that failed.
    #[error("the index cannot be made from the packs on the object store")]
    Rebuild(#[source] Box<MaintainError>),
    /// The file system failed.
    #[error("cannot open the library in {folder:?}")]
    Io {
        /// The library's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<ObjectsError> for OpenError {
    fn from(error: ObjectsError) -> Self {
        Self::Objects(Box::new(error))
    }
}

impl From<MaintainError> for OpenError {
    fn from(error: MaintainError) -> Self {
        match error {
            MaintainError::Open(error) => error,
            error => Self::Rebuild(Box::new(error)),
        }
    }
}

impl From<KvError> for OpenError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Self::Full,
            error => Self::Index(error),
        }
    }
}

impl OpenError {
    /// Whether the library may be opened once its index is made anew from its packs
    /// ([`crate::Library::rebuild_index`]): at the cost, perhaps, of what was added last.
    pub fn is_of_the_index(&self) -> bool {
        matches!(self, Self::IndexMissing { .. } | Self::Index(_) | Self::BadSector { .. })
    }

    /// A pack whose header states version `found`.
    pub(crate) fn newer_pack(pack: PackId, found: u16) -> Self {
        let known = crate::pack::format::VERSION.into();
        Self::NewerFormat { what: format!("pack {pack}"), found: found.into(), known }
    }
}

/// A pack that a report names, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PackProblem {
    /// Which pack.
    pub pack: PackId,
    /// What is wrong with it.
    pub error: String,
}

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is not held. Fetch it from an upstream and retry.
    #[error("{0} is not in this library")]
    Unknown(Name),
    /// A recipe names a chunk that is not held.
    #[error("chunk {chunk} of {content} is not in this library; run `depot library repair`")]
    MissingChunk {
        /// The content.
        content: Digest,
        /// The chunk.
        chunk: ChunkId,
    },
    /// The bytes do not match their name, or did not lately. They are never served; any holder
    /// heals them.
    #[error("{name} is damaged in pack {pack}; run `depot library repair --from URL`")]
    Suspect {
        /// The damaged chunk or recipe.
        name: Digest,
        /// Where it lies.
        pack: PackId,
    },
    /// An administrator revoked it.
    #[error("{0} was revoked")]
    Revoked(Digest),
    /// The store failed; a later try may succeed.
    #[error("cannot read pack {pack}")]
    Store {
        /// Which pack.
        pack: PackId,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error(transparent)]
    Index(#[from] KvError),
}

/// Why content could not be added. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The source could not be read.
    #[error("cannot read the source")]
    Source(#[source] io::Error),
    /// The source changed each time it was read.
    #[error("the source changes while it is read; try again when nothing writes to it")]
    Moved,
    /// The bytes are not what was stated.
    #[error("the bytes are {found}, not {stated} as stated")]
    WrongDigest {
        /// What the caller said.
        stated: Name,
        /// What the bytes are.
        found: Name,
    },
    /// The recipe names chunks that are not held; send them and retry.
    #[error("{} chunks are not held; send them first", .0.len())]
    MissingChunks(Vec<ChunkId>),
    /// The recipe cannot be one.
    #[error(transparent)]
    Recipe(#[from] NotARecipe),
    /// The frame cannot be decoded.
    #[error("the frame is damaged: {0}")]
    Frame(#[from] crate::block::NotABlock),
    /// An administrator revoked it.
    #[error("{0} was revoked and is not taken in again")]
    Revoked(Digest),
    /// Another writer claimed the same chunk and failed; retry.
    #[error("another writer of the same bytes failed; try again")]
    Interrupted,
    /// No active volume has room.
    #[error(
        "{}: {free} bytes are free and {reserve} are kept in reserve",
        if *.volumes == 1 { "the volume is full".into() } else { format!("all {volumes} volumes are full") }
    )]
    Full {
        /// Bytes free, on all active volumes together.
        free: u64,
        /// Bytes that must stay free for garbage collection, in all.
        reserve: u64,
        /// How many active volumes there are.
        volumes: usize,
    },
    /// The store failed.
    #[error("cannot write a pack")]
    Store(#[source] io::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] KvError),
    /// A chunk that was held could not be read back.
    #[error("cannot read back what was sent before")]
    Read(#[source] Box<ReadError>),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Why a commit was not made. None of its changes took effect: refs are as they were, for everybody
/// who asks this library.
///
/// After [`CommitError::Store`] and [`CommitError::Index`] the commit's record may be on the disk
/// all the same. If the process dies or the power goes before another commit succeeds, the next
/// open may find it, and then all of its changes are made. The next commit that succeeds overrules
/// it for good. Whoever cannot have that reads the refs again after an open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A ref was not as expected.
    #[error("{name:?} was changed by somebody else; read it again and retry")]
    Conflict {
        /// Its name.
        name: String,
    },
    /// A ref's name or value is too long, or named twice.
    #[error("ref {name:?} is too long or named twice in one commit")]
    BadRef {
        /// Its name.
        name: String,
    },
    /// The root of a ref is not held.
    #[error("{0} is not held, so nothing can refer to it")]
    MissingRoot(Digest),
    /// A chunk that the session relied on was never written.
    #[error("another writer of the same bytes failed; try again")]
    Interrupted,
    /// The store failed. What was added and not yet committed is lost; add it again.
    #[error("cannot write a pack")]
    Store(#[source] io::Error),
    /// The index failed. What was added is in the packs and waits; the same commit may be tried
    /// again.
    #[error(transparent)]
    Index(#[from] KvError),
}

/// Why maintenance ended early. What it did so far is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintainError {
    /// Another run is at work.
    #[error("another run is at work")]
    Busy,
    /// What a root names could not be found out, so nothing may be collected.
    #[error("cannot tell what {name:?} holds, so nothing is collected")]
    Links {
        /// The ref.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The other holder could not be asked.
    #[error("cannot fetch good bytes")]
    Holder {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Content could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// New records could not be written.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store failed.
    #[error("cannot work on pack {pack}")]
    Store {
        /// Which pack.
        pack: PackId,
        /// What the system said.
        source: io::Error,
    },
    /// The library could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The volume cannot be changed so.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] KvError),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl MaintainError {
    /// What the index said, if it is the index that failed.
    pub fn of_the_index(&self) -> Option<&KvError> {
        match self {
            Self::Index(error)
            | Self::Read(ReadError::Index(error))
            | Self::Add(AddError::Index(error))
            | Self::Commit(CommitError::Index(error)) => Some(error),
            _ => None,
        }
    }
}

/// Why a volume could not be opened or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The volume's folder is not there, or is not the volume's.
    #[error(
        "volume {name} is not at {path:?}: mount its disk there, or give up what it holds with \
         `depot --data DIR library volume remove {name} --lost`"
    )]
    Missing {
        /// Which volume.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// Another volume's disk is where this one's should be.
    #[error(
        "{path:?} is another volume than {name}: mount the right disk there, or give up what \
         {name} holds with `depot --data DIR library volume remove {name} --lost`"
    )]
    WrongVolume {
        /// Which volume is wanted.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A newer depot wrote the file.
    #[error("a newer depot wrote {file:?} (version {found}, this one reads up to {known})")]
    Newer {
        /// The list or a marker.
        file: PathBuf,
        /// Its version.
        found: u64,
        /// The newest known here.
        known: u64,
    },
    /// The file is not what depot writes.
    #[error("{file:?} is unreadable, mend it: {detail}")]
    Unreadable {
        /// The list or a marker.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No volume is called that.
    #[error("there is no volume {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It must be said where the volume is from the root on.
    #[error("{path:?} is no absolute path of at most 2048 bytes of UTF-8")]
    NotAbsolute {
        /// What was given.
        path: PathBuf,
    },
    /// There is no such folder.
    #[error("{path:?} is no folder: make it, or mount its disk")]
    NotAFolder {
        /// What was given.
        path: PathBuf,
    },
    /// The folder holds something.
    #[error("{path:?} is not empty: choose a folder of its own for the volume")]
    NotEmpty {
        /// What was given.
        path: PathBuf,
    },
    /// The folder is a volume of another library.
    #[error("{path:?} belongs to another library: choose another folder")]
    OfAnotherLibrary {
        /// What was given.
        path: PathBuf,
    },
    /// The folder is one that the library uses, or lies in one, or holds one.
    #[error("{path:?} overlaps with the folder of volume {name}: choose another")]
    InUse {
        /// What was given.
        path: PathBuf,
        /// The volume that is there.
        name: String,
    },
    /// Another volume is called that.
    #[error("there is a volume {name} already")]
    NameTaken {
        /// What was given.
        name: String,
    },
    /// The name cannot be one.
    #[error(
        "{name:?} is no name of a volume: 1 to 64 lower-case letters, digits and `._-`, the first \
         a letter or digit"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// The reserve is larger than any disk.
    #[error("a reserve has at most {most} bytes")]
    Reserve {
        /// The largest.
        most: u64,
    },
    /// The library has as many volumes as it may.
    #[error("a library has at most {most} volumes beside its home")]
    TooMany {
        /// So many.
        most: usize,
    },
    /// No other volume could take the packs.
    #[error("no volume but {name} takes new packs: add or resume another first")]
    LastActive {
        /// The volume.
        name: String,
    },
    /// The volume holds packs.
    #[error("volume {name} holds {packs} packs: drain it first")]
    HoldsPacks {
        /// The volume.
        name: String,
        /// How many.
        packs: usize,
    },
    /// Somebody wants the volume used again.
    #[error("volume {name} was resumed while it was drained; what was moved stays where it is")]
    Resumed {
        /// The volume.
        name: String,
    },
    /// The home volume cannot be removed.
    #[error("the home volume is part of the library and stays; it can be drained")]
    Home,
    /// A volume that is there cannot be given up as lost.
    #[error(
        "volume {name} is there, at {path:?}: drain it and remove it without --lost, or unmount its \
         disk if that fails"
    )]
    NotLost {
        /// The volume.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// A library on an object store is there and nowhere else.
    #[error("the library is on an object store, at {url}, and has no volumes beside it")]
    OnObjectStore {
        /// Where it is.
        url: String,
    },
    /// The file system failed.
    #[error("cannot use {path:?}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

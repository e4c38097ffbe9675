//! Why the library could not do what was asked.
//!
//! One enum per operation; a variant is a case that a caller can act on.

use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::kv::KvError;
use crate::pack::format::BadPack;
use crate::progress::Cancelled;
use crate::recipe::NotARecipe;
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
    Index(#[from] KvError),
    /// A pack is not what the index says.
    #[error("pack {pack} cannot be read")]
    Pack {
        /// Which.
        pack: PackId,
        /// What is wrong with it.
        source: BadPack,
    },
    /// The file system failed.
    #[error("cannot open the library in {folder:?}")]
    Io {
        /// The library's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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
    /// The volume has no room.
    #[error("the volume is full: {free} bytes are free and {reserve} are kept in reserve")]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free for garbage collection.
        reserve: u64,
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

/// Why a commit was not made. None of its changes took effect.
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
    /// The index failed.
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
    /// The index failed.
    #[error(transparent)]
    Index(#[from] KvError),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

//! Reading a local folder for a push: every file cut into chunks, each chunk hashed and handed on.
//!
//! Always true: a chunk is handed on once, however often it comes; no more than a few dozen chunks
//! wait to be sent, whatever the size of the folder; a file that changes while it is read is read
//! again, and what it was in between never becomes part of a version.

use bytes::Bytes;
use contentlib::{
    AddError, Added, ChunkId, Digest, Progress, Recheck, Recipe, Source,
    chunker::{Chunker, CutError},
};
use packager::scan::{Contents, SourceFile};
use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};
use tokio::sync::mpsc::Sender;

/// How often a file that changes is read before the scan has another look at it.
const TRIES: usize = 3;

/// A chunk on its way to the server.
pub struct Piece {
    /// Its name.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Takes files in by cutting them and handing their chunks to a sender.
pub struct Cutter {
    to: Sender<Piece>,
    handed_on: Mutex<HashSet<ChunkId>>,
    recipes: Mutex<HashMap<Digest, Recipe>>,
}

impl Cutter {
    /// A cutter whose chunks go to `to`.
    pub fn new(to: Sender<Piece>) -> Self {
        Self { to, handed_on: Mutex::default(), recipes: Mutex::default() }
    }

    /// How each content that was read is put together from chunks.
    pub fn into_recipes(self) -> HashMap<Digest, Recipe> {
        self.recipes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, file: &mut SourceFile<'_>, progress: &Progress) -> Result<Added, AddError> {
        for _ in 0..TRIES {
            progress.check()?;
            let mut reader = file.open().map_err(AddError::Source)?;
            let (digest, recipe) = self.cut(&mut reader, progress)?;
            let size = recipe.size();
            if let Recheck::Moved = file.finish(reader, size).map_err(AddError::Source)? {
                continue;
            }
            let n_chunks = recipe.len() as u64;
            let added = Added {
                digest,
                size,
                n_chunks,
                new_bytes: 0,
                recipe: (n_chunks > 1).then(|| recipe.digest()),
                sha256: None,
                sha1: None,
            };
            held(&self.recipes).entry(digest).or_insert(recipe);
            progress.files.fetch_add(1, Relaxed);
            return Ok(added);
        }
        Err(AddError::Moved)
    }

    fn cut(
        &self,
        reader: &mut impl Read,
        progress: &Progress,
    ) -> Result<(Digest, Recipe), AddError> {
        let mut whole = blake3::Hasher::new();
        let mut chunks = Vec::new();
        let cut = Chunker::default().each(reader, |chunk| {
            progress.check()?;
            let id = ChunkId(Digest::of(chunk));
            whole.update(chunk);
            chunks.push((id, chunk.len() as u32));
            self.hand_on(id, chunk)?;
            progress.bytes.fetch_add(chunk.len() as u64, Relaxed);
            Ok(())
        });
        match cut {
            Ok(()) => {}
            Err(CutError::Read(error)) => return Err(AddError::Source(error)),
            Err(CutError::Take(error)) => return Err(error),
        }
        let digest = match chunks.as_slice() {
            [(id, _)] => id.0,
            _ => Digest::from_bytes(*whole.finalize().as_bytes()),
        };
        Ok((digest, Recipe::new(chunks)?))
    }

    fn hand_on(&self, id: ChunkId, chunk: &[u8]) -> Result<(), AddError> {
        if !held(&self.handed_on).insert(id) {
            return Ok(());
        }
        let piece = Piece { id, bytes: Bytes::copy_from_slice(chunk) };
        // The sender is gone when it has failed; it knows why.
        self.to.blocking_send(piece).map_err(|_| AddError::Interrupted)
    }
}

impl Contents for Cutter {
    fn add(
        &self,
        files: &mut (dyn Iterator<Item = SourceFile<'_>> + Send),
        progress: &Progress,
        done: &mut (dyn FnMut(SourceFile<'_>, Result<Added, AddError>) + Send),
    ) -> Result<(), AddError> {
        let n_threads = std::thread::available_parallelism().map_or(2, usize::from);
        let files = Mutex::new(files);
        let done = Mutex::new(done);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|| {
                    while held(&failed).is_none() {
                        let Some(mut file) = held(&files).next() else { return };
                        match self.take(&mut file, progress) {
                            Err(error @ (AddError::Interrupted | AddError::Cancelled(_))) => {
                                held(&failed).get_or_insert(error);
                            }
                            taken => (held(&done))(file, taken),
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Locks; what the lock guards is whole after every statement, so a panic elsewhere spoils nothing.
fn held<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

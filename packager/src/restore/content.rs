//! A content's bytes into a file, each checked against the manifest.

use super::LARGE;
use crate::manifest::FileEntry;
use contentlib::{ChunkId, ContentReader, CopyError, Digest, Library, ReadError};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one thread copies of a large file at a time.
const PIECE: u64 = 8 << 20;

pub(super) enum WriteError {
    Copy(CopyError),
    /// The library's bytes are not those of the manifest.
    Other,
}

impl<E: Into<CopyError>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self::Copy(error.into())
    }
}

/// Writes the content of `entry` to `file`, which is empty.
pub(super) fn write(
    library: &Library,
    entry: &FileEntry,
    file: &File,
    n_threads: usize,
) -> Result<(), WriteError> {
    if entry.digest == Digest::EMPTY {
        return if entry.size == 0 { Ok(()) } else { Err(WriteError::Other) };
    }
    if entry.recipe.is_none() {
        match library.read_chunk(ChunkId(entry.digest)) {
            // One chunk, whose digest is the content's: the library checks it.
            Ok(bytes) if bytes.len() as u64 == entry.size => {
                return (&mut &*file).write_all(&bytes).map_err(|e| CopyError::Write(e).into());
            }
            Ok(_) => return Err(WriteError::Other),
            // Somebody may have sent the same bytes cut in more.
            Err(ReadError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let reader = library.open_content(entry.digest)?;
    if reader.size() != entry.size {
        return Err(WriteError::Other);
    }
    if Some(reader.recipe().digest()) == entry.recipe {
        // The manifest names the recipe, the recipe the chunks, and the library checks those.
        if entry.size >= LARGE {
            return copy_pieces(&reader, file, n_threads);
        }
        reader.copy_to(0..entry.size, &mut At { file, offset: 0 })?;
        return Ok(());
    }
    // The same bytes, cut otherwise: they are hashed as a whole.
    let mut hashed = Hashed { file: At { file, offset: 0 }, hasher: blake3::Hasher::new() };
    reader.copy_to(0..entry.size, &mut hashed)?;
    match hashed.hasher.finalize().as_bytes() == entry.digest.as_bytes() {
        true => Ok(()),
        false => Err(WriteError::Other),
    }
}

/// Copies a large content on all threads.
fn copy_pieces(reader: &ContentReader, file: &File, n_threads: usize) -> Result<(), WriteError> {
    let size = reader.size();
    let next = AtomicU64::new(0);
    let work = || -> Result<(), CopyError> {
        loop {
            let start = next.fetch_add(PIECE, Relaxed);
            if start >= size {
                return Ok(());
            }
            let end = (start + PIECE).min(size);
            let copied = reader.copy_to(start..end, &mut At { file, offset: start });
            if let Err(error) = copied {
                // The others stop after their piece.
                next.store(size, Relaxed);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            // A panic goes on in this thread.
            let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(ended);
        }
        Ok(result?)
    })
}

/// A place in a file that moves on as it is written.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write_at(bytes, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashed<'a> {
    file: At<'a>,
    hasher: blake3::Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Moving one pack from one volume to another.
//!
//! Verbatim, in bounded pieces: damaged packs too, since a pack's damage is for `verify` and
//! `repair`. The copy is read back from its disk and compared before the original goes. A pack that
//! its old disk cannot read stays there.

use super::{Volume, Volumes, if_there};
use crate::digest::{Digest, PackId};
use crate::progress::{Cancelled, Progress};
use crate::store::{PackFile, PackStore};
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::SeqCst;

/// Bytes in memory at once.
const PIECE: u64 = 1 << 20;

/// Why a pack was not moved. It is where it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// The old place failed.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The new place failed.
    #[error("cannot be written to its new volume")]
    Write(#[source] io::Error),
    /// A volume has another pack of that name.
    #[error("volume {0:?} has other bytes under its name")]
    Differs(String),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Volumes {
    /// Moves pack `id`. Nothing happens if it is not on `from` any more. If another volume has the
    /// same bytes already, because a kill ended an earlier move, the original goes; with no `to`,
    /// that is all that is done.
    pub(crate) fn relocate(
        &self,
        id: PackId,
        from: &Volume,
        to: Option<&Volume>,
        progress: &Progress,
    ) -> Result<(), MoveError> {
        let moving = self.moving.lock();
        let Some(original) = if_there(from.store.open(id)).map_err(MoveError::Read)? else {
            return Ok(());
        };
        let elsewhere = self.all().into_iter().filter(|other| other.id != from.id);
        let mut is_copied = false;
        for other in elsewhere {
            let copy = if_there(other.store.open(id)).map_err(MoveError::Write)?;
            let Some(copy) = copy else { continue };
            let wanted = digest(&*original, progress)?.map_err(MoveError::Read)?;
            if digest(&*copy, progress)?.map_err(MoveError::Write)? != wanted {
                return Err(MoveError::Differs(other.name.clone()));
            }
            progress.add(&progress.bytes, original.len().map_err(MoveError::Read)?);
            is_copied = true;
        }
        match to {
            _ if is_copied => {}
            None => return Ok(()),
            Some(to) => copy_pack(id, &*original, &*to.store, progress)?,
        }
        self.moves.fetch_add(1, SeqCst);
        from.store.delete(id).map_err(MoveError::Write)?;
        // Garbage collection may be waiting, and the next pack is about to be moved.
        parking_lot::MutexGuard::unlock_fair(moving);
        Ok(())
    }
}

fn copy_pack(
    id: PackId,
    original: &dyn PackFile,
    to: &dyn PackStore,
    progress: &Progress,
) -> Result<(), MoveError> {
    let mut failed = None;
    let copied = to.create_whole(id, &mut |copy| {
        // What went wrong on this side of the copy is kept apart from what the new volume says.
        let mut give_up = |error| {
            failed = Some(error);
            io::Error::from(io::ErrorKind::Interrupted)
        };
        let mut hasher = blake3::Hasher::new();
        let end = original.len().map_err(|error| give_up(MoveError::Read(error)))?;
        let mut at = 0;
        while at < end {
            progress.check().map_err(|cancelled| give_up(cancelled.into()))?;
            let next = (at + PIECE).min(end);
            let piece = original.read_at(at..next);
            let piece = piece.map_err(|error| give_up(MoveError::Read(error)))?;
            hasher.update(&piece);
            copy.write_at(at, &[IoSlice::new(&piece)])?;
            progress.add(&progress.bytes, next - at);
            at = next;
        }
        copy.sync()?;
        copy.forget_cached();
        let found = digest(copy, progress).map_err(|cancelled| give_up(cancelled.into()))??;
        if found != Digest::from_bytes(*hasher.finalize().as_bytes()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the copy reads back wrong"));
        }
        Ok(())
    });
    match (copied, failed) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(MoveError::Write(error)),
    }
}

/// The digest of a whole pack.
fn digest(pack: &dyn PackFile, progress: &Progress) -> Result<io::Result<Digest>, Cancelled> {
    let mut hasher = blake3::Hasher::new();
    let end = match pack.len() {
        Ok(end) => end,
        Err(error) => return Ok(Err(error)),
    };
    let mut at = 0;
    while at < end {
        progress.check()?;
        let next = (at + PIECE).min(end);
        match pack.read_at(at..next) {
            Ok(piece) => hasher.update(&piece),
            Err(error) => return Ok(Err(error)),
        };
        at = next;
    }
    Ok(Ok(Digest::from_bytes(*hasher.finalize().as_bytes())))
}

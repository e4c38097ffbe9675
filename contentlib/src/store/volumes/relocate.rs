//! Moving one pack from one volume to another.
//!
//! Verbatim, in bounded pieces: damaged packs too, since a pack's damage is for `verify` and
//! `repair`. The copy is read back from its disk and compared before the original goes. A pack that
//! its old disk cannot read stays there.

use super::{Volume, Volumes, if_there};
use crate::digest::{Digest, PackId};
use crate::progress::{Cancelled, Progress};
use crate::store::{PackFile, PackStore};
use parking_lot::MutexGuard;
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
    /// No other volume has room.
    #[error("no other volume has room")]
    NoRoom,
    /// A volume has another pack of that name.
    #[error("volume {0:?} has other bytes under its name")]
    Differs(String),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Volumes {
    /// Moves pack `id` off `from`, to the volume with the most room. Nothing happens if it is not
    /// there any more. If another volume has the same bytes already, because a kill ended an
    /// earlier move, the original goes at once.
    pub(crate) fn relocate(
        &self,
        id: PackId,
        from: &Volume,
        progress: &Progress,
    ) -> Result<(), MoveError> {
        let moving = self.moving.lock();
        let Some(original) = if_there(from.store.open(id)).map_err(MoveError::Read)? else {
            return Ok(());
        };
        if !self.is_elsewhere(id, &*original, from, progress)? {
            let len = original.len().map_err(MoveError::Read)?;
            // Chosen while nobody can remove it.
            let to = self.with_room(len).map_err(MoveError::Write)?;
            let to = to.filter(|to| to.id != from.id).ok_or(MoveError::NoRoom)?;
            copy_pack(id, &*original, &*to.store, progress)?;
        }
        self.let_go(id, from)?;
        // Garbage collection may be waiting, and the next pack is about to be moved.
        MutexGuard::unlock_fair(moving);
        Ok(())
    }

    /// Deletes pack `id` from `from` if another volume has the same bytes. Whether it has.
    pub(crate) fn drop_copy(
        &self,
        id: PackId,
        from: &Volume,
        progress: &Progress,
    ) -> Result<bool, MoveError> {
        let _moving = self.moving.lock();
        let copy = if_there(from.store.open(id)).map_err(MoveError::Read)?;
        let Some(copy) = copy else { return Ok(false) };
        let is_elsewhere = self.is_elsewhere(id, &*copy, from, progress)?;
        if is_elsewhere {
            self.let_go(id, from)?;
        }
        Ok(is_elsewhere)
    }

    /// Whether another volume than `from` has the bytes of `pack` under its name.
    fn is_elsewhere(
        &self,
        id: PackId,
        pack: &dyn PackFile,
        from: &Volume,
        progress: &Progress,
    ) -> Result<bool, MoveError> {
        let mut wanted = None;
        for other in self.all().into_iter().filter(|other| other.id != from.id) {
            let found = if_there(other.store.open(id)).map_err(MoveError::Write)?;
            let Some(found) = found else { continue };
            let wanted = match wanted {
                Some(digest) => digest,
                None => *wanted.insert(digest(pack, progress)?.map_err(MoveError::Read)?),
            };
            if digest(&*found, progress)?.map_err(MoveError::Write)? != wanted {
                return Err(MoveError::Differs(other.name.clone()));
            }
        }
        Ok(wanted.is_some())
    }

    /// Deletes a pack that lies on another volume too; who searches for it meanwhile begins again.
    fn let_go(&self, id: PackId, from: &Volume) -> Result<(), MoveError> {
        self.moves.fetch_add(1, SeqCst);
        from.store.delete(id).map_err(MoveError::Write)
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

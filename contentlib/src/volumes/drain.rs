//! Draining a volume: its packs move to the others, one by one, while the library is used.
//!
//! That the volume is being drained is durable first; then its open pack is ended, and from there
//! on nothing is written to it. A drain that was cancelled, failed or killed goes on when it is
//! asked for again. Garbage collection waits for the pack that is being moved, commits and readers
//! for nothing.

use crate::commit::Relied;
use crate::digest::PackId;
use crate::error::{MaintainError, PackProblem, VolumeError};
use crate::library::{Inner, Library};
use crate::progress::Progress;
use crate::store::volumes::{MoveError, Volume, VolumeState};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;

/// What a drain did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DrainReport {
    /// The volume.
    pub volume: String,
    /// Packs that were moved.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that are still there, with the reason. Empty if the volume can be removed.
    pub left: Vec<PackProblem>,
}

impl Library {
    /// Moves all packs of a volume to the others; it gets no new ones from the beginning on.
    pub fn drain_volume(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<DrainReport, MaintainError> {
        let inner = &self.inner;
        let _one = inner.draining.try_lock().ok_or(MaintainError::Busy)?;
        let volume = inner.store.find(name)?;
        inner.store.set_state(&volume, VolumeState::Draining)?;
        inner.leave(&volume)?;

        let mut report = DrainReport { volume: volume.name.clone(), ..DrainReport::default() };
        let failed = |source| VolumeError::Io { path: volume.path.clone(), source };
        let mut packs = Vec::new();
        let mut total = 0;
        for id in volume.store.list().map_err(failed)? {
            match volume.store.open(id).and_then(|file| file.len()) {
                Ok(len) => {
                    packs.push((id, len));
                    total += len;
                }
                // Garbage collection deleted it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let error = format!("cannot be opened: {error}");
                    report.left.push(PackProblem { pack: id, error });
                }
            }
        }
        // The oldest first, as they lie together on the disk.
        packs.sort();
        progress.total_bytes.store(total, Relaxed);
        progress.total_files.store(packs.len() as u64, Relaxed);
        let numbers: HashMap<PackId, u32> =
            inner.index.packs()?.into_iter().map(|(seq, info)| (info.id, seq)).collect();

        for (id, len) in packs {
            progress.check()?;
            if volume.state() == VolumeState::Active {
                return Err(VolumeError::Resumed { name: volume.name.clone() }.into());
            }
            match inner.store.relocate(id, &volume, progress) {
                Ok(()) => {
                    numbers.get(&id).into_iter().for_each(|seq| inner.packs.forget(*seq));
                    inner.changed();
                    report.packs += 1;
                    report.bytes += len;
                    progress.add(&progress.files, 1);
                }
                Err(MoveError::Cancelled(cancelled)) => return Err(cancelled.into()),
                Err(MoveError::NoRoom) => return Err(inner.full()?.into()),
                Err(MoveError::Write(source)) => {
                    return Err(MaintainError::Store { pack: id, source });
                }
                Err(error @ (MoveError::Read(_) | MoveError::Differs(_))) => {
                    tracing::error!(pack = %id, volume = %volume.name, %error, "a pack stays");
                    report.left.push(PackProblem { pack: id, error: error.to_string() });
                }
            }
        }
        Ok(report)
    }

    /// Deletes the second copies of packs that a kill left on two volumes. Returns their bytes.
    pub(crate) fn drop_second_copies(&self, progress: &Progress) -> Result<u64, MaintainError> {
        let store = &self.inner.store;
        let mut volumes = store.all();
        if volumes.len() == 1 {
            return Ok(0);
        }
        volumes.sort_by_key(|volume| volume.state() == VolumeState::Draining);
        let mut seen: HashSet<PackId> = HashSet::new();
        let mut freed = 0;
        for volume in volumes {
            let failed = |source| VolumeError::Io { path: volume.path.clone(), source };
            for id in volume.store.list().map_err(failed)? {
                if seen.insert(id) {
                    continue;
                }
                let bytes = volume.store.open(id).and_then(|file| file.len()).unwrap_or(0);
                match store.drop_copy(id, &volume, progress) {
                    Ok(true) => freed += bytes,
                    Ok(false) => {}
                    Err(MoveError::Cancelled(cancelled)) => return Err(cancelled.into()),
                    Err(error) => {
                        let volume = &volume.name;
                        tracing::error!(pack = %id, %volume, %error, "a pack's second copy stays");
                    }
                }
            }
        }
        Ok(freed)
    }
}

impl Inner {
    /// Ends the open pack if it lies on `volume`. Afterwards nothing is written there.
    fn leave(&self, volume: &Volume) -> Result<(), MaintainError> {
        self.writer.lock().leave(volume);
        // A disk that is drained because it fails may fail this once: what was not yet committed
        // is lost then, as its sessions are told, and the pack is given up.
        let done = self.commit(Vec::new(), Relied::default());
        done.or_else(|_| self.commit(Vec::new(), Relied::default()))?;
        Ok(())
    }
}

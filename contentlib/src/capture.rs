//! Captures: refs and packs as they are at one moment, to be copied away; and what was copied, put back.
//!
//! A library is its packs, and packs never change before their end. So a list of packs, each with how
//! much of it counts, is the whole library, and a copy of those bytes opens as the library was. While a
//! capture is held no pack is deleted; everything else goes on.

use crate::digest::PackId;
use crate::error::{MaintainError, PackProblem};
use crate::index::PackState;
use crate::kv::Batch;
use crate::library::{Library, Locked, Options, lock_folder};
use crate::progress::Progress;
use crate::refs::{Outcomes, Ref};
use crate::store::PackStore;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, IoSlice, Read};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

/// Bytes of a pack that are copied at once.
const STEP: u64 = 1 << 20;
/// Refs that are put back in one batch of the index.
const REFS_AT_ONCE: usize = 1024;

/// How many captures are held. Whoever deletes packs holds the lock meanwhile.
#[derive(Default)]
pub(crate) struct Pins(Mutex<u64>);

impl Pins {
    /// Leave to delete packs, for as long as it is held; none while there is a capture.
    pub fn may_delete(&self) -> Option<MutexGuard<'_, u64>> {
        Some(self.0.lock()).filter(|held| **held == 0)
    }
}

/// A pack of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPack {
    /// Its name.
    pub id: PackId,
    /// How many of its bytes count.
    pub len: u64,
}

/// Refs and packs of a library as they were at one moment.
pub struct Capture {
    library: Library,
    /// All refs, by name.
    pub refs: Vec<(String, Ref)>,
    /// All packs, by id.
    pub packs: Vec<CapturedPack>,
    /// Packs that should be there and cannot be opened.
    pub bad_packs: Vec<PackProblem>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        *self.library.inner.pins.0.lock() -= 1;
    }
}

impl Library {
    /// The library's own random number: all of its packs bear it.
    pub fn id(&self) -> u128 {
        self.inner.library
    }

    /// Refs and packs as they are. `meanwhile` is called in the same moment, as far as the library goes:
    /// no commit comes between the two. It must not commit, and should not take long.
    pub fn capture<T>(&self, meanwhile: impl FnOnce() -> T) -> Result<(Capture, T), MaintainError> {
        let inner = &self.inner;
        // So that what there is lies in packs that change no more.
        inner.seal_open_pack()?;
        *inner.pins.0.lock() += 1;
        let library = self.clone();
        let mut capture =
            Capture { library, refs: Vec::new(), packs: Vec::new(), bad_packs: Vec::new() };
        let (listed, said) = {
            // Packs and refs in the index change under this lock alone, in one batch.
            let _leader = inner.commits.leader.lock();
            capture.refs = inner.index.references("")?;
            (inner.index.packs()?, meanwhile())
        };
        for (_, info) in listed {
            let len = match info.state {
                PackState::Condemned => continue,
                PackState::Open | PackState::Torn => Ok(info.len),
                // With its footer.
                PackState::Sealed => inner.store.open(info.id).and_then(|file| file.len()),
            };
            match len {
                Ok(len) => capture.packs.push(CapturedPack { id: info.id, len }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let error = error.to_string();
                    capture.bad_packs.push(PackProblem { pack: info.id, error });
                }
                Err(source) => return Err(MaintainError::Store { pack: info.id, source }),
            }
        }
        capture.packs.sort_by_key(|pack| pack.id);
        Ok((capture, said))
    }
}

impl Capture {
    /// Gives `take` the bytes of a pack, front to back.
    pub fn read(
        &self,
        pack: CapturedPack,
        progress: &Progress,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), MaintainError> {
        let fail = |source| MaintainError::Store { pack: pack.id, source };
        let file = self.library.inner.store.open(pack.id).map_err(fail)?;
        let mut at = 0;
        while at < pack.len {
            progress.check()?;
            let next = pack.len.min(at + STEP);
            let bytes = file.read_at(at..next).map_err(fail)?;
            take(&bytes).map_err(fail)?;
            progress.add(&progress.bytes, next - at);
            at = next;
        }
        Ok(())
    }
}

/// Where the bytes of packs come from that are put back. The reader fails, at its end at the latest, if they are
/// not what they should be.
pub type PackSource<'a> = dyn FnMut(CapturedPack) -> io::Result<Box<dyn Read>> + 'a;

impl Library {
    /// Puts packs into the library of `folder`, which nobody has open: on its volumes, or on the object
    /// store that `options` name. Each appears whole or not at all; those that are there already stay as
    /// they are. The index is made anew. Returns how many were put there.
    ///
    /// # Errors
    /// Also if there are packs in it that are not among these.
    pub fn restore_packs(
        folder: &Path,
        options: Options,
        packs: &[CapturedPack],
        source: &mut PackSource<'_>,
        progress: &Progress,
    ) -> Result<u64, MaintainError> {
        let mut n_put = 0;
        {
            let Locked { lock: _lock, store, objects: _objects } = lock_folder(folder, &options)?;
            let fail = |pack| move |source| MaintainError::Store { pack, source };
            let there = store.list().map_err(fail(PackId(0)))?;
            if let Some(other) =
                there.iter().find(|id| packs.binary_search_by_key(*id, |pack| pack.id).is_err())
            {
                let error = "is of another library, or was stored since: name an empty one";
                let source = io::Error::new(io::ErrorKind::AlreadyExists, error);
                return Err(MaintainError::Store { pack: *other, source });
            }
            for pack in packs.iter().filter(|pack| !there.contains(&pack.id)) {
                progress.check()?;
                let mut bytes = source(*pack).map_err(fail(pack.id))?;
                let fill = &mut |file: &dyn crate::store::PackFile| {
                    let (mut at, mut step) = (0, vec![0; STEP as usize]);
                    loop {
                        let n = bytes.read(&mut step)?;
                        if n == 0 {
                            return Ok(());
                        }
                        let read = step.get(..n).unwrap_or_default();
                        file.write_at(at, &[IoSlice::new(read)])?;
                        at += n as u64;
                        progress.add(&progress.bytes, n as u64);
                        progress.check().map_err(io::Error::other)?;
                    }
                };
                let stored = store.create_whole(pack.id, fill);
                progress.check()?;
                stored.map_err(fail(pack.id))?;
                n_put += 1;
            }
        }
        Self::rebuild_index(folder, options, progress)?;
        Ok(n_put)
    }

    /// Sets refs of which there are none by the same name, whether or not what they name is held: what is not
    /// is then known as missing, and [`Library::repair`] brings it. Returns how many were set.
    pub fn restore_refs(&self, refs: Vec<(String, Ref)>) -> Result<u64, MaintainError> {
        let inner = &self.inner;
        let mut n_set = 0;
        for some in refs.chunks(REFS_AT_ONCE) {
            let _leader = inner.commits.leader.lock();
            let mut outcomes = Outcomes::new();
            for (name, to) in some {
                if inner.index.reference(name)?.is_none() {
                    outcomes.insert(name.clone(), Some(to.clone()));
                }
            }
            n_set += outcomes.len() as u64;
            let mut batch = Batch::default();
            crate::commit::index_refs(&mut batch, &outcomes);
            inner.index.kv.write(batch)?;
            inner.revoked.write().apply(&outcomes);
        }
        if n_set > 0 {
            // From here on they are in a pack, and durable.
            self.checkpoint(&[])?;
            inner.refs_generation.fetch_add(1, SeqCst);
            inner.changed();
        }
        Ok(n_set)
    }
}

//! One pack on an object store: a local file while it is written, objects when it is not.
//!
//! The local file is a convenience, never a promise: what was synced is in the store, and the file
//! may be lost with its disk at any time. It is what readers read until the pack is sealed, and
//! what the whole object is made from.

use super::Shared;
use super::requests::Body;
use super::segments::{Layout, segment_name, whole_name};
use crate::digest::PackId;
use crate::store::PackFile;
use bytes::Bytes;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A pack: what of it is where.
pub(super) struct Pack {
    pub(super) id: PackId,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Held by whoever uploads: one at a time.
    uploading: Mutex<()>,
    /// The object whose upload failed and ended the pack; it may be in the store all the same.
    doubtful: Mutex<Option<String>>,
}

enum State {
    Open(Open),
    Stored(Layout),
}

/// A pack that is written to.
struct Open {
    file: Arc<File>,
    path: PathBuf,
    len: u64,
    /// What is in the store.
    segments: Vec<(u64, u64)>,
    /// Up to where that is.
    synced: u64,
}

impl Open {
    fn layout(&self) -> Layout {
        Layout::Segments(self.segments.clone())
    }
}

impl Pack {
    /// A pack to be written, as the new file at `path`.
    pub(super) fn create(id: PackId, shared: Arc<Shared>, path: PathBuf) -> io::Result<Arc<Self>> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let file = Arc::new(file);
        let open = Open { file, path, len: 0, segments: Vec::new(), synced: 0 };
        Ok(Arc::new(Self::with(id, shared, State::Open(open))))
    }

    /// A pack that is in the store.
    pub(super) fn stored(id: PackId, shared: Arc<Shared>, layout: Layout) -> Arc<Self> {
        Arc::new(Self::with(id, shared, State::Stored(layout)))
    }

    fn with(id: PackId, shared: Arc<Shared>, state: State) -> Self {
        Self {
            id,
            shared,
            state: Mutex::new(state),
            uploading: Mutex::default(),
            doubtful: Mutex::default(),
        }
    }

    /// All its objects that are, or may be, in the store.
    pub(super) fn objects(&self) -> Vec<String> {
        let mut names = match &*self.state.lock() {
            State::Open(open) => open.layout().names(self.id),
            State::Stored(layout) => layout.names(self.id),
        };
        names.extend(self.doubtful.lock().clone());
        names
    }

    /// Ends its local file, if it has one. It can still be read by whoever has it open.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if let State::Open(open) = &*state {
            remove(open);
            *state = State::Stored(open.layout());
        }
    }

    /// What a sync has to upload; `None` if the pack is closed. An error if that was by a failure:
    /// what it was for is lost, and a second try would lie about it.
    fn unsynced(&self) -> io::Result<Option<(Arc<File>, Range<u64>)>> {
        if self.doubtful.lock().is_some() {
            return Err(io::Error::other("an upload of this pack failed before"));
        }
        Ok(match &*self.state.lock() {
            State::Open(open) => Some((open.file.clone(), open.synced..open.len)),
            State::Stored(_) => None,
        })
    }

    /// Uploads an object. If that fails the pack is at its end.
    fn upload(&self, name: String, file: &Arc<File>, range: Range<u64>) -> io::Result<()> {
        let put = self.shared.requests.put_new(&name, Body { file: file.clone(), range });
        if put.is_err() {
            *self.doubtful.lock() = Some(name);
            self.close();
        }
        put
    }
}

/// Where it fails, the file goes when the library is opened next.
fn remove(open: &Open) {
    let _ = std::fs::remove_file(&open.path);
}

impl PackFile for Pack {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.state.lock();
        let State::Open(open) = &mut *state else {
            return Err(io::Error::other("the pack was closed, by its seal or a failed upload"));
        };
        if offset != open.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = offset;
        for slice in slices {
            open.file.write_all_at(slice, at)?;
            at += slice.len() as u64;
        }
        // Only now: what a failed write left behind does not count.
        open.len = at;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let _one = self.uploading.lock();
        let Some((file, range)) = self.unsynced()?.filter(|(_, range)| !range.is_empty()) else {
            return Ok(());
        };
        self.upload(segment_name(self.id, range.start), &file, range.clone())?;
        if let State::Open(open) = &mut *self.state.lock() {
            open.segments.push((range.start, range.end - range.start));
            open.synced = range.end;
        }
        Ok(())
    }

    fn seal(&self) -> io::Result<()> {
        let _one = self.uploading.lock();
        let Some((file, unsynced)) = self.unsynced()? else { return Ok(()) };
        let len = unsynced.end;
        if len == 0 {
            self.close();
            return Ok(());
        }
        self.upload(whole_name(self.id), &file, 0..len)?;
        self.shared.reads.keep(self.id, &file, len);
        let segments = {
            let mut state = self.state.lock();
            let State::Open(open) = &*state else { return Ok(()) };
            let segments = open.layout().names(self.id);
            remove(open);
            *state = State::Stored(Layout::Whole(len));
            segments
        };
        if let Err(error) = self.shared.requests.delete(segments) {
            // They cost room and mean nothing; the next open deletes them.
            tracing::warn!(pack = %self.id, %error, "segments of a sealed pack are left over");
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(match &*self.state.lock() {
            State::Open(open) => open.len,
            State::Stored(layout) => layout.len(),
        })
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let layout = match &*self.state.lock() {
            State::Open(open) if range.end > open.len => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            State::Open(open) => Err(open.file.clone()),
            State::Stored(layout) => Ok(layout.clone()),
        };
        match layout {
            Ok(layout) => self.shared.reads.read(self.id, &layout, range),
            Err(file) => {
                let length = range.end.checked_sub(range.start);
                let mut bytes = vec![0; length.ok_or(io::ErrorKind::InvalidInput)? as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
        }
    }

    fn read_alone(&self, range: Range<u64>) -> io::Result<Bytes> {
        let layout = match &*self.state.lock() {
            State::Open(_) => None,
            State::Stored(layout) => Some(layout.clone()),
        };
        match layout {
            Some(layout) => self.shared.reads.read_alone(self.id, &layout, range),
            None => self.read_at(range),
        }
    }

    fn forget_cached(&self) {
        self.shared.reads.forget(self.id);
    }
}

//! The entries of one folder, in the order in which they and what lies below them come in a tree.

use super::{Seen, What, Why};
use crate::fetch_state;
use crate::folder::{FileStat, Folder, mode_bits, special};
use crate::path;
use rustix::fs::{AtFlags, FileType, RawDir, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

/// A folder to list.
pub(super) struct Job {
    pub(super) id: u32,
    /// From the source's top; no bytes for the top itself.
    pub(super) path: Vec<u8>,
}

/// What was found in one folder.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) names: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// Each entry once, and each folder again where the paths below it belong: in byte order
    /// `a-b` comes after `a` and before `a/b`.
    pub(super) order: Vec<Place>,
    pub(super) problems: Vec<(Vec<u8>, Why)>,
    /// What a fetch keeps lies here, which is no item. Only in the source's top.
    pub(super) fetch_state: bool,
}

pub(super) struct Item {
    pub(super) name: Range<usize>,
    pub(super) seen: Seen,
    /// For a folder, the id of its own listing.
    pub(super) listing: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) item: u32,
    /// Whether this is the place of what lies below the item.
    pub(super) below: bool,
}

impl Listing {
    pub(super) fn name(&self, item: usize) -> &[u8] {
        &self.names[self.items[item].name.clone()]
    }

    /// The indexes of the items that are folders.
    pub(super) fn folders(&self) -> impl Iterator<Item = usize> + '_ {
        let folder = |(at, item): (usize, &Item)| (item.seen.what == What::Folder).then_some(at);
        self.items.iter().enumerate().filter_map(folder)
    }

    fn sort(&mut self) {
        let n = self.items.len() as u32;
        let mut order: Vec<_> = (0..n).map(|item| Place { item, below: false }).collect();
        order.extend(self.folders().map(|at| Place { item: at as u32, below: true }));
        // Without its slash a name is shorter than with it, so an entry comes before what is
        // below it.
        let slash = |place: &Place| if place.below { &b"/"[..] } else { b"" };
        let key = |place: &Place| self.name(place.item as usize);
        order.sort_unstable_by(|a, b| match (a.below, b.below) {
            (false, false) => key(a).cmp(key(b)),
            _ => key(a).iter().chain(slash(a)).cmp(key(b).iter().chain(slash(b))),
        });
        self.order = order;
    }
}

/// Lists the folder at `path`. One that is gone, or is no folder any more, has no entries: the
/// next look will find its own folder changed.
pub(super) fn list(folder: &Folder, path: &[u8], buffer: &mut [MaybeUninit<u8>]) -> Listing {
    let mut listing = Listing::default();
    match folder.open_folder(path) {
        Ok(fd) => {
            fill(&mut listing, &fd, path, buffer);
            if path.is_empty() {
                take_out_fetch_state(&mut listing, folder);
            }
        }
        Err(error) if is_gone(Errno::from_io_error(&error)) => {}
        Err(error) => listing.problems.push((path.to_vec(), Why::Unreadable(error))),
    }
    listing.sort();
    listing
}

/// Takes what a fetch keeps out of the top's listing. Anything else of that name is a problem.
fn take_out_fetch_state(listing: &mut Listing, top: &Folder) {
    let name = fetch_state::FOLDER.as_bytes();
    let Some(at) = (0..listing.items.len()).find(|&at| listing.name(at) == name) else { return };
    listing.items.remove(at);
    match fetch_state::is_kept(top) {
        Ok(true) => listing.fetch_state = true,
        Ok(false) => listing.problems.push((name.to_vec(), fetch_state::ReservedName.into())),
        Err(error) => listing.problems.push((name.to_vec(), Why::Unreadable(error))),
    }
}

/// Whether an error means that something was taken away, or replaced by another kind of thing.
pub(crate) fn is_gone(error: Option<Errno>) -> bool {
    matches!(error, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE))
}

fn fill(listing: &mut Listing, fd: &OwnedFd, path: &[u8], buffer: &mut [MaybeUninit<u8>]) {
    let mut entries = RawDir::new(fd, buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => take(listing, fd, path, entry.file_name()),
            // A folder that was removed while it is open.
            Err(Errno::NOENT) => return,
            Err(error) => {
                return listing.problems.push((path.to_vec(), Why::Unreadable(error.into())));
            }
        }
    }
}

fn take(listing: &mut Listing, fd: &OwnedFd, folder: &[u8], name: &CStr) {
    let bytes = name.to_bytes();
    if matches!(bytes, b"." | b"..") {
        return;
    }
    match look(fd, name) {
        Ok(Some(seen)) => {
            let len = folder.len() + usize::from(!folder.is_empty()) + bytes.len();
            if len > path::MAX_PATH || bytes.len() > path::MAX_NAME {
                let path = path::join(folder, bytes);
                let why = path::check(&path).err().unwrap_or(path::BadPath::TooLong(len));
                return listing.problems.push((path, Why::Path(why)));
            }
            let start = listing.names.len();
            listing.names.extend_from_slice(bytes);
            let name = start..listing.names.len();
            listing.items.push(Item { name, seen, listing: 0 });
        }
        Ok(None) => {}
        Err(why) => listing.problems.push((path::join(folder, bytes), why)),
    }
}

/// What one entry is; `None` if it is gone.
fn look(fd: &OwnedFd, name: &CStr) -> Result<Option<Seen>, Why> {
    let stat = match statat(fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(error) if is_gone(Some(error)) => return Ok(None),
        Err(error) => return Err(Why::Unreadable(error.into())),
    };
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => What::File,
        FileType::Directory => What::Folder,
        FileType::Symlink => match readlinkat(fd.as_fd(), name, Vec::new()) {
            Ok(target) => What::Link(target.into_bytes().into()),
            // EINVAL: it is no link any more.
            Err(error) if error == Errno::INVAL || is_gone(Some(error)) => return Ok(None),
            Err(error) => return Err(Why::Unreadable(error.into())),
        },
        other => return Err(Why::Special(special(other))),
    };
    Ok(Some(Seen { what, mode: mode_bits(&stat), stat: FileStat::from(&stat) }))
}

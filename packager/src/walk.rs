//! One look at a source folder: what lies in it, by `stat` alone.
//!
//! Files are not opened, so that looking at a hundred thousand costs a tenth of a second. Two
//! looks that see the same prove that nothing changed between them; [`crate::scan`] relies on it.
//!
//! Always true of a `Sighting`: entries are in the byte order of their paths, which keep
//! [`crate::path`]'s rules, and the folder that an entry lies in is an entry too.

mod list;

use crate::fetch_state::ReservedName;
use crate::folder::{FileStat, Folder};
use crate::manifest::MAX_ENTRIES;
use crate::path::{BadPath, Shown};
use contentlib::{Cancelled, Progress};
pub(crate) use list::is_gone;
use list::{Job, Listing};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::fmt;
use std::io;

/// How many entries that cannot be taken are named in an error; of the others the count is given.
pub const MAX_NAMED: usize = 100;

/// What one look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    paths: Vec<u8>,
    path_ends: Vec<usize>,
    pub(crate) seen: Vec<Seen>,
    /// What a fetch keeps lies at the top; it is no entry.
    pub(crate) fetch_state: bool,
}

/// What was seen of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) what: What,
    pub(crate) mode: u16,
    pub(crate) stat: FileStat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Folder,
    File,
    Link(Box<[u8]>),
}

impl Sighting {
    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn path(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.path_ends[at - 1] };
        &self.paths[start..self.path_ends[at]]
    }

    fn push(&mut self, path: &[u8], seen: Seen) {
        self.paths.extend_from_slice(path);
        self.path_ends.push(self.paths.len());
        self.seen.push(seen);
    }
}

/// Entries of a source that cannot be part of a version, and why.
#[derive(Debug, Default)]
pub struct Problems {
    /// The first [`MAX_NAMED`] of them, in the order of their paths.
    pub named: Vec<Problem>,
    /// How many there are in all.
    pub total: u64,
}

/// One entry that cannot be part of a version.
#[derive(Debug)]
pub struct Problem {
    /// Its path in the source, as [`Shown`]; `.` for the source itself.
    pub path: String,
    /// What is wrong with it.
    pub why: Why,
}

/// Why an entry cannot be part of a version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It is neither file, folder nor symbolic link.
    #[error("it is {0}, which no package can hold")]
    Special(&'static str),
    /// Its path is outside the rules.
    #[error("{0}")]
    Path(BadPath),
    /// Its name is taken.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
}

impl Problems {
    pub(crate) fn add(&mut self, path: &[u8], why: Why) {
        self.total += 1;
        if self.named.len() < MAX_NAMED {
            let path = if path.is_empty() { ".".into() } else { Shown(path).to_string() };
            self.named.push(Problem { path, why });
        }
    }

    /// Nothing, or an error if there are any.
    pub(crate) fn none(mut self) -> Result<(), Self> {
        self.named.sort_by(|a, b| a.path.cmp(&b.path));
        if self.total == 0 { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Problem { path, why }) in self.named.iter().enumerate() {
            write!(f, "{}{path}: {why}", if at == 0 { "" } else { "; " })?;
        }
        match self.total - self.named.len() as u64 {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("more than {MAX_ENTRIES} entries")]
    TooManyEntries,
}

/// Looks at all of `folder` with `n_threads` threads. What vanishes meanwhile is left out.
pub(crate) fn walk(
    folder: &Folder,
    n_threads: usize,
    progress: &Progress,
) -> Result<Sighting, WalkError> {
    let work = Work::default();
    work.state.lock().jobs.push(Job { id: 0, path: Vec::new() });
    std::thread::scope(|scope| {
        for _ in 1..n_threads.max(1) {
            scope.spawn(|| work.run(folder, progress));
        }
        work.run(folder, progress);
    });
    let state = work.state.into_inner();
    if let Some(error) = state.error {
        return Err(error);
    }
    state.problems.none()?;
    Ok(join(state.listings, state.n_entries))
}

/// Folders to list, shared by the threads of one look.
#[derive(Default)]
struct Work {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Threads that are at work and so may add jobs.
    n_busy: usize,
    last_id: u32,
    n_entries: usize,
    listings: HashMap<u32, Listing>,
    problems: Problems,
    error: Option<WalkError>,
}

impl Work {
    fn run(&self, folder: &Folder, progress: &Progress) {
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut state = self.state.lock();
        loop {
            if state.error.is_some() {
                break;
            }
            let Some(job) = state.jobs.pop() else {
                if state.n_busy == 0 {
                    break;
                }
                self.more.wait(&mut state);
                continue;
            };
            state.n_busy += 1;
            drop(state);
            let mut listing = list::list(folder, &job.path, buffer.spare_capacity_mut());
            state = self.state.lock();
            state.n_busy -= 1;
            state.n_entries += listing.items.len();
            if let Err(cancelled) = progress.check() {
                state.error = Some(cancelled.into());
            } else if state.n_entries > MAX_ENTRIES {
                state.error = Some(WalkError::TooManyEntries);
            }
            for (path, why) in listing.problems.drain(..) {
                state.problems.add(&path, why);
            }
            for at in listing.folders().collect::<Vec<_>>() {
                state.last_id += 1;
                let id = state.last_id;
                let path = crate::path::join(&job.path, listing.name(at));
                listing.items[at].listing = id;
                state.jobs.push(Job { id, path });
            }
            state.listings.insert(job.id, listing);
            self.more.notify_all();
        }
        self.more.notify_all();
    }
}

/// Puts the listings together in the order of paths. A loop with its own stack: a tree may be
/// deeper than a thread's stack.
fn join(mut listings: HashMap<u32, Listing>, n_entries: usize) -> Sighting {
    let mut sighting = Sighting {
        paths: Vec::new(),
        path_ends: Vec::with_capacity(n_entries),
        seen: Vec::with_capacity(n_entries),
        fetch_state: false,
    };
    let mut path = Vec::new();
    let mut stack: Vec<(Listing, usize, usize)> = Vec::new();
    if let Some(top) = listings.remove(&0) {
        sighting.fetch_state = top.fetch_state;
        stack.push((top, 0, 0));
    }
    while let Some((listing, next, folder_len)) = stack.last_mut() {
        path.truncate(*folder_len);
        let Some(&place) = listing.order.get(*next) else {
            stack.pop();
            continue;
        };
        *next += 1;
        let item = &listing.items[place.item as usize];
        let name = &listing.names[item.name.clone()];
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        match place.below {
            false => sighting.push(&path, item.seen.clone()),
            true => {
                let len = path.len();
                let inner = listings.remove(&item.listing);
                stack.extend(inner.map(|inner| (inner, 0, len)));
            }
        }
    }
    sighting
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn look(path: &Path) -> Result<Sighting, WalkError> {
        walk(&Folder::open(path).unwrap(), 2, &Progress::default())
    }

    fn paths(sighting: &Sighting) -> Vec<Vec<u8>> {
        (0..sighting.len()).map(|at| sighting.path(at).to_vec()).collect()
    }

    #[test]
    fn paths_come_in_byte_order_with_odd_and_hidden_names() {
        let dir = tempfile::tempdir().unwrap();
        let name = |bytes: &'static [u8]| std::os::unix::ffi::OsStrExt::from_bytes(bytes);
        let names: [&std::ffi::OsStr; 6] = [
            name(b"a"),
            name(b"a/b"),
            name(b"a/b/c"),
            name(b"a-b"),
            name(b".hid\nden"),
            name(b"\xff"),
        ];
        names.iter().for_each(|n| fs::create_dir(dir.path().join(n)).unwrap());
        fs::write(dir.path().join("a/file"), "x").unwrap();
        symlink(".", dir.path().join("a/loop")).unwrap();
        let sighting = look(dir.path()).unwrap();
        let want: [&[u8]; 8] =
            [b".hid\nden", b"a", b"a-b", b"a/b", b"a/b/c", b"a/file", b"a/loop", b"\xff"];
        assert_eq!(paths(&sighting), want);
        assert!(paths(&sighting).is_sorted());
        assert_eq!(sighting.seen[6].what, What::Link(b"."[..].into()));
        assert_eq!(sighting.seen[5].stat.size, 1);
        assert_eq!(look(dir.path()).unwrap(), sighting);
    }

    #[test]
    fn files_that_no_package_can_hold_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for name in ["one", "two"] {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(&folder, name, kind, mode, 0).unwrap();
        }
        let Err(WalkError::Problems(problems)) = look(dir.path()) else { panic!("not an error") };
        let text = problems.to_string();
        assert!(text.contains("one: it is a named pipe") && text.contains("two: "), "{text}");
    }

    #[test]
    fn of_many_problems_the_first_are_named_and_all_counted() {
        let mut problems = Problems::default();
        for n in 0..250 {
            problems.add(format!("{n}").as_bytes(), Why::Special("a socket"));
        }
        let problems = problems.none().unwrap_err();
        assert_eq!((problems.named.len(), problems.total), (MAX_NAMED, 250));
        assert!(problems.to_string().ends_with("; and 150 more"));
    }

    #[test]
    fn a_path_too_long_for_a_manifest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut fd = std::os::fd::OwnedFd::from(fs::File::open(dir.path()).unwrap());
        let name = "n".repeat(255);
        for _ in 0..17 {
            use rustix::fs::{Mode, OFlags, mkdirat, openat};
            mkdirat(&fd, name.as_str(), Mode::RWXU).unwrap();
            fd = openat(&fd, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let Err(WalkError::Problems(problems)) = look(dir.path()) else { panic!("not an error") };
        assert!(matches!(problems.named[0].why, Why::Path(BadPath::TooLong(_))));
    }

    #[test]
    fn a_deep_tree_needs_no_deep_stack() {
        let dir = tempfile::tempdir().unwrap();
        let path = "d/".repeat(2000);
        fs::create_dir_all(dir.path().join(&path)).unwrap();
        assert_eq!(look(dir.path()).unwrap().len(), 2000);
    }

    #[test]
    fn a_changed_mode_is_another_sighting() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let before = look(dir.path()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        let after = look(dir.path()).unwrap();
        assert_ne!(after, before);
        assert_eq!(after.seen[0].mode, 0o4755);
    }
}

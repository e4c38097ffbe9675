//! A whole database copied into another kind of one.
//!
//! The source stands still: nobody writes to it meanwhile. Entries go over in the order of their
//! keys, each part durable before the next, so a copy that was cut off goes on after the last key
//! that is there. In the end both sides are read through, and must be the same; only then the copy
//! becomes a database that a site opens.
//!
//! The change feed itself stays behind: its last number goes over, and readers that had not seen all
//! before it are told to read the tables anew ([`DbError::ChangesGone`]), so no number that
//! anybody remembers means something else afterwards.
//!
//! A copy may as well come from a file ([`restore`]): then it has a mark beside, by which whoever opens it
//! first learns that it was put back.

use crate::kv::PAGE;
use crate::{DbError, Entry, Kv, Order, Range, Seq};
use std::ops::ControlFlow;

/// A database that another one is copied into.
pub trait Import: Kv {
    /// What it is and how far its feed is: another one, or the same after a change, says otherwise.
    fn identity(&self) -> String;

    /// Begins to copy the source that calls itself so, or goes on with that. What is left of a copy
    /// of another one that was not ended is deleted.
    ///
    /// # Errors
    /// [`DbError::NotUsable`] if something else is in it.
    fn begin(&self, source: &str) -> Result<Begun, DbError>;

    /// Stores entries durably, without the feed.
    fn load(&self, entries: Vec<Entry>) -> Result<(), DbError>;

    /// Ends the copy: from now on it is a database whose newest batch has this number, and whose
    /// changes up to it are forgotten.
    fn finish(&self, newest: Seq) -> Result<(), DbError>;
}

/// Where a copy goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The last key that is there already.
    pub after: Option<Vec<u8>>,
}

/// What lies in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// How many keys have a value.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// BLAKE3 over all of them in order, each key and value after its length.
    pub digest: [u8; 32],
}

/// What is being done, for who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Entries go over.
    Copying,
    /// The source is read through.
    ReadingSource,
    /// The copy is read through.
    ReadingCopy,
}

/// Why a copy was not made, or is not right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The source could not be read.
    #[error("the source")]
    Source(#[source] DbError),
    /// The target could not be written or read.
    #[error("the target")]
    Target(#[source] DbError),
    /// The two are not the same. The copy is not used.
    #[error(
        "the copy is not the same as its source: {} entries of {} bytes there, {} of {} here; was the \
         source written to meanwhile? Run this again", .original.entries, .original.bytes,
         .copy.entries, .copy.bytes
    )]
    Differs {
        /// What the source holds.
        original: Box<Contents>,
        /// What the copy holds.
        copy: Box<Contents>,
    },
    /// Who watches asked for an end. The copy goes on from there the next time.
    #[error("interrupted")]
    Interrupted,
}

/// Copies `source` into `target`, checks it, and ends the copy; what both hold.
///
/// `watch` is told after each page what is being done, and how many entries and bytes of it are
/// done; it may ask for an end.
pub fn transfer(
    source: &dyn Import,
    target: &dyn Import,
    mut watch: impl FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<Contents, TransferError> {
    let newest = source.last_seq();
    // Whoever copied may have been cut off after the end of it, before anybody used the copy.
    if newest > 0 && target.last_seq() == newest {
        let (read, copy) = both(source, target, &mut watch)?;
        if read == copy {
            return Ok(read);
        }
    }
    let begun = target.begin(&source.identity()).map_err(TransferError::Target)?;
    let (mut entries, mut bytes) = (0, 0);
    let copied = pages(source, begun.after, |page| {
        entries += page.len() as u64;
        bytes += page.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        target.load(page).map_err(TransferError::Target)?;
        Ok(watch(Step::Copying, entries, bytes))
    });
    copied?;
    let (read, copy) = both(source, target, &mut watch)?;
    if read != copy || source.last_seq() != newest {
        return Err(TransferError::Differs { original: Box::new(read), copy: Box::new(copy) });
    }
    target.finish(newest).map_err(TransferError::Target)?;
    Ok(read)
}

/// Stores what `pages` give, in the order of their keys until a page is empty, in `target`, with `mark`
/// beside; checks it, and ends the copy as a database whose newest batch has the number `newest`.
///
/// `source` names what is copied: begun again with the same, what is there already is not stored again.
/// `watch` is told as by [`transfer`].
pub fn restore<E: From<TransferError>>(
    (source, newest): (&str, Seq),
    mut pages: impl FnMut() -> Result<Vec<Entry>, E>,
    mark: &Entry,
    target: &dyn Import,
    mut watch: impl FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<Contents, E> {
    // It may be whole, if whoever copied was cut off after the end of it.
    let is_whole = newest > 0 && target.last_seq() == newest;
    let after = match is_whole {
        true => None,
        false => target.begin(source).map_err(TransferError::Target)?.after,
    };
    let mut original = Counted::default();
    loop {
        let mut page = pages()?;
        if page.is_empty() {
            break;
        }
        page.retain(|(key, _)| *key != mark.0);
        original.add(&page);
        page.retain(|(key, _)| !is_whole && after.as_ref().is_none_or(|after| key > after));
        if !page.is_empty() {
            target.load(page).map_err(TransferError::Target)?;
        }
        if watch(Step::Copying, original.contents.entries, original.contents.bytes).is_break() {
            return Err(TransferError::Interrupted.into());
        }
    }
    let original = original.end();
    let copy =
        contents(target, Some(&mark.0), |entries, bytes| watch(Step::ReadingCopy, entries, bytes));
    let copy = copy.map_err(of_target)?;
    if original != copy {
        let (original, copy) = (Box::new(original), Box::new(copy));
        return Err(TransferError::Differs { original, copy }.into());
    }
    if !is_whole {
        target.load(vec![mark.clone()]).map_err(TransferError::Target)?;
        target.finish(newest).map_err(TransferError::Target)?;
    }
    Ok(original)
}

/// What `source` holds, and what `target` does.
fn both(
    source: &dyn Import,
    target: &dyn Import,
    watch: &mut impl FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<(Contents, Contents), TransferError> {
    let read = contents(source, None, |entries, bytes| watch(Step::ReadingSource, entries, bytes))?;
    let copy = contents(target, None, |entries, bytes| watch(Step::ReadingCopy, entries, bytes));
    Ok((read, copy.map_err(of_target)?))
}

/// What could not be read was the target.
fn of_target(error: TransferError) -> TransferError {
    match error {
        TransferError::Source(error) => TransferError::Target(error),
        other => other,
    }
}

/// Counts entries as they pass, in order.
#[derive(Default)]
struct Counted {
    contents: Contents,
    hasher: blake3::Hasher,
}

impl Counted {
    fn add(&mut self, page: &[Entry]) {
        for (key, value) in page {
            self.contents.entries += 1;
            self.contents.bytes += (key.len() + value.len()) as u64;
            for part in [key, value] {
                self.hasher.update(&(part.len() as u64).to_le_bytes());
                self.hasher.update(part);
            }
        }
    }

    fn end(self) -> Contents {
        Contents { digest: *self.hasher.finalize().as_bytes(), ..self.contents }
    }
}

/// What `kv` holds, read through once, but for one key.
fn contents(
    kv: &dyn Import,
    but: Option<&Vec<u8>>,
    mut watch: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Contents, TransferError> {
    let mut counted = Counted::default();
    pages(kv, None, |mut page| {
        page.retain(|(key, _)| Some(key) != but);
        counted.add(&page);
        Ok(watch(counted.contents.entries, counted.contents.bytes))
    })?;
    Ok(counted.end())
}

/// Reads `kv` from behind `after` on, page by page.
fn pages(
    kv: &dyn Import,
    after: Option<Vec<u8>>,
    mut each: impl FnMut(Vec<Entry>) -> Result<ControlFlow<()>, TransferError>,
) -> Result<(), TransferError> {
    let mut range = Range { from: after.map_or(Vec::new(), next_key), to: None };
    loop {
        let page = kv.scan(&range, Order::Ascending, PAGE).map_err(TransferError::Source)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        range.from = next_key(last.clone());
        if each(page)?.is_break() {
            return Err(TransferError::Interrupted);
        }
    }
}

/// The first key after `key`.
fn next_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

#[cfg(test)]
pub(crate) mod contract {
    //! The contract of [`Import`].

    use super::*;
    use crate::{Batch, RocksKv};

    /// Holds the way from a RocksDB source with content into an empty `target` to the contract.
    pub fn holds(target: &dyn Import) {
        let folder = tempfile::tempdir().unwrap();
        let source = RocksKv::open(folder.path()).unwrap();
        for n in 0..1500_u16 {
            let mut batch = Batch::relaxed();
            batch.put(n.to_be_bytes(), vec![n as u8; usize::from(n % 7)]).delete("gone");
            source.write(batch).unwrap();
        }
        // Cut off after the first page, it goes on there.
        let cut = transfer(&source, target, |_, _, _| ControlFlow::Break(()));
        assert!(matches!(cut, Err(TransferError::Interrupted)));
        let begun = target.begin(&source.identity()).unwrap();
        assert_eq!(begun.after, Some(511_u16.to_be_bytes().to_vec()));
        // The source went on meanwhile: from the beginning.
        let mut batch = Batch::new();
        batch.delete(0_u16.to_be_bytes());
        source.write(batch).unwrap();
        let mut copied = 0;
        let done = transfer(&source, target, |step, entries, _| {
            if step == Step::Copying {
                copied = entries;
            }
            ControlFlow::Continue(())
        });
        let done = done.unwrap();
        assert_eq!((done.entries, copied), (1499, 1499));
        let all = Range::default();
        let read = |kv: &dyn Kv| kv.scan(&all, Order::Ascending, usize::MAX).unwrap();
        assert_eq!(read(&source), read(target));
        // The feed goes on behind the last number.
        assert_eq!(target.last_seq(), 1501);
        assert!(matches!(target.changes(1500, 9), Err(DbError::ChangesGone { oldest: 1502 })));
        assert_eq!(target.changes(1501, 9).unwrap(), []);
        // Whoever did not hear of its end asks again.
        let again = transfer(&source, target, |_, _, _| ControlFlow::Continue(())).unwrap();
        assert_eq!((again, target.last_seq()), (done, 1501));
        let mut batch = Batch::new();
        batch.put("new", "x");
        assert!(matches!(target.write(batch), Ok(1502)));
        // What is in use is not written over.
        let refused = transfer(&source, target, |_, _, _| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(TransferError::Target(DbError::NotUsable { .. }))));
        assert_eq!(target.last_seq(), 1502);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, RocksKv};

    /// Pages of the entries 0 to `n`.
    fn pages(n: u16) -> impl FnMut() -> Result<Vec<Entry>, TransferError> {
        let all: Vec<Entry> =
            (0..n).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 9])).collect();
        let mut pages = all.chunks(100).map(<[_]>::to_vec).collect::<Vec<_>>().into_iter();
        move || Ok(pages.next().unwrap_or_default())
    }

    #[test]
    fn what_is_put_back_goes_on_where_it_was_cut_off_and_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let mark: Entry = (b"mark".to_vec(), b"it was put back".to_vec());
        let open = || RocksKv::open_for_import(folder.path()).unwrap();
        let put = |kv: &RocksKv, n, stop: u64| {
            let watch = |_, entries, _| match entries >= stop {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            restore(("file:1", 77), pages(n), &mark, kv, watch)
        };
        assert!(matches!(put(&open(), 1000, 300), Err(TransferError::Interrupted)));
        assert!(matches!(RocksKv::open(folder.path()), Err(DbError::NotUsable { .. })));
        let done = put(&open(), 1000, u64::MAX).unwrap();
        assert_eq!(done.entries, 1000);
        // Who did not hear of its end asks again.
        assert_eq!(put(&open(), 1000, u64::MAX).unwrap(), done);
        assert!(matches!(put(&open(), 999, u64::MAX), Err(TransferError::Differs { .. })));
        let kv = RocksKv::open(folder.path()).unwrap();
        assert_eq!((kv.last_seq(), kv.get(&mark.0).unwrap()), (77, Some(mark.1.clone())));
        assert!(matches!(kv.changes(76, 9), Err(DbError::ChangesGone { oldest: 78 })));
        let mut batch = Batch::new();
        batch.put("new", "x");
        kv.write(batch).unwrap();
        let refused = put(&kv, 1000, u64::MAX);
        assert!(matches!(refused, Err(TransferError::Target(DbError::NotUsable { .. }))));
    }
}

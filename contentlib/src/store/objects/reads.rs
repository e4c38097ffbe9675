//! Reading packs from the object store: through the cache, each part once, and a little ahead.
//!
//! * Readers who want the same part at a time wait for one request.
//! * Who reads part after part is read ahead for, twice as far each time, up to [`AHEAD`] parts.
//! * Who will read nothing nearby asks for just that: headers and footers, when packs are taken in.

use super::cache::{PART, PartCache, PartId};
use super::requests::Requests;
use super::segments::Layout;
use crate::digest::PackId;
use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The most parts that are read ahead for one reader.
const AHEAD: u32 = 4;
/// The most parts that are read ahead at a time, for all.
const AHEAD_AT_ONCE: usize = 8;
/// Ends of packs kept in memory, at most 256 KiB each: whoever reads a footer reads the commit
/// records before it next.
const ENDS: usize = 64;

/// What is on its way, and what is at hand.
pub(super) struct Reads {
    requests: Arc<Requests>,
    cache: PartCache,
    flights: Mutex<HashMap<PartId, Arc<Flight>>>,
    /// Where each pack was read last, and how far ahead of that.
    runs: Cache<PackId, Run>,
    ahead: AtomicUsize,
    /// The last bytes read alone, of each pack, and where they begin.
    ends: Cache<PackId, (u64, Bytes)>,
}

#[derive(Clone, Copy)]
struct Run {
    last: u32,
    ahead: u32,
}

/// A part that somebody fetches.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<Result<Bytes, (io::ErrorKind, String)>>>,
    change: Condvar,
}

impl Flight {
    fn land(&self, fetched: &io::Result<Bytes>) {
        *self.landed.lock() = Some(match fetched {
            Ok(bytes) => Ok(bytes.clone()),
            Err(error) => Err((error.kind(), error.to_string())),
        });
        self.change.notify_all();
    }

    fn wait(&self) -> io::Result<Bytes> {
        let mut landed = self.landed.lock();
        loop {
            match &*landed {
                Some(Ok(bytes)) => return Ok(bytes.clone()),
                Some(Err((kind, text))) => return Err(io::Error::new(*kind, text.clone())),
                None => self.change.wait(&mut landed),
            }
        }
    }
}

/// Ends a flight also where its pilot panics, so that nobody waits for ever.
struct Landing<'a> {
    reads: &'a Reads,
    id: PartId,
    flight: Arc<Flight>,
    fetched: io::Result<Bytes>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // In this order: who finds no flight finds the part in the cache.
        self.flight.land(&self.fetched);
        self.reads.flights.lock().remove(&self.id);
    }
}

impl Reads {
    pub(super) fn new(requests: Arc<Requests>, cache: PartCache) -> Self {
        Self {
            requests,
            cache,
            flights: Mutex::default(),
            runs: Cache::new(1024),
            ahead: AtomicUsize::new(0),
            ends: Cache::new(ENDS),
        }
    }

    pub(super) fn cache(&self) -> &PartCache {
        &self.cache
    }

    /// Bytes `range` of a pack.
    pub(super) fn read(
        self: &Arc<Self>,
        id: PackId,
        layout: &Layout,
        range: Range<u64>,
    ) -> io::Result<Bytes> {
        let len = check(layout, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.of_end(id, &range) {
            return Ok(bytes);
        }
        if !self.cache.is_on() {
            return fetch(&self.requests, id, layout, range);
        }
        let (first, last) = (PartId::at(id, range.start), PartId::at(id, range.end - 1));
        let mut all = BytesMut::new();
        for number in first.number..=last.number {
            let part = PartId { pack: id, number };
            let lies = part.range(len);
            let inside =
                range.start.max(lies.start) - lies.start..range.end.min(lies.end) - lies.start;
            let bytes = self.part(part, layout, inside)?;
            if first.number == last.number {
                self.read_ahead(last, layout);
                return Ok(bytes);
            }
            all.extend_from_slice(&bytes);
        }
        self.read_ahead(last, layout);
        Ok(all.freeze())
    }

    /// The same, asking the store for these bytes and no others.
    pub(super) fn read_alone(
        &self,
        id: PackId,
        layout: &Layout,
        range: Range<u64>,
    ) -> io::Result<Bytes> {
        let len = check(layout, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.of_end(id, &range) {
            return Ok(bytes);
        }
        let (part, last) = (PartId::at(id, range.start), PartId::at(id, range.end - 1));
        if part == last && self.cache.has(part) {
            let lies = part.range(len);
            let inside = range.start - lies.start..range.end - lies.start;
            let found = self.cache.get(part, lies.end - lies.start, inside);
            if let Some(bytes) = found {
                return Ok(bytes);
            }
        }
        let bytes = fetch(&self.requests, id, layout, range.clone())?;
        if range.end == len {
            self.ends.insert(id, (range.start, bytes.clone()));
        }
        Ok(bytes)
    }

    fn of_end(&self, id: PackId, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = self.ends.get(&id)?;
        let inside = range.start.checked_sub(start)? as usize..(range.end - start) as usize;
        (inside.end <= bytes.len()).then(|| bytes.slice(inside))
    }

    /// Bytes `inside` of one part.
    fn part(&self, id: PartId, layout: &Layout, inside: Range<u64>) -> io::Result<Bytes> {
        let lies = id.range(layout.len());
        if let Some(bytes) = self.cache.get(id, lies.end - lies.start, inside.clone()) {
            return Ok(bytes);
        }
        let whole = match self.board(id) {
            Ok(landing) => self.fly(landing, layout),
            Err(flight) => flight.wait(),
        };
        Ok(whole?.slice(inside.start as usize..inside.end as usize))
    }

    /// The flight of a part: to be flown by the caller, or under way.
    fn board(&self, id: PartId) -> Result<Landing<'_>, Arc<Flight>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&id) {
            return Err(flight.clone());
        }
        let flight = Arc::new(Flight::default());
        flights.insert(id, flight.clone());
        let fetched = Err(io::Error::other("whoever fetched it gave up"));
        Ok(Landing { reads: self, id, flight, fetched })
    }

    fn fly(&self, mut landing: Landing<'_>, layout: &Layout) -> io::Result<Bytes> {
        let (id, lies) = (landing.id, landing.id.range(layout.len()));
        let len = lies.end - lies.start;
        // Another may have landed between the look into the cache and the boarding.
        let kept = if self.cache.has(id) { self.cache.get(id, len, 0..len) } else { None };
        landing.fetched = match kept {
            Some(bytes) => Ok(bytes),
            None => fetch(&self.requests, id.pack, layout, lies),
        };
        if let Ok(bytes) = &landing.fetched {
            self.cache.put(id, bytes);
        }
        match &landing.fetched {
            Ok(bytes) => Ok(bytes.clone()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Has the parts after `now` fetched, if the pack is being read front to back.
    fn read_ahead(self: &Arc<Self>, now: PartId, layout: &Layout) {
        let before = self.runs.get(&now.pack);
        let ahead = match before {
            Some(run) if run.last == now.number => return,
            Some(run) if run.last + 1 == now.number => (run.ahead * 2).clamp(1, AHEAD),
            _ => 0,
        };
        self.runs.insert(now.pack, Run { last: now.number, ahead });
        for number in now.number + 1..=now.number + ahead {
            let id = PartId { pack: now.pack, number };
            if id.range(layout.len()).is_empty() || self.cache.has(id) {
                continue;
            }
            let is_one_too_many = self.ahead.fetch_add(1, SeqCst) >= AHEAD_AT_ONCE;
            let (reads, layout) = (self.clone(), layout.clone());
            let begun = !is_one_too_many
                && std::thread::Builder::new()
                    .name("objects-ahead".into())
                    .spawn(move || {
                        if let Ok(landing) = reads.board(id) {
                            // Whoever wants it then tries anew, and is told.
                            drop(reads.fly(landing, &layout));
                        }
                        reads.ahead.fetch_sub(1, SeqCst);
                    })
                    .is_ok();
            if !begun {
                self.ahead.fetch_sub(1, SeqCst);
                return;
            }
        }
    }

    /// Keeps a pack that this process made, from its local file.
    pub(super) fn keep(&self, pack: PackId, file: &File, len: u64) {
        if !self.cache.is_on() {
            return;
        }
        for number in 0..len.div_ceil(PART) as u32 {
            let id = PartId { pack, number };
            let lies = id.range(len);
            let mut bytes = vec![0; (lies.end - lies.start) as usize];
            match file.read_exact_at(&mut bytes, lies.start) {
                Ok(()) => self.cache.put(id, &bytes),
                Err(error) => tracing::warn!(%pack, %error, "a new pack is not kept whole"),
            }
        }
    }

    /// Has the next reads of a pack ask the store.
    pub(super) fn forget(&self, pack: PackId) {
        self.cache.forget(pack);
        self.ends.remove(&pack);
        self.runs.remove(&pack);
    }
}

/// The pack's length, if `range` lies in it.
fn check(layout: &Layout, range: &Range<u64>) -> io::Result<u64> {
    let len = layout.len();
    match () {
        () if range.start > range.end => Err(io::ErrorKind::InvalidInput.into()),
        () if range.end > len => Err(io::ErrorKind::UnexpectedEof.into()),
        () => Ok(len),
    }
}

/// Bytes `range` of a pack, from the objects that have them.
fn fetch(requests: &Requests, id: PackId, layout: &Layout, range: Range<u64>) -> io::Result<Bytes> {
    let mut pieces = layout.pieces(id, range).into_iter();
    let Some((name, inside)) = pieces.next() else { return Ok(Bytes::new()) };
    let first = requests.get(&name, inside)?;
    if pieces.len() == 0 {
        return Ok(first);
    }
    let mut all = BytesMut::from(&first[..]);
    for (name, inside) in pieces {
        all.extend_from_slice(&requests.get(&name, inside)?);
    }
    Ok(all.freeze())
}

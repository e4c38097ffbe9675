//! The updates on a shelf: one after the other, or by id.
//!
//! A scan goes through all shards and holds one at a time. Updates that others speak of are asked for by id: then
//! once all ids are read, and the shards that were asked last are kept unpacked.

use super::missing;
use crate::applicability::Catalogue;
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use sync::name::UpdateId;
use sync::shard::blob::Blobs;
use sync::shard::manifest::Part;
use sync::shard::{Entry, UnreadableEntry, entries};
use sync::update::Update;

/// How many shards are kept unpacked.
const KEPT: usize = 64;

type Unpacked = Arc<HashMap<UpdateId, Arc<Update>>>;

/// The shards of a catalogue that one machine needs.
#[derive(Debug)]
pub struct Shelved<'a> {
    blobs: &'a Blobs,
    shards: Vec<Part>,
    /// In which shard an update is.
    places: OnceCell<HashMap<UpdateId, u32>>,
    kept: RefCell<VecDeque<(u32, Unpacked)>>,
}

impl<'a> Shelved<'a> {
    pub(super) fn new(blobs: &'a Blobs, shards: Vec<Part>) -> Self {
        Self { blobs, shards, places: OnceCell::new(), kept: RefCell::default() }
    }

    /// How many updates there are.
    pub fn updates(&self) -> u64 {
        self.shards.iter().map(|part| part.updates).sum()
    }

    /// Gives each update, or why it cannot be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where a shard must be brought again; else the disk failed.
    pub fn each(&self, mut take: impl FnMut(Result<Entry, UnreadableEntry>)) -> io::Result<()> {
        for part in &self.shards {
            let plain = self.blobs.plain(part.blob, part.bytes)?;
            entries(&plain.ok_or_else(|| missing(part.blob))?).for_each(&mut take);
        }
        Ok(())
    }

    /// One update and its revision, if it is there: by its id, or by its name or that of an article of it.
    ///
    /// # Errors
    /// As [`Shelved::each`].
    pub fn find(&self, what: &str) -> io::Result<Vec<Entry>> {
        let id = what.parse::<UpdateId>().ok();
        let is_called = |update: &Update| {
            update.name.eq_ignore_ascii_case(what)
                || update.articles.iter().any(|article| article.eq_ignore_ascii_case(what))
        };
        let mut found = Vec::new();
        self.each(|entry| {
            found.extend(entry.ok().filter(|it| match id {
                Some(id) => it.update.id == id,
                None => is_called(&it.update),
            }));
        })?;
        Ok(found)
    }

    fn unpacked(&self, shard: u32) -> Unpacked {
        if let Some((_, found)) = self.kept.borrow().iter().find(|(at, _)| *at == shard) {
            return found.clone();
        }
        let part = self.shards[shard as usize];
        // What cannot be read is not there: then it is not known of those that speak of it.
        let plain = self.blobs.plain(part.blob, part.bytes).ok().flatten().unwrap_or_default();
        let all = entries(&plain).flatten().map(|it| (it.update.id, Arc::new(it.update)));
        let unpacked: Unpacked = Arc::new(all.collect());
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((shard, unpacked.clone()));
        unpacked
    }

    fn places(&self) -> HashMap<UpdateId, u32> {
        let mut places = HashMap::new();
        for (part, at) in self.shards.iter().zip(0..) {
            let plain = self.blobs.plain(part.blob, part.bytes).ok().flatten().unwrap_or_default();
            places.extend(entries(&plain).flatten().map(|entry| (entry.update.id, at)));
        }
        places
    }
}

impl Catalogue for Shelved<'_> {
    fn update(&self, id: UpdateId) -> Option<Arc<Update>> {
        let shard = *self.places.get_or_init(|| self.places()).get(&id)?;
        self.unpacked(shard).get(&id).cloned()
    }
}

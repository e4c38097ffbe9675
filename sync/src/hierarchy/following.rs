//! The adapter that reads a parent's feed.

use super::spool::{MAX_PAGES, Spooled};
use super::{Above, Head, MAX_SENT, read, unpack};
use crate::adapter::{Adapter, Extent, Fetched, Read, Run, Said, Skipped, Stage};
use crate::catalogue::Place;
use crate::error::{Cause, SyncError};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where pages come from.
pub trait Upstream: Send + Sync {
    /// The page from a place on, as it travels: [`super::pack`] made it. At most [`MAX_SENT`] bytes.
    fn page(&self, from: Place) -> BoxFuture<'_, Result<Vec<u8>, SyncError>>;
}

/// Reads the feed of an upstream that is another catalogue.
pub struct Following {
    upstream: Arc<dyn Upstream>,
    above: Mutex<Option<Above>>,
}

/// What is kept between two syncs: how far which catalogue was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    catalogue: String,
    place: Place,
}

impl Following {
    /// Of that upstream.
    pub fn new(upstream: Arc<dyn Upstream>) -> Self {
        Self { upstream, above: Mutex::default() }
    }

    async fn bring(
        &self,
        run: &Run,
        state: Option<&serde_json::Value>,
    ) -> Result<Fetched, SyncError> {
        run.stage(Stage::Connect)?;
        let has = has(state);
        // An empty catalogue is news to who had none, or another.
        let mut begins = has.catalogue.is_none();
        let mut spooled = match Spooled::load(&run.folder, &has)? {
            Some(spooled) => spooled,
            None => {
                Spooled::clear(&run.folder)?;
                has
            }
        };
        loop {
            let bytes = self.upstream.page(spooled.next).await?;
            run.watch.came(bytes.len() as u64);
            run.stage(Stage::Fetch)?;
            if bytes.len() > MAX_SENT {
                return Err(SyncError::new(Cause::TooLarge, "the parent sent too large a page"));
            }
            let head: Head = read(&bytes)?;
            let PageHead { from, next, is_last, is_empty } = PageHead::of(&head);
            let is_other = spooled.catalogue.as_ref().is_some_and(|of| *of != head.catalogue);
            if is_other || from != spooled.next {
                // Another catalogue, whose order of changes is another; or one that does not know any more what went.
                Spooled::clear(&run.folder)?;
                spooled = Spooled::after(Some(head.catalogue.clone()), Place::default());
                begins = true;
                if from != Place::default() {
                    continue;
                }
            }
            spooled.catalogue = Some(head.catalogue);
            if !is_last && next.after <= from.after || spooled.pages >= MAX_PAGES {
                let detail = "the parent's feed does not come to an end";
                return Err(SyncError::new(Cause::Malformed, detail));
            }
            let is_news = spooled.pages > 0 || !is_empty || begins;
            if is_news {
                spooled.add(&run.folder, &bytes, next)?;
            }
            if is_last {
                *self.above.lock() = Some(head.above);
                return Ok(if is_news { Fetched::Changed } else { Fetched::Unchanged });
            }
        }
    }
}

/// What decides on a page how to go on.
struct PageHead {
    from: Place,
    next: Place,
    is_last: bool,
    is_empty: bool,
}

impl PageHead {
    fn of(head: &Head) -> Self {
        let super::PageHead { from, next, is_last, products, entries } = &head.page;
        let is_empty = entries.is_empty() && products.is_none();
        Self { from: *from, next: *next, is_last: *is_last, is_empty }
    }
}

/// What a follower has, as its state tells.
fn has(state: Option<&serde_json::Value>) -> Spooled {
    match state.and_then(|state| Kept::deserialize(state).ok()) {
        Some(kept) => Spooled::after(Some(kept.catalogue), kept.place),
        None => Spooled::after(None, Place::default()),
    }
}

impl Adapter for Following {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        Box::pin(self.bring(run, state))
    }

    fn above(&self) -> Option<Above> {
        self.above.lock().take()
    }

    fn read(
        &self,
        run: &Run,
        state: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        let gone = || SyncError::new(Cause::Local, "the pages that came are gone: run it again");
        let spooled = Spooled::load(&run.folder, &has(state))?.ok_or_else(gone)?;
        let mut reads_all = false;
        for number in 1..=spooled.pages {
            let page = unpack(&Spooled::read(&run.folder, number)?).or_else(|error| {
                // So that the next try does not find the same.
                Spooled::clear(&run.folder)?;
                Err(error)
            })?;
            let page = page.page;
            reads_all |= page.from.since == 0;
            for _ in &page.entries {
                run.watch.read()?;
            }
            take(Said::Feed(Box::new(page)))?;
        }
        let kept = Kept { catalogue: spooled.catalogue.ok_or_else(gone)?, place: spooled.next };
        Ok(Read {
            extent: if reads_all { Extent::Whole } else { Extent::Changes },
            state: serde_json::to_value(kept).map_err(|error| {
                SyncError::because(Cause::Local, "the place in the feed is no JSON", error)
            })?,
            skipped: Skipped::default(),
        })
    }
}

#[cfg(test)]
mod tests;

//! A feed that is cut off, begins anew or is another catalogue's comes to what the parent has.

use super::super::{Sent, pack};
use super::*;
use crate::adapter::{Criteria, Watch};
use crate::catalogue::Catalogue;
use crate::fetch::{Fetcher, Patience};
use crate::lifecycle::Policy;
use crate::name::UpdateId;
use crate::update::Update;
use jiff::Timestamp;
use parking_lot::Mutex;
use proptest::prelude::*;
use sitedb::Db;
use std::path::Path;

fn now() -> Timestamp {
    "2026-11-27T10:00:00Z".parse().unwrap()
}

/// A parent in this process, which answers so many pages and then fails.
struct Parent {
    catalogue: Mutex<Catalogue>,
    left: Mutex<usize>,
    asked: Mutex<Vec<Place>>,
}

impl Parent {
    fn new() -> Arc<Self> {
        let catalogue = Mutex::new(Catalogue::open(Db::in_memory()).unwrap());
        Arc::new(Self { catalogue, left: Mutex::new(usize::MAX), asked: Mutex::default() })
    }

    /// Says that these are all updates there are.
    fn has(&self, updates: impl IntoIterator<Item = u32>) {
        let catalogue = self.catalogue.lock().clone();
        let source = "web".parse().unwrap();
        let mut intake = catalogue.intake(&source, 1, Arc::default(), now()).unwrap();
        for n in updates {
            let name = format!("U-{n}");
            let id = UpdateId::named(&[&name]);
            intake.take(Said::Update(Box::new(Update::new(id, &name, "text", now())))).unwrap();
        }
        intake.settle(Extent::Whole).unwrap();
        intake.commit(serde_json::Value::Null).unwrap();
    }
}

impl Upstream for Parent {
    fn page(&self, from: Place) -> BoxFuture<'_, Result<Vec<u8>, SyncError>> {
        self.asked.lock().push(from);
        let mut left = self.left.lock();
        if *left == 0 {
            return Box::pin(async { Err(SyncError::new(Cause::Unreachable, "it is gone")) });
        }
        *left = left.saturating_sub(1);
        let catalogue = self.catalogue.lock().clone();
        let sent = Sent {
            catalogue: catalogue.lineage().into(),
            above: Above {
                top: "https://top:8520".into(),
                criteria: Criteria::default(),
                policy: Policy::default(),
                clients: None,
            },
            page: catalogue.changes(from, 4).unwrap(),
        };
        Box::pin(async move { pack(&sent) })
    }
}

/// A follower with its catalogue and folder.
struct Child {
    catalogue: Catalogue,
    folder: tempfile::TempDir,
    parent: Arc<Parent>,
}

impl Child {
    fn of(parent: &Arc<Parent>) -> Self {
        let catalogue = Catalogue::open(Db::in_memory()).unwrap();
        Self { catalogue, folder: tempfile::tempdir().unwrap(), parent: parent.clone() }
    }

    /// One sync, as the machine does it; how many entries it read, or nothing if there was nothing new.
    async fn sync(&self) -> Result<Option<u64>, SyncError> {
        let following = Following::new(self.parent.clone());
        let run = Run {
            fetcher: Fetcher::new(Patience::default()).unwrap(),
            folder: self.folder.path().to_owned(),
            now: now(),
            criteria: Arc::default(),
            watch: Arc::new(Watch::default()),
        };
        let source = "parent".parse().unwrap();
        let state = self.catalogue.state(&source)?;
        if following.fetch(&run, state.as_ref()).await? == Fetched::Unchanged {
            return Ok(None);
        }
        let mut intake = self.catalogue.intake(&source, 1, Arc::default(), now())?;
        let read = following.read(&run, state.as_ref(), &mut |said| intake.take(said))?;
        intake.settle(read.extent)?;
        intake.commit(read.state)?;
        Ok(Some(run.watch.entries.load(std::sync::atomic::Ordering::Relaxed)))
    }

    fn n(&self) -> u64 {
        self.catalogue.counts().states.get(&crate::lifecycle::State::Current).copied().unwrap_or(0)
    }
}

#[tokio::test]
async fn only_changes_travel_and_what_was_cut_off_goes_on() {
    let parent = Parent::new();
    parent.has(0..10);
    let child = Child::of(&parent);
    *parent.left.lock() = 2;
    child.sync().await.unwrap_err();
    assert_eq!(child.n(), 0, "nothing of it shows");
    *parent.left.lock() = usize::MAX;
    parent.asked.lock().clear();
    assert_eq!(child.sync().await.unwrap(), Some(10));
    assert_eq!(parent.asked.lock().len(), 1, "two pages of three lay there already");
    assert_eq!(child.n(), 10);
    assert_eq!(child.sync().await.unwrap(), None);
    parent.has(1..12);
    assert_eq!(child.sync().await.unwrap(), Some(3), "two came, one went");
    assert_eq!(child.n(), 11);
}

#[tokio::test]
async fn an_empty_catalogue_is_news_once() {
    let parent = Parent::new();
    let child = Child::of(&parent);
    assert_eq!(child.sync().await.unwrap(), Some(0));
    assert_eq!(child.sync().await.unwrap(), None);
    parent.has(0..1);
    assert_eq!(child.sync().await.unwrap(), Some(1));
    parent.has([]);
    assert_eq!(child.sync().await.unwrap(), Some(1));
    *parent.catalogue.lock() = Catalogue::open(Db::in_memory()).unwrap();
    assert_eq!(child.sync().await.unwrap(), Some(0));
    assert_eq!(child.sync().await.unwrap(), None);
}

#[tokio::test]
async fn another_catalogue_is_read_from_its_beginning() {
    let parent = Parent::new();
    parent.has(0..10);
    let child = Child::of(&parent);
    child.sync().await.unwrap();
    // Restored, replaced: the same updates, in another order of changes.
    *parent.catalogue.lock() = Catalogue::open(Db::in_memory()).unwrap();
    parent.has(5..12);
    assert_eq!(child.sync().await.unwrap(), Some(7));
    assert_eq!(child.n(), 7);
    // Also in the middle of reading.
    parent.has(0..30);
    *parent.left.lock() = 2;
    child.sync().await.unwrap_err();
    *parent.catalogue.lock() = Catalogue::open(Db::in_memory()).unwrap();
    parent.has(0..3);
    *parent.left.lock() = usize::MAX;
    child.sync().await.unwrap();
    assert_eq!(child.n(), 3);
}

#[tokio::test]
async fn damaged_pages_and_notes_are_errors_or_are_brought_again() {
    let parent = Parent::new();
    parent.has(0..10);
    let child = Child::of(&parent);
    *parent.left.lock() = 2;
    child.sync().await.unwrap_err();
    *parent.left.lock() = usize::MAX;
    let at = |name: &str| Path::new(child.folder.path()).join(name);
    std::fs::write(at("spool.json"), "{").unwrap();
    assert_eq!(child.sync().await.unwrap(), Some(10));
    parent.has(0..20);
    *parent.left.lock() = 1;
    child.sync().await.unwrap_err();
    *parent.left.lock() = usize::MAX;
    std::fs::write(at("page-000001"), "no page").unwrap();
    let error = child.sync().await.unwrap_err();
    assert_eq!(error.cause, Cause::Malformed, "{error}");
    assert_eq!(child.n(), 10);
    child.sync().await.unwrap();
    assert_eq!(child.n(), 20);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0_usize..10_000, byte: u8, cut in 0_usize..10_000) {
        let parent = Parent::new();
        parent.has(0..3);
        let mut page = futures::executor::block_on(parent.page(Place::default())).unwrap();
        let len = page.len();
        page[at % len] ^= byte;
        super::super::fuzz_page(&page);
        super::super::fuzz_page(&page[..cut % len]);
        // Well packed, and yet something else.
        let mut text = serde_json::to_vec(&super::super::unpack(
            &futures::executor::block_on(parent.page(Place::default())).unwrap(),
        ).unwrap()).unwrap();
        let len = text.len();
        text[at % len] ^= byte;
        super::super::fuzz_page(&zstd::encode_all(&text[..], 1).unwrap());
    }
}

//! How soon does a catalogue of 200,000 updates answer, and how soon does it show a small change? How soon are
//! 20,000 updates taken, and copied to a child?
//! Input: the generated updates, in databases on disk; pages of 100; 60,000 updates that are required
//! somewhere.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod generated;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use sync::adapter::{Extent, Said};
use sync::catalogue::{By, Catalogue, MAX_FEED_PAGE, Order, Place, Query, RequiredCounts};
use sync::name::UpdateId;

const UPDATES: u32 = 200_000;
/// How many are taken and copied.
const TAKEN: u32 = 20_000;

struct Counts(std::collections::HashMap<UpdateId, u64>);

impl RequiredCounts for Counts {
    fn of(&self, update: UpdateId) -> u64 {
        self.0.get(&update).copied().unwrap_or(0)
    }
    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        self.0.iter().for_each(|(id, count)| each(*id, *count));
    }
}

fn answers(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let db = sitedb::Db::open_folder(folder.path()).unwrap();
    let catalogue = Catalogue::open(db).unwrap();
    let (by, now) = ("bench".parse().unwrap(), generated::now(UPDATES));
    let mut intake = catalogue.intake(&by, 1, Arc::default(), now).unwrap();
    generated::products().for_each(|product| intake.take(Said::Product(product)).unwrap());
    let mut counts = Counts(std::collections::HashMap::new());
    for (n, update) in generated::updates(UPDATES).enumerate() {
        if n % 10 < 3 {
            counts.0.insert(update.id, n as u64 % 500);
        }
        intake.take(Said::Update(Box::new(update))).unwrap();
    }
    intake.settle(Extent::Whole).unwrap();
    intake.commit(serde_json::Value::Null).unwrap();

    let mut group = c.benchmark_group("list");
    for (name, text) in generated::filters() {
        let query = Query::new(text.parse().unwrap(), now);
        group.bench_function(name, |b| b.iter(|| catalogue.list(&query, &counts).unwrap().total));
    }
    for by in By::ALL {
        let order = Order { by, descending: true };
        let query = Query { order, ..Query::new("not expired".parse().unwrap(), now) };
        group.bench_function(format!("by_{}", by.as_str()), |b| {
            b.iter(|| catalogue.list(&query, &counts).unwrap().total);
        });
    }
    group.finish();

    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    let mut round = 0;
    group.bench_function("ten_changes", |b| {
        b.iter(|| {
            round += 1;
            let mut intake = catalogue.intake(&by, round, Arc::default(), now).unwrap();
            for n in 0..10 {
                let mut update = generated::update(n * 1_000);
                update.links.insert(format!("https://example.org/{round}"));
                intake.take(Said::Update(Box::new(update))).unwrap();
            }
            intake.settle(Extent::Changes).unwrap();
            intake.commit(serde_json::Value::Null).unwrap()
        });
    });
    group.finish();
}

/// An empty catalogue on disk; dropped before its folder.
fn empty() -> (Catalogue, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Catalogue::open(sitedb::Db::open_folder(folder.path()).unwrap()).unwrap(), folder)
}

fn take(catalogue: &Catalogue) {
    let (by, now) = ("bench".parse().unwrap(), generated::now(TAKEN));
    let mut intake = catalogue.intake(&by, 1, Arc::default(), now).unwrap();
    for update in generated::updates(TAKEN) {
        intake.take(Said::Update(Box::new(update))).unwrap();
    }
    intake.settle(Extent::Whole).unwrap();
    intake.commit(serde_json::Value::Null).unwrap();
}

fn copy(parent: &Catalogue, child: &Catalogue) {
    let (by, mut from) = ("parent".parse().unwrap(), Place::default());
    let mut intake = child.intake(&by, 1, Arc::default(), generated::now(TAKEN)).unwrap();
    loop {
        let page = parent.changes(from, MAX_FEED_PAGE).unwrap();
        let page: sync::catalogue::FeedPage =
            serde_json::from_slice(&serde_json::to_vec(&page).unwrap()).unwrap();
        let (next, is_last) = (page.next, page.is_last);
        let extent = intake.take_feed(page).unwrap();
        from = next;
        if is_last {
            intake.settle(extent).unwrap();
            intake.commit(serde_json::to_value(from).unwrap()).unwrap();
            return;
        }
    }
}

fn taking(c: &mut Criterion) {
    let mut group = c.benchmark_group("take");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(TAKEN)));
    group.bench_function("new", |b| {
        b.iter_batched(
            empty,
            |new| {
                take(&new.0);
                new
            },
            BatchSize::PerIteration,
        );
    });
    let parent = empty();
    take(&parent.0);
    group.bench_function("as_before", |b| b.iter(|| take(&parent.0)));
    group.bench_function("to_a_child", |b| {
        b.iter_batched(
            empty,
            |child| {
                copy(&parent.0, &child.0);
                child
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, answers, taking);
criterion_main!(benches);

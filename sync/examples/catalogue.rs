//! Fills a catalogue with generated updates, reads it again, asks it, copies it to a fresh child, and makes shards
//! of it; tells how long each took, and what a client brings. Run it under `/usr/bin/time -v` to see what memory it needs.
//!
//! `catalogue FOLDER [UPDATES] [fill|same|ask|child|shards]`: all of them, where none is named.
#![allow(clippy::unwrap_used)]

#[path = "../benches/generated/mod.rs"]
#[allow(dead_code)]
mod generated;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::adapter::{Extent, Said};
use sync::catalogue::{By, Catalogue, NoReports, Order, Place, Query};
use sync::shard::blob::{Blobs, Name};
use sync::shard::build::build;
use sync::shard::manifest::{Manifest, Page};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("catalogue FOLDER [UPDATES] [fill|same|ask|child|shards]");
        std::process::exit(2);
    };
    let folder = Path::new(folder);
    let updates = arguments.get(1).map_or(200_000, |text| text.parse().unwrap());
    let part = arguments.get(2).map_or("all", String::as_str);
    let is_asked = |name: &str| part == "all" || part == name;
    let began = Instant::now();
    let parent = open(&folder.join("parent"));
    println!("open: {:?}", began.elapsed());
    for name in ["fill", "same"] {
        if is_asked(name) {
            let began = Instant::now();
            let changes = fill(&parent, updates);
            println!("{name}: {:?}, {} added, {} unchanged", began.elapsed(), changes.0, changes.1);
        }
    }
    if is_asked("ask") {
        ask(&parent, updates);
    }
    if is_asked("child") {
        let child = open(&folder.join("child"));
        for name in ["first", "again"] {
            let began = Instant::now();
            let entries = follow(&child, &parent);
            println!("child, {name}: {:?}, {entries} entries", began.elapsed());
        }
        assert_eq!(child.counts().updates, parent.counts().updates);
    }
    if is_asked("shards") {
        shards(&parent, &folder.join("blobs"), updates);
    }
}

/// Makes shards, changes an update, and makes them again: what of it a client brings.
fn shards(catalogue: &Catalogue, folder: &Path, updates: u32) {
    let blobs = Blobs::open(folder).unwrap();
    let began = Instant::now();
    let first = build(catalogue, &blobs, &|| false).unwrap();
    println!("shards: {:?}", began.elapsed());
    let before = listed(&blobs, &first);
    let size = |names: &BTreeSet<Name>| {
        names.iter().map(|it| blobs.packed(*it).unwrap().unwrap().len()).sum::<usize>()
    };
    println!(
        "first: {} pages, {} blobs of {} bytes, manifest of {} bytes",
        first.pages.len(),
        before.len(),
        size(&before),
        first.text().len()
    );
    let now = generated::now(updates) + jiff::SignedDuration::from_hours(1);
    let by = "generated".parse().unwrap();
    let mut intake = catalogue.intake(&by, 2, Arc::default(), now).unwrap();
    for n in 0..updates {
        let mut update = generated::update(n);
        if n == updates / 2 {
            update.behaviour.needs_network = true;
        }
        intake.take(Said::Update(Box::new(update))).unwrap();
    }
    intake.settle(Extent::Whole).unwrap();
    println!("{} revised", intake.commit(serde_json::Value::Null).unwrap().revised);
    let began = Instant::now();
    let second = build(catalogue, &blobs, &|| false).unwrap();
    println!("shards again: {:?}", began.elapsed());
    let after = listed(&blobs, &second);
    let new: BTreeSet<Name> = after.difference(&before).copied().collect();
    let packed = sync::shard::blob::pack(second.text().as_bytes()).unwrap().len();
    println!(
        "brought: {} blobs of {} bytes, manifest of {} bytes ({packed} compressed)",
        new.len(),
        size(&new),
        second.text().len()
    );
}

fn listed(blobs: &Blobs, manifest: &Manifest) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for listed in &manifest.pages {
        names.insert(listed.part.blob);
        let page = blobs.plain(listed.part.blob, listed.part.bytes).unwrap().unwrap();
        names.extend(Page::parse(&page).unwrap().shards.iter().map(|shard| shard.part.blob));
    }
    names
}

fn open(folder: &Path) -> Catalogue {
    std::fs::create_dir_all(folder).unwrap();
    Catalogue::open(sitedb::Db::open_folder(folder).unwrap()).unwrap()
}

fn fill(catalogue: &Catalogue, updates: u32) -> (u64, u64) {
    let now = generated::now(updates);
    let by = "generated".parse().unwrap();
    let mut intake = catalogue.intake(&by, 1, Arc::default(), now).unwrap();
    generated::products().for_each(|product| intake.take(Said::Product(product)).unwrap());
    for update in generated::updates(updates) {
        intake.take(Said::Update(Box::new(update))).unwrap();
    }
    intake.settle(Extent::Whole).unwrap();
    let changes = intake.commit(serde_json::Value::Null).unwrap();
    (changes.added, changes.unchanged)
}

/// Asks by every filter in every order, first and middle pages.
fn ask(catalogue: &Catalogue, updates: u32) {
    let mut took: Vec<(Duration, String)> = Vec::new();
    for round in 0..6 {
        for (name, text) in generated::filters() {
            for by in By::ALL {
                let order = Order { by, descending: round % 2 == 0 };
                let now = generated::now(updates);
                let mut query = Query { order, ..Query::new(text.parse().unwrap(), now) };
                for _ in 0..3 {
                    let began = Instant::now();
                    let page = catalogue.list(&query, &NoReports).unwrap();
                    took.push((began.elapsed(), format!("{name} by {order}")));
                    query.after = page.next;
                }
            }
        }
    }
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].0;
    println!("lists: {} asked, median {:?}, p99 {:?}", took.len(), at(0.5), at(0.99));
    println!("the longest: {:?}", took.last().unwrap());
}

fn follow(child: &Catalogue, parent: &Catalogue) -> usize {
    let by = "parent".parse().unwrap();
    let state = child.state(&by).unwrap();
    let mut from: Place = state.map_or(Place::default(), |it| serde_json::from_value(it).unwrap());
    let mut intake = child.intake(&by, 1, Arc::default(), generated::now(1)).unwrap();
    let mut entries = 0;
    loop {
        // As it travels.
        let json = serde_json::to_vec(&parent.changes(from, 1_000).unwrap()).unwrap();
        let page: sync::catalogue::FeedPage = serde_json::from_slice(&json).unwrap();
        entries += page.entries.len();
        let (next, is_last) = (page.next, page.is_last);
        let extent = intake.take_feed(page).unwrap();
        from = next;
        if is_last {
            intake.settle(extent).unwrap();
            intake.commit(serde_json::to_value(from).unwrap()).unwrap();
            return entries;
        }
    }
}

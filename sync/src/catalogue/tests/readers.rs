//! Readers see one commit or the next one, and many syncs at once come to what each alone says.

use super::*;
use crate::filter::Filter;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn readers_see_the_old_catalogue_or_the_new_one() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let all = |round: usize| (0..60).map(move |n| update(n, &format!("round {round}"), 0));
    whole(&catalogue, "s", all(0), day(0)).unwrap();
    let (ended, catalogue) = (&AtomicBool::new(false), &catalogue);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let query = Query { limit: 100, ..Query::new(Filter::all(), day(0)) };
                    let page = catalogue.list(&query, &NoReports).unwrap();
                    let titles: BTreeSet<_> =
                        page.updates.iter().map(|listed| listed.card.title.clone()).collect();
                    assert_eq!((page.updates.len(), page.total), (60, 60));
                    assert_eq!(titles.len(), 1, "{titles:?}");
                    assert!(catalogue.entry(id(7)).unwrap().is_some());
                    assert_eq!(catalogue.changes(Place::default(), 100).unwrap().entries.len(), 60);
                }
            });
        }
        for round in 1..40 {
            whole(catalogue, "s", all(round), day(round as i64)).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_tidy(catalogue);
}

#[test]
fn fifty_overlapping_syncs_neither_wait_for_each_other_nor_duplicate() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let shared = &catalogue;
    std::thread::scope(|scope| {
        for by in 0..10_u32 {
            scope.spawn(move || {
                for round in 0..5_u32 {
                    // Each update is said by several sources.
                    let said = (0..40).filter(|n| (n + by + round) % 3 != 0);
                    let updates = said.map(|n| update(n, &format!("{by} {}", n % 2), 0));
                    whole(shared, &format!("s{by}"), updates, day(i64::from(round))).unwrap();
                }
            });
        }
    });
    assert_eq!(catalogue.counts().updates, 40);
    for n in 0..40 {
        let entry = catalogue.entry(id(n)).unwrap().unwrap();
        let want: BTreeSet<_> = (0..10)
            .filter(|by| (n + by + 4) % 3 != 0)
            .map(|by| source(&format!("s{by}")))
            .collect();
        assert_eq!(entry.sources.iter().cloned().collect::<BTreeSet<_>>(), want);
        assert_eq!(Some(&entry.source), want.first());
    }
    assert_tidy(&catalogue);
}

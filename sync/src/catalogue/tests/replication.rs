//! A child site that reads the feed comes to what its parent has.

use super::*;
use crate::filter::Filter;
use crate::lifecycle::{Wait, Why};
use proptest::prelude::*;

/// Reads the feed until there is no more; how many entries came.
fn follow(child: &Catalogue, parent: &Catalogue, page: usize, now: i64) -> usize {
    let by = source("parent");
    let mut from: Place = child
        .state(&by)
        .unwrap()
        .map_or(Place::default(), |it| serde_json::from_value(it).unwrap());
    let mut intake = child.intake(&by, now as u64, Arc::default(), day(now)).unwrap();
    let mut entries = 0;
    loop {
        // As it travels.
        let json = serde_json::to_vec(&parent.changes(from, page).unwrap()).unwrap();
        let page: FeedPage = serde_json::from_slice(&json).unwrap();
        assert!(page.is_last || page.next.after > from.after, "it goes on");
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

/// What both must agree on: the update, its revision, whether it is expired, how far its life is.
fn agreed(catalogue: &Catalogue) -> Vec<(Update, u32, bool, State)> {
    let query = Query { limit: MAX_PAGE, ..Query::new(Filter::all(), day(0)) };
    let page = catalogue.list(&query, &NoReports).unwrap();
    let mut all: Vec<_> = page
        .updates
        .iter()
        .map(|listed| {
            let entry = catalogue.entry(listed.id).unwrap().unwrap();
            (entry.update, entry.revision, entry.expired.is_some(), entry.state)
        })
        .collect();
    all.sort_by_key(|(update, ..)| update.id);
    all
}

/// What happens at the parent: each source's whole word, updates by number, with text and what they replace.
type Round = (u8, BTreeMap<u32, (u8, Vec<u32>)>);

fn round() -> impl Strategy<Value = Round> {
    let word = (0_u8..3, prop::collection::vec(0_u32..8, 0..2));
    (0_u8..2, prop::collection::btree_map(0_u32..8, word, 0..6))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_child_that_reads_now_and_then_has_what_its_parent_has(
        rounds in prop::collection::vec((round(), prop::option::of(1_usize..4)), 1..10)
    ) {
        let parent = Catalogue::open(Db::in_memory()).unwrap();
        let child = Catalogue::open(Db::in_memory()).unwrap();
        let policy = Policy { supersedence: Wait::Months(1), purge_after_days: None, ..Policy::default() };
        let mut now = 0;
        for ((by, words), reads) in rounds {
            now += 20;
            let updates = words.iter().map(|(n, (word, over))| Update {
                supersedes: over.iter().map(|n| id(*n)).collect(),
                ..update(*n, &format!("{word}"), i64::from(*n))
            });
            whole(&parent, &format!("s{by}"), updates, day(now)).unwrap();
            parent.age(&policy, &NothingDeployed, day(now), 100).unwrap();
            if let Some(page) = reads {
                follow(&child, &parent, page, now);
                prop_assert_eq!(agreed(&child), agreed(&parent));
                prop_assert_eq!(follow(&child, &parent, page, now), 0, "nothing travels twice");
            }
        }
        follow(&child, &parent, 3, now);
        prop_assert_eq!(agreed(&child), agreed(&parent));
        assert_tidy(&child);
    }
}

#[test]
fn a_child_that_was_away_reads_each_update_once_however_often_it_changed() {
    let parent = Catalogue::open(Db::in_memory()).unwrap();
    let child = Catalogue::open(Db::in_memory()).unwrap();
    let all =
        |round: i64| (0..30).map(move |n| update(n, &format!("{}", round * i64::from(n % 2)), 0));
    whole(&parent, "s", all(0), day(0)).unwrap();
    assert_eq!(follow(&child, &parent, 7, 0), 30);
    for round in 1..50 {
        whole(&parent, "s", all(round), day(round)).unwrap();
    }
    assert_eq!(follow(&child, &parent, 7, 50), 15);
    assert_eq!(agreed(&child), agreed(&parent));
}

#[test]
fn products_travel_when_their_list_changed() {
    let parent = Catalogue::open(Db::in_memory()).unwrap();
    let child = Catalogue::open(Db::in_memory()).unwrap();
    let product = |id: &str| {
        Said::Product(Product { id: id.into(), name: id.to_uppercase(), family: "F".into() })
    };
    let say = |all: &[&str], at| {
        let all = all.iter().map(|id| product(id)).chain([said(update(1, "x", 0))]);
        sync(&parent, "s", Extent::Whole, all, day(at), Criteria::default()).unwrap();
    };
    say(&["a", "b"], 1);
    follow(&child, &parent, 1, 1);
    assert_eq!(child.products(), parent.products());
    assert!(
        parent
            .changes(Place { since: parent.seq(), after: parent.seq() }, 9)
            .unwrap()
            .products
            .is_none()
    );
    say(&["b", "c"], 2);
    follow(&child, &parent, 1, 2);
    assert_eq!(child.products(), parent.products());
    assert_eq!(child.products().len(), 2);
}

#[test]
fn what_the_parent_purged_is_withdrawn_at_the_child_and_stays_while_it_is_deployed_there() {
    struct Deployed;
    impl Deployments for Deployed {
        fn of(&self, _: UpdateId) -> Use {
            Use::Deployed
        }
    }
    let parent = Catalogue::open(Db::in_memory()).unwrap();
    let child = Catalogue::open(Db::in_memory()).unwrap();
    let policy = Policy { purge_after_days: Some(10), ..Policy::default() };
    whole(&parent, "s", [update(1, "x", 0), update(2, "y", 0)], day(0)).unwrap();
    follow(&child, &parent, 10, 0);
    whole(&parent, "s", [update(2, "y", 0)], day(1)).unwrap();
    follow(&child, &parent, 10, 1);
    let expired = |catalogue: &Catalogue| catalogue.entry(id(1)).unwrap().unwrap().expired;
    assert_eq!(expired(&child), Some(Expiry { at: day(1), why: Why::Withdrawn }));
    assert_eq!(parent.age(&policy, &NothingDeployed, day(12), 9).unwrap().purge, 1);
    assert_eq!(follow(&child, &parent, 10, 12), 1);
    child.age(&policy, &Deployed, day(40), 9).unwrap();
    assert_eq!(expired(&child), Some(Expiry { at: day(1), why: Why::Withdrawn }));
    child.age(&policy, &NothingDeployed, day(40), 9).unwrap();
    assert_eq!(agreed(&child), agreed(&parent));
    assert_tidy(&child);
    let fresh = Catalogue::open(Db::in_memory()).unwrap();
    assert_eq!(follow(&fresh, &parent, 10, 50), 1, "a mark is nothing to whom it is new");
}

#[test]
fn a_child_of_another_past_reads_all_anew() {
    let parent = Catalogue::open(Db::in_memory()).unwrap();
    let child = Catalogue::open(Db::in_memory()).unwrap();
    whole(&parent, "s", (0..9).map(|n| update(n, "x", 0)), day(0)).unwrap();
    follow(&child, &parent, 4, 0);
    // The parent was set up anew, and has less.
    let parent = Catalogue::open(Db::in_memory()).unwrap();
    whole(&parent, "s", (5..7).map(|n| update(n, "new", 0)), day(1)).unwrap();
    follow(&child, &parent, 4, 1);
    let current = "current".parse().unwrap();
    let page = child.list(&Query::new(current, day(1)), &NoReports).unwrap();
    assert_eq!(page.total, 2);
    assert!(page.updates.iter().all(|listed| listed.card.title == "new"));
}

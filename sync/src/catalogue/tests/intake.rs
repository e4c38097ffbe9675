//! What of that which sources say is taken, and what becomes of it.

use super::*;
use crate::lifecycle::Why;
use crate::rule::{MAX_DEPTH, Rule};
use crate::taxonomy::Severity;
use crate::update::{AnyOf, Kind, Publication};

fn catalogue() -> Catalogue {
    Catalogue::open(Db::in_memory()).unwrap()
}

fn entry(catalogue: &Catalogue, n: u32) -> Entry {
    catalogue.entry(id(n)).unwrap().unwrap()
}

fn revised(mut update: Update, revision: u32) -> Update {
    update.revision = Some(revision);
    update
}

#[test]
fn a_sync_tells_what_it_changes() {
    let catalogue = catalogue();
    let counts = |changes: Changes| {
        [changes.added, changes.revised, changes.unchanged, changes.gone, changes.outside]
    };
    let first = [update(1, "a", 0), update(2, "b", 0), update(3, "c", 0)];
    assert_eq!(counts(whole(&catalogue, "s", first.clone(), day(1)).unwrap()), [3, 0, 0, 0, 0]);
    let seq = catalogue.seq();
    assert_eq!(counts(whole(&catalogue, "s", first, day(2)).unwrap()), [0, 0, 3, 0, 0]);
    assert_eq!(catalogue.seq(), seq, "nothing changed");
    let other = [update(1, "a", 0), update(2, "B", 0), update(4, "d", 0)];
    let changes = whole(&catalogue, "s", other, day(3)).unwrap();
    assert_eq!(counts(changes), [1, 1, 1, 1, 0]);
    assert_eq!(changes.seq, catalogue.seq());
    let (two, three) = (entry(&catalogue, 2), entry(&catalogue, 3));
    assert_eq!((two.revision, two.first_seen, two.changed), (2, day(1), day(3)));
    assert_eq!(three.expired, Some(Expiry { at: day(3), why: Why::Withdrawn }));
    assert_eq!(three.sources, []);
    assert_eq!(catalogue.counts().updates, 4);
    assert_tidy(&catalogue);
}

#[test]
fn what_was_withdrawn_and_is_said_again_is_current_again() {
    let catalogue = catalogue();
    whole(&catalogue, "s", [update(1, "a", 0)], day(1)).unwrap();
    whole(&catalogue, "s", [], day(2)).unwrap();
    assert_eq!(entry(&catalogue, 1).state, State::Expired);
    whole(&catalogue, "s", [update(1, "a", 0)], day(3)).unwrap();
    let again = entry(&catalogue, 1);
    assert_eq!((again.state, again.expired, again.revision), (State::Current, None, 1));
    assert_tidy(&catalogue);
}

#[test]
fn an_update_that_its_upstream_took_back_is_expired_at_once() {
    let catalogue = catalogue();
    let back = Update { publication: Publication::Expired, ..update(1, "a", 0) };
    whole(&catalogue, "s", [back], day(1)).unwrap();
    assert_eq!(entry(&catalogue, 1).expired.unwrap().why, Why::Upstream);
    whole(&catalogue, "s", [update(1, "a", 0)], day(2)).unwrap();
    assert_eq!(entry(&catalogue, 1).state, State::Current);
}

#[test]
fn of_what_is_said_twice_the_higher_revision_counts_and_then_the_later() {
    let catalogue = catalogue();
    let all = [
        revised(update(1, "old", 0), 100),
        revised(update(1, "new", 0), 201),
        revised(update(1, "older", 0), 7),
        update(2, "first", 0),
        update(2, "second", 0),
        update(3, "said", 0),
    ];
    let twice = all.map(said).into_iter().chain([Said::Gone(id(3))]);
    let changes = sync(&catalogue, "s", Extent::Whole, twice, day(1), Criteria::default()).unwrap();
    assert_eq!(changes.added, 2);
    assert_eq!(entry(&catalogue, 1).update.text(&[]).unwrap().title, "new");
    assert_eq!(entry(&catalogue, 1).revision, 201);
    assert_eq!(entry(&catalogue, 2).update.text(&[]).unwrap().title, "second");
    assert_eq!(catalogue.entry(id(3)).unwrap(), None);
    assert_tidy(&catalogue);
}

#[test]
fn one_source_has_one_intake_and_dropping_it_lets_the_next_one_in() {
    let catalogue = catalogue();
    let begin = || catalogue.intake(&source("s"), 1, Arc::default(), day(0));
    let mut intake = begin().unwrap();
    for n in 0..20 {
        intake.take(said(update(n, "never", 0))).unwrap();
    }
    assert_eq!(begin().err().unwrap().cause, Cause::Busy);
    drop(intake);
    drop(begin().unwrap());
    assert_eq!(catalogue.counts(), Counts::default());
    assert_tidy(&catalogue);
}

#[test]
fn two_sources_of_one_update_are_one_entry_in_the_words_of_the_first() {
    let catalogue = catalogue();
    whole(&catalogue, "vendor", [update(1, "of vendor", 0)], day(1)).unwrap();
    whole(&catalogue, "mirror", [update(1, "of mirror", 0)], day(2)).unwrap();
    let shown = || {
        let entry = entry(&catalogue, 1);
        (entry.source.to_string(), entry.sources.len(), entry.update.texts.into_values().next())
    };
    assert_eq!((shown().0.as_str(), shown().1), ("mirror", 2), "by name, where nothing is set");
    assert_eq!(catalogue.prefer(&[source("vendor")], day(3)).unwrap(), 1);
    assert_eq!(shown().0, "vendor");
    assert_eq!(shown().2.unwrap().title, "of vendor");
    whole(&catalogue, "vendor", [], day(4)).unwrap();
    assert_eq!((shown().0.as_str(), shown().1), ("mirror", 1));
    catalogue.forget(&source("mirror"), day(5)).unwrap();
    assert_eq!((shown().0.as_str(), shown().1), ("mirror", 0), "what was shown last stays");
    assert_eq!(catalogue.state(&source("mirror")).unwrap(), None);
    assert_tidy(&catalogue);
}

/// An update for these products.
fn product(n: u32, products: &[&str]) -> Update {
    let products = products.iter().map(ToString::to_string).collect();
    Update { products, classification: Some(Classification::Security), ..update(n, "x", 0) }
}

fn for_products(products: &[&str]) -> Criteria {
    let products = products.iter().map(ToString::to_string).collect();
    Criteria { products, ..Criteria::default() }
}

fn windows() -> [Said; 2] {
    ["w10", "w11"].map(|id| {
        Said::Product(Product {
            id: id.into(),
            name: format!("Windows {}", &id[1..]),
            family: "Windows".into(),
        })
    })
}

#[test]
fn what_the_criteria_leave_out_is_not_taken_and_expires_when_they_shrink() {
    for extent in [Extent::Whole, Extent::Changes] {
        let catalogue = catalogue();
        let all = || {
            let updates = [product(1, &["w10"]), product(2, &["w10", "w11"]), product(3, &["o"])];
            windows().into_iter().chain(updates.map(said))
        };
        let sync = |said: Vec<Said>, products: &[&str], at| {
            sync(&catalogue, "s", extent, said, day(at), for_products(products)).unwrap()
        };
        let changes = sync(all().collect(), &["windows"], 1);
        assert_eq!((changes.added, changes.outside), (2, 0));
        assert_eq!(catalogue.entry(id(3)).unwrap(), None);
        // A list of changes says nothing of the updates: they are judged as they are held.
        let said = if extent == Extent::Whole { all().collect() } else { Vec::new() };
        let changes = sync(said, &["w11"], 2);
        assert_eq!((changes.outside, changes.gone), (1, 0));
        let one = entry(&catalogue, 1);
        assert_eq!(one.expired, Some(Expiry { at: day(2), why: Why::Criteria }));
        assert_eq!(entry(&catalogue, 2).state, State::Current, "one of its products is wanted");
        sync(all().collect(), &["Windows 10"], 3);
        assert_eq!(entry(&catalogue, 1).state, State::Current);
        assert_tidy(&catalogue);
    }
}

#[test]
fn parts_that_say_no_product_are_taken_if_something_wanted_needs_them() {
    let catalogue = catalogue();
    let group =
        |ids: &[u32]| AnyOf { ids: ids.iter().map(|n| id(*n)).collect(), is_category: false };
    let bundle = |n, products: &[&str], parts: &[u32]| Update {
        bundles: vec![group(parts)],
        ..product(n, products)
    };
    let part = |n, needs: &[u32]| Update {
        classification: None,
        prerequisites: vec![group(needs)],
        ..product(n, &[])
    };
    let detectoid = Update { kind: Kind::Detectoid, ..update(9, "is Windows", 0) };
    let all = || {
        let all = [
            part(4, &[]),
            part(3, &[4]),
            bundle(1, &["w11"], &[3]),
            part(5, &[]),
            bundle(2, &["w10"], &[5]),
            detectoid.clone(),
        ];
        all.map(said)
    };
    let here =
        || (1..10).filter(|n| catalogue.entry(id(*n)).unwrap().is_some()).collect::<Vec<_>>();
    sync(&catalogue, "s", Extent::Whole, all(), day(1), for_products(&["w11"])).unwrap();
    assert_eq!(here(), [1, 3, 4, 9]);
    assert_eq!(catalogue.counts().updates, 3, "a detectoid is no update");
    assert_tidy(&catalogue);
    sync(&catalogue, "s", Extent::Whole, all(), day(2), for_products(&["w10"])).unwrap();
    assert_eq!(entry(&catalogue, 3).expired.unwrap().why, Why::Criteria);
    assert_eq!(entry(&catalogue, 5).state, State::Current);
    assert_tidy(&catalogue);
}

#[test]
fn products_are_listed_with_their_updates() {
    let catalogue = catalogue();
    let updates = [product(1, &["w10"]), product(2, &["w10", "w11"]), product(3, &["unnamed"])];
    let all = windows().into_iter().chain(updates.map(said));
    sync(&catalogue, "s", Extent::Whole, all, day(1), Criteria::default()).unwrap();
    let listed = || {
        let products = catalogue.products().into_iter();
        products.map(|it| format!("{} {} {}", it.product.id, it.product.name, it.updates))
    };
    let want = ["unnamed unnamed 1", "w10 Windows 10 2", "w11 Windows 11 1"];
    assert_eq!(listed().collect::<Vec<_>>(), want);
    whole(&catalogue, "s", [product(1, &["w10"])], day(2)).unwrap();
    // The source names no product any more: they keep their names as long as updates are for them.
    let want = ["unnamed unnamed 1", "w10 Windows 10 2", "w11 Windows 11 1"];
    assert_eq!(listed().collect::<Vec<_>>(), want);
    assert_tidy(&catalogue);
    let seq = catalogue.seq();
    let policy = Policy { purge_after_days: Some(1), ..Policy::default() };
    assert_eq!(catalogue.age(&policy, &NothingDeployed, day(9), 99).unwrap().purge, 2);
    assert_eq!(listed().collect::<Vec<_>>(), ["w10 Windows 10 1"]);
    let page = catalogue.changes(Place { since: seq, after: seq }, 99).unwrap();
    assert_eq!(page.products.unwrap().len(), 1, "a child hears of it");
    assert_tidy(&catalogue);
}

#[test]
fn rings_and_dangling_names_of_what_is_superseded_do_no_harm() {
    let catalogue = catalogue();
    let over = |n, supersedes: &[u32]| Update {
        supersedes: supersedes.iter().map(|n| id(*n)).collect(),
        severity: Some(Severity::Low),
        ..update(n, "x", i64::from(n))
    };
    // 1 and 2 replace each other, 3 replaces 2 and something unknown, 4 itself, 5 is of a chain of old.
    let all = [over(1, &[2]), over(2, &[1]), over(3, &[2, 77]), over(4, &[4]), over(5, &[3])];
    whole(&catalogue, "s", all, day(9)).unwrap();
    let states: Vec<_> = (1..6).map(|n| entry(&catalogue, n).state).collect();
    use State::{Current, Superseded};
    assert_eq!(states, [Current, Superseded, Superseded, Current, Current]);
    let two = entry(&catalogue, 2);
    assert_eq!(two.superseded_by, [Named { id: id(3), name: "U-3".into() }]);
    assert_eq!(entry(&catalogue, 3).supersedes, [Named { id: id(2), name: "U-2".into() }]);
}

#[test]
fn hostile_sizes_are_refused_and_leave_nothing() {
    let catalogue = catalogue();
    let mut huge = update(1, "x", 0);
    huge.original = Some("x".repeat(33 << 20));
    let mut intake = catalogue.intake(&source("s"), 1, Arc::default(), day(0)).unwrap();
    intake.take(said(update(2, "y", 0))).unwrap();
    assert_eq!(intake.take(said(huge)).unwrap_err().cause, Cause::TooLarge);
    intake.commit(serde_json::Value::Null).unwrap_err();
    assert_eq!(catalogue.counts(), Counts::default());
    drop(catalogue.intake(&source("s"), 2, Arc::default(), day(0)).unwrap());
    assert_tidy(&catalogue);
}

#[test]
fn rules_as_deep_as_they_may_be_are_read_again_and_travel() {
    let catalogue = catalogue();
    let deep = |levels: usize| {
        let rule =
            (1..levels).fold(Rule::Codename("[\"{\\".into()), |rule, _| Rule::And(vec![rule]));
        let mut update = update(1, "deep", 0);
        update.rules.installable = Some(rule);
        update
    };
    whole(&catalogue, "s", [deep(MAX_DEPTH)], day(0)).unwrap();
    assert_eq!(entry(&catalogue, 1).update, deep(MAX_DEPTH));
    let page = serde_json::to_vec(&catalogue.changes(Place::default(), 9).unwrap()).unwrap();
    serde_json::from_slice::<FeedPage>(&page).unwrap();
    let refused = whole(&catalogue, "s", [deep(MAX_DEPTH * 2)], day(1)).unwrap_err();
    assert_eq!(refused.cause, Cause::TooLarge);
    assert_eq!(entry(&catalogue, 1).update, deep(MAX_DEPTH));
}

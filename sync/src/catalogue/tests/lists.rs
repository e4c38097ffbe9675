//! Lists are what a plain look at every update comes to.

use super::*;
use crate::filter::tests::{expr, plainly};
use crate::filter::{Filter, Flags};
use crate::lifecycle::Use;
use crate::taxonomy::Severity;
use crate::update::{File, Item, Kind};
use proptest::prelude::*;
use std::collections::HashMap;

/// Counts that a test sets.
#[derive(Default)]
pub(crate) struct Counted(pub HashMap<UpdateId, u64>);

impl RequiredCounts for Counted {
    fn of(&self, update: UpdateId) -> u64 {
        self.0.get(&update).copied().unwrap_or(0)
    }
    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        self.0.iter().for_each(|(id, count)| each(*id, *count));
    }
}

/// Two hundred updates that have of everything something.
pub(crate) fn varied() -> (Catalogue, Counted) {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let of = |n: u32, all: &[&str]| all[n as usize % all.len()].to_string();
    let some = |n: u32| {
        let mut it =
            update(n, &of(n, &["OpenSSL fix", "Kernel (x)", "Zlib", "Ünïcode"]), i64::from(n % 50));
        it.classification = Classification::ALL.get(n as usize % 15).copied();
        it.severity = Severity::ALL.get(n as usize % 5).copied();
        it.kind = [Kind::Software, Kind::Software, Kind::Driver, Kind::Category][n as usize % 4];
        it.released = (!n.is_multiple_of(3)).then(|| day(i64::from(n % 70)));
        it.products = (0..n % 3).map(|k| of(n + k, &["p1", "p2", "debian-12"])).collect();
        it.articles = (0..n % 2).map(|_| format!("KB{}", n % 30)).collect();
        it.cves = (0..n % 4).map(|k| format!("CVE-2026-{}", (n + k) % 40)).collect();
        it.supersedes = (n % 6 == 5).then(|| id(n - 3)).into_iter().collect();
        let language = n.is_multiple_of(5).then(|| of(n, &["de", "fr"]).parse().unwrap());
        it.items = vec![Item {
            files: vec![File { language, size: u64::from(n % 9) * 25, ..File::default() }],
            ..Item::default()
        }];
        it
    };
    let product = |id: &str, name: &str, family: &str| {
        Said::Product(Product { id: id.into(), name: name.into(), family: family.into() })
    };
    for by in 0..3 {
        let products = [product("p1", "First", "Fam"), product("debian-12", "Debian 12", "Debian")];
        let updates = (0..200).filter(|n| n % 4 == by || n % 7 == by).map(some).map(said);
        let all = products.into_iter().chain(updates);
        let by = format!("s{by}");
        sync(&catalogue, &by, Extent::Whole, all, day(60), Criteria::default()).unwrap();
    }
    // Some are withdrawn.
    whole(&catalogue, "s2", (0..200).filter(|n| n % 8 == 2).map(some), day(61)).unwrap();
    let counted = (0..200).filter(|n| n % 3 == 0).map(|n| (id(n), u64::from(n)));
    (catalogue, Counted(counted.collect()))
}

/// Every fifth update is deployed.
struct EveryFifth;

impl Deployments for EveryFifth {
    fn of(&self, update: UpdateId) -> Use {
        match (0..200).find(|n| id(*n) == update) {
            Some(n) if n % 5 == 0 => Use::Deployed,
            Some(n) if n % 5 == 1 => Use::Until(day(1)),
            _ => Use::Never,
        }
    }
}

const NOW: i64 = 65;

fn query(text: &str) -> Query {
    let deployments: Arc<dyn Deployments> = Arc::new(EveryFifth);
    let query = Query::new(text.parse().unwrap(), day(NOW));
    Query { limit: MAX_PAGE, deployments: Some(deployments), ..query }
}

fn total(catalogue: &Catalogue, counts: &Counted, text: &str) -> u64 {
    catalogue.list(&query(text), counts).unwrap().total
}

#[test]
fn a_filter_lets_through_what_a_plain_look_does() {
    let (catalogue, counts) = varied();
    let all: Vec<Entry> = (0..200).filter_map(|n| catalogue.entry(id(n)).unwrap()).collect();
    let products = catalogue.products();
    assert!(all.len() > 120);
    let run = |expr: crate::filter::Expr| {
        let filter = Filter(expr);
        let page = catalogue.list(&Query { filter: filter.clone(), ..query("") }, &counts).unwrap();
        let found: BTreeSet<UpdateId> = page.updates.iter().map(|listed| listed.id).collect();
        let want: BTreeSet<UpdateId> = all
            .iter()
            .filter(|entry| {
                let id = entry.update.id;
                let known = (counts.of(id), EveryFifth.of(id) == Use::Deployed);
                plainly(&filter, entry, &products, known, day(NOW))
            })
            .map(|entry| entry.update.id)
            .collect();
        prop_assert_eq!(found, want, "{}", filter);
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    runner.run(&expr(), run).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn pages_follow_each_other_in_order_without_gap_or_overlap(
        by in prop::sample::select(By::ALL.to_vec()), descending: bool, limit in 1_usize..60
    ) {
        let (catalogue, counts) = varied();
        let order = Order { by, descending };
        let all = catalogue.list(&Query { order, ..query("") }, &counts).unwrap().updates;
        let key = |it: &Listed| {
            let severity = it.card.severity.map_or(0, |severity| severity as i64 + 1);
            let released = it.card.released.as_second();
            let key = match by {
                By::Released => (released, 0, String::new()),
                By::Created => (it.card.created.as_second(), 0, String::new()),
                By::FirstSeen | By::Changed => (it.first_seen.as_second(), 0, String::new()),
                By::Title => (0, 0, it.card.title.to_lowercase()),
                By::Severity => (severity, released, String::new()),
                By::Required => (it.required as i64, released, String::new()),
            };
            (key, it.id)
        };
        let mut want = all.clone();
        want.sort_by_key(key);
        if descending {
            want.reverse();
        }
        let ids = |all: &[Listed]| all.iter().map(|it| it.id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&all), ids(&want));
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = catalogue.list(&Query { order, limit, after, ..query("") }, &counts).unwrap();
            prop_assert_eq!(page.total as usize, all.len());
            found.extend(page.updates);
            let Some(next) = page.next else { break };
            // As it travels.
            after = Some(next.to_string().parse::<Cursor>().unwrap());
        }
        prop_assert_eq!(ids(&found), ids(&all));
    }
}

#[test]
fn a_page_goes_on_at_its_place_though_the_update_there_is_gone() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let all = || (0..10).map(|n| update(n, "x", i64::from(n)));
    whole(&catalogue, "s", all(), day(20)).unwrap();
    let first = Query { limit: 4, ..query("") };
    let page = catalogue.list(&first, &NoReports).unwrap();
    assert_eq!(page.updates.last().unwrap().card.name, "U-6");
    whole(&catalogue, "s", all().filter(|update| update.id != id(6)), day(21)).unwrap();
    let policy = Policy { purge_after_days: Some(0), ..Policy::default() };
    catalogue.age(&policy, &NothingDeployed, day(22), 9).unwrap();
    assert_eq!(catalogue.entry(id(6)).unwrap(), None);
    let next = catalogue.list(&Query { after: page.next, ..first }, &NoReports).unwrap();
    let names: Vec<_> = next.updates.iter().map(|it| it.card.name.as_str()).collect();
    assert_eq!(names, ["U-5", "U-4", "U-3", "U-2"]);
    let order = "title".parse().unwrap();
    let other = Query { after: next.next, order, ..query("") };
    assert_eq!(catalogue.list(&other, &NoReports).unwrap_err().cause, Cause::Misconfigured);
    assert!("1.2.3".parse::<Cursor>().is_err());
}

#[test]
fn categories_are_listed_only_where_a_kind_is_asked_for() {
    let (catalogue, counts) = varied();
    let (updates, categories) =
        (total(&catalogue, &counts, ""), total(&catalogue, &counts, "kind = category"));
    assert!(categories > 20);
    let all = "kind in (software, driver, category, detectoid)";
    assert_eq!(total(&catalogue, &counts, all), updates + categories);
    assert_eq!(catalogue.counts().updates, updates);
}

#[test]
fn without_reports_nothing_is_required() {
    let (catalogue, counts) = varied();
    let page = catalogue.list(&query("required > 0"), &NoReports).unwrap();
    assert_eq!(page.total, 0);
    let page = catalogue.list(&query("required = 0"), &NoReports).unwrap();
    assert_eq!(page.total, catalogue.counts().updates);
    assert!(total(&catalogue, &counts, "required > 50") > 20);
}

#[test]
fn names_that_nothing_has_are_hinted_at() {
    let (catalogue, counts) = varied();
    let hints = |text: &str| catalogue.list(&query(text), &counts).unwrap().hints;
    assert_eq!(
        hints("product = debain-12 or source = elsewhere"),
        [
            "no update has the source \"elsewhere\"",
            "no update has the product \"debain-12\"; did you mean \"debian-12\"?"
        ]
    );
    assert_eq!(hints("product in ('DEBIAN 12', debian, p2)"), [""; 0]);
}

#[test]
fn an_update_is_found_by_id_name_or_article() {
    let (catalogue, _) = varied();
    let by_name = catalogue.get("u-9").unwrap();
    assert_eq!(by_name.update.id, id(9));
    assert_eq!(catalogue.get(&id(9).to_string().to_uppercase()).unwrap(), by_name);
    let error = |what: &str| {
        let error = catalogue.get(what).unwrap_err();
        (error.cause, error.to_string())
    };
    let (cause, text) = error("u-19");
    assert_eq!(cause, Cause::NotFound);
    assert!(text.contains("no update is called \"u-19\"; near it: U-19"), "{text}");
    let (cause, text) = error("kb9");
    assert_eq!(cause, Cause::Misconfigured);
    assert!(text.contains("updates are called \"kb9\"") && text.contains("(U-9)"), "{text}");
    assert_eq!(error("nowhere").1, "no update is called \"nowhere\"");
    assert_eq!(error(&id(500).to_string()).0, Cause::NotFound);
}

#[test]
fn options_make_the_filter_that_they_say() {
    let flags = Flags {
        classifications: vec![Classification::Security, Classification::Critical],
        severities: vec![Severity::Critical],
        products: vec!["Debian 12".into()],
        states: vec![State::Current],
        released_within: Some("30d".into()),
        released_before: Some(day(60)),
        search: Some("openssl  fix".into()),
        cves: vec!["CVE-2026-0001".into()],
        required_on: Some(">50".into()),
        filter: Some("title ~ x or title ~ y".into()),
        ..Flags::default()
    };
    let want = "classification in (security, critical) and severity = critical and \
        product = 'Debian 12' and state = current and cve = CVE-2026-0001 and released >= 30d ago and \
        released < 2026-03-02T00:00:00Z and required > 50 and text ~ openssl and text ~ fix and \
        (title ~ x or title ~ y)";
    assert_eq!(flags.filter().unwrap().to_string(), want);
    assert_eq!(Flags::default().filter().unwrap(), Filter::all());
    let wrong = |flags: Flags| flags.filter().unwrap_err().to_string();
    let text = wrong(Flags { released_within: Some("month".into()), ..Flags::default() });
    assert!(text.contains("1d"), "{text}");
    let text = wrong(Flags { required_on: Some("many".into()), ..Flags::default() });
    assert!(text.contains("'>50'"), "{text}");
    let text = wrong(Flags { search: Some("x ".repeat(40)), ..Flags::default() });
    assert!(text.contains("16 times"), "{text}");
}

//! After whatever failed, the catalogue is the old one or the new one.

use super::*;
use crate::catalogue::record::ContentHash;
use crate::filter::Filter;
use proptest::prelude::*;
use sitedb::FaultyKv;

const SOURCES: [&str; 3] = ["alpha", "beta", "gamma"];

/// What a source can say of an update: which of some texts.
type Word = u8;

#[derive(Clone, Debug)]
enum Op {
    Sync { by: usize, extent: Extent, said: BTreeMap<u32, Word>, gone: BTreeSet<u32> },
    Forget { by: usize },
    Prefer { order: Vec<usize> },
}

/// What fails while an operation is done.
#[derive(Clone, Debug)]
struct Fault {
    after_writes: usize,
    applies_the_first: bool,
    /// Writes that a power cut takes; without one the process goes on, on a disk that works again.
    power_cut: Option<usize>,
}

fn op() -> impl Strategy<Value = Op> {
    let by = 0..SOURCES.len();
    let extent = prop_oneof![Just(Extent::Whole), Just(Extent::Changes)];
    let said = prop::collection::btree_map(0_u32..8, 0_u8..3, 0..8);
    let gone = prop::collection::btree_set(0_u32..8, 0..3);
    prop_oneof![
        6 => (by.clone(), extent, said, gone)
            .prop_map(|(by, extent, said, gone)| Op::Sync { by, extent, said, gone }),
        1 => by.prop_map(|by| Op::Forget { by }),
        1 => Just((0..SOURCES.len()).collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(|order| Op::Prefer { order }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    (0_usize..14, any::<bool>(), prop::option::of(0_usize..9)).prop_map(
        |(after_writes, applies_the_first, power_cut)| Fault {
            after_writes,
            applies_the_first,
            power_cut,
        },
    )
}

/// The catalogue as plain maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    claims: BTreeMap<u32, BTreeMap<usize, Word>>,
    /// What is shown of each update that ever was, and whose word it is.
    shown: BTreeMap<u32, (usize, Word)>,
    order: Vec<usize>,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Sync { by, extent, said, gone } => {
                if *extent == Extent::Whole {
                    self.claims.values_mut().for_each(|claims| claims.retain(|who, _| who != by));
                }
                for (n, word) in said {
                    self.claims.entry(*n).or_default().insert(*by, *word);
                }
                for n in gone {
                    self.claims.entry(*n).or_default().remove(by);
                }
            }
            Op::Forget { by } => {
                self.claims.values_mut().for_each(|claims| claims.retain(|who, _| who != by));
            }
            Op::Prefer { order } => self.order.clone_from(order),
        }
        let place = |by: &usize| self.order.iter().position(|other| other == by);
        for (n, claims) in &self.claims {
            let first = claims.iter().min_by_key(|(by, _)| (place(by).unwrap_or(usize::MAX), **by));
            if let Some((by, word)) = first {
                self.shown.insert(*n, (*by, *word));
            }
        }
    }

    fn dump(&self) -> Vec<Shown> {
        let all = self.shown.iter().map(|(n, (by, word))| {
            let claims = &self.claims[n];
            Shown {
                id: id(*n),
                source: SOURCES[*by].into(),
                title: title(*by, *word),
                is_expired: claims.is_empty(),
                claims: claims
                    .iter()
                    .map(|(by, word)| {
                        let json = serde_json::to_vec(&worded(*n, *by, *word)).unwrap();
                        (SOURCES[*by].into(), ContentHash::of(&json))
                    })
                    .collect(),
            }
        });
        sorted(all.collect())
    }
}

/// What is shown of an update, and what is known behind it.
#[derive(Debug, PartialEq)]
struct Shown {
    id: UpdateId,
    source: String,
    title: String,
    is_expired: bool,
    claims: BTreeMap<String, ContentHash>,
}

fn sorted(mut all: Vec<Shown>) -> Vec<Shown> {
    all.sort_by_key(|shown| shown.id);
    all
}

fn title(by: usize, word: Word) -> String {
    format!("word {word} of {by}")
}

fn worded(n: u32, by: usize, word: Word) -> Update {
    update(n, &title(by, word), i64::from(n))
}

fn dump(catalogue: &Catalogue) -> Vec<Shown> {
    let query = Query { limit: MAX_PAGE, ..Query::new(Filter::all(), day(0)) };
    let page = catalogue.list(&query, &NoReports).unwrap();
    let board = catalogue.0.board();
    let all = page.updates.into_iter().map(|listed| {
        let entry = catalogue.entry(listed.id).unwrap().unwrap();
        let title = entry.update.text(&[]).unwrap().title.clone();
        assert_eq!(title, listed.card.title);
        let said = board.said_by(board.find(listed.id).unwrap());
        Shown {
            id: listed.id,
            source: entry.source.to_string(),
            title,
            is_expired: entry.expired.is_some(),
            claims: said.map(|(by, hash)| (board.source_names.name(by).into(), hash)).collect(),
        }
    });
    sorted(all.collect())
}

fn perform(catalogue: &Catalogue, op: &Op, at: i64) -> Result<(), SyncError> {
    match op {
        Op::Sync { by, extent, said: words, gone } => {
            let updates = words
                .iter()
                .map(|(n, word)| said(update(*n, &format!("word {word} of {by}"), i64::from(*n))));
            let gone = gone.iter().map(|n| Said::Gone(id(*n)));
            let all = updates.chain(gone);
            sync(catalogue, SOURCES[*by], *extent, all, day(at), Criteria::default())?;
        }
        Op::Forget { by } => drop(catalogue.forget(&source(SOURCES[*by]), day(at))?),
        Op::Prefer { order } => {
            let order: Vec<_> = order.iter().map(|by| source(SOURCES[*by])).collect();
            catalogue.prefer(&order, day(at))?;
        }
    }
    Ok(())
}

fn open(kv: &Arc<FaultyKv>) -> Catalogue {
    Catalogue::open(Db::open(Arc::clone(kv) as Arc<dyn sitedb::Kv>).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_failure_leaves_the_old_catalogue_or_the_new_one(
        ops in prop::collection::vec((op(), prop::option::weighted(0.6, fault())), 1..12)
    ) {
        let mut kv = Arc::new(FaultyKv::default());
        let mut catalogue = open(&kv);
        let mut model = Model::default();
        for (at, (op, fault)) in ops.iter().enumerate() {
            let mut next = model.clone();
            next.apply(op);
            let Some(fault) = fault else {
                perform(&catalogue, op, at as i64).unwrap();
                model = next;
                prop_assert_eq!(dump(&catalogue), model.dump());
                continue;
            };
            kv.fail_after(fault.after_writes, fault.applies_the_first);
            let result = perform(&catalogue, op, at as i64);
            let shown = dump(&catalogue);
            if result.is_ok() {
                prop_assert_eq!(&shown, &next.dump());
            } else {
                prop_assert!(shown == model.dump() || shown == next.dump(), "half is shown");
            }
            match fault.power_cut {
                Some(lost) => {
                    drop(catalogue);
                    kv = Arc::new(kv.after_power_cut(lost));
                    catalogue = open(&kv);
                }
                None => {
                    kv.heal();
                    // Whoever comes next finishes what was left.
                    drop(catalogue.intake(&source("probe"), 1, Arc::default(), day(0)).unwrap());
                }
            }
            let shown = dump(&catalogue);
            if let (Op::Prefer { order }, Err(_)) = (op, &result) {
                // The order is set before anything is shown in it: whoever was told of a failure sets it again.
                prop_assert!(shown == model.dump() || shown == next.dump(), "half is shown");
                let order: Vec<_> = order.iter().map(|by| source(SOURCES[*by])).collect();
                catalogue.prefer(&order, day(0)).unwrap();
                prop_assert_eq!(dump(&catalogue), next.dump());
                model = next;
            } else if result.is_ok() || shown == next.dump() {
                prop_assert_eq!(&shown, &next.dump(), "what was acknowledged is lost");
                model = next;
            } else {
                prop_assert_eq!(&shown, &model.dump());
            }
        }
        drop(catalogue);
        kv.heal();
        let catalogue = open(&kv);
        prop_assert_eq!(dump(&catalogue), model.dump());
        assert_tidy(&catalogue);
    }
}

#[test]
fn another_order_that_failed_half_way_is_not_shown_by_who_comes_next() {
    let kv = Arc::new(FaultyKv::default());
    let catalogue = open(&kv);
    let order = |names: &[&str]| names.iter().map(|name| source(name)).collect::<Vec<_>>();
    // More of them than are written at once.
    for by in ["alpha", "beta"] {
        whole(&catalogue, by, (0..5).map(|n| update(n, by, 0)), day(1)).unwrap();
    }
    kv.fail_after(2, true);
    catalogue.prefer(&order(&["beta", "alpha"]), day(2)).unwrap_err();
    kv.heal();
    drop(catalogue.intake(&source("probe"), 1, Arc::default(), day(3)).unwrap());
    let shown: BTreeSet<_> = dump(&catalogue).into_iter().map(|shown| shown.title).collect();
    assert_eq!(shown, ["beta".to_owned()].into());
    assert_tidy(&catalogue);
}

#[test]
fn the_adapters_state_is_that_of_the_commit() {
    let kv = Arc::new(FaultyKv::default());
    let catalogue = open(&kv);
    let by = source("alpha");
    assert_eq!(catalogue.state(&by).unwrap(), None);
    whole(&catalogue, "alpha", [update(1, "one", 0)], day(1)).unwrap();
    assert_eq!(catalogue.state(&by).unwrap(), Some(serde_json::json!({ "at": day(1) })));
    // Nothing changed, and the adapter's state is new all the same.
    whole(&catalogue, "alpha", [update(1, "one", 0)], day(2)).unwrap();
    assert_eq!(catalogue.state(&by).unwrap(), Some(serde_json::json!({ "at": day(2) })));
    kv.fail_after(0, false);
    whole(&catalogue, "alpha", [update(1, "other", 0)], day(3)).unwrap_err();
    kv.heal();
    drop(catalogue);
    let catalogue = open(&Arc::new(kv.after_power_cut(0)));
    assert_eq!(catalogue.state(&by).unwrap(), Some(serde_json::json!({ "at": day(2) })));
    catalogue.forget_state(&by).unwrap();
    assert_eq!(catalogue.state(&by).unwrap(), None);
}

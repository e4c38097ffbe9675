//! How long does it take to evaluate a rule over 200,000 updates, with the counts of machines that require them?
//!
//! Input: the generated updates of the catalogue's benches; 60,000 of them required somewhere, 1,000 in the group before;
//! rules of one condition and of many, of which one means a twentieth of the catalogue. Dense: each update is required somewhere,
//! half of them were in the group before, and one rule means all that is not expired, another nothing, so that each that was
//! there goes with its reasons. A preview is the same as a run's evaluation. Prints `name<TAB>milliseconds` lines: the median
//! of 21 and the slowest.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../sync/benches/generated/mod.rs"]
#[allow(dead_code)]
mod generated;

use deployment::automatic::{AutomaticRule, Facts, Question, Template, evaluate};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use sync::adapter::{Extent, Said};
use sync::catalogue::{Catalogue, Deployments, RequiredCounts};
use sync::lifecycle::Use;
use sync::name::UpdateId;

struct Counts(HashMap<UpdateId, u64>);

impl RequiredCounts for Counts {
    fn of(&self, update: UpdateId) -> u64 {
        self.0.get(&update).copied().unwrap_or(0)
    }
    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        self.0.iter().for_each(|(id, count)| each(*id, *count));
    }
}

struct Deployed(HashSet<UpdateId>);

impl Deployments for Deployed {
    fn of(&self, update: UpdateId) -> Use {
        if self.0.contains(&update) { Use::Deployed } else { Use::Never }
    }
}

struct NoTerms;

impl Facts for NoTerms {
    fn with_terms(&self, _: &[UpdateId]) -> BTreeSet<UpdateId> {
        BTreeSet::new()
    }
}

fn main() {
    let n = std::env::var("UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000_u32);
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(sitedb::Db::open_folder(folder.path()).unwrap()).unwrap();
    let (by, now) = ("bench".parse().unwrap(), generated::now(n));
    let mut intake = catalogue.intake(&by, 1, Arc::default(), now).unwrap();
    generated::products().for_each(|product| intake.take(Said::Product(product)).unwrap());
    let (mut counts, mut deployed, mut before) =
        (Counts(HashMap::new()), HashSet::new(), BTreeSet::new());
    let (mut dense_counts, mut dense_before) = (Counts(HashMap::new()), BTreeSet::new());
    for (n, update) in generated::updates(n).enumerate() {
        dense_counts.0.insert(update.id, 1 + n as u64 % 500);
        if n % 2 == 0 {
            dense_before.insert(update.id);
        }
        if n % 10 < 3 {
            counts.0.insert(update.id, n as u64 % 500);
        }
        if n % 7 == 0 {
            deployed.insert(update.id);
        }
        if n % 200 == 3 {
            before.insert(update.id);
        }
        intake.take(Said::Update(Box::new(update))).unwrap();
    }
    intake.settle(Extent::Whole).unwrap();
    intake.commit(serde_json::Value::Null).unwrap();
    let deployments = Arc::new(Deployed(deployed));
    let (sparse, dense) = ((&counts, &before), (&dense_counts, &dense_before));
    for (name, (counts, before), criteria) in [
        (
            "a month's security",
            sparse,
            "classification in (security, critical) and released >= 1mo ago and not superseded",
        ),
        (
            "required on more than 50",
            sparse,
            "classification = security and required > 50 and not deployed",
        ),
        (
            "a twentieth of all",
            sparse,
            "severity >= important and required >= 0 and size < 1MB and not expired and title ~ open",
        ),
        (
            "many conditions",
            sparse,
            "(title ~ curl or title ~ samba or text ~ race) and product in (product-1, product-12, product-77) and \
             not (superseded or expired or deployed) and required > 10 and released >= 6mo ago and language != de",
        ),
        ("dense, all", dense, "required > 0 and not expired"),
        ("dense, nothing", dense, "required > 1000 and not expired"),
    ] {
        let rule =
            AutomaticRule { criteria: criteria.parse().unwrap(), ..Template::Monthly.rule() };
        let mut took = Vec::new();
        let mut members = 0;
        for _ in 0..21 {
            let deployments = deployments.clone();
            let question = Question { catalogue: &catalogue, required: counts, deployments, now };
            let start = Instant::now();
            let outcome = black_box(evaluate(&rule, &question, before, &NoTerms));
            took.push(start.elapsed().as_secs_f64() * 1e3);
            members = outcome.members.len();
        }
        took.sort_by(f64::total_cmp);
        println!("{name}, median ms\t{:.1}", took[10]);
        println!("{name}, slowest ms\t{:.1}", took[20]);
        println!("{name}, members\t{members}");
    }
}

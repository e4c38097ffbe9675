//! Updates that look like real ones: some thousand series, in which each month's update replaces the one
//! before, with files, rules, CVEs and a few sentences; about 2.5 kB of JSON each.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use sync::digests::{Algorithm, Digests};
use sync::name::UpdateId;
use sync::rule::{Comparison, PackageRule, Rule, Rules};
use sync::taxonomy::{Classification, Product, Severity};
use sync::update::{File, Handler, Item, PackageFile, Update};

/// How many series there are: their newest updates are current.
const SERIES: u32 = 5_000;
/// How many products.
const PRODUCTS: u32 = 300;
/// 2016-01-01, when the first update was made.
const START: i64 = 1_451_606_400;

const NOUNS: [&str; 12] = [
    "openssl",
    "kernel",
    "glibc",
    "curl",
    "systemd",
    "bind9",
    "nginx",
    "postgresql",
    "firefox",
    "samba",
    "python3",
    "libxml2",
];
const FLAWS: [&str; 8] = [
    "heap buffer overflow",
    "use after free",
    "denial of service",
    "information disclosure",
    "privilege escalation",
    "certificate validation flaw",
    "path traversal",
    "race condition",
];

/// The time when the newest of `n` updates was made.
pub fn now(n: u32) -> Timestamp {
    Timestamp::from_second(START + i64::from(n) * 1_500 + 86_400).unwrap()
}

/// The products.
pub fn products() -> impl Iterator<Item = Product> {
    (0..PRODUCTS).map(|n| Product {
        id: format!("product-{n}"),
        name: format!("Product {n} for servers"),
        family: format!("Family {}", n % 20),
    })
}

/// The updates from 0 to before `n`.
pub fn updates(n: u32) -> impl Iterator<Item = Update> {
    (0..n).map(update)
}

/// Update `n`, always the same.
pub fn update(n: u32) -> Update {
    let (series, month) = (n % SERIES, n / SERIES);
    let noun = NOUNS[series as usize % NOUNS.len()];
    let flaw = FLAWS[(n / 7) as usize % FLAWS.len()];
    let version = format!("{}.{}.{}-{}", series % 9, month, n % 13, n % 5);
    let created = Timestamp::from_second(START + i64::from(n) * 1_500).unwrap();
    let title =
        format!("{noun}-{series} security update {version}: {flaw} in the parser of messages");
    let mut update = Update::new(id(n), &format!("{noun}-{series} {version}"), &title, created);
    let text = update.texts.values_mut().next().unwrap();
    text.description = format!(
        "A {flaw} was found in {noun}. An attacker who can send messages to a machine that runs it could \
         crash the service or, where the memory is laid out in a certain way, run code with its rights. \
         The update mends the flaw by checking lengths before messages are copied, and brings {} smaller \
         fixes. Services that use the library must be started again once it is installed ({n}).",
        n % 17
    );
    update.classification = Classification::ALL.get((n / 3) as usize % 9).copied();
    update.severity = Severity::ALL.get((n / 5) as usize % 5).copied();
    update.products =
        (0..1 + n % 3).map(|k| format!("product-{}", (series + k * 7) % PRODUCTS)).collect();
    update.articles = BTreeSet::from([format!("DSA-{}-{}", 1_000 + n / 40, n % 40)]);
    update.cves =
        (0..n % 4).map(|k| format!("CVE-{}-{}", 2016 + month / 4, (n + k) % 30_000)).collect();
    update.supersedes = month.checked_sub(1).map(|_| id(n - SERIES)).into_iter().collect();
    update.released = Some(Timestamp::from_second(START + i64::from(n) * 1_500 + 3_600).unwrap());
    let file = |arch: &str| {
        let hex = format!("{:064x}", u128::from(n) * 0x1_0000_0001);
        let path = format!("pool/main/{noun}/{noun}_{version}_{arch}.deb");
        File {
            name: format!("{noun}_{version}_{arch}.deb"),
            size: 40_000 + u64::from(n % 1_000) * 997,
            digests: Digests::of(Algorithm::Sha256, &hex).unwrap(),
            urls: vec![format!("https://deb.example.org/debian/{path}")],
            path: Some(path),
            package: Some(PackageFile {
                name: noun.into(),
                version: version.clone(),
                arch: arch.into(),
            }),
            language: None,
        }
    };
    let rule = |is| {
        Some(Rule::Dpkg(PackageRule {
            name: noun.into(),
            arch: None,
            is,
            version: version.clone(),
        }))
    };
    update.items = vec![Item {
        handler: Some(Handler::Apt),
        files: vec![file("amd64"), file("arm64"), file("all")],
        ..Item::default()
    }];
    update.rules = Rules {
        installable: rule(Comparison::LessThan),
        installed: rule(Comparison::GreaterThanOrEqualTo),
        ..Rules::default()
    };
    update
}

fn id(n: u32) -> UpdateId {
    UpdateId::named(&["generated", &n.to_string()])
}

/// Filters that people ask by, and some that cost most.
pub fn filters() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("all", ""),
        ("security_of_a_month", "classification in (security, critical) and released >= 30d ago"),
        ("product", "product = product-12 and not superseded and severity >= important"),
        ("title", "title ~ openssl and not superseded"),
        ("two_words", "text ~ overflow and text ~ parser"),
        ("rare_word", "text ~ 'DSA-5432-7'"),
        ("cve", "cve = CVE-2024-1234"),
        ("required", "required > 50 and classification = security"),
        (
            "many",
            "(title ~ curl or title ~ samba or text ~ race) and not (expired or severity = none)",
        ),
        ("letter", "text ~ e"),
    ])
}

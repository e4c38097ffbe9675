//! What the language of rules means, said a second time and plainly.

use super::*;
use compliance::fleet::{
    Enrolment, Facts, FactsChange, Fingerprint, Package, PackageKind, Packages, PackagesChange,
    Standing,
};
use compliance::message::ClientId;
use compliance::{Compliance, Settings};
use jiff::Timestamp;
use proptest::prelude::*;
use roaring::RoaringBitmap;
use sitedb::Db;
use sync::mirror::matches;

/// A client as a plain look sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain {
    pub name: String,
    pub facts: Facts,
    pub packages: Packages,
}

/// Any rule over what the tests' clients have, and some that they have not.
pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    let leaf = test().prop_map(Expr::Test);
    let expr = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::all),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::any),
            inner.prop_map(Expr::negated),
        ]
    });
    expr.prop_map(Rule)
}

fn words(all: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    prop::sample::subsequence(all, 1..=2)
}

fn test() -> impl Strategy<Value = Test> {
    let text = prop::sample::select(vec![
        Text::Name,
        Text::Word(Property::Os),
        Text::Word(Property::OsVersion),
        Text::Word(Property::Codename),
        Text::Word(Property::Architecture),
        Text::Word(Property::Attribute("ring".into())),
    ]);
    let values = words(&["Debian", "rocky*", "*", "pc-1", "pc-*", "12", "9.4", "pilot", "x86_64"]);
    let parts = prop::sample::select(vec!["pc", "E", "1", "'\\", "none of it"]);
    let compare = prop::sample::select(vec![
        Compare::Less,
        Compare::LessOrEqual,
        Compare::Equal,
        Compare::GreaterOrEqual,
        Compare::Greater,
    ]);
    let versions = prop::sample::select(vec!["1", "1.0-2", "2~rc1", "12", "9.10"]);
    let networks = prop::sample::subsequence(
        ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.7/32", "2001:db8::/32"].to_vec(),
        1..=2,
    );
    let names = prop::sample::select(vec!["bash", "curl", "curl:i386", "none"]);
    prop_oneof![
        (text.clone(), values).prop_map(|(text, all)| Test::Is(text, all)),
        (text, parts).prop_map(|(text, part)| Test::Contains(text, part.into())),
        (compare.clone(), versions.clone())
            .prop_filter("equality is a text", |(compare, _)| *compare != Compare::Equal)
            .prop_map(|(compare, version)| Test::Version(compare, version.into())),
        networks.prop_map(|all| Test::Address(all.iter().map(|it| it.parse().unwrap()).collect())),
        words(&["bash", "c*", "curl:amd64", "none"]).prop_map(Test::Package),
        (names, compare, versions).prop_map(|(name, compare, version)| Test::PackageVersion {
            name: name.into(),
            compare,
            version: version.into()
        }),
    ]
}

/// Whether a rule means a client: the language, said without bitmaps.
pub(crate) fn plainly(rule: &Rule, client: &Plain) -> bool {
    expr(&rule.0, client)
}

fn expr(it: &Expr<Test>, client: &Plain) -> bool {
    match it {
        Expr::All(parts) => parts.iter().all(|part| expr(part, client)),
        Expr::Any(parts) => parts.iter().any(|part| expr(part, client)),
        Expr::Not(part) => !expr(part, client),
        Expr::Test(it) => test_holds(it, client),
    }
}

fn test_holds(it: &Test, client: &Plain) -> bool {
    let facts = &client.facts;
    let text = |text: &Text| {
        let word = match text {
            Text::Name => Some(client.name.clone()),
            Text::Word(Property::Os) => Some(facts.os.clone()),
            Text::Word(Property::OsVersion) => Some(facts.os_version.clone()),
            Text::Word(Property::Codename) => facts.codename.clone(),
            Text::Word(Property::Architecture) => Some(facts.architecture.clone()),
            Text::Word(Property::Attribute(name)) => facts.attributes.get(name).cloned(),
        };
        word.filter(|word| !word.is_empty() || *text == Text::Name).map(|word| word.to_lowercase())
    };
    let installed = |name: &str| {
        let (name, arch) = name.split_once(':').unwrap_or((name, ""));
        let all = client.packages.get(name).cloned().unwrap_or_default();
        all.into_iter().filter(|it| arch.is_empty() || it.arch == arch).collect::<Vec<_>>()
    };
    let kind = PackageKind::Deb;
    match it {
        Test::Is(of, all) => {
            text(of).is_some_and(|word| all.iter().any(|it| matches(&it.to_lowercase(), &word)))
        }
        Test::Contains(of, part) => {
            text(of).is_some_and(|word| word.contains(&part.to_lowercase()))
        }
        Test::Version(compare, version) => text(&Text::Word(Property::OsVersion))
            .is_some_and(|word| compare.is(PackageKind::Other.compare(&word, version))),
        Test::Address(all) => {
            facts.addresses.iter().any(|address| all.iter().any(|it| it.contains(*address)))
        }
        Test::Package(all) => all.iter().any(|pattern| match pattern.contains('*') {
            true => client.packages.keys().any(|name| matches(pattern, name)),
            false => !installed(pattern).is_empty(),
        }),
        Test::PackageVersion { name, compare, version } => {
            installed(name).iter().any(|it| compare.is(kind.compare(&it.version, version)))
        }
    }
}

fn client() -> impl Strategy<Value = Plain> {
    let word = |all: &'static [&'static str]| prop::sample::select(all);
    let name = word(&["pc-1", "PC-2", "srv", ""]);
    let system = (
        word(&["debian", "Rocky", "rocky-x", ""]),
        word(&["12", "9.4", "9.10", ""]),
        prop::option::of(word(&["bookworm", "pc"])),
        word(&["x86_64", "aarch64"]),
    );
    let ring = prop::option::of(word(&["pilot", "Early", "12"]));
    let addresses = prop::collection::vec(
        word(&["10.1.0.7", "10.2.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.1.0.7"]),
        0..3,
    );
    let package = (word(&["1", "1.0-2", "2~rc1", "12"]), word(&["amd64", "i386"]));
    let packages = prop::collection::btree_map(
        word(&["bash", "curl", "coreutils"]),
        prop::collection::btree_set(package, 1..3),
        0..3,
    );
    (name, system, ring, addresses, packages).prop_map(
        |(name, (os, os_version, codename, architecture), ring, addresses, packages)| Plain {
            name: name.into(),
            facts: Facts {
                revision: 1,
                os: os.into(),
                os_version: os_version.into(),
                codename: codename.map(Into::into),
                architecture: architecture.into(),
                addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
                attributes: ring.map(|ring| ("Ring".into(), ring.into())).into_iter().collect(),
                ..Facts::default()
            },
            packages: packages
                .into_iter()
                .map(|(name, all)| {
                    let all = all.into_iter();
                    let package = |(version, arch): (&str, &str)| Package {
                        version: version.into(),
                        arch: arch.into(),
                    };
                    (name.to_owned(), all.map(package).collect())
                })
                .collect(),
        },
    )
}

fn site_of(clients: &[Plain]) -> Compliance {
    let site = Compliance::open(Db::in_memory(), Settings::default()).unwrap();
    for (n, client) in (0_u8..).zip(clients) {
        let new = Enrolment {
            id: ClientId(uuid::Uuid::from_u128(n.into())),
            key: Fingerprint([n; 32]),
            name: client.name.clone(),
            standing: Standing::Approved,
        };
        let ordinal = site.enrol(new, Timestamp::UNIX_EPOCH).unwrap();
        let facts = client.facts.clone();
        let packages = PackagesChange {
            kind: PackageKind::Deb,
            changed: client.packages.clone(),
            removed: Default::default(),
        };
        let change = FactsChange {
            base: 0,
            revision: 1,
            os: Some(facts.os),
            os_version: Some(facts.os_version),
            codename: facts.codename,
            architecture: Some(facts.architecture),
            addresses: Some(facts.addresses),
            attributes: facts.attributes.into_iter().map(|(k, v)| (k, Some(v))).collect(),
            packages: Some(packages),
        };
        site.change_facts(ordinal, change, Timestamp::UNIX_EPOCH).unwrap();
    }
    site
}

proptest! {
    #[test]
    fn a_rule_means_the_clients_that_a_plain_look_does(
        clients in prop::collection::vec(client(), 1..8),
        rules in prop::collection::vec(rule(), 8),
        scope in prop::collection::btree_set(0..10_u32, 0..8),
    ) {
        // What an attribute is called is told in small letters by a rule.
        let plain = |client: &Plain| {
            let mut client = client.clone();
            let attributes = std::mem::take(&mut client.facts.attributes).into_iter();
            client.facts.attributes = attributes.map(|(k, v)| (k.to_lowercase(), v)).collect();
            client
        };
        let site = site_of(&clients);
        let index = site.index();
        let scope: RoaringBitmap = scope.into_iter().collect();
        for rule in &rules {
            let meant = |(_, client): &(u32, &Plain)| plainly(rule, &plain(client));
            let want: RoaringBitmap = (0..).zip(&clients).filter(meant).map(|(n, _)| n).collect();
            prop_assert_eq!(rule.clients(&index, index.fleet()), want.clone(), "{}", rule);
            prop_assert_eq!(rule.clients(&index, &scope), want & &scope, "{}", rule);
        }
    }

    #[test]
    fn a_rule_reads_back_as_it_is_written(rule in rule()) {
        prop_assert_eq!(rule.to_string().parse(), Ok(rule));
    }

    #[test]
    fn any_text_is_a_rule_or_an_error_at_a_column(
        text in ".{0,40}",
        words in "((os|package|package.a|attribute.|name|address|and|or|not|in|=|<|~|\\(|\\)|,|12|10.0.0.0/8) ?){0,12}",
    ) {
        for text in [text, words] {
            match text.parse::<Rule>() {
                Ok(rule) => prop_assert_eq!(rule.to_string().parse(), Ok(rule)),
                Err(error) => prop_assert!(error.column <= text.chars().count() + 1),
            }
        }
    }
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let long = "x".repeat(300);
    for (text, column, says) in [
        ("", 1, "says which clients"),
        ("oz = debian", 1, "did you mean \"os\"?"),
        ("colour = red", 1, "attribute.NAME"),
        ("os < 3", 4, "cannot be asked by <; want = != ~ !~ or in"),
        ("address = 10.0.0.1/8", 11, "is no network"),
        ("address in (10.0.0.0/8, x)", 13, "is no network"),
        ("package.openssl in (1, 2)", 17, "cannot be asked by a list"),
        ("package.openssl <", 18, "want a value"),
        ("os = debian os = rocky", 13, "want 'and'"),
        (&format!("os = {long}"), 6, "at most 255 bytes"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert!(error.column == column && error.problem.contains(says), "{text}: {error}");
    }
    let many = vec!["name ~ a"; 17].join(" or ");
    assert!(many.parse::<Rule>().unwrap_err().problem.contains("a rule asks at most 16 times"));
}

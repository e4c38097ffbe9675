//! What the language of filters means, said a second time and plainly.

use super::evaluate_seconds;
use super::*;
use crate::catalogue::{Entry, ProductCount};
use crate::lifecycle::Why;
use jiff::Timestamp;
use proptest::prelude::*;

/// Any condition over what the tests' catalogue has, and some that it has not.
pub(crate) fn expr() -> impl Strategy<Value = Expr> {
    let leaf = test().prop_map(Expr::Test);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::all),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::any),
            inner.prop_map(Expr::negated),
        ]
    })
}

fn some<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = Vec<T>> + use<T> {
    prop::sample::subsequence(all.to_vec(), 1..=all.len().min(3))
}

fn words(all: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    some(&all.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn test() -> impl Strategy<Value = Test> {
    let or_none =
        |all: &[Severity]| all.iter().copied().map(Some).chain([None]).collect::<Vec<_>>();
    let classes: Vec<_> = Classification::ALL.iter().copied().map(Some).chain([None]).collect();
    let compare = prop::sample::select(vec![
        Compare::Less,
        Compare::LessOrEqual,
        Compare::Equal,
        Compare::GreaterOrEqual,
        Compare::Greater,
    ]);
    let kinds: Vec<_> = KINDS.iter().map(|(_, kind)| *kind).collect();
    let languages: Vec<Language> = ["de", "fr", "it"].map(|tag| tag.parse().unwrap()).to_vec();
    let ids: Vec<_> = [0, 5, 77, 999].map(|n: u32| UpdateId::named(&[&n.to_string()])).to_vec();
    let text = prop::sample::select(vec![
        TextField::Title,
        TextField::Name,
        TextField::Article,
        TextField::Cve,
        TextField::Text,
    ]);
    let exact = prop::sample::select(vec![TextField::Name, TextField::Article, TextField::Cve]);
    let parts =
        prop::sample::select(vec!["KB1", "openssl", "ünï", "L (", "2026-3", "u-1", "'\\", "-"]);
    let values = words(&["KB11", "kb7", "CVE-2026-3", "cve-2026-39", "U-8", "u-9", "x y", "and"]);
    let day = |days: i64| Timestamp::from_second(1_767_225_600 + days * 86_400).unwrap();
    let when = prop_oneof![
        (0_i64..80).prop_map(move |at| When::At(day(at))),
        (0_i64..80).prop_map(move |at| When::Day(day(at).to_zoned(jiff::tz::TimeZone::UTC).date())),
        Just(When::Now),
        Just(When::Today),
        (0_u32..40, prop::sample::select(UNITS.to_vec()))
            .prop_map(|(number, (_, unit))| When::Ago(number, unit)),
    ];
    let dates = prop::sample::select(vec![
        DateField::Released,
        DateField::Created,
        DateField::FirstSeen,
        DateField::Changed,
    ]);
    let numbers = prop::sample::select(vec![
        NumberField::Required,
        NumberField::Revision,
        NumberField::Files,
        NumberField::Size,
    ]);
    prop_oneof![
        some(&classes).prop_map(Test::Classification),
        some(&kinds).prop_map(Test::Kind),
        some(&[State::Current, State::Superseded, State::Expired]).prop_map(Test::State),
        Just(Test::Withdrawn),
        Just(Test::Deployed),
        some(&or_none(Severity::ALL)).prop_map(Test::Severity),
        (compare.clone(), prop::sample::select(or_none(Severity::ALL)))
            .prop_filter("equality is a list", |(compare, _)| *compare != Compare::Equal)
            .prop_map(|(compare, than)| Test::SeverityIs(compare, than)),
        words(&["p1", "P2", "first", "Debian 12", "debian", "nothing"])
            .prop_map(|names| Test::Name(NameField::Product, names)),
        words(&["fam", "Debian", "p1"]).prop_map(|names| Test::Name(NameField::Family, names)),
        words(&["s0", "s1", "S2", "s9"]).prop_map(|names| Test::Name(NameField::Source, names)),
        some(&languages).prop_map(Test::Language),
        some(&ids).prop_map(Test::Id),
        (text, parts).prop_map(|(field, part)| Test::Contains(field, part.into())),
        (exact, values).prop_map(|(field, values)| Test::Equals(field, values)),
        (dates, compare.clone(), when)
            .prop_map(|(field, compare, when)| { Test::Date(field, compare, when) }),
        (numbers, compare, 0_u64..210)
            .prop_map(|(field, compare, than)| { Test::Number(field, compare, than) }),
    ]
}

/// Whether a list with this filter shows an update: the language, said without columns and bits.
pub(crate) fn plainly(
    filter: &Filter,
    entry: &Entry,
    products: &[ProductCount],
    (required, is_deployed): (u64, bool),
    now: Timestamp,
) -> bool {
    let is_update = matches!(entry.update.kind, Kind::Software | Kind::Driver);
    let asks = filter.0.tests().iter().any(|test| matches!(test, Test::Kind(_) | Test::Id(_)));
    let look = Look { entry, products, required, is_deployed, now };
    (is_update || asks) && look.expr(&filter.0)
}

struct Look<'a> {
    entry: &'a Entry,
    products: &'a [ProductCount],
    required: u64,
    is_deployed: bool,
    now: Timestamp,
}

impl Look<'_> {
    fn expr(&self, expr: &Expr) -> bool {
        match expr {
            Expr::All(parts) => parts.iter().all(|part| self.expr(part)),
            Expr::Any(parts) => parts.iter().any(|part| self.expr(part)),
            Expr::Not(part) => !self.expr(part),
            Expr::Test(test) => self.test(test),
        }
    }

    fn test(&self, test: &Test) -> bool {
        let update = &self.entry.update;
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let among = |all: &[String], name: &str| all.iter().any(|other| same(other, name));
        match test {
            Test::Classification(all) => all.contains(&update.classification),
            Test::Kind(all) => all.contains(&update.kind),
            Test::State(all) => all.contains(&self.entry.state),
            Test::Withdrawn => {
                self.entry.expired.is_some_and(|expired| expired.why == Why::Withdrawn)
            }
            Test::Deployed => self.is_deployed,
            Test::Severity(all) => all.contains(&update.severity),
            Test::SeverityIs(compare, than) => holds(*compare, &update.severity, than),
            Test::Name(NameField::Source, all) => {
                among(all, self.entry.source.as_str())
                    || self.entry.sources.iter().any(|source| among(all, source.as_str()))
            }
            Test::Name(field, all) => update.products.iter().any(|id| {
                let known = self.products.iter().find(|it| it.product.id == *id).unwrap();
                let family = among(all, &known.product.family);
                let is_family = *field == NameField::Family;
                family || !is_family && (among(all, id) || among(all, &known.product.name))
            }),
            Test::Language(all) => {
                update.files().any(|file| file.language.as_ref().is_some_and(|it| all.contains(it)))
            }
            Test::Id(all) => all.contains(&update.id),
            Test::Contains(field, part) => {
                let part = part.to_lowercase();
                self.texts(*field).iter().any(|text| text.to_lowercase().contains(&part))
            }
            Test::Equals(field, values) => {
                self.texts(*field).iter().any(|text| among(values, text))
            }
            Test::Date(field, compare, when) => {
                let at = match field {
                    DateField::Released => update.released.unwrap_or(update.created),
                    DateField::Created => update.created,
                    DateField::FirstSeen => self.entry.first_seen,
                    DateField::Changed => self.entry.changed,
                };
                let (from, to) = evaluate_seconds(*when, self.now);
                let at = at.as_second();
                match compare {
                    Compare::Less => at < from,
                    Compare::LessOrEqual => at < to,
                    Compare::Equal => from <= at && at < to,
                    Compare::GreaterOrEqual => at >= from,
                    Compare::Greater => at >= to,
                }
            }
            Test::Number(NumberField::Required, compare, than) => {
                holds(*compare, &self.required, than)
            }
            Test::Number(NumberField::Files, compare, than) => {
                holds(*compare, &(update.files().count() as u64), than)
            }
            Test::Number(NumberField::Size, compare, than) => {
                holds(*compare, &update.files().map(|file| file.size).sum(), than)
            }
            Test::Number(NumberField::Revision, compare, than) => {
                holds(*compare, &u64::from(self.entry.revision), than)
            }
        }
    }

    fn texts(&self, field: TextField) -> Vec<String> {
        let update = &self.entry.update;
        let title = update.text(&[]).unwrap().title.clone();
        let articles = update.articles.iter().cloned();
        let cves = update.cves.iter().cloned();
        match field {
            TextField::Title => vec![title],
            TextField::Name => vec![update.name.clone()],
            TextField::Article => articles.collect(),
            TextField::Cve => cves.collect(),
            TextField::Text => {
                [title, update.name.clone()].into_iter().chain(articles).chain(cves).collect()
            }
        }
    }
}

fn holds<T: Ord>(compare: Compare, value: &T, than: &T) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let ordering = value.cmp(than);
    match compare {
        Compare::Less => ordering == Less,
        Compare::LessOrEqual => ordering != Greater,
        Compare::Equal => ordering == Equal,
        Compare::GreaterOrEqual => ordering != Less,
        Compare::Greater => ordering == Greater,
    }
}

proptest! {
    #[test]
    fn a_filter_reads_back_as_it_is_written(expr in expr()) {
        let filter = Filter(expr);
        prop_assert_eq!(&filter.to_string().parse::<Filter>().unwrap(), &filter, "{}", filter);
        let json = serde_json::to_string(&filter).unwrap();
        prop_assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_at_a_column(
        text in r#"((title|severity|not|in|and|or|ago|3d|'x|[=<>~!(),"\\é]|released| ){1,3}){0,20}"#
    ) {
        if let Err(error) = text.parse::<Filter>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}", error);
        }
    }
}

#[test]
fn words_bind_as_the_header_says() {
    let written = |text: &str| text.parse::<Filter>().unwrap().to_string();
    assert_eq!(
        written("NOT title ~ a AND title~b or current"),
        "(not title ~ a and title ~ b) or state = current"
    );
    assert_eq!(
        written("((superseded))and(expired or withdrawn)"),
        "state = superseded and (state = expired or withdrawn)"
    );
    assert_eq!(written("product != \"Windows 11\""), "not product = 'Windows 11'");
    assert_eq!(written("product not in (a,'b c')"), "not product in (a, 'b c')");
    assert_eq!(
        written("released >= 3 months ago and created < 2026-01-31"),
        "released >= 3mo ago and created < 2026-01-31"
    );
    assert_eq!(written("classification = 'Security Updates'"), "classification = security");
    assert_eq!(written("title ~ 'it\\'s'"), "title ~ 'it\\'s'");
    assert_eq!(written(" \n"), "");
    assert!("".parse::<Filter>().unwrap().is_all());
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let error = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
    let cases = [
        (
            "clasification = security",
            "column 1: \"clasification\" is no field; did you mean \"classification\"?",
        ),
        ("title = x", "column 7: \"title\" cannot be asked by =; want ~ or !~"),
        ("title ~ x and", "column 14: want a field here, found the end"),
        ("title ~ x title ~ y", "column 11: want 'and', 'or' or the end here, found \"title\""),
        (
            "severity > huge",
            "column 12: \"huge\" is no severity; want one of low, moderate, important, critical",
        ),
        ("released > 30d", "column 12: want 'ago' after \"30d\", found the end"),
        (
            "released > yesterday",
            "column 12: \"yesterday\" is no time; want one as 2026-01-31, 2026-01-31T12:00:00Z, today or '30d ago'",
        ),
        ("required > -1", "column 12: \"-1\" is no number from 0 on"),
        ("(title ~ x", "column 1: this ( is not closed"),
        ("title ~ x)", "column 10: this ) was not opened"),
        ("é title", "column 1: \"é\" is no field; want one of "),
        ("title ~ 'x", "column 9: this ' has no end"),
        ("product in (a b)", "column 15: want , or ) in the list, found \"b\""),
        ("product in a", "column 12: want ( and a list after 'in', found \"a\""),
        ("severity", "column 9: want = != < <= > >= or in after \"severity\", found the end"),
        (
            "state = purged",
            "column 9: \"purged\" is no state; want one of current, superseded, expired",
        ),
        (
            "required in (1)",
            "column 10: \"required\" cannot be asked by a list; want = != < <= > or >=",
        ),
        ("id = 7", "column 6: \"7\" is no id of an update; want a GUID of 8-4-4-4-12 hex digits"),
    ];
    for (text, want) in cases {
        assert!(error(text).starts_with(want), "{text}: {}", error(text));
    }
}

#[test]
fn filters_are_bounded() {
    let error = |text: String| text.parse::<Filter>().unwrap_err().problem;
    assert!(error("(".repeat(10_000)).contains("nested"));
    assert!(error("not ".repeat(10_000)).contains("nested"));
    assert!(error(vec!["current"; 501].join(" or ")).contains("500 conditions"));
    assert!(error(vec!["title ~ a"; 17].join(" or ")).contains("16 times"));
    assert!(error(format!("product in ({})", vec!["a"; 5_001].join(","))).contains("5000 values"));
    assert!(error("x".repeat(MAX_TEXT + 1)).contains("bytes"));
    assert!("2026-01-31".parse::<Filter>().is_err());
    for long_ago in ["4294967295y ago", "99999999999d ago", "4000000h ago"] {
        let _ = format!("released > {long_ago}").parse::<Filter>();
    }
}

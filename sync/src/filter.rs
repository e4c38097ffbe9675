//! Filters: which updates of the catalogue are meant.
//!
//! ```text
//! classification in (security, critical) and released >= 30d ago and product = debian-12
//! title ~ openssl and not superseded and (severity >= important or required > 50)
//! ```
//!
//! | field | compared by | with |
//! | --- | --- | --- |
//! | `classification`, `kind`, `state` | `=` `!=` `in` | their words; `classification = none` |
//! | `severity` | `=` `!=` `in` `<` `<=` `>` `>=` | its words; `none` is below all |
//! | `product`, `family`, `source`, `language`, `id` | `=` `!=` `in` | its id or name, of a product that of its family too |
//! | `title`, `name`, `article`, `cve`, `text` | `~` `!~`; all but `title` and `text` also `=` `!=` `in` | a part, or the whole, in either case |
//! | `released`, `created`, `first-seen`, `changed` | `=` `!=` `<` `<=` `>` `>=` | `2026-01-31`, a time, `now`, `today`, `30d ago` |
//! | `required`, `revision`, `files` | `=` `!=` `<` `<=` `>` `>=` | a number |
//! | `size` | the same | bytes: `500000`, `500MB`, `2GiB` |
//!
//! `superseded`, `expired`, `current`, `withdrawn` and `deployed` are conditions by themselves. `text` is title, name,
//! articles and CVEs together. `not` binds closest, then `and`, then `or`. What has a space or a sign in it
//! is put in quotes.

mod evaluate;
mod flags;
mod parse;
#[cfg(test)]
pub(crate) mod tests;
mod write;

#[cfg(test)]
use evaluate::seconds as evaluate_seconds;

pub use crate::language::{
    MAX_DEPTH, MAX_SEARCHES, MAX_TERMS, MAX_TEXT, MAX_VALUES, SyntaxError as FilterError,
};
pub(crate) use evaluate::View;
pub use flags::{FlagError, Flags};

pub(crate) use crate::language::Compare;

use crate::lifecycle::State;
use crate::name::UpdateId;
use crate::taxonomy::{Classification, Language, Severity};
use crate::update::Kind;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Which updates are meant: a condition, read from text with [`str::parse`], or made by [`Flags::filter`].
/// Written out it is text that reads as the same filter. The default is all updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(pub(crate) Expr);

impl Filter {
    /// All updates.
    pub fn all() -> Self {
        Self::default()
    }

    /// What both let through.
    pub fn and(self, other: Self) -> Self {
        Self(Expr::all([self.0, other.0]))
    }

    /// The conditions that must all hold, each by itself: what to name where one does not.
    pub fn conditions(&self) -> Vec<Self> {
        match &self.0 {
            Expr::All(parts) => parts.iter().cloned().map(Self).collect(),
            other => vec![Self(other.clone())],
        }
    }

    /// Whether it asks which updates are deployed.
    pub fn asks_deployed(&self) -> bool {
        self.0.tests().into_iter().any(|test| *test == Test::Deployed)
    }

    /// Whether it is all updates.
    pub fn is_all(&self) -> bool {
        self.0 == Expr::default()
    }
}

/// A condition.
pub(crate) type Expr = crate::language::Expr<Test>;

/// A condition on one field. Of a list of values one must fit; no list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Classification(Vec<Option<Classification>>),
    Kind(Vec<Kind>),
    State(Vec<State>),
    /// That no source says it any more.
    Withdrawn,
    /// That it is deployed now.
    Deployed,
    Severity(Vec<Option<Severity>>),
    SeverityIs(Compare, Option<Severity>),
    Name(NameField, Vec<String>),
    Language(Vec<Language>),
    Id(Vec<UpdateId>),
    /// That a text field has this somewhere.
    Contains(TextField, String),
    /// That a text field is one of these, as a whole.
    Equals(TextField, Vec<String>),
    Date(DateField, Compare, When),
    Number(NumberField, Compare, u64),
}

/// A field whose values are names of other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameField {
    Product,
    Family,
    Source,
}

/// A field of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextField {
    Title,
    Name,
    Article,
    Cve,
    /// All of them.
    Text,
}

/// A field that is a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DateField {
    Released,
    Created,
    FirstSeen,
    Changed,
}

/// A field that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberField {
    Required,
    Revision,
    /// How many files it has.
    Files,
    /// Their bytes.
    Size,
}

/// A time, or a day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    Day(Date),
    Now,
    Today,
    Ago(u32, Unit),
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// What a word stands for at the front of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Classification,
    Kind,
    State,
    Severity,
    Language,
    Id,
    Name(NameField),
    Text(TextField),
    Date(DateField),
    Number(NumberField),
}

impl Field {
    /// The fields by their words.
    pub const ALL: &[(&str, Field)] = &[
        ("classification", Self::Classification),
        ("kind", Self::Kind),
        ("state", Self::State),
        ("severity", Self::Severity),
        ("product", Self::Name(NameField::Product)),
        ("family", Self::Name(NameField::Family)),
        ("source", Self::Name(NameField::Source)),
        ("language", Self::Language),
        ("id", Self::Id),
        ("title", Self::Text(TextField::Title)),
        ("name", Self::Text(TextField::Name)),
        ("article", Self::Text(TextField::Article)),
        ("cve", Self::Text(TextField::Cve)),
        ("text", Self::Text(TextField::Text)),
        ("released", Self::Date(DateField::Released)),
        ("created", Self::Date(DateField::Created)),
        ("first-seen", Self::Date(DateField::FirstSeen)),
        ("changed", Self::Date(DateField::Changed)),
        ("required", Self::Number(NumberField::Required)),
        ("revision", Self::Number(NumberField::Revision)),
        ("files", Self::Number(NumberField::Files)),
        ("size", Self::Number(NumberField::Size)),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, field)| *field == self);
        found.map(|(word, _)| *word).expect("every field has a word")
    }
}

/// Conditions that are a word by themselves.
pub(crate) const FLAGS: &[(&str, Test)] =
    &[("withdrawn", Test::Withdrawn), ("deployed", Test::Deployed)];

/// What updates can be to the catalogue, by their words.
pub(crate) const KINDS: &[(&str, Kind)] = &[
    ("software", Kind::Software),
    ("driver", Kind::Driver),
    ("category", Kind::Category),
    ("detectoid", Kind::Detectoid),
];

/// Numbers of bytes by their words; the plain one first.
pub(crate) const SIZES: &[(&str, u64)] = &[
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Lengths of time by their words, the shortest form first.
pub(crate) const UNITS: &[(&[&str], Unit)] = &[
    (&["h", "hour", "hours"], Unit::Hour),
    (&["d", "day", "days"], Unit::Day),
    (&["w", "week", "weeks"], Unit::Week),
    (&["mo", "month", "months"], Unit::Month),
    (&["y", "year", "years"], Unit::Year),
];

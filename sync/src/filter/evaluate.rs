//! Filters worked out over a board.

use super::{
    Compare, DateField, Expr, Filter, NameField, NumberField, Test, TextField, Unit, When,
};
use crate::catalogue::bits::Bits;
use crate::catalogue::board::Board;
use crate::catalogue::text::Tag;
use crate::catalogue::{Deployments, RequiredCounts};
use crate::language::nearest;
use crate::lifecycle::{Use, Why};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// What a filter is worked out over.
pub(crate) struct View<'a> {
    pub board: &'a Board,
    pub required: &'a dyn RequiredCounts,
    /// None where nobody knows: then no update is.
    pub deployments: Option<&'a dyn Deployments>,
    pub now: Timestamp,
}

impl Filter {
    /// The rows that it lets through, and what of it may be a slip of the pen.
    pub(crate) fn rows(&self, view: &View<'_>) -> (Bits, Vec<String>) {
        let board = view.board;
        let mut rows = self.holds(view);
        rows.and(&board.all_visible());
        if !self.0.tests().iter().any(|test| matches!(test, Test::Kind(_) | Test::Id(_))) {
            rows.and(&Bits::of(board.len(), |row| board.is_update(row)));
        }
        let mut hints = hints(&self.0, board);
        if view.deployments.is_none() && self.asks_deployed() {
            hints.push(
                "which updates are deployed is not known here: none counts as deployed".into(),
            );
        }
        (rows, hints)
    }
}

impl Filter {
    /// The rows of which it holds, whatever they are.
    pub(crate) fn holds(&self, view: &View<'_>) -> Bits {
        view.expr(&self.0)
    }
}

impl View<'_> {
    fn expr(&self, expr: &Expr) -> Bits {
        match expr {
            Expr::All(parts) => {
                let mut rows = Bits::all(self.board.len());
                parts.iter().for_each(|part| rows.and(&self.expr(part)));
                rows
            }
            Expr::Any(parts) => {
                let mut rows = Bits::none(self.board.len());
                parts.iter().for_each(|part| rows.or(&self.expr(part)));
                rows
            }
            Expr::Not(part) => {
                let mut rows = self.expr(part);
                rows.flip();
                rows
            }
            Expr::Test(test) => self.test(test),
        }
    }

    fn test(&self, test: &Test) -> Bits {
        let board = self.board;
        match test {
            Test::Classification(all) => {
                Bits::column(&board.classifications, |it| all.contains(it))
            }
            Test::Kind(all) => Bits::column(&board.kinds, |it| all.contains(it)),
            Test::State(all) => Bits::column(&board.states, |it| all.contains(it)),
            Test::Withdrawn => Bits::of(board.len(), |row| {
                board.expired(row).is_some_and(|expired| expired.why == Why::Withdrawn)
            }),
            Test::Deployed => Bits::of(board.len(), |row| {
                self.deployments.is_some_and(|them| them.of(board.ids[row]) == Use::Deployed)
            }),
            Test::Severity(all) => Bits::column(&board.severities, |it| all.contains(it)),
            Test::SeverityIs(compare, than) => {
                Bits::column(&board.severities, |it| compare.holds(it, than))
            }
            Test::Name(field, names) => self.named(*field, names),
            Test::Language(all) => {
                let places: Vec<u32> =
                    all.iter().filter_map(|tag| board.language_names.place(tag.as_str())).collect();
                Bits::of(board.len(), |row| {
                    board.language_lists.of(row).iter().any(|place| places.contains(place))
                })
            }
            Test::Id(all) => {
                let mut rows = Bits::none(board.len());
                all.iter().filter_map(|id| board.find(*id)).for_each(|row| rows.set(row));
                rows
            }
            Test::Contains(field, part) => self.containing(*field, part),
            Test::Equals(field, values) => {
                let values: Vec<_> = values.iter().map(|it| Cow::Borrowed(it.as_str())).collect();
                match field {
                    TextField::Title => board.titles.equal(&values, Tag::Title),
                    TextField::Name => board.words.equal(&values, Tag::Name),
                    TextField::Article => board.words.equal(&values, Tag::Article),
                    TextField::Cve => board.words.equal(&values, Tag::Cve),
                    TextField::Text => Bits::none(board.len()),
                }
            }
            Test::Date(field, compare, when) => {
                let cells = match field {
                    DateField::Released => &board.released,
                    DateField::Created => &board.created,
                    DateField::FirstSeen => &board.first_seen,
                    DateField::Changed => &board.changed,
                };
                let span = when.seconds(self.now);
                Bits::column(cells, |at| match compare {
                    Compare::Less => *at < span.start,
                    Compare::LessOrEqual => *at < span.end,
                    Compare::Equal => span.contains(at),
                    Compare::GreaterOrEqual => *at >= span.start,
                    Compare::Greater => *at >= span.end,
                })
            }
            Test::Number(NumberField::Revision, compare, than) => {
                Bits::column(&board.revisions, |it| compare.holds(&u64::from(*it), than))
            }
            Test::Number(NumberField::Files, compare, than) => {
                Bits::column(&board.files, |it| compare.holds(&u64::from(*it), than))
            }
            Test::Number(NumberField::Size, compare, than) => {
                Bits::column(&board.sizes, |it| compare.holds(it, than))
            }
            Test::Number(NumberField::Required, compare, than) => self.required(*compare, *than),
        }
    }

    /// The rows that are required on so many machines. What is not told is required nowhere.
    fn required(&self, compare: Compare, than: u64) -> Bits {
        let is_in_by_none = compare.holds(&0, &than);
        // Those are collected that are not as those are of which nothing is told.
        let mut rows = Bits::none(self.board.len());
        self.required.each(&mut |id, count| {
            if compare.holds(&count, &than) != is_in_by_none
                && let Some(row) = self.board.find(id)
            {
                rows.set(row);
            }
        });
        if is_in_by_none {
            rows.flip();
        }
        rows
    }

    fn containing(&self, field: TextField, part: &str) -> Bits {
        let board = self.board;
        match field {
            TextField::Title => board.titles.containing(part),
            TextField::Name => board.words.containing_in(Tag::Name, part),
            TextField::Article => board.words.containing_in(Tag::Article, part),
            TextField::Cve => board.words.containing_in(Tag::Cve, part),
            TextField::Text => {
                let mut rows = board.titles.containing(part);
                rows.or(&board.words.containing(part));
                rows
            }
        }
    }

    fn named(&self, field: NameField, names: &[String]) -> Bits {
        let board = self.board;
        let names: HashSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let has = |name: &str| names.contains(&name.to_lowercase());
        if field == NameField::Source {
            let all = board.source_names.all.iter();
            let is_in: Vec<bool> = all.map(|name| has(name)).collect();
            return Bits::of(board.len(), |row| {
                // What was withdrawn still belongs to who said it last.
                is_in[board.sources[row] as usize]
                    || board.said_by(row).any(|(place, _)| is_in[place as usize])
            });
        }
        let is_meant = |id: &String| match (field, board.products.get(id)) {
            (NameField::Family, known) => known.is_some_and(|row| has(&row.product.family)),
            (_, known) => {
                has(id)
                    || known.is_some_and(|row| has(&row.product.name) || has(&row.product.family))
            }
        };
        let is_in: Vec<bool> = board.product_names.all.iter().map(is_meant).collect();
        Bits::of(board.len(), |row| {
            board.product_lists.of(row).iter().any(|place| is_in[*place as usize])
        })
    }
}

impl When {
    /// The seconds that it is: one, or those of a day.
    fn seconds(self, now: Timestamp) -> Range<i64> {
        let second = |time: Timestamp| time.as_second()..time.as_second().saturating_add(1);
        let day = |date: Date| {
            let start =
                |date: Date| date.to_zoned(TimeZone::UTC).map(|it| it.timestamp().as_second());
            match (start(date), date.tomorrow().and_then(start)) {
                (Ok(from), Ok(to)) => from..to,
                (Ok(from), Err(_)) => from..i64::MAX,
                (Err(_), _) => i64::MIN..i64::MIN,
            }
        };
        match self {
            Self::At(time) => second(time),
            Self::Now => second(now),
            Self::Day(date) => day(date),
            Self::Today => day(now.to_zoned(TimeZone::UTC).date()),
            Self::Ago(number, unit) => {
                let span = unit.span(number);
                let then = span.and_then(|span| now.to_zoned(TimeZone::UTC).checked_sub(span).ok());
                // Longer ago than the calendar reaches is before everything.
                then.map_or(i64::MIN..i64::MIN + 1, |then| second(then.timestamp()))
            }
        }
    }
}

/// The first second of a time, and the first one after it; for whoever says the language a second time.
#[cfg(test)]
pub(super) fn seconds(when: When, now: Timestamp) -> (i64, i64) {
    let seconds = when.seconds(now);
    (seconds.start, seconds.end)
}

impl Unit {
    fn span(self, number: u32) -> Option<Span> {
        let number = i64::from(number);
        match self {
            Self::Hour => Span::new().try_hours(number).ok(),
            Self::Day => Span::new().try_days(number).ok(),
            Self::Week => Span::new().try_weeks(number).ok(),
            Self::Month => Span::new().try_months(number).ok(),
            Self::Year => Span::new().try_years(number).ok(),
        }
    }
}

/// Names that nothing here has, and which ones may be meant.
fn hints(expr: &Expr, board: &Board) -> Vec<String> {
    /// More are not told.
    const MOST: usize = 10;
    let mut hints = Vec::new();
    for test in expr.tests() {
        let Test::Name(field, names) = test else { continue };
        let products = board.products.values().map(|row| &row.product);
        let known: BTreeSet<&str> = match field {
            NameField::Product => {
                let used = board.product_names.all.iter().map(String::as_str);
                products.flat_map(|it| [&*it.id, &*it.name, &*it.family]).chain(used).collect()
            }
            NameField::Family => products.map(|product| product.family.as_str()).collect(),
            NameField::Source => board.source_names.all.iter().map(String::as_str).collect(),
        };
        let folded: HashSet<String> = known.iter().map(|name| name.to_lowercase()).collect();
        for name in names.iter().filter(|name| !folded.contains(&name.to_lowercase())) {
            if hints.len() < MOST {
                let near = nearest(name, known.iter().copied());
                let near = near.map(|near| format!("; did you mean {near:?}?"));
                let field = super::Field::Name(*field).word();
                hints.push(format!(
                    "no update has the {field} {name:?}{}",
                    near.unwrap_or_default()
                ));
            }
        }
    }
    hints
}

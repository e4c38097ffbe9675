//! Filters out of text: which fields there are, and what they are compared with.

use super::{
    Compare, DateField, Expr, FLAGS, Field, Filter, FilterError, KINDS, NumberField, SIZES, Test,
    TextField, UNITS, Unit, When,
};
use crate::language::{Condition, Parser, nearest, parse};
use crate::lifecycle::State;
use jiff::Timestamp;
use jiff::civil::Date;
use std::str::FromStr;

impl FromStr for Filter {
    type Err = FilterError;
    /// Reads a filter; of text without a word, all updates.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        parse(text).map(Self)
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;
    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

impl Condition for Test {
    const TEXT: &'static str = "filter";

    fn read(parser: &mut Parser<'_>, column: usize, word: &str) -> Result<Expr, FilterError> {
        let is_it = |(name, _): &&(&str, Field)| word.eq_ignore_ascii_case(name);
        if let Some((_, field)) = Field::ALL.iter().find(is_it) {
            return test(parser, *field);
        }
        if let Some((_, test)) = FLAGS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
            return Ok(Expr::Test(test.clone()));
        }
        let state = State::ALL.into_iter().find(|state| word.eq_ignore_ascii_case(state.as_str()));
        if let Some(state) = state.filter(|state| *state != State::Purged) {
            return Ok(Expr::Test(Test::State(vec![state])));
        }
        let words = Field::ALL.iter().map(|(name, _)| *name);
        let words = words.chain(FLAGS.iter().map(|(name, _)| *name));
        let words = words.chain(STATES.iter().map(|state| state.as_str()));
        let shown: String = word.chars().take(50).collect();
        Err(FilterError::new(
            column,
            match nearest(word, words) {
                Some(near) => format!("{shown:?} is no field; did you mean {near:?}?"),
                None => {
                    let known: Vec<_> = Field::ALL.iter().map(|(name, _)| *name).collect();
                    format!("{shown:?} is no field; want one of {}", known.join(", "))
                }
            },
        ))
    }
}

/// What follows a field.
fn test(parser: &mut Parser<'_>, field: Field) -> Result<Expr, FilterError> {
    let (sign, is_not) = parser.sign(field.word(), |sign| takes(field, sign))?;
    let (test, at) = match sign {
        "in" => {
            let (values, at) = parser.list(field.word())?;
            (one_of(field, &values), at)
        }
        sign => {
            let at = parser.column();
            (compared(parser, field, sign), at)
        }
    };
    let test = test.map_err(|problem| FilterError::new(at, problem))?;
    let (values, searches) = match &test {
        Test::Contains(..) => (0, 1),
        Test::Name(_, values) | Test::Equals(_, values) => (values.len(), 0),
        Test::Id(values) => (values.len(), 0),
        _ => (0, 0),
    };
    parser.count(values, searches, at)?;
    let test = Expr::Test(test);
    Ok(if is_not { test.negated() } else { test })
}

fn compared(parser: &mut Parser<'_>, field: Field, sign: &str) -> Result<Test, String> {
    let compare = Compare::of(sign);
    if let Field::Date(field) = field {
        return date(parser, field).map(|when| Test::Date(field, compare, when));
    }
    let value = parser.value(field.word())?;
    match (field, compare) {
        (Field::Text(field), _) if sign == "~" => Ok(Test::Contains(field, value)),
        (Field::Number(NumberField::Size), _) => {
            // A number and its word may stand apart: 500 MB.
            let unit = match value.bytes().all(|byte| byte.is_ascii_digit()) {
                true => {
                    SIZES.iter().find(|(word, _)| parser.word(word)).map_or("", |(word, _)| word)
                }
                false => "",
            };
            let bytes = bytes(&format!("{value}{unit}")).ok_or_else(|| {
                format!("{value:?} is no number of bytes; want one as 500000, 500MB or 2GiB")
            })?;
            Ok(Test::Number(NumberField::Size, compare, bytes))
        }
        (Field::Number(field), _) => {
            let number = value.parse();
            let number = number.map_err(|_| format!("{value:?} is no number from 0 on"))?;
            Ok(Test::Number(field, compare, number))
        }
        (Field::Severity, compare) if compare != Compare::Equal => {
            Ok(Test::SeverityIs(compare, or_none(&value)?))
        }
        (field, _) => one_of(field, &[value]),
    }
}

/// `2026-01-31`, a time, `now`, `today`, `30d ago`, `30 days ago`.
fn date(parser: &mut Parser<'_>, field: DateField) -> Result<When, String> {
    let text = parser.value(Field::Date(field).word())?;
    if text.eq_ignore_ascii_case("now") {
        return Ok(When::Now);
    }
    if text.eq_ignore_ascii_case("today") {
        return Ok(When::Today);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(When::At(time));
    }
    if text.len() == 10
        && let Ok(day) = text.parse::<Date>()
    {
        return Ok(When::Day(day));
    }
    let wrong = || {
        format!(
            "{text:?} is no time; want one as 2026-01-31, 2026-01-31T12:00:00Z, today or '30d ago'"
        )
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "" => parser.value(Field::Date(field).word())?,
        unit => unit.into(),
    };
    let unit = unit_of(&unit).ok_or_else(wrong)?;
    if !parser.word("ago") {
        return Err(format!("want 'ago' after {text:?}, found {}", parser.found()));
    }
    Ok(When::Ago(number, unit))
}
/// The states that can be asked for.
const STATES: [State; 3] = [State::Current, State::Superseded, State::Expired];

/// `500000`, `500MB`, `2GiB`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "b" } else { unit };
    let (_, times) = SIZES.iter().find(|(word, _)| word.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*times)
}

/// A length of time by its word.
pub(super) fn unit_of(word: &str) -> Option<Unit> {
    let is_it = |name: &&str| word.eq_ignore_ascii_case(name);
    UNITS.iter().find(|(names, _)| names.iter().any(is_it)).map(|(_, unit)| *unit)
}

/// That a field is one of these.
fn one_of(field: Field, values: &[String]) -> Result<Test, String> {
    fn each<T>(
        values: &[String],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        values.iter().map(|value| read(value)).collect()
    }
    fn word<T: Copy>(value: &str, words: &[(&str, T)], what: &str) -> Result<T, String> {
        let found = words.iter().find(|(word, _)| value.eq_ignore_ascii_case(word));
        found.map(|(_, it)| *it).ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("{value:?} is no {what}; want one of {}", known.join(", "))
        })
    }
    let states = STATES.map(|state| (state.as_str(), state));
    Ok(match field {
        Field::Classification => Test::Classification(each(values, or_none)?),
        Field::Severity => Test::Severity(each(values, or_none)?),
        Field::Kind => Test::Kind(each(values, |value| word(value, KINDS, "kind"))?),
        Field::State => Test::State(each(values, |value| word(value, &states, "state"))?),
        Field::Language => Test::Language(each(values, read)?),
        Field::Id => Test::Id(each(values, read)?),
        Field::Name(field) => Test::Name(field, values.to_vec()),
        Field::Text(field) => Test::Equals(field, values.to_vec()),
        Field::Date(_) | Field::Number(_) => return Err("want a single value here".into()),
    })
}

fn read<T: FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// A word of a taxonomy, or `none`.
fn or_none<T: FromStr<Err: std::fmt::Display>>(value: &str) -> Result<Option<T>, String> {
    if value.eq_ignore_ascii_case("none") { Ok(None) } else { read(value).map(Some) }
}

/// Whether a field can be asked by a sign, or by `in`.
fn takes(field: Field, sign: &str) -> bool {
    let equal = matches!(sign, "=" | "!=" | "in");
    match field {
        Field::Date(_) | Field::Number(_) => !matches!(sign, "~" | "!~" | "in"),
        Field::Severity => !matches!(sign, "~" | "!~"),
        Field::Text(TextField::Title | TextField::Text) => matches!(sign, "~" | "!~"),
        Field::Text(_) => equal || matches!(sign, "~" | "!~"),
        _ => equal,
    }
}

//! Filters out of text.
//!
//! ```text
//! any    = all { "or" all }
//! all    = one { "and" one }
//! one    = "not" one | "(" any ")" | flag | field test
//! test   = sign value | [ "not" ] "in" "(" value { "," value } ")"
//! ```

use super::nearest::nearest;
use super::{
    Compare, DateField, Expr, FLAGS, Field, Filter, KINDS, Test, TextField, UNITS, Unit, When,
};
use crate::lifecycle::State;
use jiff::Timestamp;
use jiff::civil::Date;
use std::str::FromStr;

/// The longest text of a filter, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// How deep parentheses and `not` may be nested.
pub const MAX_DEPTH: usize = 32;
/// Of how many conditions a filter may be made.
pub const MAX_TERMS: usize = 500;
/// How many values it may have in lists.
pub const MAX_VALUES: usize = 5_000;
/// How often it may look for a part of a text, which costs most.
pub const MAX_SEARCHES: usize = 16;

/// What is wrong with a filter's text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct FilterError {
    /// Which character, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl FromStr for Filter {
    type Err = FilterError;
    /// Reads a filter; of text without a word, all updates.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_TEXT {
            let problem = format!("a filter has at most {MAX_TEXT} bytes");
            return Err(FilterError { column: 1, problem });
        }
        let tokens = tokens(text)?;
        let end = text.chars().count() + 1;
        let mut parser =
            Parser { tokens: &tokens, end, depth: 0, terms: 0, values: 0, searches: 0 };
        if parser.tokens.is_empty() {
            return Ok(Self::all());
        }
        let expr = parser.any()?;
        match parser.tokens {
            [] => Ok(Self(expr)),
            [(column, Token::Close), ..] => Err(error(*column, "this ) was not opened")),
            [(column, token), ..] => {
                Err(error(*column, format!("want 'and', 'or' or the end here, found {token}")))
            }
        }
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;
    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

fn error(column: usize, problem: impl Into<String>) -> FilterError {
    FilterError { column, problem: problem.into() }
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// A word in quotes: a value, whatever it says.
    Quoted(String),
    Sign(&'static str),
    Open,
    Close,
    Comma,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) | Self::Quoted(word) => {
                write!(f, "{:?}", word.chars().take(50).collect::<String>())
            }
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::Open => f.write_str("\"(\""),
            Self::Close => f.write_str("\")\""),
            Self::Comma => f.write_str("\",\""),
        }
    }
}

/// The signs, those first that begin like another one.
const SIGNS: [&str; 8] = ["!=", "!~", "<=", ">=", "=", "<", ">", "~"];

/// Whether a character can be part of a word without quotes.
pub(super) fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"()=!<>~,'\"\\".contains(c)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let (mut tokens, mut rest, mut column) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
        let (token, len) = match first {
            _ if first.is_whitespace() => (None, first.len_utf8()),
            '(' => (Some(Token::Open), 1),
            ')' => (Some(Token::Close), 1),
            ',' => (Some(Token::Comma), 1),
            '\'' | '"' => {
                let (word, len) = quoted(rest, first)
                    .ok_or_else(|| error(column, format!("this {first} has no end")))?;
                (Some(Token::Quoted(word)), len)
            }
            _ if let Some(sign) = sign => (Some(Token::Sign(sign)), sign.len()),
            _ if is_plain(first) => {
                let len = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
                (Some(Token::Word(rest[..len].into())), len)
            }
            other => {
                let problem = format!("{other:?} can stand here only in quotes");
                return Err(error(column, problem));
            }
        };
        tokens.extend(token.map(|token| (column, token)));
        column += rest[..len].chars().count();
        rest = &rest[len..];
    }
    Ok(tokens)
}

/// A word in quotes, in which a backslash takes the next character as it is; and its length.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => word.push(chars.next()?.1),
            _ if c == quote => return Some((word, at + 1)),
            _ => word.push(c),
        }
    }
    None
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    /// The column after the last one.
    end: usize,
    depth: usize,
    terms: usize,
    values: usize,
    searches: usize,
}

impl<'a> Parser<'a> {
    fn column(&self) -> usize {
        self.tokens.first().map_or(self.end, |(column, _)| *column)
    }

    fn next(&mut self) -> Option<(usize, &'a Token)> {
        let ((column, token), rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some((*column, token))
    }

    /// Passes over the word, if it comes next.
    fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.tokens.first(), Some((_, Token::Word(word))) if word.eq_ignore_ascii_case(wanted));
        if found {
            self.next();
        }
        found
    }

    fn found(&self) -> String {
        self.tokens.first().map_or("the end".into(), |(_, token)| token.to_string())
    }

    fn any(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.all()?];
        while self.word("or") {
            parts.push(self.all()?);
        }
        Ok(Expr::any(parts))
    }

    fn all(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.one()?];
        while self.word("and") {
            parts.push(self.one()?);
        }
        Ok(Expr::all(parts))
    }

    fn one(&mut self) -> Result<Expr, FilterError> {
        let column = self.column();
        if self.depth >= MAX_DEPTH {
            return Err(error(column, format!("this is nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let one = self.one_inside(column);
        self.depth -= 1;
        one
    }

    fn one_inside(&mut self, column: usize) -> Result<Expr, FilterError> {
        if self.word("not") {
            return Ok(self.one()?.negated());
        }
        match self.next() {
            Some((_, Token::Open)) => {
                let inside = self.any()?;
                match self.next() {
                    Some((_, Token::Close)) => Ok(inside),
                    Some((at, token)) => {
                        Err(error(at, format!("want 'and', 'or' or ) here, found {token}")))
                    }
                    None => Err(error(column, "this ( is not closed")),
                }
            }
            Some((_, Token::Word(word))) => self.condition(column, word),
            Some((_, token)) => Err(error(column, format!("want a field here, found {token}"))),
            None => Err(error(column, "want a field here, found the end")),
        }
    }

    /// A condition that begins with that word.
    fn condition(&mut self, column: usize, word: &str) -> Result<Expr, FilterError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(error(column, format!("a filter has at most {MAX_TERMS} conditions")));
        }
        let is_it = |(name, _): &&(&str, Field)| word.eq_ignore_ascii_case(name);
        if let Some((_, field)) = Field::ALL.iter().find(is_it) {
            return self.test(*field);
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
        Err(error(
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

    /// What follows a field.
    fn test(&mut self, field: Field) -> Result<Expr, FilterError> {
        let column = self.column();
        let is_not = self.word("not");
        if self.word("in") {
            let test = self.list(field, column)?;
            return Ok(if is_not { test.negated() } else { test });
        }
        let sign = match self.tokens.first() {
            Some((_, Token::Sign(sign))) if !is_not => *sign,
            _ => {
                let problem = format!(
                    "want {} after {:?}, found {}",
                    signs_of(field),
                    field.word(),
                    self.found()
                );
                return Err(error(self.column(), problem));
            }
        };
        self.next();
        if !takes(field, sign) {
            let problem =
                format!("{:?} cannot be asked by {sign}; want {}", field.word(), signs_of(field));
            return Err(error(column, problem));
        }
        let (sign, is_not) = match sign {
            "!=" => ("=", true),
            "!~" => ("~", true),
            sign => (sign, false),
        };
        let at = self.column();
        let test = self.compared(field, sign).map_err(|problem| error(at, problem))?;
        self.count(&test, at)?;
        let test = Expr::Test(test);
        Ok(if is_not { test.negated() } else { test })
    }

    fn list(&mut self, field: Field, column: usize) -> Result<Expr, FilterError> {
        if !takes(field, "in") {
            let problem =
                format!("{:?} cannot be asked by a list; want {}", field.word(), signs_of(field));
            return Err(error(column, problem));
        }
        if !matches!(self.tokens.first(), Some((_, Token::Open))) {
            let problem = format!("want ( and a list after 'in', found {}", self.found());
            return Err(error(self.column(), problem));
        }
        self.next();
        let (mut values, at) = (Vec::new(), self.column());
        loop {
            let at = self.column();
            values.push(self.value(field).map_err(|problem| error(at, problem))?);
            match self.next() {
                Some((_, Token::Comma)) => {}
                Some((_, Token::Close)) => break,
                Some((at, token)) => {
                    return Err(error(at, format!("want , or ) in the list, found {token}")));
                }
                None => return Err(error(self.end, "the list has no end; want )")),
            }
        }
        let test = one_of(field, &values).map_err(|problem| error(at, problem))?;
        self.count(&test, at)?;
        Ok(Expr::Test(test))
    }

    /// Counts what a condition costs.
    fn count(&mut self, test: &Test, column: usize) -> Result<(), FilterError> {
        match test {
            Test::Contains(..) => self.searches += 1,
            Test::Name(_, values) | Test::Equals(_, values) => self.values += values.len(),
            Test::Id(values) => self.values += values.len(),
            _ => {}
        }
        if self.searches > MAX_SEARCHES {
            return Err(error(column, format!("a filter asks at most {MAX_SEARCHES} times by ~")));
        }
        if self.values > MAX_VALUES {
            return Err(error(column, format!("a filter lists at most {MAX_VALUES} values")));
        }
        Ok(())
    }

    /// A value as it is written.
    fn value(&mut self, field: Field) -> Result<String, String> {
        match self.tokens.first() {
            Some((_, Token::Word(word) | Token::Quoted(word))) if !word.is_empty() => {
                self.next();
                Ok(word.clone())
            }
            _ => Err(format!("want a value for {:?} here, found {}", field.word(), self.found())),
        }
    }

    fn compared(&mut self, field: Field, sign: &str) -> Result<Test, String> {
        let compare = match sign {
            "<" => Compare::Less,
            "<=" => Compare::LessOrEqual,
            ">" => Compare::Greater,
            ">=" => Compare::GreaterOrEqual,
            _ => Compare::Equal,
        };
        if let Field::Date(field) = field {
            return self.date(field).map(|when| Test::Date(field, compare, when));
        }
        let value = self.value(field)?;
        match (field, compare) {
            (Field::Text(field), _) if sign == "~" => Ok(Test::Contains(field, value)),
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
    fn date(&mut self, field: DateField) -> Result<When, String> {
        let text = self.value(Field::Date(field))?;
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
            "" => self.value(Field::Date(field))?,
            unit => unit.into(),
        };
        let unit = unit_of(&unit).ok_or_else(wrong)?;
        if !self.word("ago") {
            return Err(format!("want 'ago' after {text:?}, found {}", self.found()));
        }
        Ok(When::Ago(number, unit))
    }
}

/// The states that can be asked for.
const STATES: [State; 3] = [State::Current, State::Superseded, State::Expired];

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

/// The signs that a field can be asked by.
fn signs_of(field: Field) -> String {
    let order = ["=", "!=", "~", "!~", "<", "<=", ">", ">=", "in"];
    let signs: Vec<_> = order.into_iter().filter(|sign| takes(field, sign)).collect();
    match signs.split_last() {
        Some((last, [])) => (*last).into(),
        Some((last, rest)) => format!("{} or {last}", rest.join(" ")),
        None => String::new(),
    }
}

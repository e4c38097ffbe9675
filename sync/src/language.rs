//! The language of conditions: what filters of updates and rules of collections have in common.
//!
//! ```text
//! any    = all { "or" all }
//! all    = one { "and" one }
//! one    = "not" one | "(" any ")" | condition
//! value  = word | '"' … '"' | "'" … "'"
//! ```
//!
//! What a condition is, and of which fields, says the type of it ([`Condition`]). Text is read within limits,
//! and what cannot be read is told with its column and what would be right there.

mod nearest;
mod parse;
mod write;

pub use nearest::nearest;
pub use parse::{Parser, parse};
pub use write::{list, value};

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// How deep parentheses and `not` may be nested.
pub const MAX_DEPTH: usize = 32;
/// Of how many conditions a text may be made.
pub const MAX_TERMS: usize = 500;
/// How many values it may have in lists.
pub const MAX_VALUES: usize = 5_000;
/// How often it may look for a part of a text, which costs most.
pub const MAX_SEARCHES: usize = 16;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct SyntaxError {
    /// Which character, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl SyntaxError {
    /// That something is wrong there.
    pub fn new(column: usize, problem: impl Into<String>) -> Self {
        Self { column, problem: problem.into() }
    }
}

/// A condition on one field of what the language is about.
pub trait Condition: Sized {
    /// What a text in the language is called: `filter`.
    const TEXT: &'static str;

    /// Reads the condition that begins with `word`, which stands at `column`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    fn read(parser: &mut Parser<'_>, column: usize, word: &str) -> Result<Expr<Self>, SyntaxError>;
}

/// Conditions joined. Made by [`Expr::all`] and [`Expr::any`], it is in its plainest form: written and read
/// again, it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr<T> {
    /// All of them hold; none of them is an `All`, and there is not exactly one.
    All(Vec<Expr<T>>),
    /// One of them holds; likewise.
    Any(Vec<Expr<T>>),
    /// It does not hold.
    Not(Box<Expr<T>>),
    /// A condition on one field.
    Test(T),
}

impl<T> Default for Expr<T> {
    /// What always holds.
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl<T> Expr<T> {
    /// That all hold.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let parts = parts.into_iter().flat_map(|part| match part {
            Self::All(parts) => parts,
            other => vec![other],
        });
        one_or(parts.collect(), Self::All)
    }

    /// That one holds.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let parts = parts.into_iter().flat_map(|part| match part {
            Self::Any(parts) => parts,
            other => vec![other],
        });
        one_or(parts.collect(), Self::Any)
    }

    /// That it does not hold.
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Its conditions on fields.
    pub fn tests(&self) -> Vec<&T> {
        let (mut found, mut to_do) = (Vec::new(), vec![self]);
        while let Some(expr) = to_do.pop() {
            match expr {
                Self::All(parts) | Self::Any(parts) => to_do.extend(parts),
                Self::Not(part) => to_do.push(part),
                Self::Test(test) => found.push(test),
            }
        }
        found
    }
}

fn one_or<T>(mut parts: Vec<Expr<T>>, several: fn(Vec<Expr<T>>) -> Expr<T>) -> Expr<T> {
    match parts.len() {
        1 => parts.remove(0),
        _ => several(parts),
    }
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

impl Compare {
    /// The one that a sign stands for; of every other sign, `=`.
    pub fn of(sign: &str) -> Self {
        match sign {
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => Self::Equal,
        }
    }

    /// Whether it is true of a value that stands so to the other.
    pub fn is(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }

    /// Whether it is true of two values.
    pub fn holds<T: Ord>(self, value: &T, than: &T) -> bool {
        self.is(value.cmp(than))
    }
}

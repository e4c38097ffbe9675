//! Rules out of text: which fields there are, and what they are compared with.

use super::{ADDRESS, ATTRIBUTE, PACKAGE, PACKAGE_VERSION, Rule, RuleError, TEXTS, Test, Text};
use compliance::fleet::{MAX_WORD, Property};
use std::str::FromStr;
use sync::language::{Compare, Condition, Expr, Parser, nearest, parse};

impl FromStr for Rule {
    type Err = RuleError;
    /// Reads a rule. Text without a word is none: that all clients are meant, nobody says by saying nothing.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let expr = parse(text)?;
        if expr == Expr::default() {
            return Err(RuleError::new(1, "a rule says which clients: os = debian"));
        }
        Ok(Self(expr))
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

/// What a condition is on.
enum Field {
    Text(Text),
    Address,
    Package,
    PackageVersion(String),
}

impl Field {
    fn of(word: &str) -> Option<Self> {
        let after = |prefix: &str| {
            let (start, rest) = word.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix).then_some(rest).filter(|rest| !rest.is_empty())
        };
        if let Some((_, text)) = TEXTS.into_iter().find(|(it, _)| word.eq_ignore_ascii_case(it)) {
            return Some(Self::Text(text));
        }
        if word.eq_ignore_ascii_case(ADDRESS) {
            return Some(Self::Address);
        }
        if word.eq_ignore_ascii_case(PACKAGE) {
            return Some(Self::Package);
        }
        if let Some(name) = after(ATTRIBUTE) {
            return Some(Self::Text(Text::Word(Property::Attribute(name.to_lowercase()))));
        }
        after(PACKAGE_VERSION).map(|name| Self::PackageVersion(name.to_owned()))
    }

    fn takes(&self, sign: &str) -> bool {
        let is_equal = matches!(sign, "=" | "!=");
        let is_order = matches!(sign, "<" | "<=" | ">" | ">=");
        match self {
            Self::Text(Text::Word(Property::OsVersion)) => true,
            Self::Text(_) => !is_order,
            Self::Address | Self::Package => is_equal || sign == "in",
            Self::PackageVersion(_) => is_equal || is_order,
        }
    }
}

impl Condition for Test {
    const TEXT: &'static str = "rule";

    fn read(parser: &mut Parser<'_>, column: usize, word: &str) -> Result<Expr<Self>, RuleError> {
        let Some(field) = Field::of(word) else { return Err(no_field(column, word)) };
        let (sign, is_not) = parser.sign(word, |sign| field.takes(sign))?;
        let (values, at) = match sign {
            "in" => parser.list(word)?,
            _ => {
                let at = parser.column();
                let value = parser.value(word).map_err(|problem| RuleError::new(at, problem))?;
                (vec![value], at)
            }
        };
        parser.count(values.len(), usize::from(sign == "~"), at)?;
        let test = test(field, sign, values).map_err(|problem| RuleError::new(at, problem))?;
        let test = Expr::Test(test);
        Ok(if is_not { test.negated() } else { test })
    }
}

/// The condition that a field stands so to one of the values.
fn test(field: Field, sign: &str, values: Vec<String>) -> Result<Test, String> {
    if let Some(long) = values.iter().find(|value| value.len() > MAX_WORD) {
        let start: String = long.chars().take(20).collect();
        return Err(format!("a value has at most {MAX_WORD} bytes, unlike \"{start}…\""));
    }
    let compare = Compare::of(sign);
    let one = |values: Vec<String>| values.into_iter().next().unwrap_or_default();
    Ok(match field {
        Field::Text(text) if sign == "~" => Test::Contains(text, one(values)),
        Field::Text(_) if compare != Compare::Equal => Test::Version(compare, one(values)),
        Field::Text(text) => Test::Is(text, values),
        Field::Address => {
            let networks = values.iter().map(|value| value.parse());
            let networks: Result<_, _> = networks.collect();
            Test::Address(networks.map_err(|error: crate::network::NotANetwork| error.to_string())?)
        }
        Field::Package => Test::Package(values),
        Field::PackageVersion(name) => Test::PackageVersion { name, compare, version: one(values) },
    })
}

fn no_field(column: usize, word: &str) -> RuleError {
    let known = TEXTS.iter().map(|(word, _)| *word).chain([ADDRESS, PACKAGE]);
    let shown: String = word.chars().take(50).collect();
    RuleError::new(
        column,
        match nearest(word, known.clone()) {
            Some(near) => format!("{shown:?} is no field; did you mean {near:?}?"),
            None => {
                let known: Vec<_> = known.collect();
                let known = known.join(", ");
                format!("{shown:?} is no field; want one of {known}, package.NAME, attribute.NAME")
            }
        },
    )
}

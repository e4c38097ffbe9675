//! What packages provide and require: names with versions in a relation, and conditions over them.
//!
//! A capability is a name, as `bash`, `libc.so.6(GLIBC_2.34)(64bit)` or `/usr/bin/sh`, and a range of
//! versions. Whether what is provided meets what is required is whether the ranges overlap, as rpm has it:
//! one without a version meets every version, and a release that one of them does not state counts for
//! nothing. What is required may also be a condition, in parentheses (rpm's "boolean dependencies").

use super::evr::{self, Evr};
use super::xml::{Tag, XmlError};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// How deep conditions may be nested.
const MAX_DEPTH: usize = 16;
/// The longest name, or condition, in bytes.
const MAX_NAME: usize = 16 << 10;

/// A name, and versions of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The name, or an absolute path.
    pub name: Arc<str>,
    /// Which versions; all, where none are stated.
    pub range: Option<Range>,
}

/// Versions below, at or above one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    less: bool,
    equal: bool,
    greater: bool,
    evr: Arc<Evr>,
}

/// What is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A capability.
    One(Capability),
    /// All of these.
    All(Vec<Need>),
    /// One of these.
    Any(Vec<Need>),
    /// One package that meets all of these.
    With(Vec<Need>),
    /// A package that meets the first, and not the second.
    Without(Box<[Need; 2]>),
    /// The first, if the second is met; else the third, if there is one.
    If(Box<[Need; 2]>, Option<Box<Need>>),
    /// The first, unless the second is met; then the third, if there is one.
    Unless(Box<[Need; 2]>, Option<Box<Need>>),
}

/// Holds equal names and versions once: a repository repeats them by the thousand.
#[derive(Default)]
pub struct Interner {
    names: HashSet<Arc<str>>,
    versions: HashSet<Arc<Evr>>,
}

impl Interner {
    /// The one that is held of a name.
    pub fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(held) = self.names.get(name) {
            return held.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    /// The one that is held of a version.
    pub fn version(&mut self, evr: Evr) -> Arc<Evr> {
        if let Some(held) = self.versions.get(&evr) {
            return held.clone();
        }
        let evr = Arc::new(evr);
        self.versions.insert(evr.clone());
        evr
    }
}

impl Range {
    /// The range of a relation's sign to a version; none of what is no sign.
    fn of(sign: &str, evr: Arc<Evr>) -> Option<Self> {
        let (less, equal, greater) = match sign {
            "LT" | "<" => (true, false, false),
            "LE" | "<=" | "=<" => (true, true, false),
            "EQ" | "=" | "==" => (false, true, false),
            "GE" | ">=" | "=>" => (false, true, true),
            "GT" | ">" => (false, false, true),
            _ => return None,
        };
        Some(Self { less, equal, greater, evr })
    }

    /// Whether there may be a version in both.
    fn overlaps(&self, other: &Self) -> bool {
        match order(&self.evr, &other.evr) {
            Ordering::Less => self.greater || other.less,
            Ordering::Greater => self.less || other.greater,
            Ordering::Equal => {
                self.equal && other.equal
                    || self.less && other.less
                    || self.greater && other.greater
            }
        }
    }
}

/// As [`Evr::compare`], but for a release that one does not state: that counts for nothing.
fn order(one: &Evr, other: &Evr) -> Ordering {
    let release = match one.release.is_empty() || other.release.is_empty() {
        true => Ordering::Equal,
        false => evr::compare(&one.release, &other.release),
    };
    let version = || evr::compare(&one.version, &other.version);
    one.epoch.cmp(&other.epoch).then_with(version).then(release)
}

impl Capability {
    /// One of any version.
    pub fn any(name: Arc<str>) -> Self {
        Self { name, range: None }
    }

    /// Reads an `entry` of `provides` or `requires`. One whose version is none has any.
    pub fn read(tag: &Tag<'_>, all: &mut Interner) -> Result<Self, XmlError> {
        let name = all.name(tag.text("name")?.trim());
        let sign = tag.text("flags")?;
        if sign.is_empty() {
            return Ok(Self::any(name));
        }
        let evr = Evr::new(&tag.text("epoch")?, &tag.text("ver")?, &tag.text("rel")?);
        let range = evr.ok().and_then(|evr| Range::of(&sign, all.version(evr)));
        Ok(Self { name, range })
    }

    /// Whether what is provided so meets what is required as `wanted`.
    pub fn meets(&self, wanted: &Self) -> bool {
        self.name == wanted.name
            && match (&self.range, &wanted.range) {
                (Some(provided), Some(wanted)) => provided.overlaps(wanted),
                _ => true,
            }
    }
}

impl Need {
    /// What an `entry` of `requires` requires; none where that is rpm's own business, or no condition that
    /// can be read.
    pub fn read(tag: &Tag<'_>, all: &mut Interner) -> Result<Option<Self>, XmlError> {
        let capability = Capability::read(tag, all)?;
        let name = &*capability.name;
        Ok(match () {
            () if name.is_empty() || name.starts_with("rpmlib(") => None,
            () if name.starts_with('(') => Self::parse(name, all),
            () => Some(Self::One(capability)),
        })
    }

    /// Reads a condition: `(a >= 1 and (b or c))`, `(a if b else c)`.
    pub fn parse(text: &str, all: &mut Interner) -> Option<Self> {
        if text.len() > MAX_NAME {
            return None;
        }
        let mut parser = Parser { rest: text, all };
        let need = parser.group(0)?;
        parser.rest.trim().is_empty().then_some(need)
    }

    /// All capabilities in it.
    pub fn capabilities(&self) -> Vec<&Capability> {
        let (mut found, mut waiting) = (Vec::new(), vec![self]);
        while let Some(need) = waiting.pop() {
            match need {
                Self::One(capability) => found.push(capability),
                Self::All(needs) | Self::Any(needs) | Self::With(needs) => waiting.extend(needs),
                Self::Without(two) => waiting.extend(two.iter()),
                Self::If(two, otherwise) | Self::Unless(two, otherwise) => {
                    waiting.extend(two.iter());
                    waiting.extend(otherwise.as_deref());
                }
            }
        }
        found
    }
}

/// Reads a condition from left to right.
struct Parser<'t, 'a> {
    rest: &'t str,
    all: &'a mut Interner,
}

impl<'t> Parser<'t, '_> {
    /// What stands in parentheses.
    fn group(&mut self, depth: usize) -> Option<Need> {
        if depth == MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start().strip_prefix('(')?;
        let mut needs = vec![self.operand(depth)?];
        let mut word = "";
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(')') {
                self.rest = rest;
                return made(word, needs);
            }
            let next = self.word()?;
            match (word, next) {
                ("", "and" | "or" | "with" | "without" | "if" | "unless") => word = next,
                ("and" | "or" | "with", same) if same == word => {}
                ("if" | "unless", "else") if needs.len() == 2 => {}
                _ => return None,
            }
            needs.push(self.operand(depth)?);
        }
    }

    fn operand(&mut self, depth: usize) -> Option<Need> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('(') {
            return self.group(depth + 1);
        }
        let name = self.word()?;
        if name.is_empty() {
            return None;
        }
        let name = self.all.name(name);
        let after = self.rest.trim_start();
        let is_sign = |c: char| matches!(c, '<' | '=' | '>');
        let sign = &after[..after.find(|c| !is_sign(c)).unwrap_or(after.len())];
        if sign.is_empty() {
            return Some(Need::One(Capability::any(name)));
        }
        self.rest = after[sign.len()..].trim_start();
        let evr = self.word()?.parse().ok()?;
        let evr = self.all.version(evr);
        Some(Need::One(Capability { name, range: Some(Range::of(sign, evr)?) }))
    }

    /// What stands up to a space, or to a parenthesis that closes more than it opened; none where one is left
    /// open.
    fn word(&mut self) -> Option<&'t str> {
        let mut open = 0_usize;
        let end = self.rest.find(|c: char| match c {
            '(' => {
                open += 1;
                false
            }
            ')' if open == 0 => true,
            ')' => {
                open -= 1;
                false
            }
            c => c.is_whitespace(),
        });
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (open == 0).then_some(word)
    }
}

/// A condition of its word and operands.
fn made(word: &str, mut needs: Vec<Need>) -> Option<Need> {
    let third = (needs.len() == 3).then(|| needs.pop()).flatten().map(Box::new);
    let two = |needs: Vec<Need>| needs.try_into().ok().map(Box::new);
    Some(match word {
        "" => needs.pop()?,
        "if" => Need::If(two(needs)?, third),
        "unless" => Need::Unless(two(needs)?, third),
        "without" => Need::Without(two(needs)?),
        word => {
            needs.extend(third.map(|third| *third));
            match word {
                "and" => Need::All(needs),
                "or" => Need::Any(needs),
                _ => Need::With(needs),
            }
        }
    })
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let Some(Range { less, equal, greater, evr }) = &self.range else { return Ok(()) };
        let sign = [(less, "<"), (greater, ">"), (equal, "=")];
        let sign: String = sign.iter().filter(|(is, _)| **is).map(|(_, sign)| *sign).collect();
        write!(f, " {sign} {evr}")
    }
}

impl fmt::Display for Need {
    /// As it is written in a package.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, word: &str, needs: &[Need]| {
            for (n, need) in needs.iter().enumerate() {
                let before = if n == 0 { "(" } else { word };
                write!(f, "{before}{need}")?;
            }
            f.write_str(")")
        };
        let conditional =
            |f: &mut fmt::Formatter<'_>, word: &str, two: &[Need; 2], third: &Option<Box<Need>>| {
                write!(f, "({} {word} {}", two[0], two[1])?;
                match third {
                    Some(third) => write!(f, " else {third})"),
                    None => f.write_str(")"),
                }
            };
        match self {
            Self::One(capability) => capability.fmt(f),
            Self::All(needs) => list(f, " and ", needs),
            Self::Any(needs) => list(f, " or ", needs),
            Self::With(needs) => list(f, " with ", needs),
            Self::Without(two) => list(f, " without ", &two[..]),
            Self::If(two, third) => conditional(f, "if", two, third),
            Self::Unless(two, third) => conditional(f, "unless", two, third),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Capability {
        let all = &mut Interner::default();
        match Need::parse(&format!("({text})"), all) {
            Some(Need::One(capability)) => capability,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn ranges_overlap_as_rpm_has_it() {
        for (provided, wanted) in [
            ("a", "a"),
            ("a", "a >= 2"),
            ("a = 1", "a"),
            ("a = 2-1", "a >= 2"),
            ("a = 2-1", "a = 2"),
            ("a = 2", "a = 2-7"),
            ("a = 2-1", "a > 1"),
            ("a < 5", "a = 3"),
            ("a >= 1", "a < 2"),
            ("a = 1:1", "a > 9"),
            ("a <= 2", "a < 2"),
        ] {
            assert!(one(provided).meets(&one(wanted)), "{provided} / {wanted}");
        }
        for (provided, wanted) in [
            ("a", "b"),
            ("a = 1", "a >= 2"),
            ("a = 2-1", "a > 2"),
            ("a = 2-1", "a = 2-2"),
            ("a < 2", "a >= 2"),
            ("a = 9", "a = 1:9"),
            ("a = 2~rc1", "a >= 2"),
        ] {
            assert!(!one(provided).meets(&one(wanted)), "{provided} / {wanted}");
        }
    }

    #[test]
    fn conditions_read_and_are_written_as_they_were() {
        for text in [
            "(a and b and c)",
            "(a or (b >= 1:2-3 and c))",
            "(libx.so.1()(64bit) if glibc < 2.34 else liby(x) = 1)",
            "(a unless b)",
            "(python3.9dist(x) >= 2 with python3.9dist(x) < 3)",
            "(a without b)",
        ] {
            let need = Need::parse(text, &mut Interner::default()).unwrap();
            assert_eq!(need.to_string(), text);
        }
        let deep = format!("{}a{}", "(".repeat(99), ")".repeat(99));
        for wrong in [
            "",
            "a",
            "()",
            "(a",
            "(a b)",
            "(a and)",
            "(a and b or c)",
            "(a if b else c else d)",
            "(a >= )",
            "(a) b",
            "(a without b without c)",
            "(a =>< 1)",
            "(a(b )",
            "(a = 1( )",
            &deep,
        ] {
            assert_eq!(Need::parse(wrong, &mut Interner::default()), None, "{wrong}");
        }
        let need = Need::parse("(a or (b if c))", &mut Interner::default()).unwrap();
        assert_eq!(need.capabilities().len(), 3);
    }

    proptest! {
        #[test]
        fn what_reads_reads_back_and_nothing_panics(text in "[ab()<=> ]{0,24}|\\(a (and|or|if|with|unless|without) \\(?b.{0,9}\\)") {
            if let Some(need) = Need::parse(&text, &mut Interner::default()) {
                let written = need.to_string();
                let again = match &need {
                    Need::One(_) => format!("({written})"),
                    _ => written,
                };
                prop_assert_eq!(Need::parse(&again, &mut Interner::default()), Some(need));
            }
        }
    }
}

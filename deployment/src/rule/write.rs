//! Rules as text that reads as the same rule.

use super::{ADDRESS, ATTRIBUTE, PACKAGE, PACKAGE_VERSION, Rule, TEXTS, Test, Text};
use compliance::fleet::Property;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use sync::language::{list, value};

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Text {
    fn word(&self) -> Cow<'static, str> {
        if let Self::Word(Property::Attribute(name)) = self {
            return format!("{ATTRIBUTE}{name}").into();
        }
        let found = TEXTS.iter().find(|(_, text)| text == self);
        found.map(|(word, _)| *word).expect("every text has a word").into()
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text, all) => list(f, &text.word(), all.iter().map(String::as_str)),
            Self::Contains(text, part) => {
                write!(f, "{} ~ ", text.word())?;
                value(f, part)
            }
            Self::Version(compare, version) => {
                write!(f, "os-version {compare} ")?;
                value(f, version)
            }
            Self::Address(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                list(f, ADDRESS, all.iter().map(String::as_str))
            }
            Self::Package(all) => list(f, PACKAGE, all.iter().map(String::as_str)),
            Self::PackageVersion { name, compare, version } => {
                write!(f, "{PACKAGE_VERSION}{name} {compare} ")?;
                value(f, version)
            }
        }
    }
}

//! Rules: which clients are meant, said of their facts.
//!
//! ```text
//! os = debian and os-version >= 12 and not name = 'lab-*'
//! package.openssl < 3.0.15-1~deb12u1 and (address = 10.1.0.0/16 or attribute.ring in (pilot, early))
//! ```
//!
//! | field | compared by | with |
//! | --- | --- | --- |
//! | `os`, `codename`, `architecture`, `attribute.NAME` | `=` `!=` `in` `~` `!~` | a word; `*` in it stands for any letters; `~` a part of it |
//! | `os-version` | also `<` `<=` `>` `>=` | a version |
//! | `name` | `=` `!=` `in` `~` `!~` | what people call the client, likewise |
//! | `address` | `=` `!=` `in` | a network as `10.1.0.0/16`, or an address |
//! | `package` | `=` `!=` `in` | the name of a package that is installed, letter by letter; `*` as above |
//! | `package.NAME` | `=` `!=` `<` `<=` `>` `>=` | its version, in the order of its packager; NAME may be `libc6:i386` |
//!
//! It is the language of filters ([`sync::language`]) with other fields. Words are the same in either case.
//! A fact that a client did not tell is not what is asked: `os = debian` is false of it, and so
//! `os != debian` is true. Where several versions of a package are installed, one that fits is enough.

mod clients;
mod parse;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use crate::network::Network;
use compliance::fleet::Property;
use serde::{Deserialize, Serialize};
pub use sync::language::SyntaxError as RuleError;
use sync::language::{Compare, Expr};

/// Which clients are meant, read from text with [`str::parse`]. Written out it is text that reads as the same
/// rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule(pub(crate) Expr<Test>);

/// A condition on one fact. Of a list of values one must fit; no list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// That a text is one of these, in which `*` stands for any letters.
    Is(Text, Vec<String>),
    /// That it has this somewhere.
    Contains(Text, String),
    /// The system's version. That it is equal is a text.
    Version(Compare, String),
    /// That one of the addresses is in one of these.
    Address(Vec<Network>),
    /// That one of these packages is installed.
    Package(Vec<String>),
    /// That a package is installed in such a version.
    PackageVersion { name: String, compare: Compare, version: String },
}

/// A fact that is a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Name,
    Word(Property),
}

/// The fields by their words, but for those that have a name in them.
pub(crate) const TEXTS: [(&str, Text); 5] = [
    ("name", Text::Name),
    ("os", Text::Word(Property::Os)),
    ("os-version", Text::Word(Property::OsVersion)),
    ("codename", Text::Word(Property::Codename)),
    ("architecture", Text::Word(Property::Architecture)),
];
pub(crate) const ATTRIBUTE: &str = "attribute.";
pub(crate) const ADDRESS: &str = "address";
pub(crate) const PACKAGE: &str = "package";
pub(crate) const PACKAGE_VERSION: &str = "package.";

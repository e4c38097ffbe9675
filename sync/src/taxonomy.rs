//! The words by which updates are chosen: classification, severity, product, language.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $($(#[$vdoc:meta])* $variant:ident = $word:literal / $title:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word for it in commands, filters and JSON.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// What people, and Microsoft's catalogues, call it.
            pub fn title(self) -> &'static str {
                match self { $($name::$variant => $title,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            /// Reads its word or its title, in either case.
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().find(|it| {
                    text.eq_ignore_ascii_case(it.as_str()) || text.eq_ignore_ascii_case(it.title())
                });
                found.copied().ok_or_else(|| UnknownWord {
                    text: text.chars().take(100).collect(),
                    what: $what,
                    known: Self::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

/// Text that is none of the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; want one of {known}")]
pub struct UnknownWord {
    text: String,
    what: &'static str,
    known: String,
}

words! {
    /// What kind of update it is: the nine that Configuration Manager knows, and three that only
    /// Microsoft's own catalogues use.
    Classification, "classification",
    /// A broadly released fix of a critical bug that is not about security.
    Critical = "critical" / "Critical Updates",
    /// Frequent additions to a product's definition database, as of anti-virus software.
    Definition = "definition" / "Definition Updates",
    /// New features outside of a release.
    FeaturePack = "feature-pack" / "Feature Packs",
    /// A fix of a vulnerability.
    Security = "security" / "Security Updates",
    /// All fixes so far, tested together.
    ServicePack = "service-pack" / "Service Packs",
    /// A program that helps with a task.
    Tool = "tool" / "Tools",
    /// A tested set of fixes for one part of a product.
    Rollup = "rollup" / "Update Rollups",
    /// A fix of a bug that is neither critical nor about security.
    Update = "update" / "Updates",
    /// A new release of a product.
    Upgrade = "upgrade" / "Upgrades",
    /// Software that runs hardware.
    Driver = "driver" / "Drivers",
    /// A program that is installed, not updated.
    Application = "application" / "Applications",
    /// A fix for few machines.
    Hotfix = "hotfix" / "Hotfixes",
}

words! {
    /// How bad what an update mends is, the least first.
    Severity, "severity",
    /// Low.
    Low = "low" / "Low",
    /// Moderate; some upstreams say medium.
    Moderate = "moderate" / "Moderate",
    /// Important; some upstreams say high.
    Important = "important" / "Important",
    /// Critical.
    Critical = "critical" / "Critical",
}

/// Something that updates are for, as its upstream names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Product {
    /// Names it in commands and criteria: `debian-12`, or a GUID where the upstream has those.
    pub id: String,
    /// What people call it: `Debian 12 (bookworm)`.
    pub name: String,
    /// What it belongs to: `Debian`, `Windows`.
    pub family: String,
}

/// A language, as RFC 5646 writes it in lower case: `en`, `pt-br`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(Box<str>);

/// Text that is no language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no language; want a tag such as 'en' or 'pt-br'")]
pub struct NotALanguage(String);

impl Language {
    /// English.
    pub fn english() -> Self {
        Self("en".into())
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Language {
    type Err = NotALanguage;
    fn from_str(text: &str) -> Result<Self, NotALanguage> {
        let is_part = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let first = text.split('-').next().unwrap_or_default();
        let good = text.len() <= 35
            && first.len() >= 2
            && first.bytes().all(|b| b.is_ascii_alphabetic())
            && text.split('-').all(is_part);
        if good {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(NotALanguage(text.chars().take(50).collect()))
        }
    }
}

impl TryFrom<String> for Language {
    type Error = NotALanguage;
    fn try_from(text: String) -> Result<Self, NotALanguage> {
        text.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> String {
        language.0.into()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_titles_are_read_in_either_case() {
        assert_eq!("Security Updates".parse(), Ok(Classification::Security));
        assert_eq!("SECURITY".parse(), Ok(Classification::Security));
        let error = "secure".parse::<Classification>().unwrap_err().to_string();
        assert!(error.contains("security, "), "{error}");
        assert_eq!(
            serde_json::to_string(&Classification::FeaturePack).unwrap(),
            r#""feature-pack""#
        );
        assert!(Severity::Critical > Severity::Important);
    }

    #[test]
    fn a_language_is_a_tag() {
        assert_eq!("pt-BR".parse::<Language>().unwrap().as_str(), "pt-br");
        for wrong in ["", "e", "en_GB", "12", "en--gb", "en-"] {
            assert!(wrong.parse::<Language>().is_err(), "{wrong}");
        }
    }
}

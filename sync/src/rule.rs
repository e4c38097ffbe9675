//! When an update applies to a machine, as data.
//!
//! One language for all upstreams: rules about installed packages, of dpkg and rpm, and rules about
//! Windows machines, as Microsoft's schemas have them. Whoever evaluates one has three answers, true,
//! false and unknown, and `and`, `or`, `not` pass unknown on (Kleene's strong logic): a rule or a
//! fact that is not understood never makes a machine look compliant.

pub mod windows;
pub mod xml;

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
pub use windows::WindowsRule;

/// How deep rules may be nested: so deep that what is written of an update as JSON, two levels for each of
/// a rule, is read again (serde_json reads 128).
pub const MAX_DEPTH: usize = 48;
/// Of how many parts the rules of one update may be made.
pub const MAX_PARTS: usize = 100_000;

/// A condition on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Always.
    True,
    /// Never.
    False,
    /// All of them hold; of none, all do.
    And(Vec<Rule>),
    /// One of them holds; of none, none does.
    Or(Vec<Rule>),
    /// It does not hold.
    Not(Box<Rule>),
    /// The operating system's release is the one of that code name, as `VERSION_CODENAME` of
    /// `os-release` has it.
    Codename(String),
    /// The major version in `VERSION_ID` of `os-release`, and its `ID`, as `almalinux` and `9`.
    Release {
        /// `ID`.
        id: String,
        /// `VERSION_ID` up to the first dot.
        major: String,
    },
    /// A Debian package is installed.
    Dpkg(PackageRule),
    /// An RPM package is installed.
    Rpm(RpmRule),
    /// Something that only a Windows machine has.
    Windows(WindowsRule),
}

/// A package of that name is installed in a version as compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackageRule {
    /// Its name.
    pub name: String,
    /// Its architecture; any, where it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// How its installed version compares with `version`.
    pub is: Comparison,
    /// A version, to be compared as the packager does.
    pub version: String,
}

/// The same of an RPM package, which can be installed in several versions at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RpmRule {
    /// What must be installed; `version` is `[epoch:]version-release`.
    #[serde(flatten)]
    pub package: PackageRule,
    /// The module stream that must be enabled, as `nodejs:18`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Which of several installed versions counts: kernels are installed beside each other, and only
    /// the highest is compared.
    #[serde(default)]
    pub highest_only: bool,
}

/// How an installed value compares with a stated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Less than it.
    LessThan,
    /// Less than it, or equal.
    LessThanOrEqualTo,
    /// Equal to it.
    EqualTo,
    /// Greater than it, or equal.
    GreaterThanOrEqualTo,
    /// Greater than it.
    GreaterThan,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Comparison; 5] = [
        Self::LessThan,
        Self::LessThanOrEqualTo,
        Self::EqualTo,
        Self::GreaterThanOrEqualTo,
        Self::GreaterThan,
    ];

    /// The word for it in Microsoft's schemas.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LessThan => "LessThan",
            Self::LessThanOrEqualTo => "LessThanOrEqualTo",
            Self::EqualTo => "EqualTo",
            Self::GreaterThanOrEqualTo => "GreaterThanOrEqualTo",
            Self::GreaterThan => "GreaterThan",
        }
    }

    /// As people say it of a number or version.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::LessThan => "less than",
            Self::LessThanOrEqualTo => "at most",
            Self::EqualTo => "exactly",
            Self::GreaterThanOrEqualTo => "at least",
            Self::GreaterThan => "greater than",
        }
    }

    /// The comparison of that word, if it is one.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }

    /// Whether it holds of an installed value that stands so to the stated one.
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::LessThan => order.is_lt(),
            Self::LessThanOrEqualTo => order.is_le(),
            Self::EqualTo => order.is_eq(),
            Self::GreaterThanOrEqualTo => order.is_ge(),
            Self::GreaterThan => order.is_gt(),
        }
    }
}

/// The conditions of an update, or of one item of it. What is not stated is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Whether it can be installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installable: Option<Rule>,
    /// Whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<Rule>,
    /// Whether something newer is installed in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<Rule>,
    /// Data that some of Microsoft's rules speak of without naming it, such as the patch of
    /// `MsiPatchInstalled`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<WindowsRule>,
}

impl Rules {
    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.installable.is_none()
            && self.installed.is_none()
            && self.superseded.is_none()
            && self.metadata.is_empty()
    }
}

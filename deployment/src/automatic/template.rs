//! Where a rule may begin: what most people want, to be changed.

use super::{AutomaticRule, GroupMode, LicenceTerms};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A rule that is there to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// A month's security and critical updates on the day after patch day, a new group each time.
    Monthly,
    /// A month's updates of office suites, likewise.
    Office,
    /// Definitions of malware scanners, after each sync, in one group.
    Definitions,
}

/// A word for no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no template; want monthly, office or definitions")]
pub struct UnknownTemplate(String);

impl Template {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Monthly, Self::Office, Self::Definitions];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monthly => "monthly",
            Self::Office => "office",
            Self::Definitions => "definitions",
        }
    }

    /// The rule: enabled, and to nobody.
    pub fn rule(self) -> AutomaticRule {
        let (criteria, evaluation, group) = match self {
            Self::Monthly => (
                "classification in (security, critical) and released >= 1mo ago and not superseded",
                "monthly 2nd tue +1 at 03:00 UTC",
                GroupMode::New,
            ),
            Self::Office => (
                "text ~ office and classification in (security, critical, update, rollup) and released >= 1mo ago \
                 and not superseded",
                "monthly 2nd tue +1 at 03:00 UTC",
                GroupMode::New,
            ),
            Self::Definitions => {
                ("classification = definition and not superseded", "after sync", GroupMode::Reuse)
            }
        };
        AutomaticRule {
            description: String::new(),
            enabled: true,
            criteria: criteria.parse().expect("a fixed text is a filter"),
            licences: LicenceTerms::LeaveOut,
            evaluation: evaluation.to_owned().try_into().expect("a fixed text is one"),
            group,
            keep_groups: None,
            package: None,
            languages: BTreeSet::new(),
            deployments: Vec::new(),
        }
    }
}

impl FromStr for Template {
    type Err = UnknownTemplate;
    fn from_str(text: &str) -> Result<Self, UnknownTemplate> {
        let found = Self::ALL.into_iter().find(|template| template.as_str() == text);
        found.ok_or_else(|| UnknownTemplate(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_is_a_rule() {
        for template in Template::ALL {
            template.rule().check().unwrap();
            assert_eq!(template.as_str().parse(), Ok(template));
        }
        assert!("weekly".parse::<Template>().is_err());
    }
}

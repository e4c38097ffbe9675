//! Rules about Windows machines, asked of what was recorded of one.
//!
//! The names are those of the published schemas. Names, paths and texts are compared without regard to
//! case, as Windows does. A rule of another schema, one that lacks what it must have, and a value that is not
//! what it is compared as, are unknown.

mod files;
mod installer;
mod registry;
mod versions;

use super::leaf::{Scope, Tell};
use crate::facts::recorded::Recorded;
use crate::truth::Truth;
use std::cmp::Ordering;
use sync::rule::windows::Vocabulary;
use sync::rule::{Comparison, WindowsRule};

/// A rule, and what it is asked of.
pub(super) struct Asked<'a> {
    rule: &'a WindowsRule,
    facts: &'a Recorded,
    scope: &'a Scope<'a>,
}

/// Whether a rule holds.
pub(super) fn holds(
    rule: &WindowsRule,
    facts: &Recorded,
    scope: &Scope<'_>,
    tell: &mut Tell<'_>,
) -> Truth {
    let asked = Asked { rule, facts, scope };
    let answer = match rule.vocabulary {
        Vocabulary::Base => asked.base(tell),
        Vocabulary::Msi => installer::holds(&asked, tell),
        Vocabulary::Cbs => asked.servicing(tell),
        Vocabulary::Driver => installer::driver(&asked, tell),
        Vocabulary::Other(_) => None,
    };
    answer.unwrap_or_else(|| {
        tell.say(format_args!("the rule {} is not understood as it stands", rule.name));
        Truth::Unknown
    })
}

impl<'a> Asked<'a> {
    /// The answer; none to a rule that is not known, or has not what it must have.
    fn base(&self, tell: &mut Tell<'_>) -> Option<Truth> {
        let (facts, os) = (self.facts, &self.facts.os);
        Some(match self.rule.name.as_str() {
            "WindowsVersion" => versions::holds(self, Some(&os.version), tell)?,
            "PlatformVersion" => versions::holds(self, facts.platform.as_ref(), tell)?,
            "Platform" => self.same("platform", "PlatformID", os.platform_id, tell)?,
            "WindowsLanguage" => self.language(os.language.as_deref(), tell)?,
            "PlatformLanguage" => self.language(os.platform_language.as_deref(), tell)?,
            "MuiLanguageInstalled" => {
                let wanted = self.text("Language")?;
                let all = os.mui_languages.as_ref();
                self.known(
                    "languages",
                    all.map(|all| all.iter().any(|it| speaks(it, wanted))),
                    tell,
                )
            }
            "MuiInstalled" => {
                let all = os.mui_languages.as_ref();
                self.known("languages", all.map(|all| !all.is_empty()), tell)
            }
            "ClusteredOS" => self.known("being a node of a cluster", os.clustered, tell),
            "InstalledOnce" => {
                let (all, id) = (facts.installed_once.as_ref(), self.scope.update?);
                self.known("what was installed once", all.map(|all| all.contains(&id)), tell)
            }
            "SystemMetric" => {
                let metric = facts.metrics.get(&self.number("Index")?).copied();
                self.compare("the metric", metric, self.number("Value")?, tell)?
            }
            "Processor" => Truth::all([
                self.same("processor", "Architecture", facts.processor.architecture, tell)?,
                self.same_if_asked("level", "Level", facts.processor.level, tell)?,
                self.same_if_asked("revision", "Revision", facts.processor.revision, tell)?,
            ]),
            "NumberOfProcessors" => {
                let count = facts.processor.count;
                self.compare("the number of processors", count, self.number("Number")?, tell)?
            }
            "LicenseValueExists" => {
                let name = self.text("Value")?;
                let found = self.licence(name);
                self.known("licence values", found.map(|value| value.is_some()), tell)
            }
            "LicenseDword" => match self.licence(self.text("Value")?) {
                Some(None) => Truth::False,
                found => {
                    let value = found.flatten().map(i64::from);
                    self.compare("the licence value", value, self.number("Data")?, tell)?
                }
            },
            "WmiQuery" => {
                let namespace = self.attribute("Namespace").unwrap_or("root\\cimv2");
                let query = self.text("WqlQuery")?;
                let rows = facts.wmi_rows(namespace, query);
                if let Some(rows) = rows {
                    tell.say(format_args!("the query finds {rows} objects"));
                }
                self.known("an answer to the query", rows.map(|rows| rows > 0), tell)
            }
            "GenericQuery" => self.query(tell)?,
            "ClusterResourceOwner" => registry::owns_resource(self, tell)?,
            "RegKeyLoop" => registry::each_key(self, tell)?,
            name if name.starts_with("File") => files::holds(self, tell)?,
            name if name.starts_with("Reg") || name.starts_with("WUv4") => {
                registry::holds(self, tell)?
            }
            _ => return None,
        })
    }

    /// What Windows' own servicing answers.
    fn servicing(&self, tell: &mut Tell<'_>) -> Option<Truth> {
        match self.rule.name.as_str() {
            "CbsPackageInstalledByIdentity" => {
                let (all, wanted) = (self.facts.cbs.as_ref(), self.text("PackageIdentity")?);
                let has = |it: &String| it.eq_ignore_ascii_case(wanted);
                Some(self.known("packages of servicing", all.map(|all| all.iter().any(has)), tell))
            }
            "CbsPackageInstalled" | "CbsPackageInstallable" => Some(self.own_answer(tell)),
            _ => None,
        }
    }

    /// What Windows answered when it was asked this of the update.
    fn own_answer(&self, tell: &mut Tell<'_>) -> Truth {
        let is_it = |it: &&crate::facts::recorded::OwnAnswer| {
            Some(it.update) == self.scope.update && it.rule == self.rule.name
        };
        let answer = self.facts.answers.iter().find(is_it).map(|it| it.holds);
        self.known("Windows' own answer", answer, tell)
    }

    fn query(&self, tell: &mut Tell<'_>) -> Option<Truth> {
        let [namespace, kind, parameter] =
            [self.text("Namespace")?, self.text("Type")?, self.text("Parameter")?];
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let mut answers = self.facts.queries.iter();
        let found = answers.find(|it| {
            same(&it.namespace, namespace)
                && same(&it.r#type, kind)
                && same(&it.parameter, parameter)
        });
        let value = found.map(|found| found.value.as_deref());
        Some(match (value, self.attribute("Comparison"), self.attribute("Value")) {
            (None, ..) => self.known("an answer to the query", None, tell),
            (Some(value), None, None) => value.is_some().into(),
            (Some(None), ..) => Truth::False,
            (Some(Some(value)), comparison, Some(wanted)) => {
                tell.say(format_args!("the answer is {value}"));
                let comparison = comparison.unwrap_or("EqualTo");
                match (Comparison::of_word(comparison), value.parse::<i64>(), wanted.parse()) {
                    (Some(is), Ok(value), Ok(wanted)) => is.holds(value.cmp(&wanted)).into(),
                    _ => text_compares(comparison, value, wanted)?,
                }
            }
            (Some(Some(_)), _, None) => return None,
        })
    }

    fn licence(&self, name: &str) -> Option<Option<u32>> {
        let mut all = self.facts.licences.as_ref()?.iter();
        Some(all.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| *value))
    }

    fn language(&self, has: Option<&str>, tell: &mut Tell<'_>) -> Option<Truth> {
        let wanted = self.text("Language")?;
        if let Some(has) = has {
            tell.say(format_args!("the language is {has}"));
        }
        Some(self.known("the language", has.map(|has| speaks(has, wanted)), tell))
    }

    /// An attribute, if there is one.
    fn attribute(&self, name: &str) -> Option<&'a str> {
        self.rule.attributes.get(name).map(String::as_str)
    }

    /// An attribute that must be there.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name)
    }

    /// A number that must be there.
    fn number(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.trim().parse().ok()
    }

    /// A yes or no; as it is where it is not stated, no.
    fn flag(&self, name: &str) -> Option<bool> {
        match self.attribute(name).map(str::trim) {
            None | Some("false" | "0") => Some(false),
            Some("true" | "1") => Some(true),
            Some(_) => None,
        }
    }

    fn comparison(&self) -> Option<Comparison> {
        Comparison::of_word(self.attribute("Comparison")?)
    }

    /// What is known or not.
    fn known(&self, what: &str, answer: Option<bool>, tell: &mut Tell<'_>) -> Truth {
        if answer.is_none() {
            tell.say(format_args!("{what}: not recorded"));
        }
        answer.into()
    }

    /// Whether a number is that of an attribute.
    fn same(
        &self,
        what: &str,
        attribute: &str,
        has: Option<i64>,
        tell: &mut Tell<'_>,
    ) -> Option<Truth> {
        let wanted = self.number(attribute)?;
        if let Some(has) = has {
            tell.say(format_args!("{what} {has}"));
        }
        Some(self.known(what, has.map(|has| has == wanted), tell))
    }

    /// The same, true where nothing is asked.
    fn same_if_asked(
        &self,
        what: &str,
        attribute: &str,
        has: Option<i64>,
        tell: &mut Tell<'_>,
    ) -> Option<Truth> {
        match self.attribute(attribute) {
            None => Some(Truth::True),
            Some(_) => self.same(what, attribute, has, tell),
        }
    }

    /// How a number compares with a stated one.
    fn compare(
        &self,
        what: &str,
        has: Option<i64>,
        wanted: i64,
        tell: &mut Tell<'_>,
    ) -> Option<Truth> {
        let is = self.comparison()?;
        if let Some(has) = has {
            tell.say(format_args!("{what} is {has}"));
        }
        Some(self.known(what, has.map(|has| is.holds(has.cmp(&wanted))), tell))
    }

    /// How something that is ordered compares with what is stated, and that it is told.
    fn ordered(&self, has: &str, order: Option<Ordering>, tell: &mut Tell<'_>) -> Option<Truth> {
        let is = self.comparison()?;
        match order {
            Some(order) => {
                tell.say(format_args!("it is {has}, {} that", super::leaf::in_words(order)))
            }
            None => tell.say(format_args!("it is {has}, which cannot be compared")),
        }
        Some(order.map(|order| is.holds(order)).into())
    }
}

/// Whether a machine of language `has` is one of `wanted`: `de-at` is one of `de`.
fn speaks(has: &str, wanted: &str) -> bool {
    let (has, wanted) = (has.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    has.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// How texts compare, by the words of the schema; none, if there is no such word.
fn text_compares(comparison: &str, has: &str, wanted: &str) -> Option<Truth> {
    let (has, wanted) = (has.to_lowercase(), wanted.to_lowercase());
    let holds = match comparison {
        "EqualTo" => has == wanted,
        "BeginsWith" => has.starts_with(&wanted),
        "Contains" => has.contains(&wanted),
        "EndsWith" => has.ends_with(&wanted),
        _ => return None,
    };
    Some(holds.into())
}

#[cfg(test)]
mod tests;

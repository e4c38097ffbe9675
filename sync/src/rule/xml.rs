//! Rules as XML, in the forms that Microsoft's catalogues have them.
//!
//! One vocabulary is written in three ways: with the namespaces of WSUS ([`Family::Wsus`]), with
//! those of Updates Publisher ([`Family::Publisher`]), and without any in the fragments that
//! clients and the offline scan cabinet get, where a letter in front stands for the namespace
//! ([`Family::Fragment`]). All are read, whichever it is; what is not known is kept.
//!
//! The rules that those schemas do not have, about packages of Debian and RPM, are written in a
//! namespace of our own, so that they too come through a document.

use super::windows::{Vocabulary, WindowsPart, WindowsRule};
use super::{Comparison, MAX_DEPTH, MAX_PARTS, PackageRule, RpmRule, Rule, Rules};
use crate::xml::{Attribute, Element, Node};
use std::sync::Arc;

/// How namespaces are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// As WSUS does.
    Wsus,
    /// As Updates Publisher does.
    Publisher,
    /// With letters in place of namespaces.
    Fragment,
}

/// Why an element is no rule, or a rule cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Rules are nested too deep.
    #[error("rules are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// There are too many.
    #[error("there are more than {MAX_PARTS} parts in the rules of one update")]
    TooMany,
    /// An element holds not what it must.
    #[error("{0}")]
    Wrong(String),
}

const WSUS: &str = "http://schemas.microsoft.com/msus/2002/12/";
const PUBLISHER: &str = "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/";
/// Rules that Microsoft's schemas do not have.
const OWN: &str = "urn:depot:applicability-rules:1";

/// Prefixes by custom, for whoever writes a document with rules in it.
pub const PREFIXES: &[(&str, &str)] = &[
    ("http://schemas.microsoft.com/msus/2002/12/LogicalApplicabilityRules", "lar"),
    ("http://schemas.microsoft.com/msus/2002/12/BaseApplicabilityRules", "bar"),
    ("http://schemas.microsoft.com/msus/2002/12/MsiApplicabilityRules", "mar"),
    ("http://schemas.microsoft.com/msus/2002/12/CbsApplicabilityRules", "cbsar"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/WindowsDriver", "drv"),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/LogicalApplicabilityRules.xsd",
        "lar",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/BaseApplicabilityRules.xsd",
        "bar",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/MsiApplicabilityRules.xsd",
        "msiar",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/WindowsDriver.xsd",
        "drv",
    ),
    (OWN, "depot"),
];

/// What a namespace, or the letter of a fragment, stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Schema {
    Logic,
    Own,
    Rules(Vocabulary),
}

impl Schema {
    /// The schema of an element, and its name in it. `within` is that of the element around it.
    fn of<'a>(element: &'a Element, within: Option<&Vocabulary>) -> (Schema, &'a str) {
        let name = &*element.name;
        if element.namespace.is_empty() {
            return match name.split_once('.') {
                Some(("b", name)) => (Self::Rules(Vocabulary::Base), name),
                Some(("m", name)) => (Self::Rules(Vocabulary::Msi), name),
                Some(("d", name)) => (Self::Rules(Vocabulary::Driver), name),
                _ if matches!(name, "And" | "Or" | "Not" | "True" | "False") => (Self::Logic, name),
                // Only these have no letter of their own.
                _ if name.starts_with("Cbs") || within == Some(&Vocabulary::Cbs) => {
                    (Self::Rules(Vocabulary::Cbs), name)
                }
                _ => (Self::Rules(Vocabulary::Other(String::new())), name),
            };
        }
        let space = &*element.namespace;
        let wsus = space.strip_prefix(WSUS);
        let last = wsus.or_else(|| space.strip_prefix(PUBLISHER)?.strip_suffix(".xsd"));
        let schema = match last {
            Some("LogicalApplicabilityRules") => Self::Logic,
            Some("BaseApplicabilityRules") => Self::Rules(Vocabulary::Base),
            Some("MsiApplicabilityRules") => Self::Rules(Vocabulary::Msi),
            Some("CbsApplicabilityRules") => Self::Rules(Vocabulary::Cbs),
            Some("UpdateHandlers/WindowsDriver" | "Installers/WindowsDriver") => {
                Self::Rules(Vocabulary::Driver)
            }
            _ if space == OWN => Self::Own,
            _ => Self::Rules(Vocabulary::Other(space.to_owned())),
        };
        (schema, name)
    }

    /// An empty element of that name in it.
    fn element(&self, name: &str, family: Family) -> Element {
        let (fragment, wsus, publisher) = match self {
            Self::Own => return Element::new(OWN, name),
            Self::Rules(Vocabulary::Other(space)) => return Element::new(space.as_str(), name),
            Self::Logic => ("", "LogicalApplicabilityRules", "LogicalApplicabilityRules"),
            Self::Rules(Vocabulary::Base) => {
                ("b.", "BaseApplicabilityRules", "BaseApplicabilityRules")
            }
            Self::Rules(Vocabulary::Msi) => {
                ("m.", "MsiApplicabilityRules", "MsiApplicabilityRules")
            }
            Self::Rules(Vocabulary::Driver) => {
                ("d.", "UpdateHandlers/WindowsDriver", "Installers/WindowsDriver")
            }
            // Updates Publisher has no rules about servicing.
            Self::Rules(Vocabulary::Cbs) if family == Family::Publisher => {
                return self.element(name, Family::Wsus);
            }
            Self::Rules(Vocabulary::Cbs) => ("", "CbsApplicabilityRules", ""),
        };
        match family {
            Family::Fragment => Element::new("", &format!("{fragment}{name}")),
            Family::Wsus => Element::new(format!("{WSUS}{wsus}"), name),
            Family::Publisher => Element::new(format!("{PUBLISHER}{publisher}.xsd"), name),
        }
    }
}

/// The rule that an element is.
///
/// # Errors
/// It is nested too deep, or a logical element holds not what it must.
pub fn read(element: &Element) -> Result<Rule, RuleError> {
    Reading::default().rule(element, None, 0)
}

/// The conditions in an element such as `ApplicabilityRules`, each in one of its own:
/// `IsInstallable`, `IsInstalled`, `IsSuperseded`, and `Metadata`. An empty one is no condition.
///
/// # Errors
/// As for [`read`], or there is more than one rule for a condition.
pub fn read_rules(element: &Element) -> Result<Rules, RuleError> {
    let mut reading = Reading::default();
    let mut rules = Rules::default();
    for part in element.elements() {
        match &*part.name {
            "IsInstallable" => rules.installable = reading.condition(part)?,
            "IsInstalled" => rules.installed = reading.condition(part)?,
            "IsSuperseded" => rules.superseded = reading.condition(part)?,
            "Metadata" => {
                for data in part.elements() {
                    let (schema, name) = Schema::of(data, None);
                    let vocabulary = vocabulary_of(schema, data);
                    rules.metadata.push(reading.windows(data, vocabulary, name, 0)?);
                }
            }
            _ => {}
        }
    }
    Ok(rules)
}

#[derive(Default)]
struct Reading {
    parts: usize,
}

impl Reading {
    fn condition(&mut self, around: &Element) -> Result<Option<Rule>, RuleError> {
        let mut rules = around.elements();
        let first = rules.next().map(|element| self.rule(element, None, 0)).transpose()?;
        match rules.next() {
            None => Ok(first),
            Some(_) => Err(RuleError::Wrong(format!("{} holds more than one rule", around.name))),
        }
    }

    fn count(&mut self, depth: usize) -> Result<(), RuleError> {
        self.parts += 1;
        match () {
            () if depth >= MAX_DEPTH => Err(RuleError::TooDeep),
            () if self.parts > MAX_PARTS => Err(RuleError::TooMany),
            () => Ok(()),
        }
    }

    fn rule(
        &mut self,
        element: &Element,
        within: Option<&Vocabulary>,
        depth: usize,
    ) -> Result<Rule, RuleError> {
        let (schema, name) = Schema::of(element, within);
        // An attribute there may change what it means: it is kept, and not understood.
        if schema == Schema::Logic && element.attributes.is_empty() {
            let known = self.logical(element, name, depth)?;
            if let Some(rule) = known {
                return Ok(rule);
            }
        }
        if schema == Schema::Own
            && let Some(rule) = own(element)
        {
            self.count(depth)?;
            return Ok(rule);
        }
        let vocabulary = vocabulary_of(schema, element);
        self.windows(element, vocabulary, name, depth).map(Rule::Windows)
    }

    fn logical(
        &mut self,
        element: &Element,
        name: &str,
        depth: usize,
    ) -> Result<Option<Rule>, RuleError> {
        let children = element.elements().count();
        let only_elements = children == element.children.len();
        let good = match name {
            "And" | "Or" => only_elements,
            "Not" => only_elements && children == 1,
            "True" | "False" => element.children.is_empty(),
            _ => return Ok(None),
        };
        if !good {
            let wrong = format!("{name} holds {} parts, which it cannot", element.children.len());
            return Err(RuleError::Wrong(wrong));
        }
        self.count(depth)?;
        let parts = element.elements().map(|child| self.rule(child, None, depth + 1));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(match (name, parts.pop()) {
            ("Not", Some(rule)) => Some(Rule::Not(Box::new(rule))),
            ("True", _) => Some(Rule::True),
            ("False", _) => Some(Rule::False),
            (name, last) => {
                parts.extend(last);
                Some(if name == "And" { Rule::And(parts) } else { Rule::Or(parts) })
            }
        })
    }

    fn windows(
        &mut self,
        element: &Element,
        vocabulary: Vocabulary,
        name: &str,
        depth: usize,
    ) -> Result<WindowsRule, RuleError> {
        self.count(depth)?;
        let mut children = Vec::with_capacity(element.children.len());
        for node in &element.children {
            children.push(match node {
                Node::Text(text) => WindowsPart::Text(text.clone()),
                Node::Element(child) => {
                    let (schema, child_name) = Schema::of(child, Some(&vocabulary));
                    let is_rule = match schema {
                        Schema::Logic | Schema::Own | Schema::Rules(Vocabulary::Base) => true,
                        Schema::Rules(_) => name == "RegKeyLoop",
                    };
                    if is_rule {
                        WindowsPart::Rule(self.rule(child, Some(&vocabulary), depth + 1)?)
                    } else {
                        let inner = vocabulary_of(schema, child);
                        WindowsPart::Element(self.windows(child, inner, child_name, depth + 1)?)
                    }
                }
            });
        }
        let attributes = element.attributes.iter().map(|it| {
            let key = match it.namespace.is_empty() {
                true => it.name.to_string(),
                false => format!("{{{}}}{}", it.namespace, it.name),
            };
            (key, it.value.clone())
        });
        Ok(WindowsRule {
            vocabulary,
            name: name.to_owned(),
            attributes: attributes.collect(),
            children,
        })
    }
}

fn vocabulary_of(schema: Schema, element: &Element) -> Vocabulary {
    match schema {
        Schema::Rules(vocabulary) => vocabulary,
        Schema::Logic | Schema::Own => Vocabulary::Other(element.namespace.to_string()),
    }
}

/// A rule of our own, if the element is one.
fn own(element: &Element) -> Option<Rule> {
    let get = |name| element.attribute(name).map(str::to_owned);
    let package = || {
        let is = Comparison::of_word(element.attribute("Is")?)?;
        Some(PackageRule { name: get("Name")?, arch: get("Arch"), is, version: get("Version")? })
    };
    match &*element.name {
        "Codename" => Some(Rule::Codename(get("Name")?)),
        "Release" => Some(Rule::Release { id: get("Id")?, major: get("Major")? }),
        "Dpkg" => Some(Rule::Dpkg(package()?)),
        "Rpm" => Some(Rule::Rpm(RpmRule {
            package: package()?,
            module: get("Module"),
            highest_only: element.attribute("HighestOnly") == Some("true"),
        })),
        _ => None,
    }
}

/// The element that says a rule.
///
/// # Errors
/// It is nested too deep, or has too many parts.
pub fn write(rule: &Rule, family: Family) -> Result<Element, RuleError> {
    Writing { family, parts: 0 }.rule(rule, 0)
}

/// The elements that say conditions, as children for `ApplicabilityRules`; `around` makes the
/// element for one of that name.
///
/// # Errors
/// As for [`write()`].
pub fn write_rules(
    rules: &Rules,
    family: Family,
    around: &dyn Fn(&str) -> Element,
) -> Result<Vec<Element>, RuleError> {
    let conditions = [
        ("IsInstalled", &rules.installed),
        ("IsSuperseded", &rules.superseded),
        ("IsInstallable", &rules.installable),
    ];
    let mut writing = Writing { family, parts: 0 };
    let mut out = Vec::new();
    for (name, rule) in conditions {
        if let Some(rule) = rule {
            out.push(around(name).holding(writing.rule(rule, 0)?));
        }
    }
    if !rules.metadata.is_empty() {
        let data = rules.metadata.iter().map(|data| writing.windows(data, 0));
        out.push(around("Metadata").holding_all(data.collect::<Result<Vec<_>, _>>()?));
    }
    Ok(out)
}

struct Writing {
    family: Family,
    parts: usize,
}

impl Writing {
    fn rule(&mut self, rule: &Rule, depth: usize) -> Result<Element, RuleError> {
        if let Rule::Windows(rule) = rule {
            return self.windows(rule, depth);
        }
        self.count(depth)?;
        let logical = |name| Schema::Logic.element(name, self.family);
        let own = |name| Schema::Own.element(name, self.family);
        let package = |name, rule: &PackageRule| {
            own(name)
                .with("Name", &*rule.name)
                .with_some("Arch", rule.arch.as_deref())
                .with("Is", rule.is.as_str())
                .with("Version", &*rule.version)
        };
        let (element, parts) = match rule {
            Rule::True => (logical("True"), &[][..]),
            Rule::False => (logical("False"), &[][..]),
            Rule::And(parts) => (logical("And"), parts.as_slice()),
            Rule::Or(parts) => (logical("Or"), parts.as_slice()),
            Rule::Not(part) => (logical("Not"), std::slice::from_ref(&**part)),
            Rule::Codename(name) => (own("Codename").with("Name", &**name), &[][..]),
            Rule::Release { id, major } => {
                (own("Release").with("Id", &**id).with("Major", &**major), &[][..])
            }
            Rule::Dpkg(rule) => (package("Dpkg", rule), &[][..]),
            Rule::Rpm(rule) => {
                let highest = rule.highest_only.then_some("true");
                let element = package("Rpm", &rule.package)
                    .with_some("Module", rule.module.as_deref())
                    .with_some("HighestOnly", highest);
                (element, &[][..])
            }
            Rule::Windows(rule) => return self.windows(rule, depth),
        };
        let parts = parts.iter().map(|part| self.rule(part, depth + 1));
        Ok(element.holding_all(parts.collect::<Result<Vec<_>, _>>()?))
    }

    fn count(&mut self, depth: usize) -> Result<(), RuleError> {
        let mut reading = Reading { parts: self.parts };
        reading.count(depth)?;
        self.parts = reading.parts;
        Ok(())
    }

    fn windows(&mut self, rule: &WindowsRule, depth: usize) -> Result<Element, RuleError> {
        self.count(depth)?;
        let schema = Schema::Rules(rule.vocabulary.clone());
        let mut element = schema.element(&rule.name, self.family);
        for (key, value) in &rule.attributes {
            let qualified = key.strip_prefix('{').and_then(|key| key.split_once('}'));
            let (namespace, name): (Arc<str>, &str) = match qualified {
                Some((namespace, name)) => (namespace.into(), name),
                None => (Arc::default(), key),
            };
            let (name, value) = (name.into(), value.clone());
            element.attributes.push(Attribute { namespace, name, value });
        }
        for part in &rule.children {
            element.children.push(match part {
                WindowsPart::Text(text) => Node::Text(text.clone()),
                WindowsPart::Rule(rule) => Node::Element(self.rule(rule, depth + 1)?),
                WindowsPart::Element(data) => Node::Element(self.windows(data, depth + 1)?),
            });
        }
        Ok(element)
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::{Holds, KNOWN};
    use super::*;
    use crate::xml;
    use proptest::prelude::*;

    const FAMILIES: [Family; 3] = [Family::Wsus, Family::Publisher, Family::Fragment];

    /// Through text and back.
    fn again(rule: &Rule, family: Family) -> Rule {
        let text = write(rule, family).unwrap().to_xml(PREFIXES).unwrap();
        read(&xml::parse(&text).unwrap()).unwrap()
    }

    /// Any rule that a document can have: of each known name with any values, and unknown ones.
    fn rules() -> impl Strategy<Value = Rule> {
        let value = "[ -~äß\n\t]{0,12}";
        let known = (0..KNOWN.len(), proptest::collection::vec(value, 12)).prop_map(
            |(at, values): (usize, Vec<String>)| {
                let it = &KNOWN[at];
                let names = it.must.iter().chain(it.may);
                let attributes = names.map(|name| (*name).to_owned()).zip(values.clone()).collect();
                let text = WindowsPart::Text(format!("{{{}}}", values[0].trim()));
                let data = |name: &str| {
                    WindowsPart::Element(WindowsRule {
                        vocabulary: it.vocabulary.clone(),
                        name: name.into(),
                        attributes: Default::default(),
                        children: vec![text.clone()],
                    })
                };
                let children = match it.holds {
                    Holds::Rule => vec![WindowsPart::Rule(Rule::False)],
                    Holds::Data(names) => names.iter().map(|name| data(name)).collect(),
                    Holds::Anything => vec![data("CbsPackageApplicabilityMetadata")],
                    Holds::Nothing => vec![],
                };
                let (vocabulary, name) = (it.vocabulary.clone(), it.name.into());
                Rule::Windows(WindowsRule { vocabulary, name, attributes, children })
            },
        );
        let unknown =
            (value, "[A-Z][a-zA-Z]{0,8}", any::<bool>()).prop_map(|(value, name, is_newer)| {
                let vocabulary = match is_newer {
                    true => Vocabulary::Base,
                    false => Vocabulary::Other("urn:vendor".into()),
                };
                let attributes = [("{urn:x}k".to_owned(), value)].into();
                Rule::Windows(WindowsRule { vocabulary, name, attributes, children: vec![] })
            });
        let package = (value, value, 0..5usize, proptest::option::of(value)).prop_map(
            |(name, version, is, arch)| PackageRule {
                name,
                arch,
                is: Comparison::ALL[is],
                version,
            },
        );
        let rpm = (package.clone(), proptest::option::of(value), any::<bool>());
        let leaf = prop_oneof![
            1 => Just(Rule::True),
            1 => Just(Rule::False),
            6 => known,
            1 => unknown,
            1 => value.prop_map(Rule::Codename),
            1 => (value, value).prop_map(|(id, major)| Rule::Release { id, major }),
            1 => package.prop_map(Rule::Dpkg),
            1 => rpm.prop_map(|(package, module, highest_only)| {
                Rule::Rpm(RpmRule { package, module, highest_only })
            }),
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Rule::And),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Rule::Or),
                inner.clone().prop_map(|rule| Rule::Not(Box::new(rule))),
                inner.prop_map(|rule| {
                    Rule::Windows(WindowsRule {
                        vocabulary: Vocabulary::Base,
                        name: "RegKeyLoop".into(),
                        attributes: [("TrueIf".to_owned(), "Any".to_owned())].into(),
                        children: vec![WindowsPart::Rule(rule)],
                    })
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_rule_comes_back_from_every_form_as_it_was(rule in rules(), family in 0..3usize) {
            prop_assert_eq!(again(&rule, FAMILIES[family]), rule);
        }
    }

    #[test]
    fn the_forms_of_one_rule_read_as_one() {
        let wsus = r#"<l:And xmlns:l="http://schemas.microsoft.com/msus/2002/12/LogicalApplicabilityRules"
            xmlns="http://schemas.microsoft.com/msus/2002/12/BaseApplicabilityRules">
            <Processor Architecture="9"/><l:Not><MuiInstalled/></l:Not></l:And>"#;
        let publisher = r#"<l:And
            xmlns:l="http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/LogicalApplicabilityRules.xsd"
            xmlns:b="http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/BaseApplicabilityRules.xsd">
            <b:Processor Architecture="9"/><l:Not><b:MuiInstalled/></l:Not></l:And>"#;
        let fragment = r#"<And><b.Processor Architecture="9"/><Not><b.MuiInstalled/></Not></And>"#;
        let all = [wsus, publisher, fragment].map(|it| read(&xml::parse(it).unwrap()).unwrap());
        assert_eq!(all[0], all[1]);
        assert_eq!(all[1], all[2]);
        assert_eq!(
            write(&all[0], Family::Fragment).unwrap().to_xml(&[]).unwrap(),
            r#"<And><b.Processor Architecture="9"/><Not><b.MuiInstalled/></Not></And>"#
        );
    }

    #[test]
    fn what_changes_the_meaning_is_kept_or_refused_and_never_dropped() {
        let rule = |text: &str| read(&xml::parse(text).unwrap());
        for wrong in
            ["<Not/>", "<Not><True/><True/></Not>", "<And>x</And>", "<True><False/></True>"]
        {
            assert!(matches!(rule(wrong), Err(RuleError::Wrong(_))), "{wrong}");
        }
        let Rule::Windows(kept) = rule("<And Mode='most'><True/></And>").unwrap() else {
            panic!("an attribute of And is not dropped")
        };
        assert_eq!(kept.vocabulary, Vocabulary::Other(String::new()));
        assert_eq!(kept.children, [WindowsPart::Rule(Rule::True)]);
        let two = xml::parse("<A><IsInstalled><True/><False/></IsInstalled></A>").unwrap();
        assert!(read_rules(&two).is_err());
        let none = xml::parse("<A><IsInstalled/></A>").unwrap();
        assert!(read_rules(&none).unwrap().is_empty());
    }

    #[test]
    fn depth_and_parts_are_bounded_both_ways() {
        let nested =
            |depth: usize| format!("{}<True/>{}", "<Not>".repeat(depth), "</Not>".repeat(depth));
        assert!(read(&xml::parse(&nested(MAX_DEPTH - 1)).unwrap()).is_ok());
        assert_eq!(read(&xml::parse(&nested(MAX_DEPTH)).unwrap()), Err(RuleError::TooDeep));
        let mut deep = Rule::True;
        for _ in 0..MAX_DEPTH {
            deep = Rule::Not(Box::new(deep));
        }
        assert_eq!(write(&deep, Family::Wsus), Err(RuleError::TooDeep));
        let wide = Rule::And(vec![Rule::True; MAX_PARTS]);
        assert_eq!(write(&wide, Family::Wsus), Err(RuleError::TooMany));
    }
}

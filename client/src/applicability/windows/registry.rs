//! Rules about the registry.
//!
//! `RegType32` asks for what programs of 32 bits see. On a machine of 64 bits that is, of `SOFTWARE`, what
//! lies below `Wow6432Node`; all else is the same for both.

use super::{Asked, Tell, text_compares, versions};
use crate::applicability;
use crate::applicability::leaf::Scope;
use crate::facts::recorded::Found;
use crate::facts::recorded::registry::Value;
use crate::truth::Truth;
use sync::rule::windows::WindowsPart;

/// What stands for the key that a loop is at.
const LOOP_TARGET: &str = "HKEY_LOOP_TARGET";
const X86: i64 = 0;

pub(super) fn holds(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let name = asked.rule.name.as_str();
    if name == "RegKeyExists" {
        return Some(match key(asked)? {
            None => not_recorded(tell),
            Some(key) => match asked.facts.registry.key(&key) {
                Found::Here(()) => Truth::True,
                Found::Absent => Truth::False,
                Found::Unknown => not_recorded(tell),
            },
        });
    }
    let value = match value(asked)? {
        Found::Here(value) => value,
        Found::Absent => {
            tell.say(format_args!("there is no such value"));
            return Some(Truth::False);
        }
        Found::Unknown => return Some(not_recorded(tell)),
    };
    tell.say(format_args!("the value is {}", value.data));
    let of_type = |kind: &str| value.r#type.eq_ignore_ascii_case(kind);
    let compare = |text: Option<&str>| match text {
        Some(text) => text_compares(asked.text("Comparison")?, text, asked.text("Data")?),
        None => Some(Truth::False),
    };
    match name {
        "RegValueExists" => Some(asked.attribute("Type").is_none_or(of_type).into()),
        "RegDword" => match of_type("REG_DWORD") {
            true => asked.compare("the number", value.data.as_i64(), asked.number("Data")?, tell),
            false => Some(Truth::False),
        },
        "RegSz" => compare(value.text().filter(|_| of_type("REG_SZ"))),
        "RegExpandSz" => {
            let text = value.text().filter(|_| of_type("REG_EXPAND_SZ"));
            match text.map(|text| asked.facts.expand(text)) {
                Some(None) => Some(not_recorded(tell)),
                expanded => compare(expanded.flatten().as_deref()),
            }
        }
        "RegSzToVersion" => match value.text() {
            Some(text) => asked.ordered(text, versions::compare(text, asked.text("Data")?), tell),
            None => Some(Truth::False),
        },
        "WUv4RegKeyValue" | "WUv4RegKeySubstring" => {
            let comparison = if name == "WUv4RegKeyValue" { "EqualTo" } else { "Contains" };
            let number = value.data.as_i64().map(|number| number.to_string());
            match value.text().or(number.as_deref()) {
                Some(text) => text_compares(comparison, text, asked.text("Data")?),
                None => Some(Truth::False),
            }
        }
        _ => None,
    }
}

/// The value that a rule names; without a name, the default one.
pub(super) fn value<'a>(asked: &Asked<'a>) -> Option<Found<&'a Value>> {
    Some(match key(asked)? {
        None => Found::Unknown,
        Some(key) => {
            let name = asked.attribute("Value").unwrap_or_default();
            asked.facts.registry.value(&key, name)
        }
    })
}

/// The path of the key that a rule names: none, if the rule does not say it; no path, if it depends on what
/// is not recorded.
fn key(asked: &Asked<'_>) -> Option<Option<String>> {
    let (root, below) = (asked.text("Key")?, asked.text("Subkey")?.trim_matches('\\'));
    let root = if root == LOOP_TARGET { asked.scope.target? } else { root };
    let path = |root: &str, below: &str| match below {
        "" => root.to_owned(),
        below => format!("{root}\\{below}"),
    };
    if !asked.flag("RegType32")? {
        return Some(Some(path(root, below)));
    }
    let Some(architecture) = asked.facts.processor.architecture else { return Some(None) };
    let (first, rest) = below.split_once('\\').unwrap_or((below, ""));
    let is_apart = architecture != X86
        && root.eq_ignore_ascii_case("HKEY_LOCAL_MACHINE")
        && first.eq_ignore_ascii_case("SOFTWARE")
        && !rest.get(..11).is_some_and(|node| node.eq_ignore_ascii_case("Wow6432Node"));
    Some(Some(match is_apart {
        true => path(&format!("{root}\\{first}\\Wow6432Node"), rest),
        false => path(root, below),
    }))
}

/// `RegKeyLoop`: whether its rule holds for any, for all or for none of the keys right below one.
pub(super) fn each_key(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let [WindowsPart::Rule(rule)] = asked.rule.children.as_slice() else { return None };
    let (keys, is_all) = match key(asked)? {
        None => Default::default(),
        Some(key) => asked.facts.registry.subkeys(&key),
    };
    // Of the keys that nobody recorded the rule may hold or not.
    let of_others = (!is_all).then_some(Truth::Unknown);
    let each = keys.iter().map(|key| {
        let scope = Scope { target: Some(key), ..*asked.scope };
        applicability::holds(rule, asked.facts, &scope)
    });
    let each = each.chain(of_others);
    tell.say(format_args!(
        "{} keys are below it{}",
        keys.len(),
        if is_all { "" } else { ", and maybe more: not recorded" }
    ));
    Some(match asked.text("TrueIf")? {
        "Any" => Truth::any(each),
        "All" => Truth::all(each),
        "None" => !Truth::any(each),
        _ => return None,
    })
}

/// `ClusterResourceOwner`: whether this node owns the resource that a value names.
pub(super) fn owns_resource(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let name = match value(asked)? {
        Found::Here(value) => value.text()?,
        Found::Absent => return Some(Truth::False),
        Found::Unknown => return Some(not_recorded(tell)),
    };
    let [prefix, suffix] = ["Prefix", "Suffix"].map(|it| asked.attribute(it).unwrap_or_default());
    let name = format!("{prefix}{name}{suffix}");
    let owns = |it: &String| it.eq_ignore_ascii_case(&name);
    let cluster = asked.facts.cluster.as_ref();
    Some(asked.known("its cluster", cluster.map(|cluster| cluster.owns.iter().any(owns)), tell))
}

fn not_recorded(tell: &mut Tell<'_>) -> Truth {
    tell.say(format_args!("this part of the registry: not recorded"));
    Truth::Unknown
}

//! Rules about files: that there is one, and how its version, size and times compare.
//!
//! Of a file that is not there no comparison holds.

use super::{Asked, Tell, registry, versions};
use crate::facts::recorded::files::File;
use crate::facts::recorded::{Found, join};
use crate::truth::Truth;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::cmp::Ordering;

pub(super) fn holds(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let path = asked.text("Path")?;
    let (name, path) = match asked.rule.name.strip_suffix("PrependRegSz") {
        None => (asked.rule.name.as_str(), asked.facts.path(asked.attribute("Csidl"), path)),
        Some(name) => match registry::value(asked)? {
            // Without the value that names the folder there is no such file.
            Found::Absent => {
                tell.say(format_args!("the registry has no folder for it"));
                return Some(Truth::False);
            }
            Found::Unknown => (name, None),
            Found::Here(value) => {
                let folder = value.text().and_then(|folder| asked.facts.expand(folder));
                (name, folder.map(|folder| join(&folder, path)))
            }
        },
    };
    let Some(path) = path else {
        tell.say(format_args!("the folder of the file: not recorded"));
        return Some(Truth::Unknown);
    };
    let file = match asked.facts.files.get(&path) {
        Found::Here(file) => file,
        Found::Absent => {
            tell.say(format_args!("there is no {path}"));
            return Some(Truth::False);
        }
        Found::Unknown => {
            tell.say(format_args!("{path}: not recorded"));
            return Some(Truth::Unknown);
        }
    };
    tell.say(format_args!("{path} is there"));
    let stated = |name: &str| asked.text(name);
    match name {
        "FileExists" => exists(asked, file, tell),
        "FileVersion" => ordered(asked, &file.version, stated("Version")?, versions::compare, tell),
        "FileCreated" => ordered(asked, &file.created, stated("Created")?, times, tell),
        "FileModified" => ordered(asked, &file.modified, stated("Modified")?, times, tell),
        "FileSize" => {
            let size = file.size.map(|size| size.to_string());
            ordered(asked, &size, stated("Size")?, sizes, tell)
        }
        _ => None,
    }
}

/// Whether it is as each attribute says that is stated.
fn exists(asked: &Asked<'_>, file: &File, tell: &mut Tell<'_>) -> Option<Truth> {
    let numbers = [file.size.map(|it| it.to_string()), file.language.map(|it| it.to_string())];
    let [size, language] = &numbers;
    type Compare = fn(&str, &str) -> Option<Ordering>;
    let parts: [(&str, &Option<String>, Compare); 5] = [
        ("Version", &file.version, versions::compare),
        ("Created", &file.created, times),
        ("Modified", &file.modified, times),
        ("Size", size, sizes),
        ("Language", language, sizes),
    ];
    let mut answer = Truth::True;
    for (name, has, compare) in parts {
        let Some(wanted) = asked.attribute(name) else { continue };
        match has {
            Some(has) => tell.say(format_args!("its {name} is {has}")),
            None => tell.say(format_args!("its {name}: not recorded")),
        }
        let order = has.as_deref().and_then(|has| compare(has, wanted));
        answer = answer.and(order.map(Ordering::is_eq).into());
    }
    Some(answer)
}

fn ordered(
    asked: &Asked<'_>,
    has: &Option<String>,
    wanted: &str,
    compare: fn(&str, &str) -> Option<Ordering>,
    tell: &mut Tell<'_>,
) -> Option<Truth> {
    match has {
        Some(has) => asked.ordered(has, compare(has, wanted), tell),
        None => asked.ordered("not recorded", None, tell),
    }
}

fn sizes(has: &str, wanted: &str) -> Option<Ordering> {
    Some(has.trim().parse::<u64>().ok()?.cmp(&wanted.trim().parse().ok()?))
}

/// Times, in UTC where no zone is stated.
pub(super) fn times(has: &str, wanted: &str) -> Option<Ordering> {
    Some(time(has)?.cmp(&time(wanted)?))
}

fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let civil = || Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    text.parse().ok().or_else(civil)
}

//! Versions of Windows, of files and of products: numbers between dots.

use super::{Asked, Tell};
use crate::facts::recorded::Version;
use crate::truth::Truth;
use std::cmp::Ordering;
use sync::rule::Comparison;

/// `WindowsVersion` and `PlatformVersion`: the parts that are stated are compared one after the other; suites
/// and type must be as stated.
pub(super) fn holds(
    asked: &Asked<'_>,
    has: Option<&Version>,
    tell: &mut Tell<'_>,
) -> Option<Truth> {
    let unstated = Version::default();
    let is_recorded = has.is_some();
    let has = has.unwrap_or(&unstated);
    let parts = [
        ("MajorVersion", has.major),
        ("MinorVersion", has.minor),
        ("BuildNumber", has.build),
        ("ServicePackMajor", has.service_pack_major),
        ("ServicePackMinor", has.service_pack_minor),
    ];
    let is = match asked.attribute("Comparison") {
        None => Comparison::EqualTo,
        Some(word) => Comparison::of_word(word)?,
    };
    // None, once a part that decides is not recorded.
    let mut order = Some(Ordering::Equal);
    for (name, has) in parts {
        if asked.attribute(name).is_some() && order == Some(Ordering::Equal) {
            let wanted = u64::try_from(asked.number(name)?).ok()?;
            order = has.map(|has| has.cmp(&wanted));
        }
    }
    let number = |part: Option<u64>| part.map_or_else(|| "?".to_owned(), |part| part.to_string());
    if is_recorded {
        let (major, minor, build) = (number(has.major), number(has.minor), number(has.build));
        tell.say(format_args!("the version is {major}.{minor}.{build}"));
    } else {
        tell.say(format_args!("the version: not recorded"));
    }
    let suites = match asked.attribute("SuiteMask") {
        None => Truth::True,
        Some(_) => {
            let wanted = u64::try_from(asked.number("SuiteMask")?).ok()?;
            let all = asked.flag("AllSuitesMustBePresent")?;
            let holds = |has: u64| if all { has & wanted == wanted } else { has & wanted != 0 };
            Truth::from(has.suite_mask.map(holds))
        }
    };
    let kind = match asked.attribute("ProductType") {
        None => Truth::True,
        Some(_) => {
            let wanted = u64::try_from(asked.number("ProductType")?).ok()?;
            Truth::from(has.product_type.map(|has| has == wanted))
        }
    };
    Some(Truth::all([Truth::from(order.map(|order| is.holds(order))), suites, kind]))
}

/// How a version stands to another; none, if one of them is none. A part that is missing is 0.
pub(super) fn compare(has: &str, wanted: &str) -> Option<Ordering> {
    let (has, wanted) = (parts(has)?, parts(wanted)?);
    Some(has.cmp(&wanted))
}

/// One to four numbers, as `1.2.3.4`.
fn parts(text: &str) -> Option<[u64; 4]> {
    let mut parts = [0; 4];
    for (at, word) in text.trim().split('.').enumerate() {
        *parts.get_mut(at)? = word.trim().parse().ok()?;
    }
    Some(parts)
}

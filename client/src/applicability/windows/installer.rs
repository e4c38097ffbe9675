//! Rules about what Windows Installer, or the installation of drivers, has installed.

use super::files::times;
use super::{Asked, Tell, versions};
use crate::facts::recorded::{Device, Product};
use crate::truth::Truth;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use sync::rule::WindowsRule;
use sync::rule::windows::WindowsPart;

pub(super) fn holds(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let name = asked.rule.name.as_str();
    // What a patch replaces, and whether it fits, only Windows Installer itself can say.
    if matches!(name, "MsiPatchSuperseded" | "MsiPatchInstallable") {
        return Some(asked.own_answer(tell));
    }
    let Some(products) = &asked.facts.msi else {
        tell.say(format_args!("what Windows Installer has installed: not recorded"));
        return Some(Truth::Unknown);
    };
    let of =
        |code: &str| products.iter().filter(move |it| same(&it.code, code)).collect::<Vec<_>>();
    match name {
        "MsiProductInstalled" => {
            any(of(asked.text("ProductCode")?), |product| is_in_range(asked, product))
        }
        "MsiPatchInstalledForProduct" => {
            let patch = asked.text("PatchCode")?;
            any(of(asked.text("ProductCode")?), |product| {
                Some(is_in_range(asked, product)?.and(has(&product.patches, patch)))
            })
        }
        "MsiFeatureInstalledForProduct" => {
            parts(asked, products, "Feature", "AllFeaturesRequired", |it| &it.features)
        }
        "MsiComponentInstalledForProduct" => {
            parts(asked, products, "Component", "AllComponentsRequired", |it| &it.components)
        }
        "MsiPatchInstalled" => {
            let patches = codes(asked, "MsiPatchMetadata", "MsiPatch", "PatchGUID");
            if patches.is_empty() {
                return None;
            }
            let each = patches
                .iter()
                .flat_map(|patch| products.iter().map(move |product| has(&product.patches, patch)));
            Some(Truth::any(each))
        }
        "MsiApplicationInstalled" => {
            let codes = codes(asked, "MsiApplicationMetadata", "ProductCode", "");
            if codes.is_empty() {
                return None;
            }
            let is_there = codes.iter().any(|code| products.iter().any(|it| same(&it.code, code)));
            Some(is_there.into())
        }
        // Another version of the product, or none, is in its place.
        "MsiApplicationSuperseded" | "MsiApplicationInstallable" => Some(asked.own_answer(tell)),
        _ => None,
    }
}

/// `WindowsDriver…`: how the driver of a device that the data names stands to the one that is offered.
pub(super) fn driver(asked: &Asked<'_>, tell: &mut Tell<'_>) -> Option<Truth> {
    let wanted = match asked.rule.name.as_str() {
        "WindowsDriverInstalled" => Ordering::Equal,
        "WindowsDriverSuperseded" => Ordering::Greater,
        "WindowsDriverInstallable" => Ordering::Less,
        _ => return None,
    };
    let mut offered = asked.scope.metadata.iter().filter(|it| it.name == "WindowsDriverMetaData");
    let first = offered.next()?;
    let Some(devices) = &asked.facts.devices else {
        tell.say(format_args!("the devices: not recorded"));
        return Some(Truth::Unknown);
    };
    let each = std::iter::once(first).chain(offered).flat_map(|offer| {
        let id = offer.attributes.get("HardwareID").map(String::as_str).unwrap_or_default();
        let fits = move |device: &&Device| device.ids.iter().any(|it| it.eq_ignore_ascii_case(id));
        devices.iter().filter(fits).map(move |device| match &device.driver_date {
            // A device without a driver can have any.
            None => Truth::from(wanted == Ordering::Less),
            Some(date) => Truth::from(stands(device, date, offer).map(|order| order == wanted)),
        })
    });
    let answer = Truth::any(each);
    if answer != Truth::True {
        tell.say(format_args!("no device has such a driver, of those that are recorded"));
    }
    Some(answer)
}

/// How the driver that a device has stands to the offered one: by its date, then by its version.
fn stands(device: &Device, date: &str, offer: &WindowsRule) -> Option<Ordering> {
    let dates = times(date, offer.attributes.get("DriverVerDate")?)?;
    if dates.is_ne() {
        return Some(dates);
    }
    let version = device.driver_version.as_deref()?;
    versions::compare(version, offer.attributes.get("DriverVerVersion")?)
}

/// Whether it holds of one of the products; none, if the rule cannot be asked of one.
fn any(products: Vec<&Product>, holds: impl Fn(&Product) -> Option<Truth>) -> Option<Truth> {
    let each = products.into_iter().map(holds).collect::<Option<Vec<_>>>()?;
    Some(Truth::any(each))
}

/// Whether a product is of the versions and the language that a rule names.
fn is_in_range(asked: &Asked<'_>, product: &Product) -> Option<Truth> {
    let bound = |name: &str, excludes: &str, outside: Ordering| {
        let Some(bound) = asked.attribute(name) else { return Some(Truth::True) };
        let excludes = asked.flag(excludes)?;
        let order = product.version.as_deref().and_then(|has| versions::compare(has, bound));
        Some(Truth::from(order.map(|order| order != outside && !(excludes && order.is_eq()))))
    };
    let least = bound("VersionMin", "ExcludeVersionMin", Ordering::Less)?;
    let most = bound("VersionMax", "ExcludeVersionMax", Ordering::Greater)?;
    let language = match asked.attribute("Language") {
        None => Truth::True,
        Some(_) => {
            let wanted = asked.number("Language")?;
            Truth::from(product.language.map(|has| i64::from(has) == wanted))
        }
    };
    Some(Truth::all([least, most, language]))
}

/// Whether features, or components, are installed of products: of each all that a rule names, or one.
fn parts(
    asked: &Asked<'_>,
    products: &[Product],
    part: &str,
    all_parts: &str,
    of: fn(&Product) -> &Option<BTreeSet<String>>,
) -> Option<Truth> {
    let wanted = children(asked.rule, part);
    let codes = children(asked.rule, "Product");
    let combine =
        |all: bool, each: Vec<Truth>| if all { Truth::all(each) } else { Truth::any(each) };
    let (all_parts, all_products) = (asked.flag(all_parts)?, asked.flag("AllProductsRequired")?);
    if wanted.is_empty() || codes.is_empty() {
        return None;
    }
    let of_product = |code: &String| {
        let same = products.iter().filter(|it| same(&it.code, code));
        let each = same
            .map(|it| combine(all_parts, wanted.iter().map(|part| has(of(it), part)).collect()));
        Truth::any(each)
    };
    Some(combine(all_products, codes.iter().map(of_product).collect()))
}

/// The texts of the elements of that name in a rule.
fn children(rule: &WindowsRule, name: &str) -> Vec<String> {
    let elements = rule.children.iter().filter_map(|part| match part {
        WindowsPart::Element(element) if element.name == name => Some(element),
        _ => None,
    });
    elements.map(text).collect()
}

fn text(element: &WindowsRule) -> String {
    let parts = element.children.iter().filter_map(|part| match part {
        WindowsPart::Text(text) => Some(text.as_str()),
        _ => None,
    });
    parts.collect::<String>().trim().to_owned()
}

/// Codes in the data beside the rules: of elements of that name an attribute, or their text.
fn codes(asked: &Asked<'_>, data: &str, name: &str, attribute: &str) -> Vec<String> {
    let holders = asked.scope.metadata.iter().filter(|it| it.name == data);
    let elements = holders.flat_map(|holder| &holder.children).filter_map(|part| match part {
        WindowsPart::Element(element) if element.name == name => Some(element),
        _ => None,
    });
    let code = |element: &WindowsRule| match attribute {
        "" => Some(text(element)),
        attribute => element.attributes.get(attribute).cloned(),
    };
    elements.filter_map(code).collect()
}

fn has(all: &Option<BTreeSet<String>>, one: &str) -> Truth {
    Truth::from(all.as_ref().map(|all| all.iter().any(|it| same(it, one))))
}

/// Whether two codes are the same GUID, or the same name.
fn same(a: &str, b: &str) -> bool {
    let plain = |code: &str| code.trim().trim_matches(['{', '}']).to_lowercase();
    plain(a) == plain(b)
}

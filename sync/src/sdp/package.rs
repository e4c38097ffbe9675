//! What a package of Updates Publisher says, as an update.
//!
//! A package is one `SoftwareDistributionPackage` element, of the schema versions 1.0 to 1.2.
//! Vendors bend it (ids of their own as article numbers, times without a zone, packages that are no
//! longer there among those superseded), so what can be understood is taken; what would make
//! another update of it is refused.

use crate::digests::{Algorithm, Digests};
use crate::name::UpdateId;
use crate::rule::xml as rules;
use crate::taxonomy::{Language, Product};
use crate::update::{
    AnyOf, Behaviour, CodeResult, File, Handler, Impact, Item, Kind, MAX_ITEMS, Publication,
    Restart, ReturnCode, Text, Update,
};
use crate::xml::Element;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A package as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// The update that it is.
    pub update: Update,
    /// The product that it is for, if it names one.
    pub product: Option<Product>,
}

/// Why an element is no package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{package}: {what}")]
pub struct NotAPackage {
    /// Its id, or a word for it if it has none.
    pub package: String,
    /// What is wrong.
    pub what: String,
}

/// The package that an element is.
///
/// # Errors
/// It lacks what an update must have, or has more of something than is taken.
pub fn read(element: &Element) -> Result<Package, NotAPackage> {
    let properties = element.child("Properties");
    let id = properties.and_then(|it| it.attribute("PackageID"));
    read_named(element).map_err(|what| NotAPackage {
        package: id.unwrap_or("a package without an id").chars().take(100).collect(),
        what,
    })
}

/// The same, of the parts only that say which package it is and how new: its id and when it was
/// made.
pub fn identity(element: &Element) -> Option<(UpdateId, Timestamp)> {
    let properties = element.child("Properties")?;
    let id = properties.attribute("PackageID")?.parse().ok()?;
    Some((id, time(properties.attribute("CreationDate")?)?))
}

fn read_named(element: &Element) -> Result<Package, String> {
    let (id, created) =
        identity(element).ok_or("it has no PackageID that is a GUID, or no CreationDate")?;
    let properties = element.child("Properties").ok_or("it has no Properties")?;
    let mut update = Update::new(id, "", "", created);
    update.texts = texts(element)?;
    update.kind = match properties.attribute("UpdateType") {
        None | Some("Software") => Kind::Software,
        Some("Driver") => Kind::Driver,
        Some("Detectoid") => Kind::Detectoid,
        Some(other) => return Err(format!("{other:?} is no UpdateType")),
    };
    if properties.attribute("PublicationState") == Some("Expired") {
        update.publication = Publication::Expired;
    }
    let links =
        properties.elements().filter(|it| matches!(&*it.name, "MoreInfoUrl" | "SupportUrl"));
    update.links = links.filter_map(|it| web_address(&it.text())).collect();

    if let Some(data) = element.child("UpdateSpecificData") {
        let word = |name| data.attribute(name).and_then(|it| it.parse().ok());
        update.severity = data.attribute("MsrcSeverity").and_then(|it| it.parse().ok());
        update.classification = word("UpdateClassification");
        update.cves = data
            .all("CveID")
            .map(|it| it.text().to_uppercase())
            .filter(|it| !it.is_empty())
            .collect();
        let article = data.text_of("KBArticleID").map(|it| article(&it));
        let bulletin = data.text_of("SecurityBulletinID");
        update.name = article.clone().or_else(|| bulletin.clone()).unwrap_or_default();
        update.articles = article.into_iter().chain(bulletin).collect();
    } else if element.child("ApplicationSpecificData").is_some() {
        update.classification = Some(crate::taxonomy::Classification::Application);
    }
    if update.name.is_empty() {
        update.name = update.text(&[]).map(|it| it.title.clone()).unwrap_or_default();
    }

    update.rules = rules::read_rules(element).map_err(|error| error.to_string())?;
    update.supersedes = match element.child("SupersededPackages") {
        Some(it) => ids(it)?,
        None => BTreeSet::new(),
    };
    // Itself among them would be a circle.
    update.supersedes.remove(&id);
    for group in element.all("Prerequisites").flat_map(|it| it.all("AtLeastOne")) {
        update.prerequisites.push(AnyOf { ids: ids(group)?, is_category: false });
    }
    for part in element.all("BundledPackages").map(ids) {
        let each = part?.into_iter().map(|id| AnyOf { ids: [id].into(), is_category: false });
        update.bundles.extend(each);
    }
    let mut behaviour: Option<Behaviour> = None;
    for item in element.all("InstallableItem") {
        if update.items.len() == MAX_ITEMS {
            return Err(format!("it has more than {MAX_ITEMS} items"));
        }
        let (item, of) = read_item(item)?;
        update.items.push(item);
        behaviour = Some(behaviour.map_or(of, |before| worse(before, of)));
    }
    update.behaviour = behaviour.unwrap_or_default();
    update.clip();

    let product = product(properties);
    update.products.extend(product.iter().map(|it| it.id.clone()));
    Ok(Package { update, product })
}

fn texts(element: &Element) -> Result<BTreeMap<Language, Text>, String> {
    let mut texts = BTreeMap::new();
    for properties in element.all("LocalizedProperties") {
        let language = properties.text_of("Language").and_then(|it| it.parse().ok());
        let text = Text {
            title: properties.text_of("Title").unwrap_or_default(),
            description: properties.text_of("Description").unwrap_or_default(),
        };
        texts.entry(language.unwrap_or_else(Language::english)).or_insert(text);
    }
    match texts.values().any(|text: &Text| !text.title.is_empty()) {
        true => Ok(texts),
        false => Err("it has no title".into()),
    }
}

/// The product that a vendor and a name are.
pub fn product_of(vendor: &str, name: &str) -> Product {
    let plain = |text: &str| {
        let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
        parts.map(str::to_lowercase).collect::<Vec<_>>().join("-")
    };
    let id = match (plain(vendor), plain(name)) {
        (vendor, name) if vendor.is_empty() => name,
        (vendor, name) if name.is_empty() => vendor,
        (vendor, name) => format!("{vendor}.{name}"),
    };
    Product { id, name: name.to_owned(), family: vendor.to_owned() }
}

fn product(properties: &Element) -> Option<Product> {
    let vendor = properties.attribute("VendorName").unwrap_or_default().trim();
    let name = properties.text_of("ProductName");
    let name = name.as_deref().unwrap_or(vendor);
    Some(product_of(vendor, name)).filter(|product| !product.id.is_empty())
}

fn ids(around: &Element) -> Result<BTreeSet<UpdateId>, String> {
    let ids = around.all("PackageID").map(|it| it.text().parse::<UpdateId>());
    let ids = ids.collect::<Result<BTreeSet<_>, _>>().map_err(|error| error.to_string())?;
    match ids.len() > MAX_ITEMS {
        true => Err(format!("it relates to more than {MAX_ITEMS} packages")),
        false => Ok(ids),
    }
}

fn read_item(element: &Element) -> Result<(Item, Behaviour), String> {
    let mut item =
        Item { id: element.attribute("ID").and_then(|it| it.parse().ok()), ..Item::default() };
    if let Some(rules) = element.child("ApplicabilityRules") {
        item.rules = rules::read_rules(rules).map_err(|error| error.to_string())?;
    }
    let mut behaviour = element.child("InstallProperties").map(behaviour).unwrap_or_default();
    behaviour.can_uninstall = element.child("UninstallProperties").is_some();
    item.handler = element.elements().find_map(handler).transpose()?;
    for file in element.all("OriginFile") {
        item.files.push(origin_file(file)?);
    }
    let languages = element.all("Language").filter_map(|it| it.text().parse().ok());
    item.languages = languages.collect();
    Ok((item, behaviour))
}

/// What an element such as `InstallProperties` says.
pub(crate) fn behaviour(properties: &Element) -> Behaviour {
    let is = |name| matches!(properties.attribute(name), Some("true" | "1"));
    Behaviour {
        restart: match properties.attribute("RebootBehavior") {
            Some("NeverReboots") => Restart::Never,
            Some("AlwaysRequiresReboot") => Restart::Always,
            _ => Restart::MayAsk,
        },
        impact: match properties.attribute("Impact") {
            Some("Minor") => Impact::Minor,
            Some("RequiresExclusiveHandling") => Impact::Exclusive,
            _ => Impact::Normal,
        },
        may_ask: is("CanRequestUserInput"),
        needs_network: is("RequiresNetworkConnectivity"),
        can_uninstall: false,
    }
}

/// What to expect of two items, of which either may be installed.
fn worse(a: Behaviour, b: Behaviour) -> Behaviour {
    let restart = match (a.restart, b.restart) {
        (a, b) if a == b => a,
        _ => Restart::MayAsk,
    };
    let impact = match (a.impact, b.impact) {
        (Impact::Exclusive, _) | (_, Impact::Exclusive) => Impact::Exclusive,
        (Impact::Minor, Impact::Minor) => Impact::Minor,
        _ => Impact::Normal,
    };
    Behaviour {
        restart,
        impact,
        may_ask: a.may_ask || b.may_ask,
        needs_network: a.needs_network || b.needs_network,
        can_uninstall: a.can_uninstall && b.can_uninstall,
    }
}

fn handler(element: &Element) -> Option<Result<Handler, String>> {
    let text = |name| element.attribute(name).unwrap_or_default().to_owned();
    let uninstall = || element.attribute("UninstallCommandLine").map(str::to_owned);
    Some(Ok(match &*element.name {
        "CommandLineInstallerData" => match command_line(element) {
            Ok(handler) => handler,
            Err(error) => return Some(Err(error)),
        },
        "MsiInstallerData" => Handler::Msi {
            file: text("MsiFile"),
            product_code: text("ProductCode"),
            command_line: text("CommandLine"),
            uninstall: uninstall(),
        },
        "MspInstallerData" => Handler::Msp {
            files: element.all("MspFileName").map(Element::text).collect(),
            patch_code: element
                .attribute("PatchCode")
                .or_else(|| element.attribute("FullFilePatchCode"))
                .unwrap_or_default()
                .to_owned(),
            command_line: text("CommandLine"),
            uninstall: uninstall(),
        },
        // Parts that are not the handler's.
        "ApplicabilityRules"
        | "InstallProperties"
        | "UninstallProperties"
        | "OriginFile"
        | "Language" => return None,
        _ => match element.to_xml(super::write::PREFIXES) {
            Ok(data) => Handler::Other { name: element.namespace.to_string(), data },
            Err(error) => return Some(Err(error.to_string())),
        },
    }))
}

/// What an element says that has `Program`, `Arguments` and return codes.
pub(crate) fn command_line(element: &Element) -> Result<Handler, String> {
    let result = |text: Option<&str>| match text {
        None | Some("Failed") => Ok(CodeResult::Failed),
        Some("Succeeded") => Ok(CodeResult::Succeeded),
        Some("Cancelled") => Ok(CodeResult::Cancelled),
        Some(other) => Err(format!("{other:?} is no result of an installer")),
    };
    let is = |text: Option<&str>| matches!(text, Some("true" | "1"));
    let mut codes = Vec::new();
    for code in element.all("ReturnCode") {
        if codes.len() == MAX_ITEMS {
            return Err(format!("it has more than {MAX_ITEMS} return codes"));
        }
        let number = code.attribute("Code").and_then(|it| it.trim().parse().ok());
        codes.push(ReturnCode {
            code: number.ok_or("a return code is no number")?,
            result: result(code.attribute("Result"))?,
            restart: is(code.attribute("Reboot")),
        });
    }
    Ok(Handler::CommandLine {
        program: element.attribute("Program").ok_or("its installer names no program")?.to_owned(),
        arguments: element.attribute("Arguments").unwrap_or_default().to_owned(),
        default_result: result(element.attribute("DefaultResult"))?,
        restart_by_default: is(element.attribute("RebootByDefault")),
        codes,
    })
}

fn origin_file(element: &Element) -> Result<File, String> {
    let mut file = stated_file(element)?;
    file.urls = element.attribute("OriginUri").and_then(web_address).into_iter().collect();
    Ok(file)
}

/// A file as both kinds of document state it: name, size, SHA-1 and maybe SHA-256, in base64.
pub(crate) fn stated_file(element: &Element) -> Result<File, String> {
    let name = element.attribute("FileName").unwrap_or_default();
    let is_plain = !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    if !is_plain {
        let name: String = name.chars().take(100).collect();
        return Err(format!("{name:?} is no plain name of a file"));
    }
    let size = element.attribute("Size").and_then(|it| it.trim().parse().ok());
    let stated = element.attribute("Digest").map(|it| {
        let algorithm = element.attribute("DigestAlgorithm").unwrap_or("SHA1");
        (algorithm.to_owned(), it.to_owned())
    });
    let more = element
        .all("AdditionalDigest")
        .map(|it| (it.attribute("Algorithm").unwrap_or("SHA256").to_owned(), it.text()));
    let mut digests = Digests::default();
    for (algorithm, value) in stated.into_iter().chain(more) {
        let algorithm = match algorithm.to_ascii_uppercase().replace('-', "").as_str() {
            "SHA1" => Algorithm::Sha1,
            "SHA256" => Algorithm::Sha256,
            "SHA512" => Algorithm::Sha512,
            // Another one proves nothing here, and harms nothing.
            _ => continue,
        };
        let bytes = STANDARD.decode(value.trim());
        let bytes = bytes.map_err(|_| format!("the digest of {name} is no base64"))?;
        digests = digests.with_bytes(algorithm, &bytes).map_err(|error| error.to_string())?;
    }
    Ok(File {
        name: name.to_owned(),
        size: size.ok_or_else(|| format!("{name} has no size"))?,
        digests,
        language: element.attribute("Language").and_then(|it| it.parse().ok()),
        ..File::default()
    })
}

/// The address, if it is one of the web.
fn web_address(text: &str) -> Option<String> {
    let url = url::Url::parse(text.trim()).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| text.trim().to_owned())
}

/// An article as people call it: Microsoft states the digits of `KB4012598` alone.
pub(crate) fn article(stated: &str) -> String {
    match !stated.is_empty() && stated.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("KB{stated}"),
        false => stated.to_owned(),
    }
}

/// A time as XML Schema writes it; one without a zone is taken as UTC.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let plain: jiff::civil::DateTime = text.parse().ok()?;
    plain.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|it| it.timestamp())
}

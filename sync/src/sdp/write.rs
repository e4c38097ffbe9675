//! An update as a package of Updates Publisher, for other tools to import.

use super::NAMESPACE;
use crate::digests::Algorithm;
use crate::rule::xml::{self as rules, Family, RuleError};
use crate::taxonomy::{Classification, Language, Product};
use crate::update::{
    Behaviour, CodeResult, File, Handler, Impact, Item, Kind, Publication, Restart, ReturnCode,
    Update,
};
use crate::xml::{Element, Unwritable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Prefixes by custom.
pub(crate) const PREFIXES: &[(&str, &str)] = &[
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/SoftwareDistributionPackage.xsd",
        "sdp",
    ),
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
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/CommandLineInstallation.xsd",
        "cmd",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/MsiInstallation.xsd",
        "msi",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/MspInstallation.xsd",
        "msp",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/UpdateExeInstallation.xsd",
        "uei",
    ),
    (
        "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/Installers/WindowsDriver.xsd",
        "drv",
    ),
];

/// Why an update cannot be a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritable {
    /// Its rules cannot be said.
    #[error("its rules cannot be written")]
    Rules(#[from] RuleError),
    /// A text of it cannot be said.
    #[error("a text of it cannot be written")]
    Text(#[from] Unwritable),
    /// It is something that has no place in a package.
    #[error("{0}")]
    NoPlace(String),
}

/// The package that says `update`; `products` are those it is for, as far as they are known.
///
/// # Errors
/// It is a category, is installed by something that Windows does not have, or has a text that XML
/// cannot say.
pub fn write(update: &Update, products: &[Product]) -> Result<String, NotWritable> {
    let document = package(update, products)?.to_xml(PREFIXES)?;
    Ok(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{document}\n"))
}

fn sdp(name: &str) -> Element {
    Element::new(format!("{NAMESPACE}SoftwareDistributionPackage.xsd"), name)
}

fn package(update: &Update, products: &[Product]) -> Result<Element, NotWritable> {
    let product = products.iter().find(|it| update.products.contains(&it.id));
    let kind = match update.kind {
        Kind::Software => None,
        Kind::Driver => Some("Driver"),
        Kind::Detectoid => Some("Detectoid"),
        Kind::Category => {
            return Err(NotWritable::NoPlace("a category is no package".into()));
        }
    };
    let state = match update.publication {
        Publication::Published => "Published",
        Publication::Expired => "Expired",
    };
    let mut properties = sdp("Properties")
        .with("PackageID", update.id.to_string())
        .with("CreationDate", update.created.to_string())
        .with_some("VendorName", product.map(|it| &*it.family).filter(|it| !it.is_empty()))
        .with("PublicationState", state)
        .with_some("UpdateType", kind);
    for link in &update.links {
        properties = properties.holding(sdp("MoreInfoUrl").saying(&**link));
    }
    if let Some(product) = product {
        properties = properties.holding(sdp("ProductName").saying(&*product.name));
    }
    let mut root =
        sdp("SoftwareDistributionPackage").with("SchemaVersion", "1.2").holding(properties);
    for (language, text) in &update.texts {
        let mut properties = sdp("LocalizedProperties")
            .holding(sdp("Language").saying(language.as_str()))
            .holding(sdp("Title").saying(&*text.title));
        if !text.description.is_empty() {
            properties = properties.holding(sdp("Description").saying(&*text.description));
        }
        root = root.holding(properties);
    }
    root = root.holding(specific(update));
    let around = |name: &str| sdp(name);
    let mut conditions = rules::write_rules(&update.rules, Family::Publisher, &around)?;
    // Here they stand in this order, and only these two are known.
    conditions.sort_by_key(|it| &*it.name != "IsInstallable");
    root = root.holding_all(conditions);
    if !update.supersedes.is_empty() {
        let ids = update.supersedes.iter().map(|id| sdp("PackageID").saying(id.to_string()));
        root = root.holding(sdp("SupersededPackages").holding_all(ids));
    }
    if !update.prerequisites.is_empty() {
        let groups = update.prerequisites.iter().map(|group| {
            let ids = group.ids.iter().map(|id| sdp("PackageID").saying(id.to_string()));
            sdp("AtLeastOne").holding_all(ids)
        });
        root = root.holding(sdp("Prerequisites").holding_all(groups));
    }
    if !update.bundles.is_empty() {
        let ids = update.bundles.iter().flat_map(|group| &group.ids);
        let ids = ids.map(|id| sdp("PackageID").saying(id.to_string()));
        root = root.holding(sdp("BundledPackages").holding_all(ids));
    }
    for (at, item) in update.items.iter().enumerate() {
        root = root.holding(installable(update, at, item)?);
    }
    Ok(root)
}

fn specific(update: &Update) -> Element {
    if update.classification == Some(Classification::Application) {
        return sdp("ApplicationSpecificData");
    }
    let classification = update.classification.unwrap_or(Classification::Update);
    let mut data = sdp("UpdateSpecificData")
        .with_some("MsrcSeverity", update.severity.map(|it| it.title()))
        .with("UpdateClassification", classification.title());
    let (article, bulletin) = articles(update);
    if let Some(bulletin) = bulletin {
        data = data.holding(sdp("SecurityBulletinID").saying(bulletin));
    }
    for cve in &update.cves {
        data = data.holding(sdp("CveID").saying(&**cve));
    }
    if let Some(article) = article {
        data = data.holding(sdp("KBArticleID").saying(article));
    }
    data
}

/// Which of its articles is the one that the schema calls so, with the digits alone, and which is
/// the bulletin.
pub(crate) fn articles(update: &Update) -> (Option<&str>, Option<&str>) {
    let digits = |it: &'_ String| {
        let digits = it.strip_prefix("KB")?;
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits.len())
    };
    let article = update
        .articles
        .get(&update.name)
        .or_else(|| update.articles.iter().find(|it| digits(it).is_some()))
        .or_else(|| update.articles.first());
    let bulletin = update.articles.iter().find(|it| Some(*it) != article);
    let article = article.map(|it| match digits(it) {
        Some(n) => &it[it.len() - n..],
        None => it.as_str(),
    });
    (article, bulletin.map(String::as_str))
}

fn installable(update: &Update, at: usize, item: &Item) -> Result<Element, NotWritable> {
    let id = item.id.unwrap_or_else(|| {
        crate::name::UpdateId::named(&["item", &update.id.to_string(), &at.to_string()])
    });
    let mut element = sdp("InstallableItem").with("ID", id.to_string());
    let around = |name: &str| sdp(name);
    let rules = rules::write_rules(&item.rules, Family::Publisher, &around)?;
    if !rules.is_empty() {
        element = element.holding(sdp("ApplicabilityRules").holding_all(rules));
    }
    element = element.holding(behaviour(sdp("InstallProperties"), update.behaviour));
    if update.behaviour.can_uninstall {
        element = element.holding(behaviour(sdp("UninstallProperties"), update.behaviour));
    }
    if let Some(handler) = &item.handler {
        element = element.holding(installer(handler)?);
    }
    for file in &item.files {
        element = element.holding(origin_file(update, file)?);
    }
    let languages = item.languages.iter().map(|it| sdp("Language").saying(Language::as_str(it)));
    Ok(element.holding_all(languages))
}

/// Adds what `behaviour` is to an element such as `InstallProperties`.
pub(crate) fn behaviour(element: Element, behaviour: Behaviour) -> Element {
    let restart = match behaviour.restart {
        Restart::Never => "NeverReboots",
        Restart::MayAsk => "CanRequestReboot",
        Restart::Always => "AlwaysRequiresReboot",
    };
    let impact = match behaviour.impact {
        Impact::Normal => "Normal",
        Impact::Minor => "Minor",
        Impact::Exclusive => "RequiresExclusiveHandling",
    };
    element
        .with("CanRequestUserInput", behaviour.may_ask.to_string())
        .with("RequiresNetworkConnectivity", behaviour.needs_network.to_string())
        .with("Impact", impact)
        .with("RebootBehavior", restart)
}

fn installer(handler: &Handler) -> Result<Element, NotWritable> {
    let of = |schema: &str, name: &str| {
        Element::new(format!("{NAMESPACE}Installers/{schema}.xsd"), name)
    };
    let some = |text: &str| Some(text.to_owned()).filter(|it| !it.is_empty());
    Ok(match handler {
        Handler::CommandLine { .. } => {
            let schema = "CommandLineInstallation";
            let element = of(schema, "CommandLineInstallerData");
            command_line(element, handler, &|| of(schema, "ReturnCode"))
        }
        Handler::Msi { file, product_code, command_line, uninstall } => {
            of("MsiInstallation", "MsiInstallerData")
                .with("MsiFile", &**file)
                .with("ProductCode", &**product_code)
                .with_some("CommandLine", some(command_line))
                .with_some("UninstallCommandLine", uninstall.clone())
        }
        Handler::Msp { files, patch_code, command_line, uninstall } => {
            let files = files.iter().map(|it| of("MspInstallation", "MspFileName").saying(&**it));
            of("MspInstallation", "MspInstallerData")
                .with_some("PatchCode", some(patch_code))
                .with_some("CommandLine", some(command_line))
                .with_some("UninstallCommandLine", uninstall.clone())
                .holding_all(files)
        }
        Handler::Other { name, data } => crate::xml::parse(data).map_err(|error| {
            NotWritable::NoPlace(format!("what the handler {name} is given is no XML: {error}"))
        })?,
        Handler::Apt | Handler::Rpm => {
            let what = "an update that apt or dnf installs is no package of Updates Publisher";
            return Err(NotWritable::NoPlace(what.into()));
        }
    })
}

/// Adds program, arguments and return codes to an element; `code` makes one for a code.
pub(crate) fn command_line(
    element: Element,
    handler: &Handler,
    code: &dyn Fn() -> Element,
) -> Element {
    let Handler::CommandLine { program, arguments, default_result, restart_by_default, codes } =
        handler
    else {
        return element;
    };
    let result = |result| match result {
        CodeResult::Failed => "Failed",
        CodeResult::Succeeded => "Succeeded",
        CodeResult::Cancelled => "Cancelled",
    };
    let codes = codes.iter().map(|it: &ReturnCode| {
        code()
            .with("Code", it.code.to_string())
            .with("Result", result(it.result))
            .with("Reboot", it.restart.to_string())
    });
    element
        .with("Program", &**program)
        .with("Arguments", &**arguments)
        .with("DefaultResult", result(*default_result))
        .with("RebootByDefault", restart_by_default.to_string())
        .holding_all(codes)
}

fn origin_file(update: &Update, file: &File) -> Result<Element, NotWritable> {
    let element = stated_file(sdp("OriginFile"), file, update, &|| sdp("AdditionalDigest"))?;
    Ok(element.with_some("OriginUri", file.urls.first().map(String::as_str)))
}

/// Adds name, size and digests of a file to an element; `more` makes one for a further digest.
pub(crate) fn stated_file(
    element: Element,
    file: &File,
    update: &Update,
    more: &dyn Fn() -> Element,
) -> Result<Element, NotWritable> {
    let value = |algorithm| {
        let hex = file.digests.get(algorithm)?;
        let bytes =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
        Some(STANDARD.encode(bytes.collect::<Option<Vec<u8>>>()?))
    };
    let (sha1, sha256) = (value(Algorithm::Sha1), value(Algorithm::Sha256));
    let (first, algorithm, rest) = match (sha1, sha256) {
        (Some(sha1), sha256) => (sha1, "SHA1", sha256),
        (None, Some(sha256)) => (sha256, "SHA256", None),
        (None, None) => {
            let what = format!("of {} neither SHA-1 nor SHA-256 is known", file.name);
            return Err(NotWritable::NoPlace(what));
        }
    };
    let element = element
        .with("Digest", first)
        .with("DigestAlgorithm", algorithm)
        .with("FileName", &*file.name)
        .with("Size", file.size.to_string())
        .with("Modified", update.created.to_string());
    Ok(match rest {
        Some(sha256) => element.holding(more().with("Algorithm", "SHA256").saying(sha256)),
        None => element,
    })
}

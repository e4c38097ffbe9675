//! Documents of updates that came otherwise: third-party packages, one's own, packages of
//! repositories.
//!
//! Whoever asks this site as a downstream asks for documents. An update that came as one is handed
//! on as it came; of any other, one is made here, with the categories that it names. A third-party
//! package of several items becomes a bundle: each item an update of its own, with files and rules.

use super::NAMESPACE;
use super::document::{classification_id, upd};
use crate::name::UpdateId;
use crate::rule::Rule;
use crate::rule::xml::{self as rules, Family};
use crate::sdp::write::{NotWritable, articles, behaviour, command_line, stated_file};
use crate::taxonomy::{Classification, Product};
use crate::update::{AnyOf, Handler, Item, Kind, Publication, Update};
use crate::xml::{Attribute, Element, Node};
use jiff::Timestamp;

/// Prefixes by custom.
pub(crate) const PREFIXES: &[(&str, &str)] = &[
    ("http://schemas.microsoft.com/msus/2002/12/Update", "upd"),
    ("http://schemas.microsoft.com/msus/2002/12/LogicalApplicabilityRules", "lar"),
    ("http://schemas.microsoft.com/msus/2002/12/BaseApplicabilityRules", "bar"),
    ("http://schemas.microsoft.com/msus/2002/12/MsiApplicabilityRules", "mar"),
    ("http://schemas.microsoft.com/msus/2002/12/CbsApplicabilityRules", "cbsar"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/Category", "cat"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/CommandLineInstallation", "cmd"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/WindowsInstaller", "msp"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/WindowsPatch", "psf"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/WindowsSetup", "wsi"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/Cbs", "cbs"),
    ("http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/WindowsDriver", "drv"),
    ("http://www.w3.org/2001/XMLSchema-instance", "xsi"),
    ("urn:depot:applicability-rules:1", "depot"),
];

/// How an update is installed that Windows has no handler for.
pub(super) const OWN_HANDLER: &str = "urn:depot:handler:1";

/// A document, and which revision it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The update.
    pub id: UpdateId,
    /// Its revision.
    pub revision: u32,
    /// The document.
    pub text: String,
}

/// The documents that say `update` as revision `revision`: those of its parts first, where it
/// becomes a bundle, and its own last.
///
/// # Errors
/// A file has no digest that can be stated, or a text cannot be said.
pub fn write(update: &Update, revision: u32) -> Result<Vec<Written>, NotWritable> {
    let written = |id, revision, text| Written { id, revision, text };
    if let Some(original) = &update.original {
        let stated = update.revision.unwrap_or(revision);
        let text = match update.publication {
            Publication::Published => original.clone(),
            Publication::Expired => expired(original)?,
        };
        return Ok(vec![written(update.id, stated, text)]);
    }
    let mut all = Vec::new();
    let mut whole = update.clone();
    if update.items.len() > 1 {
        whole.items.clear();
        for (at, item) in update.items.iter().enumerate() {
            let part = part(update, at, item);
            let text = document(&part, revision, Deploys::No)?.to_xml(PREFIXES)?;
            // Of the parts one at least is to be installed: each applies or not by its own rules.
            match whole.bundles.first_mut().filter(|_| at > 0) {
                Some(group) => group.ids.insert(part.id),
                None => {
                    whole.bundles.insert(0, AnyOf { ids: [part.id].into(), is_category: false });
                    true
                }
            };
            whole.bundled_revisions.insert(part.id, revision);
            all.push(written(part.id, revision, text));
        }
    }
    let text = document(&whole, revision, Deploys::Yes)?.to_xml(PREFIXES)?;
    all.push(written(update.id, revision, text));
    Ok(all)
}

/// A document that came as it is, but that says that the update is expired.
fn expired(original: &str) -> Result<String, NotWritable> {
    let wrong = |what: &str| NotWritable::NoPlace(format!("the document it came as {what}"));
    let root = crate::xml::parse(original.trim_start_matches('\u{feff}'));
    let mut root = root.map_err(|error| wrong(&format!("is none: {error}")))?;
    let mut children = root.children.iter_mut();
    let properties = children.find_map(|child| match child {
        Node::Element(element) if &*element.name == "Properties" => Some(element),
        _ => None,
    });
    let properties = properties.ok_or_else(|| wrong("has no properties"))?;
    let state = "PublicationState";
    if properties.attribute(state) == Some("Expired") {
        return Ok(original.to_owned());
    }
    properties.attributes.retain(|it| &*it.name != state);
    let (namespace, value) = (Default::default(), "Expired".into());
    properties.attributes.push(Attribute { namespace, name: state.into(), value });
    Ok(root.to_xml(PREFIXES)?)
}

/// One item of a package as an update of its own, which is there for the bundle only.
fn part(update: &Update, at: usize, item: &Item) -> Update {
    let id = item
        .id
        .unwrap_or_else(|| UpdateId::named(&["item", &update.id.to_string(), &at.to_string()]));
    let mut part = Update::new(id, &update.name, "", update.created);
    part.texts = update.texts.clone();
    part.kind = update.kind;
    part.classification = update.classification;
    part.products = update.products.clone();
    part.publication = update.publication;
    part.behaviour = update.behaviour;
    part.rules = item.rules.clone();
    part.items = vec![Item { rules: Default::default(), ..item.clone() }];
    part
}

/// Whether people may deploy an update by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deploys {
    Yes,
    No,
}

fn document(update: &Update, revision: u32, deploys: Deploys) -> Result<Element, NotWritable> {
    let identity = upd("UpdateIdentity")
        .with("UpdateID", update.id.to_string())
        .with("RevisionNumber", revision.to_string());
    let mut root = upd("Update").holding(identity).holding(properties(update, deploys));
    let localized = update.texts.iter().map(|(language, text)| {
        let mut element = upd("LocalizedProperties")
            .holding(upd("Language").saying(language.as_str()))
            .holding(upd("Title").saying(&*text.title));
        if !text.description.is_empty() {
            element = element.holding(upd("Description").saying(&*text.description));
        }
        // Links belong to no language; they are told with the first.
        let is_first = update.texts.keys().next() == Some(language);
        let links = update.links.iter().filter(|_| is_first);
        element.holding_all(links.map(|it| upd("MoreInfoUrl").saying(&**it)))
    });
    let mut collection = upd("LocalizedPropertiesCollection").holding_all(localized);
    for file in update.licence.iter().flat_map(|it| &it.files) {
        let language = file.language.as_ref().map(|it| it.as_str().to_owned());
        let element = upd("EulaFile").with_some("Language", language);
        let element = stated_file(element, file, update, &|| upd("AdditionalDigest"))?;
        collection = collection.holding(element);
    }
    root = root.holding(collection);
    let relations = relations(update);
    if !relations.children.is_empty() {
        root = root.holding(relations);
    }
    root = root.holding_all(conditions(update)?);
    let files: Vec<_> = update.files().collect();
    if !files.is_empty() {
        let files = files.into_iter().map(|file| {
            let element = stated_file(upd("File"), file, update, &|| upd("AdditionalDigest"))?;
            Ok(element.with_some("PatchingType", Some("SelfContained")))
        });
        root =
            root.holding(upd("Files").holding_all(files.collect::<Result<Vec<_>, NotWritable>>()?));
    }
    if let Some(handler) = update.items.iter().find_map(|item| item.handler.as_ref()) {
        root = root.holding(handler_data(handler)?);
    }
    Ok(root)
}

fn properties(update: &Update, deploys: Deploys) -> Element {
    let kind = match update.kind {
        Kind::Software => "Software",
        Kind::Driver => "Driver",
        Kind::Category => "Category",
        Kind::Detectoid => "Detectoid",
    };
    let state = match update.publication {
        Publication::Published => "Published",
        Publication::Expired => "Expired",
    };
    let size: u64 = update.files().map(|file| file.size).sum();
    let handler = update.items.iter().find_map(|item| item.handler.as_ref());
    let language =
        update.texts.keys().find(|it| it.as_str() == "en").or(update.texts.keys().next());
    let mut element = upd("Properties")
        .with("UpdateType", kind)
        .with_some("DefaultPropertiesLanguage", language.map(|it| it.as_str()))
        .with_some("ExplicitlyDeployable", (deploys == Deploys::Yes).then_some("true"))
        .with_some("Handler", handler.map(handler_name))
        .with_some("MaxDownloadSize", (size > 0).then(|| size.to_string()))
        .with_some("MinDownloadSize", (size > 0).then_some("0"))
        .with("PublicationState", state)
        .with("CreationDate", update.created.to_string())
        .with_some("MsrcSeverity", update.severity.map(|it| it.title()))
        .with_some("EulaID", update.licence.as_ref().map(|it| &*it.id));
    if matches!(update.kind, Kind::Software | Kind::Driver) {
        element = element.holding(behaviour(upd("InstallationBehavior"), update.behaviour));
        if update.behaviour.can_uninstall {
            element = element.holding(behaviour(upd("UninstallationBehavior"), update.behaviour));
        }
    }
    let languages = update.items.iter().flat_map(|item| &item.languages);
    element = element.holding_all(languages.map(|it| upd("Language").saying(it.as_str())));
    let (article, bulletin) = articles(update);
    let bulletin = bulletin.map(|it| upd("SecurityBulletinID").saying(it));
    let cves = update.cves.iter().map(|it| upd("CveID").saying(&**it));
    let article = article.map(|it| upd("KBArticleID").saying(it));
    element.holding_all(bulletin.into_iter().chain(cves).chain(article))
}

/// The category of a product: its own id, where that is a GUID.
pub fn product_id(product: &str) -> UpdateId {
    product.parse().unwrap_or_else(|_| UpdateId::named(&["product", product]))
}

/// The category of a family of products.
pub fn family_id(family: &str) -> UpdateId {
    family.parse().unwrap_or_else(|_| UpdateId::named(&["family", family]))
}

fn relations(update: &Update) -> Element {
    let identity = |id: &UpdateId| upd("UpdateIdentity").with("UpdateID", id.to_string());
    let group = |group: &AnyOf, of: &dyn Fn(&UpdateId) -> Element| {
        let element =
            upd("AtLeastOne").with_some("IsCategory", group.is_category.then_some("true"));
        match (group.ids.len(), group.is_category) {
            (1, false) => of(group.ids.first().unwrap_or(&update.id)),
            _ => element.holding_all(group.ids.iter().map(of)),
        }
    };
    let mut prerequisites = upd("Prerequisites");
    prerequisites =
        prerequisites.holding_all(update.prerequisites.iter().map(|it| group(it, &identity)));
    // Categories that are named already are not named twice.
    let is_named = |id: &UpdateId| update.prerequisites.iter().any(|it| it.ids.contains(id));
    if update.kind != Kind::Category {
        let classification = update.classification.map(classification_id);
        let products = update.products.iter().map(|it| product_id(it));
        for id in classification.into_iter().chain(products).filter(|id| !is_named(id)) {
            let category = AnyOf { ids: [id].into(), is_category: true };
            prerequisites = prerequisites.holding(group(&category, &identity));
        }
    }
    let bundled = |id: &UpdateId| {
        let revision = update.bundled_revisions.get(id).copied();
        identity(id).with_some("RevisionNumber", revision.map(|it| it.to_string()))
    };
    let bundles =
        upd("BundledUpdates").holding_all(update.bundles.iter().map(|it| group(it, &bundled)));
    let superseded = upd("SupersededUpdates").holding_all(update.supersedes.iter().map(identity));
    let all = [prerequisites, bundles, superseded].into_iter();
    upd("Relationships").holding_all(all.filter(|it| !it.children.is_empty()))
}

/// The rules of the update and, of a single item, those of it: both must hold.
fn conditions(update: &Update) -> Result<Option<Element>, NotWritable> {
    let mut rules = update.rules.clone();
    if let [item] = update.items.as_slice() {
        rules.installable = match (rules.installable, item.rules.installable.clone()) {
            (Some(of_all), Some(of_it)) => Some(Rule::And(vec![of_all, of_it])),
            (one, other) => one.or(other),
        };
        // An update says by itself whether it is installed, if it says it at all.
        rules.installed = rules.installed.or_else(|| item.rules.installed.clone());
        rules.superseded = rules.superseded.or_else(|| item.rules.superseded.clone());
        rules.metadata.extend(item.rules.metadata.iter().cloned());
    }
    let conditions = rules::write_rules(&rules, Family::Wsus, &|name| upd(name))?;
    Ok((!conditions.is_empty()).then(|| upd("ApplicabilityRules").holding_all(conditions)))
}

fn handler_name(handler: &Handler) -> String {
    match handler {
        Handler::CommandLine { .. } => format!("{NAMESPACE}UpdateHandlers/CommandLineInstallation"),
        Handler::Msi { .. } | Handler::Msp { .. } => {
            format!("{NAMESPACE}UpdateHandlers/WindowsInstaller")
        }
        Handler::Other { name, .. } => name.clone(),
        Handler::Apt | Handler::Rpm => OWN_HANDLER.into(),
    }
}

fn handler_data(handler: &Handler) -> Result<Element, NotWritable> {
    let name = handler_name(handler);
    let data = |kind: &str, prefix: &str| {
        let mut element = upd("HandlerSpecificData");
        element.attributes.push(Attribute {
            namespace: "http://www.w3.org/2001/XMLSchema-instance".into(),
            name: "type".into(),
            value: format!("{prefix}:{kind}"),
        });
        element
    };
    let of = |local: &str| Element::new(name.as_str(), local);
    let some = |text: &str| Some(text.to_owned()).filter(|it| !it.is_empty());
    Ok(match handler {
        Handler::CommandLine { .. } => {
            let command = command_line(of("InstallCommand"), handler, &|| of("ReturnCode"));
            data("CommandLineInstallation", "cmd").holding(command)
        }
        Handler::Msi { file, product_code, command_line, uninstall } => {
            let element = of("MsiData")
                .with("MsiFile", &**file)
                .with("ProductCode", &**product_code)
                .with_some("CommandLine", some(command_line))
                .with_some("UninstallCommandLine", uninstall.clone());
            data("WindowsInstallerApp", "msp").holding(element)
        }
        Handler::Msp { patch_code, command_line, uninstall, .. } => {
            let element = of("MspData")
                .with_some("PatchCode", some(patch_code))
                .with_some("CommandLine", some(command_line))
                .with_some("UninstallCommandLine", uninstall.clone());
            data("WindowsInstaller", "msp").holding(element)
        }
        Handler::Other { data: text, name } => {
            let element = crate::xml::parse(text).map_err(|error| {
                NotWritable::NoPlace(format!("what the handler {name} is given is no XML: {error}"))
            })?;
            match &*element.name {
                // It came from such a document, or a fragment of one.
                "HandlerSpecificData" => Element { namespace: upd("").namespace, ..element },
                _ => upd("HandlerSpecificData").holding(element),
            }
        }
        Handler::Apt => data("Apt", "depot").holding(of("Apt")),
        Handler::Rpm => data("Rpm", "depot").holding(of("Rpm")),
    })
}

/// The document of the category that a product is.
///
/// # Errors
/// Its name cannot be said.
pub fn product(product: &Product, created: Timestamp) -> Result<Written, NotWritable> {
    let within = Some(&*product.family).filter(|it| !it.is_empty()).map(family_id);
    category(product_id(&product.id), &product.name, "Product", within, created)
}

/// The document of the category that a family of products is.
///
/// # Errors
/// Its name cannot be said.
pub fn family(family: &str, created: Timestamp) -> Result<Written, NotWritable> {
    category(family_id(family), family, "ProductFamily", None, created)
}

/// The document of the category that a classification is.
///
/// # Errors
/// None, but for the form of it.
pub fn classification(of: Classification, created: Timestamp) -> Result<Written, NotWritable> {
    category(classification_id(of), of.title(), "UpdateClassification", None, created)
}

fn category(
    id: UpdateId,
    title: &str,
    kind: &str,
    within: Option<UpdateId>,
    created: Timestamp,
) -> Result<Written, NotWritable> {
    let mut update = Update::new(id, title, title, created);
    update.kind = Kind::Category;
    update.rules.installed = Some(Rule::True);
    update.prerequisites =
        within.map(|id| AnyOf { ids: [id].into(), is_category: true }).into_iter().collect();
    let handler = format!("{NAMESPACE}UpdateHandlers/Category");
    let information = Element::new(handler.as_str(), "CategoryInformation")
        .with("CategoryType", kind)
        .with("ProhibitsSubcategories", (kind != "ProductFamily").to_string())
        .with("ProhibitsUpdates", (kind == "ProductFamily").to_string());
    let mut data = upd("HandlerSpecificData").holding(information);
    data.attributes.push(Attribute {
        namespace: "http://www.w3.org/2001/XMLSchema-instance".into(),
        name: "type".into(),
        value: "cat:Category".into(),
    });
    let text = document(&update, 1, Deploys::No)?.holding(data).to_xml(PREFIXES)?;
    Ok(Written { id, revision: 1, text })
}

//! The document of one revision, as servers of updates hand it on.
//!
//! It says all of an update, or of a category: what it is called, whether it applies, what it
//! needs, bundles and replaces, its files and how they are installed. The text is kept beside what
//! is understood of it ([`Update::original`]), so that it goes on to others word by word.
//!
//! Products and classifications are documents too. A single update names those it belongs to by id
//! alone; who has read the categories fills in what they are ([`place`]).

use super::NAMESPACE;
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::rule::xml as rules;
use crate::sdp::package::{article, behaviour, command_line, stated_file, time};
use crate::taxonomy::{Classification, Language, Product};
use crate::update::{
    AnyOf, File, Handler, Item, Kind, Licence, MAX_ITEMS, Publication, Text, Update,
};
use crate::xml::{self, Element};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a document is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An update, or a fact about machines that updates require.
    Update(Box<Update>),
    /// A category. It is an update, too: others require it.
    Category {
        /// What it is as a category.
        category: Category,
        /// What it is as an update.
        update: Box<Update>,
    },
}

impl Document {
    /// What it says, as an update.
    pub fn update(&self) -> &Update {
        match self {
            Self::Update(update) | Self::Category { update, .. } => update,
        }
    }
}

/// A category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its id.
    pub id: UpdateId,
    /// What it is called in English, or else in any language.
    pub title: String,
    /// What it is.
    pub kind: CategoryKind,
    /// Ids of the categories that it is in: the family or company of a product.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub families: BTreeSet<String>,
}

/// What a category is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CategoryKind {
    /// Who makes products.
    Company,
    /// Products of a kind.
    Family,
    /// A product.
    Product,
    /// A classification.
    Classification,
    /// Something else, or not said.
    Plain,
}

impl Category {
    /// The product that it is, if it is one; its family is told by id.
    pub fn product(&self) -> Option<Product> {
        (self.kind == CategoryKind::Product).then(|| Product {
            id: self.id.to_string(),
            name: self.title.clone(),
            family: self.families.iter().next().cloned().unwrap_or_default(),
        })
    }

    /// The same, with the name of its family, if that is one of `known`.
    pub fn product_among(&self, known: &BTreeMap<UpdateId, Category>) -> Option<Product> {
        let mut product = self.product()?;
        let family = product.family.parse().ok().and_then(|id: UpdateId| known.get(&id));
        if let Some(family) = family {
            product.family = family.title.clone();
        }
        Some(product)
    }
}

/// The ids of Microsoft's classifications, which are the same everywhere.
const CLASSIFICATIONS: [(Classification, u128); 11] = [
    (Classification::Critical, 0xe6cf1350_c01b_414d_a61f_263d14d133b4),
    (Classification::Security, 0x0fa1201d_4330_4fa8_8ae9_b877473b6441),
    (Classification::Definition, 0xe0789628_ce08_4437_be74_2495b842f43b),
    (Classification::Rollup, 0x28bc880e_0592_4cbf_8f95_c79b17911d5f),
    (Classification::ServicePack, 0x68c5b0a3_d1a6_4553_ae49_01d3a7827828),
    (Classification::Update, 0xcd5ffd1e_e932_4e3a_bf74_18bf0b1bbd83),
    (Classification::FeaturePack, 0xb54e7d24_7add_428f_8b75_90a396fa584f),
    (Classification::Tool, 0xb4832bd8_e735_4761_8daf_37f882276dab),
    (Classification::Driver, 0xebfc1fc5_71a4_4f7b_9aca_3b9a503104a0),
    (Classification::Upgrade, 0x3689bdc8_b205_4af4_8d4a_a63924c5e9d5),
    (Classification::Application, 0x5c9376ab_8ce6_464a_b136_22113dd69801),
];

/// The category that a classification is. Those that Microsoft has not got ids of our own.
pub fn classification_id(classification: Classification) -> UpdateId {
    let known = CLASSIFICATIONS.iter().find(|(of, _)| *of == classification);
    match known {
        Some((_, id)) => UpdateId(uuid::Uuid::from_u128(*id)),
        None => UpdateId::named(&["classification", classification.as_str()]),
    }
}

/// The classification that a category is, by its id alone.
pub fn classification_of(id: UpdateId) -> Option<Classification> {
    Classification::ALL.iter().copied().find(|it| classification_id(*it) == id)
}

/// Reads a document. `urls` are the addresses of its files, by their SHA-1 in base64.
///
/// # Errors
/// [`Cause::Malformed`] if it is no document of an update, [`Cause::TooLarge`] if it has more than
/// is taken.
pub fn read(text: &str, urls: &HashMap<String, Vec<String>>) -> Result<Document, SyncError> {
    let root = xml::parse(text).map_err(|error| error.of("the document of an update"))?;
    let mut document = of_element(&root, &|digest| urls.get(digest).cloned())?;
    let (Document::Update(update) | Document::Category { update, .. }) = &mut document;
    update.original = Some(text.to_owned());
    Ok(document)
}

/// What the root of a document says. `urls` gives the addresses of a file by its SHA-1 in base64.
///
/// # Errors
/// As for [`read`].
pub fn of_element(
    root: &Element,
    urls: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<Document, SyncError> {
    let id = root.child("UpdateIdentity").and_then(|it| it.attribute("UpdateID")).unwrap_or("?");
    let malformed = |what: String| {
        let id: String = id.chars().take(50).collect();
        let detail = format!("the document of the update {id} cannot be understood: {what}");
        SyncError::new(Cause::Malformed, detail)
    };
    understand(root, urls).map_err(malformed)
}

fn understand(
    root: &Element,
    urls: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<Document, String> {
    let identity = root.child("UpdateIdentity").ok_or("it has no UpdateIdentity")?;
    let (id, revision) = identity_of(identity)?;
    let empty = Element::default();
    let properties = root.child("Properties").unwrap_or(&empty);
    let created = match properties.attribute("CreationDate") {
        Some(text) => time(text).ok_or("its CreationDate is no time")?,
        None => Timestamp::UNIX_EPOCH,
    };
    let mut update = Update::new(id, "", "", created);
    update.revision = Some(revision.ok_or("it has no RevisionNumber")?);
    update.kind = match properties.attribute("UpdateType") {
        Some("Software") | None => Kind::Software,
        Some("Driver") => Kind::Driver,
        Some("Category") => Kind::Category,
        Some("Detectoid") => Kind::Detectoid,
        Some(other) => return Err(format!("{other:?} is no UpdateType")),
    };
    if properties.attribute("PublicationState") == Some("Expired") {
        update.publication = Publication::Expired;
    }
    update.severity = properties.attribute("MsrcSeverity").and_then(|it| it.parse().ok());
    if let Some(how) = properties.child("InstallationBehavior") {
        update.behaviour = behaviour(how);
    }
    update.behaviour.can_uninstall = properties.child("UninstallationBehavior").is_some();

    texts(root, properties, &mut update);
    articles(properties, &mut update);
    relations(root, &mut update)?;
    if let Some(element) = root.child("ApplicabilityRules") {
        update.rules = rules::read_rules(element).map_err(|error| error.to_string())?;
    }
    update.licence = licence(root, properties, urls)?;
    let item = item(root, properties, urls)?;
    if item != Item::default() {
        update.items.push(item);
    }
    update.clip();
    if update.name.is_empty() {
        update.name = update.text(&[]).map(|it| it.title.clone()).unwrap_or_default();
    }
    place(&mut update, &BTreeMap::new());
    let update = Box::new(update);
    match update.kind {
        Kind::Category => {
            let category = category(root, &update);
            Ok(Document::Category { category, update })
        }
        _ => Ok(Document::Update(update)),
    }
}

fn identity_of(element: &Element) -> Result<(UpdateId, Option<u32>), String> {
    let id = element.attribute("UpdateID").unwrap_or_default();
    let id = id.parse::<UpdateId>().map_err(|error| error.to_string())?;
    let revision = element.attribute("RevisionNumber").map(|it| it.trim().parse());
    let revision = revision.transpose().map_err(|_| "a RevisionNumber is no number")?;
    Ok((id, revision))
}

fn texts(root: &Element, properties: &Element, update: &mut Update) {
    let language_of = |text: Option<String>| text.and_then(|it| it.parse::<Language>().ok());
    let default = properties.attribute("DefaultPropertiesLanguage").map(str::to_owned);
    let default = language_of(default).unwrap_or_else(Language::english);
    let mut texts = BTreeMap::new();
    for localized in
        root.all("LocalizedPropertiesCollection").flat_map(|it| it.all("LocalizedProperties"))
    {
        let language =
            language_of(localized.text_of("Language")).unwrap_or_else(|| default.clone());
        let text = Text {
            title: localized.text_of("Title").unwrap_or_default(),
            description: localized.text_of("Description").unwrap_or_default(),
        };
        let links =
            localized.elements().filter(|it| matches!(&*it.name, "MoreInfoUrl" | "SupportUrl"));
        update.links.extend(links.map(Element::text).filter(|it| is_web(it)));
        texts.entry(language).or_insert(text);
    }
    // Hidden ones have no title, and are not shown.
    if texts.is_empty() {
        let title = format!("Update {}", update.id);
        texts.insert(default, Text { title, description: String::new() });
    }
    update.texts = texts;
}

fn is_web(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn articles(properties: &Element, update: &mut Update) {
    let article = properties.text_of("KBArticleID").map(|it| article(&it));
    let bulletin = properties.text_of("SecurityBulletinID");
    update.name = article.clone().or_else(|| bulletin.clone()).unwrap_or_default();
    update.articles = article.into_iter().chain(bulletin).collect();
    let cves = properties.all("CveID").map(|it| it.text().to_uppercase());
    update.cves = cves.filter(|it| !it.is_empty()).collect();
    update.links.extend(properties.text_of("SupportUrl").filter(|it| is_web(it)));
}

fn relations(root: &Element, update: &mut Update) -> Result<(), String> {
    let Some(relations) = root.child("Relationships") else { return Ok(()) };
    let mut revisions = BTreeMap::new();
    let mut n = 0;
    let mut groups = |around: &Element| {
        let mut groups = Vec::new();
        for group in around.elements() {
            let is_category = matches!(group.attribute("IsCategory"), Some("true" | "1"));
            let mut ids = BTreeSet::new();
            let members: Vec<&Element> = match &*group.name {
                "AtLeastOne" => group.all("UpdateIdentity").collect(),
                "UpdateIdentity" => vec![group],
                _ => continue,
            };
            for member in members {
                let (id, revision) = identity_of(member)?;
                n += 1;
                if n > MAX_ITEMS {
                    return Err(format!("it relates to more than {MAX_ITEMS} updates"));
                }
                if let Some(revision) = revision {
                    revisions.insert(id, revision);
                }
                ids.insert(id);
            }
            groups.push(AnyOf { ids, is_category });
        }
        Ok(groups)
    };
    for around in relations.elements() {
        match &*around.name {
            "Prerequisites" => update.prerequisites.extend(groups(around)?),
            "BundledUpdates" => update.bundles.extend(groups(around)?),
            "SupersededUpdates" => {
                update.supersedes.extend(groups(around)?.into_iter().flat_map(|it| it.ids));
            }
            _ => {}
        }
    }
    // Itself among them would be a circle.
    update.supersedes.remove(&update.id);
    let is_bundled = |id: &UpdateId| update.bundles.iter().any(|group| group.ids.contains(id));
    revisions.retain(|id, _| is_bundled(id));
    update.bundled_revisions = revisions;
    Ok(())
}

fn licence(
    root: &Element,
    properties: &Element,
    urls: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<Option<Licence>, String> {
    let collections = root.all("LocalizedPropertiesCollection").flat_map(|it| {
        it.all("EulaFile").chain(it.all("LocalizedProperties").flat_map(|it| it.all("EulaFile")))
    });
    let all = collections.chain(properties.all("EulaFile")).chain(root.all("EulaFile"));
    let files = all.map(|it| file(it, urls)).collect::<Result<Vec<_>, _>>()?;
    let id = properties.attribute("EulaID").map(str::to_owned);
    Ok(id.filter(|it| !it.is_empty()).map(|id| Licence { id, files }))
}

fn file(element: &Element, urls: &dyn Fn(&str) -> Option<Vec<String>>) -> Result<File, String> {
    let mut file = stated_file(element)?;
    let found = element.attribute("Digest").and_then(|digest| urls(digest.trim()));
    file.urls = found.unwrap_or_default().into_iter().filter(|it| is_web(it)).collect();
    Ok(file)
}

fn item(
    root: &Element,
    properties: &Element,
    urls: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<Item, String> {
    let mut item = Item::default();
    for element in root.all("Files").flat_map(|it| it.all("File")) {
        if item.files.len() == MAX_ITEMS {
            return Err(format!("it has more than {MAX_ITEMS} files"));
        }
        item.files.push(file(element, urls)?);
    }
    let languages = properties.all("Language").filter_map(|it| it.text().parse().ok());
    item.languages = languages.collect();
    // That of a category says which kind it is, and nothing of how it is installed.
    if let Some(data) = root.child("HandlerSpecificData")
        && properties.attribute("UpdateType") != Some("Category")
    {
        item.handler = Some(handler(data, properties)?);
    }
    Ok(item)
}

fn handler(data: &Element, properties: &Element) -> Result<Handler, String> {
    let mut parts = data.elements();
    if let (Some(only), None) = (parts.next(), parts.next())
        && let Some(understood) = understood(only)
    {
        return understood;
    }
    let name = properties.attribute("Handler").unwrap_or_default().to_owned();
    let data = data.to_xml(super::write::PREFIXES).map_err(|error| error.to_string())?;
    Ok(Handler::Other { name, data })
}

/// How something is installed, if nothing of what the element says would be lost.
fn understood(element: &Element) -> Option<Result<Handler, String>> {
    let has_only = |known: &[&str]| {
        let mut attributes = element.attributes.iter();
        element.children.is_empty() && attributes.all(|it| known.contains(&&*it.name))
    };
    let text = |name| element.attribute(name).unwrap_or_default().to_owned();
    let uninstall = || element.attribute("UninstallCommandLine").map(str::to_owned);
    match &*element.name {
        "InstallCommand" => {
            let is_code = |it: &Element| &*it.name == "ReturnCode" && it.children.is_empty();
            element.elements().all(is_code).then(|| command_line(element))
        }
        "MsiData"
            if has_only(&["MsiFile", "ProductCode", "CommandLine", "UninstallCommandLine"]) =>
        {
            Some(Ok(Handler::Msi {
                file: text("MsiFile"),
                product_code: text("ProductCode"),
                command_line: text("CommandLine"),
                uninstall: uninstall(),
            }))
        }
        "Apt" if &*element.namespace == super::write::OWN_HANDLER => Some(Ok(Handler::Apt)),
        "Rpm" if &*element.namespace == super::write::OWN_HANDLER => Some(Ok(Handler::Rpm)),
        _ => None,
    }
}

fn category(root: &Element, update: &Update) -> Category {
    let information =
        root.child("HandlerSpecificData").and_then(|it| it.child("CategoryInformation"));
    let kind = match information.and_then(|it| it.attribute("CategoryType")) {
        Some("Company") => CategoryKind::Company,
        Some("ProductFamily") => CategoryKind::Family,
        Some("Product") => CategoryKind::Product,
        Some("UpdateClassification") => CategoryKind::Classification,
        _ if classification_of(update.id).is_some() => CategoryKind::Classification,
        _ => CategoryKind::Plain,
    };
    let within = update.prerequisites.iter().filter(|it| it.is_category).flat_map(|it| &it.ids);
    Category {
        id: update.id,
        title: update.text(&[]).map(|it| it.title.clone()).unwrap_or_default(),
        kind,
        families: within.map(UpdateId::to_string).collect(),
    }
}

/// Says to which products and which classification an update belongs, as its prerequisites name
/// them.
///
/// Microsoft's classifications are known without their documents. What else is named as a category
/// is a product, unless `categories` knows better; what is named as a mere requirement counts where
/// `categories` knows it: parts of bundles name their product so.
pub fn place(update: &mut Update, categories: &BTreeMap<UpdateId, Category>) {
    for group in &update.prerequisites {
        for id in &group.ids {
            let known = categories.get(id);
            let named = known.filter(|it| it.kind == CategoryKind::Classification);
            let classification =
                classification_of(*id).or_else(|| named.and_then(|it| it.title.parse().ok()));
            if let Some(classification) = classification {
                update.classification.get_or_insert(classification);
                continue;
            }
            let is_product = match known.map(|it| it.kind) {
                Some(CategoryKind::Product | CategoryKind::Family) => true,
                Some(_) => false,
                None => group.is_category,
            };
            if is_product {
                update.products.insert(id.to_string());
            } else if known.is_some() {
                update.products.remove(&id.to_string());
            }
        }
    }
    if update.kind == Kind::Category {
        // What a category is in is no product that it is for.
        update.products.clear();
        update.classification = None;
    }
}

/// The name of an element in the namespace of documents.
pub(crate) fn upd(name: &str) -> Element {
    Element::new(format!("{NAMESPACE}Update"), name)
}

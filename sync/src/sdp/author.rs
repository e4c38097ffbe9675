//! One's own third-party updates, from a plain description.
//!
//! A [`Description`] is what a person writes, in TOML or JSON: what the update is called and mends,
//! its files, how it is installed, when it applies. [`build`] makes an update of it, or says of
//! every field what is wrong with it: the limits are those of the published schema, so that what is
//! built here can be written as a package ([`super::write`]) and imported elsewhere.

use super::package::{article, product_of};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::name::UpdateId;
use crate::rule::windows::WindowsPart;
use crate::rule::{MAX_DEPTH, MAX_PARTS, Rule, Rules, WindowsRule, xml as rules};
use crate::taxonomy::{Classification, Language, Product, Severity};
use crate::update::{
    AnyOf, Behaviour, CodeResult, File, Handler, Impact, Item, Publication, Restart, ReturnCode,
    Text, Update,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// What a person writes of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Its id; a new one is made where there is none. It stays, when the update is issued again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<UpdateId>,
    /// One line: 1 to 200 characters.
    pub title: String,
    /// Some sentences: 1 to 1500 characters.
    pub description: String,
    /// The same in further languages.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub translations: BTreeMap<Language, Text>,
    /// Who makes the software.
    pub vendor: String,
    /// What it is called.
    pub product: String,
    /// What kind of update it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// How bad what it mends is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The article that describes it: up to 15 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
    /// The bulletin of the vulnerability: up to 15 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulletin: Option<String>,
    /// CVE ids: each up to 40 characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cves: Vec<String>,
    /// Where to read more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// The updates that it replaces.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<UpdateId>,
    /// Updates that must be installed before: of each group one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<BTreeSet<UpdateId>>,
    /// Its files.
    pub files: Vec<FileDescription>,
    /// How it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Whether the machine restarts.
    pub restart: Restart,
    /// What else may run meanwhile.
    pub impact: Impact,
    /// Whether somebody may have to answer questions.
    pub may_ask: bool,
    /// Whether it needs the network.
    pub needs_network: bool,
    /// Whether it can be installed on a machine; everywhere, where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installable: Option<RuleText>,
    /// Whether it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<RuleText>,
    /// Whether something newer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<RuleText>,
    /// Whether it is taken back.
    pub expired: bool,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileDescription {
    /// Where it lies now; its size and digests are computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where it can be had: `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its name; the last part of path or address, where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its bytes, where there is no path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-256, where there is no path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its SHA-1, which older clients want beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// Its language, if it is for one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// How an update is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Installer {
    /// By running one of the files.
    Command {
        /// Which.
        program: String,
        /// What it is given.
        #[serde(default)]
        arguments: String,
        /// What its codes mean; without any, 0 is success and 3010 success that wants a restart.
        #[serde(default)]
        codes: Vec<ReturnCode>,
        /// What all others mean.
        #[serde(default)]
        otherwise: CodeResult,
    },
    /// By Windows Installer, from a package.
    Msi {
        /// Which of the files.
        file: String,
        /// `{8-4-4-4-12}`.
        #[serde(rename = "product-code")]
        product_code: String,
        /// Further arguments.
        #[serde(default)]
        arguments: String,
        /// Arguments to take it off again; none, where it cannot be.
        #[serde(default)]
        uninstall: Option<String>,
    },
    /// By Windows Installer, as a patch.
    Msp {
        /// `{8-4-4-4-12}`.
        #[serde(rename = "patch-code")]
        patch_code: String,
        /// Further arguments.
        #[serde(default)]
        arguments: String,
        /// Arguments to take it off again; none, where it cannot be.
        #[serde(default)]
        uninstall: Option<String>,
    },
}

/// A rule as a person writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RuleText {
    /// XML, of either family of namespaces or with the letters of fragments: `<b.Processor
    /// Architecture="9"/>`.
    Xml(String),
    /// The same as data.
    Data(Rule),
}

impl Description {
    /// The id that it has, or that is made of vendor, product and title: said again, an update is the same.
    pub fn id(&self) -> UpdateId {
        let parts = ["own", self.vendor.trim(), self.product.trim(), self.title.trim()];
        self.id.unwrap_or_else(|| UpdateId::named(&parts))
    }
}

/// What a file was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Its bytes.
    pub size: u64,
    /// SHA-1 and SHA-256.
    pub digests: Digests,
}

/// Looks what the file at `path` is.
///
/// # Errors
/// It cannot be read.
pub fn measure(path: &Path) -> io::Result<Measured> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Hasher::new([Algorithm::Sha1, Algorithm::Sha256]);
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => hasher.update(&piece[..n]),
        }
    }
    let (size, digests) = hasher.finish();
    Ok(Measured { size, digests })
}

/// What is wrong with a description: each field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Flaws(pub Vec<Flaw>);

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The field, as `files[0].sha256`.
    pub field: String,
    /// What is wrong, and what is wanted.
    pub why: String,
}

impl fmt::Display for Flaws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, flaw) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{}: {}", flaw.field, flaw.why)?;
        }
        Ok(())
    }
}

/// Makes an update, and its product, of a description.
///
/// `measured` has what was found of the files that have a path, by that; `fresh` is the id of an
/// update that has none yet; `now` is when it is made: issued again, an update is told from what it
/// was by that.
///
/// # Errors
/// What is wrong, field by field.
pub fn build(
    description: &Description,
    measured: &BTreeMap<String, Measured>,
    fresh: UpdateId,
    now: Timestamp,
) -> Result<(Update, Product), Flaws> {
    let mut flaws = Vec::new();
    let it = description;
    let mut say = |field: &str, why: String| flaws.push(Flaw { field: field.to_owned(), why });

    length(&mut say, "title", &it.title, 1, 200);
    length(&mut say, "description", &it.description, 1, 1500);
    for (language, text) in &it.translations {
        length(&mut say, &format!("translations.{language}.title"), &text.title, 1, 200);
        let field = format!("translations.{language}.description");
        length(&mut say, &field, &text.description, 1, 1500);
    }
    length(&mut say, "vendor", &it.vendor, 1, 100);
    length(&mut say, "product", &it.product, 1, 100);
    if it.classification.is_none() {
        let known: Vec<_> = CLASSIFICATIONS.iter().map(|it| it.as_str()).collect();
        say("classification", format!("is missing; want one of {}", known.join(", ")));
    }
    if let Some(given) = it.classification.filter(|it| !CLASSIFICATIONS.contains(it)) {
        say("classification", format!("{given} is not for third-party updates"));
    }
    for (field, text) in [("article", &it.article), ("bulletin", &it.bulletin)] {
        if let Some(text) = text {
            length(&mut say, field, text, 1, 15);
        }
    }
    for (at, cve) in it.cves.iter().enumerate() {
        if !is_cve(cve) {
            say(
                &format!("cves[{at}]"),
                format!("{cve:?} is none; want one such as CVE-2026-12345"),
            );
        }
    }
    for (at, link) in it.links.iter().enumerate() {
        if !is_web(link) {
            say(&format!("links[{at}]"), format!("{link:?} is no address of http or https"));
        }
    }
    let id = it.id.unwrap_or(fresh);
    if it.supersedes.contains(&id) {
        say("supersedes", "the update would replace itself".into());
    }
    for (at, group) in it.prerequisites.iter().enumerate() {
        if group.is_empty() || group.contains(&id) {
            let why = "wants ids of other updates, of which one is enough";
            say(&format!("prerequisites[{at}]"), why.into());
        }
    }
    let files = files(&mut say, &it.files, measured);
    let handler = installer(&mut say, it.installer.as_ref(), &files);
    let rules = Rules {
        installable: rule(&mut say, "installable", it.installable.as_ref()),
        installed: rule(&mut say, "installed", it.installed.as_ref()),
        superseded: rule(&mut say, "superseded", it.superseded.as_ref()),
        metadata: Vec::new(),
    };
    let knows_itself = matches!(&it.installer, Some(Installer::Msi { .. } | Installer::Msp { .. }));
    if it.installed.is_none() && !knows_itself {
        let why = "is missing: without it nobody can tell whether the update is installed";
        say("installed", why.into());
    }
    if !flaws.is_empty() {
        return Err(Flaws(flaws));
    }

    let product = product_of(it.vendor.trim(), it.product.trim());
    let name = it.article.as_deref().map(article);
    let mut update = Update::new(id, name.as_deref().unwrap_or(&it.title), &it.title, now);
    let text = Text { title: it.title.clone(), description: it.description.clone() };
    update.texts = it.translations.clone();
    update.texts.insert(Language::english(), text);
    update.classification = it.classification;
    update.severity = it.severity;
    update.products = [product.id.clone()].into();
    update.articles = name.into_iter().chain(it.bulletin.clone()).collect();
    update.cves = it.cves.iter().map(|cve| cve.to_uppercase()).collect();
    update.links = it.links.iter().cloned().collect();
    if it.expired {
        update.publication = Publication::Expired;
    }
    update.supersedes = it.supersedes.clone();
    let groups = it.prerequisites.iter().cloned();
    update.prerequisites = groups.map(|ids| AnyOf { ids, is_category: false }).collect();
    let can_uninstall = matches!(
        &handler,
        Some(Handler::Msi { uninstall: Some(_), .. } | Handler::Msp { uninstall: Some(_), .. })
    );
    update.behaviour = Behaviour {
        restart: it.restart,
        impact: it.impact,
        may_ask: it.may_ask,
        needs_network: it.needs_network,
        can_uninstall,
    };
    let mut rules = rules;
    if rules.installed.is_none() {
        rules.installed = handler.as_ref().and_then(own_installed);
    }
    let languages = files.iter().filter_map(|file| file.language.clone()).collect();
    let id = Some(UpdateId::named(&["item", &id.to_string(), "0"]));
    update.items = vec![Item { id, rules, handler, files, languages }];
    Ok((update, product))
}

/// The classifications that the schema knows.
const CLASSIFICATIONS: [Classification; 9] = [
    Classification::Update,
    Classification::Critical,
    Classification::Security,
    Classification::FeaturePack,
    Classification::Rollup,
    Classification::ServicePack,
    Classification::Tool,
    Classification::Hotfix,
    Classification::Driver,
];

/// Takes what is wrong with a field.
type Say<'a> = dyn FnMut(&str, String) + 'a;

fn length(say: &mut Say<'_>, field: &str, text: &str, least: usize, most: usize) {
    let n = text.trim().chars().count();
    if n < least && text.trim().is_empty() {
        say(field, "is missing".into());
    } else if n > most {
        say(field, format!("has {n} characters; {most} are the most"));
    }
    let wrong = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    if let Some(wrong) = wrong {
        say(
            field,
            format!("has the character {:#x}, which no catalogue can have", u32::from(wrong)),
        );
    }
}

fn is_cve(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = text.splitn(3, '-').collect();
    matches!(parts[..], [cve, year, number] if cve.eq_ignore_ascii_case("CVE")
        && year.len() == 4 && digits(year) && (4..=30).contains(&number.len()) && digits(number))
}

fn is_web(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

fn files(
    say: &mut Say<'_>,
    described: &[FileDescription],
    measured: &BTreeMap<String, Measured>,
) -> Vec<File> {
    if described.is_empty() {
        say("files", "there is none".into());
    }
    let mut files: Vec<File> = Vec::new();
    for (at, it) in described.iter().enumerate() {
        let field = |name: &str| format!("files[{at}].{name}");
        if let Some(url) = it.url.as_ref().filter(|url| !is_web(url)) {
            say(&field("url"), format!("{url:?} is no address of http or https"));
        }
        let found = it.path.as_ref().and_then(|path| measured.get(path));
        match (&it.path, &it.url) {
            (None, None) => say(&format!("files[{at}]"), "wants a path or an address (url)".into()),
            (Some(path), _) if found.is_none() => {
                say(&field("path"), format!("there is no file {path}"));
            }
            _ => {}
        }
        let last = |text: &String| {
            let plain = text.split(['?', '#']).next().unwrap_or_default();
            plain.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
        };
        let path_name = it
            .path
            .as_ref()
            .map(|path| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned());
        let name =
            it.name.clone().or(path_name).or_else(|| it.url.as_ref().map(last)).unwrap_or_default();
        let is_plain = !matches!(&*name, "" | "." | "..")
            && name.len() <= 255
            && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
        if !is_plain {
            say(&field("name"), format!("{name:?} is no plain name of a file"));
        }
        if files.iter().any(|file| file.name.eq_ignore_ascii_case(&name)) {
            say(&field("name"), format!("there is another file {name:?}"));
        }
        let mut digests = found.map(|it| it.digests.clone()).unwrap_or_default();
        for (what, algorithm, stated) in
            [("sha1", Algorithm::Sha1, &it.sha1), ("sha256", Algorithm::Sha256, &it.sha256)]
        {
            let Some(stated) = stated else { continue };
            match (Digests::of(algorithm, stated), digests.get(algorithm)) {
                (Err(error), _) => say(&field(what), error.to_string()),
                (Ok(_), Some(found)) if !stated.eq_ignore_ascii_case(found) => {
                    say(&field(what), format!("is {stated}, but the file has {found}"));
                }
                (Ok(_), _) => digests = digests.with(algorithm, stated).unwrap_or_default(),
            }
        }
        let size = match (it.size, found) {
            (Some(stated), Some(found)) if stated != found.size => {
                say(&field("size"), format!("is {stated}, but the file has {}", found.size));
                0
            }
            (_, Some(found)) => found.size,
            (Some(stated), None) => stated,
            (None, None) => {
                if it.path.is_none() && it.url.is_some() {
                    say(
                        &field("size"),
                        "is missing: it is known only of a file with a path".into(),
                    );
                }
                0
            }
        };
        if it.path.is_none() && it.url.is_some() && it.sha256.is_none() {
            let why =
                "is missing: without it, whoever downloads the file cannot tell that it is the one";
            say(&field("sha256"), why.into());
        }
        let urls = it.url.clone().into_iter().collect();
        let language = it.language.clone();
        files.push(File { name, size, digests, urls, language, ..File::default() });
    }
    files
}

fn installer(say: &mut Say<'_>, installer: Option<&Installer>, files: &[File]) -> Option<Handler> {
    let is_there = |say: &mut Say<'_>, field: &str, name: &str| {
        if !files.iter().any(|file| file.name.eq_ignore_ascii_case(name)) {
            say(field, format!("{name:?} is none of the files"));
        }
    };
    let code = |say: &mut Say<'_>, field: &str, code: &str| {
        let inner = code.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        if inner.is_none_or(|it| it.len() != 36 || it.parse::<UpdateId>().is_err()) {
            say(field, format!("{code:?} is none; want {{8-4-4-4-12}} hex digits in braces"));
        }
    };
    match installer {
        None => {
            say("installer", "is missing; want one of the kind command, msi or msp".into());
            None
        }
        Some(Installer::Command { program, arguments, codes, otherwise }) => {
            is_there(say, "installer.program", program);
            let usual = [(0, false), (3010, true)].map(|(code, restart)| ReturnCode {
                code,
                result: CodeResult::Succeeded,
                restart,
            });
            for (at, it) in codes.iter().enumerate() {
                if codes[..at].iter().any(|other| other.code == it.code) {
                    say(&format!("installer.codes[{at}]"), format!("{} is there twice", it.code));
                }
                if i32::try_from(it.code).is_err() && u32::try_from(it.code).is_err() {
                    say(
                        &format!("installer.codes[{at}]"),
                        format!("{} has more than 32 bits", it.code),
                    );
                }
            }
            Some(Handler::CommandLine {
                program: program.clone(),
                arguments: arguments.clone(),
                default_result: *otherwise,
                restart_by_default: false,
                codes: if codes.is_empty() { usual.to_vec() } else { codes.clone() },
            })
        }
        Some(Installer::Msi { file, product_code, arguments, uninstall }) => {
            is_there(say, "installer.file", file);
            code(say, "installer.product-code", product_code);
            Some(Handler::Msi {
                file: file.clone(),
                product_code: product_code.clone(),
                command_line: arguments.clone(),
                uninstall: uninstall.clone(),
            })
        }
        Some(Installer::Msp { patch_code, arguments, uninstall }) => {
            code(say, "installer.patch-code", patch_code);
            Some(Handler::Msp {
                files: files.iter().map(|file| file.name.clone()).collect(),
                patch_code: patch_code.clone(),
                command_line: arguments.clone(),
                uninstall: uninstall.clone(),
            })
        }
    }
}

/// What Windows Installer itself knows: whether the product of a package is installed.
fn own_installed(handler: &Handler) -> Option<Rule> {
    let Handler::Msi { product_code, .. } = handler else { return None };
    Some(Rule::Windows(WindowsRule {
        vocabulary: crate::rule::windows::Vocabulary::Msi,
        name: "MsiProductInstalled".into(),
        attributes: [("ProductCode".to_owned(), product_code.clone())].into(),
        children: Vec::new(),
    }))
}

fn rule(say: &mut Say<'_>, field: &str, text: Option<&RuleText>) -> Option<Rule> {
    let rule = match text? {
        RuleText::Data(rule) => Ok(rule.clone()),
        RuleText::Xml(text) => crate::xml::parse(text)
            .map_err(|error| error.to_string())
            .and_then(|element| rules::read(&element).map_err(|error| error.to_string())),
    };
    let checked = rule.and_then(|rule| check(&rule, 0, &mut 0).map(|()| rule));
    checked.map_err(|why| say(field, why)).ok()
}

/// Whether all of a rule is known: what is not would never be true.
fn check(rule: &Rule, depth: usize, parts: &mut usize) -> Result<(), String> {
    *parts += 1;
    if depth >= MAX_DEPTH || *parts > MAX_PARTS {
        return Err(format!("is deeper than {MAX_DEPTH}, or has more than {MAX_PARTS} parts"));
    }
    match rule {
        Rule::And(all) | Rule::Or(all) => {
            if all.is_empty() {
                return Err("has an And or Or with nothing in it".into());
            }
            all.iter().try_for_each(|rule| check(rule, depth + 1, parts))
        }
        Rule::Not(rule) => check(rule, depth + 1, parts),
        Rule::Windows(rule) => {
            rule.check().map_err(|error| error.to_string())?;
            rule.children.iter().try_for_each(|part| match part {
                WindowsPart::Rule(rule) => check(rule, depth + 1, parts),
                WindowsPart::Element(_) | WindowsPart::Text(_) => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::{package, write};
    use crate::xml;

    const FULL: &str = r#"
        title = "Tool 2.1"
        description = "Mends a hole."
        vendor = "Acme Inc."
        product = "Tool"
        classification = "security"
        severity = "important"
        article = "900001"
        bulletin = "ACME-26-1"
        cves = ["CVE-2026-0001"]
        links = ["https://acme.example/tool"]
        supersedes = ["00000000-0000-0000-0000-000000000001"]
        prerequisites = [["00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"]]
        restart = "never"
        installed = """
            <b.FileVersion Path="Acme\\tool.exe" Csidl="38" Comparison="GreaterThanOrEqualTo" Version="2.1.0.0"/>"""
        [translations.de]
        title = "Werkzeug 2.1"
        description = "Schliesst eine L\u00fccke."
        [installable]
        and = [{ windows = { vocabulary = "base", name = "Processor", attributes = { Architecture = "9" } } }]
        [[files]]
        path = "/srv/tool-2.1.exe"
        url = "https://acme.example/tool-2.1.exe"
        [installer]
        kind = "command"
        program = "tool-2.1.exe"
        arguments = "/quiet"
    "#;

    fn now() -> Timestamp {
        "2026-11-27T10:00:00Z".parse().unwrap()
    }

    fn fresh() -> UpdateId {
        UpdateId::named(&["fresh"])
    }

    fn measured() -> BTreeMap<String, Measured> {
        let digests = Digests::of(Algorithm::Sha1, &"1".repeat(40)).unwrap();
        let digests = digests.with(Algorithm::Sha256, &"2".repeat(64)).unwrap();
        [("/srv/tool-2.1.exe".to_owned(), Measured { size: 7, digests })].into()
    }

    fn full() -> Description {
        toml::from_str(FULL).unwrap()
    }

    fn flaws(description: &Description) -> Vec<String> {
        let flaws = build(description, &measured(), fresh(), now()).unwrap_err();
        flaws.0.into_iter().map(|it| format!("{}: {}", it.field, it.why)).collect()
    }

    #[test]
    fn a_description_becomes_an_update_and_a_package_and_comes_back() {
        let (update, product) = build(&full(), &measured(), fresh(), now()).unwrap();
        assert_eq!((update.id, update.created), (fresh(), now()));
        assert_eq!((&*update.name, &*product.id), ("KB900001", "acme-inc.tool"));
        assert_eq!(update.texts.len(), 2);
        let item = &update.items[0];
        assert_eq!((item.files[0].size, item.files[0].urls.len()), (7, 1));
        let Some(Handler::CommandLine { codes, .. }) = &item.handler else { panic!("a program") };
        assert_eq!(
            codes.iter().map(|it| (it.code, it.restart)).collect::<Vec<_>>(),
            [(0, false), (3010, true)]
        );
        let text = write::write(&update, std::slice::from_ref(&product)).unwrap();
        let back = package::read(&xml::parse(&text).unwrap()).unwrap();
        assert_eq!(back.update, update);
        assert_eq!(back.product, Some(product));
        // The same in JSON, and from what was read.
        let json = serde_json::to_string(&full()).unwrap();
        assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), full());
    }

    #[test]
    fn issued_again_it_keeps_its_id_and_is_newer() {
        let again = Description { id: Some(fresh()), expired: true, ..full() };
        let later = "2026-12-01T00:00:00Z".parse().unwrap();
        let (update, _) = build(&again, &measured(), UpdateId::named(&["other"]), later).unwrap();
        assert_eq!((update.id, update.publication), (fresh(), Publication::Expired));
        assert!(update.created > now());
    }

    #[test]
    fn each_flaw_names_its_field() {
        let all = flaws(&Description::default());
        let fields: Vec<_> = all.iter().map(|it| it.split(':').next().unwrap()).collect();
        let missing = [
            "title",
            "description",
            "vendor",
            "product",
            "classification",
            "files",
            "installer",
            "installed",
        ];
        assert_eq!(fields, missing, "{all:?}");

        let one = |change: &dyn Fn(&mut Description)| {
            let mut description = full();
            change(&mut description);
            flaws(&description).join("; ")
        };
        let says = |told: String, what: &str| assert!(told.starts_with(what), "{told}");
        says(one(&|it| it.title = "x".repeat(201)), "title: has 201 characters; 200 are the most");
        says(one(&|it| it.description = "x".repeat(1501)), "description: has 1501");
        says(one(&|it| it.title = "a\u{1}".into()), "title: has the character 0x1");
        says(one(&|it| it.article = Some("x".repeat(16))), "article: has 16");
        says(one(&|it| it.cves.push("2026-1".into())), "cves[1]: \"2026-1\" is none");
        says(one(&|it| it.links.push("file:///x".into())), "links[1]");
        says(
            one(&|it| it.id = it.supersedes.first().copied()),
            "supersedes: the update would replace itself",
        );
        says(one(&|it| it.prerequisites.push(BTreeSet::new())), "prerequisites[1]");
        says(
            one(&|it| it.classification = Some(Classification::Definition)),
            "classification: definition",
        );
        says(
            one(&|it| it.files[0].path = Some("/other.exe".into())),
            "files[0].path: there is no file",
        );
        says(
            one(&|it| it.files[0].name = Some("../x".into())),
            "files[0].name: \"../x\" is no plain name",
        );
        says(one(&|it| it.files[0].sha256 = Some("3".repeat(64))), "files[0].sha256: is 333");
        says(one(&|it| it.files[0].path = None), "files[0].size: is missing");
        says(one(&|it| it.files.push(it.files[0].clone())), "files[1].name: there is another");
        let wrong = |text: &str| {
            let text = text.to_owned();
            one(&move |it| it.installed = Some(RuleText::Xml(text.clone())))
        };
        says(wrong("<b.FileVersio/>"), "installed: there is no rule FileVersio");
        says(wrong("<b.FileExists/>"), "installed: the rule FileExists wants the attribute Path");
        says(wrong("<And/>"), "installed: has an And or Or with nothing");
        says(wrong("<And"), "installed: it is no well-formed XML");
        let other = Installer::Msi {
            file: "x.msi".into(),
            product_code: "1234".into(),
            arguments: String::new(),
            uninstall: None,
        };
        let told = one(&move |it| it.installer = Some(other.clone()));
        says(told.clone(), "installer.file: \"x.msi\" is none of the files");
        assert!(told.contains("installer.product-code: \"1234\" is none"), "{told}");
        assert!(
            toml::from_str::<Description>("titel = 'x'").unwrap_err().to_string().contains("titel")
        );
    }

    #[test]
    fn windows_installer_knows_whether_its_product_is_installed() {
        let mut description = full();
        description.installed = None;
        description.installer = Some(Installer::Msi {
            file: "tool-2.1.exe".into(),
            product_code: "{FB2B7CC0-8307-47e6-A065-11015CC96B99}".into(),
            arguments: String::new(),
            uninstall: Some("/x".into()),
        });
        let (update, _) = build(&description, &measured(), fresh(), now()).unwrap();
        let Some(Rule::Windows(rule)) = &update.items[0].rules.installed else { panic!("a rule") };
        assert_eq!(rule.name, "MsiProductInstalled");
        assert!(update.behaviour.can_uninstall);
    }

    #[test]
    fn a_file_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        let found = measure(&path).unwrap();
        assert_eq!(found.size, 3);
        assert_eq!(
            found.digests.get(Algorithm::Sha1),
            Some("a9993e364706816aba3e25717850c26c9cd0d89d")
        );
        assert!(found.digests.get(Algorithm::Sha256).is_some());
    }
}

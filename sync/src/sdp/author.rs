//! One's own third-party updates, from a plain description.
//!
//! A [`Description`] is what a person writes, in TOML or JSON: what the update is called and mends,
//! its files, how it is installed, when it applies. [`build`] makes an update of it, or says of
//! every field what is wrong with it: the limits are those of the published schema, so that what is
//! built here can be written as a package ([`super::write`]) and imported elsewhere.

mod description;

pub use description::{Description, FileDescription, Installer, RuleText};

use super::package::{article, product_of};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::name::UpdateId;
use crate::rule::windows::WindowsPart;
use crate::rule::{MAX_DEPTH, MAX_PARTS, Rule, Rules, WindowsRule, xml as rules};
use crate::taxonomy::{Classification, Language, Product};
use crate::update::{
    AnyOf, Behaviour, CodeResult, File, Handler, Item, Publication, ReturnCode, Text, Update,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

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

/// Whether it has the form of a CVE, in either case: `CVE-2026-0001`.
pub(crate) fn is_cve(text: &str) -> bool {
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
mod tests;

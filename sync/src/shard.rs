//! The catalogue as clients read it: in shards, each named by its content.
//!
//! A client holds what it scans by, and brings what changed of it. So what of the updates a client needs
//! ([`Entry`]) is cut into shards of some dozen updates, by platform, product and a hash of the update's id
//! ([`cut`]); shards are listed in pages, and pages in one manifest, which the site signs. Shards and pages are
//! [`blob`]s, named by the BLAKE3 of what they say: whoever hands them out, they are what the manifest means, and
//! one that did not change has the name that it had. SHARDS.md has the bytes.
//!
//! Always true of what [`build`] makes:
//! * it follows from the updates alone, and not from their history or the order in which they came;
//! * each update is in one shard, and an update that changes, comes or goes changes one shard, or splits or
//!   joins those beside it, one page, and the manifest.

pub mod blob;
pub mod build;
pub mod cut;
pub mod manifest;

use crate::name::UpdateId;
use crate::rule::{Rule, Rules};
use crate::taxonomy::Language;
use crate::update::{Kind, Update};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The longest line of a shard: an update that has more is left out, and counted.
pub const MAX_ENTRY: usize = 16 << 20;

/// Which machines the rules of an update speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Of all, or of several kinds.
    Any,
    /// Of those with dpkg.
    Dpkg,
    /// Of those with rpm.
    Rpm,
    /// Of Windows machines.
    Windows,
}

impl Platform {
    /// That of an update.
    pub fn of(update: &Update) -> Self {
        let mut found = Found::default();
        let all = update.items.iter().map(|item| &item.rules).chain([&update.rules]);
        all.for_each(|rules| found.in_rules(rules));
        match (found.dpkg, found.rpm, found.windows) {
            (true, false, false) => Self::Dpkg,
            (false, true, false) => Self::Rpm,
            (false, false, true) => Self::Windows,
            // Only Microsoft's catalogues, and those in its forms, have such.
            (false, false, false)
                if matches!(update.kind, Kind::Category | Kind::Detectoid)
                    || !update.bundles.is_empty()
                    || !update.prerequisites.is_empty() =>
            {
                Self::Windows
            }
            _ => Self::Any,
        }
    }
}

#[derive(Default)]
struct Found {
    dpkg: bool,
    rpm: bool,
    windows: bool,
}

impl Found {
    fn in_rules(&mut self, rules: &Rules) {
        for rule in [&rules.installable, &rules.installed, &rules.superseded].into_iter().flatten()
        {
            self.in_rule(rule);
        }
        self.windows |= !rules.metadata.is_empty();
    }

    fn in_rule(&mut self, rule: &Rule) {
        match rule {
            Rule::And(parts) | Rule::Or(parts) => parts.iter().for_each(|part| self.in_rule(part)),
            Rule::Not(part) => self.in_rule(part),
            Rule::Dpkg(_) => self.dpkg = true,
            Rule::Rpm(_) => self.rpm = true,
            Rule::Windows(_) => self.windows = true,
            Rule::True | Rule::False | Rule::Codename(_) | Rule::Release { .. } => {}
        }
    }
}

/// What a client is told of an update: a line of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its revision in the catalogue.
    pub revision: u32,
    /// It, without what no client decides by.
    pub update: Update,
}

impl Entry {
    /// Of an update of that revision.
    ///
    /// Rules, items and relations stay, and what it is called; descriptions, links, flaws, digests and addresses
    /// of files go: an update is installed from packages, whose manifests have these.
    pub fn of(revision: u32, mut update: Update) -> Self {
        let mut title = update.text(&[]).cloned().unwrap_or_default();
        title.description = String::new();
        update.texts = BTreeMap::from([(Language::english(), title)]);
        update.cves = BTreeSet::new();
        update.links = BTreeSet::new();
        update.supersedes = BTreeSet::new();
        update.bundled_revisions = BTreeMap::new();
        update.released = None;
        update.licence = None;
        update.original = None;
        for file in update.items.iter_mut().flat_map(|item| &mut item.files) {
            file.urls = Vec::new();
            file.digests = Default::default();
            file.path = None;
        }
        Self { revision, update }
    }

    /// It as a line, without its end.
    pub fn line(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// The product by which an update is sorted: of several the first; none has the empty one.
pub fn product_of(update: &Update) -> &str {
    update.products.first().map_or("", String::as_str)
}

/// The updates of a shard, line by line. A line that cannot be read is an error of its own: what a newer site
/// says of one update keeps nobody from the others.
pub fn entries(plain: &[u8]) -> impl Iterator<Item = Result<Entry, UnreadableEntry>> {
    let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| {
        serde_json::from_slice(line).map_err(|source| {
            #[derive(Deserialize)]
            struct Which {
                update: Id,
            }
            #[derive(Deserialize)]
            struct Id {
                id: UpdateId,
            }
            let which = serde_json::from_slice::<Which>(line).ok().map(|which| which.update.id);
            UnreadableEntry { which, source }
        })
    })
}

/// A line of a shard that this program does not understand.
#[derive(Debug, thiserror::Error)]
#[error("what is said of an update cannot be understood")]
pub struct UnreadableEntry {
    /// Which update it is of, where that can be read.
    pub which: Option<UpdateId>,
    /// What is wrong.
    pub source: serde_json::Error,
}

/// What the fuzz targets read: a shard, a page and a manifest, each from one who may send anything.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let name = blob::Name::of(bytes);
    let packed = blob::pack(bytes).expect("memory takes it");
    assert_eq!(blob::unpack(&packed, name, bytes.len() as u64).expect("as packed"), bytes);
    let _ = blob::unpack(bytes, name, 1 << 20);
    for entry in entries(bytes).flatten() {
        let line = entry.line().expect("it has text keys");
        assert!(entries(&line).next().is_some_and(|again| again.is_ok_and(|it| it == entry)));
    }
    let _ = manifest::Page::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(read) = manifest::Manifest::parse(text)
    {
        assert_eq!(manifest::Manifest::parse(&read.text()).expect("as written"), read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Comparison, PackageRule};
    use crate::update::{AnyOf, File, Item};
    use jiff::Timestamp;

    fn dpkg() -> Option<Rule> {
        let (name, version) = ("a".into(), "1".into());
        let rule = PackageRule { name, arch: None, is: Comparison::LessThan, version };
        Some(Rule::And(vec![Rule::Codename("x".into()), Rule::Not(Box::new(Rule::Dpkg(rule)))]))
    }

    fn update() -> Update {
        Update::new(UpdateId::named(&["x"]), "x", "X", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_platform_is_what_the_rules_speak_of() {
        let mut one = update();
        assert_eq!(Platform::of(&one), Platform::Any);
        one.rules.installed = dpkg();
        assert_eq!(Platform::of(&one), Platform::Dpkg);
        let rpm: Rule = serde_json::from_str(
            r#"{"rpm": {"name": "a", "is": "less-than", "version": "1", "highest_only": false}}"#,
        )
        .unwrap();
        one.items.push(Item {
            rules: Rules { installable: Some(rpm), ..Default::default() },
            ..Default::default()
        });
        assert_eq!(Platform::of(&one), Platform::Any);
        let mut bundle = update();
        bundle.bundles.push(AnyOf { ids: [one.id].into(), is_category: false });
        assert_eq!(Platform::of(&bundle), Platform::Windows);
    }

    #[test]
    fn what_no_client_decides_by_stays_at_the_site() {
        let mut one = update();
        one.rules.installed = dpkg();
        one.cves.insert("CVE-2026-1".into());
        one.original = Some("x".repeat(10_000));
        one.texts.values_mut().for_each(|text| text.description = "long".repeat(1_000));
        let file =
            File { name: "f".into(), urls: vec!["https://e.org/f".into()], ..File::default() };
        one.items.push(Item { files: vec![file], ..Item::default() });
        let entry = Entry::of(3, one.clone());
        assert_eq!((entry.update.rules.clone(), entry.update.id), (one.rules, one.id));
        let line = entry.line().unwrap();
        assert!(line.len() < 500, "{}", String::from_utf8_lossy(&line));
        let text =
            [line.clone(), b"\n".to_vec(), b"{\"revision\":1,\"update\":{\"id\":\"".to_vec()];
        let rest = [one.id.0.to_string().as_bytes(), b"\",\"rules\":{\"new\":1}}}\n"].concat();
        let read: Vec<_> = entries(&[text.concat(), rest].concat()).collect();
        assert_eq!(read[0].as_ref().unwrap(), &entry);
        assert_eq!(read[1].as_ref().unwrap_err().which, Some(one.id), "and the one before counts");
    }
}

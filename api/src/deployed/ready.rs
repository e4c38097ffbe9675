//! Updates as clients are told them: what is installed, by which files, and under which digests these are held.
//!
//! What is told of an update follows from its entry in the catalogue, which is read once, and from what packages hold.
//! Of files that are for one language alone, some may be left out of a package on purpose; an update is whole if it is
//! so in one language.

use super::holdings::Holdings;
use crate::mirror::bring::name_of;
use crate::problem::Problem;
use ::sync::catalogue::{Catalogue, Entry, Standing};
use ::sync::name::UpdateId;
use ::sync::taxonomy::Language;
use ::sync::update::{File, Update};
use contentlib::{Digest, Library, Name};
use deployment::policy::{DeployedFile, DeployedItem, DeployedUpdate};
use packager::name::PackageName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use utoipa::ToSchema;

/// Updates that are remembered though nothing deploys them.
const REMEMBERED: usize = 20_000;

/// Whether an update's files are in a package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// All are.
    Held,
    /// One at least is in no package: machines cannot get it.
    #[default]
    Missing,
    /// It has none: there is nothing to install, or its upstream does not say what.
    None,
}

/// What the catalogue says of an update, and what never changes of it while it does.
pub(super) struct Known {
    pub standing: Standing,
    /// What clients are told, before it is said where its files are.
    told: DeployedUpdate,
    files: Vec<KnownFile>,
    pub licence: Option<String>,
}

/// One file, in the order of items and files.
pub(super) struct KnownFile {
    name: Option<Name>,
    language: Option<Language>,
    /// What the library resolves the name to: once it does, always the same.
    content: OnceLock<Digest>,
}

/// An update, with where its files are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ready {
    pub told: DeployedUpdate,
    pub content: Content,
    pub licence: Option<String>,
    pub standing: Standing,
}

/// The updates that were looked at.
#[derive(Default)]
pub(super) struct Shelf {
    known: HashMap<UpdateId, Arc<Known>>,
}

impl Known {
    fn of(entry: Entry, standing: Standing) -> Self {
        let Entry { update, revision, .. } = entry;
        let files = update.files().map(|file| KnownFile {
            name: name_of(&file.digests),
            language: file.language.clone(),
            content: OnceLock::new(),
        });
        let files = files.collect();
        let licence = update.licence.as_ref().map(|licence| licence.id.clone());
        Self { standing, told: told(update, revision), files, licence }
    }

    /// The content of each file, as far as the library knows one.
    pub fn contents<'a>(
        &'a self,
        library: &'a Library,
    ) -> impl Iterator<Item = (&'a KnownFile, Option<Digest>)> {
        self.files.iter().map(|file| {
            if let Some(found) = file.content.get() {
                return (file, Some(*found));
            }
            let found = file.name.as_ref().and_then(|name| library.resolve(name).ok().flatten());
            if let Some(found) = found {
                // Another thread may have been quicker, with the same.
                let _ = file.content.set(found);
            }
            (file, found)
        })
    }

    /// The same, of those that a package holds; where one is named, others than that.
    fn held(
        &self,
        library: &Library,
        holdings: &Holdings,
        beside: Option<&PackageName>,
    ) -> Vec<Option<Digest>> {
        let is_held = |content: &Digest| holdings.is_held_beside(*content, beside);
        self.contents(library).map(|(_, content)| content.filter(is_held)).collect()
    }

    /// The packages that have all of its files, but for those of languages that no package has, by name.
    pub fn whole_in(&self, library: &Library, holdings: &Holdings) -> Vec<PackageName> {
        let held = self.held(library, holdings, None);
        let Some(whole) = self.languages(&held) else { return Vec::new() };
        let needed = self.files.iter().zip(held).filter(|(file, _)| match &file.language {
            Some(language) => whole.contains(language),
            None => true,
        });
        let mut having: Option<BTreeSet<PackageName>> = None;
        for content in needed.filter_map(|(_, held)| held) {
            let of = holdings.of(content).cloned();
            having = Some(match having {
                None => of.collect(),
                Some(before) => of.filter(|name| before.contains(name)).collect(),
            });
        }
        having.into_iter().flatten().collect()
    }

    /// What it is a bundle of.
    pub fn parts(&self) -> impl Iterator<Item = UpdateId> + '_ {
        self.told.parts.iter().copied()
    }

    fn content(&self, held: &[Option<Digest>]) -> Content {
        match (self.files.is_empty(), self.languages(held)) {
            (true, _) => Content::None,
            (false, Some(_)) => Content::Held,
            (false, None) => Content::Missing,
        }
    }

    /// The languages in which it is whole, if it is: of none that has files of its own, where there are none such.
    fn languages(&self, held: &[Option<Digest>]) -> Option<BTreeSet<&Language>> {
        let mut whole: BTreeMap<&Language, bool> = BTreeMap::new();
        for (file, held) in self.files.iter().zip(held) {
            match &file.language {
                Some(language) => *whole.entry(language).or_insert(true) &= held.is_some(),
                None if held.is_none() => return None,
                None => {}
            }
        }
        let in_some: BTreeSet<&Language> = whole
            .iter()
            .filter(|(_, is_whole)| **is_whole)
            .map(|(language, _)| *language)
            .collect();
        (whole.is_empty() || !in_some.is_empty()).then_some(in_some)
    }

    fn ready(&self, library: &Library, holdings: &Holdings) -> Ready {
        let held = self.held(library, holdings, None);
        let languages = self.languages(&held);
        let mut told = self.told.clone();
        let mut of_files = self.files.iter().zip(&held);
        for item in &mut told.items {
            item.files.retain_mut(|file| {
                let Some((known, held)) = of_files.next() else { return true };
                file.digest = held.map(|content| content.to_hex());
                // Those of languages that no package has are nothing that a machine could wait for.
                match (&known.language, &languages) {
                    (Some(language), Some(whole)) => whole.contains(language),
                    _ => true,
                }
            });
        }
        Ready {
            content: self.content(&held),
            told,
            licence: self.licence.clone(),
            standing: self.standing,
        }
    }
}

/// What clients are told of an update, but for where its files are.
fn told(update: Update, revision: u32) -> DeployedUpdate {
    let title = update.text(&[]).map(|text| text.title.clone()).unwrap_or_default();
    let file = |file: &File| DeployedFile {
        name: file.name.clone(),
        size: file.size,
        digest: None,
        language: file.language.clone(),
        package: file.package.clone(),
    };
    let items = update.items.iter().zip(0..).map(|(item, n)| DeployedItem {
        item: n,
        handler: item.handler.clone(),
        languages: item.languages.clone(),
        files: item.files.iter().map(file).collect(),
    });
    DeployedUpdate {
        id: update.id,
        revision,
        items: items.collect(),
        name: update.name,
        title,
        behaviour: update.behaviour,
        parts: update.bundles.iter().flat_map(|group| &group.ids).copied().collect(),
    }
}

impl Shelf {
    /// These updates as the catalogue has them now. Those that it does not have are left out.
    ///
    /// # Errors
    /// If the database fails.
    pub fn known(
        &mut self,
        catalogue: &Catalogue,
        ids: &[UpdateId],
    ) -> Result<HashMap<UpdateId, Arc<Known>>, Problem> {
        let standings = catalogue.standings(ids.iter().copied());
        let mut found = HashMap::with_capacity(ids.len());
        for (id, standing) in ids.iter().zip(standings) {
            let Some(standing) = standing else {
                self.known.remove(id);
                continue;
            };
            let known = self.known.get(id).filter(|known| known.standing.seq == standing.seq);
            let known = match known {
                Some(known) if known.standing == standing => Arc::clone(known),
                _ => {
                    let Some(entry) = catalogue.entry(*id)? else { continue };
                    let known = Arc::new(Known::of(entry, standing));
                    self.known.insert(*id, Arc::clone(&known));
                    known
                }
            };
            found.insert(*id, known);
        }
        Ok(found)
    }

    /// Forgets updates that are not `needed`, where there are many.
    pub fn trim(&mut self, needed: impl Fn(UpdateId) -> bool) {
        if self.known.len() > REMEMBERED {
            self.known.retain(|id, _| needed(*id));
        }
    }

    /// The same with all parts of bundles among them, and of these.
    pub fn with_parts(
        &mut self,
        catalogue: &Catalogue,
        ids: impl IntoIterator<Item = UpdateId>,
    ) -> Result<HashMap<UpdateId, Arc<Known>>, Problem> {
        let mut all: HashMap<UpdateId, Arc<Known>> = HashMap::new();
        let mut next: Vec<UpdateId> = ids.into_iter().collect();
        // Each is looked at once, so that a circle of upstreams' makes no endless work.
        let mut seen: BTreeSet<UpdateId> = next.iter().copied().collect();
        while !next.is_empty() {
            let found = self.known(catalogue, &next)?;
            let parts = found.values().flat_map(|known| &known.told.parts).copied();
            next = parts.filter(|part| seen.insert(*part)).collect();
            all.extend(found);
        }
        Ok(all)
    }
}

/// Each of these updates with where its files are. A bundle is held if its parts are.
pub(super) fn ready(
    known: &HashMap<UpdateId, Arc<Known>>,
    library: &Library,
    holdings: &Holdings,
) -> HashMap<UpdateId, Arc<Ready>> {
    let mut all: HashMap<UpdateId, Ready> =
        known.iter().map(|(id, known)| (*id, known.ready(library, holdings))).collect();
    let bundles: Vec<UpdateId> =
        all.values().filter(|it| !it.told.parts.is_empty()).map(|it| it.told.id).collect();
    let of_bundles: Vec<(UpdateId, Content)> = bundles
        .into_iter()
        .map(|id| {
            (
                id,
                bundle(id, &mut BTreeSet::new(), &|id| {
                    let it = all.get(&id)?;
                    Some((it.content, &it.told.parts))
                }),
            )
        })
        .collect();
    for (id, content) in of_bundles {
        if let Some(it) = all.get_mut(&id) {
            it.content = content;
        }
    }
    all.into_iter().map(|(id, it)| (id, Arc::new(it))).collect()
}

/// Whether the files of updates are in a package; where one is named, in another than that.
pub(super) fn contents(
    known: &HashMap<UpdateId, Arc<Known>>,
    library: &Library,
    holdings: &Holdings,
    beside: Option<&PackageName>,
) -> HashMap<UpdateId, Content> {
    let own: HashMap<UpdateId, Content> = known
        .iter()
        .map(|(id, known)| (*id, known.content(&known.held(library, holdings, beside))))
        .collect();
    let of = |id: UpdateId| Some((*own.get(&id)?, &known.get(&id)?.told.parts));
    own.keys().map(|id| (*id, bundle(*id, &mut BTreeSet::new(), &of))).collect()
}

/// The content of an update with that of its parts: missing if any is.
fn bundle<'a>(
    id: UpdateId,
    seen: &mut BTreeSet<UpdateId>,
    of: &impl Fn(UpdateId) -> Option<(Content, &'a BTreeSet<UpdateId>)>,
) -> Content {
    let Some((mut content, parts)) = of(id) else { return Content::Missing };
    for part in parts {
        if !seen.insert(*part) {
            continue;
        }
        content = match (content, bundle(*part, seen, of)) {
            (Content::Missing, _) | (_, Content::Missing) => return Content::Missing,
            (Content::None, part) => part,
            (held, _) => held,
        };
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(languages: &[Option<&str>]) -> Known {
        let files = languages.iter().map(|language| KnownFile {
            name: None,
            language: language.map(|tag| tag.parse().unwrap()),
            content: OnceLock::new(),
        });
        let update = Update::new(UpdateId::named(&["x"]), "x", "x", jiff::Timestamp::UNIX_EPOCH);
        let standing = Standing { seq: 1, state: ::sync::lifecycle::State::Current, expired: None };
        Known { standing, told: told(update, 1), files: files.collect(), licence: None }
    }

    #[test]
    fn an_update_is_held_if_it_is_whole_in_one_language() {
        let all = [None, Some("de"), Some("de"), Some("en")];
        let content = |held: [u8; 4]| {
            let held = held.map(|is| (is == 1).then_some(Digest::EMPTY));
            known(&all).content(&held)
        };
        assert_eq!(content([1, 1, 1, 1]), Content::Held);
        assert_eq!(content([1, 1, 1, 0]), Content::Held);
        assert_eq!(content([1, 0, 0, 1]), Content::Held);
        assert_eq!(content([1, 1, 0, 0]), Content::Missing);
        assert_eq!(content([0, 1, 1, 1]), Content::Missing, "the one for all languages");
        assert_eq!(known(&[]).content(&[]), Content::None);
        assert_eq!(known(&[None]).content(&[None]), Content::Missing);
    }

    #[test]
    fn a_bundle_misses_what_its_parts_miss() {
        let id = |n: &str| UpdateId::named(&[n]);
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = ([id("b"), id("c")].into(), [id("a")].into());
        let none = BTreeSet::new();
        let content = |b_has, c_has| {
            // `a` is a bundle of `b` and `c`, and `b` says that it is one of `a`.
            bundle(id("a"), &mut BTreeSet::new(), &|of| {
                let all =
                    [(id("a"), Content::None, &a), (id("b"), b_has, &b), (id("c"), c_has, &none)];
                all.into_iter().find(|it| it.0 == of).map(|it| (it.1, it.2))
            })
        };
        assert_eq!(content(Content::Held, Content::Held), Content::Held);
        assert_eq!(content(Content::Held, Content::Missing), Content::Missing);
        assert_eq!(bundle(id("x"), &mut BTreeSet::new(), &|_| None), Content::Missing);
    }
}

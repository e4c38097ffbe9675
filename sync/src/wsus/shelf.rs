//! The catalogue as downstream servers see it: documents, and what each is to those who choose.
//!
//! An index of it is kept in memory and brought up to date from the feed of the catalogue, as a child site
//! would be: what did not change is not read again. An update of several items is several documents there;
//! products, families and classifications of upstreams that have no categories are made into some.

use super::document::{self, classification_id};
use super::messages::{FileUrl, Identity, ServerLanguage, UpdateData};
use super::server::{Shelf, Shelved};
use super::write::{self, Written};
use crate::catalogue::{Catalogue, MAX_FEED_PAGE, Place};
use crate::digests::Algorithm;
use crate::error::{Cause, SyncError};
use crate::lifecycle::Expiry;
use crate::name::UpdateId;
use crate::taxonomy::{Classification, Product};
use crate::update::{File, Kind, Publication, Update};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use url::Url;

/// The catalogue as a [`Shelf`]. Cloning shares the index.
#[derive(Clone)]
pub struct CatalogueShelf {
    catalogue: Catalogue,
    index: Arc<Mutex<Index>>,
    /// The updates whose documents were asked for last, the newest last: of an update of several documents
    /// each is asked for by itself.
    written: Arc<Mutex<VecDeque<Arc<WrittenUpdate>>>>,
    /// Where files can be had by SHA-1: `http://site/Content/`.
    content: Option<Url>,
}

/// How much text of documents is kept, in bytes: a downstream asks for a hundred at a time, in any order.
const MAX_KEPT: usize = 16 << 20;

/// An update as its documents.
struct WrittenUpdate {
    owner: UpdateId,
    /// Its place in the order of changes.
    seq: u64,
    documents: Vec<Written>,
    /// Where their publisher has its files, by digest.
    vendors: HashMap<String, String>,
}

impl WrittenUpdate {
    fn bytes(&self) -> usize {
        self.documents.iter().map(|one| one.text.len()).sum()
    }
}

#[derive(Default)]
struct Index {
    place: Place,
    /// What each update of the catalogue is here: its parts, and itself.
    updates: BTreeMap<UpdateId, Vec<Shelved>>,
    /// The update that a part belongs to.
    owners: HashMap<UpdateId, UpdateId>,
    products: BTreeMap<String, Product>,
    /// The place of the list of products.
    products_seq: u64,
    /// What the categories of products are called in the catalogue.
    names: HashMap<UpdateId, String>,
    /// Categories that no upstream said, but that updates here are of, and the place of each.
    made: BTreeMap<UpdateId, (Written, u64)>,
    /// Base64 of the SHA-1 of each file, and how many updates have it.
    files: HashMap<String, u32>,
    /// Files of each update, to be taken out again.
    files_of: HashMap<UpdateId, Vec<String>>,
    /// Updates that no document can be made of.
    n_left_out: u64,
}

impl CatalogueShelf {
    /// The shelf of a catalogue. `content` is where files can be had, with `/` at its end.
    pub fn new(catalogue: Catalogue, content: Option<Url>) -> Self {
        Self { catalogue, index: Arc::default(), written: Arc::default(), content }
    }

    /// The same, whose files can be had at `content`.
    pub fn reached_at(&self, content: Option<Url>) -> Self {
        Self { content, ..self.clone() }
    }

    /// How many updates are left out, since no document can be made of them.
    pub fn n_left_out(&self) -> u64 {
        self.index.lock().n_left_out
    }

    /// An update as its documents, written once for all of them.
    fn written(&self, owner: UpdateId, seq: u64) -> Result<Option<Arc<WrittenUpdate>>, SyncError> {
        let is_it = |it: &&Arc<WrittenUpdate>| (it.owner, it.seq) == (owner, seq);
        if let Some(found) = self.written.lock().iter().find(is_it) {
            return Ok(Some(found.clone()));
        }
        let Some(entry) = self.catalogue.entry(owner)? else { return Ok(None) };
        let update = as_told(entry.update, entry.expired);
        let documents = write::write(&update, entry.revision).map_err(|error| {
            SyncError::because(Cause::Local, format!("update {owner} cannot be written"), error)
        })?;
        let urls = update.files().filter_map(|file| self.urls(file));
        let vendors = urls.filter_map(|it| Some((it.digest, it.vendor?))).collect();
        let written = Arc::new(WrittenUpdate { owner, seq: entry.seq, documents, vendors });
        let mut kept = self.written.lock();
        kept.push_back(written.clone());
        while kept.len() > 1 && kept.iter().map(|it| it.bytes()).sum::<usize>() > MAX_KEPT {
            kept.pop_front();
        }
        Ok(Some(written))
    }

    /// The index as the catalogue is now.
    fn refreshed(&self) -> Result<parking_lot::MutexGuard<'_, Index>, SyncError> {
        let mut index = self.index.lock();
        // Classifications there are always.
        let mut is_as_before = !index.made.is_empty();
        loop {
            let page = self.catalogue.changes(index.place, MAX_FEED_PAGE)?;
            if page.from != index.place {
                *index = Index::default();
                is_as_before = false;
            }
            is_as_before &= page.entries.is_empty() && page.products.is_none();
            if let Some(products) = page.products {
                index.products = products.into_iter().map(|it| (it.id.clone(), it)).collect();
                index.products_seq = page.next.after;
            }
            for entry in page.entries {
                index.take_out(entry.id);
                if let Some(update) = entry.update {
                    index.put(&as_told(*update, entry.expired), entry.revision, entry.seq);
                }
            }
            index.place = page.next;
            if page.is_last {
                if !is_as_before {
                    index.made = index.made();
                }
                return Ok(index);
            }
        }
    }

    /// Where a file can be had: at its vendor's, and here by its digest.
    fn urls(&self, file: &File) -> Option<FileUrl> {
        let digest = digest(file)?;
        let vendor = file.urls.first().cloned();
        let server = self.content.as_ref().zip(named_by(file)).and_then(|(root, hex)| {
            // The last two digits name the folder, and the file keeps the end of its name.
            let hex = hex.to_ascii_uppercase();
            let end =
                file.name.rsplit_once('.').map_or(String::new(), |(_, end)| format!(".{end}"));
            let plain =
                end.len() <= 16 && end.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
            let end = if plain { end } else { String::new() };
            root.join(&format!("{}/{hex}{end}", hex.get(hex.len() - 2..)?)).ok()
        });
        Some(FileUrl { digest, vendor, server: server.map(Into::into) })
    }
}

impl Index {
    fn take_out(&mut self, id: UpdateId) {
        for part in self.updates.remove(&id).unwrap_or_default() {
            self.owners.remove(&part.identity.id);
        }
        for digest in self.files_of.remove(&id).unwrap_or_default() {
            if let Some(count) = self.files.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    self.files.remove(&digest);
                }
            }
        }
    }

    fn put(&mut self, update: &Update, revision: u32, seq: u64) {
        let Ok(documents) = write::write(update, revision) else {
            self.n_left_out += 1;
            return;
        };
        let categories = update.products.iter().map(|it| (write::product_id(it), it));
        let categories: BTreeMap<UpdateId, &String> = categories.collect();
        for (id, name) in &categories {
            self.names.entry(*id).or_insert_with(|| (*name).clone());
        }
        let categories = categories.into_keys();
        // A product may be meant by its family as well.
        let families = update.products.iter().filter_map(|product| self.products.get(product));
        let families = families.filter(|it| !it.family.is_empty());
        let categories: BTreeSet<UpdateId> =
            families.map(|it| write::family_id(&it.family)).chain(categories).collect();
        let bundles: Vec<UpdateId> =
            update.bundles.iter().flat_map(|any| &any.ids).copied().collect();
        let parts: Vec<UpdateId> =
            documents.iter().map(|it| it.id).filter(|id| *id != update.id).collect();
        let shelved = documents.iter().map(|written| {
            let is_whole = written.id == update.id;
            Shelved {
                identity: Identity { id: written.id, revision: written.revision },
                seq,
                is_config: matches!(update.kind, Kind::Category | Kind::Detectoid),
                categories: if is_whole { categories.clone() } else { BTreeSet::new() },
                classification: update.classification.filter(|_| is_whole).map(classification_id),
                bundles: match is_whole {
                    true => bundles.iter().chain(&parts).copied().collect(),
                    false => Vec::new(),
                },
            }
        });
        let shelved: Vec<Shelved> = shelved.collect();
        self.owners.extend(shelved.iter().map(|it| (it.identity.id, update.id)));
        self.updates.insert(update.id, shelved);
        let files: Vec<String> = update.files().filter_map(digest).collect();
        for digest in &files {
            *self.files.entry(digest.clone()).or_default() += 1;
        }
        self.files_of.insert(update.id, files);
    }

    /// See the field.
    fn made(&self) -> BTreeMap<UpdateId, (Written, u64)> {
        let created = Timestamp::UNIX_EPOCH;
        let families: BTreeSet<&str> = self.products.values().map(|it| &*it.family).collect();
        let families = families.into_iter().filter(|it| !it.is_empty());
        let families = families.filter_map(|it| write::family(it, created).ok());
        let products = self.products.values().filter_map(|it| write::product(it, created).ok());
        let with_seq = families.chain(products).map(|written| (written, self.products_seq));
        // Classifications never change, so they are as old as any.
        let classes =
            Classification::ALL.iter().filter_map(|it| write::classification(*it, created).ok());
        let all = with_seq.chain(classes.map(|written| (written, 1)));
        let all = all.filter(|(written, _)| !self.owners.contains_key(&written.id));
        let mut made: BTreeMap<UpdateId, (Written, u64)> =
            all.map(|(written, seq)| (written.id, (written, seq))).collect();
        // Products that updates name and nobody described are as old as the first of the updates.
        let mut nameless: BTreeMap<UpdateId, u64> = BTreeMap::new();
        for shelved in self.updates.values().flatten() {
            for id in &shelved.categories {
                if !made.contains_key(id) && !self.owners.contains_key(id) {
                    let seq = nameless.entry(*id).or_insert(shelved.seq);
                    *seq = shelved.seq.min(*seq);
                }
            }
        }
        for (id, seq) in nameless {
            let Some(name) = self.names.get(&id) else { continue };
            let product = Product { id: name.clone(), name: name.clone(), family: String::new() };
            if let Ok(written) = write::product(&product, created) {
                made.insert(id, (written, seq));
            }
        }
        made
    }
}

/// An update as it is told to others: what is expired here, for whatever reason, is told as that. Its
/// revision stays the one that its publisher counts.
fn as_told(mut update: Update, expired: Option<Expiry>) -> Update {
    if expired.is_some() {
        update.publication = Publication::Expired;
    }
    update
}

/// The digest that a file is called by, in hex: its SHA-1, as the protocol has it, or its SHA-256 where the
/// upstream, as Debian, states no SHA-1.
fn named_by(file: &File) -> Option<&str> {
    file.digests.get(Algorithm::Sha1).or_else(|| file.digests.get(Algorithm::Sha256))
}

/// The same, in base64.
fn digest(file: &File) -> Option<String> {
    let hex = named_by(file)?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    Some(BASE64.encode(bytes?))
}

impl Shelf for CatalogueShelf {
    fn seq(&self) -> u64 {
        self.catalogue.seq()
    }

    fn all(&self) -> Result<Vec<Shelved>, SyncError> {
        let index = self.refreshed()?;
        let made = index.made.values().map(|(written, seq)| Shelved {
            identity: Identity { id: written.id, revision: written.revision },
            seq: *seq,
            is_config: true,
            categories: BTreeSet::new(),
            classification: None,
            bundles: Vec::new(),
        });
        Ok(index.updates.values().flatten().cloned().chain(made).collect())
    }

    fn document(&self, of: Identity) -> Result<Option<(UpdateData, Vec<FileUrl>)>, SyncError> {
        let (owner, seq, made) = {
            let index = self.refreshed()?;
            let made = index.made.get(&of.id).map(|(written, _)| written.clone());
            let owner = index.owners.get(&of.id).copied();
            let parts = owner.and_then(|owner| index.updates.get(&owner));
            (owner, parts.and_then(|parts| parts.first()).map_or(0, |it| it.seq), made)
        };
        let data = |xml, files| UpdateData { identity: of, xml, files };
        let Some(owner) = owner else {
            let made = made.filter(|written| written.revision == of.revision);
            return Ok(made.map(|written| (data(written.text, Vec::new()), Vec::new())));
        };
        let Some(update) = self.written(owner, seq)? else { return Ok(None) };
        let is_it = |written: &&Written| written.id == of.id && written.revision == of.revision;
        let Some(written) = update.documents.iter().find(is_it) else { return Ok(None) };
        // Of an update of several documents, each states the files of its own.
        let stated = document::read(&written.text, &HashMap::new())?;
        let mut urls: Vec<FileUrl> =
            stated.update().files().filter_map(|file| self.urls(file)).collect();
        for url in &mut urls {
            url.vendor = update.vendors.get(&url.digest).cloned();
        }
        let files = urls.iter().map(|url| url.digest.clone()).collect();
        Ok(Some((data(written.text.clone(), files), urls)))
    }

    fn knows_file(&self, digest: &str) -> Result<bool, SyncError> {
        Ok(self.refreshed()?.files.contains_key(digest))
    }

    fn is_over_tls(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.scheme() == "https")
    }

    fn languages(&self) -> Vec<ServerLanguage> {
        // LCIDs, as the published list has them ([MS-LCID]), of the languages that Windows updates have.
        const KNOWN: &[(u32, &str, &str)] = &[
            (0, "all", "all"),
            (1025, "ar", "Arabic"),
            (1028, "zh-tw", "Chinese (Traditional)"),
            (1029, "cs", "Czech"),
            (1030, "da", "Danish"),
            (1031, "de", "German"),
            (1032, "el", "Greek"),
            (1033, "en", "English"),
            (1035, "fi", "Finnish"),
            (1036, "fr", "French"),
            (1037, "he", "Hebrew"),
            (1038, "hu", "Hungarian"),
            (1040, "it", "Italian"),
            (1041, "ja", "Japanese"),
            (1042, "ko", "Korean"),
            (1043, "nl", "Dutch"),
            (1044, "no", "Norwegian"),
            (1045, "pl", "Polish"),
            (1046, "pt-br", "Portuguese (Brazil)"),
            (1049, "ru", "Russian"),
            (1053, "sv", "Swedish"),
            (1055, "tr", "Turkish"),
            (2052, "zh-cn", "Chinese (Simplified)"),
            (2070, "pt", "Portuguese (Portugal)"),
            (3082, "es", "Spanish"),
        ];
        let held = self.catalogue.languages();
        let is_held = |short: &str| held.iter().any(|it| it.as_str() == short);
        let language = |(id, short, long): &(u32, &str, &str)| ServerLanguage {
            id: *id,
            short: (*short).into(),
            long: (*long).into(),
            enabled: is_held(short),
        };
        KNOWN.iter().map(language).collect()
    }
}

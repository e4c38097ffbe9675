//! What is written of the catalogue, and under which keys.
//!
//! | table | key | what |
//! | --- | --- | --- |
//! | `sync-bodies` | update, source, hash | what a source said of an update, word by word; never changed |
//! | `sync-heads` | update | which of the bodies is shown, who says what, how far its life is, and what lists show |
//! | `sync-products` | product | its name and family |
//! | `sync-sources` | source | the adapter's state, as of its last commit |
//! | `sync-staged`, `sync-staged-products` | source, run, update or product | what a sync is about to change |
//! | `sync-commit` | | the commit that is being published, if there is one |
//! | `sync-dropped` | update, source, hash | bodies that nothing shows any more, about to be deleted |
//! | `sync-order` | | which source's word counts first |
//! | `sync-marks` | | the last place in the order of changes, and the like |
//! | `sync-lineage` | | a name of this catalogue alone, by which its order of changes is told from others' |
//!
//! A body's key holds the hash of its content, and not the revision, so that an upstream that changes an
//! update without counting up, or two that count differently, never write over what a reader holds.

use crate::lifecycle::Expiry;
use crate::name::{SourceName, UpdateId};
use crate::taxonomy::{Classification, Language, Product, Severity};
use crate::update::{Kind, Publication, Update};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sitedb::{Table, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A key of [`BODIES`].
pub(crate) type BodyKey = (UpdateId, (String, u128));
/// A key of [`STAGED`].
pub(crate) type StagedKey = (String, (u64, UpdateId));

pub(crate) const BODIES: Table<BodyKey, Update> = Table::new("sync-bodies");
pub(crate) const HEADS: Table<UpdateId, Head> = Table::new("sync-heads");
pub(crate) const PRODUCTS: Table<String, ProductRow> = Table::new("sync-products");
pub(crate) const SOURCES: Table<String, SourceRow> = Table::new("sync-sources");
pub(crate) const STAGED: Table<StagedKey, Staged> = Table::new("sync-staged");
pub(crate) const STAGED_PRODUCTS: Table<(String, (u64, String)), StagedProduct> =
    Table::new("sync-staged-products");
pub(crate) const COMMIT: Table<(), Commit> = Table::new("sync-commit");
pub(crate) const DROPPED: Table<BodyKey, Dropped> = Table::new("sync-dropped");
pub(crate) const ORDER: Table<(), Preference> = Table::new("sync-order");
pub(crate) const MARKS: Table<(), Marks> = Table::new("sync-marks");
pub(crate) const LINEAGE: Table<(), Lineage> = Table::new("sync-lineage");

impl Value for Update {}

/// The first half of the SHA-256 of an update's JSON: says whether a source says the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ContentHash(pub u128);

impl ContentHash {
    /// That of what an update's JSON says.
    pub fn of(json: &[u8]) -> Self {
        let sha: [u8; 32] = Sha256::digest(json).into();
        let (first, _) = sha.split_first_chunk().expect("32 bytes begin with 16");
        Self(u128::from_be_bytes(*first))
    }
}

impl TryFrom<String> for ContentHash {
    type Error = std::num::ParseIntError;
    fn try_from(hex: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&hex, 16).map(Self)
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        format!("{:032x}", hash.0)
    }
}

/// What lists show of an update, and filters ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// What its upstream calls it.
    pub name: String,
    /// Its title, in English where it has one.
    pub title: String,
    /// What it is to the catalogue.
    pub kind: Kind,
    /// Its classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// How bad what it mends is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Ids of the products that it is for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub products: BTreeSet<String>,
    /// Advisories, bulletins and articles.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub articles: BTreeSet<String>,
    /// CVE ids.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub cves: BTreeSet<String>,
    /// When its upstream made it.
    pub created: Timestamp,
    /// When it was released; when it was made, where that is not told.
    pub released: Timestamp,
    /// Whether its upstream still offers it.
    #[serde(skip_serializing_if = "is_published")]
    pub publication: Publication,
    /// Languages that it has files for alone.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub languages: BTreeSet<Language>,
    /// The updates that it replaces.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<UpdateId>,
    /// How many files it has.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

fn is_published(publication: &Publication) -> bool {
    *publication == Publication::Published
}

impl Card {
    /// The card of an update.
    pub fn of(update: &Update) -> Self {
        let sizes = update.files().map(|file| file.size);
        Self {
            name: update.name.clone(),
            title: update.text(&[]).map(|text| text.title.clone()).unwrap_or_default(),
            kind: update.kind,
            classification: update.classification,
            severity: update.severity,
            products: update.products.clone(),
            articles: update.articles.clone(),
            cves: update.cves.clone(),
            created: update.created,
            released: update.released.unwrap_or(update.created),
            publication: update.publication,
            languages: update.files().filter_map(|file| file.language.clone()).collect(),
            supersedes: update.supersedes.clone(),
            files: u32::try_from(update.files().count()).unwrap_or(u32::MAX),
            bytes: sizes.fold(0, u64::saturating_add),
        }
    }
}

/// That a source says an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// What it says.
    pub hash: ContentHash,
    /// Which revision it calls that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// That it, being the parent site, has it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expiry>,
    /// Whether the parent site says it, whose word on the update's life counts here too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

/// What the catalogue holds of an update besides its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Its place in the order of all changes; each change gives it a new one.
    pub seq: u64,
    /// Who says it, and what. Empty once nobody does.
    pub claims: BTreeMap<SourceName, Claim>,
    /// Whose word is shown: with the hash, the body's key.
    pub source: SourceName,
    /// What is shown.
    pub hash: ContentHash,
    /// The revision of what is shown.
    pub revision: u32,
    /// When it came first.
    pub first_seen: Timestamp,
    /// When what is shown came.
    pub changed: Timestamp,
    /// That it is expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expiry>,
    /// That it is purged: there is no body, and of the card only what the graph of supersedence needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<Timestamp>,
    /// What lists show.
    pub card: Card,
}
impl Value for Head {}

impl Head {
    /// The key of the body that is shown.
    pub fn body(&self, id: UpdateId) -> BodyKey {
        body_key(id, &self.source, self.hash)
    }
}

pub(crate) fn body_key(id: UpdateId, source: &SourceName, hash: ContentHash) -> BodyKey {
    (id, (source.as_str().into(), hash.0))
}

/// A product, and which sources have it: none, where only updates that were kept are for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProductRow {
    pub product: Product,
    pub sources: BTreeSet<SourceName>,
}
impl Value for ProductRow {}

/// What is kept of a source between its syncs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceRow {
    /// What its adapter gave.
    pub state: serde_json::Value,
    /// When.
    pub at: Timestamp,
}
impl Value for SourceRow {}

/// What a sync is about to change of one update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Staged {
    /// The source says it, in these words.
    Said {
        /// Which body, and under which revision.
        claim: Claim,
        /// What lists are to show.
        card: Box<Card>,
    },
    /// The source has it no more.
    Gone,
    /// The source, which is the parent site, has only a mark of it left: since when it is expired there.
    Left(Expiry),
    /// The source has it, but the criteria leave it out.
    Outside,
}
impl Value for Staged {}

/// What a sync is about to change of one product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StagedProduct {
    /// There is such a product.
    Said(Product),
    /// The source has it no more.
    Gone,
}
impl Value for StagedProduct {}

/// A commit that was made and is being published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub source: SourceName,
    pub run: u64,
    pub at: Timestamp,
}
impl Value for Commit {}

/// A body that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {}
impl Value for Dropped {}

/// A name that no other catalogue has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage(pub String);
impl Value for Lineage {}

/// Whose word counts first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preference(pub Vec<SourceName>);
impl Value for Preference {}

/// Places in the order of changes that outlive the heads that had them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Marks {
    /// The last place that was given away.
    pub seq: u64,
    /// Where the list of products changed last.
    pub products: u64,
    /// Up to here marks of purged updates were forgotten: who has read less reads anew.
    pub forgotten: u64,
}
impl Value for Marks {}

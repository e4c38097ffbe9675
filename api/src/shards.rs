//! What clients scan by, as this site or update point hands it out.
//!
//! A site makes shards of its catalogue (`sync::shard`) when that changed, away from requests, and signs the
//! manifest with the key that its versions are signed with. An update point makes none: it brings what its site
//! signed, as clients do, and changes what it hands out once it has it whole.
//!
//! ```text
//! DATA/cache/catalogue/current.json   the signed manifest that is handed out, and what it was made of
//! DATA/cache/catalogue/blobs/         what it lists, and for a while what the one before it listed
//! ```
//!
//! It may all be deleted: it is made, or brought, again.

use crate::problem::{Kind, Problem, with_causes};
use crate::site::{Site, blocking};
use axum::body::Bytes;
use client::catalogue::{MAX_SIGNED, SignedManifest};
use dp::node::{Link, LinkError};
use futures::{StreamExt, TryStreamExt};
use packager::sign::Document;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use sync::shard::blob::{Blobs, MAX_PACKED, Name, unpack};
use sync::shard::build::{BuildError, build};
use sync::shard::manifest::{Manifest, Page, Part};
use tokio_util::sync::CancellationToken;

/// How long what a manifest listed is handed out after the next one is there: who has just read it brings it.
const GRACE: Duration = Duration::from_secs(3_600);
/// How often an update point asks what its site hands out.
const ASK: Duration = Duration::from_secs(10);
/// The same after it could not be asked, at most.
const ASK_LATER: Duration = Duration::from_secs(300);
/// How many blobs an update point brings at a time.
const AT_A_TIME: usize = 8;

/// What is handed out.
pub struct Shards {
    folder: PathBuf,
    blobs: Blobs,
    current: RwLock<Option<Arc<Current>>>,
    stop: AtomicBool,
}

/// A manifest that is handed out.
pub struct Current {
    /// What stands for it in conditional requests.
    pub tag: String,
    /// The answer to who asks for it.
    pub body: Bytes,
    kept: Kept,
}

/// The same as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    signed: SignedManifest,
    /// Of this site's own catalogue: its lineage, and its place when the manifest was made, where the shards
    /// were already those that it lists.
    made_of: Option<(String, u64)>,
}

impl Current {
    fn of(kept: Kept) -> Self {
        let body = serde_json::to_vec(&kept.signed).expect("it has text keys").into();
        Self { tag: kept.signed.tag(), body, kept }
    }
}

impl Shards {
    /// What lies in the data folder `data`, made where there is nothing.
    pub fn open(data: &Path) -> Result<Self, Problem> {
        let folder = data.join("cache/catalogue");
        let blobs = Blobs::open(&folder.join("blobs")).map_err(disk)?;
        let kept = fs::read(folder.join(CURRENT)).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let current = RwLock::new(kept.map(|kept| Arc::new(Current::of(kept))));
        Ok(Self { folder, blobs, current, stop: AtomicBool::new(false) })
    }

    /// The manifest that is handed out; none, before there is one.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.read().clone()
    }

    /// A page or shard, as it travels.
    pub fn packed(&self, name: Name) -> Result<Option<Vec<u8>>, Problem> {
        self.blobs.packed(name).map_err(disk)
    }

    /// Ends what is being made.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Makes shards of the site's catalogue, if it is another than what they were made of.
    pub fn make(&self, site: &Site) -> Result<(), Problem> {
        let machine = site.updates()?;
        let catalogue = machine.catalogue();
        let now = (catalogue.lineage().to_owned(), catalogue.seq());
        let current = self.current();
        let made_of = current.as_ref().and_then(|current| current.kept.made_of.clone());
        if now.1 == 0 || made_of.as_ref() == Some(&now) {
            return Ok(());
        }
        let began = std::time::Instant::now();
        let manifest = match build(catalogue, &self.blobs, &|| self.stop.load(Relaxed)) {
            Err(BuildError::Interrupted) => return Ok(()),
            made => made.map_err(|error| Problem::new(Kind::Internal, with_causes(&error)))?,
        };
        let before = current.map(|current| current.kept.signed.clone());
        let is_same = before.as_ref().is_some_and(|before| {
            Manifest::parse(&before.catalogue).is_ok_and(|before| {
                before.catalogue == manifest.catalogue && before.pages == manifest.pages
            })
        });
        // Read before it was made, so that what came meanwhile has it made again.
        let signed = match before.filter(|_| is_same) {
            Some(signed) => signed,
            None => {
                let text = manifest.text();
                let packages = site.content()?.packages;
                let signature = packages.sign_document(Document::Catalogue, text.as_bytes())?;
                SignedManifest { catalogue: text, signature }
            }
        };
        self.hand_out(Kept { signed, made_of: Some(now) }, &manifest)?;
        tracing::info!(
            updates = manifest.updates,
            pages = manifest.pages.len(),
            left_out = manifest.left_out,
            took = ?began.elapsed(),
            is_same,
            "the catalogue for clients is made"
        );
        Ok(())
    }

    /// Hands this out from now on, whose blobs are there.
    fn hand_out(&self, kept: Kept, manifest: &Manifest) -> Result<(), Problem> {
        let mut wanted: HashSet<Name> = manifest.pages.iter().map(|it| it.part.blob).collect();
        for listed in &manifest.pages {
            let page = self.page(listed.part)?;
            wanted.extend(page.shards.iter().map(|shard| shard.part.blob));
        }
        let write = || {
            let mut part = tempfile::NamedTempFile::new_in(&self.folder)?;
            part.write_all(&serde_json::to_vec(&kept)?)?;
            part.persist(self.folder.join(CURRENT))?;
            Ok(())
        };
        write().map_err(disk)?;
        *self.current.write() = Some(Arc::new(Current::of(kept)));
        self.blobs.sweep(|name| wanted.contains(&name), GRACE).map_err(disk)?;
        Ok(())
    }

    fn page(&self, part: Part) -> Result<Page, Problem> {
        let plain = self.blobs.plain(part.blob, part.bytes).map_err(disk)?;
        let missing = || Problem::new(Kind::Unavailable, "a page of the catalogue is damaged");
        Page::parse(&plain.ok_or_else(missing)?)
            .map_err(|error| Problem::new(Kind::Upstream, with_causes(&error)))
    }

    /// Brings what the site of this update point hands out.
    async fn bring(self: &Arc<Self>, link: &Link) -> Result<(), Problem> {
        let tag = self.current().map(|current| current.tag.clone()).unwrap_or_default();
        let path = format!("api/v1/catalogue?after={tag}");
        let Some(bytes) = link.get(&path, MAX_SIGNED).await.map_err(of_link)? else {
            return Ok(());
        };
        let wrong =
            |error: &dyn std::error::Error| Problem::new(Kind::Upstream, with_causes(error));
        let signed = SignedManifest::parse(&bytes).map_err(|error| wrong(&error))?;
        // Whether it is the site's, clients see.
        let manifest = Manifest::parse(&signed.catalogue).map_err(|error| wrong(&error))?;
        let pages: Vec<Part> = manifest.pages.iter().map(|listed| listed.part).collect();
        self.bring_blobs(link, &pages).await?;
        let reading = self.clone();
        let shards = blocking(move || {
            let pages = pages.into_iter().map(|part| reading.page(part));
            let shards = pages.map(|page| Ok(page?.shards.into_iter().map(|shard| shard.part)));
            let shards: Result<Vec<_>, Problem> = shards.collect();
            Ok(shards?.into_iter().flatten().collect::<Vec<Part>>())
        });
        self.bring_blobs(link, &shards.await?).await?;
        let handing = self.clone();
        blocking(move || handing.hand_out(Kept { signed, made_of: None }, &manifest)).await
    }

    async fn bring_blobs(self: &Arc<Self>, link: &Link, parts: &[Part]) -> Result<(), Problem> {
        let missing = parts.iter().copied().filter(|part| !self.blobs.has(part.blob));
        let missing: Vec<Part> = missing.collect();
        let bring = futures::stream::iter(missing).map(|part| async move {
            let path = format!("api/v1/catalogue/shards/{}", part.blob);
            let packed = link.get(&path, MAX_PACKED).await.map_err(of_link)?.unwrap_or_default();
            let of = self.clone();
            blocking(move || {
                unpack(&packed, part.blob, part.bytes)
                    .map_err(|error| Problem::new(Kind::Upstream, with_causes(&error)))?;
                of.blobs.put(part.blob, &packed).map_err(disk)
            })
            .await
        });
        bring.buffer_unordered(AT_A_TIME).try_collect::<Vec<()>>().await.map(drop)
    }
}

const CURRENT: &str = "current.json";

/// Keeps what an update point hands out like what its site does, until `stop`.
pub async fn follow(site: Site, stop: CancellationToken) {
    let mut pause = ASK;
    loop {
        match bring(&site).await {
            Ok(()) => pause = ASK,
            Err(problem) => {
                if pause == ASK {
                    tracing::warn!(%problem, "the catalogue for clients cannot be brought yet");
                }
                pause = (pause * 2).min(ASK_LATER);
            }
        }
        let wait = pause.mul_f64(rand::random_range(0.75..1.25));
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

async fn bring(site: &Site) -> Result<(), Problem> {
    let of = site.clone();
    let (shards, parent) = blocking(move || Ok((of.shards()?, of.parent()?))).await?;
    let Some(parent) = parent else { return Ok(()) };
    let link = parent.feed().map_err(of_link)?;
    shards.bring(&link).await
}

fn of_link(error: LinkError) -> Problem {
    Problem::new(Kind::Upstream, with_causes(&error))
}

fn disk(error: std::io::Error) -> Problem {
    let detail = format!("the folder of the catalogue for clients cannot be used: {error}");
    Problem::new(Kind::Internal, detail)
}

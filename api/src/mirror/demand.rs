//! Files on demand of a mirror: one that a client asks for first is brought from the source's upstream.
//!
//! The version's signed list says which bytes they are, so it does not matter how old the version is: as long
//! as the upstream has the file, it comes. It is checked on its way, and again by the library.

use super::bring::{self, PAUSES};
use crate::problem::{Problem, with_causes};
use crate::site::{Site, blocking};
use ::sync::adapter::Watch;
use ::sync::digests::{Algorithm, Digests, to_hex};
use ::sync::error::{Cause, SyncError};
use ::sync::fetch::Fetcher;
use ::sync::mirror::address_of;
use contentlib::{AddError, AddOptions, Aliases, Library, Name, Progress};
use dp::{Bring, Demand, NotBrought};
use std::path::{Path, PathBuf};
use url::Url;

/// What brings files on demand to this site.
pub(crate) fn bring(site: &Site) -> Bring {
    let site = site.clone();
    std::sync::Arc::new(move |demand| {
        let site = site.clone();
        Box::pin(async move { one(&site, demand).await })
    })
}

/// What it takes to bring one.
struct Way {
    url: Url,
    fetcher: Fetcher,
    library: Library,
    folder: PathBuf,
}

async fn one(site: &Site, demand: Demand) -> Result<(), NotBrought> {
    let (way, demand) = {
        let site = site.clone();
        blocking(move || Ok(way(&site, &demand).map(|way| (way, demand))))
            .await
            .map_err(|problem| NotBrought::Away(problem.detail))??
    };
    let hex = to_hex(&demand.sha256);
    let to = way.folder.join(format!("sha256-{hex}"));
    let digests = Digests::of(Algorithm::Sha256, &hex)
        .map_err(|error| NotBrought::Away(with_causes(&error)))?;
    let wanted = bring::Content { size: demand.size, digests: &digests, to: &to };
    let watch = Watch::default();
    // Somebody waits: what an upstream that is away costs is told at once, and the next request tries again.
    let pauses = PAUSES.into_iter().take(1);
    bring::fetch(&way.fetcher, &watch, std::slice::from_ref(&way.url), &wanted, pauses)
        .await
        .map_err(|error| not_brought(&error))?;
    let name = Name::Sha256(demand.sha256);
    let added = {
        let to = to.clone();
        blocking(move || Ok(add(&way.library, &to, name)))
            .await
            .map_err(|problem| NotBrought::Away(problem.detail))?
    };
    let _ = tokio::fs::remove_file(&to).await;
    added
}

/// Where a file is. It blocks.
fn way(site: &Site, demand: &Demand) -> Result<Way, NotBrought> {
    let away = |problem: Problem| NotBrought::Away(problem.detail);
    let name = &demand.package;
    let ledger = site.ledger().map_err(away)?;
    let mirror = super::of(&ledger.db, name).map_err(away)?.ok_or_else(|| {
        NotBrought::Nowhere(format!("{name} is no mirror, and so nothing of it comes on demand"))
    })?;
    let machine = site.updates().map_err(away)?;
    let source = machine.sources().get(&mirror.source_name().map_err(away)?);
    let source = source.map_err(|error| {
        NotBrought::Upstream(format!(
            "its upstream is not known any more: {}; add that source again",
            with_causes(&error)
        ))
    })?;
    let path = std::str::from_utf8(&demand.path)
        .map_err(|_| NotBrought::Nowhere("its path is no text".into()))?;
    let url = address_of(&source.kind, path, demand.from.as_deref());
    let url = url.map_err(|error| NotBrought::Upstream(with_causes(&error)))?;
    let folder = site.folder().join("cache/on-demand");
    std::fs::create_dir_all(&folder).map_err(|error| away(Problem::internal(&error)))?;
    let library = site.content().map_err(away)?.library;
    Ok(Way { url, fetcher: machine.fetcher().clone(), library, folder })
}

fn add(library: &Library, path: &Path, name: Name) -> Result<(), NotBrought> {
    let away = |error: &dyn std::error::Error| {
        NotBrought::Away(format!("it came and cannot be stored: {}", with_causes(error)))
    };
    let file = std::fs::File::open(path).map_err(|error| away(&error))?;
    let session = library.session();
    let aliases = Aliases { sha256: true, sha1: false };
    let options = AddOptions { aliases, expect: Some(name) };
    match session.add_reader(file, &options, &Progress::default()) {
        Ok(_) => session.commit(Vec::new()).map_err(|error| away(&error)),
        Err(error @ AddError::Revoked(_)) => Err(NotBrought::Revoked(error.to_string())),
        Err(error) => Err(away(&error)),
    }
}

fn not_brought(error: &SyncError) -> NotBrought {
    let detail = with_causes(error);
    match error.cause {
        Cause::Mismatch | Cause::NotFound => NotBrought::Upstream(format!(
            "the upstream has this file no more as the version lists it: {detail}; a newer version of the \
             package may be there, or is made by `depot sync run` and `depot package update`"
        )),
        Cause::Refused => NotBrought::Upstream(detail),
        _ => NotBrought::Away(format!("its upstream cannot give it now: {detail}")),
    }
}

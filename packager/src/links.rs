//! What a version keeps alive: for garbage collection, and to say why a content is there.
//!
//! That is what its manifest names, and of its files on demand those that have come.

use crate::error::PackageError;
use crate::packages::{read_manifest, read_on_demand};
use crate::path::Shown;
use crate::refs;
use contentlib::{Library, Link, Links, ReadError, Ref};

/// A version whose manifest is damaged or lost, so that nobody can tell what it has.
#[derive(Debug, thiserror::Error)]
#[error(
    "the manifest of {version} is damaged: `depot library repair --from URL` brings it back from \
     another server, and `depot package delete {version}` gives the version up"
)]
pub struct UnreadableVersion {
    /// As `docs@1`.
    version: String,
    source: PackageError,
}

/// Tells the content library which contents a version's manifest names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManifestLinks;

impl Links for ManifestLinks {
    fn links(
        &self,
        name: &str,
        to: &Ref,
        library: &Library,
    ) -> Result<Vec<Link>, Box<dyn std::error::Error + Send + Sync>> {
        let Some(root) = to.root.filter(|_| name.starts_with(refs::VERSIONS)) else {
            return Ok(Vec::new());
        };
        let manifest = read_manifest(library, root).map_err(|error| unreadable(name, error))?;
        let files = manifest.entries().filter_map(|entry| Some((entry.path, entry.file()?)));
        let link = |(path, file): (&[u8], crate::manifest::FileEntry)| Link {
            digest: file.digest,
            label: Shown(path).to_string(),
        };
        let mut links: Vec<Link> = files.map(link).collect();
        let list = match read_on_demand(library, root, &manifest) {
            Ok(Some(list)) => list,
            Ok(None) => return Ok(links),
            // A list that is lost keeps nothing: what came by it can come again.
            Err(error) if is_lost(&error) => return Ok(links),
            Err(error) => return Err(error.into()),
        };
        for waiting in list.files() {
            if let Some(digest) = library.resolve(&waiting.name())? {
                links.push(Link { digest, label: Shown(waiting.path).to_string() });
            }
        }
        Ok(links)
    }
}

/// Why a version's links cannot be told; with what to do, if trying again does not help.
fn unreadable(name: &str, source: PackageError) -> Box<dyn std::error::Error + Send + Sync> {
    match is_lost(&source) {
        true => UnreadableVersion { version: refs::shown(name), source }.into(),
        false => source.into(),
    }
}

/// Whether what cannot be read stays so until somebody brings it again.
fn is_lost(error: &PackageError) -> bool {
    use ReadError::{MissingChunk, Revoked, Suspect, Unknown};
    matches!(
        error,
        PackageError::Manifest { .. }
            | PackageError::OnDemand { .. }
            | PackageError::Read(MissingChunk { .. } | Revoked(_) | Suspect { .. } | Unknown(_))
    )
}

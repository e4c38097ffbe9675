//! What a version keeps alive: for garbage collection, and to say why a content is there.

use crate::error::PackageError;
use crate::packages::read_manifest;
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
        Ok(files.map(link).collect())
    }
}

/// Why a version's links cannot be told; with what to do, if trying again does not help.
fn unreadable(name: &str, source: PackageError) -> Box<dyn std::error::Error + Send + Sync> {
    use ReadError::{MissingChunk, Revoked, Suspect, Unknown};
    let is_lost = matches!(
        source,
        PackageError::Manifest { .. }
            | PackageError::Read(MissingChunk { .. } | Revoked(_) | Suspect { .. } | Unknown(_))
    );
    match is_lost {
        true => UnreadableVersion { version: refs::shown(name), source }.into(),
        false => source.into(),
    }
}

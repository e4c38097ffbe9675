//! What a version keeps alive: for garbage collection, and to say why a content is there.

use crate::packages::read_manifest;
use crate::path::Shown;
use crate::refs;
use contentlib::{Library, Link, Links, Ref};

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
        let manifest = read_manifest(library, root)?;
        let files = manifest.entries().filter_map(|entry| Some((entry.path, entry.file()?)));
        let link = |(path, file): (&[u8], crate::manifest::FileEntry)| Link {
            digest: file.digest,
            label: Shown(path).to_string(),
        };
        Ok(files.map(link).collect())
    }
}

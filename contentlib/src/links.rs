//! Links: what a root names beside itself.
//!
//! The library knows contents, not manifests. Whoever sets refs tells it here which contents a
//! root's content names, so that garbage collection keeps them and `why` can say who holds what.

use crate::digest::Digest;
use crate::library::Library;
use crate::refs::Ref;
use std::collections::BTreeMap;

/// A content that a root names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The content.
    pub digest: Digest,
    /// Where in the root it is named, such as a path; for people.
    pub label: String,
}

/// Tells what roots name. An error stops garbage collection: what is unknown may be live.
pub trait Links: Send + Sync {
    /// The contents that the root of ref `name` names, beside the root itself.
    fn links(
        &self,
        name: &str,
        to: &Ref,
        library: &Library,
    ) -> Result<Vec<Link>, Box<dyn std::error::Error + Send + Sync>>;
}

/// No root names anything but itself.
pub struct NoLinks;

impl Links for NoLinks {
    fn links(
        &self,
        _: &str,
        _: &Ref,
        _: &Library,
    ) -> Result<Vec<Link>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Vec::new())
    }
}

impl From<(Digest, String)> for Link {
    fn from((digest, label): (Digest, String)) -> Self {
        Self { digest, label }
    }
}

/// Who holds a content, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Why {
    /// What was asked for.
    pub digest: Digest,
    /// Whether it is held at all.
    pub held: bool,
    /// The state of its copy: live, condemned or suspect.
    pub state: &'static str,
    /// Refs that hold it, each with where in the ref's root it is named.
    pub holders: Vec<Holder>,
    /// Contents that it is a chunk of, if it is one.
    pub chunk_of: Vec<Digest>,
}

/// A ref that holds a content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Holder {
    /// The ref's name.
    pub name: String,
    /// Where its root names the content.
    pub label: String,
}

/// The refs that hold any of `contents`.
pub(crate) fn holders(
    library: &Library,
    contents: &[Digest],
    links: &dyn Links,
) -> Result<BTreeMap<Digest, Vec<Holder>>, crate::error::MaintainError> {
    let mut found: BTreeMap<Digest, Vec<Holder>> = BTreeMap::new();
    let wanted: std::collections::HashSet<Digest> = contents.iter().copied().collect();
    for (name, to) in library.list_refs("")? {
        let mut note = |digest: Digest, label: String| {
            if wanted.contains(&digest) {
                found.entry(digest).or_default().push(Holder { name: name.clone(), label });
            }
        };
        if let Some(root) = to.root {
            note(root, "the root itself".into());
            // A root that is damaged cannot tell; the others still can.
            for link in links.links(&name, &to, library).unwrap_or_default() {
                note(link.digest, link.label);
            }
        }
    }
    Ok(found)
}

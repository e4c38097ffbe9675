//! Prestaged content in a point's folder: what is held, written down; a bundle, taken in.
//!
//! In a folder that no process has open this is done on the library itself ([`open_copies`]); a
//! running point does it for whoever asks at its `control` socket. There the wish is known: what is
//! not wished does not become visible, and what is, the work takes for held at once.

use super::{Node, NodeError, home};
use crate::field::Wish;
use contentlib::{Library, Progress};
use packager::prestage::{Imported, Inventoried, PrestageError, Standing};
use packager::sign::VersionInfo;
use packager::{Clock, PackageError, Packages};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;

/// The packages in the folder of a point, whose process does not run; an error if it does.
pub fn open_copies(
    folder: &Path,
    library: contentlib::Options,
    clock: Clock,
) -> Result<Packages, NodeError> {
    let (key, of_library, cache) = home::copies_in(folder)?;
    let library = Library::open(&of_library, library)?;
    Ok(Packages::open_replica(library, key, cache, clock)?)
}

/// Whether `folder` is one of a point that has joined.
pub fn is_point(folder: &Path) -> bool {
    home::point_file(folder).exists()
}

/// Whether the site wishes a version here.
fn standing(wish: Option<&Wish>, info: &VersionInfo) -> Standing {
    let Some(wish) = wish else { return Standing::Unknown };
    let is_it = |wished: &VersionInfo| {
        (&wished.package, wished.version, wished.manifest)
            == (&info.package, info.version, info.manifest)
    };
    match wish.versions.iter().any(|wanted| is_it(&wanted.version)) {
        true => Standing::Wished,
        false => Standing::Unwished,
    }
}

impl Node {
    /// Writes what the library holds.
    pub(super) fn write_inventory(
        &self,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Inventoried, PrestageError> {
        self.packages.write_inventory(out, progress)
    }

    /// Takes a bundle in, of `size` bytes if that is known; the work then finds what is whole and makes it answer to its names.
    pub(super) fn import(
        &self,
        from: &mut dyn Read,
        size: Option<u64>,
        progress: &Progress,
    ) -> Result<Imported, PrestageError> {
        // Asked for each version when it has come: the wish may change meanwhile.
        let standing = |info: &VersionInfo| {
            let wish = self.wish.borrow().clone();
            standing(wish.as_deref(), info)
        };
        let imported = self.packages.import(from, size, &standing, progress);
        // As if it had changed: whoever waits for that plans anew.
        self.wish.send_modify(|_| {});
        self.news.notify_one();
        imported
    }
}

/// Ends the keeping of what was prestaged and is now held as it is wished.
pub(super) fn settle(packages: &Packages, wish: &Wish) -> Result<(), PackageError> {
    let prestaged = packages.prestaged();
    if prestaged.is_empty() {
        return Ok(());
    }
    let held: HashSet<_> =
        packages.held()?.into_iter().map(|info| (info.package, info.version)).collect();
    let wished: HashSet<_> =
        wish.versions.iter().map(|w| (&w.version.package, w.version.version)).collect();
    for (package, version) in prestaged {
        let key = (package, version);
        if held.contains(&key) && wished.contains(&(&key.0, key.1)) {
            packages.settle_prestaged(&key.0, key.1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Priority::Medium;
    use crate::node::plan::tests::{version, wish};

    #[test]
    fn a_version_is_wished_by_its_manifest_and_not_by_its_number_alone() {
        let wish = wish(&[("a", 2, Medium)]);
        let other = VersionInfo { manifest: contentlib::Digest::of(b"x"), ..version("a", 2) };
        let found = [version("a", 2), version("a", 3), other].map(|it| standing(Some(&wish), &it));
        assert_eq!(found, [Standing::Wished, Standing::Unwished, Standing::Unwished]);
        assert_eq!(standing(None, &version("a", 2)), Standing::Unknown);
    }
}

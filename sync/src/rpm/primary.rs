//! `primary.xml`: the packages of a repository, read one at a time.
//!
//! Of a package only that is kept which updates and mirrors need; its dependencies stay where they are.

use super::evr::Evr;
use super::repomd::{checksum, located, seconds};
use super::xml::{Cursor, Elements, XmlError};
use crate::adapter::Skipped;
use crate::digests::Digests;
use crate::error::{Cause, SyncError};
use std::fmt::Display;
use std::io::BufRead;

/// The root of the document, and of the elements in it.
pub const ROOT: (&str, &str) = ("metadata", "package");
/// Packages one repository may have; the largest real ones have about a hundred thousand.
pub const MAX_PACKAGES: u64 = 500_000;
/// The longest text of a package that is kept, in bytes.
const MAX_TEXT: usize = 1_024;

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub evr: Evr,
    /// Its architecture: `x86_64`, `noarch`, `src`, ….
    pub arch: String,
    /// What is stated of its bytes.
    pub digests: Digests,
    /// Its checksum as text, by which the other files name it.
    pub pkgid: String,
    /// Bytes of its file.
    pub size: u64,
    /// Where it is: relative to the base, or absolute.
    pub href: String,
    /// One line about it.
    pub summary: String,
    /// When it was built, in seconds since 1970.
    pub built: i64,
    /// Who made it.
    pub vendor: String,
    /// The source package it was built of, as `openssl-3.0.7-1.el9.src.rpm`.
    pub source: String,
    /// Whether it says itself that it is installed beside its older versions, as kernels are.
    pub is_install_only: bool,
}

impl Package {
    /// Whether it is a source package.
    pub fn is_source(&self) -> bool {
        is_source(&self.arch)
    }
}

/// Whether packages of that architecture are sources.
pub fn is_source(arch: &str) -> bool {
    matches!(arch, "src" | "nosrc")
}

/// What people call one build of a package: `bash-5.1.8-6.el9.x86_64`.
pub(super) fn full_name(name: &str, evr: &impl Display, arch: &str) -> String {
    format!("{name}-{evr}.{arch}")
}

/// Gives `take` each package of a document, with the bytes it is written in. One that cannot be
/// understood is counted.
pub fn read(
    document: impl BufRead,
    skipped: &mut Skipped,
    mut take: impl FnMut(Package, &[u8]) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let mut elements = Elements::new(document, ROOT.0, ROOT.1);
    let mut count = 0;
    while let Some(element) = elements.element().map_err(|error| error.told("primary.xml"))? {
        count += 1;
        if count > MAX_PACKAGES {
            let detail = format!("primary.xml has more than {MAX_PACKAGES} packages");
            return Err(SyncError::new(Cause::TooLarge, detail));
        }
        match package(&String::from_utf8_lossy(element)) {
            Ok(package) => take(package, element)?,
            Err(why) => skipped.add(format_args!("package {count}: {why}")),
        }
    }
    Ok(())
}

/// Why an entry was passed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error(transparent)]
    Evr(#[from] super::evr::NotAnEvr),
    #[error("it has no {0}")]
    Lacks(&'static str),
    #[error("it has {0}")]
    Has(&'static str),
}

/// Reads a `package` element.
pub(super) fn package(element: &str) -> Result<Package, Unfit> {
    let mut cursor = Cursor::new(element);
    cursor.child()?;
    let mut package = Package {
        name: String::new(),
        evr: Evr::default(),
        arch: String::new(),
        digests: Digests::default(),
        pkgid: String::new(),
        size: 0,
        href: String::new(),
        summary: String::new(),
        built: 0,
        vendor: String::new(),
        source: String::new(),
        is_install_only: false,
    };
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "name" => package.name = trimmed(&mut cursor)?,
            "arch" => package.arch = trimmed(&mut cursor)?,
            "summary" => package.summary = trimmed(&mut cursor)?,
            "version" => {
                package.evr = Evr::new(&tag.text("epoch")?, &tag.text("ver")?, &tag.text("rel")?)?;
                cursor.skip()?;
            }
            "checksum" => {
                package.pkgid = trimmed(&mut cursor)?;
                package.digests = checksum(&tag.text("type")?, &package.pkgid);
            }
            "time" => {
                package.built = seconds(&tag.text("build")?);
                cursor.skip()?;
            }
            "size" => {
                let size = tag.text("package")?;
                package.size = size.parse().map_err(|_| Unfit::Lacks("size"))?;
                cursor.skip()?;
            }
            "location" => {
                package.href = located(&tag)?;
                cursor.skip()?;
            }
            "format" => {
                while let Some(tag) = cursor.child()? {
                    match tag.name() {
                        "vendor" => package.vendor = trimmed(&mut cursor)?,
                        "sourcerpm" => package.source = trimmed(&mut cursor)?,
                        "provides" => package.is_install_only = provides_kernel(&mut cursor)?,
                        _ => cursor.skip()?,
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    for text in [
        &package.name,
        &package.arch,
        &package.pkgid,
        &package.href,
        &package.summary,
        &package.vendor,
        &package.source,
    ] {
        if text.len() > MAX_TEXT {
            return Err(Unfit::Has("a text that is too long"));
        }
    }
    for (what, is_lacking) in [
        ("name", package.name.is_empty()),
        ("arch", package.arch.is_empty()),
        ("version", package.evr.version.is_empty()),
        ("location", package.href.is_empty()),
        ("checksum that proves anything", package.digests.strongest().is_none()),
    ] {
        if is_lacking {
            return Err(Unfit::Lacks(what));
        }
    }
    Ok(package)
}

/// Whether it provides what dnf knows those packages by that are installed, never upgraded: its own
/// default of `installonlypkgs` (dnf.conf(5)).
fn provides_kernel(cursor: &mut Cursor<'_>) -> Result<bool, XmlError> {
    let mut does = false;
    while let Some(tag) = cursor.child()? {
        let name = tag.text("name")?;
        does |= name.starts_with("installonlypkg(") || name == "multiversion(kernel)";
        cursor.skip()?;
    }
    Ok(does)
}

fn trimmed(cursor: &mut Cursor<'_>) -> Result<String, XmlError> {
    let text = cursor.text()?;
    Ok(text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Packing;

    fn all(document: &[u8]) -> (Vec<Package>, Skipped) {
        let (mut found, mut skipped) = (Vec::new(), Skipped::default());
        read(document, &mut skipped, |package, _| {
            found.push(package);
            Ok(())
        })
        .unwrap();
        (found, skipped)
    }

    fn sample() -> Vec<u8> {
        let packed = include_bytes!(
            "../../tests/data/rpm/createrepo_c-repo_02/repodata/\
             bcde64b04916a2a72fdc257d61bc922c70b3d58e953499180585f7a360ce86cf-primary.xml.gz"
        );
        let mut plain = Vec::new();
        let mut from = Packing::Gzip.read(&packed[..], 1 << 20).unwrap();
        std::io::Read::read_to_end(&mut from, &mut plain).unwrap();
        plain
    }

    #[test]
    fn packages_are_read_with_what_updates_need() {
        let (found, skipped) = all(&sample());
        assert_eq!(skipped.count, 0);
        assert_eq!(found.len(), 2);
        let kernel = &found[1];
        assert_eq!(kernel.name, "super_kernel");
        assert_eq!(kernel.evr.to_string(), "6.0.1-2");
        assert_eq!((kernel.arch.as_str(), kernel.size), ("x86_64", 2845));
        assert_eq!(kernel.href, "super_kernel-6.0.1-2.x86_64.rpm");
        assert_eq!(kernel.source, "super_kernel-6.0.1-2.src.rpm");
        assert_eq!(kernel.digests.strongest().unwrap().1, kernel.pkgid);
        assert!(!kernel.is_install_only);
    }

    #[test]
    fn an_entry_that_lacks_what_it_must_have_is_counted() {
        let plain = String::from_utf8(sample()).unwrap();
        let (found, skipped) = all(plain.replacen("<name>fake_bash</name>", "", 1).as_bytes());
        assert_eq!((found.len(), skipped.count), (1, 1));
        assert!(skipped.examples[0].contains("no name"), "{:?}", skipped.examples);
        let (found, skipped) = all(plain
            .replace("ver=\"6.0.1\" rel=\"2\"/>\n  <ch", "ver=\"6 1\"/>\n  <ch")
            .as_bytes());
        assert_eq!((found.len(), skipped.count), (1, 1));
    }

    #[test]
    fn a_document_that_is_cut_off_is_an_error() {
        let plain = sample();
        let mut skipped = Skipped::default();
        let cut = &plain[..plain.len() - 20];
        assert!(read(cut, &mut skipped, |_, _| Ok(())).is_err());
    }
}

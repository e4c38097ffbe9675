//! One binary package of a `Packages` index.

use super::deb822::Stanza;
use crate::digests::{Algorithm, Digests, NotADigest};
use crate::mirror::RepoPath;

const DIGESTS: [(&str, Algorithm); 4] = [
    ("MD5sum", Algorithm::Md5),
    ("SHA1", Algorithm::Sha1),
    ("SHA256", Algorithm::Sha256),
    ("SHA512", Algorithm::Sha512),
];

/// What a stanza says of a package. It borrows from the stanza.
#[derive(Clone, Copy)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its architecture; `all` where it is for any.
    pub arch: &'a str,
    /// The source package it was built from.
    pub source: &'a str,
    /// The version of that; differs after a rebuild.
    pub source_version: &'a str,
    /// The path of its file, from the root of the archive.
    pub filename: &'a str,
    /// The bytes of its file.
    pub size: u64,
    /// `libs`, `contrib/net`; empty where it is not told.
    pub section: &'a str,
    /// A line about it.
    pub synopsis: &'a str,
    stanza: Stanza<'a>,
}

/// A stanza that is no package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPackage {
    /// A field that every package has.
    #[error("{name} has no {field}")]
    Missing {
        /// The package; may be empty.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// A field with a value that cannot be.
    #[error("{name} has a wrong {field}: {value:?}")]
    Wrong {
        /// The package.
        name: String,
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// No digest that proves anything.
    #[error("{0} has no digest that proves which file it is")]
    NoProof(String),
}

impl<'a> Package<'a> {
    /// Reads a stanza.
    pub fn of(stanza: Stanza<'a>) -> Result<Self, NotAPackage> {
        let name = stanza.get("Package").unwrap_or_default();
        let told = || name.chars().take(100).collect::<String>();
        let field = |field: &'static str| match stanza.get(field) {
            None | Some("") => Err(NotAPackage::Missing { name: told(), field }),
            Some(value) => Ok(value),
        };
        let wrong = |field: &'static str, value: &str| {
            Err(NotAPackage::Wrong {
                name: told(),
                field,
                value: value.chars().take(100).collect(),
            })
        };
        let is_word = |text: &str| {
            text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        };
        let (version, arch) = (field("Version")?, field("Architecture")?);
        for (key, value) in
            [("Package", field("Package")?), ("Version", version), ("Architecture", arch)]
        {
            if !is_word(value) {
                return wrong(key, value);
            }
        }
        let filename = field("Filename")?;
        // Flat archives write `./x.deb`.
        let filename = filename.strip_prefix("./").unwrap_or(filename);
        if filename.parse::<RepoPath>().is_err() {
            return wrong("Filename", filename);
        }
        let size = field("Size")?;
        let Ok(size) = size.parse() else { return wrong("Size", size) };
        let (source, source_version) = match stanza.get("Source") {
            None | Some("") => (name, version),
            Some(text) => match text.split_once('(') {
                None => (text, version),
                Some((source, rest)) => {
                    (source.trim(), rest.trim_end().trim_end_matches(')').trim())
                }
            },
        };
        if !is_word(source) || !is_word(source_version) || source.is_empty() {
            return wrong("Source", source);
        }
        Ok(Self {
            name,
            version,
            arch,
            source,
            source_version,
            filename,
            size,
            section: stanza.get("Section").unwrap_or_default(),
            synopsis: stanza
                .get("Description")
                .and_then(|it| it.lines().next())
                .unwrap_or_default(),
            stanza,
        })
    }

    /// What is stated of its file, as it stands.
    pub fn stated(&self) -> impl Iterator<Item = (Algorithm, &'a str)> + use<'a> {
        let stanza = self.stanza;
        DIGESTS.iter().filter_map(move |(key, algorithm)| Some((*algorithm, stanza.get(key)?)))
    }

    /// The digests of its file.
    pub fn digests(&self) -> Result<Digests, NotAPackage> {
        digests(self.name, self.stated())
    }

    /// A field, if it is there.
    pub fn field(&self, key: &str) -> Option<&'a str> {
        self.stanza.get(key)
    }

    /// The stanza, as it stands.
    pub fn text(&self) -> &'a str {
        self.stanza.text()
    }
}

/// The digests that `stated` are, if one of them proves something.
pub fn digests<'a>(
    name: &str,
    stated: impl Iterator<Item = (Algorithm, &'a str)>,
) -> Result<Digests, NotAPackage> {
    let mut digests = Digests::default();
    for (algorithm, hex) in stated {
        digests = digests.with(algorithm, hex).map_err(|error: NotADigest| NotAPackage::Wrong {
            name: name.into(),
            field: algorithm.as_str(),
            value: error.to_string(),
        })?;
    }
    match digests.strongest() {
        Some(_) => Ok(digests),
        None => Err(NotAPackage::NoProof(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::deb822::Stanzas;
    use super::*;
    use crate::unpack::Packing;

    const INDEX: &[u8] = include_bytes!("../../tests/data/apt/Packages.xz");

    #[test]
    fn every_package_of_a_genuine_index_is_read() {
        let plain = Packing::Xz.read(INDEX, 64 << 20).unwrap();
        let mut stanzas = Stanzas::new(plain);
        let (mut count, mut rebuilt) = (0, 0);
        while let Some(stanza) = stanzas.next_stanza().unwrap() {
            let stanza = stanza.unwrap();
            let package = Package::of(stanza).unwrap();
            assert!(package.digests().unwrap().get(Algorithm::Sha256).is_some());
            assert!(package.filename.starts_with("pool/"));
            count += 1;
            rebuilt += usize::from(package.version != package.source_version);
        }
        assert!(count > 1_000 && rebuilt > 0, "{count} {rebuilt}");
    }

    #[test]
    fn what_cannot_be_a_package_is_named() {
        let good = format!(
            "Package: a\nSource: b (1:2-3)\nVersion: 2-3+b1\nArchitecture: amd64\nFilename: \
             ./a.deb\nSize: 5\nSHA256: {}\n",
            "0".repeat(64)
        );
        let mut stanzas = Stanzas::new(good.as_bytes());
        let package = Package::of(stanzas.next_stanza().unwrap().unwrap().unwrap()).unwrap();
        assert_eq!((package.source, package.source_version), ("b", "1:2-3"));
        assert_eq!(package.filename, "a.deb");
        for (from, to) in [
            ("Filename: ./a.deb", "Filename: ../../etc/passwd"),
            ("Size: 5", "Size: much"),
            ("Package: a", "Package: a b"),
            ("Package: a", "X: a"),
            ("Version: 2-3+b1", "Version:"),
            ("SHA256: 0", "SHA256: x"),
            ("SHA256", "X"),
        ] {
            let text = good.replace(from, to);
            let mut stanzas = Stanzas::new(text.as_bytes());
            let stanza = stanzas.next_stanza().unwrap().unwrap().unwrap();
            let read = Package::of(stanza).and_then(|package| package.digests());
            assert!(read.is_err(), "{to}");
        }
    }
}

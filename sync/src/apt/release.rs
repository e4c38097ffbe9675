//! `Release`: what a suite is, and size and digests of each of its indexes.

use super::deb822::{self, Broken, Stanza};
use crate::digests::{Algorithm, Digests};
use crate::mirror::RepoPath;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use std::collections::{BTreeMap, BTreeSet};

/// How many files a Release may list; Debian's main archive lists 3,000.
pub const MAX_FILES: usize = 100_000;

/// The fields that hold lists of digests, the weakest first.
const LISTS: [(&str, Algorithm); 4] = [
    ("MD5Sum", Algorithm::Md5),
    ("SHA1", Algorithm::Sha1),
    ("SHA256", Algorithm::Sha256),
    ("SHA512", Algorithm::Sha512),
];

/// A Release that was read. Fields that are missing are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Who made it: `Debian`.
    pub origin: String,
    /// What it is: `Debian-Security`.
    pub label: String,
    /// `stable`, `oldstable-security`.
    pub suite: String,
    /// `bookworm-security`.
    pub codename: String,
    /// `12`, `12.15`.
    pub version: String,
    /// A line about it.
    pub description: String,
    /// `yes` where machines are not to install from it by themselves, as of backports.
    pub not_automatic: String,
    /// `yes` where they are to keep up to date what they have from it.
    pub but_automatic_upgrades: String,
    /// When it was made.
    pub date: Option<Timestamp>,
    /// After this it is no longer to be trusted.
    pub valid_until: Option<Timestamp>,
    /// Whether each index lies under its own digest too.
    pub by_hash: bool,
    /// Architectures.
    pub architectures: Vec<String>,
    /// Components, without what Debian's security suites have in front of them.
    pub components: Vec<String>,
    /// Whether packages for all architectures have an index of their own that is to be read.
    pub has_index_for_all: bool,
    /// The algorithms that it has lists of.
    pub algorithms: BTreeSet<Algorithm>,
    /// The files, by path from the folder of the suite.
    pub files: BTreeMap<RepoPath, Listed>,
}

/// What a Release says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its bytes.
    pub size: u64,
    /// Digests of them, of which one at least proves something.
    pub digests: Digests,
}

/// Bytes that are no Release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARelease {
    /// It is no stanza.
    #[error("it cannot be read")]
    Broken(#[from] Broken),
    /// A time that is none.
    #[error("its {field}, {text:?}, is no time as RFC 1123 writes it")]
    Time {
        /// `Date` or `Valid-Until`.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A line in a list of digests.
    #[error("a line of its list {list} is no digest, size and path: {line:?}")]
    Line {
        /// Which list.
        list: &'static str,
        /// The line.
        line: String,
    },
    /// Two sizes of one file.
    #[error("it states two sizes of {0}")]
    Sizes(RepoPath),
    /// Too many of them.
    #[error("it lists more than {MAX_FILES} files")]
    TooMany,
    /// None that can be believed.
    #[error("it lists no file with SHA-256 or SHA-512, and weaker digests prove nothing")]
    NoProof,
}

impl Release {
    /// Reads the signed text of a Release.
    pub fn parse(text: &[u8]) -> Result<Self, NotARelease> {
        deb822::single(text, |stanza| Self::of(&stanza))?
    }

    fn of(stanza: &Stanza<'_>) -> Result<Self, NotARelease> {
        let text = |key| stanza.get(key).unwrap_or_default().chars().take(500).collect::<String>();
        let words = |key| stanza.words(key).map(str::to_owned).collect::<Vec<_>>();
        let architectures = words("Architectures");
        let for_all = architectures.iter().any(|arch| arch == "all")
            && !stanza.words("No-Support-for-Architecture-all").any(|kind| kind == "Packages");
        // `updates/main` lies in `main`.
        let plain = |component: &str| component.rsplit('/').next().unwrap_or_default().to_owned();
        let (files, algorithms) = files(stanza)?;
        Ok(Self {
            origin: text("Origin"),
            label: text("Label"),
            suite: text("Suite"),
            codename: text("Codename"),
            version: text("Version"),
            description: text("Description"),
            not_automatic: text("NotAutomatic"),
            but_automatic_upgrades: text("ButAutomaticUpgrades"),
            date: time(stanza, "Date")?,
            valid_until: time(stanza, "Valid-Until")?,
            by_hash: stanza.get("Acquire-By-Hash").is_some_and(|it| it.eq_ignore_ascii_case("yes")),
            architectures,
            components: stanza.words("Components").map(plain).collect(),
            has_index_for_all: for_all,
            algorithms,
            files,
        })
    }

    /// What it says of the file at `path`; what it does not list does not exist.
    pub fn file(&self, path: &str) -> Option<(&RepoPath, &Listed)> {
        self.files.get_key_value(&path.parse::<RepoPath>().ok()?)
    }
}

type Files = (BTreeMap<RepoPath, Listed>, BTreeSet<Algorithm>);

fn files(stanza: &Stanza<'_>) -> Result<Files, NotARelease> {
    let (mut files, mut algorithms) = (BTreeMap::<RepoPath, Listed>::new(), BTreeSet::new());
    for (list, algorithm) in LISTS {
        for line in stanza.lines(list) {
            let bad = || NotARelease::Line { list, line: line.chars().take(200).collect() };
            let mut words = line.split_ascii_whitespace();
            let (Some(hex), Some(size), Some(path), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(bad());
            };
            let size = size.parse().map_err(|_| bad())?;
            let path: RepoPath = path.parse().map_err(|_| bad())?;
            algorithms.insert(algorithm);
            if files.len() == MAX_FILES && !files.contains_key(&path) {
                return Err(NotARelease::TooMany);
            }
            let entry = files
                .entry(path.clone())
                .or_insert_with(|| Listed { size, digests: Digests::default() });
            if entry.size != size {
                return Err(NotARelease::Sizes(path));
            }
            let digests = std::mem::take(&mut entry.digests);
            entry.digests = digests.with(algorithm, hex).map_err(|_| bad())?;
        }
    }
    let proves = |listed: &Listed| {
        listed.digests.strongest().is_some_and(|(algorithm, _)| algorithm >= Algorithm::Sha256)
    };
    let had_some = !files.is_empty();
    files.retain(|_, listed| proves(listed));
    match files.is_empty() && had_some {
        true => Err(NotARelease::NoProof),
        false => Ok((files, algorithms)),
    }
}

fn time(stanza: &Stanza<'_>, field: &'static str) -> Result<Option<Timestamp>, NotARelease> {
    // All are in UTC, and RFC 2822 does not know that word.
    static PARSER: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    let Some(text) = stanza.get(field) else { return Ok(None) };
    let stated = ["UTC", "GMT", "Z"].iter().find_map(|zone| text.strip_suffix(zone));
    let numeric = stated.map(|time| format!("{}+0000", time.trim_end().to_owned() + " "));
    let read = PARSER.parse_timestamp(numeric.as_deref().unwrap_or(text));
    read.map(Some).map_err(|_| NotARelease::Time { field, text: text.chars().take(100).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &[u8] = include_bytes!("../../tests/data/apt/Release-2023");

    #[test]
    fn a_genuine_release_is_read() {
        let release = Release::parse(OLD).unwrap();
        assert_eq!(
            (release.origin.as_str(), release.label.as_str(), release.codename.as_str()),
            ("Debian", "Debian-Security", "bookworm-security")
        );
        assert!(release.components.contains(&"main".to_owned()), "{:?}", release.components);
        assert!(release.date.unwrap() < release.valid_until.unwrap());
        assert!(release.by_hash && release.files.len() > 100);
        let (_, packages) = release.file("main/binary-amd64/Packages.xz").unwrap();
        assert!(packages.size > 0 && packages.digests.strongest().is_some());
        assert!(release.file("main/binary-vax/Packages.xz").is_none());
    }

    #[test]
    fn times_are_read_as_archives_write_them() {
        for zone in ["UTC", "GMT", "+0000", "Z"] {
            let text = format!("Date: Sat,  1 Nov 2025 08:05:09 {zone}\n");
            let date = Release::parse(text.as_bytes()).unwrap().date.unwrap();
            assert_eq!(date.to_string(), "2025-11-01T08:05:09Z", "{zone}");
        }
        let wrong = Release::parse(b"Date: yesterday\n").unwrap_err().to_string();
        assert!(wrong.contains("yesterday"), "{wrong}");
    }

    #[test]
    fn lists_that_prove_nothing_or_lead_out_are_refused() {
        let a = "a".repeat(64);
        let of = |text: String| Release::parse(text.as_bytes());
        assert!(of(format!("SHA256:\n {a} 5 main/x\n")).is_ok());
        let weak = of(format!("MD5Sum:\n {} 5 main/x\n", "a".repeat(32))).unwrap_err();
        assert_eq!(weak, NotARelease::NoProof);
        for line in [
            format!("{a} 5 ../x"),
            format!("{a} 5 /etc/passwd"),
            format!("{a} -5 x"),
            format!("{a} 5"),
            format!("{a} 5 x y"),
            "abc 5 x".into(),
        ] {
            assert!(of(format!("SHA256:\n {line}\n")).is_err(), "{line}");
        }
        let b = "b".repeat(128);
        let sizes = of(format!("SHA256:\n {a} 5 x\nSHA512:\n {b} 6 x\n")).unwrap_err();
        assert!(matches!(sizes, NotARelease::Sizes(_)));
    }

    proptest! {
        #[test]
        fn no_mutated_release_panics(at in 0..OLD.len(), byte in any::<u8>(), cut in 0..OLD.len()) {
            let mut text = OLD.to_vec();
            text[at] = byte;
            let _ = Release::parse(&text);
            let _ = Release::parse(&OLD[..cut]);
        }
    }
}

//! A Debian machine: what dpkg's status file says of its packages.
//!
//! The file is read stanza after stanza, so its size does not matter. A package counts as installed where
//! some of its files are there: not where only its configuration is left. One whose installation was begun and
//! not finished is told apart, since neither its version before nor its version to be can be relied on.

use super::{Condition, Facts, FactsError, Installed, Inventory, OsRelease, Platform, System};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;
use sync::apt::deb822::{Stanza, Stanzas};

/// The longest name, version or architecture, in bytes.
const MAX_WORD: usize = 4_096;

/// A Debian machine.
#[derive(Clone, Debug)]
pub struct Debian(System);

impl Debian {
    /// Reads the machine whose root is `root`.
    ///
    /// # Errors
    /// It has no status file, or one that cannot be read.
    pub fn of(root: &Path) -> Result<Self, FactsError> {
        let path = root.join("var/lib/dpkg/status");
        let failed = |source| FactsError::File { path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let packages =
            read(BufReader::with_capacity(64 << 10, file)).map_err(|error| match error.kind() {
                ErrorKind::FileTooLarge => FactsError::TooLarge {
                    what: path.display().to_string(),
                    limit: format!("{} packages", super::MAX_PACKAGES),
                },
                _ => failed(error),
            })?;
        let architecture = native(&packages);
        let (platform, release) = (Platform::Debian, OsRelease::of(root)?);
        Ok(Self(System { platform, release, packages, architecture }))
    }
}

impl Facts for Debian {
    fn system(&self) -> &System {
        &self.0
    }
}

/// Reads a status file.
///
/// # Errors
/// The input's own, and [`ErrorKind::FileTooLarge`].
pub fn read(input: impl BufRead) -> io::Result<Inventory> {
    let (mut packages, mut stanzas) = (Inventory::default(), Stanzas::new(input));
    while let Some(stanza) = stanzas.next_stanza()? {
        match stanza.ok().and_then(entry) {
            Some((name, Some(package))) => {
                if !packages.add(name, package) {
                    return Err(ErrorKind::FileTooLarge.into());
                }
            }
            Some((_, None)) => {}
            None => packages.add_unreadable(),
        }
    }
    Ok(packages)
}

/// The package that a stanza is of, and how it is installed, if it is; none, if the stanza does not say that.
fn entry(stanza: Stanza<'_>) -> Option<(&str, Option<Installed>)> {
    let word = |key| stanza.get(key).filter(|word| !word.is_empty() && word.len() <= MAX_WORD);
    let (name, mut status) = (word("Package")?, stanza.words("Status"));
    let (want, _flag, state) = (status.next()?, status.next()?, status.next()?);
    // deb-version(7), dpkg(1): the states of a package.
    let condition = match state {
        "not-installed" | "config-files" => return Some((name, None)),
        "installed" | "triggers-awaited" | "triggers-pending" => Condition::Whole,
        "half-installed" | "unpacked" | "half-configured" => Condition::Unfinished,
        _ => return None,
    };
    // One that was half installed for the first time has no version yet.
    let version = match (word("Version"), state) {
        (Some(version), _) => version,
        (None, "half-installed") => return Some((name, None)),
        (None, _) => return None,
    };
    let arch = word("Architecture")?.into();
    let is_held = want == "hold";
    Some((name, Some(Installed { version: version.into(), arch, condition, is_held })))
}

/// The architecture of the machine itself: that of dpkg, which runs on it, else the one that most packages
/// have.
fn native(packages: &Inventory) -> String {
    let dpkg = packages.get("dpkg").and_then(|all| all.first());
    if let Some(dpkg) = dpkg {
        return dpkg.arch.clone().into();
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, package) in packages.iter().filter(|(_, it)| &*it.arch != "all") {
        *counts.entry(&package.arch).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(arch, count)| (*count, std::cmp::Reverse(*arch)));
    most.map_or_else(String::new, |(arch, _)| arch.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = "\
Package: openssl
Status: install ok installed
Architecture: amd64
Version: 3.0.11-1

Package: libc6
Status: hold ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-8

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
Conffiles:
 /etc/gone 0123

Package: begun
Status: install reinstreq half-configured
Architecture: all
Version: 2

Package: purged
Status: purge ok not-installed

Package: fresh
Status: install reinstreq half-installed
Architecture: all
";

    fn packages(text: &str) -> Inventory {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_state_of_a_package_is_what_it_means() {
        let all = packages(STATUS);
        let of = |name: &str| all.get(name).unwrap();
        assert_eq!(of("openssl")[0].condition, Condition::Whole);
        let libc: Vec<_> = of("libc6").iter().map(|it| (&*it.arch, it.is_held)).collect();
        assert_eq!(libc, [("amd64", true), ("i386", false)]);
        assert_eq!(of("begun")[0].condition, Condition::Unfinished);
        for name in ["gone", "purged", "fresh", "never-heard-of"] {
            assert!(of(name).is_empty(), "{name}");
        }
        assert_eq!((all.len(), all.unreadable()), (4, 0));
        assert_eq!(native(&all), "amd64");
    }

    #[test]
    fn a_stanza_that_says_nothing_makes_the_others_unknown() {
        let all = packages(&format!("{STATUS}\nPackage: odd\nStatus: install ok wobbly\n"));
        assert_eq!(all.unreadable(), 1);
        assert_eq!(all.get("never-heard-of"), None);
        assert!(all.get("openssl").is_some());
    }

    #[test]
    fn a_root_without_a_status_file_is_told() {
        let root = tempfile::tempdir().unwrap();
        let told = Debian::of(root.path()).unwrap_err().to_string();
        assert!(told.ends_with("var/lib/dpkg/status"), "{told}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            text in "((Package|Status|Version|Architecture|x)?:? ?(a|install|ok|installed|hold|é)?( |\n|\n\n)?){0,60}",
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = (read(text.as_bytes()), read(bytes.as_slice()));
        }
    }
}

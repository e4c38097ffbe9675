//! The machine that the agent runs on: its clocks, its facts, and by what it is told from a copy of it.

use client::clock::Reading;
use client::facts::{
    Facts, FactsError, debian::Debian, network, recorded::Recorded, rpm::Rpm, told::Told,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest file that is read for a few words, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// What administrators set on a machine, in the agent's folder.
pub const ATTRIBUTES: &str = "attributes.toml";

/// Where databases of rpm lie.
const RPM: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
/// What lists a machine's packages, and changes with them: what was recorded of it, dpkg's status file, the
/// database of rpm in each of its forms, and the module streams that are enabled.
const LISTS: [&str; 10] = [
    "recorded.json",
    "var/lib/dpkg/status",
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite-wal",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
    "usr/share/rpm/rpmdb.sqlite",
    "etc/dnf/modules.d",
];

/// Where the machine's own files are.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

/// By what a machine is known again: what its system was given when it was installed, and its board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// A digest of `machine-id`; none, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// A digest of what the firmware says of the board; none, where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    board: Option<String>,
}

impl Print {
    /// Whether both are of one machine, as far as they tell.
    pub fn is_of(&self, other: &Self) -> bool {
        let agrees = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        agrees(&self.system, &other.system) && agrees(&self.board, &other.board)
    }
}

impl Machine {
    /// The one whose root is `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Its packages and system.
    pub fn facts(&self) -> Result<Box<dyn Facts>, FactsError> {
        let recorded = self.root.join("recorded.json");
        if recorded.is_file() {
            let failed = |source| FactsError::File { path: recorded.clone(), source };
            let document = fs::read(&recorded).map_err(failed)?;
            return Ok(Box::new(Recorded::parse(&document)?));
        }
        if self.root.join("var/lib/dpkg/status").exists() {
            return Ok(Box::new(Debian::of(&self.root)?));
        }
        // Asked of a root without a database, rpm would speak of anything but that.
        if !RPM.iter().any(|folder| self.root.join(folder).is_dir()) {
            return Err(FactsError::NoPackages { root: self.root.clone() });
        }
        Ok(Box::new(Rpm::of(&self.root)?))
    }

    /// How what lists its packages looks: another text, where that was written. Nothing of it is read.
    pub fn stamp(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let mut stamp = String::new();
        for name in LISTS {
            let Ok(found) = fs::metadata(self.root.join(name)) else { continue };
            // SQLite's journal comes and goes with whoever reads; while it is empty it says nothing.
            if found.len() > 0 {
                let (second, part) = (found.mtime(), found.mtime_nsec());
                stamp += &format!("{} {} {second}.{part:09};", found.ino(), found.len());
            }
        }
        stamp
    }

    /// What the site is told of it.
    pub fn told(&self, facts: &dyn Facts, data: &Path) -> Told {
        let mut addresses = network::v4(&text("/proc/net/fib_trie").unwrap_or_default());
        addresses.extend(network::v6(&text("/proc/net/if_inet6").unwrap_or_default()));
        Told::of(facts, addresses, attributes(&data.join(ATTRIBUTES)))
    }

    /// By what it is known again.
    pub fn print(&self) -> Print {
        let digest = |text: String| {
            let text = text.trim();
            let hash = blake3::derive_key("depot agent machine 1", text.as_bytes());
            (!text.is_empty()).then(|| hash.iter().map(|byte| format!("{byte:02x}")).collect())
        };
        let system = text(self.root.join("etc/machine-id")).ok().and_then(digest);
        let is_own = self.root == Path::new("/");
        let board = text("/sys/class/dmi/id/product_uuid").ok().filter(|_| is_own).and_then(digest);
        Print { system, board }
    }

    /// What people call it.
    pub fn name(&self) -> String {
        let named =
            text(self.root.join("etc/hostname")).or_else(|_| text("/proc/sys/kernel/hostname"));
        let name: String = named.unwrap_or_default().trim().chars().take(200).collect();
        if name.is_empty() { "unnamed".into() } else { name }
    }

    /// What its clocks show.
    pub fn reading(&self) -> Reading {
        let boot = text("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let uptime = text("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        let uptime = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
        Reading { wall: Timestamp::now(), boot, uptime: uptime.unwrap_or_default() }
    }
}

/// What administrators set; nothing, where the file is not there or wrong.
fn attributes(path: &Path) -> BTreeMap<String, String> {
    match text(path) {
        Ok(text) => toml::from_str(&text).unwrap_or_else(|error| {
            let error = error.to_string();
            tracing::warn!(path = %path.display(), error, "want lines of NAME = \"VALUE\"");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    }
}

/// A short file's text.
fn text(path: impl AsRef<Path>) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn machine(id: &str) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/machine-id"), id).unwrap();
        let machine = Machine::at(root.path());
        (root, machine)
    }

    #[test]
    fn what_lists_the_packages_looks_another_once_it_is_written() {
        let (root, machine) = machine("0123");
        assert_eq!(machine.stamp(), "");
        let status = root.path().join("var/lib/dpkg/status");
        fs::create_dir_all(status.parent().unwrap()).unwrap();
        fs::write(&status, "a").unwrap();
        let first = machine.stamp();
        assert!(!first.is_empty() && machine.stamp() == first);
        // As dpkg does: another file takes its place.
        fs::write(status.with_extension("new"), "b").unwrap();
        fs::rename(status.with_extension("new"), &status).unwrap();
        assert_ne!(machine.stamp(), first);
    }

    #[test]
    fn a_machine_without_packages_is_called_that() {
        let (_root, machine) = machine("0123");
        let error = machine.facts().err().unwrap();
        assert!(error.to_string().contains("var/lib/dpkg/status"), "{error}");
    }

    #[test]
    fn a_copy_on_another_machine_is_told_by_what_that_was_given() {
        let (_one, a) = machine("0123\n");
        let (_two, b) = machine("4567\n");
        let (_again, same) = machine("0123\n");
        assert!(a.print().is_of(&same.print()) && !a.print().is_of(&b.print()));
        // One that cannot tell is not thought to be another.
        let (_none, unknown) = machine("");
        assert!(a.print().is_of(&unknown.print()));
        let board = |board: &str| Print { system: None, board: Some(board.into()) };
        assert!(!board("a").is_of(&board("b")));
        assert!(!format!("{:?}", a.print()).contains("0123"), "the id itself is not kept");
    }
}

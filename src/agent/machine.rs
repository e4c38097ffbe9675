//! The machine that the agent runs on: its clocks, its facts, and by what it is told from a copy of it.

use super::filter::is_overlay;
use super::home::Home;
use super::run::is_installing;
use client::clock::Reading;
use client::enforce;
use client::facts::{
    Facts, FactsError, debian::Debian, network, recorded::Recorded, rpm::Rpm, told::Told,
};
use client::install::restart::{Signs, newer_kernel, packages, uses_deleted};
use client::settings::MachineKind;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use sync::taxonomy::Language;

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
    /// What restarts it, if that was said.
    restart: Option<Vec<String>>,
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
        Self { root: root.into(), restart: None }
    }

    /// The same, which these words restart.
    pub fn restarted_by(self, words: Option<&str>) -> Self {
        let restart = words.map(|it| it.split_whitespace().map(str::to_owned).collect());
        Self { restart, ..self }
    }

    /// Where its files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is the one that this runs on.
    pub fn is_own(&self) -> bool {
        self.root == Path::new("/")
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
        const BOOT: &str = "proc/sys/kernel/random/boot_id";
        let boot = text(self.root.join(BOOT)).or_else(|_| text(Path::new("/").join(BOOT)));
        let boot = boot.unwrap_or_default().trim().to_owned();
        let uptime = text("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        let uptime = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
        Reading { wall: Timestamp::now(), boot, uptime: uptime.unwrap_or_default() }
    }

    /// What it is to deployments.
    pub fn standing(&self, home: &Home, kind: MachineKind) -> enforce::Machine {
        let is_server = match kind {
            MachineKind::Server => true,
            MachineKind::Workstation => false,
            MachineKind::Auto => {
                // systemd-sysv-install(8): what logs people in graphically, if anything does.
                let login = self.root.join("etc/systemd/system/display-manager.service");
                fs::symlink_metadata(login).is_err()
            }
        };
        enforce::Machine {
            is_server,
            has_people: self.has_people(),
            has_overlay: is_overlay(&self.root),
            installs_other: is_installing(home) || self.is_dpkg_locked(),
        }
    }

    /// Whether somebody is logged in: what logind says of its sessions.
    fn has_people(&self) -> bool {
        let sessions = fs::read_dir(self.root.join("run/systemd/sessions"));
        let sessions = sessions.into_iter().flatten().flatten().take(1_000);
        let is_user = |text: String| text.lines().any(|line| line == "CLASS=user");
        sessions.filter_map(|it| text(it.path()).ok()).any(is_user)
    }

    /// Whether somebody holds dpkg's lock, as the kernel lists those (proc_locks(5)).
    fn is_dpkg_locked(&self) -> bool {
        let locks = text("/proc/locks").unwrap_or_default();
        let names = ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"];
        names.iter().filter_map(|name| fs::metadata(self.root.join(name)).ok()).any(|about| {
            let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
            let place = format!(" {major:02x}:{minor:02x}:{} ", about.ino());
            locks.lines().any(|line| line.contains(&place) && line.contains(" WRITE "))
        })
    }

    /// Its time zone.
    pub fn zone(&self) -> TimeZone {
        let path = self.root.join("etc/localtime");
        // A link means a place on the machine itself.
        let path = match fs::read_link(&path) {
            Ok(to) if to.is_absolute() => self.root.join(to.strip_prefix("/").unwrap_or(&to)),
            _ => path,
        };
        let bytes = fs::read(&path).ok().filter(|it| it.len() < MAX_FILE as usize);
        bytes.and_then(|it| TimeZone::tzif("local", &it).ok()).unwrap_or(TimeZone::UTC)
    }

    /// Its language, if it says one.
    pub fn language(&self) -> Option<Language> {
        let files = ["etc/locale.conf", "etc/default/locale"];
        let said = files.iter().filter_map(|name| text(self.root.join(name)).ok());
        let lines: Vec<String> =
            said.flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let lang = lines.iter().find_map(|line| line.strip_prefix("LANG="))?;
        let word = lang.trim_matches('"').split(['_', '.', '@']).next()?;
        // C and POSIX are none.
        word.to_ascii_lowercase().parse().ok().filter(|_| word.len() == 2 || word.len() == 3)
    }

    /// What speaks for a restart of it.
    pub fn signs(&self) -> Signs {
        let run = |name: &str| self.root.join("run").join(name);
        let kernel = self.is_own().then(|| {
            let running = text("/proc/sys/kernel/osrelease").unwrap_or_default();
            let files = fs::read_dir("/boot").into_iter().flatten().flatten();
            let names: Vec<String> =
                files.filter_map(|it| it.file_name().into_string().ok()).collect();
            newer_kernel(names.iter().map(String::as_str), running.trim())
        });
        Signs {
            packages: packages(&text(run("reboot-required.pkgs")).unwrap_or_default()),
            is_asked: run("reboot-required").exists(),
            kernel: kernel.flatten(),
        }
    }

    /// The programs that run and still use a library that was replaced: to be restarted some time.
    pub fn outdated(&self) -> BTreeSet<String> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter(|_| self.is_own()).map(|it| it.path());
        let outdated =
            processes.filter(|it| text(it.join("maps")).is_ok_and(|maps| uses_deleted(&maps)));
        outdated.filter_map(|it| Some(text(it.join("comm")).ok()?.trim().to_owned())).collect()
    }

    /// Restarts it.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    pub fn restart(&self) -> Result<(), String> {
        let has_systemd = Path::new("/run/systemd/system").is_dir();
        let own: &[&str] = match has_systemd {
            true => &["systemctl", "reboot"],
            false => &["shutdown", "-r", "now"],
        };
        let words: Vec<String> = match &self.restart {
            Some(words) => words.clone(),
            None if self.is_own() => own.iter().map(|it| (*it).to_owned()).collect(),
            None => {
                return Err("its files are below a folder: it is not the machine that runs".into());
            }
        };
        let (program, arguments) = words.split_first().ok_or("no command restarts it")?;
        let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        match ran {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                Err(format!("{} ended with {}: {said}", words.join(" "), done.status))
            }
            Err(error) => Err(format!("{program} cannot be run: {error}")),
        }
    }

    /// Writes to the terminals of people who are logged in. That it does not come there is no harm.
    pub fn tell_people(&self, words: &str) {
        if self.is_own() {
            let wall = Command::new("wall").arg(words).stdin(Stdio::null()).output();
            if let Err(error) = wall {
                tracing::debug!(%error, "people are not told by wall");
            }
        }
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

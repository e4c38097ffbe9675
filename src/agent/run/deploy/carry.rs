//! Carrying out an installation: the files are put where the machine sees them and checked, and its installer is run.
//!
//! An installer is a process of its own group, whose output goes to a file: it outlives an agent that is ended, and
//! is not disturbed by it. Who it is it writes to `install.pid` itself before it becomes the installer, so an agent
//! that comes back knows whether it still runs. Logs are kept, [`MAX_LOGS`] of them.

use crate::agent::filter::{Filter, FilterError};
use crate::agent::home::Home;
use crate::agent::machine::Machine;
use client::enforce::{Ending, Outcome, code};
use client::facts::Platform;
use client::install::{MAX_SAID, Plan, Said, apt, command, dnf, plain_name};
use client::settings::Settings;
use deployment::enforcement::Failure;
use deployment::policy::DeployedFile;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use sync::name::UpdateId;
use sync::update::Restart;

/// How many logs are kept.
const MAX_LOGS: usize = 100;
/// The longest log that is kept, in bytes: of a longer one its end.
const MAX_LOG: u64 = 1 << 20;
/// Where files are put for installers, below the root of the machine.
const STAGE: &str = "var/cache/depot-agent";
/// By what a process is known to be an installer of ours.
const MARK: &str = "DEPOT_AGENT_INSTALL";
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// An installation that is to be carried out.
pub struct Carry<'a> {
    /// The agent's folder.
    pub home: &'a Home,
    /// The machine.
    pub machine: &'a Machine,
    /// What is set for it.
    pub settings: &'a Settings,
    /// The update.
    pub update: UpdateId,
    /// Whether it always needs a restart.
    pub restarts: Restart,
    /// How long is waited for it.
    pub within: Duration,
    /// Whether it goes below the overlay.
    pub below: bool,
}

/// How a process ended.
enum Ended {
    /// With that code, if no signal ended it, and these words.
    So(Option<i32>, String),
    /// It did not, in the time that it may take.
    NotYet,
}

impl Carry<'_> {
    /// Carries it out: all plans in order, up to the first that does not end well. On a thread that may block.
    pub fn run(&self, plans: &[Plan]) -> Ending {
        let failed = |code, what: String| Outcome::Failed(Failure::new(code, what));
        let local = |error: io::Error| {
            failed(code::LOCAL, format!("the machine does not let it be installed: {error}"))
        };
        let not_begun = |outcome| Ending { outcome, needs_restart: false };
        let filter = match self.below.then(|| Filter::take_off(self.home, self.machine.root())) {
            None => None,
            Some(Ok(filter)) => Some(filter),
            Some(Err(error @ (FilterError::NoOverlay | FilterError::Remount(_)))) => {
                return not_begun(failed(code::FILTER, error.to_string()));
            }
            Some(Err(FilterError::Home(error))) => {
                return not_begun(failed(code::LOCAL, crate::exit::with_causes(&error)));
            }
        };
        let root = filter.as_ref().map_or(self.machine.root(), Filter::lower).to_owned();
        let stage = root.join(STAGE).join(self.update.0.simple().to_string());
        let before = self.machine.signs();
        let mut is_said = false;
        let ran = self.run_in(&root, &stage, plans, filter.is_some(), &mut is_said);
        let _ = fs::remove_dir_all(&stage);
        let of_debian = plans.iter().filter_map(|plan| match plan {
            Plan::Packages { platform: Platform::Debian, files, .. } => Some(files),
            _ => None,
        });
        let packages = of_debian.flatten().filter_map(|it| Some(it.package.as_ref()?.name.clone()));
        // However it ended: what was installed before another package's script failed wants its restart as well.
        let is_new = self.machine.signs().are_new_since(&before, &packages.collect());
        let needs_restart = is_said || is_new || self.restarts == Restart::Always;
        Ending { outcome: ran.unwrap_or_else(local), needs_restart }
    }

    /// `is_said` becomes so, if an installer says that the machine has to restart.
    fn run_in(
        &self,
        root: &Path,
        stage: &Path,
        plans: &[Plan],
        is_below: bool,
        is_said: &mut bool,
    ) -> io::Result<Outcome> {
        let ends = Instant::now() + self.within;
        for plan in plans {
            if let Err(outcome) = self.put(plan, stage)? {
                return Ok(outcome);
            }
            let run = Run { carry: self, root, stage, is_below, ends };
            let said = match plan {
                Plan::Packages { platform: Platform::Rpm, .. } => run.rpm(plan, is_said)?,
                Plan::Packages { .. } => run.apt(plan)?,
                Plan::Command { .. } => run.program(plan)?,
            };
            match said {
                Said::Installed { restarts } => *is_said |= restarts,
                Said::Lacks(names) => return Ok(Outcome::Lacks(names)),
                Said::Another => return Ok(Outcome::Another),
                Said::Failed(failure) => return Ok(Outcome::Failed(failure)),
            }
        }
        let outdated: Vec<String> = self.machine.outdated().into_iter().collect();
        if !outdated.is_empty() {
            let programs = outdated.join(", ");
            let line = format!("these run, and still use a library that was replaced: {programs}");
            Log::open(self.home, self.update)?.say(&line)?;
        }
        Ok(Outcome::Ended)
    }

    /// Puts a plan's files into a folder of their own, and checks there what will be installed.
    fn put(&self, plan: &Plan, stage: &Path) -> io::Result<Result<(), Outcome>> {
        match fs::remove_dir_all(stage) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in ["lists/partial", "archives/partial"] {
            DirBuilder::new().recursive(true).mode(0o700).create(stage.join(folder))?;
        }
        let is_program = matches!(plan, Plan::Command { .. });
        for file in plan.files() {
            let named = plain_name(file).zip(file.digest.as_deref());
            let Some((name, digest)) = named.filter(|(_, it)| it.len() == 64) else {
                let what = format!("{:?} is no file that can be installed", file.name);
                return Ok(Err(Outcome::Failed(Failure::new(code::NO_WAY, what))));
            };
            let (from, to) = (self.home.path("cache").join(digest), stage.join(name));
            if to.exists() {
                continue;
            }
            if !copied(&from, &to, digest, if is_program { 0o700 } else { 0o600 })? {
                return Ok(Err(Outcome::Damaged(digest.to_owned())));
            }
        }
        Ok(Ok(()))
    }
}

/// Copies a file, unless its bytes are not those of the digest; a file of its own, so that no one else changes what
/// was checked.
fn copied(from: &Path, to: &Path, digest: &str, mode: u32) -> io::Result<bool> {
    let mut source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        source => source?,
    };
    let mut copy = OpenOptions::new().create_new(true).write(true).mode(mode).open(to)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 128 << 10]);
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                copy.write_all(&buffer[..n])?;
            }
        }
    }
    copy.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(hasher.finalize().to_hex().as_str() == digest)
}

/// One plan that is run, its files lying ready.
struct Run<'a> {
    carry: &'a Carry<'a>,
    root: &'a Path,
    stage: &'a Path,
    is_below: bool,
    ends: Instant,
}

impl Run<'_> {
    fn apt(&self, plan: &Plan) -> io::Result<Said> {
        let Plan::Packages { files, beside, .. } = plan else { return Ok(nothing()) };
        let choice = self.carry.settings.config_files;
        let repaired = self.inside(&apt::repair(choice), &apt::ENVIRONMENT)?;
        match repaired {
            Ended::NotYet => return Ok(self.too_long()),
            Ended::So(code, words) => match apt::said(code, &words) {
                Said::Another => return Ok(Said::Another),
                // What is half installed may be what the update mends: apt says whether it is.
                said => tracing::debug!(?said, "what dpkg left unfinished was finished"),
            },
        }
        let names: Vec<&str> =
            files.iter().filter_map(|it| Some(it.package.as_ref()?.name.as_str())).collect();
        let marks = self.auto_marked(&names)?;
        let (files, beside) = (self.seen(files), self.seen(beside));
        let words = apt::install(&files, &beside, &self.inner_stage(), choice);
        let said = match self.inside(&words, &apt::ENVIRONMENT)? {
            Ended::NotYet => return Ok(self.too_long()),
            Ended::So(code, words) => apt::said(code, &words),
        };
        if !marks.is_empty() {
            // Whoever names a package to apt is taken to want it for itself.
            let words: Vec<String> =
                ["apt-mark", "auto"].map(str::to_owned).into_iter().chain(marks).collect();
            self.inside(&words, &apt::ENVIRONMENT)?;
        }
        Ok(said)
    }

    /// Of these packages those that are there only since others need them.
    fn auto_marked(&self, names: &[&str]) -> io::Result<Vec<String>> {
        let words = ["apt-mark", "showauto"].iter().chain(names).map(|it| (*it).to_owned());
        Ok(match self.inside(&words.collect::<Vec<_>>(), &apt::ENVIRONMENT)? {
            Ended::So(Some(0), said) => {
                let is_name =
                    |line: &&str| names.contains(&line.split(':').next().unwrap_or_default());
                said.lines().map(str::trim).filter(is_name).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        })
    }

    fn rpm(&self, plan: &Plan, wants_restart: &mut bool) -> io::Result<Said> {
        let paths = plan.files().filter_map(plain_name);
        let paths: Vec<String> =
            paths.map(|name| self.stage.join(name).display().to_string()).collect();
        let root = self.root.to_str().filter(|root| *root != "/");
        let words = dnf::install(&paths, root);
        let said = match self.outside(&words, &dnf::ENVIRONMENT, None)? {
            Ended::NotYet => return Ok(self.too_long()),
            Ended::So(code, words) => dnf::said(code, &words),
        };
        // Also of one that failed: a scriptlet may have, of a package among others.
        if matches!(said, Said::Installed { .. } | Said::Failed(_)) && root.is_none() {
            let asked = self.outside(&dnf::needs_restart(), &dnf::ENVIRONMENT, None)?;
            *wants_restart |=
                matches!(asked, Ended::So(code, words) if dnf::says_restart(code, &words));
        }
        Ok(said)
    }

    fn program(&self, plan: &Plan) -> io::Result<Said> {
        let Plan::Command { handler, files } = plan else { return Ok(nothing()) };
        let names: Vec<&str> = files.iter().filter_map(plain_name).collect();
        let words = match command::words(handler, &names, &self.inner_stage()) {
            Ok(words) => words,
            Err(failure) => return Ok(Said::Failed(failure)),
        };
        Ok(match self.inside(&words, &command::ENVIRONMENT)? {
            Ended::NotYet => self.too_long(),
            Ended::So(code, words) => command::said(handler, code, &words),
        })
    }

    fn too_long(&self) -> Said {
        let minutes = self.carry.within.as_secs() / 60;
        let what = match self.carry.settings.end_overdue {
            true => format!("it took longer than {minutes} minutes, and was ended"),
            false => format!("it takes longer than {minutes} minutes, and goes on unwatched"),
        };
        Said::Failed(Failure::new(code::TOO_LONG, what))
    }

    /// The stage, as the machine itself sees it.
    fn inner_stage(&self) -> String {
        let inner = self.stage.strip_prefix(self.root).unwrap_or(self.stage);
        format!("/{}", inner.display())
    }

    fn seen(&self, files: &[DeployedFile]) -> Vec<String> {
        let stage = self.inner_stage();
        files.iter().filter_map(plain_name).map(|name| format!("{stage}/{name}")).collect()
    }

    /// Runs a program of the machine, in its root.
    fn inside(&self, words: &[String], environment: &[(&str, &str)]) -> io::Result<Ended> {
        if self.root == Path::new("/") {
            return self.outside(words, environment, Some(self.stage));
        }
        let root = self.root.display().to_string();
        let chroot: &[&str] = match self.is_below && self.carry.machine.is_own() {
            false => &["chroot", root.as_str()],
            // What maintainers' scripts expect of a system that runs; gone with the process.
            true => &[
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                "for d in dev proc sys run; do mount --rbind /$d \"$0/$d\" || exit 1; done; \
                 exec chroot \"$0\" \"$@\"",
                root.as_str(),
            ],
        };
        let all: Vec<String> =
            chroot.iter().map(|it| (*it).to_owned()).chain(words.iter().cloned()).collect();
        self.outside(&all, environment, None)
    }

    /// Runs a program, its output going to the log, until it ends or may not take longer.
    fn outside(
        &self,
        words: &[String],
        environment: &[(&str, &str)],
        folder: Option<&Path>,
    ) -> io::Result<Ended> {
        let home = self.carry.home;
        let mut log = Log::open(home, self.carry.update)?;
        log.say(&format!("$ {}", words.join(" ")))?;
        let mut program = Command::new("/bin/sh");
        program.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(pid_file(home)).args(words);
        program.env_clear().envs(environment.iter().copied());
        program.env(MARK, self.carry.update.to_string());
        program.current_dir(folder.unwrap_or(Path::new("/"))).process_group(0);
        program.stdin(Stdio::null()).stdout(log.file.try_clone()?).stderr(log.file.try_clone()?);
        let mut child = program.spawn()?;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() >= self.ends => break None,
                None => std::thread::sleep(LOOK),
            }
        };
        let Some(status) = status else {
            log.say("it takes longer than it may")?;
            self.overdue(child);
            return Ok(Ended::NotYet);
        };
        let _ = fs::remove_file(pid_file(home));
        let said = log.said()?;
        log.say(&format!("ended: {status}"))?;
        Ok(Ended::So(status.code(), said))
    }

    /// What becomes of an installer that takes too long.
    fn overdue(&self, mut child: Child) {
        if self.carry.settings.end_overdue {
            let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
        // Somebody has to hear of its end, or it stays as a zombie.
        std::thread::spawn(move || child.wait());
    }
}

fn nothing() -> Said {
    Said::Failed(Failure::new(code::NO_WAY, "there is nothing to install"))
}

fn pid_file(home: &Home) -> PathBuf {
    home.path("install.pid")
}

/// Whether an installer that an agent of this folder began still runs.
pub fn is_running(home: &Home) -> bool {
    let read = || -> Option<bool> {
        let pid: u32 = fs::read_to_string(pid_file(home)).ok()?.trim().parse().ok()?;
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mark = format!("{MARK}=");
        Some(environment.split(|b| *b == 0).any(|it| it.starts_with(mark.as_bytes())))
    };
    read().unwrap_or(false)
}

/// What an installer says.
struct Log {
    file: File,
    /// Where the words of the program that runs now begin.
    from: u64,
}

impl Log {
    /// The log of an update: of its last installation.
    fn open(home: &Home, update: UpdateId) -> io::Result<Self> {
        let folder = home.path("installs");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(format!("{update}.log"));
        if !path.exists() {
            thin_out(&folder)?;
        }
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path)?;
        let length = file.metadata()?.len();
        if length > MAX_LOG {
            file.seek(SeekFrom::Start(length - MAX_LOG / 2))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            file.set_len(0)?;
            file.write_all(&end)?;
        }
        Ok(Self { file, from: 0 })
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.file, "[{}] {line}", jiff::Timestamp::now())?;
        if self.from == 0 {
            self.from = self.file.metadata()?.len();
        }
        Ok(())
    }

    /// The end of what the program said.
    fn said(&mut self) -> io::Result<String> {
        let length = self.file.metadata()?.len();
        let from = self.from.max(length.saturating_sub(MAX_SAID as u64));
        self.file.seek(SeekFrom::Start(from))?;
        let mut said = Vec::new();
        (&self.file).take(MAX_SAID as u64).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// Removes the oldest logs, where there are too many.
fn thin_out(folder: &Path) -> io::Result<()> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        logs.push((entry.metadata()?.modified()?, entry.path()));
    }
    logs.sort();
    for (_, path) in logs.iter().take((logs.len() + 1).saturating_sub(MAX_LOGS)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("agent")).unwrap();
        (folder, home)
    }

    #[test]
    fn a_file_is_handed_to_an_installer_only_with_the_bytes_of_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "bytes").unwrap();
        let digest = blake3::hash(b"bytes").to_hex();
        assert!(copied(&from, &to, &digest, 0o600).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"bytes");
        fs::remove_file(&to).unwrap();
        fs::write(&from, "other").unwrap();
        assert!(!copied(&from, &to, &digest, 0o600).unwrap());
        assert!(!copied(&folder.path().join("gone"), &to, &digest, 0o600).unwrap());
    }

    #[test]
    fn logs_are_bounded_and_the_oldest_go() {
        let (_folder, home) = home();
        let update = |n: u128| UpdateId(uuid::Uuid::from_u128(n));
        for _ in 0..5 {
            let mut log = Log::open(&home, update(1)).unwrap();
            log.say("$ program").unwrap();
            log.file.write_all(&vec![b'x'; 300 << 10]).unwrap();
            log.file.write_all(b"the end").unwrap();
            let said = log.said().unwrap();
            assert!(said.ends_with("the end") && said.len() <= MAX_SAID);
        }
        let length = fs::metadata(home.path(&format!("installs/{}.log", update(1)))).unwrap().len();
        assert!(length < 2 * MAX_LOG, "{length}");
        for n in 2..150 {
            Log::open(&home, update(n)).unwrap();
        }
        let logs = fs::read_dir(home.path("installs")).unwrap().count();
        assert_eq!(logs, MAX_LOGS);
    }

    #[test]
    fn an_installer_is_known_by_its_mark_and_not_by_its_number_alone() {
        let (_folder, home) = home();
        assert!(!is_running(&home));
        fs::write(pid_file(&home), format!("{}\n", std::process::id())).unwrap();
        assert!(!is_running(&home), "this test is no installer");
        let mut child = Command::new("sleep").arg("60").env(MARK, "x").spawn().unwrap();
        fs::write(pid_file(&home), format!("{}\n", child.id())).unwrap();
        // Its environment shows once it is what it will be.
        for _ in 0..200 {
            if is_running(&home) {
                break;
            }
            std::thread::sleep(LOOK);
        }
        assert!(is_running(&home));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_running(&home));
    }
}

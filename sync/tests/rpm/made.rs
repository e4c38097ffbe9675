//! Real repositories, made with rpmbuild and createrepo_c, and real machines to install on: a folder
//! with an rpm database of its own, on which dnf works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A repository on disk.
pub struct Made {
    folder: TempDir,
}

impl Made {
    /// One without packages.
    pub fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(made.path().join("Packages")).unwrap();
        made
    }

    /// Its base.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// Builds a package; `more` are further lines of its spec.
    pub fn package(&self, name: &str, version: &str, more: &str) -> PathBuf {
        self.package_of(name, version, more, &[])
    }

    /// The same, with empty files at these paths.
    pub fn package_of(&self, name: &str, version: &str, more: &str, files: &[&str]) -> PathBuf {
        let (version, release) = version.split_once('-').unwrap();
        let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
        let each = files.iter().map(|path| format!("install -D /dev/null %{{buildroot}}{path}\n"));
        let install: String = std::iter::once("%install\n".to_owned()).chain(each).collect();
        let spec = format!(
            "Name: {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: {release}\nSummary: {name} & more\n\
             License: MIT\nVendor: AlmaLinux\nBuildArch: noarch\n{more}\n%description\nx\n{install}\n\
             %files\n{}\n",
            files.join("\n")
        );
        let top = self.folder.path().join("build");
        std::fs::create_dir_all(&top).unwrap();
        let path = top.join(format!("{name}.spec"));
        std::fs::write(&path, spec).unwrap();
        let define = format!("_topdir {}", top.display());
        let packages = format!("_rpmdir {}", self.path().join("Packages").display());
        run(Command::new("rpmbuild")
            .args(["--quiet", "-bb", "--define", &define, "--define", &packages])
            .arg(path));
        self.path().join(format!("Packages/noarch/{name}-{version}-{release}.noarch.rpm"))
    }

    /// Writes its metadata, with this `updateinfo` if there is one.
    pub fn index(&self, updateinfo: Option<&str>) {
        // Databases and times would differ from one run to the next.
        run(Command::new("createrepo_c").args(["-q", "--no-database"]).arg(self.path()));
        if let Some(updateinfo) = updateinfo {
            let path = self.folder.path().join("updateinfo.xml");
            std::fs::write(&path, updateinfo).unwrap();
            let to = self.path().join("repodata");
            run(Command::new("modifyrepo_c").args(["--mdtype=updateinfo"]).arg(path).arg(to));
        }
    }
}

/// An advisory; of its packages name and version.
pub fn advisory(id: &str, kind: &str, packages: &[(&str, &str)]) -> String {
    let packages: String = packages
        .iter()
        .map(|(name, version)| {
            let (version, release) = version.split_once('-').unwrap();
            let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
            format!(
                "<package name=\"{name}\" version=\"{version}\" release=\"{release}\" \
                 epoch=\"{epoch}\" arch=\"noarch\"><filename>x</filename></package>"
            )
        })
        .collect();
    format!(
        "<update from=\"updates@example.org\" status=\"final\" type=\"{kind}\" version=\"1\">\
         <id>{id}</id><title>{id} for tools</title><issued date=\"2026-01-02 03:04:05\"/>\
         <severity>Important</severity><description>Mends.</description><references>\
         <reference href=\"https://example.org/CVE-2026-0001\" id=\"CVE-2026-0001\" type=\"cve\"/>\
         </references><pkglist><collection short=\"x\"><name>x</name>{packages}</collection></pkglist>\
         </update>"
    )
}

/// The document of some advisories.
pub fn updateinfo(advisories: &[String]) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<updates>{}</updates>\n",
        advisories.concat()
    )
}

/// A machine.
pub struct Machine {
    root: TempDir,
}

impl Machine {
    /// One on which nothing is installed but these packages.
    pub fn with(packages: &[PathBuf]) -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        let root = machine.root.path();
        std::fs::create_dir(root.join("log")).unwrap();
        run(Command::new("rpm").arg("--root").arg(root).arg("--initdb"));
        if !packages.is_empty() {
            run(Command::new("rpm")
                .arg("--root")
                .arg(root)
                .args(["-i", "--justdb", "--nodeps", "--noscripts"])
                .args(packages));
        }
        machine
    }

    /// By name, the versions that are installed.
    pub fn installed(&self) -> BTreeMap<String, Vec<String>> {
        let format = "%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\\n";
        let list = run(Command::new("rpm")
            .arg("--root")
            .arg(self.root.path())
            .args(["-qa", "--qf", format]));
        let mut installed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in list.lines() {
            let (name, version) = line.split_once(' ').unwrap();
            installed.entry(name.into()).or_default().push(version.into());
        }
        installed
    }

    /// What dnf says, asked with these arguments, of the repository at `url`.
    pub fn dnf(&self, url: &str, arguments: &[&str]) -> String {
        run(&mut self.command(url, arguments))
    }

    /// The same, which may fail.
    pub fn try_dnf(&self, url: &str, arguments: &[&str]) -> Output {
        self.command(url, arguments).output().unwrap()
    }

    fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let root = self.root.path().display();
        let mut command = Command::new("dnf");
        command
            .args(["-q", "-y", "--releasever=9", "--repo=t", "--setopt=reposdir=/nonexistent"])
            .arg(format!("--installroot={root}"))
            .arg(format!("--repofrompath=t,{url}"))
            .arg(format!("--setopt=cachedir={root}/cache"))
            .arg(format!("--setopt=logdir={root}/log"))
            .args([
                "--setopt=t.gpgcheck=0",
                "--setopt=t.skip_if_unavailable=0",
                "--setopt=plugins=0",
            ])
            .args(arguments);
        command
    }

    /// A path on it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }
}

/// What a program says; it must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{:?} does not start ({error}): run tools/setup.sh tests", command.get_program())
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}{wrong}");
    said
}

/// A file of the samples.
pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rpm").join(name)
}

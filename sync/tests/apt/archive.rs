//! A Debian archive, made by Debian's own tools, served by a server that counts.

use super::web::Web;
use jiff::{Timestamp, ToSpan};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use sync::adapter::{Adapter, Criteria, Fetched, Read, Run, Said, Watch};
use sync::apt::{Apt, Settings};
use sync::error::{Cause, SyncError};
use sync::fetch::{Fetcher, Patience};
use sync::openpgp::{Keyring, SigningKey};
use sync::update::Update;

/// The archive, with two components.
pub struct Archive {
    pub folder: tempfile::TempDir,
    pub web: Web,
    pub key: SigningKey,
    /// The fields of its Release.
    pub fields: BTreeMap<&'static str, String>,
    pub date: Timestamp,
}

pub const SUITE: &str = "bookworm-security";

pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let done = Command::new(program).args(arguments).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); tools/setup.sh tests installs it")
    });
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
    done.stdout
}

impl Archive {
    /// One without packages, that was never published.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let date = Timestamp::from_second(Timestamp::now().as_second() - 86_400).unwrap();
        let fields = [
            ("Origin", "Debian"),
            ("Label", "Debian-Security"),
            ("Suite", "oldstable-security"),
            ("Codename", SUITE),
            ("Version", "12"),
            ("Architectures", "amd64 arm64"),
            ("Components", "updates/main updates/contrib"),
            ("Description", "Made for a test"),
            ("Acquire-By-Hash", "yes"),
        ];
        for component in ["main", "contrib"] {
            for path in [
                format!("pool/{component}"),
                format!("dists/{SUITE}/{component}/binary-amd64"),
                format!("dists/{SUITE}/{component}/binary-arm64"),
            ] {
                fs::create_dir_all(folder.path().join(path)).unwrap();
            }
        }
        Self {
            web: Web::of(folder.path()),
            key: SigningKey::new([5; 32], "Archive <a@example.org>", date - 24.hours()).unwrap(),
            fields: fields.map(|(key, value)| (key, value.to_owned())).into(),
            folder,
            date,
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn suite(&self, path: &str) -> PathBuf {
        self.path(&format!("dists/{SUITE}/{path}"))
    }

    /// Puts a package into the pool.
    pub fn add(&self, component: &str, name: &str, version: &str, arch: &str, more: &str) {
        let built = tempfile::tempdir().unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: A \
             <a@example.org>\nSection: net\nPriority: optional\nDescription: the {name} \
             program\n Made for a test.\n{more}"
        );
        fs::create_dir(built.path().join("DEBIAN")).unwrap();
        fs::write(built.path().join("DEBIAN/control"), control).unwrap();
        let plain = version.rsplit(':').next().unwrap();
        let deb = self.path(&format!("pool/{component}/{name}_{plain}_{arch}.deb"));
        let (from, to) = (built.path().to_str().unwrap(), deb.to_str().unwrap());
        run("dpkg-deb", &["--root-owner-group", "-Zgzip", "-b", from, to], built.path());
    }

    /// Takes a package out of the pool.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(&format!("pool/{path}"))).unwrap();
    }

    /// The index of a component, as it would be made now.
    pub fn packages(&self, component: &str, arch: &str) -> Vec<u8> {
        let pool = format!("pool/{component}");
        run("apt-ftparchive", &["--arch", arch, "packages", &pool], self.folder.path())
    }

    /// Makes all indexes, and a Release, and signs it.
    pub fn publish(&mut self) {
        for component in ["main", "contrib"] {
            for arch in ["amd64", "arm64"] {
                let path = format!("{component}/binary-{arch}/Packages");
                fs::write(self.suite(&path), self.packages(component, arch)).unwrap();
                run("xz", &["-kf", self.suite(&path).to_str().unwrap()], self.folder.path());
            }
        }
        self.sign();
    }

    /// Makes a Release of the indexes there are, an hour after the one before, and signs it.
    pub fn sign(&mut self) {
        self.date += 1.hour();
        let suite = self.suite("");
        let _ = fs::remove_file(suite.join("Release"));
        let _ = fs::remove_file(suite.join("InRelease"));
        let _ = fs::remove_file(suite.join("Release.gpg"));
        let options: Vec<String> = self
            .fields
            .iter()
            .map(|(key, value)| format!("-oAPT::FTPArchive::Release::{key}={value}"))
            .collect();
        let date = self.date.strftime("%a, %d %b %Y %H:%M:%S UTC");
        let date = format!("-oAPT::FTPArchive::Release::Date={date}");
        let without_hashes = ["-oAPT::FTPArchive::MD5=false", "-oAPT::FTPArchive::SHA1=false"];
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend([date.as_str()]);
        arguments.extend(without_hashes);
        arguments.extend(["release", "."]);
        let mut release = run("apt-ftparchive", &arguments, &suite);
        if let Some(end) = self.fields.get("Valid-Until") {
            // The tool counts this from its own clock; here the test says it.
            release.splice(0..0, format!("Valid-Until: {end}\n").into_bytes());
        }
        self.by_hash(&release);
        self.sign_text(&release);
    }

    /// Signs this text as the Release.
    pub fn sign_text(&self, release: &[u8]) {
        fs::write(self.suite("Release"), release).unwrap();
        let signed = self.key.clear_sign(release, self.date).unwrap();
        fs::write(self.suite("InRelease"), signed).unwrap();
    }

    pub fn release(&self) -> String {
        fs::read_to_string(self.suite("Release")).unwrap()
    }

    /// Links each index under its own digest.
    fn by_hash(&self, release: &[u8]) {
        let mut name = "";
        for line in std::str::from_utf8(release).unwrap().lines() {
            let mut words = line.split_whitespace();
            match (line.starts_with(' '), words.next(), words.next(), words.next()) {
                (true, Some(hex), Some(_), Some(path)) => {
                    let path = self.suite(path);
                    let folder = path.parent().unwrap().join("by-hash").join(name);
                    fs::create_dir_all(&folder).unwrap();
                    fs::copy(path, folder.join(hex)).unwrap();
                }
                (false, Some("SHA256:"), ..) => name = "SHA256",
                (false, Some("SHA512:"), ..) => name = "SHA512",
                _ => {}
            }
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            base: self.web.url(""),
            suites: vec![SUITE.into()],
            components: vec!["main".into(), "contrib".into()],
            architectures: vec!["amd64".into()],
            keyring: Keyring::parse(&self.key.public_bytes().unwrap()).unwrap(),
            tracker: Vec::new(),
            languages: Default::default(),
            release: None,
            definitions: Vec::new(),
        }
    }

    pub fn source(&self) -> Source {
        Source::new(self.settings())
    }
}

/// A source as depot has it: an adapter, its folder, and what the last sync left.
pub struct Source {
    pub apt: Apt,
    pub run: Run,
    pub state: Option<serde_json::Value>,
    folder: tempfile::TempDir,
}

impl Source {
    pub fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::new(Patience::default()).unwrap();
        let run = Run {
            fetcher,
            folder: folder.path().to_owned(),
            now: Timestamp::now(),
            criteria: Arc::new(Criteria::default()),
            watch: Arc::new(Watch::default()),
        };
        Self { apt: Apt::new(settings).unwrap(), run, state: None, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn fetch(&self) -> Result<Fetched, SyncError> {
        self.apt.fetch(&self.run, self.state.as_ref()).await
    }

    pub fn read(&mut self) -> (Vec<Update>, Read) {
        let mut updates = Vec::new();
        let read = self
            .apt
            .read(&self.run, self.state.as_ref(), &mut |said| {
                if let Said::Update(update) = said {
                    updates.push(*update);
                }
                Ok(())
            })
            .unwrap();
        self.state = Some(read.state.clone());
        (updates, read)
    }

    /// A whole sync: its updates, or none where nothing is new.
    pub async fn sync(&mut self) -> Result<Option<Vec<Update>>, SyncError> {
        match self.fetch().await? {
            Fetched::Unchanged => Ok(None),
            Fetched::Changed => Ok(Some(self.read().0)),
        }
    }

    /// Why a sync fails; that it changes nothing.
    pub async fn refusal(&mut self) -> (Cause, String) {
        let before = self.state.clone();
        let error = self.sync().await.unwrap_err();
        assert_eq!(self.state, before);
        (error.cause, error.to_string())
    }
}

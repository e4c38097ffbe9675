//! A Debian archive, made by Debian's own tools, and served.

use super::{Run, Site, temp_folder, web::Web};
use jiff::{Timestamp, ToSpan};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use sync::openpgp::SigningKey;

/// The suite it has.
pub const SUITE: &str = "bookworm-security";

/// A Debian archive, made by Debian's own tools.
pub struct Archive {
    /// Its root.
    pub folder: tempfile::TempDir,
    /// What serves it.
    pub web: Web,
    /// What signs it.
    pub key: SigningKey,
    /// The date of its Release.
    pub date: Timestamp,
    /// Further fields of its Release.
    pub fields: Vec<(&'static str, String)>,
    /// More of its index: of packages that nobody fetches.
    listed: String,
}

/// What a program of the system says; it must succeed.
pub fn tool(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let done = Command::new(program).args(arguments).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); tools/setup.sh tests installs it")
    });
    assert!(done.status.success(), "{program}: {done:?}");
    done.stdout
}

impl Archive {
    /// One without packages.
    pub fn new() -> Self {
        let folder = temp_folder();
        let date = Timestamp::from_second(Timestamp::now().as_second() - 86_400).unwrap();
        for path in ["pool/main", "dists/bookworm-security/main/binary-amd64"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let key = SigningKey::new([5; 32], "Archive <a@example.org>", date - 24.hours()).unwrap();
        let web = Web::of(folder.path());
        let archive = Self { web, folder, key, date, fields: Vec::new(), listed: String::new() };
        fs::write(archive.keyring(), archive.key.public_armored().unwrap()).unwrap();
        archive
    }

    /// The file of its public key.
    pub fn keyring(&self) -> PathBuf {
        self.folder.path().join("archive.asc")
    }

    /// The path of a package's file, below the root.
    pub fn deb(name: &str, version: &str) -> String {
        format!("pool/main/{name}_{version}_amd64.deb")
    }

    /// Puts a package into the pool.
    pub fn add(&self, name: &str, version: &str) {
        self.add_with(name, version, &[]);
    }

    /// Puts one with a file of these bytes into the pool.
    pub fn add_with(&self, name: &str, version: &str, bytes: &[u8]) {
        self.add_saying(name, version, "", bytes);
    }

    /// Puts one into the pool whose control file has these lines, too.
    pub fn add_saying(&self, name: &str, version: &str, lines: &str, bytes: &[u8]) {
        let built = temp_folder();
        let share = built.path().join("usr/share").join(name);
        fs::create_dir_all(&share).unwrap();
        fs::write(share.join("file"), bytes).unwrap();
        fs::create_dir(built.path().join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.org>\n\
             {lines}Description: the {name} program\n Made for a test.\n"
        );
        fs::write(built.path().join("DEBIAN/control"), control).unwrap();
        let deb = self.folder.path().join(Self::deb(name, version));
        let (from, to) = (built.path().to_str().unwrap(), deb.to_str().unwrap());
        tool("dpkg-deb", &["--root-owner-group", "-b", from, to], built.path());
    }

    /// Lists packages of which there is no file: a catalogue needs none.
    pub fn list(&mut self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let sha256 = format!("{n:064x}");
            let _ = write!(
                self.listed,
                "Package: listed-{n}\nVersion: 1.{n}\nArchitecture: amd64\nMaintainer: A <a@example.org>\n\
                 Filename: pool/main/listed-{n}_1.{n}_amd64.deb\nSize: 1000\nSHA256: {sha256}\n\
                 Description: package {n} of many\n\n"
            );
        }
    }

    /// Makes indexes and a signed Release of what lies in the pool.
    pub fn publish(&mut self) {
        self.date += 1.hour();
        let (root, suite) = (self.folder.path(), self.folder.path().join("dists").join(SUITE));
        let mut index = tool("apt-ftparchive", &["--arch", "amd64", "packages", "pool/main"], root);
        index.extend_from_slice(self.listed.as_bytes());
        fs::write(suite.join("main/binary-amd64/Packages"), index).unwrap();
        for signed in ["Release", "InRelease"] {
            let _ = fs::remove_file(suite.join(signed));
        }
        let date = self.date.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
        let fields = [
            ("Origin", "Debian"),
            ("Label", "Debian-Security"),
            ("Suite", "oldstable-security"),
            ("Codename", SUITE),
            ("Version", "12"),
            ("Architectures", "amd64"),
            ("Components", "main"),
            ("Date", date.as_str()),
        ];
        let options =
            fields.map(|(key, value)| format!("-oAPT::FTPArchive::Release::{key}={value}"));
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend(["release", "."]);
        let written = tool("apt-ftparchive", &arguments, &suite);
        let more = self.fields.iter().map(|(key, value)| format!("{key}: {value}\n"));
        let mut release = more.collect::<String>().into_bytes();
        release.extend(written);
        fs::write(suite.join("InRelease"), self.key.clear_sign(&release, self.date).unwrap())
            .unwrap();
    }

    /// The arguments that add it as a source, at this address.
    pub fn source<'a>(&'a self, name: &'a str, url: &'a str, keyring: &'a str) -> Vec<&'a str> {
        let args = [
            "sync",
            "source",
            "add",
            name,
            "--apt",
            url,
            "--suite",
            SUITE,
            "--components",
            "main",
            "--arch",
            "amd64",
            "--keyring",
            keyring,
        ];
        args.to_vec()
    }

    /// Adds it to a site as a source.
    pub fn add_to(&self, site: &Site, name: &str, url: &str) -> Run {
        let keyring = self.keyring();
        site.depot(self.source(name, url, keyring.to_str().unwrap()))
    }
}

//! The real apt-get, as root of a world of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use sync::adapter::Run;
use sync::apt::mirror::Snapshot;
use sync::fetch::Wanted;
use sync::mirror::Origin;

pub struct Client {
    root: tempfile::TempDir,
}

impl Client {
    /// One that installs from `base`, and trusts `keyring`.
    pub fn new(base: &str, suite: &str, components: &str, keyring: &[u8]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for folder in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg",
            "var/log/apt",
        ] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::write(path("var/lib/dpkg/status"), "").unwrap();
        fs::write(path("key.gpg"), keyring).unwrap();
        let key = path("key.gpg");
        let line = format!("deb [signed-by={}] {base} {suite} {components}\n", key.display());
        fs::write(path("etc/apt/sources.list"), line).unwrap();
        // Read before anything of this machine's own configuration, and in its place.
        let config = format!(
            "Dir \"{}\";\nDir::State::status \"{}\";\nAPT::Sandbox::User \"root\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             Acquire::Languages \"none\";\nAcquire::http::Proxy \"DIRECT\";\n\
             Acquire::Check-Valid-Until \"true\";\nAcquire::Check-Date \"true\";\n",
            root.path().display(),
            path("var/lib/dpkg/status").display(),
        );
        fs::write(path("apt.conf"), config).unwrap();
        Self { root }
    }

    /// Whether it succeeds, and all that it says.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let done = Command::new(program)
            .env("APT_CONFIG", self.root.path().join("apt.conf"))
            .env("LC_ALL", "C")
            .env_remove("http_proxy")
            .args(arguments)
            .current_dir(self.root.path())
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (good, said) = self.try_run(program, arguments);
        assert!(good, "{program} {arguments:?}: {said}");
        assert!(!said.contains("W:") && !said.contains("E:"), "{said}");
        said
    }

    /// The bytes of a package, as it downloads them.
    pub fn download(&self, package: &str) -> Vec<u8> {
        self.run("apt-get", &["download", package]);
        let mut files = self.root.path().read_dir().unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.extension().is_some_and(|end| end == "deb")).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        bytes
    }
}

/// Writes a snapshot to a folder, as a distribution point would serve it.
pub async fn write_out(run: &Run, snapshot: &Snapshot, to: &Path) {
    for file in &snapshot.files {
        let path = to.join(file.path.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &file.origin {
            Origin::Local(from) => {
                fs::copy(from, &path).unwrap();
            }
            Origin::Made(bytes) => fs::write(&path, bytes).unwrap(),
            Origin::Remote(urls) => {
                let (size, most) = (Some(file.size), file.size);
                let digests = &file.digests;
                let wanted = Wanted { url: &urls[0], to: &path, most, size, digests, since: None };
                run.fetcher.file(wanted, &run.watch).await.unwrap();
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), file.size, "{}", file.path);
    }
}

//! What the tests share: a site in memory, and trees that can be compared.
#![allow(dead_code)]

use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::{Environment, Library, Options, Progress};
use jiff::{SignedDuration, Timestamp};
use packager::{
    NewPackage, PackageError, PackageName, Packages, Retention, Selector, SiteKey, UpdateOptions,
    UpdateReport, VersionInfo,
};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use tempfile::TempDir;

/// A site with its library in memory, a folder for sources, and a clock that tests can turn.
pub struct Site {
    pub packages: Packages,
    /// Under the library, to damage it.
    pub store: Arc<MemoryStore>,
    pub dir: TempDir,
    ahead: Arc<AtomicI64>,
}

/// The turned clock for the library.
struct Ahead(Arc<AtomicI64>);

impl Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.0.load(Relaxed))
    }
}

impl Environment for Ahead {
    fn unix_ms(&self) -> u64 {
        self.now().as_millisecond() as u64
    }
    fn random(&self) -> u128 {
        rand::random()
    }
}

impl Site {
    pub fn new() -> Self {
        Self::with(|packages| packages)
    }

    /// With packages that `change` changes before anybody uses them.
    pub fn with(change: impl FnOnce(Packages) -> Packages) -> Self {
        let (store, kv) = (Arc::new(MemoryStore::default()), Arc::new(MemoryKv::default()));
        let options = Options { threads: 2, ..Options::default() };
        // An hour ahead, so that files written a moment ago count as settled.
        let ahead = Arc::new(AtomicI64::new(3600));
        let environment = Arc::new(Ahead(ahead.clone()));
        let library = Library::open_on(store.clone(), kv, environment.clone(), options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(move || environment.now());
        let key = SiteKey::from_seed([1; 32]);
        let packages = Packages::open(library, key, dir.path().join("data/cache"), clock).unwrap();
        let packages = change(packages);
        std::fs::create_dir(dir.path().join("source")).unwrap();
        Self { packages, store, dir, ahead }
    }

    /// Turns the clock to so many seconds after the real time.
    pub fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Relaxed);
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn create(&self, name: &str, source: Option<PathBuf>) -> Result<VersionInfo, PackageError> {
        let retention = Retention::default();
        self.packages.create(NewPackage { name: package(name), source, retention })
    }

    /// A package `p` that reads from the source folder.
    pub fn with_package() -> Self {
        let site = Self::new();
        site.create("p", Some(site.source())).unwrap();
        site
    }

    pub fn update(&self) -> Result<UpdateReport, PackageError> {
        self.packages.update(&package("p"), &UpdateOptions::default(), &Progress::default())
    }

    /// Restores the newest version of `p` to the folder `name`, which is answered.
    pub fn restore(&self, name: &str) -> PathBuf {
        let dest = self.path(name);
        let extra = packager::Extra::Keep;
        let (p, latest) = (package("p"), Selector::Latest);
        self.packages.restore(&p, &latest, &dest, extra, &Progress::default()).unwrap();
        dest
    }
}

pub fn package(name: &str) -> PackageName {
    name.parse().unwrap()
}

/// All that a restore must bring back: kind, mode, time of modification, bytes.
pub type Tree = BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)>;

pub fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let bytes = if meta.is_symlink() {
                std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else if meta.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                folders.push(path.clone());
                Vec::new()
            };
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(name, (meta.mode(), meta.mtime(), meta.mtime_nsec(), bytes));
        }
    }
    found
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Whether this process is bound by file modes. If not, since it is root's, the test of this name
/// runs again as nobody, and fails if that fails.
pub fn is_unprivileged(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // A copy, where nobody can reach it.
    let dir = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    match command.args(["--exact", test]).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        }
        Err(error) => eprintln!("{test} is not shown: root may do anything, and setpriv: {error}"),
    }
    false
}

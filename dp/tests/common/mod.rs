//! A distribution point on a free port, over a library and packages in a temporary folder.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used)]

use contentlib::{AddOptions, Aliases, Digest, Library, Progress};
use dp::{Content, DeltaOptions, ServeOptions, Server};
use packager::{NewPackage, PackageName, Packages, SiteKey};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub struct Point {
    pub address: SocketAddr,
    pub library: Library,
    pub packages: Arc<Packages>,
    pub folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A point with everything at its defaults, but for one worker.
pub fn point() -> Point {
    point_with(ServeOptions::default())
}

pub fn point_with(options: ServeOptions) -> Point {
    let folder = tempfile::tempdir().unwrap();
    point_in(folder, options)
}

pub fn point_in(folder: TempDir, options: ServeOptions) -> Point {
    let library = Library::open(&folder.path().join("library"), Default::default()).unwrap();
    let key = SiteKey::from_seed([7; 32]);
    let cache = folder.path().join("data/cache");
    let clock = Arc::new(jiff::Timestamp::now);
    let packages = Arc::new(Packages::open(library.clone(), key, cache, clock).unwrap());
    let content = Content { library: library.clone(), packages: packages.clone() };
    let deltas = DeltaOptions { folder: folder.path().join("data/deltas"), bytes: 64 << 20 };
    let options = ServeOptions {
        workers: std::num::NonZeroUsize::new(1),
        deltas: options.deltas.or(Some(deltas)),
        ..options
    };
    let (tell, address) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
            tell.send(server.local_addr()).unwrap();
            let shutdown = async {
                let _ = stopped.await;
            };
            server.serve(Arc::new(content), shutdown).await.unwrap();
        });
    });
    let address = address.recv().unwrap();
    Point { address, library, packages, folder, stop: Some(stop), thread: Some(thread) }
}

impl Point {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Adds a content, with both aliases.
    pub fn add(&self, bytes: &[u8]) -> Digest {
        let session = self.library.session();
        let aliases = Aliases { sha256: true, sha1: true };
        let options = AddOptions { aliases, ..Default::default() };
        let added = session.add_reader(bytes, &options, &Progress::default()).unwrap();
        session.keep([added.digest]);
        session.commit(vec![]).unwrap();
        added.digest
    }

    /// The source folder of package `name`.
    pub fn source(&self, name: &str) -> PathBuf {
        self.folder.path().join("source").join(name)
    }

    /// Makes a package and its source folder.
    pub fn package(&self, name: &str) -> PackageName {
        let source = self.source(name);
        fs::create_dir_all(&source).unwrap();
        let package: PackageName = name.parse().unwrap();
        let new = NewPackage {
            name: package.clone(),
            source: Some(source),
            retention: Default::default(),
        };
        self.packages.create(new).unwrap();
        package
    }

    /// Takes the package's source as its next version.
    pub fn update(&self, package: &PackageName) -> u64 {
        let report = self.packages.update(package, &Default::default(), &Progress::default());
        report.unwrap().version
    }

    /// Tells the server to stop, without waiting.
    pub fn tell_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the server has stopped.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer as curl saw it.
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Runs curl with `arguments` and takes its last answer apart.
pub fn curl(arguments: &[&str]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let run = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--path-as-is", "--globoff"])
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(arguments)
        .output()
        .unwrap();
    let head = fs::read_to_string(&head).unwrap_or_default();
    assert!(!head.is_empty(), "no answer: {}", String::from_utf8_lossy(&run.stderr));
    let last = head.trim_end().rsplit("\r\n\r\n").next().unwrap();
    let mut lines = last.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let split = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.filter_map(split).collect();
    let body = fs::read(&body).unwrap_or_default();
    Answer { status, headers, body }
}

/// Bytes without repeats, which no library compresses.
pub fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
    out
}

/// Bytes that compress.
pub fn prose(len: usize, seed: u8) -> Vec<u8> {
    let words: Vec<u8> = (0u32..)
        .flat_map(|n| format!("line {} of {seed}\n", n.wrapping_mul(2654435761)).into_bytes())
        .take(len)
        .collect();
    words
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes large and small files, the same ones twice, and an empty one.
pub fn write_tools(source: &Path) {
    write(&source.join("big.bin"), &noise(6 << 20, 1));
    write(&source.join("text/prose.txt"), &prose(3 << 20, 2));
    for n in 0..300 {
        write(&source.join(format!("small/{}/{n}.conf", n % 7)), &prose(100 + n * 13, n as u8));
    }
    write(&source.join("twice/a"), &noise(500_000, 3));
    write(&source.join("twice/b"), &noise(500_000, 3));
    write(&source.join("empty"), b"");
}

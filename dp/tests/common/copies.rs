//! The library of another machine, with copies of what a distribution point has.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used)]

use crate::common::Point;
use contentlib::{ChunkId, GcOptions, Library, Options, Progress};
use dp::remote::{Client, FetchOptions, RemoteError, fetch};
use dp::replica::{Brought, bring};
use dp::{Content, ServeOptions, Server};
use packager::{ManifestLinks, PackageName, Packages, Selector, SiteKey, VersionInfo};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tempfile::TempDir;

/// A library with copies of a site's packages.
pub struct Copies {
    pub folder: TempDir,
    pub packages: Packages,
}

pub fn open(folder: &Path) -> Packages {
    // Without grace, only leases keep what nobody refers to.
    let options = Options { gc_grace: Duration::ZERO, threads: 1, ..Options::default() };
    let library = Library::open(&folder.join("library"), options).unwrap();
    let key = SiteKey::from_seed([7; 32]).public();
    let clock = Arc::new(jiff::Timestamp::now);
    Packages::open_replica(library, key, folder.join("cache"), clock).unwrap()
}

impl Copies {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let packages = open(folder.path());
        Self { folder, packages }
    }

    /// The same, as a process finds it that is started after this one was killed right now.
    pub fn killed(self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy("-r", &self.folder.path().join("library"), folder.path());
        drop(self);
        let packages = open(folder.path());
        Self { folder, packages }
    }

    pub async fn bring(&self, url: &str, info: &VersionInfo) -> Result<Brought, RemoteError> {
        let (client, progress) = (Client::new(url).unwrap(), Arc::<Progress>::default());
        let brought = bring(&client, &self.packages, info, &progress).await?;
        for (done, total) in
            [(&progress.files, &progress.total_files), (&progress.bytes, &progress.total_bytes)]
        {
            assert_eq!(done.load(SeqCst), total.load(SeqCst));
        }
        Ok(brought)
    }

    /// Collects garbage until no more goes.
    pub fn collect(&self) -> u64 {
        let collect = || {
            let (options, progress) = (GcOptions::default(), Progress::default());
            self.packages.library().gc(&options, &ManifestLinks, &progress).unwrap()
        };
        (0..3).map(|_| collect().purged).sum()
    }

    /// Which of a site's chunks of a version are here, condemned or not.
    pub fn held(&self, chunks: &[ChunkId]) -> HashSet<ChunkId> {
        let missing = self.packages.library().missing_chunks(chunks).unwrap();
        chunks.iter().zip(missing).filter_map(|(id, missing)| (!missing).then_some(*id)).collect()
    }

    pub fn versions(&self) -> Vec<String> {
        let held = self.packages.held().unwrap();
        held.iter().map(|v| format!("{}@{}", v.package, v.version)).collect()
    }
}

pub fn copy(how: &str, from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(how).args([from, to]).status().unwrap().success());
}

pub fn version(point: &Point, package: &PackageName, number: u64) -> VersionInfo {
    point.packages.resolve(package, &Selector::Number(number)).unwrap()
}

/// All chunks of a version, with those of its manifest.
pub fn chunks_of(point: &Point, info: &VersionInfo) -> Vec<ChunkId> {
    let manifest = point.packages.manifest(info.manifest).unwrap();
    let contents = manifest.digests().iter().chain([&info.manifest]);
    let recipes = contents.map(|digest| point.library.recipe(*digest).unwrap());
    let mut chunks: Vec<ChunkId> = recipes.flat_map(|r| r.chunks().to_vec()).collect();
    chunks.sort();
    chunks.dedup();
    chunks
}

/// Fetches a version from a server over the copies, and compares it with the site's source.
pub async fn assert_served(copies: &Copies, address: &str, source: &Path) {
    let content = Content {
        library: copies.packages.library().clone(),
        packages: Arc::new(copies.packages.clone()),
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), ServeOptions::default()).unwrap();
    let address = format!("http://{}/packages/{address}", server.local_addr());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::new(content), async {
        let _ = stopped.await;
    }));
    let out = tempfile::tempdir().unwrap();
    fetch(&[&address], out.path(), FetchOptions::default()).await.unwrap();
    let how = ["-r", "--no-dereference", "--exclude", ".depot"];
    let diff = Command::new("diff").args(how).args([source, out.path()]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

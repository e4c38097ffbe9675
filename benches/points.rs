//! How soon do 200 distribution points hold what a site publishes, and what does the site need for it?
//! Input: a package of 1 MiB of noise, distributed to a group of them all; then a new version of it.
//!
//! The site is a process of its own, as it is in the field. The points run together in this one, each
//! with its own folder, port and connections over TLS, so they cost what 200 points cost, on the machine
//! that the site has for itself otherwise: what is measured is an upper bound.
//!
//! `cargo bench --bench points -- 50` takes 50 points.
#![allow(missing_docs, clippy::unwrap_used)]

use dp::ServeOptions;
use dp::node::{self, NodeOptions};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEPOT: &str = env!("CARGO_BIN_EXE_depot");

/// A site in a process of its own; ended when dropped.
struct Site {
    process: Child,
    url: String,
    data: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Site {
    fn start(data: &Path) -> Self {
        // A port that is free now.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{port}");
        let mut serve = Command::new(DEPOT);
        serve.env("DEPOT_CONFIG", "/dev/null").arg("--data").arg(data);
        serve.args(["serve", "--listen", &port.to_string()]);
        let process = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let site = Self { process, url, data: data.to_owned() };
        let answers = || site.run(&["package", "list"]).is_some();
        while !answers() {
            std::thread::sleep(Duration::from_millis(50));
        }
        site
    }

    fn run(&self, args: &[&str]) -> Option<Vec<u8>> {
        let mut depot = Command::new(DEPOT);
        depot.env("DEPOT_CONFIG", "/dev/null").args(["--url", &self.url, "--token-file"]);
        let ended = depot.arg(self.data.join("admin.token")).args(args).output().unwrap();
        ended.status.success().then_some(ended.stdout)
    }

    fn depot(&self, args: &[&str]) -> Vec<u8> {
        self.run(args).unwrap_or_else(|| panic!("depot {args:?} failed"))
    }

    /// How many points hold the version.
    fn n_holding(&self, version: u64) -> usize {
        let rows: Value =
            serde_json::from_slice(&self.depot(&["content-status", "--json"])).unwrap();
        let holds = |row: &&Value| row["state"] == "held" && row["version"] == version;
        rows.as_array().unwrap().iter().filter(holds).count()
    }

    /// The most memory that its process had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn options(folder: PathBuf) -> NodeOptions {
    let one = NonZeroUsize::new(1);
    NodeOptions {
        folder,
        listen: "127.0.0.1:0".parse().unwrap(),
        reached_at: None,
        serve: ServeOptions { workers: one, hot_bytes: 0, access_log: false, ..Default::default() },
        own: None,
        library: contentlib::Options { threads: 1, reserve: 0, ..Default::default() },
        gc_interval: Duration::ZERO,
        scrub_period: Duration::ZERO,
        clock: Arc::new(jiff::Timestamp::now),
        desk: None,
    }
}

/// Waits until all hold the version; how long it took.
fn until_held(site: &Site, version: u64, n: usize, began: Instant) -> Duration {
    while site.n_holding(version) < n {
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

fn main() {
    let n = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(200);
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(&folder.path().join("site"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stop = CancellationToken::new();
    site.depot(&["dp", "group", "create", "all"]);
    let sites = site.url.replace("http://", "https://");
    let mut points = Vec::new();
    for at in 0..n {
        let name = format!("point-{at}");
        let file = folder.path().join("token");
        let output = file.to_str().unwrap();
        let _ = std::fs::remove_file(&file);
        let create = ["dp", "join-token", "create", "--name", &name, "--site-url", &sites];
        site.depot(&[&create[..], &["--output", output]].concat());
        let token = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let options = options(folder.path().join(&name));
        let (started, has_started) = std::sync::mpsc::channel();
        let running = node::run(options, Some(token), stop.clone(), move |_| {
            let _ = started.send(());
        });
        points.push(runtime.spawn(running));
        if has_started.recv().is_err() {
            panic!("{:?}", runtime.block_on(points.pop().unwrap()));
        }
        site.depot(&["dp", "group", "add", "all", &name]);
    }
    println!("{n} points have joined; the site's process has {} MiB", site.peak_mib());

    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let path = source.to_str().unwrap();
    site.depot(&["package", "create", "docs", "--source", path]);
    site.depot(&["distribute", "docs", "--group", "all"]);
    for version in 2..=3 {
        std::fs::write(source.join("file"), noise(version, 1 << 20)).unwrap();
        let began = Instant::now();
        site.depot(&["package", "update", "docs"]);
        let took = until_held(&site, version, n, began);
        let seconds = took.as_secs_f64();
        println!(
            "version {version} of 1 MiB: held by all {n} after {seconds:.1} s; the site had {} MiB",
            site.peak_mib()
        );
    }
    stop.cancel();
    for point in points {
        runtime.block_on(point).unwrap().unwrap();
    }
}

//! What does a distribution point that holds 10 000 packages cost to start, and its site to serve it?
//! Input: as many packages of one file of a few KB, distributed to a group of one point.
//!
//! Site and point are processes of their own, as in the field; between them is a line that counts what
//! comes from the site. How long the packages take to be made, and to be brought the first time, is told
//! beside it.
//!
//! `cargo bench --bench cold_start -- 1000` takes 1000 packages.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use api::{Config, Options, local_router};
use axum::body::Body;
use contentlib::Progress;
use packager::{NewPackage, PackageName, Packages};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::{
    Site, noise,
    point::{Point, dp_serve},
    relay::Line,
};
use tower::ServiceExt;

/// Packages are made by so many threads, which share what is flushed to the disk.
const THREADS: usize = 16;

fn name_of(n: usize) -> PackageName {
    format!("package-{n:05}").parse().unwrap()
}

fn seconds(since: Instant) -> String {
    format!("{:.2} s", since.elapsed().as_secs_f64())
}

/// Makes a package with one file, as an upload does.
fn make(packages: &Packages, n: usize) {
    let (name, source) = (name_of(n), None);
    packages.create(NewPackage { name, source, retention: Default::default() }).unwrap();
    let archive = archive(n as u64);
    packages.put_tar(&name_of(n), &archive[..], &Progress::default()).unwrap();
}

/// A tar of one file.
fn archive(seed: u64) -> Vec<u8> {
    let file = noise(seed, 1000 + (seed as usize * 7919) % 6000);
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "file", &file[..]).unwrap();
    archive.into_inner().unwrap()
}

/// A site of `n` packages, all distributed to the group `all`.
async fn fill(data: &Path, n: usize) {
    let options = Options { data: Some(data.to_owned()), ..Options::default() };
    let config = Config::load(&options, [("DEPOT_CONFIG".into(), "/dev/null".into())]).unwrap();
    let site = api::Site::open(config, "a bench").unwrap();
    let packages = site.content().unwrap().packages;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let packages = &packages;
            scope.spawn(move || (first..n).step_by(THREADS).for_each(|at| make(packages, at)));
        }
    });
    println!("{n} packages are made in {}", seconds(began));
    let router = local_router(site.clone());
    let ask = async |method: &str, path: &str, body: Value| {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let answer = router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap());
        let status = answer.await.unwrap().status();
        assert!(status.is_success(), "{method} {path}: {status}");
    };
    ask("POST", "/api/v1/point-groups", json!({"name": "all"})).await;
    let began = Instant::now();
    for at in 0..n {
        let body = json!({"package": name_of(at).as_str(), "group": "all"});
        ask("PUT", "/api/v1/assignments", body).await;
    }
    println!("and distributed to a group in {}", seconds(began));
    drop((router, packages));
    site.close().await.unwrap();
}

fn bearer(site: &Site) -> String {
    format!("Bearer {}", std::fs::read_to_string(site.token_file()).unwrap().trim())
}

/// What the site knows of the point.
fn shown(site: &Site) -> Value {
    site.request("GET", "/api/v1/points/branch", &[("Authorization", &bearer(site))], b"").json()
}

fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory that a process had, in MiB.
fn peak_mib(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Starts the point and tells what that takes.
fn start_point(what: &str, site: &Site, data: &Path, line: &Line, n: usize) -> Point {
    let before = shown(site)["reported"].clone();
    let passed = line.passed();
    let began = Instant::now();
    let point = Point::start_by(dp_serve(data, None), data);
    let ready = seconds(began);
    let path = format!("/packages/{}/latest/file", name_of(n / 2));
    assert_eq!(point.get(&path).status, 200);
    let answered = seconds(began);
    until(|| shown(site)["reported"] != before);
    let reported = seconds(began);
    let heard = || {
        let shown = shown(site);
        shown["n_held"] == n && line.passed() > passed + 1000
    };
    until(heard);
    println!(
        "{what}: ready after {ready}, first content after {answered}, first report after {reported}; \
         {} bytes came from the site; peak {} MiB",
        line.passed() - passed,
        peak_mib(&point)
    );
    point
}

fn main() {
    let n = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(10_000);
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let folder = support::temp_folder();
    let data = folder.path().join("site");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(fill(&data, n));

    let began = Instant::now();
    let site = Site::start(&data);
    println!("the site is ready after {}; peak {} MiB", seconds(began), peak_mib(&site));
    let line = Line::to(&site.url);
    let url = format!("https://{}", line.address);
    let token = site.join_token("branch", &["--site-url", &url]);
    let home = folder.path().join("point");
    let point = Point::start(&home, Some(&token), &[]);
    let began = Instant::now();
    site.depot(["dp", "group", "add", "all", "branch"]).ok();
    until(|| shown(&site)["n_held"] == n);
    println!(
        "the point holds all after {}, for {} bytes; its peak {} MiB, the site's {} MiB",
        seconds(began),
        line.passed(),
        peak_mib(&point),
        peak_mib(&site)
    );

    point.stop();
    let point = start_point("started again", &site, &home, &line, n);
    point.kill();
    let point = start_point("started again after kill -9", &site, &home, &line, n);

    let began = Instant::now();
    let rows = site.depot(["content-status", "--json"]).ok().json();
    assert_eq!(rows.as_array().unwrap().len(), n);
    println!("content-status of all takes {}", seconds(began));

    // One package of all moves on.
    let name = name_of(n / 3);
    for version in 3..6 {
        let passed = line.passed();
        let archive = archive(1_000_000 + version);
        let put = format!("/api/v1/packages/{name}/tar");
        let head = [("Authorization", &*bearer(&site)), ("Content-Type", "application/x-tar")];
        assert!(site.request("PUT", &put, &head, &archive).status < 300);
        let began = Instant::now();
        let path = format!("/packages/{name}/{version}/file");
        until(|| point.get(&path).status == 200);
        let held = seconds(began);
        let is_settled = |shown: Value| shown["n_missing"] == 0 && shown["n_held"] == n;
        until(|| is_settled(shown(&site)));
        println!(
            "version {version} of one package: held after {held}, told after {}; {} bytes came \
             from the site",
            seconds(began),
            line.passed() - passed
        );
    }
    println!("peaks: the point {} MiB, the site {} MiB", peak_mib(&point), peak_mib(&site));
    point.stop();
    site.stop();
    let began = Instant::now();
    let site = Site::start(&data);
    println!("the site started again is ready after {}", seconds(began));
    drop(site);
}

//! Repository packages: real repositories mirrored, and installed from by the real apt and dnf.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[allow(dead_code, reason = "shared with the tests of the seam")]
#[path = "../sync/tests/apt/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the seam")]
#[path = "../sync/tests/rpm/made.rs"]
mod made;

use client::Client;
use jiff::{Timestamp, ToSpan};
use made::{Machine, Made};
use serde_json::Value;
use std::fs;
use support::archive::{Archive, SUITE, tool};
use support::point::Point;
use support::relay::{Line, Pace};
use support::web::Web;
use support::{Site, temp_folder, until};

/// A site that synchronised an archive with two packages.
fn synchronised() -> (Archive, tempfile::TempDir, Site) {
    let mut archive = Archive::new();
    archive.add("openssl", "3.0.11-1");
    archive.add("curl", "7.88.1-10");
    archive.fields = vec![("Acquire-By-Hash", "yes".into())];
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site, "security");
    (archive, folder, site)
}

fn sync(site: &Site, source: &str) {
    site.depot(["sync", "run", source, "--watch"]).ok();
}

fn update(site: &Site, package: &str) -> Value {
    site.depot(["package", "update", package, "--json"]).ok().json()
}

fn of_pool(asked: &[String]) -> Vec<&str> {
    asked.iter().map(String::as_str).filter(|path| path.starts_with("pool/")).collect()
}

/// apt on a machine that trusts `key` and installs from a version of a package.
fn client(server: &str, version: &str, key: &[u8]) -> Client {
    Client::new(&format!("{server}/packages/{version}"), SUITE, "main", key)
}

#[test]
fn apt_installs_from_a_whole_mirror_and_an_update_brings_only_what_is_new() {
    let (mut archive, folder, site) = synchronised();
    let key = archive.key.public_bytes().unwrap();
    site.depot(["package", "create", "sec", "--mirror", "security", "--keep", "5"]).ok();
    let shown = site.depot(["package", "show", "sec"]).ok().stdout;
    assert!(shown.contains("mirror of security"), "{shown}");
    archive.web.asked();
    let made = update(&site, "sec");
    assert_eq!((&made["version"], &made["unchanged"]), (&2.into(), &false.into()));
    assert_eq!(made["mirror"]["source"], "security");
    assert_eq!(of_pool(&archive.web.asked()).len(), 2);

    let machine = client(&site.url, "sec/latest", &key);
    machine.run("apt-get", &["update"]);
    let policy = machine.run("apt-cache", &["policy", "openssl"]);
    assert!(policy.contains("Candidate: 3.0.11-1"), "{policy}");
    machine.run("apt-get", &["install", "-y", "--download-only", "curl"]);
    let deb = fs::read(archive.folder.path().join(Archive::deb("openssl", "3.0.11-1"))).unwrap();
    assert_eq!(machine.download("openssl"), deb);
    let suite = format!("/packages/sec/latest/dists/{SUITE}");
    let signed = fs::read(archive.folder.path().join("dists").join(SUITE).join("InRelease"));
    assert_eq!(site.get(&format!("{suite}/InRelease")).body, signed.unwrap());
    let by_hash = site.get(&format!("{suite}/main/binary-amd64/by-hash/SHA256/"));
    assert_eq!(by_hash.status, 200, "{}", by_hash.head);

    // What is as it was makes no version, and is not brought.
    let same = update(&site, "sec");
    assert_eq!((&same["version"], &same["unchanged"]), (&2.into(), &true.into()));
    assert!(of_pool(&archive.web.asked()).is_empty());

    // A snapshot is of the last sync, not of the moment.
    site.depot(["package", "channel", "set", "sec", "stable", "2"]).ok();
    archive.add("openssl", "3.0.11-2");
    archive.fields.push(("Valid-Until", {
        let end = Timestamp::now() + 48.hours();
        end.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
    }));
    archive.publish();
    assert_eq!(update(&site, "sec")["unchanged"], true);
    sync(&site, "security");
    archive.web.asked();
    let newer = update(&site, "sec");
    assert_eq!((&newer["version"], &newer["unchanged"]), (&3.into(), &false.into()));
    assert!(!newer["mirror"]["valid_until"].is_null(), "{newer}");
    assert_eq!(of_pool(&archive.web.asked()), [Archive::deb("openssl", "3.0.11-2")]);
    let has = |version: &str, candidate: &str| {
        let machine = client(&site.url, version, &key);
        machine.run("apt-get", &["update"]);
        let policy = machine.run("apt-cache", &["policy", "openssl"]);
        assert!(policy.contains(&format!("Candidate: {candidate}")), "{policy}");
    };
    has("sec/latest", "3.0.11-2");
    has("sec/stable", "3.0.11-1");
    // Promoted, and rolled back.
    site.depot(["package", "channel", "set", "sec", "stable", "latest"]).ok();
    has("sec/stable", "3.0.11-2");
    site.depot(["package", "channel", "set", "sec", "stable", "2"]).ok();
    has("sec/stable", "3.0.11-1");

    // Beside the site, at a distribution point.
    let token = site.join_token("branch", &[]);
    let point = Point::start(&folder.path().join("point"), Some(&token), &[]);
    site.depot(["distribute", "sec", "--dp", "branch"]).ok();
    site.until_held("sec", 3);
    let machine = client(&point.url, "sec/latest", &key);
    machine.run("apt-get", &["update"]);
    assert_eq!(machine.download("curl").len() as u64, {
        let deb = archive.folder.path().join(Archive::deb("curl", "7.88.1-10"));
        fs::metadata(deb).unwrap().len()
    });
    assert!(site.depot(["package", "update", "sec", "--read-all"]).fails(4).contains("mirrors"));
    site.depot(["package", "delete", "sec", "--yes"]).ok();
    site.depot(["package", "create", "sec"]).ok();
    let again = site.depot(["package", "show", "sec", "--json"]).ok().json();
    assert!(again["mirror"].is_null(), "{again}");
}

#[test]
fn a_mirror_of_chosen_packages_is_signed_by_the_site() {
    let (archive, _folder, site) = synchronised();
    let create = ["package", "create", "tls", "--mirror", "security", "--only", "open*"];
    site.depot(create).ok();
    let made = update(&site, "tls");
    assert_eq!(of_pool(&archive.web.asked()), [Archive::deb("openssl", "3.0.11-1")]);
    assert_eq!(update(&site, "tls")["unchanged"], true);
    assert_eq!(made["version"], 2);

    let armored = site.depot(["site", "openpgp-key"]).ok().stdout;
    let keys = temp_folder();
    fs::write(keys.path().join("site.asc"), &armored).unwrap();
    let key = tool("gpg", &["--dearmor", "-o", "-", "site.asc"], keys.path());
    let machine = client(&site.url, "tls/latest", &key);
    machine.run("apt-get", &["update"]);
    let policy = machine.run("apt-cache", &["policy", "openssl", "curl"]);
    assert!(policy.contains("Candidate: 3.0.11-1") && !policy.contains("7.88"), "{policy}");
    machine.run("apt-get", &["install", "-y", "--download-only", "openssl"]);
    let stranger = client(&site.url, "tls/latest", &archive.key.public_bytes().unwrap());
    assert!(!stranger.try_run("apt-get", &["update"]).0);

    // A key that was lost is not made anew: no machine would trust it.
    let file = site.data.join("keys/site.openpgp");
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let line = site.depot(["package", "update", "tls"]).fails(1);
    assert!(line.contains("site.openpgp") && line.contains("backup"), "{line}");
    fs::write(&file, kept).unwrap();
    assert_eq!(update(&site, "tls")["unchanged"], true);
}

#[test]
fn of_an_upstream_that_changes_meanwhile_no_version_is_made() {
    let (mut archive, _folder, site) = synchronised();
    let line = site.depot(["package", "create", "x", "--mirror", "nothing"]).fails(2);
    assert!(line.contains("nothing"), "{line}");
    let create = ["package", "create", "x", "--mirror", "security", "--only-installed-on", "all"];
    assert!(site.depot(create).fails(2).contains("not reported"));
    site.depot(["package", "create", "sec", "--mirror", "security"]).ok();
    // The pool is of another state than the index that the sync found.
    let deb = archive.folder.path().join(Archive::deb("openssl", "3.0.11-1"));
    let mut other = fs::read(&deb).unwrap();
    *other.last_mut().unwrap() ^= 1;
    let right = fs::read(&deb).unwrap();
    fs::write(&deb, other).unwrap();
    let line = site.depot(["package", "update", "sec"]).fails(1);
    assert!(
        line.contains("openssl_3.0.11-1") && line.contains("depot sync run security"),
        "{line}"
    );
    let shown = site.depot(["package", "show", "sec", "--json"]).ok().json();
    assert_eq!(shown["n_versions"], 1);

    // What came is kept: only the rest is asked for.
    fs::write(&deb, right).unwrap();
    archive.web.asked();
    assert_eq!(update(&site, "sec")["version"], 2);
    assert_eq!(of_pool(&archive.web.asked()), [Archive::deb("openssl", "3.0.11-1")]);

    // One that is gone.
    archive.add("zlib", "1.2-1");
    archive.publish();
    sync(&site, "security");
    fs::remove_file(archive.folder.path().join(Archive::deb("zlib", "1.2-1"))).unwrap();
    let job = site.depot(["package", "update", "sec"]).fails(1);
    assert!(job.contains("zlib_1.2-1"), "{job}");

    // What was never synchronised cannot be mirrored.
    archive.add_to(&site, "other", &archive.web.url).ok();
    site.depot(["package", "create", "o", "--mirror", "other"]).ok();
    assert!(site.depot(["package", "update", "o"]).fails(4).contains("depot sync run other"));
}

#[test]
fn a_mirror_that_is_cancelled_or_killed_on_its_way_goes_on_where_it_was() {
    const LARGE: u64 = 4 << 20;
    let mut archive = Archive::new();
    archive.add("small", "1-1");
    archive.add_with("large", "1-1", &noise(LARGE as usize));
    archive.publish();
    let line = Line::to(&archive.web.url);
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    archive.add_to(&site, "security", &format!("http://{}", line.address)).ok();
    sync(&site, "security");
    site.depot(["package", "create", "sec", "--mirror", "security"]).ok();

    let part = |least: u64| {
        let coming = fs::read_dir(data.join("cache/coming/sec")).into_iter().flatten();
        let parts = coming.map(|entry| entry.unwrap());
        parts.filter_map(|part| part.metadata().ok()).any(|part| part.len() >= least)
    };
    line.set(Pace::UpTo(line.passed() + LARGE / 4));
    let job = site.depot(["package", "update", "sec", "--detach", "--json"]).ok().json();
    let id = job["id"].as_str().unwrap();
    until("some of it comes", || part(LARGE / 8));
    // The next one waits for it.
    site.depot(["package", "update", "sec", "--detach"]).ok();
    site.depot(["job", "cancel", id]).ok();
    until("it ends", || {
        site.depot(["job", "show", id, "--json"]).ok().json()["state"] == "cancelled"
    });
    line.set(Pace::UpTo(line.passed() + LARGE / 4));
    until("the next goes on", || part(LARGE / 3));
    site.kill();

    let site = Site::start(&data);
    let shown = site.depot(["package", "show", "sec", "--json"]).ok().json();
    assert_eq!(shown["n_versions"], 1);
    let before = line.passed();
    line.set(Pace::Free);
    let made = update(&site, "sec");
    assert_eq!((&made["version"], &made["unchanged"]), (&2.into(), &false.into()));
    let came = line.passed() - before;
    assert!(came < LARGE * 3 / 4, "{came} of {LARGE} bytes came again");
    assert!(!data.join("cache/coming/sec").exists());
    let served = site.get(&format!("/packages/sec/latest/{}", Archive::deb("large", "1-1")));
    let deb = archive.folder.path().join(Archive::deb("large", "1-1"));
    assert_eq!(served.body, fs::read(deb).unwrap());
}

/// Bytes that cannot be packed.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(n).collect()
}

#[test]
fn dnf_installs_from_mirrors_whole_and_chosen() {
    let made = Made::new();
    made.package("tool", "1.0-1", "");
    made.package("other", "2.0-1", "");
    made.index(None);
    let web = Web::of(&made.path());
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    site.depot(["sync", "source", "add", "alma", "--rpm", &web.url, "--unsigned"]).ok();
    sync(&site, "alma");
    site.depot(["package", "create", "all", "--mirror", "alma"]).ok();
    let few = ["package", "create", "few", "--mirror", "alma", "--only", "to*,nothing"];
    site.depot(few).ok();
    assert_eq!(update(&site, "all")["version"], 2);
    let found = update(&site, "few");
    assert_eq!(found["mirror"]["missing"], serde_json::json!(["nothing"]));
    assert_eq!(update(&site, "few")["unchanged"], true);

    let machine = Machine::with(&[]);
    let url = |package: &str| format!("{}/packages/{package}/latest/", site.url);
    machine.dnf(&url("all"), &["makecache"]);
    let list = machine.dnf(&url("all"), &["repoquery", "tool", "other"]);
    assert!(list.contains("other") && list.contains("tool"), "{list}");
    let to = format!("--downloaddir={}", machine.path("down").display());
    machine.dnf(&url("all"), &["install", "--downloadonly", &to, "tool", "other"]);
    assert_eq!(machine.path("down").read_dir().unwrap().count(), 2);

    let armored = site.depot(["site", "openpgp-key"]).ok().stdout;
    let key = folder.path().join("site.asc");
    fs::write(&key, armored).unwrap();
    let signed = "--setopt=t.repo_gpgcheck=1";
    let trusts = format!("--setopt=t.gpgkey=file://{}", key.display());
    let machine = Machine::with(&[]);
    let list = machine.dnf(&url("few"), &[signed, &trusts, "repoquery"]);
    assert!(list.contains("tool") && !list.contains("other"), "{list}");

    // A new package: only that one comes.
    made.package("tool", "1.1-1", "");
    made.index(None);
    sync(&site, "alma");
    web.asked();
    assert_eq!(update(&site, "all")["version"], 3);
    let asked = web.asked();
    let rpms: Vec<_> = asked.iter().filter(|path| path.ends_with(".rpm")).collect();
    assert_eq!(rpms, ["Packages/noarch/tool-1.1-1.noarch.rpm"]);
}

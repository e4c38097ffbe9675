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
use support::fleet::Member;
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
fn what_was_chosen_and_is_not_there_is_told_and_nothing_is_no_version() {
    let (_archive, _folder, site) = synchronised();
    let create = |name, only| ["package", "create", name, "--mirror", "security", "--only", only];
    site.depot(create("some", "openssl,nosuch*")).ok();
    let made = update(&site, "some");
    assert_eq!(made["mirror"]["missing"], serde_json::json!(["nosuch*"]), "{made}");
    site.depot(create("none", "nosuch*")).ok();
    let line = site.depot(["package", "update", "none"]).fails(2);
    assert!(line.contains("no package that was chosen"), "{line}");
    let shown = site.depot(["package", "show", "none", "--json"]).ok().json();
    assert_eq!(shown["latest"]["version"], 1, "{shown}");
}

#[test]
fn a_choice_with_its_dependencies_installs_on_its_own() {
    let mut archive = Archive::new();
    archive.add_saying("app", "1-1", "Depends: lib (>= 2), mailer | gone\n", b"");
    archive.add_saying("lib", "1-1", "", b"");
    archive.add_saying("lib", "2-1", "Pre-Depends: base\n", b"");
    archive.add_saying("post", "1-1", "Provides: mailer\nDepends: app, nowhere (>= 3)\n", b"");
    archive.add("base", "1-1");
    archive.add("unwanted", "1-1");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site, "security");
    let all = ["package", "create", "all", "--mirror", "security", "--with-dependencies"];
    assert!(site.depot(all).fails(2).contains("--with-dependencies needs a choice"));
    let create =
        ["package", "create", "app", "--mirror", "security", "--only", "app", "--keep", "2"];
    site.depot(create.iter().chain(&["--with-dependencies"])).ok();
    archive.web.asked();
    let made = update(&site, "app");
    let asked = archive.web.asked();
    let mut came = of_pool(&asked);
    came.sort_unstable();
    let deb = |name: &str, version: &str| Archive::deb(name, version);
    let wanted = [deb("app", "1-1"), deb("base", "1-1"), deb("lib", "2-1"), deb("post", "1-1")];
    assert_eq!(came, wanted);
    assert_eq!(made["mirror"]["missing"], serde_json::json!(["nowhere (>= 3), for post"]));
    assert_eq!(update(&site, "app")["unchanged"], true);

    // The unmet one is of another archive: without it, all installs.
    archive.add_saying("post", "1-2", "Provides: mailer\nDepends: app\n", b"");
    archive.publish();
    sync(&site, "security");
    // Two versions are kept, so the empty one goes.
    assert_eq!(update(&site, "app")["removed_versions"], serde_json::json!([1]));
    let armored = site.depot(["site", "openpgp-key"]).ok().stdout;
    let keys = temp_folder();
    fs::write(keys.path().join("site.asc"), &armored).unwrap();
    let key = tool("gpg", &["--dearmor", "-o", "-", "site.asc"], keys.path());
    let machine = client(&site.url, "app/latest", &key);
    machine.run("apt-get", &["update"]);
    let done = machine.run("apt-get", &["install", "-y", "--download-only", "app"]);
    assert!(done.contains("lib") && done.contains("base") && done.contains("post"), "{done}");
    let policy = machine.run("apt-cache", &["policy", "unwanted"]);
    assert!(!policy.contains("1-1"), "{policy}");

    // Set lower later, it counts from the next version on; what a channel means stays.
    site.depot(["package", "channel", "set", "app", "stable", "2"]).ok();
    site.depot(["package", "retain", "app", "--keep", "1"]).ok();
    archive.add_saying("lib", "2-2", "", b"");
    archive.publish();
    sync(&site, "security");
    assert_eq!(update(&site, "app")["removed_versions"], serde_json::json!([3]));
}

#[test]
fn a_mirror_of_what_a_collection_has_installed_follows_the_machines() {
    let mut archive = Archive::new();
    archive.add_saying("nginx", "1.22-1", "Depends: libssl (>= 3)\n", b"");
    archive.add("libssl", "3.0-1");
    archive.add("postgresql", "15-1");
    archive.add("unwanted", "1-1");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site, "security");
    let create = ["package", "create", "web", "--mirror", "security", "--with-dependencies"];
    let create = |more: &str| site.depot(create.iter().chain(&["--only-installed-on", more]));
    assert!(create("web").fails(2).contains("there is no collection \"web\""));
    site.depot(["collection", "create", "web", "--rule", "package = nginx"]).ok();
    create("web").ok();
    let line = site.depot(["package", "update", "web"]).fails(4);
    assert!(line.contains("none of the 0 clients of collection \"web\""), "{line}");

    let one = Member::join(&site, "pc-1");
    one.tell(0, &[("nginx", "1.18-1"), ("ours", "1")]);
    Member::join(&site, "pc-2").tell(0, &[("postgresql", "15-1")]);
    let members = site.depot(["collection", "members", "web", "--json"]).ok().json();
    assert_eq!(members[0]["name"], "pc-1");
    archive.web.asked();
    let made = update(&site, "web");
    let came = |asked: Vec<String>| {
        let mut came: Vec<_> = of_pool(&asked).iter().map(ToString::to_string).collect();
        came.sort_unstable();
        came
    };
    let deb = |name: &str, version: &str| Archive::deb(name, version);
    assert_eq!(came(archive.web.asked()), [deb("libssl", "3.0-1"), deb("nginx", "1.22-1")]);
    assert!(made["mirror"].get("missing").is_none(), "{made}");

    // What a machine gets is in the next version.
    one.tell(1, &[("postgresql", "14-1")]);
    assert_eq!(update(&site, "web")["version"], 3);
    let armored = site.depot(["site", "openpgp-key"]).ok().stdout;
    let keys = temp_folder();
    fs::write(keys.path().join("site.asc"), &armored).unwrap();
    let key = tool("gpg", &["--dearmor", "-o", "-", "site.asc"], keys.path());
    let machine = client(&site.url, "web/latest", &key);
    machine.run("apt-get", &["update"]);
    let install = ["install", "-y", "--download-only", "nginx", "postgresql"];
    let done = machine.run("apt-get", &install);
    assert!(done.contains("libssl"), "{done}");
    let policy = machine.run("apt-cache", &["policy", "unwanted"]);
    assert!(!policy.contains("1-1"), "{policy}");
}

#[test]
fn of_an_upstream_that_changes_meanwhile_no_version_is_made() {
    let (mut archive, _folder, site) = synchronised();
    let line = site.depot(["package", "create", "x", "--mirror", "nothing"]).fails(2);
    assert!(line.contains("--mirror must be a source") && line.contains("nothing"), "{line}");
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

    // Metadata that the sync had no need of, and that are of another state by now.
    let index = archive.folder.path().join("dists").join(SUITE).join("main/binary-amd64");
    archive.publish();
    tool("gzip", &["-k", "Packages"], &index);
    tool("xz", &["-k", "Packages"], &index);
    archive.publish();
    sync(&site, "security");
    for form in ["Packages.gz", "Packages.xz"] {
        fs::write(index.join(form), "of another state").unwrap();
    }
    let line = site.depot(["package", "update", "sec"]).fails(1);
    assert!(line.contains("were stated") && line.contains("depot sync run security"), "{line}");

    // What was never synchronised cannot be mirrored.
    archive.add_to(&site, "other", &archive.web.url).ok();
    site.depot(["package", "create", "o", "--mirror", "other"]).ok();
    assert!(site.depot(["package", "update", "o"]).fails(4).contains("depot sync run other"));

    // Who removes the source is told which packages get no new versions.
    let remove = ["sync", "source", "remove", "security"];
    assert!(site.depot(remove).fails(2).contains("no new ones: sec"));
    let answer = site.depot(remove.into_iter().chain(["--yes", "--json"])).ok().json();
    assert_eq!(answer["mirrored_by"], serde_json::json!(["sec"]));
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

#[test]
fn packages_on_demand_come_once_when_a_machine_asks_first() {
    let (mut archive, folder, site) = synchronised();
    let key = archive.key.public_bytes().unwrap();
    site.depot(["package", "create", "lazy", "--mirror", "security", "--on-demand"]).ok();
    let shown = site.depot(["package", "show", "lazy"]).ok().stdout;
    assert!(shown.contains("mirror of security, on demand"), "{shown}");
    archive.web.asked();
    let made = update(&site, "lazy");
    assert_eq!((&made["version"], &made["mirror"]["on_demand"]["files"]), (&2.into(), &2.into()));
    assert!(of_pool(&archive.web.asked()).is_empty(), "only metadata came");

    // All who ask at once wait for one transfer.
    let openssl = Archive::deb("openssl", "3.0.11-1");
    let deb = fs::read(archive.folder.path().join(&openssl)).unwrap();
    let path = format!("/packages/lazy/latest/{openssl}");
    std::thread::scope(|threads| {
        let asking: Vec<_> = (0..8).map(|_| threads.spawn(|| site.get(&path))).collect();
        for answer in asking {
            let answer = answer.join().unwrap();
            assert_eq!((answer.status, &answer.body), (200, &deb), "{}", answer.head);
        }
    });
    assert_eq!(of_pool(&archive.web.asked()), [openssl.as_str()]);

    let machine = client(&site.url, "lazy/latest", &key);
    machine.run("apt-get", &["update"]);
    machine.run("apt-get", &["install", "-y", "--download-only", "openssl", "curl"]);
    let curl = Archive::deb("curl", "7.88.1-10");
    assert_eq!(of_pool(&archive.web.asked()), [curl.as_str()]);
    // What came is kept, and changes no version.
    site.depot(["library", "gc"]).ok();
    assert_eq!(update(&site, "lazy")["unchanged"], true);
    assert_eq!(site.get(&path).body, deb);
    let pool = path.rsplit_once('/').unwrap().0;
    let listing = site.get(&format!("{pool}/"));
    assert!(String::from_utf8_lossy(&listing.body).contains("openssl_3.0.11-1_amd64.deb"));
    assert!(of_pool(&archive.web.asked()).is_empty());

    // A distribution point asks its site, which asks the upstream; each of them once.
    archive.add("zlib", "1.2-1");
    archive.publish();
    sync(&site, "security");
    assert_eq!(update(&site, "lazy")["version"], 3);
    let token = site.join_token("branch", &[]);
    let point = Point::start(&folder.path().join("point"), Some(&token), &[]);
    site.depot(["distribute", "lazy", "--dp", "branch"]).ok();
    site.until_held("lazy", 3);
    archive.web.asked();
    let machine = client(&point.url, "lazy/latest", &key);
    machine.run("apt-get", &["update"]);
    assert_eq!(machine.download("openssl"), deb);
    let zlib = Archive::deb("zlib", "1.2-1");
    let right = fs::read(archive.folder.path().join(&zlib)).unwrap();
    for _ in 0..2 {
        assert_eq!(machine.download("zlib"), right);
    }
    assert_eq!(of_pool(&archive.web.asked()), [zlib.as_str()]);
    // The point has them to itself from now on.
    site.kill();
    let machine = client(&point.url, "lazy/latest", &key);
    machine.run("apt-get", &["update"]);
    assert_eq!((machine.download("zlib"), machine.download("openssl")), (right, deb));
}

#[test]
fn a_package_on_demand_that_its_upstream_has_not_as_listed_is_never_served() {
    let mut archive = Archive::new();
    archive.add("openssl", "3.0.11-1");
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let line = Line::to(&archive.web.url);
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &format!("http://{}", line.address)).ok();
    sync(&site, "security");
    site.depot(["package", "create", "lazy", "--mirror", "security", "--on-demand"]).ok();
    update(&site, "lazy");
    let openssl = Archive::deb("openssl", "3.0.11-1");
    let (path, file) =
        (format!("/packages/lazy/latest/{openssl}"), archive.folder.path().join(&openssl));
    let right = fs::read(&file).unwrap();
    let mut other = right.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&file, other).unwrap();
    let said = |status: u16, words: &str| {
        let answer = site.get(&path);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == status && body.contains(words), "{}{body}", answer.head);
    };
    said(502, "the upstream has this file no more");
    fs::remove_file(&file).unwrap();
    said(502, "the upstream has this file no more");
    fs::write(&file, &right).unwrap();
    assert_eq!(site.get(&path).body, right);
    assert_eq!(site.get("/packages/lazy/latest/pool/none.deb").status, 404);

    // An upstream that is away, and a source that is.
    let curl = format!("/packages/lazy/latest/{}", Archive::deb("curl", "7.88.1-10"));
    line.set(Pace::CutAt(line.passed()));
    let answer = site.get(&curl);
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.head.to_ascii_lowercase().contains("retry-after"), "{}", answer.head);
    site.depot(["sync", "source", "remove", "security", "--yes"]).ok();
    let answer = site.get(&curl);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(answer.status == 502 && body.contains("add that source again"), "{body}");
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
fn a_choice_of_rpms_with_what_they_require_installs_on_its_own() {
    let made = Made::new();
    let requires = "Requires: lib >= 2\nRequires: /usr/share/data/table\nRequires: mailer\n\
                    Requires: (extra if mailer)\nRequires: (gone or base)\nRecommends: weak";
    made.package("app", "1-1", requires);
    made.package("lib", "1-1", "");
    made.package("lib", "2-1", "Requires: base < 5");
    made.package("lib", "3-1", "Requires: base < 5");
    made.package("base", "1-1", "");
    made.package("base", "7-1", "");
    // Only the list of all files has that path.
    made.package_of("tables", "1-1", "", &["/usr/share/data/table"]);
    made.package("post", "1-1", "Provides: mailer = 4\nRequires: app\nRequires: nowhere >= 3");
    made.package("extra", "1-1", "");
    made.package("weak", "1-1", "");
    made.package("unwanted", "1-1", "");
    made.index(None);
    let web = Web::of(&made.path());
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    site.depot(["sync", "source", "add", "alma", "--rpm", &web.url, "--unsigned"]).ok();
    sync(&site, "alma");
    let all = ["package", "create", "all", "--mirror", "alma", "--with-dependencies"];
    assert!(site.depot(all).fails(2).contains("--with-dependencies needs a choice"));
    let create = ["package", "create", "app", "--mirror", "alma", "--only", "app"];
    site.depot(create.iter().chain(&["--with-dependencies"])).ok();
    web.asked();
    let found = update(&site, "app");
    assert_eq!(found["mirror"]["missing"], serde_json::json!(["nowhere >= 3, for post"]));
    let mut came = web.asked();
    came.retain(|path| path.ends_with(".rpm"));
    came.sort_unstable();
    let rpm = |name: &str| format!("Packages/noarch/{name}.noarch.rpm");
    let wanted =
        ["app-1-1", "base-1-1", "base-7-1", "extra-1-1", "lib-3-1", "post-1-1", "tables-1-1"];
    assert_eq!(came, wanted.map(rpm));
    assert_eq!(update(&site, "app")["unchanged"], true);

    // Without the one that nothing meets, a machine that has nothing installs it.
    fs::remove_file(made.path().join(rpm("post-1-1"))).unwrap();
    made.package("post", "1-2", "Provides: mailer = 4\nRequires: app");
    made.index(None);
    sync(&site, "alma");
    assert_eq!(update(&site, "app")["mirror"]["missing"], Value::Null);
    let machine = Machine::with(&[]);
    let url = format!("{}/packages/app/latest/", site.url);
    machine.dnf(&url, &["install", "app"]);
    let installed: Vec<String> = machine.installed().into_keys().collect();
    assert_eq!(installed, ["app", "base", "extra", "lib", "post", "tables"]);
    assert!(machine.path("usr/share/data/table").exists());
    let list = machine.dnf(&url, &["repoquery"]);
    assert!(!list.contains("unwanted") && !list.contains("weak"), "{list}");
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

    // The same on demand: nothing comes but what is installed.
    site.depot(["package", "delete", "few", "--yes"]).ok();
    site.depot(["package", "create", "lazy", "--mirror", "other", "--on-demand"]).fails(2);
    made.package("late", "1.0-1", "");
    made.package("never", "1.0-1", "");
    made.index(None);
    sync(&site, "alma");
    web.asked();
    site.depot(["package", "create", "lazy", "--mirror", "alma", "--on-demand"]).ok();
    assert_eq!(update(&site, "lazy")["mirror"]["on_demand"]["files"], 4);
    let of_packages = |asked: Vec<String>| -> Vec<String> {
        asked.into_iter().filter(|path| path.ends_with(".rpm")).collect()
    };
    assert!(of_packages(web.asked()).is_empty());
    let machine = Machine::with(&[]);
    let to = format!("--downloaddir={}", machine.path("down").display());
    machine.dnf(&url("lazy"), &["makecache"]);
    machine.dnf(&url("lazy"), &["install", "--downloadonly", &to, "tool", "late"]);
    assert_eq!(machine.path("down").read_dir().unwrap().count(), 2);
    // The tool is held already, of the other mirror.
    assert_eq!(of_packages(web.asked()), ["Packages/noarch/late-1.0-1.noarch.rpm"]);
    assert_eq!(update(&site, "all")["version"], 3);

    // A new package: only that one comes.
    made.package("tool", "1.1-1", "");
    made.index(None);
    sync(&site, "alma");
    web.asked();
    assert_eq!(update(&site, "all")["version"], 4);
    let asked = web.asked();
    let rpms: Vec<_> = asked.iter().filter(|path| path.ends_with(".rpm")).collect();
    assert_eq!(rpms, ["Packages/noarch/tool-1.1-1.noarch.rpm"]);
}

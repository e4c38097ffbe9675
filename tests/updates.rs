//! Updates from a real Debian archive, by the commands that the README has, over real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use support::{Run, Site, on_data, relay, temp_folder, until, web::Web};
use sync::openpgp::SigningKey;

const SUITE: &str = "bookworm-security";

/// A Debian archive, made by Debian's own tools.
struct Archive {
    folder: tempfile::TempDir,
    web: Web,
    key: SigningKey,
    date: Timestamp,
}

fn tool(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let done = Command::new(program).args(arguments).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); tools/setup.sh tests installs it")
    });
    assert!(done.status.success(), "{program}: {done:?}");
    done.stdout
}

impl Archive {
    fn new() -> Self {
        let folder = temp_folder();
        let date = Timestamp::from_second(Timestamp::now().as_second() - 86_400).unwrap();
        for path in ["pool/main", "dists/bookworm-security/main/binary-amd64"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let key = SigningKey::new([5; 32], "Archive <a@example.org>", date - 24.hours()).unwrap();
        let archive = Self { web: Web::of(folder.path()), folder, key, date };
        fs::write(archive.keyring(), archive.key.public_armored().unwrap()).unwrap();
        archive
    }

    fn keyring(&self) -> PathBuf {
        self.folder.path().join("archive.asc")
    }

    fn add(&self, name: &str, version: &str) {
        let built = temp_folder();
        fs::create_dir(built.path().join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.org>\n\
             Description: the {name} program\n Made for a test.\n"
        );
        fs::write(built.path().join("DEBIAN/control"), control).unwrap();
        let deb = self.folder.path().join(format!("pool/main/{name}_{version}_amd64.deb"));
        let (from, to) = (built.path().to_str().unwrap(), deb.to_str().unwrap());
        tool("dpkg-deb", &["--root-owner-group", "-b", from, to], built.path());
    }

    fn publish(&mut self) {
        self.date += 1.hour();
        let (root, suite) = (self.folder.path(), self.folder.path().join("dists").join(SUITE));
        let index = tool("apt-ftparchive", &["--arch", "amd64", "packages", "pool/main"], root);
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
        let release = tool("apt-ftparchive", &arguments, &suite);
        fs::write(suite.join("InRelease"), self.key.clear_sign(&release, self.date).unwrap())
            .unwrap();
    }

    /// The arguments that add it as a source, at this address.
    fn source<'a>(&'a self, name: &'a str, url: &'a str, keyring: &'a str) -> Vec<&'a str> {
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

    fn add_to(&self, site: &Site, name: &str, url: &str) -> Run {
        let keyring = self.keyring();
        site.depot(self.source(name, url, keyring.to_str().unwrap()))
    }
}

fn names(site: &Site) -> Vec<String> {
    let list = site.depot(["update", "list", "--order", "title", "--json"]).ok().json();
    list.as_array()
        .unwrap()
        .iter()
        .map(|update| update["name"].as_str().unwrap().to_owned())
        .collect()
}

fn ids(site: &Site) -> Vec<u64> {
    let all = site.depot(["status-messages", "list", "--json"]).ok().json();
    all.as_array().unwrap().iter().rev().map(|message| message["id"].as_u64().unwrap()).collect()
}

fn last(site: &Site) -> Value {
    let history = site.depot(["sync", "history", "--limit", "1", "--json"]).ok().json();
    history[0].clone()
}

#[test]
fn updates_of_an_archive_are_synchronised_listed_shown_and_withdrawn() {
    let mut archive = Archive::new();
    archive.add("openssl", "3.0.11-1");
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let said = archive.add_to(&site, "security", &archive.web.url).ok().stdout;
    assert!(said.contains("depot sync run security"), "{said}");
    assert!(archive.add_to(&site, "security", &archive.web.url).fails(4).contains("security"));

    let run = site.depot(["sync", "run", "security", "--watch", "--json"]).ok().json();
    assert_eq!((&run[0]["outcome"], &run[0]["changes"]["added"]), (&"done".into(), &2.into()));
    assert_eq!(ids(&site), [6701, 6704, 6705, 6702]);
    let names = names(&site);
    assert_eq!(names.len(), 2, "{names:?}");
    let found = site.depot(["update", "list", "--search", "openssl", "--json"]).ok().json();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let name = found[0]["name"].as_str().unwrap();
    let shown = site.depot(["update", "show", name]).ok().stdout;
    assert!(shown.contains("openssl_3.0.11-1_amd64.deb") && shown.contains("  sha512:"), "{shown}");
    assert!(site.depot(["update", "show", "nothing"]).fails(3).contains("nothing"));
    let products = site.depot(["update", "products", "--json"]).ok().json();
    assert_eq!(products[0]["id"], "debian-12");

    // Nothing is new: one question, and no change.
    archive.web.asked();
    let run = site.depot(["sync", "run", "--watch", "--json"]).ok().json();
    assert_eq!(run[0]["outcome"], "unchanged");
    assert_eq!(archive.web.asked(), ["dists/bookworm-security/InRelease"]);

    archive.add("openssl", "3.0.11-2");
    archive.publish();
    let run = site.depot(["sync", "run", "security", "--watch", "--json"]).ok().json();
    assert_eq!(run[0]["changes"]["added"], 1);
    let superseded = site.depot(["update", "list", "--superseded", "--json"]).ok().json();
    assert_eq!(superseded[0]["name"], name, "{superseded}");

    let status = site.depot(["sync", "status"]).ok().stdout;
    assert!(status.contains("security  done"), "{status}");
    site.depot(["sync", "source", "remove", "security"]).fails(2);
    site.depot(["sync", "source", "remove", "security", "--yes"]).ok();
    let left = site.depot(["update", "list", "--filter", "not expired", "--json"]).ok().json();
    assert_eq!(left, serde_json::json!([]));
}

#[test]
fn what_is_not_signed_by_a_key_of_the_keyring_is_not_taken_and_the_message_says_why() {
    let (mut archive, other) = (Archive::new(), Archive::new());
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    other.add_to(&site, "security", &archive.web.url).ok();
    // The one of the test's own is the same key: another is made here.
    let stranger = SigningKey::new([6; 32], "Stranger <s@example.org>", archive.date).unwrap();
    archive.key = stranger;
    archive.publish();
    let line = site.depot(["sync", "run", "security", "--watch"]).fails(1);
    assert!(line.contains("InRelease") && line.contains("sign"), "{line}");
    assert_eq!(last(&site)["cause"], "bad-signature");
    let failed = site.depot(["status-messages", "list", "--id", "6703", "--json"]).ok().json();
    assert_eq!(failed[0]["attributes"]["cause"], "bad-signature");
    assert!(names(&site).is_empty());
    let line = site
        .depot([
            "sync",
            "source",
            "add",
            "x",
            "--apt",
            "ftp://x",
            "--suite",
            "s",
            "--components",
            "c",
            "--arch",
            "amd64",
            "--keyring",
            other.keyring().to_str().unwrap(),
        ])
        .fails(2);
    assert!(line.contains("base is ftp:"), "{line}");
    let line = site.depot(["sync", "source", "add", "x", "--rpm", "http://x"]).fails(2);
    assert!(line.contains("--keyring"), "{line}");
}

#[test]
fn a_site_that_is_killed_in_the_middle_of_a_sync_begins_it_again_by_itself() {
    let mut archive = Archive::new();
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    // The Release comes, what it lists does not.
    let cut = relay::relay(&archive.web.url, relay::From::Server, 1);
    archive.add_to(&site, "security", &cut).ok();
    let job = site.depot(["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(job["kind"], "sync");
    // Whoever asks meanwhile joins it.
    let again = site.depot(["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(again["id"], job["id"]);
    until("something comes", || {
        let status = site.depot(["sync", "status", "--json"]).ok().json();
        !status[0]["running"]["stage"].is_null()
    });
    site.kill();

    let site = Site::start(&data);
    until("it begins again", || {
        let history = site.depot(["sync", "history", "--json"]).ok().json();
        history.as_array().unwrap().iter().any(|run| run["outcome"] == "interrupted")
            && ids(&site).iter().filter(|id| **id == 6701).count() == 2
    });
    let cancelled = site.depot(["sync", "cancel", "security", "--json"]).ok().json();
    assert_eq!(
        (&cancelled["outcome"], &cancelled["trigger"]),
        (&"cancelled".into(), &"resumed".into())
    );
    assert!(site.depot(["sync", "cancel", "security"]).fails(4).contains("no sync"));
    assert!(names(&site).is_empty());
    assert!(ids(&site).contains(&9002) && ids(&site).contains(&9001));
    site.stop();

    // The same without a server, once the line is whole.
    on_data(&data, ["sync", "source", "remove", "security", "--yes"]).ok();
    let keyring = archive.keyring();
    on_data(&data, archive.source("security", &archive.web.url, keyring.to_str().unwrap())).ok();
    let run = on_data(&data, ["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(run[0]["outcome"], "done");
    let list = on_data(&data, ["update", "list", "--json"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn criteria_schedules_and_the_policy_are_set_and_shown() {
    let mut archive = Archive::new();
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    let set =
        ["sync", "criteria", "set", "--classification", "security,critical", "--language", "en"];
    let said = site.depot(set).ok().stdout;
    assert!(said.contains("classifications  critical, security\nproducts         all"), "{said}");
    let said =
        site.depot(["sync", "criteria", "set", "--classification", "all", "--json"]).ok().json();
    assert_eq!(
        (&said["classifications"], &said["languages"][0]),
        (&serde_json::json!([]), &"en".into())
    );
    assert!(
        site.depot(["sync", "criteria", "set", "--classification", "x"]).fails(2).contains("\"x\"")
    );

    let daily = "every day 03:00 Europe/Berlin";
    let said = site.depot(["sync", "schedule", "set", daily]).ok().stdout;
    assert!(said.contains(daily) && said.contains("next at"), "{said}");
    site.depot(["sync", "schedule", "set", "every 4 hours", "--source", "security"]).ok();
    let shown = site.depot(["sync", "schedule", "show", "--json"]).ok().json();
    assert_eq!(
        (&shown["schedule"], &shown["sources"]["security"]),
        (&daily.into(), &"every 4 hours".into())
    );
    assert!(
        site.depot(["sync", "schedule", "set", "now and then"])
            .fails(2)
            .contains("want for example")
    );
    site.depot(["sync", "schedule", "set", "site", "--source", "security"]).ok();
    site.depot(["sync", "source", "disable", "security"]).ok();
    assert!(site.depot(["sync", "run", "security"]).fails(4).contains("disabled"));
    assert!(site.depot(["sync", "run"]).fails(4).contains("no source that is enabled"));
    site.depot(["sync", "source", "enable", "security"]).ok();
    let shown = site.depot(["sync", "source", "show", "security"]).ok().stdout;
    assert!(shown.contains("priority") && !shown.contains("BEGIN PGP"), "{shown}");

    let said =
        site.depot(["lifecycle", "set", "--supersedence", "1", "--supersedence-of", "upgrade=6"]);
    assert!(said.ok().stdout.contains("after 1 month\n  upgrade"));
    let preview = site.depot(["lifecycle", "preview", "--json"]).ok().json();
    assert_eq!(preview["expire"], 0);
    assert!(site.depot(["lifecycle", "set", "--supersedence", "soon"]).fails(2).contains("soon"));
    let audit = site.depot(["audit", "--json"]).ok().json();
    let actions: Vec<&str> =
        audit.as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    for action in ["add_sync_source", "set_sync_criteria", "set_sync_schedule", "set_lifecycle"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
}

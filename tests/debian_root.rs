//! A Debian system that debootstrap made, with its agent: what the site knows of it is what apt says in it, before
//! and after apt upgraded it.
//!
//! It is made of what this machine's own apt is configured with, and kept below the target folder, since it takes a
//! minute or two. Skipped, with a word, where there is no such mirror, or where the tests do not run as root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use support::{
    Site,
    agent::{Machine, join_token},
    temp_folder, until,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of an archive.
struct Suite {
    base: String,
    name: String,
    arch: String,
}

/// Where this machine's apt has a suite with that label from.
fn own(label: &str) -> Option<Suite> {
    let told = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ARCHITECTURE)"])
        .args(["Created-By: Packages", "Component: main", &format!("Label: {label}")])
        .output()
        .ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    // Of several suites the one that the system itself is of has the shortest name: bookworm, not bookworm-updates.
    let line = told.lines().filter(|line| line.starts_with("http")).min_by_key(|it| it.len())?;
    let mut words = line.split(' ').map(str::to_owned);
    Some(Suite { base: words.next()?, name: words.next()?, arch: words.next()? })
}

/// Runs a program that has to succeed; what it printed.
#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program)
        .args(args)
        .envs([("LC_ALL", "C"), ("DEBIAN_FRONTEND", "noninteractive")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{program} {args:?}: {said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    said
}

/// Makes the system in `root`, or takes it from where an earlier run left it.
fn bootstrap(main: &Suite, root: &Path) {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("debian-root-{}-{}.tar", main.name, main.arch));
    let root = root.to_str().unwrap();
    if kept.is_file() {
        fs::create_dir(root).unwrap();
        run("tar", &["-C", root, "-xpf", kept.to_str().unwrap()]);
        return;
    }
    let arch = format!("--arch={}", main.arch);
    let keyring = format!("--keyring={KEYRING}");
    // openssl: what has a security update more often than not.
    let what = ["--variant=minbase", "--include=openssl", &arch, &keyring];
    run("debootstrap", &[&what[..], &[&main.name, root, &main.base]].concat());
    let part = kept.with_extension("part");
    run("tar", &["-C", root, "-cpf", part.to_str().unwrap(), "."]);
    fs::rename(part, kept).unwrap();
}

/// The source packages of which apt would install other packages than there are.
fn upgradable(root: &str) -> BTreeSet<String> {
    let simulated = run("chroot", &[root, "apt-get", "-s", "dist-upgrade"]);
    let words = simulated.lines().filter_map(|line| line.strip_prefix("Inst "));
    let names: Vec<&str> = words.filter_map(|line| line.split(' ').next()).collect();
    let source = |name: &&str| {
        let told = run("chroot", &[root, "dpkg-query", "-W", "-f=${source:Package}\n", name]);
        told.lines().next().unwrap().to_owned()
    };
    names.iter().map(source).collect()
}

/// The source packages of which the site knows the machine to require an update.
fn required(site: &Site) -> BTreeSet<String> {
    let list = site.depot(["update", "list", "--required-on", ">0", "--limit", "1000", "--json"]);
    let list = list.ok().json();
    let name =
        |it: &serde_json::Value| it["name"].as_str().unwrap().split(' ').next().map(str::to_owned);
    list.as_array().unwrap().iter().filter_map(name).collect()
}

#[test]
fn what_the_site_knows_of_a_debian_system_is_what_apt_says_in_it() {
    let (Some(main), Some(security)) = (own("Debian"), own("Debian-Security")) else {
        println!(
            "SKIPPED: apt of this machine names no mirror of Debian and of its security suite"
        );
        return;
    };
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: making a Debian system takes root");
        return;
    }
    let folder = temp_folder();
    let machine = Machine { root: folder.path().join("root"), data: folder.path().join("pc-17") };
    bootstrap(&main, &machine.root);
    let root = machine.root.to_str().unwrap();
    fs::copy("/etc/resolv.conf", machine.root.join("etc/resolv.conf")).unwrap();
    let lines = [&main, &security].map(|it| format!("deb {} {} main\n", it.base, it.name));
    fs::write(machine.root.join("etc/apt/sources.list"), lines.concat()).unwrap();
    run("chroot", &[root, "apt-get", "update"]);

    let site = Site::start(&folder.path().join("site"));
    let add = ["sync", "source", "add", "security", "--apt", &security.base, "--keyring", KEYRING];
    let of = ["--suite", &security.name, "--components", "main", "--arch", &security.arch];
    site.depot(add.iter().chain(&of)).ok();
    site.depot(["sync", "run", "--watch"]).ok();
    until("the site makes the catalogue for clients", || {
        site.get("/api/v1/catalogue").status == 200
    });
    let token = join_token(&site, "pc-17", &[]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    agent.until_enabled();

    let scanned = agent.json(&["scan", "--force"]);
    let counts = &scanned["counts"];
    assert!(counts["not_required"].as_u64().unwrap() > 100, "{scanned}");
    assert_eq!(counts["unknown"], 0, "{scanned}");
    agent.json(&["trigger", "report"]);
    let by_apt = upgradable(root);
    println!("apt would upgrade packages of {by_apt:?}");
    assert_eq!(required(&site), by_apt);

    // Nothing of the machine's services runs here.
    fs::write(machine.root.join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n").unwrap();
    run("chmod", &["755", machine.root.join("usr/sbin/policy-rc.d").to_str().unwrap()]);
    run("chroot", &[root, "apt-get", "-y", "dist-upgrade"]);
    let scanned = agent.json(&["scan", "--offline"]);
    assert_eq!(scanned["counts"]["required"], 0, "{scanned}");
    assert!(scanned["counts"]["installed"].as_u64().unwrap() >= by_apt.len() as u64, "{scanned}");
    agent.json(&["trigger", "report"]);
    assert_eq!(required(&site), BTreeSet::new());
}

//! A Debian system that debootstrap made, with its agent: what the site knows of it is what apt says in it, before
//! and after apt upgraded it.
//!
//! Skipped, with a word, where this machine's apt names no mirror, or where the tests do not run as root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs};
use support::{
    Site,
    agent::{Machine, join_token},
    debian::{KEYRING, bootstrap, can_run, own, run},
    temp_folder, until,
};

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
    let Some(main) = can_run() else { return };
    let Some(security) = own("Debian-Security") else {
        println!("SKIPPED: apt of this machine names no mirror of Debian's security suite");
        return;
    };
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

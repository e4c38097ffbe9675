//! Debian machines, judged as apt judges them: of real archives, real roots of dpkg, package by package.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "tests of archives use more of it")]
#[path = "../../sync/tests/apt/client.rs"]
mod apt;
#[allow(dead_code, reason = "tests of archives use more of it")]
#[path = "../../sync/tests/apt/archive.rs"]
mod archive;
#[path = "../../sync/tests/web/mod.rs"]
mod web;

use archive::{Archive, SUITE, run};
use client::applicability::{Assessor, State, rule_holds};
use client::explain::explain;
use client::facts::Facts;
use client::facts::debian::Debian;
use client::truth::Truth;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use sync::apt::version;
use sync::name::UpdateId;
use sync::rule::{Comparison, PackageRule, Rule};
use sync::update::Update;

/// Name and version of what replaces a package, and the architecture of the package; `all` is the machine's.
type Candidate = (String, String, String);

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sync/tests/data/apt");
const OS_RELEASE: &str = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";

/// What apt would bring onto the machine with that status file.
fn by_apt(apt: &apt::Client, status: &Path, more: &[&str]) -> BTreeSet<Candidate> {
    let status = format!("Dir::State::status={}", status.display());
    let options = [&["-o", &status][..], more].concat();
    apt.run("apt-get", &[&options[..], &["update"]].concat());
    let list = apt.run("apt", &[&options[..], &["list", "--upgradable"]].concat());
    let lines = list.lines().filter(|line| line.contains("[upgradable from:"));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap().split('/').next().unwrap();
            let (version, arch) = (words.next().unwrap(), words.next().unwrap());
            (name.into(), version.into(), arch.replace("all", "amd64"))
        })
        .collect()
}

/// The same by the updates: of each package that is installed in a lower version the highest.
fn by_updates(machine: &Debian, updates: &[Update]) -> BTreeSet<Candidate> {
    let held: HashMap<UpdateId, Arc<Update>> = HashMap::new();
    let mut assessor = Assessor::new(machine, &held);
    let mut highest: BTreeMap<(String, String), String> = BTreeMap::new();
    for update in updates {
        let mut is_any = false;
        for package in update.files().filter_map(|file| file.package.as_ref()) {
            let arch = (package.arch != "all").then(|| package.arch.clone());
            let (name, version) = (package.name.clone(), package.version.clone());
            let rule = PackageRule { name, arch, is: Comparison::LessThan, version };
            if rule_holds(&Rule::Dpkg(rule), machine) != Truth::True {
                continue;
            }
            is_any = true;
            let arch = package.arch.replace("all", &machine.system().architecture);
            let held = highest.entry((package.name.clone(), arch)).or_default();
            if version::compare(&package.version, held).is_gt() {
                held.clone_from(&package.version);
            }
        }
        let verdict = assessor.assess(update);
        assert_eq!(verdict.state == State::Required, is_any, "{}: {verdict:?}", update.name);
        let told = explain(&mut assessor, update);
        assert!(!is_any || told.reason().contains(", less than "), "{told}");
    }
    highest.into_iter().map(|((name, arch), version)| (name, version, arch)).collect()
}

fn keyring_of(archive: &Archive) -> Vec<u8> {
    archive.key.public_bytes().unwrap()
}

#[tokio::test]
async fn a_root_that_dpkg_made_is_judged_as_apt_judges_it() {
    let mut archive = Archive::new();
    for (name, version, arch) in [
        ("old", "1.0-1", "amd64"),
        ("held", "1.0-1", "amd64"),
        ("even", "2.0-1", "amd64"),
        ("newer", "3:1-1", "amd64"),
        ("turned", "1.0-1", "all"),
        ("back", "1.0-1", "amd64"),
        ("begun", "1.0-1", "amd64"),
        ("old", "1.0-1", "i386"),
    ] {
        let more = if name == "old" { "Multi-Arch: same\n" } else { "" };
        archive.add("main", name, version, arch, more);
    }
    let root = tempfile::tempdir().unwrap();
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.path().join("var/lib/dpkg").join(folder)).unwrap();
    }
    fs::create_dir_all(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/os-release"), OS_RELEASE).unwrap();
    for file in ["status", "available"] {
        fs::write(root.path().join("var/lib/dpkg").join(file), "").unwrap();
    }
    let at = format!("--root={}", root.path().display());
    let dpkg = |words: &[&str]| {
        let options = [&*at, "--force-all", "--force-script-chrootless", "--log=/dev/null"];
        run("dpkg", &[&options[..], words].concat(), root.path());
    };
    let deb = |name: &str| archive.path(&format!("pool/main/{name}.deb")).display().to_string();
    dpkg(&["--add-architecture", "i386"]);
    for name in ["old_1.0-1_amd64", "old_1.0-1_i386", "held_1.0-1_amd64", "even_2.0-1_amd64"] {
        dpkg(&["-i", &deb(name)]);
    }
    for name in ["newer_1-1_amd64", "turned_1.0-1_all", "back_1.0-1_amd64"] {
        dpkg(&["-i", &deb(name)]);
    }
    dpkg(&["--unpack", &deb("begun_1.0-1_amd64")]);
    let status = root.path().join("var/lib/dpkg/status");
    let text = fs::read_to_string(&status).unwrap();
    let text = text.replace(
        "Package: held\nStatus: install ok installed",
        "Package: held\nStatus: hold ok installed",
    );
    fs::write(&status, text).unwrap();

    for name in ["old", "held", "even", "turned", "back", "begun", "elsewhere"] {
        let arch = if name == "back" { "all" } else { "amd64" };
        let more = if name == "old" { "Multi-Arch: same\n" } else { "" };
        archive.add("main", name, "2.0-1", arch, more);
    }
    archive.add("main", "old", "1.5-1", "amd64", "Multi-Arch: same\n");
    archive.add("main", "newer", "2:9-1", "amd64", "");
    archive.publish();
    let updates = archive.source().sync().await.unwrap().unwrap();
    let machine = Debian::of(root.path()).unwrap();
    assert_eq!(&machine.system().architecture, "amd64");
    let apt = apt::Client::new(&archive.web.url(""), SUITE, "main contrib", &keyring_of(&archive));
    let both = ["-o", "APT::Architectures::=i386"];
    let wanted = by_apt(&apt, &status, &both);
    let names: BTreeSet<&str> = wanted.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["back", "begun", "held", "old", "turned"]));
    assert_eq!(by_updates(&machine, &updates), wanted);
    let state = |name: &str| {
        let update = updates.iter().find(|update| update.name == name).unwrap();
        Assessor::new(&machine, &HashMap::new()).assess(update).state
    };
    assert_eq!(state("even 2.0-1"), State::Installed);
    assert_eq!(state("newer 2:9-1"), State::Installed);
    assert_eq!(state("elsewhere 2.0-1"), State::NotRequired);
}

/// The status file of this machine, with many of its packages older, held, half configured, or removed.
fn altered(status: &str, names: &BTreeSet<&str>) -> String {
    let mut out = String::new();
    let stanzas = status.split_inclusive("\n\n");
    for (at, stanza) in stanzas.enumerate() {
        let name = stanza.lines().next().and_then(|line| line.strip_prefix("Package: "));
        let is_listed = name.is_some_and(|name| names.contains(name));
        for line in stanza.split_inclusive('\n') {
            out.push_str(match line.split(':').next() {
                Some("Version") if is_listed && at % 2 == 0 => "Version: 0~old\n",
                Some("Status") if at % 7 == 0 => "Status: hold ok installed\n",
                Some("Status") if at % 11 == 0 => "Status: deinstall ok config-files\n",
                Some("Status") if at % 13 == 0 => "Status: install ok half-configured\n",
                _ => line,
            });
        }
    }
    out
}

#[tokio::test]
async fn debians_own_index_is_judged_as_apt_judges_it() {
    // The index of Debian's security suite, and this machine as it would be if it had not been kept up.
    let mut archive = Archive::new();
    let index = run("xz", &["-dc", &format!("{DATA}/Packages.xz")], archive.folder.path());
    for (component, text) in [("main", &index[..]), ("contrib", &[])] {
        let path = archive.suite(&format!("{component}/binary-amd64/Packages"));
        fs::write(&path, text).unwrap();
        run("xz", &["-kf", path.to_str().unwrap()], archive.folder.path());
    }
    archive.sign();
    let updates = archive.source().sync().await.unwrap().unwrap();

    let index = String::from_utf8(index).unwrap();
    let names = index.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/os-release"), OS_RELEASE).unwrap();
    let status = root.path().join("var/lib/dpkg/status");
    let own = fs::read_to_string("/var/lib/dpkg/status").unwrap();
    fs::write(&status, altered(&own, &names)).unwrap();
    let machine = Debian::of(root.path()).unwrap();
    assert_eq!(machine.system().packages.unreadable(), 0);

    let apt = apt::Client::new(&archive.web.url(""), SUITE, "main contrib", &keyring_of(&archive));
    let wanted = by_apt(&apt, &status, &[]);
    assert!(wanted.len() > 10, "too few to prove anything: {wanted:?}");
    assert_eq!(by_updates(&machine, &updates), wanted);
}

//! Debian archives, from the first sync to hostile ones, made by Debian's own tools.

#![allow(clippy::unwrap_used)]

#[path = "apt/archive.rs"]
mod archive;
#[path = "apt/client.rs"]
mod client;
mod web;

use archive::{Archive, SUITE, Source, run};
use client::{Client, write_out};
use jiff::{Timestamp, ToSpan};
use std::fs;
use std::io::Write;
use std::time::Duration;
use sync::apt::mirror::{Chosen, Snapshot, sign_with};
use sync::digests::Algorithm;
use sync::error::Cause;
use sync::mirror::Origin;
use sync::openpgp::{Keyring, SigningKey};
use sync::rule::Rule;
use sync::taxonomy::{Classification, Severity};
use sync::update::{Restart, Update};
use web::{Answer, Web};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/apt");

fn published() -> Archive {
    let mut archive = Archive::new();
    archive.add("main", "vlc", "3.0.20-0+deb12u1", "amd64", "");
    archive.add("main", "vlc-data", "3.0.20-0+deb12u1", "all", "Source: vlc\n");
    archive.add("main", "libvlc5", "1:3.0.20-0+b1", "amd64", "Source: vlc (3.0.20-0+deb12u1)\n");
    archive.add("main", "zoo", "1.0-1", "amd64", "");
    archive.add("main", "zoo", "1.0-2", "amd64", "");
    archive.add("contrib", "extra", "5", "all", "");
    archive.publish();
    archive
}

fn named<'a>(updates: &'a [Update], name: &str) -> &'a Update {
    updates.iter().find(|update| update.name == name).unwrap()
}

#[tokio::test]
async fn an_archive_becomes_updates_and_unchanged_it_is_one_request() {
    let archive = published();
    let mut source = archive.source();
    let updates = source.sync().await.unwrap().unwrap();
    let paths = archive.web.paths();
    assert_eq!(paths[0], format!("dists/{SUITE}/InRelease"));
    assert_eq!(paths.len(), 3, "{paths:?}");
    // apt takes the strongest digest that the Release lists, and so does a sync.
    assert!(paths[1..].iter().all(|path| path.contains("/by-hash/SHA512/")), "{paths:?}");

    let names: Vec<&str> = updates.iter().map(|update| update.name.as_str()).collect();
    assert_eq!(names, ["extra 5", "vlc 3.0.20-0+deb12u1", "zoo 1.0-1", "zoo 1.0-2"]);
    let vlc = named(&updates, "vlc 3.0.20-0+deb12u1");
    assert_eq!(vlc.classification, Some(Classification::Security));
    assert_eq!(vlc.products.iter().collect::<Vec<_>>(), ["debian-12"]);
    assert_eq!(vlc.created, archive.date);
    assert_eq!(vlc.behaviour.restart, Restart::Never);
    let text = vlc.text(&[]).unwrap();
    assert_eq!(text.description, "the vlc program\nPackages: libvlc5, vlc, vlc-data");
    let files: Vec<_> = vlc.files().collect();
    assert_eq!(files.len(), 3);
    let file = files.iter().find(|file| file.name.starts_with("libvlc5")).unwrap();
    let package = file.package.as_ref().unwrap();
    assert_eq!((package.version.as_str(), package.arch.as_str()), ("1:3.0.20-0+b1", "amd64"));
    let on_disk = fs::read(archive.path(file.path.as_ref().unwrap())).unwrap();
    assert_eq!(file.size, on_disk.len() as u64);
    assert_eq!(file.urls, [archive.web.url(file.path.as_ref().unwrap())]);
    let Some(Rule::And(installable)) = &vlc.rules.installable else { panic!("{:?}", vlc.rules) };
    assert_eq!(installable[0], Rule::Codename("bookworm".into()));
    let (old, new) = (named(&updates, "zoo 1.0-1"), named(&updates, "zoo 1.0-2"));
    assert!(new.supersedes.contains(&old.id) && old.supersedes.is_empty());

    assert_eq!(source.sync().await.unwrap(), None);
    assert_eq!(archive.web.paths(), [format!("dists/{SUITE}/InRelease")]);
    // The same of a server that knows no conditions.
    archive.web.on(|_| Some(Answer::Bare));
    assert_eq!(source.sync().await.unwrap(), None);
    assert_eq!(archive.web.paths().len(), 1);
    assert_eq!(source.run.folder.read_dir().unwrap().count(), 6, "no file is left over");
}

#[tokio::test]
async fn after_a_change_only_the_changed_index_is_brought() {
    let mut archive = published();
    let mut source = archive.source();
    let before = source.sync().await.unwrap().unwrap();
    archive.add("main", "zoo", "1.0-3", "amd64", "");
    archive.remove("main/zoo_1.0-1_amd64.deb");
    archive.publish();
    archive.web.asked();
    let after = source.sync().await.unwrap().unwrap();
    let paths = archive.web.paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert!(paths[1].contains("main/binary-amd64/by-hash"), "{paths:?}");
    // What did not change is word by word as it was, and so no new revision.
    assert_eq!(named(&before, "extra 5"), named(&after, "extra 5"));
    assert_eq!(named(&before, "zoo 1.0-2").created, named(&after, "zoo 1.0-2").created);
    assert_eq!(named(&after, "zoo 1.0-3").created, archive.date);
    assert!(!after.iter().any(|update| update.name == "zoo 1.0-1"));
    assert_eq!(source.sync().await.unwrap(), None);
}

#[tokio::test]
async fn a_full_sync_says_of_what_did_not_change_what_was_said_before() {
    let mut archive = published();
    let mut source = archive.source();
    let before = source.sync().await.unwrap().unwrap();
    let first_seen = archive.date;
    archive.date = archive.date.checked_add(2.hours()).unwrap();
    archive.publish();
    source.run.now = source.run.now.checked_add(3.hours()).unwrap();
    // As with other criteria, or `--full`.
    source.state = None;
    let after = source.sync().await.unwrap().unwrap();
    assert!(after.iter().all(|update| update.created == first_seen));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_sync_that_was_broken_off_goes_on() {
    let archive = published();
    let mut source = archive.source();
    let folder = source.folder().to_owned();
    let is_there = move || {
        let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        names.into_iter().any(|name| name.to_str().unwrap().ends_with(".xz"))
    };
    archive.web.on(move |asked| {
        if !asked.path.contains("contrib/") {
            return None;
        }
        // The other index is brought at the same time; here it comes first.
        while !is_there() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Answer::Status(503, "not now"))
    });
    assert_eq!(source.refusal().await.0, Cause::Busy);
    archive.web.off();
    archive.web.asked();
    assert_eq!(source.sync().await.unwrap().unwrap().len(), 4);
    assert_eq!(archive.web.paths().len(), 2, "the index of main lies there already");
    // A file that is lost is brought again, though the archive did not change.
    let lost = source.folder().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let lost = lost.into_iter().find(|path| path.to_str().unwrap().contains("/index-")).unwrap();
    fs::remove_file(&lost).unwrap();
    assert_eq!(source.sync().await.unwrap().unwrap().len(), 4);
    assert!(lost.exists());
}

#[tokio::test]
async fn each_trick_is_refused_with_its_reason() {
    let mut archive = published();
    let mut source = archive.source();
    source.sync().await.unwrap();
    let old = fs::read(archive.suite("InRelease")).unwrap();

    // One letter.
    let altered = String::from_utf8(old.clone()).unwrap().replace("Version: 12", "Version: 13");
    fs::write(archive.suite("InRelease"), &altered).unwrap();
    assert_eq!(source.refusal().await.0, Cause::BadSignature);

    // Another key.
    let stranger = SigningKey::new([6; 32], "x", archive.date).unwrap();
    let forged = stranger.clear_sign(archive.release().as_bytes(), archive.date).unwrap();
    fs::write(archive.suite("InRelease"), &forged).unwrap();
    let (cause, said) = source.refusal().await;
    assert_eq!(cause, Cause::BadSignature);
    assert!(said.contains("not signed by a trusted key"), "{said}");

    // Not signed at all.
    fs::write(archive.suite("InRelease"), archive.release()).unwrap();
    assert_eq!(source.refusal().await.0, Cause::BadSignature);

    // From the future.
    let yesterday = archive.date;
    archive.date = Timestamp::now() + 1.hour();
    archive.sign();
    let (cause, said) = source.refusal().await;
    // The signature itself is from the future too, and is looked at first.
    assert!(matches!(cause, Cause::FromTheFuture | Cause::BadSignature), "{said}");
    let text = archive.release();
    let signed = archive.key.clear_sign(text.as_bytes(), yesterday).unwrap();
    fs::write(archive.suite("InRelease"), signed).unwrap();
    assert_eq!(source.refusal().await.0, Cause::FromTheFuture);

    // Expired.
    archive.date = yesterday;
    let end = (archive.date + 2.hours()).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
    archive.fields.insert("Valid-Until", end);
    archive.sign();
    let (cause, said) = source.refusal().await;
    assert_eq!(cause, Cause::Expired);
    assert!(said.contains("was valid until"), "{said}");
    archive.fields.remove("Valid-Until");

    // Another archive under the same address.
    for (field, value) in
        [("Suite", "stable"), ("Codename", "trixie"), ("Label", "x"), ("Origin", "x")]
    {
        let was = archive.fields.insert(field, value.into()).unwrap();
        archive.sign();
        let (cause, said) = source.refusal().await;
        assert_eq!(cause, Cause::Altered);
        assert!(said.contains(field) && said.contains(value), "{said}");
        archive.fields.insert(field, was);
    }

    // Older than what is held.
    archive.publish();
    assert!(source.sync().await.unwrap().is_some());
    fs::write(archive.suite("InRelease"), &old).unwrap();
    let (cause, said) = source.refusal().await;
    assert_eq!(cause, Cause::Replayed);
    assert!(said.contains("older than the one that is held"), "{said}");

    // Only what the Release names exists.
    let mut settings = archive.settings();
    settings.components.push("non-free".into());
    let (cause, said) = Source::new(settings).refusal().await;
    assert_eq!(cause, Cause::Misconfigured);
    assert!(said.contains("it has main, contrib"), "{said}");
    let mut settings = archive.settings();
    settings.architectures = vec!["vax".into()];
    assert_eq!(Source::new(settings).refusal().await.0, Cause::Misconfigured);
}

#[tokio::test]
async fn an_archive_that_says_nothing_new_does_not_do_so_for_ever() {
    let mut archive = Archive::new();
    archive.add("main", "zoo", "1.0-1", "amd64", "");
    let end = Timestamp::now() + 2.hours();
    let text = end.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
    archive.fields.insert("Valid-Until", text);
    archive.publish();
    let mut source = archive.source();
    source.sync().await.unwrap();
    assert_eq!(source.sync().await.unwrap(), None);
    source.run.now = end + 1.hour();
    assert_eq!(source.refusal().await.0, Cause::Expired);
}

#[tokio::test]
async fn a_mirror_in_the_middle_of_an_update_is_a_mismatch_or_served_by_digest() {
    let mut archive = published();
    let mut source = archive.source();
    source.sync().await.unwrap();
    let path = archive.suite("main/binary-amd64/Packages.xz");
    let old = fs::read(&path).unwrap();
    archive.add("main", "zoo", "1.0-9", "amd64", "");
    archive.publish();
    // The Release is new, the index that lies under its name is not yet.
    let new = fs::read(&path).unwrap();
    fs::write(&path, &old).unwrap();
    let by_hash = archive.suite("main/binary-amd64/by-hash");
    fs::rename(&by_hash, by_hash.with_extension("away")).unwrap();
    assert_eq!(source.refusal().await.0, Cause::Mismatch);
    fs::remove_file(&path).unwrap();
    fs::remove_file(archive.suite("main/binary-amd64/Packages")).unwrap();
    let (cause, said) = source.refusal().await;
    assert_eq!(cause, Cause::Mismatch, "{said}");
    // Under its own digest it is there already.
    fs::write(&path, &old).unwrap();
    fs::rename(by_hash.with_extension("away"), &by_hash).unwrap();
    let updates = source.sync().await.unwrap().unwrap();
    assert!(updates.iter().any(|update| update.name == "zoo 1.0-9"));
    fs::write(&path, new).unwrap();
    assert_eq!(source.sync().await.unwrap(), None);
}

#[tokio::test]
async fn a_signature_beside_the_release_does_as_well() {
    let archive = published();
    fs::remove_file(archive.suite("InRelease")).unwrap();
    let beside = archive.key.detach_sign(archive.release().as_bytes(), archive.date).unwrap();
    fs::write(archive.suite("Release.gpg"), beside).unwrap();
    let mut source = archive.source();
    assert_eq!(source.sync().await.unwrap().unwrap().len(), 4);
    archive.web.asked();
    assert_eq!(source.sync().await.unwrap(), None);
    assert_eq!(archive.web.paths(), [format!("dists/{SUITE}/Release")]);
    let changed = archive.release().replace("Made for", "Forged for");
    fs::write(archive.suite("Release"), changed).unwrap();
    assert_eq!(source.refusal().await.0, Cause::BadSignature);
    fs::remove_file(archive.suite("Release.gpg")).unwrap();
    let (cause, said) = archive.source().refusal().await;
    assert_eq!(cause, Cause::BadSignature);
    assert!(said.contains("is not signed: neither InRelease nor Release.gpg is there"), "{said}");
}

#[tokio::test]
async fn pockets_of_one_code_name_say_of_each_version_once() {
    let archive = published();
    let other = archive.path("dists/other");
    run(
        "cp",
        &["-a", archive.suite("").to_str().unwrap(), other.to_str().unwrap()],
        &archive.path(""),
    );
    // As Ubuntu does it: the pockets differ by Suite alone.
    let text = archive.release().replace("Suite: oldstable-security", "Suite: oldstable-updates");
    let signed = archive.key.clear_sign(text.as_bytes(), archive.date).unwrap();
    fs::write(other.join("InRelease"), signed).unwrap();
    let mut settings = archive.settings();
    settings.suites.push("other".into());
    let mut source = Source::new(settings);
    let updates = source.sync().await.unwrap().unwrap();
    assert_eq!(updates.len(), 4);
    assert_eq!(named(&updates, "vlc 3.0.20-0+deb12u1").files().count(), 3);
    archive.web.asked();
    assert_eq!(source.sync().await.unwrap(), None);
    assert_eq!(archive.web.paths().len(), 2, "one request for each suite");
}

#[tokio::test]
async fn suites_of_one_release_say_of_each_version_once_and_the_newer_replaces_the_older() {
    let mut archive = published();
    let alone = archive.source().sync().await.unwrap().unwrap();
    // As Debian does it: each suite has a code name of its own.
    let copy = |archive: &Archive, name: &str, fields: &[(&str, &str)]| {
        let to = archive.path(&format!("dists/{name}"));
        let from = archive.suite("");
        run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()], &archive.path(""));
        let mut text = archive.release();
        for (from, to) in fields {
            assert!(text.contains(from), "{text}");
            text = text.replace(from, to);
        }
        let signed = archive.key.clear_sign(text.as_bytes(), archive.date).unwrap();
        fs::write(to.join("InRelease"), signed).unwrap();
    };
    let plain = [
        ("Codename: bookworm-security", "Codename: bookworm"),
        ("Suite: oldstable-security", "Suite: oldstable"),
        ("Label: Debian-Security", "Label: Debian"),
        ("Version: 12", "Version: 12.9"),
    ];
    copy(&archive, "bookworm", &plain);
    archive.add("main", "zoo", "1.0-3~bpo12+1", "amd64", "");
    archive.publish();
    let backports = [
        ("Codename: bookworm-security", "NotAutomatic: yes\nCodename: bookworm-backports"),
        ("Suite: oldstable-security", "Suite: oldstable-backports"),
        ("Label: Debian-Security", "Label: Debian Backports"),
    ];
    copy(&archive, "bookworm-backports", &backports);
    archive.remove("main/zoo_1.0-3~bpo12+1_amd64.deb");
    archive.remove("main/zoo_1.0-1_amd64.deb");
    archive.add("main", "vlc", "3.0.21-0+deb12u1", "amd64", "");
    archive.add("main", "vlc-data", "3.0.21-0+deb12u1", "all", "Source: vlc\n");
    archive.publish();

    let mut settings = archive.settings();
    settings.suites = vec!["bookworm".into(), SUITE.into()];
    let both = Source::new(settings.clone()).sync().await.unwrap().unwrap();
    let mut names: Vec<&str> = both.iter().map(|update| update.name.as_str()).collect();
    names.sort_unstable();
    let all = ["extra 5", "vlc 3.0.20-0+deb12u1", "vlc 3.0.21-0+deb12u1", "zoo 1.0-1", "zoo 1.0-2"];
    assert_eq!(names, all);
    // What both have is that of the security suite, as where that stands alone.
    let shared = named(&both, "zoo 1.0-2");
    assert_eq!(shared.id, named(&alone, "zoo 1.0-2").id);
    assert_eq!(shared.classification, Some(Classification::Security));
    assert_eq!(shared.rules, named(&alone, "zoo 1.0-2").rules);
    let old = named(&both, "zoo 1.0-1");
    assert_eq!(old.classification, Some(Classification::Update), "only the release has it");
    assert_eq!(shared.supersedes, [old.id].into());
    let newer = named(&both, "vlc 3.0.21-0+deb12u1");
    assert_eq!(newer.supersedes, [named(&both, "vlc 3.0.20-0+deb12u1").id].into());

    // What is not installed by itself replaces nothing of the release.
    settings.suites.push("bookworm-backports".into());
    let three = Source::new(settings).sync().await.unwrap().unwrap();
    let backport = named(&three, "zoo 1.0-3~bpo12+1");
    assert_eq!(backport.classification, Some(Classification::FeaturePack));
    assert!(!backport.supersedes.contains(&shared.id) && !backport.supersedes.contains(&old.id));
    let same = three.iter().find(|update| update.id == shared.id).unwrap();
    assert_eq!(same.supersedes, shared.supersedes);
}

#[tokio::test]
async fn archives_without_components_are_read_too() {
    let archive = published();
    let flat = archive.path("flat");
    fs::create_dir(&flat).unwrap();
    fs::copy(archive.path("pool/main/zoo_1.0-2_amd64.deb"), flat.join("zoo.deb")).unwrap();
    // Paths are from the root of the archive, here as there.
    let packages = run("apt-ftparchive", &["packages", "flat"], archive.folder.path());
    fs::write(flat.join("Packages"), packages).unwrap();
    let origin = "-oAPT::FTPArchive::Release::Origin=Vendor";
    let release = run("apt-ftparchive", &[origin, "release", "."], &flat);
    let signed = archive.key.clear_sign(&release, Timestamp::now()).unwrap();
    fs::write(flat.join("InRelease"), signed).unwrap();
    let mut settings = archive.settings();
    settings.suites = vec!["flat/".into()];
    settings.components = Vec::new();
    let mut source = Source::new(settings);
    let updates = source.sync().await.unwrap().unwrap();
    assert_eq!(updates[0].products.iter().collect::<Vec<_>>(), ["vendor-flat"]);
    assert_eq!(updates[0].classification, Some(Classification::Update));
    let file = updates[0].files().next().unwrap();
    assert_eq!(file.urls, [archive.web.url("flat/zoo.deb")]);
    // It is for machines of any release.
    assert!(matches!(&updates[0].rules.installable, Some(Rule::And(parts)) if parts.len() == 1));
}

/// Makes `Packages.diff` of the states of an index, the oldest first; as dak does, or merged.
fn patches(archive: &Archive, states: &[Vec<u8>], is_merged: bool) {
    let folder = archive.suite("main/binary-amd64/Packages.diff");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let sha = |bytes: &[u8]| {
        let mut hasher = sync::digests::Hasher::new([sync::digests::Algorithm::Sha256]);
        hasher.update(bytes);
        let (size, found) = hasher.finish();
        format!("{} {size}", found.strongest().unwrap().1)
    };
    let (mut history, mut plain, mut packed) = (String::new(), String::new(), String::new());
    let current = states.last().unwrap();
    for (n, state) in states[..states.len() - 1].iter().enumerate() {
        let next = if is_merged { current } else { &states[n + 1] };
        let (a, b) = (archive.path("a"), archive.path("b"));
        fs::write(&a, state).unwrap();
        fs::write(&b, next).unwrap();
        let diff = std::process::Command::new("diff").arg("--ed").args([a, b]).output().unwrap();
        let name = format!("T-2026-F-{n}");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&diff.stdout).unwrap();
        let gz = gz.finish().unwrap();
        fs::write(folder.join(format!("{name}.gz")), &gz).unwrap();
        history += &format!(" {} {name}\n", sha(state));
        plain += &format!(" {} {name}\n", sha(&diff.stdout));
        packed += &format!(" {} {name}.gz\n", sha(&gz));
    }
    let merged = if is_merged { "X-Patch-Precedence: merged\n" } else { "" };
    let index = format!(
        "SHA256-Current: {}\nSHA256-History:\n{history}SHA256-Patches:\n{plain}SHA256-Download:\n\
         {packed}{merged}",
        sha(current)
    );
    fs::write(folder.join("Index"), index).unwrap();
}

#[tokio::test]
async fn patches_lead_to_the_new_index_where_they_are_smaller() {
    for is_merged in [false, true] {
        let mut archive = Archive::new();
        // Digests do not compress, so that the index is large beside a patch.
        for n in 0..40 {
            archive.add("main", &format!("p{n}"), "1", "amd64", "");
        }
        archive.publish();
        let read =
            |archive: &Archive| fs::read(archive.suite("main/binary-amd64/Packages")).unwrap();
        let mut states = vec![read(&archive)];
        let mut source = archive.source();
        source.sync().await.unwrap();
        let mut late = archive.source();
        late.sync().await.unwrap();
        for version in ["2", "3"] {
            archive.add("main", "p7", version, "amd64", "");
            archive.publish();
            states.push(read(&archive));
            patches(&archive, &states, is_merged);
            archive.sign();
            archive.web.asked();
            let updates = source.sync().await.unwrap().unwrap();
            assert!(updates.iter().any(|update| update.name == format!("p7 {version}")));
            let paths = archive.web.paths();
            let whole = |path: &String| path.contains("binary-amd64/by-hash");
            assert!(!paths.iter().any(whole), "{is_merged} {paths:?}");
            assert_eq!(source.sync().await.unwrap(), None);
        }
        // A mirror has the index as it is listed, though it was patched here.
        let state = source.state.as_ref().unwrap();
        let snapshot = source.apt.whole(&source.run, state).await.unwrap();
        let packed = format!("dists/{SUITE}/main/binary-amd64/Packages.xz");
        let held = snapshot.files.iter().find(|file| file.path.as_str() == packed).unwrap();
        let Origin::Local(file) = &held.origin else { panic!("{held:?}") };
        assert_eq!(fs::read(file).unwrap(), fs::read(archive.path(&packed)).unwrap());
        archive.web.asked();
        assert_eq!(late.sync().await.unwrap().unwrap().len(), 42);
        let patches_asked = archive.web.paths().iter().filter(|it| it.ends_with(".gz")).count();
        assert_eq!(patches_asked, if is_merged { 1 } else { 2 });

        // A patch that is not what was stated costs a whole index, and nothing else.
        archive.add("main", "p7", "4", "amd64", "");
        archive.publish();
        states.push(read(&archive));
        patches(&archive, &states, is_merged);
        archive.sign();
        archive.web.on(|asked| asked.path.ends_with(".gz").then(|| Answer::Bytes(vec![1; 99])));
        assert_eq!(late.sync().await.unwrap().unwrap().len(), 43);
        archive.web.off();
        assert_eq!(late.sync().await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_the_tracker_says_is_joined_and_its_absence_delays_nothing() {
    let archive = published();
    let dsa = archive.path("dsa");
    fs::copy(format!("{DATA}/DSA-list"), &dsa).unwrap();
    let mut text = fs::read_to_string(&dsa).unwrap();
    text = text.replace(
        "DSA-5545-1 vlc - security update\n",
        "DSA-5545-1 vlc - security update\n\t{CVE-2023-47359}\n",
    );
    fs::write(&dsa, text).unwrap();
    let cve = "CVE-2023-47359 (text)\n\t- vlc 3.0.20-1 (medium)\n";
    fs::write(archive.path("cve"), cve).unwrap();
    let mut settings = archive.settings();
    settings.tracker = vec![archive.web.url("dsa"), archive.web.url("cve")];
    let mut source = Source::new(settings);
    let updates = source.sync().await.unwrap().unwrap();
    let vlc = named(&updates, "DSA-5545-1");
    assert_eq!(vlc.text(&[]).unwrap().title, "DSA-5545-1 vlc - security update");
    assert_eq!(vlc.cves.iter().collect::<Vec<_>>(), ["CVE-2023-47359"]);
    assert_eq!(vlc.articles.iter().collect::<Vec<_>>(), ["DSA-5545-1"]);
    assert_eq!(vlc.severity, Some(Severity::Moderate));
    assert_eq!(vlc.created.to_string(), "2023-11-02T00:00:00Z");
    archive.web.asked();
    assert_eq!(source.sync().await.unwrap(), None);
    assert_eq!(archive.web.paths().len(), 3);

    // A word more about the CVE is news, although the archive did not change.
    fs::write(archive.path("cve"), cve.replace("medium", "high")).unwrap();
    let updates = source.sync().await.unwrap().unwrap();
    assert_eq!(named(&updates, "DSA-5545-1").severity, Some(Severity::Important));

    // Updates do not wait for a tracker that is away; what it said before stays, and is told.
    let mut archive = archive;
    archive.web.on(|asked| (asked.path == "cve").then_some(Answer::Status(503, "away")));
    archive.add("main", "zoo", "2", "amd64", "");
    archive.publish();
    source.fetch().await.unwrap();
    let (updates, read) = source.read();
    assert_eq!(named(&updates, "DSA-5545-1").severity, Some(Severity::Important));
    assert_eq!(read.skipped.count, 1);
    assert!(read.skipped.examples[0].contains("stays as it was"), "{:?}", read.skipped);

    // What is no list is told by its address.
    archive.web.on(|_| None);
    fs::write(archive.path("cve"), "<html><p>It works!</p></html>\n").unwrap();
    source.fetch().await.unwrap();
    let (_, read) = source.read();
    assert_eq!(read.skipped.count, 1);
    let said = format!("{} gave no list", archive.web.url("cve"));
    assert!(read.skipped.examples[0].starts_with(&said), "{:?}", read.skipped);
}

#[tokio::test]
async fn broken_stanzas_are_counted_and_passed_over() {
    let mut archive = published();
    let path = archive.suite("main/binary-amd64/Packages");
    let mut packages = fs::read(&path).unwrap();
    packages.extend_from_slice(
        b"\nPackage: bad\nVersion: 1\n\nno field\n\nPackage: x\nArchitecture: amd64\n",
    );
    packages.extend_from_slice(b"Version: 1\nFilename: ../../etc/passwd\nSize: 1\n\n");
    packages.extend(std::iter::repeat_n(b'x', 2 << 20));
    fs::write(&path, packages).unwrap();
    run("xz", &["-kf", path.to_str().unwrap()], archive.folder.path());
    archive.sign();
    let mut source = archive.source();
    source.fetch().await.unwrap();
    let (updates, read) = source.read();
    assert_eq!((updates.len(), read.skipped.count), (4, 4), "{:?}", read.skipped);
}

#[tokio::test]
async fn the_genuine_release_and_index_of_debian_are_read() {
    let served = tempfile::tempdir().unwrap();
    let suite = served.path().join("dists/bookworm-security");
    fs::create_dir_all(suite.join("main/binary-amd64")).unwrap();
    fs::copy(format!("{DATA}/InRelease"), suite.join("InRelease")).unwrap();
    // The sample was compressed anew: what the Release states is the plain index.
    let plain = run("xz", &["-dc", &format!("{DATA}/Packages.xz")], served.path());
    fs::write(suite.join("main/binary-amd64/Packages"), plain).unwrap();
    let mut settings = published().settings();
    settings.base = format!("file://{}/", served.path().display());
    settings.components = vec!["main".into()];
    settings.keyring =
        Keyring::parse(&fs::read(format!("{DATA}/debian-archive-keyring.gpg")).unwrap()).unwrap();
    let mut source = Source::new(settings);
    source.run.now = "2026-11-21T00:00:00Z".parse().unwrap();
    let updates = source.sync().await.unwrap().unwrap();
    assert!(updates.len() > 300, "{}", updates.len());
    let kernel = updates.iter().find(|update| update.name.starts_with("linux ")).unwrap();
    assert_eq!(kernel.behaviour.restart, Restart::Always);
    assert_eq!(source.sync().await.unwrap(), None);
    source.run.now = "2026-11-28T00:00:00Z".parse().unwrap();
    assert_eq!(source.refusal().await.0, Cause::Expired);
}

fn paths(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.iter().map(|file| file.path.as_str()).collect()
}

#[tokio::test]
async fn apt_installs_from_a_whole_mirror_that_stays_as_the_archive_signed_it() {
    let mut archive = published();
    // Other forms, and indexes that nobody asked for.
    run(
        "gzip",
        &["-kf", archive.suite("main/binary-amd64/Packages").to_str().unwrap()],
        archive.folder.path(),
    );
    fs::write(archive.suite("main/Contents-arm64"), "x").unwrap();
    archive.sign();
    let beside = archive.key.detach_sign(archive.release().as_bytes(), archive.date).unwrap();
    fs::write(archive.suite("Release.gpg"), beside).unwrap();
    let mut source = archive.source();
    source.sync().await.unwrap();
    let snapshot = source.apt.whole(&source.run, source.state.as_ref().unwrap()).await.unwrap();
    let found = paths(&snapshot);
    for path in ["InRelease", "Release", "Release.gpg", "main/binary-amd64/Packages.gz"] {
        assert!(found.contains(&format!("dists/{SUITE}/{path}").as_str()), "{path}: {found:?}");
    }
    assert!(!found.iter().any(|path| path.contains("arm64")), "{found:?}");
    let served = tempfile::tempdir().unwrap();
    write_out(&source.run, &snapshot, served.path()).await;
    let signed = fs::read(served.path().join(format!("dists/{SUITE}/InRelease"))).unwrap();
    assert_eq!(signed, fs::read(archive.suite("InRelease")).unwrap());

    let web = Web::of(served.path());
    let key = archive.key.public_bytes().unwrap();
    let client = Client::new(&web.url(""), SUITE, "main contrib", &key);
    client.run("apt-get", &["update"]);
    let asked = web.paths();
    assert!(asked.iter().any(|path| path.contains("by-hash/SHA512")), "{asked:?}");
    let policy = client.run("apt-cache", &["policy", "zoo"]);
    assert!(policy.contains("Candidate: 1.0-2"), "{policy}");
    let simulated = client.run("apt-get", &["-s", "install", "zoo", "extra", "vlc"]);
    assert!(simulated.contains("Inst zoo (1.0-2"), "{simulated}");
    let deb = fs::read(archive.path("pool/main/libvlc5_3.0.20-0+b1_amd64.deb")).unwrap();
    assert_eq!(client.download("libvlc5"), deb);
    // The second time nothing is new.
    let again = client.run("apt-get", &["update"]);
    assert!(again.contains("Hit:1"), "{again}");

    // It says when machines will refuse it.
    let end = Timestamp::now() + 1.hour();
    archive.fields.insert("Valid-Until", end.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string());
    archive.publish();
    source.sync().await.unwrap();
    let snapshot = source.apt.whole(&source.run, source.state.as_ref().unwrap()).await.unwrap();
    assert_eq!(snapshot.valid_until.unwrap().as_second(), end.as_second());
    // The signature beside the Release is of the one before, so it is not in it.
    assert!(!paths(&snapshot).iter().any(|path| path.ends_with("Release.gpg")));
}

#[tokio::test]
async fn apt_installs_from_a_filtered_mirror_that_the_site_signed() {
    let mut archive = published();
    archive.fields.insert("Valid-Until", {
        let end = Timestamp::now() + 1.hour();
        end.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
    });
    archive.publish();
    let mut source = archive.source();
    source.sync().await.unwrap();
    let state = source.state.clone().unwrap();
    let site = SigningKey::new([8; 32], "Site <s@example.org>", Timestamp::now()).unwrap();
    let made = tempfile::tempdir().unwrap();
    let snapshot = |chosen: &Chosen| {
        source.apt.chosen(&source.run, &state, chosen, made.path(), &sign_with(&site)).unwrap()
    };
    let chosen = Chosen {
        names: vec!["zo*".into()],
        sources: vec!["vlc".into()],
        newest_only: true,
        ..Chosen::default()
    };
    let first = snapshot(&chosen);
    let pool: Vec<_> = paths(&first).into_iter().filter(|path| path.starts_with("pool/")).collect();
    assert_eq!(
        pool,
        [
            "pool/main/libvlc5_3.0.20-0+b1_amd64.deb",
            "pool/main/vlc-data_3.0.20-0+deb12u1_all.deb",
            "pool/main/vlc_3.0.20-0+deb12u1_amd64.deb",
            "pool/main/zoo_1.0-2_amd64.deb",
        ]
    );
    assert_eq!(first.valid_until, None);
    // The same choice of the same state is the same package version.
    assert_eq!(snapshot(&chosen).files, first.files);
    let wanted = Chosen { wanted: ["extra".into(), "none".into()].into(), ..Chosen::default() };
    assert_eq!(paths(&snapshot(&wanted)).iter().filter(|it| it.starts_with("pool/")).count(), 1);
    let section = Chosen { sections: ["games".into()].into(), ..Chosen::default() };
    assert!(!paths(&snapshot(&section)).iter().any(|path| path.starts_with("pool/")));

    let served = tempfile::tempdir().unwrap();
    write_out(&source.run, &first, served.path()).await;
    let web = Web::of(served.path());
    let key = site.public_bytes().unwrap();
    let client = Client::new(&web.url(""), SUITE, "main contrib", &key);
    client.run("apt-get", &["update"]);
    assert!(web.paths().iter().any(|path| path.contains("by-hash/SHA256")));
    let policy = client.run("apt-cache", &["policy", "zoo", "extra"]);
    assert!(policy.contains("Candidate: 1.0-2") && !policy.contains("1.0-1"), "{policy}");
    assert!(!policy.contains("extra"), "{policy}");
    client.run("apt-get", &["-s", "install", "vlc"]);
    let deb = fs::read(archive.path("pool/main/zoo_1.0-2_amd64.deb")).unwrap();
    assert_eq!(client.download("zoo"), deb);
    // Who trusts the archive alone does not trust what the site made of it.
    let other = Client::new(&web.url(""), SUITE, "main", &archive.key.public_bytes().unwrap());
    assert!(!other.try_run("apt-get", &["update"]).0);
    // It is a source for another depot, too.
    let mut settings = archive.settings();
    settings.base = web.url("");
    settings.keyring = Keyring::parse(&key).unwrap();
    assert_eq!(Source::new(settings).sync().await.unwrap().unwrap().len(), 2);
}

/// Where this machine's apt has Debian's security suite from, and the architecture; none where it has none.
fn own_mirror() -> Option<(String, String, Vec<u8>)> {
    let told = std::process::Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ARCHITECTURE)"])
        .args(["Created-By: Packages", "Label: Debian-Security", "Component: main"])
        .output()
        .ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let mut words = told.lines().find(|line| line.starts_with("http"))?.split(' ');
    let (base, suite, _, arch) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let keyring = fs::read("/usr/share/keyrings/debian-archive-keyring.gpg").ok()?;
    Some((base.to_owned(), format!("{suite} {arch}"), keyring))
}

#[tokio::test]
async fn the_security_suite_of_this_machines_own_mirror_is_synchronized() {
    let Some((base, suite, keyring)) = own_mirror() else {
        println!("SKIPPED: apt of this machine names no mirror of Debian's security suite");
        return;
    };
    let (suite, arch) = suite.split_once(' ').unwrap();
    let mut settings = Archive::new().settings();
    settings.base = base.clone();
    settings.suites = vec![suite.into()];
    settings.components = vec!["main".into()];
    settings.architectures = vec![arch.into()];
    settings.keyring = Keyring::parse(&keyring).unwrap();
    let mut source = Source::new(settings);
    let updates = match source.sync().await {
        Ok(updates) => updates.unwrap(),
        Err(error) if matches!(error.cause, Cause::Unreachable | Cause::Busy | Cause::Stalled) => {
            println!("SKIPPED: {base} does not answer: {error}");
            return;
        }
        // A mirror that is frozen, as that of a snapshot: read at the time that it is of.
        Err(error) if error.cause == Cause::Expired => {
            println!("{base} stands still ({error}); read as of that time");
            let end = error.detail.split("valid until ").nth(1).unwrap();
            let end: Timestamp = end.split(',').next().unwrap().parse().unwrap();
            source.run.now = end - 1.hour();
            source.sync().await.unwrap().unwrap()
        }
        Err(error) => panic!("{base}: {error:?}"),
    };
    assert!(updates.len() > 100, "{}", updates.len());
    assert!(updates.iter().all(|update| update.files().count() > 0));
    let file = updates[0].files().next().unwrap();
    assert!(file.urls[0].starts_with(base.trim_end_matches('/')), "{file:?}");
    assert!(file.digests.get(Algorithm::Sha256).is_some());
    assert_eq!(source.sync().await.unwrap(), None);
    let snapshot = source.apt.whole(&source.run, source.state.as_ref().unwrap()).await.unwrap();
    let remote = |file: &&sync::mirror::MirrorFile| matches!(file.origin, Origin::Remote(_));
    let bytes: u64 = snapshot.files.iter().filter(remote).map(|file| file.size).sum();
    let count = snapshot.files.len();
    println!(
        "{} updates of {base} {suite}; a mirror has {count} files, {bytes} bytes",
        updates.len()
    );
    assert!(snapshot.skipped.count == 0, "{:?}", snapshot.skipped);
}

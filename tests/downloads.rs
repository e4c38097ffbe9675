//! Files of updates brought into packages, and updates of one's own, over real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::archive::Archive;
use support::own::TOOL;
use support::{Run, Site, temp_folder};

/// The update of a package of the archive: its name and id.
fn update_of(site: &Site, package: &str) -> (String, String) {
    let found = site.depot(["update", "list", "--search", package, "--json"]).ok().json();
    let text = |field: &str| found[0][field].as_str().unwrap().to_owned();
    (text("name"), text("id"))
}

fn download(site: &Site, updates: &[&str], more: &[&str]) -> Run {
    let args = ["update", "download", "--package", "nov", "--json"];
    site.depot(args.iter().chain(updates).chain(more))
}

fn outcomes(answer: &Value) -> Vec<&str> {
    let outcomes = answer["outcomes"].as_array().unwrap();
    outcomes.iter().map(|one| one["outcome"].as_str().unwrap()).collect()
}

#[test]
fn files_of_updates_come_into_a_package_and_one_that_fails_stops_no_other() {
    let mut archive = Archive::new();
    for name in ["openssl", "curl", "zlib"] {
        archive.add(name, "1.0-1");
    }
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    site.depot(["sync", "run", "security", "--watch"]).ok();
    let [openssl, curl, zlib] = ["openssl", "curl", "zlib"].map(|name| update_of(&site, name));

    let root = archive.folder.path().to_owned();
    let deb = |name: &str| root.join(Archive::deb(name, "1.0-1"));
    let first = download(&site, &[&openssl.0], &["--rate", "10MB"]).ok().json();
    assert_eq!((&first["version"], &first["failed"]), (&2.into(), &0.into()));
    assert_eq!(outcomes(&first), ["brought"]);
    let path = format!("/packages/nov/latest/{}/openssl_1.0-1_amd64.deb", openssl.1);
    assert_eq!(site.get(&path).body, fs::read(deb("openssl")).unwrap());

    // One is gone, one is another: the third comes, and the exit code says that not all did.
    archive.add("openssl", "2.0-1");
    archive.publish();
    site.depot(["sync", "run", "security", "--watch"]).ok();
    let kept = temp_folder();
    let zlib_deb = fs::read(deb("zlib")).unwrap();
    fs::rename(deb("curl"), kept.path().join("curl_1.0-1_amd64.deb")).unwrap();
    fs::write(deb("zlib"), vec![b'x'; zlib_deb.len()]).unwrap();
    let (newer, _) = update_of(&site, "2.0-1");
    let run = download(&site, &[&curl.1, &zlib.1, &newer], &[]);
    assert!(run.stderr.contains("could not be had"), "{}", run.stderr);
    assert_eq!(run.code, Some(1));
    let answer = run.json();
    assert_eq!((&answer["version"], &answer["failed"]), (&3.into(), &2.into()), "{answer}");
    let why = |name: &str| {
        let all = answer["outcomes"].as_array().unwrap();
        let one = all.iter().find(|one| one["path"].as_str().unwrap().contains(name)).unwrap();
        one["cause"].as_str().unwrap_or("none").to_owned()
    };
    assert_eq!(
        (why("curl"), why("zlib"), why("2.0-1")),
        ("not-found".into(), "mismatch".into(), "none".into())
    );

    // The rest from a folder; what is held is not asked for.
    fs::write(kept.path().join("zlib_1.0-1_amd64.deb"), &zlib_deb).unwrap();
    archive.web.asked();
    let from = ["--from-folder", kept.path().to_str().unwrap()];
    let rest = download(&site, &[&curl.1, &zlib.1, &openssl.1], &from).ok().json();
    assert_eq!((&rest["version"], &rest["failed"]), (&4.into(), &0.into()));
    let mut found = outcomes(&rest);
    found.sort_unstable();
    assert_eq!(found, ["brought", "brought", "held"]);
    assert!(archive.web.asked().is_empty());
    let again = download(&site, &[&curl.1], &[]).ok().json();
    assert_eq!((&again["version"], &again["unchanged"]), (&4.into(), &true.into()));
    assert!(download(&site, &["nothing"], &[]).fails(3).contains("nothing"));

    // A mirror takes no files beside its own.
    site.depot(["package", "create", "sec", "--mirror", "security"]).ok();
    let into = ["update", "download", &curl.1, "--package", "sec"];
    assert!(site.depot(into).fails(4).contains("mirrors"));
}

#[test]
fn of_files_for_one_language_those_come_that_are_wanted() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    for name in ["tool.exe", "texts.de", "texts.en"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let file = |path: &str, language: &str| {
        format!("[[files]]\npath = \"{path}\"\nlanguage = \"{language}\"\n")
    };
    let more = file("texts.de", "de") + &file("texts.en", "en-us") + "[installer]";
    let text = TOOL.replace("[installer]", &more);
    author(&site, folder.path(), &text, &["--publish"]).ok();
    let come = |package: &str, languages: &[&str]| {
        let args = ["update", "download", "Tool 2.1", "--package", package, "--json"];
        let all = site.depot(args.iter().chain(languages)).ok().json();
        let outcomes = all["outcomes"].as_array().unwrap();
        let name =
            |one: &Value| one["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let mut names: Vec<String> = outcomes.iter().map(name).collect();
        names.sort();
        names
    };
    assert_eq!(come("all", &[]), ["texts.de", "texts.en", "tool.exe"]);
    assert_eq!(come("de", &["--language", "de"]), ["texts.de", "tool.exe"]);
    assert_eq!(come("en", &["--language", "en"]), ["texts.en", "tool.exe"]);
    assert_eq!(come("two", &["--language", "en,de"]), ["texts.de", "texts.en", "tool.exe"]);
    assert_eq!(come("fr", &["--language", "fr"]), ["tool.exe"]);
}

fn author(site: &Site, folder: &Path, text: &str, more: &[&str]) -> Run {
    let file = folder.join("tool.toml");
    fs::write(&file, text).unwrap();
    let args = ["update", "author", file.to_str().unwrap()];
    site.depot(args.iter().chain(more))
}

#[test]
fn an_update_of_ones_own_is_published_downloaded_exported_and_withdrawn() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    fs::write(folder.path().join("tool.exe"), vec![7; 300_000]).unwrap();
    let line = author(&site, folder.path(), &TOOL.replace("title", "titel"), &[]).fails(2);
    assert!(line.contains("titel"), "{line}");
    let line = author(&site, folder.path(), &TOOL.replace("\"update\"", "\"driver\""), &[]);
    line.ok();
    let wrong = TOOL.replace("Mends the tool.", "");
    assert!(author(&site, folder.path(), &wrong, &[]).fails(2).contains("description"));
    let said = author(&site, folder.path(), TOOL, &[]).ok().stdout;
    assert!(said.contains("is right") && said.contains("--publish"), "{said}");
    let all = site.depot(["update", "list", "--json"]).ok().json();
    assert_eq!(all, serde_json::json!([]));

    let made = author(&site, folder.path(), TOOL, &["--publish", "--json"]).ok().json();
    let id = made["id"].as_str().unwrap();
    let all = site.depot(["update", "list", "--source", "local", "--json"]).ok().json();
    assert_eq!((&all[0]["id"], &all[0]["title"]), (&made["id"], &"Tool 2.1".into()), "{all}");
    let served = site.get(&format!("/packages/own-updates/latest/{id}/tool.exe"));
    assert_eq!(served.body, vec![7; 300_000]);
    let got = download(&site, &["Tool 2.1"], &[]).ok().json();
    assert_eq!(outcomes(&got), ["held"]);
    assert_eq!(site.get(&format!("/packages/nov/latest/{id}/tool.exe")).status, 200);

    // Said again with another text, it is the same update.
    let other = TOOL.replace("Mends the tool.", "Mends the tool at last.");
    let again = author(&site, folder.path(), &other, &["--publish", "--json"]).ok().json();
    assert_eq!((&again["id"], &again["changed"]), (&made["id"], &true.into()));
    let shown = site.depot(["update", "show", id, "--json"]).ok().json();
    assert_eq!(shown["revision"], 2, "{shown}");

    let sdp = folder.path().join("tool.sdp");
    site.depot(["update", "export", id, "-o", sdp.to_str().unwrap()]).ok();
    let document = fs::read_to_string(&sdp).unwrap();
    assert!(
        document.contains("SoftwareDistributionPackage") && document.contains(id),
        "{document}"
    );
    // As another site would take it.
    let shelf = temp_folder();
    fs::copy(&sdp, shelf.path().join("tool.sdp")).unwrap();
    let other_site = Site::start(&folder.path().join("other"));
    let source = ["sync", "source", "add", "inside", "--unsigned", "--sdp"];
    other_site.depot(source.iter().chain([&shelf.path().to_str().unwrap()])).ok();
    other_site.depot(["sync", "run", "inside", "--watch"]).ok();
    let shown = other_site.depot(["update", "show", id, "--json"]).ok().json();
    assert_eq!(shown["update"]["texts"]["en"]["title"], "Tool 2.1");

    site.depot(["update", "withdraw", id]).fails(2);
    site.depot(["update", "withdraw", id, "--yes"]).ok();
    let shown = site.depot(["update", "show", id, "--json"]).ok().json();
    assert_eq!(shown["state"], "expired");
    let run = download(&site, &[id], &[]);
    assert!(run.code == Some(1) && run.stderr.contains("expired"), "{run:?}");
    let line = ["sync", "source", "add", "local", "--unsigned", "--sdp"];
    let line = site.depot(line.iter().chain([&shelf.path().to_str().unwrap()])).fails(2);
    assert!(line.contains("own updates"), "{line}");
}

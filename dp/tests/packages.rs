//! Packages by name over HTTP: files, listings, links, versions and channels.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Point, curl, noise, point, write};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

fn docs() -> Point {
    let point = point();
    let package = point.package("docs");
    let source = point.source("docs");
    write(&source.join("index.html"), b"<h1>docs</h1>");
    write(&source.join("sub/data.bin"), &noise(200_000, 1));
    write(&source.join("sub/a & b<.txt"), b"odd");
    write(&source.join(OsStr::from_bytes(b"sub/\xff\n")), b"bytes");
    write(&source.join("empty"), b"");
    symlink("sub/data.bin", source.join("inside")).unwrap();
    symlink("sub", source.join("folder-link")).unwrap();
    symlink("/etc/passwd", source.join("outside")).unwrap();
    symlink("../../x", source.join("up")).unwrap();
    assert_eq!(point.update(&package), 2);
    point
}

#[test]
fn files_are_served_by_name() {
    let point = docs();
    for version in ["2", "latest"] {
        let got = curl(&[&point.url(&format!("/packages/docs/{version}/sub/data.bin"))]);
        assert_eq!(got.status, 200);
        assert!(got.body == noise(200_000, 1));
        assert_eq!(got.header("cache-control"), Some("no-cache"));
        assert!(got.header("last-modified").is_some());
        assert!(got.header("etag").unwrap().starts_with("\"blake3:"));
    }
    let page = curl(&[&point.url("/packages/docs/2/index.html")]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("content-security-policy"), Some("sandbox"));
    let odd = curl(&[&point.url("/packages/docs/2/sub/a%20%26%20b%3C.txt")]);
    assert_eq!((odd.status, odd.text()), (200, "odd"));
    let bytes = curl(&[&point.url("/packages/docs/2/sub/%FF%0A")]);
    assert_eq!((bytes.status, bytes.text()), (200, "bytes"));
    assert_eq!(curl(&[&point.url("/packages/docs/2/empty")]).status, 200);
    let range = curl(&["-r", "10-19", &point.url("/packages/docs/2/sub/data.bin")]);
    assert_eq!((range.status, range.body), (206, noise(200_000, 1)[10..20].to_vec()));
    let modified = page.header("last-modified").unwrap();
    let since = format!("If-Modified-Since: {modified}");
    assert_eq!(curl(&["-H", &since, &point.url("/packages/docs/2/index.html")]).status, 304);
}

#[test]
fn links_are_followed_inside_the_package_alone() {
    let point = docs();
    let get = |path: &str| curl(&[&point.url(&format!("/packages/docs/2/{path}"))]);
    assert!(get("inside").body == noise(200_000, 1));
    assert!(get("folder-link/data.bin").body == noise(200_000, 1));
    assert_eq!(get("folder-link/").status, 200);
    for lost in ["outside", "up"] {
        let got = get(lost);
        assert_eq!(got.status, 404);
        assert!(got.json()["detail"].as_str().unwrap().contains("symbolic link"), "{lost}");
    }
    for bad in ["../../x", "sub/../index.html", "%2e%2e/x", "sub%2Fdata.bin", "a//b"] {
        assert_eq!(get(bad).status, 400, "{bad}");
    }
    assert_eq!(get("none").status, 404);
    assert_eq!(get("index.html/").status, 404);
}

#[test]
fn folders_are_listed_as_pages_and_as_json() {
    let point = docs();
    let moved = curl(&[&point.url("/packages/docs/latest")]);
    assert_eq!((moved.status, moved.header("location")), (301, Some("/packages/docs/latest/")));
    let moved = curl(&[&point.url("/packages/docs/2/sub?x=1")]);
    assert_eq!(moved.header("location"), Some("/packages/docs/2/sub/?x=1"));
    let page = curl(&["-L", &point.url("/packages/docs/2/sub")]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("vary"), Some("accept"));
    for want in ["a &amp; b&lt;.txt", "href=\"./a%20%26%20b%3C.txt\"", "href=\"../\"", "195 KiB"] {
        assert!(page.text().contains(want), "{want} in {}", page.text());
    }
    let json = curl(&["-H", "Accept: application/json", &point.url("/packages/docs/2/")]);
    assert_eq!(json.header("content-type"), Some("application/json"));
    let listing = json.json();
    let names: Vec<&str> = listing["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["empty", "folder-link", "index.html", "inside", "outside", "sub", "up"]);
    let etag = format!("If-None-Match: {}", json.header("etag").unwrap());
    let again =
        curl(&["-H", &etag, "-H", "Accept: application/json", &point.url("/packages/docs/2/")]);
    assert_eq!(again.status, 304);
    // The page is another representation.
    assert_eq!(curl(&["-H", &etag, &point.url("/packages/docs/2/")]).status, 200);
}

#[test]
fn a_version_describes_itself_signed() {
    let point = docs();
    let accept = format!("Accept: {}", dp::VERSION_TYPE);
    let got = curl(&["-H", &accept, &point.url("/packages/docs/latest")]);
    assert_eq!(got.header("content-type"), Some(dp::VERSION_TYPE));
    let info: packager::VersionInfo = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(info.version, 2);
    info.verify(&point.packages.public_key()).unwrap();
    let manifest = curl(&[&point.url(&format!("/content/{}", info.manifest))]);
    let manifest = packager::Manifest::decode(&manifest.body).unwrap();
    assert_eq!(manifest.tree_digest(), info.tree);
}

#[test]
fn latest_and_channels_move_and_older_versions_keep_answering() {
    let point = docs();
    let package = "docs".parse().unwrap();
    let stable = "stable".parse().unwrap();
    point.packages.set_channel(&package, &stable, &"2".parse().unwrap()).unwrap();
    write(&point.source("docs").join("index.html"), b"<h1>new</h1>");
    assert_eq!(point.update(&package), 3);
    let get = |v: &str| curl(&[&point.url(&format!("/packages/docs/{v}/index.html"))]).body;
    assert_eq!(get("latest"), b"<h1>new</h1>");
    assert_eq!(get("stable"), b"<h1>docs</h1>");
    assert_eq!(get("2"), b"<h1>docs</h1>");
    point.packages.set_channel(&package, &stable, &"3".parse().unwrap()).unwrap();
    assert_eq!(get("stable"), b"<h1>new</h1>");
    assert_eq!(get("2"), b"<h1>docs</h1>");
    for (path, status) in [
        ("/packages/docs/9/index.html", 404),
        ("/packages/docs/beta/index.html", 404),
        ("/packages/none/1/x", 404),
        ("/packages/docs/0/x", 400),
        ("/packages/DOCS/1/x", 400),
    ] {
        assert_eq!(curl(&[&point.url(path)]).status, status, "{path}");
    }
}

#[test]
fn the_empty_first_version_lists_nothing() {
    let point = docs();
    let json = curl(&["-H", "Accept: application/json", &point.url("/packages/docs/1/")]);
    assert_eq!(json.json()["entries"].as_array().unwrap().len(), 0);
}

#[test]
fn what_is_revoked_or_deleted_is_gone_under_its_names_too() {
    let point = docs();
    let package = "docs".parse().unwrap();
    let url = point.url("/packages/docs/2/sub/data.bin");
    let inside = point.url("/packages/docs/2/inside");
    assert_eq!((curl(&[&url]).status, curl(&[&inside]).status), (200, 200));
    let digest = contentlib::Digest::of(&noise(200_000, 1));
    point.packages.revoke(digest, "leaked").unwrap();
    assert_eq!((curl(&[&url]).status, curl(&[&inside]).status), (410, 410));
    point.packages.unrevoke(digest).unwrap();
    assert_eq!(curl(&[&url]).status, 200);
    point.packages.delete_package(&package).unwrap();
    assert_eq!(curl(&[&url]).status, 404);
}

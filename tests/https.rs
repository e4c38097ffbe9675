//! HTTPS for people and clients: by the site's own authority, or by a certificate of the administrator's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, path::Path};
use support::{Run, Site, depot, temp_folder, tree, write_source};

/// A site that takes HTTPS alone but from this machine, with version 2 of package `p`.
fn site(folder: &Path, more: &[&str]) -> (Site, tree::Tree) {
    let site = Site::start_with(&folder.join("site"), more);
    let source = folder.join("source");
    let want = write_source(&source, 1, 3, 100_000);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    (site, want)
}

/// `depot` against the site over HTTPS, believing the certificates in `ca`.
fn over_https(site: &Site, ca: Option<&Path>, args: &[&str]) -> Run {
    let mut command = depot();
    command.env("DEPOT_TOKEN_FILE", site.token_file());
    command.env("DEPOT_URL", site.url.replace("http://", "https://"));
    if let Some(ca) = ca {
        command.arg("--ca").arg(ca);
    }
    Run::of(command.args(args))
}

#[test]
fn who_believes_the_sites_authority_speaks_to_it_over_https() {
    let folder = temp_folder();
    let (site, want) = site(folder.path(), &[]);
    let ca = folder.path().join("site.pem");
    fs::write(&ca, site.depot(["site", "authority"]).ok().stdout).unwrap();
    let listed = over_https(&site, Some(&ca), &["package", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["name"], "p");
    let said = over_https(&site, None, &["package", "list"]).fails(1);
    assert!(said.contains("--ca"), "{said}");

    let other = Site::start(&folder.path().join("other"));
    let other_ca = folder.path().join("other.pem");
    fs::write(&other_ca, other.depot(["site", "authority"]).ok().stdout).unwrap();
    over_https(&site, Some(&other_ca), &["package", "list"]).fails(1);

    let url = format!("{}/packages/p/latest", site.url.replace("http://", "https://"));
    let out = folder.path().join("out");
    let fetch =
        |ca: &Path| Run::of(depot().arg("--ca").arg(ca).args(["fetch", &url, "-o"]).arg(&out));
    fetch(&other_ca).fails(1);
    assert!(!out.join("file-0").exists());
    fetch(&ca).ok();
    let mut got = tree::read(&out);
    got.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&got, &want);

    let none = folder.path().join("none.pem");
    fs::write(&none, "nothing").unwrap();
    assert!(over_https(&site, Some(&none), &["package", "list"]).fails(2).contains("none.pem"));
}

#[test]
fn a_site_shows_its_administrators_certificate_and_says_what_is_wrong_with_it() {
    let folder = temp_folder();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let set = |key: &str, path: &Path| format!("--set=dp.{key}={}", path.display());
    let (shows, with) = (set("certificate", &certificate), set("key", &key));
    let (site, _) = site(folder.path(), &[&shows, &with, "--set=dp.plain_http=local"]);
    over_https(&site, Some(&certificate), &["package", "list"]).ok();
    let data = folder.path().join("another");
    let half = Site::start_at("127.0.0.1:0", &data, &[&shows]).err().unwrap();
    assert!(half.contains("dp.key"), "{half}");
    let wrong = set("key", &certificate);
    let wrong = Site::start_at("127.0.0.1:0", &data, &[&shows, &wrong]).err().unwrap();
    assert!(wrong.contains("own.pem") && wrong.contains("private key"), "{wrong}");
}

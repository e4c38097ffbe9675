//! The README's quick start, and its push without depot, run as they are written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, os::unix::fs::symlink, process::Command};
use support::{DEPOT, Run, Site, alone, temp_folder, tree};

/// The lines of the README's block with this mark.
fn block(mark: &str) -> String {
    let readme = include_str!("../README.md");
    let (_, rest) =
        readme.split_once(&format!("```sh {mark}\n")).expect("the README has the block");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

#[test]
fn the_quick_start_works_as_pasted() {
    let folder = temp_folder();
    let here = folder.path();
    // The repository's folder as it is after `make run` has built and started the site.
    fs::create_dir_all(here.join("target/release")).unwrap();
    symlink(DEPOT, here.join("target/release/depot")).unwrap();
    tree::write(&here.join("src"), &[(b"main.rs", b"fn main() {}\n")]);
    let data = here.join("depot-data");
    let mut script = block("quick-start") + &block("tar-push");
    let mut shell = alone(Command::new("sh"));
    let site = Site::start_at("127.0.0.1:8520", &data, &[]).unwrap_or_else(|log| {
        // Somebody has a site running: say where ours is, which the quick start need not.
        assert!(log.contains("127.0.0.1:8520"), "{log}");
        let site = Site::start(&data);
        script = script.replace("http://127.0.0.1:8520", &site.url);
        shell.env("DEPOT_URL", &site.url).env("DEPOT_TOKEN_FILE", site.token_file());
        site
    });
    let run = Run::of(shell.current_dir(here).args(["-ec", &script])).ok();
    let said = run.stdout;
    assert!(said.contains("package docs made; version 1 is empty"), "{said}");
    assert!(said.contains("docs version 2: "), "{said}");
    assert!(said.contains("docs is unchanged: still version 2"), "{said}");
    assert!(said.contains("sources version 2: 1 file"), "{said}");
    let pushed = site.depot(["package", "show", "tools", "--json"]).ok().json();
    assert_eq!(
        (&pushed["latest"]["version"], &pushed["latest"]["n_files"]),
        (&2.into(), &1.into())
    );

    let want = tree::read(std::path::Path::new("/usr/share/doc"));
    let mut found = tree::read(&here.join("out"));
    found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&found, &want);
}

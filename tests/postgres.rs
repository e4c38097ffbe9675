//! A site whose database is on a PostgreSQL server: served, killed, followed, moved there and back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, path::Path};
use support::{
    Run, Site, depot, on_data,
    postgres::{Postgres, shared},
    temp_folder, tree, until, write_source,
};

/// A package with content on the site.
fn publish(site: &Site, folder: &Path) -> tree::Tree {
    let source = folder.join("source");
    let tree = write_source(&source, 1, 3, 100_000);
    site.depot(["package", "create", "docs", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "docs"]).ok();
    tree
}

/// It comes back from the site as it was published.
fn is_fetched(site: &Site, folder: &Path, name: &str, want: &tree::Tree) {
    let out = folder.join(name);
    let url = format!("{}/packages/docs/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(&out)).ok();
    let mut got = tree::read(&out);
    got.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&got, want);
}

fn token_names(site: &Site) -> Vec<String> {
    let tokens = site.depot(["token", "list", "--json"]).ok().json();
    let mut names: Vec<String> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn make_token(site: &Site, name: &str) -> Run {
    site.depot(["token", "create", name, "--role", "operator", "--json"])
}

#[test]
fn a_site_keeps_its_records_on_a_server() {
    let (folder, url) = (temp_folder(), shared().url());
    let data = folder.path().join("data");
    let site = Site::start_with(&data, &["--database", &url]);
    let tree = publish(&site, folder.path());
    is_fetched(&site, folder.path(), "first", &tree);
    site.depot(["client", "list"]).ok();
    make_token(&site, "ci").ok();
    site.kill();
    assert!(!data.join("site").exists(), "nothing of it is in the folder");

    let site = Site::start_with(&data, &["--database", &url]);
    assert_eq!(token_names(&site), ["admin", "ci"]);
    let audit = site.depot(["audit", "--json"]).ok().stdout;
    assert!(audit.contains("docs") && audit.contains("ci"), "{audit}");
    is_fetched(&site, folder.path(), "second", &tree);
    assert_eq!(site.stop(), Some(0));

    // The same without a server; and never with an empty database in its place.
    let said = on_data(&data, ["token", "list"]).fails(4);
    assert!(said.contains("--database") && said.contains("DEPOT_DATABASE_URL"), "{said}");
    let list = |url: &str| {
        let mut list = depot();
        list.env("DEPOT_DATABASE_URL", url).arg("--data").arg(&data).args(["token", "list"]);
        Run::of(&mut list)
    };
    assert!(list(&url).ok().stdout.contains("ci"));
    assert!(list(&shared().url()).fails(4).contains("another site"));
}

#[test]
fn a_second_server_is_refused_and_follows_when_the_first_is_gone() {
    let postgres = shared();
    let (folder, database) = (temp_folder(), postgres.database());
    let url = postgres.url_of(&database);
    let first = Site::start_with(&folder.path().join("first"), &["--database", &url]);
    make_token(&first, "made-by-first").ok();
    let second = folder.path().join("second");
    let serve = |data: &Path| {
        let mut serve = depot();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--database", &url, "--data"]).arg(data);
        Run::of(&mut serve)
    };
    let said = serve(&second);
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    let held = format!("data folder {}", folder.path().join("first").display());
    assert!(said.stderr.contains(&held) && said.stderr.contains(" UTC"), "{}", said.stderr);
    let admin = first.token_file();
    let kept = folder.path().join("admin.token");
    fs::copy(&admin, &kept).unwrap();
    first.kill();
    // The rest of its time, shortened for the test.
    let shorter = "update depot_state set until = least(until, now() + interval '2 s')";
    postgres.psql(&database, shorter).unwrap();
    let second = Site::start_with(&second, &["--database", &url]);
    let mut list = depot();
    list.env("DEPOT_URL", &second.url).env("DEPOT_TOKEN_FILE", &kept).args(["token", "list"]);
    assert!(Run::of(&mut list).ok().stdout.contains("made-by-first"));
}

#[test]
fn a_database_server_that_is_killed_is_back_without_loss() {
    let mut postgres = Postgres::start(&[]);
    let (folder, url) = (temp_folder(), postgres.url());
    let site = Site::start_with(&folder.path().join("data"), &["--database", &url]);
    make_token(&site, "before").ok();
    postgres.kill();
    postgres.begin();
    make_token(&site, "after").ok();
    assert_eq!(token_names(&site), ["admin", "after", "before"]);
    site.kill();
    let site = Site::start_with(&folder.path().join("data"), &["--database", &url]);
    assert_eq!(token_names(&site), ["admin", "after", "before"]);
}

#[test]
fn a_password_is_shown_nowhere() {
    let postgres = shared();
    let folder = temp_folder();
    let data = folder.path().join("data");
    let url = postgres.url().replace("postgres@", "postgres:sEcret@");
    let shown = Run::of(depot().env("DEPOT_DATABASE_URL", &url).args(["config", "show"])).ok();
    assert!(shown.stdout.contains("postgres:***@"), "{}", shown.stdout);
    let mut serve = depot();
    serve.env("DEPOT_DATABASE_URL", &url);
    serve.args(["-vv", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let site = Site::start_by(serve, &data).unwrap();
    make_token(&site, "ci").ok();
    site.stop();
    let wrong = ["postgres://depot:sEcret@", "postgres://depot:sEcret@h/d?sslmode=prefer"];
    for wrong in wrong {
        let said = Run::of(depot().args(["serve", "--database", wrong, "--data"]).arg(&data));
        assert!(!said.fails(2).contains("sEcret"));
    }
    let said =
        Run::of(depot().args(["database", "migrate", "--to", wrong[1], "--data"]).arg(&data));
    assert!(!said.fails(2).contains("sEcret"));
    for file in [data.with_extension("log"), data.join("database.json"), data.join("lock")] {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("sEcret"), "{file:?} has it");
    }
}

#[test]
fn a_site_moves_to_a_server_and_back() {
    let (folder, url) = (temp_folder(), shared().url());
    let data = folder.path().join("data");
    let site = Site::start(&data);
    let tree = publish(&site, folder.path());
    make_token(&site, "in-the-folder").ok();
    let migrate = |to: &str| on_data(&data, ["database", "migrate", "--to", to, "--json"]);
    assert!(migrate(&url).fails(4).contains("in use"), "while it is served");
    site.stop();

    // A server does not begin anew where there are records.
    let serve = |args: &[&str]| {
        let mut serve = depot();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data).args(args);
        Run::of(&mut serve)
    };
    assert!(serve(&["--database", &url]).fails(4).contains("database migrate"));
    let moved = migrate(&url).ok().json();
    assert!(moved["entries"].as_u64().unwrap() > 3, "{moved}");
    assert!(data.join("site.moved/CURRENT").exists() && !data.join("site").exists());
    assert!(serve(&[]).fails(4).contains("--database"));

    let site = Site::start_with(&data, &["--database", &url]);
    assert_eq!(token_names(&site), ["admin", "in-the-folder"]);
    is_fetched(&site, folder.path(), "there", &tree);
    make_token(&site, "on-the-server").ok();
    site.stop();

    // What is in use is not written over.
    let old = data.join("site.moved");
    let from_old = ["database", "migrate", "--from", old.to_str().unwrap(), "--to", &url];
    assert!(on_data(&data, from_old).fails(4).contains("in use"));
    // For people; and the way back needs no `--from`.
    let own = data.join("site");
    let said = on_data(&data, ["database", "migrate", "--to", own.to_str().unwrap()]).ok();
    assert!(said.stdout.contains("on both sides"), "{}", said.stdout);
    let site = Site::start(&data);
    assert_eq!(token_names(&site), ["admin", "in-the-folder", "on-the-server"]);
    is_fetched(&site, folder.path(), "back", &tree);
}

#[test]
fn a_move_that_is_killed_goes_on_when_it_is_asked_for_again() {
    let postgres = shared();
    let (folder, database) = (temp_folder(), postgres.database());
    let data = folder.path().join("data");
    on_data(&data, ["package", "create", "docs"]).code.unwrap();
    let site = Site::start(&data);
    for n in 0..3 {
        make_token(&site, &format!("token-{n}")).ok();
    }
    site.stop();
    fill(&data);
    let to = postgres.url_of(&database);
    let mut migrate = depot();
    migrate.arg("--data").arg(&data).args(["database", "migrate", "--to", &to]);
    let mut child = migrate.stderr(std::process::Stdio::null()).spawn().unwrap();
    let copied = || {
        let count = postgres.psql(&database, "select count(*) from depot_entries");
        count.ok().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    until("some of it is there", || copied() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let some = copied();
    assert!(some > 0 && some < RECORDS, "{some}: it was to be killed in the middle");
    // Nobody takes a part for the whole.
    postgres.psql(&database, "update depot_state set until = now()").unwrap();
    let mut serve = depot();
    serve.args(["serve", "--database", &to, "--data"]).arg(folder.path().join("other"));
    assert!(Run::of(&mut serve).fails(4).contains("not ended"));
    let moved = on_data(&data, ["database", "migrate", "--to", &to, "--json"]).ok().json();
    assert!(moved["entries"].as_u64().unwrap() > RECORDS, "{moved}");
    let site = Site::start_with(&data, &["--database", &to]);
    assert_eq!(token_names(&site), ["admin", "token-0", "token-1", "token-2"]);
}

/// Records beside those of the site, so that copying them takes a while.
const RECORDS: u64 = 100_000;

fn fill(data: &Path) {
    use sitedb::Kv;
    let kv = sitedb::RocksKv::open(&data.join("site")).unwrap();
    for part in 0..RECORDS / 1000 {
        let mut batch = sitedb::Batch::relaxed();
        for n in 0..1000 {
            batch.put(format!("zz-test\0{:08}", part * 1000 + n), vec![b'x'; 200]);
        }
        kv.write(batch).unwrap();
    }
}

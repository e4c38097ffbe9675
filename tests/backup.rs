//! Backups over real processes: made of a site that is used, cut off, damaged, and put back elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};
use support::{
    Run, Site, archive::Archive, depot, on_data, point::Point, postgres::shared, temp_folder, tree,
    until, while_repeating, write_source,
};

/// A folder with a passphrase and room for backups.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: temp_folder() };
        let path = scene.passphrase();
        let mut file = fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(path).unwrap();
        writeln!(file, "correct horse battery staple").unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn passphrase(&self) -> PathBuf {
        self.path("passphrase")
    }

    fn backups(&self) -> PathBuf {
        self.path("backups")
    }

    /// A command on backups of this scene, with its passphrase.
    fn args<'a>(&self, words: &[&'a str]) -> Vec<String> {
        let words = words.iter().map(|word: &&'a str| (*word).to_owned());
        let passphrase = self.passphrase().display().to_string();
        words.chain(["--passphrase-file".to_owned(), passphrase]).collect()
    }

    fn create(&self, site: &Site, more: &[&str]) -> serde_json::Value {
        let backups = self.backups().display().to_string();
        let words = [&["backup", "create", &backups, "--json"], more].concat();
        site.depot(self.args(&words)).ok().json()
    }

    /// Puts the newest backup back into `data`.
    fn restore(&self, data: &Path, more: &[&str]) -> Run {
        let backups = self.backups().display().to_string();
        let words = [&["backup", "restore", &backups, "--json"], more].concat();
        on_data(data, self.args(&words))
    }
}

/// A package with content on the site.
fn publish(site: &Site, folder: &Path, name: &str, seed: u64) -> tree::Tree {
    let source = folder.join(format!("source-{name}"));
    let tree = write_source(&source, seed, 3, 200_000);
    if site.get(&format!("/packages/{name}/latest")).status == 404 {
        site.depot(["package", "create", name, "--source", source.to_str().unwrap()]).ok();
    }
    site.depot(["package", "update", name]).ok();
    tree
}

/// It comes from the site as it was published, signed by the key that clients trust.
fn is_fetched(site: &Site, name: &str, out: &Path, want: &tree::Tree) {
    let _ = fs::remove_dir_all(out);
    let url = format!("{}/packages/{name}/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(out)).ok();
    let mut got = tree::read(out);
    got.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&got, want);
}

fn token_names(site: &Site) -> Vec<String> {
    let tokens = site.depot(["token", "list", "--json"]).ok().json();
    let names = tokens.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn make_token(site: &Site, name: &str) {
    site.depot(["token", "create", name, "--role", "operator", "--json"]).ok();
}

fn keys(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(data.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_drill_what_was_deleted_after_the_backup_is_there_again() {
    let scene = Scene::new();
    let site = Site::start(&scene.path("data"));
    let docs = publish(&site, scene.folder.path(), "docs", 1);
    let tools = publish(&site, scene.folder.path(), "tools", 50);
    make_token(&site, "ci");
    let joining = ["client", "join-token", "create", "--name", "office", "--output"];
    let joining = joining.into_iter().map(Into::into).chain([scene.path("join").into_os_string()]);
    site.depot(joining).ok();
    // While others write.
    let mut n = 0;
    let made = while_repeating(
        || {
            n += 1;
            make_token(&site, &format!("meanwhile-{n}"));
        },
        || scene.create(&site, &["--with-content"]),
    );
    let file = PathBuf::from(made["path"].as_str().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(made["keys"].as_u64().unwrap() >= 4, "{made}");
    let said = Run::of(depot().args(["backup", "verify"]).arg(scene.backups())).ok();
    assert!(said.stdout.contains("sealed; not tried"), "{}", said.stdout);
    let before = keys(&site.data);
    let bytes = fs::read(&file).unwrap();
    for (name, key) in &before {
        assert!(!bytes.windows(key.len()).any(|it| it == *key), "{name} lies in it as it is");
    }

    site.depot(["package", "delete", "docs", "--yes"]).ok();
    make_token(&site, "too-late");
    assert_eq!(site.stop(), Some(0));

    let data = scene.path("restored");
    let done = scene.restore(&data, &[]).ok().json();
    assert_eq!(
        (&done["library"]["n_missing"], &done["lost_packs"]),
        (&0.into(), &serde_json::json!([]))
    );
    assert_eq!(keys(&data), before, "the same identity");
    let site = Site::start(&data);
    is_fetched(&site, "docs", &scene.path("out"), &docs);
    is_fetched(&site, "tools", &scene.path("out"), &tools);
    let names = token_names(&site);
    assert!(names.contains(&"ci".into()) && !names.contains(&"too-late".into()), "{names:?}");
    let tokens = site.depot(["client", "join-token", "list"]).ok().stdout;
    assert!(tokens.contains("office"), "{tokens}");
    let audit = site.depot(["audit", "--json"]).ok().stdout;
    assert!(audit.contains("restore_site"), "{audit}");
    assert_eq!(site.depot(["library", "verify"]).code, Some(0));
    // It goes on, under numbers that nobody was given before.
    let docs = publish(&site, scene.folder.path(), "docs", 7);
    is_fetched(&site, "docs", &scene.path("out"), &docs);
    let shown = site.depot(["package", "show", "docs", "--json"]).ok().stdout;
    assert!(shown.contains("1002") || shown.contains("1003"), "{shown}");
    site.stop();

    // A folder that is in use is left alone.
    assert!(scene.restore(&data, &[]).fails(4).contains("not empty"));
}

#[test]
fn a_series_keeps_packs_once_and_the_newest_backups() {
    let scene = Scene::new();
    let data = scene.path("data");
    let site = Site::start(&data);
    let first = publish(&site, scene.folder.path(), "docs", 1);
    let one = scene.create(&site, &["--with-content"]);
    publish(&site, scene.folder.path(), "docs", 20);
    let two = scene.create(&site, &["--with-content"]);
    assert!(two["copied_packs"].as_u64() < two["packs"].as_u64(), "{two}");
    let listed =
        Run::of(depot().args(["backup", "list", "--json"]).arg(scene.backups())).ok().json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, [two["name"].clone(), one["name"].clone()], "the newest first");

    // The point in time is that of the backup before it.
    let at = one["taken"].as_str().unwrap();
    let old = scene.path("old");
    let restored = scene.restore(&old, &["--at", at]).ok().json();
    assert_eq!(restored["taken"], one["taken"]);
    let at_first = Site::start(&old);
    is_fetched(&at_first, "docs", &scene.path("out"), &first);
    drop(at_first);
    let none = scene.restore(&scene.path("none"), &["--at", "2020-01-01T00:00:00Z"]);
    assert!(none.fails(3).contains("no backup"));
    let single = scene.backups().join(one["name"].as_str().unwrap()).display().to_string();
    let both = scene.args(&["backup", "restore", &single, "--at", at]);
    assert!(on_data(&scene.path("none"), both).fails(2).contains("is a single one"));

    let three = scene.create(&site, &["--with-content", "--keep", "2"]);
    assert_eq!(three["removed"], serde_json::json!([one["name"]]));
    Run::of(depot().args(["backup", "verify"]).arg(scene.backups())).ok();
    // Without a server, on the folder itself.
    site.stop();
    let backups = scene.backups().display().to_string();
    let args = scene.args(&["backup", "create", &backups, "--with-content", "--keep", "1"]);
    on_data(&data, args).ok();
    let args = ["backup", "verify", &backups, "--against-library"];
    on_data(&data, args).ok();

    // Neither another site's, nor one that would be lost with the data folder.
    let other = Site::start(&scene.path("other"));
    let said = other.depot(scene.args(&["backup", "create", &backups])).fails(4);
    assert!(said.contains("another site"), "{said}");
    let inside = other.data.join("backups").display().to_string();
    let said = other.depot(scene.args(&["backup", "create", &inside])).fails(2);
    assert!(said.contains("data folder"), "{said}");
    other.depot(["backup", "create", &backups]).fails(2);
}

#[test]
fn what_is_damaged_or_missing_is_named() {
    let scene = Scene::new();
    let site = Site::start(&scene.path("data"));
    publish(&site, scene.folder.path(), "docs", 1);
    let made = scene.create(&site, &["--with-content"]);
    let backups = scene.backups().display().to_string();
    let verify =
        |more: &[&str]| Run::of(depot().args([&["backup", "verify", &backups], more].concat()));
    Run::of(depot().args(scene.args(&["backup", "verify", &backups]))).ok();
    let wrong = scene.path("wrong");
    fs::write(&wrong, "another passphrase\n").unwrap();
    let said = verify(&["--passphrase-file", wrong.to_str().unwrap()]).fails(2);
    assert!(said.contains("chmod 600"), "{said}");
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    verify(&["--passphrase-file", wrong.to_str().unwrap()]).fails(1);
    let restored = scene.path("restored");
    let words = ["backup", "restore", &backups, "--passphrase-file", wrong.to_str().unwrap()];
    on_data(&restored, words).fails(2);
    assert!(!restored.join("site").exists(), "it is known before anything is written");
    on_data(&restored, ["backup", "restore", &backups]).fails(2);

    // A byte of a pack.
    let pack = fs::read_dir(scene.backups().join("packs")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&pack, &bad).unwrap();
    let found = verify(&["--json"]);
    assert_eq!((found.code, found.json()["damaged_packs"].as_array().unwrap().len()), (Some(5), 1));
    fs::remove_file(&pack).unwrap();
    let found = verify(&["--json"]);
    assert_eq!((found.code, found.json()["missing_packs"].as_array().unwrap().len()), (Some(5), 1));
    // A byte of the file.
    let file = made["path"].as_str().unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    assert!(verify(&[]).fails(5).contains("damaged at byte"));
    scene.restore(&restored, &[]).fails(5);
    assert!(!restored.join("site").exists());
}

/// Runs a command on `data` and kills it once `is_so`, or never if it ends before.
fn killed_when(scene: &Scene, data: &Path, words: &[&str], is_so: impl Fn() -> bool) -> bool {
    let mut command = depot();
    command.arg("--data").arg(data).args(scene.args(words));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut ended = false;
    until("it is so, or over", || {
        ended = child.try_wait().unwrap().is_some();
        ended || is_so()
    });
    let _ = child.kill();
    child.wait().unwrap();
    !ended
}

/// Whether a file below `folder` ends so.
fn has(folder: &Path, end: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let mut names = entries.filter_map(|it| it.ok()?.file_name().into_string().ok());
    names.any(|name| name.ends_with(end))
}

#[test]
fn what_is_killed_anywhere_is_done_again() {
    let scene = Scene::new();
    let data = scene.path("data");
    let site = Site::start(&data);
    let docs = publish(&site, scene.folder.path(), "docs", 1);
    assert_eq!(site.stop(), Some(0));
    let backups = scene.backups();
    let words = ["backup", "create", backups.to_str().unwrap(), "--with-content"];
    let packs = backups.join("packs");
    for end in [".part", ".pack"] {
        killed_when(&scene, &data, &words, || has(&packs, end));
    }
    killed_when(&scene, &data, &words, || has(&backups, ".depot-backup.part"));
    if has(&backups, ".depot-backup") {
        Run::of(depot().args(["backup", "verify"]).arg(&backups)).ok();
    }
    on_data(&data, scene.args(&words)).ok();
    Run::of(depot().args(["backup", "verify"]).arg(&backups)).ok();
    assert!(!has(&backups, ".part") && !has(&packs, ".part"));

    let restored = scene.path("restored");
    let words = ["backup", "restore", backups.to_str().unwrap()];
    let marker = restored.join("restore.json");
    for place in ["restore.json", "library/packs", "site/CURRENT", "keys/site.ed25519"] {
        let was_killed = killed_when(&scene, &restored, &words, || restored.join(place).exists());
        if !was_killed || !marker.exists() {
            break;
        }
        let said = on_data(&restored, ["token", "list"]).fails(4);
        assert!(said.contains("half of a site"), "{said}");
    }
    if marker.exists() {
        scene.restore(&restored, &[]).ok();
    }
    assert!(!marker.exists());
    let site = Site::start(&restored);
    is_fetched(&site, "docs", &scene.path("out"), &docs);
}

#[test]
fn either_kind_of_database_takes_a_backup_of_the_other() {
    let scene = Scene::new();
    let site = Site::start(&scene.path("data"));
    let docs = publish(&site, scene.folder.path(), "docs", 1);
    make_token(&site, "ci");
    scene.create(&site, &["--with-content"]);
    let before = token_names(&site);
    site.stop();

    let (data, url) = (scene.path("on-a-server"), shared().url());
    let done = scene.restore(&data, &["--database", &url]).ok().json();
    assert!(done["database"].as_str().unwrap().starts_with("postgres://"), "{done}");
    assert!(!data.join("site").exists());
    let said = on_data(&data, ["token", "list"]).fails(4);
    assert!(said.contains("--database"), "{said}");
    let site = Site::start_with(&data, &["--database", &url]);
    assert_eq!(token_names(&site), before);
    is_fetched(&site, "docs", &scene.path("out"), &docs);
    make_token(&site, "made-on-a-server");
    scene.create(&site, &["--with-content"]);
    site.stop();
    // A database that a site has worked with is not overwritten.
    let used = scene.restore(&scene.path("another"), &["--database", &url]).fails(4);
    assert!(used.contains("in use"), "{used}");

    let back = scene.path("back");
    scene.restore(&back, &[]).ok();
    let site = Site::start(&back);
    assert!(token_names(&site).contains(&"made-on-a-server".to_owned()));
    is_fetched(&site, "docs", &scene.path("out"), &docs);
}

#[test]
fn references_alone_are_healed_from_who_has_the_content() {
    let scene = Scene::new();
    let old = Site::start(&scene.path("data"));
    let docs = publish(&old, scene.folder.path(), "docs", 1);
    scene.create(&old, &[]);
    let data = scene.path("restored");
    let said = scene.restore(&data, &[]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    assert!(said.json()["library"]["n_missing"].as_u64().unwrap() > 0, "{}", said.stdout);
    let new = Site::start(&data);
    new.depot(["library", "repair", "--from", &old.url]).ok();
    old.kill();
    is_fetched(&new, "docs", &scene.path("out"), &docs);
    new.depot(["library", "verify"]).ok();
    new.stop();

    // Or the packs were put there from where they are kept.
    let other = scene.path("other");
    fs::create_dir_all(other.join("library")).unwrap();
    let copied = Run::of(
        std::process::Command::new("cp")
            .arg("-r")
            .arg(scene.path("data").join("library/packs"))
            .arg(other.join("library")),
    );
    copied.ok();
    let done = scene.restore(&other, &[]).ok().json();
    assert_eq!(done["library"]["n_missing"], 0, "{done}");
    let new = Site::start(&other);
    is_fetched(&new, "docs", &scene.path("out"), &docs);
}

/// `HOST:PORT` of a site.
fn place(site: &Site) -> String {
    site.url.trim_start_matches("http://").to_owned()
}

#[test]
fn who_saw_what_came_after_the_backup_comes_to_what_the_restored_site_has() {
    let mut archive = Archive::new();
    archive.list(0..3);
    archive.publish();
    let scene = Scene::new();
    let data = scene.path("top");
    let top = Site::start(&data);
    archive.add_to(&top, "security", &archive.web.url).ok();
    let second = publish(&top, scene.folder.path(), "docs", 1);
    let token = top.join_token("paris", &[]);
    let point = Point::start(&scene.path("paris"), Some(&token), &[]);
    top.depot(["distribute", "docs", "--dp", "paris"]).ok();
    let token = scene.path("berlin.token");
    let create =
        ["site", "join-token", "create", "--name", "berlin", "--kind", "primary", "--output"];
    top.depot(create.into_iter().chain([token.to_str().unwrap()])).ok();
    let parent = top.url.replace("http://", "https://");
    let join = ["--parent", &parent, "--join-file", token.to_str().unwrap()];
    let berlin = Site::start_with(&scene.path("berlin"), &join);
    let updates = |site: &Site| {
        let list = ["update", "list", "--filter", "not expired", "--order", "title", "--json"];
        let list = site.depot(list).ok().json();
        let titles = list.as_array().unwrap().iter().map(|it| it["title"].clone());
        titles.collect::<Vec<_>>()
    };
    top.depot(["sync", "run", "security", "--watch"]).ok();
    until("the child has them", || updates(&berlin).len() == 3);
    top.until_held("docs", 2);
    scene.create(&top, &["--with-content"]);

    // Point and child see more, which the restored site knows nothing of.
    publish(&top, scene.folder.path(), "docs", 20);
    top.until_held("docs", 3);
    let mut other = Archive::new();
    other.list(100..102);
    other.publish();
    other.add_to(&top, "other", &other.web.url).ok();
    top.depot(["sync", "run", "other", "--watch"]).ok();
    until("the child has more", || updates(&berlin).len() == 5);
    let at = place(&top);
    assert_eq!(berlin.stop(), Some(0));
    assert_eq!(top.stop(), Some(0));

    let restored = scene.path("restored");
    scene.restore(&restored, &[]).ok();
    let top = Site::start_at(&at, &restored, &[]).unwrap();
    until("the point goes back", || point.version("docs", "latest") == Some(2));
    point.gives("docs", "latest", &scene.path("out"), &second);
    // Other updates have the numbers now that the child has seen, and more.
    archive.list(3..6);
    archive.publish();
    top.depot(["sync", "run", "security", "--watch"]).ok();
    let want = updates(&top);
    assert_eq!(want.len(), 6);
    let berlin = Site::start(&scene.path("berlin"));
    until("the child has what the parent has", || updates(&berlin) == want);
    let third = publish(&top, scene.folder.path(), "docs", 40);
    until("the point follows", || point.version("docs", "latest").is_some_and(|it| it > 1000));
    point.gives("docs", "latest", &scene.path("out"), &third);
}

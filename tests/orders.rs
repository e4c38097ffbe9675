//! What an administrator has a distribution point do: check what it holds, or bring a package in order,
//! now; and look after its library, on its own machine. The scrub is off: what is found, the orders
//! find.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{
    Run, Site, noise, on_data,
    point::Point,
    relay::{Line, Pace},
    temp_folder,
    tree::{self, Tree},
    until,
};

/// Small packs, so that there are many, and nothing that finds damage by itself within a test.
const QUIET: [&str; 4] = ["--set", "library.pack_size=1MiB", "--set", "point.scrub_period=0s"];

/// A site, and a point `branch-7` that reaches it over a line.
struct Field {
    point: Option<Point>,
    line: Line,
    site: Option<Site>,
    folder: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let folder = temp_folder();
        let site = Site::start(&folder.path().join("site"));
        let line = Line::to(&site.url);
        let token =
            site.join_token("branch-7", &["--site-url", &format!("https://{}", line.address)]);
        let point = Some(Point::start(&folder.path().join("point"), Some(&token), &QUIET));
        Self { point, line, site: Some(site), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site().depot(args)
    }

    /// A package of a large and a small file, held by the point when this returns.
    fn package(&self, name: &str, seed: u64) -> Tree {
        let source = self.path(name);
        let (large, small) = (noise(seed, 3 << 20), noise(seed + 1, 900));
        tree::write(&source, &[(b"large", &large), (b"small", &small)]);
        self.depot(&["package", "create", name, "--source", source.to_str().unwrap()]).ok();
        self.depot(&["package", "update", name]).ok();
        self.depot(&["distribute", name, "--dp", "branch-7"]).ok();
        self.site().until_held(name, 2);
        tree::read(&source)
    }

    /// Packs of the point that are not written to any more, the largest first.
    fn packs(&self) -> Vec<PathBuf> {
        let mut packs = packs(&self.path("point/library"));
        packs.sort_by_key(|pack| std::cmp::Reverse(fs::metadata(pack).unwrap().len()));
        packs
    }

    /// The newest order of the point.
    fn order(&self) -> Value {
        let orders = self.depot(&["dp", "orders", "branch-7", "--json"]).ok().json();
        orders.as_array().unwrap().last().unwrap().clone()
    }

    fn until_order(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut order = Value::Null;
        until("the order", || {
            order = self.order();
            is_so(&order)
        });
        order
    }

    fn gives(&self, name: &str, want: &Tree) {
        let out = self.path(&format!("{name}-out"));
        let _ = fs::remove_dir_all(&out);
        self.point.as_ref().unwrap().gives(name, "latest", &out, want);
    }
}

fn packs(library: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(library.join("packs")).unwrap().flatten();
    let files = folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
    files.map(|file| file.path()).collect()
}

/// Flips a bit in each 4 KiB of the middle of a file.
fn flip_bits(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let len = bytes.len();
    for at in (len / 4..len * 3 / 4).step_by(4096) {
        bytes[at] ^= 0x10;
    }
    fs::write(path, bytes).unwrap();
}

/// Flips a bit where these bytes are in a pack.
fn spoil(library: &Path, bytes: &[u8]) {
    for pack in packs(library) {
        let mut found = fs::read(&pack).unwrap();
        if let Some(at) = found.windows(bytes.len()).position(|window| window == bytes) {
            found[at] ^= 1;
            return fs::write(&pack, found).unwrap();
        }
    }
    panic!("the bytes are in no pack");
}

#[test]
fn validate_finds_what_went_bad_and_what_is_gone_and_it_converges() {
    let field = Field::new();
    let (docs, tools) = (field.package("docs", 1), field.package("tools", 10));
    let run = field.depot(&["dp", "validate", "branch-7", "--watch"]).ok();
    assert!(run.stdout.contains("none damaged"), "{}", run.stdout);
    let sound = field.order();
    assert_eq!((&sound["state"], &sound["n_damaged"]), (&"done".into(), &0.into()), "{sound}");
    // Two files, and the list of them, of each.
    assert!(sound["n_checked"].as_u64().unwrap() >= 6, "{sound}");
    assert!(sound["bytes"].as_u64().unwrap() >= 6 << 20, "{sound}");

    let packs = field.packs();
    flip_bits(&packs[0]);
    fs::remove_file(&packs[1]).unwrap();
    // What comes again waits, so that it can be seen.
    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + (16 << 10)));
    let given = field.depot(&["dp", "validate", "branch-7", "--json"]).ok().json();
    assert_eq!(given[0]["number"], 2);
    let order = field.until_order(|order| order["state"] == "mending");
    assert!(order["n_damaged"].as_u64().unwrap() >= 1, "{order}");
    let row = |name: &str| field.site().status(name).remove(0);
    until("content-status tells it", || {
        ["docs", "tools"].iter().any(|name| row(name)["state"] == "repairing")
    });
    field.line.set(Pace::Free);
    let order = field.until_order(|order| order["state"] == "done");
    assert_eq!(order["n_damaged"], order["n_mended"], "{order}");
    assert!(order["ended"].is_string() && order["cause"].is_null(), "{order}");
    for (name, want) in [("docs", &docs), ("tools", &tools)] {
        field.site().until_held(name, 2);
        field.gives(name, want);
    }
    let table = field.depot(&["dp", "orders"]).ok().stdout;
    assert!(table.contains("validate") && table.contains("(all)"), "{table}");
}

#[test]
fn an_order_outlives_its_point_and_its_site() {
    let mut field = Field::new();
    let docs = field.package("docs", 1);
    let (pack, site) = (field.packs().remove(0), field.path("site"));
    field.point.take().unwrap().kill();
    flip_bits(&pack);
    // Given while the point does not run, and once, however often.
    for _ in 0..2 {
        let given = field.depot(&["dp", "validate", "branch-7", "docs", "--json"]).ok().json();
        assert_eq!((&given[0]["number"], &given[0]["state"]), (&1.into(), &"waiting".into()));
    }
    drop(field.site.take());
    field.site = Some(Site::start(&site));
    field.line.lead_to(&field.site().url);
    assert_eq!(field.order()["state"], "waiting");

    // The point is killed while it mends.
    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + (64 << 10)));
    field.point = Some(Point::start(&field.path("point"), None, &QUIET));
    let order = field.until_order(|order| order["state"] == "mending");
    let damaged = order["n_damaged"].as_u64().unwrap();
    assert!(damaged >= 1);
    field.point.take().unwrap().kill();
    field.line.set(Pace::Free);
    field.point = Some(Point::start(&field.path("point"), None, &QUIET));
    let order = field.until_order(|order| order["state"] == "done");
    assert_eq!((order["number"].as_u64(), order["n_damaged"].as_u64()), (Some(1), Some(damaged)));
    assert_eq!(order["n_mended"], order["n_damaged"]);
    field.gives("docs", &docs);
}

#[test]
fn redistribute_brings_what_failed_without_waiting_for_the_next_try() {
    let mut field = Field::new();
    field.package("docs", 1);
    // What comes next is damaged at the site, where nobody has noticed yet.
    field.point.take().unwrap().kill();
    let more = noise(7, 700_000);
    tree::write(&field.path("docs"), &[(b"more", &more)]);
    field.depot(&["package", "update", "docs"]).ok();
    spoil(&field.path("site/library"), &more[350_000..350_032]);
    field.point = Some(Point::start(&field.path("point"), None, &QUIET));
    field.site().until_status("docs", |row| row["version"] == 3 && row["state"] == "failed");
    field.depot(&["package", "update", "docs", "--read-all"]).ok();
    let missing = field.depot(&["redistribute", "nothing", "--dp", "branch-7"]).fails(3);
    assert!(missing.contains("there is no package nothing"), "{missing}");
    let run = field.depot(&["redistribute", "docs", "--dp", "branch-7", "--watch"]).ok();
    assert!(run.stdout.contains("redistribute docs: done"), "{}", run.stdout);
    field.site().until_held("docs", 3);
    let gone = field.depot(&["dp", "validate", "branch-7", "nothing"]).fails(3);
    assert!(gone.contains("there is no package nothing"), "{gone}");
    // Of a version that is not there, it is told.
    field.depot(&["dp", "validate", "branch-7", "docs@99", "--watch"]);
    let order = field.until_order(|order| order["state"] == "failed");
    assert_eq!(order["cause"], "docs@99 is neither held nor to be held here");
}

#[test]
fn the_library_of_a_point_is_looked_after_while_it_runs_and_while_it_does_not() {
    let mut field = Field::new();
    let docs = field.package("docs", 1);
    let (data, disk) = (field.path("point"), field.path("disk2"));
    fs::create_dir(&disk).unwrap();
    let disk = disk.to_str().unwrap().to_owned();
    let at_point = |args: &[&str]| on_data(&data, args.iter().copied());
    let names = |run: Run| -> Vec<String> {
        let all = run.ok().json();
        all.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = ["library", "volume", "list", "--json"];
    assert_eq!(names(at_point(&list)), ["home"]);
    at_point(&["library", "volume", "add", &disk, "--name", "disk2", "--reserve", "1MiB"]).ok();
    assert_eq!(names(at_point(&list)), ["disk2", "home"]);
    let all = at_point(&list).ok().json();
    assert_eq!(all[0]["reserve_bytes"], 1 << 20);
    // The home is emptied to it while clients are served, and takes part again.
    at_point(&["library", "volume", "drain", "home"]).ok();
    let home = packs(&data.join("library")).len();
    assert_eq!((home, !packs(Path::new(&disk)).is_empty()), (0, true));
    field.gives("docs", &docs);
    at_point(&["library", "volume", "remove", "disk2"]).fails(4);
    at_point(&["library", "volume", "resume", "home"]).ok();
    at_point(&["library", "volume", "drain", "disk2"]).ok();
    at_point(&["library", "volume", "remove", "disk2"]).ok();
    assert_eq!(names(at_point(&list)), ["home"]);
    field.gives("docs", &docs);

    let stats = at_point(&["library", "stats", "--json"]).ok().json();
    assert!(stats["plain_bytes"].as_u64().unwrap() >= 3 << 20, "{stats}");
    at_point(&["library", "verify"]).ok();
    at_point(&["library", "gc", "--dry-run"]).ok();
    let digest = contentlib::Digest::of(&noise(1, 3 << 20)).to_string();
    let why = at_point(&["content", "why", &digest]).ok().stdout;
    assert!(why.contains("docs"), "{why}");
    // What needs the library for itself, and what is a site's, is refused and says why.
    assert!(at_point(&["library", "rebuild-index"]).fails(4).contains("stop it"));
    assert!(at_point(&["package", "list"]).fails(3).contains("of a distribution point"));

    field.point.take().unwrap().stop();
    assert_eq!(at_point(&["library", "stats", "--json"]).ok().json()["chunks"], stats["chunks"]);
    assert_eq!(names(at_point(&list)), ["home"]);
    at_point(&["library", "rebuild-index"]).ok();
    field.point = Some(Point::start(&data, None, &QUIET));
    field.gives("docs", &docs);
}

#[test]
fn a_point_that_is_killed_is_not_there_soon_and_no_client_is_sent_to_it() {
    let mut field = Field::new();
    field.package("docs", 1);
    let show = |field: &Field| field.depot(&["dp", "show", "branch-7", "--json"]).ok().json();
    assert_eq!(show(&field)["online"], true);
    field.depot(&["boundary-group", "create", "here", "--point", "branch-7"]).ok();
    field.depot(&["boundary", "add", "127.0.0.0/8", "--group", "here"]).ok();
    let located = |field: &Field| {
        let locate = ["locate", "docs", "--address", "127.0.0.1", "--json"];
        field.depot(&locate).ok().json()["sources"][0]["point"] == "branch-7"
    };
    assert!(located(&field));
    field.point.take().unwrap().kill();
    until("it is not there", || show(&field)["online"] == false);
    assert!(!located(&field));
    field.point = Some(Point::start(&field.path("point"), None, &QUIET));
    until("it is there again", || show(&field)["online"] == true && located(&field));
}

#[test]
fn undistribute_says_what_it_frees_before_it_does() {
    let field = Field::new();
    field.package("docs", 1);
    // The large file is in both packages, the small ones differ.
    let source = field.path("tools");
    let (large, other) = (noise(1, 3 << 20), noise(77, 500_000));
    tree::write(&source, &[(b"large", &large), (b"other", &other)]);
    field.depot(&["package", "create", "tools", "--source", source.to_str().unwrap()]).ok();
    field.depot(&["package", "update", "tools"]).ok();
    field.depot(&["distribute", "tools", "--dp", "branch-7"]).ok();
    field.site().until_held("tools", 2);
    let undistribute = ["undistribute", "tools", "--dp", "branch-7"];
    let dry = [&undistribute[..], &["--dry-run", "--json"]].concat();
    let told = field.depot(&dry).ok().json();
    let frees = &told["frees"][0];
    let bytes = frees["bytes"].as_u64().unwrap();
    assert!((500_000..600_000).contains(&bytes), "the other file, and the list: {told}");
    assert_eq!((&frees["versions"][0], &frees["grace"]), (&2.into(), &86_400.into()), "{told}");
    assert_eq!(field.site().status("tools")[0]["state"], "held", "nothing was done");
    let said = field.depot(&undistribute).ok().stdout;
    assert!(said.contains("branch-7 lets go of 1 version, which frees") && said.contains("1 d"));
    until("it is gone", || field.site().status("tools").is_empty());
    field.depot(&["content-status", "nothing"]).fails(3);
}

//! Versions that travel on a medium, with real processes: a bundle has what the point lacks and no
//! more, arrives exactly or not at all, and what it brought the network does not bring again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};
use support::{
    Run, Site, depot, on_data,
    point::{Point, over_a_line},
    relay::{Line, Pace},
    temp_folder,
    tree::{self, Tree},
    until, write_source,
};

const MIB: u64 = 1 << 20;
/// What may pass where nothing of the content does: handshakes, wishes, reports, answers.
const NEXT_TO_NOTHING: u64 = 128 << 10;
/// More than what a pipe and its reader hold of what was written and not yet dealt with.
const IN_PIPES: u64 = MIB;

/// More than any disk has free.
const RESERVE: &str = "1000TiB";

/// A site, and a point `branch-7` in the folder `point` that has joined it over a line.
struct Field {
    /// None while its process is ended.
    point: Option<Point>,
    line: Line,
    site: Site,
    folder: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let folder = temp_folder();
        let (site, line, point) = over_a_line(folder.path(), &folder.path().join("point"), &[]);
        let field = Self { point: Some(point), line, site, folder };
        let heard = || field.point().log().contains("the site's wish");
        until("the point hears its site", heard);
        field
    }

    fn point(&self) -> &Point {
        self.point.as_ref().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.path("point")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stop_point(&mut self) {
        assert_eq!(self.point.take().unwrap().stop(), Some(0));
    }

    fn start_point(&mut self) {
        self.point = Some(Point::start(&self.data(), None, &[]));
    }

    /// Makes a package, whose first version is empty, and a second one of that many files of noise.
    fn package(&self, name: &str, seed: u64, n_files: u64, size: u64) -> Tree {
        let source = self.path(name);
        let want = write_source(&source, seed, n_files, size as usize);
        self.site.depot(["package", "create", name, "--source", source.to_str().unwrap()]).ok();
        self.site.depot(["package", "update", name]).ok();
        want
    }

    /// From here on the point hears nothing of its site.
    fn leave_alone(&self) {
        self.line.set(Pace::UpTo(0));
    }

    fn inventory(&self) -> PathBuf {
        let file = self.path("inventory");
        on_data(&self.data(), ["prestage", "inventory", "-o", file.to_str().unwrap()]).ok();
        file
    }

    fn inventory_json(&self) -> Value {
        let file = self.path("inventory");
        let args = ["--json", "prestage", "inventory", "-o", file.to_str().unwrap()];
        on_data(&self.data(), args).ok().json()
    }

    /// Makes a bundle at the site; its bytes are in the file `bundle`.
    fn export(&self, packages: &[&str], base: Option<&Path>) -> PathBuf {
        let file = self.path("bundle");
        let mut command = self.site.command();
        command.args(["prestage", "export"]).args(packages).arg("-o").arg(&file);
        if let Some(base) = base {
            command.arg("--base").arg(base);
        }
        Run::of(&mut command).ok();
        file
    }

    fn import(&self, bundle: &Path) -> Value {
        import(&self.data(), bundle).ok().json()
    }

    fn import_text(&self, bundle: &Path) -> String {
        on_data(&self.data(), [OsStr::new("prestage"), "import".as_ref(), bundle.as_ref()])
            .ok()
            .stdout
    }

    #[track_caller]
    fn gives(&self, package: &str, version: &str, want: &Tree) {
        let out = self.path(&format!("{package}-fetched"));
        self.point().gives(package, version, &out, want);
    }
}

fn import(data: &Path, bundle: &Path) -> Run {
    on_data(data, ["--json", "prestage", "import", bundle.to_str().unwrap()])
}

/// An import that reads its bundle from a pipe.
fn importing(data: &Path) -> Child {
    let mut command = depot();
    command.args(["--json", "prestage", "import", "-", "--data"]).arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn states(imported: &Value) -> Vec<(&str, &str)> {
    let versions = imported["versions"].as_array().unwrap();
    versions
        .iter()
        .map(|v| (v["package"].as_str().unwrap(), v["state"].as_str().unwrap()))
        .collect()
}

fn len(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

#[test]
fn what_a_bundle_brought_to_a_running_point_the_network_does_not_bring_again() {
    let field = Field::new();
    let want = field.package("docs", 1, 6, MIB);
    let bundle = field.export(&["docs"], None);
    assert!((6 * MIB..7 * MIB).contains(&len(&bundle)), "{} bytes", len(&bundle));
    let socket = field.data().join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let imported = field.import(&bundle);
    assert_eq!(states(&imported), [("docs", "kept")], "nobody distributed it");
    assert_eq!(field.point().version("docs", "latest"), None);
    let again = field.import(&bundle);
    assert_eq!((&again["chunks"], &again["stored_bytes"]), (&0.into(), &0.into()), "{again}");
    assert!(field.import_text(&bundle).contains("docs@2 is all here"));

    let before = field.line.passed();
    field.site.depot(["distribute", "docs", "--dp", "branch-7"]).ok();
    field.site.until_held("docs", 2);
    let passed = field.line.passed() - before;
    assert!(passed < NEXT_TO_NOTHING, "{passed} bytes passed for what was there");
    field.gives("docs", "latest", &want);
    assert_eq!(states(&field.import(&bundle)), [("docs", "already")]);
}

#[test]
fn a_wished_version_is_taken_for_held_the_moment_its_bundle_is_in() {
    let field = Field::new();
    let want = field.package("docs", 1, 32, MIB);
    let inventory = field.inventory();
    let bundle = field.export(&["docs"], Some(&inventory));
    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + MIB));
    field.site.depot(["distribute", "docs", "--dp", "branch-7"]).ok();
    until("the transfer hangs in its middle", || field.line.passed() > before + MIB / 2);
    assert_eq!(states(&field.import(&bundle)), [("docs", "held")]);
    until("its names mean it", || field.point().version("docs", "latest") == Some(2));
    field.gives("docs", "latest", &want);
    field.line.set(Pace::Free);
    field.site.until_held("docs", 2);
    // What was asked for and under way, a window of HTTP/2 at most, and not the whole.
    let passed = field.line.passed() - before;
    assert!(passed < 16 * MIB, "{passed} bytes passed beside the bundle");
}

#[test]
fn a_point_without_its_site_gets_the_next_version_at_the_cost_of_what_changed() {
    let mut field = Field::new();
    field.package("docs", 1, 6, MIB);
    field.site.depot(["distribute", "docs", "--dp", "branch-7"]).ok();
    field.site.until_held("docs", 2);
    field.stop_point();
    field.leave_alone();

    let inventory = field.inventory();
    assert!(len(&inventory) < 4096, "{} bytes", len(&inventory));
    let source = field.path("docs");
    fs::rename(source.join("file-1"), source.join("renamed")).unwrap();
    fs::write(source.join("small"), support::noise(99, 50_000)).unwrap();
    let want = tree::read(&source);
    field.site.depot(["package", "update", "docs"]).ok();
    let bundle = field.export(&["docs@latest"], Some(&inventory));
    assert!((50_000..80_000).contains(&len(&bundle)), "{} bytes", len(&bundle));

    let text = field.import_text(&bundle);
    assert!(text.contains("docs@3 is held from now on"), "{text}");
    field.start_point();
    assert_eq!(field.point().version("docs", "latest"), Some(3));
    field.gives("docs", "latest", &want);

    let before = field.line.passed();
    field.line.set(Pace::Free);
    field.site.until_held("docs", 3);
    let passed = field.line.passed() - before;
    assert!(passed < NEXT_TO_NOTHING, "{passed} bytes passed for what was there");
    until("the old version goes", || field.point().version("docs", "2").is_none());
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let mut field = Field::new();
    let names = ["a", "b", "c", "d"];
    let wants: Vec<Tree> =
        names.iter().zip(1..).map(|(name, n)| field.package(name, 100 * n, 4, MIB)).collect();
    let bundle = field.export(&names, None);
    let bytes = fs::read(&bundle).unwrap();
    // The first three are dealt with: more than what may be on its way was written after them.
    let most = bytes.len() - 3 * MIB as usize;
    assert!(most as u64 > 12 * MIB + IN_PIPES / 2);
    field.leave_alone();
    field.stop_point();
    let mut killed = importing(&field.data());
    killed.stdin.take().unwrap().write_all(&bytes[..most + IN_PIPES as usize]).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();

    // The same in the middle of what a running point does, killed in its turn.
    field.start_point();
    let mut beside = importing(&field.data());
    beside.stdin.as_mut().unwrap().write_all(&bytes[..most]).unwrap();
    field.point.take().unwrap().kill();
    drop(beside.stdin.take());
    let failed = Run::from(beside.wait_with_output().unwrap());
    assert!(failed.fails(1).contains("the distribution point"), "it says who went away");

    let last = field.import(&bundle);
    let all: u64 = 4 * 4 * MIB;
    let stored = last["stored_bytes"].as_u64().unwrap();
    assert!(stored < all / 2, "{stored} bytes were stored again");
    let ready = states(&last);
    assert_eq!(ready[..3], [("a", "already"), ("b", "already"), ("c", "already")]);
    field.start_point();
    for (name, want) in names.iter().zip(&wants) {
        let out = field.path(&format!("{name}-out"));
        field.point().fetched(name, "2", &out);
        tree::assert_same(&field.point().fetched(name, "2", &out), want);
    }
}

#[test]
fn a_bundle_without_room_is_refused_before_anything_is_stored() {
    let mut field = Field::new();
    let want = field.package("docs", 1, 3, MIB);
    let bundle = field.export(&["docs"], None);
    field.leave_alone();
    field.stop_point();
    let data = field.data();
    let refuses = || {
        let mut command = depot();
        command.env("DEPOT_LIBRARY_RESERVE", RESERVE);
        command.arg("--data").arg(&data).args(["prestage", "import"]).arg(&bundle);
        let said = Run::of(&mut command).fails(1);
        assert!(said.contains(&format!("{} bytes more", len(&bundle))), "{said}");
        assert!(said.contains("bytes are free and") && said.contains("in reserve"), "{said}");
        assert_eq!(field.inventory_json()["chunks"], 0, "something was stored");
    };
    refuses();
    let tight = Point::start(&data, None, &["--set", &format!("library.reserve={RESERVE}")]);
    refuses();
    assert_eq!(tight.stop(), Some(0));
    assert_eq!(states(&field.import(&bundle)), [("docs", "held")]);
    // What is here needs no room.
    field.point =
        Some(Point::start(&data, None, &["--set", &format!("library.reserve={RESERVE}")]));
    assert_eq!(states(&field.import(&bundle)), [("docs", "already")]);
    field.gives("docs", "2", &want);
}

#[test]
fn what_is_no_good_bundle_is_refused_in_words_and_shows_nothing() {
    let mut field = Field::new();
    let want = field.package("docs", 1, 3, MIB);
    let bundle = field.export(&["docs"], None);
    let good = fs::read(&bundle).unwrap();
    let folder = field.folder.path().to_owned();
    let spoilt = |name: &str, bytes: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let mut head = good.clone();
    head[100] ^= 1;
    let head = spoilt("head", &head);
    let other = spoilt("other", b"PK\x03\x04 is a zip");
    let other_site = Site::start(&field.path("other-site"));
    let source = field.path("docs");
    let of_other_site = field.path("foreign");
    other_site.depot(["package", "create", "docs", "--source", source.to_str().unwrap()]).ok();
    other_site.depot(["package", "update", "docs"]).ok();
    let file = of_other_site.to_str().unwrap();
    other_site.depot(["prestage", "export", "docs", "-o", file]).ok();
    let inventory = field.inventory();
    let args = ["prestage", "export", "docs", "-o", file, "--base", inventory.to_str().unwrap()];
    let refused = other_site.depot(args).fails(4);
    assert!(refused.contains("inventory is of a library whose site"), "{refused}");

    let data = field.data();
    let refuse_all = || {
        let said = import(&data, &of_other_site).fails(4);
        assert!(said.contains("of another site"), "{said}");
        let said = import(&data, &head).fails(5);
        assert!(said.contains("head is damaged"), "{said}");
        let said = import(&data, &other).fails(2);
        assert!(said.contains("does not begin as a bundle"), "{said}");
        import(&data, &folder.join("nowhere")).fails(2);
        let file = folder.join("inventory");
        let args = ["--json", "prestage", "inventory", "-o", file.to_str().unwrap()];
        assert_eq!(on_data(&data, args).ok().json()["chunks"], 0, "something was stored");
    };
    refuse_all();
    field.leave_alone();
    field.stop_point();
    refuse_all();
    let args = ["prestage", "import", other.to_str().unwrap()];
    assert_eq!(on_data(&field.site.data, args).code, Some(3), "a site's folder");

    // A flipped bit and a cut: the good is kept, the bad is named, and nothing shows.
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let flipped = spoilt("flipped", &flipped);
    let cut = spoilt("cut", &good[..good.len() - MIB as usize]);
    for (file, why) in [(&flipped, "checksum"), (&cut, "cut off")] {
        let said = import(&data, file);
        let told = said.stderr.lines().last().unwrap().to_owned();
        assert_eq!(said.code, Some(5), "{told}");
        assert!(told.contains("record ") && told.contains(why), "{told}");
        assert_eq!(states(&said.json())[0].1, if why == "cut off" { "held" } else { "incomplete" });
    }
    field.start_point();
    field.gives("docs", "2", &want);
}

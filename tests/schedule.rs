//! When, how fast and in which order a distribution point brings what it lacks: real processes, and a
//! line between them that counts.
//!
//! Nothing here depends on how fast a machine is: a limit is looked at from above alone, and windows
//! are set, so that the hour does not matter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};
use support::{
    Run, Site,
    point::{Point, over_a_line},
    relay::{Line, Pace},
    temp_folder,
    tree::Tree,
    until, write_source,
};

const MIB: u64 = 1 << 20;
/// What may pass where nothing of the content does: handshakes, wishes, manifests, recipes, answers.
const NEXT_TO_NOTHING: u64 = 128 << 10;

/// A site, and a point `branch-7` that has joined it and reaches it over a line.
struct Field {
    point: Option<Point>,
    line: Line,
    site: Site,
    folder: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let folder = temp_folder();
        let (site, line, point) = over_a_line(folder.path(), &folder.path().join("point"), &[]);
        Self { point: Some(point), line, site, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site.depot(args).ok()
    }

    fn package(&self, name: &str, seed: u64, n_files: u64) -> Tree {
        let source = self.path(name);
        let want = write_source(&source, seed, n_files, MIB as usize);
        self.depot(&["package", "create", name, "--source", source.to_str().unwrap()]);
        self.depot(&["package", "update", name]);
        want
    }

    fn distribute(&self, package: &str, priority: &str) {
        self.depot(&["distribute", package, "--dp", "branch-7", "--priority", priority]);
    }

    /// Lets come at any hour what has a priority that `level` lets through.
    fn window(&self, level: &str) {
        let file = self.path("week.toml");
        fs::write(&file, format!("otherwise = \"{level}\"\n")).unwrap();
        let file = file.to_str().unwrap();
        self.depot(&["dp", "window", "branch-7", "--timezone", "Europe/Paris", "--file", file]);
    }

    fn until_shut(&self, package: &str) -> Value {
        self.site.until_status(package, |row| {
            let says = row["cause"].as_str().is_some_and(|cause| cause.contains("the window"));
            row["state"] == "waiting" && says
        })
    }

    #[track_caller]
    fn gives(&self, package: &str, want: &Tree) {
        let out = self.path(&format!("{package}-fetched"));
        self.point.as_ref().unwrap().gives(package, "latest", &out, want);
    }
}

#[test]
fn a_limit_is_kept_and_ends_when_it_is_lifted() {
    let (rate, burst) = (1_000_000, 600_000);
    let field = Field::new();
    let want = field.package("big", 1, 24);
    field.depot(&["dp", "limit", "branch-7", "--rate", "8Mbit", "--burst", "600KB"]);
    let limit = field.depot(&["dp", "limit", "branch-7", "--json"]).json();
    assert_eq!(limit, serde_json::json!({"rate": rate, "burst": burst}));
    let (before, began) = (field.line.passed(), Instant::now());
    field.distribute("big", "medium");
    until("some of it is there", || {
        // Its time last: what passes between the two is not counted, and its time is.
        let passed = field.line.passed() - before;
        let may = began.elapsed().as_secs_f64() * rate as f64 + (burst + NEXT_TO_NOTHING) as f64;
        assert!(passed as f64 <= may, "{passed} bytes passed, and {may} may");
        std::thread::sleep(Duration::from_millis(10));
        passed > 3 * MIB
    });
    field.depot(&["dp", "limit", "branch-7", "--none"]);
    field.site.until_held("big", 2);
    let passed = field.line.passed() - before;
    assert!(passed < 32 * MIB, "{passed} bytes passed for 24 MiB");
    field.gives("big", &want);
}

#[test]
fn packages_of_one_priority_share_the_line_and_the_urgent_does_not_share() {
    let field = Field::new();
    let (one, two) = (field.package("large", 100, 24), field.package("other", 200, 24));
    let urgent = field.package("urgent", 300, 1);
    field.depot(&["dp", "limit", "branch-7", "--rate", "2MB/s", "--burst", "512KiB"]);
    field.distribute("large", "low");
    field.distribute("other", "low");
    let half_way = |package: &str| {
        field.site.status(package).iter().any(|row| {
            let (bytes, left) =
                (row["bytes"].as_u64().unwrap(), row["bytes_left"].as_u64().unwrap());
            row["state"] == "fetching" && left > 0 && left < bytes
        })
    };
    until("both are on their way", || {
        std::thread::sleep(Duration::from_millis(20));
        half_way("large") && half_way("other")
    });
    field.distribute("urgent", "high");
    let point = field.point.as_ref().unwrap();
    until("the urgent one is there", || point.version("urgent", "latest").is_some());
    for late in ["large", "other"] {
        assert_eq!(point.version(late, "latest"), None, "{late} came first");
    }
    field.depot(&["dp", "limit", "branch-7", "--none"]);
    field.site.until_held("large", 2);
    field.site.until_held("other", 2);
    field.gives("large", &one);
    field.gives("other", &two);
    field.gives("urgent", &urgent);
}

#[test]
fn outside_its_hours_a_point_brings_nothing_and_keeps_what_came() {
    let mut field = Field::new();
    let (big, small) = (field.package("big", 10, 24), field.package("small", 50, 1));
    field.window("closed");
    field.distribute("small", "medium");
    let row = field.until_shut("small");
    assert!(row["cause"].as_str().unwrap().contains("never opens"), "{row}");
    field.depot(&["dp", "window", "branch-7", "--always"]);
    field.site.until_held("small", 2);
    field.gives("small", &small);

    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + 12 * MIB));
    field.distribute("big", "medium");
    until("the transfer is in its middle", || field.line.passed() > before + 11 * MIB);
    field.window("high");
    field.until_shut("big");
    field.line.set(Pace::Free);
    let urgent = field.package("urgent", 70, 1);
    field.distribute("urgent", "high");
    field.site.until_held("urgent", 2);
    field.gives("urgent", &urgent);

    // Neither forgets what is set, whoever is started again.
    assert_eq!(field.point.take().unwrap().stop(), Some(0));
    field.site.child.kill().unwrap();
    field.site.child.wait().unwrap();
    field.site = Site::start(&field.path("site"));
    field.line.lead_to(&field.site.url);
    field.point = Some(Point::start(&field.path("point"), None, &[]));
    field.until_shut("big");
    assert_eq!(field.point.as_ref().unwrap().version("big", "latest"), None);
    let shown = field.depot(&["dp", "show", "branch-7"]).stdout;
    assert!(shown.contains("Europe/Paris; now high"), "{shown}");

    field.window("medium+");
    field.site.until_held("big", 2);
    let passed = field.line.passed() - before;
    assert!(passed < 34 * MIB, "{passed} bytes passed for 25 MiB: what had come was lost");
    field.gives("big", &big);
}

#[test]
fn what_is_set_is_shown_and_what_is_wrong_is_named() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let token = site.join_token("branch-7", &[]);
    let point = Point::start(&folder.path().join("point"), Some(&token), &[]);
    let shown = site.depot(["dp", "limit", "branch-7"]).ok().stdout;
    assert!(shown.contains("as fast as it can"), "{shown}");
    let shown = site.depot(["dp", "window", "branch-7"]).ok().stdout;
    assert!(shown.contains("at any time"), "{shown}");
    for (rate, says) in [("20", "its unit"), ("20MB", "its unit"), ("8kbit", "8000 bytes")] {
        let refused = site.depot(["dp", "limit", "branch-7", "--rate", rate]).fails(2);
        assert!(refused.contains(says), "{refused}");
    }
    let shown = site.depot(["dp", "limit", "branch-7", "--rate", "20Mbit"]).ok().stdout;
    assert!(shown.contains("20 Mbit/s, burst 2.38 MiB"), "{shown}");
    assert!(site.depot(["dp", "limit", "nobody"]).fails(3).contains("nobody"));

    let file = folder.path().join("week.toml");
    let week =
        "[[hours]]\ndays = \"mon-fri\"\nfrom = \"06:00\"\nto = \"20:00\"\nlevel = \"high\"\n";
    let set = |text: &str, zone: &str| {
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        site.depot(["dp", "window", "branch-7", "--timezone", zone, "--file", file])
    };
    let refused = set(&week.replace("06:00", "6 am"), "UTC").fails(2);
    assert!(refused.contains("line 3, from: ") && refused.contains("06:30"), "{refused}");
    let refused = set(week, "Europe/Nowhere").fails(2);
    assert!(refused.contains("Europe/Nowhere"), "{refused}");
    let shown = set(week, "Europe/Paris").ok().stdout;
    assert!(shown.contains("! ! !") && shown.contains("Europe/Paris"), "{shown}");
    let json = site.depot(["dp", "window", "branch-7", "--json"]).ok().json();
    let first = serde_json::json!({"at": "mon 00:00", "level": "open"});
    assert_eq!((&json["timezone"], &json["changes"][0]), (&"Europe/Paris".into(), &first));
    site.depot(["dp", "window", "branch-7", "--always"]).ok();
    assert_eq!(site.depot(["dp", "window", "branch-7", "--json"]).ok().json(), Value::Null);
    assert_eq!(point.stop(), Some(0));
}

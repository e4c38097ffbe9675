//! Clients find the distribution point that is near to them and holds what they ask for, over real
//! processes: by the address that they ask from, past points that are gone, and what no near point
//! holds is brought to one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::PathBuf;
use support::{
    Run, Site, alone, curl, depot,
    point::Point,
    temp_folder,
    tree::{self, Tree},
    until, write_source,
};

const MIB: u64 = 1 << 20;

/// A site, two points, and two places: `paris`, whose clients come from 127.0.0.1, and `lyon`, whose
/// clients come from 127.0.0.2.
struct Field {
    paris: Option<Point>,
    lyon: Point,
    site: Site,
    docs: Tree,
    folder: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let folder = temp_folder();
        let site = Site::start(&folder.path().join("site"));
        let join = |name: &str| {
            let token = site.join_token(name, &[]);
            Point::start(&folder.path().join(name), Some(&token), &[])
        };
        let (paris, lyon) = (Some(join("paris-1")), join("lyon-1"));
        let source = folder.path().join("docs");
        let docs = write_source(&source, 1, 3, MIB as usize);
        for command in [
            &["package", "create", "docs", "--source", source.to_str().unwrap()][..],
            &["package", "update", "docs"],
            &["boundary-group", "create", "paris", "--point", "paris-1"],
            &["boundary-group", "create", "lyon", "--point", "lyon-1"],
            &["boundary", "add", "127.0.0.0/8", "--group", "paris"],
            &["boundary", "add", "127.0.0.2", "--group", "lyon"],
        ] {
            site.depot(command).ok();
        }
        // What was never heard of is not counted on.
        until("both points to report", || {
            let points = site.depot(["dp", "list", "--json"]).ok().json();
            points.as_array().unwrap().iter().all(|point| point["reported"].is_string())
        });
        Self { paris, lyon, site, docs, folder }
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site.depot(args).ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a client at `address` is told of docs: names of points, and `site`.
    #[track_caller]
    fn told(&self, address: &str) -> Vec<String> {
        let url = format!("{}/locate/docs/latest", self.site.url);
        let got = alone(curl()).args(["-f", "--interface", address, &url]).output().unwrap();
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        let told: Value = serde_json::from_slice(&got.stdout).unwrap();
        assert_eq!(told["client"], address);
        let name = |source: &Value| source["point"].as_str().unwrap_or("site").to_owned();
        told["sources"].as_array().unwrap().iter().map(name).collect()
    }

    /// Waits until a client at `address` is told of these.
    #[track_caller]
    fn until_told(&self, address: &str, want: &[&str]) {
        let mut told = Vec::new();
        until(&format!("{address} to be sent to {want:?}"), || {
            told = self.told(address);
            told == want
        });
    }

    /// Fetches docs as a client at 127.0.0.1 without an agent does; what was said on the way.
    #[track_caller]
    fn fetched(&self, out: &str) -> String {
        let out = self.path(out);
        let fetch = ["fetch", "docs", "--site", &self.site.url, "-o"];
        let done = Run::of(depot().args(fetch).arg(&out)).ok();
        let mut found = tree::read(&out);
        found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
        tree::assert_same(&found, &self.docs);
        done.stderr
    }
}

#[test]
fn each_client_is_sent_to_its_point_and_past_one_that_is_gone() {
    let mut field = Field::new();
    assert_eq!(field.told("127.0.0.1"), ["site"], "nobody holds it yet");
    let nothing = field.depot(&["locate", "--address", "127.0.0.1", "docs", "--explain"]).stdout;
    assert!(nothing.contains("does not hold this version"), "{nothing}");
    for name in ["paris-1", "lyon-1"] {
        field.depot(&["distribute", "docs", "--dp", name]);
    }
    field.until_told("127.0.0.1", &["paris-1", "site"]);
    field.until_told("127.0.0.2", &["lyon-1", "site"]);
    field.depot(&["boundary-group", "neighbour", "set", "paris", "lyon", "--after", "0s"]);
    let rules = field.depot(&["boundary-group", "site", "--never"]).stdout;
    assert!(rules.contains("clients of a group never turn to the site"), "{rules}");
    assert_eq!(field.told("127.0.0.1"), ["paris-1", "lyon-1"]);
    assert_eq!(field.told("127.0.0.2"), ["lyon-1"], "the neighbour's clients are another matter");

    let said = field.fetched("near");
    assert!(said.contains("from paris-1, then lyon-1"), "{said}");
    let stopped = field.paris.take().unwrap();
    stopped.kill();
    // Whether or not the site has missed it by now.
    field.fetched("far");

    // It is removed, and what is left may be asked after a while alone.
    field.depot(&["dp", "remove", "paris-1", "--yes"]);
    field.depot(&["boundary-group", "neighbour", "set", "paris", "lyon", "--after", "20m"]);
    let fetch = |more: &[&str]| {
        let out = field.path("later");
        let fetch = ["fetch", "docs", "--site", &field.site.url, "-o"];
        Run::of(depot().args(fetch).arg(out).args(more))
    };
    let early = fetch(&[]).fails(1);
    assert!(early.contains("in 20 min") && early.contains("127.0.0.1"), "{early}");
    fetch(&["--elapsed", "20m"]).ok();

    let explained = ["locate", "--address", "127.0.0.2", "docs", "--explain"];
    let explained = field.depot(&explained).stdout;
    assert!(explained.contains("of its group lyon"), "{explained}");
    assert!(explained.contains("the rules let no client turn to it"), "{explained}");
    let tested = field.depot(&["boundary", "test", "192.0.2.1"]).stdout;
    assert!(tested.contains("none has this address"), "{tested}");
    let point = format!("{}/locate/docs/latest", field.lyon.url);
    let got = alone(curl()).arg(&point).output().unwrap();
    assert!(
        String::from_utf8_lossy(&got.stdout).contains("ask its site"),
        "a point locates nobody"
    );
}

#[test]
fn what_no_near_point_holds_is_brought_because_a_client_asked() {
    let field = Field::new();
    field.depot(&["boundary-group", "on-demand", "paris"]);
    let asked = ["locate", "--address", "127.0.0.1", "docs"];
    let would = field.depot(&asked).stdout;
    assert!(would.contains("paris-1 will bring it when the client asks"), "{would}");
    assert_eq!(field.depot(&["content-status", "--json"]).json(), serde_json::json!([]));
    // The first client gets it from the site, and a later one from near by.
    field.fetched("first");
    let shown = field.depot(&["dp", "show", "paris-1"]).stdout;
    assert!(shown.contains("docs@2, priority low, on demand of paris"), "{shown}");
    field.until_told("127.0.0.1", &["paris-1", "site"]);
    let said = field.fetched("second");
    assert!(said.contains("from paris-1, then the site"), "{said}");
    let status = field.depot(&["content-status", "docs"]).stdout;
    assert!(status.contains("2 (on demand)"), "{status}");
    assert_eq!(field.told("127.0.0.2"), ["site"], "another place brings nothing");
    field.depot(&["undistribute", "docs", "--dp", "paris-1"]);
    let gone = field.depot(&["content-status", "--dp", "lyon-1", "--json"]).json();
    assert_eq!(gone, serde_json::json!([]));
}

#[test]
fn a_drained_point_gets_nothing_new_and_no_clients_until_it_is_resumed() {
    let field = Field::new();
    field.depot(&["distribute", "docs", "--dp", "paris-1"]);
    field.until_told("127.0.0.1", &["paris-1", "site"]);
    let said = field.depot(&["dp", "drain", "paris-1"]).stdout;
    assert!(said.contains("paris-1 is drained"), "{said}");
    assert_eq!(field.told("127.0.0.1"), ["site"]);
    let explained = field.depot(&["locate", "--address", "127.0.0.1", "docs", "--explain"]).stdout;
    assert!(explained.contains("is drained, or in maintenance"), "{explained}");
    assert!(field.depot(&["dp", "list"]).stdout.contains("online, drained"));

    // What it holds is served, and goes once it is undistributed; what is new does not come.
    let near = format!("{}/packages/docs/latest", field.paris.as_ref().unwrap().url);
    Run::of(depot().args(["fetch", &near, "-o"]).arg(field.path("given"))).ok();
    let other = field.path("other");
    write_source(&other, 2, 1, 1000);
    field.depot(&["package", "create", "other", "--source", other.to_str().unwrap()]);
    field.depot(&["package", "update", "other"]);
    field.depot(&["distribute", "other", "--dp", "paris-1"]);
    field.depot(&["undistribute", "docs", "--dp", "paris-1"]);
    let said = |package: &str, state: &str| {
        let status = field.depot(&["content-status", package, "--dp", "paris-1", "--json"]).json();
        let row = &status[0];
        let cause = row["cause"].as_str().unwrap_or_default();
        row["state"] == state && cause.contains("the distribution point is drained")
    };
    until("what is new to wait", || said("other", "waiting"));
    let rows = || field.depot(&["content-status", "docs", "--dp", "paris-1", "--json"]).json();
    until("what is undistributed to go", || rows() == serde_json::json!([]));

    field.depot(&["dp", "resume", "paris-1"]);
    until("what waited to be done", || {
        let status = field.depot(&["content-status", "--dp", "paris-1", "--json"]).json();
        let rows = status.as_array().unwrap();
        rows.len() == 1 && rows[0]["package"] == "other" && rows[0]["state"] == "held"
    });
    let shown = field.depot(&["dp", "show", "paris-1"]).stdout;
    assert!(!shown.contains("online, drained"), "{shown}");
}

#[test]
fn boundaries_and_groups_are_told_by_command() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    for name in ["paris", "lyon"] {
        site.depot(["boundary-group", "create", name]).ok();
    }
    site.depot(["boundary", "add", "10.0.0.0/8", "--group", "paris"]).ok();
    let added = site.depot(["boundary", "add", "10.7.0.0/16", "--group", "lyon"]).ok();
    let note = "note: it is inside boundary 10.0.0.0/8 of paris, and counts in its place";
    assert!(added.stderr.contains(note), "{}", added.stderr);
    assert_eq!(added.stdout, "clients in 10.7.0.0/16 belong to lyon\n");
    let twice = site.depot(["boundary", "add", "10.7.0.0-10.7.255.255", "--group", "paris"]);
    assert!(twice.fails(4).contains("depot boundary change"));
    let wrong = site.depot(["boundary", "add", "10.7.3.4/16", "--group", "paris"]).fails(2);
    assert!(wrong.contains("did you mean 10.7.0.0/16, or 10.7.3.4?"), "{wrong}");
    site.depot(["boundary", "add", "::/0", "--group", "rome"]).fails(3);
    site.depot(["boundary", "change", "10.7.0.0/16", "--group", "lyon", "--group", "paris"]).ok();
    let listed = site.depot(["boundary", "list", "--group", "paris"]).ok().stdout;
    assert!(listed.contains("10.0.0.0/8") && listed.contains("lyon paris"), "{listed}");
    site.depot(["boundary-group", "neighbour", "set", "paris", "lyon", "--never"]).ok();
    site.depot(["boundary-group", "default", "lyon", "--after", "2h"]).ok();
    let shown = site.depot(["boundary-group", "show", "paris", "--json"]).ok().json();
    assert_eq!(shown["boundaries"], serde_json::json!(["10.0.0.0/8", "10.7.0.0/16"]));
    assert_eq!(shown["rules"]["default"], "lyon");
    let shown = site.depot(["boundary-group", "show", "paris"]).ok().stdout;
    for line in ["lyon never", "lyon after 2 h", "10.7.0.0/16", "at once"] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    site.depot(["boundary-group", "delete", "lyon", "--yes"]).fails(4);
    site.depot(["boundary-group", "default", "--none"]).ok();
    site.depot(["boundary-group", "delete", "lyon", "--yes"]).ok();
    site.depot(["boundary", "remove", "10.7.0.0/16"]).ok();
    site.depot(["boundary", "remove", "10.7.0.0/16"]).fails(3);
    let tested = site.depot(["boundary", "test", "10.7.3.4"]).ok().stdout;
    assert!(tested.contains("10.0.0.0/8") && tested.contains("paris"), "{tested}");
    assert!(site.depot(["boundary", "test", "nowhere"]).fails(2).contains("address \"nowhere\""));
    assert!(site.depot(["boundary", "list", "--group", "rome"]).fails(3).contains("rome"));
}

//! A distribution point as a process, and its site: what it should hold, how far it is.

use super::{Answer, Run, Site, alone, curl, depot, interrupt, relay::Line, tree, until};
use serde_json::Value;
use std::{
    ffi::OsStr,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A running distribution point; stopped when dropped. As a server it is like a site, but for the
/// admin's token, which it has none of.
pub struct Point(Site);

impl Point {
    /// Starts the point that is in `data`, or with a token's file one that joins.
    #[track_caller]
    pub fn start(data: &Path, token: Option<&Path>, more: &[&str]) -> Self {
        let mut serve = dp_serve(data, token);
        serve.args(more);
        Self::start_by(serve, data)
    }

    /// Runs a command that serves the point in `data`, and waits until it answers.
    #[track_caller]
    pub fn start_by(serve: Command, data: &Path) -> Self {
        let started = Self::try_start(serve, data);
        started.unwrap_or_else(|log| panic!("the point does not start; its log:\n{log}"))
    }

    /// The same; else the log of the point that did not start.
    pub fn try_start(serve: Command, data: &Path) -> Result<Self, String> {
        Site::start_by(serve, data).map(Self)
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(mut self) {
        self.0.child.kill().unwrap();
    }

    /// Asks the process to end, and waits for its exit code.
    pub fn stop(mut self) -> Option<i32> {
        interrupt(&self.0.child);
        self.0.child.wait().unwrap().code()
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.child.try_wait().unwrap().is_some()
    }

    /// What it wrote since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    /// The number of the version that `name` of a package means here; nothing if it means none.
    pub fn version(&self, package: &str, name: &str) -> Option<u64> {
        let answer = self.listing(package, name);
        (answer.status == 200).then(|| answer.json()["version"].as_u64().unwrap())
    }

    /// The top folder of a version, as JSON.
    pub fn listing(&self, package: &str, version: &str) -> Answer {
        let path = format!("/packages/{package}/{version}/");
        self.request("GET", &path, &[("Accept", "application/json")], b"")
    }

    /// Fetches a version from here into `out`, and compares it with what it should be.
    #[track_caller]
    pub fn gives(&self, package: &str, version: &str, out: &Path, want: &tree::Tree) {
        tree::assert_same(&self.fetched(package, version, out), want);
    }

    /// Fetches a version from here into `out`.
    #[track_caller]
    pub fn fetched(&self, package: &str, version: &str, out: &Path) -> tree::Tree {
        let url = format!("{}/packages/{package}/{version}", self.url);
        Run::of(depot().args(["fetch", &url, "-o"]).arg(out)).ok();
        let mut found = tree::read(out);
        // Where a fetch keeps its own notes.
        found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
        found
    }

    /// A file of a version, as curl gets it.
    #[track_caller]
    pub fn curl(&self, path: &str) -> Vec<u8> {
        let got = alone(curl()).arg("-f").arg(format!("{}{path}", self.url)).output().unwrap();
        assert!(got.status.success(), "{path}: {}", String::from_utf8_lossy(&got.stderr));
        got.stdout
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the log of the point:\n{}", self.log());
        }
    }
}

impl Deref for Point {
    type Target = Site;
    fn deref(&self) -> &Site {
        &self.0
    }
}

/// A site in the folder `site` of `folder`, and a point `branch-7` in `data` that has joined it and reaches
/// it over a line.
#[track_caller]
pub fn over_a_line(folder: &Path, data: &Path, more: &[&str]) -> (Site, Line, Point) {
    let site = Site::start(&folder.join("site"));
    let line = Line::to(&site.url);
    let url = format!("https://{}", line.address);
    let token = site.join_token("branch-7", &["--site-url", &url]);
    let point = Point::start(data, Some(&token), more);
    (site, line, point)
}

/// `depot dp serve` on a folder; the first time with a token's file.
pub fn dp_serve(data: &Path, token: Option<&Path>) -> Command {
    let mut serve = depot();
    serve.args(["dp", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    if let Some(file) = token {
        serve.arg("--join-file").arg(file);
    }
    serve
}

impl Site {
    /// Makes a join token, and the file that it is in, beside the site's folder.
    #[track_caller]
    pub fn join_token(&self, name: &str, more: &[&str]) -> PathBuf {
        let file = self.data.with_file_name(format!("{name}.token"));
        let _ = std::fs::remove_file(&file);
        let args = ["dp", "join-token", "create", "--name", name, "--output"].map(OsStr::new);
        let args = args.into_iter().chain([file.as_os_str()]);
        self.depot(args.chain(more.iter().map(OsStr::new))).ok();
        file
    }

    /// The rows of `depot content-status` about a package.
    pub fn status(&self, package: &str) -> Vec<Value> {
        let token = std::fs::read_to_string(self.token_file()).unwrap();
        let token = format!("Bearer {}", token.trim());
        let path = format!("/api/v1/content-status?package={package}");
        let answer = self.request("GET", &path, &[("Authorization", &token)], b"");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// Waits until a row about a package is as it should be.
    #[track_caller]
    pub fn until_status(&self, package: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let (mut found, mut rows) = (None, Vec::new());
        until(&format!("the status of {package}"), || {
            // A question takes longer than the millisecond between two looks.
            std::thread::sleep(Duration::from_millis(20));
            rows = self.status(package);
            found = rows.iter().find(|row| is_so(row)).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until the site was told that a version is held.
    #[track_caller]
    pub fn until_held(&self, package: &str, version: u64) -> Value {
        self.until_status(package, |row| row["state"] == "held" && row["version"] == version)
    }
}

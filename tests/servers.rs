//! A site with several servers over a real PostgreSQL and a real S3 server: whichever is asked answers;
//! one that is killed, stopped or cut off is followed by another, and nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    Run, Site,
    agent::{Machine, join_token},
    depot, noise,
    postgres::shared,
    relay::{Line, Pace},
    s3::S3,
    temp_folder, tree, until, write_source,
};

/// A site that has no server yet.
struct Cluster {
    folder: tempfile::TempDir,
    s3: S3,
    database: String,
    key: PathBuf,
}

impl Cluster {
    fn new() -> Option<Self> {
        let (folder, s3) = (temp_folder(), S3::start()?);
        let key = folder.path().join("cluster.key");
        Run::of(depot().args(["site", "cluster-key"]).arg(&key)).ok();
        Some(Self { folder, s3, database: shared().database(), key })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts the server called so, with the database at `url`.
    fn serve(&self, name: &str, url: &str) -> Command {
        let mut serve = depot();
        self.s3.tell(&mut serve).args(["serve", "--listen", "127.0.0.1:0", "--data"]);
        serve.arg(self.path(name)).args(["--library", "s3://bucket/site", "--cache", "64MiB"]);
        serve.args(["--database", url, "--cluster-key"]).arg(&self.key);
        serve
    }

    /// Starts it.
    #[track_caller]
    fn start(&self, name: &str) -> Site {
        self.start_at(name, &shared().url_of(&self.database))
    }

    #[track_caller]
    fn start_at(&self, name: &str, url: &str) -> Site {
        Site::start_by(self.serve(name, url), &self.path(name))
            .unwrap_or_else(|log| panic!("{name} does not start; its log:\n{log}"))
    }

    /// Runs a command against any of the servers, as the admin, whose token the first one made.
    fn depot(&self, site: &Site, args: &[&str]) -> Run {
        Run::of(self.command(site).args(args))
    }

    fn command(&self, site: &Site) -> Command {
        let mut command = depot();
        command.env("DEPOT_URL", &site.url).env("DEPOT_TOKEN_FILE", self.path("first/admin.token"));
        command
    }

    fn servers(&self, site: &Site) -> Vec<Value> {
        let list = self.depot(site, &["site", "servers", "--json"]).ok().json();
        list.as_array().unwrap().clone()
    }

    /// Whether `site` leads, as the site itself says; asked at `at`.
    fn leads(&self, site: &Site, at: &Site) -> bool {
        let run = self.depot(at, &["site", "servers", "--json"]);
        run.code == Some(0) && run.json()[0]["address"] == site.url.trim_start_matches("http://")
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).with_extension("log")).unwrap()
    }
}

/// Asserts that the newest version of a package, as `site` gives it, is that tree.
#[track_caller]
fn is_fetched(site: &Site, package: &str, to: &Path, want: &tree::Tree) {
    let _ = fs::remove_dir_all(to);
    let url = format!("{}/packages/{package}/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(to)).ok();
    let mut got = tree::read(to);
    got.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&got, want);
}

fn versions(cluster: &Cluster, site: &Site, package: &str) -> usize {
    let list = cluster.depot(site, &["package", "versions", package, "--json"]).ok().json();
    list.as_array().unwrap().len()
}

#[test]
fn whichever_server_is_asked_answers() {
    let Some(cluster) = Cluster::new() else { return };
    let first = cluster.start("first");
    let second = cluster.start("second");
    assert!(cluster.log("second").contains("stands by"), "{}", cluster.log("second"));
    for name in ["site.ed25519", "authority.key", "authority.pem"] {
        let of = |server: &str| fs::read(cluster.path(server).join("keys").join(name)).unwrap();
        assert!(of("first") == of("second"), "{name} is the site's");
    }
    let servers = cluster.servers(&second);
    assert_eq!((servers.len(), &servers[0]["leads"]), (2, &true.into()), "{servers:?}");
    assert!(cluster.leads(&first, &second), "{servers:?}");
    let said = cluster.depot(&second, &["site", "servers"]).ok().stdout;
    assert!(said.contains("leads") && said.contains("stands by"), "{said}");

    // Up and down, by any of them.
    let source = cluster.path("source");
    let tree = write_source(&source, 1, 5, 2_000_000);
    cluster.depot(&second, &["package", "push", "tools", source.to_str().unwrap()]).ok();
    for site in [&first, &second] {
        is_fetched(site, "tools", &cluster.path("out"), &tree);
    }
    let file = "/packages/tools/latest/file-1";
    let bytes = noise(2, 2_000_000);
    let answer = second.get(file);
    assert!(answer.status == 200 && answer.body == bytes);
    let part = second.request("GET", file, &[("Range", "bytes=1000-1999")], b"");
    assert_eq!((part.status, part.body == bytes[1000..2000]), (206, true), "{}", part.head);
    assert_eq!(part.header("content-range"), Some("bytes 1000-1999/2000000"));
    let etag = answer.header("etag").unwrap();
    let same = second.request("GET", file, &[("If-None-Match", etag)], b"");
    assert_eq!((same.status, same.body.len()), (304, 0), "{}", same.head);
    let head = second.request("HEAD", file, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("2000000")));
    assert_eq!(second.get("/packages/none/latest/x").status, 404);
    assert_eq!(second.get("/api/v1/packages").status, 401);
    assert_eq!(second.request("PUT", "/content/x", &[], b"").status, 405);
    // HTTP/2, and a job that is followed to its end.
    let mut curl = support::curl();
    curl.args(["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
    assert_eq!(Run::of(curl.arg(format!("{}{file}", second.url))).ok().stdout, "2 200");
    fs::write(source.join("more"), b"more").unwrap();
    let create = ["package", "create", "watched", "--source", source.to_str().unwrap()];
    cluster.depot(&second, &create).ok();
    cluster.depot(&second, &["package", "update", "watched"]).ok();
    is_fetched(&second, "watched", &cluster.path("out"), &tree::read(&source));

    // What a server says of whose request it is counts from a server alone.
    let caller = "10.9.9.9:1 https 000000000000000000000000000000ab.client.depot";
    for site in [&first, &second] {
        let spoofed =
            site.request("GET", "/api/v1/client/policy", &[("Depot-Caller", caller)], b"");
        assert_eq!(spoofed.status, 403, "{}", String::from_utf8_lossy(&spoofed.body));
        assert!(String::from_utf8_lossy(&spoofed.body).contains("not-a-client"));
    }
    assert_eq!(second.stop(), Some(0));
    until("the second is forgotten", || cluster.servers(&first).len() == 1);
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_machine_joins_and_reports_by_a_server_that_stands_by() {
    let Some(cluster) = Cluster::new() else { return };
    let first = cluster.start("first");
    let second = cluster.start("second");
    let machine = Machine::new(cluster.folder.path(), "pc-17", &[("tool", "1.0-1")]);
    let by_second = format!("https://{}", second.url.trim_start_matches("http://"));
    let token = join_token(&first, "pc-17", &["--site-url", &by_second]);
    let _agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    until("the site knows the machine", || {
        let list = cluster.depot(&second, &["client", "list", "--json"]).ok().json();
        list[0]["name"] == "pc-17" && list[0]["os"] == "debian"
    });
}

#[test]
fn a_leader_that_is_killed_is_followed_and_nothing_is_lost() {
    let Some(cluster) = Cluster::new() else { return };
    let first = cluster.start("first");
    let second = cluster.start("second");
    let source = cluster.path("source");
    let before = write_source(&source, 1, 3, 500_000);
    cluster.depot(&second, &["package", "push", "before", source.to_str().unwrap()]).ok();
    cluster.depot(&second, &["token", "create", "ci", "--role", "operator"]).ok();

    // A job and an upload under way, both by the one that stands by.
    let large = cluster.path("large");
    let job_tree = write_source(&large, 100, 20, 4_000_000);
    let create = ["package", "create", "job", "--source", large.to_str().unwrap()];
    cluster.depot(&second, &create).ok();
    let update = cluster.depot(&second, &["package", "update", "job", "--detach", "--json"]);
    let update = update.ok().json();
    let job = update["id"].as_str().unwrap_or_default().to_owned();
    let pushed = cluster.path("pushed");
    let push_tree = write_source(&pushed, 200, 6, 4_000_000);
    let mut push = cluster.command(&second);
    push.args(["package", "push", "pushed", pushed.to_str().unwrap()]);
    let push = push.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let upload_began = || {
        let uploads = cluster.depot(&first, &["package", "list", "--json"]).ok().stdout;
        uploads.contains("pushed")
    };
    until("the push has begun", upload_began);
    thread::sleep(Duration::from_millis(500));
    let killed = Instant::now();
    first.kill();
    until("the second leads", || cluster.leads(&second, &second));
    println!("followed after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(60));

    let push = Run::from(push.wait_with_output().unwrap());
    if push.code != Some(0) {
        println!("the push ended: {}", push.stderr);
        // As it says itself: the same again.
        let again = ["package", "push", "pushed", pushed.to_str().unwrap()];
        cluster.depot(&second, &again).ok();
    }
    let state = |id: &str| {
        let shown = cluster.depot(&second, &["job", "show", id, "--json"]).ok().json();
        shown["state"].as_str().unwrap().to_owned()
    };
    until("the job ends", || !["queued", "running"].contains(&&*state(&job)));
    println!("the job ended as {}", state(&job));
    if state(&job) != "done" {
        cluster.depot(&second, &["package", "update", "job"]).ok();
    }
    for (package, want) in [("before", &before), ("job", &job_tree), ("pushed", &push_tree)] {
        is_fetched(&second, package, &cluster.path("out"), want);
        assert_eq!(versions(&cluster, &second, package), 2, "{package}: the empty one, and once");
    }
    let tokens = cluster.depot(&second, &["token", "list"]).ok().stdout;
    assert!(tokens.contains("ci"), "{tokens}");
    cluster.depot(&second, &["library", "verify"]).ok();

    // It comes back, and stands by.
    let first = cluster.start("first");
    assert!(cluster.leads(&second, &first));
    is_fetched(&first, "before", &cluster.path("out"), &before);
}

#[test]
fn a_leader_that_is_stopped_hands_over_at_once() {
    let Some(cluster) = Cluster::new() else { return };
    let first = cluster.start("first");
    let second = cluster.start("second");
    let source = cluster.path("source");
    let tree = write_source(&source, 1, 3, 300_000);
    cluster.depot(&second, &["package", "push", "tools", source.to_str().unwrap()]).ok();
    // There and back: what the other did meanwhile is known.
    let began = Instant::now();
    assert_eq!(first.stop(), Some(0));
    is_fetched(&second, "tools", &cluster.path("out"), &tree);
    println!("handed over after {:?}", began.elapsed());
    assert!(cluster.leads(&second, &second));
    let first = cluster.start("first");
    let more = write_source(&source, 9, 2, 300_000);
    cluster.depot(&first, &["package", "push", "tools", source.to_str().unwrap()]).ok();
    assert_eq!(second.stop(), Some(0));
    is_fetched(&first, "tools", &cluster.path("out"), &more);
    assert!(cluster.leads(&first, &first));
}

#[test]
fn a_leader_that_is_cut_off_does_no_harm_when_it_is_back() {
    let Some(cluster) = Cluster::new() else { return };
    let url = shared().tcp_url_of(&cluster.database);
    let server = url.split(['@', '/']).nth(3).unwrap().to_owned();
    let line = Line::to(&format!("http://{server}"));
    let by_line = url.replace(&server, &line.address) + "?sslmode=disable";
    let mut first = cluster.start_at("first", &by_line);
    let second = cluster.start("second");
    let source = cluster.path("source");
    let tree = write_source(&source, 1, 3, 300_000);
    cluster.depot(&second, &["package", "push", "tools", source.to_str().unwrap()]).ok();
    line.set(Pace::UpTo(line.passed()));
    // It does not know, and would like to write.
    let mut push = cluster.command(&first);
    push.args(["package", "push", "lost", source.to_str().unwrap()]);
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the second leads", || cluster.leads(&second, &second));
    let more = write_source(&source, 9, 2, 300_000);
    cluster.depot(&second, &["package", "push", "tools", source.to_str().unwrap()]).ok();
    line.set(Pace::Free);
    assert_eq!(first.child.wait().unwrap().code(), Some(4), "{}", cluster.log("first"));
    let said = cluster.log("first");
    assert!(said.contains("leads the site now") && said.contains("start it again"), "{said}");
    let _ = push.wait();
    is_fetched(&second, "tools", &cluster.path("out"), &more);
    assert_ne!(more, tree);
    cluster.depot(&second, &["library", "verify"]).ok();
    let first = cluster.start("first");
    is_fetched(&first, "tools", &cluster.path("out"), &more);
    assert_eq!(versions(&cluster, &first, "tools"), 3);
}

#[test]
fn who_may_not_be_one_of_several_is_told_why() {
    let Some(cluster) = Cluster::new() else { return };
    let url = shared().url_of(&cluster.database);
    let alone = |args: &[&str]| {
        let mut serve = depot();
        cluster.s3.tell(&mut serve).args(["serve", "--listen", "127.0.0.1:0", "--data"]);
        serve.arg(cluster.path("alone")).args(args);
        Run::of(&mut serve)
    };
    let key = cluster.key.to_str().unwrap();
    let said = alone(&["--cluster-key", key]).fails(2);
    assert!(said.contains("--database"), "{said}");
    let said = alone(&["--cluster-key", key, "--database", &url]).fails(2);
    assert!(said.contains("--library"), "{said}");

    let _first = cluster.start("first");
    // With another key, or with none, there is no place beside it.
    let other = cluster.path("other.key");
    Run::of(depot().args(["site", "cluster-key"]).arg(&other)).ok();
    let there = ["--database", &url, "--library", "s3://bucket/site"];
    let with_other = [&there[..], &["--cluster-key", other.to_str().unwrap()]].concat();
    let said = alone(&with_other).fails(4);
    assert!(said.contains("another cluster key"), "{said}");
    let again = Run::of(depot().args(["site", "cluster-key"]).arg(&other));
    assert_eq!(again.code, Some(1), "one that is there stays: {}", again.stderr);
}

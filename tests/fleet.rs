//! Fleets over real processes: whatever happens to batches, lines and sites, what a site has of its clients, and
//! its parent has of them, becomes what is true.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dp::identity::Identity;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};
use support::{
    Run, Site, agent::Machine, clock::Clock, curl, depot, storm::Storm, temp_folder, until,
};

/// Where a site is reached by those who join it.
fn https(site: &Site) -> String {
    site.url.replace("http://", "https://")
}

/// `HOST:PORT`.
fn place(site: &Site) -> String {
    site.url.trim_start_matches("http://").to_owned()
}

/// A join token for machines.
fn token(site: &Site, name: &str) -> PathBuf {
    let file = site.data.with_file_name(format!("{name}.token"));
    let create = ["client", "join-token", "create", "--uses", "10000", "--name", name, "--output"];
    site.depot(create.into_iter().chain([file.to_str().unwrap()])).ok();
    file
}

/// Simulates machines at a site that joins by `token`, beside the test.
fn simulated(site: &Site, token: &Path, args: &[&str]) -> Child {
    let mut command = depot();
    command.args(["--url", &site.url, "--token-file"]).arg(site.token_file());
    command.args(["fleet", "simulate", "--json", "--updates", "60", "--join-file"]).arg(token);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What came of it.
#[track_caller]
fn ended(child: Child) -> Value {
    Run::from(child.wait_with_output().unwrap()).ok().json()
}

fn shown(site: &Site, args: &[&str]) -> Value {
    site.depot(args.iter().copied().chain(["--json"])).ok().json()
}

/// All counts of all updates.
fn summary(site: &Site) -> Value {
    shown(site, &["compliance", "summary", "--limit", "1000"])
}

/// Kills a site as a power cut would, and starts it again at the same address.
fn killed(mut site: Site) -> Site {
    let (data, at) = (site.data.clone(), place(&site));
    site.child.kill().unwrap();
    site.child.wait().unwrap();
    drop(site);
    Site::start_at(&at, &data, &[]).unwrap()
}

#[test]
fn lost_doubled_early_and_damaged_batches_a_bad_line_and_kills_leave_the_truth() {
    let folder = temp_folder();
    let mut site = Site::start(&folder.path().join("site"));
    let token = token(&site, "load");
    let storm = Storm::to(&site.url, 7);
    let line = format!("https://{}", storm.address);
    let args = ["--clients", "60", "--duration", "3s", "--rounds", "2", "--outage", "--harm", "20"];
    let fleet = simulated(&site, &token, &[&args[..], &["--site", &line]].concat());
    for pause in [700, 1_900, 1_300] {
        std::thread::sleep(Duration::from_millis(pause));
        site = killed(site);
        storm.lead_to(&site.url);
    }
    let outcome = ended(fleet);
    assert_eq!((&outcome["equal"], &outcome["different"]), (&json!(60), &json!(0)), "{outcome}");
    let answers = outcome["answers"].as_object().unwrap();
    assert!(
        ["gap", "duplicate", "refused 422"].iter().all(|it| answers.contains_key(*it)),
        "{answers:?}"
    );
    // What was damaged is kept and named.
    let held = shown(&site, &["compliance", "quarantine"]);
    assert!(!held.as_array().unwrap().is_empty());
    // Each machine is one client, however often it asked.
    let clients = shown(&site, &["client", "list", "--limit", "1000"]);
    assert_eq!(clients.as_array().unwrap().len(), 60);
}

#[test]
fn what_a_child_site_hears_its_parent_hears_whoever_was_killed_away_or_put_back() {
    let folder = temp_folder();
    let clock = Clock::new(folder.path().join("clock"));
    let started = |at: &str, data: &Path| {
        let mut serve = depot();
        clock.rules(&mut serve);
        serve.args(["serve", "--listen", at, "--data"]).arg(data);
        Site::start_by(serve, data).unwrap()
    };
    let top = started("127.0.0.1:0", &folder.path().join("top"));
    let join = folder.path().join("berlin.token");
    let create =
        ["site", "join-token", "create", "--name", "berlin", "--kind", "primary", "--output"];
    top.depot(create.into_iter().chain([join.to_str().unwrap()])).ok();
    let args = ["--parent", &https(&top), "--join-file", join.to_str().unwrap()];
    let berlin = Site::start_with(&folder.path().join("berlin"), &args);
    let token = token(&berlin, "load");
    let fleet = |berlin: &Site, seed: &str| {
        simulated(
            berlin,
            &token,
            &["--clients", "30", "--duration", "1s", "--outage", "--seed", seed],
        )
    };
    assert_eq!(ended(fleet(&berlin, "1"))["equal"], 30);
    let same = |top: &Site, berlin: &Site| {
        until("the parent has what the child has", || summary(top) == summary(berlin));
    };
    same(&top, &berlin);
    let clients = shown(&top, &["client", "list"]);
    let clients = clients.as_array().unwrap();
    assert!(clients.len() == 30 && clients.iter().all(|it| it["site"] == "berlin"), "{clients:?}");

    // What only the site can do that a client reports to is refused above, and named.
    let one = clients[0]["id"].as_str().unwrap();
    let set = ["client", "settings", "set", "--client", one, "--report-every", "7m"];
    for refused in [&["client", "block", one][..], &["client", "remove", one, "--yes"], &set] {
        assert!(top.depot(refused).fails(4).contains("child site berlin"), "{refused:?}");
    }

    // The child is killed while it is told and tells.
    let more = fleet(&berlin, "2");
    std::thread::sleep(Duration::from_millis(1_500));
    let berlin = killed(berlin);
    assert_eq!(ended(more)["equal"], 30);
    same(&top, &berlin);

    // The parent is away while more is reported.
    let (at, data) = (place(&top), top.data.clone());
    assert_eq!(top.stop(), Some(0));
    assert_eq!(berlin.stop(), Some(0));
    let backup = folder.path().join("backup");
    let copy = |from: &Path, to: &Path| {
        Run::of(std::process::Command::new("cp").arg("-a").args([from, to])).ok();
    };
    let of_berlin = folder.path().join("berlin");
    copy(&of_berlin.join("site"), &backup);
    let berlin = Site::start_at(&token_place(&token), &of_berlin, &[]).unwrap();
    assert_eq!(ended(fleet(&berlin, "3"))["equal"], 30);
    let top = started(&at, &data);
    same(&top, &berlin);

    // The child's database is put back, and the parent knows more of it than it does itself.
    assert_eq!(berlin.stop(), Some(0));
    std::fs::remove_dir_all(of_berlin.join("site")).unwrap();
    copy(&backup, &of_berlin.join("site"));
    let berlin = Site::start_at(&token_place(&token), &of_berlin, &[]).unwrap();
    let one = shown(&berlin, &["client", "list", "--limit", "1"])[0]["id"].clone();
    let one = one.as_str().unwrap();
    berlin.depot(["client", "block", one]).ok();
    until("the parent hears of it", || {
        shown(&top, &["client", "show", one])["standing"] == "blocked"
    });

    // A machine that never scanned; and when its site is silent for long, the parent says that.
    let secret = std::fs::read_to_string(&token).unwrap();
    let secret: dp::field::JoinToken = secret.trim().parse().unwrap();
    let secret: String = secret.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = json!({
        "secret": secret, "id": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17",
        "request": Identity::request().unwrap().pem()
    });
    let url = format!("{}/api/v1/client/join", berlin.url);
    let post = ["-H", "content-type: application/json", "--fail", "-d", &asked.to_string(), &url];
    Run::of(curl().args(post)).ok();
    let cause = |top: &Site| shown(top, &["compliance", "unknown"])["unknown"].clone();
    until("the parent knows it", || cause(&top)["never-scanned"] == 1);
    assert_eq!(berlin.stop(), Some(0));
    clock.set("+3h");
    until("the parent says that it does not hear", || cause(&top)["not-received"] == 1);
}

#[test]
fn a_parent_knows_what_its_childs_clients_are_and_its_rules_mean_them() {
    let folder = temp_folder();
    let top = Site::start(&folder.path().join("top"));
    let join = folder.path().join("berlin.token");
    let create =
        ["site", "join-token", "create", "--name", "berlin", "--kind", "primary", "--output"];
    top.depot(create.into_iter().chain([join.to_str().unwrap()])).ok();
    let args = ["--parent", &https(&top), "--join-file", join.to_str().unwrap()];
    let berlin = Site::start_with(&folder.path().join("berlin"), &args);
    let machine = Machine::new(folder.path(), "pc-17", &[("tool", "1.0-1")]);
    let token = token(&berlin, "office");
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    let rule = "os = debian and package.tool < 2.0";
    top.depot(["collection", "create", "old", "--rule", rule]).ok();
    let members = || shown(&top, &["collection", "members", "old"]);
    until("a rule of the parent means the child's client", || {
        members().as_array().is_some_and(|all| all.len() == 1)
    });
    let client = shown(&top, &["client", "show", "pc-17"]);
    assert_eq!((&client["os"], &client["site"]), (&json!("debian"), &json!("berlin")));
    let packages = shown(&top, &["client", "packages", "pc-17"]);
    assert_eq!(packages, shown(&berlin, &["client", "packages", "pc-17"]));
    assert_eq!(packages[1], json!({"name": "tool", "version": "1.0-1", "arch": "amd64"}));
    // What changes comes, too: told while the parent is away.
    let (at, data) = (place(&top), top.data.clone());
    assert_eq!(top.stop(), Some(0));
    machine.has(&[("tool", "2.0-1")]);
    agent.kill();
    let _agent = machine.start(&[]);
    until("the child hears of it", || {
        shown(&berlin, &["client", "packages", "pc-17"])[1]["version"] == "2.0-1"
    });
    let top = Site::start_at(&at, &data, &[]).unwrap();
    until("the parent hears of it", || {
        shown(&top, &["collection", "members", "old"]).as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(shown(&top, &["client", "packages", "pc-17"])[1]["version"], "2.0-1");
}

/// Where the site is that a token is of.
fn token_place(token: &Path) -> String {
    let text = std::fs::read_to_string(token).unwrap();
    let token: dp::field::JoinToken = text.trim().parse().unwrap();
    token.sites[0].trim_start_matches("https://").to_owned()
}

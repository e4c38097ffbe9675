//! The agent, over real processes: from a token to what the site knows of a machine, whatever ends or is away in
//! between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};
use support::{
    Site,
    agent::{Agent, Machine, devices, join_token, until_catalogue},
    archive::Archive,
    relay::Line,
    temp_folder, until,
};

/// A site with the updates of an archive: of `tool` 2.0-1, and of packages that nobody has.
fn site(folder: &Path, args: &[&str]) -> (Site, Archive) {
    let mut archive = Archive::new();
    archive.list(0..100);
    archive.add("tool", "2.0-1");
    archive.publish();
    let site = Site::start_with(&folder.join("site"), args);
    archive.add_to(&site, "security", &archive.web.url).ok();
    synchronise(&site);
    until_catalogue(&site, 101);
    (site, archive)
}

fn synchronise(site: &Site) {
    site.depot(["sync", "run", "--watch"]).ok();
}

/// Starts the agent of a machine that joins.
#[track_caller]
fn joined(site: &Site, machine: &Machine) -> Agent {
    let name = machine.data.file_name().unwrap().to_str().unwrap();
    let token = join_token(site, name, &[]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    agent.until_enabled();
    agent
}

/// A site, and a machine of that name that has joined it and needs the update.
#[track_caller]
fn office(name: &str, args: &[&str]) -> (tempfile::TempDir, Site, Archive, Machine, Agent) {
    let folder = temp_folder();
    let (site, archive) = site(folder.path(), args);
    let machine = Machine::new(folder.path(), name, &[("tool", "1.0-1")]);
    let agent = joined(&site, &machine);
    (folder, site, archive, machine, agent)
}

/// Copies a folder with all that is in it.
fn copy_folder(from: &Path, to: &Path) {
    let words = ["-r", from.to_str().unwrap(), to.to_str().unwrap()];
    support::archive::tool("cp", &words, from.parent().unwrap());
}

/// The value of a metric of a site.
fn metric(site: &Site, name: &str) -> u64 {
    let metrics = String::from_utf8(site.get("/metrics").body).unwrap();
    let line = metrics.lines().find(|it| it.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[track_caller]
fn known(site: &Site, state: &str, machine: &str) {
    until(&format!("the site knows that it is {state}"), || {
        devices(site, "tool 2.0-1", state) == [machine]
    });
}

#[test]
fn a_machine_is_scanned_told_of_and_scanned_again_once_it_has_the_update() {
    let (_folder, site, _archive, machine, agent) = office("pc-17", &[]);
    let scanned = agent.json(&["scan", "--force"]);
    assert_eq!(scanned["counts"]["required"], 1, "{scanned}");
    assert_eq!(scanned["counts"]["not_required"], 100, "{scanned}");
    let status = agent.json(&["report"]);
    assert_eq!(status["waiting"], 0, "{status}");
    known(&site, "required", "pc-17");
    let explained = agent.depot(&["explain", "tool 2.0-1"]).ok().stdout;
    assert!(explained.contains("less than 2.0-1"), "{explained}");
    assert!(agent.depot(&["explain", "nothing"]).fails(3).contains("no update"));
    let told = agent.depot(&["user-install", "nothing"]).fails(3);
    assert!(told.contains("no deployment") && told.contains("depot agent deployments"), "{told}");
    let told = agent.depot(&["user-install", "00000000-0000-0000-0000-000000000007"]).fails(3);
    assert!(told.contains("is not deployed to this machine"), "{told}");

    machine.has(&[("tool", "2.0-1")]);
    let scanned = agent.json(&["scan", "--offline"]);
    assert_eq!((&scanned["changed"], &scanned["update_point"]), (&1.into(), &Value::Null));
    agent.json(&["trigger", "report"]);
    known(&site, "installed", "pc-17");
    assert!(devices(&site, "tool 2.0-1", "required").is_empty());

    // The trend ends with what is so now, also on the first day; and the same from the machine's side.
    let trend = site.depot(["compliance", "trend", "tool 2.0-1", "--json"]).ok().json();
    assert_eq!(
        (trend.as_array().unwrap().len(), &trend[0]["installed"]),
        (1, &1.into()),
        "{trend}"
    );
    let of = |state: &str| {
        let list = ["compliance", "client", "pc-17", "--state", state, "--json"];
        site.depot(list).ok().json()
    };
    assert_eq!(of("installed")[0]["name"], "tool 2.0-1");
    assert_eq!(of("required"), serde_json::json!([]));
    let unknown = site.depot(["compliance", "unknown", "--why"]).ok().stdout;
    assert!(unknown.contains("0 of 1 clients are unknown"), "{unknown}");

    // What the machine is came, too: its packages by name.
    until("the site knows the machine's system", || {
        let list = site.depot(["client", "list", "--json"]).ok().json();
        list[0]["os"] == "debian" && list[0]["scanned"].is_string()
    });
    // Nobody else reads what it keeps, or asks it anything.
    for (file, mode) in [("keys/identity.pem", 0o600), ("control.sock", 0o600), ("keys", 0o700)] {
        let found = fs::metadata(machine.data.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    assert!(!machine.data.join("keys/join.token").exists());
}

#[test]
fn packages_that_somebody_else_installs_are_scanned_for_and_told_of_by_themselves() {
    let folder = temp_folder();
    let (site, _archive) = site(folder.path(), &[]);
    // Nothing else would report for hours.
    let set =
        ["client", "settings", "set", "--report-every", "6h", "--report-after-install", "10s"];
    site.depot(set).ok();
    let machine = Machine::new(folder.path(), "pc-17", &[("tool", "1.0-1")]);
    let agent = joined(&site, &machine);
    agent.scan_and_report("--force");
    known(&site, "required", "pc-17");
    machine.has(&[("tool", "2.0-1")]);
    known(&site, "installed", "pc-17");
    let scanned = &agent.status().unwrap()["last_scan"];
    assert_eq!(scanned["triggers"], serde_json::json!(["after-install"]), "{scanned}");
    assert_eq!(scanned["update_point"], Value::Null, "nobody was asked: {scanned}");
}

#[test]
fn a_shorter_time_between_reports_holds_for_what_waits_already() {
    let (_folder, site, _archive, _machine, agent) = office("pc-17", &[]);
    agent.json(&["scan", "--force"]);
    let due = || agent.status().unwrap()["next_report"].as_u64().unwrap();
    assert!(due() > 300, "{}", due());
    site.depot(["client", "settings", "set", "--report-every", "2m"]).ok();
    until("what waits is sent sooner", || due() <= 120);
}

#[test]
fn a_damaged_catalogue_is_called_so_and_brought_again_whoever_scans_first() {
    let (_folder, _site, _archive, machine, agent) = office("pc-17", &[]);
    agent.json(&["scan", "--force"]);
    let line = fs::read_dir(machine.data.join("catalogue/blobs")).unwrap();
    let blobs: Vec<_> = line.map(|it| it.unwrap().path()).collect();
    assert!(blobs.len() > 2, "a page and several shards: {blobs:?}");
    for blob in &blobs {
        fs::write(blob, "damaged").unwrap();
    }
    let told = agent.depot(&["scan", "--offline"]).fails(5);
    assert!(told.contains("damaged") && told.contains("brought again"), "{told}");
    let scanned = agent.json(&["scan"]);
    assert_eq!(scanned["counts"]["required"], 1, "{scanned}");
    agent.json(&["scan", "--offline"]);
    assert!(blobs.iter().all(|blob| fs::metadata(blob).unwrap().len() > 7));
}

/// The requests for the catalogue since this was last called, by the site's log.
struct Asked<'a> {
    site: &'a Site,
    seen: usize,
}

impl Asked<'_> {
    fn now(&mut self) -> usize {
        let log = fs::read_to_string(self.site.data.with_extension("log")).unwrap();
        let all = log.lines().filter(|line| line.contains("/api/v1/catalogue")).count();
        all - std::mem::replace(&mut self.seen, all)
    }
}

#[test]
fn each_way_to_start_a_scan_asks_the_update_point_as_it_should() {
    let (_folder, site, _archive, machine, agent) = office("pc-17", &["--set", "log.access=true"]);
    let mut asked = Asked { site: &site, seen: 0 };
    agent.scan_by("schedule");
    assert!(asked.now() > 2, "without a catalogue it has to ask");
    for (trigger, times) in [
        ("schedule", 0),
        ("reevaluation", 0),
        ("before-download", 0),
        ("before-install", 0),
        ("after-install", 0),
        ("after-restart", 0),
        ("user-action", 1),
        ("schedule", 0),
    ] {
        agent.scan_by(trigger);
        assert_eq!(asked.now(), times, "{trigger}");
    }
    // Outside of the time to live those ask that are neither forced nor offline.
    let mut agent = agent;
    for (trigger, times) in [
        ("after-install", 0),
        ("after-restart", 0),
        ("schedule", 1),
        ("reevaluation", 1),
        ("before-download", 1),
        ("before-install", 1),
    ] {
        agent.kill();
        is_a_day_later(&machine);
        agent = machine.start(&[]);
        agent.until_enabled();
        asked.now();
        agent.scan_by(trigger);
        assert_eq!(asked.now(), times, "{trigger} outside of the time to live");
    }
}

/// Makes what was brought a day older, and nothing else: what is due by a schedule is so as long from now as before.
fn is_a_day_later(machine: &Machine) {
    let path = machine.data.join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for later in [
        "/steady/passed",
        "/agenda/scans/due",
        "/agenda/scans/nominal",
        "/agenda/reevaluations/due",
        "/agenda/reevaluations/nominal",
    ] {
        let seconds = state.pointer_mut(&format!("{later}/secs")).unwrap();
        *seconds = (seconds.as_u64().unwrap() + 25 * 3_600).into();
    }
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn an_agent_that_is_killed_at_any_moment_goes_on_and_the_site_comes_to_know_the_truth() {
    let folder = temp_folder();
    let (site, _archive) = site(folder.path(), &[]);
    let machine = Machine::new(folder.path(), "pc-17", &[("tool", "1.0-1")]);
    drop(joined(&site, &machine));
    for round in 0..12_u64 {
        let version = if round % 2 == 0 { "2.0-1" } else { "1.0-1" };
        machine.has(&[("tool", version)]);
        let agent = machine.start(&[]);
        until("it answers", || agent.status().is_some());
        let data = agent.data.clone();
        // It is killed while it scans or reports, or just before or after.
        let scanning = std::thread::spawn(move || {
            let run = |words: &[&str]| {
                let mut command = support::depot();
                command.arg("--data").arg(&data).arg("agent").args(words);
                support::Run::of(&mut command).code
            };
            let kind = if round % 3 == 0 { "--force" } else { "--offline" };
            run(&["scan", kind]);
            run(&["report"]);
        });
        std::thread::sleep(Duration::from_millis(round * 9 % 60));
        agent.kill();
        scanning.join().unwrap();
    }
    let agent = machine.start(&[]);
    agent.until_enabled();
    agent.scan_and_report("--force");
    known(&site, "required", "pc-17");
    let client = site.depot(["client", "list", "--json"]).ok().json();
    assert_eq!(client.as_array().unwrap().len(), 1, "it is one machine all the time");
    assert_eq!((&client[0]["states"], &client[0]["returns"]), (&101.into(), &0.into()), "{client}");
}

#[test]
fn what_was_found_while_the_site_is_away_waits_and_arrives() {
    let folder = temp_folder();
    let line = Line::to("http://127.0.0.1:9");
    let at = format!("site.url=https://{}", line.address);
    let mut archive = Archive::new();
    archive.add("tool", "2.0-1");
    archive.publish();
    let away = Site::start_with(&folder.path().join("site"), &["--set", &at]);
    line.lead_to(&away.url);
    archive.add_to(&away, "security", &archive.web.url).ok();
    synchronise(&away);
    until_catalogue(&away, 1);
    let machine = Machine::new(folder.path(), "pc-17", &[("tool", "1.0-1")]);
    let agent = joined(&away, &machine);
    agent.scan_and_report("--force");
    known(&away, "required", "pc-17");
    away.stop();
    machine.has(&[("tool", "2.0-1")]);
    // By the catalogue that lies there, and asked for in vain.
    assert_eq!(agent.json(&["scan"])["changed"], 1);
    assert!(agent.depot(&["scan", "--force"]).fails(1).contains("cannot reach"));
    assert!(agent.depot(&["report"]).fails(1).contains("cannot reach"));
    let status = agent.status().unwrap();
    assert!(status["waiting"].as_u64().unwrap() >= 2, "{status}");
    assert_eq!(status["last_scan"]["failed"]["class"], "unreachable", "{status}");
    agent.kill();
    let agent = machine.start(&[]);
    let back = Site::start(&folder.path().join("site"));
    line.lead_to(&back.url);
    agent.until_enabled();
    agent.json(&["report"]);
    known(&back, "installed", "pc-17");
}

#[test]
fn where_updates_are_disabled_nothing_is_scanned_for_until_they_are_enabled_again() {
    let (_folder, site, _archive, machine, agent) = office("pc-17", &[]);
    agent.json(&["scan", "--force"]);
    assert!(machine.data.join("location.json").exists());
    site.depot(["client", "settings", "set", "--updates-enabled", "false"]).ok();
    // Nobody has to ask: it is told.
    until("the agent hears of it", || agent.status().unwrap()["updates_enabled"] == false);
    assert!(agent.depot(&["scan", "--force"]).fails(1).contains("disabled"));
    assert!(!machine.data.join("location.json").exists(), "where to scan is withheld");
    site.depot(["client", "settings", "set", "--updates-enabled", "true"]).ok();
    agent.until_enabled();
    agent.json(&["scan", "--force"]);
}

#[test]
fn a_machine_waits_for_approval_and_one_that_is_blocked_is_told_so() {
    let folder = temp_folder();
    let (site, _archive) = site(folder.path(), &[]);
    let machine = Machine::new(folder.path(), "kiosk", &[("tool", "1.0-1")]);
    let token = join_token(&site, "kiosks", &["--pending"]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    until("it waits", || {
        agent.status().is_some_and(|it| it["standing"].as_str().unwrap().contains("pending"))
    });
    assert!(agent.depot(&["scan"]).fails(1).contains("approve"));
    site.depot(["client", "approve", "kiosk"]).ok();
    agent.depot(&["trigger", "policy"]).ok();
    agent.until_enabled();
    site.depot(["client", "block", "kiosk"]).ok();
    assert!(agent.depot(&["trigger", "policy"]).fails(1).contains("blocked"));
    assert!(agent.status().unwrap()["standing"].as_str().unwrap().contains("blocked"));
}

#[test]
fn a_folder_that_was_copied_to_another_machine_makes_a_client_of_its_own_there() {
    let (folder, site, _archive, machine, agent) = office("golden", &[]);
    agent.scan_and_report("--force");
    let first = agent.status().unwrap()["id"].clone();
    agent.kill();
    let copy = Machine::new(folder.path(), "copy", &[("tool", "2.0-1")]);
    copy_folder(&machine.data, &copy.data);
    let told = support::Run::of(&mut copy.run(&[])).fails(2);
    assert!(told.contains("--join-file"), "{told}");
    let token = join_token(&site, "more", &[]);
    let second = copy.start(&["--join-file", token.to_str().unwrap()]);
    let again = machine.start(&[]);
    for agent in [&second, &again] {
        agent.until_enabled();
        agent.scan_and_report("--force");
    }
    assert_ne!(second.status().unwrap()["id"], first);
    assert_eq!(again.status().unwrap()["id"], first, "the one before is what it was");
    known(&site, "installed", "copy");
    known(&site, "required", "golden");
    let list = site.depot(["client", "list", "--json"]).ok().json();
    assert!(list.as_array().unwrap().iter().all(|it| it["returns"] == 0), "{list}");
}

#[test]
fn a_client_that_was_removed_joins_anew_with_a_token_and_one_that_was_not_stays_who_it_is() {
    let (_folder, site, _archive, machine, agent) = office("pc-17", &[]);
    let id = |agent: &Agent| agent.status().unwrap()["id"].as_str().unwrap().to_owned();
    let first = id(&agent);
    agent.kill();
    // A token that it does not need changes nothing, and is not kept for later.
    let token = join_token(&site, "more", &[]);
    let with_token = ["--join-file", token.to_str().unwrap()];
    let agent = machine.start(&with_token);
    until("the site lets it in", || machine.log().contains("the token is not used"));
    assert_eq!(id(&agent), first);
    site.depot(["client", "remove", "pc-17", "--yes"]).ok();
    assert!(agent.depot(&["trigger", "policy"]).fails(1).contains("join with a new token"));
    assert_eq!(id(&agent), first, "whoever was removed does not come back by itself");
    agent.kill();
    let agent = machine.start(&with_token);
    until("it joins anew", || agent.status().is_some_and(|it| it["id"] != first.as_str()));
    agent.until_enabled();
    agent.scan_and_report("--force");
    known(&site, "required", "pc-17");
    let list = site.depot(["client", "list", "--json"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
}

#[test]
fn two_machines_with_one_identity_are_told_of() {
    let (folder, site, _archive, machine, agent) = office("golden", &[]);
    agent.scan_and_report("--force");
    let shown = || site.depot(["client", "show", "golden"]).ok().stdout;
    assert!(!shown().contains("two machines"), "{}", shown());
    agent.kill();
    // Copied with all that it is known by, as images are that nobody prepared.
    let clone = Machine::new(folder.path(), "clone", &[("tool", "2.0-1")]);
    copy_folder(&machine.data, &clone.data);
    let identity = Path::new("etc/machine-id");
    fs::copy(machine.root.join(identity), clone.root.join(identity)).unwrap();
    let both = [machine.start(&[]), clone.start(&[])];
    both.iter().for_each(Agent::until_enabled);
    until("the site says that two machines are one client", || {
        for agent in &both {
            agent.scan_and_report("--offline");
        }
        site.depot(["client", "show", "golden", "--json"]).ok().json()["returns"].as_u64() > Some(1)
    });
    assert!(shown().contains("two machines") && shown().contains("depot client remove"));
}

#[test]
fn a_certificate_of_another_site_is_refused_counted_and_named() {
    let folder = temp_folder();
    let own = Site::start(&folder.path().join("own"));
    let args = ["--set", "log.level=debug"];
    let other = Site::start_with(&folder.path().join("other"), &args);
    let machine = Machine::new(folder.path(), "pc-17", &[]);
    let token = join_token(&own, "office", &[]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    until("it is a client", || agent.status().is_some_and(|it| it["standing"] == "approved"));
    let identity = machine.data.join("keys/identity.pem");
    let ask = |site: &Site| {
        let url = format!("{}/api/v1/client/policy", site.url.replace("http://", "https://"));
        let mut curl = support::curl();
        curl.args(["--insecure", "--fail", "--cert"]).arg(&identity).arg(url);
        support::Run::of(&mut curl)
    };
    assert!(ask(&own).ok().stdout.contains("signature"));
    let failed = |site: &Site| metric(site, "depot_connections_tls_failed_total");
    assert_eq!(failed(&other), 0);
    assert_ne!(ask(&other).code, Some(0), "nobody vouches for it here");
    assert_eq!(failed(&other), 1);
    let log = fs::read_to_string(other.data.with_extension("log")).unwrap();
    assert!(log.contains("no TLS with this client"), "{log}");
}

#[test]
fn a_site_that_stops_sends_away_the_agents_that_wait_at_it() {
    let (_folder, site, _archive, _machine, agent) = office("pc-17", &["--set", "log.access=true"]);
    // Besides the question for the metrics itself.
    until("a question of the agent waits", || metric(&site, "depot_requests_in_flight") > 1);
    let data = site.data.clone();
    assert_eq!(site.stop(), Some(0), "it ends though an agent waits");
    assert!(agent.status().is_some(), "and that is there");
    let log = fs::read_to_string(data.with_extension("log")).unwrap();
    let mut lines = log.lines().filter(|line| line.contains("/api/v1/client/policy"));
    assert!(lines.next_back().unwrap().contains("status=503"), "it was told to come later: {log}");
}

#[test]
fn another_update_point_costs_next_to_nothing_and_takes_over_when_one_is_away() {
    let folder = temp_folder();
    let (top, archive) = site(folder.path(), &[]);
    let line = Line::to("http://127.0.0.1:9");
    let sup_token = folder.path().join("sup-2.token");
    top.depot(["sup", "add", "sup-2", "--output", sup_token.to_str().unwrap()]).ok();
    let at = format!("site.url=https://{}", line.address);
    let parent = top.url.replace("http://", "https://");
    let sup = Site::start_with(
        &folder.path().join("sup-2"),
        &["--sup", "--parent", &parent, "--join-file", sup_token.to_str().unwrap(), "--set", &at],
    );
    line.lead_to(&sup.url);
    archive.add_saying("other", "1.0-1", "", b"");
    let mut archive = archive;
    archive.publish();
    synchronise(&top);
    until_catalogue(&top, 102);
    until_catalogue(&sup, 102);
    let signed = |site: &Site| site.get("/api/v1/catalogue").body;
    assert_eq!(signed(&sup), signed(&top), "it hands out what the site signed");

    let machine = Machine::new(folder.path(), "pc-17", &[("tool", "1.0-1")]);
    let agent = joined(&top, &machine);
    until("both update points are told of", || {
        agent.depot(&["trigger", "policy"]).ok();
        let signed: Value =
            serde_json::from_slice(&fs::read(machine.data.join("policy.json")).unwrap()).unwrap();
        let policy: Value = serde_json::from_str(signed["policy"].as_str().unwrap()).unwrap();
        policy["update_points"].as_array().unwrap().len() == 2
    });
    let first = agent.json(&["scan", "--force"]);
    assert!(first["refreshed"]["blobs"].as_u64().unwrap() > 0, "{first}");
    let mine = first["update_point"].as_str().unwrap().to_owned();
    // The site is away: after four tries the other one is asked.
    top.stop();
    for _ in 0..4 {
        let told = agent.depot(&["scan", "--force"]).fails(1);
        assert!(told.contains("cannot reach"), "{told}");
    }
    let before = line.passed();
    let other = agent.json(&["scan", "--force"]);
    assert_ne!(other["update_point"].as_str().unwrap(), mine);
    assert_eq!(
        (&other["refreshed"]["blobs"], &other["refreshed"]["is_new"]),
        (&0.into(), &false.into())
    );
    let cost = line.passed() - before;
    // TLS and its certificates are the most of it.
    assert!(cost < 2_048, "{cost} bytes came from the other update point");
}

#[test]
fn installing_writes_a_unit_and_keeps_the_token_to_itself() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let token = join_token(&site, "office", &[]);
    let root = folder.path().join("image");
    let (token_arg, root_arg) = (token.to_str().unwrap(), root.to_str().unwrap());
    let words = ["agent", "install", "--join-file", token_arg, "--root", root_arg];
    let told = support::Run::of(support::depot().args(words)).fails(2);
    assert!(told.contains("is no folder") && !root.exists(), "{told}");
    fs::create_dir(&root).unwrap();
    let told = support::Run::of(support::depot().args(words).arg("--dry-run")).ok();
    let is_empty = fs::read_dir(&root).unwrap().next().is_none();
    assert!(told.stdout.contains("ExecStart=") && is_empty, "{}", told.stdout);
    let without = ["agent", "install", "--root", root_arg, "--dry-run"];
    let told = support::Run::of(support::depot().args(without)).ok().stdout;
    assert!(told.contains("has no token") && told.contains("--join-file"), "{told}");
    let told = support::Run::of(support::depot().args(words)).ok().stdout;
    assert!(!told.contains("has no token"), "{told}");
    let told = support::Run::of(support::depot().args(without)).ok().stdout;
    assert!(!told.contains("has no token"), "it was kept: {told}");
    let unit = fs::read_to_string(root.join("etc/systemd/system/depot-agent.service")).unwrap();
    let secret = fs::read_to_string(&token).unwrap();
    assert!(
        unit.contains("agent run --data \"/var/lib/depot-agent\"") && !unit.contains(secret.trim())
    );
    let kept = root.join("var/lib/depot-agent/keys/join.token");
    assert_eq!(fs::read_to_string(&kept).unwrap(), secret);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    // It is enabled, and whoever made the image hears that the program is not in it.
    let wants = root.join("etc/systemd/system/multi-user.target.wants/depot-agent.service");
    assert_eq!(fs::read_to_string(&wants).unwrap(), unit);
    let again = support::Run::of(support::depot().args(words)).ok().stdout;
    assert!(again.contains("is not there") && again.contains("--program"), "{again}");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/depot"), "").unwrap();
    let placed = [&words[..], &["--program", "/usr/bin/depot"]].concat();
    let told = support::Run::of(support::depot().args(&placed)).ok().stdout;
    assert!(!told.contains("is not there"), "{told}");
    // One that has joined is in no image.
    let joined = root.join("var/lib/depot-agent/agent.json");
    fs::write(&joined, "{}").unwrap();
    let told = support::Run::of(support::depot().args(&placed)).fails(4);
    assert!(told.contains("same client") && told.contains("--force"), "{told}");
    let forced = [&placed[..], &["--force"]].concat();
    support::Run::of(support::depot().args(&forced)).ok();
    assert!(!joined.exists() && kept.exists());
}

#[test]
fn a_wrong_command_says_what_to_do() {
    let folder = temp_folder();
    let none = folder.path().join("none");
    let run = |words: &[&str]| {
        support::Run::of(support::depot().arg("--data").arg(&none).arg("agent").args(words))
    };
    assert!(run(&["status"]).fails(3).contains("depot agent run"));
    assert!(run(&["run"]).fails(2).contains("--join-file"));
    assert!(run(&["run", "--site", "http://plain"]).fails(2).contains("https://"));
    fs::write(folder.path().join("file"), "").unwrap();
    let words = ["agent", "run", "--data", folder.path().to_str().unwrap()];
    assert!(support::Run::of(support::depot().args(words)).fails(2).contains("other files"));
}

//! A month's patch day, over real processes: a signed archive has security updates, a site synchronises it, a rule
//! deploys them to the pilot and then, when that went well, to the rest, and Debian systems in two branches install them
//! from the distribution point of their branch.
//!
//! Skipped, with a word, where no Debian system can be made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};
use support::{
    Site,
    agent::{Agent, Machine, devices, join_token, until_catalogue},
    archive::Archive,
    branch::Branch,
    debian::{bootstrap, can_run, run},
    noise,
    point::Point,
    temp_folder,
};

/// Looks each quarter of a second whether `holds`. Longer than [`support::until`] waits: three agents share this
/// machine, and what the site looks after each quarter of a minute comes one after the other.
#[track_caller]
fn soon(what: &str, machines: &[Machine], mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > Duration::from_secs(180) {
            let logs: Vec<String> = machines.iter().map(Machine::log).collect();
            panic!("{what}: waited in vain\n{}", logs.join("\n\n"));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    println!("{what}: after {:.1} s", began.elapsed().as_secs_f64());
}

/// A package of a machine, as its own dpkg knows it.
fn version(machine: &Machine, package: &str) -> String {
    let root = machine.root.to_str().unwrap();
    run("dpkg-query", &["--root", root, "-f=${Version} ${db:Status-Status}", "-W", package])
}

/// How a deployment is, if there is such.
fn status(site: &Site, deployment: &str) -> Option<Value> {
    let run = site.depot(["deployment", "status", deployment, "--json"]);
    (run.code == Some(0)).then(|| run.json())
}

/// When a machine's dpkg unpacked its `tool`.
fn unpacked(machine: &Machine) -> Timestamp {
    let list = machine.root.join("var/lib/dpkg/info/tool.list");
    fs::metadata(list).unwrap().modified().unwrap().try_into().unwrap()
}

/// The moment that something of the site says.
fn at(of: &Value) -> Timestamp {
    of["at"].as_str().unwrap().parse().unwrap()
}

#[test]
fn security_updates_come_to_the_pilot_by_its_branchs_point_and_then_to_the_rest() {
    let Some(main) = can_run() else { return };
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let depot = |args: &[&str]| site.depot(args).ok();

    // The month before: all machines have what there is.
    let mut archive = Archive::new();
    archive.add_with("tool", "1.0-1", &noise(1, 100_000));
    archive.publish();
    archive.add_to(&site, "security", &archive.web.url).ok();
    depot(&["sync", "run", "security", "--watch"]);
    until_catalogue(&site, 1);
    // Machines of a branch turn to its point, and never to the site.
    depot(&["boundary-group", "site", "--never"]);
    let settings = ["client", "settings", "set", "--report-after-install", "10s"];
    depot(&[&settings[..], &["--report-every", "1m", "--deadline-spread", "0s"]].concat());

    // Two branches, each with a point.
    let places = [("paris", "10.1"), ("lyon", "10.2")];
    let points: Vec<(Point, Branch)> = places
        .iter()
        .map(|(name, net)| {
            let token = site.join_token(name, &[]);
            // What is on the loopback is for nobody who has another address.
            let (machines, point) = (format!("{net}.0.17"), format!("{net}.0.1"));
            let address = format!("{point}:8520");
            let set = format!("dp.address={address}");
            let branch = Branch::new(name, &[&machines, &point]);
            let point = Point::start(&folder.path().join(name), Some(&token), &["--set", &set]);
            // They reach the site, and no point but their own.
            branch.lead_to(&site.url);
            branch.lead(&address, &point.url);
            depot(&["boundary-group", "create", name, "--point", name]);
            depot(&["boundary", "add", &format!("{net}.0.0/16"), "--group", name]);
            (point, branch)
        })
        .collect();
    let machines: Vec<Machine> = ["pc-1", "pc-2", "pc-3"]
        .iter()
        .map(|name| {
            let root = folder.path().join(format!("{name}-root"));
            bootstrap(&main, &root);
            fs::write(root.join("etc/machine-id"), format!("{name}\n")).unwrap();
            fs::write(root.join("etc/hostname"), format!("{name}\n")).unwrap();
            let old = archive.folder.path().join(Archive::deb("tool", "1.0-1"));
            run("dpkg", &["--root", root.to_str().unwrap(), "-i", old.to_str().unwrap()]);
            Machine { root, data: folder.path().join(name) }
        })
        .collect();
    // Two in Paris, one in Lyon.
    let agents: Vec<Agent> = ["pc-1", "pc-2", "pc-3"]
        .iter()
        .zip(&machines)
        .zip([0, 0, 1])
        .map(|((name, machine), place)| {
            let token = join_token(&site, name, &[]);
            let command = machine.run(&["--join-file", token.to_str().unwrap()]);
            let agent = machine.start_by(points[place].1.run(&command));
            agent.until_enabled();
            agent
        })
        .collect();
    depot(&["collection", "create", "pilot", "--client", "pc-1"]);
    depot(&["collection", "create", "rest", "--client", "pc-2,pc-3"]);

    // The rule: what is of security, after each sync; to the pilot at once, to the rest when all of the pilot have it.
    let rule = ["rule", "create", "patch", "--criteria", "source = security and not superseded"];
    let how = ["--evaluate", "after sync", "--package", "patch", "--collection", "pilot"];
    let when = ["--deadline", "0h", "--no-spread"];
    depot(&[&rule[..], &how, &when].concat());
    let add = ["rule", "add-deployment", "patch", "rest", "--collection", "rest"];
    depot(&[&add[..], &["--after-days", "0", "--success", "100"], &when].concat());

    // Patch day.
    let began = Instant::now();
    archive.add_saying("tool", "2.0-1", "Depends: helper (>= 1)\n", &noise(2, 3_000_000));
    archive.add_saying("helper", "1.0-1", "", &noise(3, 1_000_000));
    archive.publish();
    depot(&["sync", "run", "security", "--watch"]);
    until_catalogue(&site, 3);
    for agent in &agents {
        agent.json(&["scan", "--force"]);
        agent.json(&["report"]);
    }
    let mut group = String::new();
    soon("the rule ran and opened the pilot's deployment", &machines, || {
        let all = depot(&["rule", "history", "patch", "--json"]).json();
        let run = &all[0];
        group = run["group"].as_str().unwrap_or_default().to_owned();
        run["result"] == "done" && status(&site, &format!("{group}-pilot")).is_some()
    });
    let (pilot, rest) = (format!("{group}-pilot"), format!("{group}-rest"));
    archive.web.asked();

    soon("the pilot complies", &machines[..1], || {
        let it = status(&site, &pilot).unwrap();
        it["enforcement"] == json!({"succeeded": 1}) && it["percent"] == 100
    });
    assert_eq!(version(&machines[0], "tool"), "2.0-1 installed");
    assert_eq!(version(&machines[0], "helper"), "1.0-1 installed");
    let counts = |collection: &str| {
        let asked = ["compliance", "summary", "--group", &group, "--collection", collection];
        let all = depot(&[&asked[..], &["--json"]].concat()).json();
        ["compliant", "non_compliant", "unknown"].map(|it| all["overall"][it].as_u64().unwrap())
    };
    soon("what the pilot scans says so, too", &machines[..1], || counts("pilot") == [1, 0, 0]);

    // Then the next ring opens by itself.
    soon("the next ring opens", &machines, || status(&site, &rest).is_some());
    for machine in &machines {
        soon("a machine has installed it", &machines, || {
            version(machine, "tool") == "2.0-1 installed"
        });
        assert_eq!(version(machine, "helper"), "1.0-1 installed");
    }
    soon("all comply", &machines, || {
        let it = status(&site, &rest).unwrap();
        it["enforcement"] == json!({"succeeded": 2}) && it["percent"] == 100
    });
    soon("all have it installed, by what they scan", &machines, || {
        let mut names = devices(&site, "tool 2.0-1", "installed");
        names.sort();
        names == ["pc-1", "pc-2", "pc-3"]
    });
    assert_eq!(counts("all"), [3, 0, 0]);

    // What came after what: first the content, and to the branch of the pilot alone, then the pilot, then the ring, then
    // the same for the rest.
    let audit = depot(&["audit", "--limit", "500", "--json"]).json();
    let staged = |point: &str| {
        let target = json!(format!("patch to point/{point}"));
        let is_it = |it: &&Value| it["action"] == "assign" && it["target"] == target;
        // What the pilot has is let go of at times before the rest requires it: the first counts.
        let all = audit.as_array().unwrap().iter().filter(is_it).map(at);
        all.min().unwrap_or_else(|| panic!("{audit:#}"))
    };
    let opened = at(&depot(&["status-messages", "list", "--id", "9013", "--json"]).json()[0]);
    let order =
        [staged("paris"), unpacked(&machines[0]), opened, staged("lyon"), unpacked(&machines[2])];
    assert!(order.is_sorted(), "{order:?}");
    assert!(opened < unpacked(&machines[1]));
    println!("from the sync on it took {:.0} s", began.elapsed().as_secs_f64());
    // Nobody but the site asked the archive, and it not since the rule ran.
    assert!(archive.web.asked().is_empty());
    drop(agents);
}

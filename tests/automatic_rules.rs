//! Automatic deployment rules by the command line, over a real archive, a real site and real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use support::agent::{Machine, devices, join_token, until_catalogue};
use support::archive::Archive;
use support::point::Point;
use support::relay::{Line, Pace};
use support::{Site, noise, temp_folder, until};

fn sync(site: &Site) {
    site.depot(["sync", "run", "security", "--watch"]).ok();
}

/// The runs of the rule, the newest first.
fn runs(site: &Site, rule: &str) -> Vec<Value> {
    let all = site.depot(["rule", "history", rule, "--json"]).ok().json();
    all.as_array().unwrap().clone()
}

/// Waits until so many runs of the rule are over; the newest.
fn until_run(site: &Site, rule: &str, n: usize) -> Value {
    until(&format!("run {n} of {rule} is over"), || {
        let all = runs(site, rule);
        all.len() >= n && all.iter().all(|run| run["ended"].is_string())
    });
    runs(site, rule).remove(0)
}

fn group(site: &Site, name: &str) -> Value {
    site.depot(["group", "show", name, "--json"]).ok().json()
}

/// What is in a group: the names of updates.
fn members(site: &Site, name: &str) -> BTreeSet<String> {
    let shown = group(site, name);
    let all = shown["updates_in_it"].as_array().unwrap();
    all.iter().map(|update| update["name"].as_str().unwrap().to_owned()).collect()
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn deployments(site: &Site) -> Vec<Value> {
    let all = site.depot(["deployment", "list", "--json"]).ok().json();
    all.as_array().unwrap().clone()
}

fn messages(site: &Site, id: &str) -> Vec<String> {
    let all = site.depot(["status-messages", "list", "--id", id, "--json"]).ok().json();
    let text = |it: &Value| it["text"].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn a_rule_fills_one_group_after_each_sync_and_deploys_it() {
    let mut archive = Archive::new();
    for name in ["openssl", "curl"] {
        archive.add(name, "1.0-1");
    }
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let depot = |args: &[&str]| site.depot(args);
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site);

    // What it would come to is said before it is made, and nothing is.
    let criteria = "source = security and not superseded and size < 1GB";
    let create = ["rule", "create", "sec", "--criteria", criteria, "--evaluate", "after sync"];
    let more = ["--reuse-group", "--package", "sec", "--collection", "all", "--deadline", "2d"];
    let dry = depot(&[&create[..], &more[..], &["--dry-run"]].concat()).ok().stdout;
    assert!(dry.contains("means 2 updates") && dry.contains("files of 2 updates"), "{dry}");
    assert!(dry.contains("deployment all to all (0 machines): available 20"), "{dry}");
    let listed = depot(&["rule", "list", "--json"]).ok().json();
    assert_eq!(listed, serde_json::json!([]));
    let line = depot(&["rule", "create", "sec", "--criteria", "sorce = x"]).fails(2);
    assert!(line.contains("did you mean \"source\""), "{line}");
    let nobody = [&create[..], &["--collection", "nobody"]].concat();
    assert!(depot(&nobody).fails(3).contains("nobody"));
    let daily = ["rule", "create", "sec", "--criteria", criteria, "--evaluate", "daily at 25:00"];
    assert!(depot(&daily).fails(2).contains("00:00 to 23:59"));
    depot(&[&create[..], &more[..]].concat()).ok();
    assert!(depot(&[&create[..], &more[..]].concat()).fails(4).contains("already"));

    // What was there before is no occasion; by hand it is one.
    let ran = depot(&["rule", "run", "sec"]).ok().stdout;
    assert!(ran.contains("asked by") && ran.contains("done"), "{ran}");
    assert_eq!(members(&site, "sec"), names(&["openssl 1.0-1", "curl 1.0-1"]));
    let made = deployments(&site);
    assert_eq!(
        (made.len(), &made[0]["name"], &made[0]["content"]),
        (1, &"sec-all".into(), &"held".into())
    );
    assert!(made[0]["deadline"].is_string() && made[0]["enabled"] == true, "{made:?}");

    // A sync that changes something is one; of the same group some go and some come.
    archive.add("openssl", "1.0-2");
    archive.publish();
    sync(&site);
    let run = until_run(&site, "sec", 2);
    assert_eq!((&run["cause"], &run["result"]), (&"sync".into(), &"done".into()), "{run}");
    assert_eq!((&run["added"], &run["removed"], &run["kept"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(run["went"][0]["why"], "does not fit any more: not state = superseded");
    assert_eq!(members(&site, "sec"), names(&["openssl 1.0-2", "curl 1.0-1"]));
    assert_eq!(deployments(&site).len(), 1, "the group is the same, and so is its deployment");

    // A further deployment shares group and package.
    let add = ["rule", "add-deployment", "sec", "later", "--collection", "all"];
    depot(&[&add[..], &["--available", "1d", "--visibility", "hidden"]].concat()).ok();
    until("the second deployment is made", || deployments(&site).len() == 2);
    let all = deployments(&site);
    let later = all.iter().find(|it| it["name"] == "sec-later").unwrap();
    assert_eq!((&later["group"], &later["deadline"]), (&"sec".into(), &Value::Null));
    assert_eq!(later["experience"]["visibility"], "hidden");
    depot(&["rule", "disable", "sec", "--deployment", "later"]).ok();
    let all = deployments(&site);
    assert_eq!(all.iter().find(|it| it["name"] == "sec-later").unwrap()["enabled"], false);
    let shown = depot(&["rule", "show", "sec"]).ok().stdout;
    assert!(shown.contains("after sync") && shown.contains("sec-later"), "{shown}");

    // A rule that is disabled is not evaluated; what it deployed goes on.
    depot(&["rule", "disable", "sec"]).ok();
    archive.add("zlib", "1.0-1");
    archive.publish();
    sync(&site);
    let preview = depot(&["rule", "preview", "sec"]).ok().stdout;
    assert!(preview.contains("+ zlib 1.0-1") && preview.contains("2 stay"), "{preview}");
    depot(&["rule", "enable", "sec"]).ok();
    depot(&["rule", "remove-deployment", "sec", "later"]).ok();
    assert!(depot(&["rule", "remove-deployment", "sec", "later"]).fails(3).contains("later"));
    assert_eq!(runs(&site, "sec").len(), 2);
    assert_eq!(messages(&site, "9010").len(), 2);
    depot(&["rule", "delete", "sec", "--yes"]).ok();
    assert!(depot(&["rule", "show", "sec"]).fails(3).contains("sec"));
    assert_eq!(members(&site, "sec").len(), 2, "groups and deployments stay");
    assert_eq!(deployments(&site).len(), 2);
}

#[test]
fn what_lacks_a_file_waits_by_name_and_the_rest_is_deployed() {
    let mut archive = Archive::new();
    for name in ["openssl", "curl", "zlib"] {
        archive.add(name, "1.0-1");
    }
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let depot = |args: &[&str]| site.depot(args);
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site);
    let deb = archive.folder.path().join(Archive::deb("curl", "1.0-1"));
    let kept = folder.path().join("curl.deb");
    fs::rename(&deb, &kept).unwrap();
    let create = ["rule", "create", "month", "--criteria", "source = security and not deployed"];
    depot(&[&create[..], &["--package", "month", "--collection", "all"]].concat()).ok();
    let run = depot(&["rule", "run", "month"]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("curl 1.0-1") && run.stdout.contains("partial"), "{}", run.stdout);
    let ran = &runs(&site, "month")[0];
    assert_eq!((&ran["matched"], &ran["added"]), (&3.into(), &2.into()), "{ran}");
    assert_eq!(ran["waiting"][0]["name"], "curl 1.0-1");
    assert!(ran["waiting"][0]["why"].as_str().unwrap().contains("curl_1.0-1"), "{ran}");
    let first = ran["group"].as_str().unwrap().to_owned();
    assert_eq!(members(&site, &first), names(&["openssl 1.0-1", "zlib 1.0-1"]));
    let told = messages(&site, "9011");
    assert!(told[0].contains("curl 1.0-1"), "{told:?}");
    let view = depot(&["rule", "show", "month", "--json"]).ok().json();
    assert!(view["again"].is_string(), "what waits is tried again: {view}");

    // A new group of what is deployed nowhere yet.
    fs::rename(&kept, &deb).unwrap();
    depot(&["rule", "run", "month"]).ok();
    let ran = &runs(&site, "month")[0];
    let second = ran["group"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(members(&site, second), names(&["curl 1.0-1"]));
    assert_eq!(deployments(&site).len(), 2);
    // And then nothing is left.
    let ran = depot(&["rule", "run", "month"]).ok().stdout;
    assert!(ran.contains("nothing"), "{ran}");
    assert_eq!(deployments(&site).len(), 2);
    let rings = depot(&["rule", "show", "month", "--json"]).ok().json()["rings"].clone();
    assert_eq!(rings.as_array().unwrap().len(), 2, "{rings}");
    assert_eq!(rings[0]["rings"][0]["state"], "open");
}

#[test]
fn a_ring_opens_when_a_person_says_go() {
    let mut archive = Archive::new();
    archive.add("openssl", "1.0-1");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let depot = |args: &[&str]| site.depot(args);
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site);
    depot(&["collection", "create", "pilot"]).ok();
    let create =
        ["rule", "create", "patch", "--criteria", "source = security", "--package", "patch"];
    depot(&[&create[..], &["--collection", "pilot"]].concat()).ok();
    let first = depot(&["rule", "change", "patch", "--reuse-group"]);
    first.ok();
    let add = ["rule", "add-deployment", "patch", "rest", "--collection", "all", "--success", "90"];
    let line = depot(&add).fails(2);
    assert!(line.contains("one group for all runs"), "{line}");
    depot(&["rule", "change", "patch", "--new-group"]).ok();
    depot(&[&add[..], &["--after-days", "0"]].concat()).ok();
    depot(&["rule", "run", "patch"]).ok();
    let rings = || depot(&["rule", "show", "patch", "--json"]).ok().json()["rings"][0].clone();
    let shown = rings();
    assert_eq!(
        (&shown["rings"][0]["state"], &shown["rings"][1]["state"]),
        (&"open".into(), &"waits".into())
    );
    assert!(shown["rings"][1]["why"].as_str().unwrap().contains("no machine"), "{shown}");
    assert_eq!(deployments(&site).len(), 1);
    let held = depot(&["rule", "hold", "patch", "rest"]).ok().stdout;
    assert!(held.contains("a person holds it"), "{held}");
    depot(&["rule", "hold", "patch", "pilot"]).fails(4);
    depot(&["rule", "go", "patch", "nothing"]).fails(3);
    let gone = depot(&["rule", "go", "patch", "rest"]).ok().stdout;
    assert!(gone.contains("open"), "{gone}");
    assert_eq!(deployments(&site).len(), 2);
    assert_eq!(messages(&site, "9013").len(), 1);

    // Rings of older groups wait beside those of the newest, and a word reaches them.
    depot(&["rule", "run", "patch"]).ok();
    let second = runs(&site, "patch")[0]["group"].as_str().unwrap().to_owned();
    depot(&["rule", "run", "patch"]).ok();
    depot(&["rule", "go", "patch", "rest"]).ok();
    let line = depot(&["rule", "go", "patch", "rest"]).fails(4);
    assert!(line.contains(&format!("waits in {second}")), "{line}");
    let held = depot(&["rule", "hold", "patch", "rest", "--json"]).ok().json();
    assert_eq!((&held[0]["group"], held.as_array().unwrap().len()), (&second[..].into(), 1));
    assert_eq!(held[0]["rings"][1]["word"], "hold", "{held}");
    let free = depot(&["rule", "hold", "patch", "rest", "--release", "--json"]).ok().json();
    assert_eq!(free[0]["rings"][1]["word"], Value::Null, "{free}");
    depot(&["rule", "go", "patch", "rest", "--group", &second]).ok();
    depot(&["rule", "hold", "patch", "rest"]).fails(4);

    // A change of nothing is none.
    assert!(depot(&["rule", "change", "patch"]).fails(2).contains("say what"));
}

#[test]
fn a_run_that_is_killed_goes_on_under_the_same_names() {
    const LARGE: u64 = 4 << 20;
    let mut archive = Archive::new();
    archive.add("small", "1-1");
    archive.add_with("large", "1-1", &noise(5, LARGE as usize));
    archive.publish();
    let line = Line::to(&archive.web.url);
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    archive.add_to(&site, "security", &format!("http://{}", line.address)).ok();
    sync(&site);
    let create =
        ["rule", "create", "patch", "--criteria", "source = security", "--package", "patch"];
    site.depot(create.iter().copied().chain(["--collection", "all"])).ok();
    line.set(Pace::UpTo(line.passed() + LARGE / 4));
    site.depot(["rule", "run", "patch", "--detach"]).ok();
    until("it brings files", || {
        runs(&site, "patch").first().is_some_and(|run| run["step"] == "download")
    });
    let before = runs(&site, "patch").remove(0);
    let line_says = site.depot(["rule", "delete", "patch", "--yes"]).fails(4);
    assert!(line_says.contains("is being run"), "{line_says}");
    site.kill();

    let site = Site::start(&data);
    line.set(Pace::Free);
    let after = until_run(&site, "patch", 1);
    assert_eq!((&after["number"], &after["result"]), (&1.into(), &"done".into()), "{after}");
    assert_eq!((&after["resumed"], &after["group"]), (&1.into(), &before["group"]), "{after}");
    assert_eq!((&after["scheduled"], &after["cause"]), (&before["scheduled"], &before["cause"]));
    assert_eq!(runs(&site, "patch").len(), 1);
    let group = after["group"].as_str().unwrap();
    assert_eq!(members(&site, group), names(&["small 1-1", "large 1-1"]));
    let made = deployments(&site);
    assert_eq!((made.len(), &made[0]["content"]), (1, &"held".into()), "{made:?}");
}

#[test]
fn what_is_deployed_lies_on_the_point_near_the_machine_that_requires_it_and_leaves_with_its_deployment()
 {
    let mut archive = Archive::new();
    archive.add("tool", "2.0-1");
    archive.add("other", "2.0-1");
    archive.add("late", "2.0-1");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let depot = |args: &[&str]| site.depot(args);
    archive.add_to(&site, "security", &archive.web.url).ok();
    sync(&site);
    until_catalogue(&site, 3);
    let points = ["near", "far"].map(|name| {
        let token = site.join_token(name, &[]);
        let point = Point::start(&folder.path().join(name), Some(&token), &[]);
        depot(&["boundary-group", "create", name, "--point", name]).ok();
        point
    });
    depot(&["boundary", "add", "0.0.0.0/0", "--group", "near"]).ok();
    depot(&["boundary", "add", "::/0", "--group", "near"]).ok();
    depot(&["boundary", "add", "203.0.113.0/24", "--group", "far"]).ok();
    let has = [("tool", "1.0-1"), ("other", "2.0-1"), ("late", "1.0-1")];
    let machine = Machine::new(folder.path(), "pc-17", &has);
    let token = join_token(&site, "pc-17", &[]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    agent.until_enabled();
    agent.json(&["scan", "--force"]);
    agent.json(&["report"]);
    until("the site knows what it requires", || {
        devices(&site, "tool 2.0-1", "required") == ["pc-17"]
    });
    // Of two packages that are deployed the one comes that a machine requires something of.
    for name in ["tool", "other"] {
        let criteria = format!("title ~ {name}");
        let create = ["rule", "create", name, "--criteria", &criteria, "--package", name];
        depot(&[&create[..], &["--collection", "all", "--deadline", "7d"]].concat()).ok();
        depot(&["rule", "run", name]).ok();
    }
    let plan = || depot(&["staging", "plan", "--explain"]).ok().stdout;
    until("it is known where the machine is", || plan().contains("tool on near: "));
    let plan = plan();
    assert!(plan.contains("1 machine of near require"), "{plan}");
    assert!(!plan.contains("on far") && !plan.contains("other on"), "{plan}");
    assert!(plan.contains("no machine of its collection requires 1 of its updates"), "{plan}");
    site.until_held("tool", 2);
    let assigned = |package: &str| {
        let rows = site.status(package);
        rows.iter().map(|row| row["point"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((assigned("tool"), assigned("other")), (vec!["near".to_owned()], vec![]));

    // What has come reads as held, has nothing left to bring, and stays assigned.
    let plan = || depot(&["staging", "plan", "--point", "near", "--json"]).ok().json();
    until("the plan says that it is held", || plan()["lines"][0]["state"] == "held");
    let plan = plan();
    assert_eq!((&plan["lines"][0]["machines"], &plan["bring_bytes"]), (&1.into(), &0.into()));
    assert_eq!((&plan["assign"], &plan["release"]), (&0.into(), &0.into()), "{plan}");
    for which in ["--point", "--deployment"] {
        assert!(depot(&["staging", "plan", which, "nosuch"]).fails(3).contains("nosuch"));
    }

    // Where it is known who requires something, the machine hears of it only once a point is to hold it.
    let create = ["rule", "create", "late", "--criteria", "title ~ late", "--package", "late"];
    depot(&[&create[..], &["--collection", "all", "--deadline", "7d"]].concat()).ok();
    depot(&["rule", "run", "late"]).ok();
    until("the machine hears of it", || {
        let all = agent.json(&["deployments"]);
        all.as_array().unwrap().iter().any(|it| it["name"].as_str().unwrap().starts_with("late-"))
    });
    assert_eq!(assigned("late"), ["near"]);

    // A person's own is not touched; what only the deployment needed goes with it.
    depot(&["distribute", "other", "--dp", "near"]).ok();
    site.until_held("other", 2);
    let group = runs(&site, "tool")[0]["group"].as_str().unwrap().to_owned();
    depot(&["deployment", "delete", &format!("{group}-all"), "--yes"]).ok();
    until("it is let go of", || assigned("tool").is_empty());
    assert_eq!(assigned("other"), ["near"]);
    drop(points);
}

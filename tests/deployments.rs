//! Deployments by the command line, over a real site, a real archive and clients with certificates of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use compliance::digest::StateDigest;
use compliance::message::{
    Batch, Incarnation, Kind, Scan, ScanOutcome, State, StateMessage, UpdateRevision,
};
use serde_json::{Value, json};
use support::archive::Archive;
use support::fleet::Member;
use support::{Run, Site, temp_folder};
use sync::name::UpdateId;

/// What a machine says of updates: which it requires.
fn batch(member: &Member, required: &[UpdateId]) -> Vec<u8> {
    let update = |id: &UpdateId| UpdateRevision { id: *id, revision: 1 };
    let states = required.iter().map(|id| (update(id), State::Required));
    let batch = Batch {
        client: member.id(),
        incarnation: Incarnation(7.try_into().unwrap()),
        first: 1,
        next: 2,
        kind: Kind::Full,
        sent: jiff::Timestamp::now().as_second(),
        scan: Some(Scan {
            age: 5,
            outcome: ScanOutcome::Completed,
            completed: Some(5),
            catalogue: 1,
        }),
        waiting: 0,
        digest: StateDigest::of(states.clone()),
        states: states.map(|(update, state)| StateMessage { update, state, age: 5 }).collect(),
    };
    batch.encode().unwrap()
}

/// The policy of a machine.
fn policy(member: &Member) -> Value {
    let signed = member.get("policy");
    serde_json::from_str(signed["policy"].as_str().unwrap()).unwrap()
}

fn ids(site: &Site, names: &[&str]) -> Vec<UpdateId> {
    let id = |name: &&str| {
        let found = site.depot(["update", "list", "--search", name, "--json"]).ok().json();
        found[0]["id"].as_str().unwrap().parse().unwrap()
    };
    names.iter().map(id).collect()
}

#[test]
fn the_manual_workflow_and_red_arrows() {
    let mut archive = Archive::new();
    for name in ["openssl", "curl", "zlib"] {
        archive.add(name, "1.0-1");
    }
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    archive.add_to(&site, "security", &archive.web.url).ok();
    site.depot(["sync", "run", "security", "--watch"]).ok();
    let depot = |args: &[&str]| -> Run { site.depot(args) };
    let [openssl, curl, zlib] = ids(&site, &["openssl", "curl", "zlib"])[..] else { panic!() };

    // Security updates that more than two machines require.
    let members: Vec<Member> = (1..=4).map(|n| Member::join(&site, &format!("pc-{n}"))).collect();
    for (member, required) in members.iter().zip([
        &[openssl, curl, zlib][..],
        &[openssl, curl],
        &[openssl, curl],
        &[zlib],
    ]) {
        member.report(&batch(member, required));
    }
    let filter = "classification in (security, critical) and required > 2";
    let listed = depot(&["update", "list", "--filter", filter]).ok().stdout;
    assert!(listed.contains("openssl") && listed.contains("↓ missing"), "{listed}");
    assert!(!listed.contains("zlib"), "{listed}");
    depot(&["group", "create", "november", "--filter", filter]).ok();
    let shown = depot(&["group", "show", "november"]).ok().stdout;
    assert!(shown.contains("2 ↓ content missing"), "{shown}");
    depot(&["collection", "create", "pilot", "--client", "pc-1,pc-2"]).ok();

    // What is missing is told before; it is brought if a package is named.
    let deploy = ["deploy", "november", "--collection", "pilot", "--deadline", "+2d 03:00"];
    let line = depot(&deploy).fails(4);
    assert!(line.contains("openssl") && line.contains("--package"), "{line}");
    let dry = depot(&[&deploy[..], &["--dry-run"]].concat()).ok().stdout;
    assert!(dry.contains("november-pilot") && dry.contains("⇊ 2"), "{dry}");
    archive.web.asked();
    for (command, advice) in [("show", true), ("download", true), ("delete", false)] {
        let mut args = vec!["deployment-package", command, "nosuch"];
        args.extend_from_slice(match command {
            "download" => &["--group", "november"],
            "delete" => &["--yes"],
            _ => &[],
        });
        let line = depot(&args).fails(3);
        assert!(line.contains("there is no deployment package nosuch"), "{line}");
        assert_eq!(line.contains("depot deployment-package create nosuch"), advice, "{line}");
        assert_eq!(line.contains("create"), advice, "{line}");
    }
    depot(&["deployment-package", "create", "nov", "--description", "Patch day"]).ok();
    depot(&["deployment-package", "download", "nov", "--group", "november"]).ok();
    assert!(!archive.web.asked().is_empty());
    depot(&["update", "download", &openssl.to_string(), "--package", "second"]).ok();
    assert!(archive.web.asked().is_empty(), "what the library holds is not asked for");
    let packages = depot(&["deployment-package", "list", "--json"]).ok().json();
    let versions: Vec<_> = packages.as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(versions, [2, 2], "{packages}");
    let more = ["--suppress-restart", "servers", "--alert-below", "90%"];
    depot(&[&deploy[..], &more].concat()).ok();

    let told = policy(&members[0]);
    let deployed = &told["deployments"][0];
    assert_eq!(deployed["name"], "november-pilot", "{told}");
    assert_eq!(deployed["experience"]["suppress_restart"]["servers"], true);
    let digest = deployed["updates"].as_str().unwrap();
    let document = members[0].get(&format!("deployed-updates/{digest}"));
    let updates = document["updates"].as_array().unwrap();
    assert_eq!(updates.len(), 2, "{document}");
    for update in updates {
        let file = &update["items"][0]["files"][0];
        let content = format!("/content/blake3:{}", file["digest"].as_str().unwrap());
        assert_eq!(site.get(&content).body.len() as u64, file["size"].as_u64().unwrap());
    }
    assert_eq!(policy(&members[3])["deployments"], Value::Null);

    // Deleting a package takes away what no other holds, and says so first.
    let delete = ["deployment-package", "delete", "nov", "--yes"];
    let line = depot(&delete).fails(4);
    assert!(line.contains("curl") && !line.contains("openssl"), "{line}");
    let status = depot(&["deployment", "status", "november-pilot"]).ok().stdout;
    assert!(!status.contains('⇊'), "{status}");
    depot(&[&delete[..], &["--force"]].concat()).ok();
    let status = depot(&["deployment", "status", "november-pilot"]).ok().stdout;
    assert!(status.contains("⇊ 1 update missing"), "{status}");
    let list = depot(&["deployment", "list"]).ok().stdout;
    assert!(list.contains("⇊ 1 update missing"), "{list}");
    let listed = depot(&["update", "list", "--search", "curl"]).ok().stdout;
    assert!(listed.contains("↓ missing"), "{listed}");
    let listed = depot(&["update", "list", "--search", "openssl"]).ok().stdout;
    assert!(listed.contains("held"), "the other package holds it: {listed}");
    // Downloaded again, it is there again, and clients are told.
    depot(&["deployment-package", "download", "second", "--group", "november"]).ok();
    let status = depot(&["deployment", "status", "november-pilot", "--json"]).ok().json();
    assert_eq!((&status["content"], &status["missing"]), (&json!("held"), &json!(0)));
    assert_eq!(policy(&members[0])["deployments"][0]["updates"], json!(digest), "the same files");

    // What a client tells is there after a crash.
    let id = deployed["id"].clone();
    let report = json!({
        "client": members[0].id(), "incarnation": 7, "number": 1,
        "deployments": [{"deployment": id, "updates_of": digest, "compliance": "non-compliant",
            "enforcement": "failed", "evaluation": "succeeded", "age": 5,
            "failure": {"code": 100, "detail": "dpkg was interrupted"}}],
    });
    members[0].put("enforcement", &report);
    site.kill();
    let site = Site::start(&data);
    let depot = |args: &[&str]| -> Run { site.depot(args) };
    let status = depot(&["deployment", "status", "november-pilot"]).ok().stdout;
    assert!(status.contains("dpkg was interrupted") && status.contains("1 failed"), "{status}");
    let devices = depot(&["deployment", "devices", "november-pilot", "--error", "100", "--csv"]);
    assert!(devices.ok().stdout.contains("pc-1,"));

    let summary = depot(&["compliance", "summary", "--group", "november"]).ok().stdout;
    assert!(
        summary.contains("0 clients have all of november, 3 lack some of it, 1 are unknown"),
        "{summary}"
    );

    // The next ring, and what comes into the group later. A change of nothing is none.
    let line = depot(&["deployment", "change", "november-pilot"]).fails(2);
    assert!(line.contains("say what"), "{line}");
    let change = ["deployment", "change", "november-pilot", "--collection", "all"];
    depot(&[&change[..], &["--name", "november-all"]].concat()).ok();
    depot(&["group", "add", "november", &zlib.to_string()]).ok();
    let list = depot(&["deployment", "list"]).ok().stdout;
    assert!(list.contains("november-all") && list.contains("⇊ 1 update missing"), "{list}");
    depot(&["deployment", "disable", "november-all"]).ok();
    let line = depot(&["group", "delete", "november", "--yes"]).fails(4);
    assert!(line.contains("november-all"), "{line}");
    depot(&["deployment", "delete", "november-all", "--yes"]).ok();
    depot(&["group", "delete", "november", "--yes"]).ok();
    let audit = depot(&["audit", "--limit", "200", "--json"]).ok().stdout;
    for done in ["create_deployment", "change_deployment", "delete_deployment_package"] {
        assert!(audit.contains(done), "{done}: {audit}");
    }
}

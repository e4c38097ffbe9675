//! Distribution points by command: tokens, groups, what is distributed, how far it is; with a server
//! and without. What a point does with it is told elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dp::field::JoinToken;
use dp::identity::Identity;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use support::{Site, on_data, temp_folder};

/// Lets a machine join with this token, from the same machine, over plain HTTP.
fn join(site: &Site, token: &str) -> Value {
    let token: JoinToken = token.parse().unwrap();
    let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Identity::request().unwrap();
    let body = json!({"secret": secret, "request": request.pem()}).to_string();
    let headers = [("Content-Type", "application/json")];
    let answer = site.request("POST", "/api/v1/point/join", &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_point_joins_is_grouped_given_packages_and_removed() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let create = ["dp", "join-token", "create", "--name", "branch-7"];
    let made = site.depot(create).ok();
    assert!(made.stderr.contains("--site-url"), "a loopback address is worth a note");
    let token = made.stdout.trim().to_owned();
    let sites = token.parse::<JoinToken>().unwrap().sites;
    assert_eq!(sites, [site.url.replace("http://", "https://")], "where it really listens");
    assert!(site.depot(create).fails(4).contains("join token for branch-7 already"));
    let listed = site.depot(["dp", "join-token", "list"]).ok().stdout;
    assert!(listed.contains("branch-7") && listed.contains("open"), "{listed}");
    assert!(!listed.contains("depotjoin1"));
    assert!(site.depot(["dp", "list", "--json"]).ok().json().as_array().unwrap().is_empty());

    let joined = join(&site, &token);
    let list = site.depot(["dp", "list"]).ok().stdout;
    assert!(list.contains("branch-7") && list.contains("never seen"), "{list}");
    let listed = site.depot(["dp", "join-token", "list"]).ok().stdout;
    assert!(listed.contains("used"), "{listed}");
    assert!(
        site.depot(["dp", "show", "branch-8"]).fails(3).contains("distribution point branch-8")
    );

    for command in [
        &["package", "create", "docs"][..],
        &["dp", "group", "create", "empty"],
        &["package", "channel", "set", "docs", "stable", "1"],
        &["dp", "group", "create", "paris"],
        &["dp", "group", "add", "paris", "branch-7"],
        &["distribute", "docs@stable", "--group", "paris", "--priority", "high"],
        &["distribute", "docs", "--dp", "branch-7"],
    ] {
        site.depot(command).ok();
    }
    let noted = site.depot(["distribute", "docs", "--group", "empty"]).ok().stderr;
    assert!(noted.contains("group empty has no distribution points"), "{noted}");
    let noted = site.depot(["distribute", "docs", "--group", "paris"]).ok().stderr;
    assert!(!noted.contains("no distribution points"), "{noted}");
    site.depot(["undistribute", "docs@latest", "--group", "paris"]).ok();
    let quiet = site.depot(["-q", "package", "create", "quiet"]).ok();
    assert!(quiet.stdout.contains("made") && !quiet.stdout.contains("fill it"), "{}", quiet.stdout);
    let shown = site.depot(["dp", "show", "branch-7"]).ok().stdout;
    assert!(shown.contains(joined["id"].as_str().unwrap()), "{shown}");
    assert!(shown.contains("docs@stable, priority high, by group paris"), "{shown}");
    assert!(shown.contains("docs@latest, priority medium"), "{shown}");
    let group = site.depot(["dp", "group", "show", "paris"]).ok().stdout;
    assert!(group.contains("branch-7") && group.contains("docs@stable"), "{group}");
    let shown = site.depot(["dp", "show", "branch-7", "--json"]).ok().json();
    assert_eq!(shown["distributed"].as_array().unwrap().len(), 2, "{shown}");
    let group = site.depot(["dp", "group", "show", "paris", "--json"]).ok().json();
    assert_eq!(group["distributed"][0]["version"], "stable", "{group}");
    let status = site.depot(["content-status", "docs", "--json"]).ok().json();
    assert_eq!(status.as_array().unwrap().len(), 1, "one version, however often it is meant");
    assert_eq!(status[0]["state"], "unknown");
    assert_eq!(status[0]["priority"], "high");
    assert_eq!(status[0]["wished"], json!(["stable", "latest"]));
    let table = site.depot(["content-status", "--dp", "branch-7"]).ok().stdout;
    assert!(table.contains("has not reported yet"), "{table}");

    assert!(site.depot(["distribute", "docs@9", "--dp", "branch-7"]).fails(3).contains('9'));
    assert!(site.depot(["distribute", "docs"]).fails(2).contains("--dp"));
    let both = ["--dp", "branch-8", "--dp", "branch-7"];
    let put = site.depot(["distribute", "docs@1"].into_iter().chain(both));
    assert!(put.stdout.contains("docs@1 is distributed to distribution point branch-7"));
    assert!(put.fails(3).contains("branch-8"), "what can be done is done, and the rest is told");
    let taken = site.depot(["undistribute", "docs@1"].into_iter().chain(both));
    assert!(taken.stdout.contains("no longer"), "{}", taken.stdout);
    taken.fails(3);
    let other = ["undistribute", "docs@1", "--dp", "branch-7"];
    assert!(site.depot(other).fails(3).contains("docs@1"));
    site.depot(["undistribute", "docs", "--dp", "branch-7"]).ok();
    site.depot(["dp", "group", "remove", "paris", "branch-7"]).ok();
    assert_eq!(site.depot(["content-status", "--json"]).ok().json(), json!([]));
    assert!(site.depot(["dp", "group", "delete", "paris"]).fails(2).contains("--yes"));
    let gone = site.depot(["dp", "group", "delete", "paris", "--yes"]).ok().stdout;
    assert!(gone.contains("1 assignment"), "{gone}");
    // The question and the answer name who counts on it.
    let other = site.depot(["dp", "join-token", "create", "--name", "lyon"]).ok();
    join(&site, other.stdout.trim());
    site.depot(["dp", "source", "set", "lyon", "--from", "branch-7"]).ok();
    site.depot(["boundary-group", "create", "west"]).ok();
    site.depot(["boundary-group", "add", "west", "branch-7"]).ok();
    let asked = site.depot(["dp", "remove", "branch-7"]).fails(2);
    assert!(asked.contains("--yes"), "{asked}");
    let told = "lyon brings from it; clients of boundary group west turn to it";
    assert!(asked.contains(told), "{asked}");
    let removed = site.depot(["dp", "remove", "branch-7", "--yes", "--json"]).ok().json();
    assert_eq!(removed["name"], "branch-7");
    assert_eq!(
        (&removed["brought_from_by"], &removed["boundary_groups"]),
        (&json!(["lyon"]), &json!(["west"]))
    );
    let removed = site.depot(["dp", "remove", "lyon", "--yes"]).ok().stdout;
    assert!(!removed.contains("until now"), "nobody counted on it: {removed}");
    assert_eq!(site.depot(["dp", "list", "--json"]).ok().json(), json!([]));
    let audit = site.depot(["audit"]).ok().stdout;
    for action in ["create_join_token", "join", "assign", "unassign", "remove_point"] {
        assert!(audit.contains(action), "{action} is not in\n{audit}");
    }
}

#[test]
fn a_token_goes_into_a_file_and_says_where_the_site_is() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let file = folder.path().join("token");
    let create = |more: &[&str]| {
        let args = ["dp", "join-token", "create", "--name", "a", "--output"];
        let args = args.iter().copied().chain([file.to_str().unwrap()]).chain(more.iter().copied());
        on_data(&data, args)
    };
    assert!(create(&["--site-url", "http://h:1"]).fails(2).contains("https://HOST:PORT"));
    let urls = ["--site-url", "https://a.example:1", "--site-url", "https://b.example:2"];
    let made = create(&urls).ok();
    assert!(!made.stdout.contains("depotjoin1"), "{}", made.stdout);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let token: JoinToken = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(token.sites, ["https://a.example:1", "https://b.example:2"]);
    create(&urls).fails(1);
    on_data(&data, ["dp", "join-token", "revoke", "a"]).ok();
    assert_eq!(on_data(&data, ["dp", "join-token", "list", "--json"]).ok().json(), json!([]));
    let key = data.join("keys/authority.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

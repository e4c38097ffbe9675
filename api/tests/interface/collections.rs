//! Collections: rules over what clients told, members, limits, windows; and what counts for one.

use crate::client::{Client, TestSite};
use compliance::fleet::{Enrolment, Fingerprint, Standing};
use compliance::message::ClientId;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// A client that is known and tells its system and packages.
async fn client_of(site: &TestSite, n: u8, os: &str, packages: &[(&str, &str)]) -> Client {
    let id = Uuid::from_u128(n.into());
    let new = Enrolment {
        id: ClientId(id),
        key: Fingerprint([n; 32]),
        name: format!("pc-{n}"),
        standing: Standing::Approved,
    };
    site.site.fleet().unwrap().states.enrol(new, Timestamp::now()).unwrap();
    let client = site.fleet_client(id);
    tell(&client, 0, os, packages).await;
    client
}

async fn tell(client: &Client, base: u64, os: &str, packages: &[(&str, &str)]) {
    let changed = packages.iter().map(|(name, version)| {
        ((*name).to_owned(), json!([{"version": version, "arch": "amd64"}]))
    });
    let changed: serde_json::Map<String, Value> = changed.collect();
    let change = json!({
        "base": base, "revision": base + 1, "os": os, "os_version": "12",
        "addresses": ["10.1.0.7"], "packages": {"kind": "deb", "changed": changed}
    });
    let told = client.put("/api/v1/client/facts", change).await.expect(200).json;
    assert_eq!(told["revision"], base + 1);
}

async fn members(admin: &Client, collection: &str) -> Vec<String> {
    let at = format!("/api/v1/collections/{collection}/members");
    let page = admin.get(&at).await.expect(200).json;
    let items = page["items"].as_array().unwrap();
    items.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn clients_are_in_the_collections_that_their_facts_say() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let one = client_of(&site, 1, "debian", &[("nginx", "1.22-1"), ("openssl", "3.0.11-1")]).await;
    client_of(&site, 2, "debian", &[("openssl", "3.0.15-1")]).await;
    client_of(&site, 3, "rocky", &[]).await;
    let create = async |body: Value| admin.post("/api/v1/collections", body).await;
    create(json!({"name": "debian", "rules": {"os": "os = debian"}})).await.expect(201);
    let web = json!({
        "name": "web", "limit": "debian", "rules": {"nginx": "package = nginx"}, "exclude": ["lab"]
    });
    create(web.clone()).await.refused(422, "collection");
    // One that names somebody who is not there is not made at all.
    let named = json!({"name": "named", "clients": ["pc-1", "nope"]});
    create(named).await.refused(404, "client");
    admin.get("/api/v1/collections/named").await.expect(404);
    create(json!({"name": "named", "clients": ["pc-1"]})).await.expect(201);
    assert_eq!(members(&admin, "named").await, ["pc-1"]);
    let gone = async |change: Value| admin.json("PATCH", "/api/v1/collections/named", change).await;
    gone(json!({"rules": {"nope": null}})).await.refused(404, "rules.nope");
    gone(json!({"windows": {"nope": null}})).await.refused(404, "windows.nope");
    admin.delete("/api/v1/collections/named").await.expect(200);
    create(json!({"name": "lab"})).await.expect(201);
    let made = create(web.clone()).await.expect(201);
    assert_eq!(made.header("location"), "/api/v1/collections/web");
    assert_eq!((&made.json["members"], &made.json["limit"]), (&json!(1), &json!("debian")));
    create(web).await.refused(409, "collection");
    create(json!({"name": "all"})).await.refused(409, "collection");
    create(json!({"name": "No"})).await.refused(422, "name");
    create(json!({"name": "x", "rules": {"r": "oz = a"}})).await.refused(422, "rules.r");
    create(json!({"name": "x", "odd": 1})).await.refused(422, "odd");

    // Packages come as changes, and the members follow.
    tell(&one, 1, "debian", &[("openssl", "3.0.15-1")]).await;
    let stale = json!({"base": 1, "revision": 9});
    one.put("/api/v1/client/facts", stale).await.expect(409);
    let odd = json!({"base": 2, "revision": 3, "packages": {"kind": "deb", "changed": {"a": []}}});
    one.put("/api/v1/client/facts", odd).await.refused(422, "packages");
    assert_eq!(members(&admin, "web").await, ["pc-1"]);
    let preview = async |rule: &str| {
        let rule: String = form(rule);
        admin.get(&format!("/api/v1/collection-preview?rule={rule}")).await
    };
    let old = preview("package.openssl < 3.0.15").await.expect(200).json;
    assert_eq!((&old["clients"], &old["examples"]), (&json!(0), &json!([])));
    let new = preview("package.openssl >= 3.0.15-1 and address = 10.0.0.0/8").await.expect(200);
    assert_eq!(
        (&new.json["clients"], &new.json["examples"][0]["name"]),
        (&json!(2), &json!("pc-1"))
    );
    preview("package.openssl").await.refused(400, "rule");

    // Naming clients; all or none.
    let name = async |body: Value| admin.post("/api/v1/collections/lab/clients", body).await;
    name(json!({"add": ["pc-3", "pc-9"]})).await.refused(404, "client");
    assert_eq!(name(json!({"add": ["pc-3"]})).await.expect(200).json["clients"], 1);
    assert_eq!(members(&admin, "lab").await, ["pc-3"]);
    name(json!({"add": ["pc-1"], "remove": ["pc-3"]})).await.expect(200);
    assert_eq!(members(&admin, "web").await, [""; 0], "excluded");
    let change = async |which: &str, body: Value| {
        admin.json("PATCH", &format!("/api/v1/collections/{which}"), body).await
    };
    change("web", json!({"exclude": {"lab": false}, "comment": "pages"})).await.expect(200);
    assert_eq!(members(&admin, "web").await, ["pc-1"]);
    // What would depend on itself is told with the way.
    let cycle = change("debian", json!({"include": {"web": true}})).await;
    cycle.refused(422, "collection");
    change("debian", json!({"rules": {"none": null}})).await.refused(404, "rules.none");
    change("none", json!({})).await.refused(404, "collection");
    change("all", json!({})).await.refused(409, "collection");

    let listed = admin.get("/api/v1/collections?limit=2").await.expect(200).json;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["members"]),
        (&json!("all"), &json!(3))
    );
    let next = listed["next"].as_str().unwrap();
    let rest = admin.get(&format!("/api/v1/collections?cursor={next}")).await.expect(200).json;
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["lab", "web"]);

    admin.delete("/api/v1/clients/pc-1").await.expect(200);
    assert_eq!(members(&admin, "web").await, [""; 0]);
    admin.delete("/api/v1/collections/debian").await.refused(409, "collection");
    admin.delete("/api/v1/collections/web").await.expect(200);
    admin.delete("/api/v1/collections/debian").await.expect(200);
    admin.get("/api/v1/collections/debian").await.refused(404, "collection");
    let reader = site.client("reader").await;
    reader.post("/api/v1/collections", json!({"name": "x"})).await.expect(403);
    let audit = admin.get("/api/v1/audit?limit=1000").await.expect(200).json.to_string();
    assert!(audit.contains("change_collection") && audit.contains("pages"), "{audit}");
}

/// Text as a part of a query.
fn form(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn maintenance_windows_say_when_they_are_open_where_a_client_is() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let window = |recurrence: &str, minutes: u32| json!({"start": "2026-01-01T01:00", "minutes": minutes, "clock": "local", "recurrence": recurrence});
    let new = json!({"name": "web", "windows": {"nights": window("weekly sat", 180)}});
    let made = admin.post("/api/v1/collections", new).await.expect(201).json;
    assert_eq!(made["windows"]["nights"]["start"], "2026-01-01 01:00");
    let change = async |name: &str, window: Value| {
        admin.json("PATCH", "/api/v1/collections/web", json!({"windows": {name: window}})).await
    };
    change("patch", window("monthly 2nd tue +5", 60)).await.expect(200);
    change("x", window("sometimes", 60)).await.refused(422, "windows.x.recurrence");
    change("x", window("daily", 4)).await.refused(422, "windows.x.minutes");
    let mut odd = window("daily", 60);
    odd["clock"] = "moon".into();
    change("x", odd.clone()).await.refused(422, "windows.x.clock");
    odd["start"] = "tomorrow".into();
    odd["clock"] = "utc".into();
    change("x", odd).await.refused(422, "windows.x.start");

    let times =
        async |query: &str| admin.get(&format!("/api/v1/collections/web/windows?{query}")).await;
    let found = times("zone=Europe/Paris&from=2026-10-10T12:00:00Z&count=3").await.expect(200).json;
    let from: Vec<_> = found.as_array().unwrap().iter().map(|it| it["from"].clone()).collect();
    // The clock is set back on the 25th: an hour later in UTC from then on.
    assert_eq!(from, ["2026-10-16T23:00:00Z", "2026-10-17T23:00:00Z", "2026-10-23T23:00:00Z"]);
    times("zone=Moon").await.refused(400, "zone");
    times("count=0").await.refused(400, "count");
    change("nights", Value::Null).await.expect(200);
    change("nights", Value::Null).await.refused(404, "windows.nights");
    let shown = admin.get("/api/v1/collections/web").await.expect(200).json;
    assert_eq!(shown["windows"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn compliance_is_summed_up_for_a_collection() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    client_of(&site, 1, "debian", &[]).await;
    client_of(&site, 2, "rocky", &[]).await;
    let new = json!({"name": "debian", "rules": {"os": "os = debian"}});
    admin.post("/api/v1/collections", new).await.expect(201);
    let totals = admin.get("/api/v1/compliance/unknown?collection=debian").await.expect(200).json;
    assert_eq!(totals, json!({"clients": 1, "unknown": {"never-scanned": 1}}));
    let all = admin.get("/api/v1/compliance/unknown?collection=all").await.expect(200).json;
    assert_eq!(all["clients"], 2);
    for path in ["compliance/unknown", "compliance/summary", "updates"] {
        let none = admin.get(&format!("/api/v1/{path}?collection=none")).await;
        none.refused(404, "collection");
        admin.get(&format!("/api/v1/{path}?collection=debian")).await.expect(200);
    }
}

//! Boundaries, boundary groups, and whom a client is told to ask.

use crate::client::{Client, TestSite};
use axum::extract::Extension;
use dp::field::JoinToken;
use dp::identity::Identity;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Lets a machine join, and report that it holds versions; its id, and it.
async fn reporting(site: &TestSite, name: &str, held: &[(&str, u64)]) -> (String, Client) {
    let made = site.local().post("/api/v1/point-tokens", json!({"name": name})).await.expect(201);
    let token: JoinToken = made.json["token"].as_str().unwrap().parse().unwrap();
    let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = json!({"secret": secret, "request": Identity::request().unwrap().pem()});
    let answer = site.stranger().post("/api/v1/point/join", asked).await.expect(200);
    let id = answer.json["id"].as_str().unwrap().to_owned();
    let point = site.point(&id);
    report(&id, &point, held).await;
    (id, point)
}

async fn report(id: &str, point: &Client, held: &[(&str, u64)]) {
    let fact = |(package, version): &(&str, u64)| {
        json!({"package": package, "version": version, "state": "held", "bytes": 1,
            "bytes_left": 0, "cause": null, "since": "2026-11-22T11:00:00Z"})
    };
    let facts: Vec<Value> = held.iter().map(fact).collect();
    let report = json!({
        "point": id, "at": "2026-11-22T12:00:00Z", "program": "0.1.0",
        "address": "192.0.2.7:8520", "revision": "r", "free_bytes": 5000, "facts": facts
    });
    point.put("/api/v1/point/report", report).await.expect(204);
}

/// A client without a token, at that address.
fn at(site: &TestSite, address: &str) -> Client {
    let from: SocketAddr = format!("{address}:50000").parse().unwrap();
    Client { router: site.stranger().router.layer(Extension(from)), token: None }
}

fn urls(answer: &Value) -> Vec<&str> {
    let sources = answer["sources"].as_array().unwrap();
    sources.iter().map(|source| source["point"].as_str().unwrap_or("site")).collect()
}

#[tokio::test]
async fn boundaries_are_made_told_of_what_they_overlap_and_removed() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let path = "/api/v1/boundaries";
    let post = async |range: &str, groups: &[&str]| {
        admin.post(path, json!({"range": range, "groups": groups})).await
    };
    post("10.0.0.0/8", &["paris"]).await.refused(404, "group");
    for name in ["paris", "lyon"] {
        admin.post("/api/v1/boundary-groups", json!({"name": name})).await.expect(201);
    }
    post("10.7.3.4/16", &["paris"]).await.refused(422, "range");
    post("10.0.0.0/8", &["Paris"]).await.refused(422, "groups[0]");
    post("10.0.0.0/8", &[]).await.refused(422, "groups");
    let first = post("10.0.0.0/8", &["paris"]).await.expect(201);
    assert_eq!(first.header("location"), "/api/v1/boundaries/10.0.0.0%2F8");
    assert_eq!(first.json["n_overlaps"], 0);
    let second = post("10.7.0.0-10.7.255.255", &["lyon"]).await.expect(201).json;
    assert_eq!(second["range"], "10.7.0.0/16");
    let overlap = json!({"range": "10.0.0.0/8", "groups": ["paris"], "how": "inside"});
    assert_eq!(second["overlaps"], json!([overlap]));
    post("10.7.0.0/16", &["paris"]).await.refused(409, "range");
    post("2001:db8::/32", &["lyon"]).await.expect(201);

    let page = admin.get(&format!("{path}?limit=1")).await.expect(200).json;
    assert_eq!(page["items"][0]["range"], "10.0.0.0/8");
    let next = page["next"].as_str().unwrap();
    let rest = admin.get(&format!("{path}?cursor={next}")).await.expect(200).json;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    let of = admin.get(&format!("{path}?group=paris")).await.expect(200).json;
    assert_eq!(of["items"].as_array().unwrap().len(), 1);
    admin.get(&format!("{path}?cursor=00")).await.refused(400, "cursor");

    let one = format!("{path}/10.7.0.0%2F16");
    let changed = admin.json("PATCH", &one, json!({"groups": ["paris", "lyon"]})).await;
    assert_eq!(changed.expect(200).json["groups"], json!(["lyon", "paris"]));
    admin.get(&one).await.expect(200);
    admin.delete(&one).await.expect(200);
    admin.get(&one).await.refused(404, "boundary");
    admin.get(&format!("{path}/nowhere")).await.refused(400, "boundary");
    let audit = admin.get("/api/v1/audit?limit=3").await.expect(200).json;
    assert_eq!(audit["items"][0]["action"], "delete_boundary");
    assert_eq!(audit["items"][0]["target"], "10.7.0.0/16");
}

#[tokio::test]
async fn groups_have_points_neighbours_and_rules() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    reporting(&site, "a", &[]).await;
    let path = "/api/v1/boundary-groups";
    let new = json!({"name": "paris", "points": ["a"], "on_demand": {"days": 7}});
    let made = admin.post(path, new.clone()).await.expect(201).json;
    assert_eq!(made["points"], json!(["a"]));
    assert_eq!(made["on_demand"], json!({"priority": "low", "days": 7}));
    admin.post(path, new).await.refused(409, "name");
    admin.post(path, json!({"name": "x", "points": ["b"]})).await.refused(404, "point");
    admin
        .post(path, json!({"name": "x", "on_demand": {"days": 0}}))
        .await
        .refused(422, "on_demand.days");
    admin.post(path, json!({"name": "lyon"})).await.expect(201);
    let put = async |which: &str, body: Value| admin.put(&format!("{path}/{which}"), body).await;
    put("lyon/points/a", json!({})).await.expect(200);
    put("lyon/points/b", json!({})).await.refused(404, "point");
    put("paris/neighbours/lyon", json!({"after": 1200})).await.expect(200);
    put("paris/neighbours/rome", json!({"after": 1200})).await.refused(404, "group");
    put("paris/neighbours/paris", json!({})).await.refused(422, "neighbour");
    put("paris/neighbours/lyon", json!({"after": 99_999_999})).await.refused(422, "after");
    let shown = admin.get(&format!("{path}/paris")).await.expect(200).json;
    assert_eq!(shown["neighbours"], json!([{"group": "lyon", "after": 1200}]));
    let never = put("paris/neighbours/lyon", json!({})).await.expect(200).json;
    assert_eq!(never["neighbours"], json!([{"group": "lyon", "after": null}]));
    admin.delete(&format!("{path}/paris/neighbours/lyon")).await.expect(200);
    admin.delete(&format!("{path}/paris/neighbours/lyon")).await.refused(404, "neighbour");
    admin.delete(&format!("{path}/lyon/points/a")).await.expect(200);
    put("lyon/on-demand", json!({"priority": "medium"})).await.expect(200);
    let off = admin.delete(&format!("{path}/lyon/on-demand")).await.expect(200).json;
    assert_eq!(off["on_demand"], Value::Null);

    let rules = "/api/v1/locating-rules";
    let usual = json!({"default": null, "default_after": 0, "site_after": 0});
    assert_eq!(admin.get(rules).await.expect(200).json, usual);
    admin.put(rules, json!({"default": "rome"})).await.refused(404, "group");
    let set = json!({"default": "lyon", "default_after": 60, "site_after": null});
    assert_eq!(admin.put(rules, set.clone()).await.expect(200).json, set);
    assert_eq!(admin.get(&format!("{path}/lyon")).await.json["is_default"], true);
    admin.delete(&format!("{path}/lyon")).await.refused(409, "group");
    let boundary = json!({"range": "10.7.0.0/16", "groups": ["paris"]});
    admin.post("/api/v1/boundaries", boundary).await.expect(201);
    let listed = admin.get(path).await.expect(200).json;
    assert_eq!(listed["items"][1]["n_boundaries"], 1);
    let gone = admin.delete(&format!("{path}/paris")).await.expect(200).json;
    assert_eq!(gone, json!({"name": "paris", "boundaries": ["10.7.0.0/16"]}));
}

#[tokio::test]
async fn a_client_is_told_whom_to_ask_by_the_address_it_asks_from() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    reporting(&site, "a", &[("docs", 1)]).await;
    reporting(&site, "b", &[("docs", 1)]).await;
    reporting(&site, "empty", &[]).await;
    for (name, points) in [("paris", ["a", "empty"]), ("lyon", ["b", "b"])] {
        let new = json!({"name": name, "points": points});
        admin.post("/api/v1/boundary-groups", new).await.expect(201);
    }
    let boundary = json!({"range": "10.7.0.0/16", "groups": ["paris"]});
    admin.post("/api/v1/boundaries", boundary).await.expect(201);
    let near = "/api/v1/boundary-groups/paris/neighbours/lyon";
    admin.put(near, json!({"after": 1200})).await.expect(200);

    let here = [("host", "site.example:8520")];
    let ask = async |from: &str, path: &str| {
        at(&site, from).send("GET", path, &here, Default::default()).await
    };
    let answer = ask("10.7.3.4", "/locate/docs/latest").await.expect(200);
    assert_eq!(answer.header("cache-control"), "private, max-age=30");
    assert_eq!(urls(&answer.json), ["a", "b", "site"]);
    let sources = &answer.json["sources"];
    assert_eq!(sources[0]["url"], "http://192.0.2.7:8520");
    assert_eq!((&sources[0]["why"], &sources[0]["usable"]), (&json!("group"), &json!(true)));
    assert_eq!((&sources[1]["after"], &sources[1]["usable"]), (&json!(1200), &json!(false)));
    assert_eq!(sources[2]["url"], "http://site.example:8520");
    assert_eq!(answer.json["version"], 1);
    let later = ask("10.7.3.4", "/locate/docs/1?elapsed=1200").await.expect(200).json;
    assert_eq!(later["sources"][1]["usable"], true);
    assert_eq!(urls(&ask("192.0.2.1", "/locate/docs/1").await.json), ["site"]);
    ask("10.7.3.4", "/locate/docs/7").await.refused(404, "version");
    ask("10.7.3.4", "/locate/dox/latest").await.refused(404, "package");
    ask("10.7.3.4", "/locate/DOCS/latest").await.refused(400, "package");

    let reader = site.client("reader").await;
    let asked = "/api/v1/locate?package=docs&explain=true&address=10.7.3.4";
    let told = reader.get(asked).await.expect(200).json;
    assert_eq!(
        (&told["boundaries"], &told["groups"]),
        (&json!(["10.7.0.0/16"]), &json!(["paris"]))
    );
    assert_eq!(urls(&told), ["a", "b", "site"]);
    assert_eq!(told["passed_over"][0]["point"], "empty");
    assert_eq!(told["passed_over"][0]["because"], "does not hold this version");
    assert_eq!(told["on_demand"]["state"], "held");
    let unknown = reader.get("/api/v1/locate?package=docs&explain=true&address=::1").await;
    let unknown = unknown.expect(200).json;
    assert_eq!(unknown["boundaries"], json!([]));
    assert_eq!(unknown["passed_over"][1]["point"], "b", "it holds it, and is nobody's");
    reader.get("/api/v1/locate?address=nowhere").await.refused(400, "address");
    let place = reader.get("/api/v1/locate?address=::ffff:10.7.0.1").await.expect(200).json;
    let mut near = urls(&place);
    near.sort_unstable();
    assert_eq!(near, ["a", "b", "empty", "site"], "of what all of them hold");
}

#[tokio::test]
async fn what_no_near_point_holds_is_brought_when_a_client_asks() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    let (id, point) = reporting(&site, "a", &[]).await;
    let new = json!({"name": "paris", "points": ["a"], "on_demand": {}});
    admin.post("/api/v1/boundary-groups", new).await.expect(201);
    let boundary = json!({"range": "10.7.0.0/16", "groups": ["paris"]});
    admin.post("/api/v1/boundaries", boundary).await.expect(201);
    let told = admin.get("/api/v1/locate?package=docs&address=10.7.3.4").await.expect(200).json;
    assert_eq!(told["on_demand"], json!({"state": "asked", "point": "a", "group": null}));
    let all = async || admin.get("/api/v1/assignments").await.expect(200).json["items"].clone();
    assert_eq!(all().await, json!([]), "who only looks changes nothing");

    let client = at(&site, "10.7.3.4");
    let ask = async || client.get("/locate/docs/latest").await.expect(200).json;
    assert_eq!(urls(&ask().await), ["site"]);
    ask().await;
    let made = all().await;
    assert_eq!(made.as_array().unwrap().len(), 1);
    assert_eq!((&made[0]["version"], &made[0]["point"]), (&json!("1"), &json!("a")));
    assert_eq!(made[0]["on_demand"]["group"], "paris");
    let row = admin.get("/api/v1/content-status").await.expect(200).json["items"][0].clone();
    assert_eq!((&row["on_demand"], &row["priority"]), (&json!(true), &json!("low")));
    let audit = admin.get("/api/v1/audit?limit=1").await.expect(200).json["items"][0].clone();
    assert_eq!((&audit["who"], &audit["from"]), (&json!("on demand"), &json!("10.7.3.4")));
    let wish = point.get("/api/v1/point/wish").await.expect(200).json;
    assert_eq!(wish["versions"][0]["version"]["version"], 1);
    report(&id, &point, &[("docs", 1)]).await;
    assert_eq!(urls(&ask().await), ["a", "site"]);
    admin.delete("/api/v1/assignments?package=docs&point=a").await.expect(200);
    assert_eq!(all().await, json!([]), "people may take it back");
}

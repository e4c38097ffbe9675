//! Distribution points: joining, groups, what they should hold, what they say they hold.

use crate::client::{Answer, Client, TestSite};
use axum::extract::Extension;
use dp::field::{JoinToken, Wish};
use dp::identity::{Identity, OverTls, Peer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// A join token for a point of that name.
async fn token(admin: &Client, name: &str) -> JoinToken {
    let made = admin.post("/api/v1/point-tokens", json!({"name": name})).await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    made.json["token"].as_str().unwrap().parse().unwrap()
}

fn join_request(token: &JoinToken) -> Value {
    let request = Identity::request().unwrap();
    let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"secret": secret, "request": request.pem()})
}

/// Lets a machine join; its id, and it.
async fn joined(site: &TestSite, name: &str) -> (String, Client) {
    let token = token(&site.local(), name).await;
    let answer = site.stranger().post("/api/v1/point/join", join_request(&token)).await;
    let id = answer.expect(200).json["id"].as_str().unwrap().to_owned();
    (id.clone(), site.point(&id))
}

fn report(id: &str, facts: Value) -> Value {
    json!({
        "point": id, "at": "2026-11-22T12:00:00Z", "program": "0.1.0",
        "address": "http://192.0.2.7:8520", "revision": "r", "free_bytes": 5, "facts": facts
    })
}

fn kind(answer: &Answer) -> &str {
    answer.json["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap()
}

#[tokio::test]
async fn a_machine_joins_once_with_its_token() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let token = token(&admin, "branch-7").await;
    assert_eq!(token.sites, ["https://127.0.0.1:8520"]);
    assert_eq!(token.authority, site.site.authority().unwrap().fingerprint());
    let listed = admin.get("/api/v1/point-tokens").await.expect(200);
    let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!String::from_utf8_lossy(&listed.body).contains(&secret));

    let machine = site.stranger();
    let asked = join_request(&token);
    let answer = machine.post("/api/v1/point/join", asked.clone()).await.expect(200);
    assert_eq!(answer.json["name"], "branch-7");
    let id = answer.json["id"].as_str().unwrap();
    assert!(answer.json["certificate"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    let key = site.site.content().unwrap().packages.public_key();
    assert_eq!(answer.json["key"], key.to_string());

    let again = machine.post("/api/v1/point/join", asked).await.expect(200);
    assert_eq!(again.json["id"], id, "an answer that was lost is given again");
    let other = machine.post("/api/v1/point/join", join_request(&token)).await;
    other.refused(403, "secret");
    let shown = admin.get("/api/v1/points/branch-7").await.expect(200).json;
    assert_eq!((shown["id"].as_str(), shown["online"].as_bool()), (Some(id), Some(false)));
    let audit = admin.get("/api/v1/audit?limit=1").await.expect(200).json;
    assert_eq!(audit["items"][0]["action"], "join");
    assert_eq!(audit["items"][0]["who"], "join token for branch-7");
    let new = json!({"name": "branch-7"});
    admin.post("/api/v1/point-tokens", new).await.refused(409, "name");
}

#[tokio::test]
async fn an_authority_that_is_lost_is_not_made_anew_while_points_know_it() {
    let site = TestSite::new();
    joined(&site, "branch-7").await;
    let config = site.site.config().clone();
    site.site.close().await.unwrap();
    let TestSite { folder: temporary, site: closed } = site;
    drop(closed);
    for name in ["authority.key", "authority.pem"] {
        std::fs::remove_file(config.data.join("keys").join(name)).unwrap();
    }
    let site = TestSite { folder: temporary, site: api::Site::open(config, "a test").unwrap() };
    let local = site.local();
    let refused = local.post("/api/v1/point-tokens", json!({"name": "b"})).await.expect(503);
    assert!(refused.json["detail"].as_str().unwrap().contains("dp remove"));
    let served = api::serve(site.site.clone(), Default::default(), Default::default(), |_| {
        panic!("it serves")
    })
    .await;
    assert!(served.unwrap_err().to_string().contains("authority.key"));
    local.delete("/api/v1/points/branch-7").await.expect(200);
    local.post("/api/v1/point-tokens", json!({"name": "b"})).await.expect(201);
}

#[tokio::test]
async fn a_wrong_join_is_refused_and_changes_nothing() {
    let site = TestSite::new();
    let token = token(&site.local(), "a").await;
    let asked = join_request(&token);
    let machine = site.stranger();
    let with = |field: &str, value: Value| {
        let mut asked = asked.clone();
        asked[field] = value;
        asked
    };
    let post = async |body: Value| machine.post("/api/v1/point/join", body).await;
    post(with("secret", json!("00".repeat(16)))).await.refused(403, "secret");
    post(with("request", json!("no PEM"))).await.refused(422, "request");
    // Over plain HTTP from another machine; over TLS it may.
    let from: SocketAddr = "192.0.2.7:1".parse().unwrap();
    let plain = Client { router: machine.router.clone().layer(Extension(from)), token: None };
    plain.post("/api/v1/point/join", asked.clone()).await.expect(403);
    assert_eq!(site.local().get("/api/v1/points").await.json["items"], json!([]));
    let tls = Client { router: plain.router.layer(Extension(OverTls)), token: None };
    tls.post("/api/v1/point/join", asked).await.expect(200);
}

#[tokio::test]
async fn a_token_says_where_the_site_is() {
    let site = TestSite::with(|config| {
        config.listen = "0.0.0.0:8520".parse().unwrap();
    });
    let admin = site.local();
    let post = async |body: Value| admin.post("/api/v1/point-tokens", body).await;
    post(json!({"name": "a"})).await.refused(422, "sites");
    post(json!({"name": "a", "sites": ["http://h"]})).await.refused(422, "sites[0]");
    post(json!({"name": "a", "sites": vec!["https://h:1"; 7]})).await.refused(422, "sites");
    let made = post(json!({"name": "a", "sites": ["https://H.example"]})).await.expect(201);
    assert_eq!(made.json["sites"], json!(["https://h.example:443"]));
    for expires in ["2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        post(json!({"name": "b", "expires": expires})).await.refused(422, "expires");
    }
    post(json!({"name": "B"})).await.refused(422, "name");
    admin.delete("/api/v1/point-tokens/a").await.expect(200);
    admin.delete("/api/v1/point-tokens/a").await.refused(404, "token");

    let set = TestSite::with(|config| {
        let options = api::Options {
            set: vec![("site.url".into(), "https://a:1 https://b:2".into())],
            data: Some(config.data.clone()),
            ..api::Options::default()
        };
        config.site = api::Config::load(&options, []).unwrap().site;
    });
    assert_eq!(token(&set.local(), "a").await.sites, ["https://a:1", "https://b:2"]);
}

#[tokio::test]
async fn only_a_point_that_still_is_one_may_ask_for_its_wish() {
    let site = TestSite::new();
    let (id, point) = joined(&site, "a").await;
    point.get("/api/v1/point/wish").await.expect(200);
    let with_token = site.client("admin").await;
    assert_eq!(kind(&with_token.get("/api/v1/point/wish").await.expect(403)), "not-a-point");
    let as_site =
        Client { router: site.stranger().router.layer(Extension(Peer::Site)), token: None };
    assert_eq!(kind(&as_site.get("/api/v1/point/wish").await.expect(403)), "not-a-point");
    // A certificate is no token.
    point.get("/api/v1/points").await.expect(401);

    let wish: Wish = serde_json::from_value(point.get("/api/v1/point/wish").await.json).unwrap();
    let waiting = {
        let (point, after) = (point.clone(), wish.revision);
        tokio::spawn(async move {
            point.get(&format!("/api/v1/point/wish?wait=60&after={after}")).await
        })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.local().delete(&format!("/api/v1/points/{id}")).await.expect(200);
    let told = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(kind(&told.expect(403)), "not-a-point", "also on connections that are open");
    assert_eq!(
        kind(&point.put("/api/v1/point/report", report(&id, json!([]))).await),
        "not-a-point"
    );
    site.local().get("/api/v1/points/a").await.refused(404, "point");
}

#[tokio::test]
async fn a_point_is_told_of_what_changes_while_it_waits() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let operator = site.client("operator").await;
    operator.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    let (_, point) = joined(&site, "a").await;
    let mut revision = point.get("/api/v1/point/wish").await.expect(200).json["revision"].clone();
    let mut next = async |change: &mut dyn AsyncChange| {
        let (waiting, after) = (point.clone(), revision.as_str().unwrap().to_owned());
        let waiting = tokio::spawn(async move {
            waiting.get(&format!("/api/v1/point/wish?wait=30&after={after}")).await
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        change.make().await;
        let wish = waiting.await.unwrap().expect(200).json;
        revision = wish["revision"].clone();
        wish
    };
    admin.post("/api/v1/point-groups", json!({"name": "paris"})).await.expect(201);
    admin.put("/api/v1/point-groups/paris/points/a", json!({})).await.expect(200);
    let stable = json!({"version": "1"});
    operator.put("/api/v1/packages/docs/channels/stable", stable).await.expect(200);
    let to = json!({"package": "docs", "version": "stable", "group": "paris", "priority": "high"});
    let wish = next(&mut Put(&operator, "/api/v1/assignments", to)).await;
    assert_eq!(wish["versions"][0]["version"]["version"], 1);
    assert_eq!(wish["versions"][0]["priority"], "high");
    assert_eq!(wish["names"]["docs"]["channels"], json!({"stable": 1}));

    // A package that changes is seen as well.
    let path = "/api/v1/packages/docs/channels/test";
    let wish = next(&mut Put(&operator, path, json!({"version": "stable"}))).await;
    assert_eq!(wish["names"]["docs"]["channels"], json!({"stable": 1, "test": 1}));
    let gone = "/api/v1/assignments?package=docs&group=paris";
    let wish = next(&mut Delete(&operator, gone)).await;
    assert_eq!(wish["versions"], json!([]));
    let after = revision.as_str().unwrap();
    let same = point.get(&format!("/api/v1/point/wish?wait=1&after={after}")).await;
    same.expect(204);
    point.get("/api/v1/point/wish?wait=61").await.refused(400, "wait");
}

#[tokio::test]
async fn a_point_waits_on_one_connection_and_not_for_a_site_that_stops() {
    let site = TestSite::new();
    let (_, point) = joined(&site, "a").await;
    let wish = point.get("/api/v1/point/wish").await.expect(200).json;
    let address =
        format!("/api/v1/point/wish?wait=60&after={}", wish["revision"].as_str().unwrap());
    let wait = || {
        let (point, address) = (point.clone(), address.clone());
        tokio::spawn(async move { point.get(&address).await })
    };
    // Whichever came first.
    let (first, second) = futures::future::select(wait(), wait()).await.factor_first();
    first.unwrap().expect(409);
    site.site.ledger().unwrap().registry.close();
    assert_eq!(second.await.unwrap().expect(503).header("retry-after"), "2");
    wait().await.unwrap().expect(503);
}

/// A change that somebody makes while a point waits.
trait AsyncChange {
    fn make(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
}
struct Put<'a>(&'a Client, &'a str, Value);
impl AsyncChange for Put<'_> {
    fn make(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async { drop(self.0.put(self.1, self.2.clone()).await.expect(200)) })
    }
}
struct Delete<'a>(&'a Client, &'a str);
impl AsyncChange for Delete<'_> {
    fn make(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async { drop(self.0.delete(self.1).await.expect(200)) })
    }
}

#[tokio::test]
async fn what_is_distributed_shows_with_what_points_say() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    for name in ["docs", "tools"] {
        admin.post("/api/v1/packages", json!({"name": name})).await.expect(201);
    }
    let (a, point) = joined(&site, "a").await;
    joined(&site, "b").await;
    for name in ["a", "b"] {
        let to = json!({"package": "docs", "point": name});
        let made = admin.put("/api/v1/assignments", to).await.expect(200).json;
        assert_eq!(
            (made["version"].as_str(), made["point"].as_str()),
            (Some("latest"), Some(name))
        );
    }
    let facts = json!([
        {"package": "docs", "version": 1, "state": "fetching", "bytes": 100, "bytes_left": 25,
         "cause": null, "since": "2026-11-22T11:00:00Z"},
        {"package": "tools", "version": 1, "state": "held", "bytes": 7, "bytes_left": 0,
         "cause": null, "since": "2026-11-22T11:00:00Z"},
    ]);
    point.put("/api/v1/point/report", report(&a, facts)).await.expect(204);
    let rows = async |query: &str| {
        let page = admin.get(&format!("/api/v1/content-status{query}")).await.expect(200).json;
        page["items"].as_array().unwrap().clone()
    };
    let all = rows("").await;
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["state"], &all[0]["percent"]), (&json!("fetching"), &json!(75)));
    assert!(all[0]["age"].as_u64().unwrap() < 60);
    assert_eq!((&all[1]["package"], &all[1]["state"]), (&json!("tools"), &json!("leaving")));
    assert_eq!((&all[2]["point"], &all[2]["state"]), (&json!("b"), &json!("unknown")));
    assert_eq!(rows("?package=tools").await, all[1..2]);
    assert_eq!(rows("?point=b").await, all[2..]);
    let shown = admin.get("/api/v1/points").await.expect(200).json;
    assert_eq!(shown["items"][0]["n_missing"], 1);
    assert_eq!(shown["items"][0]["online"], true);
    let first = admin.get("/api/v1/content-status?limit=2").await.expect(200).json;
    let next = first["next"].as_str().unwrap();
    let rest = rows(&format!("?limit=2&cursor={next}")).await;
    assert_eq!(rest, all[2..]);

    admin.delete("/api/v1/packages/docs").await.expect(200);
    let gone = rows("?point=b").await;
    assert_eq!(gone[0]["state"], "unavailable");
    assert!(gone[0]["cause"].as_str().unwrap().contains("no package docs"));
}

#[tokio::test]
async fn what_is_not_there_cannot_be_distributed() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    joined(&site, "a").await;
    let put = async |body: Value| admin.put("/api/v1/assignments", body).await;
    put(json!({"package": "dox", "point": "a"})).await.refused(404, "package");
    put(json!({"package": "docs", "version": "7", "point": "a"})).await.refused(404, "version");
    put(json!({"package": "docs", "version": "stable", "point": "a"}))
        .await
        .refused(404, "channel");
    put(json!({"package": "docs", "point": "b"})).await.refused(404, "point");
    put(json!({"package": "docs", "group": "g"})).await.refused(404, "group");
    put(json!({"package": "docs"})).await.refused(422, "point");
    put(json!({"package": "docs", "point": "a", "group": "g"})).await.refused(422, "group");
    put(json!({"package": "docs", "point": "a", "priority": "x"})).await.refused(422, "priority");
    let delete = async |query: &str| admin.delete(&format!("/api/v1/assignments?{query}")).await;
    delete("package=docs&point=a").await.refused(404, "package");
    delete("point=a").await.refused(400, "package");
    put(json!({"package": "docs", "point": "a"})).await.expect(200);
    let listed = admin.get("/api/v1/assignments").await.expect(200).json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    delete("package=docs&version=1&point=a").await.refused(404, "package");
    let of = async |query: &str| admin.get(&format!("/api/v1/assignments?{query}")).await;
    assert_eq!(of("point=a").await.expect(200).json, listed);
    admin.post("/api/v1/point-groups", json!({"name": "g"})).await.expect(201);
    assert_eq!(of("group=g").await.expect(200).json["items"], json!([]));
    put(json!({"package": "docs", "version": "1", "group": "g"})).await.expect(200);
    admin.put("/api/v1/point-groups/g/points/a", json!({})).await.expect(200);
    assert_eq!(of("group=g").await.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(of("point=a").await.json["items"].as_array().unwrap().len(), 2, "by its group too");
    of("point=b").await.refused(404, "point");
    of("point=a&group=g").await.refused(422, "group");
    let gone = delete("package=docs&version=latest&point=a").await.expect(200).json;
    assert_eq!(gone["removed"][0]["version"], "latest");
}

#[tokio::test]
async fn groups_are_made_filled_and_deleted_with_what_they_hold() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    joined(&site, "a").await;
    let path = "/api/v1/point-groups";
    admin.post(path, json!({"name": "g"})).await.expect(201);
    admin.post(path, json!({"name": "g"})).await.refused(409, "name");
    admin.post(path, json!({"name": "-"})).await.refused(422, "name");
    let put = async |which: &str| admin.put(&format!("{path}/{which}"), json!({})).await;
    put("h/points/a").await.refused(404, "group");
    put("g/points/b").await.refused(404, "point");
    for _ in 0..2 {
        let group = put("g/points/a").await.expect(200).json;
        assert_eq!(group["points"], json!(["a"]));
    }
    admin.put("/api/v1/assignments", json!({"package": "docs", "group": "g"})).await.expect(200);
    assert_eq!(admin.get("/api/v1/points/a").await.json["groups"], json!(["g"]));
    let gone = admin.delete(&format!("{path}/g")).await.expect(200).json;
    assert_eq!(gone, json!({"name": "g", "assignments": 1}));
    assert_eq!(admin.get("/api/v1/assignments").await.json["items"], json!([]));
    admin.get(&format!("{path}/g")).await.refused(404, "group");
}

#[tokio::test]
async fn a_point_renews_its_certificate() {
    let site = TestSite::new();
    let (_, point) = joined(&site, "a").await;
    let request = Identity::request().unwrap();
    let asked = json!({"request": request.pem()});
    let answer = point.post("/api/v1/point/renew", asked).await.expect(200).json;
    assert!(answer["certificate"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    point.post("/api/v1/point/renew", json!({"request": "x"})).await.refused(422, "request");
    let shown = site.local().get("/api/v1/points/a").await.expect(200).json;
    assert!(shown["renewed"].is_string());
}

#[tokio::test]
async fn a_report_of_many_facts_is_taken_and_one_of_another_point_is_not() {
    let site = TestSite::new();
    let (a, point) = joined(&site, "a").await;
    let (b, _) = joined(&site, "b").await;
    let fact = |n: u64| {
        json!({"package": format!("p{n}"), "version": 1, "state": "held", "bytes": 1,
            "bytes_left": 0, "cause": "a text of some length, as causes are", 
            "since": "2026-11-22T11:00:00Z"})
    };
    let facts: Value = (0..10_000).map(fact).collect();
    point.put("/api/v1/point/report", report(&a, facts)).await.expect(204);
    let shown = site.local().get("/api/v1/points/a").await.expect(200).json;
    assert_eq!(shown["n_held"], 10_000);
    point.put("/api/v1/point/report", report(&b, json!([]))).await.refused(422, "report");
    point.put("/api/v1/point/report", json!({"point": a})).await.refused(422, "at");
    // It is there until it says that it ends, and then not for a moment longer.
    let is_online =
        async || site.local().get("/api/v1/points/a").await.expect(200).json["online"].clone();
    assert_eq!(is_online().await, true);
    point.post("/api/v1/point/leave", json!({})).await.expect(204);
    assert_eq!(is_online().await, false);
}

#[tokio::test]
async fn an_order_goes_with_the_wish_until_the_point_has_told_its_end() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    let (id, point) = joined(&site, "a").await;
    admin.put("/api/v1/assignments", json!({"package": "docs", "point": "a"})).await.expect(200);
    let give = async |body: Value| admin.post("/api/v1/orders", body).await;
    give(json!({"task": "dance", "point": "a"})).await.refused(422, "task");
    give(json!({"task": "validate"})).await.refused(422, "point");
    give(json!({"task": "validate", "point": "b"})).await.refused(404, "point");
    give(json!({"task": "validate", "version": "1", "point": "a"})).await.refused(422, "package");
    give(json!({"task": "redistribute", "point": "a"})).await.refused(422, "package");
    give(json!({"task": "redistribute", "package": "x", "point": "a"}))
        .await
        .refused(404, "package");
    let order =
        json!({"task": "redistribute", "package": "docs", "version": "latest", "point": "a"});
    let given = give(order).await.expect(200).json;
    let given = &given["orders"][0];
    assert_eq!((&given["number"], &given["version"]), (&json!(1), &json!(1)));
    assert_eq!(given["state"], "waiting");

    let wished = point.get("/api/v1/point/wish").await.expect(200).json;
    let wished = &wished["settings"]["orders"];
    assert_eq!(
        (&wished[0]["task"], &wished[0]["package"]),
        (&json!("redistribute"), &json!("docs"))
    );
    let mut said = report(&id, json!([]));
    said["orders"] = json!([{
        "number": 1, "given": wished[0]["given"], "state": "failed", "began": said["at"],
        "ended": said["at"], "n_checked": 5, "bytes": 90, "n_damaged": 2, "n_mended": 1, "cause": "no way"
    }]);
    point.put("/api/v1/point/report", said).await.expect(204);
    let shown = admin.get("/api/v1/points/a/orders/1").await.expect(200).json;
    assert_eq!((&shown["state"], &shown["cause"]), (&json!("failed"), &json!("no way")));
    assert_eq!((&shown["n_damaged"], &shown["n_mended"]), (&json!(2), &json!(1)));
    let listed = admin.get("/api/v1/orders?point=a").await.expect(200).json;
    assert_eq!(listed["items"][0], shown);
    let wish = point.get("/api/v1/point/wish").await.expect(200).json;
    assert!(wish["settings"]["orders"].is_null(), "{wish}");
    give(json!({"task": "validate", "point": "a"})).await.expect(200);
    let cancel =
        async |n: &str| admin.post(&format!("/api/v1/points/a/orders/{n}/cancel"), json!({})).await;
    let cancelled = cancel("2").await.expect(200).json;
    assert_eq!(cancelled["state"], "failed");
    assert!(cancelled["cause"].as_str().unwrap().starts_with("cancelled by admin"), "{cancelled}");
    assert_eq!(cancel("1").await.expect(200).json, shown, "what has ended stays so");
    cancel("3").await.refused(404, "number");
    let wish = point.get("/api/v1/point/wish").await.expect(200).json;
    assert!(wish["settings"]["orders"].is_null(), "{wish}");
    admin.get("/api/v1/points/a/orders/3").await.refused(404, "number");
    admin.get("/api/v1/points/a/orders/x").await.refused(400, "number");
    admin.get("/api/v1/orders?point=b").await.refused(404, "point");
    admin.get("/api/v1/content-status?package=nothing").await.refused(404, "package");
}

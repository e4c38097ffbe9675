//! Sources of updates, their sync, the catalogue and status messages.

use crate::client::{Client, TestSite};
use serde_json::{Value, json};

/// A folder of real documents of Updates Publisher.
fn documents() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sync/tests/data/sdp/hp");
    format!("file://{}", std::fs::canonicalize(folder).unwrap().display())
}

fn source(name: &str) -> Value {
    let settings = json!({"url": documents(), "trust": {"unsigned": true}});
    json!({"name": name, "kind": "sdp", "settings": settings})
}

async fn run(client: &Client, name: &str) -> Value {
    let path = format!("/api/v1/sync/sources/{name}/run");
    let result = client.result(client.post(&path, json!({})).await).await;
    result["runs"][0].clone()
}

#[tokio::test]
async fn sources_are_added_changed_synchronised_and_removed() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let operator = site.client("operator").await;
    let made = admin.post("/api/v1/sync/sources", source("hp")).await.expect(201);
    assert_eq!(made.header("location"), "/api/v1/sync/sources/hp");
    assert_eq!(made.json["settings"]["trust"]["unsigned"], true);
    admin.post("/api/v1/sync/sources", source("hp")).await.refused(409, "name");
    let mut contradictory = source("x");
    contradictory["settings"]["trust"]["signers"] = json!(["aa"]);
    admin.post("/api/v1/sync/sources", contradictory).await.expect(422);
    let mut other = source("x");
    other["settings"]["suites"] = json!(["s"]);
    admin.post("/api/v1/sync/sources", other).await.expect(422);
    operator.post("/api/v1/sync/sources", source("x")).await.expect(403);

    let first = run(&operator, "hp").await;
    let added = first["changes"]["added"].as_u64().unwrap();
    assert!(first["outcome"] == "done" && added > 10, "{first}");
    assert_eq!(run(&operator, "hp").await["outcome"], "unchanged");
    let all = operator.result(operator.post("/api/v1/sync/run", json!({"full": true})).await).await;
    assert_eq!(all["runs"][0]["changes"]["unchanged"], added);
    let history = operator.get("/api/v1/sync/history?source=hp&limit=2").await.expect(200).json;
    assert_eq!(history["items"][0]["number"], 3);
    let next = history["next"].as_str().unwrap();
    let rest = operator.get(&format!("/api/v1/sync/history?source=hp&cursor={next}")).await;
    assert_eq!(rest.json["items"][0]["number"], 1);
    let shown = operator.get("/api/v1/sync/sources/hp").await.expect(200).json;
    assert_eq!((&shown["last"]["number"], &shown["failures"]), (&3.into(), &0.into()));
    operator.post("/api/v1/sync/sources/hp/cancel", json!({})).await.expect(409);

    let change = json!({"enabled": false, "priority": 80, "schedule": "every 4 hours"});
    let changed = admin.json("PATCH", "/api/v1/sync/sources/hp", change).await.expect(200).json;
    assert_eq!((&changed["enabled"], &changed["next"]), (&false.into(), &Value::Null));
    operator.post("/api/v1/sync/sources/hp/run", json!({})).await.expect(409);
    operator.post("/api/v1/sync/run", json!({})).await.expect(409);
    let list = operator.get("/api/v1/sync/sources").await.expect(200).json;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    admin.delete("/api/v1/sync/sources/hp").await.expect(200);
    admin.get("/api/v1/sync/sources/hp").await.expect(404);
    let left = admin.get("/api/v1/updates?state=current").await.expect(200).json;
    assert_eq!(left["total"], 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_source_is_named() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let post = async |body: Value| admin.post("/api/v1/sync/sources", body).await;
    post(json!({"name": "A", "kind": "sdp"})).await.refused(422, "name");
    post(json!({"name": "a", "kind": "tape"})).await.refused(422, "kind");
    post(json!({"name": "a", "kind": "parent"})).await.refused(422, "kind");
    let mut wrong = source("a");
    wrong["schedule"] = "sometimes".into();
    post(wrong).await.refused(422, "schedule");
    let mut wrong = source("a");
    wrong["priority"] = 101.into();
    post(wrong).await.refused(422, "priority");
    let mut wrong = source("a");
    wrong["settings"]["url"] = "gopher://x".into();
    post(wrong).await.refused(422, "settings");
    let mut wrong = source("a");
    wrong["settings"]["adress"] = "x".into();
    post(wrong).await.refused(422, "settings.adress");
    assert_eq!(admin.get("/api/v1/sync/sources").await.json["items"], json!([]));
    admin.post("/api/v1/sync/sources/a/run", json!({})).await.expect(404);
}

#[tokio::test]
async fn a_sync_that_fails_is_a_job_that_failed_and_a_message_with_the_cause() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let mut missing = source("hp");
    missing["settings"]["url"] = "file:///nowhere/at/all.cab".into();
    admin.post("/api/v1/sync/sources", missing).await.expect(201);
    let begun = admin.post("/api/v1/sync/sources/hp/run", json!({})).await;
    let job = admin.finish(begun).await;
    assert_eq!((&job["state"], &job["kind"]), (&"failed".into(), &"sync".into()), "{job}");
    let path = "/api/v1/status-messages?severity=error&source=hp";
    let failed = admin.get(path).await.expect(200).json["items"][0].clone();
    assert_eq!(
        (&failed["id"], &failed["attributes"]["cause"]),
        (&6703.into(), &"not-found".into())
    );
    let shown = admin.get("/api/v1/sync/sources/hp").await.json;
    assert_eq!(shown["next"]["trigger"], "retry", "{shown}");
    let page = admin.get("/api/v1/status-messages?limit=1").await.expect(200).json;
    let next = page["next"].as_str().unwrap();
    let second = admin.get(&format!("/api/v1/status-messages?limit=1&cursor={next}")).await.json;
    assert!(second["items"][0]["number"].as_u64() < page["items"][0]["number"].as_u64());
    admin.get("/api/v1/status-messages?severity=bad").await.refused(400, "severity");
    admin.get("/api/v1/status-messages?since=now").await.refused(400, "since");
}

#[tokio::test]
async fn updates_are_listed_by_filter_and_shown_whole() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    admin.post("/api/v1/sync/sources", source("hp")).await.expect(201);
    run(&admin, "hp").await;
    let page = admin.get("/api/v1/updates?limit=2&order=title").await.expect(200).json;
    let (total, first) = (page["total"].as_u64().unwrap(), page["items"][0].clone());
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let rest = admin.get(&format!("/api/v1/updates?limit=1000&order=title&cursor={next}")).await;
    let rest = rest.expect(200).json;
    assert_eq!(rest["items"].as_array().unwrap().len() as u64, total - 2);
    let shown = admin.get(&format!("/api/v1/updates/{}", first["id"].as_str().unwrap())).await;
    assert_eq!(shown.expect(200).json["update"]["name"], first["name"]);
    admin.get("/api/v1/updates/none-such").await.expect(404);
    let none = admin.get("/api/v1/updates?search=nothing-has-this-word").await.expect(200).json;
    assert_eq!(none["total"], 0);
    admin.get("/api/v1/updates?filter=title%20%3F").await.refused(400, "filter");
    admin.get("/api/v1/updates?classification=secure").await.refused(400, "classification");
    admin.get("/api/v1/updates?order=size").await.refused(400, "order");
    admin.get("/api/v1/updates?state=old").await.refused(400, "state");
    admin.get("/api/v1/updates?cursor=zz").await.refused(400, "cursor");
    let products = admin.get("/api/v1/products").await.expect(200).json;
    assert!(products["items"][0]["updates"].as_u64() > Some(0), "{products}");
}

#[tokio::test]
async fn criteria_schedule_and_policy_are_set_and_shown() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let wanted = json!({"classifications": ["security"], "products": [], "languages": ["en"]});
    admin.put("/api/v1/sync/criteria", wanted.clone()).await.expect(200);
    assert_eq!(admin.get("/api/v1/sync/criteria").await.expect(200).json, wanted);
    let wrong = json!({"classifications": ["security", "secure"]});
    admin.put("/api/v1/sync/criteria", wrong).await.refused(422, "classifications[1]");

    let schedule = json!({"schedule": "Second Tuesday 19:00"});
    let set = admin.put("/api/v1/sync/schedule", schedule).await.expect(200).json;
    assert_eq!(set["schedule"], "second tuesday 19:00 UTC");
    let wrong = json!({"schedule": "every day 25:00 UTC"});
    admin.put("/api/v1/sync/schedule", wrong).await.refused(422, "schedule");
    assert_eq!(admin.get("/api/v1/sync/schedule").await.expect(200).json, set);

    let policy = json!({"supersedence": "1", "by_classification": {"upgrade": "never"}});
    let set = admin.put("/api/v1/lifecycle", policy.clone()).await.expect(200).json;
    assert_eq!(set, policy);
    assert_eq!(admin.get("/api/v1/lifecycle").await.expect(200).json, policy);
    admin
        .put("/api/v1/lifecycle", json!({"supersedence": "soon"}))
        .await
        .refused(422, "supersedence");
    let path = "/api/v1/lifecycle/preview?supersedence=0&purge_after_days=never&limit=5";
    assert_eq!(admin.get(path).await.expect(200).json["expire"], 0);
    admin.get("/api/v1/lifecycle/preview?limit=1001").await.refused(400, "limit");
}

#[tokio::test]
async fn mirrors_and_downloads_are_refused_where_they_cannot_be() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let operator = site.client("operator").await;
    admin.post("/api/v1/sync/sources", source("hp")).await.expect(201);
    let package = |mirror: Value| json!({"name": "m", "mirror": mirror});
    let post = async |body: Value| operator.post("/api/v1/packages", body).await;
    post(package(json!({"source": "hp"}))).await.refused(422, "mirror.source");
    post(package(json!({"source": "none"}))).await.refused(422, "mirror.source");
    post(package(json!({"source": "hp", "onyl": []}))).await.refused(422, "mirror.onyl");
    operator.get("/api/v1/packages/m").await.expect(404);

    let download =
        async |client: &Client, body: Value| client.post("/api/v1/updates/download", body).await;
    download(&operator, json!({"updates": [], "package": "x"})).await.refused(422, "updates");
    let wrong = json!({"updates": ["x"], "package": "x", "languages": ["??"]});
    download(&operator, wrong).await.refused(422, "languages");
    let folder = json!({"updates": ["x"], "package": "x", "from_folder": "/tmp"});
    download(&operator, folder).await.expect(403);
    let begun = download(&operator, json!({"updates": ["x"], "package": "x"})).await;
    let job = operator.finish(begun).await;
    assert_eq!(
        (&job["state"], &job["problem"]["status"]),
        (&"failed".into(), &404.into()),
        "{job}"
    );

    let key = operator.get("/api/v1/openpgp-key").await.expect(200).json;
    assert_eq!(operator.get("/api/v1/openpgp-key").await.json, key);
}

#[tokio::test]
async fn own_updates_are_published_exported_and_withdrawn() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let bytes = b"the tool";
    let sha256 = "c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2";
    let mut own = json!({
        "description": {
            "title": "Tool 2.1", "description": "Mends it.", "vendor": "Example", "product": "Tool",
            "classification": "update", "files": [{"path": "tool.exe"}],
            "installed": "<b.FileExists Path=\"C:\\\\tool.exe\"/>",
            "installer": {"kind": "command", "program": "tool.exe"}
        },
        "files": {"tool.exe": {"size": bytes.len(), "digests": {"sha256": sha256}}},
        "package": "own"
    });
    operator.post("/api/v1/updates", own.clone()).await.expect(409);
    let uploaded = operator.send("PUT", "/api/v1/content?alias=sha256", &[], bytes.to_vec().into());
    let uploaded = uploaded.await.expect(201).json["sha256"].as_str().unwrap().to_owned();
    own["files"]["tool.exe"]["digests"]["sha256"] = uploaded.trim_start_matches("sha256:").into();
    let made = operator.post("/api/v1/updates", own.clone()).await.expect(200).json;
    let id = made["id"].as_str().unwrap();
    let shown = operator.get(&format!("/api/v1/updates/{id}")).await.expect(200).json;
    assert_eq!(shown["source"], "local");
    let package = operator.get(&format!("/api/v1/updates/{id}/package")).await.expect(200).json;
    assert!(package["document"].as_str().unwrap().contains("Tool 2.1"));
    own["description"]["title"] = "".into();
    operator.post("/api/v1/updates", own).await.refused(422, "description.title");
    let withdraw = format!("/api/v1/updates/{id}/withdraw");
    operator.post(&withdraw, json!({})).await.expect(200);
    operator.post(&withdraw, json!({})).await.expect(409);
}

//! Volumes of the library: added, drained, removed; refused by field and fix; given up when lost.

use crate::client::TestSite;
use axum::body::Body;
use serde_json::json;

const VOLUMES: &str = "/api/v1/library/volumes";

fn folder(site: &TestSite, name: &str) -> String {
    let path = site.folder.path().join(name);
    std::fs::create_dir(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A site that holds a package, and the digest of one of its files.
async fn filled() -> (TestSite, String) {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    local.result(local.post("/api/v1/packages/docs/update", json!({})).await).await;
    (site, contentlib::Digest::of(b"first").to_string())
}

#[tokio::test]
async fn a_volume_comes_takes_over_and_goes() {
    let (site, digest) = filled().await;
    let admin = site.client("admin").await;
    let path = folder(&site, "disk2");
    let new = json!({"path": path, "reserve_bytes": 5000}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "add disk2")];
    let add = || admin.send("POST", VOLUMES, &headers, Body::from(new.clone()));
    let added = add().await.expect(201);
    assert_eq!(
        (added.json["name"].as_str(), added.json["packs"].as_u64()),
        (Some("disk2"), Some(0))
    );
    assert_eq!(add().await.expect(201).json, added.json, "the same answer, and no second effect");

    admin.delete(&format!("{VOLUMES}/home")).await.refused(409, "volume");
    let drained = admin.result(admin.post(&format!("{VOLUMES}/home/drain"), json!({})).await).await;
    assert_eq!((drained["volume"].as_str(), &drained["left"]), (Some("home"), &json!([])));
    assert!(drained["packs"].as_u64() > Some(0) && drained["bytes"].as_u64() > Some(0));
    let last = admin.finish(admin.post(&format!("{VOLUMES}/disk2/drain"), json!({})).await).await;
    assert_eq!(last["problem"]["status"], 409);
    admin.delete(&format!("{VOLUMES}/disk2")).await.refused(409, "volume");

    let listed = site.client("reader").await.get(VOLUMES).await.expect(200).json;
    let shown = |at: usize| &listed["items"][at];
    assert_eq!((&shown(0)["name"], &shown(0)["state"]), (&json!("disk2"), &json!("active")));
    assert_eq!((&shown(1)["name"], &shown(1)["state"]), (&json!("home"), &json!("draining")));
    assert_eq!(shown(0)["reserve_bytes"], 5000);
    let stats = admin.get("/api/v1/library").await.expect(200).json;
    assert_eq!(stats["volumes"][1]["id"], shown(0)["id"]);
    let bytes = site.local().get(&format!("/api/v1/content/{digest}/bytes")).await.expect(200);
    assert_eq!(bytes.body, "first");

    let id = added.json["id"].as_str().unwrap();
    let resumed = admin.post(&format!("{VOLUMES}/home/resume"), json!({})).await.expect(200).json;
    assert_eq!(resumed["state"], "active");
    admin.result(admin.post(&format!("{VOLUMES}/{id}/drain"), json!({})).await).await;
    admin.delete(&format!("{VOLUMES}/{id}")).await.expect(204);
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    let audit = admin.get("/api/v1/audit?limit=100").await.expect(200).json.to_string();
    for operation in ["add_volume", "drain_volume", "resume_volume", "remove_volume"] {
        assert!(audit.contains(operation), "{audit}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_volume_is_refused_by_its_field() {
    let (site, _) = filled().await;
    let admin = site.client("admin").await;
    let (two, three) = (folder(&site, "two"), folder(&site, "three"));
    let (full, foreign) = (site.source("full"), folder(&site, "foreign"));
    let other = TestSite::new();
    other.local().post(VOLUMES, json!({"path": foreign})).await.expect(201);
    admin.post(VOLUMES, json!({"path": two})).await.expect(201);
    let data = site.site.folder().to_str().unwrap();
    for (status, field, body) in [
        (422, "path", json!({"path": "three"})),
        (422, "path", json!({"path": format!("{three}/none")})),
        (422, "path", json!({"path": full})),
        (409, "path", json!({"path": foreign})),
        (409, "path", json!({"path": two})),
        (409, "path", json!({"path": data})),
        (409, "name", json!({"path": three, "name": "two"})),
        (422, "name", json!({"path": three, "name": "No Name"})),
        (422, "reserve_bytes", json!({"path": three, "reserve_bytes": u64::MAX})),
    ] {
        admin.post(VOLUMES, body).await.refused(status, field);
    }
    for operation in ["drain", "resume"] {
        let path = format!("{VOLUMES}/none/{operation}");
        admin.post(&path, json!({})).await.refused(404, "volume");
    }
    admin.delete(&format!("{VOLUMES}/none")).await.refused(404, "volume");
    admin.delete(&format!("{VOLUMES}/two?lost=true")).await.expect(403);
    let operator = site.client("operator").await;
    operator.post(VOLUMES, json!({"path": three})).await.expect(403);
}

#[tokio::test]
async fn a_lost_volume_is_told_and_given_up_in_process() {
    let (site, _) = filled().await;
    let path = folder(&site, "disk2");
    let local = site.local();
    local.post(VOLUMES, json!({"path": path})).await.expect(201);
    local.result(local.post(&format!("{VOLUMES}/home/drain"), json!({})).await).await;
    local.delete(&format!("{VOLUMES}/disk2?lost=true")).await.refused(409, "volume");
    let data = site.site.folder().to_owned();
    site.site.close().await.unwrap();
    let TestSite { folder: temporary, site: closed } = site;
    drop((local, closed));
    std::fs::remove_dir_all(path).unwrap();

    let config = api::Config { data, ..api::Config::default() };
    let site = TestSite { folder: temporary, site: api::Site::open(config, "a test").unwrap() };
    let local = site.local();
    let refused = local.get("/api/v1/packages").await.expect(503).json["detail"].to_string();
    assert!(refused.contains("disk2") && refused.contains("remove disk2 --lost"), "{refused}");
    local.delete(&format!("{VOLUMES}/disk3?lost=true")).await.refused(404, "volume");
    local.delete(&format!("{VOLUMES}/disk2?lost=true")).await.expect(204);
    let verify = local.post("/api/v1/library/verify", json!({})).await;
    let found = local.result(verify).await["bad_contents"].to_string();
    assert!(found.contains("version/docs/0000000002"), "the manifest is gone too: {found}");
}

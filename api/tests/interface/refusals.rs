//! Bad input gets a problem that names the field, and changes nothing.

use crate::client::TestSite;
use axum::body::Body;
use serde_json::json;

#[tokio::test]
async fn addresses_and_methods_that_are_not_there() {
    let site = TestSite::new();
    for client in [site.local(), site.stranger()] {
        for path in ["/api/v1/nothing", "/api/", "/api/v2/packages", "/elsewhere"] {
            let answer = client.send_unchecked("GET", path, &[], Body::empty()).await.expect(404);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.json["detail"].as_str().unwrap().contains(path));
        }
        let answer = client.send_unchecked("PATCH", "/api/v1/packages", &[], Body::empty()).await;
        let answer = answer.expect(405);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let allowed: std::collections::BTreeSet<&str> = answer.header("allow").split(',').collect();
        assert_eq!(allowed, ["GET", "HEAD", "POST"].into());
    }
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let site = TestSite::new();
    let local = site.local();
    let json_type = [("content-type", "application/json")];
    let path = "/api/v1/packages";
    local.send("POST", path, &json_type, Body::from("{")).await.refused(400, "body");
    local.send("POST", path, &json_type, Body::from("[]")).await.refused(422, "body");
    local.send("POST", path, &json_type, Body::from("\"x\"")).await.refused(422, "body");
    local.send("POST", path, &json_type, Body::from(&b"\xff"[..])).await.refused(400, "body");
    let text = [("content-type", "text/plain")];
    local.send("POST", path, &text, Body::from("{}")).await.refused(415, "content-type");
    local.send("POST", path, &[], Body::from("{}")).await.refused(415, "content-type");
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    local.send("POST", path, &json_type, Body::from(large)).await.refused(413, "body");
    local.post(path, json!({"name": 7})).await.refused(422, "name");
    let none = local.post(path, json!({"name": "docs", "keep": 0})).await.refused(422, "keep");
    assert_eq!(none.json["detail"], "keep must be 1 or more, not 0");
    local.post(path, json!({"name": "docs", "sauce": "/"})).await.refused(422, "sauce");
    let empty = local.send("POST", path, &[], Body::empty()).await.refused(422, "name");
    assert_eq!(empty.json["detail"], "name is missing");
    assert_eq!(local.get(path).await.json["items"], json!([]));
}

#[tokio::test]
async fn names_parameters_and_digests_that_cannot_be() {
    let site = TestSite::new();
    let local = site.local();
    local.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    for (status, field, path) in [
        (400, "package", "/api/v1/packages/Not%20A%20Name"),
        (404, "package", "/api/v1/packages/none"),
        (400, "limit", "/api/v1/packages?limit=0"),
        (400, "limit", "/api/v1/packages?limit=1001"),
        (400, "limit", "/api/v1/packages?limit=x"),
        (400, "limmit", "/api/v1/packages?limmit=1"),
        (400, "cursor", "/api/v1/packages?cursor=zz"),
        (400, "version", "/api/v1/packages/docs/versions/-1"),
        (404, "version", "/api/v1/packages/docs/versions/7"),
        (404, "channel", "/api/v1/packages/docs/versions/stable"),
        (404, "path", "/api/v1/packages/docs/versions/1/tree?path=no/such"),
        (400, "path", "/api/v1/packages/docs/versions/1/tree?path=../up"),
        (400, "from", "/api/v1/packages/docs/diff"),
        (400, "from", "/api/v1/packages/docs/diff?from=-"),
        (400, "digest", "/api/v1/content/blake3:xyz"),
        (400, "digest", "/api/v1/content/md5:00"),
        (400, "state", "/api/v1/jobs?state=sleeping"),
    ] {
        local.get(path).await.refused(status, field);
    }
    let unknown = "ab".repeat(32);
    for path in ["blake3", "sha256"].map(|kind| format!("/api/v1/content/{kind}:{unknown}")) {
        local.get(&path).await.expect(404);
        local.get(&format!("{path}/bytes")).await.expect(404);
    }
    local.get("/api/v1/jobs/0").await.expect(404);
    local.get("/api/v1/jobs/0/events").await.expect(404);
    local.post("/api/v1/jobs/0/cancel", json!({})).await.expect(404);
}

#[tokio::test]
async fn sources_and_channels_that_cannot_be() {
    let site = TestSite::new();
    let local = site.local();
    let path = "/api/v1/packages";
    let source = site.source("files");
    local.post(path, json!({"name": "docs", "source": source})).await.expect(201);
    for (status, source) in [
        (422, "relative/folder".to_owned()),
        (422, "/no/such/folder".to_owned()),
        (422, "/etc/passwd".to_owned()),
        (422, "bad\\escape".to_owned()),
        (422, site.site.folder().to_str().unwrap().to_owned()),
        (409, source.clone()),
        (409, format!("{source}/sub")),
    ] {
        let body = json!({"name": "other", "source": source});
        local.post(path, body).await.refused(status, "source");
    }
    let operator = site.client("operator").await;
    let body = json!({"name": "other", "source": "/etc"});
    operator.post(path, body).await.refused(403, "source");
    local.get("/api/v1/packages/other").await.expect(404);
    local.post("/api/v1/packages/none/update", json!({})).await.refused(404, "package");
    local.post(path, json!({"name": "pushed"})).await.expect(201);
    let job = local.finish(local.post("/api/v1/packages/pushed/update", json!({})).await).await;
    assert_eq!(
        (job["state"].as_str(), job["problem"]["status"].as_u64()),
        (Some("failed"), Some(409))
    );
    let channel = "/api/v1/packages/docs/channels/stable";
    local.put(channel, json!({"version": "9"})).await.refused(404, "version");
    local.put(channel, json!({"version": "no version"})).await.refused(422, "version");
    local
        .put("/api/v1/packages/docs/channels/latest", json!({"version": "1"}))
        .await
        .refused(400, "channel");
    local.delete(channel).await.refused(404, "channel");
    let restore = "/api/v1/packages/docs/versions/1/restore";
    local.post(restore, json!({"destination": "relative"})).await.refused(422, "destination");
    site.client("admin").await.post(restore, json!({"destination": "/tmp/x"})).await.expect(403);
    for body in [json!({"from": "ftp://x"}), json!({"from": "not a url"})] {
        local.post("/api/v1/library/repair", body).await.refused(422, "from");
    }
    local
        .post("/api/v1/library/verify", json!({"read_percent": 101}))
        .await
        .refused(422, "read_percent");
}

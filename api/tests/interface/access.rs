//! Tokens, roles, the audit log, rates.

use crate::client::{Client, TestSite};
use axum::body::Body;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn the_first_start_leaves_an_admin_token_that_only_its_owner_reads() {
    let site = TestSite::new();
    site.local().get("/api/v1/whoami").await.expect(200);
    let file = site.site.token_file();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(site.site.folder())), (0o600, 0o700));
    let token = std::fs::read_to_string(file).unwrap().trim().to_owned();
    assert!(token.starts_with("depot_"));
    let admin = Client { token: Some(token), ..site.stranger() };
    let me = admin.get("/api/v1/whoami").await.expect(200).json;
    assert_eq!((me["name"].as_str(), me["role"].as_str()), (Some("admin"), Some("admin")));
    let local = site.local().get("/api/v1/whoami").await.expect(200).json;
    assert_eq!(local, json!({"name": "local admin", "role": "admin"}));
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let made = admin.post("/api/v1/tokens", json!({"name": "ci", "role": "reader"})).await;
    let made = made.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let ci = Client { token: made.json["token"].as_str().map(Into::into), ..site.stranger() };
    ci.get("/api/v1/packages").await.expect(200);
    let again = json!({"name": "ci", "role": "admin"});
    admin.post("/api/v1/tokens", again).await.refused(409, "name");
    let listed = admin.get("/api/v1/tokens?limit=1").await.expect(200).json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let cursor = listed["next"].as_str().unwrap();
    let rest = admin.get(&format!("/api/v1/tokens?cursor={cursor}")).await.expect(200).json;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2, "the first one and two of this test");
    let listed = format!("{listed}{rest}");
    assert!(!listed.contains(ci.token.as_ref().unwrap().rsplit('_').next().unwrap()));
    admin.delete("/api/v1/tokens/ci").await.expect(200);
    ci.get("/api/v1/packages").await.refused(401, "authorization");
    admin.delete("/api/v1/tokens/ci").await.expect(404);
    for (field, body) in [
        ("name", json!({"name": "", "role": "reader"})),
        ("name", json!({"name": "x".repeat(65), "role": "reader"})),
        ("role", json!({"name": "x", "role": "king"})),
        ("expires", json!({"name": "x", "role": "reader", "expires": "2001-01-01T00:00:00Z"})),
    ] {
        admin.post("/api/v1/tokens", body).await.refused(422, field);
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_however_it_looks() {
    let site = TestSite::new();
    let stranger = site.stranger();
    for value in ["Bearer", "Bearer x", "Bearer depot_0123456789ab_ff", "Basic YTpi", ""] {
        let headers = [("authorization", value)];
        let answer = stranger.send("GET", "/api/v1/jobs", &headers, Body::empty()).await;
        assert!(answer.refused(401, "authorization").header("www-authenticate").contains("Bearer"));
    }
}

#[tokio::test]
async fn every_change_is_recorded_with_who_what_and_result() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    operator.post("/api/v1/packages", json!({"name": "docs"})).await.expect(201);
    operator.post("/api/v1/packages", json!({"name": "docs"})).await.expect(409);
    operator.post("/api/v1/packages", json!({"name": "Wrong Name"})).await.expect(422);
    operator.get("/api/v1/packages").await.expect(200);
    operator.delete("/api/v1/tokens/admin").await.expect(403);
    operator.delete("/api/v1/packages/docs").await.expect(200);
    operator.get("/api/v1/audit").await.expect(403);
    let log = site.local().get("/api/v1/audit?limit=5").await.expect(200).json;
    let records: Vec<_> = log["items"].as_array().unwrap().iter().collect();
    let seen: Vec<_> = records
        .iter()
        .map(|r| {
            let text = |name: &str| r[name].as_str().unwrap().to_owned();
            (text("action"), text("target"), r["status"].as_u64().unwrap())
        })
        .collect();
    let wanted = [
        ("delete_package", "docs", 200),
        ("revoke_token", "admin", 403),
        ("create_package", "Wrong Name", 422),
        ("create_package", "docs", 409),
        ("create_package", "docs", 201),
    ];
    assert_eq!(seen, wanted.map(|(a, t, s)| (a.to_owned(), t.to_owned(), s)));
    assert!(records.iter().all(|r| r["who"].as_str().unwrap().starts_with("operator")));
    assert!(records[3]["detail"].as_str().unwrap().contains("already"));
    let next = log["next"].as_str().unwrap();
    let rest = site.local().get(&format!("/api/v1/audit?cursor={next}")).await.expect(200).json;
    assert_eq!(rest["items"][0]["action"], "create_token");
    assert_eq!(rest["items"][0]["who"], "local admin");
}

#[tokio::test]
async fn too_many_requests_are_told_to_wait() {
    let site = TestSite::with(|config| config.api.rate = 5);
    let reader = site.client("reader").await;
    let other = site.client("reader").await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = reader.get("/api/v1/whoami").await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), "1");
            refused += 1;
        }
    }
    assert!((10..20).contains(&refused), "{refused}");
    other.get("/api/v1/whoami").await.expect(200);
    site.local().get("/api/v1/whoami").await.expect(200);
}

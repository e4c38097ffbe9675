//! A request that is sent again takes effect once.

use crate::client::{Answer, Client, TestSite};
use axum::body::Body;
use serde_json::json;

async fn keyed(client: &Client, key: &str, path: &str, json: serde_json::Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.send("POST", path, &headers, Body::from(json.to_string())).await
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let path = "/api/v1/packages";
    let first = keyed(&operator, "k1", path, json!({"name": "docs"})).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let second = keyed(&operator, "k1", path, json!({"name": "docs"})).await.expect(201);
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(
        (second.body, second.headers.get("location")),
        (first.body, first.headers.get("location"))
    );
    let other = keyed(&operator, "k1", path, json!({"name": "tools"})).await;
    other.refused(422, "idempotency-key");
    operator.get("/api/v1/packages/tools").await.expect(404);
    let new_key = keyed(&operator, "k2", path, json!({"name": "docs"})).await;
    new_key.refused(409, "name");
    let someone = site.client("operator").await;
    keyed(&someone, "k1", path, json!({"name": "docs"})).await.refused(409, "name");
}

#[tokio::test]
async fn a_refused_request_may_be_mended_and_sent_again() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let path = "/api/v1/packages";
    keyed(&operator, "k", path, json!({"name": "No"})).await.refused(422, "name");
    keyed(&operator, "k", path, json!({"name": "docs"})).await.expect(201);
    let long = "k".repeat(256);
    keyed(&operator, &long, path, json!({"name": "x"})).await.refused(400, "idempotency-key");
}

#[tokio::test]
async fn a_job_is_started_once() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let source = site.source("files");
    admin.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    let path = "/api/v1/packages/docs/update";
    let first = keyed(&admin, "once", path, json!({})).await.expect(202).json["id"].clone();
    let again = keyed(&admin, "once", path, json!({})).await.expect(202).json["id"].clone();
    assert_eq!(first, again);
    assert_eq!(admin.get("/api/v1/jobs").await.json["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_streamed_body_is_compared_too() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let put = async |bytes: &'static str| {
        let pieces = [Ok::<_, std::io::Error>(&bytes.as_bytes()[..3]), Ok(&bytes.as_bytes()[3..])];
        let body = Body::from_stream(futures::stream::iter(pieces));
        let headers = [("content-type", "application/octet-stream"), ("idempotency-key", "k")];
        operator.send("PUT", "/api/v1/content", &headers, body).await
    };
    let first = put("some bytes").await.expect(201);
    assert_eq!(put("some bytes").await.expect(201).body, first.body);
    put("same bytes").await.refused(422, "idempotency-key");
}

#[tokio::test]
async fn the_secret_of_a_token_is_not_kept_for_repeats() {
    let site = TestSite::new();
    let local = site.local();
    let new = || json!({"name": "ci", "role": "reader"});
    keyed(&local, "k", "/api/v1/tokens", new()).await.expect(201);
    keyed(&local, "k", "/api/v1/tokens", new()).await.refused(409, "name");
}

//! The OpenAPI document says all there is, and the server does what it says.

use crate::client::{DOCUMENT, TestSite};
use axum::body::Body;
use serde_json::Value;
use std::collections::BTreeSet;

/// Path template, method, operation.
fn operations() -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    all
}

#[test]
fn every_operation_is_documented_whole() {
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let name = format!("{method} {path}");
        let id = operation["operationId"].as_str().expect(&name);
        assert!(ids.insert(id.to_owned()), "{id} names two operations");
        assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{name}: summary");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}: tags");
        assert!(operation["security"].is_array(), "{name}: security");
        let named = path.matches('{').count();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path");
        assert_eq!(in_path.count(), named, "{name}: parameters of the path");
        for parameter in &parameters {
            let text = parameter["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name}: {} has no description", parameter["name"]);
        }
        if !operation["requestBody"].is_null() {
            for (media_type, content) in operation["requestBody"]["content"].as_object().unwrap() {
                assert!(has_example(content), "{name}: the {media_type} body has no example");
            }
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with(['2', '3'])), "{name}");
        assert!(responses.contains_key("500"), "{name}: errors");
        for (status, response) in responses {
            assert!(response["description"].is_string(), "{name} {status}");
            for content in response["content"].as_object().into_iter().flat_map(|c| c.values()) {
                assert!(!content["schema"].is_null(), "{name} {status}: schema");
                assert!(has_example(content), "{name} {status}: example");
            }
        }
    }
    assert!(ids.len() > 40, "{}", ids.len());
}

fn has_example(content: &Value) -> bool {
    fn in_schema(schema: &Value, depth: u8) -> bool {
        if depth == 0 || !schema["example"].is_null() || !schema["examples"].is_null() {
            return depth > 0;
        }
        if let Some(path) = schema["$ref"].as_str() {
            let found = DOCUMENT.pointer(path.trim_start_matches('#')).unwrap();
            return in_schema(found, depth - 1);
        }
        // An object may give examples field by field, a page by its items.
        let fields = schema["properties"].as_object().into_iter().flatten();
        let mut fields = fields.map(|(_, field)| field).peekable();
        fields.peek().is_some() && fields.any(|f| in_schema(f, depth - 1))
            || in_schema_of(&schema["items"], depth)
    }
    fn in_schema_of(schema: &Value, depth: u8) -> bool {
        !schema.is_null() && in_schema(schema, depth - 1)
    }
    !content["example"].is_null() || in_schema(&content["schema"], 8)
}

#[test]
fn every_reference_resolves() {
    fn walk(value: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(path)) = object.get("$ref") {
                    let found = DOCUMENT.pointer(path.trim_start_matches('#'));
                    assert!(found.is_some(), "{path} is not there");
                }
                object.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(&DOCUMENT);
}

#[test]
fn only_what_must_be_is_open_to_all() {
    let open: BTreeSet<String> = operations()
        .into_iter()
        .filter(|(_, _, operation)| operation["security"] == serde_json::json!([{}]))
        .map(|(path, _, _)| path)
        .collect();
    let wanted = [
        "/api/openapi.json",
        "/api/v1/authority",
        "/api/v1/catalogue",
        "/api/v1/catalogue/shards/{blake3}",
        "/api/v1/client/fallback",
        "/api/v1/client/join",
        "/api/v1/follower/join",
        "/api/v1/health",
        "/api/v1/point/join",
        "/api/v1/policy",
        "/api/v1/version",
        "/locate/{package}/{version}",
    ];
    assert_eq!(open, wanted.map(str::to_owned).into());
}

/// `path` with something in place of each name.
fn filled(path: &str) -> String {
    let names = [
        ("{package}", "docs"),
        ("{version}", "latest"),
        ("{channel}", "stable"),
        ("{digest}", "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        ("{job}", "0199f0c2a7b1e0d3"),
        ("{token}", "nobody"),
        ("{volume}", "disk2"),
        ("{point}", "branch-7"),
        ("{follower}", "berlin"),
        ("{group}", "paris"),
        ("{neighbour}", "lyon"),
        ("{boundary}", "10.7.0.0%2F16"),
        ("{source}", "debian"),
        ("{update}", "DSA-5545-1"),
        ("{client}", "pc-17"),
        ("{collection}", "web"),
        ("{deployment}", "november-pilot"),
        ("{rule}", "patch-day"),
        ("{run}", "4"),
        ("{number}", "4"),
        ("{upload}", "0f3c2a7b1e0d4455a7b1e0d30199f0c2"),
        ("{blake3}", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ];
    let path = names.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path}");
    path
}

#[tokio::test]
async fn every_operation_is_there_and_takes_the_role_that_it_says() {
    let site = TestSite::with(|config| config.api.rate = 0);
    let stranger = site.stranger();
    let clients = [
        ("reader", site.client("reader").await),
        ("operator", site.client("operator").await),
        ("admin", site.client("admin").await),
    ];
    for (path, method, operation) in operations() {
        let path = filled(&path);
        let needed = operation["security"][0]["token"][0].as_str();
        let answer = stranger.send(&method, &path, &[], Body::empty()).await;
        match needed {
            None if !operation["security"][0]["certificate"].is_null() => {
                assert_eq!(answer.status, 403, "{method} {path}");
                assert_eq!(answer.json["type"], "urn:depot:problem:not-a-point");
            }
            None if !operation["security"][0]["follower"].is_null() => {
                assert_eq!(answer.status, 403, "{method} {path}");
                assert_eq!(answer.json["type"], "urn:depot:problem:not-a-follower");
            }
            None if !operation["security"][0]["client"].is_null() => {
                assert_eq!(answer.status, 403, "{method} {path}");
                assert_eq!(answer.json["type"], "urn:depot:problem:not-a-client");
            }
            // It takes a secret, which an empty body does not have.
            None if path.ends_with("/join") => drop(answer.refused(422, "secret")),
            None if path.ends_with("/catalogue") => drop(answer.expect(503)),
            None if path.contains("/catalogue/") => drop(answer.expect(404)),
            None if path.ends_with("/fallback") => drop(answer.refused(415, "content-type")),
            None if path.starts_with("/locate/") => drop(answer.refused(404, "package")),
            None => assert_eq!(answer.status, 200, "{method} {path}"),
            Some(_) => drop(answer.refused(401, "authorization")),
        }
        let Some(needed) = needed else { continue };
        let rank = |role: &str| clients.iter().position(|(name, _)| *name == role).unwrap();
        for (role, client) in &clients {
            let answer = client.send(&method, &path, &[], Body::empty()).await;
            let refused = rank(role) < rank(needed);
            // A restore is refused to all that come over the network.
            if !path.ends_with("/restore") {
                assert_eq!(answer.status == 403, refused, "{method} {path} as {role}");
            }
            assert_ne!(answer.status, 405, "{method} {path}");
            assert_ne!(answer.json["type"], "urn:depot:problem:unknown-route", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_built() {
    let site = TestSite::new();
    let answer = site.stranger().get("/api/openapi.json").await.expect(200);
    assert_eq!(answer.json, *DOCUMENT);
}

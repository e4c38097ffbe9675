//! Contents by digest, revocation, and the library below.

use crate::client::TestSite;
use axum::body::Body;
use serde_json::json;

const BYTES: &[u8] = b"some bytes of a file";

fn blake3_of(bytes: &[u8]) -> String {
    contentlib::Digest::of(bytes).to_string()
}

const OCTETS: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

#[tokio::test]
async fn a_content_is_uploaded_and_found_by_all_its_names() {
    let site = TestSite::new();
    let local = site.local();
    let path = "/api/v1/content?alias=sha256,sha1";
    let made = local.send("PUT", path, &OCTETS, Body::from(BYTES)).await.expect(201);
    let digest = made.json["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest, blake3_of(BYTES));
    let sha256 = made.json["sha256"].as_str().unwrap();
    let sha1 = made.json["sha1"].as_str().unwrap();
    for name in [&digest, sha256, sha1] {
        let shown = local.get(&format!("/api/v1/content/{name}")).await.expect(200).json;
        assert_eq!((shown["digest"].as_str(), shown["size"].as_u64()), (Some(&*digest), Some(20)));
        let bytes = local.get(&format!("/api/v1/content/{name}/bytes")).await.expect(200);
        assert_eq!(bytes.body, BYTES);
    }
    let reader = site.client("reader").await;
    let sent = reader.get(&format!("/api/v1/content/{sha256}/bytes")).await.expect(307);
    assert_eq!(sent.header("location"), format!("/content/{digest}"));
    let why = local.get(&format!("/api/v1/content/{digest}/why")).await.expect(200).json;
    assert_eq!(why["holders"].as_array().unwrap().len(), 1);
    let verify = local.post(&format!("/api/v1/content/{digest}/verify"), json!({})).await;
    assert_eq!(local.result(verify).await["ok"], true);
    let again = local.send("PUT", "/api/v1/content", &OCTETS, Body::from(BYTES)).await.expect(201);
    assert_eq!(again.json["new_bytes"], 0);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_not_kept() {
    let site = TestSite::new();
    let local = site.local();
    let put = |query: String, bytes: &'static [u8]| {
        let local = local.clone();
        async move {
            let path = format!("/api/v1/content?{query}");
            local.send("PUT", &path, &OCTETS, Body::from(bytes)).await
        }
    };
    put(format!("digest={}", blake3_of(BYTES)), b"other bytes").await.refused(422, "digest");
    let zeros = format!("digest=sha256:{}", "00".repeat(32));
    put(zeros, b"other bytes").await.refused(422, "digest");
    put("digest=md5:00".into(), b"other bytes").await.refused(400, "digest");
    put("alias=md5".into(), b"other bytes").await.refused(400, "alias");
    local.get(&format!("/api/v1/content/{}", blake3_of(b"other bytes"))).await.expect(404);
    put(format!("digest={}", blake3_of(BYTES)), BYTES).await.expect(201);
}

#[tokio::test]
async fn a_body_above_the_limit_or_cut_off_is_not_kept() {
    let limit = 1 << 20;
    let site = TestSite::with(|config| config.upload.max_size = api::config::ByteSize(limit));
    let local = site.local();
    let large = vec![1; limit as usize + 1];
    let digest = blake3_of(&large);
    let length = large.len().to_string();
    let stated = [OCTETS[0], ("content-length", &*length)];
    let whole = local.send("PUT", "/api/v1/content", &stated, Body::from(large.clone())).await;
    whole.refused(413, "body");
    let pieces =
        large.chunks(1000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    let body = Body::from_stream(futures::stream::iter(pieces));
    local.send("PUT", "/api/v1/content", &OCTETS, body).await.refused(413, "body");
    let cut = [Ok(b"the beginning".to_vec()), Err(std::io::Error::other("hung up"))];
    let body = Body::from_stream(futures::stream::iter(cut));
    local.send("PUT", "/api/v1/content", &OCTETS, body).await.refused(400, "body");
    local.get(&format!("/api/v1/content/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_revoked_content_is_gone_until_it_is_allowed_again() {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    local.result(local.post("/api/v1/packages/docs/update", json!({})).await).await;
    let digest = blake3_of(b"first");
    let path = format!("/api/v1/revocations/{digest}");
    local.put(&path, json!({"reason": " "})).await.refused(422, "reason");
    site.client("operator").await.put(&path, json!({"reason": "x"})).await.expect(403);
    let revoked = local.put(&path, json!({"reason": "CVE"})).await.expect(200).json;
    assert_eq!(revoked["places"], json!([{"package": "docs", "version": 2, "path": "a.txt"}]));
    local.get(&format!("/api/v1/content/{digest}/bytes")).await.expect(410);
    let again = local.send("PUT", "/api/v1/content", &OCTETS, Body::from("first")).await;
    again.expect(410);
    let listed = local.get("/api/v1/revocations").await.expect(200).json;
    assert_eq!(listed["items"], json!([{"digest": digest, "reason": "CVE"}]));
    local.delete(&path).await.expect(204);
    local.delete(&path).await.expect(404);
    let bytes = local.get(&format!("/api/v1/content/{digest}/bytes")).await.expect(200);
    assert_eq!(bytes.body, "first");
}

#[tokio::test]
async fn the_library_is_counted_verified_swept_and_rebuilt() {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    local.result(local.post("/api/v1/packages/docs/update", json!({})).await).await;
    let stats = local.get("/api/v1/library").await.expect(200).json;
    assert!(stats["plain_bytes"].as_u64().unwrap() > 100_000, "{stats}");
    let verify = local.post("/api/v1/library/verify", json!({})).await;
    assert_eq!(local.result(verify).await["bad_chunks"], json!([]));
    assert_eq!(local.get("/api/v1/library/suspects").await.expect(200).json["items"], json!([]));
    let before = local.get("/api/v1/packages").await.expect(200).json;
    local.result(local.post("/api/v1/library/rebuild-index", json!({})).await).await;
    assert_eq!(local.get("/api/v1/packages").await.expect(200).json, before);
    let admin = site.client("admin").await;
    admin.post("/api/v1/library/rebuild-index", json!({})).await.expect(409);
    local.delete("/api/v1/packages/docs").await.expect(200);
    let dry = local.post("/api/v1/library/gc", json!({"dry_run": true})).await;
    assert!(local.result(dry).await["condemned"].as_u64().unwrap() > 0);
    let real = local.result(local.post("/api/v1/library/gc", json!({})).await).await;
    assert!(real["condemned"].as_u64().unwrap() > 0);
    let why = format!("/api/v1/content/{}/why", blake3_of(b"first"));
    assert_eq!(local.get(&why).await.expect(200).json["holders"], json!([]));
}

#[tokio::test]
async fn a_lost_index_is_told_and_rebuilt_in_process() {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    let folder = site.site.folder().to_owned();
    site.site.close().await.unwrap();
    let TestSite { folder: temporary, site: closed } = site;
    drop((local, closed));
    std::fs::remove_dir_all(folder.join("library/index")).unwrap();
    let config = api::Config { data: folder, ..api::Config::default() };
    let site = TestSite { folder: temporary, site: api::Site::open(config, "a test").unwrap() };
    let local = site.local();
    let refused = local.get("/api/v1/packages").await.expect(503);
    assert!(refused.json["detail"].as_str().unwrap().contains("rebuild-index"));
    local.result(local.post("/api/v1/library/rebuild-index", json!({})).await).await;
    let listed = local.get("/api/v1/packages").await.expect(200).json;
    assert_eq!(listed["items"][0]["name"], "docs");
}

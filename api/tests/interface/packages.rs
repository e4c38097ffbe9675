//! Packages from their making to their end.

use crate::client::TestSite;
use serde_json::json;

#[tokio::test]
async fn a_folder_becomes_versions_that_can_be_looked_into_and_restored() {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    let made = local.post("/api/v1/packages", json!({"name": "docs", "source": source, "keep": 3}));
    let made = made.await.expect(201);
    assert_eq!(
        (made.json["version"].as_u64(), made.header("location")),
        (Some(1), "/api/v1/packages/docs")
    );
    let update = || local.post("/api/v1/packages/docs/update", json!({}));
    let first = local.result(update().await).await;
    assert_eq!((first["version"].as_u64(), first["unchanged"].as_bool()), (Some(2), Some(false)));
    assert_eq!(first["files"], 3);
    let same = local.result(update().await).await;
    assert_eq!((same["version"].as_u64(), same["unchanged"].as_bool()), (Some(2), Some(true)));
    std::fs::write(format!("{source}/a.txt"), "changed now").unwrap();
    std::fs::remove_file(format!("{source}/sub/b.txt")).unwrap();
    let second = local.result(update().await).await;
    assert_eq!(second["version"], 3);

    let shown = local.get("/api/v1/packages/docs").await.expect(200).json;
    assert_eq!(
        (shown["n_versions"].as_u64(), shown["latest"]["version"].as_u64()),
        (Some(3), Some(3))
    );
    assert_eq!(shown["source"]["folder"], source);
    let page = local.get("/api/v1/packages/docs/versions?limit=2").await.expect(200).json;
    let next = page["next"].as_str().unwrap();
    let rest = local.get(&format!("/api/v1/packages/docs/versions?cursor={next}")).await;
    let numbers = |page: &serde_json::Value| {
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|v| v["version"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((numbers(&page), numbers(&rest.json)), (vec![1, 2], vec![3]));

    let tree = local.get("/api/v1/packages/docs/versions/2/tree?recursive=true&limit=3").await;
    let tree = tree.expect(200).json;
    let next = tree["next"].as_str().unwrap();
    let path = format!("/api/v1/packages/docs/versions/2/tree?recursive=true&cursor={next}");
    let rest = local.get(&path).await.expect(200).json;
    let paths = |page: &serde_json::Value| {
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        [paths(&tree), paths(&rest)].concat(),
        ["a.txt", "c.bin", "link", "sub", "sub/b.txt"]
    );
    let sub = local.get("/api/v1/packages/docs/versions/2/tree?path=sub").await.expect(200).json;
    assert_eq!(paths(&sub), ["sub/b.txt"]);

    let diff = local.get("/api/v1/packages/docs/diff?from=2").await.expect(200).json;
    assert_eq!((diff["from"].as_u64(), diff["to"].as_u64()), (Some(2), Some(3)));
    assert_eq!(diff["items"][0]["how"], "content");
    assert_eq!(diff["counts"]["removed"], 1);

    let out = site.folder.path().join("out");
    let restore = json!({"destination": out.to_str().unwrap()});
    let path = "/api/v1/packages/docs/versions/2/restore";
    let restored = local.result(local.post(path, restore).await).await;
    assert_eq!(restored["files"], 3);
    assert_eq!(std::fs::read_to_string(out.join("a.txt")).unwrap(), "first");
    assert_eq!(std::fs::read_link(out.join("link")).unwrap().to_str(), Some("a.txt"));
}

#[tokio::test]
async fn channels_keep_what_they_point_to() {
    let site = TestSite::new();
    let local = site.local();
    let source = site.source("files");
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    local.result(local.post("/api/v1/packages/docs/update", json!({})).await).await;
    let stable = "/api/v1/packages/docs/channels/stable";
    let moved = local.put(stable, json!({"version": "latest"})).await.expect(200).json;
    assert_eq!(moved, json!({"package": "docs", "channel": "stable", "from": null, "to": 2}));
    assert_eq!(local.get("/api/v1/packages/docs/channels").await.json, json!({"stable": 2}));
    let by_name = local.get("/api/v1/packages/docs/versions/stable").await.expect(200).json;
    assert_eq!(by_name["version"], 2);
    local.delete("/api/v1/packages/docs/versions/2").await.expect(409);
    local.delete("/api/v1/packages/docs/versions/2?force=maybe").await.refused(400, "force");
    let deleted = local.delete("/api/v1/packages/docs/versions/2?force=true").await.expect(200);
    assert_eq!(deleted.json["versions"], json!([2]));
    assert!(deleted.json["freed"]["bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(local.get("/api/v1/packages/docs/channels").await.json, json!({}));
    let kept = local.put("/api/v1/packages/docs/retention", json!({"keep": 2, "days": 30})).await;
    assert_eq!(kept.expect(200).json, json!({"keep": 2, "days": 30}));
    local.put("/api/v1/packages/docs/retention", json!({"keep": 0})).await.refused(422, "keep");
    let shown = local.get("/api/v1/packages/docs").await.json;
    assert_eq!(shown["retention"], json!({"keep": 2, "days": 30}));
    local.delete("/api/v1/packages/docs").await.expect(200);
    local.get("/api/v1/packages/docs").await.refused(404, "package");
}

#[tokio::test]
async fn packages_are_listed_in_pages() {
    let site = TestSite::new();
    let local = site.local();
    for name in ["c", "a", "b"] {
        local.post("/api/v1/packages", json!({"name": name})).await.expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/packages?limit=2".to_owned();
    loop {
        let page = local.get(&path).await.expect(200).json;
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|p| p["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/packages?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_package_over_the_network_takes_the_same_steps() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let source = site.source("files");
    admin.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    let done = admin.result(admin.post("/api/v1/packages/docs/update", json!({})).await).await;
    assert_eq!(done["version"], 2);
    let jobs = admin.get("/api/v1/jobs?state=done").await.expect(200).json;
    assert_eq!(jobs["items"][0]["kind"], "update_package");
    let id = jobs["items"][0]["id"].as_str().unwrap();
    let shown = admin.get(&format!("/api/v1/jobs/{id}")).await.expect(200).json;
    assert_eq!(shown, jobs["items"][0]);
    let log = admin.get("/api/v1/audit?limit=2").await.expect(200).json;
    let details: Vec<_> =
        log["items"].as_array().unwrap().iter().map(|r| r["detail"].as_str().unwrap()).collect();
    assert!(details.iter().all(|detail| detail.contains(id)), "{details:?}");
}

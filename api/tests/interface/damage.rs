//! Damaged bytes are found, never served, and healed: from another server, or from the source.

use crate::client::TestSite;
use serde_json::json;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Bytes that do not compress, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A site with package `docs`, whose one file is noise; the file's content.
async fn site_with_noise() -> (TestSite, String) {
    let site = TestSite::with(|config| config.listen = SocketAddr::from(([127, 0, 0, 1], 0)));
    let source = site.folder.path().join("files");
    std::fs::create_dir(&source).unwrap();
    let bytes = noise(2_000_000);
    std::fs::write(source.join("noise"), &bytes).unwrap();
    let local = site.local();
    let new = json!({"name": "docs", "source": source.to_str().unwrap()});
    local.post("/api/v1/packages", new).await.expect(201);
    local.result(local.post("/api/v1/packages/docs/update", json!({})).await).await;
    (site, contentlib::Digest::of(&bytes).to_string())
}

/// Flips bits in the middle of the largest pack below `folder`.
fn damage(folder: &Path) {
    let mut largest = (0, folder.to_owned());
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.metadata().unwrap() {
                folder if folder.is_dir() => folders.push(entry.path()),
                file => largest = largest.max((file.len(), entry.path())),
            }
        }
    }
    let (_, largest) = largest;
    let mut file = std::fs::File::options().read(true).write(true).open(largest).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut bytes = [0; 16];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&bytes.map(|byte| !byte)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_healed_from_another_server() {
    let (site, digest) = site_with_noise().await;
    let (other, _) = site_with_noise().await;
    let stop = CancellationToken::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    let serving =
        tokio::spawn(api::serve(other.site.clone(), Default::default(), stop.clone(), |address| {
            tell.send(address).unwrap();
        }));
    let address = told.await.unwrap();
    let local = site.local();
    damage(&site.site.folder().join("library/packs"));
    let verify = || local.post("/api/v1/library/verify", json!({}));
    let found = local.result(verify().await).await;
    assert_eq!(found["bad_contents"][0]["digest"], digest);
    assert_eq!(found["bad_contents"][0]["holders"][0]["label"], "noise");
    let shown = local.get(&format!("/api/v1/content/{digest}")).await.expect(200).json;
    assert_eq!(shown["suspect"], true);
    let check = format!("/api/v1/content/{digest}/verify");
    let job = local.finish(local.post(&check, json!({})).await).await;
    assert_eq!(job["problem"]["status"], 503);
    assert_ne!(local.get("/api/v1/library/suspects").await.expect(200).json["items"], json!([]));

    let gone = json!({"from": "http://127.0.0.1:9"});
    let job = local.finish(local.post("/api/v1/library/repair", gone).await).await;
    assert_eq!(job["problem"]["status"], 502, "{job}");
    let from = json!({"from": format!("http://{address}/")});
    let healed = local.result(local.post("/api/v1/library/repair", from).await).await;
    assert_eq!((healed["wanted"] == healed["healed"], &healed["lost"]), (true, &json!([])));
    let found = local.result(verify().await).await;
    assert_eq!((&found["bad_contents"], &found["bad_chunks"]), (&json!([]), &json!([])));
    local.result(local.post(&check, json!({})).await).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn damage_is_healed_from_the_source() {
    let (site, digest) = site_with_noise().await;
    let local = site.local();
    damage(&site.site.folder().join("library/packs"));
    local.result(local.post("/api/v1/library/verify", json!({})).await).await;
    let everything = json!({"rescan": "everything"});
    let again = local.post("/api/v1/packages/docs/update", everything).await;
    assert_eq!(local.result(again).await["unchanged"], true);
    let check = format!("/api/v1/content/{digest}/verify");
    local.result(local.post(&check, json!({})).await).await;
}

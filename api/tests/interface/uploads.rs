//! Trees that clients send.

use crate::client::{Answer, Client, TestSite};
use axum::body::Body;
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Expect, Frame, Recipe, Ref, RefChange};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use packager::manifest::{Entry, FileEntry, Kind, ManifestBuilder};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A tar of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        let mut head = [0_u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(b"0000644");
        head[108..115].copy_from_slice(b"0000000");
        head[116..123].copy_from_slice(b"0000000");
        head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        head[136..147].copy_from_slice(b"00000000000");
        head[156] = b'0';
        head[257..265].copy_from_slice(b"ustar\x0000");
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(head);
        out.extend(*bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

async fn put(client: &Client, package: &str, body: Vec<u8>) -> Answer {
    let headers = [("content-type", "application/x-tar")];
    let path = format!("/api/v1/packages/{package}/tar");
    client.send("PUT", &path, &headers, Body::from(body)).await
}

#[tokio::test]
async fn a_tar_becomes_a_version() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    operator.post("/api/v1/packages", json!({"name": "tools"})).await.expect(201);
    let whole = tar(&[("a/one.txt", b"one"), ("two.bin", &[2; 70_000])]);
    let made = put(&operator, "tools", whole.clone()).await.expect(201);
    assert_eq!(made.json["version"], 2);
    assert_eq!(made.header("location"), "/api/v1/packages/tools/versions/2");
    let same = put(&operator, "tools", whole.clone()).await.expect(200);
    assert_eq!(
        (same.json["version"].as_u64(), same.json["unchanged"].as_bool()),
        (Some(2), Some(true))
    );
    let tree = operator.get("/api/v1/packages/tools/versions/2/tree?recursive=true").await;
    let paths: Vec<_> = tree.json["items"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
    assert_eq!(paths, ["a", "a/one.txt", "two.bin"]);

    put(&operator, "tools", tar(&[("../up", b"x")])).await.refused(422, "../up");
    put(&operator, "tools", tar(&[("/abs", b"x")])).await.refused(422, "/abs");
    put(&operator, "tools", whole[..1000].to_vec()).await.refused(400, "body");
    put(&operator, "tools", b"no tar at all".repeat(100)).await.refused(400, "body");
    put(&operator, "tools", b"\x1f\x8b\x08 gzip".to_vec()).await.refused(415, "body");
    put(&operator, "none", whole.clone()).await.refused(404, "package");
    let cut = [Ok(whole[..3000].to_vec()), Err(std::io::Error::other("hung up"))];
    let body = Body::from_stream(futures::stream::iter(cut));
    let path = "/api/v1/packages/tools/tar";
    operator.send("PUT", path, &[], body).await.refused(400, "body");
    let shown = operator.get("/api/v1/packages/tools").await.expect(200).json;
    assert_eq!(shown["latest"]["version"], 2, "nothing came of the wrong ones");

    let source = site.source("files");
    let local = site.local();
    local.post("/api/v1/packages", json!({"name": "docs", "source": source})).await.expect(201);
    put(&local, "docs", whole).await.expect(409);
}

const FRAMES: [(&str, &str); 1] = [("content-type", "application/vnd.depot.frames")];
const RECIPES: [(&str, &str); 1] = [("content-type", "application/vnd.depot.recipes")];
const MANIFEST: [(&str, &str); 1] = [("content-type", "application/vnd.depot.manifest")];

/// Frames with these chunks, one to a frame.
fn frames(chunks: &[&[u8]]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    for chunk in chunks {
        let chunk = bytes::Bytes::copy_from_slice(chunk);
        FrameItem::Block(Frame::pack(&[chunk], true)).encode(&mut out);
    }
    FrameItem::End.encode(&mut out);
    out.to_vec()
}

/// A manifest of these files.
fn manifest(files: &[(&str, Digest, u64)]) -> Vec<u8> {
    let mut builder = ManifestBuilder::with_capacity(files.len());
    for (path, digest, size) in files {
        let kind = Kind::File(FileEntry { size: *size, digest: *digest, recipe: None });
        builder.push(Entry { path: path.as_bytes(), mode: 0o644, mtime: 0, kind }).unwrap();
    }
    builder.finish().encode()
}

/// Two chunks, the content that they make up, and its recipe.
fn large() -> ([Vec<u8>; 2], Digest, Recipe) {
    let chunks = [vec![1; 200_000], vec![2; 150_000]];
    let spans = chunks.iter().map(|chunk| (ChunkId(Digest::of(chunk)), chunk.len() as u32));
    let recipe = Recipe::new(spans).unwrap();
    let digest = Digest::of(&chunks.concat());
    (chunks, digest, recipe)
}

async fn begin(client: &Client) -> String {
    client.post("/api/v1/packages", json!({"name": "tools"})).await.expect(201);
    let begun = client.send("POST", "/api/v1/packages/tools/uploads", &[], Body::empty()).await;
    begun.expect(201).header("location").to_owned()
}

#[tokio::test]
async fn a_push_sends_what_is_missing_and_becomes_a_version() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let upload = begin(&operator).await;
    let ([one, two], digest, recipe) = large();
    let small = Digest::of(b"small");
    let ids = json!({"chunks": [Digest::of(&one), Digest::of(&two), small], "contents": [digest]});
    let offer = format!("{upload}/missing");
    assert_eq!(operator.post(&offer, ids.clone()).await.expect(200).json, ids);
    let sent = frames(&[&one, b"small"]);
    let put = |path: String, headers, body: Vec<u8>| {
        let operator = operator.clone();
        async move { operator.send("PUT", &path, headers, Body::from(body)).await }
    };
    let received = put(format!("{upload}/frames"), &FRAMES, sent).await.expect(200).json;
    assert_eq!(received["received_bytes"], 200_005);
    let missing = operator.post(&offer, ids.clone()).await.expect(200).json;
    assert_eq!(missing, json!({"chunks": [Digest::of(&two)], "contents": [digest]}));
    let recipes = api::routes::uploads::encode_recipes([(digest, &recipe)]);
    let taken = put(format!("{upload}/recipes"), &RECIPES, recipes.clone()).await.expect(200).json;
    assert_eq!(taken["recipes"][0]["missing_chunks"], json!([Digest::of(&two)]));

    // Committed too early, it names what is missing and goes on.
    let tree = manifest(&[("large", digest, 350_000), ("small", small, 5)]);
    let commit = |body: Vec<u8>| {
        let (operator, path) = (operator.clone(), format!("{upload}/commit"));
        async move { operator.send("POST", &path, &MANIFEST, Body::from(body)).await }
    };
    commit(tree.clone()).await.refused(409, &digest.to_string());
    commit(manifest(&[("small", small, 6)])).await.refused(422, "small");
    commit(b"no manifest".to_vec()).await.refused(400, "body");

    put(format!("{upload}/frames"), &FRAMES, frames(&[&two])).await.expect(200);
    let taken = put(format!("{upload}/recipes"), &RECIPES, recipes).await.expect(200).json;
    assert_eq!(taken["recipes"][0]["missing_chunks"], json!([]));
    let shown = operator.get(&upload).await.expect(200).json;
    assert_eq!(shown["received_bytes"], 350_005);
    let listed = operator.get("/api/v1/uploads").await.expect(200).json;
    assert_eq!(listed["items"], json!([shown]));
    let done = commit(tree).await.expect(201);
    assert_eq!(done.header("location"), "/api/v1/packages/tools/versions/2");
    operator.get(&upload).await.refused(404, "upload");
    let bytes = site.local().get(&format!("/api/v1/content/{digest}/bytes")).await.expect(200);
    assert_eq!(bytes.body, [one, two].concat());
    let log = site.local().get("/api/v1/audit").await.expect(200).json;
    let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|r| &r["action"]).collect();
    assert_eq!(&actions[..2], ["commit_upload", "commit_upload"]);
    assert!(!actions.iter().any(|action| *action == "put_frames"));
}

#[tokio::test]
async fn an_upload_that_lies_or_breaks_off_leaves_nothing_wrong() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let upload = begin(&operator).await;
    let path = format!("{upload}/frames");
    let put = |headers, body: Vec<u8>| {
        let (operator, path) = (operator.clone(), path.clone());
        async move { operator.send("PUT", &path, headers, Body::from(body)).await }
    };
    let whole = frames(&[b"first", b"second"]);
    let cut = whole[..whole.len() - 14].to_vec();
    let detail = |answer: Answer| answer.json["detail"].as_str().unwrap().to_owned();
    let text = detail(put(&FRAMES, cut).await.refused(400, "body"));
    assert!(text.contains("after 1 whole") && text.contains("offer the chunks again"), "{text}");
    let held = json!({"chunks": [Digest::of(b"first"), Digest::of(b"never")]});
    let missing = operator.post(&format!("{upload}/missing"), held).await.expect(200).json;
    assert_eq!(missing["chunks"], json!([Digest::of(b"never")]), "what came whole is kept");
    let hung_up = [Ok(frames(&[b"third"])[..20].to_vec()), Err(std::io::Error::other("hung up"))];
    let hung_up = Body::from_stream(futures::stream::iter(hung_up));
    let text = detail(operator.send("PUT", &path, &FRAMES, hung_up).await.refused(400, "body"));
    assert!(text.contains("after 0 whole") && text.contains("are kept"), "{text}");
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    put(&FRAMES, flipped).await.refused(400, "body");
    put(&FRAMES, b"no frames at all".to_vec()).await.refused(400, "body");
    put(&RECIPES, whole).await.refused(415, "content-type");
    let ([one, two], digest, recipe) = large();
    put(&FRAMES, frames(&[&one, &two])).await.expect(200);
    let lie = api::routes::uploads::encode_recipes([(Digest::of(b"something else"), &recipe)]);
    let recipes = format!("{upload}/recipes");
    operator.send("PUT", &recipes, &RECIPES, Body::from(lie)).await.expect(422);
    let cut = api::routes::uploads::encode_recipes([(digest, &recipe)])[..40].to_vec();
    operator.send("PUT", &recipes, &RECIPES, Body::from(cut)).await.refused(400, "recipes[0]");
    let many = vec![digest; 4097];
    let missing = format!("{upload}/missing");
    operator.post(&missing, json!({"contents": many})).await.refused(422, "contents");
    operator.post(&missing, json!({"chunks": ["md5:0"]})).await.refused(422, "chunks[0]");
    operator.delete(&upload).await.expect(204);
    operator.delete(&upload).await.refused(404, "upload");
    operator.get("/api/v1/uploads/xyz").await.refused(400, "upload");
    let shown = operator.get("/api/v1/packages/tools").await.expect(200).json;
    assert_eq!(shown["latest"]["version"], 1);
}

#[tokio::test]
async fn an_upload_that_cannot_be_read_is_named_beside_the_others_and_can_be_given_up() {
    let site = TestSite::new();
    let operator = site.client("operator").await;
    let whole = begin(&operator).await;
    let another = operator.send("POST", "/api/v1/packages/tools/uploads", &[], Body::empty()).await;
    let broken = another.expect(201).header("location").to_owned();
    let id = broken.rsplit('/').next().unwrap();
    let library = site.site.content().unwrap().library;
    let to = Ref { root: None, value: "no JSON".into() };
    let set = RefChange::Set { name: format!("upload/{id}"), to, expect: Expect::Any };
    library.session().commit(vec![set]).unwrap();

    let listed = operator.get("/api/v1/uploads").await.expect(200).json;
    assert_eq!(listed["items"], json!([operator.get(&whole).await.expect(200).json]));
    assert_eq!(listed["unreadable"][0]["id"], id);
    let detail = listed["unreadable"][0]["detail"].as_str().unwrap();
    assert!(detail.contains(id) && detail.contains("expected"), "{detail}");
    let offer = operator.post(&format!("{broken}/missing"), json!({})).await;
    for refused in [operator.get(&broken).await, offer] {
        let detail = refused.refused(409, "upload").json["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("give it up"), "{detail}");
    }
    let begun = operator.send("POST", "/api/v1/packages/tools/uploads", &[], Body::empty()).await;
    let begun = begun.expect(201).header("location").to_owned();

    operator.delete(&broken).await.expect(204);
    operator.get(&broken).await.refused(404, "upload");
    operator.delete(&begun).await.expect(204);
    let listed = operator.get("/api/v1/uploads").await.expect(200).json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert!(listed.get("unreadable").is_none(), "{listed}");
}

#[tokio::test]
async fn uploads_that_do_not_move_leave_all_else_its_threads_and_are_told_to_come_back() {
    let patience = Duration::from_millis(300);
    let site = TestSite::with(|config| {
        config.api.rate = 0;
        config.dp.stall_timeout = patience;
    });
    let operator = site.client("operator").await;
    let upload = begin(&operator).await;
    let path = format!("{upload}/frames");
    let hang_up = CancellationToken::new();
    // Also if the test fails: the runtime waits for its threads.
    let _hang_up = hang_up.clone().drop_guard();
    // More than the runtime has threads for what blocks.
    let stalled: FuturesUnordered<_> = (0..600)
        .map(|_| {
            let (operator, path, hang_up) = (operator.clone(), path.clone(), hang_up.clone());
            let gone = async move {
                hang_up.cancelled().await;
                Err::<Vec<u8>, _>(std::io::Error::other("hung up"))
            };
            let body = Body::from_stream(futures::stream::once(gone));
            tokio::spawn(async move { operator.send("PUT", &path, &FRAMES, body).await })
        })
        .collect();
    let (refused, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answered = stalled.for_each(|answer| {
        let answer = answer.unwrap();
        match answer.status {
            503 => {
                assert_eq!(answer.header("retry-after"), "10");
                refused.fetch_add(1, Relaxed);
            }
            _ => drop((answer.refused(400, "body"), taken.fetch_add(1, Relaxed))),
        }
        std::future::ready(())
    });
    let meanwhile = async {
        let listed = tokio::time::timeout(Duration::from_secs(20), operator.get("/api/v1/uploads"));
        let listed = listed.await.expect("there is a thread for it").expect(200).json;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        while refused.load(Relaxed) < 600 - 64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        hang_up.cancel();
    };
    tokio::join!(answered, meanwhile);
    assert_eq!((refused.load(Relaxed), taken.load(Relaxed)), (600 - 64, 64));
    let frames = Body::from(frames(&[b"now"]));
    operator.send("PUT", &path, &FRAMES, frames).await.expect(200);
}

#[tokio::test]
async fn a_push_that_is_not_used_for_the_configured_time_is_gone_and_the_answer_says_what_to_do() {
    let expire = Duration::from_millis(300);
    let site = TestSite::with(|config| config.upload.expire = expire);
    let operator = site.client("operator").await;
    let upload = begin(&operator).await;
    tokio::time::sleep(2 * expire).await;
    let offer = operator.post(&format!("{upload}/missing"), json!({})).await;
    let detail = offer.refused(404, "upload").json["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("begin another"), "{detail}");
    operator.get(&upload).await.refused(404, "upload");
    let frames = Body::from(frames(&[b"late"]));
    operator.send("PUT", &format!("{upload}/frames"), &FRAMES, frames).await.refused(404, "upload");
    let tree = Body::from(manifest(&[]));
    let commit = format!("{upload}/commit");
    operator.send("POST", &commit, &MANIFEST, tree).await.refused(404, "upload");
    let listed = operator.get("/api/v1/uploads").await.expect(200).json;
    assert_eq!(listed["items"], json!([]));
    let again = operator.send("POST", "/api/v1/packages/tools/uploads", &[], Body::empty()).await;
    again.expect(201);
}

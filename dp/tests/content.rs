//! Content over HTTP, as curl sees it: whole, ranges, preconditions, errors, both protocols.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Point, curl, noise, point, prose};
use contentlib::{Digest, Name};
use std::fs;

const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

#[test]
fn content_comes_back_whole_over_both_protocols() {
    let point = point();
    let contents = [
        vec![],
        b"x".to_vec(),
        noise(1024, 1),
        noise(100_000, 2),
        noise(5 << 20, 3),
        prose(300, 4),
        prose(100_000, 5),
        prose(5 << 20, 6),
    ];
    for bytes in &contents {
        let digest = point.add(bytes);
        for protocol in PROTOCOLS {
            // Twice: looked up, then hot.
            for _ in 0..2 {
                let got = curl(&[protocol, &point.url(&format!("/content/{digest}"))]);
                assert_eq!(got.status, 200);
                assert!(got.body == *bytes, "{} bytes over {protocol}", bytes.len());
                assert_eq!(got.header("content-length").unwrap(), bytes.len().to_string());
                assert_eq!(got.header("etag").unwrap(), format!("\"{digest}\""));
                assert_eq!(got.header("accept-ranges"), Some("bytes"));
                assert!(got.header("cache-control").unwrap().contains("immutable"));
                assert!(got.header("date").is_some());
            }
        }
    }
}

#[test]
fn aliases_and_encoded_colons_name_the_same_content() {
    let point = point();
    let bytes = b"aliased".to_vec();
    let digest = point.add(&bytes);
    let sha256 = "sha256:9da9e1cbd0f9fc19e8bca4aeb3d6b4d8a6a58d5c9b2d5a2e29b3c1b6a1a4b0e1";
    let unknown = curl(&[&point.url(&format!("/content/{sha256}"))]);
    assert_eq!(unknown.status, 404);
    let output = std::process::Command::new("sh")
        .args(["-c", "printf aliased | sha256sum; printf aliased | sha1sum"])
        .output()
        .unwrap();
    let sums = String::from_utf8(output.stdout).unwrap();
    let mut sums = sums.lines().map(|line| line.split(' ').next().unwrap());
    for name in
        [format!("sha256:{}", sums.next().unwrap()), format!("sha1:{}", sums.next().unwrap())]
    {
        let got = curl(&[&point.url(&format!("/content/{name}"))]);
        assert_eq!((got.status, got.body), (200, bytes.clone()));
        assert_eq!(
            got.headers.iter().find(|(n, _)| n == "etag").unwrap().1,
            format!("\"{digest}\"")
        );
    }
    let encoded = digest.to_string().replace(':', "%3A");
    assert_eq!(curl(&[&point.url(&format!("/content/{encoded}"))]).body, bytes);
}

#[test]
fn head_says_what_get_would() {
    let point = point();
    for bytes in [noise(1000, 1), noise(1 << 20, 2), prose(1 << 20, 3)] {
        let url = point.url(&format!("/content/{}", point.add(&bytes)));
        for protocol in PROTOCOLS {
            let without_date = |mut headers: Vec<(String, String)>| {
                headers.retain(|(name, _)| name != "date");
                headers
            };
            let get = curl(&[protocol, &url]);
            let head = curl(&[protocol, "--head", &url]);
            assert_eq!(head.status, 200);
            assert_eq!(without_date(head.headers), without_date(get.headers));
            // No byte follows: the next answer on the connection begins right there.
            let both = ["--next", "--silent", protocol, &url, "--output", "/dev/null"];
            assert_eq!(
                curl(&[&[protocol, "--head", url.as_str()][..], &both[..]].concat()).status,
                200
            );
            // Ranges are for GET alone.
            assert_eq!(curl(&[protocol, "--head", "-r", "0-1", &url]).status, 200);
        }
    }
}

#[test]
fn single_ranges_are_cut_out() {
    let point = point();
    for bytes in [noise(2000, 1), noise(3 << 20, 2), prose(3 << 20, 3)] {
        let n = bytes.len();
        let url = point.url(&format!("/content/{}", point.add(&bytes)));
        for protocol in PROTOCOLS {
            for (range, first, past) in [
                ("0-0".to_owned(), 0, 1),
                ("100-199".to_owned(), 100, 200),
                (format!("{}-", n - 7), n - 7, n),
                ("-100".to_owned(), n - 100, n),
                (format!("1-{}", n * 2), 1, n),
                (format!("{}-{}", n / 3, n / 2), n / 3, n / 2 + 1),
            ] {
                let got = curl(&[protocol, "-r", &range, &url]);
                assert_eq!(got.status, 206, "{range}");
                assert!(got.body == bytes[first..past], "{range}");
                let want = format!("bytes {first}-{}/{n}", past - 1);
                assert_eq!(got.header("content-range"), Some(want.as_str()));
                assert_eq!(got.header("content-length").unwrap(), (past - first).to_string());
            }
        }
    }
}

#[test]
fn several_ranges_come_as_parts() {
    let point = point();
    for bytes in [noise(2000, 1), noise(3 << 20, 2), prose(1 << 20, 3)] {
        let n = bytes.len();
        let url = point.url(&format!("/content/{}", point.add(&bytes)));
        for protocol in PROTOCOLS {
            let got = curl(&[protocol, "-r", "500-599,0-99,-100,550-650", &url]);
            assert_eq!(got.status, 206);
            let kind = got.header("content-type").unwrap();
            let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
            let mut want = Vec::new();
            for (at, (first, past)) in [(0, 100), (500, 651), (n - 100, n)].into_iter().enumerate()
            {
                let before = if at == 0 { "" } else { "\r\n" };
                want.extend_from_slice(
                    format!(
                        "{before}--{boundary}\r\ncontent-type: application/octet-stream\r\n\
                         content-range: bytes {first}-{}/{n}\r\n\r\n",
                        past - 1
                    )
                    .as_bytes(),
                );
                want.extend_from_slice(&bytes[first..past]);
            }
            want.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert!(got.body == want);
            assert_eq!(got.header("content-length").unwrap(), want.len().to_string());
            assert_eq!(got.header("content-range"), None);
        }
        let many: Vec<String> = (0..17).map(|i| format!("{}-{}", 3 * i, 3 * i)).collect();
        assert_eq!(curl(&["-r", &many.join(","), &url]).status, 200);
    }
}

#[test]
fn a_range_past_the_end_is_416() {
    let point = point();
    let url = point.url(&format!("/content/{}", point.add(&noise(1000, 1))));
    for protocol in PROTOCOLS {
        let got = curl(&[protocol, "-r", "1000-", &url]);
        assert_eq!(got.status, 416);
        assert_eq!(got.header("content-range"), Some("bytes */1000"));
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
        assert_eq!(got.json()["status"], 416);
    }
    // What is no range is ignored.
    for header in ["Range: bytes=5-1", "Range: lines=1-2", "Range: bytes=x"] {
        assert_eq!(curl(&["-H", header, &url]).status, 200, "{header}");
    }
}

#[test]
fn preconditions_are_kept_to() {
    let point = point();
    let bytes = noise(1000, 1);
    let digest = point.add(&bytes);
    let url = point.url(&format!("/content/{digest}"));
    let status = |header: &str| curl(&["-H", header, &url]).status;
    assert_eq!(status(&format!("If-None-Match: \"{digest}\"")), 304);
    assert_eq!(status(&format!("If-None-Match: \"x\", W/\"{digest}\"")), 304);
    assert_eq!(status("If-None-Match: *"), 304);
    assert_eq!(status("If-None-Match: \"x\""), 200);
    assert_eq!(status(&format!("If-Match: \"{digest}\"")), 200);
    assert_eq!(status("If-Match: \"x\""), 412);
    let not_modified = curl(&["-H", "If-None-Match: *", &url]);
    assert!(not_modified.body.is_empty());
    assert_eq!(not_modified.header("etag").unwrap(), format!("\"{digest}\""));
    assert_eq!(not_modified.header("content-length"), None);

    let ranged =
        |if_range: &str| curl(&["-r", "0-9", "-H", &format!("If-Range: {if_range}"), &url]);
    assert_eq!(ranged(&format!("\"{digest}\"")).status, 206);
    for other in ["\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT", &format!("W/\"{digest}\"")] {
        let got = ranged(other);
        assert_eq!((got.status, got.body.len()), (200, 1000), "{other}");
    }
}

#[test]
fn what_is_not_there_or_not_a_name_is_a_problem_document() {
    let point = point();
    let unknown = Digest::of(b"unknown");
    for (path, status, says) in [
        (format!("/content/{unknown}"), 404, unknown.to_string()),
        (format!("/recipes/{unknown}"), 404, unknown.to_string()),
        ("/content/blake3:00".to_owned(), 400, "blake3:00".to_owned()),
        ("/content/md5:00".to_owned(), 400, "md5:00".to_owned()),
        (format!("/content/blake3:{}", "A".repeat(64)), 400, "lower-case".to_owned()),
        ("/content/%zz".to_owned(), 400, "hex digits".to_owned()),
        ("/nothing".to_owned(), 404, "nothing".to_owned()),
        ("/".to_owned(), 404, "nothing".to_owned()),
        ("/api/v1/x".to_owned(), 404, "content alone".to_owned()),
    ] {
        let got = curl(&[&point.url(&path)]);
        assert_eq!(got.status, status, "{path}");
        // It may be there the next time.
        assert_eq!(got.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
        let problem = got.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(&says), "{problem}");
        let field = problem["errors"][0]["field"].as_str();
        assert_eq!(field.is_some(), status == 400, "{problem}");
    }
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    let point = point();
    let url = point.url(&format!("/content/{}", point.add(b"x")));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let got = curl(&["-X", method, &url]);
        assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let got = curl(&[&point.url("/chunks")]);
    assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
}

#[test]
fn revoked_content_is_gone_at_once_and_comes_back() {
    let point = point();
    let digest = point.add(b"secret");
    let url = point.url(&format!("/content/{digest}"));
    assert_eq!(curl(&[&url]).status, 200);
    point.packages.revoke(digest, "leaked").unwrap();
    let got = curl(&[&url]);
    assert_eq!((got.status, got.header("cache-control")), (410, Some("no-store")));
    assert!(got.json()["detail"].as_str().unwrap().contains("revoked"));
    point.packages.unrevoke(digest).unwrap();
    assert_eq!(curl(&[&url]).status, 200);
}

#[test]
fn a_flipped_bit_is_503_and_never_a_wrong_byte() {
    let point = point();
    for bytes in [noise(300_000, 1), prose(300_000, 2), noise(2000, 3)] {
        let digest = point.add(&bytes);
        let url = point.url(&format!("/content/{digest}"));
        point.library.seal_idle().unwrap();
        // Hot, mapped and verified before the damage.
        assert!(curl(&[&url]).body == bytes);
        flip_bits(&point);
        let got = curl(&[&url]);
        match got.status {
            // Small contents are kept in memory, where they are still right.
            200 => assert!(got.body == bytes),
            503 => assert!(got.header("retry-after").is_some()),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn damage_is_503_whatever_part_is_asked_for() {
    let point = point();
    for (range, seed) in [("0-9", 1), ("0-9,200000-200009", 2)] {
        let url = point.url(&format!("/content/{}", point.add(&noise(300_000, seed))));
        point.library.seal_idle().unwrap();
        flip_bits(&point);
        assert_eq!(curl(&["--range", range, &url]).status, 503, "{range}");
    }
}

/// What is known to be damaged anywhere is 503 from its first byte on, and for HEAD; what is not
/// known yet ends the answer, and is known from then on.
#[test]
fn known_damage_is_503_wherever_it_is() {
    let point = point();
    let bytes = noise(700_000, 3);
    let digest = point.add(&bytes);
    point.library.seal_idle().unwrap();
    let chunks = point.library.recipe(digest).unwrap();
    let last = chunks.spans().last().unwrap();
    assert!(last.bytes.start > 0, "several chunks");
    flip_in(&point, &bytes[last.bytes.start as usize + 100..][..64]);
    let url = point.url(&format!("/content/{digest}"));
    assert!(curl(&[&url]).body.len() < bytes.len(), "found out on the way");
    for asked in [&["--head"][..], &["--range", "0-9"], &[]] {
        let got = curl(&[asked, &[&url]].concat());
        assert_eq!(got.status, 503, "{asked:?}");
        assert!(got.header("retry-after").is_some());
    }
    let chunk = point.url(&format!("/content/{}", last.chunk.0));
    assert_eq!(curl(&["--head", &chunk]).status, 503);
    // Whoever has the bytes heals it.
    assert_eq!(point.add(&bytes), digest);
    assert_eq!(curl(&[&url]).body, bytes);
}

/// Flips a bit in the one place in all packs where `part` lies.
fn flip_in(point: &common::Point, part: &[u8]) {
    for path in walk(&point.folder.path().join("library/packs")) {
        let mut pack = fs::read(&path).unwrap();
        if let Some(at) = pack.windows(part.len()).position(|window| window == part) {
            pack[at] ^= 1;
            return fs::write(&path, pack).unwrap();
        }
    }
    panic!("no pack has these bytes");
}

/// Flips a bit in every thousand bytes of all packs.
fn flip_bits(point: &common::Point) {
    use std::os::unix::fs::FileExt;
    for pack in walk(&point.folder.path().join("library/packs")) {
        let file = fs::File::options().read(true).write(true).open(pack).unwrap();
        let len = file.metadata().unwrap().len();
        let mut at = 200;
        while at < len {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            at += 1000;
        }
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn recipes_put_content_together() {
    let point = point();
    let bytes = noise(3 << 20, 1);
    let digest = point.add(&bytes);
    let got = curl(&[&point.url(&format!("/recipes/{digest}"))]);
    assert_eq!(got.status, 200);
    let recipe = contentlib::Recipe::decode(&got.body).unwrap();
    assert_eq!(recipe.size(), bytes.len() as u64);
    assert_eq!(got.header("etag").unwrap(), format!("\"{}\"", recipe.digest()));
    assert!(point.library.resolve(&Name::Blake3(digest)).unwrap().is_some());
}

#[test]
fn chunks_come_as_frames_and_missing_ones_are_named() {
    use contentlib::frames::{FrameDecoder, FrameItem};
    let point = point();
    let bytes = [noise(2 << 20, 1), prose(2 << 20, 2)].concat();
    let recipe = point.library.recipe(point.add(&bytes)).unwrap();
    let absent = contentlib::ChunkId(Digest::of(b"absent"));
    let mut ids: Vec<_> = recipe.chunks().to_vec();
    ids.push(absent);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("ids.json");
    fs::write(&json, serde_json::json!({ "chunks": ids }).to_string()).unwrap();
    let binary = folder.path().join("ids");
    fs::write(&binary, ids.iter().flat_map(|id| *id.0.as_bytes()).collect::<Vec<u8>>()).unwrap();
    for (file, kind) in [(&json, "application/json"), (&binary, dp::IDS_TYPE)] {
        for protocol in PROTOCOLS {
            let data = format!("@{}", file.display());
            let kind = format!("Content-Type: {kind}");
            let got = curl(&[protocol, "--data-binary", &data, "-H", &kind, &point.url("/chunks")]);
            assert_eq!(got.status, 200);
            let mut decoder = FrameDecoder::default();
            decoder.push(&got.body);
            let (mut chunks, mut missing) = (std::collections::HashMap::new(), vec![]);
            while let Some(item) = decoder.next_item().unwrap() {
                match item {
                    FrameItem::Block(frame) => chunks.extend(frame.chunks().unwrap()),
                    FrameItem::Missing(id) => missing.push(id),
                    FrameItem::End => {}
                }
            }
            assert!(decoder.is_complete());
            assert_eq!(missing, [absent]);
            let whole: Vec<u8> =
                recipe.chunks().iter().flat_map(|id| chunks[id].to_vec()).collect();
            assert!(whole == bytes);
        }
    }
}

/// Asks for chunks: the blocks that came, decoded, and the chunks that are named as missing.
fn ask_for(point: &common::Point, ids: &[Digest]) -> (Vec<Vec<Digest>>, Vec<Digest>) {
    use contentlib::frames::{FrameDecoder, FrameItem};
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids");
    fs::write(&file, ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>()).unwrap();
    let (kind, data) = (format!("Content-Type: {}", dp::IDS_TYPE), format!("@{}", file.display()));
    let got = curl(&["--data-binary", &data, "-H", &kind, &point.url("/chunks")]);
    assert_eq!(got.status, 200);
    let mut decoder = FrameDecoder::default();
    decoder.push(&got.body);
    let (mut blocks, mut missing) = (vec![], vec![]);
    while let Some(item) = decoder.next_item().unwrap() {
        match item {
            FrameItem::Block(frame) => {
                // By their bytes, whatever the frame says.
                let chunks = frame.chunks().unwrap();
                blocks.push(chunks.iter().map(|(_, bytes)| Digest::of(bytes)).collect());
            }
            FrameItem::Missing(id) => missing.push(id.0),
            FrameItem::End => {}
        }
    }
    assert!(decoder.is_complete());
    (blocks, missing)
}

#[test]
fn revoked_content_comes_neither_as_a_chunk_nor_in_the_block_of_its_neighbours() {
    let point = point();
    let package = point.package("tools");
    let small: Vec<Vec<u8>> = (0..20).map(|n| prose(2000, n)).collect();
    for (n, bytes) in small.iter().enumerate() {
        common::write(&point.source("tools").join(n.to_string()), bytes);
    }
    point.update(&package);
    let ids: Vec<Digest> = small.iter().map(|bytes| Digest::of(bytes)).collect();
    let (blocks, missing) = ask_for(&point, &ids);
    assert_eq!((blocks.concat().len(), missing), (20, vec![]));
    let block = blocks.into_iter().find(|block| block.len() > 2).expect("they share blocks");
    let (revoked, neighbours) = block.split_first().unwrap();
    point.packages.revoke(*revoked, "leaked").unwrap();
    let (blocks, missing) = ask_for(&point, &ids);
    assert_eq!((blocks.concat().len(), missing), (19, vec![*revoked]));
    assert!(!blocks.concat().contains(revoked));
    assert_eq!(ask_for(&point, &block), (vec![neighbours.to_vec()], vec![*revoked]));
    assert_eq!(ask_for(&point, &neighbours[..1]), (vec![neighbours[..1].to_vec()], vec![]));
    assert_eq!(ask_for(&point, &[*revoked]), (vec![], vec![*revoked]));
    point.packages.unrevoke(*revoked).unwrap();
    assert_eq!(ask_for(&point, &[*revoked]), (vec![vec![*revoked]], vec![]));

    // Chunks of a larger one may be other contents' too.
    let large = point.add(&noise(2 << 20, 9));
    let chunks: Vec<Digest> =
        point.library.recipe(large).unwrap().chunks().iter().map(|id| id.0).collect();
    point.packages.revoke(large, "leaked").unwrap();
    assert_eq!(ask_for(&point, &chunks).1, []);
    assert_eq!(curl(&[&point.url(&format!("/recipes/{large}"))]).status, 410);
}

/// What the server answers that is asked by POST for these digests.
fn post(point: &Point, path: &str, kind: &str, ids: &[Digest]) -> common::Answer {
    let body = point.folder.path().join("ids");
    fs::write(&body, ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>()).unwrap();
    let (kind, body) = (format!("Content-Type: {kind}"), format!("@{}", body.display()));
    curl(&["-H", &kind, "--data-binary", &body, &point.url(path)])
}

#[test]
fn many_recipes_come_in_one_answer() {
    let point = point();
    let large = [1, 2].map(|n| point.add(&noise(1 << 20, n)));
    let (small, lost) = (point.add(b"small"), Digest::of(b"lost"));
    let revoked = point.add(&noise(1 << 20, 3));
    point.packages.revoke(revoked, "leaked").unwrap();
    let asked = [large[1], lost, large[0], revoked, small, large[1]];
    let got = post(&point, "/recipes", dp::recipes::REQUEST_TYPE, &asked);
    assert_eq!((got.status, got.header("content-type")), (200, Some(dp::recipes::MEDIA_TYPE)));
    let (mut rest, mut found) = (&got.body[..], vec![]);
    while let Some((digest, recipe, length)) = dp::recipes::decode_first(rest).unwrap() {
        assert_eq!(recipe, *point.library.recipe(digest).unwrap());
        found.push(digest);
        rest = &rest[length..];
    }
    assert_eq!((found, rest.len()), (vec![large[1], large[0], small], 0));
    let json = format!(r#"{{"contents":["{small}"]}}"#);
    let json = curl(&["--json", &json, &point.url("/recipes")]);
    assert_eq!((json.status, json.body.len()), (200, 36 + 8 + 36));

    assert_eq!(post(&point, "/recipes", dp::IDS_TYPE, &asked).status, 415);
    let too_many = vec![small; dp::recipes::MAX_CONTENTS + 1];
    assert_eq!(post(&point, "/recipes", dp::recipes::REQUEST_TYPE, &too_many).status, 413);
    assert_eq!(curl(&[&point.url("/recipes")]).status, 405);
}

#[test]
fn what_chunks_take_is_told_before_they_are_asked_for() {
    let point = point();
    let noise = point.add(&noise(40_000, 1));
    let zeros = point.add(&vec![0; 40_000]);
    let revoked = point.add(b"leaked");
    point.packages.revoke(revoked, "leaked").unwrap();
    let ids = [noise, zeros, revoked, Digest::of(b"lost"), noise];
    let got = post(&point, "/cost", dp::IDS_TYPE, &ids);
    let costs = got.json();
    assert_eq!((&costs["chunks"], &costs["plain"]), (&2.into(), &80_000.into()));
    let stored = costs["stored"].as_u64().unwrap();
    assert!((40_000..40_200).contains(&stored), "zeros take next to nothing: {stored}");
}

#[test]
fn bad_requests_for_chunks_are_refused() {
    let point = point();
    let url = point.url("/chunks");
    let post = |kind: &str, data: &str| {
        curl(&["-H", &format!("Content-Type: {kind}"), "--data-binary", data, &url])
    };
    assert_eq!(post("text/plain", "x").status, 415);
    assert_eq!(post("application/json", "{").status, 400);
    assert_eq!(post("application/json", r#"{"chunks":["blake3:0"]}"#).status, 400);
    assert_eq!(post(dp::IDS_TYPE, "123").status, 400);
    let folder = tempfile::tempdir().unwrap();
    for size in [32 * (dp::MAX_CHUNKS + 1), 1 << 20] {
        let file = folder.path().join("ids");
        fs::write(&file, vec![7; size]).unwrap();
        let data = format!("@{}", file.display());
        assert_eq!(post(dp::IDS_TYPE, &data).status, 413);
        // The same by a client that sends it all, whether it is told to or not.
        let kind = format!("Content-Type: {}", dp::IDS_TYPE);
        let at_once = curl(&["-H", &kind, "-H", "Expect:", "--data-binary", &data, &url]);
        assert_eq!(at_once.status, 413);
    }
}

//! Uploads that lie, break off or make no sense: each is refused with a problem document that names
//! the field, nothing of it is stored, and the server goes on as before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::{Bytes, BytesMut};
use contentlib::{ChunkId, Digest, Frame, Recipe, frames::FrameItem};
use packager::manifest::{Entry, FileEntry, Kind, ManifestBuilder};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};
use support::{Answer, Site, noise, request, temp_folder};

const FRAMES: &str = "application/vnd.depot.frames";
const RECIPES: &str = "application/vnd.depot.recipes";
const MANIFEST: &str = "application/vnd.depot.manifest";

/// A site with a package `p` that takes uploads and has one version, and its admin.
struct Target {
    site: Site,
    bearer: String,
    // Last, so that nobody works in it any more when it is dropped.
    folder: tempfile::TempDir,
}

impl Target {
    fn new() -> Self {
        let folder = temp_folder();
        let limits = ["--set", "upload.max_size=8MiB", "--set", "api.max_body=64KiB"];
        let site = Site::start_with(&folder.path().join("data"), &limits);
        let token = fs::read_to_string(site.token_file()).unwrap();
        site.depot(["package", "create", "p"]).ok();
        Self { site, bearer: format!("Bearer {}", token.trim()), folder }
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Answer {
        let headers = [("Authorization", self.bearer.as_str()), ("Content-Type", media_type)];
        self.site.request(method, path, &headers, body)
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, "application/json", body.to_string().as_bytes())
    }

    fn put_tar(&self, archive: &[u8]) -> Answer {
        self.send("PUT", "/api/v1/packages/p/tar", "application/x-tar", archive)
    }

    /// Begins an upload and answers its address.
    fn begin(&self) -> String {
        let answer = self.json("POST", "/api/v1/packages/p/uploads", &json!({}));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    /// The package has version 1 and nothing else, and the site answers.
    #[track_caller]
    fn is_as_before(&self, smuggled: &[&[u8]]) {
        let answer = self.send("GET", "/api/v1/packages/p/versions", "", b"");
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), 1);
        for bytes in smuggled {
            let found = self.site.get(&format!("/content/{}", Digest::of(bytes)));
            assert_eq!(found.status, 404, "what was refused is served");
        }
        assert_eq!(self.site.get("/readyz").status, 200);
    }

    /// All that a person would do next works.
    fn stays_healthy(self) {
        let archive = tar(&[entry("fine", b'0', b"fine"), END.to_vec()]);
        let made = self.put_tar(&archive);
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(self.site.get("/packages/p/latest/fine").body, b"fine");
        self.site.depot(["library", "verify"]).ok();
        assert_eq!(self.site.stop(), Some(0));
    }
}

/// Asserts a problem document of that status which names `field`, or any of several with `|`.
#[track_caller]
fn refused(what: &str, answer: &Answer, status: u16, field: &str) {
    assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}: {problem}");
    assert!(!problem["detail"].as_str().unwrap().is_empty(), "{what}: {problem}");
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .map(|errors| errors.iter().map(|e| e["field"].as_str().unwrap()).collect())
        .unwrap_or_default();
    let named = field.is_empty() || field.split('|').any(|field| fields.contains(&field));
    assert!(named, "{what}: wants the field {field}: {problem}");
}

/// A tar header of the kind that POSIX describes, with a right checksum.
fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        // GNU's binary form for what eleven octal digits cannot hold.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"14000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn entry(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = header(name.as_bytes(), kind, bytes.len() as u64, b"").to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

const END: [u8; 1024] = [0; 1024];

fn tar(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn archives_that_no_package_can_be_made_of_are_refused_whole() {
    let target = Target::new();
    let good = b"a good file before the bad one".as_slice();
    let with = |bad: Vec<u8>| tar(&[entry("good", b'0', good), bad, END.to_vec()]);
    let linked =
        |name: &str, kind, to: &str| header(name.as_bytes(), kind, 0, to.as_bytes()).to_vec();
    let long_name = |name: &[u8]| {
        let mut long = header(b"././@LongLink", b'L', name.len() as u64 + 1, b"").to_vec();
        long.extend_from_slice(name);
        long.resize((long.len() + 1).next_multiple_of(512), 0);
        [long, entry("short", b'0', b"x")].concat()
    };
    let mut bad_sum = entry("sum", b'0', b"x");
    bad_sum[148] ^= 1;
    let pax = |record: &str| {
        let record = format!("{} {record}\n", record.len() + 4);
        [entry("PaxHeaders/x", b'x', record.as_bytes()), entry("plain", b'0', b"x")].concat()
    };
    let too_long = "n".repeat(256);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("a path that leads out", with(entry("../out", b'0', b"x")), 422, "../out"),
        ("a path that leads out later", with(entry("a/../../out", b'0', b"x")), 422, "a/../../out"),
        ("an absolute path", with(entry("/etc/passwd", b'0', b"x")), 422, "/etc/passwd"),
        ("a path of a pax header that leads out", with(pax("path=../out")), 422, "../out"),
        ("a device", with(linked("dev", b'3', "")), 422, "dev"),
        ("a block device", with(linked("blk", b'4', "")), 422, "blk"),
        ("a pipe", with(linked("fifo", b'6', "")), 422, "fifo"),
        ("a kind that nobody knows", with(linked("what", b'Z', "")), 422, "what"),
        ("a sparse file", with(entry("sparse", b'S', b"x")), 422, "sparse"),
        ("what a fetch keeps", with(entry(".depot/state", b'0', b"x")), 422, ".depot/state"),
        ("a path twice", with(entry("good", b'0', b"other")), 422, "good"),
        ("a file in a file", with(entry("good/in", b'0', b"x")), 422, "good/in"),
        (
            "a file in a link",
            with([linked("l", b'2', "/tmp"), entry("l/in", b'0', b"x")].concat()),
            422,
            "l/in",
        ),
        ("a hard link to what is outside", with(linked("hard", b'1', "../good")), 422, "hard"),
        ("a hard link to nothing", with(linked("hard", b'1', "nothing")), 422, "hard"),
        ("a name of 256 bytes", with(long_name(&[b'n'; 256])), 422, &too_long),
        ("a wrong checksum", with(bad_sum), 400, "body"),
        (
            "a size that is no number",
            {
                let mut bad = entry("size", b'0', b"x");
                bad[124..130].copy_from_slice(b"999xyz");
                with(resummed(bad))
            },
            400,
            "body",
        ),
        (
            "a size of nearly 2^63",
            with(header(b"huge", b'0', (1 << 63) - 600, b"").to_vec()),
            400,
            "body",
        ),
        (
            "more bytes than there are",
            with(header(b"long", b'0', 4 << 20, b"").to_vec()),
            400,
            "body",
        ),
        ("a huge extended header", with(header(b"pax", b'x', 1 << 40, b"").to_vec()), 400, "body"),
        ("a broken pax record", with(entry("pax", b'x', b"99 path=x\n")), 400, "body"),
        ("no end mark", entry("good", b'0', good), 400, "body"),
        ("nothing", Vec::new(), 400, "body"),
        ("no archive", noise(3, 100_000), 400, "body"),
        ("text", b"<html>not an archive</html>".repeat(100), 400, "body"),
        ("gzip", [b"\x1f\x8b\x08\0".as_slice(), &noise(4, 1000)].concat(), 415, "body"),
    ];
    for (what, archive, status, field) in &cases {
        refused(what, &target.put_tar(archive), *status, field);
        target.is_as_before(&[good]);
    }
    // In half, and compressed in half.
    let whole =
        tar(&[entry("good", b'0', good), entry("big", b'0', &noise(5, 1 << 20)), END.to_vec()]);
    for cut in [1, 511, 512, 700, 1024, 1 << 19, whole.len() - 1025] {
        refused("a cut archive", &target.put_tar(&whole[..cut]), 400, "body");
    }
    let packed = compressed(&whole);
    for cut in [4, 5, packed.len() / 2, packed.len() - 1] {
        refused("a cut zstd stream", &target.put_tar(&packed[..cut]), 400, "body");
    }
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 4;
    // Of noise, which is stored as it is: only the frame's checksum tells.
    refused("a flipped bit", &target.put_tar(&flipped), 400, "body");
    target.is_as_before(&[good]);
    target.stays_healthy();
}

/// Bytes as the command line tool compresses them.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("zstd")
        .args(["-q", "-c"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    feeding.join().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

/// With the checksum that the header has now.
fn resummed(mut entry: Vec<u8>) -> Vec<u8> {
    entry[148..156].fill(b' ');
    let sum: u32 = entry[..512].iter().map(|byte| u32::from(*byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    entry
}

#[test]
fn a_small_archive_that_unpacks_to_very_much_is_cut_off_at_the_limit() {
    let target = Target::new();
    // A gigabyte of zeros in a few kilobytes.
    let mut bomb = header(b"zeros", b'0', 1 << 30, b"").to_vec();
    bomb.resize(bomb.len() + (64 << 20), 0);
    let packed = compressed(&bomb);
    assert!(packed.len() < 64 << 10);
    refused("a bomb that is cut off", &target.put_tar(&packed), 400, "body");
    // Above the limit as it comes, stated and not.
    let archive = tar(&[entry("big", b'0', &noise(6, 9 << 20)), END.to_vec()]);
    let stated =
        raw(&target, "PUT", "/api/v1/packages/p/tar", &[("Content-Length", "99999999")], b"");
    refused("a stated size above the limit", &stated, 413, "body");
    let mut chunked = Vec::new();
    for piece in archive.chunks(1 << 20) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let headers = [("Transfer-Encoding", "chunked")];
    let unstated = raw(&target, "PUT", "/api/v1/packages/p/tar", &headers, &chunked);
    refused("a size above the limit that nobody stated", &unstated, 413, "body");
    target.is_as_before(&[&noise(6, 9 << 20)]);
    target.stays_healthy();
}

/// A request that a client library would not send; an answer before its end is an answer.
fn raw(target: &Target, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let address = target.site.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: {}\r\n",
        target.bearer
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // The server may have said no and closed by now.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes.split_off(end + 4) }
}

fn encoded(items: &[FrameItem]) -> Vec<u8> {
    let mut out = BytesMut::new();
    items.iter().for_each(|item| item.encode(&mut out));
    out.to_vec()
}

fn block(chunks: &[&[u8]]) -> FrameItem {
    let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    FrameItem::Block(Frame::pack(&chunks, true))
}

fn recipe_body(digest: Digest, recipe: &[u8]) -> Vec<u8> {
    [digest.as_bytes().as_slice(), &(recipe.len() as u32).to_le_bytes(), recipe].concat()
}

fn manifest_of(files: &[(&str, u64, Digest)]) -> Vec<u8> {
    let mut builder = ManifestBuilder::with_capacity(files.len());
    for (path, size, digest) in files {
        let file = FileEntry { size: *size, digest: *digest, recipe: None };
        let path = path.as_bytes();
        builder.push(Entry { path, mode: 0o644, mtime: 0, kind: Kind::File(file) }).unwrap();
    }
    builder.finish().encode()
}

#[test]
fn a_push_that_lies_gets_nothing_stored_under_a_name_that_is_not_its() {
    let target = Target::new();
    let upload = target.begin();
    let at = |step: &str| format!("{upload}/{step}");
    let (one, two) = (noise(1, 40_000), noise(2, 50_000));
    let ids: Vec<String> = [&one, &two].map(|bytes| Digest::of(bytes).to_string()).into();

    // Other bytes than were offered: they are what they are, and what was offered is missing still.
    let offer = json!({ "chunks": ids });
    let missing = target.json("POST", &at("missing"), &offer);
    assert_eq!(missing.json()["chunks"].as_array().unwrap().len(), 2);
    let lie = encoded(&[block(&[b"something else"]), FrameItem::End]);
    assert_eq!(target.send("PUT", &at("frames"), FRAMES, &lie).status, 200);
    let missing = target.json("POST", &at("missing"), &offer).json();
    assert_eq!(missing["chunks"].as_array().unwrap().len(), 2, "a lie counts as nothing");

    // Frames that are none.
    let good = encoded(&[block(&[&one]), block(&[&two]), FrameItem::End]);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let huge = [[1, 0, 1, 0].as_slice(), &[0xff; 8]].concat();
    for (what, body) in [
        ("nothing", Vec::new()),
        ("noise", noise(3, 5000)),
        ("a flipped bit", flipped(1000)),
        ("an unknown kind", flipped(0)),
        ("a length without end", huge),
        ("bytes after the end", [good.as_slice(), b"more"].concat()),
        ("no end mark", encoded(&[block(&[&one])])),
        ("half a frame", good[..20_000].to_vec()),
    ] {
        refused(what, &target.send("PUT", &at("frames"), FRAMES, &body), 400, "body");
    }
    // Commit of what is not there.
    let digest_of = |bytes: &[u8]| Digest::of(bytes);
    let never = digest_of(b"never sent");
    let manifest = manifest_of(&[("never", 10, never)]);
    let answer = target.send("POST", &at("commit"), MANIFEST, &manifest);
    refused("a commit of missing contents", &answer, 409, &never.to_string());

    // The same frames several times over.
    for _ in 0..3 {
        assert_eq!(target.send("PUT", &at("frames"), FRAMES, &good).status, 200);
    }
    let missing = target.json("POST", &at("missing"), &offer).json();
    assert_eq!(missing["chunks"], json!([]));

    // Recipes that lie.
    let (a, b) = (ChunkId(digest_of(&one)), ChunkId(digest_of(&two)));
    let whole = [one.as_slice(), &two].concat();
    let right = Recipe::new([(a, one.len() as u32), (b, two.len() as u32)]).unwrap();
    let swapped = Recipe::new([(b, two.len() as u32), (a, one.len() as u32)]).unwrap();
    let long = Recipe::new([(a, one.len() as u32 + 1), (b, two.len() as u32)]).unwrap();
    let name = digest_of(&whole);
    let put = |body: &[u8]| target.send("PUT", &at("recipes"), RECIPES, body);
    refused("a recipe of other bytes", &put(&recipe_body(name, &swapped.encode())), 422, "");
    // A chunk of another length than it has is one that nobody has.
    let taken = put(&recipe_body(name, &long.encode()));
    assert_eq!(taken.json()["recipes"][0]["missing_chunks"], json!([a.0.to_string()]));
    refused("a recipe cut off", &put(&recipe_body(name, &right.encode())[..60]), 400, "recipes[0]");
    refused("no recipe", &put(&recipe_body(name, &noise(1, 80))), 400, "recipes[0]");
    let unknown = Recipe::new([(ChunkId(digest_of(b"unknown")), 7)]).unwrap();
    let taken = put(&recipe_body(digest_of(b"unknown"), &unknown.encode()));
    let absent = json!([digest_of(b"unknown").to_string()]);
    assert_eq!(taken.json()["recipes"][0]["missing_chunks"], absent, "{taken:?}");
    assert_eq!(target.site.get(&format!("/content/{name}")).status, 404);
    assert_eq!(put(&recipe_body(name, &right.encode())).status, 200);

    // Manifests that lie.
    let commit = |body: &[u8]| target.send("POST", &at("commit"), MANIFEST, body);
    refused("no manifest", &commit(&noise(9, 400)), 400, "body");
    let manifest = manifest_of(&[("f", 7, name)]);
    refused("a wrong size", &commit(&manifest), 422, "f");
    let manifest = manifest_of(&[(".depot", whole.len() as u64, name)]);
    refused("the name of what a fetch keeps", &commit(&manifest), 422, ".depot");
    let manifest = manifest_of(&[("f", whole.len() as u64, name)]);
    refused("a manifest cut off", &commit(&manifest[..manifest.len() - 1]), 400, "body");
    let versions = target.send("GET", "/api/v1/packages/p/versions", "", b"").json();
    assert_eq!(versions["items"].as_array().unwrap().len(), 1);

    // And the truth, after all these lies.
    let made = commit(&manifest);
    assert_eq!(made.status, 201, "{made:?}");
    assert!(target.site.get("/packages/p/latest/f").body == whole);
    refused("an upload that is over", &commit(&manifest), 404, "upload");
    target.stays_healthy();
}

#[test]
fn uploads_that_nobody_began_or_that_are_over_are_unknown() {
    let target = Target::new();
    let over = target.begin();
    assert_eq!(target.json("DELETE", &over, &json!({})).status, 204);
    let never = format!("/api/v1/uploads/{}", "0".repeat(32));
    for upload in [&over, &never] {
        refused("show", &target.send("GET", upload, "", b""), 404, "upload");
        refused("abort", &target.json("DELETE", upload, &json!({})), 404, "upload");
        let offer = json!({ "chunks": [] });
        refused("offer", &target.json("POST", &format!("{upload}/missing"), &offer), 404, "upload");
        let frames = encoded(&[block(&[b"x"]), FrameItem::End]);
        let answer = target.send("PUT", &format!("{upload}/frames"), FRAMES, &frames);
        refused("frames", &answer, 404, "upload");
        let answer = target.send("PUT", &format!("{upload}/recipes"), RECIPES, b"");
        refused("recipes", &answer, 404, "upload");
        let answer = target.send("POST", &format!("{upload}/commit"), MANIFEST, &manifest_of(&[]));
        refused("commit", &answer, 404, "upload");
    }
    refused("no id", &target.send("GET", "/api/v1/uploads/nope", "", b""), 400, "upload");
    target.is_as_before(&[b"x"]);
    target.stays_healthy();
}

#[test]
fn connections_that_break_off_inside_a_body_leave_nothing() {
    let target = Target::new();
    let upload = target.begin();
    let file = noise(11, 300_000);
    let archive = tar(&[entry("file", b'0', &file), END.to_vec()]);
    let frames = encoded(&[block(&[&file[..100_000]]), FrameItem::End]);
    let address = target.site.url.trim_start_matches("http://");
    for (method, path, media_type, body) in [
        ("PUT", "/api/v1/packages/p/tar".to_owned(), "application/x-tar", &archive),
        ("PUT", format!("{upload}/frames"), FRAMES, &frames),
        ("PUT", "/api/v1/content".to_owned(), "application/octet-stream", &file),
    ] {
        for (sent, reset) in [(0, false), (100, false), (60_000, false), (60_000, true)] {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
                 Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
                target.bearer,
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body[..sent]).unwrap();
            if reset {
                let at_once = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&stream, at_once).unwrap();
            } else {
                // Half closed: the server may still answer, and must not wait for more.
                stream.shutdown(Shutdown::Write).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                assert!(!answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
            }
        }
    }
    target.is_as_before(&[&file, &file[..100], &file[..60_000], &file[..100_000]]);
    target.stays_healthy();
}

#[test]
fn requests_that_make_no_sense_name_the_field() {
    let target = Target::new();
    let json_at = |method: &str, path: &str, body: &str| {
        target.send(method, path, "application/json", body.as_bytes())
    };
    let packages = "/api/v1/packages";
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", packages, "{", 400, "body"),
        ("POST", packages, "\"text\"", 422, "body"),
        ("POST", packages, "{\"name\": \"x\"} tail", 400, "body"),
        ("POST", packages, "{}", 422, "body|name"),
        ("POST", packages, "{\"name\": 7}", 422, "name"),
        ("POST", packages, "{\"name\": \"x\", \"sorce\": \"/tmp\"}", 422, "sorce"),
        ("POST", packages, "{\"name\": \"x\", \"keep\": 0}", 422, "keep"),
        ("POST", packages, "{\"name\": \"x\", \"keep\": -1}", 422, "keep"),
        ("POST", packages, "{\"name\": \"x\", \"keep\": 99999999999}", 422, "keep"),
        ("POST", packages, "{\"name\": \"\"}", 422, "name"),
        ("POST", packages, "{\"name\": \"UPPER\"}", 422, "name"),
        ("POST", packages, "{\"name\": \"../up\"}", 422, "name"),
        ("POST", packages, "{\"name\": \"a b\"}", 422, "name"),
        ("POST", packages, "{\"name\": \"x\", \"source\": \"relative\"}", 422, "source"),
        ("POST", packages, "{\"name\": \"x\", \"source\": \"/nowhere/at/all\"}", 422, "source"),
        ("POST", packages, "{\"name\": \"x\", \"source\": \"/etc/passwd\"}", 422, "source"),
        ("POST", packages, "{\"name\": \"p\"}", 409, "name"),
        ("GET", "/api/v1/packages/UPPER", "", 400, "package"),
        ("GET", "/api/v1/packages/none", "", 404, "package"),
        ("GET", "/api/v1/packages/p/versions/99", "", 404, "version"),
        ("GET", "/api/v1/packages/p/versions/-1", "", 400, "version"),
        ("GET", "/api/v1/packages/p/versions/nightly", "", 404, "channel"),
        ("GET", "/api/v1/packages?limit=0", "", 400, "limit"),
        ("GET", "/api/v1/packages?limit=x", "", 400, "limit"),
        ("GET", "/api/v1/packages?limt=1", "", 400, "limt"),
        ("GET", "/api/v1/packages?cursor=junk", "", 400, "cursor"),
        ("PUT", "/api/v1/packages/p/channels/latest", "{\"version\": \"1\"}", 400, "channel"),
        ("PUT", "/api/v1/packages/p/channels/test", "{\"version\": \"0\"}", 422, "version"),
        ("PUT", "/api/v1/packages/p/retention", "{\"keep\": 0}", 422, "keep"),
        ("POST", "/api/v1/library/verify", "{\"read_percent\": 101}", 422, "read_percent"),
        ("POST", "/api/v1/library/repair", "{\"from\": \"ftp://x\"}", 422, "from"),
        ("PUT", "/api/v1/revocations/blake3:00", "{\"reason\": \"x\"}", 400, "digest"),
        ("GET", "/api/v1/content/sha512:00", "", 400, "digest"),
        ("GET", "/api/v1/jobs/none", "", 404, ""),
        ("GET", "/api/v1/nothing", "", 404, ""),
        ("PATCH", packages, "", 405, ""),
        ("POST", "/api/v1/tokens", "{\"name\": \"x\", \"role\": \"king\"}", 422, "role"),
    ];
    for (method, path, body, status, field) in cases {
        refused(&format!("{method} {path} {body}"), &json_at(method, path, body), *status, field);
    }
    let unknown = format!("/api/v1/content/{}", Digest::of(b"unknown"));
    refused("an unknown digest", &json_at("GET", &unknown, ""), 404, "");

    let text = target.send("POST", packages, "text/plain", b"{\"name\": \"x\"}");
    refused("a wrong media type", &text, 415, "content-type");
    let upload = target.begin();
    for (step, method) in [("frames", "PUT"), ("recipes", "PUT"), ("commit", "POST")] {
        let answer = target.send(method, &format!("{upload}/{step}"), "application/json", b"{}");
        refused(step, &answer, 415, "content-type");
    }
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    refused("a large body", &json_at("POST", packages, &large), 413, "body");
    let many: Vec<String> =
        (0..5000).map(|n: u32| Digest::of(&n.to_le_bytes()).to_string()).collect();
    let many =
        json_at("POST", &format!("{upload}/missing"), &json!({ "chunks": many }).to_string());
    refused("too many digests", &many, 413, "body");
    let digest = json!({ "chunks": ["blake3:xyz"] });
    let answer = target.json("POST", &format!("{upload}/missing"), &digest);
    refused("a digest that is none", &answer, 422, "chunks[0]");
    let lie = format!("/api/v1/content?digest={}", Digest::of(b"other"));
    let lie = target.send("PUT", &lie, "application/octet-stream", b"bytes");
    refused("bytes that are not what was stated", &lie, 422, "");
    target.is_as_before(&[b"bytes"]);
    target.stays_healthy();
}

#[test]
fn content_by_digest_is_there_or_unknown_or_malformed() {
    let target = Target::new();
    let get = |path: &str| target.site.get(path);
    let zeros = "0".repeat(64);
    for good in
        [format!("blake3:{zeros}"), format!("sha256:{zeros}"), format!("sha1:{}", &zeros[..40])]
    {
        refused(&good, &get(&format!("/content/{good}")), 404, "");
    }
    for bad in [
        "blake3:".to_owned(),
        format!("blake3:{}", &zeros[1..]),
        format!("blake3:{zeros}0"),
        format!("blake3:{}", "A".repeat(64)),
        format!("md5:{}", &zeros[..32]),
        zeros.clone(),
        "%00".to_owned(),
        "%zz".to_owned(),
        format!("blake3:{zeros}/"),
    ] {
        refused(&bad, &get(&format!("/content/{bad}")), 400, "");
        refused(&bad, &get(&format!("/recipes/{bad}")), 400, "");
    }
    for (path, status) in [
        ("/packages/none/latest/", 404),
        ("/packages/p/99/", 404),
        ("/packages/p/latest/none", 404),
        ("/packages/UPPER/latest/", 400),
        ("/packages/p/latest/a//b", 400),
        ("/nothing", 404),
    ] {
        refused(path, &get(path), status, "");
    }
    target.stays_healthy();
}

#[test]
fn a_token_opens_what_its_role_allows_and_nothing_else() {
    let target = Target::new();
    let site = &target.site;
    let token = |role: &str| {
        let file = target.folder.path().join(role);
        let args = ["token", "create", role, "--role", role, "--output", file.to_str().unwrap()];
        site.depot(args).ok();
        format!("Bearer {}", fs::read_to_string(file).unwrap().trim())
    };
    let (reader, operator) = (token("reader"), token("operator"));
    let archive = tar(&[entry("x", b'0', b"x"), END.to_vec()]);
    let address = site.url.trim_start_matches("http://");
    let ask = |who: Option<&str>, method: &str, path: &str, body: &[u8]| {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(who.map(|who| ("Authorization", who)));
        request(address, method, path, &headers, body).unwrap()
    };
    let create = json!({ "name": "new" }).to_string();
    let with_source = json!({ "name": "new", "source": "/etc" }).to_string();
    let nobodies = [
        None,
        Some("Bearer "),
        Some("Bearer nonsense"),
        Some("Basic YWRtaW46YWRtaW4="),
        Some("Bearer depot_0000_0000"),
    ];
    for who in nobodies {
        for (method, path, body) in [
            ("GET", "/api/v1/packages", b"".as_slice()),
            ("POST", "/api/v1/packages", create.as_bytes()),
            ("PUT", "/api/v1/packages/p/tar", &archive),
            ("DELETE", "/api/v1/packages/p", b""),
            ("POST", "/api/v1/library/gc", b"{}"),
        ] {
            let answer = ask(who, method, path, body);
            refused(&format!("{who:?} {method} {path}"), &answer, 401, "authorization");
            assert!(answer.header("www-authenticate").is_some());
        }
    }
    for (who, method, path, body) in [
        (&reader, "POST", "/api/v1/packages", create.as_bytes()),
        (&reader, "PUT", "/api/v1/packages/p/tar", &archive),
        (&reader, "POST", "/api/v1/packages/p/uploads", b"{}"),
        (&reader, "DELETE", "/api/v1/packages/p", b""),
        (&reader, "POST", "/api/v1/library/verify", b"{}"),
        (&reader, "GET", "/api/v1/tokens", b""),
        (&operator, "POST", "/api/v1/packages", with_source.as_bytes()),
        (&operator, "POST", "/api/v1/library/gc", b"{}"),
        (&operator, "POST", "/api/v1/tokens", b"{\"name\": \"x\", \"role\": \"admin\"}"),
        (&operator, "PUT", "/api/v1/revocations/blake3:00", b"{\"reason\": \"x\"}"),
    ] {
        refused(&format!("{method} {path}"), &ask(Some(who), method, path, body), 403, "");
    }
    assert_eq!(ask(Some(&reader), "GET", "/api/v1/packages", b"").status, 200);
    let answer = ask(Some(&operator), "GET", "/api/v1/packages/new", b"");
    refused("nothing came of it", &answer, 404, "package");
    target.is_as_before(&[b"x"]);
    target.stays_healthy();
}

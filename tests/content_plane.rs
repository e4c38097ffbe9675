//! What any HTTP client can do with a site: curl, as in the README, and raw requests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;
use support::{Run, Site, noise, on_data, temp_folder, tree};

/// A site whose package `docs` has these files as version 2.
fn site_with(folder: &std::path::Path, files: &[(&[u8], &[u8])]) -> Site {
    let (data, source) = (folder.join("data"), folder.join("source"));
    tree::write(&source, files);
    let site = Site::start(&data);
    site.depot(["package", "create", "docs", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "docs"]).ok();
    site
}

/// The digest of a file of `docs`.
fn digest_of(site: &Site, path: &str) -> String {
    let entries = site.depot(["package", "tree", "docs", "--recursive", "--json"]).ok().json();
    let found = entries.as_array().unwrap().iter().find(|e| e["path"] == path).unwrap();
    found["digest"].as_str().unwrap().to_owned()
}

fn curl(args: &[&str]) -> Run {
    Run::of(support::curl().args(args))
}

#[test]
fn curl_gets_content_whole_by_range_and_by_name() {
    let folder = temp_folder();
    let large = noise(7, 3 << 20);
    let site = site_with(folder.path(), &[(b"small.txt", b"hello\n"), (b"a b/large", &large)]);
    let (url, digest) = (&site.url, digest_of(&site, "a b/large"));

    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    curl(&["-f", "-o", to, &format!("{url}/content/{digest}")]).ok();
    assert!(std::fs::read(&out).unwrap() == large);
    curl(&["-f", "-r", "100-199", "-o", to, &format!("{url}/content/{digest}")]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), large[100..200]);
    curl(&["-f", "-r", "-5", "-o", to, &format!("{url}/packages/docs/latest/a%20b/large")]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), large[large.len() - 5..]);
    // A download that was cut off goes on, as `curl -C -` does it.
    std::fs::write(&out, &large[..1_000_000]).unwrap();
    curl(&["-f", "-C", "-", "-o", to, &format!("{url}/content/{digest}")]).ok();
    assert!(std::fs::read(&out).unwrap() == large);
    let text = curl(&["-f", &format!("{url}/packages/docs/2/small.txt")]).ok().stdout;
    assert_eq!(text, "hello\n");
    // HTTP/2 without TLS.
    let version = curl(&[
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
        &format!("{url}/content/{digest}"),
    ]);
    assert_eq!(version.ok().stdout, "2 200");
}

#[test]
fn conditions_and_errors_are_those_of_http() {
    let folder = temp_folder();
    let site = site_with(folder.path(), &[(b"file", b"0123456789")]);
    let path = format!("/content/{}", digest_of(&site, "file"));

    let whole = site.get(&path);
    assert_eq!((whole.status, whole.body.as_slice()), (200, &b"0123456789"[..]));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    let etag = whole.header("etag").unwrap().to_owned();
    let status = |name: &str, value: &str| site.request("GET", &path, &[(name, value)], b"").status;
    assert_eq!(status("If-None-Match", &etag), 304);
    assert_eq!(status("If-Match", "\"other\""), 412);
    assert_eq!(status("Range", "bytes=0-3"), 206);
    assert_eq!(status("Range", "bytes=10-"), 416);
    let stale = [("Range", "bytes=0-3"), ("If-Range", "\"other\"")];
    assert_eq!(site.request("GET", &path, &stale, b"").status, 200);
    let two = site.request("GET", &path, &[("Range", "bytes=0-1,8-9")], b"");
    assert_eq!(two.status, 206);
    assert!(two.header("content-type").unwrap().starts_with("multipart/byteranges"));
    let head = site.request("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));

    let unknown = format!("/content/blake3:{}", "0".repeat(64));
    for (path, want) in [
        (unknown.as_str(), 404),
        ("/content/blake3:12", 400),
        ("/content/nonsense", 400),
        ("/packages/docs/latest/none", 404),
        ("/packages/docs/99/file", 404),
        ("/packages/none/latest/file", 404),
        ("/packages/docs/latest/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/api/v1/nothing", 404),
        ("/api/v1/packages", 401),
    ] {
        let answer = site.get(path);
        assert_eq!(answer.status, want, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let kind = answer.json()["type"].as_str().unwrap().to_owned();
        let kind = kind.strip_prefix("urn:depot:problem:").unwrap_or_else(|| panic!("{kind}"));
        let want = match want {
            400 => "malformed-request",
            401 => "unauthorized",
            _ if path.starts_with("/api/") => "unknown-route",
            _ => "not-found",
        };
        assert_eq!(kind, want, "{path}");
    }
    assert_eq!(site.get("/healthz").status, 200);
    assert!(String::from_utf8_lossy(&site.get("/metrics").body).contains("# TYPE "));
    assert_eq!(site.get("/api/openapi.json").json()["openapi"], "3.1.0");
}

#[test]
fn content_commands_read_what_curl_reads() {
    let folder = temp_folder();
    let large = noise(9, 2 << 20);
    let site = site_with(folder.path(), &[(b"large", &large)]);
    let digest = digest_of(&site, "large");

    let shown = site.depot(["content", "show", &digest, "--json"]).ok().json();
    assert_eq!((&shown["size"], &shown["suspect"]), (&(2 << 20).into(), &false.into()));
    site.depot(["content", "verify", &digest]).ok();
    let why = site.depot(["content", "why", &digest]).ok().stdout;
    assert!(why.contains("docs") && why.contains("large"), "{why}");
    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    site.depot(["content", "get", &digest, "-o", to]).ok();
    assert!(std::fs::read(&out).unwrap() == large);
    site.depot(["content", "get", &digest, "--range", "7-9", "-o", to]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), large[7..10]);
    site.depot(["content", "get", &digest, "--range", "9000000-", "-o", to]).fails(2);
    assert_eq!(std::fs::read(&out).unwrap(), large[7..10], "a failed get leaves the file alone");

    let data = site.data.clone();
    site.stop();
    on_data(&data, ["content", "get", &digest, "-o", to]).ok();
    assert!(std::fs::read(&out).unwrap() == large);
    on_data(&data, ["content", "get", &digest, "--range", "-4", "-o", to]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), large[large.len() - 4..]);
    on_data(&data, ["content", "get", &digest, "--range", "9000000-", "-o", to]).fails(2);
}

#[test]
fn a_tar_makes_a_version_with_plain_curl() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let source = folder.path().join("source");
    tree::write_odd(&source);
    site.depot(["package", "create", "tools"]).ok();
    let archive = folder.path().join("tools.tar");
    let tar = |name: &std::path::Path| {
        let mut command = Command::new("tar");
        command.args(["--format=pax", "-cf"]).arg(name).arg("-C").arg(&source).arg(".");
        Run::of(&mut command).ok();
    };
    tar(&archive);
    let token = std::fs::read_to_string(site.token_file()).unwrap();
    let put = |file: &std::path::Path| {
        let auth = format!("Authorization: Bearer {}", token.trim());
        let url = format!("{}/api/v1/packages/tools/tar", site.url);
        curl(&["-w", "\n%{http_code}", "-H", &auth, "-T", file.to_str().unwrap(), &url]).ok().stdout
    };
    assert!(put(&archive).ends_with("\n201"));
    assert!(put(&archive).ends_with("\n200"), "an unchanged tree makes no version");
    let zst = folder.path().join("tools.tar.zst");
    Run::of(Command::new("zstd").args(["-q", "-o"]).arg(&zst).arg(&archive)).ok();
    assert!(put(&zst).ends_with("\n200"));
    // Cut off in the middle: nothing of it is kept.
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let refused = put(&archive);
    assert!(refused.ends_with("\n400"), "{refused}");
    let versions = site.depot(["package", "versions", "tools", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 2);

    let data = site.data.clone();
    site.stop();
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "tools", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
}

/// What a pack is mapped for counts as the memory of the process.
#[test]
fn verifying_a_large_content_takes_little_memory() {
    let folder = temp_folder();
    let large = noise(3, 160 << 20);
    let site = site_with(folder.path(), &[(b"large", &large)]);
    let digest = digest_of(&site, "large");
    assert_eq!(site.stop(), Some(0));
    // A process that has read nothing yet.
    let site = Site::start(&folder.path().join("data"));
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    let before = peak();
    site.depot(["content", "verify", &digest]).ok();
    let taken = peak() - before;
    assert!(taken < 64 << 20, "{taken} bytes");
}

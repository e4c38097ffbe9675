//! Fetching packages into folders: exact, cheap the second time, and hard to confuse.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Point, curl, noise, point, prose, write, write_tools};
use contentlib::{Digest, Progress};
use dp::remote::{FetchOptions, FetchReport, RemoteError, fetch, repair_source};
use packager::{PackageName, SiteKey};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn tools() -> (Point, PackageName) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("tools");
    let source = point.source("tools");
    write_tools(&source);
    write(&source.join(OsStr::from_bytes(b"odd \xff\nname")), b"odd");
    fs::create_dir_all(source.join("empty-folder/inner")).unwrap();
    symlink("big.bin", source.join("link")).unwrap();
    symlink("/no/such/place", source.join("dangling")).unwrap();
    fs::set_permissions(source.join("big.bin"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(source.join("small/3"), fs::Permissions::from_mode(0o555)).unwrap();
    point.update(&package);
    (point, package)
}

fn address(point: &Point, version: &str) -> String {
    point.url(&format!("/packages/tools/{version}"))
}

async fn get(point: &Point, version: &str, out: &Path) -> FetchReport {
    fetch(&[address(point, version)], out, FetchOptions::default()).await.unwrap()
}

/// Whether two folders are the same, but for what fetching keeps.
fn assert_same(source: &Path, out: &Path) {
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference", "--exclude", ".depot"])
        .args([source, out])
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let (left, right) = (described(source), described(out));
    for (a, b) in left.iter().zip(&right) {
        assert_eq!(a, b);
    }
    assert_eq!(left.len(), right.len());
}

fn described(root: &Path) -> Vec<(PathBuf, u32, i64, i64)> {
    fn walk(root: &Path, at: &Path, all: &mut Vec<(PathBuf, u32, i64, i64)>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if name == Path::new(".depot") {
                continue;
            }
            let stat = fs::symlink_metadata(&path).unwrap();
            all.push((name, stat.mode(), stat.mtime(), stat.mtime_nsec()));
            if stat.is_dir() {
                walk(root, &path, all);
            }
        }
    }
    let mut all = Vec::new();
    walk(root, root, &mut all);
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_arrives_exactly_and_a_second_fetch_moves_nothing() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let first = get(&point, "latest", out.path()).await;
    assert_same(&point.source("tools"), out.path());
    assert!(first.trusted_on_first_use);
    assert_eq!(first.version, 2);
    assert_eq!(first.written, first.files + 2);
    // Twice the same content travels once.
    assert!(first.moved_bytes < first.bytes, "{first:?}");
    let second = get(&point, "latest", out.path()).await;
    assert_eq!((second.written, second.removed), (0, 0));
    assert!(second.moved_bytes < 2000, "{second:?}");
    assert!(!second.trusted_on_first_use);
    assert_same(&point.source("tools"), out.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_moves() {
    let (point, package) = tools();
    let out = tempfile::tempdir().unwrap();
    get(&point, "latest", out.path()).await;
    let source = point.source("tools");
    let mut big = noise(6 << 20, 1);
    big.splice(3_000_000..3_000_000, *b"inserted");
    write(&source.join("big.bin"), &big);
    fs::rename(source.join("twice/a"), source.join("moved-here")).unwrap();
    fs::remove_file(source.join("twice/b")).unwrap();
    fs::remove_dir(source.join("twice")).unwrap();
    fs::remove_dir_all(source.join("small/3")).unwrap();
    fs::set_permissions(source.join("text/prose.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    write(&source.join("new"), b"new");
    point.update(&package);
    let report = get(&point, "latest", out.path()).await;
    assert_same(&source, out.path());
    assert_eq!(report.version, 3);
    assert_eq!(report.written, 3, "{report:?}");
    assert!(report.moved_bytes < 900_000, "two chunks of 512 KiB at most: {report:?}");
    assert!(report.reused_bytes > 5 << 20, "{report:?}");
    assert!(report.removed > 40, "{report:?}");
    assert_eq!(report.kept, Vec::<String>::new());
    // And back again.
    let back = get(&point, "2", out.path()).await;
    assert_eq!(back.version, 2);
    assert!(back.moved_bytes < 1_200_000, "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_changed_is_put_right_but_never_removed() {
    let (point, package) = tools();
    let out = tempfile::tempdir().unwrap();
    get(&point, "latest", out.path()).await;
    let source = point.source("tools");
    write(&out.path().join("text/prose.txt"), b"spoiled");
    write(&out.path().join("small/0/0.conf"), b"mine now");
    write(&out.path().join("my-own"), b"own");
    fs::remove_file(out.path().join("link")).unwrap();
    fs::remove_file(source.join("small/0/0.conf")).unwrap();
    point.update(&package);
    let report = get(&point, "latest", out.path()).await;
    assert_eq!(report.kept, ["small/0/0.conf"]);
    assert_eq!(fs::read(out.path().join("small/0/0.conf")).unwrap(), b"mine now");
    assert_eq!(fs::read(out.path().join("my-own")).unwrap(), b"own");
    assert!(fs::read(out.path().join("text/prose.txt")).unwrap() == prose(3 << 20, 2));
    assert!(out.path().join("link").is_symlink());
    // Without its state the folder is compared by its bytes.
    fs::remove_dir_all(out.path().join(".depot")).unwrap();
    let again = get(&point, "latest", out.path()).await;
    assert_eq!(again.written, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_can_change_its_kind() {
    let (point, package) = tools();
    let out = tempfile::tempdir().unwrap();
    get(&point, "latest", out.path()).await;
    let source = point.source("tools");
    fs::remove_file(source.join("big.bin")).unwrap();
    write(&source.join("big.bin/now/a-folder"), b"x");
    fs::remove_dir_all(source.join("text")).unwrap();
    write(&source.join("text"), b"a file");
    fs::remove_file(source.join("link")).unwrap();
    write(&source.join("link/inside"), b"y");
    fs::remove_dir_all(source.join("small/1")).unwrap();
    symlink("0", source.join("small/1")).unwrap();
    point.update(&package);
    get(&point, "latest", out.path()).await;
    assert_same(&source, out.path());
    get(&point, "2", out.path()).await;
    get(&point, "latest", out.path()).await;
    assert_same(&source, out.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_stays() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), out.path().join("small")).unwrap();
    let error =
        fetch(&[address(&point, "latest")], out.path(), Default::default()).await.unwrap_err();
    assert!(matches!(&error, RemoteError::InTheWay(path) if path.ends_with("small")), "{error}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "links are not followed");
    fs::remove_file(out.path().join("small")).unwrap();
    write(&out.path().join("big.bin/mine"), b"x");
    let error =
        fetch(&[address(&point, "latest")], out.path(), Default::default()).await.unwrap_err();
    assert!(matches!(&error, RemoteError::InTheWay(path) if path.ends_with("big.bin")), "{error}");
    fs::remove_dir_all(out.path().join("big.bin")).unwrap();
    get(&point, "latest", out.path()).await;
    assert_same(&point.source("tools"), out.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_pinned() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let other = SiteKey::from_seed([9; 32]).public();
    let options = FetchOptions { key: Some(other), ..Default::default() };
    let error = fetch(&[address(&point, "latest")], out.path(), options).await.unwrap_err();
    assert!(matches!(error, RemoteError::NotProven(_)), "{error}");
    assert!(!out.path().join("big.bin").exists());
    let options = FetchOptions { key: Some(point.packages.public_key()), ..Default::default() };
    let report = fetch(&[address(&point, "latest")], out.path(), options).await.unwrap();
    assert!(!report.trusted_on_first_use);
    // The site's key as this folder knows it is another one.
    let state = out.path().join(".depot/state");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace(&point.packages.public_key().to_string(), &other.to_string()))
        .unwrap();
    let error =
        fetch(&[address(&point, "latest")], out.path(), Default::default()).await.unwrap_err();
    assert!(matches!(error, RemoteError::OtherKey { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_holds_one_package() {
    let (point, _) = tools();
    let other = point.package("other");
    write(&point.source("other").join("x"), b"x");
    point.update(&other);
    let out = tempfile::tempdir().unwrap();
    get(&point, "latest", out.path()).await;
    let url = point.url("/packages/other/latest");
    let error = fetch(&[&url], out.path(), Default::default()).await.unwrap_err();
    assert!(matches!(error, RemoteError::OtherPackage { .. }), "{error}");
    for (path, status) in [("/packages/none/latest", 404), ("/packages/tools/77", 404)] {
        let error = fetch(&[point.url(path)], out.path(), Default::default()).await.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { status: s, .. } if s == status), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_revoked_content_is_refused_and_says_why() {
    let (point, _) = tools();
    // Of one chunk, in a block with others; and of several.
    for (path, bytes) in [("small/2/2.conf", prose(126, 2)), ("big.bin", noise(6 << 20, 1))] {
        let digest = Digest::of(&bytes);
        point.packages.revoke(digest, "leaked").unwrap();
        let out = tempfile::tempdir().unwrap();
        let error =
            fetch(&[address(&point, "latest")], out.path(), Default::default()).await.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, RemoteError::Refused { status: 410, .. }), "{path}: {said}");
        assert!(said.contains("revoked") && said.contains(&digest.to_string()), "{said}");
        assert!(!out.path().join(path).exists(), "{path} was delivered");
        point.packages.unrevoke(digest).unwrap();
        get(&point, "latest", out.path()).await;
        assert_same(&point.source("tools"), out.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_holds_the_bytes_of_a_revoked_content_arrives_all_the_same() {
    let (point, package) = tools();
    let source = point.source("tools");
    let big = noise(6 << 20, 1);
    let chunks = point.library.recipe(Digest::of(&big)).unwrap();
    let spans: Vec<_> =
        chunks.spans().map(|s| s.bytes.start as usize..s.bytes.end as usize).collect();
    // Its first chunk, one within, and its last; the first lies in another file, too.
    let alone = [0, spans.len() / 2, spans.len() - 1].map(|at| &big[spans[at].clone()]);
    write(&source.join("also.bin"), &[alone[0], &noise(1 << 20, 5)].concat());
    write(&source.join("alone.bin"), alone[1]);
    let with_both = point.update(&package).to_string();
    fs::remove_file(source.join("alone.bin")).unwrap();
    point.update(&package);
    for bytes in alone {
        let digest = point.add(bytes);
        point.packages.revoke(digest, "leaked").unwrap();
        assert_eq!(curl(&[&point.url(&format!("/content/{digest}"))]).status, 410);
    }
    assert!(curl(&[&point.url(&format!("/content/{}", Digest::of(&big)))]).body == big);
    let out = tempfile::tempdir().unwrap();
    let report = get(&point, "latest", out.path()).await;
    assert_same(&source, out.path());
    assert!(report.moved_bytes < report.bytes, "{report:?}");

    // Where a version holds both, its bytes in the larger one do not bring it.
    let out = tempfile::tempdir().unwrap();
    let error =
        fetch(&[address(&point, &with_both)], out.path(), Default::default()).await.unwrap_err();
    assert!(matches!(error, RemoteError::Refused { status: 410, .. }), "{error}");
    assert!(error.to_string().contains(&Digest::of(alone[1]).to_string()), "{error}");
    assert!(!out.path().join("alone.bin").exists());
}

/// What a proxy does to the bytes that the server sends on one connection.
#[derive(Clone, Copy)]
enum Fault {
    /// Cuts each connection after so many bytes.
    CutAfter(usize),
    /// Flips a bit in every megabyte past the first.
    Flip,
}

/// A proxy on a free port that counts connections.
fn proxy(to: SocketAddr, fault: Fault) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
            counted.fetch_add(1, Ordering::Relaxed);
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            std::thread::spawn(move || down(server, client, fault));
        }
    });
    (address, count)
}

fn down(mut server: TcpStream, mut client: TcpStream, fault: Fault) {
    let mut buffer = [0; 16 << 10];
    let mut total = 0;
    loop {
        let n = match server.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        total += n;
        match fault {
            Fault::CutAfter(limit) if total > limit => break,
            Fault::Flip if total > 1 << 20 && total / (1 << 20) != (total - n) / (1 << 20) => {
                buffer[n / 2] ^= 4;
            }
            _ => {}
        }
        if client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_again_and_again_is_gone_on_with() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let (address, count) = proxy(point.address, Fault::CutAfter(2 << 20));
    let url = format!("http://{address}/packages/tools/latest");
    let report = fetch(&[&url], out.path(), Default::default()).await.unwrap();
    assert_same(&point.source("tools"), out.path());
    // How many requests share a connection before it is cut is a matter of timing.
    assert!(count.load(Ordering::Relaxed) > 3);
    assert!(report.moved_bytes < 3 * report.bytes, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_asked_for_again_and_never_written() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let (address, _) = proxy(point.address, Fault::Flip);
    let url = format!("http://{address}/packages/tools/latest");
    // It may succeed or give up: what is there is right.
    if fetch(&[&url], out.path(), Default::default()).await.is_err() {
        assert!(
            !out.path().join("big.bin").exists()
                || fs::read(out.path().join("big.bin")).unwrap() == noise(6 << 20, 1)
        );
    }
    get(&point, "latest", out.path()).await;
    assert_same(&point.source("tools"), out.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_was_cut_off_goes_on_from_what_it_left() {
    let (point, _) = tools();
    let out = tempfile::tempdir().unwrap();
    let urls = [address(&point, "latest")];
    let mut n_cut = 0;
    let mut moved = 0;
    let report = loop {
        let options = FetchOptions::default();
        let progress = options.progress.clone();
        let came = || progress.new_bytes.load(Ordering::Relaxed);
        let cut = async {
            while came() < 2 << 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            fetched = fetch(&urls, out.path(), options) => match fetched {
                // The cut-off fetch's last writes may still hold the folder.
                Err(RemoteError::Busy(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                report => break report.unwrap(),
            },
            () = cut => {
                n_cut += 1;
                moved += came();
            }
        }
    };
    assert_same(&point.source("tools"), out.path());
    assert!(!out.path().join(".depot/partial").exists());
    assert!(n_cut > 0);
    let plain = report.bytes;
    assert!(moved + report.moved_bytes < 2 * plain, "{n_cut} cuts, {moved} + {report:?}");
}

/// Flips bytes in all packs, and has the library find out. What is damaged.
fn spoil(point: &Point) -> Vec<Digest> {
    use std::os::unix::fs::FileExt;
    point.library.seal_idle().unwrap();
    let list = Command::new("find")
        .arg(point.folder.path().join("library/packs"))
        .args(["-name", "*.pack"])
        .output()
        .unwrap();
    for pack in String::from_utf8(list.stdout).unwrap().lines() {
        let file = fs::File::options().read(true).write(true).open(pack).unwrap();
        for at in (100_000..file.metadata().unwrap().len() - 100_000).step_by(700_000) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
        }
    }
    let damaged = found_damaged(point);
    assert!(!damaged.is_empty());
    damaged
}

/// What reading everything finds damaged.
fn found_damaged(point: &Point) -> Vec<Digest> {
    let check = contentlib::VerifyOptions { read_percent: 100, ..Default::default() };
    point.library.verify(&check, &packager::ManifestLinks, &Progress::default()).unwrap();
    point.library.damaged(&packager::ManifestLinks).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_library_is_healed_over_http() {
    let (good, _) = tools();
    let (bad, _) = tools();
    let runtime = tokio::runtime::Handle::current();
    let url = good.url("/");
    tokio::task::spawn_blocking(move || {
        let damaged = spoil(&bad);
        let mut holder = repair_source(&url, runtime).unwrap();
        let report = bad.library.repair(&damaged, &mut holder, &Progress::default()).unwrap();
        assert_eq!(report.lost, vec![]);
        assert_eq!(report.healed, report.wanted);
        assert_eq!(found_damaged(&bad), vec![]);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_holder_has_revoked_does_not_keep_the_rest_from_being_healed() {
    let (good, _) = tools();
    let (bad, _) = tools();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let damaged = spoil(&bad);
        good.packages.revoke(damaged[0], "leaked").unwrap();
        let mut holder = repair_source(&good.url("/"), runtime).unwrap();
        let report = bad.library.repair(&damaged, &mut holder, &Progress::default()).unwrap();
        // At most it, and the file that it is a chunk of.
        assert!(report.lost.len() <= 2 && report.healed > 0, "{report:?}");
    })
    .await
    .unwrap();
}

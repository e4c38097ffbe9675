//! Source folders that nobody would make on purpose, and that exist.
//!
//! What Linux can hold as file, folder or link goes through a site unchanged; what a package
//! cannot hold is refused by name, and no version comes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use support::{
    Run, Site, alone, curl, depot, noise, on_data, temp_folder,
    tree::{self, Node, Tree},
    while_repeating,
};

/// A site with a package `p` that has `source` as version 2.
fn site_from(folder: &Path, source: &Path) -> Site {
    let site = Site::start(&folder.join("data"));
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    site
}

/// `path` in a URL: every byte but the slash and the plainest letters as `%xx`.
fn percent(path: &[u8]) -> String {
    path.iter()
        .map(|byte| match byte {
            b'/' => "/".to_owned(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// Makes names of all bytes that Linux allows, beside the odd things of every test.
fn write_hostile(folder: &Path) {
    tree::write_odd(folder);
    let every_byte: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for name in every_byte.chunks(100) {
        fs::write(folder.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let names: &[&[u8]] = &[
        b"-rf",
        b" ",
        b"trailing ",
        b"..hidden",
        b"...",
        b"\\x41",
        b"back\\slash",
        b"%2e%2e",
        b"a:b*c|d<e>f",
        b"\x1b[31mred",
        b"\xed\xa0\x80 lone surrogate",
        b"cafe\xcc\x81",
        b"caf\xc3\xa9-composed",
        b"~",
        b"nul.txt",
    ];
    for (n, name) in names.iter().enumerate() {
        fs::write(folder.join(OsStr::from_bytes(name)), noise(n as u64, 100 + n)).unwrap();
        let inside = folder.join("inside").join(OsStr::from_bytes(name));
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("\n"), b"a name of one newline").unwrap();
    }
    let set_times = |name: &str, seconds: i64, nanos: i64| {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let path = folder.join(name);
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    set_times("plain.txt", -1_000_000_000, 1);
    set_times("one-chunk", 4_000_000_000, 999_999_999);
    for (name, mode) in [("large", 0o4755), ("sparse", 0o000), ("empty", 0o1777)] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn odd_names_times_and_kinds_come_back_by_every_way_there_is() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    write_hostile(&source);
    let want = tree::read(&source);
    let site = site_from(folder.path(), &source);
    let again = site.depot(["package", "update", "p"]).ok().stdout;
    assert!(again.contains("unchanged"), "{again}");

    // By any HTTP client, name by name.
    for (path, node) in &want {
        let address = format!("/packages/p/latest/{}", percent(path));
        match node {
            Node::File { bytes, .. } => {
                let answer = site.get(&address);
                assert_eq!(answer.status, 200, "{address}: {}", answer.head);
                assert!(answer.body == *bytes, "{address}");
            }
            Node::Folder { .. } => assert_eq!(site.get(&format!("{address}/")).status, 200),
            // Links are for those who take whole trees.
            Node::Link { .. } => {}
        }
    }
    let got = |path: &[u8]| {
        let url = format!("{}/packages/p/latest/{}", site.url, percent(path));
        curl().args(["--fail", "--path-as-is", &url]).output().unwrap()
    };
    assert_eq!(got(b"new\nline").stdout, b"n");
    assert_eq!(got(b"not-utf8-\xff\xfe").stdout, b"bytes");
    assert_eq!(got(b"percent%2Fname").stdout, b"p");
    for outside in ["../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "a/..%2f..%2fpasswd"] {
        let url = format!("{}/packages/p/latest/{outside}", site.url);
        let run = Run::of(curl().args(["--path-as-is", "-i", &url]));
        let status: u16 = run.stdout.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(status == 400 || status == 404, "{outside}: {}", run.stdout);
    }

    let fetched = folder.path().join("fetched");
    let url = format!("{}/packages/p/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(&fetched)).ok();
    tree::assert_same(&fetched_tree(&fetched), &want);

    // A listing names each entry on one line, without control bytes.
    let listing = site.depot(["package", "tree", "p", "--recursive"]).ok().stdout;
    assert!(listing.lines().all(|line| !line.contains(char::is_control)), "{listing:?}");
    assert_eq!(listing.lines().count(), 1 + want.len(), "a line for each, below the heads");

    site.depot(["package", "push", "sent", source.to_str().unwrap()]).ok();
    let data = site.data.clone();
    site.stop();
    for name in ["p", "sent"] {
        let out = folder.path().join(format!("restored-{name}"));
        on_data(&data, ["package", "restore", name, out.to_str().unwrap()]).ok();
        tree::assert_same(&tree::read(&out), &want);
    }
}

/// What was fetched, without the folder in which a fetch keeps its own notes.
fn fetched_tree(folder: &Path) -> Tree {
    let mut tree = tree::read(folder);
    tree.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree
}

/// Makes folders below each other from one open folder to the next, since the whole path is too
/// long for one call, and a file in the innermost. Answers the path below `top`.
fn write_deep(top: &Path, names: &[Vec<u8>], bytes: &[u8]) -> Vec<u8> {
    let (last, folders) = names.split_last().unwrap();
    let mut at = open_folder(CWD, top);
    for name in folders {
        let name = OsStr::from_bytes(name);
        mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = open_folder(&at, name);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let fd = openat(&at, OsStr::from_bytes(last), flags, Mode::from_raw_mode(0o644)).unwrap();
    fs::File::from(fd).write_all(bytes).unwrap();
    names.join(&b'/')
}

fn open_folder(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> OwnedFd {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// The bytes of the file `names` below `top`.
fn read_deep(top: &Path, names: &[Vec<u8>]) -> Vec<u8> {
    let (last, folders) = names.split_last().unwrap();
    let mut at = open_folder(CWD, top);
    for name in folders {
        at = open_folder(&at, OsStr::from_bytes(name));
    }
    let fd = openat(&at, OsStr::from_bytes(last), OFlags::RDONLY, Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    fs::File::from(fd).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Names that together with their slashes are a path of `len` bytes.
fn names_of_path(len: usize) -> Vec<Vec<u8>> {
    let mut names = vec![vec![b'd'; 255]; len / 256];
    let rest = len - names.len() * 256;
    match rest {
        0 => names.last_mut().unwrap().push(b'd'),
        rest => names.push(vec![b'f'; rest]),
    }
    if rest == 0 {
        // One too long for a name: split off from the one before.
        let last = names.pop().unwrap();
        names.push(last[..100].to_vec());
        names.push(last[101..].to_vec());
    }
    assert_eq!(names.join(&b'/').len(), len);
    names
}

#[test]
fn the_longest_path_comes_back_and_a_longer_one_is_refused_by_name() {
    let folder = temp_folder();
    // So that the system's own limit is passed well before that of a package.
    let source = folder.path().join("s".repeat(200));
    fs::create_dir(&source).unwrap();
    let longest = names_of_path(4096);
    let path = write_deep(&source, &longest, b"at the bottom");
    let site = site_from(folder.path(), &source);
    let answer = site.get(&format!("/packages/p/latest/{}", percent(&path)));
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"at the bottom"[..]));
    let fetched = folder.path().join("fetched");
    let url = format!("{}/packages/p/latest", site.url);
    let fetch = || Run::of(depot().args(["fetch", &url, "--json", "-o"]).arg(&fetched)).ok().json();
    assert_eq!(fetch()["written"], 1);
    assert_eq!(read_deep(&fetched, &longest), b"at the bottom");
    assert_eq!(fetch()["written"], 0);

    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    write_deep(&source, &names_of_path(4097), b"too deep");
    let line = site.depot(["package", "update", "p"]).fails(2);
    assert!(line.contains("4097 bytes long") && line.contains("ddddd"), "{line}");
    site.depot(["package", "push", "q", source.to_str().unwrap()]).fails(2);
    let versions = site.depot(["package", "versions", "p", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    let data = site.data.clone();
    site.stop();
    let out = folder.path().join("restored");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    assert_eq!(read_deep(&out, &longest), b"at the bottom");
}

#[test]
fn two_thousand_folders_deep_comes_back() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let names = vec![b"d".to_vec(); 2000];
    write_deep(&source, &names, b"at the bottom");
    let site = site_from(folder.path(), &source);
    let fetched = folder.path().join("fetched");
    let url = format!("{}/packages/p/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(&fetched)).ok();
    assert_eq!(read_deep(&fetched, &names), b"at the bottom");
}

#[test]
fn pipes_sockets_and_devices_are_refused_by_name() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    tree::write(&source, &[(b"good", b"1")]);
    let site = site_from(folder.path(), &source);
    let inside = source.join("inside");
    fs::create_dir(&inside).unwrap();
    mknodat(CWD, inside.join("a-pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let socket = UnixListener::bind(inside.join("a-socket")).unwrap();
    let mut want = vec!["inside/a-pipe", "inside/a-socket"];
    // Only root may make a device; 1:3 is /dev/null.
    let device = mknodat(
        CWD,
        inside.join("a-device"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    );
    if device.is_ok() {
        want.push("inside/a-device");
    }
    let update = site.depot(["package", "update", "p"]).fails(2);
    let push = site.depot(["package", "push", "q", source.to_str().unwrap()]).fails(2);
    for name in want {
        assert!(update.contains(name), "{name}: {update}");
        assert!(push.contains(name), "{name}: {push}");
    }
    drop(socket);
    fs::remove_dir_all(&inside).unwrap();
    assert!(site.depot(["package", "update", "p"]).ok().stdout.contains("unchanged"));
}

/// Somebody whom file modes bind: root reads everything, so the command runs as another user then.
struct Nobody {
    folder: PathBuf,
    is_other: bool,
}

impl Nobody {
    /// Gives `owned` to that user. Nothing, and a note, if there is no way to be another user.
    fn in_folder(folder: &Path, owned: &[&Path]) -> Option<Self> {
        let is_other = rustix::process::geteuid().is_root();
        if is_other && Command::new("setpriv").arg("--version").output().is_err() {
            let note = "SKIPPED: root may do anything, and there is no setpriv to be another\n";
            std::io::stderr().write_all(note.as_bytes()).unwrap();
            return None;
        }
        // Nobody may pass a folder that is the tester's own, or reach the binary where it was built.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(support::DEPOT, folder.join("depot")).unwrap();
        if is_other {
            for path in owned {
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
            }
        }
        Some(Self { folder: folder.into(), is_other })
    }

    fn depot(&self) -> Command {
        let binary = self.folder.join("depot");
        let program = if self.is_other { Path::new("setpriv") } else { &binary };
        let mut command = alone(Command::new(program));
        if self.is_other {
            let ids = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
            command.args(ids).arg(&binary);
        }
        command.current_dir(&self.folder);
        command
    }
}

#[test]
fn closed_folders_are_fetched_by_somebody_whom_they_close_out() {
    let folder = temp_folder();
    let (source, fetched) = (folder.path().join("source"), folder.path().join("fetched"));
    tree::write(&source, &[(b"shut/inner/file", b"1"), (b"unreadable", b"2")]);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(&fetched).unwrap();
    let Some(nobody) = Nobody::in_folder(folder.path(), &[&fetched]) else { return };
    let site = site_from(folder.path(), &source);
    // Only root can read such a source; a tar may say the same of its entries.
    let version = if nobody.is_other {
        set(&source.join("shut/inner"), 0o000);
        set(&source.join("shut"), 0o111);
        set(&source.join("unreadable"), 0o000);
        site.depot(["package", "update", "p"]).ok();
        3
    } else {
        2
    };
    let url = format!("{}/packages/p/latest", site.url);
    let fetch =
        || Run::of(nobody.depot().args(["fetch", &url, "--json", "-o"]).arg(&fetched)).ok().json();
    assert_eq!((&fetch()["written"], &fetch()["version"]), (&2.into(), &version.into()));
    assert_eq!(fetch()["written"], 0);
    let want = tree::read(&source);
    tree::assert_same(&fetched_tree(&fetched), &want);
}

#[test]
fn what_cannot_be_read_is_named_and_no_version_comes_of_it() {
    let folder = temp_folder();
    let (source, data) = (folder.path().join("source"), folder.path().join("data"));
    tree::write(&source, &[(b"good", b"1"), (b"inside/secret", b"2"), (b"shut/in", b"3")]);
    let set = |name: &str, mode| {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    set("inside/secret", 0o000);
    set("shut", 0o000);
    fs::create_dir(&data).unwrap();
    let good = source.join("good");
    let Some(nobody) = Nobody::in_folder(folder.path(), &[&data, &good]) else { return };
    let run = |args: &[&str]| Run::of(nobody.depot().arg("--data").arg(&data).args(args));
    run(&["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    let line = run(&["package", "update", "p"]).fails(2);
    assert!(line.contains("inside/secret") || line.contains("shut"), "{line}");
    set("shut", 0o755);
    let line = run(&["package", "update", "p"]).fails(2);
    assert!(line.contains("inside/secret") && line.contains("ermission denied"), "{line}");
    assert!(line.contains("1 entry of the source"), "{line}");
    let versions = run(&["package", "versions", "p", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 1);
    set("inside/secret", 0o644);
    run(&["package", "update", "p"]).ok();
    // A destination that may not be written to.
    let shut = folder.path().join("shut");
    fs::create_dir(&shut).unwrap();
    let line = run(&["package", "restore", "p", shut.join("out").to_str().unwrap()]).fails(1);
    assert!(line.contains("shut") && line.contains("ermission denied"), "{line}");
    run(&["library", "verify"]).ok();
}

/// Two files whose numbers are equal, or the first one ahead by one; each is replaced at once.
fn write_pair(source: &Path, number: u64) {
    for name in ["a", "b"] {
        let part = source.with_extension("part");
        fs::write(&part, number.to_le_bytes().repeat(40_000)).unwrap();
        fs::rename(&part, source.join(name)).unwrap();
    }
}

/// The numbers in the two files; fails if one is of two numbers.
#[track_caller]
fn numbers(tree: &Tree) -> (u64, u64) {
    let number = |name: &[u8]| {
        let Some(Node::File { bytes, .. }) = tree.get(name) else { panic!("{name:?} is no file") };
        let (first, _) = bytes.split_first_chunk::<8>().unwrap();
        assert_eq!(bytes.len(), 320_000);
        assert!(bytes.chunks(8).all(|number| number == first), "a file of two states");
        u64::from_le_bytes(*first)
    };
    (number(b"a"), number(b"b"))
}

#[test]
fn a_version_is_the_source_at_one_moment_however_it_changes() {
    let folder = temp_folder();
    let (source, data) = (folder.path().join("source"), folder.path().join("data"));
    fs::create_dir(&source).unwrap();
    // So that there is something to read between the two.
    for n in 0..20 {
        fs::write(source.join(format!("aa-{n}")), noise(n, 200_000)).unwrap();
    }
    write_pair(&source, 1);
    Site::start(&data).stop();
    on_data(&data, ["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    let (mut made, mut refused) = (0, 0);
    for round in 0.. {
        // In the end so long that an update gets through on any machine.
        let pause = match round {
            0..3 => [0, 5, 60][round],
            _ if made > 0 => break,
            _ => 400 << (round - 3),
        };
        // Never a number that was there before: equal bytes make no version, whatever their times.
        let mut number = 1 + 1_000_000 * round as u64;
        let change = || {
            number += 1;
            write_pair(&source, number);
            std::thread::sleep(Duration::from_millis(pause));
        };
        let update = || on_data(&data, ["package", "update", "p", "--json"]);
        let run = while_repeating(change, update);
        if run.code == Some(0) {
            made += 1;
            let version = &run.json()["version"];
            let out = folder.path().join(format!("out-{pause}-{version}"));
            let name = format!("p@{version}");
            on_data(&data, ["package", "restore", &name, out.to_str().unwrap()]).ok();
            let (a, b) = numbers(&tree::read(&out));
            assert!(a == b || a == b + 1, "{a} and {b} were never there together");
        } else {
            refused += 1;
            let line = run.fails(4);
            assert!(line.contains("keeps changing"), "{line}");
        }
    }
    println!("{made} versions made, {refused} refused");
    let versions = on_data(&data, ["package", "versions", "p", "--json"]).ok().json();
    assert!(versions.as_array().unwrap().len() <= 1 + made);
    on_data(&data, ["package", "update", "p"]).ok();
    let out = folder.path().join("still");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
}

#[test]
fn a_source_that_goes_away_is_named_and_the_versions_stay() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    tree::write(&source, &[(b"a", b"1")]);
    let site = site_from(folder.path(), &source);
    fs::rename(&source, folder.path().join("elsewhere")).unwrap();
    let line = site.depot(["package", "update", "p"]).fails(2);
    assert!(line.contains(source.to_str().unwrap()), "{line}");
    fs::write(&source, b"a file now").unwrap();
    site.depot(["package", "update", "p"]).fails(2);
    assert_eq!(site.get("/packages/p/latest/a").body, b"1");
    // A folder below a link that leads in circles is none either.
    fs::remove_file(&source).unwrap();
    std::os::unix::fs::symlink(&source, &source).unwrap();
    site.depot(["package", "update", "p"]).fails(2);
}

#[test]
fn nothing_is_written_through_a_link_that_lies_in_the_destination() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    tree::write(&source, &[(b"inside/file", b"of the package"), (b"top", b"of the package")]);
    let site = site_from(folder.path(), &source);
    let url = format!("{}/packages/p/latest", site.url);
    let data = site.data.clone();
    let elsewhere = folder.path().join("elsewhere");
    tree::write(&elsewhere, &[(b"file", b"of somebody else"), (b"top", b"of somebody else")]);
    let before = tree::read(&elsewhere);
    let planted = |name: &str| {
        let out = folder.path().join(name);
        fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink(&elsewhere, out.join("inside")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("top"), out.join("top")).unwrap();
        out
    };
    // Whether the link gives way or the command fails is not what matters here.
    let fetched = planted("fetched");
    let run = Run::of(depot().args(["fetch", &url, "-o"]).arg(&fetched));
    println!("{run:?}");
    tree::assert_same(&tree::read(&elsewhere), &before);
    site.stop();
    let restored = planted("restored");
    on_data(&data, ["package", "restore", "p", restored.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&elsewhere), &before);
    tree::assert_same(&tree::read(&restored), &tree::read(&source));
}

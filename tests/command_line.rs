//! What the command line promises: exit codes, one-line errors, JSON for scripts, the same answers
//! with and without a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};
use support::{Run, Site, depot, interrupt, on_data, temp_folder, tree};

#[test]
fn wrong_command_lines_are_refused_in_one_line_with_exit_code_2() {
    let cases: &[&[&str]] = &[
        &["pakage"],
        &["package", "create"],
        &["package", "show", "@3"],
        &["content", "show", "blake3:12"],
        &["content", "get", "blake3:12", "--range", "5-2"],
        &["--url", "ftp://x", "package", "list"],
        &["--data", "x", "--url", "http://x", "package", "list"],
        &["library", "verify", "--read-percent", "101"],
        &["token", "create", "x", "--expires", "soon"],
        &["serve", "--set", "nonsense"],
    ];
    for args in cases {
        let line = Run::of(depot().args(*args)).fails(2);
        assert!(line.starts_with("depot: "), "{args:?}: {line}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused_and_named() {
    let add = |args: &[&'static str]| [&["sync", "source", "add", "x"][..], args].concat();
    let rpm = ["--rpm", "http://x"];
    let cases: &[(Vec<&str>, [&str; 2])] = &[
        (add(&[&rpm[..], &["--unsigned", "--suite", "s"]].concat()), ["--rpm", "--suite"]),
        (add(&[&rpm[..], &["--unsigned", "--arch", "amd64"]].concat()), ["--rpm", "--arch"]),
        (add(&["--sdp", "x", "--unsigned", "--components", "c"]), ["--sdp", "--components"]),
        (add(&["--wsus", "http://x", "--tracker", "http://x"]), ["--wsus", "--tracker"]),
        (add(&["--wsus", "http://x", "--product", "p"]), ["--wsus", "--product"]),
        (add(&["--sdp", "x", "--keyring", "k"]), ["--sdp", "--keyring"]),
        (add(&[&rpm[..], &["--unsigned", "--keyring", "k"]].concat()), ["--unsigned", "--keyring"]),
        (add(&["--sdp", "x", "--unsigned", "--signer", "s"]), ["--unsigned", "--signer"]),
        (vec!["sync", "criteria", "set"], ["--classification", "--product"]),
        (vec!["lifecycle", "set"], ["--supersedence", "--purge-after-days"]),
        (vec!["update", "list", "--limit", "0"], ["--limit", "1 or more"]),
        (vec!["serve", "--join", "x"], ["depot site join-token create", "depot sup add"]),
        (vec!["dp", "serve", "--join", "x"], ["depot dp join-token create", "no join token"]),
        (vec!["agent", "run", "--join", "x"], ["depot client join-token create", "no join token"]),
    ];
    for (args, words) in cases {
        let line = Run::of(depot().args(["--url", "http://127.0.0.1:1"]).args(args)).fails(2);
        assert!(words.iter().all(|word| line.contains(word)), "{args:?}: {line}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = Run::of(depot().arg("--help")).ok().stdout;
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    let help = Run::of(depot().args(["package", "push", "--help"])).ok().stdout;
    assert!(help.contains("depot package push"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = Run::of(depot().args(["completions", shell])).ok().stdout;
        assert!(script.contains("depot"), "{shell}");
    }
    assert!(Run::of(depot().arg("version")).ok().stdout.starts_with("depot "));
}

#[test]
fn without_a_server_the_message_says_how_to_start_one() {
    let folder = temp_folder();
    let run = Run::of(depot().current_dir(folder.path()).args([
        "--url",
        "http://127.0.0.1:1",
        "package",
        "list",
    ]));
    assert!(run.fails(1).contains("no server answers at http://127.0.0.1:1"));
    let missing = folder.path().join("none");
    assert!(on_data(&missing, ["package", "list"]).fails(3).contains("depot serve"));
}

#[test]
fn what_is_missing_is_3_and_what_is_taken_is_4() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let source = folder.path().join("source");
    tree::write(&source, &[(b"a", b"1")]);
    let source = source.to_str().unwrap();
    site.depot(["package", "create", "docs", "--source", source]).ok();

    assert!(site.depot(["package", "create", "docs"]).fails(4).contains("docs"));
    let inside = format!("{source}/.");
    assert!(
        site.depot(["package", "create", "other", "--source", &inside]).fails(4).contains("docs")
    );
    assert_eq!(
        site.depot(["package", "show", "nothing"]).fails(3),
        "depot: there is no package nothing; create it: depot package create nothing"
    );
    assert!(site.depot(["package", "show", "docs@7"]).fails(3).contains('7'));
    assert!(site.depot(["package", "show", "docs@stable"]).fails(3).contains("stable"));
    assert!(site.depot(["job", "show", "00"]).fails(3).contains("00"));
    let unknown = format!("blake3:{}", "0".repeat(64));
    assert!(site.depot(["content", "show", &unknown]).fails(3).contains(&unknown));
    assert!(site.depot(["content", "why", &unknown]).fails(3).contains(&unknown));
    site.depot(["package", "create", "UPPER"]).fails(2);
    site.depot(["package", "create", "gone", "--source", "/nowhere/at/all"]).fails(2);
    // Nothing came of any of these.
    let list = site.depot(["package", "list", "--json"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["n_versions"], 1);
}

#[test]
fn a_folder_has_one_user_at_a_time_and_the_second_is_told_who() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let line = on_data(&site.data, ["package", "list"]).fails(4);
    assert!(line.contains("in use by process") && line.contains("depot serve"), "{line}");
    let second =
        Run::of(depot().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&site.data));
    assert!(second.fails(4).contains("in use by process"));
    let (data, site_url) = (site.data.clone(), site.url.clone());
    assert_eq!(site.stop(), Some(0), "Ctrl-C ends a server in good order");
    on_data(&data, ["package", "list"]).ok();
    assert!(support::request(&site_url[7..], "GET", "/healthz", &[], b"").is_err());
}

#[test]
fn a_taken_port_is_named() {
    let folder = temp_folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = Run::of(
        depot().args(["serve", "--listen", &address, "--data"]).arg(folder.path().join("data")),
    );
    assert!(run.fails(4).contains(&address));
}

#[test]
fn tokens_open_what_their_role_allows_and_never_stand_in_output() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    assert_eq!(fs::metadata(site.token_file()).unwrap().permissions().mode() & 0o777, 0o600);
    let as_nobody = |args: &[&str]| Run::of(depot().env("DEPOT_URL", &site.url).args(args));
    assert!(as_nobody(&["package", "list"]).fails(1).contains("--token-file"));

    let file = folder.path().join("reader.token");
    let path = file.to_str().unwrap();
    site.depot(["token", "create", "watcher", "--role", "reader", "--output", path]).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    let as_reader = |args: &[&str]| as_nobody(&[&["--token-file", path], args].concat());
    as_reader(&["package", "list"]).ok();
    let line = as_reader(&["package", "create", "x"]).fails(1);
    assert!(line.contains("operator") && !line.contains(secret.trim()), "{line}");
    // A file that is there already is not overwritten, and no token is left behind.
    let line = site.depot(["token", "create", "second", "--output", path]).fails(1);
    assert!(line.contains("is there already") && !line.contains("os error"), "{line}");
    let line = site.depot(["token", "create", "second", "--expires", "99999999d"]).fails(2);
    assert!(line.contains("--expires is too far away"), "{line}");
    let tokens = site.depot(["token", "list", "--json"]).ok();
    assert_eq!(tokens.json().as_array().unwrap().len(), 2);
    assert!(!tokens.stdout.contains(secret.trim().rsplit('_').next().unwrap()));

    site.depot(["token", "revoke", "watcher"]).ok();
    as_reader(&["package", "list"]).fails(1);
    let audit = site.depot(["audit", "--json"]).ok().json();
    let actions: Vec<&str> =
        audit.as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"revoke_token") && actions.contains(&"create_token"), "{actions:?}");
}

#[test]
fn a_package_lives_the_same_with_and_without_a_server() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    let source = folder.path().join("source");
    tree::write(&source, &[(b"a", b"one"), (b"b/c", b"two")]);
    Site::start(&data).stop();

    let source_text = source.to_str().unwrap();
    on_data(&data, ["package", "create", "docs", "--source", source_text]).ok();
    let first = on_data(&data, ["package", "update", "docs", "--json"]).ok().json();
    assert_eq!((&first["version"], &first["unchanged"]), (&2.into(), &false.into()));
    assert_eq!((&first["files"], &first["bytes"]), (&2.into(), &6.into()));
    let again = on_data(&data, ["package", "update", "docs"]).ok().stdout;
    assert!(again.contains("unchanged") && again.contains("version 2"), "{again}");

    let site = Site::start(&data);
    tree::write(&source, &[(b"a", b"three"), (b"new", b"x")]);
    fs::remove_file(source.join("b/c")).unwrap();
    let third = site.depot(["package", "update", "docs", "--json"]).ok().json();
    assert_eq!(third["version"], 3);
    let diff = site.depot(["package", "diff", "docs", "--json"]).ok().json();
    let how: Vec<(&str, &str)> = diff["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["path"].as_str().unwrap(), c["how"].as_str().unwrap()))
        .collect();
    assert_eq!(how, [("a", "content"), ("b/c", "removed"), ("new", "added")]);
    let text = site.depot(["package", "diff", "docs", "2", "3"]).ok().stdout;
    assert!(text.starts_with("M  a  (3 B to 5 B)\nD  b/c  (3 B)\nA  new  (1 B)\n"), "{text}");

    let rule = site.depot(["package", "retain", "docs", "--keep", "9", "--days", "1"]).ok().stdout;
    let said = "docs keeps 9 versions, none that was replaced more than 1 day ago\n";
    assert_eq!(rule, said);
    site.depot(["package", "channel", "set", "docs", "stable", "2"]).ok();
    site.depot(["package", "delete", "docs@2", "--yes"]).fails(4);
    site.depot(["package", "delete", "docs@2"]).fails(2);
    let gone = site.depot(["package", "delete", "docs@1", "--yes", "--json"]).ok().json();
    assert_eq!(gone["versions"], serde_json::json!([1]));
    site.stop();

    let versions = on_data(&data, ["package", "versions", "docs", "--json"]).ok().json();
    let numbers: Vec<u64> =
        versions.as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 3]);
    on_data(&data, ["package", "delete", "docs", "--yes"]).ok();
    assert_eq!(on_data(&data, ["package", "list", "--json"]).ok().stdout, "[]\n");
}

#[test]
fn jobs_can_be_detached_watched_and_listed() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let job = site.depot(["library", "verify", "--detach", "--json"]).ok().json();
    let id = job["id"].as_str().unwrap();
    let last = site.depot(["job", "watch", id, "--json"]).ok();
    let last: serde_json::Value =
        serde_json::from_str(last.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "done");
    assert!(site.depot(["job", "watch", id]).ok().stdout.contains("verify_library"));
    let list = site.depot(["job", "list", "--state", "done", "--json"]).ok().json();
    assert_eq!(list[0]["id"], id);
    site.depot(["job", "list", "--state", "asleep"]).fails(2);
    assert!(site.depot(["job", "cancel", id]).ok().stdout.contains("done"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    let source = folder.path().join("source");
    let names: Vec<String> = (0..3000).map(|n| format!("a-rather-long-file-name-{n}")).collect();
    let files: Vec<(&[u8], &[u8])> = names.iter().map(|n| (n.as_bytes(), &b"x"[..])).collect();
    tree::write(&source, &files);
    Site::start(&data).stop();
    on_data(&data, ["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    on_data(&data, ["package", "update", "p"]).ok();
    let mut listing = depot()
        .arg("--data")
        .arg(&data)
        .args(["package", "tree", "p"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(listing.stdout.take());
    let run = Run::from(listing.wait_with_output().unwrap()).ok();
    assert_eq!(run.stderr, "");
}

#[test]
fn variables_may_hold_any_bytes_but_settings_are_refused_by_name() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = temp_folder();
    let not_utf8 = OsStr::from_bytes(b"caf\xe9");
    let run = |name: &str, args: &[&str]| {
        let mut command = depot();
        Run::of(command.current_dir(folder.path()).env(name, not_utf8).args(args))
    };
    let args: [&[&str]; 3] = [
        &["config", "show"],
        &["--data", ".", "package", "list"],
        &["serve", "--data", ".", "--listen", "192.0.2.1:1"],
    ];
    for args in args {
        let line = run("DEPOT_LOG_LEVEL", args).fails(2);
        assert_eq!(line, "depot: DEPOT_LOG_LEVEL: log.level must be UTF-8");
    }
    run("OTHER", args[0]).ok();
    run("OTHER", args[1]).ok();
    assert!(run("OTHER", args[2]).fails(1).contains("192.0.2.1:1"));
    assert!(run("DEPOT_URL", &["package", "list"]).fails(2).contains("DEPOT_URL must be UTF-8"));
    assert!(run("DEPOT_TOKEN_FILE", &["package", "list"]).fails(2).contains("token file caf"));
}

#[test]
fn a_token_in_a_variable_is_not_read_and_the_user_is_told_where_it_goes() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let mut command = depot();
    command.env("DEPOT_URL", &site.url).env("DEPOT_TOKEN", "secret").args(["package", "list"]);
    let line = Run::of(&mut command).fails(1);
    assert!(line.contains("DEPOT_TOKEN is not read: put the token into a file"), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[test]
fn a_wrong_configuration_names_the_key_and_the_nearest() {
    let folder = temp_folder();
    let file = folder.path().join("depot.toml");
    fs::write(&file, "[library]\ngc_grce = \"1h\"\n").unwrap();
    let line = Run::of(depot().args(["config", "check"]).arg(&file)).fails(2);
    assert!(line.contains("library.gc_grce") && line.contains("library.gc_grace"), "{line}");
    let serve = Run::of(
        depot().args(["serve", "--config"]).arg(&file).arg("--data").arg(folder.path().join("d")),
    );
    assert_eq!(serve.fails(2), line);
    fs::write(&file, "[library]\ngc_grace = \"1h\"\n").unwrap();
    Run::of(depot().args(["config", "check"]).arg(&file)).ok();
    let example = folder.path().join("example.toml");
    fs::write(&example, Run::of(depot().args(["config", "example"])).ok().stdout).unwrap();
    Run::of(depot().args(["config", "check"]).arg(&example)).ok();
    let shown = Run::of(depot().args(["config", "show", "--json"]).arg(&file)).ok().json();
    assert_eq!(shown["library.gc_grace"], "1h");
}

/// A site that says to each request what `answer` has for its first line, then hangs. Its address,
/// and the first lines of requests as they are answered.
fn hanging_site(answer: fn(&str) -> String) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            thread::spawn(move || {
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut head = vec![String::new()];
                while head.last().unwrap() != "\r\n" {
                    let mut line = String::new();
                    request.read_line(&mut line).unwrap();
                    head.push(line);
                }
                let body = head.iter().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                });
                io::copy(&mut (&mut request).take(body.unwrap_or(0)), &mut io::sink()).unwrap();
                stream.write_all(answer(&head[1]).as_bytes()).unwrap();
                let _ = tell.send(head.swap_remove(1));
                let _ = io::copy(&mut request, &mut io::sink());
            });
        }
    });
    (url, told)
}

fn started(url: &str, args: &[&str]) -> Child {
    let mut command = depot();
    command.args(["--url", url]).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_get_that_is_interrupted_leaves_nothing_behind() {
    let half = |_: &str| "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".to_owned();
    let (url, told) = hanging_site(half);
    let folder = temp_folder();
    let (file, digest) = (folder.path().join("file"), format!("blake3:{}", "0".repeat(64)));
    let get = started(&url, &["content", "get", &digest, "-o", file.to_str().unwrap()]);
    told.recv().unwrap();
    interrupt(&get);
    assert_eq!(Run::from(get.wait_with_output().unwrap()).fails(130), "depot: interrupted");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_second_interrupt_ends_a_command_whose_site_hangs() {
    let (url, told) = hanging_site(|request| {
        let job = r#"{"id":"1","kind":"verify_library","subject":"","by":"","state":"running",
            "created":"2026-01-01T00:00:00Z","progress":{"files":0,"total_files":0,"bytes":0,
            "total_bytes":0,"new_bytes":0,"stored_bytes":0}}"#;
        match request {
            _ if request.contains("/cancel ") => String::new(),
            _ if request.contains("/events ") => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
            _ => format!(
                "HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{job}",
                job.len()
            ),
        }
    });
    let verify = started(&url, &["library", "verify"]);
    let asked = |what: &str| while !told.recv().unwrap().contains(what) {};
    asked("/events ");
    interrupt(&verify);
    asked("/cancel ");
    interrupt(&verify);
    let ended = Run::from(verify.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:?}");
}

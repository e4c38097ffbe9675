//! A site whose content is on an S3 server: it is served, its machine is lost, it dies in the
//! middle, another one wants it too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};
use support::{
    Run, Site, depot, noise,
    s3::{S3, tell},
    temp_folder,
};

const URL: &str = "s3://bucket/some/library";

/// Starts a site whose library is at [`URL`].
fn start(s3: &S3, data: &Path) -> Result<Site, String> {
    let mut serve = depot();
    s3.tell(&mut serve).args(["serve", "--listen", "127.0.0.1:0", "--library", URL]);
    serve.args(["--cache", "64MiB", "--data"]).arg(data);
    Site::start_by(serve, data)
}

/// `depot --data DATA …`, which finds the library by what the folder remembers.
fn offline(s3: &S3, data: &Path, args: &[&str]) -> Run {
    Run::of(s3.tell(&mut depot()).arg("--data").arg(data).args(args))
}

/// Names and bytes.
type Files = Vec<(String, Vec<u8>)>;

/// A folder with a few files, of `seed`.
fn source(at: &Path, seed: u64) -> Files {
    fs::create_dir_all(at).unwrap();
    let files: Files = (0..4)
        .map(|n| (format!("file{n}"), noise(seed * 100 + n, 300_000 + 100_000 * n as usize)))
        .collect();
    files.iter().for_each(|(name, bytes)| fs::write(at.join(name), bytes).unwrap());
    files
}

/// The files of a package as the content plane serves them.
fn serves(site: &Site, package: &str, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let answer = site.get(&format!("/packages/{package}/latest/{name}"));
        assert_eq!(answer.status, 200, "{name}: {}", answer.head);
        assert!(answer.body == *bytes, "{name} reads back wrong");
    }
}

#[test]
fn a_site_serves_from_a_bucket_and_any_disk_may_be_lost() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let (data, tree) = (at.path().join("data"), at.path().join("tree"));
    let files = source(&tree, 1);
    let site = start(&s3, &data).unwrap();
    site.depot(["package", "create", "tools", "--source", tree.to_str().unwrap()]).ok();
    site.depot(["package", "update", "tools"]).ok();
    serves(&site, "tools", &files);
    let held: Vec<String> = s3.objects();
    assert!(held.iter().any(|name| name.starts_with("some/library/packs/")), "{held:?}");
    assert!(held.iter().all(|name| name.starts_with("some/library/")), "{held:?}");
    assert!(!data.join("library/packs").exists());
    assert_eq!(site.stop(), Some(0));
    let lease = String::from_utf8(s3.object("some/library/lease")).unwrap();
    assert!(lease.contains("expires = 0") && lease.contains("clean = true"), "{lease}");
    let held = s3.objects();
    assert!(!held.iter().any(|name| name.contains('.')), "all packs are whole: {held:?}");

    // Again, as it was; then without anything of it that is local.
    let site = start(&s3, &data).unwrap();
    serves(&site, "tools", &files);
    site.depot(["library", "verify"]).ok();
    let refused = site.depot(["library", "volume", "add", at.path().join("v").to_str().unwrap()]);
    assert!(refused.fails(4).contains("on an object store"));
    site.kill();
    fs::remove_dir_all(data.join("library/index")).unwrap();
    fs::remove_dir_all(data.join("library/cache")).unwrap();
    let site = start(&s3, &data).unwrap();
    serves(&site, "tools", &files);
    assert_eq!(site.stop(), Some(0));
    fs::remove_dir_all(data.join("library")).unwrap();
    let site = start(&s3, &data).unwrap();
    serves(&site, "tools", &files);
    assert_eq!(site.stop(), Some(0));

    let rebuilt = offline(&s3, &data, &["library", "rebuild-index"]).ok();
    assert!(rebuilt.stdout.contains("pack"), "{}", rebuilt.stdout);
    offline(&s3, &data, &["library", "verify"]).ok();
    // A package deleted is garbage, and nothing that is kept is hit.
    let more = source(&at.path().join("more"), 2);
    let site = start(&s3, &data).unwrap();
    let from = at.path().join("more");
    site.depot(["package", "create", "more", "--source", from.to_str().unwrap()]).ok();
    site.depot(["package", "update", "more"]).ok();
    site.depot(["package", "delete", "tools", "--yes"]).ok();
    site.depot(["library", "gc"]).ok();
    serves(&site, "more", &more);
    site.depot(["library", "verify"]).ok();
}

#[test]
fn what_was_acknowledged_survives_kills_and_the_loss_of_the_index() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let data = at.path().join("data");
    let mut kept: Vec<(String, Files)> = Vec::new();
    for round in 0..4 {
        let site = start(&s3, &data).unwrap();
        for (package, files) in &kept {
            serves(&site, package, files);
        }
        let (package, tree) = (format!("p{round}"), at.path().join(format!("t{round}")));
        let files = source(&tree, 10 + round);
        site.depot(["package", "create", &package, "--source", tree.to_str().unwrap()]).ok();
        site.depot(["package", "update", &package]).ok();
        kept.push((package, files));
        // And one that is killed while it comes in.
        let tree = at.path().join(format!("lost{round}"));
        source(&tree, 20 + round);
        let lost = format!("lost{round}");
        site.depot(["package", "create", &lost, "--source", tree.to_str().unwrap()]).ok();
        let mut update = site.command();
        update.args(["package", "update", &lost]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut update = update.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 * round));
        site.kill();
        update.wait().unwrap();
        if round % 2 == 1 {
            fs::remove_dir_all(data.join("library/index")).unwrap();
        }
    }
    let site = start(&s3, &data).unwrap();
    for (package, files) in &kept {
        serves(&site, package, files);
    }
    site.depot(["library", "verify"]).ok();
}

#[test]
fn a_second_site_is_refused_by_name_and_time() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let (one, two) = (at.path().join("one"), at.path().join("two"));
    let site = start(&s3, &one).unwrap();
    site.depot(["library", "stats"]).ok();
    let refused = start(&s3, &two).err().unwrap();
    let process = format!("process {}", site.child.id());
    assert!(refused.contains(&process) && refused.contains("UTC"), "{refused}");
    // Killed, it still has the lease for a while.
    site.kill();
    assert!(start(&s3, &two).err().unwrap().contains("is in use by"));
    let site = start(&s3, &one).unwrap();
    assert_eq!(site.stop(), Some(0));
    // It is the same site's library: another machine needs the site's key.
    assert!(start(&s3, &two).err().unwrap().contains("site.ed25519"));
    fs::create_dir_all(two.join("keys")).unwrap();
    fs::copy(one.join("keys/site.ed25519"), two.join("keys/site.ed25519")).unwrap();
    let site = start(&s3, &two).unwrap();
    assert_eq!(site.stop(), Some(0));
}

/// A server in front of the store that drops the conditions of writes, as some do.
fn forgetful(server: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(store) = TcpStream::connect(&server) else { return };
            std::thread::spawn(move || forget(client, store));
        }
    });
    format!("http://{address}")
}

/// Passes one request, without its conditions, and the answer, and ends the connection.
fn forget(client: TcpStream, mut store: TcpStream) -> Option<()> {
    let mut from = BufReader::new(client.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let lower = line.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line == "\r\n" {
            head.push_str("Connection: close\r\n\r\n");
            break;
        }
        if !lower.starts_with("if-") && !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    store.write_all(head.as_bytes()).ok()?;
    store.write_all(&body).ok()?;
    let mut client = client;
    std::io::copy(&mut store, &mut client).ok().map(drop)
}

#[test]
fn a_store_that_ignores_conditions_is_refused_until_somebody_answers_for_it() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let data = at.path().join("data");
    let front = forgetful(&s3.url);
    let serve = |more: &[&str]| {
        let mut serve = depot();
        tell(&front, &mut serve).args(["serve", "--listen", "127.0.0.1:0", "--library", URL]);
        serve.args(more).arg("--data").arg(&data);
        Site::start_by(serve, &data)
    };
    let refused = serve(&[]).err().unwrap();
    assert!(refused.contains("library.single_writer = true"), "{refused}");
    let site = serve(&["--set", "library.single_writer=true"]).unwrap();
    let tree = at.path().join("tree");
    let files = source(&tree, 1);
    site.depot(["package", "create", "tools", "--source", tree.to_str().unwrap()]).ok();
    site.depot(["package", "update", "tools"]).ok();
    serves(&site, "tools", &files);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_what_to_look_at() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let data = at.path().join("data");
    let mut serve = depot();
    s3.tell(&mut serve).args(["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--library", "s3://no-such-bucket/a", "--data"]).arg(&data);
    let refused = Site::start_by(serve, &data).err().unwrap();
    assert!(refused.contains("s3://no-such-bucket/a"), "{refused}");
    assert!(refused.contains("check the bucket, the credentials"), "{refused}");
    let mut serve = depot();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--library", "s3://key:secret@bucket/a"]);
    let wrong = Run::of(serve.arg("--data").arg(&data));
    assert!(!wrong.stderr.contains("secret"), "{}", wrong.stderr);
    assert!(wrong.fails(2).contains("s3://BUCKET/PREFIX"));
}

#[test]
fn keys_come_from_the_files_of_amazons_tools_where_the_environment_has_none() {
    let Some(s3) = S3::start() else { return };
    let at = temp_folder();
    let data = at.path().join("data");
    let home = at.path().join("home");
    fs::create_dir_all(home.join(".aws")).unwrap();
    let keys = "[branch]\naws_access_key_id = test\naws_secret_access_key = test\n";
    fs::write(home.join(".aws/credentials"), keys).unwrap();
    let place = format!("[profile branch]\nregion = us-east-1\nendpoint_url = {}\n", s3.url);
    fs::write(home.join(".aws/config"), place).unwrap();
    let serve = |profile: &str| {
        let mut serve = depot();
        serve.envs([("AWS_PROFILE", profile), ("AWS_ALLOW_HTTP", "true")]).env("HOME", &home);
        // Where there are no keys, none are to be asked for from whoever the machine is.
        serve.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9");
        serve.args(["serve", "--listen", "127.0.0.1:0", "--library", URL, "--data"]).arg(&data);
        Site::start_by(serve, &data)
    };
    assert_eq!(serve("branch").unwrap().stop(), Some(0));
    assert!(serve("nobody").is_err());
}

//! A real S3 server: moto, on loopback, with a port that the system picks.
//!
//! tools/setup.sh tests puts it into a Python environment of its own.

use super::{PATIENCE, curl};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

/// A running server with one bucket, `bucket`; ended when dropped.
pub struct S3 {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

/// Python with moto, if it was made here.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let python = cache.join("depot/moto/bin/python");
    python.exists().then_some(python)
}

impl S3 {
    /// Starts one, or says why not.
    pub fn start() -> Option<Self> {
        let Some(python) = python() else {
            println!("SKIPPED: no S3 server here: run tools/setup.sh tests");
            return None;
        };
        let mut child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stderr.take().unwrap();
        let (tell, told) = mpsc::channel();
        // To the end, so that the server never waits for somebody to take its log.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut server = Self { child, url: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while server.url.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told.recv_timeout(left).expect("moto says where it is");
            if let Some((_, port)) = line.split_once("http://127.0.0.1:") {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                server.url = format!("http://127.0.0.1:{port}");
            }
        }
        server.ask("", &["-X", "PUT"]);
        Some(server)
    }

    /// The answer to a signed request to the bucket.
    fn ask(&self, path: &str, more: &[&str]) -> Vec<u8> {
        let mut curl = curl();
        curl.args(["-f", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "test:test"]);
        let answer = curl.args(more).arg(format!("{}/bucket{path}", self.url)).output().unwrap();
        assert!(answer.status.success(), "{path}: {}", String::from_utf8_lossy(&answer.stderr));
        answer.stdout
    }

    /// Tells a command where it is and who asks.
    pub fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        tell(&self.url, command)
    }

    /// The names of all objects.
    pub fn objects(&self) -> Vec<String> {
        let text = String::from_utf8(self.ask("?list-type=2", &[])).unwrap();
        let names = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        names.map(str::to_owned).collect()
    }

    /// The bytes of an object.
    pub fn object(&self, name: &str) -> Vec<u8> {
        self.ask(&format!("/{name}"), &[])
    }
}

/// Tells a command of an S3 server at `url` and who asks.
pub fn tell<'a>(url: &str, command: &'a mut Command) -> &'a mut Command {
    command.envs([
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", url),
        ("AWS_ALLOW_HTTP", "true"),
    ])
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

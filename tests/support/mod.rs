//! What scenario tests share: a folder of their own, the real `depot` binary, a running site.
//!
//! Always true: a test touches nothing outside its own temporary folder, no variable or
//! configuration file of the machine reaches what it starts, and it needs no port of its own: so
//! tests run beside each other and beside a site that somebody has running.

#![allow(dead_code, reason = "each scenario uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod agent;
pub mod archive;
pub mod branch;
pub mod clock;
pub mod debian;
pub mod fleet;
pub mod own;
pub mod point;
pub mod postgres;
pub mod relay;
pub mod s3;
pub mod stores;
pub mod storm;
pub mod tmpfs;
pub mod tree;
pub mod web;

use serde_json::Value;
use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// The binary under test.
pub const DEPOT: &str = env!("CARGO_BIN_EXE_depot");

/// How long a test waits for what should come at once before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is gone after the test.
pub fn temp_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("depot-test-").tempdir().unwrap()
}

/// A `depot` command that nothing outside the test can influence.
pub fn depot() -> Command {
    alone(Command::new(DEPOT))
}

/// `curl` that prints bodies and errors, and nothing of its progress.
pub fn curl() -> Command {
    let mut command = alone(Command::new("curl"));
    // The first: no `.curlrc` is read.
    command.args(["-q", "-sS"]);
    command
}

/// `command` without the settings of the machine: depot's variables and file, logging, proxies.
pub fn alone(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let upper = name.to_ascii_uppercase();
        let upper = upper.as_encoded_bytes();
        let ours = [b"DEPOT_".as_slice(), b"AWS_", b"AZURE_"];
        let is_ours = ours.iter().any(|prefix| upper.starts_with(prefix));
        if is_ours || upper.ends_with(b"_PROXY") || upper == b"RUST_LOG" {
            command.env_remove(name);
        }
    }
    // An empty file, so that neither this folder's nor the machine's is read.
    command.env("DEPOT_CONFIG", "/dev/null").stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts a failure with this exit code, told in one line on stderr, and returns the line.
    /// Notes of what was done before may stand in front of it.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        let errors = self.stderr.lines().filter(|line| line.starts_with("depot: "));
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(
            errors.count() == 1 && last.starts_with("depot: "),
            "want one line about the error, got:\n{}",
            self.stderr
        );
        last.to_owned()
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in:\n{}", self.stdout),
        }
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `depot` with these arguments on a data folder, without a server.
pub fn on_data<S: AsRef<OsStr>>(data: &Path, args: impl IntoIterator<Item = S>) -> Run {
    Run::of(depot().arg("--data").arg(data).args(args))
}

/// A running site; stopped when dropped.
pub struct Site {
    /// Its process.
    pub child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
}

impl Site {
    /// Starts a site on `data` and waits until it answers.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with more arguments of `depot serve`.
    #[track_caller]
    pub fn start_with(data: &Path, args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", data, args)
            .unwrap_or_else(|log| panic!("the site does not start; its log:\n{log}"))
    }

    /// The same on an address of choice; else the log of the site that did not start.
    pub fn start_at(address: &str, data: &Path, args: &[&str]) -> Result<Self, String> {
        let mut serve = depot();
        serve.args(["serve", "--listen", address, "--data"]).arg(data).args(args);
        Self::start_by(serve, data)
    }

    /// Runs a command that serves `data`, and waits until it answers.
    pub fn start_by(mut serve: Command, data: &Path) -> Result<Self, String> {
        let log = data.with_extension("log");
        let mut child = serve
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut site = Self { child, url: String::new(), data: data.to_owned() };
        let (tell, told) = std::sync::mpsc::channel();
        // Keeps reading to the end, so that the site never waits for somebody to take its output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while site.url.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = told.recv_timeout(left) else {
                return Err(std::fs::read_to_string(&log).unwrap());
            };
            if let Some(at) = line.find("http://127.0.0.1:") {
                let rest = &line[at..];
                let end = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len());
                site.url = rest[..end].trim_end_matches('/').to_owned();
            }
        }
        until("the site gets ready", || site.get("/readyz").status == 200);
        Ok(site)
    }

    /// Where the admin's token lies.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("admin.token")
    }

    /// A `depot` command against this site, as its admin.
    pub fn command(&self) -> Command {
        let mut command = depot();
        command.env("DEPOT_URL", &self.url).env("DEPOT_TOKEN_FILE", self.token_file());
        command
    }

    /// Runs `depot` with these arguments against this site, as its admin.
    pub fn depot<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args))
    }

    /// `GET` without any headers but Host.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// One HTTP/1.1 request on a connection of its own.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        request(self.url.trim_start_matches("http://"), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end, and waits for its exit code.
    pub fn stop(mut self) -> Option<i32> {
        interrupt(&self.child);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGINT, as Ctrl-C does.
pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and headers as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One HTTP/1.1 request on a connection of its own, spelled out so that a test may send what no
/// client library would.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| std::io::Error::other("no end of headers"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no status"))?;
    let body = bytes.split_off(end + 4);
    let mut answer = Answer { status, head, body };
    if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        answer.body = unchunked(&answer.body);
    }
    Ok(answer)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
    out
}

/// Waits until `holds`; fails if that takes far too long.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `work` while another thread does `beside` again and again. Also if `work` fails, that
/// thread ends; it has done `beside` once at least.
pub fn while_repeating<T>(mut beside: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                beside();
                if ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _ended = Ended(&ended);
        work()
    })
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        // xorshift64*, Vigna 2016: fast, and good enough to be incompressible.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A folder of that many bytes that do not compress.
pub fn write_source(folder: &Path, seed: u64, n_files: u64, size: usize) -> tree::Tree {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir(folder).unwrap();
    for n in 0..n_files {
        std::fs::write(folder.join(format!("file-{n}")), noise(seed + n, size)).unwrap();
    }
    tree::read(folder)
}

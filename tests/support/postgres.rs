//! A PostgreSQL server of a test's own: its own folder, socket and port, gone when the test is.
//!
//! The server runs as a user without rights, as it refuses to run as root. A shell watches it, which
//! reads from a pipe that this process holds: when this process ends, however that happens, the pipe
//! ends, the server is stopped, and the folder is deleted.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a server may take to do what takes it a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends when this is dropped.
pub struct Postgres {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    settings: Vec<String>,
    watcher: Option<Child>,
    databases: AtomicU32,
}

/// The server that the tests of one binary share, each with a database of its own.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(&["fsync=off"]))
}

impl Postgres {
    /// Makes a server with these settings, and waits until it answers. Its user `postgres` needs no
    /// password.
    pub fn start(settings: &[&str]) -> Self {
        let bin = binaries();
        let folder = tempfile::Builder::new().prefix("depot-pg-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let mut init = as_other(bin.join("initdb"));
        init.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]);
        let init = init.arg("-D").arg(folder.join("data")).output().unwrap();
        assert!(init.status.success(), "initdb: {}", String::from_utf8_lossy(&init.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = settings.iter().map(ToString::to_string).collect();
        let databases = AtomicU32::new(0);
        let mut it = Self { folder, bin, port, settings, watcher: None, databases };
        it.begin();
        it
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, or starts it again.
    pub fn begin(&mut self) {
        let mut words = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.folder.display()),
            "max_connections=60".to_owned(),
            "shared_buffers=16MB".to_owned(),
        ];
        words.extend(self.settings.iter().cloned());
        // The pipe is closed for the server itself, which would else keep it open.
        let script = r#"
            folder=$1; shift
            "$@" </dev/null >"$folder/log" 2>&1 &
            server=$!
            echo started
            read -r word
            kill -INT $server 2>/dev/null
            wait $server
            [ "$word" = stay ] || rm -rf "$folder"
        "#;
        let mut watcher = as_other("sh");
        watcher.args(["-c", script, "sh"]).arg(&self.folder);
        watcher.arg(self.bin.join("postgres")).arg("-D").arg(self.folder.join("data"));
        for word in words {
            watcher.args(["-c", &word]);
        }
        let mut watcher = watcher
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(watcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.watcher = Some(watcher);
        let deadline = Instant::now() + PATIENCE;
        while self.psql("postgres", "select 1").is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "postgres does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server as a crash does: `kill -9` of the process that all its others follow.
    pub fn kill(&mut self) {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap();
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
        self.end_watcher();
        // Its children see that it is gone, and end. Until then a new one is refused.
        let deadline = Instant::now() + PATIENCE;
        let folder = format!("{}/data", self.folder.display());
        while Command::new("pgrep").args(["-f", &folder]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "the children of postgres do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server as an administrator does; what is connected is cut off.
    pub fn stop(&mut self) {
        self.end_watcher();
    }

    fn end_watcher(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            use std::io::Write;
            let _ = watcher.stdin.take().unwrap().write_all(b"stay\n");
            let _ = watcher.wait();
        }
    }

    /// A new database; its name.
    pub fn database(&self) -> String {
        let name = format!("site_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}")).unwrap();
        name
    }

    /// The URL of a new database, by way of the server's socket.
    pub fn url(&self) -> String {
        self.url_of(&self.database())
    }

    /// The URL of that database.
    pub fn url_of(&self, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// The URL of that database by TCP.
    pub fn tcp_url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements; what they print, without headings.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]);
        psql.arg(&self.folder).args(["-p", &self.port.to_string(), "-d", database, "-c", sql]);
        let done = psql.stdin(Stdio::null()).output().unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Lets the server's user, and nobody else, read a file.
    pub fn give(&self, file: &Path) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = other_user() {
            chown(file, Some(user), Some(group)).unwrap();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the server's programs lie: Debian keeps them away from the others, by version.
fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.map(|entry| entry.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let whole =
        |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|p| folder.join(p).exists());
    found
        .into_iter()
        .find(whole)
        .expect("PostgreSQL's server is not installed: tools/setup.sh tests")
}

/// User and group to run the server as, if this process is root.
fn other_user() -> Option<(u32, u32)> {
    static FOUND: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let ask = |args: &[&str]| {
        let done = Command::new("id").args(args).output().unwrap();
        String::from_utf8_lossy(&done.stdout).trim().parse::<u32>().ok()
    };
    *FOUND.get_or_init(|| {
        if ask(&["-u"]) != Some(0) {
            return None;
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|user| Some((ask(&["-u", user])?, ask(&["-g", user])?)))
    })
}

/// A command of that user, which sees nothing of this process's folder.
fn as_other(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = match other_user() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={group}")]);
            command.arg("--clear-groups").arg("--").arg(program);
            command
        }
    };
    command.current_dir("/");
    command
}

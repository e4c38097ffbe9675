//! Machines of a fleet: an agent on a folder that says what is installed, and a site that has updates for it.

use super::{DEPOT, Run, Site, alone, depot, until};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A machine with dpkg, and an agent's folder.
pub struct Machine {
    /// Its files.
    pub root: PathBuf,
    /// The agent's folder.
    pub data: PathBuf,
}

impl Machine {
    /// One with these packages.
    pub fn new(folder: &Path, name: &str, packages: &[(&str, &str)]) -> Self {
        let root = folder.join(format!("{name}-root"));
        fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        let release = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        fs::write(root.join("etc/os-release"), release).unwrap();
        fs::write(root.join("etc/machine-id"), format!("{name}\n")).unwrap();
        fs::write(root.join("etc/hostname"), format!("{name}\n")).unwrap();
        let machine = Self { root, data: folder.join(name) };
        machine.has(packages);
        machine
    }

    /// Has these packages from now on, as if dpkg had installed them.
    pub fn has(&self, packages: &[(&str, &str)]) {
        let stanza = |(name, version): &(&str, &str)| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
            )
        };
        let base = stanza(&("dpkg", "1.21.22"));
        let status: String = std::iter::once(base).chain(packages.iter().map(stanza)).collect();
        let path = self.root.join("var/lib/dpkg/status");
        fs::write(path.with_extension("new"), status).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// The command that runs its agent.
    pub fn run(&self, args: &[&str]) -> Command {
        let mut command = depot();
        command.args(["agent", "run", "--data"]).arg(&self.data);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// Starts its agent.
    pub fn start(&self, args: &[&str]) -> Agent {
        self.start_by(self.run(args))
    }

    /// Starts its agent by this command, which is that of [`Machine::run`] in other surroundings.
    pub fn start_by(&self, mut command: Command) -> Agent {
        let log = self.data.with_extension("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Agent { child, data: self.data.clone() }
    }

    /// What its agents logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

/// An agent that runs; killed when dropped.
pub struct Agent {
    /// Its process.
    pub child: Child,
    /// Its folder.
    pub data: PathBuf,
}

impl Agent {
    /// Runs a command on it.
    pub fn depot(&self, args: &[&str]) -> Run {
        let mut command = alone(Command::new(DEPOT));
        command.arg("--data").arg(&self.data).arg("agent").args(args);
        Run::of(&mut command)
    }

    /// The same, and its JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.depot(&[args, &["--json"]].concat()).ok().json()
    }

    /// Has it scan in that way, and tell the site what it found.
    #[track_caller]
    pub fn scan_and_report(&self, kind: &str) {
        self.json(&["scan", kind]);
        self.json(&["report"]);
    }

    /// How it stands; nothing, while it does not answer.
    pub fn status(&self) -> Option<Value> {
        let run = self.depot(&["status", "--json"]);
        (run.code == Some(0)).then(|| run.json())
    }

    /// Waits until it has a policy that has it scan.
    #[track_caller]
    pub fn until_enabled(&self) {
        until("the agent takes a policy", || {
            self.status().is_some_and(|status| status["updates_enabled"] == true)
        });
    }

    /// Has it scan as if that had started it.
    #[track_caller]
    pub fn scan_by(&self, trigger: &str) -> Value {
        // The path of a socket must be short.
        let folder = fs::File::open(&self.data).unwrap();
        let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
        let mut stream = UnixStream::connect(Path::new(&short).join("control.sock")).unwrap();
        let ask = serde_json::json!({"ask": "scan", "trigger": trigger});
        stream.write_all(format!("{ask}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("ok").is_some(), "{trigger}: {answer}");
        answer["ok"].clone()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token by which machines join.
#[track_caller]
pub fn join_token(site: &Site, name: &str, more: &[&str]) -> PathBuf {
    let file = site.data.with_file_name(format!("{name}.token"));
    let create =
        ["client", "join-token", "create", "--name", name, "--output", file.to_str().unwrap()];
    site.depot(create.iter().chain(more)).ok();
    file
}

/// How many machines have an update in a state, as the site knows it.
#[track_caller]
pub fn devices(site: &Site, update: &str, state: &str) -> Vec<String> {
    let run = site.depot(["compliance", "devices", update, "--state", state, "--json"]);
    if run.code != Some(0) {
        return Vec::new();
    }
    let list = run.json();
    list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the site hands out a catalogue of so many updates.
#[track_caller]
pub fn until_catalogue(site: &Site, updates: u64) {
    until("the site makes the catalogue for clients", || {
        let answer = site.get("/api/v1/catalogue");
        answer.status == 200 && {
            let text = answer.json()["catalogue"].as_str().unwrap().to_owned();
            serde_json::from_str::<Value>(&text).unwrap()["updates"] == updates
        }
    });
}

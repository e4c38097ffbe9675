//! `kill -9` at random moments: what was acknowledged stays, byte for byte.
//!
//! Each round starts work on one data folder, kills the process that does it (the command itself,
//! the server, or the client), and goes on with the next command, by hand of nobody. A command
//! that ended with exit code 0 was acknowledged; of one that was killed, all or nothing is there.
//!
//! The seed decides what is done and when it is killed. `DEPOT_KILL_ROUNDS` and `DEPOT_KILL_SEED`
//! ask for more rounds or other ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use contentlib::{
    Environment, GcOptions, Library, Options, Progress, System, kv::rocks::RocksKv,
    store::folder::FolderStore,
};
use packager::{Extra, ManifestLinks, Packages, Selector, SiteKey, packages::PackageInfo};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use support::{
    Run, Site, curl, depot, noise, temp_folder,
    tree::{self, Tree},
};

/// Rounds where nobody asks for more.
const ROUNDS: u64 = 22;
/// So small that every few versions seal a pack.
const PACK_SIZE: &str = "1MiB";
/// The variables that tell this test's own binary to collect garbage: where, and how many hours
/// from now.
const COLLECT_IN: &str = "DEPOT_TEST_COLLECT_IN";
const COLLECT_AFTER: &str = "DEPOT_TEST_COLLECT_AFTER";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

#[test]
fn what_was_acknowledged_survives_kills_at_random_moments() {
    let (rounds, seed) = (number("DEPOT_KILL_ROUNDS", ROUNDS), number("DEPOT_KILL_SEED", 1));
    let began = Instant::now();
    let mut world = World::new(seed);
    for round in 0..rounds {
        world.round(round);
    }
    world.check_everything();
    let versions: usize = world.packages.values().map(|p| p.versions.len()).sum();
    println!(
        "seed {seed}: {rounds} rounds, {} operations: {} killed, of which {} had taken effect; \
         {versions} versions read back exact, {:.1?}",
        world.started,
        world.killed,
        world.killed_after_commit,
        began.elapsed()
    );
    assert!(world.killed > 0, "everything ended before it was killed");
    world.what_nothing_holds_is_freed();
}

/// Collects garbage some hours from now, in a process that can be killed: no test waits for the
/// grace time, which is at least ten minutes, nor for uploads to expire.
#[test]
#[ignore = "started by the other test as a process of its own"]
fn collector() {
    let Some(folder) = std::env::var_os(COLLECT_IN).map(PathBuf::from) else { return };
    for hours in [number(COLLECT_AFTER, 0), number(COLLECT_AFTER, 0) + 25] {
        let store = FolderStore::new(folder.join("packs")).unwrap();
        let index = RocksKv::open(&folder.join("index")).unwrap();
        let options = Options { pack_target: 1 << 20, threads: 2, ..Options::default() };
        let library =
            Library::open_on(Arc::new(store), Arc::new(index), Arc::new(Later { hours }), options);
        let library = library.unwrap();
        let report = library.gc(&GcOptions::default(), &ManifestLinks, &Progress::default());
        println!("{:?}", report.unwrap());
        library.close().unwrap();
    }
}

/// The machine's clock, so many hours ahead.
struct Later {
    hours: u64,
}

impl Environment for Later {
    fn unix_ms(&self) -> u64 {
        System.unix_ms() + self.hours * 3_600_000
    }

    fn random(&self) -> u128 {
        System.random()
    }
}

/// One thing that is done to a package or to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Update,
    Push,
    Tar,
    DeleteVersion,
    DeletePackage,
    Gc,
    Collect,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// The command that has the folder open itself.
    Command,
    /// The client of a server; the server goes on, and is killed when the client is gone.
    Client,
    Server,
}

/// What the rounds do, in turn.
const ROUNDS_IN_TURN: &[(Victim, &[Doing])] = &[
    (Victim::Command, &[Doing::Update]),
    (Victim::Server, &[Doing::Update]),
    (Victim::Client, &[Doing::Push]),
    (Victim::Command, &[Doing::Gc]),
    (Victim::Server, &[Doing::Push]),
    (Victim::Command, &[Doing::DeleteVersion]),
    (Victim::Server, &[Doing::Tar]),
    (Victim::Command, &[Doing::Collect]),
    (Victim::Client, &[Doing::Tar]),
    (Victim::Command, &[Doing::DeletePackage]),
    (Victim::Server, &[Doing::Update, Doing::Push, Doing::Tar, Doing::Gc, Doing::DeletePackage]),
];

struct Package {
    /// Where its files come from, also if they are sent.
    source: PathBuf,
    versions: BTreeMap<u64, Tree>,
}

/// Work under way.
struct Flight {
    doing: Doing,
    package: &'static str,
    /// What the next version will hold, or which version goes.
    tree: Tree,
    version: u64,
    child: Child,
    began: Instant,
    /// Its standard output, once it has ended with exit code 0.
    acknowledged: Option<String>,
    ended: bool,
}

struct World {
    folder: tempfile::TempDir,
    data: PathBuf,
    random: Random,
    packages: BTreeMap<&'static str, Package>,
    /// How long each kind of work takes when nobody kills it.
    paces: BTreeMap<(Victim, Doing), Duration>,
    /// How far the clock of garbage collections is ahead by now.
    hours: u64,
    started: u64,
    killed: u64,
    killed_after_commit: u64,
}

/// A package that is read from a folder.
const READ: &str = "read";
/// Packages that are sent.
const PUSHED: &str = "pushed";
const TARRED: &str = "tarred";
/// A package that is deleted and made again.
const SCRATCH: &str = "scratch";

impl World {
    fn new(seed: u64) -> Self {
        let folder = temp_folder();
        let data = folder.path().join("data");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Site::start_with(&data, &[]).stop();
        let mut packages = BTreeMap::new();
        for name in [READ, PUSHED, TARRED, SCRATCH] {
            let source = folder.path().join(format!("source-{name}"));
            fs::create_dir(&source).unwrap();
            for _ in 0..if name == SCRATCH { 3 } else { 14 } {
                write_some_file(&source, &mut random);
            }
            packages.insert(name, Package { source, versions: BTreeMap::new() });
        }
        let mut world = Self {
            folder,
            data,
            random,
            packages,
            paces: BTreeMap::new(),
            hours: 0,
            started: 0,
            killed: 0,
            killed_after_commit: 0,
        };
        for name in [READ, PUSHED, TARRED] {
            world.create(name);
        }
        world
    }

    fn create(&mut self, name: &'static str) {
        let package = self.packages.get_mut(name).unwrap();
        let mut command = on_data(&self.data);
        command.args(["package", "create", name, "--keep", "1000"]);
        if name == READ || name == SCRATCH {
            command.arg("--source").arg(&package.source);
        }
        Run::of(&mut command).ok();
        package.versions = BTreeMap::from([(1, Tree::new())]);
    }

    /// Starts work, kills somebody, and checks what the folder holds then.
    fn round(&mut self, round: u64) {
        let (victim, doings) = ROUNDS_IN_TURN[(round as usize) % ROUNDS_IN_TURN.len()];
        let what = format!("round {round}: {doings:?}, killed: {victim:?}");
        if doings.contains(&Doing::DeletePackage) && self.packages[SCRATCH].versions.is_empty() {
            self.create(SCRATCH);
            let flight = self.start(None, Doing::Update, SCRATCH);
            let flight = flight.waited();
            self.settle(flight, &all_versions(&self.open()));
        }
        let site = (victim != Victim::Command).then(|| {
            Site::start_with(&self.data, &["--set", &format!("library.pack_size={PACK_SIZE}")])
        });
        let mut flights = Vec::new();
        for &doing in doings {
            let package = match doing {
                Doing::Update | Doing::DeleteVersion | Doing::Gc | Doing::Collect => READ,
                Doing::Push => PUSHED,
                Doing::Tar => TARRED,
                Doing::DeletePackage => SCRATCH,
            };
            flights.push(self.start(site.as_ref(), doing, package));
        }
        let first = Duration::from_millis(400);
        let paces = doings.iter().map(|&d| *self.paces.entry((victim, d)).or_insert(first));
        let pace = paces.max().unwrap();
        let moment = pace.mul_f64(self.random.below(1000) as f64 / 1000.0);
        let began = Instant::now();
        while began.elapsed() < moment && !flights.iter_mut().all(Flight::poll) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for flight in &mut flights {
            if flight.poll() {
                // The next one of its kind is to be killed before it is through.
                let took = flight.began.elapsed().max(Duration::from_millis(10));
                self.paces.insert((victim, flight.doing), took);
            } else {
                self.killed += 1;
                let pace = self.paces.get_mut(&(victim, flight.doing)).unwrap();
                *pace = pace.mul_f64(1.25);
            }
        }
        if victim == Victim::Client {
            flights.iter_mut().for_each(Flight::kill);
            // Time for the server to do the wrong thing with half a request.
            std::thread::sleep(Duration::from_millis(self.random.below(60)));
        }
        site.into_iter().for_each(Site::kill);
        if victim == Victim::Server {
            // An answer that was on its way to a client counts.
            let patience = Instant::now() + Duration::from_millis(200);
            while Instant::now() < patience && !flights.iter_mut().all(Flight::poll) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        flights.iter_mut().for_each(Flight::kill);
        // The next command, as anybody would give it.
        let verified = Run::of(on_data(&self.data).args(["library", "verify", "--json"]));
        assert_eq!(verified.code, Some(0), "{what}: {verified:?}");
        let packages = self.open();
        let found = all_versions(&packages);
        let touched: BTreeSet<&str> = flights.iter().map(|f| f.package).collect();
        for flight in flights {
            println!("{what}: {:?} acknowledged: {}", flight.doing, flight.acknowledged.is_some());
            self.settle(flight, &found);
        }
        self.check(&packages, &found, &touched, &what);
    }

    /// The folder in this process: to look at many versions at once, faster than by commands.
    fn open(&self) -> Packages {
        let library = Library::open(&self.data.join("library"), Options::default()).unwrap();
        let key = SiteKey::open(&self.data.join("keys/site.ed25519")).unwrap();
        let clock = Arc::new(jiff::Timestamp::now);
        Packages::open(library, key, self.data.join("cache"), clock).unwrap()
    }

    /// Starts one kind of work, against `site` or in process.
    fn start(&mut self, site: Option<&Site>, doing: Doing, name: &'static str) -> Flight {
        let package = self.packages.get_mut(name).unwrap();
        let mut version = package.versions.last_key_value().map_or(0, |(n, _)| n + 1);
        let mut tree = Tree::new();
        if matches!(doing, Doing::Update | Doing::Push | Doing::Tar) {
            change(&package.source, &mut self.random);
            tree = tree::read(&package.source);
        }
        let mut command = match site {
            Some(site) => site.command(),
            None => on_data(&self.data),
        };
        command.args(["--json", "--quiet"]);
        match doing {
            Doing::Update => command.args(["package", "update", name]),
            Doing::Push => command.args(["package", "push", name]).arg(&package.source),
            Doing::Gc => command.args(["library", "gc"]),
            Doing::DeletePackage => command.args(["package", "delete", name, "--yes"]),
            Doing::DeleteVersion => {
                let older: Vec<u64> = package.versions.keys().copied().collect();
                // The newest stays: `latest` points to it.
                version = older[self.random.below(older.len().max(2) as u64 - 1) as usize];
                let selected = format!("{name}@{version}");
                command.args(["package", "delete", &selected, "--yes", "--force"])
            }
            Doing::Collect => {
                command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "collector", "--ignored", "--nocapture"]);
                self.hours += 50;
                command.env(COLLECT_AFTER, self.hours.to_string());
                command.env(COLLECT_IN, self.data.join("library"))
            }
            Doing::Tar => {
                let archive = self.folder.path().join("archive.tar");
                let _ = fs::remove_file(&archive);
                let packed = Command::new("tar")
                    .args(["--format=pax", "-cf"])
                    .arg(&archive)
                    .arg("-C")
                    .arg(&package.source)
                    .arg(".")
                    .status();
                assert!(packed.unwrap().success());
                let site = site.expect("a tar is sent to a server");
                let token = fs::read_to_string(site.token_file()).unwrap();
                command = curl();
                command.args(["--fail", "--limit-rate", "8M", "-T"]).arg(&archive);
                command.arg("-H").arg(format!("Authorization: Bearer {}", token.trim()));
                command.arg(format!("{}/api/v1/packages/{name}/tar", site.url))
            }
        };
        let log = fs::File::create(self.folder.path().join(format!("stderr-{doing:?}"))).unwrap();
        let child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        self.started += 1;
        let began = Instant::now();
        Flight {
            doing,
            package: name,
            tree,
            version,
            child,
            began,
            acknowledged: None,
            ended: false,
        }
    }

    /// Takes what came of some work into what is expected.
    fn settle(&mut self, flight: Flight, found: &Versions) {
        let none = BTreeSet::new();
        let found = found.get(flight.package).unwrap_or(&none);
        let stderr = || {
            let path = self.folder.path().join(format!("stderr-{:?}", flight.doing));
            fs::read_to_string(path).unwrap()
        };
        let package = self.packages.get_mut(flight.package).unwrap();
        let is_there = found.contains(&flight.version);
        match flight.doing {
            Doing::Update | Doing::Push | Doing::Tar => {
                let newest = package.versions.last_key_value();
                let unchanged = newest.is_some_and(|(_, t)| timeless(t) == timeless(&flight.tree));
                match &flight.acknowledged {
                    Some(stdout) => {
                        let said: Value = serde_json::from_str(stdout).unwrap();
                        assert_eq!(said["unchanged"], unchanged, "{stdout}");
                        let version = flight.version - u64::from(unchanged);
                        assert_eq!(said["version"], version, "{stdout}");
                        assert!(found.contains(&version), "{stdout} but there are {found:?}");
                    }
                    None if is_there => self.killed_after_commit += 1,
                    None => {}
                }
                if is_there {
                    package.versions.insert(flight.version, flight.tree);
                }
            }
            Doing::DeleteVersion => {
                assert!(flight.acknowledged.is_none() || !is_there, "{}", stderr());
                if !is_there {
                    self.killed_after_commit += u64::from(flight.acknowledged.is_none());
                    package.versions.remove(&flight.version);
                }
            }
            Doing::DeletePackage => {
                assert!(flight.acknowledged.is_none() || found.is_empty(), "{}", stderr());
                if found.is_empty() {
                    self.killed_after_commit += u64::from(flight.acknowledged.is_none());
                    package.versions.clear();
                }
            }
            Doing::Gc | Doing::Collect => {}
        }
    }

    /// Holds the folder to what is expected of it: of `touched` packages two versions byte by byte.
    fn check(
        &mut self,
        packages: &Packages,
        found: &Versions,
        touched: &BTreeSet<&str>,
        what: &str,
    ) {
        assert_eq!(*found, self.expected(), "{what}");
        for name in touched {
            let versions: Vec<u64> = self.packages[name].versions.keys().copied().collect();
            let Some(newest) = versions.last() else { continue };
            let any = versions[self.random.below(versions.len() as u64) as usize];
            for version in BTreeSet::from([*newest, any]) {
                println!("{what}: {name}@{version} is compared");
                let out = self.folder.path().join("out");
                let (selector, progress) = (Selector::Number(version), Progress::default());
                let name_of = name.parse().unwrap();
                packages.restore(&name_of, &selector, &out, Extra::Keep, &progress).unwrap();
                self.compare(name, version, &out);
            }
        }
    }

    fn expected(&self) -> Versions {
        let there = self.packages.iter().filter(|(_, package)| !package.versions.is_empty());
        let numbers = |package: &Package| package.versions.keys().copied().collect();
        there.map(|(name, package)| ((*name).to_owned(), numbers(package))).collect()
    }

    /// Compares what was restored to `out`, and removes it.
    fn compare(&self, name: &str, version: u64, out: &Path) {
        tree::assert_same(&tree::read(out), &self.packages[name].versions[&version]);
        fs::remove_dir_all(out).unwrap();
    }

    /// Every version of every package, by the command that a person would give.
    fn check_everything(&self) {
        assert_eq!(all_versions(&self.open()), self.expected());
        for (name, versions) in self.expected() {
            for version in versions {
                let (out, selected) = (self.folder.path().join("out"), format!("{name}@{version}"));
                let mut command = on_data(&self.data);
                Run::of(command.args(["package", "restore", &selected]).arg(&out)).ok();
                self.compare(&name, version, &out);
            }
        }
    }

    /// Bytes of killed work and of deleted versions do not stay.
    fn what_nothing_holds_is_freed(&mut self) {
        self.collect();
        let stats = Run::of(on_data(&self.data).args(["library", "stats", "--json"])).ok().json();
        let (held, on_disk) = (stats["plain_bytes"].as_u64().unwrap(), self.pack_bytes());
        println!("{held} bytes are referred to, {on_disk} are in packs");
        assert_eq!(stats["condemned"], 0);
        // Noise does not compress. A pack is copied when less than three quarters of it live.
        assert!(on_disk as f64 <= held as f64 / 0.75 + (2 << 20) as f64);
        self.check_everything();

        for name in [READ, PUSHED, TARRED, SCRATCH] {
            if !self.packages[name].versions.is_empty() {
                Run::of(on_data(&self.data).args(["package", "delete", name, "--yes"])).ok();
            }
        }
        self.collect();
        let left = self.pack_bytes();
        println!("{left} bytes are left when all is deleted");
        assert!(left < 1 << 20, "{left} bytes are left");
        Run::of(on_data(&self.data).args(["library", "verify"])).ok();
    }

    fn collect(&mut self) {
        for _ in 0..2 {
            let flight = self.start(None, Doing::Collect, READ).waited();
            println!("{}", flight.acknowledged.unwrap());
        }
    }

    fn pack_bytes(&self) -> u64 {
        let folders = fs::read_dir(self.data.join("library/packs")).unwrap();
        let packs = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
    }
}

impl Flight {
    /// Whether it has ended.
    fn poll(&mut self) -> bool {
        if !self.ended
            && let Some(status) = self.child.try_wait().unwrap()
        {
            self.ended = true;
            if status.success() {
                let stdout = self.child.stdout.take().unwrap();
                self.acknowledged = Some(std::io::read_to_string(stdout).unwrap());
            }
        }
        self.ended
    }

    fn kill(&mut self) {
        if !self.poll() {
            self.child.kill().unwrap();
            // It may have ended just before.
            self.child.wait().unwrap();
            self.poll();
        }
    }

    /// Lets it end by itself.
    fn waited(mut self) -> Self {
        while !self.poll() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(self.acknowledged.is_some(), "{:?} fails with nobody killed", self.doing);
        self
    }
}

/// A tree without its times, which make no new version.
fn timeless(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for node in tree.values_mut() {
        if let tree::Node::File { mtime, .. } = node {
            *mtime = 0;
        }
    }
    tree
}

/// The versions of each package.
type Versions = BTreeMap<String, BTreeSet<u64>>;

fn all_versions(packages: &Packages) -> Versions {
    let numbers = |info: &PackageInfo| {
        let versions = packages.versions(&info.name).unwrap();
        versions.iter().map(|version| version.version).collect()
    };
    packages.list().unwrap().iter().map(|info| (info.name.to_string(), numbers(info))).collect()
}

/// A command on the data folder in its own process, with small packs.
fn on_data(data: &Path) -> Command {
    let mut command = depot();
    command.env("DEPOT_LIBRARY_PACK_SIZE", PACK_SIZE).arg("--data").arg(data);
    command
}

/// xorshift64*, so that a seed means the same for ever.
struct Random(u64);

impl Random {
    /// A number below `n`, and 0 for none.
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n.max(1)
    }
}

/// A new or rewritten file of a few runs of bytes that others have too.
fn write_some_file(folder: &Path, random: &mut Random) {
    let inside = ["", "a", "a/b", "c"][random.below(4) as usize];
    fs::create_dir_all(folder.join(inside)).unwrap();
    let path = folder.join(inside).join(format!("file-{}", random.below(20)));
    let mut bytes = Vec::new();
    for _ in 0..random.below(8) {
        bytes.extend(noise(1 + random.below(60), 10_000 + random.below(4) as usize * 17_000));
    }
    bytes.extend(format!("line {}\n", random.below(1000)).bytes());
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    let mode = [0o644, 0o600, 0o755, 0o400][random.below(4) as usize];
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    if random.below(3) == 0 {
        let past = Duration::new(random.below(1 << 30), random.below(1_000_000_000) as u32);
        let file = fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + past).unwrap();
    }
}

/// Changes a few things of a source folder.
fn change(folder: &Path, random: &mut Random) {
    for _ in 0..1 + random.below(5) {
        let files: Vec<PathBuf> = tree::read(folder)
            .iter()
            .filter(|(_, node)| matches!(node, tree::Node::File { .. }))
            .map(|(path, _)| folder.join(String::from_utf8_lossy(path).as_ref()))
            .collect();
        let any = &files[random.below(files.len() as u64) as usize];
        match random.below(8) {
            0 if files.len() > 8 => fs::remove_file(any).unwrap(),
            1 => {
                let mut bytes = fs::read(any).unwrap();
                bytes.extend_from_slice(b"one more line\n");
                fs::write(any, bytes).unwrap();
            }
            2 => fs::set_permissions(any, fs::Permissions::from_mode(0o640)).unwrap(),
            3 => {
                let link = folder.join(format!("link-{}", random.below(3)));
                let _ = fs::remove_file(&link);
                symlink(format!("file-{}", random.below(99)), link).unwrap();
            }
            4 => fs::create_dir_all(folder.join(format!("empty-{}", random.below(5)))).unwrap(),
            5 => fs::rename(any, folder.join(format!("moved-{}", random.below(9)))).unwrap(),
            _ => write_some_file(folder, random),
        }
    }
}

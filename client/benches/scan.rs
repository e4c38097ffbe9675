//! How long does a scan of a real Debian machine take, and how long one of a catalogue of many updates?
//! Input: the packages of this machine; the index of Debian 12's security suite, amd64, of November 2026, as
//! signed by Debian, with the packages of this machine among them; and 60,000 updates of three packages.

use client::applicability::{Assessor, State};
use client::facts::debian::Debian;
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use sync::adapter::{Adapter, Run, Said, Watch};
use sync::apt::{Apt, Settings};
use sync::fetch::{Fetcher, Patience};
use sync::name::UpdateId;
use sync::openpgp::Keyring;
use sync::rule::{Comparison, PackageRule, Rule};
use sync::unpack::Packing;
use sync::update::Update;

const INDEX: &[u8] = include_bytes!("../../sync/tests/data/apt/Packages.xz");
const RELEASE: &[u8] = include_bytes!("../../sync/tests/data/apt/InRelease");
const KEYRING: &[u8] = include_bytes!("../../sync/tests/data/apt/debian-archive-keyring.gpg");
const MANY: usize = 60_000;

/// The updates of Debian's security suite, as a sync reads them.
fn security() -> Vec<Update> {
    let served = tempfile::tempdir().expect("a folder");
    let suite = served.path().join("dists/bookworm-security");
    std::fs::create_dir_all(suite.join("main/binary-amd64")).expect("a folder");
    std::fs::write(suite.join("InRelease"), RELEASE).expect("written");
    let mut index = Vec::new();
    let unpacked = Packing::Xz.read(INDEX, 64 << 20);
    unpacked.and_then(|mut it| it.read_to_end(&mut index)).expect("a sound sample");
    std::fs::write(suite.join("main/binary-amd64/Packages"), index).expect("written");
    let settings = Settings {
        base: format!("file://{}/", served.path().display()),
        suites: vec!["bookworm-security".into()],
        components: vec!["main".into()],
        architectures: vec!["amd64".into()],
        keyring: Keyring::parse(KEYRING).expect("a sound sample"),
        tracker: Vec::new(),
        languages: Default::default(),
        release: None,
        definitions: Vec::new(),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let run = Run {
        fetcher: Fetcher::new(Patience::default()).expect("a fetcher"),
        folder: folder.path().into(),
        now: "2026-11-20T12:00:00Z".parse().expect("a time"),
        criteria: Default::default(),
        watch: Arc::new(Watch::default()),
    };
    let apt = Apt::new(settings).expect("good settings");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(apt.fetch(&run, None)).expect("brought");
    let mut updates = Vec::new();
    apt.read(&run, None, &mut |said| {
        if let Said::Update(update) = said {
            updates.push(*update);
        }
        Ok(())
    })
    .expect("read");
    updates
}

/// Updates of packages, of which some are on the machine.
fn many(machine: &Debian) -> Vec<Update> {
    use client::facts::Facts;
    let mut names: Vec<&str> = machine.system().packages.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let rules = |n: usize, is: Comparison| -> Vec<Rule> {
        let of = |part: usize| {
            let name = match names.get(n % 20_000) {
                Some(name) if part == 0 => (*name).to_owned(),
                _ => format!("package-{}-{part}", n % 20_000),
            };
            let (arch, version) = (Some("amd64".into()), format!("{}.{}-1", n % 7, n % 90));
            Rule::Dpkg(PackageRule { name, arch, is, version })
        };
        (0..3).map(of).collect()
    };
    let made = (0..MANY).map(|n| {
        let id = UpdateId::named(&["bench", &n.to_string()]);
        let mut update = Update::new(id, "x", "x", Timestamp::UNIX_EPOCH);
        let on = Rule::Codename("bookworm".into());
        let lower = Rule::Or(rules(n, Comparison::LessThan));
        let reached = Rule::Or(rules(n, Comparison::GreaterThanOrEqualTo));
        update.rules.installable = Some(Rule::And(vec![on.clone(), lower.clone()]));
        update.rules.installed = Some(Rule::And(vec![on, reached, Rule::Not(Box::new(lower))]));
        update
    });
    made.collect()
}

/// How many updates are in which state.
fn scan(machine: &Debian, updates: &[Update]) -> [usize; 4] {
    let none: HashMap<UpdateId, Arc<Update>> = HashMap::new();
    let mut assessor = Assessor::new(machine, &none);
    let mut counts = [0; 4];
    for update in updates {
        counts[match assessor.assess(update).state {
            State::Unknown => 0,
            State::NotRequired => 1,
            State::Required => 2,
            State::Installed => 3,
        }] += 1;
    }
    counts
}

fn scans(c: &mut Criterion) {
    let root = Path::new("/");
    let machine = Debian::of(root).expect("a Debian machine");
    let mut group = c.benchmark_group("scan");
    group.bench_function("facts/debian", |b| b.iter(|| Debian::of(root).expect("read")));
    let updates = security();
    let titles: HashSet<&str> = updates.iter().map(|update| update.name.as_str()).collect();
    println!("{} updates of the security suite, {:?}", titles.len(), scan(&machine, &updates));
    group.bench_function("debian-security", |b| {
        b.iter(|| scan(&Debian::of(root).expect("read"), black_box(&updates)));
    });
    println!("{} bytes at most so far", peak());
    let updates = many(&machine);
    println!("{MANY} updates, {:?}", scan(&machine, &updates));
    group.bench_function("60000-updates", |b| b.iter(|| scan(&machine, black_box(&updates))));
    group.finish();
}

/// The most memory that the process had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024
}

criterion_group!(benches, scans);
criterion_main!(benches);

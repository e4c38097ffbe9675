//! The second half of a sync: what was brought of an archive, said as updates.
//!
//! An update is one version of a source package of a release, with all binary packages that were built
//! from it. It is for machines on which one of them is installed in a lower version, and replaces lower versions
//! of the same release, whichever suites of the source have them. What an archive does not state, when a version came, is when it was first seen here, and that is kept beside the indexes.

use super::bring::{MAX_PLAIN, MAX_TRACKER};
use super::deb822::Stanzas;
use super::gather::{Gathered, Row};
use super::packages::{self, Package};
use super::release::Release;
use super::source::{Apt, Settings};
use super::state::{State, Suite, write_whole};
use super::tracker::{Advice, Tracker};
use crate::adapter::{Extent, LASTING, Read, Run, Said, Skipped, Stage};
use crate::error::{Cause, SyncError};
use crate::mirror::matches;
use crate::name::UpdateId;
use crate::rule::{Comparison, PackageRule, Rule, Rules};
use crate::taxonomy::{Classification, Language, Product};
use crate::unpack::{self, Packing};
use crate::update::{
    Behaviour, File, Handler, Item, MAX_ITEMS, PackageFile, Restart, Text, Update,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// How many older versions an update names as replaced; those replaced the still older ones.
const MAX_SUPERSEDED: usize = 8;

/// Says of everything that was brought.
pub(super) fn say(
    apt: &Apt,
    run: &Run,
    take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
) -> Result<Read, SyncError> {
    run.stage(Stage::Parse)?;
    let plan = State::planned(&run.folder)?;
    let mut skipped = Skipped::default();
    for (url, tracker) in &plan.trackers {
        if let Some(why) = &tracker.stale {
            skipped.add(format!("{url} stays as it was brought before: {why}"));
        }
    }
    let mut seen = Seen::load(&run.file(LASTING));
    let mut products = BTreeSet::new();
    let mut trackers = HashMap::new();
    for archive in archives(apt, run, &plan)? {
        if products.insert(archive.product.id.clone()) {
            take(Said::Product(archive.product.clone()))?;
        }
        let mut gathered = Gathered::default();
        for (at, pocket) in archive.pockets.iter().enumerate() {
            gather(run, pocket.suite, &at.to_string(), &mut gathered, &mut skipped)?;
        }
        gathered.sort();
        let tracker = match trackers.entry(archive.base.clone()) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(read_trackers(run, &plan, &archive.base, &mut skipped)?)
            }
        };
        let mut speaker =
            Speaker { apt, archive: &archive, tracker, seen: &mut seen, skipped: &mut skipped };
        speaker.say(&gathered, &mut |update| {
            run.watch.read()?;
            take(Said::Update(Box::new(update)))
        })?;
    }
    seen.save(&run.folder)?;
    let state = serde_json::to_value(&plan)
        .map_err(|error| SyncError::because(Cause::Local, "the state cannot be kept", error))?;
    Ok(Read { extent: Extent::Whole, state, skipped })
}

/// Suites of one origin and release that a machine installs from alike: its pockets. Backports, from which
/// nothing is installed by itself, are an archive of their own.
struct Archive<'a> {
    origin: String,
    /// The code name of the release that it is for, without that of the pocket.
    base: String,
    product: Product,
    /// What a machine must be, if that is known.
    rule: Option<Rule>,
    pockets: Vec<Pocket<'a>>,
}

/// One suite of a release.
struct Pocket<'a> {
    /// `security`, `updates` or `backports`.
    kind: &'static str,
    codename: String,
    date: Timestamp,
    suite: &'a Suite,
}

impl Archive<'_> {
    /// The suites that packages are of, one for each.
    fn pockets_of(&self, group: &[Row<'_>]) -> impl Iterator<Item = &Pocket<'_>> {
        group.iter().filter_map(|row| self.pockets.get(row.mark.parse::<usize>().ok()?))
    }
}

fn archives<'a>(apt: &Apt, run: &Run, plan: &'a State) -> Result<Vec<Archive<'a>>, SyncError> {
    let mut found = BTreeMap::new();
    for (name, suite) in &plan.suites {
        let path = run.file(&suite.release);
        let text = std::fs::read(&path).map_err(|error| SyncError::local(path.display(), error))?;
        let release = Release::parse(&text).map_err(|error| {
            SyncError::because(
                Cause::Malformed,
                format!("{name}: its Release cannot be read"),
                error,
            )
        })?;
        let origin = or(&release.origin, apt.base.host_str().unwrap_or("local"));
        let codename = or(&release.codename, or(&release.suite, name.trim_end_matches('/')));
        let is_system = matches!(origin, "Debian" | "Ubuntu");
        let plain = codename.split(['-', '/']).next().unwrap_or_default();
        let system = apt.settings.release.as_deref().or(is_system.then_some(plain));
        let product = product(origin, &release.version, if is_system { plain } else { codename });
        let is_automatic = !release.not_automatic.eq_ignore_ascii_case("yes");
        let of_pocket = ["-security", "-updates"].iter().find_map(|end| codename.strip_suffix(end));
        let base = system.or(of_pocket).unwrap_or(codename).to_owned();
        let key = (origin.to_owned(), base, product.id.clone(), is_automatic);
        let archive = found.entry(key).or_insert_with(|| Archive {
            origin: origin.to_owned(),
            base: system.unwrap_or(codename).to_owned(),
            product,
            rule: system.map(|system| Rule::Codename(system.to_owned())),
            pockets: Vec::new(),
        });
        archive.pockets.push(Pocket {
            kind: pocket(&release),
            codename: codename.to_owned(),
            date: release.date.unwrap_or(run.now).min(run.now),
            suite,
        });
    }
    Ok(found.into_values().collect())
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// What a suite is beside the release itself: `security`, `updates`, `backports`, or nothing.
fn pocket(release: &Release) -> &'static str {
    let ends =
        |word: &str| [&release.codename, &release.suite].iter().any(|name| name.ends_with(word));
    match () {
        () if ends("-security") || release.label == "Debian-Security" => "security",
        () if ends("-backports") || ends("-backports-sloppy") => "backports",
        () => "updates",
    }
}

/// `debian-12`: origin and version of the release, of Debian's without that of the point release and of the
/// pocket, as in `12.15` and `12-updates`.
fn product(origin: &str, version: &str, codename: &str) -> Product {
    let version = match origin {
        "Debian" => version.split(['.', '-']).next().unwrap_or_default(),
        _ => version,
    };
    let word = |text: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        text.to_lowercase().chars().map(plain).collect::<String>()
    };
    Product {
        id: format!("{}-{}", word(origin), word(or(version, codename))),
        name: match version {
            "" => format!("{origin} {codename}"),
            _ => format!("{origin} {version} ({codename})"),
        },
        family: origin.to_owned(),
    }
}

fn gather(
    run: &Run,
    suite: &Suite,
    mark: &str,
    gathered: &mut Gathered,
    skipped: &mut Skipped,
) -> Result<(), SyncError> {
    for (path, index) in &suite.indexes {
        let file = run.file(&index.file);
        let mut stanzas = Stanzas::new(Packing::of_name(&index.file).open(&file, MAX_PLAIN)?);
        let failed = |error| unpack::reading(path, error);
        while let Some(stanza) = stanzas.next_stanza().map_err(failed)? {
            run.watch.moved();
            run.watch.check()?;
            let package = stanza.map_err(|broken| broken.to_string());
            match package.and_then(|it| Package::of(it).map_err(|error| error.to_string())) {
                Ok(package) => gathered.add(&package, mark)?,
                Err(why) => skipped.add(format!("{path}: {why}")),
            }
        }
    }
    Ok(())
}

fn read_trackers(
    run: &Run,
    plan: &State,
    base: &str,
    skipped: &mut Skipped,
) -> Result<Tracker, SyncError> {
    let mut tracker = Tracker::new(base);
    for (url, held) in &plan.trackers {
        let from = Packing::of_name(&held.file).open(&run.file(&held.file), MAX_TRACKER)?;
        if tracker.read(from, url)? == 0 {
            skipped
                .add(format!("{url} gave no list of advisories or CVEs: is it the right address?"));
        }
        run.watch.moved();
    }
    Ok(tracker)
}

/// Turns packages into updates.
struct Speaker<'a> {
    apt: &'a Apt,
    archive: &'a Archive<'a>,
    tracker: &'a Tracker,
    seen: &'a mut Seen,
    skipped: &'a mut Skipped,
}

/// A version that was said before, of the same source package.
struct Older {
    version: String,
    id: UpdateId,
    arches: BTreeSet<String>,
}

impl Speaker<'_> {
    fn say(
        &mut self,
        gathered: &Gathered,
        take: &mut dyn FnMut(Update) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let mut rows = gathered.rows().peekable();
        let (mut source, mut older) = (String::new(), Vec::<Older>::new());
        let mut group: Vec<Row<'_>> = Vec::new();
        while let Some(row) = rows.next() {
            let is_of_group = rows.peek().is_some_and(|next| {
                next.source == row.source && next.source_version == row.source_version
            });
            // One package stands in several indexes, or pockets.
            let is_known =
                group.iter().rev().take_while(|it| it.name == row.name).any(|it| {
                    it.arch == row.arch && it.version == row.version && it.mark == row.mark
                });
            if !is_known {
                group.push(row);
            }
            if is_of_group {
                continue;
            }
            if source != row.source {
                row.source.clone_into(&mut source);
                older.clear();
            }
            if let Some(update) = self.update(&group, &older) {
                older.push(Older {
                    version: row.source_version.to_owned(),
                    id: update.id,
                    arches: arches(&group),
                });
                take(update)?;
            }
            group.clear();
        }
        Ok(())
    }

    fn update(&mut self, group: &[Row<'_>], older: &[Older]) -> Option<Update> {
        let first = group.first()?;
        let (source, version) = (first.source, first.source_version);
        let archive = self.archive;
        // What several suites have is called after one of them: the security suite before the release itself,
        // so that it stays what it is when a point release takes it in.
        let codename = archive.pockets_of(group).map(|it| it.codename.as_str()).max()?;
        let date = archive.pockets_of(group).map(|it| it.date).min()?;
        let words = ["apt", &archive.origin, codename, source, version];
        let id = UpdateId::named(&words);
        let before = older.last().map(|older| older.version.as_str());
        let advice = self.tracker.advice(source, version, before);
        let seen = self.seen.first(id, date);
        let created = advice.date.filter(|_| advice.own.is_some()).unwrap_or(seen);

        let mut files = BTreeMap::new();
        for row in group {
            match self.file(row) {
                Ok(file) if files.len() < MAX_ITEMS => {
                    files.insert(row.filename, file);
                }
                Ok(_) => self.skipped.add(format!("{source} {version} has too many packages")),
                Err(why) => self.skipped.add(why),
            }
        }
        if files.is_empty() {
            return None;
        }
        let plain = format!("{source} {version}");
        let name = advice.own.as_deref().unwrap_or(&plain);
        let mut update = Update::new(id, name, "", created);
        let title = advice.title.clone().filter(|_| advice.own.is_some()).unwrap_or(plain.clone());
        update.texts.insert(Language::english(), Text { title, description: description(group) });
        update.classification = Some(self.classification(group, &advice));
        update.severity = advice.severity;
        update.products.insert(archive.product.id.clone());
        update.articles = advice.articles.into_iter().take(MAX_ITEMS).collect();
        update.cves = advice.cves.into_iter().take(MAX_ITEMS).collect();
        let arches = arches(group);
        // Where a newer version is not there yet for every architecture, it does not replace the old one.
        let replaced = older.iter().rev().take(MAX_SUPERSEDED);
        let replaced = replaced.filter(|it| arches.contains("all") || it.arches.is_subset(&arches));
        update.supersedes = replaced.map(|older| older.id).collect();
        update.behaviour = behaviour(group);
        update.rules = rules(archive.rule.as_ref(), group);
        let files = files.into_values().collect();
        update.items = vec![Item { handler: Some(Handler::Apt), files, ..Item::default() }];
        update.clip();
        Some(update)
    }

    fn file(&self, row: &Row<'_>) -> Result<File, String> {
        let digests = packages::digests(row.name, row.stated()).map_err(|why| why.to_string())?;
        let url = self.apt.url(row.filename).map_err(|why| why.to_string())?;
        Ok(File {
            name: row.filename.rsplit('/').next().unwrap_or_default().to_owned(),
            size: row.size,
            digests,
            urls: vec![url.to_string()],
            language: None,
            path: Some(row.filename.to_owned()),
            package: Some(PackageFile {
                name: row.name.to_owned(),
                version: row.version.to_owned(),
                arch: row.arch.to_owned(),
            }),
        })
    }

    fn classification(&self, group: &[Row<'_>], advice: &Advice) -> Classification {
        let Settings { definitions, .. } = &self.apt.settings;
        let source = group.first().map_or("", |row| row.source);
        let is_of = |kind: &str| self.archive.pockets_of(group).any(|it| it.kind == kind);
        let in_section = |row: &Row<'_>| {
            matches!(row.section.rsplit('/').next(), Some("metapackages" | "tasks"))
        };
        match () {
            () if definitions.iter().any(|pattern| matches(pattern, source)) => {
                Classification::Definition
            }
            () if advice.own.is_some() || is_of("security") => Classification::Security,
            () if is_of("backports") => Classification::FeaturePack,
            () if group.iter().all(in_section) => Classification::Tool,
            () => Classification::Update,
        }
    }
}

fn arches(group: &[Row<'_>]) -> BTreeSet<String> {
    group.iter().map(|row| row.arch.to_owned()).collect()
}

/// What the package of the source's name says of itself, and which packages there are.
fn description(group: &[Row<'_>]) -> String {
    let named = group.iter().find(|row| row.name == row.source).or(group.first());
    let names: BTreeSet<&str> = group.iter().map(|row| row.name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("{}\nPackages: {}", named.map_or("", |row| row.synopsis), names.join(", "))
}

/// After a kernel, nothing short of a restart runs it. Services that hold a library open may ask for one;
/// Debian's `reboot-required` does for these.
fn behaviour(group: &[Row<'_>]) -> Behaviour {
    const MAY_ASK: [&str; 8] = [
        "libc6",
        "dbus",
        "dbus-daemon",
        "systemd",
        "libssl3",
        "libssl3t64",
        "intel-microcode",
        "amd64-microcode",
    ];
    let is_kernel = |row: &Row<'_>| row.name.starts_with("linux-image-");
    let restart = match () {
        () if group.iter().any(is_kernel) => Restart::Always,
        () if group.iter().any(|row| MAY_ASK.contains(&row.name)) => Restart::MayAsk,
        () => Restart::Never,
    };
    Behaviour { restart, ..Behaviour::default() }
}

/// It can be installed where one of its packages is installed in a lower version, and is where none is and
/// one is in this version or a higher.
fn rules(system: Option<&Rule>, group: &[Row<'_>]) -> Rules {
    let compared = |is: Comparison| -> Vec<Rule> {
        let of = |row: &Row<'_>| {
            Rule::Dpkg(PackageRule {
                name: row.name.to_owned(),
                arch: (row.arch != "all").then(|| row.arch.to_owned()),
                is,
                version: row.version.to_owned(),
            })
        };
        let mut rules: Vec<Rule> = group.iter().map(of).collect();
        // A package of two suites stands there twice.
        rules.dedup();
        rules
    };
    let with_system =
        |rules: Vec<Rule>| Rule::And(system.cloned().into_iter().chain(rules).collect());
    let lower = Rule::Or(compared(Comparison::LessThan));
    let reached = Rule::Or(compared(Comparison::GreaterThanOrEqualTo));
    Rules {
        installable: Some(with_system(vec![lower.clone()])),
        installed: Some(with_system(vec![reached, Rule::Not(Box::new(lower))])),
        ..Rules::default()
    }
}

/// When versions were first seen: of each update's id the first half, and seconds. It lies in the file that
/// outlasts settings, so that a version is no other one because it is asked for in full, with other criteria,
/// or with a tracker.
#[derive(Default)]
struct Seen {
    before: HashMap<u64, u32>,
    now: BTreeMap<u64, u32>,
}

impl Seen {
    /// Reads the file of the sync before. If it was lost, everything is seen for the first time.
    fn load(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_default();
        let (entries, _) = bytes.as_chunks::<12>();
        let entry = |[a, b, c, d, e, f, g, h, s @ ..]: &[u8; 12]| {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), u32::from_be_bytes(*s))
        };
        Self { before: entries.iter().map(entry).collect(), now: BTreeMap::new() }
    }

    fn first(&mut self, id: UpdateId, now: Timestamp) -> Timestamp {
        let (key, _) = id.0.as_u64_pair();
        let now = u32::try_from(now.as_second()).unwrap_or(u32::MAX);
        let first = self.before.get(&key).copied().unwrap_or(now);
        self.now.insert(key, first);
        Timestamp::from_second(first.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn save(&self, folder: &Path) -> Result<(), SyncError> {
        let entry =
            |(key, first): (&u64, &u32)| [&key.to_be_bytes()[..], &first.to_be_bytes()].concat();
        let bytes: Vec<u8> = self.now.iter().flat_map(entry).collect();
        write_whole(folder, LASTING, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_releases() {
        let of = |origin, version, codename| product(origin, version, codename).id;
        assert_eq!(of("Debian", "12.15", "bookworm"), "debian-12");
        assert_eq!(of("Debian", "12-updates", "bookworm"), "debian-12");
        assert_eq!(of("Ubuntu", "22.04", "jammy"), "ubuntu-22.04");
        assert_eq!(of("Some Vendor", "", "stable"), "some-vendor-stable");
        assert_eq!(product("Debian", "12", "bookworm").name, "Debian 12 (bookworm)");
    }
}

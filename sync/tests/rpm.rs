//! RPM repositories: synchronized as they are in the field, mirrored, and read back by dnf.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "rpm/made.rs"]
mod made;
mod web;

use jiff::Timestamp;
use made::{Machine, Made, advisory, run, sample, updateinfo};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use sync::adapter::{Adapter, Fetched, Run, Said, Watch};
use sync::digests::{Algorithm, Hasher};
use sync::error::{Cause, SyncError};
use sync::fetch::{Fetcher, Patience, Wanted};
use sync::mirror::Origin;
use sync::openpgp::{Keyring, SigningKey};
use sync::rpm::evr::Evr;
use sync::rpm::mirror::{Choice, Snapshot};
use sync::rpm::repomd::{Listed, Repomd};
use sync::rpm::{RpmSettings, RpmSource, Selection};
use sync::rule::{Comparison, Rule};
use sync::taxonomy::{Classification, Product, Severity};
use sync::update::Update;
use tempfile::TempDir;
use web::{Answer, Web};

/// A source and its folder.
struct Source {
    source: RpmSource,
    run: Run,
    state: Option<serde_json::Value>,
    _folder: TempDir,
}

/// What a source said.
#[derive(Default)]
struct Heard {
    updates: BTreeMap<String, Update>,
    products: Vec<Product>,
    skipped: u64,
}

impl Source {
    fn new(settings: RpmSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = Run {
            fetcher: Fetcher::new(Patience::default()).unwrap(),
            folder: folder.path().into(),
            now: "2026-11-27T00:00:00Z".parse().unwrap(),
            criteria: Arc::default(),
            watch: Arc::new(Watch::default()),
        };
        let source = RpmSource::new(&settings).unwrap();
        Self { source, run, state: None, _folder: folder }
    }

    fn of(url: impl Into<String>) -> Self {
        Self::new(RpmSettings { url: url.into(), ..RpmSettings::default() })
    }

    /// One sync; nothing, if nothing was new.
    async fn sync(&mut self) -> Result<Option<Heard>, SyncError> {
        match self.source.fetch(&self.run, self.state.as_ref()).await? {
            Fetched::Unchanged => Ok(None),
            Fetched::Changed => self.read().map(Some),
        }
    }

    fn read(&mut self) -> Result<Heard, SyncError> {
        let mut heard = Heard::default();
        let read = self.source.read(&self.run, self.state.as_ref(), &mut |said| {
            match said {
                Said::Update(update) => {
                    assert!(heard.updates.insert(update.name.clone(), *update).is_none());
                }
                Said::Product(product) => heard.products.push(product),
                Said::Gone(_) | Said::Feed(_) => panic!("it says all there is"),
            }
            Ok(())
        })?;
        self.state = Some(read.state);
        heard.skipped = read.skipped.count;
        Ok(heard)
    }

    async fn snapshot(&self, choice: Choice<'_>) -> Result<Snapshot, SyncError> {
        self.source.snapshot(&self.run, self.state.as_ref().unwrap(), choice).await
    }

    /// Writes a snapshot to a folder, as whoever keeps content does: each byte is checked.
    async fn write(&self, snapshot: &Snapshot) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in &snapshot.files {
            let to = folder.path().join(file.path.as_str());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            match &file.origin {
                Origin::Local(from) => drop(fs::copy(from, &to).unwrap()),
                Origin::Made(bytes) => fs::write(&to, bytes).unwrap(),
                Origin::Remote(urls) => {
                    let (most, size) = (1 << 30, Some(file.size));
                    let (url, digests) = (&urls[0], &file.digests);
                    let wanted = Wanted { url, to: &to, most, size, digests, since: None };
                    self.run.fetcher.file(wanted, &self.run.watch).await.unwrap();
                }
            }
            let bytes = fs::read(&to).unwrap();
            assert_eq!(bytes.len() as u64, file.size, "{}", file.path);
            let mut hasher = Hasher::proving(&file.digests);
            hasher.update(&bytes);
            let (algorithm, hex) = file.digests.strongest().unwrap();
            assert_eq!(hasher.finish().1.get(algorithm), Some(hex), "{}", file.path);
        }
        folder
    }
}

/// A repository of these files, with a `repomd.xml` that states what they are.
fn listing(files: &[(&str, &str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("repodata")).unwrap();
    let mut repomd = Repomd { revision: "1".into(), ..Repomd::default() };
    for (kind, name, bytes) in files {
        let mut hasher = Hasher::new([Algorithm::Sha256]);
        hasher.update(bytes);
        let (size, digests) = hasher.finish();
        let href = format!("repodata/{name}");
        fs::write(folder.path().join(&href), bytes).unwrap();
        let (kind, size) = (kind.to_string(), Some(size));
        repomd.files.push(Listed { kind, href, digests, size, ..Listed::default() });
    }
    fs::write(folder.path().join("repodata/repomd.xml"), repomd.write()).unwrap();
    folder
}

fn file_url(folder: &Path) -> String {
    url::Url::from_directory_path(folder).unwrap().into()
}

fn keyring(key: &SigningKey) -> Keyring {
    Keyring::parse(&key.public_bytes().unwrap()).unwrap()
}

const NO_PACKAGES: &[u8] = b"<metadata packages='0'></metadata>";

/// A repository with three advisories, of which the last replaces the first.
fn tools() -> Made {
    let made = Made::new();
    for version in ["1.0-1.el9", "1.1-1.el9", "1.1-2.el9"] {
        made.package("tool", version, "");
        made.package("tool-libs", version, "");
    }
    made.package("other", "1:2.0-1.el9", "Provides: thing = 2");
    made.package("other", "1:2.1~rc1-1.el9", "");
    for version in ["5.1-1.el9", "5.2-1.el9"] {
        made.package("kernel-core", version, "Provides: installonlypkg(kernel)");
    }
    made.index(Some(&updateinfo(&advisories())));
    made
}

fn advisories() -> Vec<String> {
    vec![
        advisory("A-1", "security", &[("tool", "1.1-1.el9")]),
        advisory("A-2", "bugfix", &[("other", "1:2.1~rc1-1.el9")]),
        advisory("A-3", "security", &[("tool", "1.1-2.el9"), ("tool-libs", "1.1-2.el9")]),
        advisory("A-4", "enhancement", &[("kernel-core", "5.2-1.el9")]),
    ]
}

#[tokio::test]
async fn a_first_sync_brings_all_a_second_asks_once_and_a_third_brings_what_changed() {
    let made = tools();
    let served = Web::of(&made.path());
    let mut source = Source::of(served.url(""));

    let heard = source.sync().await.unwrap().unwrap();
    let asked = served.paths();
    assert_eq!(asked.len(), 4, "repomd.xml, its signature, two files: {asked:?}");
    assert_eq!(heard.skipped, 0);
    assert_eq!(heard.products[0].id, "almalinux-9");
    assert_eq!(heard.updates.len(), 4);
    let last = &heard.updates["A-3"];
    assert_eq!(last.classification, Some(Classification::Security));
    assert_eq!(last.severity, Some(Severity::Important));
    assert_eq!(last.cves, BTreeSet::from(["CVE-2026-0001".into()]));
    assert_eq!(last.created, "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap());
    assert_eq!(last.supersedes, BTreeSet::from([heard.updates["A-1"].id]));
    let files: Vec<_> = last.files().map(|file| file.name.as_str()).collect();
    assert_eq!(files, ["tool-1.1-2.el9.noarch.rpm", "tool-libs-1.1-2.el9.noarch.rpm"]);
    let first = last.files().next().unwrap();
    assert_eq!(first.path.as_deref(), Some("Packages/noarch/tool-1.1-2.el9.noarch.rpm"));
    let package = fs::read(made.path().join(first.path.as_ref().unwrap())).unwrap();
    assert_eq!(first.size, package.len() as u64);

    assert!(source.sync().await.unwrap().is_none());
    assert_eq!(served.paths(), ["repodata/repomd.xml"]);

    let mut more = advisories();
    more.push(advisory("A-5", "newpackage", &[("tool", "1.1-2.el9")]));
    made.index(Some(&updateinfo(&more)));
    let heard = source.sync().await.unwrap().unwrap();
    assert_eq!(heard.updates.len(), 5);
    let asked = served.paths();
    // The packages are the same: of the files only updateinfo is another.
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[2].ends_with("updateinfo.xml.gz"), "{asked:?}");
    // What is no longer listed goes, but for the state before.
    let files = fs::read_dir(&source.run.folder).unwrap().count();
    assert_eq!(files, 6, "newest.json, two repomd, primary, two updateinfo");
}

#[tokio::test]
async fn a_server_without_validators_costs_one_request_too() {
    let made = listing(&[("primary", "p.xml", NO_PACKAGES)]);
    let mut source = Source::of(file_url(made.path()));
    assert!(source.sync().await.unwrap().is_some());
    assert!(source.sync().await.unwrap().is_none());
    // Another time, the same bytes.
    let repomd = made.path().join("repodata/repomd.xml");
    let bytes = fs::read(&repomd).unwrap();
    fs::write(&repomd, bytes).unwrap();
    assert!(source.sync().await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_is_not_as_stated_ends_the_sync_and_keeps_the_state_before() {
    let made = tools();
    let served = Web::of(&made.path());
    let mut source = Source::of(served.url(""));
    source.sync().await.unwrap();
    let before = source.state.clone();

    made.package("tool", "1.2-1.el9", "");
    made.index(None);
    let repomd = fs::read_to_string(made.path().join("repodata/repomd.xml")).unwrap();
    let primary = Repomd::parse(&repomd).unwrap();
    let primary = primary.files.iter().find(|listed| listed.kind == "primary").unwrap();
    let primary = made.path().join(&primary.href);
    let good = fs::read(&primary).unwrap();
    let mut wrong = good.clone();
    wrong[good.len() / 2] ^= 1;
    fs::write(&primary, wrong).unwrap();
    assert_eq!(source.sync().await.err().unwrap().cause, Cause::Mismatch);
    // Cut off, as by a mirror that is filled at this moment.
    fs::write(&primary, &good[..good.len() - 9]).unwrap();
    assert_eq!(source.sync().await.err().unwrap().cause, Cause::Mismatch);
    fs::write(&primary, &good).unwrap();
    served.on(|asked| asked.path.contains("primary").then_some(Answer::Cut(100)));
    assert_eq!(source.sync().await.err().unwrap().cause, Cause::Unreachable);
    served.off();
    fs::remove_file(&primary).unwrap();
    assert_eq!(source.sync().await.err().unwrap().cause, Cause::NotFound);

    assert_eq!(source.state, before);
    assert_eq!(source.read().unwrap().updates.len(), 4, "the state before is read as it was");
    let snapshot = source.snapshot(Choice::Whole).await.unwrap();
    assert!(snapshot.files.iter().all(|file| !file.path.as_str().contains("1.2-1")));

    fs::write(&primary, &good).unwrap();
    assert!(source.sync().await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_that_unpacks_to_something_else_is_refused() {
    let made = listing(&[("primary", "p.xml", NO_PACKAGES)]);
    let path = made.path().join("repodata/repomd.xml");
    let mut repomd = Repomd::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    repomd.files[0].open_digests = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    fs::write(&path, repomd.write()).unwrap();
    let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
    assert_eq!(error.cause, Cause::Mismatch);
    repomd.files[0].open_digests = Default::default();
    repomd.files[0].open_size = Some(10);
    fs::write(&path, repomd.write()).unwrap();
    let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
    assert_eq!(error.cause, Cause::TooLarge);
}

#[tokio::test]
async fn what_must_be_signed_is_taken_from_who_may_sign_and_never_older() {
    let made = listing(&[("primary", "p.xml", NO_PACKAGES)]);
    let key = |seed: u8| {
        let time = "2026-01-01T00:00:00Z".parse().unwrap();
        SigningKey::new([seed; 32], "A mirror <mirror@example.org>", time).unwrap()
    };
    let (path, signature) =
        (made.path().join("repodata/repomd.xml"), made.path().join("repodata/repomd.xml.asc"));
    let put = |repomd: &Repomd, key: &SigningKey| {
        fs::write(&path, repomd.write()).unwrap();
        let signed =
            key.detach_sign(repomd.write().as_bytes(), "2026-11-26T00:00:00Z".parse().unwrap());
        fs::write(&signature, signed.unwrap()).unwrap();
    };
    let settings = RpmSettings {
        url: file_url(made.path()),
        keyring: Some(keyring(&key(1))),
        ..RpmSettings::default()
    };
    let mut source = Source::new(settings.clone());
    let cause = |result: Result<Option<Heard>, SyncError>| result.err().unwrap().cause;
    assert_eq!(cause(source.sync().await), Cause::BadSignature, "it has none");
    let unsigned = RpmSettings { allow_unsigned: true, ..settings };
    assert!(Source::new(unsigned.clone()).sync().await.unwrap().is_some());

    let mut repomd = Repomd::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    repomd.files[0].timestamp = 2_000;
    put(&repomd, &key(2));
    assert_eq!(cause(source.sync().await), Cause::BadSignature, "of a stranger");
    assert_eq!(cause(Source::new(unsigned).sync().await), Cause::BadSignature, "wrong is not none");
    put(&repomd, &key(1));
    assert!(source.sync().await.unwrap().is_some());
    repomd.files[0].timestamp = 1_000;
    put(&repomd, &key(1));
    assert_eq!(cause(source.sync().await), Cause::Replayed);
    repomd.files[0].timestamp = 3_000;
    put(&repomd, &key(1));
    assert!(source.sync().await.unwrap().is_some());
}

#[tokio::test]
async fn real_updateinfo_of_distributions_is_read() {
    for (name, count, skipped) in [
        (
            "alma9-baseos/repodata/106ba7d2cc8d0ba45aebfe29e32dbbc6ac0bb0378413184d62e6198d13fedb76-updateinfo.xml.gz",
            2,
            0,
        ),
        (
            "fedora43-updates/repodata/74f58a91baa4a290e7ab058c6298b46ef49fc5ee990ede14d181340e5d22fca9-updateinfo.xml.zst",
            1,
            0,
        ),
        ("amazon/updateinfo_1.xml.gz", 1, 0),
        ("amazon/updateinfo_2.xml.gz", 1, 0),
        ("amazon/updateinfo_2023.xml.gz", 1, 0),
        ("amazon/updateinfo_2023_kernel-livepatch.xml.gz", 1, 0),
        ("bottlerocket/updateinfo.xml.gz", 1, 0),
        ("createrepo_c-updateinfo/updateinfo_00.xml", 0, 0),
        ("createrepo_c-updateinfo/updateinfo_01.xml", 1, 0),
        ("createrepo_c-updateinfo/updateinfo_02.xml.xz", 0, 1),
        ("createrepo_c-updateinfo/updateinfo_ampersand.xml", 1, 0),
    ] {
        let bytes = fs::read(sample(name)).unwrap();
        let end = name.rsplit_once("updateinfo").unwrap().1;
        let files: [(&str, &str, &[u8]); 2] = [
            ("primary", "p.xml", NO_PACKAGES),
            ("updateinfo", &format!("u{}", end.trim_start_matches(|c: char| c != '.')), &bytes),
        ];
        let made = listing(&files);
        let heard = Source::of(file_url(made.path())).sync().await.unwrap().unwrap();
        assert_eq!((heard.updates.len(), heard.skipped), (count, skipped), "{name}");
        for update in heard.updates.values() {
            assert!(update.text(&[]).is_some_and(|text| !text.title.is_empty()), "{name}");
            assert!(
                update.rules.installable.is_some() && update.rules.installed.is_some(),
                "{name}"
            );
        }
    }
    let bytes = fs::read(sample("amazon/updateinfo_invalid_gzip.xml.gz")).unwrap();
    let made = listing(&[("primary", "p.xml", NO_PACKAGES), ("updateinfo", "u.xml.gz", &bytes)]);
    let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
    assert_eq!(error.cause, Cause::Malformed, "{error}");
}

#[tokio::test]
async fn hostile_files_are_refused_or_cost_themselves_alone() {
    let gzip = |plain: &mut dyn Read| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::copy(plain, &mut packed).unwrap();
        packed.finish().unwrap()
    };
    // A few kilobytes that unpack to 64 MiB in one text, one tag, one comment.
    for begin in ["<metadata>", "<metadata><package a='", "<metadata><!--"] {
        let mut plain = begin.as_bytes().chain(std::io::repeat(b'x').take(64 << 20));
        let made = listing(&[("primary", "p.xml.gz", &gzip(&mut plain))]);
        let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
        assert_eq!(error.cause, Cause::TooLarge, "{begin}: {error}");
    }
    let doctype = b"<!DOCTYPE updates [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><updates></updates>";
    let cut = &b"<updates><update><id>A</id></update>"[..];
    let other = &b"<html></html>"[..];
    for document in [&doctype[..], cut, other, b""] {
        let made = listing(&[("primary", "p.xml", NO_PACKAGES), ("updateinfo", "u.xml", document)]);
        let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
        assert_eq!(error.cause, Cause::Malformed, "{error}");
    }
    let attributes = (0..200_000).map(|n| format!(" a{n}='1'")).collect::<String>();
    let document = format!(
        "<updates><update><id>deep</id>{}</update><update{attributes}><id>wide</id></update>\
         <update><id>entity</id><title>&lol;</title></update></updates>",
        "<a>".repeat(100_000)
    );
    let files: [(&str, &str, &[u8]); 2] =
        [("primary", "p.xml", NO_PACKAGES), ("updateinfo", "u.xml", document.as_bytes())];
    let made = listing(&files);
    let heard = Source::of(file_url(made.path())).sync().await.unwrap().unwrap();
    assert_eq!(heard.updates.keys().collect::<Vec<_>>(), ["entity", "wide"]);
    assert_eq!(heard.skipped, 1);
    assert_eq!(heard.updates["entity"].text(&[]).unwrap().title, "&lol;");
}

#[tokio::test]
async fn sample_repositories_are_read_or_refused_with_the_reason() {
    let mut source = Source::of(file_url(&sample("createrepo_c-repo_02")));
    let heard = source.sync().await.unwrap().unwrap();
    // Without advisories, an update for each build.
    let names: Vec<_> = heard.updates.keys().map(String::as_str).collect();
    assert_eq!(names, ["fake_bash 1.1.1-1", "super_kernel 6.0.1-2"]);
    let bash = &heard.updates["fake_bash 1.1.1-1"];
    assert_eq!(bash.text(&[]).unwrap().title, "fake_bash 1.1.1-1: Fake bash");
    assert_eq!(bash.files().count(), 1);

    for (name, cause, word) in [
        // Its primary is a byte longer than it states.
        ("createrepo_c-repo_01", Cause::Mismatch, "larger than the 782 bytes"),
        ("alma9-baseos", Cause::NotFound, "primary"),
        ("fedora43-updates", Cause::NotFound, "primary"),
    ] {
        let error = Source::of(file_url(&sample(name))).sync().await.err().unwrap();
        assert_eq!(error.cause, cause, "{name}: {error}");
        assert!(error.detail.contains(word), "{name}: {error}");
    }
    // Amazon's has databases only.
    let made = tempfile::tempdir().unwrap();
    fs::create_dir(made.path().join("repodata")).unwrap();
    fs::copy(sample("amazon/repomd_noupdateinfo.xml"), made.path().join("repodata/repomd.xml"))
        .unwrap();
    let error = Source::of(file_url(made.path())).sync().await.err().unwrap();
    assert_eq!(error.cause, Cause::Unsupported);
    assert!(error.detail.contains("database"), "{error}");
}

#[tokio::test]
async fn a_repository_without_advisories_gives_an_update_for_each_build() {
    let made = tools();
    made.index(None);
    fs::remove_dir_all(made.path().join("repodata")).unwrap();
    made.index(None);
    let served = Web::of(&made.path());
    let heard = Source::of(served.url("")).sync().await.unwrap().unwrap();
    let tool = &heard.updates["tool 1.1-1.el9"];
    assert_eq!(tool.classification, Some(Classification::Update));
    assert_eq!(tool.text(&[]).unwrap().title, "tool 1.1-1.el9: tool & more");
    assert_eq!(tool.supersedes, BTreeSet::from([heard.updates["tool 1.0-1.el9"].id]));
    assert_eq!(heard.updates["other 2.1~rc1-1.el9"].supersedes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dnf_holds_the_same_updates_for_needed() {
    let made = tools();
    let at = |file: &str| made.path().join("Packages/noarch").join(file);
    let served = Web::of(&made.path());
    let heard = Source::of(served.url("")).sync().await.unwrap().unwrap();
    for installed in [
        vec![],
        vec![at("tool-1.0-1.el9.noarch.rpm")],
        vec![at("tool-1.1-1.el9.noarch.rpm"), at("other-2.1~rc1-1.el9.noarch.rpm")],
        vec![at("tool-libs-1.0-1.el9.noarch.rpm"), at("other-2.0-1.el9.noarch.rpm")],
        vec![at("tool-1.1-2.el9.noarch.rpm"), at("tool-libs-1.1-2.el9.noarch.rpm")],
        vec![at("kernel-core-5.1-1.el9.noarch.rpm")],
        vec![at("kernel-core-5.1-1.el9.noarch.rpm"), at("kernel-core-5.2-1.el9.noarch.rpm")],
    ] {
        let machine = Machine::with(&installed);
        let (needed, there) = (
            machine.dnf(&served.url(""), &["updateinfo", "list", "--updates"]),
            machine.dnf(&served.url(""), &["updateinfo", "list", "--installed"]),
        );
        let words = |text: &str| -> BTreeSet<String> {
            text.lines().filter_map(|line| line.split(' ').next().map(Into::into)).collect()
        };
        let versions = machine.installed();
        let holding = |rule: fn(&Update) -> &Option<Rule>| -> BTreeSet<String> {
            let updates = heard.updates.values();
            let hold = updates.filter(|update| holds(rule(update).as_ref().unwrap(), &versions));
            hold.map(|update| update.name.clone()).collect()
        };
        assert_eq!(holding(|update| &update.rules.installable), words(&needed), "{installed:?}");
        let ours = holding(|update| &update.rules.installed);
        // dnf lists an advisory as installed also where another package of it is still older.
        let whole: BTreeSet<_> = words(&there).difference(&words(&needed)).cloned().collect();
        assert_eq!(ours, whole, "{installed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_modules_keep_to_their_streams() {
    let made = Made::new();
    let label = |stream: &str| format!("ModularityLabel: tooling:{stream}:1:c0ffee");
    for (version, stream) in [("1.0-1", "1"), ("1.1-1", "1"), ("2.0-1", "2"), ("2.1-1", "2")] {
        made.package("tool", version, &label(stream));
    }
    let fix = |id: &str, version: &str, stream: &str| {
        let module = "<module name=\"tooling\" version=\"1\" context=\"c0ffee\" arch=\"noarch\"";
        advisory(id, "security", &[("tool", version)])
            .replace("<name>x</name>", &format!("<name>x</name>{module} stream=\"{stream}\"/>"))
    };
    // The third does not say its stream: the modules do.
    let advisories = [fix("M-1", "1.1-1", "1"), fix("M-2", "2.0-1", "2")];
    let silent = advisory("M-3", "bugfix", &[("tool", "2.1-1")]);
    made.index(Some(&updateinfo(&[&advisories[..], &[silent]].concat())));
    let module = |stream: &str, versions: &[&str]| {
        let rpms: String =
            versions.iter().map(|version| format!("    - tool-0:{version}.noarch\n")).collect();
        format!(
            "---\ndocument: modulemd\nversion: 2\ndata:\n  name: tooling\n  stream: \"{stream}\"\n  version: 1\n  \
             context: c0ffee\n  arch: noarch\n  summary: Tools\n  description: >-\n    Tools\n  license:\n    \
             module:\n    - MIT\n  artifacts:\n    rpms:\n{rpms}...\n"
        )
    };
    let modules = made.path().join("modules.yaml");
    fs::write(&modules, module("1", &["1.0-1", "1.1-1"]) + &module("2", &["2.0-1", "2.1-1"]))
        .unwrap();
    let repodata = made.path().join("repodata");
    run(Command::new("modifyrepo_c").arg("--mdtype=modules").arg(&modules).arg(repodata));
    fs::remove_file(modules).unwrap();

    let served = Web::of(&made.path());
    let mut source = Source::of(served.url(""));
    let heard = source.sync().await.unwrap().unwrap();
    let stream_of = |name: &str| {
        let json = serde_json::to_string(&heard.updates[name].rules.installable).unwrap();
        ["tooling:1", "tooling:2"].into_iter().find(|stream| json.contains(stream))
    };
    let streams = ["M-1", "M-2", "M-3"].map(stream_of);
    assert_eq!(streams, [Some("tooling:1"), Some("tooling:2"), Some("tooling:2")]);
    assert!(heard.updates["M-2"].supersedes.is_empty(), "another stream replaces nothing");
    assert_eq!(heard.updates["M-3"].supersedes, BTreeSet::from([heard.updates["M-2"].id]));

    let newest = Selection { newest_only: true, ..Selection::default() };
    let snapshot = source.snapshot(Choice::Some(&newest, None)).await.unwrap();
    let packages: BTreeSet<_> = snapshot
        .files
        .iter()
        .filter_map(|file| file.path.as_str().strip_prefix("Packages/noarch/"))
        .collect();
    assert_eq!(packages, ["tool-1.1-1.noarch.rpm", "tool-2.1-1.noarch.rpm"].into());
    let copy = source.write(&snapshot).await;
    let mirror = Web::of(copy.path());
    let machine = Machine::with(&[made.path().join("Packages/noarch/tool-1.0-1.noarch.rpm")]);
    let dnf = |words: &[&str]| {
        machine
            .dnf(&mirror.url(""), &[&["--setopt=module_platform_id=platform:el9"], words].concat())
    };
    dnf(&["module", "enable", "tooling:1"]);
    assert!(dnf(&["module", "list"]).contains("tooling"));
    let needed = dnf(&["updateinfo", "list", "--updates"]);
    assert!(needed.contains("M-1") && !needed.contains("M-2"), "{needed}");
}

/// Whether a rule holds on an AlmaLinux 9 with these packages.
fn holds(rule: &Rule, installed: &BTreeMap<String, Vec<String>>) -> bool {
    match rule {
        Rule::And(rules) => rules.iter().all(|rule| holds(rule, installed)),
        Rule::Or(rules) => rules.iter().any(|rule| holds(rule, installed)),
        Rule::Not(rule) => !holds(rule, installed),
        Rule::Release { id, major } => id == "almalinux" && major == "9",
        Rule::Rpm(rule) => {
            let evr = |text: &str| text.parse::<Evr>().unwrap();
            let mut versions: Vec<Evr> =
                installed.get(&rule.package.name).into_iter().flatten().map(|it| evr(it)).collect();
            versions.sort_by(Evr::compare);
            if rule.highest_only {
                versions = versions.split_off(versions.len().saturating_sub(1));
            }
            versions.iter().any(|version| match rule.package.is {
                Comparison::LessThan => version.compare(&evr(&rule.package.version)).is_lt(),
                Comparison::GreaterThanOrEqualTo => {
                    version.compare(&evr(&rule.package.version)).is_ge()
                }
                _ => unreachable!(),
            })
        }
        other => panic!("no rule of RPM packages: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_mirror_is_the_same_byte_for_byte_and_dnf_installs_from_it() {
    let made = tools();
    let key =
        SigningKey::new([1; 32], "A <a@example.org>", "2026-01-01T00:00:00Z".parse().unwrap());
    let repomd = fs::read(made.path().join("repodata/repomd.xml")).unwrap();
    let signature = key.unwrap().detach_sign(&repomd, "2026-01-02T00:00:00Z".parse().unwrap());
    fs::write(made.path().join("repodata/repomd.xml.asc"), signature.unwrap()).unwrap();
    let served = Web::of(&made.path());
    let mut source = Source::of(served.url(""));
    source.sync().await.unwrap();
    let snapshot = source.snapshot(Choice::Whole).await.unwrap();
    assert_eq!(snapshot.files.last().unwrap().path.as_str(), "repodata/repomd.xml");
    let copy = source.write(&snapshot).await;
    let differ = Command::new("diff").arg("-r").arg(made.path()).arg(copy.path()).output().unwrap();
    assert!(differ.status.success(), "{}", String::from_utf8_lossy(&differ.stdout));

    let mirror = Web::of(copy.path());
    let machine = Machine::with(&[made.path().join("Packages/noarch/tool-1.0-1.el9.noarch.rpm")]);
    machine.dnf(&mirror.url(""), &["makecache"]);
    let list = machine.dnf(&mirror.url(""), &["updateinfo", "list", "--updates"]);
    assert!(list.contains("A-1") && list.contains("A-3"), "{list}");
    let to = machine.path("down");
    let to = format!("--downloaddir={}", to.display());
    machine.dnf(&mirror.url(""), &["install", "--downloadonly", &to, "other", "tool-libs"]);
    let found: BTreeSet<_> = fs::read_dir(machine.path("down"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let want = ["other-2.1~rc1-1.el9.noarch.rpm", "tool-libs-1.1-2.el9.noarch.rpm"];
    assert_eq!(found, want.map(String::from).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_chosen_packages_is_whole_in_itself_and_signed() {
    let made = tools();
    let served = Web::of(&made.path());
    let mut source = Source::of(served.url(""));
    source.sync().await.unwrap();
    let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let key = SigningKey::new([1; 32], "A site <site@example.org>", time).unwrap();
    let sign = |bytes: &[u8]| Ok(key.detach_sign(bytes, time).unwrap().into());
    let selection = Selection {
        packages: ["tool", "nothing"].map(String::from).into(),
        advisories: ["A-2", "A-9"].map(String::from).into(),
        newest_only: true,
        ..Selection::default()
    };
    let snapshot = source.snapshot(Choice::Some(&selection, Some(&sign))).await.unwrap();
    assert_eq!(snapshot.missing, ["A-9", "nothing"]);
    let packages: Vec<_> = snapshot
        .files
        .iter()
        .filter_map(|file| file.path.as_str().strip_prefix("Packages/noarch/"))
        .collect();
    let want = ["other-2.1~rc1-1.el9.noarch.rpm", "tool-1.1-2.el9.noarch.rpm"];
    assert_eq!(packages.iter().copied().collect::<BTreeSet<_>>(), want.into());
    // The same choice gives the same bytes.
    assert_eq!(source.snapshot(Choice::Some(&selection, Some(&sign))).await.unwrap(), snapshot);

    let copy = source.write(&snapshot).await;
    let mirror = Web::of(copy.path());
    let machine = Machine::with(&[made.path().join("Packages/noarch/tool-1.0-1.el9.noarch.rpm")]);
    let public = machine.path("site.asc");
    fs::write(&public, key.public_armored().unwrap()).unwrap();
    let keys = format!("--setopt=t.gpgkey=file://{}", public.display());
    let signed = ["--setopt=t.repo_gpgcheck=1", &keys];
    let dnf = |words: &[&str]| machine.dnf(&mirror.url(""), &[&signed, words].concat());
    dnf(&["makecache"]);
    let list = dnf(&["updateinfo", "list", "--updates"]);
    assert!(list.contains("A-3") && !list.contains("A-1"), "of old builds nothing is left: {list}");
    let list = dnf(&["list", "--available"]);
    assert!(list.contains("tool.noarch") && !list.contains("tool-libs"), "{list}");
    // The files of packages are known too.
    assert!(dnf(&["repoquery", "-l", "other"]).trim().is_empty());
    dnf(&[
        "install",
        "--downloadonly",
        &format!("--downloaddir={}", machine.path("down").display()),
        "other",
    ]);
    assert_eq!(fs::read_dir(machine.path("down")).unwrap().count(), 1);

    // It is a repository like any other: it can be synchronized again.
    let mut again = Source::new(RpmSettings {
        url: mirror.url(""),
        keyring: Some(keyring(&key)),
        ..RpmSettings::default()
    });
    let heard = again.sync().await.unwrap().unwrap();
    assert_eq!(heard.updates.keys().collect::<Vec<_>>(), ["A-2", "A-3"]);

    // One that is altered after it was signed, dnf refuses.
    let repomd = copy.path().join("repodata/repomd.xml");
    let text = fs::read_to_string(&repomd).unwrap();
    fs::write(&repomd, text.replace("<revision>", "<revision>9")).unwrap();
    let other = Machine::with(&[]);
    fs::write(other.path("site.asc"), key.public_armored().unwrap()).unwrap();
    let keys = format!("--setopt=t.gpgkey=file://{}", other.path("site.asc").display());
    let refused =
        other.try_dnf(&mirror.url(""), &["--setopt=t.repo_gpgcheck=1", &keys, "makecache"]);
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
}

#[tokio::test]
async fn a_choice_by_architecture_leaves_out_others_and_sources() {
    let package = |name: &str, arch: &str, sum: char| {
        format!(
            "<package type='rpm'><name>{name}</name><arch>{arch}</arch><version epoch='0' ver='1' rel='1'/>\
             <checksum type='sha256' pkgid='YES'>{}</checksum><size package='1'/>\
             <location href='{name}.{arch}.rpm'/><format/></package>",
            sum.to_string().repeat(64)
        )
    };
    let all = [
        package("a", "x86_64", '1'),
        package("a", "aarch64", '2'),
        package("a", "src", '3'),
        package("b", "noarch", '4'),
    ];
    let primary = format!("<metadata packages='4'>{}</metadata>", all.concat());
    let made = listing(&[("primary", "p.xml", primary.as_bytes())]);
    let mut source = Source::of(file_url(made.path()));
    source.sync().await.unwrap();
    let selection = Selection { arches: ["x86_64".into()].into(), ..Selection::default() };
    let snapshot = source.snapshot(Choice::Some(&selection, None)).await.unwrap();
    let paths: Vec<_> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths[..2], ["a.x86_64.rpm", "b.noarch.rpm"]);
    assert_eq!(paths[3..], ["repodata/repomd.xml"], "and one file of metadata");
}

#[test]
fn versions_sort_as_rpm_itself_sorts_them() {
    // Random texts of what matters, always the same ones (xorshift64).
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut text = || -> String {
        let alphabet = b"0019abAZ..~^_+";
        let few: String =
            (0..next(9)).map(|_| char::from(alphabet[next(alphabet.len())])).collect();
        if few.is_empty() { "0".into() } else { few }
    };
    let pairs: Vec<[String; 4]> = (0..20_000).map(|_| [text(), text(), text(), text()]).collect();
    let script = "import rpm, sys\n\
                  for line in sys.stdin:\n\
                  \x20   a, b, c, d = line.rstrip('\\n').split('\\t')\n\
                  \x20   print(rpm.labelCompare(('0', a, b), ('0', c, d)))\n";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let lines: String = pairs.iter().map(|pair| pair.join("\t") + "\n").collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), pairs.len(), "python3-rpm: run tools/setup.sh tests");
    for (said, [a, b, c, d]) in said.lines().zip(&pairs) {
        let ours = Evr::new("", a, b).unwrap().compare(&Evr::new("", c, d).unwrap());
        let theirs = said.parse::<i32>().unwrap().cmp(&0);
        assert_eq!(ours, theirs, "{a}-{b} and {c}-{d}");
    }
}

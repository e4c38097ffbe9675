//! What a distribution's security tracker says: advisories, the CVEs that a version mends, how urgent.
//!
//! Read are Debian's lists of advisories (`data/DSA/list`, `data/DLA/list`), its list of CVEs
//! (`data/CVE/list`) and the tracker's JSON. All are about source packages of releases; kept is what is
//! about one release. A fix belongs to the first version offered that has it: the lowest that is not
//! below the version stated.

use super::version;
use crate::error::SyncError;
use crate::taxonomy::Severity;
use crate::unpack;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest line that is taken; what is longer is cut.
const MAX_LINE: u64 = 256 << 10;
/// How many fixes and advisories are taken: Debian's have 40,000 of one release.
const MAX_FIXES: usize = 2_000_000;

/// What is known of one release.
#[derive(Debug)]
pub struct Tracker {
    codename: String,
    advisories: Vec<Advisory>,
    /// By source package.
    fixes: HashMap<Box<str>, Vec<Fix>>,
    /// By CVE and source package.
    severities: HashMap<Box<str>, Vec<(Box<str>, Severity)>>,
    count: usize,
    /// Advisories and CVEs that documents named, of whatever release.
    named: usize,
}

#[derive(Debug)]
struct Advisory {
    id: Box<str>,
    title: Box<str>,
    date: Option<Timestamp>,
    cves: Vec<Box<str>>,
}

#[derive(Debug)]
struct Fix {
    version: Box<str>,
    what: What,
}

#[derive(Debug)]
enum What {
    Advisory(usize),
    Cve(Box<str>),
}

/// What there is to say of one version of a source package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The advisory that announced just this version.
    pub own: Option<String>,
    /// Title of the newest advisory.
    pub title: Option<String>,
    /// When that was.
    pub date: Option<Timestamp>,
    /// Ids of all advisories.
    pub articles: BTreeSet<String>,
    /// CVEs that it mends.
    pub cves: BTreeSet<String>,
    /// The worst of them.
    pub severity: Option<Severity>,
}

impl Tracker {
    /// One of the release of that code name: `bookworm`.
    pub fn new(codename: &str) -> Self {
        Self {
            codename: codename.to_owned(),
            advisories: Vec::new(),
            fixes: HashMap::new(),
            severities: HashMap::new(),
            count: 0,
            named: 0,
        }
    }

    /// Takes in a document, whichever of the forms it has; `what` names it in errors. How many advisories
    /// and CVEs it names, of whatever release: one that names none is no list, but a page of a web server.
    pub fn read(&mut self, mut from: impl BufRead, what: &str) -> Result<usize, SyncError> {
        let failed = |error| unpack::reading(what, error);
        let before = self.named;
        if from.fill_buf().map_err(failed)?.first() == Some(&b'{') {
            self.read_json(from, what)?;
        } else {
            self.read_lists(from).map_err(failed)?;
        }
        Ok(self.named - before)
    }

    /// What there is to say of `version` of `source`, after `before`: the next lower one offered.
    pub fn advice(&self, source: &str, version: &str, before: Option<&str>) -> Advice {
        let mut advice = Advice::default();
        let is_of = |fix: &&Fix| {
            version::compare(&fix.version, version).is_le()
                && before.is_none_or(|before| version::compare(&fix.version, before).is_gt())
        };
        let mut newest: Option<(&str, &Advisory)> = None;
        for fix in self.fixes.get(source).into_iter().flatten().filter(is_of) {
            match &fix.what {
                What::Cve(cve) => {
                    advice.cves.insert(cve.to_string());
                }
                What::Advisory(at) => {
                    let Some(advisory) = self.advisories.get(*at) else { continue };
                    advice.articles.insert(advisory.id.to_string());
                    advice.cves.extend(advisory.cves.iter().map(ToString::to_string));
                    // Lists have the newest first, so that of equals the first stays.
                    if newest.is_none_or(|(of, _)| version::compare(&fix.version, of).is_gt()) {
                        newest = Some((&fix.version, advisory));
                    }
                }
            }
        }
        if let Some((of, advisory)) = newest {
            let is_own = version::compare(of, version).is_eq();
            advice.own = is_own.then(|| advisory.id.to_string());
            advice.title = Some(format!("{} {}", advisory.id, advisory.title));
            advice.date = advisory.date;
        }
        let of_source = |cve: &String| {
            let found = self.severities.get(cve.as_str())?;
            found.iter().find(|(of, _)| **of == *source).map(|(_, severity)| *severity)
        };
        advice.severity = advice.cves.iter().filter_map(of_source).max();
        advice
    }

    fn fix(&mut self, source: &str, version: &str, what: What) {
        // What is beyond is no tracker's; it is bounded, not told.
        if self.count < MAX_FIXES {
            self.count += 1;
            let fix = Fix { version: version.into(), what };
            self.fixes.entry(source.into()).or_default().push(fix);
        }
    }

    fn severity(&mut self, cve: &str, source: &str, severity: Severity) {
        if self.count < MAX_FIXES {
            self.count += 1;
            let of = self.severities.entry(cve.into()).or_default();
            match of.iter_mut().find(|(name, _)| **name == *source) {
                Some((_, held)) => *held = (*held).max(severity),
                None => of.push((source.into(), severity)),
            }
        }
    }

    fn read_lists(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut about = About::Nothing;
        loop {
            bytes.clear();
            if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if !bytes.ends_with(b"\n") {
                skip_line(&mut from)?;
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end();
            if line.starts_with([' ', '\t']) {
                self.read_body(line.trim(), &mut about);
            } else {
                about = read_header(line);
                self.named += usize::from(!matches!(about, About::Nothing));
            }
        }
    }

    fn read_body(&mut self, line: &str, about: &mut About) {
        if let Some(ids) = line.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            if let About::Advisory { advisory, .. } = about {
                advisory.cves =
                    ids.split_whitespace().filter(|it| is_cve(it)).map(Into::into).collect();
            }
            return;
        }
        let Some(Line { release, source, version, urgency }) = Line::parse(line) else { return };
        match about {
            About::Nothing => {}
            About::Cve(cve) => {
                if let Some(severity) = urgency.and_then(severity_of)
                    && release.is_none_or(|release| release == self.codename)
                {
                    let cve = cve.clone();
                    self.severity(&cve, source, severity);
                }
                if let (true, Some(version)) = (release == Some(&self.codename), version) {
                    let what = What::Cve(cve.as_str().into());
                    self.fix(source, version, what);
                }
            }
            About::Advisory { advisory, kept } => {
                if let (true, Some(version)) = (release == Some(&self.codename), version) {
                    let at = *kept.get_or_insert_with(|| {
                        self.advisories.push(std::mem::take(advisory));
                        self.advisories.len() - 1
                    });
                    self.fix(source, version, What::Advisory(at));
                }
            }
        }
    }

    fn read_json(&mut self, from: impl BufRead, what: &str) -> Result<(), SyncError> {
        let mut json = serde_json::Deserializer::from_reader(from);
        let read = Sources(self).deserialize(&mut json);
        read.and_then(|()| json.end()).map_err(|error| unpack::reading(what, error.into()))
    }

    /// What the tracker's JSON says of one source package and CVE.
    fn take_entry(&mut self, source: &str, cve: &str, entry: &Entry) {
        self.named += 1;
        let Some(release) = entry.releases.get(&self.codename) else { return };
        if let Some(severity) = severity_of(&release.urgency) {
            self.severity(cve, source, severity);
        }
        // What the release had from the beginning was no update's to mend. `0` was never affected.
        let from_start = release
            .repositories
            .get(&self.codename)
            .is_some_and(|base| version::compare(&release.fixed_version, base).is_lt());
        let is_fixed = release.status == "resolved"
            && !matches!(release.fixed_version.as_str(), "" | "0")
            && !from_start;
        if is_fixed {
            self.fix(source, &release.fixed_version, What::Cve(cve.into()));
        }
    }
}

impl Default for Advisory {
    fn default() -> Self {
        Self { id: "".into(), title: "".into(), date: None, cves: Vec::new() }
    }
}

/// What the lines below a header are about.
enum About {
    Nothing,
    Cve(String),
    Advisory { advisory: Advisory, kept: Option<usize> },
}

/// `[02 Nov 2023] DSA-5545-1 vlc - security update`, or `CVE-2023-5088 (A bug …)`.
fn read_header(line: &str) -> About {
    if let Some((date, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let Some((id, title)) = rest.trim().split_once(' ') else { return About::Nothing };
        let date = Date::strptime("%d %b %Y", date.trim()).ok();
        let date =
            date.and_then(|date| Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()));
        let advisory =
            Advisory { id: id.into(), title: title.trim().into(), date, cves: Vec::new() };
        return About::Advisory { advisory, kept: None };
    }
    let id = line.split_whitespace().next().unwrap_or_default();
    if is_cve(id) { About::Cve(id.to_owned()) } else { About::Nothing }
}

/// `[bookworm] - vlc 3.0.20-0+deb12u1 (urgency; bug #1)`; without a release it is about all.
struct Line<'a> {
    release: Option<&'a str>,
    source: &'a str,
    /// None where it says `<unfixed>` and the like.
    version: Option<&'a str>,
    urgency: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (release, rest) = match line.strip_prefix('[') {
            Some(rest) => {
                rest.split_once(']').map(|(release, rest)| (Some(release), rest.trim()))?
            }
            None => (None, line),
        };
        let mut words = rest.strip_prefix("- ")?.splitn(3, ' ');
        let source = words.next().filter(|source| !source.is_empty())?;
        let version = words.next().unwrap_or_default();
        let version = (!version.is_empty() && !version.starts_with('<')).then_some(version);
        let notes = words.next().and_then(|rest| rest.trim().strip_prefix('('));
        let urgency = notes.and_then(|notes| notes.split([';', ')']).next()).map(str::trim);
        Some(Self { release, source, version, urgency })
    }
}

/// Whether it is the id of a CVE; lists write `CVE-2023-XXXX` where there is none yet.
fn is_cve(id: &str) -> bool {
    let digits = |text: &str| text.len() >= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let parts = id.strip_prefix("CVE-").and_then(|rest| rest.split_once('-'));
    id.len() < 30 && parts.is_some_and(|(year, number)| digits(year) && digits(number))
}

/// Urgencies are low, medium and high, with stars where they were derived; all else says nothing.
fn severity_of(urgency: &str) -> Option<Severity> {
    match urgency.trim_end_matches('*') {
        "high" => Some(Severity::Important),
        "medium" => Some(Severity::Moderate),
        "low" | "unimportant" => Some(Severity::Low),
        _ => None,
    }
}

fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = from.fill_buf()?;
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            let n = bytes.len();
            from.consume(n);
            if n == 0 {
                return Ok(());
            }
            continue;
        };
        from.consume(end + 1);
        return Ok(());
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    releases: BTreeMap<String, InRelease>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InRelease {
    status: String,
    repositories: BTreeMap<String, String>,
    fixed_version: String,
    urgency: String,
}

/// Reads source after source, so that only one entry is held at a time.
struct Sources<'a>(&'a mut Tracker);

impl<'de> DeserializeSeed<'de> for Sources<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sources<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of source packages")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(source) = map.next_key::<String>()? {
            map.next_value_seed(Cves { tracker: self.0, source })?;
        }
        Ok(())
    }
}

struct Cves<'a> {
    tracker: &'a mut Tracker,
    source: String,
}

impl<'de> DeserializeSeed<'de> for Cves<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Cves<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of CVEs")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(cve) = map.next_key::<String>()? {
            if is_cve(&cve) {
                let entry = map.next_value::<Entry>()?;
                self.tracker.take_entry(&self.source, &cve, &entry);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DSA: &str = include_str!("../../tests/data/apt/DSA-list");
    const CVE: &str = include_str!("../../tests/data/apt/CVE-list");
    const JSON: &str = r#"{
        "qemu": {
            "CVE-2023-1111": {"description": "d", "scope": "remote", "releases": {
                "bookworm": {"status": "resolved", "fixed_version": "1:7.2-2", "urgency": "high**",
                    "repositories": {"bookworm": "1:7.2-1", "bookworm-security": "1:7.2-2"}},
                "sid": {"status": "open", "urgency": "low"}}},
            "CVE-2020-2222": {"releases": {"bookworm": {"status": "resolved", "urgency": "low",
                "fixed_version": "1:5.0-1", "repositories": {"bookworm": "1:7.2-1"}}}},
            "CVE-2019-3333": {"releases": {"bookworm": {"status": "resolved", "urgency": "low",
                "fixed_version": "0"}}},
            "TEMP-0000000-ABCDEF": {"releases": 5}
        }
    }"#;

    fn bookworm(documents: &[&str]) -> Tracker {
        let mut tracker = Tracker::new("bookworm");
        for document in documents {
            tracker.read(document.as_bytes(), "a list").unwrap();
        }
        tracker
    }

    fn words(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn an_advisory_goes_to_the_first_version_that_has_its_fix() {
        let tracker = bookworm(&[DSA]);
        let advice = tracker.advice("zookeeper", "3.8.0-11+deb12u1", Some("3.8.0-11"));
        assert_eq!(advice.own.as_deref(), Some("DSA-5544-1"));
        assert_eq!(advice.title.as_deref(), Some("DSA-5544-1 zookeeper - security update"));
        assert_eq!(advice.date.unwrap().to_string(), "2023-10-31T00:00:00Z");
        assert_eq!(words(&advice.cves), ["CVE-2023-44981"]);
        // A later version has it too, unless the one before has it already.
        let later = tracker.advice("zookeeper", "3.8.0-11+deb12u2", None);
        assert_eq!((later.own, words(&later.articles)), (None, vec!["DSA-5544-1"]));
        let next = tracker.advice("zookeeper", "3.8.0-11+deb12u2", Some("3.8.0-11+deb12u1"));
        assert_eq!(next, Advice::default());
        assert_eq!(tracker.advice("zookeeper", "3.8.0-11", None), Advice::default());
        assert_eq!(tracker.advice("chromium", "119.0.6045.105-1~deb12u1", None).cves.len(), 13);
    }

    #[test]
    fn cves_and_urgencies_come_from_the_list_of_cves() {
        let more = "CVE-2023-9999 (text)\n\t- vlc 3.0.20-1 (high; bug #1)\n\t[bookworm] - vlc \
                    3.0.20-0+deb12u1\nCVE-2023-9998\n\t- vlc <unfixed> (low)\n\t[bookworm] - vlc \
                    <no-dsa> (Minor issue)\n";
        let tracker = bookworm(&[CVE, more]);
        let advice = tracker.advice("vlc", "3.0.20-0+deb12u1", None);
        // The placeholder without a number is no CVE.
        assert_eq!(words(&advice.cves), ["CVE-2023-9999"]);
        assert_eq!(advice.severity, Some(Severity::Important));
    }

    #[test]
    fn the_json_form_counts_what_updates_mended() {
        let tracker = bookworm(&[JSON]);
        let advice = tracker.advice("qemu", "1:7.2-2", None);
        assert_eq!(words(&advice.cves), ["CVE-2023-1111"]);
        assert_eq!(advice.severity, Some(Severity::Important));
        let mut tracker = Tracker::new("bookworm");
        assert!(tracker.read(&JSON.as_bytes()[..300], "cut off").is_err());
        let deep = format!("{}{}", "{\"a\":".repeat(5_000), "1");
        assert!(tracker.read(deep.as_bytes(), "deep").is_err());
    }

    #[test]
    fn a_document_tells_how_much_of_a_list_it_is() {
        let named = |document: &str| Tracker::new("x").read(document.as_bytes(), "it").unwrap();
        assert_eq!(named(JSON), 3, "of whatever release");
        assert!(named(DSA) > 0 && named(CVE) > 0);
        for page in ["", "{}", "<html>\n<p>[not] found</p>\n</html>\n"] {
            assert_eq!(named(page), 0, "{page}");
        }
    }

    proptest! {
        #[test]
        fn no_mutated_list_panics(at in 0..1_000_usize, byte in any::<u8>()) {
            for document in [DSA, CVE, JSON] {
                let mut bytes = document.as_bytes().to_vec();
                let at = at % bytes.len();
                bytes[at] = byte;
                let mut tracker = Tracker::new("bookworm");
                let _ = tracker.read(bytes.as_slice(), "it");
                let _ = tracker.advice("vlc", "1", None);
            }
        }
    }
}

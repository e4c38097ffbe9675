//! An archive as a source: what an administrator states of it, and the two halves of a sync.

use super::{bring, say};
use crate::adapter::{Adapter, Fetched, Read, Run, Said};
use crate::error::{Cause, SyncError};
use crate::mirror::RepoPath;
use crate::openpgp::Keyring;
use crate::taxonomy::Language;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use url::Url;

/// How many suites, components and architectures a source may have.
const MAX_PARTS: usize = 100;

/// What an administrator states of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its root, below which `dists` and `pool` lie: `http`, `https` or `file`.
    pub base: String,
    /// Suites: `bookworm`, `bookworm-security`. One that ends in `/` is a folder below the root that holds
    /// Release and Packages without components, as flat archives have it.
    pub suites: Vec<String>,
    /// Components: `main`. None with flat archives.
    #[serde(default)]
    pub components: Vec<String>,
    /// Architectures: `amd64`. Packages for all of them are always among them.
    pub architectures: Vec<String>,
    /// The keys by one of which its Release must be signed.
    pub keyring: Keyring,
    /// Addresses of the lists of its security tracker, if there is one: of advisories, of CVEs, or its
    /// JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tracker: Vec<String>,
    /// The languages of which a mirror has translated descriptions.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub languages: BTreeSet<Language>,
    /// The code name of the operating system's release that it is for. Where none is stated, it is that of
    /// the suite for archives of Debian and Ubuntu, and other archives are for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Source packages that bring definitions, as of a virus scanner; `*` stands for any letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<String>,
}

/// A Debian archive as a source of updates.
#[derive(Clone, Debug)]
pub struct Apt {
    pub(super) settings: Settings,
    pub(super) base: Url,
    pub(super) trackers: Vec<Url>,
}

impl Apt {
    /// One with these settings.
    ///
    /// # Errors
    /// [`Cause::Misconfigured`], with the setting that cannot work.
    pub fn new(settings: Settings) -> Result<Self, SyncError> {
        let base = address("an archive", &settings.base)?;
        if base.query().is_some() || base.fragment().is_some() {
            let text = &settings.base;
            return Err(wrong(format!(
                "{text:?} has a '?' or '#' in it; want the address of a folder"
            )));
        }
        let tracker = |url: &String| address("a security tracker", url);
        let trackers = settings.tracker.iter().map(tracker).collect::<Result<Vec<_>, _>>()?;
        let is_flat = settings.suites.iter().all(|suite| suite.ends_with('/'));
        some("suites", &settings.suites)?;
        some("architectures", &settings.architectures)?;
        if settings.suites.iter().any(|suite| suite.ends_with('/')) && !is_flat {
            return Err(wrong("suites are flat, with a '/' at their end, or not, but not both"));
        }
        if is_flat && !settings.components.is_empty() {
            return Err(wrong("a flat archive, whose suite ends in '/', has no components"));
        }
        if !is_flat {
            some("components", &settings.components)?;
        }
        for suite in &settings.suites {
            let path = suite.strip_suffix('/').unwrap_or(suite);
            if path != "." && !is_path(path) {
                return Err(wrong(format!("{suite:?} is no suite; want one such as 'bookworm'")));
            }
        }
        for component in &settings.components {
            if !is_path(component) {
                return Err(wrong(format!("{component:?} is no component; want 'main' or so")));
            }
        }
        for arch in &settings.architectures {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if arch.is_empty() || arch.len() > 50 || !arch.bytes().all(plain) {
                return Err(wrong(format!("{arch:?} is no architecture; want 'amd64' or so")));
            }
            if matches!(arch.as_str(), "all" | "any" | "source") {
                return Err(wrong(format!(
                    "{arch:?} names no machines; packages for all architectures are always taken"
                )));
            }
        }
        Ok(Self { settings, base, trackers })
    }

    /// The address of a path below the root.
    pub fn url(&self, path: &str) -> Result<Url, SyncError> {
        let mut url = self.base.clone();
        {
            // Each part is escaped by itself: `%` is a letter of file names.
            let mut parts = url
                .path_segments_mut()
                .map_err(|()| wrong(format!("{} can have no paths below it", self.base)))?;
            parts.pop_if_empty().extend(path.split('/').filter(|part| *part != "."));
        }
        Ok(url)
    }
}

impl Adapter for Apt {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        bring::bring(self, run, state).boxed()
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        say::say(self, run, take)
    }
}

fn wrong(detail: impl Into<String>) -> SyncError {
    SyncError::new(Cause::Misconfigured, detail)
}

fn some(name: &str, of: &[String]) -> Result<(), SyncError> {
    match of.len() {
        0 => Err(wrong(format!("{name} are missing; name one at least"))),
        1..=MAX_PARTS => Ok(()),
        _ => Err(wrong(format!("more than {MAX_PARTS} {name} are named"))),
    }
}

fn is_path(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'+');
    text.parse::<RepoPath>().is_ok() && text.len() <= 200 && text.bytes().all(plain)
}

/// The address of `what`. It is told by what it is, as a setting and an option have other names for it.
fn address(what: &str, text: &str) -> Result<Url, SyncError> {
    let url = Url::parse(text).map_err(|error| {
        let detail = format!("{text:?} is no address of {what}");
        SyncError::because(Cause::Misconfigured, detail, error)
    })?;
    if !matches!(url.scheme(), "http" | "https" | "file") || url.cannot_be_a_base() {
        let scheme = url.scheme();
        return Err(wrong(format!(
            "{scheme}:… is no address of {what}; want one of http, https, file"
        )));
    }
    // It is told in messages and logs.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(format!(
            "the address of {what} has a user name or password in it; leave them out"
        )));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::SigningKey;
    use jiff::Timestamp;
    use serde_json::json;

    fn settings(change: serde_json::Value) -> Result<Apt, SyncError> {
        let key = SigningKey::new([1; 32], "x", Timestamp::from_second(1 << 30).unwrap()).unwrap();
        let mut all = json!({
            "base": "http://deb.example.org/debian", "suites": ["bookworm"],
            "components": ["main"], "architectures": ["amd64"],
            "keyring": key.public_armored().unwrap(),
        });
        for (key, value) in change.as_object().unwrap() {
            all[key] = value.clone();
        }
        Apt::new(serde_json::from_value(all).unwrap())
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let good = settings(json!({})).unwrap();
        let url = good.url("pool/x%3a1_a+b.deb").unwrap();
        assert_eq!(url.as_str(), "http://deb.example.org/debian/pool/x%253a1_a+b.deb");
        let flat = settings(json!({"suites": ["./"], "components": []})).unwrap();
        assert_eq!(flat.url("./Packages").unwrap().path(), "/debian/Packages");
        for (change, word) in [
            (json!({"base": "ftp://x/"}), "want one of"),
            (json!({"base": "deb.example.org"}), "is no address of an archive"),
            (json!({"base": "http://x/?y"}), "address of a folder"),
            (json!({"base": "http://u:secret@x/"}), "password"),
            (json!({"suites": []}), "suites are missing"),
            (json!({"suites": ["../x"]}), "no suite"),
            (json!({"suites": ["./"]}), "no components"),
            (json!({"suites": ["./", "x"]}), "not both"),
            (json!({"components": []}), "components are missing"),
            (json!({"components": ["ma in"]}), "no component"),
            (json!({"architectures": ["all"]}), "always taken"),
            (json!({"architectures": ["AMD64"]}), "no architecture"),
            (json!({"tracker": ["gopher://x"]}), "no address of a security tracker"),
        ] {
            let error = settings(change.clone()).unwrap_err();
            assert_eq!(error.cause, Cause::Misconfigured);
            assert!(error.detail.contains(word), "{change}: {error}");
            assert!(!error.detail.contains("secret"), "{error}");
        }
    }

    #[test]
    fn settings_read_back_as_they_were_written() {
        let apt = settings(json!({"languages": ["de"]})).unwrap();
        let json = serde_json::to_value(&apt.settings).unwrap();
        let again: Settings = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), json);
        assert!(json["keyring"].as_str().unwrap().contains("BEGIN PGP PUBLIC KEY BLOCK"));
        let wrong = json!({"base": "x", "suites": [], "architectures": [], "keyring": "none"});
        assert!(serde_json::from_value::<Settings>(wrong).is_err());
    }
}

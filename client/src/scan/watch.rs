//! Whether the machine's packages became others, whoever installed them.
//!
//! Every ten seconds it is looked at what lists the packages: its size, its times. Where that is another than
//! before, and was then left alone from one look to the next, the packages themselves are read, and if they are
//! others than those that the last scan went by, a scan follows as after an installation. An installation that
//! goes on for long is not awaited: after a minute they are read all the same.

use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often is looked.
pub const LOOK: Duration = Duration::from_secs(10);
/// How long at most is waited for what lists the packages to be left alone.
pub const UNREST: Duration = Duration::from_secs(60);

/// What was seen of the packages, and what the last scan went by. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// How what lists them looked last.
    seen: String,
    /// Since when it is another than when they were read.
    unread: Option<Moment>,
    /// The digest of those that the last scan went by.
    scanned: Option<String>,
    /// Since when they are others than that.
    changed: Option<Moment>,
    /// When it was looked; not kept, so that looking alone writes nothing.
    #[serde(skip)]
    looked: Option<Moment>,
}

impl Watch {
    /// When to look next.
    pub fn next(&self) -> Moment {
        self.looked.map_or_else(Moment::default, |looked| looked + LOOK)
    }

    /// Takes how what lists the packages looks. Whether these are to be read now.
    pub fn looks(&mut self, now: Moment, stamp: String) -> bool {
        let before = self.looked.replace(now).unwrap_or(now);
        let is_left_alone = self.seen == stamp;
        if !is_left_alone {
            self.seen = stamp;
            self.unread.get_or_insert(before);
        }
        self.unread.is_some_and(|since| is_left_alone || now.since(since) >= UNREST)
    }

    /// Takes the digest of the packages; none, where they cannot be read, and are not until something
    /// changes again. Whether a scan is to follow: none does before the first one.
    pub fn read(&mut self, digest: Option<&str>) -> bool {
        let since = self.unread.take();
        let is_other = digest.is_some_and(|it| self.scanned.as_ref().is_some_and(|old| old != it));
        self.changed = since.filter(|_| is_other);
        is_other
    }

    /// Takes the digest of the packages that a scan went by. Since when they are others than those of the scan
    /// before, if they are.
    pub fn scanned(&mut self, now: Moment, digest: String) -> Option<Moment> {
        let is_other = self.scanned.as_ref().is_some_and(|old| *old != digest);
        self.scanned = Some(digest);
        let since = self.changed.take().or(self.unread);
        is_other.then(|| since.unwrap_or(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    /// One that scanned by the packages `a`, and looked at second 100.
    fn scanned() -> Watch {
        let mut watch = Watch::default();
        assert!(!watch.looks(at(80), "1".into()));
        assert!(watch.looks(at(90), "1".into()));
        assert!(!watch.read(Some("a")), "none follows before the first scan");
        assert_eq!(watch.scanned(at(95), "a".into()), None);
        assert!(!watch.looks(at(100), "1".into()));
        watch
    }

    #[test]
    fn a_scan_follows_once_what_lists_the_packages_is_left_alone() {
        let mut watch = scanned();
        assert_eq!(watch.next(), at(110));
        assert!(!watch.looks(at(110), "2".into()), "somebody is at it");
        assert!(!watch.looks(at(120), "3".into()));
        assert!(watch.looks(at(130), "3".into()));
        assert!(watch.read(Some("b")));
        assert_eq!(watch.scanned(at(131), "b".into()), Some(at(100)), "since the look before");
        assert!(!watch.looks(at(140), "3".into()));
    }

    #[test]
    fn an_installation_that_goes_on_is_not_awaited_for_longer_than_a_minute() {
        let mut watch = scanned();
        let reads = |n: &u64| watch.looks(at(100 + n * 10), n.to_string());
        assert_eq!((2..20).find(reads), Some(6), "unread since the look at second 100");
    }

    #[test]
    fn what_changes_nothing_of_the_packages_starts_no_scan() {
        let mut watch = scanned();
        watch.looks(at(110), "2".into());
        assert!(watch.looks(at(120), "2".into()));
        assert!(!watch.read(Some("a")));
        assert_eq!(watch.scanned(at(200), "a".into()), None);
        // Nor does one that cannot be read, before it changes again.
        watch.looks(at(210), "3".into());
        assert!(watch.looks(at(220), "3".into()));
        assert!(!watch.read(None) && !watch.looks(at(230), "3".into()));
    }

    #[test]
    fn a_scan_that_comes_first_tells_that_they_are_others_and_none_follows() {
        let mut watch = scanned();
        watch.looks(at(110), "2".into());
        assert_eq!(watch.scanned(at(112), "b".into()), Some(at(100)));
        assert!(watch.looks(at(120), "2".into()));
        assert!(!watch.read(Some("b")));
    }

    #[test]
    fn what_changed_while_the_agent_was_off_is_noticed() {
        let kept = serde_json::to_string(&scanned()).unwrap();
        let mut watch: Watch = serde_json::from_str(&kept).unwrap();
        assert_eq!(watch.next(), Moment::default());
        assert!(!watch.looks(at(900), "2".into()) && watch.looks(at(910), "2".into()));
        assert!(watch.read(Some("b")));
    }
}

//! What follows a scan that failed: the same update point again, then the next one.
//!
//! After a failure that may pass, a client waits half an hour; after the fourth at one update point, two
//! minutes, and turns to the next. At the one that served it well it stays.

use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long before the same update point is asked again.
pub const SAME_AGAIN: Duration = Duration::from_secs(30 * 60);
/// How often one is tried.
pub const TRIES: u32 = 4;
/// How long before the next one is asked.
pub const NEXT_ONE: Duration = Duration::from_secs(2 * 60);

/// Why a scan failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Of which class.
    pub class: Class,
    /// In words, for people.
    pub why: String,
}

/// Classes of failures, by what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The update point cannot be reached.
    Unreachable,
    /// It is busy.
    Busy,
    /// It answers what cannot be believed or understood.
    BadAnswer,
    /// It does not let the client in.
    Refused,
    /// The site names no update point.
    NoUpdatePoint,
    /// Something of the machine itself: its disk is full, its list of packages cannot be read.
    Local,
    /// What of the catalogue lay on the machine was damaged: it is brought again.
    Damaged,
}

impl Class {
    /// The number by which a site is told of it.
    pub fn code(self) -> u32 {
        match self {
            Self::Unreachable => 1,
            Self::Busy => 2,
            Self::BadAnswer => 3,
            Self::Refused => 4,
            Self::NoUpdatePoint => 5,
            Self::Local => 6,
            Self::Damaged => 7,
        }
    }

    /// The class of that number, if there is one.
    pub fn of_code(code: u32) -> Option<Self> {
        let all = [
            Self::Unreachable,
            Self::Busy,
            Self::BadAnswer,
            Self::Refused,
            Self::NoUpdatePoint,
            Self::Local,
            Self::Damaged,
        ];
        all.into_iter().find(|class| class.code() == code)
    }

    /// What it means, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unreachable => "its update point cannot be reached",
            Self::Busy => "its update point is busy",
            Self::BadAnswer => "its update point answers what it does not believe or understand",
            Self::Refused => "its update point does not let it in",
            Self::NoUpdatePoint => "the site names no update point for it",
            Self::Local => {
                "something of the machine itself, as a full disk or packages that cannot be read"
            }
            Self::Damaged => "the catalogue that lay on it was damaged, and is brought again",
        }
    }

    /// Whether it may pass by itself, or at another update point. What is wrong with the machine itself is
    /// so everywhere, and is looked at again when the next scan is due; and that the site names no
    /// update point changes with its policy.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Unreachable | Self::Busy | Self::BadAnswer | Self::Refused | Self::Damaged => {
                true
            }
            Self::NoUpdatePoint | Self::Local => false,
        }
    }
}

/// Which update point a client uses, and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    points: Vec<String>,
    at: usize,
    failed: u32,
    again: Option<Moment>,
}

impl Affinity {
    /// Takes the update points that a policy names, in the order in which they are to be tried. The one in
    /// use stays, if it is among them.
    pub fn set(&mut self, points: Vec<String>) {
        let current = self.point().map(str::to_owned);
        let kept = current.and_then(|current| points.iter().position(|it| *it == current));
        if kept.is_none() {
            (self.failed, self.again) = (0, None);
        }
        (self.points, self.at) = (points, kept.unwrap_or(0));
    }

    /// The update point to ask.
    pub fn point(&self) -> Option<&str> {
        self.points.get(self.at).map(String::as_str)
    }

    /// Before when it is not asked again.
    pub fn not_before(&self) -> Option<Moment> {
        self.again
    }

    /// It may be asked at once: somebody wants it.
    pub fn at_once(&mut self) {
        self.again = None;
    }

    /// It served well.
    pub fn served(&mut self) {
        (self.failed, self.again) = (0, None);
    }

    /// It failed in a way that may pass.
    pub fn failed(&mut self, now: Moment) {
        self.failed += 1;
        if self.failed < TRIES {
            self.again = Some(now + SAME_AGAIN);
        } else {
            self.failed = 0;
            self.at = (self.at + 1) % self.points.len().max(1);
            self.again = Some(now + NEXT_ONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_of_one_class() {
        let found: Vec<_> = (0..9).map(Class::of_code).collect();
        assert_eq!(found.iter().flatten().count(), 7);
        for (code, class) in (0..).zip(&found) {
            assert!(class.is_none_or(|class| class.code() == code));
        }
    }

    #[test]
    fn four_tries_half_an_hour_apart_then_the_next_one_after_two_minutes() {
        let mut affinity = Affinity::default();
        affinity.set(vec!["a".into(), "b".into()]);
        let mut now = Moment::default();
        for try_number in 1..=3 {
            affinity.failed(now);
            assert_eq!(affinity.point(), Some("a"), "after try {try_number}");
            assert_eq!(affinity.not_before(), Some(now + SAME_AGAIN));
            now = now + SAME_AGAIN;
        }
        affinity.failed(now);
        assert_eq!((affinity.point(), affinity.not_before()), (Some("b"), Some(now + NEXT_ONE)));
        // It stays there, also under a new policy that names both.
        affinity.served();
        affinity.set(vec!["a".into(), "b".into(), "c".into()]);
        assert_eq!((affinity.point(), affinity.not_before()), (Some("b"), None));
        // And goes on, past the last one to the first.
        for _ in 0..8 {
            affinity.failed(now);
        }
        assert_eq!(affinity.point(), Some("a"));
        affinity.set(vec!["c".into()]);
        assert_eq!(affinity.point(), Some("c"));
        affinity.set(vec![]);
        affinity.failed(now);
        assert_eq!(affinity.point(), None);
    }
}

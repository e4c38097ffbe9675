//! How a scan for compliance starts, and what it does.
//!
//! There are seven ways for one to start ([`Trigger`]). Each is forced or not, and online or offline, and that
//! with the age of the metadata that lies on the machine says whether the update point is asked ([`plan`]).
//! When which is due, and what follows a failure, is the [`agenda`]'s business; that packages became others is
//! that of [`watch`], and what a scan finds that of [`evaluate`].

pub mod agenda;
pub mod evaluate;
pub mod retry;
pub mod watch;

use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long metadata that was brought is good enough, unless somebody set it otherwise.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(24 * 3_600);

/// What starts a scan, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The machine was restarted, and an update awaited it: whether that is installed now.
    AfterRestart,
    /// An update was installed: whether it is.
    AfterInstall,
    /// An update is about to be installed: whether it is still required.
    BeforeInstall,
    /// Files of an update are about to be brought: whether it is still required.
    BeforeDownload,
    /// Somebody at the machine, or the site, asked for it: a scan cycle, or an evaluation of deployments.
    UserAction,
    /// The schedule of scans.
    Schedule,
    /// The schedule by which deployments are evaluated again.
    Reevaluation,
}

/// Whether a scan has to be by new metadata, or by what lies on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// What lies there is not asked how old it is.
    Forced,
    /// What lies there is good enough while it is young.
    NonForced,
}

/// Whether a scan may ask the update point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It may.
    Online,
    /// It never does.
    Offline,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Trigger; 7] = [
        Self::AfterRestart,
        Self::AfterInstall,
        Self::BeforeInstall,
        Self::BeforeDownload,
        Self::UserAction,
        Self::Schedule,
        Self::Reevaluation,
    ];

    /// Of which type the scan is that it starts.
    pub fn kind(self) -> (Force, Line) {
        match self {
            Self::AfterRestart | Self::AfterInstall => (Force::Forced, Line::Offline),
            Self::UserAction => (Force::Forced, Line::Online),
            Self::BeforeInstall | Self::BeforeDownload | Self::Schedule | Self::Reevaluation => {
                (Force::NonForced, Line::Online)
            }
        }
    }

    /// Whether the update point is asked: always, never, or where the metadata is older than `time_to_live`.
    /// `brought` is when a scan last brought it and came to its end.
    pub fn asks(self, now: Moment, brought: Option<Moment>, time_to_live: Duration) -> bool {
        match self.kind() {
            (_, Line::Offline) => false,
            (Force::Forced, Line::Online) => true,
            (Force::NonForced, Line::Online) => {
                brought.is_none_or(|brought| now.since(brought) >= time_to_live)
            }
        }
    }
}

/// A step of a scan. Whoever executes them does so in order, and stops at the first that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forgets what earlier scans found out about update points; not the states of updates.
    ClearHistory,
    /// Asks the site which update point to use.
    AskForUpdatePoint,
    /// Records where it is, for whoever looks at the machine and for the next step.
    RecordLocation,
    /// Brings what changed of the metadata.
    Refresh,
    /// Assesses all updates by the metadata that lies on the machine.
    Evaluate,
    /// Records the states in the ledger, which makes a message of each that changed.
    RecordStates,
}

/// The steps of a scan.
pub fn plan(asks: bool) -> &'static [Step] {
    use Step::*;
    match asks {
        true => &[ClearHistory, AskForUpdatePoint, RecordLocation, Refresh, Evaluate, RecordStates],
        false => &[Evaluate, RecordStates],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn asks(trigger: Trigger, age: Duration) -> bool {
        trigger.asks(Moment(1_000 * HOUR), Some(Moment(1_000 * HOUR - age)), TIME_TO_LIVE)
    }

    /// Trigger, whether it asks with young metadata, whether with old.
    const TABLE: [(Trigger, bool, bool); 7] = [
        // "only when the last scan was outside the TTL"
        (Trigger::Schedule, false, true),
        (Trigger::Reevaluation, false, true),
        (Trigger::BeforeDownload, false, true),
        (Trigger::BeforeInstall, false, true),
        // "always connects"
        (Trigger::UserAction, true, true),
        // "never connects"
        (Trigger::AfterInstall, false, false),
        (Trigger::AfterRestart, false, false),
    ];

    #[test]
    fn each_way_to_start_a_scan_asks_as_it_should() {
        for (trigger, young, old) in TABLE {
            assert_eq!(asks(trigger, 23 * HOUR), young, "{trigger:?} within the time to live");
            assert_eq!(asks(trigger, 24 * HOUR), old, "{trigger:?} outside the time to live");
        }
        let all: std::collections::BTreeSet<_> = TABLE.iter().map(|row| row.0).collect();
        assert_eq!(all.len(), Trigger::ALL.len());
    }

    #[test]
    fn a_machine_without_metadata_asks_but_where_it_never_may() {
        for trigger in Trigger::ALL {
            let may = trigger.kind().1 == Line::Online;
            assert_eq!(trigger.asks(Moment::default(), None, TIME_TO_LIVE), may, "{trigger:?}");
        }
    }

    #[test]
    fn a_scan_that_asks_clears_its_history_then_finds_its_update_point_and_records_it() {
        use Step::*;
        assert_eq!(plan(true)[..3], [ClearHistory, AskForUpdatePoint, RecordLocation]);
        assert_eq!(plan(false), [Evaluate, RecordStates]);
        assert!(plan(true).ends_with(plan(false)));
    }
}

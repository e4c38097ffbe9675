//! What administrators set for clients: for all of a site, and otherwise for some.
//!
//! A set of [`Changes`] says of some settings what they are. Those of the site stand above the defaults, those
//! for fewer clients above these: [`resolve`] lays them on each other by [`Rank`]. Each setting is decided
//! by itself, so one that is set for a single client leaves it all others of its site.
//!
//! Always true of [`Settings`] that [`resolve`] made: every setting is within its limits, so no change that
//! slipped in somewhere makes clients scan all day, or never ask again.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// What holds for a client. Times travel as whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether it scans for updates and installs them.
    pub updates_enabled: bool,
    /// How often it asks for its policy, where no answer waits at the site.
    #[serde(with = "seconds")]
    pub poll_every: Duration,
    /// How often it reports states that changed.
    #[serde(with = "seconds")]
    pub report_every: Duration,
    /// How long after an installation it reports at the latest.
    #[serde(with = "seconds")]
    pub report_after_install: Duration,
    /// How often it scans.
    #[serde(with = "seconds")]
    pub scan_every: Duration,
    /// How often it looks again whether what was deployed is there.
    #[serde(with = "seconds")]
    pub reevaluate_every: Duration,
    /// For how long the catalogue that it fetched is good.
    #[serde(with = "seconds")]
    pub catalogue_ttl: Duration,
    /// Over which time after a deadline machines begin, each at a time of its own.
    #[serde(with = "seconds")]
    pub deadline_spread: Duration,
    /// How long after the deadline of a deployment that allows it updates are installed.
    #[serde(with = "seconds")]
    pub grace: Duration,
    /// With updates whose deadline is over those are installed whose deadline comes within this time; none, if it is
    /// nothing.
    #[serde(with = "seconds")]
    pub coming_deadlines: Duration,
    /// How long an update may take, where its deployment does not say.
    #[serde(with = "seconds")]
    pub max_run_time: Duration,
    /// For how long people at a machine see that it is about to restart.
    #[serde(with = "seconds")]
    pub restart_countdown: Duration,
    /// For how long they may put that off, all in all.
    #[serde(with = "seconds")]
    pub restart_snooze: Duration,
    /// For how long a file stays in the cache since it was needed last.
    #[serde(with = "seconds")]
    pub cache_retention: Duration,
    /// Above so many MiB what is not needed leaves the cache. What is needed always has room.
    pub cache_size: u64,
    /// What becomes of a configuration file that somebody changed, where an update has another one.
    pub config_files: ConfigFiles,
    /// What it counts as where deployments leave servers or workstations alone.
    pub machine_kind: MachineKind,
    /// Whether an installer that takes longer than it may is ended.
    pub end_overdue: bool,
}

/// What becomes of configuration files that somebody changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigFiles {
    /// They stay; the update's own lie beside them.
    #[default]
    Keep,
    /// The update's take their place; the old ones lie beside them.
    Replace,
}

/// What a machine counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// As it looks: one with a graphical login is a workstation.
    #[default]
    Auto,
    /// A server.
    Server,
    /// A workstation.
    Workstation,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            updates_enabled: true,
            poll_every: HOUR,
            report_every: 15 * MINUTE,
            report_after_install: 2 * MINUTE,
            scan_every: 7 * DAY,
            reevaluate_every: 7 * DAY,
            catalogue_ttl: DAY,
            deadline_spread: Duration::ZERO,
            grace: Duration::ZERO,
            coming_deadlines: Duration::ZERO,
            max_run_time: 10 * MINUTE,
            restart_countdown: 15 * MINUTE,
            restart_snooze: 4 * HOUR,
            cache_retention: DAY,
            cache_size: 5_120,
            config_files: ConfigFiles::Keep,
            machine_kind: MachineKind::Auto,
            end_overdue: false,
        }
    }
}

/// Some settings; what is none stays as it is without them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Whether clients scan for updates and install them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates_enabled: Option<bool>,
    /// How often they ask for their policy, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_every: Option<u64>,
    /// How often they report, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_every: Option<u64>,
    /// How long after an installation they report at the latest, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_after_install: Option<u64>,
    /// How often they scan, in seconds; less than a day counts as a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_every: Option<u64>,
    /// How often they look again whether what was deployed is there, in seconds; less than a day counts as a
    /// day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reevaluate_every: Option<u64>,
    /// For how long a catalogue that was fetched is good, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue_ttl: Option<u64>,
    /// Over which time after a deadline machines begin, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_spread: Option<u64>,
    /// How long after the deadline of a deployment that allows it updates are installed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<u64>,
    /// How soon deadlines come whose updates are installed along, in seconds; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coming_deadlines: Option<u64>,
    /// How long an update may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_run_time: Option<u64>,
    /// For how long people see that the machine is about to restart, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_countdown: Option<u64>,
    /// For how long they may put that off, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_snooze: Option<u64>,
    /// For how long a file stays in the cache since it was needed last, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_retention: Option<u64>,
    /// Above so many MiB what is not needed leaves the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_size: Option<u64>,
    /// What becomes of a configuration file that somebody changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_files: Option<ConfigFiles>,
    /// What machines count as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_kind: Option<MachineKind>,
    /// Whether an installer that takes longer than it may is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_overdue: Option<bool>,
}

/// Whose settings stand above whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// For all clients of the site.
    Site,
    /// For some of them. The one of the higher number stands above the other.
    Some(u32),
    /// For this one client.
    Client,
}

/// A time that can be set: its name, and the least and the most that it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The setting.
    pub name: &'static str,
    /// Less than this counts as this.
    pub least: Duration,
    /// More is refused.
    pub most: Duration,
    /// Whether what is less is refused too.
    pub refuses_less: bool,
}

/// A setting beyond its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be from {} to {}, not {}",
    as_written(.limit.least.as_secs()), as_written(.limit.most.as_secs()), as_written(.found.to_owned())
)]
pub struct BeyondLimit {
    /// Which, and what it may be.
    pub limit: Limit,
    /// What it was to be, in seconds.
    pub found: u64,
}

/// So many seconds as people write them in a setting: `1h30m`.
fn as_written(mut left: u64) -> String {
    let mut text = String::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if left >= seconds {
            text.push_str(&format!("{}{unit}", left / seconds));
            left %= seconds;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// One time among the changes: what may be in it, where it stands there, and where among the settings.
struct Time {
    limit: Limit,
    change: fn(&mut Changes) -> &mut Option<u64>,
    setting: fn(&mut Settings) -> &mut Duration,
}

/// All of them.
const TIMES: [Time; 13] = [
    Time {
        limit: Limit::of("poll_every", MINUTE, DAY),
        change: |it| &mut it.poll_every,
        setting: |it| &mut it.poll_every,
    },
    Time {
        limit: Limit::of("report_every", MINUTE, DAY),
        change: |it| &mut it.report_every,
        setting: |it| &mut it.report_every,
    },
    Time {
        limit: Limit::of("report_after_install", Duration::from_secs(10), HOUR),
        change: |it| &mut it.report_after_install,
        setting: |it| &mut it.report_after_install,
    },
    Time {
        limit: Limit {
            refuses_less: false,
            ..Limit::of("scan_every", DAY, DAY.saturating_mul(90))
        },
        change: |it| &mut it.scan_every,
        setting: |it| &mut it.scan_every,
    },
    Time {
        limit: Limit {
            refuses_less: false,
            ..Limit::of("reevaluate_every", DAY, DAY.saturating_mul(90))
        },
        change: |it| &mut it.reevaluate_every,
        setting: |it| &mut it.reevaluate_every,
    },
    Time {
        limit: Limit::of("catalogue_ttl", HOUR, DAY.saturating_mul(30)),
        change: |it| &mut it.catalogue_ttl,
        setting: |it| &mut it.catalogue_ttl,
    },
    Time {
        limit: Limit::of("deadline_spread", Duration::ZERO, HOUR.saturating_mul(2)),
        change: |it| &mut it.deadline_spread,
        setting: |it| &mut it.deadline_spread,
    },
    Time {
        limit: Limit::of("grace", Duration::ZERO, HOUR.saturating_mul(120)),
        change: |it| &mut it.grace,
        setting: |it| &mut it.grace,
    },
    Time {
        limit: Limit::of("coming_deadlines", Duration::ZERO, DAY.saturating_mul(365)),
        change: |it| &mut it.coming_deadlines,
        setting: |it| &mut it.coming_deadlines,
    },
    Time {
        limit: Limit::of("max_run_time", MINUTE.saturating_mul(5), MINUTE.saturating_mul(9_999)),
        change: |it| &mut it.max_run_time,
        setting: |it| &mut it.max_run_time,
    },
    Time {
        limit: Limit::of("restart_countdown", MINUTE, DAY),
        change: |it| &mut it.restart_countdown,
        setting: |it| &mut it.restart_countdown,
    },
    Time {
        limit: Limit::of("restart_snooze", Duration::ZERO, DAY.saturating_mul(7)),
        change: |it| &mut it.restart_snooze,
        setting: |it| &mut it.restart_snooze,
    },
    Time {
        limit: Limit::of("cache_retention", Duration::ZERO, DAY.saturating_mul(7)),
        change: |it| &mut it.cache_retention,
        setting: |it| &mut it.cache_retention,
    },
];

impl Limit {
    const fn of(name: &'static str, least: Duration, most: Duration) -> Self {
        Self { name, least, most, refuses_less: true }
    }
}

impl Changes {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These with `above` laid on them.
    pub fn with(mut self, above: &Self) -> Self {
        let mut above = above.clone();
        self.updates_enabled = above.updates_enabled.or(self.updates_enabled);
        self.cache_size = above.cache_size.or(self.cache_size);
        self.config_files = above.config_files.or(self.config_files);
        self.machine_kind = above.machine_kind.or(self.machine_kind);
        self.end_overdue = above.end_overdue.or(self.end_overdue);
        for Time { change, .. } in &TIMES {
            let set = *change(&mut above);
            let below = change(&mut self);
            *below = set.or(*below);
        }
        self
    }

    /// The same, with what is short but allowed made as long as it counts.
    ///
    /// # Errors
    /// The first setting that is beyond its limits.
    pub fn checked(mut self) -> Result<Self, BeyondLimit> {
        for Time { limit, change, .. } in &TIMES {
            let Some(found) = change(&mut self) else { continue };
            let (least, most) = (limit.least.as_secs(), limit.most.as_secs());
            if *found > most || (*found < least && limit.refuses_less) {
                return Err(BeyondLimit { limit: *limit, found: *found });
            }
            *found = (*found).max(least);
        }
        Ok(self)
    }
}

impl Settings {
    /// What holds, as settings that are all set.
    pub fn as_changes(&self) -> Changes {
        let (mut these, mut changes) = (self.clone(), Changes::default());
        changes.updates_enabled = Some(self.updates_enabled);
        changes.cache_size = Some(self.cache_size);
        changes.config_files = Some(self.config_files);
        changes.machine_kind = Some(self.machine_kind);
        changes.end_overdue = Some(self.end_overdue);
        for Time { change, setting, .. } in &TIMES {
            *change(&mut changes) = Some(setting(&mut these).as_secs());
        }
        changes
    }

    /// These, each brought within its limits: what came from elsewhere is not believed.
    pub fn within_limits(mut self) -> Self {
        for Time { limit, setting, .. } in &TIMES {
            let it = setting(&mut self);
            *it = (*it).clamp(limit.least, limit.most);
        }
        self
    }
}

/// What holds for a client of whom all these are: the highest that says something of a setting decides it, and
/// where none does, the default. Of two of one rank the later one decides.
pub fn resolve<'a>(all: impl IntoIterator<Item = (Rank, &'a Changes)>) -> Settings {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(rank, _)| *rank);
    let mut set = all.into_iter().fold(Changes::default(), |below, (_, above)| below.with(above));
    let mut settings = Settings::default();
    settings.updates_enabled = set.updates_enabled.unwrap_or(settings.updates_enabled);
    settings.cache_size = set.cache_size.unwrap_or(settings.cache_size);
    settings.config_files = set.config_files.unwrap_or_default();
    settings.machine_kind = set.machine_kind.unwrap_or_default();
    settings.end_overdue = set.end_overdue.unwrap_or_default();
    for Time { change, setting, .. } in &TIMES {
        if let Some(seconds) = *change(&mut set) {
            *setting(&mut settings) = Duration::from_secs(seconds);
        }
    }
    settings.within_limits()
}

/// Times as whole seconds.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn polls(seconds: u64) -> Changes {
        Changes { poll_every: Some(seconds), ..Changes::default() }
    }

    #[test]
    fn the_defaults_are_those_of_the_reference_system() {
        let json = serde_json::to_value(Settings::default()).unwrap();
        let want = serde_json::json!({
            "updates_enabled": true, "poll_every": 3600, "report_every": 900,
            "report_after_install": 120, "scan_every": 604_800, "reevaluate_every": 604_800,
            "catalogue_ttl": 86_400, "deadline_spread": 0, "grace": 0, "coming_deadlines": 0,
            "max_run_time": 600, "restart_countdown": 900, "restart_snooze": 14_400,
            "cache_retention": 86_400, "cache_size": 5_120, "config_files": "keep",
            "machine_kind": "auto", "end_overdue": false
        });
        assert_eq!(json, want);
        assert_eq!(resolve([]), Settings::default());
    }

    #[test]
    fn what_is_set_for_fewer_stands_above_and_each_setting_is_decided_by_itself() {
        let site = Changes { updates_enabled: Some(false), ..polls(600) };
        let (few, fewer, one) =
            (polls(700), polls(800), Changes { scan_every: Some(1), ..polls(900) });
        let all = [
            (Rank::Client, &one),
            (Rank::Some(2), &fewer),
            (Rank::Site, &site),
            (Rank::Some(1), &few),
        ];
        let settings = resolve(all);
        assert_eq!(settings.poll_every, Duration::from_secs(900));
        assert_eq!(settings.scan_every, DAY, "less than a day counts as a day");
        assert!(!settings.updates_enabled);
        assert_eq!(resolve(all[1..].iter().copied()).poll_every, Duration::from_secs(800));
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused_by_name_or_counts_as_the_least() {
        let error = polls(1).checked().unwrap_err();
        assert_eq!(error.limit.name, "poll_every");
        assert_eq!(error.to_string(), "must be from 1m to 1d, not 1s");
        assert_eq!(
            polls(90_061).checked().unwrap_err().to_string(),
            "must be from 1m to 1d, not 1d1h1m1s"
        );
        let often = Changes { scan_every: Some(3_600), ..Changes::default() };
        assert_eq!(often.checked().unwrap().scan_every, Some(86_400));
        let never = Changes { scan_every: Some(u64::MAX), ..Changes::default() };
        assert_eq!(never.checked().unwrap_err().limit.name, "scan_every");
    }

    proptest! {
        #[test]
        fn whatever_is_set_settings_are_within_limits_and_say_themselves(
            seconds in proptest::array::uniform13(proptest::option::of(any::<u64>())),
            enabled in proptest::option::of(any::<bool>()),
        ) {
            let mut changes = Changes { updates_enabled: enabled, ..Changes::default() };
            for (Time { change, .. }, seconds) in TIMES.iter().zip(seconds) {
                *change(&mut changes) = seconds;
            }
            let settings = resolve([(Rank::Client, &changes)]);
            prop_assert_eq!(&settings.clone().within_limits(), &settings);
            let said = settings.as_changes();
            prop_assert_eq!(said.clone().checked(), Ok(said.clone()));
            prop_assert_eq!(resolve([(Rank::Site, &said)]), settings);
        }
    }
}

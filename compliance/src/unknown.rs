//! Why an update is Unknown on a client, and since when.
//!
//! Exactly one cause is told: the one that has to be mended first.

use crate::contact::Contacts;
use crate::fleet::{Member, Standing};
use crate::head::{Head, Seconds};
use crate::matrix::Ordinal;
use crate::message::{ClientId, State};
use crate::site::{Compliance, Settings, timestamp};
use crate::state::States;
use crate::summary::Scope;
use jiff::{SignedDuration, Timestamp};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use sync::name::UpdateId;

/// Why a state is Unknown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// The client waits for approval.
    NotEnrolled,
    /// The client is blocked.
    Blocked,
    /// A batch of the client could not be read; its full state is awaited.
    Corrupt,
    /// The client belongs to a child site that was not heard.
    NotReceived {
        /// The child site.
        site: String,
    },
    /// The client never reported a scan.
    NeverScanned,
    /// Its last scan failed.
    ScanFailed {
        /// With this code.
        code: u32,
    },
    /// It was not heard for long.
    Silent,
    /// It has reported, but more waits to be sent.
    Backlog {
        /// So many changes.
        waiting: u32,
    },
    /// It was heard and scanned, and did not assess this update: its catalogue does not have it, or it is
    /// not offered the product.
    NotAssessed {
        /// The version of the catalogue that it scanned against.
        catalogue: u64,
    },
}

/// One client on which an update is Unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Which.
    pub client: Ordinal,
    /// Its id.
    pub id: ClientId,
    /// Why.
    pub cause: Cause,
    /// Since when that is so.
    pub since: Timestamp,
}

impl Unknown {
    /// For how long it is so.
    pub fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.since).max(SignedDuration::ZERO)
    }
}

/// How many clients have a cause, without its particulars.
pub type Totals = BTreeMap<&'static str, u64>;

impl Cause {
    /// The word for it in totals.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotEnrolled => "not-enrolled",
            Self::Blocked => "blocked",
            Self::Corrupt => "corrupt",
            Self::NotReceived { .. } => "not-received",
            Self::NeverScanned => "never-scanned",
            Self::ScanFailed { .. } => "scan-failed",
            Self::Silent => "silent",
            Self::Backlog { .. } => "backlog",
            Self::NotAssessed { .. } => "not-assessed",
        }
    }
}

/// What decides a cause besides the client's own head.
struct Judge<'a> {
    settings: &'a Settings,
    contacts: &'a Contacts,
    /// Name of each child site, and when it was last heard.
    sites: HashMap<u16, (String, Seconds)>,
    now: Seconds,
}

impl Judge<'_> {
    fn cause(&self, member: &Member, head: &Head) -> (Cause, Seconds) {
        let heard = head.heard.unwrap_or(member.enrolled);
        let is_long_ago =
            |at: Seconds, limit: SignedDuration| self.now.saturating_sub(at) >= limit.as_secs();
        let site = member.site.and_then(|site| self.sites.get(&site));
        let silent_site = site.filter(|(_, at)| is_long_ago(*at, self.settings.site_silent_after));
        match (member.standing, head) {
            (Standing::Pending, _) => (Cause::NotEnrolled, member.enrolled),
            (Standing::Blocked, _) => (Cause::Blocked, heard),
            (_, Head { corrupt: Some(since), .. }) => (Cause::Corrupt, *since),
            _ if silent_site.is_some() => {
                let (name, at) = silent_site.cloned().unwrap_or_default();
                (Cause::NotReceived { site: name }, at)
            }
            (_, Head { scanned: None, .. }) => (Cause::NeverScanned, member.enrolled),
            (_, Head { failed: Some(code), scanned: Some(at), .. }) => {
                (Cause::ScanFailed { code: *code }, *at)
            }
            _ if is_long_ago(heard, self.settings.silent_after) => (Cause::Silent, heard),
            (_, Head { waiting, .. }) if *waiting > 0 => {
                (Cause::Backlog { waiting: *waiting }, heard)
            }
            (_, Head { catalogue, scanned, .. }) => {
                (Cause::NotAssessed { catalogue: *catalogue }, scanned.unwrap_or(heard))
            }
        }
    }
}

impl Compliance {
    /// At most `limit` clients of a collection on which an update is Unknown, in the order of their
    /// ordinals, beginning after `after`.
    pub fn unknown(
        &self,
        update: UpdateId,
        collection: Option<&RoaringBitmap>,
        (after, limit): (Option<Ordinal>, usize),
        now: Timestamp,
    ) -> Vec<Unknown> {
        let judge = self.judge(now);
        let states = self.states();
        let clients = Scope::new(&states, collection).having(&states, update, State::Unknown);
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return Vec::new();
        };
        let told = |client| told(&states, &judge, client);
        clients.range(from..).filter_map(told).take(limit).collect()
    }

    /// How many clients of a collection an update is Unknown on, by cause.
    pub fn unknown_totals(
        &self,
        update: UpdateId,
        collection: Option<&RoaringBitmap>,
        now: Timestamp,
    ) -> Totals {
        let judge = self.judge(now);
        let states = self.states();
        let clients = Scope::new(&states, collection).having(&states, update, State::Unknown);
        totals(&states, &judge, &clients)
    }

    /// How many clients of a collection have no state at all that counts, by cause: those of which the site
    /// knows nothing.
    pub fn unknown_clients(&self, collection: Option<&RoaringBitmap>, now: Timestamp) -> Totals {
        let judge = self.judge(now);
        let states = self.states();
        totals(&states, &judge, &without_states(&states, collection))
    }

    /// At most `limit` of these, in the order of their ordinals, beginning after `after`.
    pub fn unknown_clients_why(
        &self,
        collection: Option<&RoaringBitmap>,
        (after, limit): (Option<Ordinal>, usize),
        now: Timestamp,
    ) -> Vec<Unknown> {
        let judge = self.judge(now);
        let states = self.states();
        let clients = without_states(&states, collection);
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return Vec::new();
        };
        let told = |client| told(&states, &judge, client);
        clients.range(from..).filter_map(told).take(limit).collect()
    }

    fn judge(&self, now: Timestamp) -> Judge<'_> {
        let writer = self.writer();
        let sites = writer.sites.iter();
        let sites = sites.map(|(number, site)| (*number, (site.name.clone(), site.heard)));
        let (settings, contacts) = (&self.settings, &self.contacts);
        Judge { settings, contacts, sites: sites.collect(), now: now.as_second() }
    }
}

/// The clients of a collection of which no state counts.
fn without_states(states: &States, collection: Option<&RoaringBitmap>) -> RoaringBitmap {
    let clients = Scope::new(states, collection).clients;
    let is_unknown =
        |client: &Ordinal| states.head(*client).known == 0 || states.doubtful.contains(*client);
    clients.iter().filter(is_unknown).collect()
}

fn told(states: &States, judge: &Judge<'_>, client: Ordinal) -> Option<Unknown> {
    let member = states.fleet.get(client)?;
    let mut head = states.head(client);
    head.heard = judge.contacts.heard(client, &head);
    let (cause, since) = judge.cause(member, &head);
    Some(Unknown { client, id: member.id, cause, since: timestamp(since) })
}

fn totals(states: &States, judge: &Judge<'_>, clients: &RoaringBitmap) -> Totals {
    let mut totals = Totals::new();
    for unknown in clients.iter().filter_map(|client| told(states, judge, client)) {
        *totals.entry(unknown.cause.word()).or_default() += 1;
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const DAY: Seconds = 86_400;

    #[test]
    fn the_cause_is_what_has_to_be_mended_first() {
        let settings = Settings::default();
        let sites = HashMap::from([
            (1, ("north".to_owned(), 100 * DAY)),
            (2, ("south".to_owned(), 99 * DAY)),
        ]);
        let contacts = Contacts::default();
        let judge = Judge { settings: &settings, contacts: &contacts, sites, now: 100 * DAY };
        let member = |standing, site| {
            let id = ClientId(Uuid::nil());
            Member { id, key: None, standing, site, enrolled: DAY }
        };
        let approved = member(Standing::Approved, None);
        let never = Head::default();
        let failed = Head { scanned: Some(98 * DAY), failed: Some(7), ..never };
        let good = Head { scanned: Some(90 * DAY), heard: Some(99 * DAY), catalogue: 3, ..never };
        let late = Head { waiting: 5, ..good };
        let silent = Head { heard: Some(50 * DAY), ..late };
        let corrupt = Head { corrupt: Some(97 * DAY), ..failed };
        for (member, head, cause, days) in [
            (&approved, never, Cause::NeverScanned, 1),
            (&approved, failed, Cause::ScanFailed { code: 7 }, 98),
            (&approved, silent, Cause::Silent, 50),
            (&approved, late, Cause::Backlog { waiting: 5 }, 99),
            (&approved, good, Cause::NotAssessed { catalogue: 3 }, 90),
            (&approved, corrupt, Cause::Corrupt, 97),
            (&member(Standing::Approved, Some(1)), failed, Cause::ScanFailed { code: 7 }, 98),
            (
                &member(Standing::Approved, Some(2)),
                failed,
                Cause::NotReceived { site: "south".into() },
                99,
            ),
            (&member(Standing::Pending, None), corrupt, Cause::NotEnrolled, 1),
            (&member(Standing::Blocked, None), good, Cause::Blocked, 99),
        ] {
            assert_eq!(judge.cause(member, &head), (cause, days * DAY));
        }
    }
}

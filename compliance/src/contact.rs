//! When clients were heard of otherwise than by a report: they ask what they are to do, far more often than they have
//! states to tell.
//!
//! The moment stays in memory. Where the last one on disk is so old that the client might soon count as silent, a new
//! one is recorded, many in one commit; that is some times a week for each client, and other sites hear of it.

use crate::head::{Head, Seconds};
use crate::inbox::Entry;
use crate::matrix::Ordinal;
use crate::site::{Change, Compliance, StoreError};
use jiff::Timestamp;
use parking_lot::RwLock;
use roaring::RoaringBitmap;

/// How many times a client is recorded as heard in the time after which it counts as silent.
const TIMES: i64 = 4;

/// When each client was heard, as far as that is known since the site started.
#[derive(Default)]
pub(crate) struct Contacts(RwLock<Moments>);

#[derive(Default)]
struct Moments {
    /// By ordinal, in seconds since 1970; 0 for never.
    at: Vec<u32>,
    /// Those that are to be recorded.
    due: RoaringBitmap,
}

impl Contacts {
    /// When a client was last heard, with what its head says.
    pub(crate) fn heard(&self, client: Ordinal, head: &Head) -> Option<Seconds> {
        let at = self.0.read().at.get(client as usize).copied().filter(|at| *at > 0);
        head.heard.max(at.map(Seconds::from))
    }

    /// Forgets a client: another one may get its ordinal.
    pub(crate) fn forget(&self, client: Ordinal) {
        let mut moments = self.0.write();
        moments.due.remove(client);
        if let Some(at) = moments.at.get_mut(client as usize) {
            *at = 0;
        }
    }
}

impl Compliance {
    /// Notes that a client was heard; nothing is written.
    pub fn saw(&self, client: Ordinal, now: Timestamp) {
        let (now, head) = (now.as_second(), self.states().head(client));
        let step = self.settings.silent_after.as_secs() / TIMES;
        let mut moments = self.contacts.0.write();
        if moments.at.len() <= client as usize {
            moments.at.resize(client as usize + 1, 0);
        }
        moments.at[client as usize] = u32::try_from(now).unwrap_or_default();
        if head.heard.is_none_or(|heard| now.saturating_sub(heard) >= step) {
            moments.due.insert(client);
        }
    }

    /// Records the clients that were heard, as far as that is due.
    ///
    /// # Errors
    /// If the database fails; then they are recorded later.
    pub fn record_contacts(&self, now: Timestamp) -> Result<(), StoreError> {
        let due = std::mem::take(&mut self.contacts.0.write().due);
        if due.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer();
        let mut change = Change::default();
        change.record.at = now.as_second();
        {
            let states = self.states();
            let there = due.iter().filter(|client| states.fleet.get(*client).is_some());
            there.for_each(|client| change.tell(Entry::Heard { client }));
        }
        self.commit(&mut writer, change).inspect_err(|_| {
            self.contacts.0.write().due |= due;
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::StateDigest;
    use crate::fleet::{Enrolment, Fingerprint, Standing};
    use crate::message::{Batch, ClientId, Incarnation, Kind, Scan, ScanOutcome};
    use crate::site::Settings;
    use sitedb::Db;
    use sync::name::UpdateId;
    use uuid::Uuid;

    const DAY: i64 = 86_400;

    fn day(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * DAY).unwrap()
    }

    #[test]
    fn one_that_asks_what_to_do_is_not_silent_however_seldom_it_scans() {
        let db = Db::in_memory();
        let site = Compliance::open(db.clone(), Settings::default()).unwrap();
        let (id, key) = (ClientId(Uuid::from_u128(1)), Fingerprint([1; 32]));
        let (name, standing) = ("pc-1".to_owned(), Standing::Approved);
        let client = site.enrol(Enrolment { id, key, name, standing }, day(0)).unwrap();
        let (outcome, completed) = (ScanOutcome::Completed, Some(5));
        let batch = Batch {
            client: id,
            incarnation: Incarnation(7.try_into().unwrap()),
            first: 0,
            next: 1,
            kind: Kind::Full,
            sent: 0,
            scan: Some(Scan { age: 5, outcome, completed, catalogue: 1 }),
            waiting: 0,
            digest: StateDigest::default(),
            states: Vec::new(),
        };
        site.accept(&key, batch.encode().unwrap(), day(0)).unwrap();
        let cause = |site: &Compliance, now: i64| {
            let totals = site.unknown_totals(UpdateId(Uuid::nil()), None, day(now));
            totals.into_keys().next().unwrap()
        };
        assert_eq!((cause(&site, 6), cause(&site, 8)), ("not-assessed", "silent"));
        site.saw(client, day(8));
        assert_eq!(cause(&site, 9), "not-assessed");
        assert_eq!(site.client(client).unwrap().unwrap().heard, Some(day(8)));
        site.record_contacts(day(8)).unwrap();
        // Heard again on the same day, nothing more is to be written.
        let place = site.place();
        site.saw(client, day(8));
        site.record_contacts(day(8)).unwrap();
        assert_eq!(site.place(), place);
        let again = Compliance::open(db, Settings::default()).unwrap();
        assert_eq!((cause(&again, 9), cause(&again, 16)), ("not-assessed", "silent"));
    }
}

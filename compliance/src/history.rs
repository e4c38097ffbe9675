//! History: the counts of each update, day by day, for trends.
//!
//! One value a day holds the counts of all updates. The value of the running day is written over until the
//! day ends (in UTC), and days beyond [`Settings::history_days`](crate::Settings::history_days) go.

use crate::checkpoint::each;
use crate::site::{Compliance, StoreError};
use crate::summary::Counts;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, DbError, Order, Range};
use std::collections::BTreeMap;
use sync::name::UpdateId;

/// Keys are this and the day, counted from 1970-01-01, big-endian.
const PREFIX: &[u8] = b"compliance-day\0";
const VERSION: u8 = 1;

/// The counts of one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// How many clients there were.
    pub clients: u64,
    /// The counts of each update that was reported on.
    pub updates: BTreeMap<UpdateId, Counts>,
}

/// A day on disk: what is not told is unknown.
#[derive(Serialize, Deserialize)]
struct Written {
    clients: u64,
    /// Id, and on how many clients it was required, not required, installed.
    updates: Vec<([u8; 16], [u64; 3])>,
}

impl Compliance {
    /// Writes the counts of the day that it is now; to be called some times a day.
    ///
    /// # Errors
    /// If the database fails.
    pub fn record_day(&self, now: Timestamp) -> Result<(), StoreError> {
        let counts = self.summary_of_all(None);
        let updates = counts
            .iter()
            .map(|(id, it)| (*id.0.as_bytes(), [it.required, it.not_required, it.installed]));
        let written =
            Written { clients: self.states().fleet.all().len(), updates: updates.collect() };
        let bytes = postcard::to_extend(&written, vec![VERSION]).expect("a vector takes all bytes");
        let today = day_of(now);
        let mut batch = Batch::new();
        batch.put(key(today), bytes);
        let first = today.saturating_sub(self.settings.history_days.saturating_sub(1));
        let old = Range { from: key(0), to: Some(key(first)) };
        for (key, _) in self.db().kv().scan(&old, Order::Ascending, usize::MAX)? {
            batch.delete(key);
        }
        self.db().kv().write(batch)?;
        Ok(())
    }

    /// The counts of a day; none if none were written.
    ///
    /// # Errors
    /// If the database fails or holds something else.
    pub fn day(&self, date: Date) -> Result<Option<Day>, StoreError> {
        let Some(number) = number(date) else { return Ok(None) };
        let found = self.db().kv().get(&key(number))?;
        Ok(found.as_deref().map(read).transpose()?)
    }

    /// The counts of one update from day to day, the oldest first; days without any are left out.
    ///
    /// # Errors
    /// If the database fails or holds something else.
    pub fn trend(
        &self,
        update: UpdateId,
        days: std::ops::RangeInclusive<Date>,
    ) -> Result<BTreeMap<Date, Counts>, StoreError> {
        let mut trend = BTreeMap::new();
        let (Some(from), Some(to)) = (number(*days.start()), number(*days.end())) else {
            return Ok(trend);
        };
        let range = Range { from: key(from), to: Some(key(to.saturating_add(1))) };
        each(self.db(), range, |key, value| {
            let day = read(value)?;
            if let (Some(date), Some(counts)) = (date(key), day.updates.get(&update)) {
                trend.insert(date, *counts);
            }
            Ok(())
        })?;
        Ok(trend)
    }
}

fn read(value: &[u8]) -> Result<Day, DbError> {
    let damaged = |detail: String| DbError::Damaged { table: "compliance-day", detail };
    let body = match value {
        [VERSION, body @ ..] => body,
        _ => return Err(damaged("it is of another version".into())),
    };
    let Written { clients, updates } =
        postcard::from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    let updates = updates.into_iter().map(|(id, [required, not_required, installed])| {
        let unknown = clients.saturating_sub(required + not_required + installed);
        (
            UpdateId(uuid::Uuid::from_bytes(id)),
            Counts { required, not_required, installed, unknown },
        )
    });
    Ok(Day { clients, updates: updates.collect() })
}

fn key(day: u32) -> Vec<u8> {
    [PREFIX, &day.to_be_bytes()].concat()
}

fn date(key: &[u8]) -> Option<Date> {
    let day = u32::from_be_bytes(key.strip_prefix(PREFIX)?.try_into().ok()?);
    let at = Timestamp::from_second(i64::from(day) * 86_400).ok()?;
    Some(at.to_zoned(TimeZone::UTC).date())
}

fn day_of(now: Timestamp) -> u32 {
    u32::try_from(now.as_second() / 86_400).unwrap_or(0)
}

fn number(date: Date) -> Option<u32> {
    let start = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u32::try_from(start.as_second().div_euclid(86_400)).ok()
}

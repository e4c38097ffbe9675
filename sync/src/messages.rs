//! Status messages: what administrators are told, by number, and for how long it is kept.
//!
//! The numbers from 6700 to 6708, and their meanings, are those that Configuration Manager documents as
//! states of its update synchronisation (the WMI class `SMS_SUPSyncStatus` and its troubleshooting
//! guide), so that what people know, and what their scripts look for, holds here too. Numbers from 9000
//! up are our own; Configuration Manager says nothing under them.
//!
//! Messages are numbered in the order in which they were written. They go when they are too old, and
//! the oldest ones go when there are too many, so the table stays bounded whatever happens.

use crate::name::SourceName;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The most messages that are kept, however young they are.
pub const MOST: usize = 200_000;
/// The longest text, in characters.
const MAX_TEXT: usize = 2_000;
/// Entries that are read, or deleted, at a time.
const STEP: usize = 1_000;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Informational,
    /// Somebody should look at it in time.
    Warning,
    /// Something did not work.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Text that is no severity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no severity of a status message; want informational, warning or error")]
pub struct NotASeverity(String);

impl FromStr for Severity {
    type Err = NotASeverity;
    fn from_str(text: &str) -> Result<Self, NotASeverity> {
        [Self::Informational, Self::Warning, Self::Error]
            .into_iter()
            .find(|it| it.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NotASeverity(text.chars().take(100).collect()))
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub u32);

impl MessageId {
    /// The sync machine itself failed: its database or folder.
    pub const MACHINE_FAILED: Self = Self(6700);
    /// The synchronisation of a source started.
    pub const STARTED: Self = Self(6701);
    /// It is done.
    pub const DONE: Self = Self(6702);
    /// It failed; the text and the attribute `cause` say why.
    pub const FAILED: Self = Self(6703);
    /// It is in progress: updates are brought from the upstream.
    pub const FROM_UPSTREAM: Self = Self(6704);
    /// It is in progress: the site's database takes in what changed.
    pub const INTO_DATABASE: Self = Self(6705);
    /// It is in progress: an update point that serves clients from the internet follows.
    pub const INTERNET_POINT: Self = Self(6706);
    /// An update point does not have what its source has.
    pub const OUT_OF_SYNC: Self = Self(6707);
    /// It is done, but licence terms are still to be brought.
    pub const LICENCES_PENDING: Self = Self(6708);
    /// Somebody cancelled a synchronisation. Ours.
    pub const CANCELLED: Self = Self(9001);
    /// The server stopped in the middle of one; it begins again by itself. Ours.
    pub const INTERRUPTED: Self = Self(9002);
    /// One that failed is tried again at a time that the text says. Ours.
    pub const TRIED_AGAIN: Self = Self(9003);
    /// Something of an upstream could not be understood, or not be had, and was passed over. Ours.
    pub const PASSED_OVER: Self = Self(9004);
    /// A child site could not be told of a change; it asks by itself later. Said once, until it is there
    /// again. Ours.
    pub const CHILD_NOT_TOLD: Self = Self(9005);
    /// Updates expired by the policy of the catalogue's life or by narrower criteria, or were let go of. Ours.
    pub const AGED: Self = Self(9006);
    /// An automatic deployment rule was run, and what came of it. Ours.
    pub const RULE_RUN: Self = Self(9010);
    /// Some updates of one wait for files; the text names them. Ours.
    pub const RULE_WAITS: Self = Self(9011);
    /// A run of one failed. Ours.
    pub const RULE_FAILED: Self = Self(9012);
    /// A deployment of a rule opened, as the one before it went well. Ours.
    pub const RING_OPENED: Self = Self(9013);
    /// Too many machines failed, so that a rule's further deployments do not open until a person says go. Ours.
    pub const RINGS_HALTED: Self = Self(9014);
    /// Fewer machines comply with a deployment than it asks for, and its deadline is over. Said once, until enough
    /// do. Ours.
    pub const DEPLOYMENT_BELOW: Self = Self(9020);
    /// Enough machines comply with a deployment of which that was said. Ours.
    pub const DEPLOYMENT_RECOVERED: Self = Self(9021);

    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::MACHINE_FAILED | Self::FAILED | Self::RULE_FAILED | Self::RINGS_HALTED => {
                Severity::Error
            }
            Self::OUT_OF_SYNC
            | Self::LICENCES_PENDING
            | Self::CANCELLED
            | Self::INTERRUPTED
            | Self::PASSED_OVER
            | Self::CHILD_NOT_TOLD
            | Self::DEPLOYMENT_BELOW
            | Self::RULE_WAITS => Severity::Warning,
            _ => Severity::Informational,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One status message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it is about.
    pub id: MessageId,
    /// How much that matters.
    pub severity: Severity,
    /// The part of the site that says it: `sync`, `catalogue`.
    pub component: String,
    /// The source of updates that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// A sentence or two.
    pub text: String,
    /// What programs may want to know, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// When it happened.
    pub at: Timestamp,
}
impl Value for Message {}

impl Message {
    /// What a part of the site says, about no source.
    pub fn of_site(id: MessageId, component: &str, text: impl AsRef<str>, at: Timestamp) -> Self {
        Self {
            id,
            severity: id.severity(),
            component: component.into(),
            source: None,
            text: text.as_ref().chars().take(MAX_TEXT).collect(),
            attributes: BTreeMap::new(),
            at,
        }
    }

    /// What the sync of `source` says.
    pub fn of_sync(
        id: MessageId,
        source: &SourceName,
        text: impl AsRef<str>,
        at: Timestamp,
    ) -> Self {
        Self { source: Some(source.clone()), ..Self::of_site(id, "sync", text, at) }
    }

    /// The same with an attribute.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.attributes.insert(name.into(), value.to_string().chars().take(MAX_TEXT).collect());
        self
    }
}

/// By the order in which they were written.
const MESSAGES: Table<u64, Message> = Table::new("sync-messages");
/// Which there are of an id.
const BY_ID: Table<(u32, u64), Listed> = Table::new("sync-messages-by-id");

#[derive(Serialize, Deserialize)]
struct Listed {}
impl Value for Listed {}

/// Which messages are wanted. What is not said is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this id.
    pub id: Option<MessageId>,
    /// That matter so much at least.
    pub severity: Option<Severity>,
    /// About this source.
    pub source: Option<SourceName>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl Wanted {
    fn has(&self, message: &Message) -> bool {
        self.id.is_none_or(|id| message.id == id)
            && self.severity.is_none_or(|least| message.severity >= least)
            && self.source.as_ref().is_none_or(|source| message.source.as_ref() == Some(source))
            && self.since.is_none_or(|since| message.at >= since)
            && self.until.is_none_or(|until| message.at < until)
    }
}

/// The status messages of a site.
pub struct Messages {
    db: Db,
    /// The number of the newest.
    newest: Mutex<u64>,
}

impl Messages {
    /// Those in `db`.
    pub fn open(db: Db) -> Result<Self, DbError> {
        let newest = MESSAGES.scan(&db, Order::Descending, None, 1)?;
        let newest = newest.first().map_or(0, |(number, _)| *number);
        Ok(Self { db, newest: Mutex::new(newest) })
    }

    /// Writes one, durably, and tells the log.
    pub fn write(&self, message: &Message) -> Result<u64, CommitError> {
        let source = message.source.as_ref().map(SourceName::as_str).unwrap_or_default();
        let (id, text) = (message.id.0, message.text.as_str());
        match message.severity {
            Severity::Informational => tracing::info!(id, source, "{text}"),
            Severity::Warning => tracing::warn!(id, source, "{text}"),
            Severity::Error => tracing::error!(id, source, "{text}"),
        }
        // Held while it is written: a reader that pages back must not meet a number that came later.
        let mut newest = self.newest.lock();
        let number = *newest + 1;
        let mut batch = Batch::new();
        MESSAGES.put(&mut batch, &number, message);
        BY_ID.put(&mut batch, &(id, number), &Listed {});
        self.db.kv().write(batch)?;
        *newest = number;
        Ok(number)
    }

    /// At most `limit` messages, the newest first, from before the message of number `before`.
    pub fn list(
        &self,
        wanted: &Wanted,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Message)>, DbError> {
        let mut found = Vec::new();
        let mut before = before.unwrap_or(u64::MAX);
        while found.len() < limit {
            let some = match wanted.id {
                Some(id) => self.some_of(id, before)?,
                None => MESSAGES.scan(&self.db, Order::Descending, Some(&before), STEP)?,
            };
            let Some((last, _)) = some.last() else { break };
            before = *last;
            found.extend(some.into_iter().filter(|(_, message)| wanted.has(message)));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Some of one id, from before a number, the newest first.
    fn some_of(&self, id: MessageId, before: u64) -> Result<Vec<(u64, Message)>, DbError> {
        let listed = BY_ID.scan(&self.db, Order::Descending, Some(&(id.0, before)), STEP)?;
        let mut found = Vec::new();
        for ((of, number), _) in listed {
            if of != id.0 {
                break;
            }
            // Between two reads it may have become too old.
            found.extend(MESSAGES.get(&self.db, &number)?.map(|message| (number, message)));
        }
        Ok(found)
    }

    /// Lets go of those that are older than `keep`, and of the oldest ones where there are more than
    /// [`MOST`]; how many.
    pub fn age(&self, keep: Duration, now: Timestamp) -> Result<u64, CommitError> {
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        let newest = *self.newest.lock();
        let too_many = newest.saturating_sub(MOST as u64);
        let oldest = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
        let mut gone = 0;
        loop {
            let some = MESSAGES.scan(&self.db, Order::Ascending, None, STEP)?;
            let old = some.iter().take_while(|(n, message)| *n <= too_many || message.at < oldest);
            let mut batch = Batch::relaxed();
            let mut n = 0;
            for (number, message) in old {
                MESSAGES.delete(&mut batch, number);
                BY_ID.delete(&mut batch, &(message.id.0, *number));
                n += 1;
            }
            if n == 0 {
                return Ok(gone);
            }
            self.db.kv().write(batch)?;
            gone += n;
            if n < STEP as u64 {
                return Ok(gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn written(messages: &Messages, id: MessageId, source: &str, seconds: i64) -> u64 {
        let message = Message::of_sync(id, &source.parse().unwrap(), "so it is", at(seconds));
        messages.write(&message.with("n", seconds)).unwrap()
    }

    fn numbers(
        messages: &Messages,
        wanted: &Wanted,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<u64> {
        let found = messages.list(wanted, before, limit).unwrap();
        found.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn messages_are_found_by_id_severity_source_and_time_page_after_page() {
        let messages = Messages::open(Db::in_memory()).unwrap();
        for n in 0..30 {
            let id = [MessageId::STARTED, MessageId::DONE, MessageId::FAILED][n % 3];
            written(&messages, id, ["a", "b"][n % 2], n as i64);
        }
        let all = Wanted::default();
        assert_eq!(numbers(&messages, &all, None, 3), [30, 29, 28]);
        assert_eq!(numbers(&messages, &all, Some(28), 2), [27, 26]);
        assert_eq!(numbers(&messages, &all, Some(1), 9), [0; 0]);
        let failed = Wanted { id: Some(MessageId::FAILED), ..Wanted::default() };
        assert_eq!(numbers(&messages, &failed, None, 4), [30, 27, 24, 21]);
        assert_eq!(numbers(&messages, &failed, Some(6), 4), [3]);
        let errors = Wanted { severity: Some(Severity::Error), ..Wanted::default() };
        assert_eq!(numbers(&messages, &errors, None, 99), numbers(&messages, &failed, None, 99));
        let of_b = Wanted {
            source: Some("b".parse().unwrap()),
            since: Some(at(10)),
            until: Some(at(20)),
            ..failed
        };
        assert_eq!(numbers(&messages, &of_b, None, 9), [18, 12]);
        let none = Wanted { id: Some(MessageId(1)), ..Wanted::default() };
        assert_eq!(numbers(&messages, &none, None, 9), [0; 0]);
    }

    #[test]
    fn what_is_too_old_goes_and_numbers_go_on_after_a_restart() {
        let db = Db::in_memory();
        let messages = Messages::open(db.clone()).unwrap();
        for n in 0..2_500 {
            written(&messages, MessageId::DONE, "a", n);
        }
        assert_eq!(messages.age(Duration::from_secs(100), at(2_400)).unwrap(), 2_300);
        assert_eq!(messages.age(Duration::from_secs(100), at(2_400)).unwrap(), 0);
        let messages = Messages::open(db).unwrap();
        assert_eq!(written(&messages, MessageId::DONE, "a", 2_500), 2_501);
        let done = Wanted { id: Some(MessageId::DONE), ..Wanted::default() };
        assert_eq!(numbers(&messages, &done, None, 9_999).len(), 201);
        assert_eq!(messages.age(Duration::MAX, at(9_999)).unwrap(), 0);
    }

    #[test]
    fn a_message_says_what_it_is_and_no_more_than_fits() {
        let long = "x".repeat(10_000);
        let name = "a".parse().unwrap();
        let message = Message::of_sync(MessageId::FAILED, &name, &long, at(0));
        assert_eq!((message.severity, message.text.len()), (Severity::Error, MAX_TEXT));
        assert_eq!(message.with("cause", long).attributes["cause"].len(), MAX_TEXT);
        assert_eq!("Warning".parse(), Ok(Severity::Warning));
        assert!("bad".parse::<Severity>().unwrap_err().to_string().contains("want informational"));
    }
}

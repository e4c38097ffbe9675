//! Intake: batches of clients come in, many at a time.
//!
//! Each is read where it arrives; then it queues, and whoever comes to the head of the queue commits all
//! that waits with one synced write. A batch is judged against what the site will know when all before it
//! are taken, so two of one client may be in one commit.
//!
//! Bytes in the works are bounded: who comes with more is told to come later, and nothing is kept of it.

use crate::fleet::{Fingerprint, Member, Standing};
use crate::head::{Head, Verdict};
use crate::inbox::Entry;
use crate::matrix::{Ordinal, RowId};
use crate::message::{Answer, Batch, ClientId, MAX_SENT, Malformed, Refusal};
use crate::site::{Change, Compliance, Event, StoreError, Writer};
use jiff::Timestamp;
use parking_lot::Mutex;
use sitedb::CommitError;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one commit, about.
const GROUP_BYTES: usize = 4 << 20;
/// When who is told to come later should: some seconds, and more where many are.
const RETRY: std::ops::Range<u32> = 5..60;

/// The database failed: the batches were not taken, and should be sent again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the batch was not taken")]
pub struct IntakeError(#[source] Arc<StoreError>);

/// What one answer is.
pub type Answered = Result<Answer, IntakeError>;

/// Batches that wait to be committed.
pub(crate) struct Queue {
    waiting: Mutex<VecDeque<(Vec<Read>, Arc<Slot>)>>,
    in_flight: AtomicUsize,
    max_in_flight: usize,
}

/// Where whoever commits leaves the answers.
type Slot = Mutex<Option<Vec<Answered>>>;

/// A batch, or what came instead of one, with whom it came from.
struct Read {
    client: Ordinal,
    id: ClientId,
    at: i64,
    bytes: Vec<u8>,
    is: Result<(Batch, Vec<Option<RowId>>), Malformed>,
}

/// Bytes that are in the works.
struct InFlight<'a>(&'a Queue, usize);

impl Queue {
    pub(crate) fn new(max_in_flight: usize) -> Self {
        Self { waiting: Mutex::default(), in_flight: AtomicUsize::new(0), max_in_flight }
    }

    fn admit(&self, bytes: usize) -> Option<InFlight<'_>> {
        let before = self.in_flight.fetch_add(bytes, Ordering::AcqRel);
        let admitted = InFlight(self, bytes);
        (before + bytes <= self.max_in_flight).then_some(admitted)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl Compliance {
    /// Takes a batch that came under a client's key; it is on disk when this returns.
    ///
    /// # Errors
    /// If the database fails.
    pub fn accept(&self, key: &Fingerprint, bytes: Vec<u8>, now: Timestamp) -> Answered {
        let mut answers = self.accept_all(vec![(*key, bytes)], now);
        answers.pop().expect("one answer for each batch")
    }

    /// Takes many batches in one commit; an answer for each, in their order.
    pub fn accept_all(&self, came: Vec<(Fingerprint, Vec<u8>)>, now: Timestamp) -> Vec<Answered> {
        let size: usize = came.iter().map(|(_, bytes)| bytes.len()).sum();
        let Some(_in_flight) = self.queue.admit(size) else {
            let busy =
                |(key, _): &(Fingerprint, _)| Ok(Answer::Busy { retry_after: retry_after(key) });
            return came.iter().map(busy).collect();
        };
        let mut answers = Vec::new();
        let mut read = Vec::new();
        for (key, bytes) in came {
            match self.read(&key, bytes, now) {
                Ok(batch) => {
                    answers.push(None);
                    read.push(batch);
                }
                Err(why) => answers.push(Some(Ok(Answer::Refused { why }))),
            }
        }
        let mut committed = match read.is_empty() {
            true => Vec::new(),
            false => self.in_turn(read),
        }
        .into_iter();
        let fill = |answer: Option<Answered>| {
            answer.unwrap_or_else(|| committed.next().expect("one answer for each that was read"))
        };
        answers.into_iter().map(fill).collect()
    }

    fn read(&self, key: &Fingerprint, bytes: Vec<u8>, now: Timestamp) -> Result<Read, Refusal> {
        let (client, id, standing) = {
            let states = self.states();
            let (client, member) = states.fleet.by_key(key).ok_or(Refusal::UnknownClient)?;
            (client, member.id, member.standing)
        };
        match standing {
            Standing::Pending => return Err(Refusal::Pending),
            Standing::Blocked => return Err(Refusal::Blocked),
            Standing::Approved => {}
        }
        if bytes.len() > MAX_SENT {
            return Err(Refusal::TooLarge);
        }
        let is = match Batch::decode(&bytes) {
            Ok(batch) if batch.client != id => return Err(Refusal::ForeignKey),
            Ok(batch) => {
                let states = self.states();
                let rows = batch.states.iter().map(|it| states.matrix.find(it.update)).collect();
                Ok((batch, rows))
            }
            Err(malformed) => Err(malformed),
        };
        Ok(Read { client, id, at: now.as_second(), bytes, is })
    }

    /// Waits for the turn of these batches, or commits them with all that wait before.
    fn in_turn(&self, read: Vec<Read>) -> Vec<Answered> {
        let slot = Arc::new(Slot::default());
        self.queue.waiting.lock().push_back((read, Arc::clone(&slot)));
        let mut writer = self.writer();
        loop {
            if let Some(answers) = slot.lock().take() {
                return answers;
            }
            let mut group = Vec::new();
            let mut size = 0;
            {
                let mut waiting = self.queue.waiting.lock();
                while size < GROUP_BYTES
                    && let Some((read, slot)) = waiting.pop_front()
                {
                    size += read.iter().map(|it| it.bytes.len()).sum::<usize>();
                    group.push((read, slot));
                }
            }
            self.commit_group(&mut writer, group);
        }
    }

    fn commit_group(&self, writer: &mut Writer, group: Vec<(Vec<Read>, Arc<Slot>)>) {
        let mut turn = Turn::new(self);
        let mut slots = Vec::new();
        for (read, slot) in group {
            let answers: Vec<_> = read.into_iter().map(|it| turn.take(writer, it)).collect();
            slots.push((slot, answers));
        }
        let Turn { change, events, .. } = turn;
        let outcome = match change.record.entries.is_empty() {
            true => Ok(()),
            false => self.commit(writer, change),
        };
        let failure = outcome.err().map(|it: CommitError| IntakeError(Arc::new(it.into())));
        if failure.is_none() {
            events.into_iter().for_each(|event| self.note(event));
        }
        let states = self.states();
        for (slot, answers) in slots {
            let answers = answers.into_iter().map(|(client, answer)| match (&failure, answer) {
                (Some(failure), _) => Err(failure.clone()),
                // Whether the digests agree is known now.
                (None, Answer::Accepted { next, .. }) => {
                    Ok(Answer::Accepted { next, resync: states.head(client).resync() })
                }
                (None, answer) => Ok(answer),
            });
            *slot.lock() = Some(answers.collect());
        }
    }
}

/// What becomes of the batches of one commit.
struct Turn<'a> {
    site: &'a Compliance,
    change: Change,
    events: Vec<Event>,
    /// Heads as they will be.
    heads: HashMap<Ordinal, Head>,
    new_updates: HashSet<crate::message::UpdateRevision>,
}

impl<'a> Turn<'a> {
    fn new(site: &'a Compliance) -> Self {
        Self {
            site,
            change: Change::default(),
            events: Vec::new(),
            heads: HashMap::new(),
            new_updates: HashSet::new(),
        }
    }

    fn take(&mut self, writer: &mut Writer, read: Read) -> (Ordinal, Answer) {
        let Read { client, id, at, bytes, is } = read;
        let refused = |why| (client, Answer::Refused { why });
        let (member, n_rows) = {
            let states = self.site.states();
            self.heads.entry(client).or_insert_with(|| states.head(client));
            (states.fleet.get(client).cloned(), states.matrix.rows().len())
        };
        // It may have been removed or blocked while it waited.
        let Some(member) = member.filter(|it| it.id == id) else {
            return refused(Refusal::UnknownClient);
        };
        if member.standing != Standing::Approved {
            return refused(Refusal::Blocked);
        }
        self.change.record.at = self.change.record.at.max(at);
        let (batch, rows) = match is {
            Ok(read) => read,
            Err(malformed) => {
                let reason = malformed.to_string();
                let what = (bytes.as_slice(), reason.clone());
                let number = writer.quarantine.hold(&mut self.change.batch, (client, id), what, at);
                self.change.tell(Entry::Corrupt { client });
                self.change.rows.push(Vec::new());
                self.events.push(Event::Quarantined { client: id, number, reason });
                return refused(Refusal::Malformed { quarantine: number });
            }
        };
        let head = self.heads.entry(client).or_default();
        match head.judge(&batch) {
            Verdict::Take => {}
            Verdict::Answer(answer) => return (client, answer),
            Verdict::Returned(answer) => {
                head.return_at(at);
                self.change.tell(Entry::Returned { client });
                self.change.rows.push(Vec::new());
                return (client, answer);
            }
        }
        let unknown = batch.states.iter().zip(&rows).filter(|(_, row)| row.is_none());
        let before = self.new_updates.len();
        self.new_updates.extend(unknown.map(|(message, _)| message.update));
        if self.new_updates.len() > before
            && n_rows + self.new_updates.len() > self.site.settings.max_updates
        {
            return refused(Refusal::TooManyUpdates);
        }
        head.take(&batch, at);
        // What it is to become; a batch of the same client that follows in this commit is judged by it.
        head.digest = batch.digest;
        let next = batch.next;
        if member.site.is_some() {
            // It came from a child site to this one.
            self.change.members.insert(client, Member { site: None, ..member });
        }
        self.change.record.entries.push((Entry::Batch { client, batch }, bytes));
        self.change.rows.push(rows);
        (client, Answer::Accepted { next, resync: None })
    }
}

/// A time to wait that differs from client to client, so that they do not come back all at once.
fn retry_after(key: &Fingerprint) -> u32 {
    let spread = key.0.first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
    RETRY.start + spread % (RETRY.end - RETRY.start)
}

//! Checkpoints: what is in memory gets into the tables, so that the inbox can be forgotten.
//!
//! Bitmaps and heads that changed are written over what was there, a few megabytes at a time, while batches
//! go on coming in; then one small synced write says up to which place the tables hold everything. A crash
//! in between leaves tables that are partly newer than that place: the inbox is told again from it, and
//! each entry leads to the same states whether or not it was in them (see `inbox`). So no second copy of
//! the matrix is kept, in memory or on disk. (ARIES calls this a fuzzy checkpoint, and a head's place its
//! page LSN: Mohan and others, 1992.)

use crate::fleet::Member;
use crate::forward::{ChildSite, Gone};
use crate::head::{Head, Place};
use crate::inbox::{self, Entry, Record};
use crate::matrix::{Plane, RowId};
use crate::message::UpdateRevision;
use crate::quarantine::Quarantine;
use crate::site::{Compliance, StoreError, Writer};
use crate::state::{HEADS_A_VALUE, Retold, States};
use jiff::Timestamp;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Order, Range, Table, Value};
use sync::name::UpdateId;
use uuid::Uuid;

/// Bitmaps that are looked at in one step.
const STEP_BITMAPS: usize = 1_024;
/// Values that are read in one step.
const PAGE: usize = 64;

const ROWS: &[u8] = b"compliance-row\0";
const HEADS: &[u8] = b"compliance-heads\0";
const HEADS_VERSION: u8 = 1;

const COVERED: Table<(), Covered> = Table::new("compliance-covered");

/// How far the tables are.
#[derive(Serialize, Deserialize)]
struct Covered {
    /// Every entry up to this place is in the tables.
    place: Place,
    /// Drawn when the store was made.
    store: u64,
}
impl Value for Covered {}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Bitmaps and values of heads that were written.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Compliance {
    /// Makes a checkpoint if one is due; to be called every few seconds.
    ///
    /// # Errors
    /// If the database fails; nothing is lost, and the next one goes on.
    pub fn checkpoint_if_due(&self, now: Timestamp) -> Result<Option<Checkpoint>, StoreError> {
        let is_due = {
            let writer = self.writer();
            let bytes = self.settings.checkpoint_bytes.max(writer.matrix_bytes / 4);
            let wait = self.settings.checkpoint_after.as_secs();
            writer.inbox_bytes >= bytes
                || writer.since.is_some_and(|since| now.as_second().saturating_sub(since) >= wait)
        };
        is_due.then(|| self.checkpoint()).transpose()
    }

    /// Makes a checkpoint. Batches go on coming in meanwhile.
    ///
    /// # Errors
    /// If the database fails; nothing is lost, and the next one goes on.
    pub fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let _one = self.checkpointing.lock();
        let (place, bytes, since, store) = {
            let mut writer = self.writer();
            (writer.next - 1, writer.inbox_bytes, writer.since.take(), writer.store)
        };
        let write = || {
            let mut done = Checkpoint::default();
            self.write_rows(&mut done)?;
            self.write_heads(&mut done)?;
            let (written, bytes) = self.write_packages()?;
            done.written += written;
            done.bytes += bytes;
            // All writes before a synced one are on disk with it.
            COVERED.set(self.db(), &(), &Covered { place, store })?;
            Ok(done)
        };
        let done = write().inspect_err(|_: &StoreError| self.writer().since = since)?;
        self.states.write().fleet.covered(place);
        let matrix_bytes = self.states().matrix.size();
        {
            let mut writer = self.writer();
            writer.inbox_bytes -= bytes;
            writer.matrix_bytes = matrix_bytes;
        }
        self.forget_inbox(place)?;
        Gone::forget(self.db())?;
        Ok(done)
    }

    /// Counts places as those of another store from now on, so that a parent is told everything anew: this
    /// database is an older one than the parent was told of.
    ///
    /// # Errors
    /// If the database fails.
    pub fn renew_store(&self) -> Result<(), StoreError> {
        let _one = self.checkpointing.lock();
        let place = COVERED.get(self.db(), &())?.map_or(0, |covered| covered.place);
        let (store, _) = Uuid::new_v4().as_u64_pair();
        COVERED.set(self.db(), &(), &Covered { place, store })?;
        self.writer().store = store;
        Ok(())
    }

    /// Has `batch` do the same in a database that was put back and is not open yet.
    ///
    /// # Errors
    /// If the database fails.
    pub fn renew_store_in(db: &Db, batch: &mut Batch) -> Result<(), DbError> {
        if let Some(Covered { place, .. }) = COVERED.get(db, &())? {
            let (store, _) = Uuid::new_v4().as_u64_pair();
            COVERED.put(batch, &(), &Covered { place, store });
        }
        Ok(())
    }

    fn write_rows(&self, done: &mut Checkpoint) -> Result<(), StoreError> {
        let n_rows = self.states().matrix.rows().len() as RowId;
        let mut bitmaps =
            (0..n_rows).flat_map(|row| Plane::ALL.map(|plane| (row, plane))).peekable();
        while bitmaps.peek().is_some() {
            let (mut batch, mut taken, mut size) = (Batch::relaxed(), Vec::new(), 0);
            {
                let mut states = self.states.write();
                for (row, plane) in bitmaps.by_ref().take(STEP_BITMAPS) {
                    let Some(bytes) = states.matrix.take_dirty(row, plane) else { continue };
                    taken.push((row, plane));
                    size += bytes.len();
                    let key = row_key(states.matrix.rows()[row as usize].update, plane);
                    match bytes.is_empty() {
                        true => batch.delete(key),
                        false => batch.put(key, bytes),
                    };
                    if size >= self.settings.checkpoint_step {
                        break;
                    }
                }
            }
            self.db().kv().write(batch).inspect_err(|_| {
                let mut states = self.states.write();
                taken.iter().for_each(|(row, plane)| states.matrix.mark_dirty(*row, *plane));
            })?;
            done.written += taken.len() as u64;
            done.bytes += size as u64;
        }
        Ok(())
    }

    fn write_heads(&self, done: &mut Checkpoint) -> Result<(), StoreError> {
        let n_values = self.states().dirty_heads.len();
        let mut values = (0..n_values).peekable();
        while values.peek().is_some() {
            let (mut batch, mut taken, mut size) = (Batch::relaxed(), Vec::new(), 0);
            {
                let mut states = self.states.write();
                for value in values.by_ref() {
                    if !std::mem::take(&mut states.dirty_heads[value]) {
                        continue;
                    }
                    let heads = states.heads.chunks(HEADS_A_VALUE).nth(value).unwrap_or_default();
                    let bytes = postcard::to_extend(heads, vec![HEADS_VERSION])
                        .expect("a vector takes all bytes");
                    taken.push(value);
                    size += bytes.len();
                    batch.put([HEADS, &(value as u32).to_be_bytes()].concat(), bytes);
                    if size >= self.settings.checkpoint_step {
                        break;
                    }
                }
            }
            self.db().kv().write(batch).inspect_err(|_| {
                let mut states = self.states.write();
                taken.iter().for_each(|value| states.dirty_heads[*value] = true);
            })?;
            done.written += taken.len() as u64;
            done.bytes += size as u64;
        }
        Ok(())
    }

    /// Deletes the records that the tables hold.
    fn forget_inbox(&self, covered: Place) -> Result<(), StoreError> {
        let range = Range { from: inbox::key(0), to: Some(inbox::key(covered + 1)) };
        loop {
            let records = self.db().kv().scan(&range, Order::Ascending, PAGE)?;
            if records.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::relaxed();
            for (key, _) in records {
                batch.delete(key);
            }
            self.db().kv().write(batch)?;
        }
    }
}

/// Reads the tables and tells the inbox again.
pub(crate) fn load(db: &Db) -> Result<(States, Writer), StoreError> {
    let Covered { place: covered, store } = match COVERED.get(db, &())? {
        Some(covered) => covered,
        None => {
            let (store, _) = Uuid::new_v4().as_u64_pair();
            let new = Covered { place: 0, store };
            COVERED.set(db, &(), &new)?;
            new
        }
    };
    let mut states = States::default();
    each(db, Member::range(), |key, value| {
        let (client, member) = Member::decode(key, value)?;
        states.fleet.put(client, member);
        Ok(())
    })?;
    each(db, Range::prefix(HEADS), |key, value| load_heads(&mut states, key, value))?;
    states.dirty_heads = vec![false; states.heads.len().div_ceil(HEADS_A_VALUE)];
    each(db, Range::prefix(ROWS), |key, value| {
        let (update, plane) =
            read_row_key(key).ok_or_else(|| damaged("compliance-row", "a key"))?;
        let bitmap = RoaringBitmap::deserialize_from(value)
            .map_err(|error| damaged("compliance-row", error))?;
        states.matrix.load(update, plane, bitmap);
        Ok(())
    })?;

    let mut writer = Writer {
        next: covered + 1,
        inbox_bytes: 0,
        since: None,
        matrix_bytes: states.matrix.size(),
        store,
        quarantine: Quarantine::load(db)?,
        sites: ChildSite::load(db)?,
    };
    let mut retold = Retold::default();
    each(db, inbox::since(covered + 1), |key, value| {
        let mut place = inbox::place(key).ok_or_else(|| damaged("compliance-inbox", "a key"))?;
        let record = Record::decode(value)?;
        writer.next = place + record.places();
        writer.inbox_bytes += value.len() as u64;
        writer.since.get_or_insert(record.at);
        retell(&mut states, &record, &mut place, &mut retold);
        Ok(())
    })?;
    states.settle(retold);
    let corrupt = (0..).zip(&states.heads).filter(|(_, head)| head.corrupt.is_some());
    states.doubtful = corrupt.map(|(client, _)| client).collect();
    Ok((states, writer))
}

fn retell(states: &mut States, record: &Record, place: &mut Place, retold: &mut Retold) {
    for (entry, _) in &record.entries {
        states.retell(entry, *place, record.at, retold);
        if let Entry::Removed { client } = entry {
            states.fleet.remove(*client, *place);
        }
        *place += entry.places();
    }
}

fn load_heads(states: &mut States, key: &[u8], value: &[u8]) -> Result<(), DbError> {
    let number = key.strip_prefix(HEADS).and_then(|it| it.try_into().ok());
    let number = number.ok_or_else(|| damaged("compliance-heads", "a key"))?;
    let at = u32::from_be_bytes(number) as usize * HEADS_A_VALUE;
    let heads: Vec<Head> = match value {
        [HEADS_VERSION, body @ ..] => {
            postcard::from_bytes(body).map_err(|error| damaged("compliance-heads", error))?
        }
        _ => return Err(damaged("compliance-heads", "it is of another version")),
    };
    if states.heads.len() < at + heads.len() {
        states.heads.resize(at + heads.len(), Head::default());
    }
    states.heads.iter_mut().skip(at).zip(heads).for_each(|(to, from)| *to = from);
    Ok(())
}

/// Calls `each` with every entry of a range.
pub(crate) fn each(
    db: &Db,
    mut range: Range,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), DbError>,
) -> Result<(), DbError> {
    loop {
        let entries = db.kv().scan(&range, Order::Ascending, PAGE)?;
        for (key, value) in &entries {
            each(key, value)?;
        }
        let Some((last, _)) = entries.last() else { return Ok(()) };
        range.from = [last.as_slice(), &[0]].concat();
    }
}

fn row_key(update: UpdateRevision, plane: Plane) -> Vec<u8> {
    let revision = update.revision.to_be_bytes();
    [ROWS, update.id.0.as_bytes(), &revision, &[plane as u8]].concat()
}

fn read_row_key(key: &[u8]) -> Option<(UpdateRevision, Plane)> {
    let (id, rest) = key.strip_prefix(ROWS)?.split_first_chunk::<16>()?;
    let (revision, rest) = rest.split_first_chunk()?;
    let [plane] = rest else { return None };
    let plane = *Plane::ALL.get(usize::from(*plane))?;
    let id = UpdateId(Uuid::from_bytes(*id));
    Some((UpdateRevision { id, revision: u32::from_be_bytes(*revision) }, plane))
}

fn damaged(table: &'static str, detail: impl ToString) -> DbError {
    DbError::Damaged { table, detail: detail.to_string() }
}

//! One sealed pack as its footer lists it, and the log records in it.
//!
//! Reading is apart from taking in, so that many packs can be read at once and be taken in one
//! after the other, in the order they were written.

use crate::digest::PackId;
use crate::pack::format::{FooterEntry, Kind, PackHeader, RECORD_HEADER, RecordHeader};
use crate::pack::reader::{RecordError, footer, record, record_in};
use crate::recovery::Replay;
use crate::store::{PackFile, is_media_error};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Log records that are no farther apart are read by one read.
const LOG_GAP: u64 = 64 << 10;
/// The most that is read of the log at once, in bytes, but for a record that is longer.
const LOG_READ: u64 = 4 << 20;

/// Log records, each an error if it is lost.
type Log = VecDeque<Result<(RecordHeader, Bytes), RecordError>>;

/// What there is to take in of one pack.
pub(super) struct Listed {
    entries: Vec<FooterEntry>,
    /// Where the records end.
    end: u64,
    /// The log records among `entries`, in their order.
    log: Log,
}

impl Listed {
    /// Reads the records of pack `id` from `from` on by its footer; `None` if it has no good one.
    /// An error is one that another try may not have.
    pub(super) fn read(
        id: PackId,
        file: &dyn PackFile,
        from: u64,
    ) -> Result<Option<Self>, RecordError> {
        // As when packs are replayed: what the index names must be on the disk.
        file.sync()?;
        let (mut entries, end) = match footer(file) {
            Ok(Some(found)) => found,
            Ok(None) | Err(RecordError::Bad(_)) => return Ok(None),
            Err(RecordError::Io(error)) if is_media_error(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        entries.retain(|entry| u64::from(entry.offset) >= from);
        let log = read_log(file, &entries)?;
        for error in log.iter().filter_map(|found| found.as_ref().err()) {
            // What it covered is there; which refs it changed is lost with it.
            tracing::error!(pack = %id, %error, "a commit is lost");
        }
        Ok(Some(Self { entries, end, log }))
    }

    /// Takes it in.
    pub(super) fn replay(mut self, header: &PackHeader, replay: &mut Replay) {
        // First: its commits cover nothing of another run.
        replay.enter(header);
        for entry in &self.entries {
            if !is_log(entry) {
                replay.footer_entry(header.seq, entry);
                continue;
            }
            match self.log.pop_front() {
                Some(Ok((found, body))) => drop(replay.log(found.kind, found.seq, &body)),
                _ => replay.cover(),
            }
        }
        replay.sealed(header, self.end);
    }
}

fn is_log(entry: &FooterEntry) -> bool {
    matches!(entry.kind, Kind::Commit | Kind::Checkpoint)
}

fn place(entry: &FooterEntry) -> Range<u64> {
    let start = u64::from(entry.offset);
    start..start + RECORD_HEADER as u64 + u64::from(entry.body_len)
}

/// The log records among `entries`, in their order.
fn read_log(file: &dyn PackFile, entries: &[FooterEntry]) -> Result<Log, RecordError> {
    let wanted: Vec<&FooterEntry> = entries.iter().filter(|entry| is_log(entry)).collect();
    let mut found = VecDeque::with_capacity(wanted.len());
    let is_near = |a: &&FooterEntry, b: &&FooterEntry| {
        // Which of the two comes first is for the footer to say, and it may be wrong.
        place(b).start.checked_sub(place(a).end).is_some_and(|gap| gap <= LOG_GAP)
    };
    for run in wanted.chunk_by(is_near) {
        let mut left = run;
        while let Some(first) = left.first() {
            let start = place(first).start;
            let fits = left.iter().take_while(|entry| place(entry).end - start <= LOG_READ);
            let (now, rest) = left.split_at(fits.count().max(1));
            left = rest;
            let whole = file.read_alone(start..now.last().map_or(start, |last| place(last).end));
            for entry in now {
                let read = match &whole {
                    Ok(bytes) => {
                        let Range { start: at, end } = place(entry);
                        let bytes = bytes.slice((at - start) as usize..(end - start) as usize);
                        record_in(bytes, entry.offset, entry.body_len).map_err(RecordError::Bad)
                    }
                    // One bad sector takes one record.
                    Err(_) => record(file, entry.offset, entry.body_len),
                };
                match read {
                    Err(RecordError::Io(error)) if !is_media_error(&error) => {
                        return Err(error.into());
                    }
                    read => found.push_back(read),
                }
            }
        }
    }
    Ok(found)
}

//! Appending: the open pack, when it is full, and when its volume is.
//!
//! A volume that reaches its reserve ends the open pack as its target size does, and the next pack
//! begins on another. Only when none has room are new bytes refused: garbage collection needs
//! room to free room.

use super::Pending;
use crate::digest::PackId;
use crate::error::AddError;
use crate::index::PackInfo;
use crate::library::Inner;
use crate::pack::format::{Kind, PackHeader};
use crate::pack::writer::{PackWriter, Record};
use crate::store::volumes::Volume;
use std::sync::Arc;

/// A pack is sealed before it would grow past this, whatever its target: offsets are 32 bits.
const MAX_PACK: u64 = 512 << 20;
/// Bytes appended between two looks at the volume's free space.
const SPACE_CHECK: u64 = 16 << 20;

/// The end of the log: the open pack, full ones that wait for their seal, and what of them is not
/// yet in the index.
pub(crate) struct Writer {
    pub current: Option<PackWriter>,
    /// Where `current` lies.
    volume: Option<Arc<Volume>>,
    pub full: Vec<PackWriter>,
    /// Packs that are synced and whose state the index failed to take.
    pub unindexed: Vec<(u32, PackInfo)>,
    pub pending: Vec<Pending>,
    /// Chunks in `pending`, to bound its memory.
    pub pending_chunks: usize,
    pub next_pack: u32,
    pub run: u32,
    unchecked: u64,
    /// Counts failed syncs. What was appended before one and not committed is lost.
    pub losses: u64,
    /// A commit failed whose record may be on the disk; the next must overrule it.
    pub unsettled: bool,
}

/// Which room of a volume may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    AboveReserve,
    All,
}

impl Writer {
    pub(crate) fn new(next_pack: u32, run: u32, unsettled: bool) -> Self {
        Self {
            current: None,
            volume: None,
            full: Vec::new(),
            unindexed: Vec::new(),
            pending: Vec::new(),
            pending_chunks: 0,
            next_pack,
            run,
            unchecked: SPACE_CHECK,
            losses: 0,
            unsettled,
        }
    }
}

impl Writer {
    /// Ends the open pack if it lies on `volume`: nothing more is written there.
    pub(crate) fn leave(&mut self, volume: &Volume) {
        if self.volume.as_ref().is_some_and(|at| at.id == volume.id) {
            self.full.extend(self.current.take());
        }
    }
}

impl Inner {
    /// Appends a record to the open pack, or to a new one. Returns the pack's number and the record's offset.
    pub(crate) fn append(
        &self,
        writer: &mut Writer,
        record: Record<'_>,
    ) -> Result<(u32, u32), AddError> {
        self.append_within(writer, record, Room::AboveReserve)
    }

    /// The same for garbage collection, which may use the reserves: it needs room to free room.
    pub(crate) fn append_moved(
        &self,
        writer: &mut Writer,
        record: Record<'_>,
    ) -> Result<(u32, u32), AddError> {
        self.append_within(writer, record, Room::All)
    }

    fn append_within(
        &self,
        writer: &mut Writer,
        record: Record<'_>,
        room: Room,
    ) -> Result<(u32, u32), AddError> {
        let length = record.header().record_len();
        writer.unchecked += length;
        // So often that what is written between two checks leaves most of the reserve. That is for
        // what frees space, too: deleting is a commit of ref changes, which is always let in.
        let is_content = matches!(record.header().kind, Kind::Block | Kind::Recipe);
        let reserve = writer.volume.as_ref().map_or(self.options.reserve, |v| v.reserve);
        if is_content && writer.unchecked >= SPACE_CHECK.min(reserve / 4) {
            if self.make_room(writer, length)? {
                writer.unchecked = 0;
            } else if room == Room::AboveReserve {
                return Err(self.full()?);
            }
        }
        let limit = self.options.pack_target.min(MAX_PACK);
        if let Some(pack) = &writer.current
            && (pack.is_broken() || (pack.len() + length > limit && pack.len() > 4096))
        {
            writer.full.extend(writer.current.take());
        }
        if writer.current.is_none() {
            let header = PackHeader {
                id: PackId::mint(self.environment.unix_ms(), self.environment.random()),
                library: self.library,
                seq: writer.next_pack,
                run: writer.run,
            };
            // Counted even if the next line fails: a header may be on the disk all the same, and
            // two packs of one number would be mistaken for each other.
            writer.next_pack += 1;
            let id = header.id;
            let volume = self.store.roomiest();
            let created = PackWriter::create(&*volume.store, header);
            let pack = created.map_err(|error| {
                // If this fails too, garbage collection finds the pack.
                let _ = volume.store.delete(id);
                AddError::Store(error)
            })?;
            writer.volume = Some(volume);
            self.packs.minted(pack.header.seq, id);
            writer.current = Some(pack);
        }
        let pack = writer.current.as_mut().expect("opened above");
        let offset = pack.append(record).map_err(AddError::Store)?;
        Ok((pack.header.seq, offset))
    }

    /// Ends the open pack if its volume has no room for `bytes` above its reserve and another has.
    /// Whether one has.
    fn make_room(&self, writer: &mut Writer, bytes: u64) -> Result<bool, AddError> {
        if writer.current.is_some()
            && let Some(volume) = &writer.volume
            && volume.room().map_err(AddError::Store)? >= bytes
        {
            return Ok(true);
        }
        let has_room = self.store.with_room(bytes).map_err(AddError::Store)?.is_some();
        if has_room {
            writer.full.extend(writer.current.take());
        }
        Ok(has_room)
    }

    /// That no volume has room, with the numbers.
    pub(crate) fn full(&self) -> Result<AddError, AddError> {
        let (free, reserve, volumes) = self.store.totals().map_err(AddError::Store)?;
        Ok(AddError::Full { free, reserve, volumes })
    }
}

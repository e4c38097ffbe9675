//! Appending: the open pack, when it is full, and when the volume is.

use super::Pending;
use crate::digest::PackId;
use crate::error::AddError;
use crate::library::Inner;
use crate::pack::format::{Kind, PackHeader};
use crate::pack::writer::{PackWriter, Record};
use std::sync::atomic::Ordering::Relaxed;

/// A pack is sealed before it would grow past this, whatever its target: offsets are 32 bits.
const MAX_PACK: u64 = 512 << 20;
/// Bytes appended between two looks at the volume's free space.
const SPACE_CHECK: u64 = 16 << 20;

/// The end of the log: the open pack, full ones that wait for their seal, and what of them is not
/// yet in the index.
pub(crate) struct Writer {
    pub current: Option<PackWriter>,
    pub full: Vec<PackWriter>,
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

impl Writer {
    pub(crate) fn new(next_pack: u32, run: u32, unsettled: bool) -> Self {
        Self {
            current: None,
            full: Vec::new(),
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

impl Inner {
    /// Appends a record to the open pack. Returns the pack's number and the record's offset.
    pub(crate) fn append(
        &self,
        writer: &mut Writer,
        record: Record<'_>,
    ) -> Result<(u32, u32), AddError> {
        let length = record.header().record_len();
        writer.unchecked += length;
        // So often that what is written between two checks leaves most of the reserve. That is for
        // what frees space, too: deleting is a commit of ref changes, which is always let in.
        let is_content = matches!(record.header().kind, Kind::Block | Kind::Recipe);
        if is_content && writer.unchecked >= SPACE_CHECK.min(self.options.reserve / 4) {
            self.check_space()?;
            writer.unchecked = 0;
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
            let created = PackWriter::create(&*self.store, header);
            let pack = created.map_err(|error| {
                // If this fails too, garbage collection finds the pack.
                let _ = self.store.delete(id);
                AddError::Store(error)
            })?;
            self.packs.minted(pack.header.seq, id);
            writer.current = Some(pack);
        }
        let pack = writer.current.as_mut().expect("opened above");
        let offset = pack.append(record).map_err(AddError::Store)?;
        Ok((pack.header.seq, offset))
    }

    /// Refuses new bytes when the volume's reserve is reached: garbage collection needs room to
    /// free room.
    fn check_space(&self) -> Result<(), AddError> {
        let reserve = self.options.reserve;
        let free = self.store.free_space().map_err(AddError::Store)?;
        match free {
            Some(free) if free < reserve && !self.collecting.load(Relaxed) => {
                Err(AddError::Full { free, reserve })
            }
            _ => Ok(()),
        }
    }
}

//! Opening: what the index has not seen of the packs is replayed; the rest is trusted.
//!
//! The index's last batch says how far the packs were read (the watermark). Records after it
//! that a commit of their own run covers were synced before somebody was told, so they are
//! indexed; records that none covers were never acknowledged and are left for garbage
//! collection. A pack that was open is closed as torn: it is never written to again.

use crate::commit::Leader;
use crate::commit::{Pending, UNSETTLED, index_pending, index_refs};
use crate::digest::{ChunkId, Digest, PackId};
use crate::error::OpenError;
use crate::gc::{CHUNK, condemned_key};
use crate::index::{ChunkPlace, Index, PackInfo, PackState, RecipePlace, Standing, put_number};
use crate::kv::{Batch, KvError, Table};
use crate::library::Environment;
use crate::pack::format::{BadPack, FooterEntry, Kind, PACK_HEADER, PackHeader};
use crate::pack::reader::{Found, RecordError, Said, Scan, footer, pack_header, refuse_newer};
use crate::refs::{Outcomes, decode_outcomes};
use crate::store::{PackFile, PackStore, is_media_error};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

pub(crate) const INDEX_FORMAT: u64 = 1;
/// Numbers of packs, commits and runs that are left out where the process before may have left
/// writes on their way: more than it can have given away without anything of it being there.
const LEFT_OUT: u32 = 1 << 12;

/// Where a library goes on after opening.
pub(crate) struct Recovered {
    pub library: u128,
    pub next_pack: u32,
    pub next_commit: u64,
    pub run: u32,
}

pub(crate) fn recover(
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
) -> Result<Recovered, OpenError> {
    let format = index.number("format")?;
    if format > INDEX_FORMAT {
        let what = "the index".into();
        return Err(OpenError::NewerFormat { what, found: format, known: INDEX_FORMAT });
    }
    let late = store.may_change_late();
    let known = index.packs()?;
    let mark = (index.number("watermark/pack")? as u32, index.number("watermark/offset")?);
    let mut replay = Replay::new(index.number("commit")?);
    // Past the watermark too: its pack may be gone, and a new one of its number would be read from
    // the middle on.
    let mut next_pack = known.last().map_or(0, |(seq, _)| seq + 1).max(mark.0 + 1);
    let mut run = index.number("run")? as u32;
    let mut library = index
        .kv
        .get(Table::Meta, b"library")?
        .and_then(|v| v.try_into().ok().map(u128::from_le_bytes));

    for (header, file) in unseen_packs(store, &known)? {
        next_pack = next_pack.max(header.seq + 1);
        run = run.max(header.run);
        library.get_or_insert(header.library);
        let start = PACK_HEADER as u64;
        let from = if header.seq == mark.0 { mark.1.max(start) } else { start };
        let known_len = known.iter().find(|(seq, _)| *seq == header.seq).map(|(_, i)| i.len);
        let from = if header.seq < mark.0 { known_len.unwrap_or(from) } else { from };
        if let Some(source) = replay.pack(&header, &*file, from)? {
            // What was acknowledged may lie behind it. To do without that is for people to say, by
            // rebuilding the index.
            return Err(OpenError::BadSector { pack: header.id, source });
        }
    }
    let library = library.unwrap_or_else(|| environment.random());
    run += 1;
    let mut next_commit = replay.next_commit;
    let late = late && (!known.is_empty() || !replay.packs.is_empty());
    if late {
        // A pack that appears yet has a number of its own, and so a run; a commit that appears yet
        // has a smaller number than the checkpoint that the next commit begins with.
        next_pack += LEFT_OUT;
        run += LEFT_OUT;
        next_commit += u64::from(LEFT_OUT);
    }

    // Opening a library that was closed well writes nothing. The new run is noted by its first
    // commit; a crash before that leaves at most a pack whose header tells it.
    let is_new = format == 0;
    if is_new || late || !replay.packs.is_empty() {
        let mut batch = Batch::default();
        put_number(&mut batch, "format", INDEX_FORMAT);
        put_number(&mut batch, "run", run.into());
        batch.put(Table::Meta, "library", library.to_le_bytes());
        if late || !replay.packs.is_empty() {
            put_number(&mut batch, "commit", next_commit);
        }
        if late {
            put_number(&mut batch, UNSETTLED, 1);
        }
        replay.finish(index, &mut batch)?;
        index.kv.write(batch)?;
    }
    Ok(Recovered { library, next_pack, next_commit, run })
}

/// A pack, opened, and the header it begins with.
type HeadedPack = (PackHeader, Arc<dyn PackFile>);

/// The packs that the index does not know, or knows as open, in the order they were opened.
fn unseen_packs(
    store: &dyn PackStore,
    known: &[(u32, PackInfo)],
) -> Result<Vec<HeadedPack>, OpenError> {
    let closed: BTreeMap<PackId, &PackInfo> = known
        .iter()
        .filter(|(_, info)| info.state != PackState::Open)
        .map(|(_, info)| (info.id, info))
        .collect();
    let fail =
        |pack: PackId| move |source| OpenError::Io { folder: pack.to_string().into(), source };
    let mut unseen = Vec::new();
    let listed = store.list().map_err(fail(PackId(0)))?;
    let there: HashSet<&PackId> = listed.iter().collect();
    // One without records may never have come to be.
    let is_lost = |info: &PackInfo| {
        info.state != PackState::Condemned
            && info.len > PACK_HEADER as u64
            && !there.contains(&info.id)
    };
    match known.iter().filter(|(_, info)| is_lost(info)).count() {
        0 => {}
        lost => tracing::error!(lost, "packs are gone: run `depot library verify`"),
    }
    // Of the packs that the index knows, the newest: where a newer depot went on writing, it shows
    // there. The others are looked at by whoever would change or delete them.
    let holds = |info: &&PackInfo| info.len > PACK_HEADER as u64 && there.contains(&info.id);
    let newest = known.iter().rev().map(|(_, info)| info).find(holds);
    if let Some(info) = newest
        && let Ok(file) = store.open(info.id)
    {
        refuse_newer(info.id, &*file)?;
    }
    for id in listed {
        if closed.contains_key(&id) {
            continue;
        }
        let file = store.open(id).map_err(fail(id))?;
        match pack_header(&*file) {
            Ok(header) => unseen.push((header, file)),
            Err(RecordError::Bad(BadPack::Newer(found))) => {
                return Err(OpenError::newer_pack(id, found));
            }
            // A crash before the header was synced: nothing in it was acknowledged.
            Err(RecordError::Bad(_)) => tracing::warn!(%id, "a pack has no header and is ignored"),
            Err(RecordError::Io(source)) if is_media_error(&source) => {
                return Err(OpenError::BadSector { pack: id, source });
            }
            Err(RecordError::Io(source)) => return Err(fail(id)(source)),
        }
    }
    unseen.sort_by_key(|(header, _)| header.seq);
    Ok(unseen)
}

/// Index entries collected from packs, applied at commits.
pub(crate) struct Replay {
    run: u32,
    /// Records of the present run that no commit covers yet, and which pack each run ends in.
    uncovered: Vec<Pending>,
    covered: Vec<Pending>,
    /// Refs by name, with the number of the commit that set them.
    refs: BTreeMap<String, (u64, Option<crate::refs::Ref>)>,
    /// The newest checkpoint; commits up to it no longer count.
    checkpoint: Option<(u64, Outcomes)>,
    packs: BTreeMap<u32, PackInfo>,
    /// Commits with smaller numbers are in the index.
    seen: u64,
    pub next_commit: u64,
}

impl Replay {
    pub(crate) fn new(next_commit: u64) -> Self {
        Self {
            run: 0,
            uncovered: Vec::new(),
            covered: Vec::new(),
            refs: BTreeMap::new(),
            checkpoint: None,
            packs: BTreeMap::new(),
            seen: next_commit,
            // Numbered from 1, so that 0 is before the first.
            next_commit: next_commit.max(1),
        }
    }

    /// Begins with a pack: what is uncovered of another run than its own stays so.
    pub(crate) fn enter(&mut self, header: &PackHeader) {
        if header.run != self.run {
            self.uncovered.clear();
            self.run = header.run;
        }
    }

    /// Reads the records of one pack from `from` on, front to back. Returns what the disk said if
    /// it could not give back some of them: that is where reading ended.
    pub(crate) fn pack(
        &mut self,
        header: &PackHeader,
        file: &dyn PackFile,
        from: u64,
    ) -> Result<Option<io::Error>, OpenError> {
        let fail = |source| OpenError::Io { folder: header.id.to_string().into(), source };
        self.enter(header);
        // A process that was killed leaves bytes that can be read and are not yet on the disk.
        // They must be before the index names them.
        file.sync().map_err(fail)?;
        let mut end = from;
        let mut committed = from;
        let mut bad_sector = None;
        for found in Scan::new(file, from).map_err(fail)? {
            let found = match found {
                Err(error) if is_media_error(&error) => {
                    bad_sector = Some(error);
                    break;
                }
                found => found.map_err(fail)?,
            };
            end = u64::from(found.offset) + found.header.record_len();
            if self.record(header.seq, found) {
                committed = end;
            }
        }
        let sealed = matches!(footer(file), Ok(Some((_, records_end))) if records_end == end);
        let (state, len) =
            if sealed { (PackState::Sealed, end) } else { (PackState::Torn, committed.max(from)) };
        self.packs.insert(header.seq, PackInfo { id: header.id, state, len });
        Ok(bad_sector)
    }

    /// Takes in one record. `true` if it is a commit, which covers all before it.
    fn record(&mut self, seq: u32, found: Found) -> bool {
        if let Said::Log(body) = &found.said {
            return self.log(found.header.kind, found.header.seq, body);
        }
        let chunks: Arc<[ChunkId]> = match &found.said {
            Said::Recipe(recipe) => recipe.chunks().into(),
            _ => Arc::new([]),
        };
        self.uncovered.extend(pending(seq, &found.footer_entry(), chunks));
        false
    }

    /// Takes in a pack's footer entry, for a pack that is trusted as sealed.
    pub(crate) fn footer_entry(&mut self, seq: u32, entry: &FooterEntry) {
        self.uncovered.extend(pending(seq, entry, Arc::new([])));
    }

    pub(crate) fn sealed(&mut self, header: &PackHeader, len: u64) {
        let info = PackInfo { id: header.id, state: PackState::Sealed, len };
        self.packs.insert(header.seq, info);
    }

    /// Takes in a commit or checkpoint.
    pub(crate) fn log(&mut self, kind: Kind, number: u64, body: &[u8]) -> bool {
        // Its checksum was right, so only a defect could make it unreadable.
        let Some(outcomes) = decode_outcomes(body) else {
            tracing::error!(number, "a commit record is unreadable and is ignored");
            return false;
        };
        self.next_commit = self.next_commit.max(number + 1);
        self.cover();
        if number < self.seen {
            // A pack that was deleted before and is back: what it says of refs is old.
            return true;
        }
        if kind == Kind::Checkpoint {
            if self.checkpoint.as_ref().is_none_or(|(newest, _)| *newest < number) {
                self.checkpoint = Some((number, outcomes));
            }
        } else {
            for (name, outcome) in outcomes {
                let newest = self.refs.get(&name).map_or(0, |(n, _)| *n);
                if number >= newest {
                    self.refs.insert(name, (number, outcome));
                }
            }
        }
        true
    }

    /// Adds all that commits covered to `batch`.
    pub(crate) fn finish(mut self, index: &Index, batch: &mut Batch) -> Result<(), OpenError> {
        for (seq, info) in &self.packs {
            batch.put(Table::Packs, seq.to_be_bytes(), info.encode());
        }
        self.settle(index)?;
        // A recipe that is replayed may have revived chunks, in batches that are lost.
        for record in &self.covered {
            let Pending::Recipe { chunks, .. } = record else { continue };
            for (id, place) in chunks.iter().zip(index.chunks(chunks)?) {
                if let Some(place) = place.filter(|p| p.standing == Standing::Condemned) {
                    let live = ChunkPlace { standing: Standing::Live, ..place };
                    batch.put(Table::Chunks, *id.0.as_bytes(), live.encode());
                    batch.delete(Table::Meta, condemned_key(CHUNK, id.0));
                }
            }
        }
        index_pending(index, batch, &self.covered, &mut Leader::load(index)?)?;
        let (floor, mut outcomes) = self.checkpoint.unwrap_or_default();
        if floor > 0 {
            // A checkpoint says all: what it does not name was deleted, perhaps by a commit that
            // the index has not seen and whose pack is gone.
            for (name, _) in index.references("")? {
                outcomes.entry(name).or_insert(None);
            }
        }
        let later = self.refs.into_iter().filter(|(_, (number, _))| *number > floor);
        outcomes.extend(later.map(|(name, (_, outcome))| (name, outcome)));
        index_refs(batch, &outcomes);
        Ok(())
    }

    /// Of a content's recipes the newest counts whose chunks are all there: garbage collection may
    /// have copied the one of before to behind one that was stored anew, cut otherwise. Where none
    /// is whole, what the index has is as good.
    fn settle(&mut self, index: &Index) -> Result<(), KvError> {
        let chunks = self.covered.iter().filter_map(|record| match record {
            Pending::Chunks(chunks) => Some(chunks),
            _ => None,
        });
        let stored: HashSet<ChunkId> = chunks.flatten().map(|(id, _)| *id).collect();
        let mut settled: HashSet<Digest> = HashSet::new();
        let mut broken: HashMap<Digest, usize> = HashMap::new();
        let mut counts = vec![true; self.covered.len()];
        for (at, record) in self.covered.iter().enumerate().rev() {
            let Pending::Recipe { content, chunks, .. } = record else { continue };
            counts[at] = !settled.contains(content) && {
                let is_sound =
                    |p: &Option<ChunkPlace>| p.is_some_and(|p| p.standing != Standing::Suspect);
                let mut held = chunks.iter().zip(index.chunks(chunks)?);
                held.all(|(id, place)| stored.contains(id) || is_sound(&place))
            };
            if counts[at] {
                settled.insert(*content);
            } else {
                broken.entry(*content).or_insert(at);
            }
        }
        for (content, at) in broken {
            let is_sound = |place: RecipePlace| place.standing != Standing::Suspect;
            counts[at] |=
                !settled.contains(&content) && !index.recipe(content)?.is_some_and(is_sound);
        }
        let mut counts = counts.into_iter();
        self.covered.retain(|_| counts.next().expect("one for each"));
        Ok(())
    }

    /// What commits covered and is not yet written.
    pub(crate) fn covered(&self) -> &[Pending] {
        &self.covered
    }

    /// Adds what is covered so far to `batch`, to keep memory bounded on long rebuilds.
    pub(crate) fn write_covered(
        &mut self,
        index: &Index,
        batch: &mut Batch,
    ) -> Result<(), OpenError> {
        let covered = std::mem::take(&mut self.covered);
        Ok(index_pending(index, batch, &covered, &mut Leader::load(index)?)?)
    }

    /// A commit that cannot be read was there all the same.
    pub(crate) fn cover(&mut self) {
        self.covered.append(&mut self.uncovered);
    }
}

/// The index entry of one record.
fn pending(pack: u32, entry: &FooterEntry, chunks: Arc<[ChunkId]>) -> Option<Pending> {
    let content = entry.names.first()?.0;
    match entry.kind {
        Kind::Block => {
            let mut plain_offset = 0;
            let n_chunks = entry.names.len() as u16;
            let place = |(at, &(id, plain_len)): (usize, &(Digest, u32))| {
                let place = ChunkPlace {
                    pack,
                    offset: entry.offset,
                    body_len: entry.body_len,
                    n_chunks,
                    at: at as u16,
                    plain_offset,
                    plain_len,
                    codec: entry.codec,
                    standing: Standing::Live,
                };
                plain_offset += plain_len;
                (ChunkId(id), place)
            };
            Some(Pending::Chunks(entry.names.iter().enumerate().map(place).collect()))
        }
        Kind::Recipe => {
            let place = RecipePlace {
                pack,
                offset: entry.offset,
                body_len: entry.body_len,
                n_chunks: entry.body_len.saturating_sub(8) / 36,
                size: u64::from(entry.size_high) << 32 | u64::from(entry.names[0].1),
                standing: Standing::Live,
            };
            Some(Pending::Recipe { content, place, chunks })
        }
        Kind::Alias => {
            let names = crate::pack::writer::alias_names(&entry.names[1..]);
            Some(Pending::Alias { content, names })
        }
        Kind::Commit | Kind::Checkpoint | Kind::Padding => None,
    }
}

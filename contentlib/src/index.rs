//! The index: what is held where, as typed values over the key-value seam.
//!
//! Fixed binary values, little-endian (`contentlib/FORMAT.md`, "Index"). All of it can be
//! rebuilt from the packs.
//!
//! Always true: no entry points past the synced bytes of its pack.

use crate::block::Codec;
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::kv::{Batch, Kv, KvError, Table};
use crate::recipe::Recipe;
use crate::refs::{Ref, decode_ref};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Whether an entry may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    Live = 0,
    /// Garbage collection found no holder. Readable until purged, absent for deduplication.
    Condemned = 1,
    /// Its bytes read back wrong. Never served; a new copy replaces it.
    Suspect = 2,
}

impl Standing {
    fn from_byte(byte: u8) -> Option<Self> {
        [Standing::Live, Standing::Condemned, Standing::Suspect]
            .into_iter()
            .find(|standing| *standing as u8 == byte)
    }
}

/// Where a chunk lies: its block's record, and its place in the block's plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub pack: u32,
    /// Of the block's record header.
    pub offset: u32,
    pub body_len: u32,
    pub n_chunks: u16,
    /// Which of the block's chunks it is.
    pub at: u16,
    pub plain_offset: u32,
    pub plain_len: u32,
    pub codec: Codec,
    pub standing: Standing,
}

impl ChunkPlace {
    const LEN: usize = 26;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.pack.to_le_bytes());
        out[4..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..14].copy_from_slice(&self.n_chunks.to_le_bytes());
        out[14..16].copy_from_slice(&self.at.to_le_bytes());
        out[16..20].copy_from_slice(&self.plain_offset.to_le_bytes());
        out[20..24].copy_from_slice(&self.plain_len.to_le_bytes());
        out[24] = self.codec as u8;
        out[25] = self.standing as u8;
        out
    }

    /// A number that no other chunk of the library has: a record is longer than its chunks are
    /// many, so places of neighbouring blocks do not meet.
    pub(crate) fn ordinal(&self) -> u64 {
        u64::from(self.pack) << 32 | u64::from(self.offset + u32::from(self.at))
    }
}

impl Value for ChunkPlace {
    const TABLE: Table = Table::Chunks;

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            pack: u32_at(bytes, 0),
            offset: u32_at(bytes, 4),
            body_len: u32_at(bytes, 8),
            n_chunks: u16::from_le_bytes([bytes[12], bytes[13]]),
            at: u16::from_le_bytes([bytes[14], bytes[15]]),
            plain_offset: u32_at(bytes, 16),
            plain_len: u32_at(bytes, 20),
            codec: Codec::from_byte(bytes[24])?,
            standing: Standing::from_byte(bytes[25])?,
        })
    }
}

/// Where a recipe lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecipePlace {
    pub pack: u32,
    pub offset: u32,
    pub body_len: u32,
    pub n_chunks: u32,
    /// The content's length in bytes.
    pub size: u64,
    pub standing: Standing,
}

impl RecipePlace {
    const LEN: usize = 25;

    pub(crate) fn new(pack: u32, offset: u32, body_len: u32, recipe: &Recipe) -> Self {
        let (n_chunks, size) = (recipe.len() as u32, recipe.size());
        Self { pack, offset, body_len, n_chunks, size, standing: Standing::Live }
    }

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.pack.to_le_bytes());
        out[4..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.n_chunks.to_le_bytes());
        out[16..24].copy_from_slice(&self.size.to_le_bytes());
        out[24] = self.standing as u8;
        out
    }

    pub(crate) fn ordinal(&self) -> u64 {
        u64::from(self.pack) << 32 | u64::from(self.offset)
    }
}

impl Value for RecipePlace {
    const TABLE: Table = Table::Recipes;

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            pack: u32_at(bytes, 0),
            offset: u32_at(bytes, 4),
            body_len: u32_at(bytes, 8),
            n_chunks: u32_at(bytes, 12),
            size: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")),
            standing: Standing::from_byte(bytes[24])?,
        })
    }
}

/// A pack as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackInfo {
    pub id: PackId,
    pub state: PackState,
    /// Bytes of records that are valid; what follows is the footer or a torn tail.
    pub len: u64,
}

/// A pack's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PackState {
    /// Written to.
    Open = 0,
    /// Complete, with its footer; never changes again.
    Sealed = 1,
    /// A crash or a failed write ended it before its footer. Read as it is, repacked by garbage
    /// collection.
    Torn = 2,
    /// Nothing points to it; unlinked after grace.
    Condemned = 3,
}

impl PackInfo {
    const LEN: usize = 25;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..16].copy_from_slice(&self.id.0.to_be_bytes());
        out[16] = self.state as u8;
        out[17..].copy_from_slice(&self.len.to_le_bytes());
        out
    }
}

impl Value for PackInfo {
    const TABLE: Table = Table::Packs;

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let states = [PackState::Open, PackState::Sealed, PackState::Torn, PackState::Condemned];
        Some(Self {
            id: PackId(u128::from_be_bytes(bytes[..16].try_into().expect("16 bytes"))),
            state: states.into_iter().find(|state| *state as u8 == bytes[16])?,
            len: u64::from_le_bytes(bytes[17..].try_into().expect("eight bytes")),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// A value of fixed form that one table holds.
pub(crate) trait Value: Sized {
    const TABLE: Table;
    /// `None` if the bytes are no such value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

fn decoded<V: Value>(bytes: &[u8]) -> Result<V, KvError> {
    V::decode(bytes).ok_or_else(|| unreadable(V::TABLE))
}

/// The key of an alias.
pub(crate) fn alias_key(name: &Name) -> Option<Vec<u8>> {
    match name {
        Name::Blake3(_) => None,
        Name::Sha256(hash) => Some([b"2".as_slice(), hash].concat()),
        Name::Sha1(hash) => Some([b"1".as_slice(), hash].concat()),
    }
}

/// A value of the index that this version cannot read.
fn unreadable(table: Table) -> KvError {
    KvError::Failed(format!(
        "a value of table {} is unreadable; run `depot library rebuild-index`",
        table.name()
    ))
}

/// How a content is held.
///
/// The same bytes may be held both ways: as one chunk, and in smaller ones by the recipe of a
/// sender that cuts otherwise. Then each way lives and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As one chunk.
    Chunk(ChunkPlace),
    /// As the chunks of a recipe.
    Recipe(RecipePlace),
}

impl Form {
    fn standing(&self) -> Standing {
        match self {
            Form::Chunk(place) => place.standing,
            Form::Recipe(place) => place.standing,
        }
    }

    /// Whether garbage collection found no holder of it.
    pub(crate) fn is_condemned(&self) -> bool {
        self.standing() == Standing::Condemned
    }
}

/// The typed index.
#[derive(Clone)]
pub(crate) struct Index {
    pub kv: Arc<dyn Kv>,
}

impl Index {
    fn get<V: Value>(&self, key: &[u8]) -> Result<Option<V>, KvError> {
        self.kv.get(V::TABLE, key)?.map(|value| decoded(&value)).transpose()
    }

    pub(crate) fn chunk(&self, id: ChunkId) -> Result<Option<ChunkPlace>, KvError> {
        self.get(id.0.as_bytes())
    }

    pub(crate) fn chunks(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>, KvError> {
        let keys: Vec<&[u8]> = ids.iter().map(|id| id.0.as_bytes().as_slice()).collect();
        let found = self.kv.multi_get(Table::Chunks, &keys)?;
        found.into_iter().map(|value| value.map(|value| decoded(&value)).transpose()).collect()
    }

    pub(crate) fn recipe(&self, digest: Digest) -> Result<Option<RecipePlace>, KvError> {
        self.get(digest.as_bytes())
    }

    /// The best way in which a content is held: live before condemned before suspect, and one
    /// chunk before a recipe.
    pub(crate) fn form(&self, content: Digest) -> Result<Option<Form>, KvError> {
        let chunk = self.chunk(ChunkId(content))?.map(Form::Chunk);
        if chunk.is_some_and(|form| form.standing() == Standing::Live) {
            return Ok(chunk);
        }
        let recipe = self.recipe(content)?.map(Form::Recipe);
        Ok(chunk.into_iter().chain(recipe).min_by_key(|form| form.standing() as u8))
    }

    pub(crate) fn alias(&self, name: &Name) -> Result<Option<Digest>, KvError> {
        let Some(key) = alias_key(name) else { return Ok(None) };
        let found = self.kv.get(Table::Aliases, &key)?;
        let decode = |v: Vec<u8>| v.get(..32)?.try_into().ok().map(Digest::from_bytes);
        found.map(|v| decode(v).ok_or_else(|| unreadable(Table::Aliases))).transpose()
    }

    pub(crate) fn pack(&self, seq: u32) -> Result<Option<PackInfo>, KvError> {
        self.get(&seq.to_be_bytes())
    }

    pub(crate) fn packs(&self) -> Result<Vec<(u32, PackInfo)>, KvError> {
        let mut packs = Vec::new();
        self.each(|seq, info| {
            packs.push((u32::from_be_bytes(seq), info));
            ControlFlow::Continue(())
        })?;
        Ok(packs)
    }

    /// Visits all chunks in the order of their ids.
    pub(crate) fn each_chunk(
        &self,
        mut visit: impl FnMut(ChunkId, ChunkPlace) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.each(|id, place| visit(ChunkId(Digest::from_bytes(id)), place))
    }

    /// Visits all recipes in the order of their contents' digests.
    pub(crate) fn each_recipe(
        &self,
        mut visit: impl FnMut(Digest, RecipePlace) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.each(|content, place| visit(Digest::from_bytes(content), place))
    }

    /// Visits a whole table in the order of its keys, until `visit` breaks.
    fn each<V: Value, const KEY: usize>(
        &self,
        mut visit: impl FnMut([u8; KEY], V) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mut bad = false;
        self.kv.scan(
            V::TABLE,
            &[],
            &mut |key, value| match (key.try_into(), V::decode(value)) {
                (Ok(key), Some(value)) => visit(key, value),
                _ => {
                    bad = true;
                    ControlFlow::Break(())
                }
            },
        )?;
        if bad { Err(unreadable(V::TABLE)) } else { Ok(()) }
    }

    /// Chunks and recipes noted as damaged.
    pub(crate) fn suspects(&self) -> Result<Vec<Digest>, KvError> {
        let mut found = Vec::new();
        self.kv.scan(Table::Meta, SUSPECT, &mut |key, _| {
            match key.strip_prefix(SUSPECT).map(TryInto::try_into) {
                Some(Ok(digest)) => found.push(Digest::from_bytes(digest)),
                Some(Err(_)) => {}
                None => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// All refs whose names begin with `prefix`, by name.
    pub(crate) fn references(&self, prefix: &str) -> Result<Vec<(String, Ref)>, KvError> {
        let mut refs = Vec::new();
        let mut bad = None;
        self.kv.scan(Table::Refs, prefix.as_bytes(), &mut |key, value| {
            if !key.starts_with(prefix.as_bytes()) {
                return ControlFlow::Break(());
            }
            match (String::from_utf8(key.to_vec()), decode_ref(value)) {
                (Ok(name), Some(found)) => refs.push((name, found)),
                _ => bad = Some(String::from_utf8_lossy(key).into_owned()),
            }
            ControlFlow::Continue(())
        })?;
        match bad {
            None => Ok(refs),
            Some(name) => {
                Err(KvError::Failed(format!("ref {name:?} is unreadable; rebuild the index")))
            }
        }
    }

    pub(crate) fn reference(&self, name: &str) -> Result<Option<Ref>, KvError> {
        let found = self.kv.get(Table::Refs, name.as_bytes())?;
        let unreadable =
            || KvError::Failed(format!("ref {name:?} is unreadable; rebuild the index"));
        found.map(|v| decode_ref(&v).ok_or_else(unreadable)).transpose()
    }

    /// A number in the meta table; 0 if it was never set.
    pub(crate) fn number(&self, key: &str) -> Result<u64, KvError> {
        let found = self.kv.get(Table::Meta, key.as_bytes())?;
        let decode = |v: Vec<u8>| v.try_into().map(u64::from_le_bytes);
        match found {
            None => Ok(0),
            Some(v) => decode(v).map_err(|_| unreadable(Table::Meta)),
        }
    }
}

/// Where in the meta table damaged chunks and recipes are noted.
const SUSPECT: &[u8] = b"suspect/";

pub(crate) fn suspect_key(digest: Digest) -> Vec<u8> {
    [SUSPECT, digest.as_bytes()].concat()
}

/// Sets a number in the meta table.
pub(crate) fn put_number(batch: &mut Batch, key: &str, value: u64) {
    batch.put(Table::Meta, key, value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back() {
        let chunk = ChunkPlace {
            pack: 1,
            offset: 2,
            body_len: 3,
            n_chunks: 4,
            at: 5,
            plain_offset: 6,
            plain_len: 7,
            codec: Codec::Zstd,
            standing: Standing::Condemned,
        };
        assert_eq!(ChunkPlace::decode(&chunk.encode()), Some(chunk));
        let recipe = RecipePlace {
            pack: 1,
            offset: 2,
            body_len: 3,
            n_chunks: 4,
            size: 5 << 40,
            standing: Standing::Suspect,
        };
        assert_eq!(RecipePlace::decode(&recipe.encode()), Some(recipe));
        let pack = PackInfo { id: PackId(1 << 100), state: PackState::Torn, len: 9 };
        assert_eq!(PackInfo::decode(&pack.encode()), Some(pack));
    }
}

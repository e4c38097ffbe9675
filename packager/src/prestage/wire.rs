//! The bytes of a bundle; `packager/FORMAT.md`, "Bundle".
//!
//! A signed head says which versions there are; records follow, each with its own checksums, so that
//! one which was damaged is told from its neighbours and passed over; an end mark has the digest of
//! all, and tells a whole bundle from one that was cut off.
//!
//! Always true of what [`BundleDecoder`] gives: the head is signed with the key that it states, and
//! records are within their limits with checksums that matched. What chunks and recipes really are,
//! only their hashes tell.

#![deny(clippy::indexing_slicing)]

use super::PrestageError;
use crate::name::{ChannelName, PackageName};
use crate::sign::{Document, NotProven, PublicKey, Signature, SiteKey, VersionInfo};
use bytes::{Buf, BytesMut};
use contentlib::frames::{FrameDecoder, FrameItem};
use contentlib::{Digest, Frame, Recipe};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The media type of a bundle.
pub const BUNDLE_TYPE: &str = "application/vnd.depot.bundle";

const MAGIC: [u8; 8] = *b"\x89depotB\n";
const VERSION: u16 = 1;
/// Magic, version, reserved bytes, length of the head.
const PREFIX: usize = 16;
const SIGNATURE: usize = 64;
/// The longest head, in bytes: about 80 000 versions.
const MAX_HEAD: usize = 64 << 20;
/// A record's header.
const HEADER: usize = 16;

/// The kinds of records, and the longest body of each.
mod kind {
    use contentlib::block::{MAX_BLOCK_CHUNKS, MAX_BLOCK_PLAIN};

    pub const VERSION: u8 = 1;
    pub const RECIPE: u8 = 2;
    pub const CHUNKS: u8 = 3;
    pub const MARK: u8 = 4;
    pub const END: u8 = 5;

    /// What a body of this kind may be long.
    pub fn lengths(kind: u8) -> Option<std::ops::RangeInclusive<usize>> {
        Some(match kind {
            VERSION => 4..=4,
            RECIPE => 40..=40 + 36 * contentlib::recipe::MAX_CHUNKS,
            CHUNKS => 12..=12 + 4 * MAX_BLOCK_CHUNKS + MAX_BLOCK_PLAIN + 1024,
            MARK => 16..=16,
            END => 48..=48,
            _ => return None,
        })
    }
}

/// What a bundle says of itself, signed by its site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What it is signed with.
    pub key: PublicKey,
    /// When it was made.
    pub created: Timestamp,
    /// Whether what an inventory names was left out.
    pub based: bool,
    /// The versions, in the order in which they come.
    pub versions: Vec<VersionInfo>,
    /// What the names of the packages mean at the site; of versions in the bundle alone.
    #[serde(default)]
    pub names: BTreeMap<PackageName, Named>,
}

/// What names mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The newest version, if it is in the bundle.
    #[serde(default)]
    pub latest: Option<u64>,
    /// The channels that mean a version of the bundle.
    #[serde(default)]
    pub channels: BTreeMap<ChannelName, u64>,
}

impl Head {
    /// The files of all versions together.
    pub fn n_files(&self) -> u64 {
        self.versions.iter().map(|info| info.n_files).fold(0, u64::saturating_add)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.versions.iter().map(|info| info.bytes).fold(0, u64::saturating_add)
    }
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// What follows is of this version, an index into the head's.
    Version(u32),
    /// How a content of more than one chunk is put together.
    Recipe {
        /// The content.
        content: Digest,
        /// Its recipe.
        recipe: Recipe,
    },
    /// Some chunks.
    Chunks(Frame),
    /// What the recipes since the last mark need has come.
    Mark {
        /// Files of the head's versions that are dealt with, from the first on.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The bundle is whole.
    End,
}

/// A record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Which record, from 1 on; 0 is the head.
    pub record: u64,
    /// Where it begins in the bundle, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What a decoder finds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The head; it comes first, once.
    Head(Box<Head>),
    /// A record.
    Record(Record),
    /// A record that was damaged; the next one may be good.
    Damaged(Damage),
    /// A record was damaged so that nobody can tell where the next one begins.
    Lost(Damage),
}

/// A bundle that is refused whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadBundle {
    /// It begins as something else.
    #[error("the file does not begin as a bundle does; `depot prestage export` makes one")]
    Magic,
    /// A later version of depot wrote it.
    #[error("bundle version {0} is not known here; a newer depot wrote it")]
    Version(u16),
    /// The head is not what was written.
    #[error("the bundle's head is damaged: {0}; carry it again")]
    Head(String),
    /// Another site made it.
    #[error(
        "the bundle is of another site: it is signed with key {found}, and the site here signs with \
         {trusted}"
    )]
    Foreign {
        /// The key that it states.
        found: PublicKey,
        /// The key that it should be.
        trusted: PublicKey,
    },
    /// A version in it is not the site's.
    #[error(transparent)]
    NotProven(#[from] NotProven),
    /// It cannot be read.
    #[error("cannot read the bundle")]
    Io(#[source] io::Error),
}

/// Writes one bundle.
pub(super) struct BundleWriter<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    pub written: u64,
    pub n_records: u64,
}

impl<'a> BundleWriter<'a> {
    /// Begins a bundle with its head.
    pub fn new(out: &'a mut dyn Write, head: &Head, key: &SiteKey) -> Result<Self, PrestageError> {
        let text = serde_json::to_vec(head).expect("a head has text keys and no failing parts");
        if text.len() > MAX_HEAD {
            return Err(PrestageError::TooMany(head.versions.len()));
        }
        let mut writer = Self { out, hasher: blake3::Hasher::new(), written: 0, n_records: 0 };
        let mut prefix = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 2]].concat();
        prefix.extend_from_slice(&(text.len() as u32).to_le_bytes());
        for part in [&prefix[..], &text, key.sign_document(Document::Bundle, &text).as_bytes()] {
            writer.put(part).map_err(PrestageError::Write)?;
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes a record whose body is `parts` one after the other.
    fn record(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), PrestageError> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
        let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let mut header = [&[kind, 0, 0, 0][..], &len.to_le_bytes(), &crc.to_le_bytes()].concat();
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        self.n_records += 1;
        let header = &header[..];
        let mut parts = std::iter::once(&header).chain(parts);
        parts.try_for_each(|part| self.put(part)).map_err(PrestageError::Write)
    }

    pub fn version(&mut self, index: usize) -> Result<(), PrestageError> {
        self.record(kind::VERSION, &[&(index as u32).to_le_bytes()])
    }

    pub fn recipe(&mut self, content: Digest, recipe: &Recipe) -> Result<(), PrestageError> {
        self.record(kind::RECIPE, &[content.as_bytes(), &recipe.encode()])
    }

    pub fn chunks(&mut self, frame: Frame) -> Result<(), PrestageError> {
        let slices = FrameItem::Block(frame).into_slices();
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
        self.record(kind::CHUNKS, &slices)
    }

    pub fn mark(&mut self, files: u64, bytes: u64) -> Result<(), PrestageError> {
        self.record(kind::MARK, &[&files.to_le_bytes(), &bytes.to_le_bytes()])
    }

    /// Ends the bundle; its length.
    pub fn end(mut self) -> Result<u64, PrestageError> {
        let digest = *self.hasher.finalize().as_bytes();
        let (records, bytes) = (self.n_records.to_le_bytes(), self.written.to_le_bytes());
        self.record(kind::END, &[&records, &bytes, &digest])?;
        self.out.flush().map_err(PrestageError::Write)?;
        Ok(self.written)
    }
}

/// Takes a bundle apart, as its bytes arrive. Holds at most one record beside what was pushed.
#[derive(Default)]
pub struct BundleDecoder {
    bytes: BytesMut,
    state: State,
    hasher: blake3::Hasher,
    /// Bytes of the bundle before those that are held.
    offset: u64,
    n_records: u64,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Records,
    Ended,
    Lost,
}

impl BundleDecoder {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // What comes after the loss of the way is not kept.
        if self.state != State::Lost {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Whether the end mark was read, and nothing follows.
    pub fn is_complete(&self) -> bool {
        self.state == State::Ended && self.bytes.is_empty()
    }

    /// Whether nothing that follows can be read.
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Which record comes next, and where it begins, in bytes.
    pub fn at(&self) -> (u64, u64) {
        let record = if self.state == State::Head { 0 } else { self.n_records + 1 };
        (record, self.offset)
    }

    /// What is wrong with a bundle that ends here, if anything is.
    pub fn cut(&self) -> Option<Damage> {
        if self.is_complete() { None } else { Some(self.damage("the bundle is cut off")) }
    }

    fn damage(&self, what: impl Into<String>) -> Damage {
        let (record, offset) = self.at();
        Damage { record, offset, what: what.into() }
    }

    fn lost(&mut self, what: impl Into<String>) -> Step {
        let damage = self.damage(what);
        (self.state, self.bytes) = (State::Lost, BytesMut::new());
        Step::Lost(damage)
    }

    /// What comes next, or `None` until more bytes are pushed. After an error, nothing does.
    pub fn next_step(&mut self) -> Result<Option<Step>, BadBundle> {
        match self.state {
            State::Head => Ok(self.head()?.map(|head| Step::Head(Box::new(head)))),
            State::Records => Ok(self.record()),
            State::Ended if self.bytes.is_empty() => Ok(None),
            State::Ended => Ok(Some(self.lost("the bundle goes on after its end"))),
            State::Lost => Ok(None),
        }
    }

    fn head(&mut self) -> Result<Option<Head>, BadBundle> {
        let start = self.bytes.get(..MAGIC.len().min(self.bytes.len())).unwrap_or_default();
        if !MAGIC.starts_with(start) {
            return Err(BadBundle::Magic);
        }
        let Some(mut prefix) = self.bytes.get(MAGIC.len()..PREFIX) else { return Ok(None) };
        let (version, _, len) = (prefix.get_u16_le(), prefix.get_u16_le(), prefix.get_u32_le());
        if version != VERSION {
            return Err(BadBundle::Version(version));
        }
        if len as usize > MAX_HEAD {
            return Err(BadBundle::Head("it is too long".into()));
        }
        let whole = PREFIX + len as usize + SIGNATURE;
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let bytes = self.bytes.split_to(whole).freeze();
        let text = bytes.slice(PREFIX..whole - SIGNATURE);
        let mut signature = [0; SIGNATURE];
        bytes.slice(whole - SIGNATURE..).copy_to_slice(&mut signature);
        let signature = Signature::from_bytes(signature);
        let head: Head =
            serde_json::from_slice(&text).map_err(|error| BadBundle::Head(error.to_string()))?;
        if !head.key.has_signed(Document::Bundle, &text, &signature) {
            return Err(BadBundle::Head(
                "its signature is not one of the key that it states".into(),
            ));
        }
        self.pass(&bytes);
        self.state = State::Records;
        Ok(Some(head))
    }

    /// Counts bytes that are dealt with.
    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }

    fn record(&mut self) -> Option<Step> {
        let mut header = self.bytes.get(..HEADER)?;
        let right = crc32c::crc32c(header.get(..HEADER - 4)?);
        let (kind, _, len) = (header.get_u8(), header.get_uint_le(3), header.get_u32_le() as usize);
        let (crc, own_crc) = (header.get_u32_le(), header.get_u32_le());
        if own_crc != right {
            return Some(self.lost("the header of a record is damaged"));
        }
        if !kind::lengths(kind).is_some_and(|lengths| lengths.contains(&len)) {
            return Some(self.lost("a record of no known kind, or outside the limits"));
        }
        let whole = HEADER + len;
        if self.bytes.len() < whole {
            self.bytes.reserve(whole - self.bytes.len());
            return None;
        }
        let bytes = self.bytes.split_to(whole).freeze();
        let body = bytes.slice(HEADER..);
        let damage = self.damage("its bytes do not match their checksum");
        if crc32c::crc32c(&body) != crc {
            self.pass(&bytes);
            self.n_records += 1;
            return Some(Step::Damaged(damage));
        }
        let step = match self.body(kind, &body) {
            Ok(record) => Step::Record(record),
            Err(what) => Step::Damaged(Damage { what, ..damage }),
        };
        if step == Step::Record(Record::End) {
            self.state = State::Ended;
        }
        self.pass(&bytes);
        self.n_records += 1;
        Some(step)
    }

    fn body(&self, kind: u8, mut body: &[u8]) -> Result<Record, String> {
        Ok(match kind {
            kind::VERSION => Record::Version(body.get_u32_le()),
            kind::RECIPE => {
                let mut content = [0; 32];
                body.copy_to_slice(&mut content);
                let recipe = Recipe::decode(body).map_err(|error| error.to_string())?;
                Record::Recipe { content: Digest::from_bytes(content), recipe }
            }
            kind::CHUNKS => {
                let mut decoder = FrameDecoder::default();
                decoder.push(body);
                match decoder.next_item() {
                    Ok(Some(FrameItem::Block(frame))) if decoder.is_empty() => {
                        Record::Chunks(frame)
                    }
                    Ok(_) => return Err("it is no block of chunks".into()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            kind::MARK => Record::Mark { files: body.get_u64_le(), bytes: body.get_u64_le() },
            _ => {
                let (records, bytes) = (body.get_u64_le(), body.get_u64_le());
                if (records, bytes) != (self.n_records, self.offset) {
                    return Err(format!(
                        "the bundle was written with {records} records and {bytes} bytes before its \
                         end, and has {} and {}",
                        self.n_records, self.offset
                    ));
                }
                if body != self.hasher.finalize().as_bytes() {
                    return Err("the digest of the whole bundle is another".into());
                }
                Record::End
            }
        })
    }
}

//! Frames: how sections of bytes become a file, and are read back.
//!
//! A section is a run of bytes of one [`Kind`]. It is cut into frames of at most [`FRAME`] bytes, each
//! compressed by itself. Each frame has a BLAKE3 over what came before, its own header and its own
//! bytes, so that a byte that was changed, and a frame that was moved, left out or taken from
//! another backup, are found where they lie, before anything is decoded.

use crate::BadBackup;
use std::io::{self, Read, Write};

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"depotbk\n";
/// The newest format that is read, and the one that is written.
pub const FORMAT: u16 = 1;
/// The plain bytes of a frame at most.
pub const FRAME: usize = 1 << 20;
/// Bytes of the header of the file.
const FILE_HEADER: usize = 16;
/// Bytes of the header of a frame.
const HEADER: usize = 12;
/// How hard frames are compressed.
const LEVEL: i32 = 3;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// What a section holds. In a file sections stand in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// What it is a backup of.
    Head = 1,
    /// The references of the library.
    References = 2,
    /// The packs of the library.
    Packs = 3,
    /// The records of the site database.
    Records = 4,
    /// The site's keys.
    Keys = 5,
    /// What all that comes to. Nothing follows.
    End = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        let all = [Self::Head, Self::References, Self::Packs, Self::Records, Self::Keys, Self::End];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

fn file_header() -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    header
}

/// Writes a backup.
pub struct Writer<W> {
    out: W,
    chain: blake3::Hash,
    kind: Kind,
    plain: Vec<u8>,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file with the section of its head.
    pub fn new(mut out: W) -> io::Result<Self> {
        let header = file_header();
        out.write_all(&header)?;
        let plain = Vec::with_capacity(FRAME);
        let written = FILE_HEADER as u64;
        Ok(Self { out, chain: blake3::hash(&header), kind: Kind::Head, plain, written })
    }

    /// Ends the section and begins the next one, which comes later in the order of [`Kind`].
    pub fn section(&mut self, kind: Kind) -> io::Result<()> {
        self.flush_frame()?;
        debug_assert!(kind > self.kind, "sections stand in order");
        self.kind = kind;
        Ok(())
    }

    /// Ends the file, and gives back what it was written to, its length and its digest.
    pub fn finish(mut self) -> io::Result<(W, u64, [u8; 32])> {
        self.flush_frame()?;
        self.out.flush()?;
        Ok((self.out, self.written, *self.chain.as_bytes()))
    }

    fn flush_frame(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.plain, LEVEL)?;
        let (codec, stored) = match packed.len() < self.plain.len() {
            true => (ZSTD, packed.as_slice()),
            false => (RAW, self.plain.as_slice()),
        };
        let mut header = [0; HEADER];
        (header[0], header[1]) = (self.kind as u8, codec);
        header[4..8].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        header[8..].copy_from_slice(&(self.plain.len() as u32).to_le_bytes());
        self.chain = link(&self.chain, &header, stored);
        self.out.write_all(&header)?;
        self.out.write_all(stored)?;
        self.out.write_all(self.chain.as_bytes())?;
        self.written += (HEADER + stored.len() + 32) as u64;
        self.plain.clear();
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(FRAME - self.plain.len());
        self.plain.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.plain.len() == FRAME {
            self.flush_frame()?;
        }
        Ok(n)
    }

    /// A frame ends when it is full, or its section does.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn link(before: &blake3::Hash, header: &[u8], stored: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(header).update(stored);
    hasher.finalize()
}

/// Reads a backup, section after section. As [`Read`] it gives the section that was begun.
pub struct Reader<R> {
    input: R,
    chain: blake3::Hash,
    kind: Kind,
    plain: Vec<u8>,
    taken: usize,
    /// The first frame of the section that follows.
    ahead: Option<(Kind, Vec<u8>)>,
    at: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read; the section of the head is the first.
    pub fn new(mut input: R) -> Result<Self, BadBackup> {
        let mut header = [0; FILE_HEADER];
        match fill(&mut input, &mut header)? {
            n if header.get(..n.min(8)) != MAGIC.get(..n.min(8)) || n == 0 => {
                return Err(BadBackup::NotABackup);
            }
            FILE_HEADER => {}
            n => return Err(BadBackup::CutOff { at: n as u64 }),
        }
        let found = u16::from_le_bytes([header[8], header[9]]);
        if found > FORMAT {
            return Err(BadBackup::NewerFormat { found, known: FORMAT });
        }
        if header != file_header() {
            return Err(BadBackup::Damaged { at: 0, detail: "its header".into() });
        }
        let chain = blake3::hash(&header);
        let (plain, at) = (Vec::new(), FILE_HEADER as u64);
        let mut reader =
            Self { input, chain, kind: Kind::Head, plain, taken: 0, ahead: None, at, ended: false };
        match reader.next_frame()? {
            Some((Kind::Head, plain)) => reader.plain = plain,
            Some(_) => return Err(reader.damaged("it has no head")),
            None => return Err(BadBackup::CutOff { at: reader.at }),
        }
        Ok(reader)
    }

    /// The section that is read.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How far the file is read, in bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The digest of all that was read, which names the backup once its end was.
    pub fn digest(&self) -> [u8; 32] {
        *self.chain.as_bytes()
    }

    /// Begins the next section, and passes over what is left of this one; none after the last.
    pub fn next_section(&mut self) -> Result<Option<Kind>, BadBackup> {
        while self.ahead.is_none() && !self.ended {
            self.advance()?;
        }
        let Some((kind, plain)) = self.ahead.take() else { return Ok(None) };
        (self.kind, self.plain, self.taken) = (kind, plain, 0);
        Ok(Some(kind))
    }

    /// Something is wrong with what was read last.
    pub fn damaged(&self, detail: impl Into<String>) -> BadBackup {
        BadBackup::Damaged { at: self.at, detail: detail.into() }
    }

    /// At most `limit` bytes that are left of the section; more of them are damage.
    pub fn rest(&mut self, limit: usize) -> Result<Vec<u8>, BadBackup> {
        let mut rest = Vec::new();
        let mut limited = self.by_ref().take(limit as u64 + 1);
        limited.read_to_end(&mut rest).map_err(back)?;
        match rest.len() > limit {
            true => Err(self.damaged("a section is too long")),
            false => Ok(rest),
        }
    }

    /// Fills `bytes`; `false` where the section ended before the first.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, BadBackup> {
        match fill(self, bytes).map_err(back)? {
            0 if !bytes.is_empty() => Ok(false),
            n if n == bytes.len() => Ok(true),
            _ => Err(self.damaged("a section ends in the middle of something")),
        }
    }

    /// The next `length` bytes of the section. Memory is taken as they come, not as they are promised.
    pub fn exactly(&mut self, length: u64) -> Result<Vec<u8>, BadBackup> {
        let mut bytes = Vec::new();
        self.by_ref().take(length).read_to_end(&mut bytes).map_err(back)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(self.damaged("a section ends in the middle of something")),
        }
    }

    /// Takes the next frame of the section, or puts it by if it is of the next one.
    fn advance(&mut self) -> Result<(), BadBackup> {
        match self.next_frame()? {
            Some((kind, plain)) if kind == self.kind => (self.plain, self.taken) = (plain, 0),
            Some((kind, _)) if kind < self.kind => {
                return Err(self.damaged("its sections are not in order"));
            }
            Some(next) => self.ahead = Some(next),
            None if self.kind == Kind::End => self.ended = true,
            None => return Err(BadBackup::CutOff { at: self.at }),
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<(Kind, Vec<u8>)>, BadBackup> {
        let cut = |reader: &Self, n: usize| BadBackup::CutOff { at: reader.at + n as u64 };
        let mut header = [0; HEADER];
        match fill(&mut self.input, &mut header)? {
            0 => return Ok(None),
            HEADER => {}
            n => return Err(cut(self, n)),
        }
        let number = |at: usize| {
            let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default()) as usize
        };
        let (stored_len, plain_len) = (number(4), number(8));
        let kind = Kind::of(header[0]);
        let fits = (1..=FRAME).contains(&plain_len) && (1..=plain_len).contains(&stored_len);
        let (Some(kind), true, RAW | ZSTD, [0, 0]) =
            (kind, fits, header[1], [header[2], header[3]])
        else {
            return Err(self.damaged("the header of a frame"));
        };
        let mut stored = vec![0; stored_len];
        let n = fill(&mut self.input, &mut stored)?;
        if n < stored_len {
            return Err(cut(self, HEADER + n));
        }
        let mut digest = [0; 32];
        let n = fill(&mut self.input, &mut digest)?;
        if n < digest.len() {
            return Err(cut(self, HEADER + stored_len + n));
        }
        let chain = link(&self.chain, &header, &stored);
        if chain != digest {
            return Err(self.damaged("its digest is another"));
        }
        let plain = match header[1] {
            RAW if stored_len == plain_len => stored,
            RAW => return Err(self.damaged("the length of a frame")),
            _ => {
                let plain = zstd::bulk::decompress(&stored, plain_len);
                let plain = plain.ok().filter(|plain| plain.len() == plain_len);
                plain.ok_or_else(|| self.damaged("a frame cannot be unpacked"))?
            }
        };
        self.chain = chain;
        self.at += (HEADER + stored_len + digest.len()) as u64;
        Ok(Some((kind, plain)))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.plain.len() && self.ahead.is_none() && !self.ended {
            self.advance().map_err(io::Error::other)?;
        }
        let left = self.plain.get(self.taken..).unwrap_or_default();
        let n = left.len().min(into.len());
        for (to, from) in into.iter_mut().zip(left) {
            *to = *from;
        }
        self.taken += n;
        Ok(n)
    }
}

/// What [`Reader`]'s own `read` said, as it was.
fn back(error: io::Error) -> BadBackup {
    match error.downcast::<BadBackup>() {
        Ok(bad) => bad,
        Err(error) => BadBackup::Io(error),
    }
}

/// Reads until `bytes` is full or there is no more; how much came.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(left) = bytes.get_mut(n..).filter(|left| !left.is_empty()) {
        match input.read(left) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(sections: &[(Kind, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for (kind, bytes) in sections {
            if *kind != Kind::Head {
                writer.section(*kind).unwrap();
            }
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn read(file: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, BadBackup> {
        let mut reader = Reader::new(file)?;
        let mut sections = vec![(reader.kind(), reader.rest(FRAME * 8)?)];
        while let Some(kind) = reader.next_section()? {
            sections.push((kind, reader.rest(FRAME * 8)?));
        }
        Ok(sections)
    }

    fn some() -> Vec<(Kind, Vec<u8>)> {
        let long: Vec<u8> = (0..FRAME * 2 + 77).map(|n| (n * n / 3) as u8).collect();
        vec![(Kind::Head, b"head".to_vec()), (Kind::Records, long), (Kind::End, b"end".to_vec())]
    }

    #[test]
    fn sections_read_back() {
        assert_eq!(read(&written(&some())).unwrap(), some());
        let file = written(&some());
        let mut reader = Reader::new(&*file).unwrap();
        assert_eq!(reader.next_section().unwrap(), Some(Kind::Records), "the head is passed over");
        assert_eq!(reader.next_section().unwrap(), Some(Kind::End));
        assert_eq!(reader.next_section().unwrap(), None);
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_no_backup() {
        let file = written(&some());
        let step = file.len() / 300;
        for length in (0..file.len()).step_by(step.max(1)).chain(file.len() - 40..file.len()) {
            let cut = read(&file[..length]).unwrap_err();
            assert!(cut.is_damage(), "{length} of {}: {cut}", file.len());
        }
    }

    #[test]
    fn what_follows_the_end_is_found() {
        let file = [written(&some()), vec![0]].concat();
        assert!(read(&file).unwrap_err().is_damage());
    }

    #[test]
    fn frames_of_another_file_do_not_fit() {
        let of = |text: &str| {
            written(&[(Kind::Head, text.into()), (Kind::End, b"the same end".to_vec())])
        };
        let (one, two) = (of("one"), of("two"));
        assert_eq!(one.len(), two.len());
        let end = one.len() - (HEADER + 12 + 32);
        assert!(read(&[&one[..end], &two[end..]].concat()).unwrap_err().is_damage());
    }

    #[test]
    fn a_newer_format_is_told_by_its_number() {
        let mut file = written(&some());
        file[8] = 2;
        assert!(matches!(read(&file), Err(BadBackup::NewerFormat { found: 2, known: 1 })));
        assert!(matches!(read(b"something else"), Err(BadBackup::NotABackup)));
    }

    proptest! {
        #[test]
        fn any_byte_that_changed_is_found(at: prop::sample::Index, flip in 1..=u8::MAX) {
            let mut file = written(&[
                (Kind::Head, b"the head of a small one".to_vec()),
                (Kind::References, vec![7; 300]),
                (Kind::Records, (0..600).map(|n| (n * 31) as u8).collect()),
                (Kind::End, b"its end".to_vec()),
            ]);
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert!(read(&file).is_err(), "byte {at}");
        }
    }
}

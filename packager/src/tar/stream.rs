//! Taking a tar stream apart, header by header.
//!
//! The formats are those of POSIX (ustar and pax, IEEE 1003.1 "pax") and GNU tar's long names.
//! The `tar` crate reads the fields of a header; its archive reader is not used, since it takes a
//! stream that was cut off between two entries for a whole one, reads extended headers of any
//! size into memory, and splits pax records at newlines, which may be part of a name.

use crate::folder::nanoseconds;
use crate::path::MAX_PATH;
use ::tar::{EntryType, Header};
use std::io::{self, Read};

const BLOCK: usize = 512;
/// The largest extended header: some of the longest paths and a few attributes.
const MAX_EXTENDED: u64 = 1 << 20;

/// An entry's header, with what extended headers before it say.
#[derive(Debug)]
pub(super) struct TarEntry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: TarKind,
    pub(super) mode: u16,
    pub(super) mtime: i64,
    /// Bytes that follow in the stream.
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    HardLink,
    Link,
    Folder,
    Sparse,
    Special(&'static str),
}

/// The label that GNU tar gives a volume.
const LABEL: u8 = b'V';

/// Why a stream is no archive.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    CutOff,
    Header(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Io(error),
        }
    }
}

/// A tar stream.
pub(super) struct TarStream<R> {
    reader: R,
    /// Bytes of the last entry that were not taken yet, and of the padding after them.
    left: u64,
    padding: u64,
}

impl<R: Read> TarStream<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, left: 0, padding: 0 }
    }

    /// The next entry; nothing after the end mark, up to which a whole archive must go.
    pub(super) fn next(&mut self) -> Result<Option<TarEntry>, Broken> {
        let mut extended = Extended::default();
        loop {
            skip(&mut self.reader, self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let mut block = [0; BLOCK];
            self.reader.read_exact(&mut block)?;
            if block == [0; BLOCK] {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header, &block)?;
            let kind = header.entry_type();
            if kind.as_byte() == LABEL {
                // It has no bytes, and its size is left blank.
                continue;
            }
            let size = header.entry_size().map_err(|e| Broken::Header(e.to_string()))?;
            self.expect(size)?;
            match kind {
                // It speaks of the archive itself.
                EntryType::XGlobalHeader => {}
                EntryType::XHeader => extended.read_pax(&self.extended()?)?,
                EntryType::GNULongName => extended.path = Some(without_nul(self.extended()?)),
                EntryType::GNULongLink => extended.link = Some(without_nul(self.extended()?)),
                _ => {
                    match kind {
                        // These have no bytes, whatever size some programs state.
                        EntryType::Link | EntryType::Symlink | EntryType::Directory => {
                            self.expect(0)?;
                        }
                        _ => extended.size.map_or(Ok(()), |size| self.expect(size))?,
                    }
                    return self.entry(header, extended).map(Some);
                }
            }
        }
    }

    fn expect(&mut self, size: u64) -> Result<(), Broken> {
        let too_long = || Broken::Header(format!("an entry of {size} bytes"));
        let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(too_long)?;
        (self.left, self.padding) = (size, padded - size);
        Ok(())
    }

    /// The bytes of an extended header.
    fn extended(&mut self) -> Result<Vec<u8>, Broken> {
        if self.left > MAX_EXTENDED {
            return Err(Broken::Header(format!("an extended header of {} bytes", self.left)));
        }
        let mut bytes = vec![0; self.left as usize];
        self.reader.read_exact(&mut bytes)?;
        self.left = 0;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<TarEntry, Broken> {
        let bad = |error: io::Error| Broken::Header(error.to_string());
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        let kind = match header.entry_type() {
            _ if extended.sparse => TarKind::Sparse,
            // Before POSIX, a folder was a file whose name ends in a slash.
            EntryType::Regular if path.ends_with(b"/") => TarKind::Folder,
            EntryType::Regular | EntryType::Continuous => TarKind::File,
            EntryType::Link => TarKind::HardLink,
            EntryType::Symlink => TarKind::Link,
            EntryType::Directory => TarKind::Folder,
            EntryType::GNUSparse => TarKind::Sparse,
            EntryType::Fifo => TarKind::Special("a named pipe"),
            EntryType::Char => TarKind::Special("a character device"),
            EntryType::Block => TarKind::Special("a block device"),
            _ => TarKind::Special("an entry of no known kind"),
        };
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => nanoseconds(header.mtime().map_err(bad)? as i64, 0),
        };
        let mode = (header.mode().map_err(bad)? & 0o7777) as u16;
        let link = extended.link.unwrap_or_else(link);
        Ok(TarEntry { path, link, kind, mode, mtime, size: self.left })
    }

    /// The bytes of the last entry, into `buffer`; how many, 0 after the last.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.reader.read(&mut buffer[..most]) {
                Ok(0) => return Err(Broken::CutOff),
                Ok(n) => {
                    self.left -= n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what follows the end mark: padding, and a compressed stream's own checksum.
    pub(super) fn finish(mut self) -> Result<(), Broken> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = self.reader.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            if buffer[..n].iter().any(|&byte| byte != 0) {
                return Err(Broken::Header("bytes after the end mark".into()));
            }
        }
    }
}

fn check_sum(header: &Header, block: &[u8; BLOCK]) -> Result<(), Broken> {
    // The checksum's own field counts as spaces.
    let (before, rest) = block.split_at(148);
    let sum =
        before.iter().chain(&rest[8..]).fold(8 * u32::from(b' '), |sum, &b| sum + u32::from(b));
    match header.cksum() {
        Ok(stated) if stated == sum => Ok(()),
        _ => Err(Broken::Header("a header whose checksum is wrong".into())),
    }
}

fn skip(reader: &mut impl Read, n: u64) -> Result<(), Broken> {
    match io::copy(&mut reader.take(n), &mut io::sink())? {
        copied if copied == n => Ok(()),
        _ => Err(Broken::CutOff),
    }
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
    sparse: bool,
}

impl Extended {
    /// Reads pax records: `<length> <key>=<value>\n`, the length being that of the whole record.
    fn read_pax(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        let bad = || Broken::Header("an extended header that is none".into());
        while !bytes.is_empty() {
            let space = bytes.iter().position(|&b| b == b' ').ok_or_else(bad)?;
            let len: usize = number(&bytes[..space]).ok_or_else(bad)?;
            let (record, rest) = bytes.split_at_checked(len).ok_or_else(bad)?;
            let record = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n"));
            let record = record.ok_or_else(bad)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value).ok_or_else(bad)?),
                b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            bytes = rest;
        }
        let long = |path: &Option<Vec<u8>>| path.as_ref().is_some_and(|p| p.len() > 2 * MAX_PATH);
        match long(&self.path) || long(&self.link) {
            true => Err(Broken::Header("a name longer than any file can have".into())),
            false => Ok(()),
        }
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// Seconds since 1970 as a decimal fraction, which may be negative.
fn time(text: &[u8]) -> Option<i64> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |&b| b == b'.');
    let seconds: i64 = number(parts.next()?)?;
    let fraction = parts.next().unwrap_or_default();
    let nine: Vec<u8> = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9).collect();
    let rest: i64 = number(&nine)?;
    Some(if negative { nanoseconds(-seconds, -rest) } else { nanoseconds(seconds, rest) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        assert_eq!(time(b"1"), Some(1_000_000_000));
        assert_eq!(time(b"1.5"), Some(1_500_000_000));
        assert_eq!(time(b"-1.000000001"), Some(-1_000_000_001));
        assert_eq!(time(b"1.12345678999"), Some(1_123_456_789));
        for bad in [&b""[..], b"-", b"1.x", b"+1", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn a_name_in_an_extended_header_may_hold_newlines() {
        let mut extended = Extended::default();
        extended.read_pax(b"14 path=a\n7 b\n20 mtime=123.456789\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\n7 b"[..]));
        assert_eq!(extended.mtime, Some(123_456_789_000));
        for bad in [&b"path=a\n"[..], b"8 path=a\n", b"11 path=a\n", b"5 a=b\n", b"0 a=b\n"] {
            assert!(Extended::default().read_pax(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut stream = TarStream::new(&bytes[..]);
            while let Ok(Some(_)) = stream.next() {}
        }

        #[test]
        fn any_extended_header_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Extended::default().read_pax(&bytes);
        }
    }
}

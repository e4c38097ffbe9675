//! Compressed files of upstreams, read as a stream within a limit.
//!
//! A few kilobytes can unpack to terabytes, so every reader here counts, and stops with an error
//! where more comes out than was stated, or than is taken.

use crate::error::{Cause, SyncError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// Gzip (RFC 1952); several members follow each other.
    Gzip,
    /// XZ.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// The most memory that an XZ file may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// The largest window of Zstandard, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;

impl Packing {
    /// What the end of a file's name says: `.gz`, `.xz`, `.zst`; another, or none, is plain.
    pub fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("gz") => Self::Gzip,
            Some("xz") => Self::Xz,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// The plain bytes of the file at `path`, as they are read. After `most` of them comes an error,
    /// [`TooMuch`], as the source of an [`io::Error`].
    pub fn open(self, path: &Path, most: u64) -> Result<Box<dyn BufRead + Send>, SyncError> {
        let file = File::open(path).map_err(|error| SyncError::local(path.display(), error))?;
        let file = BufReader::with_capacity(256 << 10, file);
        let failed = |error: io::Error| {
            SyncError::because(
                Cause::Malformed,
                format!("{} cannot be unpacked", path.display()),
                error,
            )
        };
        self.read(file, most).map_err(failed)
    }

    /// The plain bytes of `packed`.
    pub fn read<R: BufRead + Send + 'static>(
        self,
        packed: R,
        most: u64,
    ) -> io::Result<Box<dyn BufRead + Send>> {
        let plain: Box<dyn Read + Send> = match self {
            Self::Plain => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(
                    XZ_MEMORY,
                    liblzma::stream::CONCATENATED,
                )?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        };
        Ok(Box::new(BufReader::with_capacity(64 << 10, Bounded { plain, left: most })))
    }
}

/// More came out of a compressed file than is taken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it unpacks to more bytes than are taken")]
pub struct TooMuch;

/// Passes on at most `left` bytes.
struct Bounded<R> {
    plain: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // The end is fine; one byte more is not.
            let mut one = [0];
            return match self.plain.read(&mut one)? {
                0 => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, TooMuch)),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let n = self.plain.read(&mut to[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// What an error of reading means: [`TooMuch`] is too large, all else malformed.
pub fn reading(what: impl std::fmt::Display, error: io::Error) -> SyncError {
    let is_too_much = error.get_ref().is_some_and(|inner| inner.is::<TooMuch>());
    let cause = if is_too_much { Cause::TooLarge } else { Cause::Malformed };
    SyncError::because(cause, format!("{what} cannot be read"), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn packed(packing: Packing, plain: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Plain => plain.to_vec(),
            Packing::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Packing::Xz => {
                let mut to = liblzma::write::XzEncoder::new(Vec::new(), 1);
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Packing::Zstd => zstd::encode_all(plain, 1).unwrap(),
        }
    }

    #[test]
    fn each_form_reads_back_and_no_more_comes_out_than_is_taken() {
        let plain = b"some bytes of an index\n".repeat(50_000);
        for (name, packing) in [
            ("Packages", Packing::Plain),
            ("Packages.gz", Packing::Gzip),
            ("Packages.xz", Packing::Xz),
            ("x.zst", Packing::Zstd),
        ] {
            assert_eq!(Packing::of_name(name), packing);
            let bytes = packed(packing, &plain);
            let read = |bytes: Vec<u8>, most| {
                let mut out = Vec::new();
                let read = packing.read(Cursor::new(bytes), most).unwrap().read_to_end(&mut out);
                read.map(|_| out)
            };
            assert!(read(bytes.clone(), plain.len() as u64).unwrap() == plain, "{name}");
            let error = read(bytes.clone(), plain.len() as u64 - 1).unwrap_err();
            assert_eq!(reading("it", error).cause, Cause::TooLarge);
            if packing != Packing::Plain {
                let cut = bytes[..bytes.len() - 5].to_vec();
                assert_eq!(reading("it", read(cut, u64::MAX).unwrap_err()).cause, Cause::Malformed);
            }
        }
    }
}

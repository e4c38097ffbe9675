//! How a catalogue is packed: as a cabinet, a folder, or bare.
//!
//! The classic form is a cabinet with one XML file of all packages; the newer ones (V2, V3) have a
//! file for each package, `<PackageID>.sdp`, and beside them lists that say nothing that the
//! packages do not. All are read as a row of XML documents, each as a stream of UTF-8, whatever it
//! was in.

use super::cab::{Cabinet, Limits, Member};
use crate::error::{Cause, SyncError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Files that are looked at in a folder.
const MAX_FILES: usize = 200_000;

/// Gives each document of the catalogue at `path` to `take`, with its name.
///
/// # Errors
/// It is in a form that is not known or not sound, or `take` failed.
pub fn documents(
    path: &Path,
    limits: Limits,
    take: &mut dyn FnMut(&str, &mut dyn BufRead) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let local = |error| SyncError::local(path.display(), error);
    if path.is_dir() {
        for file in files(path)? {
            let name = file.file_name().map(|it| it.to_string_lossy().into_owned());
            one(&file, &name.unwrap_or_default(), limits, take)?;
        }
        return Ok(());
    }
    let name = path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let mut first = [0; 4];
    let n = File::open(path).and_then(|mut file| file.read(&mut first)).map_err(local)?;
    if first[..n].starts_with(b"PK") {
        return Err(SyncError::new(
            Cause::Unsupported,
            format!("{name} is a ZIP file; unpack it into a folder and name that folder"),
        ));
    }
    one(path, &name, limits, take)
}

/// The files of a folder that are documents or cabinets, in the order of their names.
///
/// # Errors
/// The folder cannot be read, or has too many files.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, SyncError> {
    let local = |error| SyncError::local(folder.display(), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(local)? {
        let entry = entry.map_err(local)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A link could lead anywhere.
        if entry.file_type().map_err(local)?.is_file() && (is_document(&name) || is_cabinet(&name))
        {
            files.push(entry.path());
        }
        if files.len() > MAX_FILES {
            return Err(SyncError::new(
                Cause::TooLarge,
                format!("{} has more than {MAX_FILES} files", folder.display()),
            ));
        }
    }
    files.sort();
    Ok(files)
}

fn one(
    path: &Path,
    name: &str,
    limits: Limits,
    take: &mut dyn FnMut(&str, &mut dyn BufRead) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let local = |error| SyncError::local(path.display(), error);
    let mut file = BufReader::with_capacity(128 << 10, File::open(path).map_err(local)?);
    if !file.fill_buf().map_err(local)?.starts_with(b"MSCF") {
        return take(name, &mut utf8(Box::new(file)).map_err(local)?);
    }
    let mut cabinet = Cabinet::open(file, limits).map_err(|error| error.of(name))?;
    let wanted = |member: &Member| is_document(member.name.as_str());
    let each = cabinet.each(&wanted, &mut |member, from| {
        let plain = utf8(Box::new(BufReader::new(from)));
        let mut plain = plain.map_err(|error| crate::unpack::reading(&member.name, error))?;
        take(member.name.as_str(), &mut plain)
    });
    each.map_err(|error| error.of(name))
}

fn is_document(name: &str) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    matches!(end.as_deref(), Some("xml" | "sdp"))
}

fn is_cabinet(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("cab"))
}

/// The document in UTF-8, whether it is in that or in UTF-16, as its first bytes tell.
fn utf8<'a>(mut from: Box<dyn BufRead + 'a>) -> io::Result<Box<dyn BufRead + 'a>> {
    let units = match from.fill_buf()? {
        [0xff, 0xfe, ..] | [b'<', 0, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] | [0, b'<', ..] => u16::from_be_bytes,
        _ => return Ok(from),
    };
    let wide = Wide { from, units, half: None, surrogate: None, ready: Vec::new(), used: 0 };
    Ok(Box::new(BufReader::with_capacity(64 << 10, wide)))
}

/// Turns UTF-16 into UTF-8. What is no UTF-16 is an error.
struct Wide<'a> {
    from: Box<dyn BufRead + 'a>,
    units: fn([u8; 2]) -> u16,
    half: Option<u8>,
    surrogate: Option<u16>,
    ready: Vec<u8>,
    used: usize,
}

impl Wide<'_> {
    /// Turns the next piece into `ready`; nothing is ready at the end.
    fn more(&mut self) -> io::Result<()> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-16");
        self.ready.clear();
        self.used = 0;
        while self.ready.is_empty() {
            let piece = self.from.fill_buf()?;
            let n = piece.len();
            if n == 0 {
                let is_cut = self.half.is_some() || self.surrogate.is_some();
                return if is_cut { Err(broken()) } else { Ok(()) };
            }
            for byte in piece {
                let Some(first) = self.half.take() else {
                    self.half = Some(*byte);
                    continue;
                };
                let unit = (self.units)([first, *byte]);
                let pair = self.surrogate.take().into_iter().chain([unit]);
                for decoded in char::decode_utf16(pair) {
                    match decoded {
                        Ok(c) => {
                            let mut bytes = [0; 4];
                            self.ready.extend_from_slice(c.encode_utf8(&mut bytes).as_bytes());
                        }
                        // The first half of a pair waits for the second; any other is an error.
                        Err(lone) if lone.unpaired_surrogate() == unit && unit < 0xdc00 => {
                            self.surrogate = Some(unit);
                        }
                        Err(_) => return Err(broken()),
                    }
                }
            }
            self.from.consume(n);
        }
        Ok(())
    }
}

impl Read for Wide<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.used == self.ready.len() {
            self.more()?;
        }
        let n = to.len().min(self.ready.len() - self.used);
        to[..n].copy_from_slice(&self.ready[self.used..][..n]);
        self.used += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn root_of(path: &Path) -> Result<Vec<(String, String)>, SyncError> {
        let mut all = Vec::new();
        documents(path, Limits::default(), &mut |name, from| {
            let mut reader = xml::Reader::new(from, xml::Limits::default());
            let root = reader.child().map_err(|error| error.of(name))?.unwrap();
            all.push((name.to_owned(), root.attribute("k").unwrap_or_default().to_owned()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn each_encoding_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = "<r k=\"ä😀\">\u{4e2d}</r>";
        let units: Vec<u16> = text.encode_utf16().collect();
        let wide = |bom: &[u8], of: fn(u16) -> [u8; 2]| {
            let mut bytes = bom.to_vec();
            bytes.extend(units.iter().flat_map(|unit| of(*unit)));
            bytes
        };
        let files = [
            ("a.xml", text.as_bytes().to_vec()),
            ("b.xml", format!("\u{feff}{text}").into_bytes()),
            ("c.sdp", wide(b"\xff\xfe", u16::to_le_bytes)),
            ("d.SDP", wide(b"\xfe\xff", u16::to_be_bytes)),
            ("e.xml", wide(b"", u16::to_le_bytes)),
        ];
        for (name, bytes) in &files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        std::fs::write(folder.path().join("update_manifest.json"), "{}").unwrap();
        let all = root_of(folder.path()).unwrap();
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.xml", "b.xml", "c.sdp", "d.SDP", "e.xml"]);
        assert!(all.iter().all(|(_, k)| k == "ä😀"), "{all:?}");
        let lone = wide(b"\xff\xfe", u16::to_le_bytes);
        std::fs::write(folder.path().join("c.sdp"), &lone[..lone.len() - 1]).unwrap();
        assert_eq!(root_of(folder.path()).unwrap_err().cause, Cause::Malformed, "half a character");
        let high = [0xff, 0xfe, b'<', 0, 0x00, 0xd8, b'>', 0];
        std::fs::write(folder.path().join("c.sdp"), high).unwrap();
        assert_eq!(root_of(folder.path()).unwrap_err().cause, Cause::Malformed);
    }

    #[test]
    fn a_form_that_is_not_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.cab");
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        let error = root_of(&path).unwrap_err();
        assert_eq!(error.cause, Cause::Unsupported);
        assert!(error.detail.contains("unpack it into a folder"), "{error}");
    }
}

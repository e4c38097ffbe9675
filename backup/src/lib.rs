//! A site's backup as a file, and a folder of them.
//!
//! Pure formats, without a site: what is written here is read here, by whoever has the file and no
//! more. To be read in this order: [`frames`], how bytes become a file in which no wrong bit goes
//! unseen; [`parts`], what those bytes mean; [`keys`], what must not be read by others; [`series`],
//! backups side by side in one folder, and which of them is meant, kept, or let go; [`verify`](fn@verify).
//! `FORMAT.md` is the whole of it.
//!
//! Always true: every byte of a file is covered by a digest that is compared before it counts, and
//! a file without its end is not a backup. Reading and writing take some megabytes of memory,
//! however long the file is.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod frames;
pub mod keys;
pub mod parts;
pub mod series;
mod verify;

pub use error::BadBackup;
pub use verify::{PackFault, Verified, verify, verify_file};

/// What the fuzz target reads: a file as it is; and bytes as sections of a file whose digests are right, since
/// hardly any others are.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = verify::read_all(bytes, None);
    let _ = keys::Sealed::parse(bytes);
    let _ = keys::decode_files(bytes);
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = name.parse::<series::Name>();
    }
    if let Ok(file) = file_of(bytes) {
        let _ = verify::read_all(&*file, None);
    }
}

/// A file with a head, and with sections that each take so many of `bytes` as the two before them say.
fn file_of(mut bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use frames::Kind::{End, Keys, Packs, Records, References};
    use std::io::Write;
    let mut writer = frames::Writer::new(Vec::new())?;
    let head = br#"{"program":"0","taken":"2026-11-28T12:00:00Z","library":"00","seq":1,
        "content":"packs","keys":"sealed"}"#;
    writer.write_all(head)?;
    for kind in [References, Packs, Records, Keys, End] {
        let Some((length, rest)) = bytes.split_first_chunk() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (section, rest) = rest.split_at(length);
        writer.section(kind)?;
        writer.write_all(section)?;
        bytes = rest;
    }
    Ok(writer.finish()?.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sections_of_a_stranger_are_read_or_refused(bytes: Vec<u8>) {
            super::fuzz(&bytes);
        }
    }
}

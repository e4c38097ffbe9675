//! Verify: reads a backup to its end, and each pack that it keeps.

use crate::frames::Kind;
use crate::keys::Passphrase;
use crate::parts::{Head, Open, Pack, Totals};
use crate::{BadBackup, series};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Bytes that are read of a pack at once.
const STEP: usize = 1 << 20;

/// A backup that is whole.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it is of.
    pub head: Head,
    /// What is in it.
    pub totals: Totals,
    /// Its digest, which names it.
    pub digest: [u8; 32],
    /// How many key files were opened; nothing where they were not.
    pub keys: Option<usize>,
    /// Packs that are not as they should be.
    pub bad_packs: Vec<(Pack, PackFault)>,
}

/// What is wrong with a pack that a backup keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackFault {
    /// It is not there.
    Missing,
    /// Its bytes are others.
    Damaged,
}

/// Reads the backup in `file`, and the packs that it keeps from the folder beside it. `watch` hears how
/// many bytes were read, and may end it by an error.
pub fn verify(
    file: &Path,
    passphrase: Option<&Passphrase>,
    mut watch: impl FnMut(u64) -> io::Result<()>,
) -> Result<Verified, BadBackup> {
    let folder = series::packs_beside(file);
    let (mut verified, packs) = read_all(BufReader::new(File::open(file)?), passphrase)?;
    watch(0)?;
    for pack in packs {
        let Some(digest) = pack.digest else { continue };
        let fault = match File::open(folder.join(series::pack_name(pack.id, pack.len))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(PackFault::Missing),
            Err(error) => return Err(error.into()),
            Ok(file) => match is_as_said(file, pack.len, digest, &mut watch)? {
                true => None,
                false => Some(PackFault::Damaged),
            },
        };
        verified.bad_packs.extend(fault.map(|fault| (pack, fault)));
    }
    Ok(verified)
}

/// Reads the backup in `file` to its end, and no packs.
pub fn verify_file(file: &Path, passphrase: Option<&Passphrase>) -> Result<Verified, BadBackup> {
    Ok(read_all(BufReader::with_capacity(1 << 20, File::open(file)?), passphrase)?.0)
}

/// Reads all of a backup but its packs, of which it answers the list.
pub(crate) fn read_all(
    input: impl Read,
    passphrase: Option<&Passphrase>,
) -> Result<(Verified, Vec<Pack>), BadBackup> {
    let mut open = Open::new(input)?;
    let (head, mut packs, mut keys) = (open.head().clone(), Vec::new(), None);
    while let Some(kind) = open.next_part()? {
        match kind {
            Kind::References => while open.reference()?.is_some() {},
            Kind::Packs => {
                while let Some(pack) = open.pack()? {
                    packs.push(pack);
                }
            }
            Kind::Records => while open.record()?.is_some() {},
            Kind::Keys => {
                let sealed = open.keys()?;
                keys = passphrase.map(|it| sealed.open(it)).transpose()?.map(|files| files.len());
            }
            Kind::Head | Kind::End => break,
        }
    }
    let (totals, digest) = open.end()?;
    Ok((Verified { head, totals, digest, keys, bad_packs: Vec::new() }, packs))
}

/// Whether a file has this length and digest.
fn is_as_said(
    mut file: File,
    len: u64,
    digest: [u8; 32],
    watch: &mut impl FnMut(u64) -> io::Result<()>,
) -> io::Result<bool> {
    if file.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), vec![0; STEP]);
    loop {
        let n = match file.read(&mut bytes) {
            // EIO: the disk cannot give the bytes back.
            Err(error) if error.raw_os_error() == Some(5) => return Ok(false),
            read => read?,
        };
        if n == 0 {
            return Ok(hasher.finalize() == digest);
        }
        hasher.update(bytes.get(..n).unwrap_or_default());
        watch(n as u64)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::tests::small;
    use proptest::prelude::*;
    use std::fs;
    use std::sync::LazyLock;

    #[test]
    fn packs_that_are_missing_or_damaged_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let packs = folder.path().join(series::PACKS);
        fs::create_dir(&packs).unwrap();
        let digest = *blake3::hash(b"whole pack").as_bytes();
        let of = |id, digest| Pack { id, len: 10, digest };
        let all = [of(1, Some(digest)), of(2, Some(digest)), of(3, Some(digest)), of(4, None)];
        let file = folder.path().join("it");
        fs::write(&file, small(&all)).unwrap();
        fs::write(packs.join(series::pack_name(1, 10)), "whole pack").unwrap();
        fs::write(packs.join(series::pack_name(2, 10)), "whole pacq").unwrap();
        let found = verify(&file, None, |_| Ok(())).unwrap();
        let bad: Vec<_> = found.bad_packs.iter().map(|(pack, fault)| (pack.id, *fault)).collect();
        assert_eq!(bad, [(2, PackFault::Damaged), (3, PackFault::Missing)]);
        assert_eq!((found.keys, found.totals.records), (None, 400));
        let right = Passphrase::of_text("correct horse battery").unwrap();
        assert_eq!(verify(&file, Some(&right), |_| Ok(())).unwrap().keys, Some(1));
    }

    static SMALL: LazyLock<Vec<u8>> =
        LazyLock::new(|| small(&[Pack { id: 7, len: 10, digest: Some([4; 32]) }]));

    proptest! {
        #[test]
        fn a_changed_byte_of_a_backup_is_found(at: prop::sample::Index, flip in 1..=u8::MAX) {
            let mut file = SMALL.clone();
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert!(read_all(&*file, None).is_err(), "byte {at}");
        }

        #[test]
        fn bytes_of_a_stranger_are_refused(bytes: Vec<u8>) {
            prop_assert!(read_all(&*bytes, None).is_err());
        }
    }
}

//! A series: the backups of one site in one folder.
//!
//! ```text
//! BACKUPS/2026-11-28T12-00-00Z-1042.depot-backup   one backup, whole: the moment it shows, the database's number
//! BACKUPS/packs/ID-LENGTH.pack                     packs, which several backups share
//! BACKUPS/lock                                     held while one is made
//! ```
//!
//! A name is given when the file is whole. Packs never change, so one that lies there serves every
//! backup that lists it; it goes with the last of them.

use crate::BadBackup;
use crate::frames::Kind;
use crate::parts::{Head, Open, Pack};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the names of backups end with.
pub const SUFFIX: &str = ".depot-backup";
/// The folder of the packs, beside the backups.
pub const PACKS: &str = "packs";
/// How a moment is written in a name: no colons, which some file systems do not take.
const MOMENT: &str = "%Y-%m-%dT%H-%M-%SZ";

/// The name of a backup. In the order of the moments that they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The moment that it shows, to the second.
    pub taken: Timestamp,
    /// The number of the site database's newest batch.
    pub seq: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}{SUFFIX}", self.taken.strftime(MOMENT), self.seq)
    }
}

/// A name that is not one of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want a name such as 2026-11-28T12-00-00Z-1042.depot-backup")]
pub struct NotAName;

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let bare = text.strip_suffix(SUFFIX).ok_or(NotAName)?;
        let (moment, seq) = bare.rsplit_once('-').ok_or(NotAName)?;
        let taken = DateTime::strptime(MOMENT, moment)
            .and_then(|it| it.to_zoned(TimeZone::UTC))
            .map_err(|_| NotAName)?
            .timestamp();
        let name = Self { taken, seq: seq.parse().map_err(|_| NotAName)? };
        // What is written otherwise is not ours.
        if name.to_string() == text { Ok(name) } else { Err(NotAName) }
    }
}

/// The backups in `folder`, the oldest first. What has another name is none.
pub fn list(folder: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_str().and_then(|name| name.parse::<Name>().ok()));
    }
    names.sort();
    Ok(names)
}

/// The newest backup that shows nothing later than `at`; without it, the newest.
pub fn pick(names: &[Name], at: Option<Timestamp>) -> Option<Name> {
    names.iter().filter(|name| at.is_none_or(|at| name.taken <= at)).max().copied()
}

/// Those that go if the newest `keep` stay.
pub fn stale(names: &[Name], keep: usize) -> Vec<Name> {
    let mut names = names.to_vec();
    names.sort();
    names.truncate(names.len().saturating_sub(keep.max(1)));
    names
}

/// What a pack is called in the folder of packs.
pub fn pack_name(id: u128, len: u64) -> String {
    format!("{id:032x}-{len}.pack")
}

/// Where the packs of the backup in `file` lie.
pub fn packs_beside(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(PACKS)
}

/// Head and packs of a backup; its records are not read.
pub fn outline(file: &Path) -> Result<(Head, Vec<Pack>), BadBackup> {
    let mut open = Open::new(BufReader::new(File::open(file)?))?;
    let mut packs = Vec::new();
    while let Some(kind) = open.next_part()? {
        if kind == Kind::Packs {
            while let Some(pack) = open.pack()? {
                packs.push(pack);
            }
            break;
        }
    }
    Ok((open.head().clone(), packs))
}

/// What is left to delete after some backups went: packs that none of the others lists, and files that a
/// killed run left. Nothing if one of the others cannot be read: nobody knows what it needs.
pub fn unused_packs(folder: &Path, names: &[Name]) -> Result<Vec<PathBuf>, BadBackup> {
    let mut used = BTreeSet::new();
    for name in names {
        let (_, packs) = outline(&folder.join(name.to_string()))?;
        used.extend(packs.iter().map(|pack| pack_name(pack.id, pack.len)));
    }
    let packs = folder.join(PACKS);
    let entries = match fs::read_dir(&packs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut unused = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let is_ours = |name: &str| name.ends_with(".pack") || name.ends_with(".part");
        if name.to_str().is_some_and(|name| is_ours(name) && !used.contains(name)) {
            unused.push(packs.join(name));
        }
    }
    Ok(unused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn names_sort_by_the_moment_that_they_show() {
        let text = "2026-11-28T12-00-00Z-1042.depot-backup";
        assert_eq!(name(text).to_string(), text);
        assert_eq!(name(text).taken, "2026-11-28T12:00:00Z".parse().unwrap());
        let mut names = [name("2026-11-28T12-00-00Z-99.depot-backup"), name(text)];
        names.sort();
        assert_eq!(names[1], name(text), "by number, not by its digits");
        for bad in [
            "2026-11-28T12-00-00Z-1042",
            "x-1.depot-backup",
            "lock",
            "2026-11-28T12-00-00Z-01.depot-backup",
        ] {
            assert_eq!(bad.parse::<Name>(), Err(NotAName), "{bad}");
        }
    }

    #[test]
    fn a_moment_means_the_backup_before_it() {
        let names = [10, 12, 14].map(|h| name(&format!("2026-11-28T{h}-00-00Z-{h}.depot-backup")));
        let at = |text: &str| pick(&names, Some(text.parse().unwrap())).map(|it| it.seq);
        assert_eq!(at("2026-11-28T13:59:59Z"), Some(12));
        assert_eq!(at("2026-11-28T12:00:00Z"), Some(12));
        assert_eq!(at("2026-11-28T09:00:00Z"), None);
        assert_eq!(pick(&names, None).map(|it| it.seq), Some(14));
        assert_eq!(stale(&names, 2), names[..1]);
        assert_eq!(stale(&names, 0), names[..2], "the newest always stays");
        assert!(stale(&names, 5).is_empty());
    }

    #[test]
    fn a_pack_goes_with_the_last_backup_that_lists_it() {
        let folder = tempfile::tempdir().unwrap();
        let packs = folder.path().join(PACKS);
        fs::create_dir(&packs).unwrap();
        let write = |at: &str, ids: &[u128]| {
            let packs: Vec<Pack> =
                ids.iter().map(|id| Pack { id: *id, len: 9, digest: Some([1; 32]) }).collect();
            fs::write(folder.path().join(at), crate::parts::tests::small(&packs)).unwrap();
            name(at)
        };
        let one = write("2026-11-28T12-00-00Z-1.depot-backup", &[1, 2]);
        let two = write("2026-11-28T13-00-00Z-2.depot-backup", &[2, 3]);
        for id in 1..=4 {
            fs::write(packs.join(pack_name(id, 9)), "pack").unwrap();
        }
        fs::write(packs.join("x.part"), "left").unwrap();
        fs::write(packs.join("notes.txt"), "somebody's").unwrap();
        let unused = |names: &[Name]| {
            let mut found = unused_packs(folder.path(), names).unwrap();
            found.sort();
            found
                .iter()
                .map(|it| it.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(unused(&[one, two]), [pack_name(4, 9), "x.part".into()]);
        assert_eq!(unused(&[two]), [pack_name(1, 9), pack_name(4, 9), "x.part".into()]);
        fs::write(folder.path().join(one.to_string()), "damaged").unwrap();
        assert!(unused_packs(folder.path(), &[one, two]).is_err(), "who knows what it needs");
    }

    proptest! {
        #[test]
        fn names_read_back(second in 0..4_000_000_000_i64, seq: u64) {
            let it = Name { taken: Timestamp::from_second(second).unwrap(), seq };
            prop_assert_eq!(it.to_string().parse::<Name>(), Ok(it));
        }
    }
}

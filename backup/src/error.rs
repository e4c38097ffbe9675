//! Why a file is no backup, or not one that can be used.

use std::io;

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadBackup {
    /// It could not be read or written at all.
    #[error("the file system failed")]
    Io(#[from] io::Error),
    /// It begins otherwise.
    #[error("this is not a backup of depot")]
    NotABackup,
    /// A newer depot wrote it.
    #[error("the backup has format {found}, this program reads up to {known}: use a newer depot")]
    NewerFormat {
        /// The format of the file.
        found: u16,
        /// The newest that this program reads.
        known: u16,
    },
    /// It ends before its end: a copy was cut off.
    #[error("the backup is cut off after {at} bytes")]
    CutOff {
        /// How much of it is there.
        at: u64,
    },
    /// Some of its bytes are wrong.
    #[error("the backup is damaged at byte {at}: {detail}")]
    Damaged {
        /// Where the part begins that is wrong.
        at: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The keys need another passphrase.
    #[error("the passphrase is not the one that the keys were sealed with")]
    WrongPassphrase,
    /// The passphrase would not keep the keys.
    #[error("the passphrase has {found} characters, want at least {want}")]
    WeakPassphrase {
        /// How many it has.
        found: usize,
        /// How many are asked for.
        want: usize,
    },
}

impl BadBackup {
    /// Whether the bytes of the file are wrong: another try, or another passphrase, changes nothing.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotABackup | Self::CutOff { .. } | Self::Damaged { .. })
    }
}

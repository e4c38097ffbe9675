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
pub use verify::{PackFault, Verified, verify};

/// What the fuzz target reads.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = verify::read_all(bytes, None);
    let _ = keys::Sealed::parse(bytes);
    let _ = keys::decode_files(bytes);
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = name.parse::<series::Name>();
    }
}

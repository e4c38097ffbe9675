//! Documents of deployed updates: files named by their digests, of which there are as many as deployments need.
//!
//! They can be made again, so the folder may be deleted at any time; a file that is gone, or is not what its name says,
//! is made anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// The documents there are.
pub(super) struct Documents {
    folder: PathBuf,
    /// By digest, how many bytes each has.
    kept: BTreeMap<String, u64>,
}

impl Documents {
    /// Those in a folder that need not be there. What is in it is not believed before it is made anew.
    pub fn open(folder: PathBuf) -> Self {
        Self { folder, kept: BTreeMap::new() }
    }

    /// Keeps a document of that digest.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        if self.kept.contains_key(digest) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let mut part = tempfile::NamedTempFile::new_in(&self.folder)?;
        part.write_all(bytes)?;
        part.persist(self.folder.join(digest)).map_err(|error| error.error)?;
        self.kept.insert(digest.to_owned(), bytes.len() as u64);
        Ok(())
    }

    /// Deletes all that are not `needed`.
    pub fn sweep(&mut self, needed: impl Fn(&str) -> bool) {
        self.kept.retain(|digest, _| needed(digest));
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let is_needed = entry.file_name().to_str().is_some_and(&needed);
            if !is_needed && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, file = ?entry.path(), "a document of updates cannot be deleted");
            }
        }
    }

    /// A document; nothing, if it is gone or damaged: then it counts as not kept.
    pub fn read(&mut self, digest: &str) -> Option<Vec<u8>> {
        self.kept.get(digest)?;
        let found = fs::read(self.folder.join(digest));
        let is_right = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().as_str() == digest;
        match found.ok().filter(is_right) {
            Some(bytes) => Some(bytes),
            None => {
                self.kept.remove(digest);
                None
            }
        }
    }

    /// Whether it was kept.
    pub fn has(&self, digest: &str) -> bool {
        self.kept.contains_key(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_was_damaged_counts_as_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut documents = Documents::open(folder.path().join("documents"));
        let digest = blake3::hash(b"text").to_hex().to_string();
        documents.keep(&digest, b"text").unwrap();
        assert_eq!(documents.read(&digest).unwrap(), b"text");
        fs::write(folder.path().join("documents").join(&digest), b"toxt").unwrap();
        assert!(documents.has(&digest));
        assert_eq!(documents.read(&digest), None);
        assert!(!documents.has(&digest));
        documents.keep(&digest, b"text").unwrap();
        documents.sweep(|_| false);
        assert_eq!(documents.read(&digest), None);
        assert_eq!(fs::read_dir(folder.path().join("documents")).unwrap().count(), 0);
    }
}

//! Chunks that were put together elsewhere than in a file: their plain bytes are at hand, and their
//! names are stated. They are stored as those of a file are.

use super::{Builder, Job};
use crate::block::{PACKED_TARGET, RAW_TARGET, looks_compressible, with_packed};
use crate::chunker::MAX_CHUNK;
use crate::digest::{ChunkId, Digest};
use crate::error::AddError;
use crate::session::{Session, store_error};
use bytes::Bytes;

impl Session {
    /// Takes in chunks by their plain bytes, each under the name that is stated for it. Those that are
    /// empty, longer than a chunk may be, or hash to another name are passed over.
    ///
    /// Returns the names of the others, in order, whether or not they were held before.
    pub fn put_chunks(&self, chunks: &[(ChunkId, Bytes)]) -> Result<Vec<ChunkId>, AddError> {
        let is_right = |(id, bytes): &&(ChunkId, Bytes)| {
            (1..=MAX_CHUNK).contains(&bytes.len()) && Digest::of(bytes) == id.0
        };
        let right: Vec<&(ChunkId, Bytes)> = chunks.iter().filter(is_right).collect();
        let mut packed = Builder::new(self, true, PACKED_TARGET);
        let mut raw = Builder::new(self, false, RAW_TARGET);
        for (id, bytes) in &right {
            if !self.claim(*id)? {
                continue;
            }
            let builder = if looks_compressible(bytes) { &mut packed } else { &mut raw };
            if let Some(job) = builder.push(*id, bytes.clone()) {
                self.store(job)?;
            }
        }
        for job in [packed.take(), raw.take()].into_iter().flatten() {
            self.store(job)?;
        }
        self.inner().commit_if_much().map_err(store_error)?;
        Ok(right.into_iter().map(|(id, _)| *id).collect())
    }

    fn store(&self, mut job: Job<'_>) -> Result<(), AddError> {
        // From here on the claims are the appended block's.
        let ids = std::mem::take(&mut job.ids);
        with_packed(&job.plain, job.try_zstd, |block| self.append_block(block, &ids))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Library;

    #[test]
    fn what_is_put_is_held_and_what_lies_of_its_name_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(folder.path(), Default::default()).unwrap();
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let chunks: Vec<(ChunkId, Bytes)> = [noise, b"text ".repeat(5_000), b"x".to_vec()]
            .into_iter()
            .map(|bytes| (ChunkId(Digest::of(&bytes)), bytes.into()))
            .collect();
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();

        let session = library.session();
        let mut lying = chunks.clone();
        lying[1].1 = Bytes::from_static(b"y");
        lying[2].1 = Bytes::new();
        assert_eq!(session.put_chunks(&lying).unwrap(), ids[..1]);
        session.commit(Vec::new()).unwrap();
        assert_eq!(library.missing_chunks(&ids).unwrap(), [false, true, true]);

        assert_eq!(session.put_chunks(&chunks).unwrap(), ids);
        assert_eq!(session.put_chunks(&chunks).unwrap(), ids);
        session.commit(Vec::new()).unwrap();
        assert_eq!(library.missing_chunks(&ids).unwrap(), [false; 3]);
        for (id, bytes) in &chunks {
            assert_eq!(library.read_chunk(*id).unwrap(), bytes);
        }
        let bytes = vec![0; MAX_CHUNK + 1];
        let too_long = (ChunkId(Digest::of(&bytes)), bytes.into());
        assert_eq!(session.put_chunks(&[too_long]).unwrap(), []);
    }
}

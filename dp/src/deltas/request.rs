//! What a delta is asked with: chunks that the receiver holds, and those that it lacks.
//!
//! The base is told by chunks, as all else is: it needs no name and no recipe, and both sides read
//! it checked. Equal requests have equal bytes, so their digest names the answer.
//!
//! ```text
//! u32    chunks of the base, little-endian, 1 to 4096
//! 32 n   their ids, in order
//! 32 m   the ids that are wanted, in order, 1 to 4096
//! ```

use bytes::Bytes;
use contentlib::{ChunkId, Digest};

/// The media type of a request.
pub(crate) const REQUEST_TYPE: &str = "application/vnd.depot.delta-request";
/// The most chunks of a base, and of those that are wanted.
pub(crate) const MAX_IDS: usize = crate::MAX_CHUNKS;
/// The most bytes of a request.
pub(crate) const MAX_REQUEST: usize = HEAD + 2 * MAX_IDS * ID;

const HEAD: usize = 4;
const ID: usize = 32;

/// A request for a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaRequest {
    /// What the receiver holds: the base is these chunks' bytes, one after the other.
    pub base: Vec<ChunkId>,
    /// What it lacks, in the order of the delta's result.
    pub wanted: Vec<ChunkId>,
}

/// Bytes that are no request for a delta.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotADeltaRequest {
    /// The lengths do not fit together.
    #[error("{0} bytes are not a count, so many chunk ids of 32 bytes, and at least one more")]
    Length(usize),
    /// More ids than a request may have, or no base.
    #[error("a request has a base of 1 to {MAX_IDS} chunks and asks for 1 to {MAX_IDS}")]
    Count,
}

impl DeltaRequest {
    /// The request's bytes.
    pub fn encode(&self) -> Bytes {
        let ids = self.base.iter().chain(&self.wanted);
        let mut out = Vec::with_capacity(HEAD + ids.clone().count() * ID);
        out.extend_from_slice(&(self.base.len() as u32).to_le_bytes());
        ids.for_each(|id| out.extend_from_slice(id.0.as_bytes()));
        out.into()
    }

    /// The request that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotADeltaRequest> {
        let length = || NotADeltaRequest::Length(bytes.len());
        let (head, ids) = bytes.split_first_chunk::<HEAD>().ok_or_else(length)?;
        let n_base = u32::from_le_bytes(*head) as usize;
        let (ids, rest) = ids.as_chunks::<ID>();
        if !rest.is_empty() || n_base > ids.len() {
            return Err(length());
        }
        let (base, wanted) = ids.split_at(n_base);
        let counts = 1..=MAX_IDS;
        if !counts.contains(&base.len()) || !counts.contains(&wanted.len()) {
            return Err(NotADeltaRequest::Count);
        }
        let read = |ids: &[[u8; ID]]| -> Vec<ChunkId> {
            ids.iter().map(|&id| ChunkId(Digest::from_bytes(id))).collect()
        };
        Ok(Self { base: read(base), wanted: read(wanted) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(n: usize) -> Vec<ChunkId> {
        (0..n).map(|n| ChunkId(Digest::of(&n.to_le_bytes()))).collect()
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        let good = DeltaRequest { base: ids(2), wanted: ids(3) };
        let bytes = good.encode();
        assert_eq!(DeltaRequest::decode(&bytes), Ok(good));
        for cut in (0..bytes.len()).filter(|cut| cut % 32 != 4) {
            assert_eq!(DeltaRequest::decode(&bytes[..cut]), Err(NotADeltaRequest::Length(cut)));
        }
        let refused = |base, wanted| {
            let bytes = DeltaRequest { base: ids(base), wanted: ids(wanted) }.encode();
            DeltaRequest::decode(&bytes)
        };
        for (base, wanted) in [(0, 1), (1, 0), (0, 0), (MAX_IDS + 1, 1), (1, MAX_IDS + 1)] {
            assert_eq!(refused(base, wanted), Err(NotADeltaRequest::Count), "{base} {wanted}");
        }
        assert!(refused(MAX_IDS, MAX_IDS).is_ok());
        let most = DeltaRequest { base: ids(MAX_IDS), wanted: ids(MAX_IDS) }.encode();
        assert_eq!(most.len(), MAX_REQUEST);
        let mut lying = bytes.to_vec();
        lying[3] = 0xff;
        assert_eq!(DeltaRequest::decode(&lying), Err(NotADeltaRequest::Length(lying.len())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(request) = DeltaRequest::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }
}

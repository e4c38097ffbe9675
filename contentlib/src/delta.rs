//! Deltas: bytes told by how they differ from others that the receiver has.
//!
//! A delta is one zstd frame (RFC 8878) whose history begins with the bytes of a base, as `zstd
//! --patch-from` makes them. Long-distance matching finds what moved anywhere in it. Base and
//! result are bounded, and so is the memory of both sides; a large file goes in several deltas.
//!
//! A delta says nothing of whether base and result are what they should be: who decodes one hashes
//! what comes out.

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

/// The most bytes of a base.
pub const MAX_BASE: usize = 48 << 20;
/// The most bytes that one delta makes.
pub const MAX_RESULT: usize = 16 << 20;
/// zstd's level: what the delta costs to make is to be near what it costs to compress.
const LEVEL: i32 = 3;
/// The window reaches over base and result together.
const MAX_WINDOW_LOG: u32 = (MAX_BASE + MAX_RESULT).ilog2();
const MIN_WINDOW_LOG: u32 = 17;

/// Bytes that are no delta to a base, or one of other bytes than were expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no delta to this base")]
pub struct NotADelta;

/// The delta that makes `result` from `base`, if it is shorter than `limit` bytes. The caller keeps
/// to [`MAX_BASE`] and [`MAX_RESULT`]; nothing longer is made.
pub fn encode(base: &[u8], result: &[u8], limit: usize) -> Option<Vec<u8>> {
    if base.len() > MAX_BASE || result.len() > MAX_RESULT {
        return None;
    }
    let window = (base.len() + result.len()).next_power_of_two().ilog2();
    let mut encoder = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window.clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG)),
        CParameter::EnableLongDistanceMatching(true),
    ] {
        encoder.set_parameter(parameter).ok()?;
    }
    encoder.ref_prefix(base).ok()?;
    // What does not fit is not worth having: zstd gives up when it is full.
    let mut delta = Vec::with_capacity(limit.saturating_sub(1));
    encoder.compress2(&mut delta, result).ok()?;
    Some(delta)
}

/// The `length` bytes that `delta` makes from `base`.
pub fn decode(base: &[u8], delta: &[u8], length: usize) -> Result<Bytes, NotADelta> {
    if length > MAX_RESULT {
        return Err(NotADelta);
    }
    let mut decoder = DCtx::create();
    decoder.ref_prefix(base).map_err(|_| NotADelta)?;
    // The capacity bounds what a hostile delta can make us write.
    let mut result = Vec::with_capacity(length);
    decoder.decompress(&mut result, delta).map_err(|_| NotADelta)?;
    if result.len() == length { Ok(result.into()) } else { Err(NotADelta) }
}

/// As much of the `length` bytes as the first bytes of a delta tell, where the rest did not come.
pub fn decode_beginning(base: &[u8], delta: &[u8], length: usize) -> Bytes {
    let mut result = Vec::with_capacity(length.min(MAX_RESULT));
    let mut decoder = DCtx::create();
    let ready = decoder
        .set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))
        .and_then(|_| decoder.ref_prefix(base));
    if ready.is_ok() {
        let mut input = InBuffer::around(delta);
        let mut output = OutBuffer::around(&mut result);
        while output.pos() < output.capacity() {
            let before = (input.pos(), output.pos());
            let step = decoder.decompress_stream(&mut output, &mut input);
            if !step.is_ok_and(|hint| hint > 0) || (input.pos(), output.pos()) == before {
                break;
            }
        }
    }
    result.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_moved_costs_next_to_nothing() {
        let base = noise(3 << 20, 1);
        let result = [&base[2 << 20..], &b"new"[..], &base[..2 << 20]].concat();
        let delta = encode(&base, &result, result.len()).unwrap();
        assert!(delta.len() < 8_000, "{}", delta.len());
        assert_eq!(decode(&base, &delta, result.len()).unwrap(), result);
    }

    #[test]
    fn what_is_not_shorter_is_not_made() {
        assert_eq!(encode(&noise(100_000, 1), &noise(50_000, 2), 50_000), None);
        let base = noise(100_000, 1);
        let delta = encode(&base, &base, 1 << 20).unwrap();
        assert_eq!(encode(&base, &base, delta.len()), None);
        assert_eq!(encode(&base, &base, delta.len() + 64), Some(delta));
        assert_eq!(encode(&base, &base, 0), None);
    }

    #[test]
    fn nothing_over_the_limits_is_made() {
        assert_eq!(encode(&vec![0; MAX_BASE + 1], b"x", 100), None);
        assert_eq!(encode(b"x", &vec![0; MAX_RESULT + 1], MAX_RESULT), None);
        let bomb = encode(b"", &vec![0; MAX_RESULT], MAX_RESULT).unwrap();
        assert_eq!(decode(b"", &bomb, 1000), Err(NotADelta));
        assert_eq!(decode(b"", &bomb, usize::MAX), Err(NotADelta));
        assert!(decode_beginning(b"", &bomb, 1000).len() <= 1000);
    }

    #[test]
    fn another_base_makes_no_right_bytes() {
        let base = noise(200_000, 1);
        let result = [&base[100_000..], &base[..100_000]].concat();
        let delta = encode(&base, &result, result.len()).unwrap();
        for other in [noise(200_000, 2), Vec::new(), base[..1000].to_vec()] {
            assert!(decode(&other, &delta, result.len()).map_or(true, |made| made != result));
        }
    }

    #[test]
    fn of_a_cut_delta_the_beginning_counts() {
        let base = noise(1 << 20, 1);
        let result = [&base[500_000..], &noise(1 << 20, 2)[..], &base[..100_000]].concat();
        let delta = encode(&base, &result, result.len()).unwrap();
        let mut longest = 0;
        for cut in (0..delta.len()).step_by(50_000).chain([delta.len()]) {
            let made = decode_beginning(&base, &delta[..cut], result.len());
            assert_eq!(made, result[..made.len()]);
            assert!(made.len() >= longest);
            longest = made.len();
        }
        assert_eq!(longest, result.len());
    }

    /// Edits of a base: where, how much goes, what comes.
    fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
        let new = prop::collection::vec(any::<u8>(), 0..300);
        prop::collection::vec((any::<usize>(), 0usize..2000, new), 0..8)
    }

    proptest! {
        #[test]
        fn any_edit_of_any_base_comes_back(
            base in prop::collection::vec(any::<u8>(), 0..20_000),
            edits in edits(),
        ) {
            let mut result = base.clone();
            for (at, gone, new) in edits {
                let at = at % (result.len() + 1);
                let end = (at + gone).min(result.len());
                result.splice(at..end, new);
            }
            let delta = encode(&base, &result, result.len() + 1000).expect("it fits");
            prop_assert_eq!(decode(&base, &delta, result.len()).unwrap(), result.clone());
            prop_assert_eq!(decode_beginning(&base, &delta, result.len()), result);
        }

        #[test]
        fn no_bytes_make_decoding_fail_otherwise_than_with_an_error(
            base in prop::collection::vec(any::<u8>(), 0..2000),
            delta in prop::collection::vec(any::<u8>(), 0..2000),
            length in 0usize..5000,
        ) {
            if let Ok(made) = decode(&base, &delta, length) { prop_assert_eq!(made.len(), length) }
            prop_assert!(decode_beginning(&base, &delta, length).len() <= length);
        }

        #[test]
        fn a_flipped_bit_is_an_error_or_other_bytes_of_that_length(at: usize, bit in 0u8..8) {
            let base = noise(30_000, 1);
            let result = [&base[10_000..], b"between", &base[..9_000]].concat();
            let mut delta = encode(&base, &result, result.len()).unwrap();
            let at = at % delta.len();
            delta[at] ^= 1 << bit;
            if let Ok(made) = decode(&base, &delta, result.len()) {
                prop_assert_eq!(made.len(), result.len());
            }
        }
    }
}

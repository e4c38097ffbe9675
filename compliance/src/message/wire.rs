//! A batch as bytes: a version, whether it is compressed, a checksum of what follows, then postcard.
//!
//! Columns instead of rows: ids in one run of bytes, states at two bits each. Most of a batch is ids,
//! which are random and do not compress, so only large batches are worth the attempt.

use super::{
    Batch, ClientId, Incarnation, Kind, MAX_SENT, MAX_STATES, MAX_UNPACKED, Scan, State,
    StateMessage, UpdateRevision,
};
use crate::digest::StateDigest;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::io::Read as _;
use sync::name::UpdateId;
use uuid::Uuid;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Smaller batches are not compressed, in bytes.
const WORTH_PACKING: usize = 64 << 10;
const LEVEL: i32 = 3;
/// What a decoder may be asked to remember: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;
const ID: usize = 16;
/// Bytes of the checksum, CRC-32C.
const SUM: usize = 4;
const HEAD: usize = 2 + SUM;

/// Bytes that are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`MAX_SENT`].
    #[error("{0} bytes; at most {MAX_SENT} are taken")]
    TooLarge(usize),
    /// Written by a newer client.
    #[error("format {0}; this site reads format {VERSION}")]
    Version(u8),
    /// The bytes are not of the form.
    #[error("{0}")]
    Form(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    client: [u8; ID],
    incarnation: Incarnation,
    first: u64,
    next: u64,
    kind: Kind,
    sent: i64,
    scan: Option<Scan>,
    waiting: u32,
    digest: [u8; 16],
    #[serde(borrow, serialize_with = "at_once")]
    ids: &'a [u8],
    revisions: Vec<u32>,
    #[serde(borrow, serialize_with = "at_once")]
    states: &'a [u8],
    ages: Vec<u32>,
}

/// Bytes as a byte string: written at once, not one by one as a sequence. In postcard both are the same.
pub(crate) fn at_once<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl Batch {
    /// The bytes to send. The states need not be sorted.
    ///
    /// # Errors
    /// If one of the things does not hold that the module header promises of a batch.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut sorted = self.states.clone();
        sorted.sort_unstable_by_key(|message| message.update);
        let mut ids = Vec::with_capacity(sorted.len() * ID);
        sorted.iter().for_each(|it| ids.extend_from_slice(it.update.id.0.as_bytes()));
        let wire = Wire {
            client: *self.client.0.as_bytes(),
            incarnation: self.incarnation,
            first: self.first,
            next: self.next,
            kind: self.kind,
            sent: self.sent,
            scan: self.scan,
            waiting: self.waiting,
            digest: self.digest.0.to_le_bytes(),
            ids: &ids,
            revisions: sorted.iter().map(|it| it.update.revision).collect(),
            states: &pack_states(sorted.iter().map(|it| it.state)),
            ages: sorted.iter().map(|it| it.age).collect(),
        };
        wire.check()?;
        pack(VERSION, &wire, MAX_UNPACKED, MAX_SENT)
    }

    /// Reads what [`Batch::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no batch, or one beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let body = unpack(VERSION, bytes, MAX_UNPACKED, MAX_SENT)?;
        let (wire, rest): (Wire<'_>, _) = postcard::take_from_bytes(&body)
            .map_err(|_| Malformed::Form("it is cut or mixed up"))?;
        if !rest.is_empty() {
            return Err(Malformed::Form("bytes follow its end"));
        }
        wire.check()?;
        let ids = wire.ids.chunks_exact(ID);
        let rest = wire.revisions.iter().zip(unpack_states(wire.states)).zip(&wire.ages);
        let states = ids.zip(rest).map(|(id, ((&revision, state), &age))| {
            let id = UpdateId(Uuid::from_slice(id).unwrap_or_default());
            StateMessage { update: UpdateRevision { id, revision }, state, age }
        });
        Ok(Self {
            client: ClientId(Uuid::from_bytes(wire.client)),
            incarnation: wire.incarnation,
            first: wire.first,
            next: wire.next,
            kind: wire.kind,
            sent: wire.sent,
            scan: wire.scan,
            waiting: wire.waiting,
            digest: StateDigest(u128::from_le_bytes(wire.digest)),
            states: states.collect(),
        })
    }
}

impl Wire<'_> {
    fn check(&self) -> Result<(), Malformed> {
        let n = self.revisions.len();
        if n > MAX_STATES {
            return Err(Malformed::Form("it has more states than are taken"));
        }
        if self.ids.len() != n * ID
            || self.states.len() != n.div_ceil(4)
            || self.ages.len() != n
            || unpack_states(self.states).skip(n).any(|state| state != State::Unknown)
        {
            return Err(Malformed::Form("its columns differ in length"));
        }
        let ids = self.ids.chunks_exact(ID);
        if !ids.clone().zip(ids.skip(1)).all(|(one, two)| one < two) {
            return Err(Malformed::Form("its updates are not sorted, or one is named twice"));
        }
        if self.next <= self.first || self.next == u64::MAX {
            return Err(Malformed::Form("it covers no numbers"));
        }
        Ok(())
    }
}

/// The bytes of postcard: those that came, or what they were unpacked to.
pub(crate) type Body<'a> = Cow<'a, [u8]>;

/// Four states a byte, the first in the lowest bits.
pub(crate) fn pack_states(states: impl Iterator<Item = State>) -> Vec<u8> {
    let mut packed = Vec::new();
    for (n, state) in states.enumerate() {
        if n % 4 == 0 {
            packed.push(0);
        }
        if let Some(last) = packed.last_mut() {
            *last |= state.code() << (2 * (n % 4));
        }
    }
    packed
}

pub(crate) fn unpack_states(packed: &[u8]) -> impl Iterator<Item = State> {
    packed.iter().flat_map(|byte| [0, 2, 4, 6].map(|shift| State::from_code(byte >> shift)))
}

/// Version, whether compressed, and `value` in postcard.
pub(crate) fn pack(
    version: u8,
    value: &impl Serialize,
    max_unpacked: usize,
    max_sent: usize,
) -> Result<Vec<u8>, Malformed> {
    let mut bytes = vec![version, PLAIN];
    bytes.extend([0; SUM]);
    bytes = postcard::to_extend(value, bytes)
        .map_err(|_| Malformed::Form("it cannot be written as bytes"))?;
    if bytes.len() > max_unpacked {
        return Err(Malformed::TooLarge(bytes.len()));
    }
    if let (Some(body), true) = (bytes.get(HEAD..), bytes.len() > WORTH_PACKING)
        && let Ok(packed) = zstd::bulk::compress(body, LEVEL)
        && packed.len() < body.len()
    {
        bytes = [&[version, ZSTD], [0; SUM].as_slice(), &packed].concat();
    }
    seal(&mut bytes);
    if bytes.len() > max_sent {
        return Err(Malformed::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// The postcard bytes of what [`pack`] made.
pub(crate) fn unpack(
    version: u8,
    bytes: &[u8],
    max_unpacked: usize,
    max_sent: usize,
) -> Result<Body<'_>, Malformed> {
    if bytes.len() > max_sent {
        return Err(Malformed::TooLarge(bytes.len()));
    }
    let Some((head, body)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(Malformed::Form("it has no head"));
    };
    let [found, packing, sum @ ..] = *head;
    if found != version {
        return Err(Malformed::Version(found));
    }
    if u32::from_le_bytes(sum) != crc32c::crc32c(body) {
        return Err(Malformed::Form("its bytes are not those that were sent"));
    }
    match packing {
        PLAIN => Ok(body.into()),
        ZSTD => {
            let bad = |_| Malformed::Form("it cannot be decompressed");
            let mut decoder = zstd::Decoder::with_buffer(body).map_err(bad)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(bad)?;
            let mut body = Vec::new();
            decoder.take(max_unpacked as u64 + 1).read_to_end(&mut body).map_err(bad)?;
            if body.len() > max_unpacked {
                return Err(Malformed::Form("it is too large once decompressed"));
            }
            Ok(body.into())
        }
        _ => Err(Malformed::Form("it is compressed in an unknown way")),
    }
}

/// Puts the checksum of the bytes after the head into it.
pub(crate) fn seal(bytes: &mut [u8]) {
    if let Some((head, body)) = bytes.split_first_chunk_mut::<HEAD>() {
        let [_, _, sum @ ..] = head;
        *sum = crc32c::crc32c(body).to_le_bytes();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::ScanOutcome;
    use proptest::prelude::*;

    pub(crate) fn any_batch() -> impl Strategy<Value = Batch> {
        let state = (any::<u128>(), 0..5_u32, 0..4_u8, any::<u32>());
        let states = proptest::collection::btree_map(any::<u128>(), state, 0..60);
        let scan = (any::<u32>(), any::<Option<u32>>(), any::<Option<u32>>(), any::<u64>());
        (any::<(u128, u64, u64, bool, i64, u32)>(), proptest::option::of(scan), states).prop_map(
            |((client, number, first, full, sent, waiting), scan, states)| {
                let states = states.into_iter().map(|(id, (_, revision, code, age))| {
                    let id = UpdateId(Uuid::from_u128(id));
                    let update = UpdateRevision { id, revision };
                    StateMessage { update, state: State::from_code(code), age }
                });
                let states: Vec<_> = states.collect();
                Batch {
                    client: ClientId(Uuid::from_u128(client)),
                    incarnation: Incarnation(
                        number.try_into().unwrap_or(std::num::NonZeroU64::MIN),
                    ),
                    first: first / 2,
                    next: first / 2 + 1 + u64::from(waiting),
                    kind: if full { Kind::Full } else { Kind::Changes },
                    sent,
                    scan: scan.map(|(age, failed, completed, catalogue)| Scan {
                        age,
                        outcome: failed.map_or(ScanOutcome::Completed, ScanOutcome::Failed),
                        completed,
                        catalogue,
                    }),
                    waiting,
                    digest: StateDigest::of(states.iter().map(|it| (it.update, it.state))),
                    states,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(batch in any_batch()) {
            let bytes = batch.encode().unwrap();
            prop_assert_eq!(Batch::decode(&bytes).unwrap(), batch);
        }

        #[test]
        fn damaged_batches_are_read_or_refused(
            batch in any_batch(),
            hits in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = batch.encode().unwrap();
            let _ = Batch::decode(&bytes[..cut.index(bytes.len())]);
            for (place, byte) in hits {
                let at = place.index(bytes.len());
                bytes[at] ^= byte;
            }
            let _ = Batch::decode(&bytes);
            seal(&mut bytes);
            if let Ok(read) = Batch::decode(&bytes) {
                prop_assert_eq!(Batch::decode(&read.encode().unwrap()), Ok(read));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Batch::decode(&bytes);
        }
    }

    fn of_states(n: u128) -> Batch {
        let states = (0..n).map(|n| StateMessage {
            update: UpdateRevision { id: UpdateId(Uuid::from_u128(n)), revision: 1 },
            state: State::Required,
            age: 60,
        });
        Batch {
            client: ClientId(Uuid::from_u128(1)),
            incarnation: Incarnation(std::num::NonZeroU64::MIN),
            first: 0,
            next: 1,
            kind: Kind::Full,
            sent: 0,
            scan: None,
            waiting: 0,
            digest: StateDigest::default(),
            states: states.collect(),
        }
    }

    #[test]
    fn a_large_batch_is_compressed_and_reads_back() {
        let batch = of_states(20_000);
        let bytes = batch.encode().unwrap();
        assert_eq!(bytes[1], ZSTD);
        assert!(bytes.len() < 100_000);
        assert_eq!(Batch::decode(&bytes).unwrap(), batch);
    }

    #[test]
    fn what_grows_too_large_is_refused_before_it_is_in_memory() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_UNPACKED + 1], 3).unwrap();
        let mut bytes = [&[VERSION, ZSTD], [0; SUM].as_slice(), &bomb].concat();
        seal(&mut bytes);
        let refused = Batch::decode(&bytes).unwrap_err();
        assert_eq!(refused, Malformed::Form("it is too large once decompressed"));
        assert!(matches!(Batch::decode(&vec![1; MAX_SENT + 1]), Err(Malformed::TooLarge(_))));
    }

    #[test]
    fn what_breaks_a_promise_is_refused() {
        let good = of_states(2);
        let twice = Batch { states: vec![good.states[0], good.states[0]], ..good.clone() };
        assert!(twice.encode().is_err());
        assert!(Batch { next: 0, ..good.clone() }.encode().is_err());
        let mut bytes = good.encode().unwrap();
        bytes.push(0);
        seal(&mut bytes);
        assert_eq!(Batch::decode(&bytes), Err(Malformed::Form("bytes follow its end")));
        bytes.push(0);
        let sent = Malformed::Form("its bytes are not those that were sent");
        assert_eq!(Batch::decode(&bytes), Err(sent));
        bytes[0] = 9;
        assert_eq!(Batch::decode(&bytes), Err(Malformed::Version(9)));
    }
}

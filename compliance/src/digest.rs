//! One short value for all that is known of a client: the digest of its full state.
//!
//! Client and site each keep it, from change to change, and compare: where they differ, something was
//! lost on the way and the client is asked for its full state.
//!
//! It is the sum, modulo 2^128, of one BLAKE3 value for each update that has a state: the additive form
//! of the incremental hashes of sets in Bellare and Micciancio, "A New Paradigm for Collision-Free
//! Hashing: Incrementality at Reduced Cost" (1997). A sum knows no order, and a change costs one
//! subtraction and one addition. Against who chooses the members, 128 bits of a sum are too few (Wagner's
//! generalised birthday attack); but who could do that here is the client, which could as well report
//! false states. It guards against loss, and two states that differ by accident have the same sum once
//! in 2^128.

use crate::message::{State, UpdateRevision};
use serde::{Deserialize, Serialize};

/// The digest of a set of updates, each with its revision and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest(pub(crate) u128);

impl StateDigest {
    /// The digest of all of `states`, in any order. What is [`State::Unknown`] adds nothing.
    pub fn of(states: impl IntoIterator<Item = (UpdateRevision, State)>) -> Self {
        let mut digest = Self::default();
        for (update, state) in states {
            digest.add(Share::of(update, state));
        }
        digest
    }

    /// Follows one update from a state (and revision) to another.
    pub fn change(&mut self, from: (UpdateRevision, State), to: (UpdateRevision, State)) {
        self.remove(Share::of(from.0, from.1));
        self.add(Share::of(to.0, to.1));
    }

    pub(crate) fn add(&mut self, share: Share) {
        self.0 = self.0.wrapping_add(share.0);
    }

    pub(crate) fn remove(&mut self, share: Share) {
        self.0 = self.0.wrapping_sub(share.0);
    }
}

/// What one update in one state adds to the digest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(u128);

impl Share {
    pub(crate) fn of(update: UpdateRevision, state: State) -> Self {
        if state == State::Unknown {
            return Self(0);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"depot state 1\0").update(update.id.0.as_bytes());
        hasher.update(&update.revision.to_le_bytes()).update(&[state.code()]);
        let hash = hasher.finalize();
        let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        Self(u128::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::name::UpdateId;
    use uuid::Uuid;

    fn update(n: u128, revision: u32) -> UpdateRevision {
        UpdateRevision { id: UpdateId(Uuid::from_u128(n)), revision }
    }

    #[test]
    fn it_depends_on_every_part_and_on_no_order() {
        let (a, b) = ((update(1, 1), State::Required), (update(2, 1), State::Installed));
        let both = StateDigest::of([a, b]);
        assert_eq!(both, StateDigest::of([b, a]));
        for other in [
            StateDigest::of([a]),
            StateDigest::of([a, (b.0, State::Required)]),
            StateDigest::of([a, (update(2, 2), b.1)]),
            StateDigest::of([a, (update(3, 1), b.1)]),
        ] {
            assert_ne!(both, other);
        }
        assert_eq!(StateDigest::of([a, (update(9, 9), State::Unknown)]), StateDigest::of([a]));
    }

    #[test]
    fn it_follows_changes() {
        let (old, new) = ((update(1, 1), State::Required), (update(1, 2), State::Installed));
        let kept = (update(7, 1), State::NotRequired);
        let mut digest = StateDigest::of([kept, old]);
        digest.change(old, new);
        assert_eq!(digest, StateDigest::of([new, kept]));
        digest.change(new, (new.0, State::Unknown));
        assert_eq!(digest, StateDigest::of([kept]));
    }

    #[test]
    fn the_value_is_part_of_the_protocol() {
        let digest = StateDigest::of([(update(1, 2), State::Required)]);
        let mut bytes = b"depot state 1\0".to_vec();
        bytes.extend([0; 15]);
        bytes.extend([1, 2, 0, 0, 0, 2]);
        assert_eq!(digest.0.to_le_bytes(), blake3::hash(&bytes).as_bytes()[..16]);
    }
}

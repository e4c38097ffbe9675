//! Where a list is cut, so that a small change of it changes few parts.
//!
//! Each thing has a place, 64 bits that are drawn from its name and so spread evenly. What has too many things, or
//! too many bytes, is halved by the first bit of their places, then by the second, and so on. So a part is named
//! by the bits that its things begin with; where it ends depends on its own things alone, and one more or less
//! of them splits it, joins it with the one beside it, or does neither (the tree of extendible hashing: Fagin et
//! al., "Extendible hashing: a fast access method for dynamic files", 1979).

use crate::name::UpdateId;
use std::ops::Range;

/// The most things of a part.
pub const MAX_THINGS: usize = 64;
/// The most bytes of a part of several things.
pub const MAX_BYTES: u64 = 1 << 20;
/// How many bits a place has.
const BITS: u32 = 64;

/// The place of an update.
pub fn place_of(id: UpdateId) -> u64 {
    let hash = blake3::hash(id.0.as_bytes());
    u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// A thing to be put into a part.
pub trait Placed {
    /// Its place.
    fn place(&self) -> u64;
    /// Its bytes.
    fn bytes(&self) -> u64;
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bits that the places of its things begin with, as text.
    pub prefix: String,
    /// Which things.
    pub things: Range<usize>,
}

/// The parts of what is sorted by its places, in their order. Of nothing there are none.
pub fn cut(things: &[impl Placed]) -> Vec<Part> {
    let mut parts = Vec::new();
    if !things.is_empty() {
        halve(things, 0, String::new(), &mut parts);
    }
    parts
}

fn halve(things: &[impl Placed], from: usize, prefix: String, parts: &mut Vec<Part>) {
    let bytes: u64 = things.iter().map(Placed::bytes).sum();
    let fits = things.len() <= MAX_THINGS && bytes <= MAX_BYTES;
    let bit = prefix.len() as u32;
    if things.len() == 1 || fits || bit == BITS {
        parts.push(Part { prefix, things: from..from + things.len() });
        return;
    }
    let mask = 1 << (BITS - 1 - bit);
    let half = things.partition_point(|thing| thing.place() & mask == 0);
    for (digit, things, from) in [('0', &things[..half], from), ('1', &things[half..], from + half)]
    {
        if !things.is_empty() {
            halve(things, from, format!("{prefix}{digit}"), parts);
        }
    }
}

/// The place at which what begins with these bits begins; none, if they are no such bits.
pub fn place_of_prefix(prefix: &str) -> Option<u64> {
    let is_bits = prefix.bytes().all(|byte| matches!(byte, b'0' | b'1'));
    if !is_bits || prefix.len() > BITS as usize {
        return None;
    }
    let bits = prefix.bytes().zip((0..BITS).rev());
    Some(bits.fold(0, |place, (digit, bit)| place | u64::from(digit - b'0') << bit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    impl Placed for (u64, u64) {
        fn place(&self) -> u64 {
            self.0
        }
        fn bytes(&self) -> u64 {
            self.1
        }
    }

    fn parts(places: &BTreeSet<u64>) -> BTreeSet<(String, Vec<u64>)> {
        let things: Vec<(u64, u64)> = places.iter().map(|place| (*place, 100)).collect();
        let parts = cut(&things).into_iter();
        parts
            .map(|part| (part.prefix, things[part.things].iter().map(|it| it.0).collect()))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..Default::default() })]

        #[test]
        fn parts_are_all_things_in_order_and_one_more_changes_few(
            places in prop::collection::btree_set(any::<u64>(), 1..2_000), another: u64,
        ) {
            let before = parts(&places);
            let all: BTreeSet<u64> = before.iter().flat_map(|part| part.1.clone()).collect();
            prop_assert_eq!(&all, &places);
            for (prefix, things) in &before {
                prop_assert!(things.len() <= MAX_THINGS);
                let (begin, bits) = (place_of_prefix(prefix).unwrap(), prefix.len() as u32);
                let of = |place: u64| place.checked_shr(64 - bits).unwrap_or(0);
                prop_assert!(things.iter().all(|place| of(*place) == of(begin)));
            }
            let after = parts(&places.iter().copied().chain([another]).collect());
            // The one that it came into is gone; in its stead there is one, or what it was split into.
            prop_assert!(before.difference(&after).count() <= 1);
        }
    }

    #[test]
    fn large_things_stand_alone_and_equal_places_together() {
        let large = [(0, MAX_BYTES), (1, MAX_BYTES), (u64::MAX, 1)];
        let parts = cut(&large);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0].prefix.len(), 64);
        let same = vec![(7, 1); MAX_THINGS * 2];
        assert_eq!(cut(&same).len(), 1, "nothing tells them apart");
        assert_eq!(cut(&[] as &[(u64, u64)]), []);
        assert_eq!(place_of_prefix("2"), None);
        assert_eq!(place_of_prefix(&"0".repeat(65)), None);
        assert_eq!(place_of_prefix("1"), Some(1 << 63));
    }
}

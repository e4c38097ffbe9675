//! Which ranges are the smallest that have an address: a table made once, and asked often.
//!
//! The addresses at which ranges begin or end cut each family into steps, and on each step the
//! smallest range has one size. So a look-up is a search for the step, and then for the ranges of that
//! size that reach the address: O(log n), and as much as is found.

use super::addresses::{AddressRange, Family, number_of};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Ranges, ordered to be asked for an address.
#[derive(Debug, Default)]
pub struct Atlas {
    v4: Steps,
    v6: Steps,
}

#[derive(Debug, Default)]
struct Steps {
    /// From here up to the next step the smallest range has that size; nothing where none is.
    steps: Vec<(u128, Option<u128>)>,
    /// Size, then first address. The size is the last address less the first: that of all of IPv6
    /// has a place in 128 bits.
    ranges: BTreeSet<(u128, u128)>,
}

impl FromIterator<AddressRange> for Atlas {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for range in ranges {
            let family = match range.family() {
                Family::V4 => &mut v4,
                Family::V6 => &mut v6,
            };
            family.insert((range.last() - range.first(), range.first()));
        }
        Self { v4: Steps::of(v4), v6: Steps::of(v6) }
    }
}

impl Atlas {
    /// The smallest ranges that have `address`: one, or several of the same size that cross each
    /// other there; in the order of their addresses.
    pub fn smallest(&self, address: IpAddr) -> impl Iterator<Item = AddressRange> {
        let (family, at) = number_of(address);
        let steps = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let found = steps.size_at(at).into_iter().flat_map(move |size| {
            let reach = (size, at.saturating_sub(size))..=(size, at);
            steps.ranges.range(reach)
        });
        found.map(move |(size, from)| AddressRange::of_numbers(family, *from, from + size))
    }
}

impl Steps {
    fn of(ranges: BTreeSet<(u128, u128)>) -> Self {
        // Where, whether one begins, and its size.
        let mut edges = Vec::with_capacity(2 * ranges.len());
        for &(size, from) in &ranges {
            edges.push((from, true, size));
            // One that reaches the last address never ends.
            edges.extend((from + size).checked_add(1).map(|past| (past, false, size)));
        }
        edges.sort_unstable();
        // How many of each size there are on the present step.
        let mut here: BTreeMap<u128, usize> = BTreeMap::new();
        let mut steps: Vec<(u128, Option<u128>)> = Vec::new();
        for edge in edges.chunk_by(|a, b| a.0 == b.0) {
            for &(_, begins, size) in edge {
                let n = here.entry(size).or_default();
                // In one place ends come before beginnings, and never before their own.
                *n = if begins { *n + 1 } else { n.saturating_sub(1) };
                if *n == 0 {
                    here.remove(&size);
                }
            }
            let smallest = here.keys().next().copied();
            if steps.last().is_none_or(|(_, last)| *last != smallest) {
                steps.push((edge[0].0, smallest));
            }
        }
        Self { steps, ranges }
    }

    fn size_at(&self, at: u128) -> Option<u128> {
        let past = self.steps.partition_point(|(from, _)| *from <= at);
        self.steps[..past].last()?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(ranges: &[&str], address: &str) -> Vec<String> {
        let atlas: Atlas = ranges.iter().map(|text| text.parse().unwrap()).collect();
        atlas.smallest(address.parse().unwrap()).map(|range| range.to_string()).collect()
    }

    #[test]
    fn the_smallest_range_counts() {
        let nested = ["10.0.0.0/8", "10.7.0.0/16", "10.7.3.4", "2001:db8::/32", "::/0"];
        assert_eq!(found(&nested, "10.7.3.4"), ["10.7.3.4"]);
        assert_eq!(found(&nested, "::ffff:10.7.3.5"), ["10.7.0.0/16"]);
        assert_eq!(found(&nested, "10.8.0.0"), ["10.0.0.0/8"]);
        assert_eq!(found(&nested, "11.0.0.0"), [""; 0]);
        assert_eq!(found(&nested, "2001:db8::1"), ["2001:db8::/32"]);
        assert_eq!(found(&nested, "ffff::"), ["::/0"]);
        let crossing = ["10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.14", "10.0.0.0-10.0.0.200"];
        assert_eq!(found(&crossing, "10.0.0.7"), [crossing[0], crossing[1]]);
        assert_eq!(found(&crossing, "10.0.0.10"), [crossing[1]]);
        assert_eq!(found(&crossing, "10.0.0.15"), [crossing[2]]);
    }

    fn range() -> impl Strategy<Value = AddressRange> {
        // Few addresses, at both ends of the family, so that ranges meet; and sizes that are alike.
        let place = prop_oneof![0..40_u128, u128::MAX - 40..=u128::MAX];
        let size = prop_oneof![Just(7_u128), 0..50_u128, Just(u128::MAX)];
        (place, size, any::<bool>()).prop_map(|(from, size, v6)| match v6 {
            true => AddressRange::of_numbers(Family::V6, from, from.saturating_add(size)),
            false => {
                let from = from & 0xff;
                AddressRange::of_numbers(Family::V4, from, (from + size.min(255)).min(255))
            }
        })
    }

    proptest! {
        /// What a look at every range says.
        #[test]
        fn a_look_up_finds_what_a_plain_search_finds(
            ranges in prop::collection::btree_set(range(), 0..40),
            asked in prop::collection::vec((any::<bool>(), prop_oneof![0..99_u128, u128::MAX - 99..=u128::MAX]), 30),
        ) {
            let atlas: Atlas = ranges.iter().copied().collect();
            for (v6, number) in asked {
                let address: IpAddr = match v6 {
                    true => std::net::Ipv6Addr::from(number).into(),
                    false => std::net::Ipv4Addr::from((number & 0x1ff) as u32).into(),
                };
                let address = address.to_canonical();
                let has: Vec<_> = ranges.iter().filter(|range| range.contains(address)).collect();
                let least = has.iter().map(|range| range.last() - range.first()).min();
                let want: Vec<AddressRange> = has.into_iter().copied()
                    .filter(|range| Some(range.last() - range.first()) == least)
                    .collect();
                let found: Vec<AddressRange> = atlas.smallest(address).collect();
                prop_assert_eq!(found, want, "{}", address);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_ranges_are_found_again() {
        let ranges = (0..100_000_u128).map(|n| AddressRange::of_numbers(Family::V4, n, n + 70_000));
        let atlas: Atlas = ranges.collect();
        assert_eq!(atlas.smallest("0.0.0.5".parse().unwrap()).count(), 6);
        let at = std::net::Ipv4Addr::from(100_000);
        assert_eq!(atlas.smallest(at.into()).count(), 70_000);
    }
}

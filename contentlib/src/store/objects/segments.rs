//! The objects of a pack: one whole, or segments that continue each other.
//!
//! An object cannot grow, and a pack does. So what a sync makes durable is one object more, named
//! by where it begins; when the pack is sealed it becomes one object, and its segments go.
//! ```text
//! packs/PACK             the whole pack
//! packs/PACK.00000000    its segment from byte 0 on
//! packs/PACK.0001f400    the one from byte 0x1f400 on, where the first ends
//! ```
//! A whole pack counts alone. Of segments those count that lead without a gap from byte 0 on.

use crate::digest::PackId;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where packs lie, below the library's prefix.
pub(super) const FOLDER: &str = "packs";

/// The name of a whole pack.
pub(super) fn whole_name(id: PackId) -> String {
    format!("{FOLDER}/{id}")
}

/// The name of a pack's segment from `offset` on.
pub(super) fn segment_name(id: PackId, offset: u64) -> String {
    format!("{FOLDER}/{id}.{offset:08x}")
}

/// What an object in the packs' folder is: of which pack, and where in it a segment begins.
fn parse(name: &str) -> Option<(PackId, Option<u64>)> {
    let (id, offset) = match name.split_once('.') {
        Some((id, offset)) if offset.len() == 8 => {
            (id, Some(u64::from_str_radix(offset, 16).ok()?))
        }
        Some(_) => return None,
        None => (name, None),
    };
    let id = PackId(u128::from_str_radix(id, 16).ok()?);
    // Written one way only: `+1` is a number too.
    let is_ours = match offset {
        None => whole_name(id),
        Some(offset) => segment_name(id, offset),
    };
    is_ours.strip_prefix(FOLDER)?.strip_prefix('/')?.eq(name).then_some((id, offset))
}

/// The objects that a pack is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One, of so many bytes.
    Whole(u64),
    /// Where each segment begins and how long it is; those from the first gap on do not count.
    Segments(Vec<(u64, u64)>),
}

impl Layout {
    /// The pack's length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Whole(len) => *len,
            Self::Segments(all) => {
                let add = |end: u64, (start, len): &(u64, u64)| match *start == end {
                    true => end.saturating_add(*len),
                    false => end,
                };
                all.iter().fold(0, add)
            }
        }
    }

    /// All objects there are of the pack.
    pub(super) fn names(&self, id: PackId) -> Vec<String> {
        match self {
            Self::Whole(_) => vec![whole_name(id)],
            Self::Segments(all) => all.iter().map(|(start, _)| segment_name(id, *start)).collect(),
        }
    }

    /// Which objects hold bytes `range` of the pack, and where in each. `range` must end within
    /// the pack.
    pub(super) fn pieces(&self, id: PackId, range: Range<u64>) -> Vec<(String, Range<u64>)> {
        let Self::Segments(all) = self else { return vec![(whole_name(id), range)] };
        let mut pieces = Vec::new();
        let mut end = 0;
        for (start, len) in all.iter().filter(|(_, len)| *len > 0) {
            if *start != end {
                continue;
            }
            end = end.saturating_add(*len);
            let wanted = range.start.max(*start)..range.end.min(end);
            if wanted.start < wanted.end {
                let inside = wanted.start - start..wanted.end - start;
                pieces.push((segment_name(id, *start), inside));
            }
        }
        pieces
    }
}

/// Sorts listed objects: what each pack is made of, and which objects no pack needs any more.
pub(super) fn arrange(listed: Vec<(String, u64)>) -> (BTreeMap<PackId, Layout>, Vec<String>) {
    let mut whole = BTreeMap::new();
    let mut segments: BTreeMap<PackId, Vec<(u64, u64)>> = BTreeMap::new();
    for (name, len) in listed {
        match parse(&name) {
            Some((id, None)) => drop(whole.insert(id, len)),
            Some((id, Some(offset))) => segments.entry(id).or_default().push((offset, len)),
            None => tracing::warn!(name, "an object among the packs is none, and is left alone"),
        }
    }
    let mut left_over = Vec::new();
    let mut packs = BTreeMap::new();
    for (id, mut all) in segments {
        all.sort_unstable();
        if whole.contains_key(&id) {
            left_over.extend(all.into_iter().map(|(start, _)| segment_name(id, start)));
        } else {
            packs.insert(id, Layout::Segments(all));
        }
    }
    packs.extend(whole.into_iter().map(|(id, len)| (id, Layout::Whole(len))));
    (packs, left_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, len)| ((*name).to_owned(), *len)).collect()
    }

    const ID: &str = "0000000000000000000000000000000a";

    #[test]
    fn segments_count_as_far_as_they_continue_each_other() {
        let names = [(".00000006", 4), (".00000000", 6), (".0000000b", 9)];
        let names: Vec<_> = names.iter().map(|(end, len)| (format!("{ID}{end}"), *len)).collect();
        let (packs, left_over) = arrange(names);
        let layout = &packs[&PackId(10)];
        assert_eq!(layout.len(), 10);
        assert!(left_over.is_empty());
        assert_eq!(layout.names(PackId(10)).len(), 3, "those behind the gap go with the pack");
        let name = |offset| segment_name(PackId(10), offset);
        let pieces = layout.pieces(PackId(10), 4..9);
        assert_eq!(pieces, [(name(0), 4..6), (name(6), 0..3)]);
        assert_eq!(layout.pieces(PackId(10), 6..10), [(name(6), 0..4)]);
    }

    #[test]
    fn a_whole_pack_counts_alone() {
        let segment = format!("{ID}.00000000");
        let (packs, left_over) = arrange(listed(&[(ID, 10), (&segment, 6)]));
        assert_eq!(packs[&PackId(10)], Layout::Whole(10));
        assert_eq!(left_over, [segment_name(PackId(10), 0)]);
        let pieces = packs[&PackId(10)].pieces(PackId(10), 2..7);
        assert_eq!(pieces, [(whole_name(PackId(10)), 2..7)]);
    }

    #[test]
    fn what_is_no_pack_is_left_alone() {
        let odd =
            ["readme", "+a", &ID.to_uppercase(), &format!("{ID}.1"), &format!("{ID}.+0000001")];
        let (packs, left_over) = arrange(odd.iter().map(|n| ((*n).to_owned(), 1)).collect());
        assert!(packs.is_empty() && left_over.is_empty());
    }
}

//! Where in an older content the bytes are likely to be that a chunk of a newer one was made from.
//!
//! Chunks that both have are anchors: what lies between two of them in the new content was most likely
//! made of what lies between them in the old one. Where in there, the distance from the anchors
//! tells; how far it may be off, the difference between both lengths, and a margin for what moved.

use contentlib::{ChunkId, Recipe};
use std::collections::HashMap;
use std::ops::Range;

/// How far around its place a chunk's bytes are looked for, at least and at most: a quarter of the
/// way between the anchors. In short ways little moves.
const MARGIN: Range<u64> = 128 << 10..2 << 20;
/// How far what was put in or taken out may have shifted it, at most.
const MAX_DRIFT: u64 = 4 << 20;
/// How far into what both have the old bytes are taken. A chunk that was cut elsewhere than before may
/// begin in the one that was next to it.
const OVERLAP: u64 = 64 << 10;

/// The chunks of `old` that are likely to be like each of the chunks `wanted` of `new`, which are in
/// ascending order and not in `old`. O(n + m), for n and m chunks.
pub(super) fn near(old: &Recipe, new: &Recipe, wanted: &[usize]) -> Vec<Range<usize>> {
    let mut places: HashMap<ChunkId, usize> = HashMap::with_capacity(old.len());
    for (at, id) in old.chunks().iter().enumerate() {
        places.entry(*id).or_insert(at);
    }
    let anchors: Vec<Option<usize>> =
        new.chunks().iter().map(|id| places.get(id).copied()).collect();
    // Of each chunk, the next one after it that both have.
    let mut next: Vec<Option<usize>> = vec![None; new.len()];
    let mut found = None;
    for at in (0..new.len()).rev() {
        next[at] = found;
        found = anchors[at].map(|_| at).or(found);
    }
    let (mut before, mut seen) = (None, 0);
    let mut ranges = Vec::with_capacity(wanted.len());
    for &at in wanted {
        for (passed, anchor) in anchors.iter().enumerate().take(at).skip(seen) {
            before = anchor.map(|place| (passed, place)).or(before);
        }
        seen = at;
        let after = next[at].and_then(|passed| Some((passed, anchors[passed]?)));
        let bytes = place(old, new, at, before, after);
        ranges.push(old.covering(bytes));
    }
    ranges
}

/// Bytes of `old` that the chunk `at` of `new` is likely to be like. The anchors around it are told by
/// their numbers in the new and in the old content.
fn place(
    old: &Recipe,
    new: &Recipe,
    at: usize,
    before: Option<(usize, usize)>,
    after: Option<(usize, usize)>,
) -> Range<u64> {
    // Anchors that changed their order are of two different moves: the earlier one counts.
    let after = after.filter(|(_, end)| before.is_none_or(|(_, start)| start < *end));
    let new_start = before.map_or(0, |(passed, _)| new.span(passed).bytes.end);
    let old_start = before.map_or(0, |(_, anchor)| old.span(anchor).bytes.end);
    let new_end = after.map_or(new.size(), |(passed, _)| new.span(passed).bytes.start);
    let old_end = after.map_or(old.size(), |(_, anchor)| old.span(anchor).bytes.start);
    let (new_length, old_length) = (new_end - new_start, old_end.saturating_sub(old_start));
    let chunk = new.span(at).bytes;
    let (from, to) = (chunk.start - new_start, chunk.end - new_start);
    let margin = (new_length / 4).clamp(MARGIN.start, MARGIN.end);
    let drift = new_length.abs_diff(old_length);
    let (from, to) = if drift <= MAX_DRIFT {
        (from.saturating_sub(drift), to + drift)
    } else {
        // In proportion: what changed is taken to be spread over all of it.
        let scaled = |offset: u64| {
            let scaled =
                u128::from(offset) * u128::from(old_length) / u128::from(new_length.max(1));
            scaled as u64
        };
        (scaled(from).saturating_sub(MAX_DRIFT), scaled(to) + MAX_DRIFT)
    };
    let first = (old_start + from).saturating_sub(margin);
    let last = old_start.saturating_add(to).saturating_add(margin);
    let first = first.max(old_start.saturating_sub(OVERLAP));
    let last = last.min(old_end.saturating_add(OVERLAP)).min(old.size());
    first.min(last)..last
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::Digest;
    use proptest::prelude::*;

    const LENGTH: u32 = 100 << 10;

    fn recipe(ids: impl IntoIterator<Item = u32>) -> Recipe {
        let chunk = |n: u32| (ChunkId(Digest::of(&n.to_le_bytes())), LENGTH);
        Recipe::new(ids.into_iter().map(chunk)).unwrap()
    }

    #[test]
    fn a_changed_chunk_is_looked_for_between_its_neighbours() {
        let old = recipe(0..1000);
        let new = recipe((0..1000).map(|n| if n == 500 { 5000 } else { n }));
        let found = near(&old, &new, &[500]);
        assert!(found[0].contains(&500) && found[0].len() <= 3, "{found:?}");
    }

    #[test]
    fn what_was_put_in_before_shifts_the_place() {
        let old = recipe(0..1000);
        let new = recipe((2000..2300).chain((0..1000).map(|n| if n == 500 { 5000 } else { n })));
        let found = near(&old, &new, &[800]);
        assert!(found[0].contains(&500) && found[0].len() <= 3, "{found:?}");
    }

    #[test]
    fn where_nothing_is_shared_the_place_counts() {
        let (old, new) = (recipe(0..1000), recipe(5000..6010));
        let wanted: Vec<usize> = (0..1010).collect();
        let found = near(&old, &new, &wanted);
        for at in [0, 300, 700, 999] {
            assert!(found[at].contains(&at), "{at}: {:?}", found[at]);
            assert!(found[at].len() < 100, "{at}: {:?}", found[at]);
        }
        let all = near(&recipe(0..10), &recipe(100..110), &[0, 4, 9]);
        assert_eq!((all[0].start, all[2].end), (0, 10), "of a short content all of it");
    }

    proptest! {
        #[test]
        fn ranges_are_of_the_old_content_and_of_bounded_length(
            old in prop::collection::vec(0u32..60, 0..200),
            new in prop::collection::vec(0u32..80, 1..200),
        ) {
            let (old, new) = (recipe(old), recipe(new));
            let wanted: Vec<usize> =
                (0..new.len()).filter(|at| !old.chunks().contains(&new.chunks()[*at])).collect();
            let found = near(&old, &new, &wanted);
            prop_assert_eq!(found.len(), wanted.len());
            let most = (u64::from(LENGTH) + 2 * (MARGIN.end + 2 * MAX_DRIFT)) / u64::from(LENGTH) + 2;
            for range in found {
                prop_assert!(range.start <= range.end && range.end <= old.len());
                prop_assert!(range.len() as u64 <= most);
            }
        }

        #[test]
        fn one_edit_is_found(at in 0u32..300, gone in 0u32..5, came in 1u32..5) {
            let old = recipe(0..300);
            let end = (at + gone).min(300);
            let new = recipe((0..at).chain(1000..1000 + came).chain(end..300));
            let wanted: Vec<usize> = (at as usize..(at + came) as usize).collect();
            let found = near(&old, &new, &wanted);
            // What was replaced is in there.
            prop_assert!(found.first().unwrap().start <= at as usize);
            prop_assert!(found.last().unwrap().end >= end as usize);
        }
    }
}

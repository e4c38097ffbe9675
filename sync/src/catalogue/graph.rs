//! What supersedes what.
//!
//! Upstreams say which updates an update replaces, and may say anything: what is not there, the update
//! itself, or a ring of updates that replace each other. Those of a ring replace each other only in
//! words, so what is said inside of one is passed over: else none of them would be current.

/// Lists of rows, one for each row, in one piece.
#[derive(Default)]
pub(crate) struct Edges {
    ends: Vec<u32>,
    to: Vec<u32>,
}

impl Edges {
    /// Adds the list of the next row.
    pub fn push(&mut self, to: impl IntoIterator<Item = u32>) {
        self.to.extend(to);
        self.ends.push(self.to.len() as u32);
    }

    /// The list of a row.
    pub fn of(&self, row: usize) -> &[u32] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.to[start as usize..self.ends[row] as usize]
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The same edges from their other ends.
    pub fn reversed(&self) -> Self {
        let n = self.len();
        let mut ends = vec![0_u32; n];
        self.to.iter().for_each(|to| ends[*to as usize] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        // Filled from the back, the ends become the starts.
        let (mut starts, mut to) = (ends.clone(), vec![0; self.to.len()]);
        for row in (0..n).rev() {
            for target in self.of(row).iter().rev() {
                starts[*target as usize] -= 1;
                to[starts[*target as usize] as usize] = row as u32;
            }
        }
        Self { ends, to }
    }

    /// The same without the edges inside of a ring.
    pub fn without_rings(&self) -> Self {
        let ring = self.components();
        let mut kept = Self::default();
        for row in 0..self.len() {
            let others = self.of(row).iter().filter(|to| ring[**to as usize] != ring[row]);
            kept.push(others.copied());
        }
        kept
    }

    /// The same without the edges of rows that neither are in `from` nor can be reached from one that is: what
    /// is not offered any more replaces nothing, unless it is itself replaced by what is.
    pub fn reached_from(&self, mut from: Vec<bool>) -> Self {
        let mut to_do: Vec<usize> = (0..self.len()).filter(|row| from[*row]).collect();
        while let Some(row) = to_do.pop() {
            for to in self.of(row) {
                if !std::mem::replace(&mut from[*to as usize], true) {
                    to_do.push(*to as usize);
                }
            }
        }
        let mut kept = Self::default();
        for (row, is_in) in from.into_iter().enumerate() {
            kept.push(self.of(row).iter().copied().filter(|_| is_in));
        }
        kept
    }

    /// A number for each row, the same for two rows that can be reached from each other (Tarjan, "Depth-first
    /// search and linear graph algorithms", 1972; without recursion, as chains may be long).
    fn components(&self) -> Vec<u32> {
        const NEW: u32 = u32::MAX;
        let n = self.len();
        let (mut index, mut low) = (vec![NEW; n], vec![0; n]);
        // Whose component is known; until then its place is on the stack.
        let mut component = vec![NEW; n];
        let (mut stack, mut calls) = (Vec::new(), Vec::<(u32, usize)>::new());
        let mut next = 0;
        for root in 0..n {
            if index[root] != NEW {
                continue;
            }
            calls.push((root as u32, 0));
            while let Some((row, edge)) = calls.pop() {
                let at = row as usize;
                if edge == 0 {
                    (index[at], low[at]) = (next, next);
                    next += 1;
                    stack.push(row);
                }
                if let Some(to) = self.of(at).get(edge) {
                    calls.push((row, edge + 1));
                    let target = *to as usize;
                    if index[target] == NEW {
                        calls.push((*to, 0));
                    } else if component[target] == NEW {
                        low[at] = low[at].min(index[target]);
                    }
                    continue;
                }
                if low[at] == index[at] {
                    while let Some(member) = stack.pop() {
                        component[member as usize] = row;
                        if member == row {
                            break;
                        }
                    }
                }
                if let Some((parent, _)) = calls.last() {
                    let parent = *parent as usize;
                    low[parent] = low[parent].min(low[at]);
                }
            }
        }
        component
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edges(lists: &[Vec<u32>]) -> Edges {
        let mut edges = Edges::default();
        lists.iter().for_each(|list| edges.push(list.iter().copied()));
        edges
    }

    #[test]
    fn a_chain_of_any_length_is_walked() {
        let n = 200_000;
        let chain: Vec<_> =
            (0..n).map(|row| if row + 1 < n { vec![row + 1] } else { vec![] }).collect();
        assert_eq!(edges(&chain).without_rings().to.len() as u32, n - 1);
        let ring: Vec<_> = (0..n).map(|row| vec![(row + 1) % n]).collect();
        assert_eq!(edges(&ring).without_rings().to.len(), 0);
    }

    #[test]
    fn a_link_that_fell_out_of_a_chain_still_links() {
        // 0 replaces 1, which replaces 2; 3 replaces 4.
        let all = edges(&[vec![1], vec![2], vec![], vec![4], vec![]]);
        let kept = all.reached_from(vec![true, false, true, false, true]);
        assert_eq!((0..5).map(|row| kept.of(row).len()).collect::<Vec<_>>(), [1, 1, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn edges_inside_of_rings_go_and_others_stay(
            lists in prop::collection::vec(prop::collection::vec(0_u32..12, 0..4), 12..=12)
        ) {
            let all = edges(&lists);
            let mut reach = [[false; 12]; 12];
            for (row, list) in lists.iter().enumerate() {
                reach[row][row] = true;
                list.iter().for_each(|to| reach[row][*to as usize] = true);
            }
            for via in 0..12 {
                for from in 0..12 {
                    for to in 0..12 {
                        reach[from][to] |= reach[from][via] && reach[via][to];
                    }
                }
            }
            let kept = all.without_rings();
            for (row, list) in lists.iter().enumerate() {
                let want: Vec<u32> =
                    list.iter().copied().filter(|to| !reach[*to as usize][row]).collect();
                prop_assert_eq!(kept.of(row), want);
            }
            let reversed = all.reversed();
            for row in 0..12_u32 {
                let mut want = Vec::new();
                for (from, list) in lists.iter().enumerate() {
                    want.extend(list.iter().filter(|to| **to == row).map(|_| from as u32));
                }
                prop_assert_eq!(reversed.of(row as usize), want);
            }
        }
    }
}

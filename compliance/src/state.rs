//! All that is known, in memory: the fleet, the heads, the matrix; and what each entry does to it.
//!
//! Telling entries is the only way in which states change, at run time as after a crash.

use crate::digest::StateDigest;
use crate::fleet::Fleet;
use crate::head::{Head, Place, Seconds};
use crate::inbox::Entry;
use crate::matrix::{Matrix, Ordinal, Plane, RowId};
use crate::message::{Batch, Kind, State};
use roaring::RoaringBitmap;
use std::collections::HashMap;

/// So many heads are one value of the database.
pub(crate) const HEADS_A_VALUE: usize = 256;

/// The states of all clients.
#[derive(Default)]
pub(crate) struct States {
    pub fleet: Fleet,
    pub heads: Vec<Head>,
    pub matrix: Matrix,
    /// The clients whose states are doubtful, since a batch of theirs could not be read.
    pub doubtful: RoaringBitmap,
    /// Which values of heads have changed since they were written.
    pub dirty_heads: Vec<bool>,
}

/// What was told again after a crash: what can only be settled when all is told.
#[derive(Default)]
pub(crate) struct Retold {
    touched: RoaringBitmap,
    claimed: HashMap<Ordinal, StateDigest>,
}

impl States {
    pub(crate) fn head(&self, client: Ordinal) -> Head {
        self.heads.get(client as usize).copied().unwrap_or_default()
    }

    /// The head to change.
    fn head_mut(&mut self, client: Ordinal) -> &mut Head {
        let at = client as usize;
        if self.heads.len() <= at {
            self.heads.resize(at + 1, Head::default());
            self.dirty_heads.resize(self.heads.len().div_ceil(HEADS_A_VALUE), false);
        }
        self.dirty_heads[at / HEADS_A_VALUE] = true;
        &mut self.heads[at]
    }

    /// The head to change, if the entry at `place` is not in it yet.
    fn head_before(&mut self, client: Ordinal, place: Place) -> Option<&mut Head> {
        let head = self.head_mut(client);
        if head.changed >= place {
            return None;
        }
        head.changed = place;
        Some(head)
    }

    /// Tells an entry at its place. `rows` are those of a batch's states, as far as they are known. Whether
    /// it shows that two machines share the client's identity.
    pub(crate) fn tell(
        &mut self,
        entry: &Entry,
        place: Place,
        at: Seconds,
        rows: &[Option<RowId>],
    ) -> bool {
        let mut has_returned = false;
        match entry {
            Entry::Batch { client, batch } => {
                if let Some(head) = self.head_before(*client, place) {
                    has_returned = head.take(batch, at);
                }
                self.tell_states(*client, batch, rows);
                let head = self.head_mut(*client);
                head.diverged = head.digest != batch.digest;
                self.doubt(*client);
            }
            Entry::Corrupt { client } => {
                if let Some(head) = self.head_before(*client, place) {
                    head.corrupt.get_or_insert(at);
                    head.heard = Some(at);
                }
                self.doubt(*client);
            }
            Entry::Returned { client } => {
                if let Some(head) = self.head_before(*client, place) {
                    head.return_at(at);
                    has_returned = true;
                }
            }
            Entry::Heard { client } => {
                if let Some(head) = self.head_before(*client, place) {
                    head.heard = Some(at);
                }
            }
            Entry::Touched { client } => drop(self.head_before(*client, place)),
            Entry::Removed { client } => {
                let mut head = self.head(*client);
                self.matrix.clear_but(*client, &[], follow(&mut head));
                if let Some(head) = self.head_before(*client, place) {
                    *head = Head { changed: place, ..Head::default() };
                }
                self.doubt(*client);
            }
            Entry::Page { clients, page } => {
                let rows: Vec<_> = page.updates.iter().map(|it| self.matrix.row(*it)).collect();
                for ((client, told), place) in clients.iter().zip(&page.clients).zip(place..) {
                    let Some(client) = *client else { continue };
                    if let Some(head) = self.head_before(client, place) {
                        // Digest and count follow the matrix; they lead to the child's own.
                        let (digest, known) = (head.digest, head.known);
                        *head = Head { digest, known, changed: place, ..told.head };
                    }
                    // What has no state is cleared with all that is not named; to set it would clear the
                    // update's other revisions too.
                    let states = rows.iter().copied().zip(told.states());
                    let states = states.filter(|(_, state)| *state != State::Unknown);
                    self.set_states(client, states.collect(), Kind::Full);
                    self.doubt(client);
                }
            }
        }
        has_returned
    }

    fn tell_states(&mut self, client: Ordinal, batch: &Batch, known: &[Option<RowId>]) {
        let known = known.iter().copied().chain(std::iter::repeat(None));
        let rows = batch.states.iter().zip(known).map(|(message, known)| {
            (known.unwrap_or_else(|| self.matrix.row(message.update)), message.state)
        });
        let states = rows.collect();
        self.set_states(client, states, batch.kind);
    }

    fn set_states(&mut self, client: Ordinal, mut states: Vec<(RowId, State)>, kind: Kind) {
        let mut head = self.head(client);
        for (row, state) in &states {
            self.matrix.set(*row, client, *state, follow(&mut head));
        }
        let n_known = states.iter().filter(|(_, state)| *state != State::Unknown).count();
        if kind == Kind::Full && head.known as usize != n_known {
            states.sort_unstable();
            let rows: Vec<_> = states.iter().map(|(row, _)| *row).collect();
            self.matrix.clear_but(client, &rows, follow(&mut head));
        }
        *self.head_mut(client) = head;
    }

    /// Keeps the set of doubtful clients as the heads have it.
    fn doubt(&mut self, client: Ordinal) {
        if self.head(client).corrupt.is_some() {
            self.doubtful.insert(client);
        } else if !self.doubtful.is_empty() {
            self.doubtful.remove(client);
        }
    }

    /// Tells an entry again. Digests and counts are not right before [`States::settle`].
    pub(crate) fn retell(&mut self, entry: &Entry, place: Place, at: Seconds, retold: &mut Retold) {
        let clients: &[Option<Ordinal>] = match entry {
            Entry::Batch { client, batch } => {
                retold.claimed.insert(*client, batch.digest);
                &[Some(*client)]
            }
            Entry::Removed { client } => {
                retold.claimed.remove(client);
                &[Some(*client)]
            }
            Entry::Page { clients, .. } => {
                for client in clients.iter().flatten() {
                    retold.claimed.remove(client);
                }
                clients
            }
            Entry::Corrupt { .. }
            | Entry::Returned { .. }
            | Entry::Heard { .. }
            | Entry::Touched { .. } => &[],
        };
        for client in clients.iter().flatten() {
            retold.touched.insert(*client);
            // The rows may be newer than the heads, so that the count proves nothing; this one is never
            // that of a full state.
            self.head_mut(*client).known = u32::MAX;
        }
        self.tell(entry, place, at, &[]);
    }

    /// Counts anew what the matrix holds of the clients that were told of again.
    pub(crate) fn settle(&mut self, retold: Retold) {
        self.matrix.set_whole(true);
        for client in &retold.touched {
            let head = &mut self.heads[client as usize];
            (head.digest, head.known) = Default::default();
        }
        for row in self.matrix.rows() {
            let known = row.plane(Plane::Known) & &retold.touched;
            for client in known {
                let head = &mut self.heads[client as usize];
                if let Some(share) = row.share(row.state(client)) {
                    head.digest.add(share);
                    head.known += 1;
                }
            }
        }
        for (client, digest) in retold.claimed {
            let head = &mut self.heads[client as usize];
            head.diverged = head.digest != digest;
        }
    }
}

/// Keeps a head's digest and count with the changes of the matrix. While entries are told again the count
/// means nothing, and is only kept from panicking.
fn follow(head: &mut Head) -> impl FnMut(&crate::matrix::Row, State, State) {
    |row, old, new| {
        if let Some(share) = row.share(old) {
            head.digest.remove(share);
            head.known = head.known.wrapping_sub(1);
        }
        if let Some(share) = row.share(new) {
            head.digest.add(share);
            head.known = head.known.wrapping_add(1);
        }
    }
}

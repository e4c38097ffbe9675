//! The compliance matrix: which update has which state on which client.
//!
//! A row is one revision of an update, with three roaring bitmaps over the clients' ordinals: of whom a
//! state is known, on whom it is required, on whom it is installed. Not required is what is known and
//! neither of the two: nearly all machines report on nearly all updates, so the first bitmap is a few
//! long runs, and a bitmap as dense as the others is saved.
//!
//! Always true:
//! * a client has one state at most for an update, whatever its revision;
//! * what is required or installed is known, and not both.

use crate::digest::Share;
use crate::message::{State, UpdateRevision};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use sync::name::UpdateId;

/// A client's place in the bitmaps.
pub type Ordinal = u32;

/// A row's place in the matrix of this process.
pub(crate) type RowId = u32;

/// Which bitmap of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Known,
    Required,
    Installed,
}

impl Plane {
    pub(crate) const ALL: [Self; 3] = [Self::Known, Self::Required, Self::Installed];
}

/// One revision of an update.
#[derive(Debug)]
pub(crate) struct Row {
    pub update: UpdateRevision,
    planes: [RoaringBitmap; 3],
    is_dirty: [bool; 3],
    /// What each known state adds to a client's digest.
    shares: [Share; 3],
    /// The rows of other revisions of the same update.
    siblings: Vec<RowId>,
}

impl Row {
    fn new(update: UpdateRevision, siblings: Vec<RowId>) -> Self {
        Self {
            update,
            planes: Default::default(),
            is_dirty: [false; 3],
            shares: State::KNOWN.map(|state| Share::of(update, state)),
            siblings,
        }
    }

    pub(crate) fn plane(&self, plane: Plane) -> &RoaringBitmap {
        &self.planes[plane as usize]
    }

    /// What `state` adds to a client's digest; nothing if it is unknown.
    pub(crate) fn share(&self, state: State) -> Option<Share> {
        let place = usize::from(state.code()).checked_sub(1)?;
        self.shares.get(place).copied()
    }

    pub(crate) fn state(&self, client: Ordinal) -> State {
        if self.plane(Plane::Required).contains(client) {
            State::Required
        } else if self.plane(Plane::Installed).contains(client) {
            State::Installed
        } else if self.plane(Plane::Known).contains(client) {
            State::NotRequired
        } else {
            State::Unknown
        }
    }

    /// Puts a client in or out; whether it was in.
    fn put(&mut self, plane: Plane, client: Ordinal, wanted: bool) -> bool {
        let bitmap = &mut self.planes[plane as usize];
        let has_changed = if wanted { bitmap.insert(client) } else { bitmap.remove(client) };
        self.is_dirty[plane as usize] |= has_changed;
        has_changed != wanted
    }

    /// Gives the client a state; the one that it had. Looks at no more bitmaps than it must.
    fn set(&mut self, client: Ordinal, state: State) -> State {
        if !self.put(Plane::Known, client, state != State::Unknown) {
            match state {
                State::Required => self.put(Plane::Required, client, true),
                State::Installed => self.put(Plane::Installed, client, true),
                State::NotRequired | State::Unknown => false,
            };
            return State::Unknown;
        }
        match state {
            State::Required if self.put(Plane::Required, client, true) => State::Required,
            State::Installed if self.put(Plane::Installed, client, true) => State::Installed,
            State::Required if self.put(Plane::Installed, client, false) => State::Installed,
            State::Installed if self.put(Plane::Required, client, false) => State::Required,
            State::Required | State::Installed => State::NotRequired,
            _ if self.put(Plane::Required, client, false) => State::Required,
            _ if self.put(Plane::Installed, client, false) => State::Installed,
            _ => State::NotRequired,
        }
    }

    /// Gives the client a state, whatever the bitmaps had; the one that it had.
    fn set_all(&mut self, client: Ordinal, state: State) -> State {
        let was_known = self.put(Plane::Known, client, state != State::Unknown);
        let was_required = self.put(Plane::Required, client, state == State::Required);
        let was_installed = self.put(Plane::Installed, client, state == State::Installed);
        match (was_known, was_required, was_installed) {
            (_, true, _) => State::Required,
            (_, _, true) => State::Installed,
            (true, ..) => State::NotRequired,
            (false, ..) => State::Unknown,
        }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    rows: Vec<Row>,
    places: HashMap<UpdateRevision, RowId>,
    of_update: HashMap<UpdateId, Vec<RowId>>,
    /// Whether the bitmaps of each row agree. After a crash each may be as of another time, until all is
    /// told again.
    is_whole: bool,
}

impl Matrix {
    /// Says whether the bitmaps of each row agree.
    pub(crate) fn set_whole(&mut self, is_whole: bool) {
        self.is_whole = is_whole;
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows of an update, one for each revision that was reported on.
    pub(crate) fn of(&self, update: UpdateId) -> impl Iterator<Item = &Row> + Clone {
        let rows = self.of_update.get(&update).map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter_map(|row| self.rows.get(*row as usize))
    }

    /// Every update that was ever reported on.
    pub(crate) fn updates(&self) -> impl Iterator<Item = UpdateId> {
        self.of_update.keys().copied()
    }

    /// The row of `update`, if there is one. Rows stay where they are.
    pub(crate) fn find(&self, update: UpdateRevision) -> Option<RowId> {
        self.places.get(&update).copied()
    }

    /// The row of `update`, which is made if there is none.
    pub(crate) fn row(&mut self, update: UpdateRevision) -> RowId {
        if let Some(row) = self.places.get(&update) {
            return *row;
        }
        let row = self.rows.len() as RowId;
        let siblings = self.of_update.entry(update.id).or_default();
        for sibling in siblings.iter() {
            self.rows[*sibling as usize].siblings.push(row);
        }
        self.rows.push(Row::new(update, siblings.clone()));
        siblings.push(row);
        self.places.insert(update, row);
        row
    }

    /// Gives the client a state of the row's update; `told` is called with each row in which the client's
    /// state changed, the state it had there, and the one it has now.
    pub(crate) fn set(
        &mut self,
        row: RowId,
        client: Ordinal,
        state: State,
        mut told: impl FnMut(&Row, State, State),
    ) {
        for n in 0..self.rows[row as usize].siblings.len() {
            let sibling = self.rows[row as usize].siblings[n];
            self.set_one(sibling, client, State::Unknown, &mut told);
        }
        self.set_one(row, client, state, &mut told);
    }

    fn set_one(
        &mut self,
        row: RowId,
        client: Ordinal,
        state: State,
        told: &mut impl FnMut(&Row, State, State),
    ) {
        let row = &mut self.rows[row as usize];
        let old = match self.is_whole {
            true => row.set(client, state),
            false => row.set_all(client, state),
        };
        if old != state {
            told(row, old, state);
        }
    }

    /// Takes a client out of every row but those in `keep`, which is sorted.
    pub(crate) fn clear_but(
        &mut self,
        client: Ordinal,
        keep: &[RowId],
        mut told: impl FnMut(&Row, State, State),
    ) {
        let mut keep = keep.iter().copied().peekable();
        for row in 0..self.rows.len() as RowId {
            if keep.next_if_eq(&row).is_none() {
                self.set_one(row, client, State::Unknown, &mut told);
            }
        }
    }

    /// One bitmap's bytes, none for an empty one, if it changed since it was last taken; after this it
    /// counts as unchanged.
    pub(crate) fn take_dirty(&mut self, row: RowId, plane: Plane) -> Option<Vec<u8>> {
        let row = self.rows.get_mut(row as usize)?;
        if !std::mem::take(&mut row.is_dirty[plane as usize]) {
            return None;
        }
        let bitmap = &mut row.planes[plane as usize];
        if bitmap.is_empty() {
            return Some(Vec::new());
        }
        bitmap.optimize();
        let mut bytes = Vec::with_capacity(bitmap.serialized_size());
        bitmap.serialize_into(&mut bytes).expect("a vector takes all bytes");
        Some(bytes)
    }

    /// Says that a bitmap that was taken did not reach the disk.
    pub(crate) fn mark_dirty(&mut self, row: RowId, plane: Plane) {
        if let Some(row) = self.rows.get_mut(row as usize) {
            row.is_dirty[plane as usize] = true;
        }
    }

    /// Puts a bitmap where it was when it was written.
    pub(crate) fn load(&mut self, update: UpdateRevision, plane: Plane, bitmap: RoaringBitmap) {
        let row = self.row(update);
        self.rows[row as usize].planes[plane as usize] = bitmap;
    }

    /// What it takes, in bytes, about.
    pub(crate) fn size(&self) -> u64 {
        let planes = self.rows.iter().flat_map(|row| &row.planes);
        planes.map(|bitmap| bitmap.serialized_size() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn update(n: u128, revision: u32) -> UpdateRevision {
        UpdateRevision { id: UpdateId(Uuid::from_u128(n)), revision }
    }

    proptest! {
        #[test]
        fn it_holds_the_last_state_of_each_client(
            is_whole: bool,
            steps in proptest::collection::vec((0..4_u128, 1..3_u32, 0..10_u32, 0..4_u8), 0..300),
        ) {
            let (mut matrix, mut model) = (Matrix::default(), BTreeMap::new());
            matrix.set_whole(is_whole);
            for (id, revision, client, code) in steps {
                // In two containers.
                let client = client * 7_000;
                let (update, state) = (update(id, revision), State::from_code(code));
                let row = matrix.row(update);
                // What was told leads from the state before to the state now.
                let mut told = BTreeMap::new();
                matrix.set(row, client, state, |row, old, new| {
                    *told.entry((row.update, old)).or_insert(0) -= 1;
                    *told.entry((row.update, new)).or_insert(0) += 1;
                });
                *told.entry((update, state)).or_insert(0) -= 1;
                if let Some(old) = model.insert((id, client), (update, state)) {
                    *told.entry(old).or_insert(0) += 1;
                }
                told.retain(|(_, state), n| *state != State::Unknown && *n != 0);
                prop_assert!(told.is_empty(), "{told:?}");
            }
            for row in matrix.rows() {
                for client in (0..70_000).step_by(7_000) {
                    let of_model = model.get(&(row.update.id.0.as_u128(), client));
                    let state = of_model.filter(|(update, _)| *update == row.update);
                    prop_assert_eq!(row.state(client), state.map_or(State::Unknown, |it| it.1));
                    let is_in = |plane| row.plane(plane).contains(client);
                    prop_assert!(!is_in(Plane::Required) || !is_in(Plane::Installed));
                }
            }
        }
    }

    #[test]
    fn a_bitmap_is_dirty_until_it_is_taken() {
        let mut matrix = Matrix::default();
        let row = matrix.row(update(1, 1));
        matrix.set(row, 5, State::Required, |_, _, _| {});
        assert!(matrix.take_dirty(row, Plane::Installed).is_none());
        let bytes = matrix.take_dirty(row, Plane::Required).unwrap();
        assert!(matrix.take_dirty(row, Plane::Required).is_none());
        matrix.set(row, 5, State::Required, |_, _, _| {});
        assert!(matrix.take_dirty(row, Plane::Required).is_none(), "nothing changed");
        let mut again = Matrix::default();
        let bitmap = RoaringBitmap::deserialize_from(bytes.as_slice()).unwrap();
        again.load(update(1, 1), Plane::Required, bitmap);
        assert_eq!(again.rows()[0].state(5), State::Required);
    }

    #[test]
    fn what_is_not_kept_is_cleared() {
        let mut matrix = Matrix::default();
        let rows: Vec<_> = (0..4).map(|n| matrix.row(update(n, 1))).collect();
        for row in &rows {
            matrix.set(*row, 1, State::Installed, |_, _, _| {});
            matrix.set(*row, 2, State::Installed, |_, _, _| {});
        }
        let mut gone = Vec::new();
        matrix.clear_but(1, &[rows[0], rows[2]], |row, old, _| gone.push((row.update, old)));
        assert_eq!(gone, [(update(1, 1), State::Installed), (update(3, 1), State::Installed)]);
        assert!(rows.iter().all(|row| matrix.rows()[*row as usize].state(2) == State::Installed));
    }
}

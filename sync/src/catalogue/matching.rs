//! All that a filter lets through, at once: what automatic deployment rules are evaluated by.
//!
//! A list shows pages, with all that people read of an update; a rule asks for thousands of updates and needs of each
//! only what stands on the board. So it reads nothing from the database.

use super::board::Board;
use super::list::{Query, RequiredCounts};
use super::{Catalogue, Shared};
use crate::error::SyncError;
use crate::filter::{Filter, View};
use crate::lifecycle::State;
use crate::name::UpdateId;
use serde::Serialize;

/// What a filter lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The updates, in the order of their ids.
    pub updates: Vec<Matching>,
    /// What of the filter may be a slip of the pen.
    pub hints: Vec<String>,
}

/// An update that a filter lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matching {
    /// Which.
    pub id: UpdateId,
    /// Its revision.
    pub revision: u32,
    /// How far its life is.
    pub state: State,
    /// How many files it has.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a filter does not let an update through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmet {
    /// It is not in the catalogue any more.
    Gone,
    /// These of the filter's conditions do not hold; none, if it is no update but a category.
    Conditions(Vec<String>),
}

/// What people call an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Titled {
    /// Which.
    pub id: UpdateId,
    /// What its upstream calls it.
    pub name: String,
    /// Its title, in English where it has one.
    pub title: String,
}

impl Catalogue {
    /// All updates that the filter of `query` lets through. Its order and its bounds are not asked.
    pub fn matching(&self, query: &Query, required: &dyn RequiredCounts) -> Matched {
        let board = self.0.board();
        let (rows, hints) = query.filter.rows(&view(&board, query, required));
        let matching = |row: usize| Matching {
            id: board.ids[row],
            revision: board.revisions[row],
            state: board.states[row],
            files: board.files[row],
            bytes: board.sizes[row],
        };
        Matched { updates: rows.iter().map(matching).collect(), hints }
    }

    /// Why the filter of `query` does not let through each of `ids`, in the same order.
    pub fn unmet(
        &self,
        query: &Query,
        required: &dyn RequiredCounts,
        ids: &[UpdateId],
    ) -> Vec<Unmet> {
        if ids.is_empty() {
            return Vec::new();
        }
        let board = self.0.board();
        let rows: Vec<Option<usize>> = ids.iter().map(|id| board.visible(*id)).collect();
        let mut found: Vec<Unmet> = rows
            .iter()
            .map(|row| row.map_or(Unmet::Gone, |_| Unmet::Conditions(Vec::new())))
            .collect();
        for condition in query.filter.conditions() {
            let text = condition.to_string();
            // By itself a condition hides categories, which the whole may ask for.
            let fits = visible(&condition, &view(&board, query, required));
            for (row, unmet) in rows.iter().zip(&mut found) {
                if let (Some(row), Unmet::Conditions(all)) = (row, unmet)
                    && !fits(*row)
                {
                    all.push(text.clone());
                }
            }
        }
        found
    }

    /// What people call these updates; those that are gone are left out.
    pub fn titled(&self, ids: &[UpdateId]) -> Result<Vec<Titled>, SyncError> {
        self.0.on_one_board(|board| self.0.titled_of(board, ids))
    }
}

fn view<'a>(board: &'a Board, query: &'a Query, required: &'a dyn RequiredCounts) -> View<'a> {
    View { board, required, deployments: query.deployments.as_deref(), now: query.now }
}

/// Of which rows a condition holds.
fn visible(condition: &Filter, view: &View<'_>) -> impl Fn(usize) -> bool + use<> {
    let rows = condition.holds(view);
    move |row| rows.contains(row)
}

impl Shared {
    fn titled_of(&self, board: &Board, ids: &[UpdateId]) -> Result<Option<Vec<Titled>>, SyncError> {
        let mut titled = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(row) = board.visible(*id) else { continue };
            let Some(card) = self.card(board, row)? else { return Ok(None) };
            titled.push(Titled { id: *id, name: card.name, title: card.title });
        }
        Ok(Some(titled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::NoReports;
    use crate::catalogue::tests::{day, id, update, whole};
    use sitedb::Db;

    #[test]
    fn what_no_longer_fits_is_told_with_the_conditions_that_fail() {
        let catalogue = Catalogue::open(Db::in_memory()).unwrap();
        let all = (0..6).map(|n| update(n, if n < 3 { "openssl" } else { "curl" }, i64::from(n)));
        whole(&catalogue, "s", all, day(9)).unwrap();
        let text = "title ~ openssl and released >= 8d ago";
        let query = Query::new(text.parse().unwrap(), day(9));
        let mut matched: Vec<_> =
            catalogue.matching(&query, &NoReports).updates.iter().map(|it| it.id).collect();
        let mut want = vec![id(1), id(2)];
        matched.sort();
        want.sort();
        assert_eq!(matched, want);
        let unmet = catalogue.unmet(&query, &NoReports, &[id(0), id(1), id(4), id(77)]);
        let conditions =
            |all: &[&str]| Unmet::Conditions(all.iter().map(|it| (*it).into()).collect());
        assert_eq!(
            unmet,
            [
                conditions(&["released >= 8d ago"]),
                conditions(&[]),
                conditions(&["title ~ openssl"]),
                Unmet::Gone,
            ]
        );
        let titled = catalogue.titled(&[id(4), id(77)]).unwrap();
        assert_eq!((titled.len(), titled[0].title.as_str()), (1, "curl"));
    }

    #[test]
    fn sizes_are_written_as_people_say_them() {
        let read = |text: &str| text.parse::<Filter>().map(|filter| filter.to_string());
        assert_eq!(read("size > 500MB").unwrap(), "size > 500000000");
        assert_eq!(read("size > 500 mb").unwrap(), "size > 500000000");
        assert_eq!(read("size <= 2GiB and files = 1").unwrap(), "size <= 2147483648 and files = 1");
        assert_eq!(read("deployed or not deployed").unwrap(), "deployed or not deployed");
        for wrong in
            ["size > much", "size > 5XB", "size > 99999999999TB", "size ~ 5", "deployed = 1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_knows_nothing_of_deployments_says_so() {
        let catalogue = Catalogue::open(Db::in_memory()).unwrap();
        whole(&catalogue, "s", [update(0, "x", 0)], day(1)).unwrap();
        let query = Query::new("not deployed".parse().unwrap(), day(1));
        let matched = catalogue.matching(&query, &NoReports);
        assert_eq!((matched.updates.len(), matched.hints.len()), (1, 1));
    }
}

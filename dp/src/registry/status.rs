//! How far what is wished is: wish and report of each point, side by side.

use super::wishes::{WishError, is_for};
use super::{Assignment, Lack, PointName, Registry};
use crate::field::{Fact, FactState, PointId, Priority};
use jiff::{SignedDuration, Timestamp};
use packager::name::Selector;
use packager::sign::VersionInfo;
use packager::{PackageName, Packages};
use std::collections::BTreeMap;

/// One version of a package on one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRow {
    /// The point.
    pub point: PointName,
    /// The package.
    pub package: PackageName,
    /// The version; nothing if what is wished means none.
    pub version: Option<u64>,
    /// The words that it is wished in: a number, `latest`, channels. Empty if it is not wished.
    pub wished: Vec<Selector>,
    /// How soon, if it is wished.
    pub priority: Option<Priority>,
    /// Whether it is wished on demand of clients alone.
    pub on_demand: bool,
    /// The newest version of the package that the point holds whole.
    pub held: Option<u64>,
    /// How far it is.
    pub state: StatusState,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of files that are not held yet, as far as known.
    pub bytes_left: u64,
    /// Why it is not held, or what went wrong last.
    pub cause: Option<String>,
    /// When the state began, by the site's clock.
    pub since: Option<Timestamp>,
    /// When the report came that this is known from.
    pub reported: Option<Timestamp>,
}

/// How far a version is on a point, as far as the site knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusState {
    /// The point says so.
    Said(FactState),
    /// It is wished, and the point has not said anything about it.
    Unknown,
    /// It is wished in words that mean no version of the site.
    Unavailable,
}

impl StatusRow {
    /// How much of it is there, from 0 to 100; 100 only if all of it is.
    pub fn percent(&self) -> u8 {
        match self.state {
            StatusState::Said(FactState::Held | FactState::Leaving) => 100,
            _ if self.bytes == 0 => 0,
            _ => {
                let there = u128::from(self.bytes.saturating_sub(self.bytes_left));
                (there * 100 / u128::from(self.bytes)).min(99) as u8
            }
        }
    }

    /// Says that the point was not heard for so long, where something is to happen there: what it said
    /// last may have ended long ago.
    fn say_silence(&mut self, silence: Option<SignedDuration>) {
        let is_to_move = match self.state {
            StatusState::Said(state) => !matches!(state, FactState::Held),
            StatusState::Unknown | StatusState::Unavailable => false,
        };
        let Some(silence) = silence.filter(|_| is_to_move) else { return };
        let silence = format!("not heard for {}", about(silence));
        self.cause = Some(match self.cause.take() {
            Some(cause) => format!("{silence}; before: {cause}"),
            None => silence,
        });
    }

    /// Its place in the order of all rows.
    pub fn key(&self) -> StatusKey {
        let words: Vec<String> = match self.version {
            Some(_) => Vec::new(),
            None => self.wished.iter().map(ToString::to_string).collect(),
        };
        StatusKey {
            point: self.point.to_string(),
            package: self.package.to_string(),
            version: self.version.unwrap_or(0),
            words: words.join(" "),
        }
    }
}

/// The place of a row: by point, then package, then version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusKey {
    /// The point's name.
    pub point: String,
    /// The package.
    pub package: String,
    /// The version; 0 if there is none.
    pub version: u64,
    /// What is wished, of rows without a version.
    pub words: String,
}

/// Which rows are asked for.
#[derive(Clone, Debug, Default)]
pub struct StatusFilter {
    /// Those of this package.
    pub package: Option<PackageName>,
    /// Those of this point, by name or id.
    pub point: Option<String>,
}

impl Registry {
    /// At most `limit` rows after `after`, in their order, as it is at `now`.
    pub fn status(
        &self,
        packages: &Packages,
        filter: &StatusFilter,
        after: Option<&StatusKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<StatusRow>, WishError> {
        let stock = self.stock(packages)?;
        let points: Vec<(PointName, PointId)> = {
            let state = self.state.read();
            match &filter.point {
                Some(which) => {
                    let point = state.find(which)?;
                    vec![(point.name.clone(), point.id.clone())]
                }
                None => state.by_name.iter().map(|(n, id)| (n.clone(), id.clone())).collect(),
            }
        };
        let mut rows = Vec::new();
        for (name, id) in points {
            if after.is_some_and(|after| name.as_str() < after.point.as_str()) {
                continue;
            }
            // Read apart from each other: a point may report in between, and its row is then newer
            // than its wish, as it might be a moment later.
            let facts = self.facts(&id)?;
            let silence = self.silence(&id, now);
            let mut found = {
                let state = self.state.read();
                let standing = state.standings.get(&id);
                let fits = |a: &&Assignment| {
                    filter.package.as_ref().is_none_or(|package| a.package == *package)
                        && is_for(a, &state.groups, &id)
                };
                let wished = state.assignments.values().filter(fits);
                let wished = wished.map(|assignment| (assignment, stock.resolve(assignment)));
                let facts = facts.iter().filter(|fact| {
                    filter.package.as_ref().is_none_or(|package| fact.package == *package)
                });
                let heard = standing.map(|standing| standing.received);
                rows_of(&name, wished, facts, heard)
            };
            found.iter_mut().for_each(|row| row.say_silence(silence));
            let beyond = |row: &StatusRow| after.is_none_or(|after| row.key() > *after);
            rows.extend(found.into_iter().filter(beyond));
            if rows.len() >= limit {
                break;
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }
}

/// A span of time as people say it, in the largest unit that fits: `45 s`, `2 min`, `3 h`, `4 d`.
fn about(time: SignedDuration) -> String {
    match time.as_secs().max(0) {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The rows of one point, in order: what is wished, with what it means; what it reported; and when it
/// was heard.
fn rows_of<'a>(
    point: &PointName,
    wished: impl Iterator<Item = (&'a Assignment, Result<&'a VersionInfo, Lack>)>,
    facts: impl Iterator<Item = &'a Fact>,
    heard: Option<Timestamp>,
) -> Vec<StatusRow> {
    let row = |package: &PackageName, version, state| StatusRow {
        point: point.clone(),
        package: package.clone(),
        version,
        wished: Vec::new(),
        priority: None,
        on_demand: false,
        held: None,
        state,
        bytes: 0,
        bytes_left: 0,
        cause: None,
        since: None,
        reported: heard,
    };
    let mut rows: BTreeMap<(PackageName, u64), StatusRow> = BTreeMap::new();
    let mut lacking = Vec::new();
    for (assignment, meant) in wished {
        let package = &assignment.package;
        let version = match meant {
            Ok(version) => version,
            Err(lack) => {
                let number = match assignment.version {
                    Selector::Number(number) => Some(number),
                    _ => None,
                };
                lacking.push(StatusRow {
                    wished: vec![assignment.version.clone()],
                    priority: Some(assignment.priority),
                    on_demand: assignment.on_demand.is_some(),
                    cause: Some(lack.to_string()),
                    ..row(package, number, StatusState::Unavailable)
                });
                continue;
            }
        };
        let row = rows.entry((package.clone(), version.version)).or_insert_with(|| StatusRow {
            bytes: version.bytes,
            bytes_left: version.bytes,
            cause: match heard {
                Some(_) => None,
                None => Some("the distribution point has not reported yet".into()),
            },
            ..row(
                package,
                Some(version.version),
                match heard {
                    Some(_) => StatusState::Said(FactState::Waiting),
                    None => StatusState::Unknown,
                },
            )
        });
        row.on_demand = assignment.on_demand.is_some() && (row.on_demand || row.wished.is_empty());
        row.wished.push(assignment.version.clone());
        row.priority = row.priority.max(Some(assignment.priority));
    }
    let mut held: BTreeMap<PackageName, u64> = BTreeMap::new();
    for fact in facts {
        // One on its way out is there, and answered for, until it is gone.
        if matches!(fact.state, FactState::Held | FactState::Leaving) {
            let newest = held.entry(fact.package.clone()).or_default();
            *newest = fact.version.max(*newest);
        }
        let key = (fact.package.clone(), fact.version);
        let row = rows
            .entry(key)
            .or_insert_with(|| row(&fact.package, Some(fact.version), StatusState::Unknown));
        let is_wished = !row.wished.is_empty();
        row.state = StatusState::Said(match (is_wished, fact.state) {
            // The point has not heard yet that it is wished no more, or that it is again.
            (false, FactState::Held) => FactState::Leaving,
            (true, FactState::Leaving) => FactState::Waiting,
            (_, said) => said,
        });
        (row.bytes, row.bytes_left) = (fact.bytes, fact.bytes_left);
        row.cause = fact.cause.clone();
        row.since = Some(fact.since);
    }
    // What is gone from the site may still be on the point, and be on its way out there.
    let mut apart = Vec::new();
    for lack in lacking {
        match lack.version.and_then(|v| rows.get_mut(&(lack.package.clone(), v))) {
            Some(there) => there.cause = there.cause.take().or(lack.cause),
            None => apart.push(lack),
        }
    }
    let mut rows: Vec<StatusRow> = rows.into_values().chain(apart).collect();
    for row in &mut rows {
        row.held = held.get(&row.package).copied();
    }
    rows.sort_by_key(StatusRow::key);
    // What means no version may be wished of the point and of its groups in the same words.
    rows.dedup_by(|again, row| {
        let is_same = again.key() == row.key();
        if is_same {
            row.priority = row.priority.max(again.priority);
            row.on_demand &= again.on_demand;
        }
        is_same
    });
    rows
}

//! Filters: which updates of the catalogue are meant.
//!
//! ```text
//! classification in (security, critical) and released >= 30d ago and product = debian-12
//! title ~ openssl and not superseded and (severity >= important or required > 50)
//! ```

use crate::lifecycle::State;
use crate::name::SourceName;
use crate::taxonomy::{Classification, Severity};
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// Which updates are meant: a condition, read from text with [`str::parse`], or made by [`Flags::filter`].
/// Written out it is text that reads as the same filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {}

/// What is wrong with a filter's text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct FilterError {
    /// Which character, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Filter {
    pub(crate) fn rows(
        &self,
        board: &crate::catalogue::board::Board,
        _: &dyn crate::catalogue::RequiredCounts,
        _: Timestamp,
    ) -> (crate::catalogue::bits::Bits, Vec<String>) {
        (board.all_visible(), vec![])
    }
}

impl FromStr for Filter {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let _ = text;
        todo!()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

/// A filter as options of a command say it. Of each kind one must fit; all kinds must.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// One of these classifications.
    pub classifications: Vec<Classification>,
    /// One of these severities.
    pub severities: Vec<Severity>,
    /// For one of these products or families, by id or name.
    pub products: Vec<String>,
    /// Said by one of these sources.
    pub sources: Vec<SourceName>,
    /// In one of these states.
    pub states: Vec<State>,
    /// Released so long ago at most: `30d`, `6 months`.
    pub released_within: Option<String>,
    /// Released at this time or later.
    pub released_after: Option<Timestamp>,
    /// Released before this time.
    pub released_before: Option<Timestamp>,
    /// With these words in title, name, articles or CVEs.
    pub search: Option<String>,
    /// Mending one of these CVEs.
    pub cves: Vec<String>,
    /// With one of these articles.
    pub articles: Vec<String>,
    /// Required on so many machines, as `50` (at least) or `>50`.
    pub required_on: Option<String>,
    /// And this, in the language of filters.
    pub filter: Option<String>,
}

impl Flags {
    /// The filter.
    ///
    /// # Errors
    /// `released_within`, `required_on` or `filter` cannot be read.
    pub fn filter(&self) -> Result<Filter, FilterError> {
        todo!()
    }
}

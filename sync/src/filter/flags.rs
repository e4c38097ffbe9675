//! Filters out of the options of a command.

use super::parse::unit_of;
use super::{
    Compare, DateField, Expr, Filter, FilterError, NameField, NumberField, Test, TextField, When,
};
use crate::lifecycle::State;
use crate::name::SourceName;
use crate::sdp::author::is_cve;
use crate::taxonomy::{Classification, Severity};
use jiff::Timestamp;

/// A filter as options of a command say it. Of each kind one must fit; all kinds must.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// One of these classifications.
    pub classifications: Vec<Classification>,
    /// One of these severities.
    pub severities: Vec<Severity>,
    /// For one of these products, by id or name, or of one of these families.
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
    /// With each of these words in title, name, articles or CVEs.
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

/// What is wrong with an option, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct FlagError {
    /// The field of [`Flags`].
    pub option: &'static str,
    /// In words.
    pub problem: String,
}

impl From<FilterError> for FlagError {
    fn from(error: FilterError) -> Self {
        Self { option: "filter", problem: error.to_string() }
    }
}

impl Flags {
    /// The filter.
    ///
    /// # Errors
    /// `cves`, `released_within`, `required_on` or `filter` cannot be read.
    pub fn filter(&self) -> Result<Filter, FlagError> {
        let mut parts = Vec::new();
        let mut add = |is_asked: bool, test: Test| {
            if is_asked {
                parts.push(Expr::Test(test));
            }
        };
        let classes = self.classifications.iter().copied().map(Some).collect();
        add(!self.classifications.is_empty(), Test::Classification(classes));
        let severities = self.severities.iter().copied().map(Some).collect();
        add(!self.severities.is_empty(), Test::Severity(severities));
        let sources = self.sources.iter().map(ToString::to_string).collect();
        add(!self.sources.is_empty(), Test::Name(NameField::Source, sources));
        add(!self.products.is_empty(), Test::Name(NameField::Product, self.products.clone()));
        add(!self.states.is_empty(), Test::State(self.states.clone()));
        if let Some(text) = self.cves.iter().find(|text| !is_cve(text)) {
            let problem = format!("{text:?} is no CVE; want one as CVE-2026-0001");
            return Err(FlagError { option: "cve", problem });
        }
        add(!self.cves.is_empty(), Test::Equals(TextField::Cve, self.cves.clone()));
        add(!self.articles.is_empty(), Test::Equals(TextField::Article, self.articles.clone()));
        let released = |compare, when| Test::Date(DateField::Released, compare, when);
        if let Some(text) = &self.released_within {
            add(true, released(Compare::GreaterOrEqual, within(text)?));
        }
        if let Some(time) = self.released_after {
            add(true, released(Compare::GreaterOrEqual, When::At(time)));
        }
        if let Some(time) = self.released_before {
            add(true, released(Compare::Less, When::At(time)));
        }
        if let Some(text) = &self.required_on {
            add(true, required(text)?);
        }
        for word in self.search.iter().flat_map(|text| text.split_whitespace()) {
            add(true, Test::Contains(TextField::Text, word.into()));
        }
        let more: Filter = self.filter.as_deref().unwrap_or_default().parse()?;
        parts.push(more.0);
        let filter = Filter(Expr::all(parts));
        // What was put together keeps to the bounds of what is written.
        Ok(filter.to_string().parse()?)
    }
}

/// `30d`, `30 days`, with or without `ago`.
fn within(text: &str) -> Result<When, FlagError> {
    let wrong = || FlagError {
        option: "released_within",
        problem: format!(
            "{text:?} is no length of time; want a number of hours, days, weeks, months or years, as 24h, \
             1d, 2w, '6 months' or 1y"
        ),
    };
    let text = text.trim();
    let text = text.strip_suffix("ago").unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit = unit_of(unit.trim()).ok_or_else(wrong)?;
    Ok(When::Ago(number.parse().map_err(|_| wrong())?, unit))
}

/// `50` for at least so many, `>50`, `>=50`, `<50`, `<=50`, `=0`.
fn required(text: &str) -> Result<Test, FlagError> {
    let signs = [
        (">=", Compare::GreaterOrEqual),
        ("<=", Compare::LessOrEqual),
        (">", Compare::Greater),
        ("<", Compare::Less),
        ("=", Compare::Equal),
        ("", Compare::GreaterOrEqual),
    ];
    let found = signs.iter().find_map(|(sign, compare)| {
        let number = text.trim().strip_prefix(sign)?.trim().parse().ok()?;
        Some(Test::Number(NumberField::Required, *compare, number))
    });
    found.ok_or_else(|| FlagError {
        option: "required_on",
        problem: format!("{text:?} is no number of machines; want one as 50, '>50' or '=0'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_cannot_be_read_is_named_with_what_is_allowed() {
        let wrong = |flags: Flags| flags.filter().unwrap_err();
        for text in ["yesterday", "30", "d30", "", "-1d"] {
            let flags = Flags { released_within: Some(text.into()), ..Flags::default() };
            let error = wrong(flags);
            assert_eq!(error.option, "released_within");
            assert!(error.problem.contains("days, weeks, months or years, as 24h"), "{error}");
        }
        for text in ["24h", "1d", "2w", "6 months", "1y", "30 days ago"] {
            let flags = Flags { released_within: Some(text.into()), ..Flags::default() };
            flags.filter().unwrap();
        }
        for text in ["foo", "", "CVE-2026", "CVE-2026-1-2", "CVE-x-1"] {
            let error = wrong(Flags { cves: vec![text.into()], ..Flags::default() });
            assert_eq!(error.option, "cve");
        }
        Flags { cves: vec!["cve-2026-0001".into()], ..Flags::default() }.filter().unwrap();
        let error = wrong(Flags { required_on: Some("many".into()), ..Flags::default() });
        assert_eq!(error.option, "required_on");
        let error = wrong(Flags { filter: Some("x x".into()), ..Flags::default() });
        assert_eq!((error.option, error.problem.starts_with("column")), ("filter", true));
    }
}

//! Lists in pages: a limit, and an opaque cursor that says where the next page begins.
//!
//! A cursor holds the last key of its page, so pages stay stable: what is added or removed
//! elsewhere never makes an entry appear twice or be skipped.

use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Entries a page has if the client does not say.
pub const DEFAULT_LIMIT: usize = 100;
/// Entries a page may have.
pub const MAX_LIMIT: usize = 1000;

/// Which page is wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub items: Vec<T>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl PageQuery {
    /// The number of entries wanted.
    pub fn limit(&self) -> Result<usize, Problem> {
        limit_or_default(self.limit)
    }

    /// The key after which the page begins, for the list called `list`.
    pub fn after(&self, list: &str) -> Result<Option<String>, Problem> {
        self.cursor.as_deref().map(|cursor| key_of(list, cursor)).transpose()
    }
}

/// The limit to use for a limit that was asked for.
pub fn limit_or_default(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(limit) => {
            Err(Problem::malformed("limit", format!("must be from 1 to {MAX_LIMIT}, not {limit}")))
        }
    }
}

impl<T> Page<T> {
    /// The page of list `list` that begins with `found`, which holds one entry more than `limit`
    /// if there are more. `key` gives an entry's key.
    pub fn of(list: &str, mut found: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| cursor_of(list, &key(last)));
        Self { items: found, next }
    }

    /// The page after key `after` of a whole list in ascending order of `key`.
    pub fn cut(
        list: &str,
        all: impl IntoIterator<Item = T>,
        after: Option<&str>,
        limit: usize,
        key: impl Fn(&T) -> String,
    ) -> Self {
        let beyond = |entry: &T| after.is_none_or(|after| key(entry).as_str() > after);
        let found = all.into_iter().filter(beyond).take(limit + 1).collect();
        Self::of(list, found, limit, key)
    }

    /// The same page of other entries.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// A cursor that continues `list` after `key`.
pub fn cursor_of(list: &str, key: &str) -> String {
    hex(format!("{list}\0{key}").as_bytes())
}

/// The key that a cursor of `list` continues after.
pub fn key_of(list: &str, cursor: &str) -> Result<String, Problem> {
    let decoded = unhex(cursor).and_then(|bytes| String::from_utf8(bytes).ok());
    let key = decoded.as_deref().and_then(|text| text.strip_prefix(list)?.strip_prefix('\0'));
    key.map(str::to_owned).ok_or_else(|| {
        Problem::malformed("cursor", "is not a `next` of this list: give one as it was received")
    })
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of lower-case hex digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_list_that_changes_without_repeating_or_skipping() {
        let mut list: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = Page::cut("l", list.clone(), after.as_deref(), 3, String::clone);
            seen.extend(page.items);
            list.retain(|key| key != "k2");
            list.insert(0, "a new one".into());
            let Some(next) = page.next else { break };
            after = Some(key_of("l", &next).unwrap());
        }
        assert_eq!(seen, (0..10).map(|n| format!("k{n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_last_page_that_is_full_has_no_next() {
        let page = Page::cut("l", ["a".to_owned(), "b".to_owned()], None, 2, String::clone);
        assert_eq!((page.items.len(), page.next), (2, None));
    }

    #[test]
    fn a_cursor_of_another_list_or_a_made_up_one_is_refused() {
        for cursor in [cursor_of("other", "k"), "zz".into(), "a".into(), String::new(), "Ä".into()]
        {
            let query = PageQuery { limit: None, cursor: Some(cursor) };
            assert_eq!(query.after("l").unwrap_err().errors[0].field, "cursor");
        }
        let query = PageQuery { limit: Some(0), cursor: Some(cursor_of("l", "k\0ö")) };
        assert_eq!(query.limit().unwrap_err().errors[0].field, "limit");
        assert_eq!(query.after("l").unwrap().as_deref(), Some("k\0ö"));
    }
}

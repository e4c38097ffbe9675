//! Texts of all rows in one piece, to be searched at the speed of memory.
//!
//! A row's text is made of fields: a tag, below the space character, and the field's text, which is
//! folded and so has no such character. So a match never spans two fields, and the tag before it tells
//! which field it is in.

use super::bits::Bits;
use memchr::memmem;
use std::borrow::Cow;
use std::collections::HashSet;

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// A title.
    Title = 1,
    /// A name.
    Name = 2,
    /// The name of an article.
    Article = 3,
    /// A CVE id.
    Cve = 4,
}

/// Of one row's text at most so many bytes are searched; the rest is left out.
const MAX_ROW: usize = 64 << 10;

/// Text as it is compared: in lower case, with a space for each control character.
pub(crate) fn folded(text: &str) -> String {
    let mut folded = text.to_lowercase();
    if folded.bytes().any(|byte| byte < b' ') {
        folded = folded.replace(|c: char| c < ' ', " ");
    }
    folded
}

/// A row's text, made of fields.
pub(crate) fn row_of<'a>(fields: impl IntoIterator<Item = (Tag, &'a str)>) -> String {
    let mut row = String::new();
    for (tag, text) in fields {
        let text = folded(text);
        if row.len() + text.len() < MAX_ROW {
            row.push(char::from(tag as u8));
            row.push_str(&text);
        }
    }
    row
}

/// The texts of all rows, one after the other.
#[derive(Default)]
pub(crate) struct Texts {
    text: String,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Texts {
    /// Adds the next row.
    pub fn push(&mut self, row: &str) {
        self.text.push_str(row);
        self.ends.push(self.text.len());
    }

    /// Gives back memory that was set aside.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// A row's text.
    pub fn row(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }

    /// The rows in which a field has `part` somewhere.
    pub fn containing(&self, part: &str) -> Bits {
        self.matching(folded(part).as_bytes(), |_| true)
    }

    /// The rows in which a field of that tag has `part` somewhere.
    pub fn containing_in(&self, tag: Tag, part: &str) -> Bits {
        let bytes = self.text.as_bytes();
        self.matching(folded(part).as_bytes(), |at| {
            bytes[..at].iter().rfind(|byte| **byte < b' ') == Some(&(tag as u8))
        })
    }

    /// The rows in which a field of that tag is one of `values`.
    pub fn equal(&self, values: &[Cow<'_, str>], tag: Tag) -> Bits {
        /// From so many on it is cheaper to look at each field once than at all text for each value.
        const MANY: usize = 8;
        if values.len() < MANY {
            let mut found = Bits::none(self.ends.len());
            for value in values {
                let field = row_of([(tag, value.as_ref())]);
                found.or(&self.matching(field.as_bytes(), |at| {
                    self.text.as_bytes().get(at + field.len()).is_none_or(|byte| *byte < b' ')
                }));
            }
            return found;
        }
        let wanted: HashSet<String> =
            values.iter().map(|value| row_of([(tag, value.as_ref())])).collect();
        Bits::of(self.ends.len(), |row| fields(self.row(row)).any(|field| wanted.contains(field)))
    }

    /// The rows that have `needle` at a place that `is_good`.
    fn matching(&self, needle: &[u8], is_good: impl Fn(usize) -> bool) -> Bits {
        let mut found = Bits::none(self.ends.len());
        let (bytes, finder) = (self.text.as_bytes(), memmem::Finder::new(needle));
        let (mut from, mut row) = (0, 0);
        while let Some(at) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
            let at = from + at;
            // An empty needle is found at the very end too, where no row begins.
            row = self.row_at(at, row);
            let Some(end) = self.ends.get(row) else { break };
            if is_good(at) {
                found.set(row);
                from = *end;
            } else {
                from = at + 1;
            }
        }
        found
    }
}

impl Texts {
    /// The row of a place in the text, which is not before row `from`. It is looked for in steps that double, as
    /// it is mostly near.
    fn row_at(&self, at: usize, from: usize) -> usize {
        let ends = self.ends.get(from..).unwrap_or_default();
        let mut step = 1;
        while ends.get(step - 1).is_some_and(|end| *end <= at) {
            step *= 2;
        }
        let (low, high) = (step / 2, step.min(ends.len()));
        from + low + ends[low..high].partition_point(|end| *end <= at)
    }
}

/// The fields of a row's text, with their tags.
fn fields(row: &str) -> impl Iterator<Item = &str> {
    let mut rest = row;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let next = rest[first.len_utf8()..].find(|c: char| c < ' ');
        let (field, after) = rest.split_at(next.map_or(rest.len(), |at| at + first.len_utf8()));
        rest = after;
        Some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        let mut texts = Texts::default();
        let row = [(Tag::Name, "DSA-1"), (Tag::Article, "KB1"), (Tag::Cve, "CVE-2024-1")];
        texts.push(&row_of(row));
        texts.push("");
        texts.push(&row_of([
            (Tag::Name, "KB1"),
            (Tag::Cve, "CVE-2024-12"),
            (Tag::Cve, "Ünï\u{1}x"),
        ]));
        texts
    }

    fn rows(bits: &Bits) -> Vec<usize> {
        bits.iter().collect()
    }

    #[test]
    fn a_part_is_found_in_the_fields_asked_for() {
        let texts = texts();
        let all = |part: &str| rows(&texts.containing(part));
        assert_eq!(all("kb1"), [0, 2]);
        assert_eq!(rows(&texts.containing_in(Tag::Name, "KB1")), [2]);
        assert_eq!(rows(&texts.containing_in(Tag::Cve, "2024-1")), [0, 2]);
        assert_eq!(rows(&texts.containing_in(Tag::Cve, "ÜNÏ")), [2]);
        assert_eq!(all("dsa-1kb1"), [0; 0]);
        assert_eq!(all("1\u{3}kb"), [0; 0]);
        assert_eq!(all(""), [0, 2], "an empty part is everywhere");
    }

    #[test]
    fn the_row_of_each_place_is_found_from_each_row_before_it() {
        let mut texts = Texts::default();
        (0..40).for_each(|row| texts.push(&"x".repeat(row % 3)));
        for row in (0..40).filter(|row| row % 3 > 0) {
            let start = texts.ends[row - 1];
            for from in 0..=row {
                assert_eq!(texts.row_at(start, from), row, "from {from}");
            }
        }
        assert_eq!(texts.row_at(texts.text.len(), 7), 40);
    }

    #[test]
    fn a_value_is_the_whole_field() {
        let texts = texts();
        let equal = |values: &[&str], tag| {
            let values: Vec<_> = values.iter().map(|value| Cow::Borrowed(*value)).collect();
            rows(&texts.equal(&values, tag))
        };
        assert_eq!(equal(&["cve-2024-1"], Tag::Cve), [0]);
        assert_eq!(equal(&["CVE-2024-12"], Tag::Cve), [2]);
        assert_eq!(equal(&["KB1"], Tag::Article), [0]);
        assert_eq!(equal(&["KB"], Tag::Article), [0; 0]);
        let many = ["a", "b", "c", "d", "e", "f", "cve-2024-1", "CVE-2024-12"];
        assert_eq!(equal(&many, Tag::Cve), [0, 2]);
        assert_eq!(equal(&many, Tag::Name), [0; 0]);
    }

    #[test]
    fn a_row_of_too_much_text_is_cut_at_a_field() {
        let long = "x".repeat(MAX_ROW - 10);
        let row = row_of([
            (Tag::Name, "a"),
            (Tag::Cve, &long),
            (Tag::Cve, "far too long"),
            (Tag::Cve, "y"),
        ]);
        assert!(row.len() <= MAX_ROW && row.ends_with('y'));
    }
}

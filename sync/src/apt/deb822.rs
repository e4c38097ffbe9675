//! Stanzas of `Key: value` lines (deb822), one after the other, in bounded memory.
//!
//! A blank line ends a stanza, a line that begins with a space goes on with the field above, and keys
//! differ by more than case. A stanza that breaks these rules, or is too large, is told and passed over:
//! the next one begins after the next blank line.

use std::io::{self, BufRead, Read};

/// The largest stanza, in bytes; the longest of Debian's have some ten thousand.
pub const MAX_STANZA: usize = 1 << 20;
/// How many fields a stanza may have.
pub const MAX_FIELDS: usize = 500;

/// Reads stanza after stanza.
pub struct Stanzas<R> {
    input: R,
    most: usize,
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
struct Field {
    start: usize,
    colon: usize,
    end: usize,
}

/// One stanza.
#[derive(Clone, Copy)]
pub struct Stanza<'a> {
    text: &'a str,
    fields: &'a [Field],
}

/// A stanza that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It has more bytes than are taken.
    #[error("a stanza is larger than is taken")]
    TooLarge,
    /// It has more fields than are taken.
    #[error("a stanza has more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// It is no UTF-8.
    #[error("a stanza is not in UTF-8")]
    NotText,
    /// A line is neither a field nor goes on with one.
    #[error("a line of a stanza has no field name")]
    NoField,
    /// A field stands in it twice.
    #[error("a field stands twice in a stanza")]
    Twice,
}

impl<R: BufRead> Stanzas<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self::with_limit(input, MAX_STANZA)
    }

    /// Reads from `input` stanzas of at most `most` bytes.
    pub fn with_limit(input: R, most: usize) -> Self {
        Self { input, most, text: Vec::new(), fields: Vec::new() }
    }

    /// The next stanza; none at the end. An error of the input ends everything, a broken stanza does
    /// not.
    pub fn next_stanza(&mut self) -> io::Result<Option<Result<Stanza<'_>, Broken>>> {
        match self.gather()? {
            Gathered::End => return Ok(None),
            Gathered::TooLarge => return Ok(Some(Err(Broken::TooLarge))),
            Gathered::Stanza => {}
        }
        let Ok(text) = std::str::from_utf8(&self.text) else {
            return Ok(Some(Err(Broken::NotText)));
        };
        Ok(Some(fields(text, &mut self.fields).map(|()| Stanza { text, fields: &self.fields })))
    }

    /// Brings the lines of the next stanza into `text`.
    fn gather(&mut self) -> io::Result<Gathered> {
        self.text.clear();
        let mut is_too_large = false;
        let mut is_line_start = true;
        loop {
            let start = self.text.len();
            let limit = (self.most + 2) as u64;
            if self.input.by_ref().take(limit).read_until(b'\n', &mut self.text)? == 0 {
                break;
            }
            let line = self.text.get(start..).unwrap_or_default();
            let is_blank = is_line_start && matches!(line, b"\n" | b"\r\n");
            is_line_start = line.ends_with(b"\n");
            if is_blank {
                self.text.truncate(start);
                if start > 0 || is_too_large {
                    break;
                }
            } else if is_too_large || self.text.len() > self.most {
                is_too_large = true;
                self.text.clear();
            }
        }
        Ok(match () {
            () if is_too_large => Gathered::TooLarge,
            () if self.text.is_empty() => Gathered::End,
            () => Gathered::Stanza,
        })
    }
}

enum Gathered {
    End,
    TooLarge,
    Stanza,
}

/// Finds the fields of `text`.
fn fields(text: &str, found: &mut Vec<Field>) -> Result<(), Broken> {
    found.clear();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        if line.starts_with([' ', '\t']) {
            found.last_mut().ok_or(Broken::NoField)?.end = end;
        } else {
            let length = line.find(':').ok_or(Broken::NoField)?;
            let key = line.get(..length).unwrap_or_default();
            let good = |b: u8| b.is_ascii_graphic();
            if key.is_empty() || !key.bytes().all(good) {
                return Err(Broken::NoField);
            }
            if found.len() == MAX_FIELDS {
                return Err(Broken::TooManyFields);
            }
            let is_same = |field: &Field| {
                text.get(field.start..field.colon).is_some_and(|k| k.eq_ignore_ascii_case(key))
            };
            if found.iter().any(is_same) {
                return Err(Broken::Twice);
            }
            found.push(Field { start, colon: start + length, end });
        }
        start = end;
    }
    Ok(())
}

impl<'a> Stanza<'a> {
    /// The value of a field, without the spaces around it; lines after the first are as they stand.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let text = self.text;
        let field = self.fields.iter().find(|field| {
            text.get(field.start..field.colon).is_some_and(|k| k.eq_ignore_ascii_case(key))
        })?;
        text.get(field.colon + 1..field.end).map(str::trim)
    }

    /// Its words, where a field is a list of them.
    pub fn words(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(key).unwrap_or_default().split_ascii_whitespace()
    }

    /// Its lines after the first, without the spaces around them.
    pub fn lines(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(key).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// All of it, as it stood.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// Reads the one stanza that `bytes` are, whatever its size.
pub fn single<T>(bytes: &[u8], read: impl FnOnce(Stanza<'_>) -> T) -> Result<T, Broken> {
    let mut stanzas = Stanzas::with_limit(bytes, bytes.len());
    let found = stanzas.next_stanza().ok().flatten();
    found.unwrap_or(Err(Broken::NoField)).map(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &[u8]) -> Vec<Result<Vec<String>, Broken>> {
        let mut stanzas = Stanzas::with_limit(text, 200);
        let mut found = Vec::new();
        while let Some(stanza) = stanzas.next_stanza().unwrap() {
            found.push(stanza.map(|it| {
                ["Package", "description", "X"]
                    .iter()
                    .map(|key| it.get(key).unwrap_or("-").to_owned())
                    .collect()
            }));
        }
        found
    }

    #[test]
    fn stanzas_are_told_one_after_the_other() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n\n\r\nPACKAGE:b\r\nX:\n";
        let found = all(text.as_bytes());
        let want = |words: [&str; 3]| Ok(words.map(String::from).to_vec());
        assert_eq!(found, [want(["a", "one\n two\n .", "-"]), want(["b", "-", ""])]);
    }

    #[test]
    fn a_broken_stanza_is_passed_over_and_the_next_one_read() {
        let long = "y".repeat(500);
        let text = format!(
            " first\n\nno field\nPackage: a\n\nPackage: a\npackage: b\n\nX: {long}\nZ: {long}\n\n\
             : x\n\nPackage: last"
        );
        let found = all(text.as_bytes());
        let faults: Vec<_> = found.iter().filter_map(|it| it.as_ref().err().copied()).collect();
        use Broken::{NoField, TooLarge, Twice};
        assert_eq!(faults, [NoField, NoField, Twice, TooLarge, NoField]);
        assert_eq!(found.last().unwrap().as_ref().unwrap()[0], "last");
        assert_eq!(all(b"Package: \xff\xfe\n"), [Err(Broken::NotText)]);
        let many: String = (0..600).map(|n| format!("F{n}: x\n")).collect();
        let broken = single(many.as_bytes(), |_| ()).unwrap_err();
        assert_eq!(broken, Broken::TooManyFields);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b':'), Just(b' '), Just(b'\r'), any::<u8>()], 0..600,
        )) {
            all(&bytes);
        }
    }
}

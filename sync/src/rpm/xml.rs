//! XML of a repository, read element by element.
//!
//! Two readers share the work. [`Elements`] cuts a document of any length into the elements that its
//! root has, one in memory at a time, without looking into them: so one that is broken costs itself and
//! no other. [`Cursor`] then reads what is in one of them.
//!
//! Neither knows entities but the five of XML itself, and both refuse a document type declaration, so
//! nothing can grow while it is read. How long an element may be, and how deep it may be nested, is bounded.

use crate::error::{Cause, SyncError};
use crate::unpack::reading;
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use std::borrow::Cow;
use std::io::{self, BufRead, Read};

/// The longest element of a root, in bytes.
pub const MAX_ELEMENT: usize = 16 << 20;
/// How deep elements may be nested.
pub const MAX_DEPTH: usize = 32;

/// Why XML cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed.
    #[error("it is no XML: {0}")]
    Broken(String),
    /// Another kind of document than the one wanted.
    #[error("its root is {found:?}; want {want:?}")]
    WrongRoot {
        /// What it is.
        found: String,
        /// What it should be.
        want: &'static str,
    },
    /// It declares a type, and so could declare entities.
    #[error("it has a document type declaration, which is refused")]
    HasDoctype,
    /// Nested too deep.
    #[error("its elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Too long.
    #[error("an element of it is longer than {MAX_ELEMENT} bytes")]
    TooLong,
    /// It ends too early.
    #[error("it ends before its root does")]
    CutOff,
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl XmlError {
    /// The same as a failure of a sync, of the file called `what`.
    pub fn told(self, what: &str) -> SyncError {
        let cause = match self {
            Self::Io(error) => return reading(what, error),
            Self::TooDeep | Self::TooLong => Cause::TooLarge,
            _ => Cause::Malformed,
        };
        SyncError::because(cause, format!("{what} cannot be read"), self)
    }
}

/// The elements that the root of a document has, one after the other, as the bytes they are.
pub struct Elements<R> {
    from: R,
    root: &'static str,
    name: &'static str,
    /// The element that is being read, or the markup outside of one.
    held: Vec<u8>,
    /// Bytes of `held` that were given already.
    given: usize,
    place: Root,
    /// Bytes that may be held.
    most: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Ahead,
    Open,
    Closed,
}

/// What a piece of markup does.
enum Markup {
    /// Begins an element that is wanted, and may end it at once.
    Begins { and_ends: bool },
    /// Ends it.
    Ends,
    /// Begins the root, and may end it at once.
    BeginsRoot { and_ends: bool },
    /// Ends it.
    EndsRoot,
    /// Something else.
    Other,
}

impl<R: BufRead> Elements<R> {
    /// Those called `name`, without prefix, of a document whose root is `root`.
    pub fn new(from: R, root: &'static str, name: &'static str) -> Self {
        let (held, place) = (Vec::new(), Root::Ahead);
        Self { from, root, name, held, given: 0, place, most: MAX_ELEMENT }
    }

    /// The next one, from `<` to `>`. None when the root has ended.
    ///
    /// An element whose end is missing ends where the next one begins, and is given so.
    pub fn element(&mut self) -> Result<Option<&[u8]>, XmlError> {
        // What was given goes; what is left then is the beginning of the next one.
        self.held.drain(..self.given);
        self.given = 0;
        let mut is_inside = !self.held.is_empty();
        if is_inside && self.held.ends_with(b"/>") {
            return Ok(Some(self.give(self.held.len())));
        }
        loop {
            if !self.read_until(b'<')? {
                return match self.place {
                    Root::Closed => Ok(None),
                    _ => Err(XmlError::CutOff),
                };
            }
            if !is_inside {
                self.held.drain(..self.held.len() - 1);
            }
            let at = self.read_markup()?;
            match self.markup(at)? {
                Markup::Begins { .. } if self.place != Root::Open => {
                    return Err(XmlError::Broken("an element stands behind its root".into()));
                }
                Markup::Begins { .. } if is_inside => return Ok(Some(self.give(at))),
                Markup::Begins { and_ends } => {
                    self.held.drain(..at);
                    if and_ends {
                        return Ok(Some(self.give(self.held.len())));
                    }
                    is_inside = true;
                }
                Markup::Ends if is_inside => return Ok(Some(self.give(self.held.len()))),
                Markup::EndsRoot if self.place == Root::Open => {
                    self.place = Root::Closed;
                    if is_inside {
                        self.held.truncate(at);
                        return Ok(Some(self.give(at)));
                    }
                }
                Markup::BeginsRoot { and_ends } if self.place == Root::Ahead => {
                    self.place = if and_ends { Root::Closed } else { Root::Open };
                }
                _ => {}
            }
            if !is_inside {
                self.held.clear();
            }
        }
    }

    fn give(&mut self, end: usize) -> &[u8] {
        self.given = end;
        &self.held[..end]
    }

    /// Reads to `held` up to `end`, including it; false at the end of the document.
    fn read_until(&mut self, end: u8) -> Result<bool, XmlError> {
        let most = self.most.saturating_sub(self.held.len()) as u64;
        // Bounded before it is read: read_until itself would go on for ever.
        let read = (&mut self.from).take(most).read_until(end, &mut self.held)?;
        if self.held.last() == Some(&end) && read > 0 {
            Ok(true)
        } else if read as u64 == most {
            Err(XmlError::TooLong)
        } else {
            Ok(false)
        }
    }

    /// Reads on to the `>` that ends the markup that `<`, the last byte held, begins; where it begins.
    fn read_markup(&mut self) -> Result<usize, XmlError> {
        let at = self.held.len() - 1;
        let (mut begin, mut seen, mut quote) = (at, at, None);
        loop {
            if !self.read_until(b'>')? {
                return Err(XmlError::CutOff);
            }
            let markup = &self.held[at..];
            let is_whole = match markup {
                [b'<', b'!', b'-', b'-', ..] => markup.len() >= 7 && markup.ends_with(b"-->"),
                [b'<', b'!', b'[', ..] => markup.ends_with(b"]]>"),
                [b'<', b'!', ..] => return Err(XmlError::HasDoctype),
                [b'<', b'?', ..] => markup.ends_with(b"?>"),
                _ => {
                    for (byte, place) in self.held[seen..].iter().zip(seen..) {
                        match (quote, byte) {
                            // None may stand in a tag, so the one before was a bare one, of a text.
                            (_, b'<') => (begin, quote) = (place, None),
                            (None, b'"' | b'\'') => quote = Some(*byte),
                            (Some(open), byte) if open == *byte => quote = None,
                            _ => {}
                        }
                    }
                    seen = self.held.len();
                    // An end tag has no attributes: a quote in front of it is the text's.
                    quote.is_none() || self.held[begin..].starts_with(b"</")
                }
            };
            if is_whole {
                return Ok(begin);
            }
        }
    }

    fn markup(&self, at: usize) -> Result<Markup, XmlError> {
        let markup = &self.held[at..];
        if let [b'<', b'!' | b'?', ..] = markup {
            return Ok(Markup::Other);
        }
        let is_end = markup.get(1) == Some(&b'/');
        let from = if is_end { 2 } else { 1 };
        let rest = markup.get(from..).unwrap_or_default();
        let is_end_of_name = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'>' | b'/');
        let name = &rest[..rest.iter().position(is_end_of_name).unwrap_or(rest.len())];
        let local = name.rsplit(|b| *b == b':').next().unwrap_or(name);
        if self.place == Root::Ahead && local != self.root.as_bytes() {
            let found = clip(String::from_utf8_lossy(name).into_owned());
            return Err(XmlError::WrongRoot { found, want: self.root });
        }
        let and_ends = markup.ends_with(b"/>");
        Ok(match () {
            () if local == self.name.as_bytes() && is_end => Markup::Ends,
            () if local == self.name.as_bytes() => Markup::Begins { and_ends },
            () if local == self.root.as_bytes() && is_end => Markup::EndsRoot,
            () if local == self.root.as_bytes() => Markup::BeginsRoot { and_ends },
            () => Markup::Other,
        })
    }
}

/// Reads what is in one element.
///
/// Each element that [`Cursor::child`] gives must be read to its end, by [`Cursor::text`],
/// [`Cursor::skip`] or [`Cursor::child`] until it gives none.
pub struct Cursor<'x> {
    reader: Reader<&'x [u8]>,
    depth: usize,
}

/// The beginning of an element.
pub struct Tag<'x>(BytesStart<'x>);

impl<'x> Cursor<'x> {
    /// One before the first element of `document`. It is lenient with a bare `&`.
    pub fn new(document: &'x str) -> Self {
        let mut reader = Reader::from_str(document);
        let config = reader.config_mut();
        config.allow_dangling_amp = true;
        config.expand_empty_elements = true;
        Self { reader, depth: 0 }
    }

    /// The next element of the one it is in; none where that ends.
    pub fn child(&mut self) -> Result<Option<Tag<'x>>, XmlError> {
        loop {
            match self.event()? {
                Event::Start(tag) => return Ok(Some(Tag(tag))),
                Event::End(_) | Event::Eof => return Ok(None),
                _ => {}
            }
        }
    }

    /// All text of the element it is in, up to its end. What markup there is in it is left out.
    pub fn text(&mut self) -> Result<String, XmlError> {
        let mut text = String::new();
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            match self.event()? {
                Event::Text(piece) => text.push_str(&piece.xml10_content()),
                Event::CData(piece) => text.push_str(&piece.xml10_content()),
                Event::GeneralRef(name) => push_reference(&mut text, &name),
                _ => {}
            }
        }
        Ok(text)
    }

    /// Goes to the end of the element it is in.
    pub fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            self.event()?;
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Event<'x>, XmlError> {
        let event =
            self.reader.read_event().map_err(|error| XmlError::Broken(error.to_string()))?;
        match &event {
            Event::Start(_) if self.depth == MAX_DEPTH => return Err(XmlError::TooDeep),
            Event::Start(_) => self.depth += 1,
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::Eof if self.depth > 0 => return Err(XmlError::CutOff),
            Event::DocType(_) => return Err(XmlError::HasDoctype),
            _ => {}
        }
        Ok(event)
    }
}

impl Tag<'_> {
    /// Its name, without prefix.
    pub fn name(&self) -> &str {
        self.0.local_name().into_inner()
    }

    /// The value of an attribute, by its name with prefix.
    pub fn attribute(&self, name: &str) -> Result<Option<String>, XmlError> {
        // Without the check for doubles, which takes quadratic time: the first one counts.
        for attribute in self.0.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| XmlError::Broken(error.to_string()))?;
            if attribute.key.into_inner() == name {
                // A value with a bare `&` is taken as it stands.
                let value = attribute.normalized_value(XmlVersion::Implicit1_0);
                let value = value.unwrap_or(Cow::Borrowed(&attribute.value));
                return Ok(Some(value.into_owned()));
            }
        }
        Ok(None)
    }

    /// The same, where it is fine that there is none.
    pub fn text(&self, name: &str) -> Result<String, XmlError> {
        Ok(self.attribute(name)?.unwrap_or_default())
    }
}

/// What `&name;` stands for. A name that is not known stays as it was written.
fn push_reference(text: &mut String, name: &BytesRef<'_>) {
    let known = match name.resolve_char_ref() {
        Ok(Some(char)) => return text.push(char),
        _ => resolve_predefined_entity(name),
    };
    match known {
        Some(known) => text.push_str(known),
        None => text.extend(["&", name, ";"]),
    }
}

/// `text` as it must be written between tags or in an attribute's quotes.
pub fn escaped(text: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(text)
}

fn clip(text: String) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(document: &str) -> Result<Vec<String>, XmlError> {
        let mut elements = Elements::new(document.as_bytes(), "updates", "update");
        let mut found = Vec::new();
        while let Some(element) = elements.element()? {
            found.push(String::from_utf8(element.to_vec()).unwrap());
        }
        Ok(found)
    }

    #[test]
    fn a_document_is_cut_into_the_elements_of_its_root() {
        let found = cut(
            "<?xml version='1.0'?><!-- <update> --><updates>\n<update a='>'>1<updated/></update >\
             <other/><update/><x:update><![CDATA[</update>]]></x:update></updates>\n",
        );
        assert_eq!(
            found.unwrap(),
            [
                "<update a='>'>1<updated/></update >",
                "<update/>",
                "<x:update><![CDATA[</update>]]></x:update>"
            ]
        );
        assert!(cut("<updates/>").unwrap().is_empty());
    }

    #[test]
    fn a_broken_element_costs_itself_alone() {
        let found =
            cut("<updates><update>it's < that</update><update>no end<update/><update>x</updates>");
        let want = ["<update>it's < that</update>", "<update>no end", "<update/>", "<update>x"];
        assert_eq!(found.unwrap(), want);
    }

    #[test]
    fn another_root_a_doctype_and_a_cut_off_end_are_refused() {
        assert!(matches!(cut("<html></html>"), Err(XmlError::WrongRoot { .. })));
        let bomb = "<!DOCTYPE x [<!ENTITY a 'aa'>]><updates></updates>";
        assert!(matches!(cut(bomb), Err(XmlError::HasDoctype)));
        let whole = "<updates><update a='1'>x</update></updates>";
        for end in 0..whole.len() {
            assert!(cut(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
    }

    #[test]
    fn an_element_has_a_longest_length() {
        for endless in ["<updates><update>", "<updates><update a='", "<updates><!--", "<updates>"] {
            let from = endless.as_bytes().chain(io::BufReader::new(io::repeat(b'>')));
            let mut elements = Elements::new(from, "updates", "update");
            elements.most = 10_000;
            assert!(matches!(elements.element(), Err(XmlError::TooLong)), "{endless}");
        }
    }

    #[test]
    fn text_is_read_with_its_references_and_without_its_markup() {
        let mut cursor = Cursor::new(
            "<a><b>x &amp; y & z &#65; &odd; <i>in</i><![CDATA[<raw>]]></b><c d='1&2'/></a>",
        );
        assert_eq!(cursor.child().unwrap().unwrap().name(), "a");
        assert_eq!(cursor.child().unwrap().unwrap().name(), "b");
        assert_eq!(cursor.text().unwrap(), "x & y & z A &odd; in<raw>");
        let tag = cursor.child().unwrap().unwrap();
        assert_eq!((tag.name(), tag.text("d").unwrap().as_str()), ("c", "1&2"));
        cursor.skip().unwrap();
        assert!(cursor.child().unwrap().is_none());
        assert!(cursor.child().unwrap().is_none());
    }

    #[test]
    fn deep_nesting_and_doctypes_are_refused_inside_too() {
        let deep = "<a>".repeat(MAX_DEPTH + 1);
        let mut cursor = Cursor::new(&deep);
        let end = (0..=MAX_DEPTH).find_map(|_| cursor.child().err());
        assert!(matches!(end, Some(XmlError::TooDeep)));
        assert!(matches!(Cursor::new("<!DOCTYPE a><a/>").child(), Err(XmlError::HasDoctype)));
        let mut cut_off = Cursor::new("<a><b>");
        cut_off.child().unwrap();
        assert!(cut_off.skip().is_err());
    }
}

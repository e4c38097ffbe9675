//! Reading XML within limits.

use super::{Attribute, Element, Node, XmlError};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};
use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the document.
    pub bytes: u64,
    /// Bytes of one tag, or of one text.
    pub token: u64,
    /// Elements in each other, in one part.
    pub depth: usize,
    /// Elements, attributes and texts of one part.
    pub nodes: usize,
}

impl Default for Limits {
    /// Enough for every catalogue that was seen, with room.
    fn default() -> Self {
        Self { bytes: 1 << 30, token: 4 << 20, depth: 100, nodes: 400_000 }
    }
}

/// Attributes of one element: more are no metadata.
const ATTRIBUTES: usize = 256;
/// Namespaces that are remembered to be shared.
const NAMESPACES: usize = 64;

/// Goes through a document.
pub struct Reader<R> {
    xml: NsReader<Metered<R>>,
    buffer: Vec<u8>,
    limits: Limits,
    nodes: usize,
    /// Elements that are open now.
    open: usize,
    namespaces: Vec<Arc<str>>,
}

enum Token {
    Start(Element),
    End,
    Text(String),
    Eof,
}

impl<R: BufRead> Reader<R> {
    /// One of a document in UTF-8, with or without a byte order mark.
    pub fn new(from: R, limits: Limits) -> Self {
        let metered = Metered { from, token: limits.token, all: limits.bytes };
        let mut xml = NsReader::from_reader(metered);
        xml.config_mut().expand_empty_elements = true;
        Self { xml, buffer: Vec::new(), limits, nodes: 0, open: 0, namespaces: Vec::new() }
    }

    /// The next element in the one that is open, without what is in it: it is open now. `None` at
    /// the end of the one that was; that is closed then.
    pub fn enter(&mut self) -> Result<Option<Element>, XmlError> {
        self.nodes = 0;
        loop {
            match self.next()? {
                Token::Start(element) => {
                    self.deeper(0)?;
                    return Ok(Some(element));
                }
                Token::End => {
                    self.open = self.open.saturating_sub(1);
                    return Ok(None);
                }
                Token::Eof if self.open == 0 => return Ok(None),
                Token::Eof => return Err(ended()),
                Token::Text(_) => {}
            }
        }
    }

    /// The next element in the one that is open, whole. `None` at the end of the one that is open;
    /// that is closed then.
    pub fn child(&mut self) -> Result<Option<Element>, XmlError> {
        match self.enter()? {
            Some(element) => self.rest(element).map(Some),
            None => Ok(None),
        }
    }

    /// The element that was entered last, with what is in it; it is closed then.
    pub fn rest(&mut self, element: Element) -> Result<Element, XmlError> {
        let mut outer: Vec<Element> = Vec::new();
        let mut inner = element;
        loop {
            match self.next()? {
                Token::Start(element) => {
                    self.deeper(outer.len())?;
                    outer.push(std::mem::replace(&mut inner, element));
                }
                Token::Text(text) => {
                    // What is in several pieces, for a reference in it, is one text.
                    match inner.children.last_mut() {
                        Some(Node::Text(before)) => before.push_str(&text),
                        _ => inner.children.push(Node::Text(text)),
                    }
                }
                Token::End => {
                    self.open = self.open.saturating_sub(1);
                    drop_white_space(&mut inner.children);
                    let Some(mut parent) = outer.pop() else { return Ok(inner) };
                    std::mem::swap(&mut parent, &mut inner);
                    inner.children.push(Node::Element(parent));
                }
                Token::Eof => return Err(ended()),
            }
        }
    }

    fn deeper(&mut self, within: usize) -> Result<(), XmlError> {
        self.open += 1;
        match within < self.limits.depth && self.open <= self.limits.depth + 8 {
            true => Ok(()),
            false => Err(XmlError::TooLarge("elements are too deep in each other")),
        }
    }

    fn next(&mut self) -> Result<Token, XmlError> {
        loop {
            self.buffer.clear();
            self.xml.get_mut().token = self.limits.token;
            let mut buffer = std::mem::take(&mut self.buffer);
            let token = match self.xml.read_event_into(&mut buffer).map_err(failed)? {
                Event::Start(start) => {
                    let element = self.element(&start)?;
                    self.nodes += 1 + element.attributes.len();
                    Some(Token::Start(element))
                }
                Event::End(_) => Some(Token::End),
                Event::Text(text) => Some(Token::Text(text.xml10_content().into_owned())),
                Event::CData(text) => Some(Token::Text(text.xml10_content().into_owned())),
                Event::GeneralRef(named) => {
                    let meant = match named.resolve_char_ref().map_err(failed)? {
                        Some(meant) => meant.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(&named)
                            .ok_or_else(|| XmlError::Malformed("it names an entity".into()))?
                            .to_owned(),
                    };
                    Some(Token::Text(meant))
                }
                Event::DocType(_) => return Err(XmlError::Dtd),
                Event::Eof => Some(Token::Eof),
                Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
            };
            self.buffer = buffer;
            if let Some(token) = token {
                self.nodes += 1;
                if self.nodes > self.limits.nodes {
                    return Err(XmlError::TooLarge("it has too many elements in one part"));
                }
                return Ok(token);
            }
        }
    }

    fn element(&mut self, start: &BytesStart<'_>) -> Result<Element, XmlError> {
        let (namespace, name) = self.xml.resolver().resolve_element(start.name());
        let name = name.as_ref().into();
        let namespace = bound(namespace)?.to_owned();
        let mut element =
            Element { namespace: self.shared(&namespace), name, ..Element::default() };
        for attribute in start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| XmlError::Malformed(error.to_string()))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (namespace, name) = self.xml.resolver().resolve_attribute(attribute.key);
            let name: Box<str> = name.as_ref().into();
            let namespace = bound(namespace)?.to_owned();
            let namespace = self.shared(&namespace);
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(failed)?;
            let twice = element
                .attributes
                .iter()
                .any(|other| other.name == name && other.namespace == namespace);
            if twice {
                return Err(XmlError::Malformed(format!("the attribute {name} is there twice")));
            }
            if element.attributes.len() == ATTRIBUTES {
                return Err(XmlError::TooLarge("an element has too many attributes"));
            }
            element.attributes.push(Attribute { namespace, name, value: value.into_owned() });
        }
        Ok(element)
    }

    /// The same text as before, where it was seen before: a few namespaces are those of all
    /// elements.
    fn shared(&mut self, namespace: &str) -> Arc<str> {
        if namespace.is_empty() {
            return Arc::default();
        }
        if let Some(known) = self.namespaces.iter().find(|known| &***known == namespace) {
            return known.clone();
        }
        let new: Arc<str> = namespace.into();
        if self.namespaces.len() < NAMESPACES {
            self.namespaces.push(new.clone());
        }
        new
    }
}

/// The document in `text`, as a tree.
pub fn parse(text: &str) -> Result<Element, XmlError> {
    let mut reader = Reader::new(text.as_bytes(), Limits::default());
    let root = reader.child()?.ok_or_else(|| XmlError::Malformed("it is empty".into()))?;
    match reader.child()? {
        None => Ok(root),
        Some(_) => Err(XmlError::Malformed("it has two roots".into())),
    }
}

fn drop_white_space(children: &mut Vec<Node>) {
    let is_white = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    children.retain(|node| match node {
        Node::Text(text) => !text.chars().all(is_white),
        Node::Element(_) => true,
    });
}

fn bound<'a>(resolved: ResolveResult<'a>) -> Result<&'a str, XmlError> {
    match resolved {
        ResolveResult::Unbound => Ok(""),
        ResolveResult::Bound(namespace) => Ok(namespace.0),
        ResolveResult::Unknown(prefix) => {
            let prefix: String = prefix.chars().take(40).collect();
            Err(XmlError::Malformed(format!("no namespace has the prefix {prefix:?}")))
        }
    }
}

fn ended() -> XmlError {
    XmlError::Malformed("it ends within an element".into())
}

fn failed(error: quick_xml::Error) -> XmlError {
    match error {
        quick_xml::Error::Io(error) => {
            let too_large = error.get_ref().and_then(|it| it.downcast_ref::<Spent>());
            match too_large {
                Some(Spent(what)) => XmlError::TooLarge(what),
                None => XmlError::Io(error),
            }
        }
        error => XmlError::Malformed(error.to_string().chars().take(200).collect()),
    }
}

/// More bytes than are taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Spent(&'static str);

/// Passes on at most so many bytes, of all and of one token.
struct Metered<R> {
    from: R,
    token: u64,
    all: u64,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(to.len());
        to[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let spent = match (self.token, self.all) {
            (0, _) => Some("one tag or text is too long"),
            (_, 0) => Some("the document is too long"),
            _ => None,
        };
        let available = self.from.fill_buf()?;
        match spent {
            // The end is fine; one byte more is not.
            Some(what) if !available.is_empty() => {
                Err(io::Error::new(io::ErrorKind::InvalidData, Spent(what)))
            }
            _ => {
                let most = usize::try_from(self.token.min(self.all)).unwrap_or(usize::MAX);
                Ok(&available[..available.len().min(most)])
            }
        }
    }

    fn consume(&mut self, n: usize) {
        self.token = self.token.saturating_sub(n as u64);
        self.all = self.all.saturating_sub(n as u64);
        self.from.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn namespaces_references_and_pieces_of_text_are_resolved() {
        let text = "\u{feff}<?xml version='1.0'?><a:r xmlns:a='urn:a' xmlns='urn:d'><x a:k='1' k=\"&lt;&#10;\"/> \
                    <a:y>1 &amp; <![CDATA[<2>]]><!-- no --> 3</a:y></a:r>";
        let root = parse(text).unwrap();
        assert_eq!((&*root.namespace, &*root.name), ("urn:a", "r"));
        let x = root.child("x").unwrap();
        assert_eq!(&*x.namespace, "urn:d");
        assert_eq!(x.attribute("k"), Some("<\n"));
        assert_eq!(&*x.attributes[0].namespace, "urn:a");
        assert_eq!(root.child("y").unwrap().text(), "1 & <2> 3");
        assert_eq!(root.children.len(), 2, "white space between elements is nothing");
    }

    #[test]
    fn what_is_hostile_is_refused() {
        let dtd = "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><r>&a;</r>";
        assert!(matches!(parse(dtd), Err(XmlError::Dtd)));
        assert!(matches!(parse("<r>&a;</r>"), Err(XmlError::Malformed(_))));
        let deep = format!("{}{}", "<a>".repeat(5000), "</a>".repeat(5000));
        assert!(matches!(parse(&deep), Err(XmlError::TooLarge(_))));
        let long = format!("<a b='{}'/>", "x".repeat(5 << 20));
        assert!(matches!(parse(&long), Err(XmlError::TooLarge(_))));
        let many = format!("<r>{}</r>", "<a/>".repeat(500_000));
        assert!(matches!(parse(&many), Err(XmlError::TooLarge(_))));
        let wide: String = (0..300).map(|n| format!(" a{n}=''")).collect();
        assert!(matches!(parse(&format!("<r{wide}/>")), Err(XmlError::TooLarge(_))));
        let attributes = "<r xmlns:a='urn:a' xmlns:b='urn:a' a:x='' b:x=''/>";
        for wrong in ["", "<a>", "<a></b>", "<a/><b/>", "<p:a/>", "<a b='' b=''/>", attributes] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let limits = Limits { bytes: 20, ..Limits::default() };
        let mut reader = Reader::new("<r><a/><a/><a/><a/></r>".as_bytes(), limits);
        reader.enter().unwrap();
        let error = std::iter::repeat_with(|| reader.child()).find_map(Result::err).unwrap();
        assert!(matches!(error, XmlError::TooLarge(_)), "{error}");
    }

    #[test]
    fn a_long_document_is_read_part_by_part() {
        let text = format!("<r><h/><list>{}</list><end/></r>", "<a><b>1</b></a>".repeat(100_000));
        let mut reader = Reader::new(text.as_bytes(), Limits::default());
        assert_eq!(&*reader.enter().unwrap().unwrap().name, "r");
        assert_eq!(&*reader.child().unwrap().unwrap().name, "h");
        assert_eq!(&*reader.enter().unwrap().unwrap().name, "list");
        let mut parts = 0;
        while let Some(part) = reader.child().unwrap() {
            assert_eq!(part.text_of("b").as_deref(), Some("1"));
            parts += 1;
        }
        assert_eq!(parts, 100_000);
        assert_eq!(&*reader.child().unwrap().unwrap().name, "end");
        assert!(reader.child().unwrap().is_none());
        assert!(reader.child().unwrap().is_none(), "the document is at its end");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in "[<>/a-c:'\"=& ;!\\[\\]?-]{0,60}") {
            let _ = parse(&text);
        }
    }
}

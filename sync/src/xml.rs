//! XML of upstreams, element by element, and small trees of it.
//!
//! Catalogues of Microsoft's kind are XML of tens of megabytes whose parts are small. So a
//! [`Reader`] goes through a document and gives one part after another as a tree, [`Element`], in
//! which namespaces are resolved. No document type definition is read, no entity but the five of
//! XML is known, and depth, nodes and bytes are bounded.

mod read;
mod write;

pub use read::{Limits, Reader, parse};
pub use write::Unwritable;

use crate::error::{Cause, SyncError};
use std::sync::Arc;

/// An element with what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Element {
    /// Its namespace; empty, where it is in none.
    pub namespace: Arc<str>,
    /// Its name, without a prefix.
    pub name: Box<str>,
    /// Its attributes, in order; declarations of namespaces are none.
    pub attributes: Vec<Attribute>,
    /// What is in it: elements and text that is more than white space.
    pub children: Vec<Node>,
}

/// An attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its namespace; empty, as almost always.
    pub namespace: Arc<str>,
    /// Its name, without a prefix.
    pub name: Box<str>,
    /// Its value, as it was meant.
    pub value: String,
}

/// What stands in an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// Text.
    Text(String),
}

/// Why XML could not be read.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Deeper, more or larger than is taken.
    #[error("it is larger than is taken: {0}")]
    TooLarge(&'static str),
    /// It has a document type definition, which none of these formats has.
    #[error("it has a document type definition, which is not read")]
    Dtd,
    /// It is no XML.
    #[error("it is no well-formed XML: {0}")]
    Malformed(String),
    /// The bytes of it could not be had.
    #[error("it could not be read")]
    Io(#[source] std::sync::Arc<std::io::Error>),
}

impl XmlError {
    /// The same as a failure of a sync, told of `what`.
    pub fn of(self, what: impl std::fmt::Display) -> SyncError {
        let cause = match &self {
            Self::TooLarge(_) => Cause::TooLarge,
            Self::Dtd | Self::Malformed(_) => Cause::Malformed,
            Self::Io(error)
                if error.get_ref().is_some_and(|it| it.is::<crate::unpack::TooMuch>()) =>
            {
                Cause::TooLarge
            }
            Self::Io(_) => Cause::Malformed,
        };
        SyncError::because(cause, format!("{what} cannot be read"), self)
    }
}

impl Element {
    /// An empty one.
    pub fn new(namespace: impl Into<Arc<str>>, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into(), ..Self::default() }
    }

    /// The same with an attribute in no namespace.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.push(Attribute {
            namespace: Arc::default(),
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// The same with an attribute, if there is a value.
    pub fn with_some(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same with text at the end of it; none, if it is empty.
    pub fn saying(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.children.push(Node::Text(text));
        }
        self
    }

    /// The same with an element at the end of it.
    pub fn holding(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    /// The same with elements at the end of it.
    pub fn holding_all(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// The value of an attribute in no namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        let found = all.find(|it| &*it.name == name && it.namespace.is_empty());
        found.map(|it| it.value.as_str())
    }

    /// The elements in it.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The elements in it of that name, whatever their namespace.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements().filter(move |element| &*element.name == name)
    }

    /// The first of them.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.elements().find(|element| &*element.name == name)
    }

    /// The text in it, without that of elements in it and without white space around it.
    pub fn text(&self) -> String {
        let text: String = self
            .children
            .iter()
            .filter_map(|node| match node {
                Node::Text(text) => Some(text.as_str()),
                Node::Element(_) => None,
            })
            .collect();
        text.trim().to_owned()
    }

    /// The text of the first element in it of that name, if there is any.
    pub fn text_of(&self, name: &str) -> Option<String> {
        self.child(name).map(Element::text).filter(|text| !text.is_empty())
    }
}

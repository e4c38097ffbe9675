//! Writing trees as XML that reads back as the same trees.

use super::{Element, Node};
use std::fmt::Write as _;

/// Something that XML cannot say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// Text that is no name.
    #[error("{0:?} is no name in XML")]
    Name(String),
    /// A character that XML 1.0 has not, not even as a reference.
    #[error("XML cannot say the character {:#x}", u32::from(*.0))]
    Character(char),
}

impl Element {
    /// This element as a document. All namespaces are declared at its root, with the prefix that
    /// `prefixes` has for them, or another one; white space is added nowhere.
    ///
    /// # Errors
    /// A name is none, or a text has a character that XML cannot say.
    pub fn to_xml(&self, prefixes: &[(&str, &str)]) -> Result<String, Unwritable> {
        let mut declared: Vec<(&str, String)> = Vec::new();
        self.declare(prefixes, &mut declared);
        let mut out = String::new();
        self.put(&declared, true, &mut out)?;
        Ok(out)
    }

    fn declare<'a>(&'a self, prefixes: &[(&str, &str)], declared: &mut Vec<(&'a str, String)>) {
        let attributes = self.attributes.iter().map(|attribute| &*attribute.namespace);
        for namespace in std::iter::once(&*self.namespace).chain(attributes) {
            if namespace.is_empty() || declared.iter().any(|(known, _)| *known == namespace) {
                continue;
            }
            let wished = prefixes.iter().find(|(of, _)| *of == namespace).map(|(_, it)| *it);
            let is_free = |prefix: &&str| declared.iter().all(|(_, taken)| taken != prefix);
            let prefix = match wished.filter(is_free) {
                _ if namespace == "http://www.w3.org/XML/1998/namespace" => "xml".into(),
                Some(prefix) => prefix.to_owned(),
                None => format!("ns{}", declared.len()),
            };
            declared.push((namespace, prefix));
        }
        for child in self.elements() {
            child.declare(prefixes, declared);
        }
    }

    fn put(
        &self,
        declared: &[(&str, String)],
        is_root: bool,
        out: &mut String,
    ) -> Result<(), Unwritable> {
        let name = qualified(declared, &self.namespace, &self.name)?;
        out.push('<');
        out.push_str(&name);
        if is_root {
            for (namespace, prefix) in declared.iter().filter(|(_, prefix)| prefix != "xml") {
                let _ = write!(out, " xmlns:{prefix}=\"");
                escape(namespace, out)?;
                out.push('"');
            }
        }
        for attribute in &self.attributes {
            out.push(' ');
            out.push_str(&qualified(declared, &attribute.namespace, &attribute.name)?);
            out.push_str("=\"");
            escape(&attribute.value, out)?;
            out.push('"');
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return Ok(());
        }
        out.push('>');
        for node in &self.children {
            match node {
                Node::Element(child) => child.put(declared, false, out)?,
                Node::Text(text) => escape(text, out)?,
            }
        }
        let _ = write!(out, "</{name}>");
        Ok(())
    }
}

fn qualified(
    declared: &[(&str, String)],
    namespace: &str,
    name: &str,
) -> Result<String, Unwritable> {
    let first = |c: char| c.is_alphabetic() || c == '_';
    let later = |c: char| first(c) || c.is_ascii_digit() || c == '-' || c == '.';
    if !name.starts_with(first) || !name.chars().all(later) {
        return Err(Unwritable::Name(name.chars().take(100).collect()));
    }
    let prefix = declared.iter().find(|(known, _)| *known == namespace).map(|(_, prefix)| prefix);
    Ok(match prefix {
        Some(prefix) => format!("{prefix}:{name}"),
        None => name.to_owned(),
    })
}

/// Adds `text` so that it reads back the same as text and as the value of an attribute.
fn escape(text: &str, out: &mut String) -> Result<(), Unwritable> {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // As they are, they would be read as a space, or as the end of a line.
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => return Err(Unwritable::Character(c)),
            c => out.push(c),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let mut root = Element::new("urn:a", "r")
            .with("k", "<\"&'\n\t\r> ä\u{1f600}")
            .holding(Element::new("urn:b", "x").saying(" a\r\n<b> "))
            .holding(Element::new("", "y").with("z", ""));
        root.attributes.push(super::super::Attribute {
            namespace: "urn:c".into(),
            name: "type".into(),
            value: "v".into(),
        });
        let text = root.to_xml(&[("urn:b", "b")]).unwrap();
        assert!(text.contains("<b:x>") && text.contains("xmlns:ns0=\"urn:a\""), "{text}");
        assert_eq!(parse(&text).unwrap(), root);
    }

    #[test]
    fn what_xml_cannot_say_is_an_error() {
        let wrong = Element::new("", "a b").to_xml(&[]);
        assert_eq!(wrong, Err(Unwritable::Name("a b".into())));
        let wrong = Element::new("", "a").with("k", "\u{1}").to_xml(&[]);
        assert_eq!(wrong, Err(Unwritable::Character('\u{1}')));
    }
}

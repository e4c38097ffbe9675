//! Paths inside a package: what may name an entry, and how such bytes are shown to people.
//!
//! Linux file names are bytes, and a package keeps them exactly. What a path must never do is lead
//! out of the tree it belongs to; so every path is checked once, where it enters.
//!
//! Always true of a path that [`check`] passed: relative, 1 to [`MAX_PATH`] bytes, each name
//! between slashes 1 to [`MAX_NAME`] bytes and neither `.` nor `..`, no NUL.

use std::fmt;
use std::str::FromStr;

/// The longest path of an entry, in bytes.
pub const MAX_PATH: usize = 4096;
/// The longest name between two slashes, in bytes; that of Linux file systems.
pub const MAX_NAME: usize = 255;

/// Why some bytes are no path of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPath {
    /// No bytes.
    #[error("the path is empty")]
    Empty,
    /// More than [`MAX_PATH`] bytes.
    #[error("the path is {0} bytes long; at most {MAX_PATH} are allowed")]
    TooLong(usize),
    /// It starts at the root.
    #[error("the path is absolute; it must be relative to the package")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty name between or after slashes")]
    EmptyName,
    /// A name of more than [`MAX_NAME`] bytes.
    #[error("a name in the path is {0} bytes long; at most {MAX_NAME} are allowed")]
    LongName(usize),
    /// `.` or `..`.
    #[error("the path has a `.` or `..` in it")]
    Dots,
    /// A zero byte.
    #[error("the path has a zero byte in it")]
    Nul,
}

/// Whether `path` may name an entry; see the module header.
pub fn check(path: &[u8]) -> Result<(), BadPath> {
    match path.first() {
        None => return Err(BadPath::Empty),
        Some(b'/') => return Err(BadPath::Absolute),
        Some(_) if path.len() > MAX_PATH => return Err(BadPath::TooLong(path.len())),
        Some(_) => {}
    }
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" => return Err(BadPath::EmptyName),
            b"." | b".." => return Err(BadPath::Dots),
            _ if name.len() > MAX_NAME => return Err(BadPath::LongName(name.len())),
            _ if name.contains(&0) => return Err(BadPath::Nul),
            _ => {}
        }
    }
    Ok(())
}

/// The folder that `path` lies in, or no bytes for the top folder; and the name in it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The first name of `path`: the entry at the top that it is, or lies in.
pub(crate) fn top_name(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').next().unwrap_or_default()
}

/// `folder` and `name` joined; the name alone in the top folder.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"" => name.to_vec(),
        _ => [folder, b"/", name].concat(),
    }
}

/// The path of an entry, owned; in text and JSON as [`Shown`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// Takes bytes that [`check`] passes.
    pub fn new(path: &[u8]) -> Result<Self, BadPath> {
        check(path).map(|()| Self(path.into()))
    }

    /// Takes a path that came out of a manifest or a walk, where it was checked.
    pub(crate) fn of_checked(path: &[u8]) -> Self {
        Self(path.into())
    }

    /// The exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Text that stands for no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPathText {
    /// A backslash that starts none of the escapes.
    #[error(r"after a backslash only `\` or `x` and two hex digits may follow")]
    Escape,
    /// The bytes it stands for are no path.
    #[error(transparent)]
    Path(#[from] BadPath),
}

impl FromStr for TreePath {
    type Err = BadPathText;
    fn from_str(text: &str) -> Result<Self, BadPathText> {
        Ok(Self::new(&unescape(text).ok_or(BadPathText::Escape)?)?)
    }
}

impl serde::Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TreePath {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// File-name bytes as text that a terminal survives and that reads back exactly.
///
/// UTF-8 stands for itself. A backslash is `\\`; control characters and bytes that are not UTF-8
/// are `\x` and two lower-case hex digits a byte.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\\' => f.write_str(r"\\")?,
                    c if c.is_control() => {
                        c.encode_utf8(&mut [0; 4])
                            .bytes()
                            .try_for_each(|b| write!(f, r"\x{b:02x}"))?;
                    }
                    c => fmt::Write::write_char(f, c)?,
                }
            }
            part.invalid().iter().try_for_each(|b| write!(f, r"\x{b:02x}"))?;
        }
        Ok(())
    }
}

/// The bytes that `text`, written by [`Shown`], stands for; `None` for an escape of another kind.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        match part.strip_prefix('x') {
            Some(rest) => {
                let (hex, rest) = rest.split_at_checked(2)?;
                // `from_str_radix` alone would take a sign.
                let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
                out.push(u8::from_str_radix(hex, 16).ok().filter(|_| digits)?);
                out.extend_from_slice(rest.as_bytes());
            }
            None if part.is_empty() => {
                out.push(b'\\');
                out.extend_from_slice(parts.next()?.as_bytes());
            }
            None => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_names_are_paths() {
        for path in [&b"a"[..], b"a/b", b".hidden", b"...", b"new\nline", b"\xff\xfe", b"a b/ c "] {
            assert_eq!(check(path), Ok(()), "{}", Shown(path));
        }
        assert_eq!(check(&[b'n'; MAX_NAME]), Ok(()));
    }

    #[test]
    fn what_leads_elsewhere_is_none() {
        let long_name = [b'n'; MAX_NAME + 1];
        let long_path = b"n/".repeat(MAX_PATH);
        let cases: [(&[u8], BadPath); 10] = [
            (b"", BadPath::Empty),
            (b"/etc", BadPath::Absolute),
            (b"a//b", BadPath::EmptyName),
            (b"a/", BadPath::EmptyName),
            (b".", BadPath::Dots),
            (b"a/../b", BadPath::Dots),
            (b"..", BadPath::Dots),
            (b"a\0b", BadPath::Nul),
            (&long_name, BadPath::LongName(MAX_NAME + 1)),
            (&long_path, BadPath::TooLong(2 * MAX_PATH)),
        ];
        for (path, why) in cases {
            assert_eq!(check(path), Err(why));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_escapes() {
        assert_eq!(Shown(b"a\n\xff\\\xc3\xa9").to_string(), r"a\x0a\xff\\é");
        for bad in [r"\", r"\x", r"\x0", r"\x+1", r"\n", r"a\é"] {
            assert_eq!(bad.parse::<TreePath>(), Err(BadPathText::Escape), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unescape(&Shown(&bytes).to_string()), Some(bytes));
        }
    }
}

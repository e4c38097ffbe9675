//! Files on demand: files of a version whose bytes come when somebody asks for them first.
//!
//! A version that has such files lists them in a file of its own tree, [`LIST`], so the list is signed,
//! stored, copied and kept as every file is. The manifest names the other files. A file on demand is found
//! by its path in the list, which states its SHA-256, and by that in the library, once it has come. What the
//! list states never changes, so a version is the same before and after.
//!
//! `packager/FORMAT.md`, "Files on demand".

use crate::path;
use std::fmt::Write;

/// The file at the top of a tree that lists the files on demand.
pub const LIST: &str = ".depot-on-demand";
/// The longest list that is read, in bytes.
pub const MAX_LIST: u64 = 256 << 20;

const HEAD: &str = "depot on demand 1\n";
/// The longest size in a list: 19 digits.
const MAX_DIGITS: usize = 19;
/// The longest address of a file at its upstream.
const MAX_FROM: usize = 4096;

/// One file on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// Where it lies in the version.
    pub path: &'a [u8],
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    /// Where its upstream has it, if that is not at the same path.
    pub from: Option<&'a str>,
}

impl Waiting<'_> {
    /// The name that it has in a library, once it has come.
    pub fn name(&self) -> contentlib::Name {
        contentlib::Name::Sha256(self.sha256)
    }
}

/// A list of files on demand: as it lies in the library, in the byte order of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDemand {
    text: Vec<u8>,
    /// Where each line begins.
    lines: Vec<u32>,
    bytes: u64,
}

/// Bytes that are no list of files on demand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the list of files on demand {why}")]
pub struct NotAList {
    line: usize,
    why: &'static str,
}

impl OnDemand {
    /// Reads a list. There is one encoding of it alone.
    pub fn parse(text: Vec<u8>) -> Result<Self, NotAList> {
        let wrong = |line, why| NotAList { line, why };
        if !text.starts_with(HEAD.as_bytes()) {
            return Err(wrong(1, "is of another kind, or of a newer depot"));
        }
        if text.last() != Some(&b'\n') {
            return Err(wrong(1, "is the last that is whole: the list was cut off"));
        }
        if text.len() as u64 > MAX_LIST {
            return Err(wrong(1, "begins a list that is too long"));
        }
        let (mut lines, mut bytes) = (Vec::new(), 0u64);
        let mut at = HEAD.len();
        let mut before: &[u8] = b"";
        while at < text.len() {
            let n = lines.len() + 2;
            let waiting = line_at(&text, at).map_err(|why| wrong(n, why))?;
            if waiting.path <= before {
                return Err(wrong(n, "is not in order"));
            }
            before = waiting.path;
            bytes = bytes.saturating_add(waiting.size);
            // The limit of the text is below that of the number.
            lines.push(at as u32);
            at += text[at..].iter().position(|&b| b == b'\n').unwrap_or(text.len()) + 1;
        }
        Ok(Self { text, lines, bytes })
    }

    /// The list as it is stored.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The sizes of its files together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = Waiting<'_>> {
        (0..self.len()).map(|at| self.at(at))
    }

    /// The file at `path`.
    pub fn lookup(&self, path: &[u8]) -> Option<Waiting<'_>> {
        let found = self.lines.binary_search_by(|line| self.line(*line).path.cmp(path));
        found.ok().map(|at| self.at(at))
    }

    /// What lies right in `folder` (empty: the top): names, and the file of each that is one; nothing if it
    /// is a folder. In the order of the names, each once.
    pub fn children(&self, folder: &[u8]) -> Vec<(&[u8], Option<Waiting<'_>>)> {
        let inside = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let first = self.lines.partition_point(|line| *self.line(*line).path < *inside);
        let mut children: Vec<(&[u8], Option<Waiting<'_>>)> = Vec::new();
        for line in self.lines.iter().skip(first) {
            let waiting = self.line(*line);
            let Some(rest) = waiting.path.strip_prefix(inside.as_slice()) else { break };
            match rest.iter().position(|&b| b == b'/') {
                None => children.push((rest, Some(waiting))),
                Some(end) => {
                    let name = &rest[..end];
                    if children.last().is_none_or(|(last, _)| *last != name) {
                        children.push((name, None));
                    }
                }
            }
        }
        // `a-b` comes between the folder `a` and what lies in it.
        children.sort_by(|a, b| a.0.cmp(b.0));
        children.dedup_by(|a, b| a.0 == b.0);
        children
    }

    fn at(&self, at: usize) -> Waiting<'_> {
        self.line(self.lines[at])
    }

    fn line(&self, at: u32) -> Waiting<'_> {
        line_at(&self.text, at as usize).expect("it was read before")
    }
}

/// The file of the line that begins at `at`.
fn line_at(text: &[u8], at: usize) -> Result<Waiting<'_>, &'static str> {
    let line = text.get(at..).unwrap_or_default().split(|&b| b == b'\n').next().unwrap_or_default();
    let mut parts = line.split(|&b| b == b'\t');
    let mut part = || parts.next().ok_or("has too few parts");
    let (hex, size, path) = (part()?, part()?, part()?);
    let from = parts.next();
    if parts.next().is_some() {
        return Err("has too many parts");
    }
    let text_of = |bytes| std::str::from_utf8(bytes).map_err(|_| "is no text where it must be");
    let name = format!("sha256:{}", text_of(hex)?).parse();
    let Ok(contentlib::Name::Sha256(sha256)) = name else { return Err("has no SHA-256") };
    let digits = size.iter().all(u8::is_ascii_digit) && size.len() <= MAX_DIGITS;
    let is_short = size == b"0" || size.first().is_some_and(|first| *first != b'0');
    let size: Option<u64> = text_of(size)?.parse().ok();
    let size = size.filter(|_| digits && is_short).ok_or("has no size")?;
    path::check(path).map_err(|_| "has a path that is none")?;
    let from = from.map(text_of).transpose()?;
    if from.is_some_and(|from| from.is_empty() || from.len() > MAX_FROM) {
        return Err("has an address that is none");
    }
    Ok(Waiting { path, size, sha256, from })
}

/// Writes a list, path after path.
#[derive(Debug)]
pub(crate) struct ListWriter(String);

impl ListWriter {
    pub fn new() -> Self {
        Self(HEAD.to_owned())
    }

    /// Adds a file. Its path is text and has no control character in it: see [`can_wait`].
    pub fn push(&mut self, path: &str, file: &super::compose::OnDemandFile) {
        let name = contentlib::Name::Sha256(file.sha256).to_string();
        let hex = name.strip_prefix("sha256:").unwrap_or_default();
        let written = match &file.from {
            Some(from) => writeln!(self.0, "{hex}\t{}\t{path}\t{from}", file.size),
            None => writeln!(self.0, "{hex}\t{}\t{path}", file.size),
        };
        written.expect("writing to a string does not fail");
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Whether a list can have that path, and that address.
pub(crate) fn can_wait(path: &[u8], from: Option<&str>) -> bool {
    let is_plain = |text: &str| !text.is_empty() && !text.contains(char::is_control);
    std::str::from_utf8(path).is_ok_and(is_plain)
        && from.is_none_or(|from| is_plain(from) && from.len() <= MAX_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::OnDemandFile;
    use proptest::prelude::*;

    fn list(files: &[(&str, Option<&str>)]) -> OnDemand {
        let mut writer = ListWriter::new();
        for (path, from) in files {
            let from = from.map(str::to_owned);
            writer.push(path, &OnDemandFile { size: path.len() as u64, sha256: [7; 32], from });
        }
        OnDemand::parse(writer.done()).unwrap()
    }

    #[test]
    fn a_file_is_found_by_its_path() {
        let list = list(&[("a b/x", None), ("pool/a.deb", Some("http://cdn/a.deb")), ("z", None)]);
        assert_eq!((list.len(), list.bytes()), (3, 16));
        let found = list.lookup(b"pool/a.deb").unwrap();
        assert_eq!((found.size, found.from), (10, Some("http://cdn/a.deb")));
        assert_eq!(list.lookup(b"a b/x").unwrap().from, None);
        assert!(list.lookup(b"pool").is_none() && list.lookup(b"").is_none());
    }

    #[test]
    fn a_folder_has_its_names_once() {
        let list = list(&[("a-b", None), ("a/x/1", None), ("a/x/2", None), ("a/y", None)]);
        let names = |folder: &[u8]| -> Vec<(String, bool)> {
            let children = list.children(folder).into_iter();
            children
                .map(|(name, file)| (String::from_utf8_lossy(name).into(), file.is_some()))
                .collect()
        };
        assert_eq!(names(b""), [("a".into(), false), ("a-b".into(), true)]);
        assert_eq!(names(b"a"), [("x".into(), false), ("y".into(), true)]);
        assert_eq!(names(b"a/y"), []);
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_line() {
        let hex = "a".repeat(64);
        for (text, said) in [
            ("".to_owned(), "line 1"),
            ("depot on demand 2\n".to_owned(), "line 1"),
            (format!("{HEAD}{hex}\t1\ta"), "cut off"),
            (format!("{HEAD}{hex}\t1\tb\n{hex}\t1\ta\n"), "line 3"),
            (format!("{HEAD}{hex}\t1\ta\n{hex}\t1\ta\n"), "order"),
            (format!("{HEAD}{hex}\t01\ta\n"), "size"),
            (format!("{HEAD}{hex}\t-1\ta\n"), "size"),
            (format!("{HEAD}{hex}\t1\t../a\n"), "path"),
            (format!("{HEAD}{hex}\t1\t/a\n"), "path"),
            (format!("{HEAD}{hex}\t1\n"), "too few"),
            (format!("{HEAD}{hex}\t1\ta\tb\tc\n"), "too many"),
            (format!("{HEAD}xyz\t1\ta\n"), "SHA-256"),
        ] {
            let error = OnDemand::parse(text.clone().into_bytes()).unwrap_err();
            assert!(error.to_string().contains(said), "{text:?}: {error}");
        }
        assert!(OnDemand::parse(HEAD.into()).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = OnDemand::parse(bytes.clone());
            let behind = [HEAD.as_bytes(), &bytes, b"\n"].concat();
            if let Ok(list) = OnDemand::parse(behind) {
                prop_assert!(list.files().all(|file| list.lookup(file.path) == Some(file)));
            }
        }
    }
}

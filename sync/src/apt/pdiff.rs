//! Pdiffs: patches that lead from an older index to the current one.
//!
//! `Packages.diff/Index` names the state that is current, older states, and patches as scripts of `ed`. A
//! script changes lines from the last to the first, so that its line numbers are those of the old file;
//! turned around it is applied to a stream, in memory for the patch alone.

use super::deb822::{self, Broken, Stanza};
use crate::digests::{Algorithm, Digests};
use crate::mirror::RepoPath;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// The largest script that is taken, in bytes.
pub const MAX_SCRIPT: u64 = 64 << 20;
/// How many patches are applied one after the other; more are slower than the index itself.
pub const MAX_PATCHES: usize = 40;
/// How many states an Index may name.
const MAX_STATES: usize = 10_000;

/// Size and digests of something that the Index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Bytes.
    pub size: u64,
    /// Digests.
    pub digests: Digests,
}

/// A patch, as it is to be brought and as it then is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its name; with `.gz` behind it that of its file.
    pub name: String,
    /// Its file.
    pub packed: Stated,
    /// Its script.
    pub plain: Stated,
}

/// A `Packages.diff/Index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What the index is like when all is applied.
    pub current: Stated,
    /// Older states, the oldest first, and the patch that leads on from each.
    history: Vec<(Stated, String)>,
    patches: BTreeMap<String, (Stated, Stated)>,
    /// Whether one patch leads from any state to the current one.
    is_merged: bool,
}

/// Bytes that are no such Index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no index of patches: {0}")]
pub struct NotAnIndex(String);

impl From<Broken> for NotAnIndex {
    fn from(broken: Broken) -> Self {
        Self(broken.to_string())
    }
}

impl Index {
    /// Reads one.
    pub fn parse(text: &[u8]) -> Result<Self, NotAnIndex> {
        deb822::single(text, |stanza| Self::of(&stanza))?
    }

    fn of(stanza: &Stanza<'_>) -> Result<Self, NotAnIndex> {
        let list = |kind: &str| list(stanza, kind);
        let current = stanza.get("SHA256-Current").unwrap_or_default();
        let (current, _) = entry(current, false)?;
        let packed: BTreeMap<String, Stated> =
            list("SHA256-Download")?.into_iter().map(|(stated, name)| (name, stated)).collect();
        let mut patches = BTreeMap::new();
        for (plain, name) in list("SHA256-Patches")? {
            if let Some(packed) = packed.get(&format!("{name}.gz")) {
                patches.insert(name, (packed.clone(), plain));
            }
        }
        Ok(Self {
            current,
            history: list("SHA256-History")?,
            patches,
            is_merged: stanza.get("X-Patch-Precedence") == Some("merged"),
        })
    }

    /// The patches that lead from the state with `old` digests to the current one, in order; none where
    /// they are not all there, or too many.
    pub fn way(&self, old: &Digests) -> Option<Vec<Patch>> {
        let hex = old.get(Algorithm::Sha256)?;
        let is_old =
            |(stated, _): &(Stated, String)| stated.digests.get(Algorithm::Sha256) == Some(hex);
        let at = self.history.iter().position(is_old)?;
        let steps = self.history.get(at..)?;
        let steps = steps.get(..if self.is_merged { 1 } else { steps.len() })?;
        if steps.len() > MAX_PATCHES {
            return None;
        }
        let patch = |(_, name): &(Stated, String)| {
            let (packed, plain) = self.patches.get(name)?.clone();
            (plain.size <= MAX_SCRIPT).then(|| Patch { name: name.clone(), packed, plain })
        };
        steps.iter().map(patch).collect()
    }
}

fn list(stanza: &Stanza<'_>, kind: &str) -> Result<Vec<(Stated, String)>, NotAnIndex> {
    let found: Result<Vec<_>, _> =
        stanza.lines(kind).take(MAX_STATES + 1).map(|line| entry(line, true)).collect();
    let found = found?;
    match found.len() > MAX_STATES {
        true => Err(NotAnIndex(format!("{kind} has more than {MAX_STATES} lines"))),
        false => Ok(found),
    }
}

fn entry(line: &str, is_named: bool) -> Result<(Stated, String), NotAnIndex> {
    let bad = || NotAnIndex(format!("{:?}", line.chars().take(150).collect::<String>()));
    let mut words = line.split_ascii_whitespace();
    let hex = words.next().ok_or_else(bad)?;
    let digests = Digests::of(Algorithm::Sha256, hex).map_err(|_| bad())?;
    let size = words.next().and_then(|size| size.parse().ok()).ok_or_else(bad)?;
    let name = words.next().unwrap_or_default();
    // A patch lies in the same folder.
    let is_name = !name.contains('/') && name.parse::<RepoPath>().is_ok();
    if is_named != is_name || words.next().is_some() {
        return Err(bad());
    }
    Ok((Stated { size, digests }, name.to_owned()))
}

/// A script of `ed`, as edits from the first line to the last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script {
    text: Vec<u8>,
    edits: Vec<Edit>,
}

/// In place of lines `from` to `to` of the old file (counted from one, `to` not among them) come some
/// lines of the script.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    from: u64,
    to: u64,
    lines: std::ops::Range<usize>,
}

/// Bytes that are no script, or none of this file.
#[derive(Debug, thiserror::Error)]
pub enum BadScript {
    /// A line that is no command, or out of order.
    #[error("line {0} of the script is no command of ed that patches have, or out of order")]
    Command(usize),
    /// The file has not so many lines.
    #[error("the script changes lines that the file does not have")]
    OtherFile,
    /// Reading or writing failed.
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
}

impl Script {
    /// Reads what `diff --ed` writes: `a`, `c`, `d`, and `s/.//` for lines that are a dot.
    pub fn parse(script: &[u8]) -> Result<Self, BadScript> {
        let mut lines = script.split_inclusive(|b| *b == b'\n').enumerate().peekable();
        let mut text = Vec::with_capacity(script.len());
        let mut edits: Vec<Edit> = Vec::new();
        while let Some((at, line)) = lines.next() {
            let bad = BadScript::Command(at + 1);
            let (from, to, has_text) = command(line).ok_or(BadScript::Command(at + 1))?;
            // Each edit lies before the one above it.
            if edits.last().is_some_and(|above| to > above.from) {
                return Err(bad);
            }
            let start = text.len();
            let mut goes_on = has_text;
            while goes_on {
                loop {
                    let (_, line) = lines.next().ok_or(BadScript::Command(at + 1))?;
                    if matches!(line, b".\n" | b".") {
                        break;
                    }
                    text.extend_from_slice(line);
                }
                // `s/.//` takes the first letter off the line before, and a bare `a` goes on after it.
                goes_on = false;
                if lines.next_if(|(_, line)| line.trim_ascii_end() == b"s/.//").is_some() {
                    let last = text.get(start..).unwrap_or_default();
                    let last = last.strip_suffix(b"\n").unwrap_or(last);
                    let line = last.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                    if line >= last.len() {
                        return Err(BadScript::Command(at + 1));
                    }
                    text.remove(start + line);
                    goes_on = lines.next_if(|(_, line)| line.trim_ascii_end() == b"a").is_some();
                }
            }
            edits.push(Edit { from, to, lines: start..text.len() });
        }
        edits.reverse();
        Ok(Self { text, edits })
    }

    /// Writes to `new` what becomes of `old`.
    pub fn apply(&self, mut old: impl BufRead, mut new: impl Write) -> Result<(), BadScript> {
        let mut next = 1;
        for edit in &self.edits {
            pass(&mut old, edit.from - next, &mut new)?;
            new.write_all(self.text.get(edit.lines.clone()).unwrap_or_default())?;
            pass(&mut old, edit.to - edit.from, io::sink())?;
            next = edit.to;
        }
        io::copy(&mut old, &mut new)?;
        Ok(())
    }
}

/// The lines that a command is about, and whether text follows it.
fn command(line: &[u8]) -> Option<(u64, u64, bool)> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let kind = line.chars().next_back()?;
    let range = line.strip_suffix(kind)?;
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_plain && *number < u64::MAX)
    };
    let (from, last) = match range.split_once(',') {
        Some((from, last)) => (number(from)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    match kind {
        // After a line, of which `0` is the place before the first.
        'a' if from == last => Some((from + 1, from + 1, true)),
        'c' | 'd' if from >= 1 && last >= from => Some((from, last + 1, kind == 'c')),
        _ => None,
    }
}

/// Passes on so many lines.
fn pass(old: &mut impl BufRead, lines: u64, mut new: impl Write) -> Result<(), BadScript> {
    let mut left = lines;
    while left > 0 {
        let bytes = old.fill_buf()?;
        if bytes.is_empty() {
            return Err(BadScript::OtherFile);
        }
        let (n, is_end) = match bytes.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        new.write_all(bytes.get(..n).unwrap_or_default())?;
        old.consume(n);
        left -= u64::from(is_end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn patched(script: &[u8], old: &[u8]) -> Result<Vec<u8>, BadScript> {
        let mut new = Vec::new();
        Script::parse(script)?.apply(old, &mut new)?;
        Ok(new)
    }

    fn diff(old: &str, new: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, old).unwrap();
        std::fs::write(&b, new).unwrap();
        Command::new("diff").arg("--ed").args([a, b]).output().unwrap().stdout
    }

    #[test]
    fn a_script_is_applied_as_ed_would() {
        let script = b"4a\nlast\n.\n2,3d\n1c\nONE\nand\n.\n0a\nzero\n.\n";
        let new = patched(script, b"one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(String::from_utf8(new).unwrap(), "zero\nONE\nand\nfour\nlast\n");
        for wrong in [
            "1a\nno end\n",
            "x\n",
            "1,2\n",
            "2d\n3d\n",
            "0d\n",
            "3,1d\n",
            "1a\n.\ns/.//\n",
            "-1d\n",
            "18446744073709551615a\nx\n.\n",
            "1s/a/b/\n",
            "!rm\n",
            "w\n",
            "1,$d\n",
        ] {
            assert!(patched(wrong.as_bytes(), b"1\n2\n3\n").is_err(), "{wrong}");
        }
        assert!(matches!(patched(b"9d\n", b"1\n"), Err(BadScript::OtherFile)));
    }

    #[test]
    fn the_way_is_one_merged_patch_or_many() {
        let hex = |n: u8| format!("{n:02x}").repeat(32);
        let text = |more: &str| {
            format!(
                "SHA256-Current: {} 9\nSHA256-History:\n {} 1 A\n {} 2 B\nSHA256-Patches:\n {} 5 A\n {} \
                 6 B\nSHA256-Download:\n {} 3 A.gz\n {} 4 B.gz\n{more}",
                hex(9),
                hex(1),
                hex(2),
                hex(5),
                hex(6),
                hex(7),
                hex(8)
            )
        };
        let names = |index: &Index, n: u8| {
            let way = index.way(&Digests::of(Algorithm::Sha256, &hex(n)).unwrap())?;
            Some(way.into_iter().map(|patch| (patch.name, patch.packed.size)).collect::<Vec<_>>())
        };
        let index = Index::parse(text("").as_bytes()).unwrap();
        assert_eq!(names(&index, 1), Some(vec![("A".into(), 3), ("B".into(), 4)]));
        assert_eq!(names(&index, 2), Some(vec![("B".into(), 4)]));
        assert_eq!(names(&index, 9), None);
        let merged = Index::parse(text("X-Patch-Precedence: merged\n").as_bytes()).unwrap();
        assert_eq!(names(&merged, 1), Some(vec![("A".into(), 3)]));
        let out = text("").replace(" A\n", " ../A\n");
        assert!(Index::parse(out.as_bytes()).is_err());
    }

    fn file() -> impl Strategy<Value = String> {
        let line =
            prop_oneof![Just("."), Just(".."), Just(""), Just("a"), Just("b"), Just("s/.//")];
        prop::collection::vec(line, 0..14)
            .prop_map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn scripts_of_diff_lead_from_old_to_new(old in file(), new in file()) {
            let script = diff(&old, &new);
            let found = patched(&script, old.as_bytes()).unwrap();
            prop_assert_eq!(String::from_utf8(found).unwrap(), new);
        }
    }

    proptest! {
        #[test]
        fn no_script_panics(
            script in prop::collection::vec(
                prop_oneof![
                    "[0-9]{1,2}", "[0-9],[0-9]", "[acd]\n", ".\n", "s/.//\n", "a\n", "\\PC{0,3}\n",
                ], 0..20,
            ),
            old in file(),
        ) {
            let _ = patched(script.concat().as_bytes(), old.as_bytes());
            let _ = Index::parse(script.concat().as_bytes());
        }
    }
}

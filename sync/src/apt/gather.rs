//! The packages of an archive, gathered by source package and version.
//!
//! An index is ordered by binary package, so that all of it must be read before the first source package
//! is whole. Of each package is kept what an update needs, as text in one buffer: some 400 bytes, of
//! 60,000 packages some 25 MB.

use super::packages::Package;
use super::version;
use crate::digests::Algorithm;
use crate::error::{Cause, SyncError};
use std::cmp::Ordering;

/// How many bytes are gathered at most.
const MAX_BYTES: usize = 1 << 30;

/// Packages, gathered.
#[derive(Default)]
pub(super) struct Gathered {
    text: String,
    starts: Vec<u32>,
}

/// A package as it was gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub source: &'a str,
    pub source_version: &'a str,
    pub name: &'a str,
    pub arch: &'a str,
    pub version: &'a str,
    pub filename: &'a str,
    pub size: u64,
    pub section: &'a str,
    pub synopsis: &'a str,
    /// What the caller gave beside it.
    pub mark: &'a str,
    stated: &'a str,
}

impl Gathered {
    /// Takes a package, with a word of the caller's.
    pub fn add(&mut self, package: &Package<'_>, mark: &str) -> Result<(), SyncError> {
        let start = u32::try_from(self.text.len()).ok().filter(|_| self.text.len() < MAX_BYTES);
        let start = start.ok_or_else(|| {
            SyncError::new(Cause::TooLarge, "the indexes have more packages than are taken")
        })?;
        self.starts.push(start);
        let size = package.size.to_string();
        let fields = [
            package.source,
            package.source_version,
            package.name,
            package.arch,
            package.version,
            package.filename,
            &size,
            first_line(package.section),
            first_line(package.synopsis),
            mark,
        ];
        for field in fields {
            self.text.push_str(field);
            self.text.push('\n');
        }
        for (algorithm, hex) in package.stated() {
            self.text.push_str(algorithm.as_str());
            self.text.push('=');
            self.text.push_str(hex.split_ascii_whitespace().next().unwrap_or_default());
            self.text.push(' ');
        }
        self.text.push('\n');
        Ok(())
    }

    /// Puts packages of one source package together, its lowest version first.
    pub fn sort(&mut self) {
        let text = &self.text;
        self.starts.sort_by(|a, b| match (row(text, *a), row(text, *b)) {
            (Some(a), Some(b)) => order(&a, &b),
            _ => Ordering::Equal,
        });
    }

    /// All packages, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.starts.iter().filter_map(|start| row(&self.text, *start))
    }
}

fn order(a: &Row<'_>, b: &Row<'_>) -> Ordering {
    // Versions that compare as equal may be two texts, and then are two versions.
    a.source
        .cmp(b.source)
        .then_with(|| version::compare(a.source_version, b.source_version))
        .then_with(|| a.source_version.cmp(b.source_version))
        .then_with(|| (a.name, a.arch).cmp(&(b.name, b.arch)))
        .then_with(|| (a.version, a.filename).cmp(&(b.version, b.filename)))
}

fn row(text: &str, start: u32) -> Option<Row<'_>> {
    let mut lines = text.get(start as usize..)?.split('\n');
    let mut next = || lines.next();
    Some(Row {
        source: next()?,
        source_version: next()?,
        name: next()?,
        arch: next()?,
        version: next()?,
        filename: next()?,
        size: next()?.parse().ok()?,
        section: next()?,
        synopsis: next()?,
        mark: next()?,
        stated: next()?,
    })
}

impl<'a> Row<'a> {
    /// What is stated of its file.
    pub fn stated(&self) -> impl Iterator<Item = (Algorithm, &'a str)> + use<'a> {
        self.stated.split_ascii_whitespace().filter_map(|word| {
            let (name, hex) = word.split_once('=')?;
            Some((Algorithm::ALL.into_iter().find(|it| it.as_str() == name)?, hex))
        })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

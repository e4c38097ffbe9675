//! `repomd.xml`: the one file of fixed name, which says where all others are and what they must be.

use super::xml::{Cursor, Tag, XmlError, escaped};
use crate::digests::{Algorithm, Digests};
use crate::error::{Cause, SyncError};
use crate::unpack::Packing;
use jiff::Timestamp;
use std::fmt::Write;

/// Where it lies below a repository's base.
pub const PATH: &str = "repodata/repomd.xml";
/// Where its detached signature lies, if it has one.
pub const SIGNATURE_PATH: &str = "repodata/repomd.xml.asc";
/// The longest one that is taken, in bytes; real ones have less than ten thousand.
pub const MAX_SIZE: u64 = 1 << 20;
/// Files it may name.
const MAX_FILES: usize = 1_000;

/// What a `repomd.xml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repomd {
    /// The repository's own count of its states; most write the time.
    pub revision: String,
    /// The systems it is for: a CPE name, as `cpe:/o:almalinux:almalinux:9`, and what people call it.
    pub distros: Vec<Distro>,
    /// The files, as they are listed.
    pub files: Vec<Listed>,
}

/// A system that a repository says it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distro {
    /// Its CPE name; may be empty.
    pub cpe: String,
    /// Its name.
    pub name: String,
}

/// One file that is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// What it is: `primary`, `updateinfo`, `group_gz`, ….
    pub kind: String,
    /// Where it is: relative to the base, or absolute where the repository says so.
    pub href: String,
    /// What is stated of its bytes; nothing where the kind of checksum is not known here.
    pub digests: Digests,
    /// What is stated of its plain bytes.
    pub open_digests: Digests,
    /// Its size in bytes, if that is stated.
    pub size: Option<u64>,
    /// The size of its plain bytes.
    pub open_size: Option<u64>,
    /// When it was made, in seconds since 1970; 0 where that is not stated.
    pub timestamp: i64,
}

/// In which form a file that must be read is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'r> {
    /// In one that can be read.
    Readable(&'r Listed, Packing),
    /// Only in one that cannot: the name's end.
    Unreadable(&'r str),
}

impl Repomd {
    /// Reads it.
    pub fn parse(document: &str) -> Result<Self, XmlError> {
        let mut cursor = Cursor::new(document);
        let root = cursor.child()?.ok_or(XmlError::CutOff)?;
        if root.name() != "repomd" {
            let found = root.name().chars().take(60).collect();
            return Err(XmlError::WrongRoot { found, want: "repomd" });
        }
        let mut repomd = Self::default();
        while let Some(tag) = cursor.child()? {
            match tag.name() {
                "revision" => repomd.revision = cursor.text()?.trim().into(),
                "tags" => repomd.distros = distros(&mut cursor)?,
                "data" if repomd.files.len() == MAX_FILES => return Err(XmlError::TooLong),
                "data" => repomd.files.push(listed(&mut cursor, &tag)?),
                _ => cursor.skip()?,
            }
        }
        Ok(repomd)
    }

    /// The file of that kind, in the first form that can be read; none if there is none in any.
    pub fn form(&self, kind: &str) -> Option<Form<'_>> {
        let zck = format!("{kind}_zck");
        let all = || self.files.iter().filter(|file| file.kind == kind || file.kind == zck);
        let readable = all().find_map(|file| Some((file, packing(&file.href)?)));
        let first = || all().next().map(|file| Form::Unreadable(end(&file.href)));
        readable.map(|(file, packing)| Form::Readable(file, packing)).or_else(first)
    }

    /// The same, if it can be read.
    pub fn readable(&self, kind: &str) -> Option<(&Listed, Packing)> {
        match self.form(kind)? {
            Form::Readable(listed, packing) => Some((listed, packing)),
            Form::Unreadable(_) => None,
        }
    }

    /// When the newest of its files was made, in seconds since 1970.
    pub fn newest(&self) -> i64 {
        self.files.iter().map(|file| file.timestamp).max().unwrap_or(0)
    }

    /// The same as time; none if nothing is stated.
    pub fn made(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.newest()).ok().filter(|_| self.newest() > 0)
    }

    /// Writes it as `createrepo_c` does. Only files with a SHA-256 checksum can be written.
    pub fn write(&self) -> String {
        let mut to = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <repomd xmlns=\"http://linux.duke.edu/metadata/repo\" \
             xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n",
        );
        // Writing to a string does not fail.
        let _ = writeln!(to, "  <revision>{}</revision>", escaped(&self.revision));
        if !self.distros.is_empty() {
            to.push_str("  <tags>\n");
            for distro in &self.distros {
                let (cpe, name) = (escaped(&distro.cpe), escaped(&distro.name));
                let _ = writeln!(to, "    <distro cpeid=\"{cpe}\">{name}</distro>");
            }
            to.push_str("  </tags>\n");
        }
        for file in &self.files {
            let _ = writeln!(to, "  <data type=\"{}\">", escaped(&file.kind));
            for (name, digests) in
                [("checksum", &file.digests), ("open-checksum", &file.open_digests)]
            {
                if let Some((algorithm, hex)) = digests.strongest() {
                    let kind = algorithm.as_str();
                    let _ = writeln!(to, "    <{name} type=\"{kind}\">{hex}</{name}>");
                }
            }
            let _ = writeln!(to, "    <location href=\"{}\"/>", escaped(&file.href));
            let _ = writeln!(to, "    <timestamp>{}</timestamp>", file.timestamp);
            for (name, size) in [("size", file.size), ("open-size", file.open_size)] {
                if let Some(size) = size {
                    let _ = writeln!(to, "    <{name}>{size}</{name}>");
                }
            }
            to.push_str("  </data>\n");
        }
        to.push_str("</repomd>\n");
        to
    }
}

impl Listed {
    /// What is stated of its bytes, if that proves anything.
    pub fn proof(&self) -> Result<&Digests, SyncError> {
        match self.digests.strongest() {
            Some(_) => Ok(&self.digests),
            None => Err(SyncError::new(
                Cause::Unsupported,
                format!(
                    "repomd.xml states no checksum of {} that proves anything; want sha256, sha512 or sha1",
                    self.kind
                ),
            )),
        }
    }
}

/// What a checksum element says. One of a kind that is not known here is none.
pub(super) fn checksum(kind: &str, hex: &str) -> Digests {
    let algorithm = match kind.trim().to_ascii_lowercase().as_str() {
        // What yum called it before there were others.
        "sha" | "sha1" => Algorithm::Sha1,
        "md5" => Algorithm::Md5,
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        _ => return Digests::default(),
    };
    Digests::of(algorithm, hex.trim()).unwrap_or_default()
}

fn distros(cursor: &mut Cursor<'_>) -> Result<Vec<Distro>, XmlError> {
    let mut distros = Vec::new();
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "distro" => {
                let cpe = tag.text("cpeid")?;
                distros.push(Distro { cpe, name: cursor.text()?.trim().into() });
            }
            _ => cursor.skip()?,
        }
    }
    Ok(distros)
}

fn listed(cursor: &mut Cursor<'_>, data: &Tag<'_>) -> Result<Listed, XmlError> {
    let mut file = Listed { kind: data.text("type")?, ..Listed::default() };
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "checksum" => file.digests = checksum(&tag.text("type")?, &cursor.text()?),
            "open-checksum" => file.open_digests = checksum(&tag.text("type")?, &cursor.text()?),
            "location" => {
                file.href = located(&tag)?;
                cursor.skip()?;
            }
            "timestamp" => file.timestamp = seconds(&cursor.text()?),
            "size" => file.size = cursor.text()?.trim().parse().ok(),
            "open-size" => file.open_size = cursor.text()?.trim().parse().ok(),
            _ => cursor.skip()?,
        }
    }
    // It becomes a part of names on disk.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let is_kind = (1..=64).contains(&file.kind.len()) && file.kind.bytes().all(is_plain);
    if file.href.is_empty() || !is_kind {
        return Err(XmlError::Broken(
            "a file is listed without location, or its type is none".into(),
        ));
    }
    Ok(file)
}

/// Where a `location` element says that something is.
pub(super) fn located(tag: &Tag<'_>) -> Result<String, XmlError> {
    let href = tag.text("href")?;
    Ok(match tag.attribute("xml:base")?.filter(|base| !base.is_empty()) {
        Some(base) => format!("{}/{href}", base.trim_end_matches('/')),
        None => href,
    })
}

/// Seconds, of which some write fractions.
pub(super) fn seconds(text: &str) -> i64 {
    text.trim().split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

/// How a file of that name is compressed; none if it cannot be read here.
fn packing(href: &str) -> Option<Packing> {
    match end(href) {
        "bz2" | "zck" | "sqlite" => None,
        _ => Some(Packing::of_name(href)),
    }
}

fn end(href: &str) -> &str {
    href.rsplit_once('.').map_or("", |(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEDORA: &str = include_str!("../../tests/data/rpm/fedora43-updates/repodata/repomd.xml");
    const AMAZON: &str = include_str!("../../tests/data/rpm/amazon/repomd_noupdateinfo.xml");
    const ALMA: &str = include_str!("../../tests/data/rpm/alma9-baseos/repodata/repomd.xml");

    #[test]
    fn real_ones_are_read() {
        let fedora = Repomd::parse(FEDORA).unwrap();
        assert_eq!(fedora.revision, "1769300455");
        let Some(Form::Readable(primary, Packing::Zstd)) = fedora.form("primary") else { panic!() };
        assert_eq!((primary.size, primary.open_size), (Some(4_020_790), Some(57_261_377)));
        assert_eq!(primary.digests.strongest().unwrap().0, Algorithm::Sha256);
        assert!(fedora.form("modules").is_none());
        let amazon = Repomd::parse(AMAZON).unwrap();
        assert!(amazon.form("primary").is_none());
        // Neither sizes nor times, and a name without checksum.
        let alma = Repomd::parse(ALMA).unwrap();
        assert!(matches!(alma.form("primary"), Some(Form::Readable(Listed { size: None, .. }, _))));
        assert_eq!(alma.made(), None);
    }

    #[test]
    fn a_form_that_cannot_be_read_is_passed_over_where_there_is_another() {
        let data = |kind: &str, href: &str| {
            format!("<data type='{kind}'><location href='repodata/{href}'/></data>")
        };
        let of =
            |all: &[String]| Repomd::parse(&format!("<repomd>{}</repomd>", all.concat())).unwrap();
        let both = of(&[data("primary_zck", "p.xml.zck"), data("primary", "p.xml.xz")]);
        assert!(matches!(both.form("primary"), Some(Form::Readable(_, Packing::Xz))));
        let alone = of(&[data("primary", "p.xml.bz2")]);
        assert_eq!(alone.form("primary"), Some(Form::Unreadable("bz2")));
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut repomd = Repomd::parse(FEDORA).unwrap();
        repomd.files.retain(|file| !file.kind.ends_with("_zck"));
        let cpe = "cpe:/o:fedoraproject:fedora:43".into();
        repomd.distros = vec![Distro { cpe, name: "Fedora & 43".into() }];
        assert_eq!(Repomd::parse(&repomd.write()).unwrap(), repomd);
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in ["", "<html/>", "<repomd><data type='primary'/></repomd>", "<repomd><data>"] {
            assert!(Repomd::parse(wrong).is_err(), "{wrong}");
        }
    }
}

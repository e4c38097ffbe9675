//! `updateinfo.xml`: the advisories of a repository, read one at a time.
//!
//! Real ones are full of faults: bare `&`, markup in descriptions, ids that are missing or come twice,
//! dates in five forms. A broken advisory costs itself and is counted. Checksums and file names in it
//! are not looked at: where they are stated at all, they often are those of other files. Packages are
//! found by name, version and architecture.

use super::evr::{self, Evr};
use super::primary::Unfit;
use super::xml::{Cursor, Elements, Tag, XmlError};
use crate::adapter::Skipped;
use crate::error::{Cause, SyncError};
use crate::update::MAX_ITEMS;
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use std::cmp::Ordering;
use std::io::BufRead;

/// The root of the document, and of the elements in it.
pub const ROOT: (&str, &str) = ("updates", "update");
/// Advisories one repository may have; the largest real ones have about ten thousand.
pub const MAX_ADVISORIES: u64 = 200_000;

/// One advisory, as it is stated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advisory {
    /// Its id: `ALSA-2022:4940`.
    pub id: String,
    /// Who issued it: an address of mail.
    pub from: String,
    /// `final`, `stable`, `testing`, `retracted`.
    pub status: String,
    /// `security`, `bugfix`, `enhancement`, ….
    pub kind: String,
    /// Its version; of some upstreams that of the format.
    pub version: String,
    /// Its title.
    pub title: String,
    /// One line about it.
    pub summary: String,
    /// What it mends.
    pub description: String,
    /// How bad that is, in its distribution's word.
    pub severity: String,
    /// When it was issued.
    pub issued: Option<Timestamp>,
    /// When it was changed last.
    pub updated: Option<Timestamp>,
    /// Whether the machine should restart.
    pub wants_reboot: bool,
    /// Where to read more.
    pub references: Vec<Reference>,
    /// The packages that mend it.
    pub packages: Vec<Fix>,
}

/// A reference of an advisory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub href: String,
    /// Its id: of a CVE, a bug, another advisory.
    pub id: String,
    /// `cve`, `bugzilla`, `self`, ….
    pub kind: String,
    /// Its title.
    pub title: String,
}

/// A package that an advisory lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Its name.
    pub name: String,
    /// The version from which on all is well.
    pub evr: Evr,
    /// Its architecture.
    pub arch: String,
    /// The module stream it is of: `nodejs:18`.
    pub module: Option<String>,
}

/// How new an advisory is, among those of the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Age {
    version: String,
    changed: Option<Timestamp>,
}

impl Advisory {
    /// How new it is.
    pub fn age(&self) -> Age {
        Age { version: self.version.clone(), changed: self.updated.or(self.issued) }
    }
}

impl Age {
    /// The higher version is the newer one; of equal ones, what was changed later.
    pub fn compare(&self, other: &Self) -> Ordering {
        let version = evr::compare(&self.version, &other.version);
        version.then_with(|| self.changed.cmp(&other.changed))
    }
}

/// Gives `take` each advisory of a document, with the bytes it is written in. One that cannot be
/// understood is counted.
pub fn read(
    document: impl BufRead,
    skipped: &mut Skipped,
    mut take: impl FnMut(Advisory, &[u8]) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let mut elements = Elements::new(document, ROOT.0, ROOT.1);
    let mut count = 0;
    while let Some(element) = elements.element().map_err(|error| error.told("updateinfo.xml"))? {
        count += 1;
        if count > MAX_ADVISORIES {
            let detail = format!("updateinfo.xml has more than {MAX_ADVISORIES} advisories");
            return Err(SyncError::new(Cause::TooLarge, detail));
        }
        let mut advisory = Advisory::default();
        match fill(&mut advisory, &String::from_utf8_lossy(element)) {
            Ok(()) => take(advisory, element)?,
            Err(why) if advisory.id.is_empty() => {
                skipped.add(format_args!("advisory {count}: {why}"));
            }
            Err(why) => skipped.add(format_args!("advisory {}: {why}", advisory.id)),
        }
    }
    Ok(())
}

/// Fills an advisory out of an `update` element. What was read before an error stays, to tell of it.
fn fill(advisory: &mut Advisory, element: &str) -> Result<(), Unfit> {
    let mut cursor = Cursor::new(element);
    let root = cursor.child()?.ok_or(Unfit::Lacks("content"))?;
    advisory.from = root.text("from")?;
    advisory.status = root.text("status")?;
    advisory.kind = root.text("type")?;
    advisory.version = root.text("version")?;
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "id" => advisory.id = trimmed(&mut cursor)?,
            "title" => advisory.title = trimmed(&mut cursor)?,
            "summary" => advisory.summary = trimmed(&mut cursor)?,
            "description" => advisory.description = trimmed(&mut cursor)?,
            "severity" => advisory.severity = trimmed(&mut cursor)?,
            "issued" => advisory.issued = dated(&mut cursor, &tag)?,
            "updated" => advisory.updated = dated(&mut cursor, &tag)?,
            "reboot_suggested" => advisory.wants_reboot |= suggested(&mut cursor)?,
            "references" => references(advisory, &mut cursor)?,
            "pkglist" => {
                while let Some(tag) = cursor.child()? {
                    match tag.name() {
                        "collection" => collection(advisory, &mut cursor)?,
                        _ => cursor.skip()?,
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    if advisory.id.is_empty() {
        return Err(Unfit::Lacks("id"));
    }
    if advisory.id.len() > 200 || advisory.id.chars().any(char::is_control) {
        return Err(Unfit::Has("an id that is none"));
    }
    Ok(())
}

fn references(advisory: &mut Advisory, cursor: &mut Cursor<'_>) -> Result<(), Unfit> {
    while let Some(tag) = cursor.child()? {
        // More than fit into an update are not worth losing it for.
        if tag.name() == "reference" && advisory.references.len() < MAX_ITEMS {
            advisory.references.push(Reference {
                href: tag.text("href")?,
                id: tag.text("id")?,
                kind: tag.text("type")?,
                title: tag.text("title")?,
            });
        }
        cursor.skip()?;
    }
    Ok(())
}

fn collection(advisory: &mut Advisory, cursor: &mut Cursor<'_>) -> Result<(), Unfit> {
    let mut module = None;
    while let Some(tag) = cursor.child()? {
        match tag.name() {
            "module" => {
                let (name, stream) = (tag.text("name")?, tag.text("stream")?);
                if name.is_empty() || stream.is_empty() {
                    return Err(Unfit::Lacks("stream of a module"));
                }
                module = Some(format!("{name}:{stream}"));
                cursor.skip()?;
            }
            "package" => {
                if advisory.packages.len() == MAX_ITEMS {
                    return Err(Unfit::Has("too many packages"));
                }
                let evr =
                    Evr::new(&tag.text("epoch")?, &tag.text("version")?, &tag.text("release")?)?;
                let (name, arch) = (tag.text("name")?, tag.text("arch")?);
                if name.is_empty() || arch.is_empty() {
                    return Err(Unfit::Lacks("name or architecture of a package"));
                }
                // The module is stated in front of its packages.
                advisory.packages.push(Fix { name, evr, arch, module: module.clone() });
                while let Some(tag) = cursor.child()? {
                    match tag.name() {
                        "reboot_suggested" => advisory.wants_reboot |= suggested(cursor)?,
                        _ => cursor.skip()?,
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    Ok(())
}

fn trimmed(cursor: &mut Cursor<'_>) -> Result<String, XmlError> {
    Ok(cursor.text()?.trim().into())
}

/// Whether an element suggests something: by being there, unless it says no.
fn suggested(cursor: &mut Cursor<'_>) -> Result<bool, XmlError> {
    let text = cursor.text()?;
    Ok(!matches!(text.trim().to_ascii_lowercase().as_str(), "false" | "0" | "no"))
}

fn dated(cursor: &mut Cursor<'_>, tag: &Tag<'_>) -> Result<Option<Timestamp>, XmlError> {
    let date = tag.text("date")?;
    cursor.skip()?;
    Ok(date_of(&date))
}

/// A date in any of the forms that upstreams write: RFC 3339, a date with or without a time, with or
/// without `UTC` behind it, and seconds since 1970. Where no zone is stated, it is UTC.
pub fn date_of(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix("UTC").map_or(text, str::trim_end);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Timestamp::from_second(text.parse().ok()?).ok();
    }
    let zoned = || text.parse::<Timestamp>().ok();
    let civil = || text.parse::<civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    zoned().or_else(|| Some(civil()?.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Packing;
    use std::io::Cursor as Bytes;

    fn all(document: &str) -> (Vec<Advisory>, Skipped) {
        let (mut found, mut skipped) = (Vec::new(), Skipped::default());
        read(document.as_bytes(), &mut skipped, |advisory, _| {
            found.push(advisory);
            Ok(())
        })
        .unwrap();
        (found, skipped)
    }

    fn one(document: &str) -> Advisory {
        let (mut found, skipped) = all(document);
        assert_eq!((found.len(), skipped.count), (1, 0), "{skipped:?}");
        found.remove(0)
    }

    fn unpacked(packed: &'static [u8], packing: Packing) -> String {
        let mut text = String::new();
        let mut from = packing.read(Bytes::new(packed), 1 << 20).unwrap();
        std::io::Read::read_to_string(&mut from, &mut text).unwrap();
        text
    }

    macro_rules! sample {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/data/rpm/", $name))
        };
    }

    #[test]
    fn real_advisories_are_read() {
        let alma = sample!(
            "alma9-baseos/repodata/106ba7d2cc8d0ba45aebfe29e32dbbc6ac0bb0378413184d62e6198d13fedb76-updateinfo.xml.gz"
        );
        let (found, skipped) = all(&unpacked(alma, Packing::Gzip));
        assert_eq!((found.len(), skipped.count), (2, 0));
        let xz = &found[0];
        assert_eq!((xz.id.as_str(), xz.kind.as_str()), ("ALSA-2022:4940", "security"));
        assert_eq!(xz.issued.unwrap().to_string(), "2022-06-08T00:00:00Z");
        assert_eq!(xz.references[1].id, "CVE-2022-1271");
        assert_eq!(xz.packages[0].evr.to_string(), "5.2.5-8.el9_0");

        let fedora = sample!(
            "fedora43-updates/repodata/74f58a91baa4a290e7ab058c6298b46ef49fc5ee990ede14d181340e5d22fca9-updateinfo.xml.zst"
        );
        let boto = one(&unpacked(fedora, Packing::Zstd));
        assert_eq!((boto.packages.len(), boto.references.len()), (6, 0));
        let old = one(&unpacked(sample!("amazon/updateinfo_1.xml.gz"), Packing::Gzip));
        assert_eq!(old.issued.unwrap().to_string(), "2011-09-27T22:46:00Z");
        let rocket = one(&unpacked(sample!("bottlerocket/updateinfo.xml.gz"), Packing::Gzip));
        assert_eq!(rocket.issued.unwrap().to_string(), "2020-05-14T20:15:38Z");
        for name in [
            &sample!("amazon/updateinfo_2.xml.gz")[..],
            sample!("amazon/updateinfo_2023.xml.gz"),
            sample!("amazon/updateinfo_2023_kernel-livepatch.xml.gz"),
        ] {
            assert!(!one(&unpacked(name, Packing::Gzip)).packages.is_empty());
        }
    }

    #[test]
    fn odd_advisories_are_read_or_counted() {
        let text = |bytes: &'static [u8]| std::str::from_utf8(bytes).unwrap();
        assert!(all(text(sample!("createrepo_c-updateinfo/updateinfo_00.xml"))).0.is_empty());
        let first = one(text(sample!("createrepo_c-updateinfo/updateinfo_01.xml")));
        assert!(first.wants_reboot);
        let odd = one(text(sample!("createrepo_c-updateinfo/updateinfo_ampersand.xml")));
        assert_eq!((odd.id.as_str(), odd.packages[0].name.as_str()), ("foobarupd&ate_1", "ba&r"));
        let empty = unpacked(sample!("createrepo_c-updateinfo/updateinfo_02.xml.xz"), Packing::Xz);
        let (found, skipped) = all(&empty);
        assert_eq!((found.len(), skipped.count), (0, 1));
    }

    #[test]
    fn a_broken_advisory_costs_no_other() {
        let good = "<update><id>A&B</id><description>a & b</description></update>";
        let document = format!(
            "<updates>{good}<update><id>C</id><description>x<br></description></update>\
             <update><title>no id</title></update><update><id>D</id>{good}</updates>"
        );
        let (found, skipped) = all(&document);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].description, "a & b");
        assert_eq!(skipped.count, 3);
        assert!(skipped.examples[0].contains("advisory C"), "{skipped:?}");
    }

    #[test]
    fn a_module_is_that_of_its_collection() {
        let found = one(
            "<updates><update><id>M</id><pkglist><collection><module name='nodejs' stream='18' \
             version='1' context='c' arch='x86_64'/><package name='npm' version='8' release='1' \
             epoch='1' arch='x86_64'/></collection><collection><package name='a' version='1' \
             release='1' arch='noarch'/></collection></pkglist></update></updates>",
        );
        assert_eq!(found.packages[0].module.as_deref(), Some("nodejs:18"));
        assert_eq!(found.packages[1].module, None);
    }

    #[test]
    fn the_newer_of_two_has_the_higher_version_or_the_later_date() {
        let advisory = |version: &str, updated: &str| Advisory {
            version: version.into(),
            updated: date_of(updated),
            ..Advisory::default()
        };
        let age = |version, updated| advisory(version, updated).age();
        assert!(age("10", "").compare(&age("9", "2020-01-01")).is_gt());
        assert!(age("1", "2021-01-01").compare(&age("1", "2020-01-01")).is_gt());
    }

    #[test]
    fn dates_come_in_many_forms() {
        for (text, want) in [
            ("2023-03-07 17:32:16", "2023-03-07T17:32:16Z"),
            ("2011-09-27 22:46", "2011-09-27T22:46:00Z"),
            ("2023-03-07 17:32:16 UTC", "2023-03-07T17:32:16Z"),
            ("2023-03-07", "2023-03-07T00:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("2020-05-14T20:15:38Z", "2020-05-14T20:15:38Z"),
        ] {
            assert_eq!(date_of(text).unwrap().to_string(), want, "{text}");
        }
        for wrong in ["", "soon", "99999999999999999999"] {
            assert_eq!(date_of(wrong), None, "{wrong}");
        }
    }
}

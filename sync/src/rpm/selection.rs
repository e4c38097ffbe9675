//! Metadata for some packages of a repository, made of its own.
//!
//! The descriptions of the chosen packages, and the advisories that list one of them, are taken over as
//! they are written; what surrounds them is new. The same choice out of the same state gives the same
//! bytes. Module streams and groups stay whole: what they name and is not there, `dnf` passes over.

use super::catalogue::modules;
use super::closure::{Closure, NotAdded, paths_in};
use super::evr::Evr;
use super::folder::{self, Plain};
use super::mirror::{Sign, Snapshot, blocking, digests_of, listed_file, made, package_file};
use super::modules::Modules;
use super::primary::{self, Package, full_name, is_source};
use super::repomd::{self, Listed, Repomd};
use super::settings::Repository;
use super::updateinfo;
use super::xml::{Cursor, Elements, escaped};
use crate::adapter::{Run, Skipped};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::mirror::{MirrorFile, RepoPath, matches};
use crate::unpack::Packing;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};

/// Which packages are wanted: those that are named or are of one of the advisories, all if neither is
/// stated; of these, those of an architecture; of these, the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Names of packages; `*` stands for any letters.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// Ids of advisories.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub advisories: BTreeSet<String>,
    /// Architectures. `noarch` always comes along; sources only where `src` is named, or nothing is.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub arches: BTreeSet<String>,
    /// Of each package, architecture and module stream only the highest version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub newest_only: bool,
    /// With what the wanted ones require, as far as the repository has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_dependencies: bool,
}

/// The packages that were chosen.
#[derive(Default)]
struct Chosen {
    /// By checksum.
    pkgids: HashSet<String>,
    /// By name, version and architecture.
    names: HashSet<String>,
    missing: Vec<String>,
}

/// A file of metadata that was made.
struct Written {
    listed: Listed,
    bytes: Bytes,
}

pub(super) async fn snapshot(
    run: &Run,
    repository: &Repository,
    repomd: &Repomd,
    selection: &Selection,
    sign: Option<Sign<'_>>,
) -> Result<Snapshot, SyncError> {
    // What is read beside that of a sync.
    for kind in ["filelists", "other"] {
        if let Some((listed, _)) = repomd.readable(kind) {
            folder::bring(run, repository, listed).await?;
        }
    }
    let wanted = selection.clone();
    let (mut files, written, missing) =
        blocking(run, repository, repomd, move |run, repository, repomd| {
            let mut chosen = choose(run, repomd, &wanted)?;
            if wanted.with_dependencies {
                close(run, repomd, &wanted, &mut chosen)?;
            }
            let (files, written) = write_all(run, repository, repomd, &chosen)?;
            Ok((files, written, chosen.missing))
        })
        .await?;

    let mut new = Repomd {
        revision: repomd.revision.clone(),
        distros: repomd.distros.clone(),
        files: Vec::new(),
    };
    for Written { listed, bytes } in written {
        files.push(made(&listed.href, bytes)?);
        new.files.push(listed);
    }
    let is_kept = |kind: &str| kind == "modules" || kind == "group" || kind.starts_with("group_");
    for listed in repomd.files.iter().filter(|listed| is_kept(&listed.kind)) {
        let Some(path) = repository.path(&listed.href).filter(|_| listed.proof().is_ok()) else {
            continue;
        };
        files.push(listed_file(run, repository, listed, path).await?);
        new.files.push(listed.clone());
    }
    let document = Bytes::from(new.write());
    if let Some(sign) = sign {
        files.push(made(repomd::SIGNATURE_PATH, sign(&document)?)?);
    }
    files.push(made(repomd::PATH, document)?);
    Ok(Snapshot { files, missing })
}

impl Selection {
    fn takes_arch(&self, arch: &str) -> bool {
        match self.arches.is_empty() {
            true => true,
            false => arch == "noarch" || self.arches.contains(arch),
        }
    }
}

fn choose(run: &Run, repomd: &Repomd, selection: &Selection) -> Result<Chosen, SyncError> {
    let mut missing: BTreeSet<&str> = selection.advisories.iter().map(String::as_str).collect();
    let mut of_advisories = HashSet::new();
    if !selection.advisories.is_empty() {
        each_advisory(run, repomd, |advisory, _| {
            if selection.advisories.contains(&advisory.id) {
                missing.remove(advisory.id.as_str());
                let fixes = advisory.packages.iter();
                of_advisories.extend(fixes.map(|fix| full_name(&fix.name, &fix.evr, &fix.arch)));
            }
            Ok(())
        })?;
    }
    missing.extend(selection.packages.iter().map(String::as_str));
    let modules = if selection.newest_only { modules(run, repomd)? } else { Modules::default() };
    let takes_all = selection.packages.is_empty() && selection.advisories.is_empty();
    let patterns: Vec<&String> =
        selection.packages.iter().filter(|name| name.contains('*')).collect();

    let mut newest: HashMap<(String, String, Option<String>), (Evr, String)> = HashMap::new();
    let mut chosen = Chosen::default();
    each_package(run, repomd, |package, _| {
        let is_named = selection.packages.contains(&package.name);
        missing.remove(package.name.as_str());
        let mut is_like = false;
        for pattern in patterns.iter().filter(|pattern| matches(pattern, &package.name)) {
            missing.remove(pattern.as_str());
            is_like = true;
        }
        let name = full_name(&package.name, &package.evr, &package.arch);
        let is_wanted = takes_all || is_named || is_like || of_advisories.contains(&name);
        if !is_wanted || !selection.takes_arch(&package.arch) {
            return Ok(());
        }
        if !selection.newest_only {
            chosen.pkgids.insert(package.pkgid);
            chosen.names.insert(name);
            return Ok(());
        }
        let module = modules.of(&package.name, &package.evr.to_string(), &package.arch);
        let module = module.map(Into::into);
        let Package { name, arch, evr, pkgid, .. } = package;
        let is_newer = |held: &(Evr, String)| evr.compare(&held.0).is_gt();
        let key = (name, arch, module);
        if newest.get(&key).is_none_or(is_newer) {
            newest.insert(key, (evr, pkgid));
        }
        Ok(())
    })?;
    for ((name, arch, _), (evr, pkgid)) in newest {
        chosen.names.insert(full_name(&name, &evr, &arch));
        chosen.pkgids.insert(pkgid);
    }
    chosen.missing = missing.into_iter().map(Into::into).collect();
    Ok(chosen)
}

/// Adds what the chosen ones require.
fn close(
    run: &Run,
    repomd: &Repomd,
    selection: &Selection,
    chosen: &mut Chosen,
) -> Result<(), SyncError> {
    let modules = modules(run, repomd)?;
    let (mut closure, mut keys) = (Closure::default(), Vec::new());
    each_package(run, repomd, |package, element| {
        if !selection.takes_arch(&package.arch) {
            return Ok(());
        }
        let version = package.evr.to_string();
        let stream = modules.of(&package.name, &version, &package.arch);
        let is_chosen = chosen.pkgids.contains(&package.pkgid);
        let added = closure.add(&package, &String::from_utf8_lossy(element), stream, is_chosen);
        added.map_err(|error| match error {
            NotAdded::Xml(error) => error.told("primary.xml"),
            error => SyncError::because(Cause::TooLarge, "dependencies cannot be followed", error),
        })?;
        keys.push((full_name(&package.name, &package.evr, &package.arch), package.pkgid));
        Ok(())
    })?;
    let wanted = closure.paths_to_find();
    if !wanted.is_empty()
        && let Some((listed, packing)) = repomd.readable("filelists")
    {
        let mut found: HashMap<String, Vec<_>> = HashMap::new();
        each_element(run, listed, packing, "filelists", |element| {
            let paths = paths_in(&String::from_utf8_lossy(element), &wanted);
            let paths = paths.map_err(|error| error.told("filelists.xml"))?;
            if let (false, Some(pkgid)) = (paths.is_empty(), pkgid_of(element)) {
                found.insert(pkgid, paths);
            }
            Ok(())
        })?;
        closure.add_paths(&found);
    }
    let closed = closure.close();
    for (name, pkgid) in closed.added.into_iter().filter_map(|at| keys.get(at).cloned()) {
        chosen.names.insert(name);
        chosen.pkgids.insert(pkgid);
    }
    let unmet = closed.unmet.iter().map(|(need, who)| format!("{need}, for {who}"));
    chosen.missing.extend(unmet);
    Ok(())
}

/// The packages as files, and the metadata of them.
fn write_all(
    run: &Run,
    repository: &Repository,
    repomd: &Repomd,
    chosen: &Chosen,
) -> Result<(Vec<MirrorFile>, Vec<Written>), SyncError> {
    let count = chosen.pkgids.len();
    let (mut files, mut written) = (Vec::with_capacity(count), Vec::new());

    let common = "xmlns=\"http://linux.duke.edu/metadata/common\" \
                  xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\"";
    let mut primary = Document::begin("metadata", &format!("{common} packages=\"{count}\""))?;
    let mut left = chosen.pkgids.clone();
    each_package(run, repomd, |package, element| {
        if left.remove(&package.pkgid) {
            let (path, element) = placed(repository, &package, element)?;
            primary.put(&element)?;
            files.push(package_file(repository, &package, path)?);
        }
        Ok(())
    })?;
    written.push(primary.end("metadata", "primary", repomd)?);

    for (kind, root) in [("filelists", "filelists"), ("other", "otherdata")] {
        let Some((listed, packing)) = repomd.readable(kind) else { continue };
        let namespace = format!("xmlns=\"http://linux.duke.edu/metadata/{kind}\"");
        let mut document = Document::begin(root, &format!("{namespace} packages=\"{count}\""))?;
        let mut left = chosen.pkgids.clone();
        each_element(run, listed, packing, root, |element| {
            match pkgid_of(element).is_some_and(|pkgid| left.remove(&pkgid)) {
                true => document.put(element),
                false => Ok(()),
            }
        })?;
        written.push(document.end(root, kind, repomd)?);
    }

    if repomd.readable("updateinfo").is_some() {
        let mut document = Document::begin("updates", "")?;
        each_advisory(run, repomd, |advisory, element| {
            let is_one = |fix: &updateinfo::Fix| {
                !is_source(&fix.arch)
                    && chosen.names.contains(&full_name(&fix.name, &fix.evr, &fix.arch))
            };
            if advisory.packages.iter().any(is_one) {
                document.put(repaired(&String::from_utf8_lossy(element)).as_bytes())?;
            }
            Ok(())
        })?;
        written.push(document.end("updates", "updateinfo", repomd)?);
    }
    Ok((files, written))
}

fn each_package(
    run: &Run,
    repomd: &Repomd,
    mut take: impl FnMut(Package, &[u8]) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let Some((listed, packing)) = repomd.readable("primary") else { return Ok(()) };
    let mut plain = Plain::open(run, listed, packing)?;
    primary::read(&mut plain, &mut Skipped::default(), |package, element| {
        run.watch.moved();
        run.watch.check()?;
        take(package, element)
    })?;
    plain.finish()
}

/// Each package of a list beside `primary`, as the bytes it is written in.
fn each_element(
    run: &Run,
    listed: &Listed,
    packing: Packing,
    root: &'static str,
    mut take: impl FnMut(&[u8]) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let mut plain = Plain::open(run, listed, packing)?;
    let mut elements = Elements::new(&mut plain, root, "package");
    while let Some(element) = elements.element().map_err(|error| error.told(&listed.kind))? {
        run.watch.moved();
        run.watch.check()?;
        take(element)?;
    }
    plain.finish()
}

fn each_advisory(
    run: &Run,
    repomd: &Repomd,
    mut take: impl FnMut(updateinfo::Advisory, &[u8]) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let Some((listed, packing)) = repomd.readable("updateinfo") else { return Ok(()) };
    let mut plain = Plain::open(run, listed, packing)?;
    updateinfo::read(&mut plain, &mut Skipped::default(), |advisory, element| {
        run.watch.moved();
        run.watch.check()?;
        take(advisory, element)
    })?;
    plain.finish()
}

/// The path of a package, and its description with that as its location where it is another.
fn placed<'e>(
    repository: &Repository,
    package: &Package,
    element: &'e [u8],
) -> Result<(RepoPath, Cow<'e, [u8]>), SyncError> {
    let has_base = find(element, b"xml:base").is_some();
    if let Some(path) = repository.path(&package.href).filter(|_| !has_base) {
        return Ok((path, Cow::Borrowed(element)));
    }
    let refused = || {
        let detail = format!("{} lies at a place that cannot be mirrored", package.name);
        SyncError::new(Cause::Malformed, detail)
    };
    let name = package.href.rsplit('/').next().unwrap_or_default();
    let href = format!("Packages/{name}");
    let path = repository.path(&href).ok_or_else(refused)?;
    let begin = find(element, b"<location").ok_or_else(refused)?;
    let end = begin + find(&element[begin..], b">").ok_or_else(refused)?;
    let end = if element[end - 1] == b'/' { end - 1 } else { end };
    let location = format!("<location href=\"{}\"", escaped(&href));
    let parts = [&element[..begin], location.as_bytes(), &element[end..]];
    Ok((path, Cow::Owned(parts.concat())))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The checksum by which an element of `filelists` or `other` names its package.
fn pkgid_of(element: &[u8]) -> Option<String> {
    let end = element.iter().position(|b| *b == b'>')?;
    let tag = format!("{}/>", String::from_utf8_lossy(&element[..end]).trim_end_matches('/'));
    Cursor::new(&tag).child().ok()??.attribute("pkgid").ok()?
}

/// An element with each `&` that begins no reference written as one: parsers that are not lenient would
/// refuse the whole document for it.
fn repaired(element: &str) -> Cow<'_, str> {
    const CDATA: &str = "<![CDATA[";
    let is_reference = |rest: &str| {
        let name = rest[1..].split(';').next().unwrap_or_default();
        let is_number = |digits: &str| match digits.strip_prefix('x') {
            Some(hex) => !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()),
            None => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        };
        rest.len() > name.len() + 1
            && match name.strip_prefix('#') {
                Some(digits) => is_number(digits),
                None => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
            }
    };
    let (mut repaired, mut rest) = (String::new(), element);
    while let Some(at) = rest.find(['&', '<']) {
        let (before, from) = rest.split_at(at);
        repaired.push_str(before);
        let taken = match () {
            () if from.starts_with(CDATA) => from.find("]]>").unwrap_or(from.len()),
            () => 1,
        };
        let is_bare = from.starts_with('&') && !is_reference(from);
        repaired.push_str(if is_bare { "&amp;" } else { &from[..taken] });
        rest = &from[taken..];
    }
    match repaired.is_empty() {
        true => Cow::Borrowed(element),
        false => Cow::Owned(repaired + rest),
    }
}

/// A document that is written, compressed and hashed as it grows.
struct Document {
    packed: GzEncoder<Vec<u8>>,
    hasher: Hasher,
}

impl Document {
    fn begin(root: &str, attributes: &str) -> Result<Self, SyncError> {
        // The encoder states no time, so that the same text gives the same bytes.
        let packed = GzEncoder::new(Vec::new(), Compression::default());
        let mut document = Self { packed, hasher: Hasher::new([Algorithm::Sha256]) };
        let space = if attributes.is_empty() { "" } else { " " };
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        document.put(format!("{head}\n<{root}{space}{attributes}>").as_bytes())?;
        Ok(document)
    }

    /// Puts an element, and the end of a line.
    fn put(&mut self, element: &[u8]) -> Result<(), SyncError> {
        for piece in [element, b"\n"] {
            self.hasher.update(piece);
            self.packed.write_all(piece).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends it; the file, with what `repomd.xml` says of it.
    fn end(mut self, root: &str, kind: &str, repomd: &Repomd) -> Result<Written, SyncError> {
        self.put(format!("</{root}>").as_bytes())?;
        let bytes = Bytes::from(self.packed.finish().map_err(failed)?);
        let (open_size, open_digests) = self.hasher.finish();
        let digests: Digests = digests_of(&bytes);
        let hex = digests.get(Algorithm::Sha256).unwrap_or_default();
        let listed = Listed {
            kind: kind.into(),
            href: format!("repodata/{hex}-{kind}.xml.gz"),
            open_digests,
            size: Some(bytes.len() as u64),
            open_size: Some(open_size),
            timestamp: repomd.newest(),
            digests,
        };
        Ok(Written { listed, bytes })
    }
}

fn failed(error: io::Error) -> SyncError {
    SyncError::local("a document that is written", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpm::RpmSettings;

    #[test]
    fn bare_ampersands_are_repaired_and_nothing_else() {
        for fine in ["a &amp; b &#65; &#x41;", "<a b='&lt;'/>", "<![CDATA[a & b]]>", ""] {
            assert_eq!(repaired(fine), fine);
        }
        assert_eq!(repaired("a & b &c; &amp &"), "a &amp; b &amp;c; &amp;amp &amp;");
    }

    #[test]
    fn a_package_of_another_place_comes_below_the_root() {
        let settings = RpmSettings { url: "http://host/r".into(), ..RpmSettings::default() };
        let repository = Repository::try_from(&settings).unwrap();
        let checksum = "a".repeat(64);
        let element = |location: &str| {
            format!(
                "<package><name>x</name><arch>noarch</arch><version ver='1' rel='1'/><checksum \
                 type='sha256'>{checksum}</checksum>{location}<size package='1'/></package>"
            )
        };
        let place = |location: &str| {
            let element = element(location);
            let package = primary::package(&element).unwrap();
            let (path, element) = placed(&repository, &package, element.as_bytes()).unwrap();
            (path.to_string(), String::from_utf8(element.into_owned()).unwrap())
        };
        let here = "<location href='a/x.rpm'/>";
        assert_eq!(place(here), ("a/x.rpm".into(), element(here)));
        let there = "<location xml:base='http://cdn/y' href='a/x.rpm'/>";
        let moved = element("<location href=\"Packages/x.rpm\"/>");
        assert_eq!(place(there), ("Packages/x.rpm".into(), moved));
    }

    #[test]
    fn an_element_names_its_package() {
        assert_eq!(pkgid_of(b"<package pkgid='ab' name='x'><file/>").as_deref(), Some("ab"));
        assert_eq!(pkgid_of(b"<package pkgid='ab'/>").as_deref(), Some("ab"));
        assert_eq!(pkgid_of(b"<package>"), None);
    }
}

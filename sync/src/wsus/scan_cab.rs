//! The offline scan cabinet, `wsusscn2.cab`, as a source of updates.
//!
//! A cabinet of cabinets, hundreds of megabytes: `package.cab` lists all revisions and where their
//! files are, and the others have of each revision the fragments that clients get, one file each.
//! Its list has 137 000 revisions in 115 MB of XML, so it is gone through once, and of each
//! revision a few words are kept; then one cabinet after another is unpacked, and what is in it put
//! together.
//!
//! Terms to be accepted are told by their id alone: their texts are not read.

use super::document::{self, Category, CategoryKind, Document, upd};
use crate::adapter::{Adapter, Extent, Fetched, Read, Run, Said, Skipped, Stage};
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::sdp::brought::{Brought, Settings};
use crate::sdp::cab::{Cabinet, Limits, Member};
use crate::sdp::package::time;
use crate::taxonomy::Language;
use crate::xml::{self, Attribute, Element};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Cabinets in the cabinet; a real one has 75.
const MAX_CABINETS: usize = 1_000;
/// Revisions in the list.
const MAX_REVISIONS: usize = 2_000_000;
/// Places of files in the list.
const MAX_PLACES: usize = 4_000_000;
/// The largest fragment.
const MAX_FRAGMENT: u64 = 8 << 20;

/// The source.
#[derive(Clone, Debug)]
pub struct ScanCab {
    cabinet: Brought,
}

impl ScanCab {
    /// The source with those settings.
    ///
    /// # Errors
    /// They cannot work.
    pub fn new(settings: Settings) -> Result<Self, SyncError> {
        Ok(Self { cabinet: Brought::new(settings)? })
    }
}

impl Adapter for ScanCab {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        Box::pin(self.cabinet.bring(run, state))
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        run.stage(Stage::Parse)?;
        let state = self.cabinet.state(run)?;
        let local = |error| SyncError::local(run.folder.display(), error);
        // Gone when this ends, however it does.
        let folder = tempfile::tempdir_in(&run.folder).map_err(local)?;
        let parts = unpack(&self.cabinet.path(run), folder.path(), run)?;
        let list = parts.iter().find(|path| path.ends_with("package.cab")).ok_or_else(|| {
            let detail = format!(
                "{} is no offline scan cabinet: package.cab is not in it",
                self.cabinet.url()
            );
            SyncError::new(Cause::Malformed, detail)
        })?;
        let mut skipped = Skipped::default();
        let mut list = List::read(list, run, &mut skipped)?;
        let mut says = Says { take, families: BTreeMap::new() };
        let mut spool = Spool::new(folder.path()).map_err(local)?;
        for part in parts.iter().filter(|path| !path.ends_with("package.cab")) {
            spool.fill(part, run, &mut skipped)?;
            spool.empty(&mut list, run, &mut skipped, &mut says)?;
            // Its space is wanted for nothing else.
            std::fs::remove_file(part).map_err(local)?;
        }
        says.families_again()?;
        let missing = list.rows.values().filter(|row| !row.was_said).count();
        if missing > 0 {
            let most =
                list.rows.iter().find(|(_, row)| !row.was_said).map(|(revision, _)| revision);
            skipped.add(format_args!(
                "{missing} revisions of the list are not in the cabinet, such as {}",
                most.unwrap_or(&0)
            ));
        }
        Ok(Read { extent: Extent::Whole, state, skipped })
    }
}

/// Passes on what is said, and learns what families are called.
struct Says<'a> {
    take: &'a mut dyn FnMut(Said) -> Result<(), SyncError>,
    families: BTreeMap<UpdateId, Category>,
}

impl Says<'_> {
    fn document(&mut self, document: Document) -> Result<(), SyncError> {
        match document {
            Document::Update(update) => (self.take)(Said::Update(update)),
            Document::Category { category, update } => {
                if let Some(product) = category.product_among(&self.families) {
                    (self.take)(Said::Product(product))?;
                }
                self.families.insert(category.id, category);
                (self.take)(Said::Update(update))
            }
        }
    }

    /// Says again what products there are, where their family came after them.
    fn families_again(&mut self) -> Result<(), SyncError> {
        for category in self.families.values() {
            if let Some(product) = category.product_among(&self.families)
                && Some(&product) != category.product().as_ref()
            {
                (self.take)(Said::Product(product))?;
            }
        }
        Ok(())
    }
}

/// Unpacks the cabinets in the cabinet into a folder.
fn unpack(path: &Path, folder: &Path, run: &Run) -> Result<Vec<PathBuf>, SyncError> {
    let what = "the offline scan cabinet";
    let file = File::open(path).map_err(|error| SyncError::local(path.display(), error))?;
    let limits = Limits { members: MAX_CABINETS, member: 2 << 30, all: 8 << 30 };
    let mut cabinet = Cabinet::open(file, limits).map_err(|error| error.of(what))?;
    let mut parts = Vec::new();
    let wanted = |member: &Member| {
        let name = member.name.as_str();
        !name.contains('/') && name.starts_with("package") && name.ends_with(".cab")
    };
    let each = cabinet.each(&wanted, &mut |member, from| {
        let to = folder.join(member.name.as_str());
        let local = |error| SyncError::local(to.display(), error);
        let mut file = File::create_new(&to).map_err(local)?;
        let mut piece = vec![0; 256 << 10];
        loop {
            let n = from
                .read(&mut piece)
                .map_err(|error| crate::unpack::reading(&member.name, error))?;
            if n == 0 {
                break;
            }
            file.write_all(&piece[..n]).map_err(local)?;
            run.watch.moved();
            run.watch.check()?;
        }
        parts.push(to);
        Ok(())
    });
    each.map_err(|error| error.of(what))?;
    Ok(parts)
}

/// What the list says.
struct List {
    rows: BTreeMap<u32, Row>,
    /// Addresses of files, by their SHA-1.
    places: HashMap<[u8; 20], Box<str>>,
    /// What categories are, as updates name them.
    kinds: BTreeMap<UpdateId, Category>,
}

/// What it says of one revision, and the fragments do not.
struct Row {
    created: Timestamp,
    was_said: bool,
}

impl List {
    fn read(path: &Path, run: &Run, skipped: &mut Skipped) -> Result<Self, SyncError> {
        let file = File::open(path).map_err(|error| SyncError::local(path.display(), error))?;
        let limits = Limits { members: 16, member: 2 << 30, all: 2 << 30 };
        let what = "package.cab";
        let mut cabinet = Cabinet::open(file, limits).map_err(|error| error.of(what))?;
        let mut list =
            Self { rows: BTreeMap::new(), places: HashMap::new(), kinds: BTreeMap::new() };
        let mut was_there = false;
        let each = cabinet.each(&|it| it.name.as_str() == "package.xml", &mut |_, from| {
            was_there = true;
            list.package(BufReader::with_capacity(128 << 10, from), run, skipped)
        });
        each.map_err(|error| error.of(what))?;
        match was_there {
            true => Ok(list),
            false => Err(SyncError::new(Cause::Malformed, "package.xml is not in package.cab")),
        }
    }

    fn package(
        &mut self,
        from: impl std::io::BufRead,
        run: &Run,
        skipped: &mut Skipped,
    ) -> Result<(), SyncError> {
        let failed = |error: xml::XmlError| error.of("package.xml");
        let too_many =
            |what| Err(SyncError::new(Cause::TooLarge, format!("package.xml has too many {what}")));
        let limits = xml::Limits { bytes: 2 << 30, ..xml::Limits::default() };
        let mut reader = xml::Reader::new(from, limits);
        match reader.enter().map_err(failed)? {
            Some(root) if &*root.name == "OfflineSyncPackage" => {}
            _ => {
                let detail = "package.xml is no list of an offline scan cabinet";
                return Err(SyncError::new(Cause::Malformed, detail));
            }
        }
        while let Some(part) = reader.enter().map_err(failed)? {
            while let Some(entry) = reader.child().map_err(failed)? {
                run.watch.moved();
                run.watch.check()?;
                match (&*part.name, &*entry.name) {
                    ("Updates", "Update") => {
                        if self.rows.len() == MAX_REVISIONS {
                            return too_many("revisions");
                        }
                        if let Err(what) = self.update(&entry) {
                            skipped.add(format_args!("package.xml: {what}"));
                        }
                    }
                    ("FileLocations", "FileLocation") => {
                        if self.places.len() == MAX_PLACES {
                            return too_many("places of files");
                        }
                        let digest = entry.attribute("Id").and_then(sha1);
                        if let (Some(digest), Some(url)) = (digest, entry.attribute("Url")) {
                            self.places.insert(digest, url.into());
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn update(&mut self, entry: &Element) -> Result<(), String> {
        let number = |name| entry.attribute(name).and_then(|it| it.trim().parse::<u32>().ok());
        let revision = number("RevisionId").ok_or("an update has no RevisionId")?;
        let created = entry.attribute("CreationDate").and_then(time);
        let created =
            created.ok_or_else(|| format!("the revision {revision} has no CreationDate"))?;
        if self.rows.insert(revision, Row { created, was_said: false }).is_some() {
            return Err(format!("the revision {revision} is there twice"));
        }
        for category in entry.all("Categories").flat_map(|it| it.all("Category")) {
            let id = category.attribute("Id").and_then(|it| it.parse::<UpdateId>().ok());
            let kind = match category.attribute("Type") {
                Some("Company") => CategoryKind::Company,
                Some("ProductFamily") => CategoryKind::Family,
                Some("Product") => CategoryKind::Product,
                Some("UpdateClassification") => CategoryKind::Classification,
                _ => continue,
            };
            if let Some(id) = id {
                let (title, families) = (String::new(), Default::default());
                self.kinds.entry(id).or_insert(Category { id, title, kind, families });
            }
        }
        Ok(())
    }
}

fn sha1(text: &str) -> Option<[u8; 20]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

/// What a fragment is of its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fragment {
    Core,
    Extended,
    Localized,
}

/// The fragments of one cabinet, in a file, and where each is in it.
struct Spool {
    file: File,
    held: Vec<(u32, Fragment, u64, u32)>,
}

impl Spool {
    fn new(folder: &Path) -> std::io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(folder)?, held: Vec::new() })
    }

    /// Takes in the fragments of a cabinet.
    fn fill(&mut self, part: &Path, run: &Run, skipped: &mut Skipped) -> Result<(), SyncError> {
        let name = part.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        let local = |error| SyncError::local("the fragments of the offline scan cabinet", error);
        self.held.clear();
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(local)?;
        let source = File::open(part).map_err(|error| SyncError::local(part.display(), error))?;
        let limits = Limits { member: MAX_FRAGMENT, all: 2 << 30, ..Limits::default() };
        let mut cabinet =
            match Cabinet::open(BufReader::new(source), Limits { member: 1 << 30, ..limits }) {
                Ok(cabinet) => cabinet,
                Err(error) => return Err(error.of(name)),
            };
        let mut to = BufWriter::with_capacity(256 << 10, &self.file);
        let (mut at, held) = (0, &mut self.held);
        let wanted = |member: &Member| fragment(member, run).is_some();
        let each = cabinet.each(&wanted, &mut |member, from| {
            let Some((revision, kind)) = fragment(member, run) else { return Ok(()) };
            if member.size > MAX_FRAGMENT {
                skipped.add(format_args!("{name}: the fragment {} is too large", member.name));
                return Ok(());
            }
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes)
                .map_err(|error| crate::unpack::reading(&member.name, error))?;
            to.write_all(&bytes).map_err(local)?;
            held.push((revision, kind, at, bytes.len() as u32));
            at += bytes.len() as u64;
            run.watch.moved();
            run.watch.check()
        });
        each.map_err(|error| error.of(&name))?;
        to.flush().map_err(local)?;
        drop(to);
        self.held.sort_unstable();
        Ok(())
    }

    /// Says the updates whose fragments are held.
    fn empty(
        &mut self,
        list: &mut List,
        run: &Run,
        skipped: &mut Skipped,
        says: &mut Says<'_>,
    ) -> Result<(), SyncError> {
        let held = std::mem::take(&mut self.held);
        for of_one in held.chunk_by(|a, b| a.0 == b.0) {
            let revision = of_one[0].0;
            // Some are there without a core: what was left behind of another revision.
            let (Some(row), true) = (list.rows.get(&revision), of_one[0].1 == Fragment::Core)
            else {
                continue;
            };
            run.watch.read()?;
            let created = row.created;
            let mut texts = Vec::new();
            for (_, kind, at, size) in of_one {
                texts.push((*kind, self.bytes(*at, *size)?));
            }
            let urls = |digest: &str| Some(vec![list.places.get(&sha1(digest)?)?.to_string()]);
            let root = together(&texts, created);
            let document = root.and_then(|root| {
                document::of_element(&root, &urls).map_err(|error| error.to_string())
            });
            match document {
                Ok(mut document) => {
                    place(&mut document, &list.kinds);
                    says.document(document)?;
                }
                Err(what) => skipped.add(format_args!("the revision {revision}: {what}")),
            }
            if let Some(row) = list.rows.get_mut(&revision) {
                row.was_said = true;
            }
        }
        self.held = held;
        Ok(())
    }

    fn bytes(&mut self, at: u64, size: u32) -> Result<Vec<u8>, SyncError> {
        let local = |error| SyncError::local("the fragments of the offline scan cabinet", error);
        let mut bytes = vec![0; size as usize];
        self.file.seek(SeekFrom::Start(at)).map_err(local)?;
        self.file.read_exact(&mut bytes).map_err(local)?;
        Ok(bytes)
    }
}

/// What is known from the list of a document's categories goes into it.
fn place(document: &mut Document, kinds: &BTreeMap<UpdateId, Category>) {
    match document {
        Document::Update(update) => document::place(update, kinds),
        Document::Category { category, .. } => {
            if category.kind == CategoryKind::Plain
                && let Some(known) = kinds.get(&category.id)
            {
                category.kind = known.kind;
            }
        }
    }
}

/// Which fragment a member is: `c/123`, `x/123`, `l/en/123`. None, if it is not wanted.
fn fragment(member: &Member, run: &Run) -> Option<(u32, Fragment)> {
    let mut parts = member.name.as_str().split('/');
    let kind = match parts.next()? {
        "c" => Fragment::Core,
        "x" => Fragment::Extended,
        "l" => {
            let language: Language = parts.next()?.parse().ok()?;
            let wanted = &run.criteria.languages;
            // English is there where nothing else is.
            let is_wanted = wanted.is_empty() || wanted.contains(&language);
            if !is_wanted && language != Language::english() {
                return None;
            }
            Fragment::Localized
        }
        _ => return None,
    };
    let revision = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((revision, kind))
}

/// The document that fragments are parts of.
fn together(texts: &[(Fragment, Vec<u8>)], created: Timestamp) -> Result<Element, String> {
    let mut root = upd("Update");
    let mut properties = upd("Properties");
    let mut localized = upd("LocalizedPropertiesCollection");
    for (kind, bytes) in texts {
        let text = std::str::from_utf8(bytes).map_err(|_| "a fragment is not in UTF-8")?;
        // Fragments have several roots.
        let fragments = xml::parse(&format!("<Fragments>{text}</Fragments>"))
            .map_err(|error| error.to_string())?;
        for part in fragments.children {
            let xml::Node::Element(part) = part else { continue };
            match (&*part.name, kind) {
                ("Properties" | "ExtendedProperties", _) => {
                    properties.attributes.extend(part.attributes);
                    properties.children.extend(part.children);
                }
                ("LocalizedProperties", Fragment::Localized) => localized = localized.holding(part),
                (_, Fragment::Localized) => {}
                _ => root = root.holding(part),
            }
        }
    }
    if properties.attribute("CreationDate").is_none() {
        properties.attributes.push(Attribute {
            namespace: Default::default(),
            name: "CreationDate".into(),
            value: created.to_string(),
        });
    }
    Ok(root.holding(properties).holding(localized))
}

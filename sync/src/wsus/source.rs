//! A WSUS server, or Microsoft Update, as a source.
//!
//! The first half asks for the categories, classifications and detectoids that are new, chooses from
//! them by the criteria, asks for the updates of those, and writes each document on a line of a file,
//! batch by batch. What is to be asked for is written down first, so a sync that was cut off goes on with
//! the next batch. The second half reads the file.
//!
//! The server counts in anchors. One is kept for the categories and one for the updates, and is shown
//! again only when all that came with it was taken. A category that is newly wanted is asked for whole.

use super::client::{Account, Client};
use super::messages::{Identity, RevisionFilter, RevisionList};
use super::soap::ErrorCode;
use crate::adapter::{Adapter, Extent, Fetched, Read, Run, Said, Skipped, Stage};
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::taxonomy::Classification;
use crate::unpack;
use crate::wsus::document::{self, Category, Document};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use url::Url;

/// What is to be asked for.
const PLAN: &str = "plan.json";
/// Documents, one a line.
const DOCUMENTS: &str = "documents.jsonl";
/// A plan that is older is made anew.
const PLAN_AGE: SignedDuration = SignedDuration::from_hours(24);
/// The longest line: a document, escaped.
const MAX_LINE: u64 = 64 << 20;
/// All documents of one sync.
const MAX_ALL: u64 = 64 << 30;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The root of its services, as `http://wsus.example:8530/`.
    pub url: String,
    /// The name that this site shows itself by, as of a machine.
    #[serde(default = "default_account")]
    pub account: String,
}

fn default_account() -> String {
    "depot.invalid".into()
}

impl Settings {
    /// Settings of a server below `url`.
    pub fn new(url: &str) -> Self {
        Self { url: url.into(), account: default_account() }
    }

    /// The root of its services.
    ///
    /// # Errors
    /// They cannot work.
    fn root(&self) -> Result<Url, SyncError> {
        let wrong = |detail: String| SyncError::new(Cause::Misconfigured, detail);
        let url = Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            wrong(format!(
                "{:?} is no address of a WSUS server; want http:// or https://",
                self.url
            ))
        })?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if self.account.is_empty() || self.account.len() > 255 || !self.account.chars().all(plain) {
            return Err(wrong(format!("{:?} is no name of a machine", self.account)));
        }
        Ok(url)
    }

    fn account(&self) -> Account {
        Account {
            name: self.account.clone(),
            id: UpdateId::named(&["wsus-account", &self.account]),
        }
    }
}

/// The source.
#[derive(Clone, Debug)]
pub struct WsusSource {
    root: Url,
    account: Account,
}

/// What is kept from one sync to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Where the categories ended.
    categories_anchor: Option<String>,
    /// Where the updates ended, and what was asked for then.
    updates_anchor: Option<String>,
    asked_categories: BTreeSet<UpdateId>,
    asked_classifications: BTreeSet<UpdateId>,
    /// All categories that were ever said, since a server tells of each but once.
    categories: BTreeMap<UpdateId, Category>,
}

impl State {
    /// Whether it differs from `other`, a state that a sync left, in its anchors at most: a server's anchors
    /// may tell the time, too.
    fn is_but_later_than(&self, other: &Self) -> bool {
        let anchors = [&other.categories_anchor, &other.updates_anchor];
        let same = Self {
            categories_anchor: self.categories_anchor.clone(),
            updates_anchor: self.updates_anchor.clone(),
            ..other.clone()
        };
        anchors.iter().all(|it| it.is_some()) && *self == same
    }
}

/// What a sync is about to ask for.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    made: Timestamp,
    /// What the state was when it was made.
    base: State,
    /// What it will be.
    next: State,
    /// The revisions to ask for: first those of categories, which are read before the rest is chosen.
    revisions: Vec<Identity>,
    /// Whether `revisions` holds the updates, too, or only the categories yet.
    is_whole: bool,
    skipped: Skipped,
}

/// One line of the file of documents.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    identity: Identity,
    xml: String,
    /// Addresses of its files, by their SHA-1 in base64.
    urls: HashMap<String, Vec<String>>,
}

impl WsusSource {
    /// The source with those settings.
    ///
    /// # Errors
    /// They cannot work.
    pub fn new(settings: &Settings) -> Result<Self, SyncError> {
        Ok(Self { root: settings.root()?, account: settings.account() })
    }

    async fn bring(&self, run: &Run, state: Option<&Value>) -> Result<Fetched, SyncError> {
        let base: State = state
            .map(|value| serde_json::from_value(value.clone()))
            .transpose()
            .map_err(|error| {
                SyncError::because(Cause::Local, "the source's state does not read", error)
            })?
            .unwrap_or_default();
        run.stage(Stage::Connect)?;
        let mut client = Client::new(run, &self.root, self.account.clone())?;
        let config = client.config().await?;
        run.stage(Stage::Fetch)?;
        let mut plan = match read_plan(run, &base)? {
            Some(plan) => plan,
            None => begin(run, &mut client, base).await?,
        };
        let mut documents = Spool::open(&run.file(DOCUMENTS))?;
        self.documents(run, &mut client, &mut plan, &mut documents, config.max_updates).await?;
        if !plan.is_whole {
            // The categories are here, so the criteria can be turned into what the server asks for.
            learn(&mut plan, run)?;
            let list = updates(run, &mut client, &mut plan).await?;
            plan.revisions.extend(newest(list.revisions));
            plan.next.updates_anchor = Some(list.anchor);
            plan.is_whole = true;
            write_plan(run, &plan)?;
            self.documents(run, &mut client, &mut plan, &mut documents, config.max_updates).await?;
        }
        documents.sync()?;
        write_plan(run, &plan)?;
        run.stage(Stage::Verify)?;
        if plan.revisions.is_empty() && plan.next.is_but_later_than(&plan.base) {
            // What came after the old anchors is what came after the new ones. The next sync asks again.
            fs::remove_file(run.file(PLAN)).map_err(|error| SyncError::local(PLAN, error))?;
            return Ok(Fetched::Unchanged);
        }
        Ok(Fetched::Changed)
    }

    /// Brings the documents that are not in the file yet.
    async fn documents(
        &self,
        run: &Run,
        client: &mut Client<'_>,
        plan: &mut Plan,
        documents: &mut Spool,
        batch: usize,
    ) -> Result<(), SyncError> {
        let missing: Vec<Identity> =
            plan.revisions.iter().filter(|it| !documents.held.contains(it)).copied().collect();
        for part in missing.chunks(batch) {
            let (updates, urls) = client.documents(part, &mut plan.skipped).await?;
            let mut by_digest: HashMap<&str, Vec<String>> = HashMap::new();
            for url in &urls {
                let all = by_digest.entry(url.digest.as_str()).or_default();
                // The server that was asked is near; the vendor is not always to be reached.
                all.extend(url.server.iter().filter_map(|it| self.address(it)));
                all.extend(url.vendor.iter().filter_map(|it| self.address(it)));
            }
            for update in updates {
                let of = |digest: &String| {
                    Some((digest.clone(), by_digest.get(digest.as_str())?.clone()))
                };
                let urls = update.files.iter().filter_map(of).collect();
                documents.add(&Line { identity: update.identity, xml: update.xml, urls })?;
                run.watch.moved();
            }
            documents.sync()?;
        }
        Ok(())
    }

    /// A file's address, seen from the server.
    fn address(&self, text: &str) -> Option<String> {
        let url = self.root.join(text).ok()?;
        matches!(url.scheme(), "http" | "https").then(|| url.into())
    }
}

impl Adapter for WsusSource {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        self.bring(run, state).boxed()
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        run.stage(Stage::Parse)?;
        let text = fs::read(run.file(PLAN)).map_err(|error| SyncError::local(PLAN, error))?;
        let plan: Plan = serde_json::from_slice(&text)
            .map_err(|error| SyncError::because(Cause::Local, "the plan does not read", error))?;
        let mut skipped = plan.skipped;
        for line in lines(&run.file(DOCUMENTS))? {
            let line = line?;
            run.watch.read()?;
            let read = document::read(&line.xml, &line.urls);
            match read {
                Ok(Document::Update(mut update)) => {
                    document::place(&mut update, &plan.next.categories);
                    take(Said::Update(update))?;
                }
                Ok(Document::Category { category, update }) => {
                    if let Some(product) = category.product_among(&plan.next.categories) {
                        take(Said::Product(product))?;
                    }
                    take(Said::Update(update))?;
                }
                Err(error) if error.cause == Cause::Malformed || error.cause == Cause::TooLarge => {
                    skipped.add(format_args!("{}: {error}", line.identity.id));
                }
                Err(error) => return Err(error),
            }
        }
        // Without an anchor all was asked for; else only what changed.
        let first = plan.base.categories_anchor.is_none() && plan.base.updates_anchor.is_none();
        let extent = if first { Extent::Whole } else { Extent::Changes };
        let state = serde_json::to_value(&plan.next).map_err(|error| {
            SyncError::because(Cause::Local, "the state cannot be written", error)
        })?;
        Ok(Read { extent, state, skipped })
    }
}

/// Asks which categories are new, and writes the plan down.
async fn begin(run: &Run, client: &mut Client<'_>, base: State) -> Result<Plan, SyncError> {
    let mut base = base;
    let mut filter = RevisionFilter { config: true, ..RevisionFilter::default() };
    filter.anchor = base.categories_anchor.clone();
    let list = match client.revisions(&filter).await? {
        Ok(list) => list,
        Err(fault) if fault.code == ErrorCode::ServerChanged || filter.anchor.is_some() => {
            // Its anchors mean nothing any more: all is asked for anew, and compared here.
            tracing::warn!(%fault, "the upstream server does not know the anchor; all is asked for again");
            base = State { categories: base.categories, ..State::default() };
            let whole = RevisionFilter { config: true, ..RevisionFilter::default() };
            client.revisions(&whole).await?.map_err(refused)?
        }
        Err(fault) => return Err(refused(fault)),
    };
    let documents = run.file(DOCUMENTS);
    match fs::remove_file(&documents) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SyncError::local(documents.display(), error));
        }
        _ => {}
    }
    let mut next = base.clone();
    next.categories_anchor = Some(list.anchor);
    let plan = Plan {
        made: run.now,
        base,
        next,
        revisions: newest(list.revisions),
        is_whole: false,
        skipped: Skipped::default(),
    };
    write_plan(run, &plan)?;
    Ok(plan)
}

fn refused(fault: super::soap::Fault) -> SyncError {
    let cause = match fault.code {
        ErrorCode::ServerBusy => Cause::Busy,
        _ => Cause::Refused,
    };
    SyncError::because(cause, "the upstream server gives no list of revisions", fault)
}

/// Adds the categories among the documents to those that are known.
fn learn(plan: &mut Plan, run: &Run) -> Result<(), SyncError> {
    for line in lines(&run.file(DOCUMENTS))? {
        let line = line?;
        if let Ok(Document::Category { category, .. }) = document::read(&line.xml, &line.urls) {
            plan.next.categories.insert(line.identity.id, category);
        }
    }
    Ok(())
}

/// Asks which updates of the wanted categories and classifications are new.
async fn updates(
    run: &Run,
    client: &mut Client<'_>,
    plan: &mut Plan,
) -> Result<RevisionList, SyncError> {
    let (products, classifications) = chosen(&plan.next.categories, run);
    let names = |_: &Vec<(UpdateId, bool)>| !is_everything(run);
    let anchor = plan.base.updates_anchor.clone();
    let with_delta = |wanted: &BTreeSet<UpdateId>, asked: &BTreeSet<UpdateId>| {
        let delta = |id: &UpdateId| (*id, anchor.is_some() && asked.contains(id));
        wanted.iter().map(delta).collect::<Vec<_>>()
    };
    let filter = RevisionFilter {
        anchor: anchor.clone(),
        config: false,
        categories: Some(with_delta(&products, &plan.base.asked_categories)).filter(names),
        classifications: Some(with_delta(&classifications, &plan.base.asked_classifications))
            .filter(names),
    };
    plan.next.asked_categories = products;
    plan.next.asked_classifications = classifications;
    match client.revisions(&filter).await? {
        Ok(list) => Ok(list),
        Err(fault) if anchor.is_some() && fault.code != ErrorCode::ServerBusy => {
            let all = |ids: &BTreeSet<UpdateId>| Some(ids.iter().map(|id| (*id, false)).collect());
            let whole = RevisionFilter {
                anchor: None,
                config: false,
                categories: all(&plan.next.asked_categories).filter(names),
                classifications: all(&plan.next.asked_classifications).filter(names),
            };
            tracing::warn!(%fault, "the upstream server does not know the anchor; all is asked for again");
            client.revisions(&whole).await?.map_err(refused)
        }
        Err(fault) => Err(refused(fault)),
    }
}

/// Whether the criteria leave nothing out. Then no list is named, since an update may be of no product that
/// the server describes.
fn is_everything(run: &Run) -> bool {
    run.criteria.products.is_empty() && run.criteria.classifications.is_empty()
}

/// Which of the server's products and classifications the criteria want. A list that is empty here would
/// make the server's answer empty, so where the criteria name none, all are named.
fn chosen(
    categories: &BTreeMap<UpdateId, Category>,
    run: &Run,
) -> (BTreeSet<UpdateId>, BTreeSet<UpdateId>) {
    let criteria = &run.criteria;
    // A family may be named by its own words, or by those of its id.
    let family_named = |id: &String| id.parse().ok().and_then(|id: UpdateId| categories.get(&id));
    let is_wanted = |id: &UpdateId, category: &Category| {
        let all = criteria.products.is_empty();
        let named = |name: &str| criteria.products.iter().any(|it| it.eq_ignore_ascii_case(name));
        let mut families = category.families.iter();
        all || named(&id.to_string())
            || named(&category.title)
            || families.any(|it| named(it) || family_named(it).is_some_and(|it| named(&it.title)))
    };
    let classification = |category: &Category| category.title.parse::<Classification>().ok();
    let (mut products, mut classifications) = (BTreeSet::new(), BTreeSet::new());
    for (id, category) in categories {
        match category.kind {
            document::CategoryKind::Classification => {
                let all = criteria.classifications.is_empty();
                let named = classification(category);
                if all || named.is_some_and(|it| criteria.classifications.contains(&it)) {
                    classifications.insert(*id);
                }
            }
            _ if is_wanted(id, category) => {
                products.insert(*id);
            }
            _ => {}
        }
    }
    (products, classifications)
}

/// Of each update its highest revision: lists may repeat an id.
fn newest(revisions: Vec<Identity>) -> Vec<Identity> {
    let mut highest: BTreeMap<UpdateId, u32> = BTreeMap::new();
    for Identity { id, revision } in revisions {
        let found = highest.entry(id).or_insert(revision);
        *found = revision.max(*found);
    }
    highest.into_iter().map(|(id, revision)| Identity { id, revision }).collect()
}

/// The plan that a sync which was cut off left, if it may be gone on with.
fn read_plan(run: &Run, base: &State) -> Result<Option<Plan>, SyncError> {
    let text = match fs::read(run.file(PLAN)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SyncError::local(PLAN, error)),
    };
    // One that was cut off while it was written is none.
    let Ok(plan) = serde_json::from_slice::<Plan>(&text) else { return Ok(None) };
    let age = run.now.duration_since(plan.made);
    let is_young = age < PLAN_AGE && age > -PLAN_AGE;
    let (products, classifications) = chosen(&plan.next.categories, run);
    let asks_the_same = !plan.is_whole
        || (products == plan.next.asked_categories
            && classifications == plan.next.asked_classifications);
    // A plan that led to `base` was carried out.
    let is_open = plan.base == *base && plan.next != *base;
    Ok((is_young && is_open && asks_the_same).then_some(plan))
}

fn write_plan(run: &Run, plan: &Plan) -> Result<(), SyncError> {
    let failed = |error| SyncError::local(PLAN, error);
    let mut file = tempfile::NamedTempFile::new_in(&run.folder).map_err(failed)?;
    serde_json::to_writer(BufWriter::new(&mut file), plan).map_err(|error| failed(error.into()))?;
    file.persist(run.file(PLAN)).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The file of documents, which lines are added to.
struct Spool {
    file: BufWriter<File>,
    held: BTreeSet<Identity>,
}

impl Spool {
    /// Opens it, without a last line that was cut off.
    fn open(path: &Path) -> Result<Self, SyncError> {
        let failed = |error| SyncError::local(path.display(), error);
        let options = OpenOptions::new().create(true).read(true).append(true).to_owned();
        let mut file = options.open(path).map_err(failed)?;
        let (mut held, mut whole) = (BTreeSet::new(), 0);
        let mut reader = BufReader::new(&mut file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let n = io::Read::take(&mut reader, MAX_LINE)
                .read_until(b'\n', &mut text)
                .map_err(failed)?;
            if n == 0 || !text.ends_with(b"\n") {
                break;
            }
            let Ok(line) = serde_json::from_slice::<Line>(&text) else { break };
            held.insert(line.identity);
            whole += n as u64;
        }
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file: BufWriter::new(file), held })
    }

    fn add(&mut self, line: &Line) -> Result<(), SyncError> {
        let failed = |error| SyncError::local(DOCUMENTS, error);
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(failed)?;
        self.held.insert(line.identity);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SyncError> {
        let failed = |error| SyncError::local(DOCUMENTS, error);
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_data().map_err(failed)
    }
}

/// The lines of the file of documents.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Line, SyncError>>, SyncError> {
    let mut reader = unpack::Packing::Plain.open(path, MAX_ALL)?;
    let mut text = Vec::new();
    Ok(std::iter::from_fn(move || {
        text.clear();
        match io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut text) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&text).map_err(|error| {
                SyncError::because(Cause::Local, "a line of the documents does not read", error)
            })),
            Err(error) => Some(Err(unpack::reading(DOCUMENTS, error))),
        }
    }))
}

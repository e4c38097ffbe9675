//! What is deployed, as clients are told it: kept as deployments, groups, collections, the catalogue and packages are.
//!
//! [`Deployed::look`] works out a new [`Picture`] where any of these changed, and has those clients hear of it whom it
//! concerns. It is called every second, and by whoever changed something. Where more than collections changed, it is
//! staged first (`telling`). The documents of updates are made once for all deployments of a group; those of groups of
//! which nothing changed stay as they are.

mod alerts;
mod documents;
mod holdings;
mod ready;
mod telling;

pub use alerts::{alert, tell};
pub use ready::Content;

use crate::fleet::Fleet;
use crate::problem::{Kind, Problem};
use crate::site::Site;
use ::sync::catalogue::Catalogue;
use ::sync::lifecycle::State as LifeState;
use ::sync::name::UpdateId;
use compliance::Ordinal;
use contentlib::Library;
use deployment::policy::{DeployedUpdates, DeploymentId, DeploymentPolicy, MAX_DOCUMENT};
use deployment::targets::{Clients, Picture, Serviced, Target};
use deployment::{Deployment, Group};
use documents::Documents;
use holdings::Holdings;
use jiff::Timestamp;
use packager::name::PackageName;
use parking_lot::Mutex;
use ready::{Ready, Shelf};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;
use telling::{Change, Stage, Telling, Underway};

/// What is deployed.
pub struct Deployed {
    work: Mutex<Work>,
    telling: Telling,
}

/// What holds now.
#[derive(Default)]
pub struct Shown {
    /// Counts up: the greater the newer.
    number: u64,
    /// What clients are told.
    pub picture: Picture,
    /// How each deployment's updates are.
    pub states: BTreeMap<DeploymentId, DeployedState>,
}

/// How a deployment's updates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeployedState {
    /// How many clients are told of, parts of bundles among them.
    pub told: usize,
    /// Those whose files are in no package.
    pub missing: BTreeSet<UpdateId>,
    /// Those that clients are not told of, and why.
    pub left_out: BTreeMap<UpdateId, LeftOut>,
    /// Why clients are told nothing of it, though it has updates.
    pub problem: Option<String>,
}

/// Where an update's files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Packages each of which has all of them, by name; none of an update without files.
    pub packages: Vec<PackageName>,
    /// What it is a bundle of.
    pub parts: Vec<UpdateId>,
}

/// Why clients are not told of an update of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It was expired when it came to be deployed.
    Expired,
    /// Nobody has accepted its terms.
    Licence,
    /// The catalogue does not have it.
    Unknown,
    /// It has nothing to install.
    Nothing,
}

impl LeftOut {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Licence => "licence",
            Self::Unknown => "unknown",
            Self::Nothing => "metadata-only",
        }
    }
}

/// What is worked with.
struct Work {
    holdings: Holdings,
    shelf: Shelf,
    documents: Documents,
    ready: HashMap<UpdateId, Arc<Ready>>,
    /// What the picture was made of.
    made_of: Option<MadeOf>,
    /// Whether it is to be made anew, though that is the same: a document was lost.
    is_stale: bool,
    /// By deployment, what its document was made of, and what came of it.
    told: BTreeMap<DeploymentId, (Vec<Arc<Ready>>, Document)>,
}

/// What a picture follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MadeOf {
    catalogue: (String, u64),
    deployments: u64,
    holdings: u64,
    collections: u64,
}

impl MadeOf {
    /// Whether nothing is another but who is in which collection.
    fn is_same_but_for_collections(&self, other: &Self) -> bool {
        *self == Self { collections: self.collections, ..other.clone() }
    }
}

/// A document of updates.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Document {
    digest: String,
    size: u64,
}

impl Deployed {
    /// Nothing is looked at yet. `folder` is where documents are kept: it may be deleted at any time.
    pub fn new(folder: std::path::PathBuf) -> Self {
        let work = Work {
            holdings: Holdings::default(),
            shelf: Shelf::default(),
            documents: Documents::open(folder),
            ready: HashMap::new(),
            made_of: None,
            is_stale: false,
            told: BTreeMap::new(),
        };
        Self { work: Mutex::new(work), telling: Telling::default() }
    }

    /// What clients are told: what holds, as far as it is staged.
    ///
    /// # Errors
    /// If nobody looked yet, and it cannot be done.
    pub fn told(&self, site: &Site) -> Result<Arc<Shown>, Problem> {
        match self.telling.told() {
            Some(told) => Ok(told),
            // What holds first is told at once.
            None => self.look(site),
        }
    }

    /// Ends once clients are told what holds now, so that who asks after a change gets it; after some seconds in any case.
    pub async fn until_told(&self) {
        self.telling.until_told().await;
    }

    /// Ends once what is deployed, or what packages have, is another: it is to be staged.
    pub(crate) async fn to_stage(&self) {
        self.telling.to_stage().await;
    }

    /// What holds now begins to be staged; nothing, if nobody looked yet.
    pub(crate) fn begin_staging(&self) -> Option<Underway> {
        self.telling.begin(Instant::now())
    }

    /// That is staged, or cannot be: clients hear of it.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn staged(&self, site: &Site, staging: Underway) -> Result<(), Problem> {
        let fleet = site.fleet()?;
        tell_concerned(&fleet, self.telling.staged(staging));
        Ok(())
    }

    /// Looks whether things changed; clients that wait hear of it if they are concerned, once it is staged.
    ///
    /// # Errors
    /// If the library or the database fails: what held before goes on to hold.
    pub fn look(&self, site: &Site) -> Result<Arc<Shown>, Problem> {
        let (fleet, updates, content) = (site.fleet()?, site.updates()?, site.content()?);
        let catalogue = updates.catalogue();
        let mut work = self.work.lock();
        work.holdings.follow(&content.packages)?;
        let made_of = MadeOf {
            catalogue: (catalogue.lineage().to_owned(), catalogue.seq()),
            deployments: fleet.deployments.revision(),
            holdings: work.holdings.revision(),
            collections: fleet.collections.revision(),
        };
        let last = self.telling.newest();
        let is_as_it_was = work.made_of.as_ref() == Some(&made_of) && !work.is_stale;
        if let Some(last) = last.as_ref().filter(|_| is_as_it_was) {
            tell_concerned(&fleet, self.telling.tell_late(Instant::now()));
            return Ok(Arc::clone(last));
        }
        let is_staged =
            work.made_of.as_ref().is_some_and(|was| was.is_same_but_for_collections(&made_of));
        let deployed = fleet.deployments.with_groups();
        work.follow_updates(catalogue, &content.library, &deployed, &made_of)?;
        let number = last.as_ref().map_or(0, |last| last.number) + 1;
        let mut shown = Shown { number, ..Shown::default() };
        for (id, it, group) in &deployed {
            let (mut state, updates) =
                work.chosen(it, group, &|licence| fleet.deployments.is_accepted(licence));
            // One that lost its collection in this moment is for nobody.
            let members = || fleet.collections.members(&it.collection, &fleet.states).ok();
            let clients = match it.collection.is_all() {
                true => Clients::All,
                false => Clients::These(members().unwrap_or_default()),
            };
            match work.document(*id, updates)? {
                Ok(document) if it.enabled && state.told > 0 => {
                    let policy = Arc::new(policy_of(*id, it, &document));
                    shown.picture.targets.insert(*id, Target { policy, clients });
                }
                Ok(_) => {}
                Err(problem) => state.problem = Some(problem),
            }
            shown.states.insert(*id, state);
        }
        work.told.retain(|id, _| shown.states.contains_key(id));
        for (name, clients, windows) in fleet.collections.with_windows() {
            let serviced = Serviced { clients, windows: windows.into() };
            shown.picture.windows.insert(name, serviced);
        }
        let shown = Arc::new(shown);
        let (stage, now) = (if is_staged { Stage::Nothing } else { Stage::First }, Instant::now());
        tell_concerned(&fleet, self.telling.hold(Arc::clone(&shown), stage, now));
        tell_concerned(&fleet, self.telling.tell_late(now));
        let mut needed: BTreeSet<String> =
            work.told.values().map(|(_, document)| document.digest.clone()).collect();
        for shown in self.telling.in_use() {
            needed.extend(shown.picture.targets.values().map(|it| it.policy.updates.clone()));
        }
        work.documents.sweep(|digest| needed.contains(digest));
        (work.made_of, work.is_stale) = (Some(made_of), false);
        Ok(shown)
    }

    /// The document of updates of that digest, if it is deployed to that client.
    ///
    /// # Errors
    /// If it is not, or the document is lost and cannot be made anew.
    pub fn document(&self, site: &Site, client: Ordinal, digest: &str) -> Result<Vec<u8>, Problem> {
        let told = self.told(site)?;
        if !told.picture.targets_of(client).any(|it| it.policy.updates == digest) {
            return Err(Problem::not_found("document of updates of this client", digest));
        }
        let read = || {
            let mut work = self.work.lock();
            let found = work.documents.read(digest);
            if found.is_none() {
                // It is made anew, and nothing else.
                work.told.retain(|_, (_, document)| document.digest != digest);
                work.is_stale = true;
            }
            found
        };
        if let Some(bytes) = read() {
            return Ok(bytes);
        }
        self.look(site)?;
        read().ok_or_else(|| {
            let detail = "what is deployed has just become another: ask for the policy again";
            Problem::new(Kind::Unavailable, detail).retry_after(2)
        })
    }

    /// Whether the files of these updates are in a package; where one is named, in another than that.
    ///
    /// # Errors
    /// If the library or the database fails.
    pub fn contents(
        &self,
        site: &Site,
        ids: &[UpdateId],
        beside: Option<&PackageName>,
    ) -> Result<HashMap<UpdateId, Content>, Problem> {
        let (updates, content) = (site.updates()?, site.content()?);
        let mut work = self.work.lock();
        let work = &mut *work;
        work.holdings.follow(&content.packages)?;
        let known = work.shelf.with_parts(updates.catalogue(), ids.iter().copied())?;
        let found = ready::contents(&known, &content.library, &work.holdings, beside);
        let ready = &work.ready;
        work.shelf.trim(|id| ready.contains_key(&id));
        Ok(found)
    }

    /// Whether the files of an update are in a package, and which packages have any.
    ///
    /// # Errors
    /// If the library or the database fails.
    pub fn holders(
        &self,
        site: &Site,
        id: UpdateId,
    ) -> Result<(Content, BTreeSet<PackageName>), Problem> {
        let found = self.contents(site, &[id], None)?.get(&id).copied().unwrap_or_default();
        let (updates, content) = (site.updates()?, site.content()?);
        let mut work = self.work.lock();
        let known = work.shelf.with_parts(updates.catalogue(), [id])?;
        let contents = known.values().flat_map(|known| known.contents(&content.library));
        let holdings = &work.holdings;
        let holders = contents.filter_map(|(_, content)| content).flat_map(|it| holdings.of(it));
        Ok((found, holders.cloned().collect()))
    }

    /// Which packages have all files of each of these updates, and of the parts of bundles among them.
    ///
    /// # Errors
    /// If the library or the database fails.
    pub fn whole_in(
        &self,
        site: &Site,
        ids: impl IntoIterator<Item = UpdateId>,
    ) -> Result<HashMap<UpdateId, Holders>, Problem> {
        let (updates, content) = (site.updates()?, site.content()?);
        let mut work = self.work.lock();
        let work = &mut *work;
        work.holdings.follow(&content.packages)?;
        let known = work.shelf.with_parts(updates.catalogue(), ids)?;
        let of = |known: &ready::Known| Holders {
            packages: known.whole_in(&content.library, &work.holdings),
            parts: known.parts().collect(),
        };
        Ok(known.iter().map(|(id, known)| (*id, of(known))).collect())
    }

    /// The terms of these updates, and of what they are bundles of, by the id of each update that has any.
    ///
    /// # Errors
    /// If the database fails.
    pub fn licences(
        &self,
        site: &Site,
        ids: impl IntoIterator<Item = UpdateId>,
    ) -> Result<BTreeMap<UpdateId, String>, Problem> {
        let updates = site.updates()?;
        let known = self.work.lock().shelf.with_parts(updates.catalogue(), ids)?;
        let having = known.into_iter();
        Ok(having.filter_map(|(id, known)| Some((id, known.licence.clone()?))).collect())
    }
}

impl Work {
    /// Brings up to date what is told of each update that is deployed.
    fn follow_updates(
        &mut self,
        catalogue: &Catalogue,
        library: &Library,
        deployed: &[(DeploymentId, Arc<Deployment>, Arc<Group>)],
        now: &MadeOf,
    ) -> Result<(), Problem> {
        let was = self.made_of.as_ref();
        if was.is_some_and(|was| was.is_same_but_for_collections(now)) {
            return Ok(());
        }
        // Rings share a group.
        let groups: BTreeMap<_, _> =
            deployed.iter().map(|(_, it, group)| (&it.group, group)).collect();
        let ids: BTreeSet<UpdateId> = groups.values().flat_map(|group| group.ids()).collect();
        let known = self.shelf.with_parts(catalogue, ids)?;
        let mut fresh = ready::ready(&known, library, &self.holdings);
        for (id, it) in &mut fresh {
            // What is as it was is the same value, by which documents are known to be as they were.
            if let Some(old) = self.ready.get(id).filter(|old| ***old == **it) {
                *it = Arc::clone(old);
            }
        }
        self.ready = fresh;
        let ready = &self.ready;
        self.shelf.trim(|id| ready.contains_key(&id));
        Ok(())
    }

    /// The updates of a deployment that clients are told of, in the order of their ids, and how they are.
    fn chosen(
        &self,
        deployment: &Deployment,
        group: &Group,
        is_accepted: &dyn Fn(&str) -> bool,
    ) -> (DeployedState, Vec<Arc<Ready>>) {
        let (mut state, mut told) = (DeployedState::default(), BTreeMap::new());
        for (id, since) in &group.updates {
            let deployed_since = deployment.created.max(*since);
            let mut found = BTreeMap::new();
            match self.admit(*id, deployed_since, is_accepted, &mut found) {
                Ok(()) => {
                    let is_missing = |it: &Arc<Ready>| it.content == Content::Missing;
                    if found.get(id).is_some_and(is_missing) {
                        state.missing.insert(*id);
                    }
                    told.append(&mut found);
                }
                Err(why) => drop(state.left_out.insert(*id, why)),
            }
        }
        state.told = told.len();
        (state, told.into_values().collect())
    }

    /// Takes an update and its parts, if clients may be told of it. Upstreams say what is a part of what: however deep
    /// that goes, and in circles too.
    fn admit(
        &self,
        id: UpdateId,
        since: Timestamp,
        is_accepted: &dyn Fn(&str) -> bool,
        found: &mut BTreeMap<UpdateId, Arc<Ready>>,
    ) -> Result<(), LeftOut> {
        let mut next = vec![id];
        while let Some(part) = next.pop() {
            match self.admissible(part, since, is_accepted) {
                Ok(it) => {
                    if found.insert(part, Arc::clone(it)).is_none() {
                        next.extend(&it.told.parts);
                    }
                }
                // Of a bundle one part of each kind is enough, so that one may not be there.
                Err(why) if part == id || why == LeftOut::Licence => return Err(why),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// An update, if clients may be told of it by itself.
    fn admissible(
        &self,
        id: UpdateId,
        since: Timestamp,
        is_accepted: &dyn Fn(&str) -> bool,
    ) -> Result<&Arc<Ready>, LeftOut> {
        let it = self.ready.get(&id).ok_or(LeftOut::Unknown)?;
        if it.standing.state == LifeState::Expired
            && it.standing.expired.is_none_or(|at| at <= since)
        {
            return Err(LeftOut::Expired);
        }
        if it.licence.as_ref().is_some_and(|licence| !is_accepted(licence)) {
            return Err(LeftOut::Licence);
        }
        if it.content == Content::None && it.told.parts.is_empty() {
            return Err(LeftOut::Nothing);
        }
        Ok(it)
    }

    /// The document of these updates, or why there can be none.
    fn document(
        &mut self,
        id: DeploymentId,
        updates: Vec<Arc<Ready>>,
    ) -> Result<Result<Document, String>, Problem> {
        let is_same = |was: &[Arc<Ready>]| {
            was.len() == updates.len()
                && was.iter().zip(&updates).all(|(was, is)| Arc::ptr_eq(was, is))
        };
        if let Some((was, document)) = self.told.get(&id)
            && is_same(was)
            && self.documents.has(&document.digest)
        {
            return Ok(Ok(document.clone()));
        }
        let same = self
            .told
            .values()
            .find(|(was, document)| is_same(was) && self.documents.has(&document.digest));
        let document = match same {
            Some((_, document)) => document.clone(),
            None => {
                let all =
                    DeployedUpdates { updates: updates.iter().map(|it| it.told.clone()).collect() };
                let (bytes, digest) = all.document();
                if bytes.len() as u64 > MAX_DOCUMENT {
                    let why = format!(
                        "its updates take {} bytes to describe, and clients read {MAX_DOCUMENT}: make several \
                         groups of them",
                        bytes.len()
                    );
                    return Ok(Err(why));
                }
                let kept = self.documents.keep(&digest, &bytes);
                kept.map_err(|error| Problem::internal(&error))?;
                Document { digest, size: bytes.len() as u64 }
            }
        };
        self.told.insert(id, (updates, document.clone()));
        Ok(Ok(document))
    }
}

/// Those of the clients that wait hear of it whom it concerns that they are told something else.
fn tell_concerned(fleet: &Fleet, change: Option<Change>) {
    if let Some(Change { before, now }) = change {
        fleet.policies.told_changed(&now.picture.concerned(&before.picture));
    }
}

fn policy_of(id: DeploymentId, it: &Deployment, document: &Document) -> DeploymentPolicy {
    DeploymentPolicy {
        id,
        name: it.name.to_string(),
        available: it.available,
        deadline: it.deadline,
        experience: it.experience.clone(),
        updates: document.digest.clone(),
        updates_size: document.size,
    }
}

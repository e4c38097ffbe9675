//! One simulated history: a library, those who use it, and what they do at random; and the model of
//! what they were promised. What must hold of both is in [`checks`].

use crate::environment::{Plan, Random, Shared, Tear, Virtual};
use crate::home::{Home, Kind};
use contentlib::block::Codec;
use contentlib::kv::memory::MemoryKv;
use contentlib::store::PackStore;
use contentlib::store::memory::MemoryStore;
use contentlib::store::volumes::{MemoryKeeper, Volumes};
use contentlib::{
    AddError, AddOptions, Aliases, ChunkId, CommitError, ContentReader, Digest, Expect, Frame,
    GcOptions, Keeps, Library, Link, Links, Name, NewVolume, Options, Progress, Recipe, Ref,
    RefChange, Session, VerifyOptions, VolumeState, VolumeStats,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(600);
const STEPS: usize = 60;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "packages/e", "packages/f"];

type Refs = BTreeMap<String, Ref>;
type Changes = BTreeMap<String, Option<Ref>>;

/// The value of a ref is the digests it names.
pub struct ValueNames;

impl Links for ValueNames {
    fn links(
        &self,
        _: &str,
        to: &Ref,
        _: &Library,
    ) -> Result<Vec<Link>, Box<dyn std::error::Error + Send + Sync>> {
        let link = |digest| Link { digest, label: String::new() };
        Ok(named(to).into_iter().map(link).collect())
    }
}

fn named(to: &Ref) -> Vec<Digest> {
    let digests = to.value.chunks_exact(32);
    digests.map(|bytes| Digest::from_bytes(bytes.try_into().unwrap())).collect()
}

/// Somebody who uploads a content while collection marks.
struct Upload<'a> {
    session: &'a Session,
    chunks: Vec<Vec<u8>>,
    /// Whether the chunks are sent, or taken to be held.
    send: bool,
    /// Whether what was sent is committed before collection goes on.
    commit: bool,
    result: Mutex<Option<Result<(), AddError>>>,
}

impl Links for Upload<'_> {
    fn links(
        &self,
        name: &str,
        to: &Ref,
        library: &Library,
    ) -> Result<Vec<Link>, Box<dyn std::error::Error + Send + Sync>> {
        let mut result = self.result.lock().unwrap();
        if result.is_none() {
            let digest = Digest::of(&self.chunks.concat());
            let sent = match self.send {
                true => put_chunks(self.session, &self.chunks).map(drop),
                false => Ok(()),
            };
            let put = sent.and_then(|()| self.session.put_recipe(digest, &recipe_of(&self.chunks)));
            if self.commit {
                // It may fail by a fault; then what was sent waits for the next.
                let _ = self.session.commit(Vec::new());
            }
            *result = Some(put);
        }
        ValueNames.links(name, to, library)
    }
}

/// Sends chunks as one frame.
fn put_chunks(session: &Session, chunks: &[Vec<u8>]) -> Result<Vec<ChunkId>, AddError> {
    let lens = chunks.iter().map(|chunk| chunk.len() as u32).collect();
    session.put_frame(&Frame::new(Codec::Raw, lens, chunks.concat().into()).unwrap())
}

fn recipe_of(chunks: &[Vec<u8>]) -> Recipe {
    Recipe::new(chunks.iter().map(|c| (ChunkId(Digest::of(c)), c.len() as u32))).unwrap()
}

/// A session and the contents it may refer to.
struct Actor {
    session: Session,
    durable: Option<String>,
    holds: Vec<Digest>,
}

struct World {
    random: Random,
    plan: Arc<Mutex<Plan>>,
    environment: Arc<Virtual>,
    /// The home volume.
    store: Home,
    /// The other volumes.
    keeper: Arc<MemoryKeeper>,
    kv: Arc<MemoryKv>,
    library: Option<Library>,
    options: Options,
    actors: Vec<Actor>,
    readers: Vec<ContentReader>,
    /// Plain chunks that uploads are made of.
    pool: Vec<Vec<u8>>,
    /// All bytes that were ever offered, by digest.
    contents: HashMap<Digest, Arc<Vec<u8>>>,
    recipes: HashMap<Digest, Recipe>,
    refs: Refs,
    /// Commits that failed in the store since the last that succeeded.
    ghosts: Vec<Changes>,
    next_durable: usize,
    next_volume: usize,
    talk: bool,
}

macro_rules! say {
    ($world:expr, $($arg:tt)*) => { if $world.talk { println!($($arg)*) } };
}

mod checks;

/// Runs one history. Returns its steps.
pub fn run(kind: Kind, seed: u64, talk: bool) -> u64 {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let plan = Plan {
        random: Random(random.next()),
        bad_writes: 0,
        bad_syncs: 0,
        bad_batches: 0,
        tear: Tear::Lose,
    };
    let plan = Arc::new(Mutex::new(plan));
    let store = Home::new(kind, &plan);
    let faults = plan.clone();
    let keeper = Arc::new(MemoryKeeper::with(move || {
        MemoryStore::with_faults(Box::new(Shared(faults.clone())))
    }));
    let kv = Arc::new(MemoryKv::default());
    let environment = Virtual::new(random.next());
    let options = Options {
        threads: 1,
        pack_target: 6000 << random.below(6),
        cache_bytes: 1 << 20,
        gc_grace: GRACE,
        reserve: [0, 0, 4000][random.below(3)],
        objects: Default::default(),
    };
    let pool = (0..40).map(|_| {
        let len = 1 + random.below(300) * (1 + random.below(4));
        if random.chance(70) { random.bytes(len) } else { vec![random.next() as u8; len] }
    });
    let pool = pool.collect();
    let mut world = World {
        random,
        plan,
        environment,
        store: store.clone(),
        keeper: keeper.clone(),
        kv: kv.clone(),
        library: None,
        options,
        actors: Vec::new(),
        readers: Vec::new(),
        pool,
        contents: HashMap::from([(Digest::EMPTY, Arc::default())]),
        recipes: HashMap::new(),
        refs: Refs::new(),
        ghosts: Vec::new(),
        next_durable: 0,
        next_volume: 2,
        talk,
    };
    world.open(store, keeper, kv);
    let steps = 10 + world.random.below(2 * STEPS);
    for _ in 0..steps {
        world.step();
    }
    world.rest();
    steps as u64
}

impl World {
    fn library(&self) -> &Library {
        self.library.as_ref().expect("open between two steps")
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.change_volumes(),
            8..14 => self.add(),
            14..32 => self.upload(),
            32..52 => self.commit(),
            52..56 => self.new_actor(),
            56..60 => self.drop_actor(),
            60..70 => self.gc(),
            70..74 => self.crash(),
            74..77 => self.reopen(),
            77..82 => self.change_faults(),
            82..85 => self.tick(),
            85..87 => drop(self.library().seal_idle()),
            87..90 => self.read_some(),
            90..93 => self.check_rebuilt(),
            93..95 => self.verify(),
            95..97 => self.new_reader(),
            _ => self.check_refs(),
        }
    }

    fn tick(&mut self) {
        let ms = match self.random.below(3) {
            0 => 1_000,
            1 => GRACE.as_millis() as u64 / 2,
            _ => 3 * GRACE.as_millis() as u64,
        };
        say!(self, "clock +{ms} ms");
        self.environment.advance(ms);
    }

    fn change_faults(&mut self) {
        let on = self.random.chance(60);
        let mut frees = Vec::new();
        for store in self.stores() {
            let used = u64::MAX - store.free_space().unwrap().unwrap();
            let free = (on && self.random.chance(25)).then(|| self.random.below(8000) as u64);
            store.set_capacity(free.map_or(u64::MAX, |free| used.saturating_add(free)));
            frees.extend(free);
        }
        let mut plan = self.plan.lock().unwrap();
        plan.bad_writes = if on { self.random.below(20) } else { 0 };
        plan.bad_syncs = if on { self.random.below(30) } else { 0 };
        plan.bad_batches = if on && self.random.chance(40) { self.random.below(30) } else { 0 };
        say!(
            self,
            "faults: {} % of writes, {} % of syncs, {} % of batches, {frees:?} free",
            plan.bad_writes,
            plan.bad_syncs,
            plan.bad_batches
        );
    }

    fn no_faults(&mut self) {
        let mut plan = self.plan.lock().unwrap();
        (plan.bad_writes, plan.bad_syncs, plan.bad_batches) = (0, 0, 0);
        self.stores().iter().for_each(|store| store.set_capacity(u64::MAX));
    }

    fn stores(&self) -> Vec<Arc<MemoryStore>> {
        [self.store.memory().into_iter().collect(), self.keeper.stores()].concat()
    }

    // Volumes.

    fn volumes(&self) -> Vec<VolumeStats> {
        self.library().volumes().unwrap()
    }

    fn change_volumes(&mut self) {
        let volumes = self.volumes();
        let volume = self.random.pick(&volumes).unwrap();
        let name = volume.name.as_str();
        match self.random.below(10) {
            0..3 if volumes.len() < 4 => {
                let path = format!("/volume-{}", self.next_volume).into();
                self.next_volume += 1;
                let reserve = self.random.chance(50).then(|| self.random.below(9000) as u64);
                let added = self.library().add_volume(&NewVolume { path, name: None, reserve });
                say!(self, "add a volume -> {added:?}");
            }
            0..7 => {
                let progress = Progress::default();
                if self.random.chance(10) {
                    progress.cancel();
                }
                let drained = self.library().drain_volume(name, &progress);
                say!(self, "drain {name} -> {drained:?}");
                if drained.is_ok_and(|report| report.left.is_empty()) {
                    let volumes = self.volumes();
                    let now = volumes.iter().find(|v| v.name == name).unwrap();
                    assert_eq!((now.packs, now.state), (0, VolumeState::Draining));
                }
            }
            7..9 => {
                let removed = self.library().remove_volume(name);
                say!(self, "remove {name} -> {removed:?}");
                assert!(removed.is_err() || volume.packs == 0);
            }
            _ => {
                let resumed = self.library().resume_volume(name);
                say!(self, "resume {name} -> {:?}", resumed.map(|v| v.state));
            }
        }
        if self.random.chance(50) {
            self.check_refs();
        }
    }

    // Actors.

    fn new_actor(&mut self) {
        if self.actors.len() >= 4 {
            return;
        }
        let durable = self.random.chance(25).then(|| {
            if self.next_durable == 0 || self.random.chance(50) {
                self.next_durable += 1;
            }
            format!("upload {}", self.random.below(self.next_durable))
        });
        let session = match &durable {
            Some(name) => match self.library().open_session(name, 2 * GRACE, Keeps::All) {
                Ok(session) => session,
                Err(_) => return self.new_actor(),
            },
            None => self.library().session(),
        };
        say!(self, "session {} {durable:?}", self.actors.len());
        self.actors.push(Actor { session, durable, holds: Vec::new() });
    }

    fn drop_actor(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.random.below(self.actors.len());
        let actor = self.actors.swap_remove(at);
        say!(self, "drop session {at}");
        if actor.durable.is_some() && self.random.chance(50) {
            let ended = actor.session.end();
            say!(self, "end session {at} -> {ended:?}");
        }
    }

    fn actor(&mut self) -> usize {
        if self.actors.is_empty() {
            self.new_actor();
        }
        self.random.below(self.actors.len())
    }

    /// A content of some size that shares bytes with others.
    fn content(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => 0,
            1 => 40_000 + self.random.below(160_000),
            2..5 => 2_000 + self.random.below(10_000),
            _ => 1 + self.random.below(600),
        };
        // Few seeds, so that the same bytes come again.
        let mut shared = Random(self.random.below(6) as u64);
        let mut bytes =
            if self.random.chance(70) { shared.bytes(len) } else { vec![shared.next() as u8; len] };
        if self.random.chance(40)
            && let Some(last) = bytes.last_mut()
        {
            *last = self.random.next() as u8;
        }
        bytes
    }

    fn add(&mut self) {
        let at = self.actor();
        let bytes = self.content();
        let mut options = AddOptions::default();
        if self.random.chance(20) {
            options.aliases = Aliases { sha256: true, sha1: self.random.chance(50) };
        }
        let lie = self.random.chance(5);
        if lie {
            options.expect = Some(Name::Blake3(Digest::of(b"something else")));
        }
        let digest = Digest::of(&bytes);
        let result = self.actors[at].session.add_reader(&bytes[..], &options, &Progress::default());
        say!(
            self,
            "{at}: add {} bytes {} -> {:?}",
            bytes.len(),
            short(digest),
            result.as_ref().map(|_| ())
        );
        match result {
            Ok(added) => {
                assert!(!lie);
                assert_eq!((added.digest, added.size), (digest, bytes.len() as u64));
                self.actors[at].holds.push(digest);
            }
            Err(AddError::WrongDigest { .. }) => assert!(lie),
            Err(error) if is_fault(&error) => {}
            Err(error) => panic!("add: {error:?}"),
        }
        self.contents.insert(digest, Arc::new(bytes));
    }

    /// What a content is sent as: chunks that others share, or a content of before cut otherwise.
    fn chunks(&mut self) -> Vec<Vec<u8>> {
        if self.random.chance(25) {
            let mut known: Vec<Digest> = self.contents.keys().copied().collect();
            known.sort();
            let digest = *self.random.pick(&known).unwrap();
            let bytes = self.contents[&digest].clone();
            if bytes.len() > 1 {
                let length = 1 + self.random.below(bytes.len()).max(bytes.len() / 8);
                return bytes.chunks(length).map(<[u8]>::to_vec).collect();
            }
        }
        let n = 1 + self.random.below(6);
        (0..n).map(|_| self.random.pick(&self.pool).unwrap().clone()).collect()
    }

    /// Sends frames of chunks, then recipes of them, as another depot does.
    fn upload(&mut self) {
        let at = self.actor();
        let chunks = self.chunks();
        for part in chunks.chunks(1 + self.random.below(3)) {
            if self.random.chance(15) {
                continue;
            }
            match put_chunks(&self.actors[at].session, part) {
                Ok(ids) => {
                    let want: Vec<_> = part.iter().map(|c| ChunkId(Digest::of(c))).collect();
                    assert_eq!(ids, want);
                    for (id, chunk) in ids.iter().zip(part) {
                        self.contents.insert(id.0, Arc::new(chunk.clone()));
                        self.actors[at].holds.push(id.0);
                    }
                }
                Err(error) if is_fault(&error) => {}
                Err(error) => panic!("put_frame: {error:?}"),
            }
        }
        if self.random.chance(20) {
            return;
        }
        if self.random.chance(15) {
            // The same bytes cut otherwise.
            let whole = chunks.concat();
            let digest = Digest::of(&whole);
            let added = self.actors[at].session.add_bytes(&whole);
            say!(self, "{at}: add {} in one piece -> {:?}", short(digest), added);
            if added.is_ok() {
                self.contents.insert(digest, Arc::new(whole));
                self.actors[at].holds.push(digest);
            }
        }
        let recipe = recipe_of(&chunks);
        let result = self.actors[at].session.put_recipe(Digest::of(&chunks.concat()), &recipe);
        self.uploaded(at, &chunks, result);
    }

    /// A recipe was sent, with `result`.
    fn uploaded(&mut self, at: usize, chunks: &[Vec<u8>], result: Result<(), AddError>) {
        let whole = chunks.concat();
        let digest = Digest::of(&whole);
        let recipe = recipe_of(chunks);
        say!(self, "{at}: upload {} of {} chunks -> {result:?}", short(digest), chunks.len());
        match result {
            Ok(()) => {
                self.contents.insert(digest, Arc::new(whole));
                if chunks.len() > 1 {
                    self.recipes.insert(digest, recipe);
                }
                self.actors[at].holds.push(digest);
            }
            Err(AddError::MissingChunks(ids)) => {
                assert!(ids.iter().all(|id| recipe.chunks().contains(id)));
            }
            Err(error) if is_fault(&error) => {}
            Err(error) => panic!("put_recipe: {error:?}"),
        }
    }

    fn commit(&mut self) {
        let at = self.actor();
        let mut changes = Vec::new();
        let mut outcome = Changes::new();
        let mut conflict = false;
        let mut names = NAMES.to_vec();
        for _ in 0..self.random.below(4) {
            let name = names.swap_remove(self.random.below(names.len())).to_owned();
            let now = self.refs.get(&name).cloned();
            let expect = match (self.random.below(4), &now) {
                (0, Some(now)) => Expect::Is(now.clone()),
                (0, None) => Expect::Absent,
                (1, _) if self.random.chance(20) => {
                    conflict = true;
                    match &now {
                        Some(_) => Expect::Absent,
                        None => Expect::Is(Ref { root: None, value: "not".into() }),
                    }
                }
                _ => Expect::Any,
            };
            if self.random.chance(25) {
                outcome.insert(name.clone(), None);
                changes.push(RefChange::Delete { name, expect });
            } else {
                let to = self.new_ref(at);
                outcome.insert(name.clone(), Some(to.clone()));
                changes.push(RefChange::Set { name, to, expect });
            }
        }
        let result = self.actors[at].session.commit(changes);
        say!(self, "{at}: commit {} -> {result:?}", show(&outcome));
        match result {
            Ok(()) => {
                assert!(!conflict, "a conflict was not noticed");
                self.ghosts.clear();
                apply(&mut self.refs, &outcome);
            }
            Err(CommitError::Conflict { .. }) => assert!(conflict),
            Err(CommitError::MissingRoot(_) | CommitError::Interrupted) => {}
            Err(CommitError::Store(_) | CommitError::Index(_)) => {
                if !outcome.is_empty() {
                    self.ghosts.push(outcome);
                }
            }
            Err(error) => panic!("commit: {error:?}"),
        }
        if self.random.chance(20) {
            self.check_refs();
        } else {
            self.check_names();
        }
        // Some callers try again with the same session, others begin anew.
        if self.random.chance(30) {
            self.actors.swap_remove(at);
        }
    }

    /// A ref to contents that session `at` added, or that it found held.
    fn new_ref(&mut self, at: usize) -> Ref {
        let pick = |world: &mut Self| {
            let held = &world.actors[at].holds;
            if world.random.chance(75)
                && let Some(digest) = world.random.pick(held)
            {
                return Some(*digest);
            }
            let mut all: Vec<Digest> = world.contents.keys().copied().collect();
            all.sort();
            let digest = *world.random.pick(&all)?;
            world.actors[at].session.keep([digest]);
            Some(digest)
        };
        let root = if self.random.chance(85) { pick(self) } else { None };
        let mut value = Vec::new();
        if root.is_some() {
            for _ in 0..self.random.below(4) {
                value.extend_from_slice(pick(self).unwrap_or(Digest::EMPTY).as_bytes());
            }
        }
        Ref { root, value: value.into() }
    }

    // What happens to a library.

    fn gc(&mut self) {
        let options = GcOptions { dry_run: self.random.chance(10) };
        let progress = Progress::default();
        if self.random.chance(50) {
            let at = self.actor();
            let (chunks, commit) = (self.chunks(), self.random.chance(20));
            let send = self.random.chance(70);
            let session = &self.actors[at].session;
            let upload = Upload { session, chunks, send, commit, result: Mutex::new(None) };
            let result = self.library().gc(&options, &upload, &progress);
            say!(self, "gc, and meanwhile: -> {result:?}");
            let Upload { chunks, result, .. } = upload;
            if let Some(result) = result.into_inner().unwrap() {
                self.uploaded(at, &chunks, result);
            }
        } else {
            let result = self.library().gc(&options, &ValueNames, &progress);
            say!(self, "gc -> {result:?}");
        }
        if self.random.chance(50) {
            self.check_refs();
        }
    }

    fn verify(&mut self) {
        match self.library().verify(&VerifyOptions::default(), &ValueNames, &Progress::default()) {
            Ok(report) => assert!(report.is_clean(), "{report:?}"),
            Err(error) => say!(self, "verify: {error:?}"),
        }
    }

    fn reopen(&mut self) {
        self.actors.clear();
        self.readers.clear();
        let closed = self.library().close();
        say!(self, "close -> {closed:?}; open");
        let (store, kv) = (self.store.clone(), self.kv.clone());
        self.open(store, self.keeper.clone(), kv);
    }

    fn crash(&mut self) {
        let tear = [Tear::Keep, Tear::Lose, Tear::Torn][self.random.below(3)];
        self.plan.lock().unwrap().tear = tear;
        let (store, keeper) = (self.store.crash(), Arc::new(self.keeper.crash()));
        let unflushed = self.kv.unflushed();
        let keep = if tear == Tear::Keep || self.random.chance(30) {
            unflushed
        } else {
            self.random.below(unflushed + 1)
        };
        let kv = Arc::new(self.kv.crash(keep));
        say!(self, "crash: {tear:?}, {keep} of {unflushed} batches kept");
        self.actors.clear();
        self.readers.clear();
        self.open(store, keeper, kv);
    }

    fn open(&mut self, store: Home, keeper: Arc<MemoryKeeper>, kv: Arc<MemoryKv>) {
        let saved = {
            let mut plan = self.plan.lock().unwrap();
            std::mem::take(&mut plan.bad_writes);
            (std::mem::take(&mut plan.bad_syncs), std::mem::take(&mut plan.bad_batches))
        };
        (self.store, self.keeper, self.kv) = (store, keeper, kv);
        // The old one writes its last words before anybody else may open the same store.
        self.library = None;
        let library = Library::open_over(
            self.over(self.store.clone(), self.keeper.clone()),
            self.kv.clone(),
            self.environment.clone(),
            self.options.clone(),
        );
        self.library = Some(library.unwrap());
        let plan = self.plan.clone();
        self.keeper.set_fault(move || {
            let mut plan = plan.lock().unwrap();
            let percent = plan.bad_syncs;
            plan.random.chance(percent).then(|| plan.random.chance(50))
        });
        let plan = self.plan.clone();
        self.kv.set_fault(move || {
            let mut plan = plan.lock().unwrap();
            let percent = plan.bad_batches;
            plan.random.chance(percent)
        });
        let mut plan = self.plan.lock().unwrap();
        (plan.bad_syncs, plan.bad_batches) = saved;
        drop(plan);
        let found: Refs = self.library().list_refs("").unwrap().into_iter().collect();
        self.settle(found);
        self.check_refs();
    }

    fn over(&self, store: Home, keeper: Arc<MemoryKeeper>) -> Volumes {
        Volumes::over(store.store(), keeper, self.options.reserve).unwrap()
    }

    /// Which of the commits whose fate was unknown have come to light.
    fn settle(&mut self, found: Refs) {
        assert!(
            self.possible().contains(&found.iter().map(key).collect()),
            "found {found:?}\nwant {:?}\nor with some of {:?}",
            self.refs,
            self.ghosts
        );
        // The others may still come to light, in a rebuilt index.
        self.refs = found;
    }

    /// All sets of refs that may be found after a crash.
    fn possible(&self) -> BTreeSet<BTreeSet<Key>> {
        let mut states = vec![self.refs.clone()];
        for ghost in &self.ghosts {
            for at in 0..states.len() {
                let mut with = states[at].clone();
                apply(&mut with, ghost);
                states.push(with);
            }
            states.sort_by_key(|refs| format!("{refs:?}"));
            states.dedup();
            assert!(states.len() < 10_000);
        }
        states.iter().map(|refs| refs.iter().map(key).collect()).collect()
    }
}

/// Whether a store or index that fails explains the error.
fn is_fault(error: &AddError) -> bool {
    use AddError::*;
    matches!(error, Store(_) | Full { .. } | Index(_) | Interrupted)
}

fn apply(refs: &mut Refs, changes: &Changes) {
    for (name, to) in changes {
        match to {
            Some(to) => drop(refs.insert(name.clone(), to.clone())),
            None => drop(refs.remove(name)),
        }
    }
}

/// A ref in a form that sets can hold.
type Key = (String, Option<Digest>, Vec<u8>);

fn key((name, to): (&String, &Ref)) -> Key {
    (name.clone(), to.root, to.value.to_vec())
}

/// The bytes of a content, or nothing if it cannot be read whole.
fn read(library: &Library, digest: Digest) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    library.open_content(digest).ok()?.copy_to(0..u64::MAX, &mut out).ok()?;
    Some(out)
}

fn short(digest: Digest) -> String {
    digest.to_hex()[..8].to_owned()
}

fn show(changes: &Changes) -> String {
    let one = |(name, to): (&String, &Option<Ref>)| match to {
        None => format!("-{name}"),
        Some(to) => {
            let links: Vec<String> = named(to).into_iter().map(short).collect();
            format!("{name}={}{links:?}", to.root.map_or("none".into(), short))
        }
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

//! What must hold of a history.
//!
//! * Every acknowledged ref reads back as it was set, and with it every byte of its root and of
//!   the contents it names, until somebody changes it; also after any crash, and from an index
//!   that is rebuilt from the packs alone.
//! * A commit that fails changes nothing. If the store failed, a crash before the next commit
//!   that succeeds may still bring it to light, whole; never after that.
//! * A live recipe names no chunk that is missing, and nothing is ever read that was not stored.
//! * At rest, after two runs of garbage collection with the grace between them, what no ref
//!   reaches is gone from the index, and the packs hold little else than what is live.
//! * A volume that was drained holds no pack; at rest each pack lies on one volume, and all
//!   volumes but the home can be emptied and removed.

use super::*;

impl World {
    pub(super) fn new_reader(&mut self) {
        let Some(to) = self.some_ref() else { return };
        if let Some(root) = to.root {
            self.readers.push(self.library().open_content(root).unwrap());
        }
    }

    pub(super) fn some_ref(&mut self) -> Option<Ref> {
        let refs: Vec<&Ref> = self.refs.values().collect();
        self.random.pick(&refs).map(|to| (*to).clone())
    }

    /// Old readers read what they always did, or nothing: if the content is gone, or was given up,
    /// stored anew cut otherwise, and the chunks that this reader knows are gone.
    pub(super) fn read_some(&mut self) {
        let reachable = self.reachable();
        for reader in &self.readers {
            let mut out = Vec::new();
            match reader.copy_to(0..u64::MAX, &mut out) {
                Ok(_) => assert_eq!(&out, &*self.contents[&reader.digest()], "a stale reader"),
                Err(error) => {
                    let now = self.library().recipe(reader.digest());
                    let recut = now.is_ok_and(|now| now != *reader.recipe());
                    assert!(
                        recut || !reachable.contains(&reader.digest()),
                        "a stale reader: {error:?}"
                    );
                }
            }
        }
        let mut all: Vec<Digest> = self.contents.keys().copied().collect();
        all.sort();
        for _ in 0..5 {
            let digest = *self.random.pick(&all).unwrap();
            if let Some(bytes) = read(self.library(), digest) {
                assert_eq!(&bytes, &*self.contents[&digest]);
            } else {
                assert!(!reachable.contains(&digest));
            }
        }
    }

    pub(super) fn reachable(&self) -> BTreeSet<Digest> {
        let roots = self.refs.values().filter(|to| to.root.is_some());
        roots.flat_map(|to| named(to).into_iter().chain(to.root)).collect()
    }

    pub(super) fn check_names(&self) {
        let found: Refs = self.library().list_refs("").unwrap().into_iter().collect();
        assert_eq!(found, self.refs);
    }

    pub(super) fn check_refs(&mut self) {
        self.check_names();
        self.check_contents(self.library(), &self.reachable());
    }

    pub(super) fn check_contents(&self, library: &Library, wanted: &BTreeSet<Digest>) {
        for digest in wanted {
            let found = library.open_content(*digest);
            let reader = found.unwrap_or_else(|e| panic!("{}: {e:?}", short(*digest)));
            let mut out = Vec::new();
            reader
                .copy_to(0..u64::MAX, &mut out)
                .unwrap_or_else(|e| panic!("{}: {e:?}", short(*digest)));
            assert!(out == **self.contents[digest], "{} reads back wrong", short(*digest));
            let stat = library.stat(*digest).unwrap();
            assert!(!stat.suspect && stat.size == out.len() as u64);
        }
    }

    /// An index made from the packs alone says the same.
    pub(super) fn check_rebuilt(&mut self) {
        say!(self, "rebuild");
        let tear = std::mem::replace(&mut self.plan.lock().unwrap().tear, Tear::Keep);
        let (store, keeper) = (self.store.crash(), Arc::new(self.keeper.crash()));
        self.plan.lock().unwrap().tear = tear;
        store.memory().iter().for_each(|store| store.set_capacity(u64::MAX));
        keeper.stores().iter().for_each(|store| store.set_capacity(u64::MAX));
        let volumes = self.over(store, keeper);
        let kv = Arc::new(MemoryKv::default());
        let (bad_writes, bad_syncs) = {
            let mut plan = self.plan.lock().unwrap();
            (std::mem::take(&mut plan.bad_writes), std::mem::take(&mut plan.bad_syncs))
        };
        let report = Library::rebuild_on(&volumes, kv.clone(), &*self.environment).unwrap();
        say!(self, "{report:?}");
        let library =
            Library::open_over(volumes, kv, self.environment.clone(), self.options.clone())
                .unwrap();
        {
            let mut plan = self.plan.lock().unwrap();
            (plan.bad_writes, plan.bad_syncs) = (bad_writes, bad_syncs);
        }
        let found: Refs = library.list_refs("").unwrap().into_iter().collect();
        assert!(
            self.possible().contains(&found.iter().map(key).collect()),
            "rebuilt: found {found:?}\nwant {:?}\nor with some of {:?}",
            self.refs,
            self.ghosts
        );
        let roots = found.values().filter(|to| to.root.is_some());
        let wanted = roots.flat_map(|to| named(to).into_iter().chain(to.root)).collect();
        self.check_contents(&library, &wanted);
    }

    /// Nobody works any more: what is left is what refs reach.
    pub(super) fn rest(&mut self) {
        say!(self, "rest");
        self.no_faults();
        self.check_refs();
        self.actors.clear();
        for name in 0..self.next_durable {
            let session =
                self.library().open_session(&format!("upload {name}"), GRACE, Keeps::All).unwrap();
            session.end().unwrap();
        }
        let collect = |world: &mut Self| {
            world.library().seal_idle().unwrap();
            let report = world
                .library()
                .gc(&GcOptions::default(), &ValueNames, &Progress::default())
                .unwrap();
            say!(world, "gc -> {report:?}");
            world.environment.advance(GRACE.as_millis() as u64 + 1);
        };
        for _ in 0..3 {
            collect(self);
        }
        self.ghosts.clear();
        self.check_refs();
        self.verify();
        self.read_some();
        self.check_rebuilt();
        let mut chunks = BTreeSet::new();
        let mut recipes = BTreeSet::new();
        let mut bytes = 0;
        for digest in self.reachable() {
            let recipe = self.library().recipe(digest).unwrap();
            chunks.extend(recipe.chunks().to_vec());
            if recipe.len() > 1 && recipes.insert(digest) {
                bytes += 64 + recipe.encode().len() as u64;
            }
        }
        let stats = self.library().stats().unwrap();
        assert_eq!((stats.chunks, stats.recipes), (chunks.len() as u64, recipes.len() as u64));
        assert_eq!((stats.condemned, stats.suspects), (0, 0), "{stats:?}");
        let on_disk: u64 = stats.volumes.iter().map(|volume| volume.packs).sum();
        assert_eq!(on_disk, stats.packs, "packs that the index does not know, or copies, are left");
        // A record's head for each chunk at most; aliases, refs and commits in the open pack.
        bytes += stats.plain_bytes + 72 * stats.chunks;
        let refs: u64 = self.refs.values().map(|to| 100 + to.value.len() as u64).sum();
        let slack = 2 * refs + 10_000 + 200 * self.contents.len() as u64;
        let limit = bytes * 4 / 3 + slack;
        assert!(stats.stored_bytes <= limit, "{stats:?}; want at most {limit}");
        self.go_home();
    }

    /// All other volumes are emptied and go; nothing is lost with them.
    pub(super) fn go_home(&mut self) {
        let _ = self.library().resume_volume("home").unwrap();
        for volume in self.volumes().into_iter().skip(1) {
            let report = self.library().drain_volume(&volume.name, &Progress::default()).unwrap();
            assert!(report.left.is_empty(), "{report:?}");
            self.library().remove_volume(&volume.name).unwrap();
        }
        assert_eq!(self.volumes().len(), 1);
        self.check_refs();
        self.verify();
        self.reopen();
        self.check_rebuilt();
    }
}

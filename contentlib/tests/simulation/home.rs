//! The home volume of a simulated library: a disk, or an object store and a machine that may go.

use crate::bucket::{Bucket, Outcome};
use crate::environment::{Plan, Shared, Tear};
use contentlib::store::PackStore;
use contentlib::store::memory::MemoryStore;
use contentlib::store::objects::{ObjectPacks, Patience, Place};
use contentlib::{Environment, ObjectOptions, System};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Disk,
    Objects,
}

#[derive(Clone)]
pub enum Home {
    Disk(Arc<MemoryStore>),
    Objects(Arc<Machine>),
}

/// One machine's view of the bucket, and its disk.
pub struct Machine {
    packs: Arc<ObjectPacks>,
    bucket: Arc<Bucket>,
    plan: Arc<Mutex<Plan>>,
    now: u64,
    _folder: tempfile::TempDir,
}

/// The time of the machines: each comes when the lease of the one before has run out.
struct Later(AtomicU64);

impl Environment for Later {
    fn unix_ms(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn random(&self) -> u128 {
        System.random()
    }
}

impl Home {
    pub fn new(kind: Kind, plan: &Arc<Mutex<Plan>>) -> Self {
        match kind {
            Kind::Disk => {
                Self::Disk(Arc::new(MemoryStore::with_faults(Box::new(Shared(plan.clone())))))
            }
            Kind::Objects => {
                Self::machine(Arc::new(Bucket::default()), plan.clone(), 1_700_000_000_000)
            }
        }
    }

    fn machine(bucket: Arc<Bucket>, plan: Arc<Mutex<Plan>>, now: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let patience = Patience {
            tries: 2,
            first_pause: Duration::ZERO,
            longest_pause: Duration::ZERO,
            stall: Duration::from_secs(60),
        };
        let options = ObjectOptions { cache_bytes: 16 << 20, ..ObjectOptions::default() };
        let clock = Arc::new(Later(AtomicU64::new(now)));
        let (prefix, url) = ("library".into(), "memory://bucket/library".into());
        let place = Place { store: bucket.clone(), prefix, url };
        let packs = ObjectPacks::over(place, &options, folder.path(), clock, patience).unwrap();
        let faults = plan.clone();
        bucket.set_faults(move || {
            let mut plan = faults.lock().unwrap();
            let percent = plan.bad_syncs;
            if !plan.random.chance(percent) {
                return Outcome::Done;
            }
            [Outcome::Refused, Outcome::Unheard, Outcome::Late][plan.random.below(3)]
        });
        let packs = Arc::new(packs);
        Self::Objects(Arc::new(Machine { packs, bucket, plan, now, _folder: folder }))
    }

    pub fn store(&self) -> Arc<dyn PackStore> {
        match self {
            Self::Disk(store) => store.clone(),
            Self::Objects(machine) => machine.packs.clone(),
        }
    }

    /// What may fill up.
    pub fn memory(&self) -> Option<Arc<MemoryStore>> {
        match self {
            Self::Disk(store) => Some(store.clone()),
            Self::Objects(_) => None,
        }
    }

    /// What is left when the power goes; or the machine, with all it has. The old one goes on with
    /// a world of its own.
    pub fn crash(&self) -> Self {
        match self {
            Self::Disk(store) => Self::Disk(Arc::new(store.crash())),
            Self::Objects(machine) => {
                let left = Arc::new(machine.bucket.fork());
                let mut settle = || {
                    let mut plan = machine.plan.lock().unwrap();
                    match plan.tear {
                        Tear::Keep => true,
                        Tear::Lose => false,
                        Tear::Torn => plan.random.chance(50),
                    }
                };
                left.settle(&mut settle);
                Self::machine(left, machine.plan.clone(), machine.now + 600_000)
            }
        }
    }
}

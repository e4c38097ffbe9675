//! What a simulated library is handed: randomness, a clock, and the plan of faults.

use contentlib::Environment;
use contentlib::store::memory::Faults;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): small, and the same on every machine.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }

    /// `len` bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A clock that moves when told, and randomness from the seed.
pub struct Virtual {
    pub clock: AtomicU64,
    random: Mutex<Random>,
}

impl Virtual {
    pub fn new(seed: u64) -> Arc<Self> {
        let clock = AtomicU64::new(1_700_000_000_000);
        Arc::new(Self { clock, random: Mutex::new(Random(seed)) })
    }

    pub fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, SeqCst);
    }
}

impl Environment for Virtual {
    fn unix_ms(&self) -> u64 {
        // A clock that stands still would hide mistakes in what comes first.
        self.clock.fetch_add(1, SeqCst)
    }

    fn random(&self) -> u128 {
        let mut random = self.random.lock().unwrap();
        u128::from(random.next()) << 64 | u128::from(random.next())
    }
}

/// How a crash treats what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    /// The process dies: the page cache stays.
    Keep,
    /// The power goes, and with it all of it.
    Lose,
    /// The power goes: a front part stays, pages of it as zeros or with flipped bits.
    Torn,
}

/// The faults of one history; shared by the store and the world that steers it.
pub struct Plan {
    pub random: Random,
    /// Percent of writes that fail, part of them written.
    pub bad_writes: usize,
    /// Percent of syncs that fail, and of deletions, appearances of whole packs and saved lists.
    pub bad_syncs: usize,
    /// Percent of index batches that fail.
    pub bad_batches: usize,
    pub tear: Tear,
}

pub struct Shared(pub Arc<Mutex<Plan>>);

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Faults for Shared {
    fn write(&mut self, length: usize) -> Result<(), (usize, io::Error)> {
        let mut plan = self.0.lock().unwrap();
        let percent = plan.bad_writes;
        if !plan.random.chance(percent) {
            return Ok(());
        }
        // All of it may be there although it failed.
        let n = if plan.random.chance(20) { length } else { plan.random.below(length + 1) };
        Err((n, eio()))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let percent = plan.bad_syncs;
        if plan.random.chance(percent) { Err(eio()) } else { Ok(()) }
    }

    fn appear(&mut self) -> Result<(), (bool, io::Error)> {
        let mut plan = self.0.lock().unwrap();
        let percent = plan.bad_syncs;
        if !plan.random.chance(percent) {
            return Ok(());
        }
        Err((plan.random.chance(50), eio()))
    }

    fn delete(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn survives(&mut self, tail: &mut Vec<u8>) {
        let mut plan = self.0.lock().unwrap();
        match plan.tear {
            Tear::Keep => {}
            Tear::Lose => tail.clear(),
            Tear::Torn => {
                let keep = plan.random.below(tail.len() + 1);
                tail.truncate(keep);
                for _ in 0..plan.random.below(3) {
                    if tail.is_empty() {
                        break;
                    }
                    let at = plan.random.below(tail.len());
                    if at < 64 && tail.starts_with(b"depotpk") {
                        // A header lies in one sector, which is written whole or not.
                        tail.truncate(at);
                        break;
                    }
                    if plan.random.chance(50) {
                        let end = tail.len().min(at + 1 + plan.random.below(4096));
                        tail[at..end].fill(0);
                    } else {
                        tail[at] ^= 1 << plan.random.below(8);
                    }
                }
            }
        }
    }
}

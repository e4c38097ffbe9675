//! The site: it counts what reaches it, takes in what is reported, and may be away or busy.

use super::meter::{Kind, Meter, thread_cpu};
use client::clock::Moment;
use client::patience::WAIT;
use compliance::fleet::{Enrolment, Fingerprint, Standing};
use compliance::message::{Answer, ClientId};
use compliance::{Compliance, Settings};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// Batches of one commit, at most: what many connections bring at a time.
const GROUP: usize = 20;
/// For how long one is to leave a busy site alone, in seconds: as a site says that takes no more batches.
const LATER: std::ops::Range<u64> = 5..60;

/// What becomes of a request.
pub enum Told {
    Answered,
    Busy(Duration),
    Away,
}

/// What ingestion took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ingest {
    pub reports: u64,
    pub states: u64,
    pub bytes: u64,
    pub commits: u64,
    pub cpu: Duration,
    pub checkpoints: u64,
    pub checkpoint_cpu: Duration,
}

/// The site.
pub struct Site {
    states: Compliance,
    pub meter: Option<Meter>,
    pub ingest: Ingest,
    /// How many questions for the next policy wait, by the second in which they are asked again.
    waiting: [u32; WAIT.as_secs() as usize],
    pub is_away: bool,
    /// So many requests are answered in a second.
    pub limit: Option<u32>,
    answered: u32,
    second: u64,
    reports: Vec<(Fingerprint, Vec<u8>)>,
    rng: SmallRng,
}

/// Who a machine is.
pub fn id(n: u32) -> (ClientId, Fingerprint) {
    let mut key = [7; 32];
    // Keys of machines are random: the first bytes say when one that is put off comes again.
    key[..8].copy_from_slice(&u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key[8..12].copy_from_slice(&n.to_le_bytes());
    (ClientId(Uuid::from_u128(u128::from(n) + 1)), Fingerprint(key))
}

/// What the clock on the wall shows at a moment.
pub fn wall(now: Moment) -> Timestamp {
    let start = Timestamp::from_second(1_800_000_000).expect("it is a time");
    start + SignedDuration::try_from(now.0).expect("it is short")
}

impl Site {
    /// One with so many clients, and a database in that folder.
    pub fn new(folder: &Path, clients: u32, seed: u64) -> Self {
        let db = sitedb::Db::open_folder(folder).expect("a database is made");
        let states = Compliance::open(db, Settings::default()).expect("it is empty");
        let before = thread_cpu();
        for from in (0..clients).step_by(10_000) {
            let new = (from..clients.min(from + 10_000)).map(|n| {
                let (id, key) = id(n);
                Enrolment { id, key, name: format!("client-{n}"), standing: Standing::Approved }
            });
            let enrolled = states.enrol_all(new.collect(), wall(Moment::default()));
            assert!(enrolled.expect("they are written").iter().all(Result::is_ok));
        }
        println!(
            "{clients} clients enrolled at once: {:.1} CPU s",
            (thread_cpu() - before).as_secs_f64()
        );
        Self {
            states,
            meter: None,
            ingest: Ingest::default(),
            waiting: [0; WAIT.as_secs() as usize],
            is_away: false,
            limit: None,
            answered: 0,
            second: 0,
            reports: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// A machine asks, with so many bytes of bodies in both directions.
    pub fn ask(&mut self, kind: Kind, bodies: u64) -> Told {
        if self.is_away {
            return Told::Away;
        }
        let is_full = self.limit.is_some_and(|limit| self.answered >= limit);
        let (kind, bodies) = if is_full { (Kind::Refused, 150) } else { (kind, bodies) };
        self.answered += u32::from(!is_full);
        if let Some(meter) = &mut self.meter {
            meter.add(self.second, kind, 1, bodies);
        }
        match is_full {
            true => Told::Busy(Duration::from_secs(self.rng.random_range(LATER))),
            false => Told::Answered,
        }
    }

    /// A file is asked for at a distribution point.
    pub fn file(&mut self, size: u64) {
        if let Some(meter) = &mut self.meter {
            meter.add(self.second, Kind::File, 1, size);
        }
    }

    /// Whether what is reported now is taken in; else nothing is counted.
    pub fn listens(&self) -> bool {
        self.meter.is_some()
    }

    /// Takes a batch that was answered: with others of this second it is taken in.
    pub fn report(&mut self, n: u32, bytes: Vec<u8>, states: usize) {
        self.ingest.reports += 1;
        self.ingest.states += states as u64;
        self.ingest.bytes += bytes.len() as u64;
        self.reports.push((id(n).1, bytes));
    }

    /// The bytes of a report, as those that were taken have in the mean.
    pub fn usual_report(&self) -> u64 {
        self.ingest.bytes / self.ingest.reports.max(1) + 60
    }

    /// A question begins to wait; where it does.
    pub fn waits(&mut self) -> u8 {
        let place = self.second % WAIT.as_secs();
        self.waiting[place as usize] += 1;
        place as u8
    }

    /// One waits no more.
    pub fn leaves(&mut self, place: u8) {
        self.waiting[place as usize] -= 1;
    }

    /// How many wait.
    pub fn n_waiting(&self) -> u32 {
        self.waiting.iter().sum()
    }

    /// Another second begins.
    pub fn tick(&mut self, second: u64) {
        self.flush();
        self.second = second;
        self.answered = 0;
        let again = self.waiting[(second % WAIT.as_secs()) as usize];
        if !self.is_away {
            // Those that waited their time are answered that nothing changed, and ask anew.
            self.answered = again;
            if let Some(meter) = &mut self.meter {
                meter.add(second, Kind::Waits, again, 0);
            }
        }
        if second.is_multiple_of(5) && self.listens() {
            let before = thread_cpu();
            let now = wall(Moment(Duration::from_secs(second)));
            let made = self.states.checkpoint_if_due(now).expect("it is written");
            self.ingest.checkpoints += u64::from(made.is_some());
            self.ingest.checkpoint_cpu += thread_cpu() - before;
        }
    }

    /// Takes in what came.
    pub fn flush(&mut self) {
        let now = wall(Moment(Duration::from_secs(self.second)));
        while !self.reports.is_empty() {
            let group: Vec<_> = self.reports.drain(..GROUP.min(self.reports.len())).collect();
            let before = thread_cpu();
            let answers = self.states.accept_all(group, now);
            self.ingest.cpu += thread_cpu() - before;
            self.ingest.commits += 1;
            for answer in answers {
                // What a machine told is what the site has, by the digest of both.
                assert!(matches!(answer, Ok(Answer::Accepted { resync: None, .. })), "{answer:?}");
            }
        }
    }
}

//! What clients told of deployments: kept as each told it last, and counted by bitmaps.
//!
//! A report is on disk before it counts, in one synced write: whole, for who looks at one machine, and in short, from
//! which the bitmaps are made again when a site starts. A client's rows are replaced as a whole, so a report that comes
//! twice, late or after a crash leaves nothing behind. Rows of deployments that are gone count nowhere, and are gone from
//! disk with the client's next report.

use crate::enforcement::{Compliance, DeploymentReport, Enforcement, Evaluation, Failure, Report};
use crate::policy::DeploymentId;
use compliance::Ordinal;
use compliance::message::{ClientId, Incarnation};
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table, Value};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Error codes that are told apart in one deployment; more are counted as one.
pub const MAX_CODES: usize = 1_000;
/// Clients that are read at a time when a site starts.
const STEP: usize = 1_000;
/// Reports of different clients are written at the same time; those of one client never are.
const STRIPES: usize = 64;

const HEADS: Table<u128, Head> = Table::new("enforcement-head");
const REPORTS: Table<u128, Told> = Table::new("enforcement-report");

/// What is known of one client in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    incarnation: Incarnation,
    number: u64,
    rows: Vec<Row>,
}
impl Value for Head {}

/// A report, and when it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What was told.
    pub report: Report,
    /// When.
    pub at: Timestamp,
}
impl Value for Told {}

impl Told {
    /// What was told of a deployment.
    pub fn of(&self, deployment: DeploymentId) -> Option<&DeploymentReport> {
        self.report.deployments.iter().find(|it| it.deployment == deployment)
    }

    /// The moment that was so many seconds before the sending.
    pub fn since(&self, age: u32) -> Timestamp {
        self.at.checked_sub(SignedDuration::from_secs(age.into())).unwrap_or(self.at)
    }
}

/// How a client stands to a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    deployment: DeploymentId,
    compliance: Compliance,
    enforcement: Enforcement,
    evaluation: Evaluation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    never_fits: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_overlay: bool,
}

impl Row {
    fn of(it: &DeploymentReport) -> Self {
        let has_failed =
            matches!(it.enforcement, Enforcement::Failed | Enforcement::DownloadFailed);
        let of_update = || it.updates.iter().find_map(|update| update.failure.as_ref());
        let failure: Option<&Failure> =
            it.failure.as_ref().or_else(|| of_update().filter(|_| has_failed));
        Self {
            deployment: it.deployment,
            compliance: it.compliance,
            enforcement: it.enforcement,
            evaluation: it.evaluation,
            code: failure.map(|failure| failure.code),
            never_fits: it.never_fits,
            in_overlay: it.in_overlay,
        }
    }
}

/// Which clients of a deployment are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that told anything of it.
    Told,
    /// Those that comply so.
    Compliance(Compliance),
    /// Those that are so far.
    Enforcement(Enforcement),
    /// Those that evaluated it so.
    Evaluation(Evaluation),
    /// Those on which it failed with this code.
    Code(i64),
    /// Those on which it failed with a code that is not counted by itself.
    OtherCodes,
    /// Those that have no window long enough.
    NeverFits,
    /// Those on which what was installed goes with the next restart.
    InOverlay,
}

/// The clients of one deployment.
#[derive(Default)]
struct Tally {
    compliance: [RoaringBitmap; Compliance::ALL.len()],
    enforcement: [RoaringBitmap; Enforcement::ALL.len()],
    evaluation: [RoaringBitmap; Evaluation::ALL.len()],
    codes: BTreeMap<i64, RoaringBitmap>,
    other_codes: RoaringBitmap,
    never_fits: RoaringBitmap,
    in_overlay: RoaringBitmap,
}

impl Tally {
    fn insert(&mut self, client: Ordinal, row: &Row) {
        let put = |all: &mut [RoaringBitmap], at: u8| {
            if let Some(clients) = all.get_mut(usize::from(at)) {
                clients.insert(client);
            }
        };
        put(&mut self.compliance, row.compliance.id());
        put(&mut self.enforcement, row.enforcement.id());
        put(&mut self.evaluation, row.evaluation.id());
        if let Some(code) = row.code {
            let is_room = self.codes.len() < MAX_CODES || self.codes.contains_key(&code);
            match is_room {
                true => self.codes.entry(code).or_default().insert(client),
                false => self.other_codes.insert(client),
            };
        }
        if row.never_fits {
            self.never_fits.insert(client);
        }
        if row.in_overlay {
            self.in_overlay.insert(client);
        }
    }

    fn remove(&mut self, client: Ordinal) {
        let fixed = self.compliance.iter_mut().chain(&mut self.enforcement);
        let fixed = fixed.chain(&mut self.evaluation);
        let others = [&mut self.other_codes, &mut self.never_fits, &mut self.in_overlay];
        for clients in fixed.chain(others) {
            clients.remove(client);
        }
        self.codes.retain(|_, clients| {
            clients.remove(client);
            !clients.is_empty()
        });
    }

    fn clients(&self, which: Which) -> RoaringBitmap {
        let of = |all: &[RoaringBitmap], at: u8| all.get(usize::from(at)).cloned();
        let found = match which {
            Which::Told => Some(self.evaluation.iter().fold(RoaringBitmap::new(), |a, b| a | b)),
            Which::Compliance(it) => of(&self.compliance, it.id()),
            Which::Enforcement(it) => of(&self.enforcement, it.id()),
            Which::Evaluation(it) => of(&self.evaluation, it.id()),
            Which::Code(code) => self.codes.get(&code).cloned(),
            Which::OtherCodes => Some(self.other_codes.clone()),
            Which::NeverFits => Some(self.never_fits.clone()),
            Which::InOverlay => Some(self.in_overlay.clone()),
        };
        found.unwrap_or_default()
    }
}

/// How many clients of a collection stand how to a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many there are.
    pub targets: u64,
    /// How many told anything of it.
    pub told: u64,
    /// By compliance; who told nothing is unknown.
    pub compliance: BTreeMap<Compliance, u64>,
    /// By how far they are; who told nothing is unknown.
    pub enforcement: BTreeMap<Enforcement, u64>,
    /// By evaluation; who told nothing is unknown.
    pub evaluation: BTreeMap<Evaluation, u64>,
    /// By error code.
    pub codes: BTreeMap<i64, u64>,
    /// With a code that is not counted by itself.
    pub other_codes: u64,
    /// Who has no window long enough.
    pub never_fits: u64,
    /// On whom what was installed goes with the next restart.
    pub in_overlay: u64,
}

impl Counts {
    /// How many of a hundred comply; none of no clients. Rounded down, so that all is all.
    pub fn percent(&self) -> Option<u8> {
        let compliant = self.compliance.get(&Compliance::Compliant).copied().unwrap_or(0);
        let percent = compliant.checked_mul(100)?.checked_div(self.targets)?;
        u8::try_from(percent).ok()
    }
}

/// What is known of a client in memory.
struct Latest {
    incarnation: Incarnation,
    number: u64,
    deployments: Box<[DeploymentId]>,
}

#[derive(Default)]
struct State {
    latest: HashMap<Ordinal, Latest>,
    tallies: HashMap<DeploymentId, Tally>,
}

impl State {
    /// Takes what a client told in place of what it told before.
    fn replace(
        &mut self,
        client: Ordinal,
        head: Head,
        is_deployment: &dyn Fn(DeploymentId) -> bool,
    ) {
        self.forget(client);
        let Head { incarnation, number, rows } = head;
        let rows: Vec<Row> = rows.into_iter().filter(|row| is_deployment(row.deployment)).collect();
        for row in &rows {
            self.tallies.entry(row.deployment).or_default().insert(client, row);
        }
        let deployments = rows.iter().map(|row| row.deployment).collect();
        self.latest.insert(client, Latest { incarnation, number, deployments });
    }

    fn forget(&mut self, client: Ordinal) {
        let Some(old) = self.latest.remove(&client) else { return };
        for deployment in old.deployments {
            if let Some(tally) = self.tallies.get_mut(&deployment) {
                tally.remove(client);
            }
        }
    }
}

/// What clients told of deployments.
pub struct Results {
    db: Db,
    stripes: [Mutex<()>; STRIPES],
    state: RwLock<State>,
}

impl Results {
    /// Takes what was told into use: of clients that `find` knows, and deployments that there are. The rest is deleted.
    ///
    /// # Errors
    /// If the database fails.
    pub fn open(
        db: Db,
        find: impl Fn(ClientId) -> Option<Ordinal>,
        is_deployment: impl Fn(DeploymentId) -> bool,
    ) -> Result<Self, CommitError> {
        let (mut state, mut after, mut gone) = (State::default(), None, Batch::new());
        loop {
            let page = HEADS.scan(&db, Order::Ascending, after.as_ref(), STEP)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (id, head) in page {
                match find(ClientId(Uuid::from_u128(id))) {
                    Some(client) => state.replace(client, head, &is_deployment),
                    None => {
                        HEADS.delete(&mut gone, &id);
                        REPORTS.delete(&mut gone, &id);
                    }
                }
            }
        }
        db.kv().write(gone)?;
        let stripes = std::array::from_fn(|_| Mutex::new(()));
        Ok(Self { db, stripes, state: RwLock::new(state) })
    }

    fn stripe(&self, client: Ordinal) -> &Mutex<()> {
        let at = client as usize % STRIPES;
        // One for each remainder.
        self.stripes.get(at).unwrap_or(&self.stripes[0])
    }

    /// Takes a report of a client, which is durable then; `false` if it is one that came late or twice, which changes
    /// nothing.
    ///
    /// # Errors
    /// If the database fails: then it does not count.
    pub fn accept(
        &self,
        client: Ordinal,
        report: Report,
        is_deployment: impl Fn(DeploymentId) -> bool,
        now: Timestamp,
    ) -> Result<bool, CommitError> {
        let _one_at_a_time = self.stripe(client).lock();
        let is_old =
            |it: &Latest| it.incarnation == report.incarnation && report.number <= it.number;
        if self.state.read().latest.get(&client).is_some_and(is_old) {
            return Ok(false);
        }
        let rows = report.deployments.iter().filter(|it| is_deployment(it.deployment));
        let head = Head {
            incarnation: report.incarnation,
            number: report.number,
            rows: rows.map(Row::of).collect(),
        };
        let key = report.client.0.as_u128();
        let mut batch = Batch::new();
        HEADS.put(&mut batch, &key, &head);
        REPORTS.put(&mut batch, &key, &Told { report, at: now });
        self.db.kv().write(batch)?;
        self.state.write().replace(client, head, &is_deployment);
        Ok(true)
    }

    /// Forgets what a client told.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_client(&self, client: Ordinal, id: ClientId) -> Result<(), CommitError> {
        let _one_at_a_time = self.stripe(client).lock();
        let mut batch = Batch::new();
        HEADS.delete(&mut batch, &id.0.as_u128());
        REPORTS.delete(&mut batch, &id.0.as_u128());
        self.db.kv().write(batch)?;
        self.state.write().forget(client);
        Ok(())
    }

    /// Forgets what was told of a deployment.
    pub fn forget_deployment(&self, deployment: DeploymentId) {
        self.state.write().tallies.remove(&deployment);
    }

    /// How many of these clients stand how to a deployment.
    pub fn counts(&self, deployment: DeploymentId, clients: &RoaringBitmap) -> Counts {
        let none = Tally::default();
        let state = self.state.read();
        let tally = state.tallies.get(&deployment).unwrap_or(&none);
        let count = |of: &RoaringBitmap| of.intersection_len(clients);
        let told = count(&tally.clients(Which::Told));
        let (targets, silent) = (clients.len(), clients.len() - told);
        fn by<T: Ord + Copy>(
            all: &[T],
            bitmaps: &[RoaringBitmap],
            (unknown, silent): (T, u64),
            count: &dyn Fn(&RoaringBitmap) -> u64,
        ) -> BTreeMap<T, u64> {
            let counted = all.iter().zip(bitmaps).map(|(it, clients)| {
                (*it, count(clients) + if *it == unknown { silent } else { 0 })
            });
            counted.filter(|(_, n)| *n > 0).collect()
        }
        let codes = tally.codes.iter().map(|(code, clients)| (*code, count(clients)));
        Counts {
            targets,
            told,
            compliance: by(
                Compliance::ALL,
                &tally.compliance,
                (Compliance::Unknown, silent),
                &count,
            ),
            enforcement: by(
                Enforcement::ALL,
                &tally.enforcement,
                (Enforcement::Unknown, silent),
                &count,
            ),
            evaluation: by(
                Evaluation::ALL,
                &tally.evaluation,
                (Evaluation::Unknown, silent),
                &count,
            ),
            codes: codes.filter(|(_, n)| *n > 0).collect(),
            other_codes: count(&tally.other_codes),
            never_fits: count(&tally.never_fits),
            in_overlay: count(&tally.in_overlay),
        }
    }

    /// Those of these clients that stand so to a deployment. Who told nothing is of unknown compliance, enforcement and
    /// evaluation.
    pub fn clients(
        &self,
        deployment: DeploymentId,
        which: Which,
        clients: &RoaringBitmap,
    ) -> RoaringBitmap {
        let none = Tally::default();
        let state = self.state.read();
        let tally = state.tallies.get(&deployment).unwrap_or(&none);
        let mut found = tally.clients(which) & clients;
        if matches!(
            which,
            Which::Compliance(Compliance::Unknown)
                | Which::Enforcement(Enforcement::Unknown)
                | Which::Evaluation(Evaluation::Unknown)
        ) {
            found |= clients - tally.clients(Which::Told);
        }
        found
    }

    /// What a client told last.
    ///
    /// # Errors
    /// If the database fails.
    pub fn told(&self, client: ClientId) -> Result<Option<Told>, DbError> {
        REPORTS.get(&self.db, &client.0.as_u128())
    }
}

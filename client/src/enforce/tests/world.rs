//! A machine that does what the enforcer says, in simulated time: the clock goes on, windows open and close, things fail,
//! the power goes.

use super::super::*;
use crate::enforce::found::{Done, Evaluated, Needed};
use crate::enforce::report::Listed;
use deployment::calendar::Recurrence;
use deployment::enforcement::{Compliance, Enforcement};
use deployment::policy::{DeployedFile, DeployedItem, Experience, When};
use deployment::window::Clock;
use sync::update::Handler;
use uuid::Uuid;

pub const MINUTE: u64 = 60;
pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 86_400;

/// A deployment with a document of that name, due at the start of time.
pub fn deployment(n: u128, document: &str) -> DeploymentPolicy {
    DeploymentPolicy {
        id: DeploymentId(Uuid::from_u128(n)),
        name: format!("deployment {n}"),
        available: When::Utc(start()),
        deadline: Some(When::Utc(start())),
        experience: Experience { spread: false, ..Experience::default() },
        updates: document.into(),
        updates_size: 1,
    }
}

pub fn start() -> Timestamp {
    "2026-11-28T00:00:00Z".parse().unwrap()
}

pub fn after(seconds: u64) -> When {
    When::Utc(when::later(start(), Duration::from_secs(seconds)))
}

pub fn update(n: u8) -> UpdateId {
    UpdateId(Uuid::from_u128(n.into()))
}

/// A window of each day that opens at that hour.
pub fn daily(hour: i8, minutes: u16) -> Window {
    let at = jiff::civil::date(2026, 1, 1).at(hour, 0, 0, 0);
    Window::new(at, minutes, Clock::Utc, Recurrence::Daily(1)).unwrap()
}

/// What became of an update on the simulated machine.
#[derive(Clone, Debug, Default)]
pub struct Software {
    pub is_installed: bool,
    /// Installed, it is nothing until the machine restarts.
    pub needs_restart: bool,
    /// It was installed below an overlay, and shows after a restart.
    pub is_below: bool,
    pub in_overlay: bool,
    /// Something newer is in its place.
    pub is_superseded: bool,
    /// Its installer fails though it is installed, as where another package's script does.
    pub fails_beside: bool,
    /// So often its installation fails first.
    pub fails: u32,
    /// How long it takes, in seconds.
    pub takes: u64,
}

/// A machine that does what it is told, in simulated time.
pub struct World {
    pub enforcer: Enforcer,
    /// The time that passed.
    pub seconds: u64,
    /// How far the clock on the wall is ahead of it.
    pub ahead: i64,
    pub boot: u32,
    pub machine: Machine,
    pub deployments: Vec<DeploymentPolicy>,
    pub windows: Vec<Window>,
    pub longest: Option<(Vec<Window>, Option<i64>)>,
    pub settings: Settings,
    /// Which updates are in which document.
    pub documents: BTreeMap<String, Vec<u8>>,
    pub held: BTreeSet<String>,
    pub found: Found,
    pub cached: BTreeMap<String, u64>,
    pub software: BTreeMap<u8, Software>,
    /// Updates that the catalogue lacks, and whether the update point has them.
    pub lacking: (BTreeSet<u8>, bool),
    /// What was done, and when by the clock on the wall.
    pub done: Vec<(i64, String)>,
    pub dice: u64,
    /// Of so many files and scans one fails.
    pub trouble: u64,
    pub doing: Option<(Step, u64)>,
}

impl World {
    pub fn new(updates: &[u8]) -> Self {
        let software = updates.iter().map(|n| (*n, Software { takes: 60, ..Software::default() }));
        Self {
            enforcer: Enforcer::default(),
            seconds: 0,
            ahead: 0,
            boot: 1,
            machine: Machine::default(),
            deployments: vec![deployment(1, "d")],
            windows: Vec::new(),
            longest: None,
            settings: Settings::default(),
            documents: BTreeMap::from([("d".to_owned(), updates.to_vec())]),
            held: BTreeSet::new(),
            found: Found::default(),
            cached: BTreeMap::new(),
            software: software.collect(),
            lacking: (BTreeSet::new(), true),
            done: Vec::new(),
            dice: 1,
            trouble: u64::MAX,
            doing: None,
        }
    }

    pub fn chance(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    pub fn fails(&mut self) -> bool {
        self.chance() % self.trouble == self.trouble - 1
    }

    /// Has the enforcer look at how things stand.
    pub fn with<T>(
        &mut self,
        ask: impl FnOnce(&mut Enforcer, &View<'_>, &mut dyn FnMut() -> f64) -> T,
    ) -> T {
        let windows = Windows { windows: &self.windows, local: &TimeZone::UTC };
        let wall = self.wall();
        if self.longest.as_ref().is_none_or(|(of, _)| *of != self.windows) {
            let longest = windows.times(wall).take(5);
            let longest = longest.map(|it| it.until.duration_since(it.from).as_mins()).max();
            self.longest = Some((self.windows.clone(), longest));
        }
        let boot = self.boot.to_string();
        let view = View {
            wall,
            now: Moment(Duration::from_secs(self.seconds)),
            boot: &boot,
            zone: &TimeZone::UTC,
            settings: &self.settings,
            deployments: &self.deployments,
            windows: &self.windows,
            longest_window: self.longest.as_ref().and_then(|(_, longest)| *longest),
            documents: &self.held,
            found: &self.found,
            cached: &self.cached,
            machine: self.machine,
        };
        let mut dice = || 0.5;
        ask(&mut self.enforcer, &view, &mut dice)
    }

    pub fn wall(&self) -> Timestamp {
        let passed = self.seconds as i64 + self.ahead;
        start() + jiff::SignedDuration::from_secs(passed)
    }

    pub fn listed(&mut self) -> Listed {
        self.with(|it, view, _| it.listed(view)).remove(0)
    }

    pub fn standing(&mut self) -> (Compliance, Enforcement) {
        let listed = self.listed();
        (listed.standing.compliance, listed.standing.enforcement)
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.done.push((self.seconds as i64 + self.ahead, what.into()));
    }

    /// What was done since it was asked last, without the times.
    pub fn said(&mut self) -> Vec<String> {
        self.done.drain(..).map(|(_, what)| what).collect()
    }

    pub fn scan(&mut self) {
        self.found = Found::default();
        let known = self.enforcer.known().0;
        let waits = self.enforcer.awaiting_restart(&self.boot.to_string());
        for name in &self.held {
            let ids = self.documents.get(name).cloned().unwrap_or_default();
            let mut evaluated = Evaluated::default();
            for n in ids {
                if self.lacking.0.contains(&n) {
                    evaluated.missing += 1;
                    continue;
                }
                let it = &self.software[&n];
                let lacks = !it.is_installed || it.is_below || waits.contains(&update(n));
                if lacks && !it.is_superseded {
                    let file = |name: String| DeployedFile {
                        digest: Some(name.clone()),
                        name,
                        size: 1,
                        ..DeployedFile::default()
                    };
                    let files = vec![file(format!("file-{n}"))];
                    let item = DeployedItem {
                        handler: Some(Handler::Apt),
                        files,
                        ..DeployedItem::default()
                    };
                    let needed = Needed {
                        name: n.to_string(),
                        items: vec![item],
                        awaits_restart: it.is_installed && !it.is_below,
                        ..Needed::default()
                    };
                    self.found.updates.insert(update(n), needed);
                } else if known.contains(&update(n)) {
                    let done = Done { name: n.to_string(), is_installed: !it.is_superseded };
                    self.found.done.insert(update(n), done);
                } else {
                    continue;
                }
                evaluated.updates.insert(update(n));
            }
            self.found.documents.insert(name.clone(), evaluated);
        }
    }

    /// Takes deployments out of the policy, and their documents with them, as an agent does. Gives them.
    pub fn withdraw(&mut self) -> Vec<DeploymentPolicy> {
        for deployment in &self.deployments {
            self.held.remove(&deployment.updates);
            self.found.documents.remove(&deployment.updates);
        }
        std::mem::take(&mut self.deployments)
    }

    pub fn restart(&mut self) {
        // As it is on disk: what is not written down is lost.
        let written = serde_json::to_vec(&self.enforcer).unwrap();
        self.enforcer = serde_json::from_slice(&written).unwrap();
        self.boot += 1;
        self.enforcer.interrupted();
        self.doing = None;
        for software in self.software.values_mut() {
            software.is_below = false;
            if std::mem::take(&mut software.in_overlay) {
                software.is_installed = false;
            }
        }
    }

    /// The power goes: what was at work did its work, or did not.
    pub fn power_cut(&mut self) {
        if let Some((Step::Install { update, .. }, _)) = self.doing.take() {
            let n = update.0.as_u128() as u8;
            let half = self.chance().is_multiple_of(2);
            if let Some(software) = self.software.get_mut(&n).filter(|_| half) {
                software.is_installed = true;
            }
        }
        self.say("power cut");
        self.restart();
    }

    /// Begins what the enforcer wants, or ends what was begun. False, if there is nothing but to wait.
    pub fn act(&mut self) -> bool {
        if let Some((step, ends)) = self.doing.clone() {
            if ends > self.seconds {
                return false;
            }
            self.doing = None;
            self.end(step);
            return true;
        }
        let step = self.with(|it, view, dice| it.next(view, dice));
        match &step {
            Step::Wait(_) => return false,
            Step::Document(_) => {}
            Step::Scan(trigger) => self.say(format!("{trigger:?}")),
            Step::File { digest, .. } => self.say(digest.clone()),
            Step::Restart => {
                self.say("restart");
                if !self.fails() {
                    self.restart();
                }
                return true;
            }
            Step::Install { update, below_overlay, .. } => {
                let n = update.0.as_u128() as u8;
                self.say(format!("install {n}{}", if *below_overlay { " below" } else { "" }));
                assert!(self.cached.contains_key(&format!("file-{n}")));
                let takes = self.software[&n].takes;
                self.doing = Some((step, self.seconds + takes));
                return true;
            }
        }
        self.doing = Some((step, self.seconds));
        true
    }

    pub fn end(&mut self, step: Step) {
        let failure = || Err(Failure::new(1, "x"));
        match step {
            Step::Document(digest) => {
                let came = if self.fails() { failure() } else { Ok(()) };
                if came.is_ok() {
                    self.held.insert(digest.clone());
                }
                self.with(|it, view, dice| it.document(&digest, came, view, dice));
            }
            Step::File { digest, size } => {
                let came = if self.fails() { failure() } else { Ok(()) };
                if came.is_ok() {
                    self.cached.insert(digest.clone(), size);
                }
                self.with(|it, view, dice| it.file(&digest, came, view, dice));
            }
            Step::Scan(trigger) => self.scanned(trigger),
            Step::Install { update, below_overlay, .. } => {
                let n = update.0.as_u128() as u8;
                let has_overlay = self.machine.has_overlay;
                let it = self.software.get_mut(&n).unwrap();
                let failed = || Outcome::Failed(Failure::new(1, "it does not like it"));
                let mut ending = Ending { outcome: failed(), needs_restart: false };
                if it.fails > 0 {
                    it.fails -= 1;
                } else {
                    it.is_installed = true;
                    it.is_below = below_overlay;
                    it.in_overlay = has_overlay && !below_overlay;
                    let outcome = if it.fails_beside { failed() } else { Outcome::Ended };
                    ending = Ending { outcome, needs_restart: it.needs_restart };
                }
                self.with(|it, view, dice| {
                    it.installed(update, below_overlay, ending, view, dice);
                });
            }
            Step::Restart | Step::Wait(_) => {}
        }
    }

    pub fn scanned(&mut self, trigger: Trigger) {
        let answers = BTreeSet::from([trigger]);
        if self.fails() {
            return self.with(|it, view, dice| it.scan_failed(&answers, "x", view, dice));
        }
        if trigger == Trigger::UserAction && self.lacking.1 {
            self.lacking.0.clear();
        }
        self.scan();
        self.with(|it, view, dice| it.scanned(&answers, view, dice));
    }

    /// Does all there is to do at this moment.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.act() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", &self.done[self.done.len() - 20..]);
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.seconds + seconds;
        self.settle();
        while self.seconds < end {
            let step = 30.min(end - self.seconds);
            self.seconds += step;
            self.settle();
        }
    }
}

//! Scenes of one machine, and walks over its life: the clock goes on, windows open and close, things fail, the power goes.

use super::*;
use crate::enforce::found::{Evaluated, Needed};
use crate::enforce::report::Listed;
use deployment::calendar::Recurrence;
use deployment::enforcement::{Compliance, Enforcement, Update};
use deployment::policy::{DeployedFile, DeployedItem, Experience, When};
use deployment::window::Clock;
use proptest::prelude::*;
use sync::update::Handler;
use uuid::Uuid;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A deployment with a document of that name, due at the start of time.
pub(super) fn deployment(n: u128, document: &str) -> DeploymentPolicy {
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

fn start() -> Timestamp {
    "2026-11-28T00:00:00Z".parse().unwrap()
}

fn after(seconds: u64) -> When {
    When::Utc(when::later(start(), Duration::from_secs(seconds)))
}

fn update(n: u8) -> UpdateId {
    UpdateId(Uuid::from_u128(n.into()))
}

/// A window of each day that opens at that hour.
fn daily(hour: i8, minutes: u16) -> Window {
    let at = jiff::civil::date(2026, 1, 1).at(hour, 0, 0, 0);
    Window::new(at, minutes, Clock::Utc, Recurrence::Daily(1)).unwrap()
}

/// What became of an update on the simulated machine.
#[derive(Clone, Debug, Default)]
struct Software {
    is_installed: bool,
    /// Installed, and nothing until the machine restarts.
    needs_restart: bool,
    waits: bool,
    in_overlay: bool,
    /// So often its installation fails first.
    fails: u32,
    /// How long it takes, in seconds.
    takes: u64,
}

/// A machine that does what it is told, in simulated time.
struct World {
    enforcer: Enforcer,
    /// The time that passed.
    seconds: u64,
    /// How far the clock on the wall is ahead of it.
    ahead: i64,
    boot: u32,
    machine: Machine,
    deployments: Vec<DeploymentPolicy>,
    windows: Vec<Window>,
    longest: Option<(Vec<Window>, Option<i64>)>,
    settings: Settings,
    /// Which updates are in which document.
    documents: BTreeMap<String, Vec<u8>>,
    held: BTreeSet<String>,
    found: Found,
    cached: BTreeMap<String, u64>,
    software: BTreeMap<u8, Software>,
    /// Updates that the catalogue lacks, and whether the update point has them.
    lacking: (BTreeSet<u8>, bool),
    /// What was done, and when by the clock on the wall.
    done: Vec<(i64, String)>,
    dice: u64,
    /// Of so many files and scans one fails.
    trouble: u64,
    doing: Option<(Step, u64)>,
}

impl World {
    fn new(updates: &[u8]) -> Self {
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

    fn chance(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn fails(&mut self) -> bool {
        self.chance() % self.trouble == self.trouble - 1
    }

    /// Has the enforcer look at how things stand.
    fn with<T>(
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

    fn wall(&self) -> Timestamp {
        let passed = self.seconds as i64 + self.ahead;
        start() + jiff::SignedDuration::from_secs(passed)
    }

    fn listed(&mut self) -> Listed {
        self.with(|it, view, _| it.listed(view)).remove(0)
    }

    fn standing(&mut self) -> (Compliance, Enforcement) {
        let listed = self.listed();
        (listed.standing.compliance, listed.standing.enforcement)
    }

    fn say(&mut self, what: impl Into<String>) {
        self.done.push((self.seconds as i64 + self.ahead, what.into()));
    }

    /// What was done since it was asked last, without the times.
    fn said(&mut self) -> Vec<String> {
        self.done.drain(..).map(|(_, what)| what).collect()
    }

    fn scan(&mut self) {
        self.found = Found::default();
        let known = self.enforcer.known().0;
        for name in &self.held {
            let ids = self.documents.get(name).cloned().unwrap_or_default();
            let mut evaluated = Evaluated::default();
            for n in ids {
                if self.lacking.0.contains(&n) {
                    evaluated.missing += 1;
                    continue;
                }
                let it = &self.software[&n];
                if !it.is_installed || it.waits {
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
                    let needed =
                        Needed { name: n.to_string(), items: vec![item], ..Needed::default() };
                    self.found.updates.insert(update(n), needed);
                    evaluated.updates.insert(update(n));
                }
                if known.contains(&update(n)) {
                    evaluated.updates.insert(update(n));
                }
            }
            self.found.documents.insert(name.clone(), evaluated);
        }
    }

    fn restart(&mut self) {
        // As it is on disk: what is not written down is lost.
        let written = serde_json::to_vec(&self.enforcer).unwrap();
        self.enforcer = serde_json::from_slice(&written).unwrap();
        self.boot += 1;
        self.enforcer.interrupted();
        self.doing = None;
        for software in self.software.values_mut() {
            software.waits = false;
            if std::mem::take(&mut software.in_overlay) {
                software.is_installed = false;
            }
        }
    }

    /// The power goes: what was at work did its work, or did not.
    fn power_cut(&mut self) {
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
    fn act(&mut self) -> bool {
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

    fn end(&mut self, step: Step) {
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
                let outcome = if it.fails > 0 {
                    it.fails -= 1;
                    Outcome::Failed(Failure::new(1, "it does not like it"))
                } else {
                    it.is_installed = true;
                    it.waits = it.needs_restart || below_overlay;
                    it.in_overlay = has_overlay && !below_overlay;
                    Outcome::Ended { needs_restart: it.needs_restart }
                };
                self.with(|it, view, dice| {
                    it.installed(update, below_overlay, outcome, view, dice);
                });
            }
            Step::Restart | Step::Wait(_) => {}
        }
    }

    fn scanned(&mut self, trigger: Trigger) {
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
    fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.act() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", &self.done[self.done.len() - 20..]);
    }

    /// Lets time pass.
    fn pass(&mut self, seconds: u64) {
        let end = self.seconds + seconds;
        self.settle();
        while self.seconds < end {
            let step = 30.min(end - self.seconds);
            self.seconds += step;
            self.settle();
        }
    }
}

#[test]
fn a_required_deployment_is_evaluated_downloaded_and_at_its_deadline_installed() {
    let mut world = World::new(&[1]);
    world.deployments[0].available = after(HOUR);
    world.deployments[0].deadline = Some(after(DAY));
    world.pass(10);
    assert_eq!(world.said(), ["BeforeDownload"]);
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Unknown));
    world.pass(HOUR);
    assert_eq!(world.said(), ["file-1"], "at the available time");
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Downloaded));
    world.pass(DAY - HOUR - 60);
    assert!(world.said().is_empty());
    // Evicted for another one.
    world.cached.clear();
    world.trouble = u64::MAX;
    world.seconds = DAY;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeInstall", "file-1", "install 1", "AfterInstall"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    let updates = world.listed().updates;
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].state, Update::Installed);
    // Somebody removed it: the next evaluation finds that, and it comes from the cache.
    world.software.get_mut(&1).unwrap().is_installed = false;
    world.scanned(Trigger::Reevaluation);
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeInstall", "install 1", "AfterInstall"]);
}

#[test]
fn what_is_newer_than_the_catalogue_is_asked_for_and_what_never_comes_is_for_others() {
    let mut world = World::new(&[1]);
    world.lacking.0 = BTreeSet::from([1]);
    world.pass(HOUR);
    let all =
        ["BeforeDownload", "UserAction", "BeforeInstall", "file-1", "install 1", "AfterInstall"];
    assert_eq!(world.said(), all);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));

    let mut world = World::new(&[1]);
    world.lacking = (BTreeSet::from([1]), false);
    world.pass(10);
    assert_eq!(world.said(), ["BeforeDownload", "UserAction"]);
    assert_eq!(world.standing().0, Compliance::Unknown, "it may come yet");
    world.pass(DAY);
    assert_eq!(world.said(), ["UserAction", "UserAction"], "a bounded number of times");
    assert_eq!(world.standing().0, Compliance::Compliant);
}

#[test]
fn an_optional_deployment_waits_for_the_user_and_one_that_is_predownloaded_for_nobody() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = None;
    world.pass(30 * DAY);
    assert_eq!(world.said(), ["BeforeDownload"]);
    let id = world.deployments[0].id;
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.with(|it, view, dice| it.user_wants(Some(id), view, dice)).unwrap();
    world.pass(DAY);
    assert_eq!(world.said(), ["BeforeInstall", "file-1", "install 1", "AfterInstall"]);
    // The user restarts when it suits.
    assert_eq!(world.standing().1, Enforcement::PendingRestart);
    world.restart();
    world.pass(DAY);
    assert_eq!(world.said(), ["AfterRestart"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));

    let mut world = World::new(&[1]);
    world.deployments[0].available = after(DAY);
    world.deployments[0].deadline = Some(after(2 * DAY));
    world.deployments[0].experience.predownload = true;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeDownload", "file-1"]);
    let error = world.with(|it, view, dice| it.user_wants(Some(id), view, dice)).unwrap_err();
    assert!(matches!(error, NotNow::NotYet(..)));
    assert_eq!(world.with(|it, view, dice| it.user_wants(None, view, dice)), Ok(vec![]));
}

#[test]
fn what_fits_into_the_rest_of_a_window_is_installed_the_shortest_first() {
    let mut world = World::new(&[1, 2]);
    // Two deployments, as a deployment has one time for all its updates.
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[0].experience.max_run_time = Some(90);
    world.deployments[1].experience.max_run_time = Some(40);
    world.windows = vec![daily(2, 120)];
    world.software.get_mut(&2).unwrap().takes = 35 * MINUTE;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeDownload", "file-1", "file-2"]);
    assert_eq!(world.standing().1, Enforcement::WaitingForWindow);
    world.pass(4 * HOUR);
    assert_eq!(
        world.said(),
        ["BeforeInstall", "install 2", "AfterInstall"],
        "then 85 minutes are left"
    );
    world.pass(DAY);
    assert_eq!(world.said(), ["BeforeInstall", "install 1", "AfterInstall"]);
    // One that will never fit is found out before its deadline.
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(DAY));
    world.deployments[0].experience.max_run_time = Some(200);
    world.windows = vec![daily(2, 120)];
    world.pass(HOUR);
    assert!(world.with(|it, view, _| it.reports(view))[0].never_fits);
    world.pass(3 * DAY);
    assert!(!world.said().contains(&"install 1".to_owned()));
    world.deployments[0].experience.outside_windows.install = true;
    world.pass(HOUR);
    assert!(world.said().contains(&"install 1".to_owned()));
}

#[test]
fn a_restart_follows_in_the_window_and_early_installations_wait_for_the_deadline() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(2 * DAY));
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.windows = vec![daily(2, 120)];
    world.pass(HOUR);
    world.with(|it, view, dice| it.user_wants(None, view, dice)).unwrap();
    world.pass(DAY);
    assert!(world.said().ends_with(&["install 1".into(), "AfterInstall".into()]));
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::WaitingForRestart));
    world.pass(DAY);
    assert_eq!(world.said(), [""; 0], "the deadline is over, and no window is open");
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    // Where servers are left alone, somebody has to do it.
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.machine.is_server = true;
    world.deployments[0].experience.suppress_restart.servers = true;
    world.pass(DAY);
    assert!(!world.said().contains(&"restart".to_owned()));
    assert_eq!(world.standing().1, Enforcement::PendingRestart);
    // Another deployment of the same update does not leave them alone.
    world.deployments.push(deployment(2, "d"));
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
}

#[test]
fn people_see_a_restart_come_and_may_put_it_off_for_a_while() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.machine.has_people = true;
    world.pass(2 * MINUTE);
    let left = |world: &mut World| world.with(|it, view, _| it.restarts_in(view.now)).unwrap();
    assert!(left(&mut world) > Duration::from_secs(13 * MINUTE));
    let snooze =
        |world: &mut World, by| world.with(|it, view, _| it.snooze(Duration::from_secs(by), view));
    snooze(&mut world, HOUR).unwrap();
    world.pass(HOUR);
    assert!(!world.said().contains(&"restart".to_owned()));
    snooze(&mut world, 100 * HOUR).unwrap();
    assert_eq!(snooze(&mut world, HOUR), Err(NotNow::NoMore));
    world.pass(2 * HOUR);
    assert!(!world.said().contains(&"restart".to_owned()));
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
    assert_eq!(snooze(&mut world, HOUR), Err(NotNow::NoRestart));
}

#[test]
fn what_fails_is_tried_ever_later_then_not_until_deployments_are_evaluated_again() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().fails = 6;
    world.pass(3 * DAY);
    let installs = world.said().iter().filter(|it| *it == "install 1").count();
    assert_eq!(installs, 4);
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Failed));
    let report = world.with(|it, view, _| it.reports(view)).remove(0);
    assert_eq!(report.failure.unwrap().detail, "it does not like it");
    world.scanned(Trigger::Reevaluation);
    world.pass(DAY);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
}

#[test]
fn two_that_undo_each_other_come_to_rest() {
    let mut world = World::new(&[1]);
    for _ in 0..20 {
        world.pass(HOUR);
        world.software.get_mut(&1).unwrap().is_installed = false;
        world.scanned(Trigger::BeforeDownload);
    }
    world.pass(DAY);
    let installs = world.said().iter().filter(|it| *it == "install 1").count();
    assert!(installs <= 5, "{installs}");
}

#[test]
fn an_update_of_two_deployments_is_installed_once_for_the_one_that_is_due_first() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(5 * DAY));
    let mut other = deployment(2, "e");
    other.deadline = Some(after(DAY));
    world.documents.insert("e".into(), vec![1]);
    world.deployments.push(other);
    world.pass(DAY + HOUR);
    world.pass(9 * DAY);
    let done = world.said();
    assert_eq!(done.iter().filter(|it| *it == "install 1").count(), 1, "{done:?}");
    let listed = world.with(|it, view, _| it.listed(view));
    assert!(listed.iter().all(|it| it.standing.enforcement == Enforcement::Succeeded));
}

#[test]
fn what_leaves_the_policy_is_forgotten() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.deployments[0].experience.suppress_restart.workstations = true;
    world.pass(DAY);
    world.deployments.clear();
    world.pass(DAY);
    let forgotten = &world.enforcer;
    assert!(forgotten.plans.is_empty() && forgotten.jobs.is_empty());
    assert!(!world.said().contains(&"restart".to_owned()));
}

#[test]
fn on_an_overlay_it_is_committed_or_told_to_be_lost_with_the_restart() {
    let mut world = World::new(&[1]);
    world.machine.has_overlay = true;
    world.deployments[0].experience.commit = false;
    world.pass(HOUR);
    assert!(world.with(|it, view, _| it.reports(view))[0].in_overlay);
    assert_eq!(world.standing().0, Compliance::Compliant);
    world.said();
    world.restart();
    world.pass(MINUTE);
    assert_eq!(world.said(), ["AfterRestart", "BeforeInstall", "install 1", "AfterInstall"]);
    // Another deployment of it commits.
    let mut other = deployment(2, "d");
    other.experience.commit = true;
    world.deployments.push(other);
    world.restart();
    world.said();
    world.pass(HOUR);
    let done = world.said();
    assert_eq!(done[..3], ["AfterRestart", "BeforeInstall", "install 1 below"]);
    assert_eq!(done[done.len() - 2..], ["restart", "AfterRestart"], "{done:?}");
    assert!(!world.with(|it, view, _| it.reports(view))[0].in_overlay);
    assert_eq!(world.standing().0, Compliance::Compliant);
}

#[test]
fn coming_deadlines_are_taken_along_where_that_is_set() {
    let mut world = World::new(&[1, 2]);
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[1].deadline = Some(after(5 * DAY));
    world.pass(HOUR);
    assert!(!world.said().contains(&"install 2".to_owned()));
    world.software.get_mut(&1).unwrap().is_installed = false;
    world.settings.coming_deadlines = Duration::from_secs(7 * DAY);
    world.scanned(Trigger::Reevaluation);
    world.pass(HOUR);
    assert!(world.said().contains(&"install 2".to_owned()));
}

#[test]
fn a_download_makes_room_for_what_is_due() {
    let mut world = World::new(&[1, 2]);
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[0].deadline = Some(after(HOUR));
    world.deployments[1].deadline = Some(after(5 * DAY));
    world.pass(MINUTE);
    world.cached.remove("file-2");
    let step = world.with(|it, view, dice| it.next(view, dice));
    assert!(matches!(step, Step::File { ref digest, .. } if digest == "file-2"));
    assert!(!world.with(|it, view, _| it.makes_room(view)));
    world.seconds = HOUR;
    assert!(world.with(|it, view, _| it.makes_room(view)));
}

/// What may be drawn for a walk.
#[derive(Clone, Debug)]
struct Life {
    available: u64,
    deadline: Option<u64>,
    windows: Vec<(i8, u16)>,
    outside: bool,
    run_time: Option<u16>,
    software: Vec<(bool, u32, u64)>,
    trouble: u64,
    cuts: Vec<u64>,
    /// Hours by which the clock is set at a power cut.
    jumps: Vec<i64>,
    overlay: Option<bool>,
    seed: u64,
}

fn lives() -> impl Strategy<Value = Life> {
    let software = prop::collection::vec((any::<bool>(), 0..3u32, 10..600u64), 1..4);
    let times = (0..3 * DAY, prop::option::weighted(0.9, 0..5 * DAY));
    let windows = prop::collection::vec((0..23i8, 15..300u16), 0..3);
    let odd = (any::<bool>(), prop::option::of(5..60u16), 3..50u64);
    let cuts = (prop::collection::vec(1..2_000u64, 0..6), prop::collection::vec(-99..99i64, 0..4));
    let overlay = prop::option::weighted(0.2, any::<bool>());
    (times, windows, odd, software, cuts, overlay, any::<u64>()).prop_map(
        |((available, deadline), windows, odd, software, cuts, overlay, seed)| Life {
            available,
            deadline: deadline.map(|it| available + it),
            windows,
            outside: odd.0,
            run_time: odd.1,
            software,
            trouble: odd.2,
            cuts: cuts.0,
            jumps: cuts.1,
            overlay,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_it_is_installed_when_it_may_be_and_the_machine_comes_to_comply(life in lives()) {
        let ids: Vec<u8> = (1..).take(life.software.len()).collect();
        let mut world = World::new(&ids);
        for (n, (needs_restart, fails, takes)) in ids.iter().zip(&life.software) {
            let software = world.software.get_mut(n).unwrap();
            (software.needs_restart, software.fails, software.takes) = (*needs_restart, *fails, *takes);
        }
        let it = &mut world.deployments[0];
        it.available = after(life.available);
        it.deadline = life.deadline.map(after);
        it.experience.outside_windows.install = life.outside;
        it.experience.max_run_time = life.run_time;
        world.windows = life.windows.iter().map(|(hour, minutes)| daily(*hour, *minutes)).collect();
        world.trouble = life.trouble;
        world.dice = life.seed | 1;
        if let Some(commits) = life.overlay {
            world.machine.has_overlay = true;
            world.deployments[0].experience.commit = commits;
        }
        let (mut cuts, mut jumps) = (life.cuts.clone(), life.jumps.clone());
        let need = u64::from(life.run_time.unwrap_or(10));
        // Five days with trouble, and then without, in steps of ten minutes and an evaluation each week.
        let mut steps = 0;
        while world.seconds < 22 * DAY {
            steps += 1;
            world.act();
            if cuts.contains(&steps) {
                cuts.retain(|it| *it != steps);
                world.power_cut();
                world.ahead = jumps.pop().unwrap_or(0) * HOUR as i64;
            }
            let is_idle = world.with(|it, _, _| !it.is_busy()) || world.doing.as_ref().is_some_and(|it| it.1 > world.seconds);
            if is_idle && !world.act() {
                let was = world.seconds;
                world.seconds += 600;
                if was / (7 * DAY) != world.seconds / (7 * DAY) && world.doing.is_none() {
                    world.scanned(Trigger::Reevaluation);
                }
            }
            if world.seconds > 5 * DAY {
                world.trouble = u64::MAX;
                cuts.clear();
                world.ahead = 0;
            }
        }
        let done = world.done.clone();
        for (at, what) in &done {
            let wall = start() + jiff::SignedDuration::from_secs(*at);
            let windows = Windows { windows: &world.windows, local: &TimeZone::UTC };
            let rest = windows.open(wall).map_or(0, |it| it.until.duration_since(wall).as_secs()) as u64;
            if what.starts_with("file") {
                prop_assert!(*at >= life.available as i64 && life.deadline.is_some());
            }
            if what.starts_with("install") {
                prop_assert!(life.deadline.is_some_and(|deadline| deadline as i64 <= *at), "{at}: {done:?}");
                let is_free = life.outside || world.windows.is_empty();
                prop_assert!(is_free || rest >= need * MINUTE, "{at}: {rest} s are left; {done:?}");
            }
            if what == "restart" {
                prop_assert!(life.deadline.is_some_and(|deadline| deadline as i64 <= *at));
                prop_assert!(world.windows.is_empty() || rest > 0);
            }
        }
        let restarts = done.iter().filter(|(_, what)| what == "restart").count();
        prop_assert!(restarts <= 12, "{restarts} restarts: {done:?}");
        let longest = world.windows.iter().map(|it| u64::from(it.minutes())).max();
        let fits = life.outside || longest.is_none_or(|it| it >= need);
        // What needs a restart and lies in an overlay comes to nothing.
        let is_vain = life.overlay == Some(false) && life.software.iter().any(|it| it.0);
        prop_assert!(!is_vain || restarts == 0);
        if life.deadline.is_some() && fits && !is_vain {
            let (compliance, enforcement) = world.standing();
            prop_assert_eq!(compliance, Compliance::Compliant, "{:?}: {:?}", world.listed(), done);
            prop_assert_eq!(enforcement, Enforcement::Succeeded);
        }
    }
}

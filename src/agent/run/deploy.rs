//! Carrying out deployments: what `client::enforce` wants is done here, and it is told what came of it.
//!
//! What takes long runs beside the loop ([`bring`], [`carry`]), one thing at a time, so commands are answered and
//! policies taken meanwhile. What the enforcer remembers is written down before what it wants is begun. In the order to
//! read: the parts below, then [`bring`]ing files, [`carry`]ing out an installation, and [`tell`]ing of it.

pub(super) mod bring;
pub(super) mod carry;
mod tell;

use super::{Agent, AgentError, dice};
use crate::agent::filter::Filter;
use crate::agent::machine::Machine;
use bring::Bring;
use carry::Carry;
use client::cache::Cache;
use client::clock::Moment;
use client::enforce::found::Found;
use client::enforce::{Ending, Enforcer, Outcome, Step, View, code};
use client::install::plans;
use client::ledger::pace::Pace;
use client::scan::{Line, Trigger};
use deployment::enforcement::Failure;
use deployment::policy::{DeployedUpdates, DeploymentPolicy, Visibility};
use deployment::window::Windows;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync::name::UpdateId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the last scan found of deployments, in the agent's folder.
const FOUND: &str = "deployed.json";
/// The documents of updates.
const DOCUMENTS: &str = "deployed";
/// How often is looked whether something else is due, while a file comes.
const GLANCE: Duration = Duration::from_secs(30);
/// How often windows and the time zone are looked at again.
const LOOK: Duration = Duration::from_secs(3_600);

/// What is kept of deployments beside what is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// What carries them out.
    pub enforcer: Enforcer,
    /// When is told of it.
    pub pace: Pace,
    /// The number of the last report, and a digest of what it said.
    number: u64,
    told: String,
}

/// What was at work came to its end.
pub(super) enum Done {
    Document(String, Result<(), Failure>),
    File(String, Result<u64, Failure>),
    Install { update: UpdateId, below: bool, ending: Ending },
    Restart(Result<(), String>),
}

/// What carrying out deployments needs of the machine.
pub(super) struct Deploy {
    found: Found,
    documents: BTreeSet<String>,
    cache: Cache,
    boot: String,
    zone: TimeZone,
    longest_window: Option<i64>,
    /// For which policy, and until when, the last two are so.
    looked: Option<(String, Moment)>,
    /// Since when a file is looked for: some distribution points may be asked only after a while.
    looking: BTreeMap<String, Moment>,
    done: mpsc::Sender<Done>,
    /// Ends what is coming.
    coming: Option<CancellationToken>,
    is_installing: bool,
    pub report_trouble: Option<String>,
    announced: bool,
}

impl Deploy {
    pub fn open(
        home: &crate::agent::home::Home,
        machine: &Machine,
    ) -> Result<(Self, mpsc::Receiver<Done>), AgentError> {
        let cache = Cache::open(&home.path("cache")).map_err(AgentError::Cache)?;
        let folder = home.path(DOCUMENTS);
        std::fs::create_dir_all(&folder).map_err(AgentError::Cache)?;
        let mut documents = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).map_err(AgentError::Cache)?.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".json"));
            documents.extend(digest.map(str::to_owned));
        }
        // A write filter that was off when the power failed is put back.
        Filter::restore(home);
        let (done, ends) = mpsc::channel(4);
        let deploy = Self {
            found: super::dispensable(home, FOUND).unwrap_or_default(),
            documents,
            cache,
            boot: machine.reading().boot,
            zone: TimeZone::UTC,
            longest_window: None,
            looked: None,
            looking: BTreeMap::new(),
            done,
            coming: None,
            is_installing: false,
            report_trouble: None,
            announced: false,
        };
        Ok((deploy, ends))
    }

    /// What it does now, in a word.
    pub fn working(&self) -> Option<&'static str> {
        match (self.is_installing, &self.coming) {
            (true, _) => Some("installing"),
            (false, Some(_)) => Some("downloading"),
            (false, None) => None,
        }
    }
}

/// Where a document is.
pub(super) fn document_path(home: &Path, digest: &str) -> PathBuf {
    home.join(DOCUMENTS).join(format!("{digest}.json"))
}

/// Reads the documents that are on the machine, one after the other. One that is damaged is removed, and comes again.
pub(super) fn documents<'a>(
    home: &'a Path,
    digests: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, DeployedUpdates)> {
    digests.iter().filter_map(move |digest| {
        let path = document_path(home, digest);
        let bytes = std::fs::read(&path).ok()?;
        let read = serde_json::from_slice(&bytes).ok();
        let is_sound = blake3::hash(&bytes).to_hex().as_str() == digest.as_str();
        match read.filter(|_| is_sound) {
            Some(document) => Some((digest, document)),
            None => {
                tracing::warn!(path = %path.display(), "it is damaged, and brought again");
                let _ = std::fs::remove_file(path);
                None
            }
        }
    })
}

impl Agent {
    /// What is deployed to this machine now.
    fn deployments(&self) -> &[DeploymentPolicy] {
        let policy = self.policy.as_ref();
        let enabled = policy.filter(|it| it.updates_enabled && it.settings.updates_enabled);
        enabled.map(|it| &it.deployments[..]).unwrap_or_default()
    }

    /// Has the enforcer look at how things stand.
    pub(super) fn enforce<T>(
        &mut self,
        ask: impl FnOnce(&mut Enforcer, &View<'_>, &mut dyn FnMut() -> f64) -> T,
    ) -> T {
        let now = self.now();
        self.look_around(now);
        let settings = self.settings();
        let machine = self.machine.standing(&self.home, settings.machine_kind);
        let mut enforcer = std::mem::take(&mut self.state.deploy.enforcer);
        let windows = self.policy.as_ref().map(|it| &it.windows[..]).unwrap_or_default();
        let view = View {
            wall: Timestamp::now(),
            now,
            boot: &self.deploy.boot,
            zone: &self.deploy.zone,
            settings: &settings,
            deployments: self.deployments(),
            windows,
            longest_window: self.deploy.longest_window,
            documents: &self.deploy.documents,
            found: &self.deploy.found,
            cached: self.deploy.cache.held(),
            machine,
        };
        let said = ask(&mut enforcer, &view, &mut dice);
        self.state.deploy.enforcer = enforcer;
        said
    }

    /// Looks again at what changes seldom: the time zone, and how long windows are.
    fn look_around(&mut self, now: Moment) {
        let revision = self.policy.as_ref().map(|it| it.revision.clone()).unwrap_or_default();
        let is_known = |(of, until): &(String, Moment)| *of == revision && now < *until;
        if self.deploy.looked.as_ref().is_some_and(is_known) {
            return;
        }
        self.deploy.zone = self.machine.zone();
        let windows = self.policy.as_ref().map(|it| &it.windows[..]).unwrap_or_default();
        let windows = Windows { windows, local: &self.deploy.zone };
        let lengths = windows.times(Timestamp::now()).map(|it| it.until.duration_since(it.from));
        // Windows that were, and never open again, hold everything back as well.
        let longest = lengths.map(|it| it.as_mins()).max().unwrap_or(0);
        self.deploy.longest_window = (!windows.windows.is_empty()).then_some(longest);
        self.deploy.looked = Some((revision, now + LOOK));
    }

    /// Whether a scan may be made: while an installer is at work, for this agent or for one before it, it would see half.
    pub(super) fn may_scan(&self) -> bool {
        !self.deploy.is_installing && !carry::is_running(&self.home)
    }

    /// Does what is to be done for deployments now, or has it begun.
    pub(super) async fn deploy(&mut self) -> Result<(), AgentError> {
        if self.policy.is_none() {
            // Without its policy a machine knows nothing of deployments, not even that they are gone.
            return Ok(());
        }
        self.forget_documents();
        let makes_room =
            self.deploy.coming.is_some() && self.enforce(|it, view, _| it.makes_room(view));
        let is_gone = self.deploy.coming.is_some() && self.deployments().is_empty();
        if let Some(coming) = self.deploy.coming.as_ref().filter(|_| makes_room || is_gone) {
            coming.cancel();
        }
        let step = self.enforce(|it, view, dice| it.next(view, dice));
        self.save()?;
        // While something comes, something else may become due.
        self.deploy_due = Some(self.now() + GLANCE);
        match step {
            Step::Wait(until) if self.deploy.coming.is_none() => self.deploy_due = until,
            Step::Wait(_) => {}
            Step::Scan(trigger) => self.scan_for_deployments(trigger)?,
            Step::Document(digest) => self.bring_document(digest),
            Step::File { digest, size } => self.bring_file(digest, size),
            Step::Install { update, within, below_overlay } => {
                self.install(update, within, below_overlay);
            }
            Step::Restart => self.restart(),
        }
        self.announce_restart();
        self.notice_standing();
        Ok(())
    }

    /// Has a scan made, where one can be.
    fn scan_for_deployments(&mut self, trigger: Trigger) -> Result<(), AgentError> {
        if !self.state.agenda.is_enabled() {
            let answers = BTreeSet::from([trigger]);
            let why = "the site has no update point yet";
            self.enforce(|it, view, dice| it.scan_failed(&answers, why, view, dice));
            self.deploy_due = Some(Moment::default());
            return self.save();
        }
        self.state.agenda.ask(trigger);
        if trigger.kind().1 == Line::Offline && self.state.agenda.brought().is_none() {
            // There is nothing to scan by yet.
            self.state.agenda.ask(Trigger::BeforeDownload);
        }
        Ok(())
    }

    /// Takes what came of something that was at work.
    pub(super) async fn deploy_done(&mut self, done: Done) -> Result<(), AgentError> {
        match done {
            Done::Document(digest, came) => {
                if came.is_ok() {
                    self.deploy.documents.insert(digest.clone());
                }
                self.enforce(|it, view, dice| it.document(&digest, came, view, dice));
            }
            Done::File(digest, came) => {
                let coming = self.deploy.coming.take();
                if came.is_err() && coming.is_some_and(|it| it.is_cancelled()) {
                    self.state.deploy.enforcer.put_off();
                } else {
                    if let Ok(size) = &came {
                        self.deploy.cache.came(&digest, *size);
                        self.deploy.looking.remove(&digest);
                    }
                    if let Err(failure) = &came {
                        tracing::warn!(digest, why = failure.detail, "a file did not come");
                    }
                    let came = came.map(drop);
                    self.enforce(|it, view, dice| it.file(&digest, came, view, dice));
                }
            }
            Done::Install { update, below, ending } => {
                self.deploy.is_installing = false;
                tracing::info!(%update, ?ending, "an installation came to its end");
                if let Outcome::Damaged(digest) = &ending.outcome {
                    self.deploy.cache.remove(digest).map_err(AgentError::Cache)?;
                }
                self.state.facts_due = Moment::default();
                self.enforce(|it, view, dice| it.installed(update, below, ending, view, dice));
            }
            Done::Restart(Ok(())) => {}
            Done::Restart(Err(why)) => {
                tracing::error!(why, "the machine cannot be restarted");
                self.enforce(|it, view, dice| it.restart_failed(&why, view, dice));
            }
        }
        self.save()
    }

    /// Takes what a scan found of deployments.
    pub(super) fn deploy_scanned(
        &mut self,
        answers: &BTreeSet<Trigger>,
        found: Found,
    ) -> Result<(), AgentError> {
        if found != self.deploy.found {
            self.home.write(FOUND, &found)?;
            self.deploy.found = found;
        }
        self.deploy.documents.retain(|it| document_path(self.home.folder(), it).exists());
        let needed = self.deploy.found.updates.values().flat_map(|it| it.files());
        self.deploy.cache.needed(needed.filter_map(|file| file.digest.as_deref()));
        self.enforce(|it, view, dice| it.scanned(answers, view, dice));
        Ok(())
    }

    /// The documents that are on the machine and in its policy, with what a look at them needs beside.
    pub(super) fn looked_at(
        &self,
    ) -> (PathBuf, BTreeSet<String>, BTreeSet<UpdateId>, BTreeSet<String>) {
        let own = self.deployments().iter().map(|it| &it.updates);
        let own = own.filter(|it| self.deploy.documents.contains(*it)).cloned().collect();
        let (known, lacks) = self.state.deploy.enforcer.known();
        (self.home.folder().to_owned(), own, known, lacks)
    }

    /// Forgets the documents that no deployment has any more.
    fn forget_documents(&mut self) {
        let own: BTreeSet<String> =
            self.deployments().iter().map(|it| it.updates.clone()).collect();
        let gone: Vec<String> = self.deploy.documents.difference(&own).cloned().collect();
        for digest in gone {
            let _ = std::fs::remove_file(document_path(self.home.folder(), &digest));
            self.deploy.documents.remove(&digest);
            self.deploy.found.documents.remove(&digest);
        }
    }

    fn bring_document(&mut self, digest: String) {
        let named = self.deployments().iter().find(|it| it.updates == digest);
        let size = named.map_or(0, |it| it.updates_size);
        let (site, home, done) = (self.site.clone(), self.home.clone(), self.deploy.done.clone());
        tokio::spawn(async move {
            let came = bring::document(&site, home.folder(), &digest, size).await;
            let _ = done.send(Done::Document(digest, came)).await;
        });
    }

    fn bring_file(&mut self, digest: String, size: u64) {
        let (settings, now) = (self.settings(), self.now());
        let limit = settings.cache_size.saturating_mul(1 << 20);
        let files = self.deploy.found.updates.values().flat_map(|it| it.files());
        let files = files.chain(self.deploy.found.beside.values());
        let pinned: BTreeSet<String> = files.filter_map(|it| it.digest.clone()).collect();
        let (cache, retention) = (&mut self.deploy.cache, settings.cache_retention);
        match cache.make_room(&pinned, (limit, size), Timestamp::now(), retention) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "files left the cache"),
            Err(error) => tracing::warn!(%error, "the cache cannot be tidied"),
        }
        let since = *self.deploy.looking.entry(digest.clone()).or_insert(now);
        let waited = now.since(since).as_secs();
        let points = self.policy.iter().flat_map(|it| &it.distribution_points);
        let usable = points.filter(|point| point.after <= waited);
        let points: Vec<String> = usable.map(|point| self.site.place(&point.url)).collect();
        let stop = CancellationToken::new();
        let bring = Bring {
            http: self.contents.clone(),
            runtime: tokio::runtime::Handle::current(),
            folder: self.home.path("cache"),
            points,
            digest: digest.clone(),
            size,
            stop: stop.clone(),
        };
        self.deploy.coming = Some(stop);
        let done = self.deploy.done.clone();
        tokio::task::spawn_blocking(move || {
            let came = bring.run();
            let _ = done.blocking_send(Done::File(digest, came));
        });
    }

    fn install(&mut self, update: UpdateId, within: Duration, below: bool) {
        self.deploy.is_installing = true;
        let done = self.deploy.done.clone();
        let end = move |ending| Done::Install { update, below, ending };
        let needed = self.deploy.found.updates.get(&update).cloned().unwrap_or_default();
        let lacks = self.state.deploy.enforcer.lacks(update);
        let beside = self.deploy.found.beside.iter().filter(|(name, _)| lacks.contains(*name));
        let beside: Vec<_> = beside.map(|(_, file)| file.clone()).collect();
        let settings = self.settings();
        let (home, machine) = (self.home.clone(), self.machine.clone());
        tracing::info!(update = needed.name, below, "an installation begins");
        tokio::task::spawn_blocking(move || {
            let platform = machine.facts().map(|facts| facts.system().platform);
            let planned = match platform {
                Ok(platform) => plans(&needed, &beside, platform),
                Err(error) => Err(Failure::new(code::LOCAL, crate::exit::with_causes(&error))),
            };
            let ending = match planned {
                Err(failure) => Ending { outcome: Outcome::Failed(failure), needs_restart: false },
                Ok(plans) => {
                    let carry = Carry {
                        home: &home,
                        machine: &machine,
                        settings: &settings,
                        update,
                        restarts: needed.behaviour.restart,
                        within,
                        below,
                    };
                    carry.run(&plans)
                }
            };
            let _ = done.blocking_send(end(ending));
        });
    }

    fn restart(&mut self) {
        tracing::warn!("the machine is restarted, as updates need it");
        let (machine, done) = (self.machine.clone(), self.deploy.done.clone());
        tokio::task::spawn_blocking(move || {
            let _ = done.blocking_send(Done::Restart(machine.restart()));
        });
    }

    /// Tells people who work at the machine that it will restart, unless all that is deployed is to be hidden from them.
    fn announce_restart(&mut self) {
        let now = self.now();
        let comes = self.state.deploy.enforcer.restarts_in(now);
        if comes.is_some() && !self.deploy.announced {
            let wait = crate::units::duration(comes.unwrap_or_default());
            tracing::warn!(wait, "the machine will restart: updates need it");
            let is_hidden = |it: &DeploymentPolicy| it.experience.visibility == Visibility::Hidden;
            if !self.deployments().iter().all(is_hidden) {
                self.machine.tell_people(&format!(
                    "This machine restarts in {wait}, as updates need it. `depot agent snooze` puts it off."
                ));
            }
        }
        self.deploy.announced = comes.is_some();
    }
}

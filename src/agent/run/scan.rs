//! A scan: its steps in order, and what follows from how it ended.

use super::{Agent, AgentError, LOCATION, Location, deploy, dice};
use crate::agent::link::{Point, Trouble};
use crate::agent::machine::Machine;
use crate::agent::status::Scanned;
use crate::exit::{self, Exit};
use client::catalogue::{RefreshError, Refreshed, Shelf, platform_of};
use client::clock::Moment;
use client::enforce::found::{Found, Looks};
use client::facts::FactsError;
use client::scan::agenda::Scan;
use client::scan::evaluate::{Evaluation, evaluate};
use client::scan::retry::{Class, Failure};
use client::scan::{Step, Trigger};
use jiff::Timestamp;
use sync::shard::Platform;

impl Agent {
    /// Scans, and records what came of it.
    pub(super) async fn scan(&mut self, scan: Scan) -> Result<(), AgentError> {
        let began = std::time::Instant::now();
        let triggers: Vec<Trigger> = scan.answers.iter().copied().collect();
        let asked = self.waiting.iter().map(|(trigger, _)| *trigger);
        let asked = asked.filter(|trigger| triggers.contains(trigger)).collect();
        let mut scanned = Scanned {
            triggers,
            asked,
            at: Timestamp::now(),
            took: 0.0,
            update_point: None,
            refreshed: None,
            counts: None,
            changed: 0,
            failed: None,
        };
        let outcome = self.steps(&scan, &mut scanned).await?;
        (scanned.at, scanned.took) = (Timestamp::now(), began.elapsed().as_secs_f64());
        let now = self.now();
        if !self.state.agenda.is_enabled() {
            // While it was scanned the policy took updates away: what was found is of no use any more.
            for (_, tell) in std::mem::take(&mut self.waiting) {
                let why = "updates were disabled by the site's settings";
                let _ = tell.send(Err(exit::Failure::failed(why)));
            }
            self.state.deploy.enforcer.scans_no_more();
            return self.save();
        }
        match outcome {
            Ok(deployed) => {
                self.state.agenda.succeeded(now);
                self.deploy_scanned(&scan.answers, deployed)?;
                let counts = scanned.counts.unwrap_or_default();
                tracing::info!(
                    started_by = scanned.started_by(),
                    required = counts.required,
                    installed = counts.installed,
                    unknown = counts.unknown,
                    changed = scanned.changed,
                    took = crate::units::duration(began.elapsed()),
                    "the machine was scanned"
                );
            }
            Err(failure) => {
                tracing::warn!(why = failure.why, "a scan failed");
                self.ledger.record_failure(failure.class.code(), Timestamp::now())?;
                self.state.agenda.failed(now, failure.clone());
                let why = failure.why.clone();
                self.enforce(|it, view, dice| it.scan_failed(&scan.answers, &why, view, dice));
                scanned.failed = Some(failure);
            }
        }
        let settings = self.settings();
        let is_urgent =
            |trigger: &Trigger| matches!(trigger, Trigger::AfterInstall | Trigger::AfterRestart);
        let installed =
            self.installed.take().or_else(|| scan.answers.iter().any(is_urgent).then_some(now));
        if let Some(since) = installed {
            self.state.pace.waits_after_install(since, settings.report_after_install, dice());
        } else {
            self.state.pace.waits(now, settings.report_every);
        }
        if let Some(failure) = scanned.failed.clone() {
            let code = serde_json::to_value(failure.class).unwrap_or_default();
            let code = code.as_str().unwrap_or("failed").to_owned();
            self.tell_fallback("scan", &code, &failure.why).await;
        }
        self.state.last_scan = Some(scanned.clone());
        self.save()?;
        let answer = match (&scanned.failed, serde_json::to_value(&scanned)) {
            (None, Ok(value)) => Ok(value),
            (Some(failure), _) => {
                let exit = match failure.class {
                    Class::Damaged => Exit::Damaged,
                    _ => Exit::Failed,
                };
                Err(exit::Failure::new(exit, format!("the scan failed: {}", failure.why)))
            }
            (None, Err(error)) => Err(error.into()),
        };
        for (trigger, tell) in std::mem::take(&mut self.waiting) {
            if scan.answers.contains(&trigger) {
                let _ = tell.send(answer.clone());
            } else {
                self.waiting.push((trigger, tell));
            }
        }
        Ok(())
    }

    /// The steps of a scan, in order, up to the first that fails.
    pub(super) async fn steps(
        &mut self,
        scan: &Scan,
        scanned: &mut Scanned,
    ) -> Result<Result<Found, Failure>, AgentError> {
        let (mut point, mut found) = (scan.point.clone(), None);
        let mut of_deployments = Found::default();
        for step in scan.steps {
            match step {
                Step::ClearHistory => self.state.last_scan = None,
                Step::AskForUpdatePoint => {
                    // While the site is away, what its last policy says holds.
                    let _ = self.ask_policy().await;
                    point = self.state.agenda.point().map(str::to_owned).filter(|_| {
                        self.policy.as_ref().is_some_and(|policy| policy.updates_enabled)
                    });
                }
                Step::RecordLocation => match &point {
                    Some(url) => {
                        let location = Location { url: url.clone(), at: Timestamp::now() };
                        self.home.write(LOCATION, &location)?;
                        scanned.update_point = Some(url.clone());
                    }
                    None => {
                        let why = "the site names no update point".into();
                        return Ok(Err(Failure { class: Class::NoUpdatePoint, why }));
                    }
                },
                Step::Refresh => {
                    let url = point.clone().unwrap_or_default();
                    match self.refresh(&url).await? {
                        Ok(refreshed) => scanned.refreshed = Some(refreshed),
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
                Step::Evaluate => match self.evaluate().await? {
                    Ok((evaluation, digest, deployed)) => {
                        let now = self.now();
                        self.installed = self.state.watch.scanned(now, digest);
                        (found, of_deployments) = (Some(evaluation), deployed);
                    }
                    Err(failure) => return Ok(Err(failure)),
                },
                Step::RecordStates => {
                    let Some(Evaluation { found, counts, catalogue, .. }) = found.take() else {
                        return Err(AgentError::Failed);
                    };
                    scanned.changed = self.ledger.record(&found, catalogue, Timestamp::now())?;
                    scanned.counts = Some(counts);
                }
            }
        }
        Ok(Ok(of_deployments))
    }

    /// Brings what changed of the catalogue.
    pub(super) async fn refresh(
        &mut self,
        url: &str,
    ) -> Result<Result<Refreshed, Failure>, AgentError> {
        let runtime = tokio::runtime::Handle::current();
        let mut point = match Point::at(self.points.clone(), url, runtime) {
            Ok(point) => point,
            Err(trouble) => return Ok(Err(failure_of(&trouble))),
        };
        let machine = self.machine.clone();
        let is_in_doubt = self.state.agenda.brought().is_none();
        self.with_shelf(move |shelf| {
            let platform = platform(&machine)?;
            if is_in_doubt {
                shelf.doubt();
            }
            let refreshed = shelf.refresh(&mut point, platform);
            refreshed.map_err(|error| match error {
                RefreshError::Asking(trouble) => failure_of(&trouble),
                RefreshError::Disk(source) if source.kind() == std::io::ErrorKind::NotFound => {
                    Failure { class: Class::Damaged, why: source.to_string() }
                }
                RefreshError::Disk(source) => {
                    let why = format!("the catalogue cannot be kept on this machine: {source}");
                    Failure { class: Class::Local, why }
                }
                error => Failure { class: Class::BadAnswer, why: crate::exit::with_causes(&error) },
            })
        })
        .await
    }

    /// Looks whether the machine's packages became others, and if so asks for a scan as after an installation.
    pub(super) async fn look(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        if !self.state.watch.looks(now, self.machine.stamp()) {
            return Ok(());
        }
        let machine = self.machine.clone();
        let read = tokio::task::spawn_blocking(move || Ok(machine.facts()?.digest()));
        let read: Result<String, FactsError> = read.await.map_err(|_| AgentError::Failed)?;
        if let Err(error) = &read {
            let error = crate::exit::with_causes(error);
            tracing::warn!(error, "the machine's packages changed, and cannot be read");
        }
        if self.state.watch.read(read.ok().as_deref()) {
            tracing::info!("the machine's packages are others than at the last scan");
            self.state.agenda.ask(Trigger::AfterInstall);
        }
        // The site hears of them, whether anything is scanned for or not.
        self.state.facts_due = Moment::default();
        Ok(())
    }

    /// Assesses all updates by what lies on the machine, and looks which of them are deployed; and the digest of the
    /// packages that it went by.
    pub(super) async fn evaluate(
        &mut self,
    ) -> Result<Result<(Evaluation, String, Found), Failure>, AgentError> {
        let (machine, waits) = (self.machine.clone(), self.awaiting_restart());
        let (home, documents, known, lacks) = self.looked_at();
        self.state.facts_due = Moment::default();
        self.with_shelf(move |shelf| {
            let facts = machine.facts().map_err(|error| local(crate::exit::with_causes(&error)))?;
            let evaluated =
                evaluate(&*facts, shelf, &waits).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        Failure { class: Class::Damaged, why: error.to_string() }
                    }
                    _ => local(format!("the catalogue cannot be read: {error}")),
                })?;
            let language = machine.language();
            let looks = Looks {
                facts: &*facts,
                language: language.as_ref(),
                state: &|id| evaluated.found.get(&id).map(|known| known.state),
                awaits_restart: &|id| {
                    evaluated.found.get(&id).is_some_and(|known| known.awaits_restart)
                },
                items: &evaluated.items,
                known: &known,
                lacks: &lacks,
            };
            let mut found = Found::default();
            for (digest, document) in deploy::documents(&home, &documents) {
                found.add(digest, document, &looks);
            }
            Ok((evaluated, facts.digest(), found))
        })
        .await
    }

    /// Works on the catalogue on a thread that may block.
    pub(super) async fn with_shelf<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Shelf) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let mut shelf = self.shelf.take().ok_or(AgentError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            let made = work(&mut shelf);
            (shelf, made)
        });
        let (shelf, made) = done.await.map_err(|_| AgentError::Failed)?;
        self.shelf = Some(shelf);
        Ok(made)
    }
}

pub(super) fn local(why: String) -> Failure {
    Failure { class: Class::Local, why }
}

pub(super) fn failure_of(trouble: &Trouble) -> Failure {
    Failure { class: trouble.class(), why: trouble.to_string() }
}

pub(super) fn platform(machine: &Machine) -> Result<Platform, Failure> {
    let facts = machine.facts().map_err(|error| local(crate::exit::with_causes(&error)))?;
    Ok(platform_of(facts.system().platform))
}

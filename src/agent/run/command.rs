//! What commands on the machine ask of the agent, and what it says of itself.

use super::{Agent, AgentError, FACTS, dispensable};
use crate::agent::control::{Answered, Ask};
use crate::agent::machine::Machine;
use crate::agent::status::{Deployed, Status};
use crate::exit::{Exit, Failure};
use client::applicability::Assessor;
use client::catalogue::{Shelf, platform_of};
use client::clock::Moment;
use client::explain::explain;
use client::scan::{Line, Trigger};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync::name::UpdateId;
use tokio::sync::oneshot;

impl Agent {
    /// Does what a command wants.
    pub(super) async fn command(
        &mut self,
        ask: Ask,
        tell: oneshot::Sender<Answered>,
    ) -> Result<(), AgentError> {
        let status = |agent: &mut Self| serde_json::to_value(agent.status()).map_err(Failure::from);
        let said = match ask {
            Ask::Status => status(self),
            Ask::Policy => match self.ask_policy().await {
                Ok(()) => status(self),
                Err(trouble) => Err(trouble.into()),
            },
            Ask::Scan { trigger, evaluates } => match self.scan_asked(trigger, evaluates) {
                Ok(()) => {
                    self.waiting.push((trigger, tell));
                    return Ok(());
                }
                Err(failure) => Err(failure),
            },
            Ask::Report => {
                let now = self.now();
                self.state.pace.at_once(now);
                self.report().await?;
                self.report_enforcement().await?;
                let trouble = self.report_trouble.as_ref().or(self.deploy.report_trouble.as_ref());
                match trouble {
                    None => status(self),
                    Some(why) => Err(Failure::failed(format!("states could not be told: {why}"))),
                }
            }
            Ask::Deployments => serde_json::to_value(self.listed()).map_err(Failure::from),
            Ask::Install { deployment } => self.user_install(deployment.as_deref()),
            Ask::Snooze { seconds } => self.snooze(Duration::from_secs(seconds)),
            Ask::Explain { update } => {
                let machine = self.machine.clone();
                let waits = self.awaiting_restart();
                self.with_shelf(move |shelf| explained(&machine, shelf, &waits, &update)).await?
            }
        };
        let _ = tell.send(said);
        Ok(())
    }

    /// Has a scan made that a command asks for, if one can be now.
    fn scan_asked(&mut self, trigger: Trigger, evaluates: bool) -> Result<(), Failure> {
        let agenda = &mut self.state.agenda;
        if !agenda.is_enabled() {
            let why = match &self.policy {
                None => "no policy came from the site yet",
                Some(policy) if policy.updates_enabled => "the site has no update point yet",
                Some(_) => "updates are disabled by the site's settings",
            };
            return Err(Failure::failed(format!("nothing is scanned for: {why}")));
        }
        if trigger.kind().1 == Line::Offline && agenda.brought().is_none() {
            return Err(match self.shelf.as_ref().and_then(Shelf::manifest) {
                None => Failure::failed(
                    "no catalogue was brought to this machine yet: scan without --offline",
                ),
                Some(_) => Failure::new(
                    Exit::Damaged,
                    "the catalogue on this machine is damaged, and has to be brought again: \
                     scan without --offline",
                ),
            });
        }
        agenda.ask(trigger);
        if evaluates {
            self.state.deploy.enforcer.evaluate_again();
        }
        let now = self.now();
        match self.state.agenda.wake(now) {
            Some(due) if due > now => {
                let wait = crate::units::duration(due.since(now));
                let why = self.state.agenda.last_failure().map(|it| it.why.clone());
                let why = why.unwrap_or_default();
                Err(Failure::failed(format!(
                    "the update point is asked again in {wait}, as it failed before: {why}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The updates that a scan takes to await a restart.
    pub(super) fn awaiting_restart(&mut self) -> BTreeSet<UpdateId> {
        self.enforce(|it, view, _| it.awaiting_restart(view.boot))
    }

    pub(super) fn status(&mut self) -> Status {
        let deployments = self.listed().into_iter().map(Deployed::from).collect();
        let now = self.now();
        let seconds = |moment: Moment| moment.since(now).as_secs();
        let facts = dispensable::<BTreeMap<String, Value>>(&self.home, FACTS);
        Status {
            id: self.settled.id,
            name: self.settled.name.clone(),
            sites: self.settled.sites.clone(),
            standing: self.not_let_in.clone().unwrap_or_else(|| "approved".into()),
            policy: self.policy.as_ref().map(|policy| policy.revision.clone()),
            policy_trouble: self.policy_trouble.clone(),
            updates_enabled: self.state.agenda.is_enabled(),
            update_point: self.state.agenda.point().map(str::to_owned),
            catalogue: self.shelf.as_ref().and_then(Shelf::manifest).map(|manifest| manifest.seq),
            last_scan: self.state.last_scan.clone(),
            next_scan: self.state.agenda.wake(now).map(seconds),
            waiting: self.ledger.waiting(),
            next_report: self.state.pace.due().map(seconds),
            report_trouble: self
                .report_trouble
                .clone()
                .or_else(|| self.deploy.report_trouble.clone()),
            deployments,
            working: self.deploy.working().map(str::to_owned),
            restart_in: self.state.deploy.enforcer.restarts_in(now).map(|it| it.as_secs()),
            facts: facts.and_then(|facts| facts.get("revision")?.as_u64()),
            certificate_until: Some(self.identity.expires()),
        }
    }
}

/// Why the updates of that name are in their state.
pub(super) fn explained(
    machine: &Machine,
    shelf: &Shelf,
    waits: &BTreeSet<UpdateId>,
    update: &str,
) -> Answered {
    let facts = machine.facts()?;
    let shelved = shelf.shelved(platform_of(facts.system().platform))?;
    let found = shelved.find(update)?;
    if found.is_empty() {
        let what = format!("no update for this machine is called {update:?}");
        return Err(Failure::new(Exit::NotFound, what));
    }
    let mut assessor = Assessor::new(&*facts, &shelved).awaiting_restart(waits);
    let all = found.iter().take(20).map(|entry| {
        let told = explain(&mut assessor, &entry.update);
        let text = told.to_string();
        let mut value = serde_json::to_value(&told)?;
        value["text"] = text.into();
        Ok(value)
    });
    all.collect::<Result<Vec<Value>, Failure>>().map(Value::from)
}

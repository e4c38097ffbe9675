//! What commands on the machine ask of the agent, and what it says of itself.

use super::{Agent, AgentError, FACTS, dispensable};
use crate::agent::control::Ask;
use crate::agent::machine::Machine;
use crate::agent::status::{Deployed, Status};
use client::applicability::Assessor;
use client::catalogue::{Shelf, platform_of};
use client::clock::Moment;
use client::explain::explain;
use client::scan::Line;
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
        tell: oneshot::Sender<Result<Value, String>>,
    ) -> Result<(), AgentError> {
        let status = |agent: &mut Self| {
            serde_json::to_value(agent.status()).map_err(|error| error.to_string())
        };
        let said = match ask {
            Ask::Status => status(self),
            Ask::Policy => match self.ask_policy().await {
                Ok(()) => status(self),
                Err(trouble) => Err(trouble.to_string()),
            },
            Ask::Scan { trigger } => {
                if !self.state.agenda.is_enabled() {
                    let why = match &self.policy {
                        None => "no policy came from the site yet",
                        Some(policy) if policy.updates_enabled => {
                            "the site has no update point yet"
                        }
                        Some(_) => "updates are disabled by the site's settings",
                    };
                    Err(format!("nothing is scanned for: {why}"))
                } else if trigger.kind().1 == Line::Offline && self.state.agenda.brought().is_none()
                {
                    Err(match self.shelf.as_ref().and_then(Shelf::manifest) {
                        None => "no catalogue was brought to this machine yet: scan without --offline",
                        Some(_) => {
                            "the catalogue on this machine is damaged, and has to be brought again: \
                             scan without --offline"
                        }
                    }
                    .into())
                } else {
                    self.state.agenda.ask(trigger);
                    let now = self.now();
                    match self.state.agenda.wake(now) {
                        Some(due) if due > now => {
                            let wait = crate::units::duration(due.since(now));
                            let why = self.state.agenda.last_failure().map(|it| it.why.clone());
                            let why = why.unwrap_or_default();
                            Err(format!(
                                "the update point is asked again in {wait}, as it failed before: {why}"
                            ))
                        }
                        _ => {
                            self.waiting.push((trigger, tell));
                            return Ok(());
                        }
                    }
                }
            }
            Ask::Report => {
                let now = self.now();
                self.state.pace.at_once(now);
                self.report().await?;
                self.report_enforcement().await?;
                let trouble = self.report_trouble.as_ref().or(self.deploy.report_trouble.as_ref());
                match trouble {
                    None => status(self),
                    Some(why) => Err(format!("states could not be told: {why}")),
                }
            }
            Ask::Deployments => {
                serde_json::to_value(self.listed()).map_err(|error| error.to_string())
            }
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
) -> Result<Value, String> {
    let facts = machine.facts().map_err(|error| crate::exit::chain(&error))?;
    let shelved = shelf.shelved(platform_of(facts.system().platform));
    let shelved = shelved.map_err(|error| error.to_string())?;
    let found = shelved.find(update).map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err(format!("no update for this machine is called {update:?}"));
    }
    let mut assessor = Assessor::new(&*facts, &shelved).awaiting_restart(waits);
    let all = found.iter().take(20).map(|entry| {
        let told = explain(&mut assessor, &entry.update);
        let text = told.to_string();
        let mut value = serde_json::to_value(&told).map_err(|error| error.to_string())?;
        value["text"] = text.into();
        Ok(value)
    });
    all.collect::<Result<Vec<Value>, String>>().map(Value::from)
}

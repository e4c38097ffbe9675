//! Telling the site how far deployments are, and people at the machine.

use super::super::{Agent, AgentError, QUIET, dice};
use crate::agent::control::Answered;
use crate::agent::enrol::JSON;
use crate::agent::link::Trouble;
use crate::exit::{Exit, Failure, with_causes};
use client::enforce::NotNow;
use client::enforce::report::Listed;
use compliance::message::Incarnation;
use deployment::enforcement::{DeploymentReport, MAX_ITEMS, MAX_REPORT, Report};
use deployment::policy::DeploymentId;
use http::Method;
use jiff::Timestamp;
use std::time::Duration;

impl Agent {
    /// Sees to it that the site hears of what changed.
    pub(super) fn notice_standing(&mut self) {
        let reports = self.enforce(|it, view, _| it.reports(view));
        if digest(&reports) == self.state.deploy.told || self.state.deploy.pace.due().is_some() {
            return;
        }
        if reports.is_empty() && self.state.deploy.told.is_empty() {
            // Nothing is deployed, and the site was never told otherwise.
            return;
        }
        let (now, within) = (self.now(), self.settings().report_after_install);
        self.state.deploy.pace.waits_after_install(now, within, dice());
    }

    /// Tells the site all there is to say of deployments.
    pub(in crate::agent::run) async fn report_enforcement(&mut self) -> Result<(), AgentError> {
        let mut deployments = self.enforce(|it, view, _| it.reports(view));
        let told = digest(&deployments);
        clip(&mut deployments);
        // Above the last one, also where that was forgotten.
        let millis = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let number = self.state.deploy.number.saturating_add(1).max(millis);
        self.state.deploy.number = number;
        self.save()?;
        let incarnation = Incarnation(self.ledger.life().0);
        let report = Report { client: self.settled.id, incarnation, number, deployments };
        let body = serde_json::to_vec(&report).expect("it has text keys");
        let put = self.site.ask(Method::PUT, "api/v1/client/enforcement", Some((&body, JSON)));
        let answer = put.await;
        let now = self.now();
        match answer {
            Ok(_) => {
                self.state.deploy.told = told;
                self.deploy.report_trouble = None;
                self.state.deploy.pace.sent(now, false, dice());
                tracing::info!(number, "the site was told how far deployments are");
            }
            Err(trouble) => {
                let asked = match &trouble {
                    Trouble::Busy { after, .. } => *after,
                    Trouble::NotLetIn(_) | Trouble::Refused { .. } => Some(QUIET / 4),
                    _ => None,
                };
                let text = trouble.to_string();
                if self.deploy.report_trouble.as_ref() != Some(&text) {
                    tracing::warn!(trouble = text, "how far deployments are is told later");
                }
                self.deploy.report_trouble = Some(text);
                self.state.deploy.pace.failed(now, asked, dice());
            }
        }
        self.save()
    }

    /// What a command is told of deployments.
    pub(in crate::agent::run) fn listed(&mut self) -> Vec<Listed> {
        self.enforce(|it, view, _| it.listed(view))
    }

    /// Has deployments installed now that a user wants: those called so, or all that are available.
    pub(in crate::agent::run) fn user_install(&mut self, which: Option<&str>) -> Answered {
        let id = which.map(|which| self.called(which)).transpose()?;
        let wanted = self.enforce(|it, view, dice| it.user_wants(id, view, dice));
        let wanted = wanted.map_err(|error| match error {
            NotNow::NotDeployed(_) => Failure::new(Exit::NotFound, with_causes(&error)),
            _ => Failure::from(error),
        })?;
        self.save()?;
        let all = self.listed();
        let all: Vec<_> = all.into_iter().filter(|it| wanted.contains(&it.id)).collect();
        Ok(serde_json::to_value(all)?)
    }

    /// The deployment of that id or name.
    fn called(&self, which: &str) -> Result<DeploymentId, Failure> {
        if let Ok(id) = which.parse() {
            return Ok(id);
        }
        let mut named = self.deployments().iter().filter(|it| it.name.eq_ignore_ascii_case(which));
        match (named.next(), named.next()) {
            (Some(one), None) => Ok(one.id),
            (None, _) => Err(Failure::new(
                Exit::NotFound,
                format!(
                    "no deployment to this machine is called {which:?}; `depot agent deployments` lists them"
                ),
            )),
            (Some(_), Some(_)) => {
                let what = format!("several deployments are called {which:?}: name one by its id");
                Err(Failure::usage(what))
            }
        }
    }

    /// Puts the restart off.
    pub(in crate::agent::run) fn snooze(&mut self, by: Duration) -> Answered {
        let wait = self.enforce(|it, view, _| it.snooze(by, view))?;
        self.save()?;
        Ok(serde_json::json!({ "restart_in": wait.as_secs() }))
    }
}

/// A digest of what reports say, whenever they say it.
fn digest(reports: &[DeploymentReport]) -> String {
    let mut reports = reports.to_vec();
    for report in &mut reports {
        report.age = 0;
        report.updates.iter_mut().for_each(|it| it.age = 0);
    }
    if reports.is_empty() {
        return String::new();
    }
    let bytes = serde_json::to_vec(&reports).expect("it has text keys");
    blake3::hash(&bytes).to_hex().to_string()
}

/// Leaves out single updates where a report would be longer than a site takes: how far deployments are stands.
fn clip(reports: &mut [DeploymentReport]) {
    reports.iter_mut().for_each(|it| it.updates.truncate(MAX_ITEMS));
    let length =
        |reports: &[DeploymentReport]| serde_json::to_vec(reports).map_or(0, |it| it.len());
    let mut most = MAX_ITEMS;
    while most > 0 && length(reports) > MAX_REPORT - 1_000 {
        most /= 2;
        reports.iter_mut().for_each(|it| it.updates.truncate(most));
    }
}

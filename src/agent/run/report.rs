//! What the site is told: facts, states, and by way of the fallback what does not work; and the certificate
//! under which it is told.

use super::{Agent, AgentError, FACTS, QUIET, dice, dispensable};
use crate::agent::enrol::JSON;
use crate::agent::link::{Site, Trouble};
use client::clock::Moment;
use client::facts::told::Told;
use client::ledger::report::Follows;
use compliance::message::{Answer, Refusal};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How often the site is told by way of the fallback that something does not work.
const FALLBACK: Duration = Duration::from_secs(3_600);

impl Agent {
    /// Tells the site what changed of the machine.
    pub(super) async fn tell_facts(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        self.state.facts_due = now + self.settings().poll_every.max(Duration::from_secs(60));
        let (home, machine) = (self.home.clone(), self.machine.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let facts = machine.facts()?;
            let told = machine.told(&*facts, home.folder());
            Ok::<_, client::facts::FactsError>((told, dispensable::<Told>(&home, FACTS)))
        });
        let (mut told, mut before) = match looked.await.map_err(|_| AgentError::Failed)? {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(
                    error = crate::exit::with_causes(&error),
                    "the machine's facts are not read"
                );
                return Ok(());
            }
        };
        for _ in 0..2 {
            let Some(change) = told.since(before.as_ref()) else { return Ok(()) };
            let body = serde_json::to_vec(&change).expect("it has text keys");
            let put = self.site.ask(Method::PUT, "api/v1/client/facts", Some((&body, JSON)));
            match put.await {
                Ok(_) => return Ok(self.home.write(FACTS, &told)?),
                // It has another revision than we think: then all is told.
                Err(Trouble::Refused { status: 409, .. }) if before.is_some() => before = None,
                Err(trouble) => {
                    tracing::info!(%trouble, "the machine's facts are told later");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what waits.
    pub(super) async fn report(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        let Some(message) = self.ledger.message(self.settled.id, Timestamp::now()) else {
            self.state.pace.sent(now, false, dice());
            return Ok(());
        };
        let follows = match message.encode() {
            Err(error) => {
                let why = format!(
                    "{} states cannot be put into a message: {error}",
                    message.states.len()
                );
                self.report_failed(&why, Some(QUIET));
                return Ok(());
            }
            Ok(bytes) => {
                let kind = api::routes::fleet::client::STATES;
                let sent =
                    self.site.ask(Method::POST, "api/v1/client/states", Some((&bytes, kind)));
                match sent.await {
                    Ok(answer) => match serde_json::from_slice::<Answer>(&answer.body) {
                        Ok(answer) => self.ledger.answered(answer)?,
                        Err(error) => {
                            self.report_failed(
                                &format!("the site's answer makes no sense: {error}"),
                                None,
                            );
                            return Ok(());
                        }
                    },
                    Err(Trouble::Refused { status: 422, .. }) => {
                        let why = Refusal::Malformed { quarantine: 0 };
                        self.ledger.answered(Answer::Refused { why })?
                    }
                    Err(trouble) => {
                        let asked = match &trouble {
                            Trouble::Busy { after, .. } => *after,
                            Trouble::NotLetIn(_)
                            | Trouble::Removed(_)
                            | Trouble::Refused { .. } => Some(QUIET / 4),
                            _ => None,
                        };
                        let text = trouble.to_string();
                        self.report_failed(&text, asked);
                        if !matches!(trouble, Trouble::Busy { .. }) {
                            self.tell_fallback("report", "report-failed", &text).await;
                        }
                        return Ok(());
                    }
                }
            }
        };
        match follows {
            Follows::Taken { is_more } => {
                self.report_trouble = None;
                self.state.pace.sent(now, is_more, dice());
                tracing::info!(
                    states = message.states.len(),
                    is_more,
                    "states were told to the site"
                );
            }
            Follows::Later(wait) => self.report_failed("the site has too much to do", Some(wait)),
            Follows::NotLetIn(why) | Follows::Refused(why) => {
                self.report_failed(&why.to_string(), Some(QUIET / 4));
            }
        }
        Ok(())
    }

    pub(super) fn report_failed(&mut self, why: &str, asked: Option<Duration>) {
        if self.report_trouble.as_deref() != Some(why) {
            tracing::warn!(why, "states are told to the site later");
        }
        self.report_trouble = Some(why.to_owned());
        let now = self.now();
        self.state.pace.failed(now, asked, dice());
    }

    /// Says by way of the fallback what does not work, at most once an hour.
    pub(super) async fn tell_fallback(&mut self, stage: &str, code: &str, text: &str) {
        let now = self.now();
        let is_told = |told: Moment| now.since(told) < FALLBACK;
        let Some(policy) = &self.policy else { return };
        if policy.fallback.is_empty() || self.told_fallback.is_some_and(is_told) {
            return;
        }
        let body = serde_json::json!({
            "id": self.settled.id.to_string(), "name": self.settled.name, "stage": stage, "code": code,
            "text": text.chars().take(400).collect::<String>(), "at": Timestamp::now(),
        });
        for address in &policy.fallback {
            let address = self.site.place(address);
            let url = format!("{}/api/v1/client/fallback", address.trim_end_matches('/'));
            let told =
                self.points.post(url).json(&body).timeout(Duration::from_secs(20)).send().await;
            if told.is_ok_and(|told| told.status().is_success()) {
                self.told_fallback = Some(now);
                return;
            }
        }
    }

    /// Gets another certificate for its key.
    pub(super) async fn renew(&mut self) -> Result<(), AgentError> {
        let request = self.identity.renewal()?;
        let body = serde_json::json!({ "request": request.pem() });
        let body = serde_json::to_vec(&body).expect("it has text keys");
        let asked = self.site.ask(Method::POST, "api/v1/client/renew", Some((&body, JSON))).await;
        #[derive(Deserialize)]
        struct Renewed {
            certificate: String,
        }
        let renewed = asked.and_then(|answer| {
            serde_json::from_slice::<Renewed>(&answer.body)
                .map_err(|error| Trouble::BadAnswer(error.to_string()))
        });
        match renewed {
            Err(trouble) => tracing::warn!(%trouble, "the certificate is renewed later"),
            Ok(Renewed { certificate }) => {
                let authority = self.identity.authority().clone();
                let identity = request.answered(&certificate, &authority)?;
                self.home.renewed(&identity)?;
                self.site = Arc::new(Site::of(&identity, &self.settled.sites)?);
                let site = self.site.clone();
                self.held.send_modify(|held| held.site = site);
                tracing::info!(until = %identity.expires(), "the site gave a new certificate");
                self.identity = identity;
            }
        }
        Ok(())
    }
}

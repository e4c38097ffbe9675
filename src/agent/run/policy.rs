//! What the site wants: asking for the policy, believing it, and waiting for the next one.

use super::{Agent, AgentError, Held, LOCATION, POLICY, dice};
use crate::agent::link::{Site, Trouble};
use client::patience::{Patience, WAIT};
use client::policy::{Policy, SignedPolicy};
use client::scan::agenda;
use http::{Method, StatusCode};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

impl Agent {
    /// Takes what came of asking for the policy.
    pub(super) fn take_answer(
        &mut self,
        answer: Result<Option<Vec<u8>>, Trouble>,
    ) -> Result<(), AgentError> {
        match answer {
            Ok(None) => self.let_in()?,
            Ok(Some(body)) => {
                self.let_in()?;
                let read = serde_json::from_slice::<SignedPolicy>(&body);
                let opened = read.map_err(|error| error.to_string()).and_then(|signed| {
                    let policy = signed.open(&self.settled.key, self.settled.id);
                    let policy = policy.map_err(|error| crate::exit::with_causes(&error))?;
                    Ok((signed, policy))
                });
                match opened {
                    Ok((signed, policy)) => self.take_policy(&signed, policy)?,
                    Err(why) => {
                        tracing::error!(why, "the policy is not believed; the one before holds");
                        self.policy_trouble = Some(why);
                    }
                }
            }
            Err(trouble) => self.trouble_of_policy(&trouble),
        }
        Ok(())
    }

    pub(super) fn let_in(&mut self) -> Result<(), AgentError> {
        self.policy_trouble = None;
        if self.not_let_in.take().is_some() {
            tracing::info!("the site lets this client in again");
        }
        if let Some(token) = self.token.take() {
            // Kept, it would bring back later whom an administrator removes.
            self.home.forget_token()?;
            if token.authority == self.identity.authority().fingerprint() {
                tracing::info!("this folder has joined already: the token is not used");
            } else {
                tracing::warn!(
                    folder = %self.home.folder().display(),
                    "this folder has joined another site than the token is of, and stays with it: to join both, \
                     name another folder with --data; to change, have this client removed there first"
                );
            }
        }
        Ok(())
    }

    pub(super) fn trouble_of_policy(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.policy_trouble.as_ref() != Some(&text) {
            tracing::warn!(trouble = text, "the policy cannot be asked for; the one before holds");
        }
        if let Trouble::NotLetIn(why) | Trouble::Removed(why) = trouble {
            self.not_let_in = Some(why.clone());
        }
        self.is_removed = matches!(trouble, Trouble::Removed(_));
        self.policy_trouble = Some(text);
    }

    /// Has a policy hold from now on.
    pub(super) fn take_policy(
        &mut self,
        signed: &SignedPolicy,
        policy: Policy,
    ) -> Result<(), AgentError> {
        self.home.write(POLICY, signed)?;
        let now = self.now();
        let is_enabled = policy.updates_enabled && policy.settings.updates_enabled;
        if !is_enabled {
            if self.state.agenda.is_enabled() {
                tracing::info!("updates are disabled: nothing is scanned for any more");
            }
            self.state.agenda.disable();
            self.state.deploy.enforcer.scans_no_more();
            self.home.remove(LOCATION)?;
        } else if !policy.update_points.is_empty() || self.state.agenda.is_enabled() {
            let settings = agenda::Settings {
                scan_every: policy.settings.scan_every,
                reevaluate_every: policy.settings.reevaluate_every,
                time_to_live: policy.settings.catalogue_ttl,
            };
            let points = policy.update_points.iter().map(|at| self.site.place(&at.url)).collect();
            self.state.agenda.policy(now, settings, points, &mut dice);
        }
        let known: BTreeSet<&str> = self
            .policy
            .iter()
            .flat_map(|it| &it.distribution_points)
            .map(|point| point.url.as_str())
            .collect();
        if policy.distribution_points.iter().any(|point| !known.contains(point.url.as_str())) {
            self.state.deploy.enforcer.has_other_points();
        }
        let is_new = self.policy.as_ref().is_none_or(|it| it.revision != policy.revision);
        if is_new {
            tracing::info!(revision = policy.revision, is_enabled, "another policy holds");
        }
        // Waits that are running are no longer than the policy has them.
        self.state.pace.shortened(now, policy.settings.report_every, dice());
        let facts_due = now + policy.settings.poll_every;
        self.state.facts_due = self.state.facts_due.min(facts_due);
        let (revision, poll_every) = (policy.revision.clone(), policy.settings.poll_every);
        self.held.send_modify(|held| (held.revision, held.poll_every) = (revision, poll_every));
        self.policy = Some(policy);
        self.save()
    }

    /// Asks for the policy now.
    pub(super) async fn ask_policy(&mut self) -> Result<(), Trouble> {
        let revision = self.policy.as_ref().map_or("", |policy| &policy.revision).to_owned();
        let answer = ask_policy(&self.site, &revision, 0).await;
        if let Err(trouble) = &answer {
            self.trouble_of_policy(trouble);
            return Err(trouble.clone());
        }
        let taken = self.take_answer(answer);
        taken.map_err(|error| Trouble::BadAnswer(crate::exit::with_causes(&error)))
    }
}

/// The policy, if it is another than the one of that revision, once it is or after so many seconds.
pub(super) async fn ask_policy(
    site: &Site,
    revision: &str,
    wait: u64,
) -> Result<Option<Vec<u8>>, Trouble> {
    let path = match revision {
        "" => "api/v1/client/policy".to_owned(),
        revision => format!("api/v1/client/policy?after={revision}&wait={wait}"),
    };
    let answer = site.ask(Method::GET, &path, None).await?;
    Ok((answer.status == StatusCode::OK).then_some(answer.body))
}

/// Has a question for the next policy wait at the site, again and again, and hands on what comes.
pub(super) async fn listen(
    mut held: watch::Receiver<Held>,
    to: mpsc::Sender<Result<Option<Vec<u8>>, Trouble>>,
) {
    let mut patience = Patience::default();
    loop {
        let Held { site, revision, poll_every } = held.borrow_and_update().clone();
        let asked = tokio::select! {
            asked = ask_policy(&site, &revision, WAIT.as_secs()) => asked,
            // Another policy came in another way: the question is asked anew.
            changed = held.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let pause = match &asked {
            Ok(_) => {
                patience.answered();
                Duration::ZERO
            }
            Err(trouble) => patience.for_policy(trouble.why(), poll_every, dice()),
        };
        let is_policy = matches!(asked, Ok(Some(_)));
        if to.send(asked).await.is_err() {
            return;
        }
        if is_policy {
            // Asked again once it was taken, or refused: then not at once.
            let taken = tokio::time::timeout(Duration::from_secs(30), held.changed()).await;
            if matches!(taken, Ok(Err(_))) {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Somebody else reached the site, or goes by another key: it is asked at once.
            changed = held.changed() => if changed.is_err() { return },
        }
    }
}

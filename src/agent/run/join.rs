//! How a machine comes to be a client: it asks until it is let in, or was joined before.

use super::{AgentError, Start, dice};
use crate::agent::control::{Ask, Asked};
use crate::agent::enrol::{self, Wish};
use crate::agent::home::Settled;
use crate::agent::status::Status;
use crate::exit::Failure;
use client::patience::Patience;
use dp::identity::Identity;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Who it is.
pub(super) struct Joined {
    pub settled: Settled,
    pub identity: Identity,
    /// Whether it has joined just now.
    pub is_new: bool,
}

/// Joins if it has not: asks again until it is let in, or `stop`.
pub(super) async fn joined(
    start: &Start,
    asked: &mut mpsc::Receiver<Asked>,
    stop: &CancellationToken,
) -> Result<Option<Joined>, AgentError> {
    let Start { home, machine, site, token } = start;
    let print = machine.print();
    if let Some((mut settled, identity)) = home.joined(&print)? {
        if let Some(site) = site.as_ref().map(|site| site.trim_end_matches('/').to_owned()) {
            settled.sites.retain(|it| *it != site);
            settled.sites.insert(0, site);
        }
        return Ok(Some(Joined { settled, identity, is_new: false }));
    }
    let token = match token {
        Some(token) => token.clone(),
        None => home.token()?.ok_or_else(|| AgentError::NotJoined(home.folder().into()))?,
    };
    let name = machine.name();
    let wish = Wish { token: &token, site: site.as_deref(), name: &name, print: &print };
    let (mut patience, mut said) = (Patience::default(), String::new());
    loop {
        let (standing, wait) = match wish.ask(home).await? {
            enrol::Asked::Joined(joined) => {
                let (settled, identity) = *joined;
                tracing::info!(id = %settled.id, name = settled.name, "this machine is a client now");
                return Ok(Some(Joined { settled, identity, is_new: true }));
            }
            enrol::Asked::Pending => {
                let standing = "pending: an administrator has to approve this machine".to_owned();
                (standing, patience.pending(dice()))
            }
            enrol::Asked::NotYet(trouble) => {
                (trouble.to_string(), patience.to_join(trouble.why(), dice()))
            }
        };
        if standing != said {
            // Once: whoever blocked it does not want to read it every minute.
            tracing::warn!(standing, "this machine is no client yet");
            wish.tell_fallback(home, &standing).await;
            said.clone_from(&standing);
        }
        let again = tokio::time::sleep(wait);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = &mut again => break,
                command = asked.recv() => {
                    let Some((ask, tell)) = command else { return Ok(None) };
                    let id = enrol::id_of(home, &print);
                    let _ = tell.send(match (ask, id) {
                        (Ask::Status, Some(id)) => {
                            let status = Status::joining(id, &name, &token.sites, &standing);
                            serde_json::to_value(status).map_err(Failure::from)
                        }
                        (Ask::Policy, _) => {
                            again.as_mut().reset(tokio::time::Instant::now());
                            Ok(Value::Null)
                        }
                        _ => {
                            let what = format!("this machine is no client yet: {standing}");
                            Err(Failure::failed(what))
                        }
                    });
                }
            }
        }
    }
}

impl Status {
    /// That of one that has not joined.
    fn joining(id: compliance::message::ClientId, name: &str, sites: &[String], why: &str) -> Self {
        Self {
            id,
            name: name.into(),
            sites: sites.into(),
            standing: why.into(),
            policy: None,
            policy_trouble: None,
            updates_enabled: false,
            update_point: None,
            catalogue: None,
            last_scan: None,
            next_scan: None,
            waiting: 0,
            next_report: None,
            report_trouble: None,
            deployments: Vec::new(),
            working: None,
            restart_in: None,
            facts: None,
            certificate_until: None,
        }
    }
}

//! What a site tells one client to do, signed.
//!
//! The site says it as text, and signs that very text: a policy that lies in a cache, or came by way of
//! somebody else, is as good as one that just came. It names whom it is for, so nobody gets another's; and a
//! client keeps the last good one, so that it goes on while its site is away.

use crate::settings::Settings;
use compliance::message::ClientId;
use deployment::policy::DeploymentPolicy;
use deployment::window::Window;
use jiff::Timestamp;
use packager::PublicKey;
use packager::sign::{Document, Signature};
use serde::{Deserialize, Serialize};

/// The longest policy that is read, in bytes.
pub const MAX_POLICY: usize = 1 << 20;

/// What a client is to do. Fields that a later site adds are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Differs where anything else but `synced` does.
    pub revision: String,
    /// Whom it is for.
    pub client: ClientId,
    /// Whether it scans for updates and installs them.
    pub updates_enabled: bool,
    /// The update points, the one to turn to first first. None where updates are not enabled, and before the
    /// site has a catalogue.
    #[serde(default)]
    pub update_points: Vec<Place>,
    /// The distribution points, the one to turn to first first.
    #[serde(default)]
    pub distribution_points: Vec<Place>,
    /// What is set for it.
    #[serde(default)]
    pub settings: Settings,
    /// What is deployed to it, in the order of the deployments' ids. Empty where updates are not enabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<DeploymentPolicy>,
    /// When it may be changed; at any time, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Where it says why, if it can not report or not even join: addresses of sites, at which
    /// `/api/v1/client/fallback` listens.
    #[serde(default)]
    pub fallback: Vec<String>,
    /// When a sync of the site was completed last that changed anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Timestamp>,
}

/// Somebody whom a client turns to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What people call it.
    pub name: String,
    /// Where it is reached.
    pub url: String,
    /// After how many seconds of looking for something it may be asked for it: 0 is at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: u64,
}

fn is_zero(seconds: &u64) -> bool {
    *seconds == 0
}

/// A policy as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPolicy {
    /// The policy as JSON text.
    pub policy: String,
    /// The site's signature of that text.
    pub signature: Signature,
}

/// Why a policy is not believed. The last one that was goes on to hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is too long to be one.
    #[error("the policy has {0} bytes, and at most {MAX_POLICY} are read")]
    TooLong(usize),
    /// Somebody changed it, or it is another site's.
    #[error("the policy is not signed with {0}, the key of this client's site")]
    NotProven(PublicKey),
    /// It is signed, and cannot be read: the site is of another time than the client.
    #[error("the policy is signed, and says nothing that this client understands")]
    Malformed(#[source] serde_json::Error),
    /// It is another client's.
    #[error("the policy is for the client {found}, and this is {own}")]
    OfAnother {
        /// Whose it is.
        found: ClientId,
        /// Who reads it.
        own: ClientId,
    },
}

impl Policy {
    /// Gives it the revision of what is in it.
    #[must_use]
    pub fn revised(mut self) -> Self {
        let synced = self.synced.take();
        self.revision.clear();
        let text = self.text();
        self.revision = blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect();
        Self { synced, ..self }
    }

    /// It as the text that is signed.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain fields and text keys become JSON")
    }
}

impl SignedPolicy {
    /// The policy in it, if the site of that key signed it for that client.
    ///
    /// # Errors
    /// If it is not, or cannot be read.
    pub fn open(&self, trusted: &PublicKey, own: ClientId) -> Result<Policy, PolicyError> {
        let text = self.policy.as_bytes();
        if text.len() > MAX_POLICY {
            return Err(PolicyError::TooLong(text.len()));
        }
        if !trusted.has_signed(Document::ClientPolicy, text, &self.signature) {
            return Err(PolicyError::NotProven(*trusted));
        }
        let policy: Policy = serde_json::from_slice(text).map_err(PolicyError::Malformed)?;
        if policy.client != own {
            return Err(PolicyError::OfAnother { found: policy.client, own });
        }
        let settings = policy.settings.within_limits();
        Ok(Policy { settings, ..policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packager::SiteKey;
    use uuid::Uuid;

    fn id(n: u128) -> ClientId {
        ClientId(Uuid::from_u128(n))
    }

    fn policy() -> Policy {
        Policy {
            revision: String::new(),
            client: id(1),
            updates_enabled: true,
            update_points: vec![Place {
                name: "site".into(),
                url: "https://site.example:8520".into(),
                after: 0,
            }],
            distribution_points: Vec::new(),
            settings: Settings::default(),
            deployments: Vec::new(),
            windows: Vec::new(),
            fallback: vec!["https://site.example:8520".into()],
            synced: None,
        }
        .revised()
    }

    fn signed(key: &SiteKey, policy: &Policy) -> SignedPolicy {
        let policy = policy.text();
        let signature = key.sign_document(Document::ClientPolicy, policy.as_bytes());
        SignedPolicy { policy, signature }
    }

    #[test]
    fn a_client_believes_what_its_site_signed_for_it_and_nothing_else() {
        let key = SiteKey::from_seed([7; 32]);
        let (sent, trusted) = (signed(&key, &policy()), key.public());
        assert_eq!(sent.open(&trusted, id(1)).unwrap(), policy());
        let error = sent.open(&trusted, id(2)).unwrap_err();
        assert!(matches!(error, PolicyError::OfAnother { .. }));
        let stranger = SiteKey::from_seed([8; 32]).public();
        let error = sent.open(&stranger, id(1)).unwrap_err();
        assert!(matches!(error, PolicyError::NotProven(_)));
        let changed = sent.policy.replace("site.example", "evil.example");
        let error = SignedPolicy { policy: changed, ..sent }.open(&trusted, id(1)).unwrap_err();
        assert!(matches!(error, PolicyError::NotProven(_)));
        let long = SignedPolicy { policy: " ".repeat(MAX_POLICY + 1), ..signed(&key, &policy()) };
        assert!(matches!(long.open(&trusted, id(1)).unwrap_err(), PolicyError::TooLong(_)));
    }

    #[test]
    fn the_revision_follows_from_all_but_the_time_of_the_last_sync() {
        let first = policy();
        let synced = Some("2026-11-27T03:02:11Z".parse().unwrap());
        assert_eq!(Policy { synced, ..first.clone() }.revised().revision, first.revision);
        for other in [
            Policy { client: id(2), ..first.clone() },
            Policy { updates_enabled: false, ..first.clone() },
            Policy { fallback: Vec::new(), ..first.clone() },
        ] {
            assert_ne!(other.revised().revision, first.revision);
        }
    }

    #[test]
    fn what_a_later_site_adds_is_passed_over_and_odd_times_are_brought_within_limits() {
        let key = SiteKey::from_seed([7; 32]);
        let mut json = serde_json::to_value(policy()).unwrap();
        json["later"] = serde_json::json!([]);
        json["settings"]["scan_every"] = 1.into();
        json["settings"]["added"] = true.into();
        let policy = json.to_string();
        let signature = key.sign_document(Document::ClientPolicy, policy.as_bytes());
        let opened = SignedPolicy { policy, signature }.open(&key.public(), id(1)).unwrap();
        assert_eq!(opened.settings.scan_every.as_secs(), 86_400);
    }
}

//! Joining a site: a token, once, for an identity that lasts.
//!
//! A machine chooses an id and makes a key, and asks with both until it has an answer, so that one that was cut off
//! is the same machine to the site. Where an administrator has to approve it, it asks again; where it is refused it
//! says so, and asks ever more seldom.

use super::home::{Home, HomeError, Settled};
use super::link::{Site, Trouble};
use super::machine::Print;
use api::routes::fleet::client::EnrolledView;
use compliance::message::ClientId;
use dp::field::JoinToken;
use dp::identity::{Identity, Peer};
use http::{Method, StatusCode};

/// What came of asking.
pub enum Asked {
    /// It is a client now.
    Joined(Box<(Settled, Identity)>),
    /// It waits for an administrator.
    Pending,
    /// It was not let in, or nobody could be asked.
    NotYet(Trouble),
}

/// Who wants to join.
pub struct Wish<'a> {
    /// What it joins with.
    pub token: &'a JoinToken,
    /// Where the site is said to be, beside what the token tells.
    pub site: Option<&'a str>,
    /// What it is called.
    pub name: &'a str,
    /// By what it is known again.
    pub print: &'a Print,
}

impl Wish<'_> {
    /// The addresses of the site, the one to try first first.
    fn sites(&self) -> Vec<String> {
        let told = self.site.map(|site| site.trim_end_matches('/').to_owned());
        let mut sites: Vec<String> = told.into_iter().collect();
        sites.extend(
            self.token.sites.iter().filter(|it| !sites.contains(it)).cloned().collect::<Vec<_>>(),
        );
        sites
    }

    /// Says by way of the fallback that it has not joined, and why; whether that is heard is not awaited.
    pub async fn tell_fallback(&self, home: &Home, why: &str) {
        let Ok((id, _)) = home.joining(self.print) else { return };
        let Ok(site) = Site::joining(self.token.authority, &self.sites()) else { return };
        let body = serde_json::json!({
            "id": id.to_string(), "name": self.name, "stage": "join", "code": "not-joined",
            "text": why.chars().take(400).collect::<String>(), "at": jiff::Timestamp::now(),
        });
        let body = serde_json::to_vec(&body).expect("it has text keys");
        let told = site.ask(Method::POST, FALLBACK, Some((&body, JSON))).await;
        if let Err(trouble) = told {
            tracing::debug!(%trouble, "the site does not hear of it");
        }
    }

    /// Asks once.
    pub async fn ask(&self, home: &Home) -> Result<Asked, HomeError> {
        let (id, request) = home.joining(self.print)?;
        let sites = self.sites();
        let site = Site::joining(self.token.authority, &sites)?;
        let secret: String = self.token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = serde_json::json!({
            "secret": secret, "id": id.to_string(), "name": self.name, "request": request.pem(),
        });
        let body = serde_json::to_vec(&body).expect("it has text keys");
        let asked = site.ask(Method::POST, "api/v1/client/join", Some((&body, JSON))).await;
        let answer = match asked {
            Err(Trouble::Refused { status: 409, why }) => {
                // Another machine has this id or key.
                home.choose_anew()?;
                return Ok(Asked::NotYet(Trouble::Refused { status: 409, why }));
            }
            Err(trouble) => return Ok(Asked::NotYet(trouble)),
            Ok(answer) => answer,
        };
        let wrong = |why: String| Ok(Asked::NotYet(Trouble::BadAnswer(why)));
        let told: EnrolledView = match serde_json::from_slice(&answer.body) {
            Ok(told) => told,
            Err(error) => return wrong(format!("the site answered with something else: {error}")),
        };
        let Some(certificate) = told.certificate.filter(|_| answer.status != StatusCode::ACCEPTED)
        else {
            return Ok(Asked::Pending);
        };
        let Ok(key) = told.key.parse() else {
            return wrong("the site's key is none".into());
        };
        let peer = Peer::Client(api::fleet::certified(id));
        let identity = request.joined_as(&peer, &certificate, &told.authority, self.token)?;
        let mut all = sites;
        all.extend(told.sites.into_iter().filter(|it| it.starts_with("https://")));
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|site| seen.insert(site.clone()));
        let settled = (id, self.name.to_owned(), self.print.clone(), key, all);
        let settled = home.settle(&identity, settled)?;
        Ok(Asked::Joined(Box::new((settled, identity))))
    }
}

/// Where a machine says what it cannot say as a client.
const FALLBACK: &str = "api/v1/client/fallback";

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// The id that a machine is about to join with, for whoever is told of it.
pub fn id_of(home: &Home, print: &Print) -> Option<ClientId> {
    home.joining(print).ok().map(|(id, _)| id)
}

//! The way of a simulated machine to its site: a connection of its own, with its own certificate.

use super::machine::Machine;
use super::world::World;
use crate::exit::{Failure, with_causes};
use ::api::routes::fleet::client::{EnrolView, EnrolledView, STATES};
use ::client::policy::SignedPolicy;
use ::compliance::message::Answer;
use ::dp::field::JoinToken;
use ::dp::identity::{Identity, Peer, Request, client, client_config, joining_config};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use packager::{Clock, PublicKey};
use reqwest::{Response, StatusCode, Url};
use std::{sync::Arc, time::Duration};

/// How long a connection is waited for, and how long an answer may stand still.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(60));

/// What came instead of an answer.
#[derive(Debug)]
pub enum Trouble {
    /// The site is there, and wants to be asked again later.
    Later(Option<Duration>),
    /// Nobody answered, or somebody else did.
    Gone(String),
    /// The site refuses: its status and its words.
    Refused(u16, String),
}

impl Trouble {
    /// What it is called among the answers.
    pub fn word(&self) -> String {
        match self {
            Self::Later(_) => "busy".into(),
            Self::Gone(_) => "unreachable".into(),
            Self::Refused(status, _) => format!("refused {status}"),
        }
    }

    /// What is behind it.
    pub fn why(&self) -> &str {
        match self {
            Self::Later(_) => "the site has too much to do",
            Self::Gone(why) | Self::Refused(_, why) => why,
        }
    }
}

/// Who a machine is once its request was answered, and what its site signs with.
pub fn joined(
    world: &World,
    machine: u32,
    token: &JoinToken,
    (request, answer): (Request, EnrolledView),
) -> Result<(Identity, PublicKey), Failure> {
    let certificate = answer
        .certificate
        .ok_or_else(|| Failure::failed("the token is for machines that wait for approval"))?;
    let id = world.client(machine).0.as_u128();
    let peer = Peer::Client(::dp::field::ClientId::from_bits(id));
    let identity = request.joined_as(&peer, &certificate, &answer.authority, token)?;
    Ok((identity, answer.key.parse()?))
}

/// Ways to one site.
#[derive(Clone)]
pub struct Door {
    /// `https://HOST:PORT`.
    pub address: String,
    /// What the machines join with.
    pub token: JoinToken,
}

/// A connection.
pub struct Line {
    http: reqwest::Client,
    base: Url,
}

impl Door {
    /// A connection for those who are nobody yet.
    pub fn stranger(&self) -> Result<Line, Failure> {
        let config = joining_config(self.token.authority, &clock()).map_err(unusable)?;
        self.line(&config)
    }

    /// A connection of a machine.
    pub fn own(&self, identity: &Identity) -> Result<Line, Failure> {
        let config = client_config(identity, &clock()).map_err(unusable)?;
        self.line(&config)
    }

    fn line(&self, config: &rustls::ClientConfig) -> Result<Line, Failure> {
        let (builder, base) = client(config, &Peer::Site, &self.address).map_err(unusable)?;
        let builder = builder.connect_timeout(PATIENCE.0).read_timeout(PATIENCE.1);
        Ok(Line { http: builder.build()?, base })
    }
}

fn clock() -> Clock {
    Arc::new(jiff::Timestamp::now)
}

fn unusable(error: ::dp::identity::IdentityError) -> Failure {
    Failure::failed(with_causes(&error))
}

impl Line {
    /// Asks to join with the key of a request, which may be asked again until it is answered.
    pub async fn join(
        &self,
        world: &World,
        machine: u32,
        token: &JoinToken,
        request: &Request,
    ) -> Result<EnrolledView, Trouble> {
        let asked = EnrolView {
            secret: token.secret.iter().map(|byte| format!("{byte:02x}")).collect(),
            id: world.client(machine).to_string(),
            name: format!("simulated-{machine}"),
            request: request.pem().to_owned(),
        };
        let post = self.http.post(self.url("api/v1/client/join")).json(&asked);
        read(self.answer(post).await?).await
    }

    /// Gets the policy of a machine, and checks it.
    pub async fn policy(
        &self,
        world: &World,
        machine: &Machine,
        key: &PublicKey,
    ) -> Result<(), Trouble> {
        let get = self.http.get(self.url("api/v1/client/policy"));
        let signed: SignedPolicy = read(self.answer(get).await?).await?;
        let opened = signed.open(key, world.client(machine.n));
        opened.map(drop).map_err(|error| Trouble::Gone(with_causes(&error)))
    }

    /// Sends a batch.
    pub async fn report(&self, batch: Bytes) -> Result<Answer, Trouble> {
        let post = self.http.post(self.url("api/v1/client/states"));
        read(self.answer(post.header(CONTENT_TYPE, STATES).body(batch)).await?).await
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("paths of the interface are relative URLs")
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Response, Trouble> {
        let response = request.send().await.map_err(|error| Trouble::Gone(with_causes(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(Trouble::Later(after));
        }
        let text = response.text().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let said = problem.get("detail").and_then(serde_json::Value::as_str);
        let said = said.or(status.canonical_reason()).unwrap_or("no reason");
        Err(Trouble::Refused(status.as_u16(), said.chars().take(300).collect()))
    }
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, Trouble> {
    response.json().await.map_err(|error| Trouble::Gone(with_causes(&error)))
}

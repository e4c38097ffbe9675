//! What stands before every operation: who asks, may they, did they ask before; and the record of
//! what was changed.
//!
//! The rules of an operation are read from the OpenAPI document: its id, who may ask by its security
//! requirement (a token's role, or a distribution point, a follower or a client by its certificate), and `x-unaudited` or `x-unkept` where a change is not recorded or its answer not
//! kept. So the document cannot say one thing and the server do another; an operation that is not
//! in the document is refused.

use crate::audit::AuditRecord;
use crate::auth::{Identity, Peer, Role};
#[cfg(doc)]
use crate::fleet::Caller;
use crate::idempotency::{self, Fingerprint, KeptAnswer, Verdict};
use crate::problem::{Kind, Problem};
use crate::site::{Ledger, Site, SiteError, blocking};
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dp::field::{ClientId, FollowerId, PointId};
use futures::FutureExt;
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest target of an audit record, in characters.
const MAX_TARGET: usize = 300;

/// The rules of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its `operationId`.
    pub id: String,
    /// Who may ask for it.
    pub access: Access,
    /// Whether it changes something.
    pub changes: bool,
    /// Whether a change is recorded in the audit log.
    pub audited: bool,
    /// Whether a repeat under the same idempotency key gets the answer again.
    pub kept: bool,
    /// Whether it works on packages or content, so that the library will be opened for it.
    pub content: bool,
    /// Whether it is about a library alone, and so works on a distribution point's too.
    pub at_point: bool,
}

/// Who may ask for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    All,
    /// Whoever has a token of this role, or a higher one.
    Token(Role),
    /// A distribution point of the site, by the certificate of its connection alone. The handler
    /// gets its [`PointId`].
    Point,
    /// A child site, or another update point of the site, by the certificate of its connection alone. The
    /// handler gets its [`FollowerId`].
    Follower,
    /// A client of the site, by the certificate of its connection alone. The handler gets its
    /// [`Caller`].
    Client,
}

/// Method and path template to rules.
pub type Operations = HashMap<(Method, String), Operation>;

/// What the handler adds to the audit record: the target that the path does not name, and what
/// came of it.
#[derive(Clone, Debug, Default)]
pub struct AuditNote(Arc<Mutex<(Option<String>, Option<String>)>>);

impl AuditNote {
    /// Names what is changed.
    pub fn target(&self, target: impl Into<String>) {
        self.0.lock().0 = Some(target.into().chars().take(MAX_TARGET).collect());
    }

    /// Says what came of it.
    pub fn detail(&self, detail: impl Into<String>) {
        self.0.lock().1 = Some(detail.into());
    }
}

/// Tells a handler that its client has hung up.
#[derive(Clone, Debug)]
pub struct Gone(pub CancellationToken);

/// The state of [`guard`].
#[derive(Clone)]
pub struct Guard {
    /// The site.
    pub site: Site,
    /// The rules.
    pub operations: Arc<Operations>,
}

/// The middleware: runs the operation if it may run.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut request = request;
    let gone = CancellationToken::new();
    request.extensions_mut().insert(Gone(gone.clone()));
    // Dropped when the client hangs up, or has its answer.
    let _gone = gone.drop_guard();
    let run =
        async move { guard.run(request, next).await.unwrap_or_else(IntoResponse::into_response) };
    // On its own, so that a client that hangs up does not keep a change that was made from being
    // recorded.
    let span = tracing::Span::current();
    let answer = tokio::spawn(tracing::Instrument::instrument(run, span)).await;
    answer.unwrap_or_else(|error| Problem::internal(&error).into_response())
}

impl Guard {
    async fn run(&self, mut request: Request, next: Next) -> Result<Response, Problem> {
        let operation = self.operation(&request)?;
        let peer = peer_of(&request);
        let local = request.extensions().get::<Identity>().cloned();
        if self.site.is_of_point() && !operation.at_point {
            let error = SiteError::OfAPoint { folder: self.site.folder().to_owned() };
            return Err(Problem::new(Kind::NotFound, error.to_string()));
        }
        self.limit(local.as_ref(), peer, &request)?;
        let role = match operation.access {
            Access::All => return Ok(next.run(request).await),
            Access::Point => return self.run_for_point(request, next).await,
            Access::Follower => return self.run_for_follower(request, next).await,
            Access::Client => return self.run_for_client(request, next).await,
            Access::Token(role) => role,
        };
        if operation.content && local.is_some() {
            // A command in process opens database and library first: at the same time, it waits
            // half as long. If it fails, the handler meets the same error.
            let site = self.site.clone();
            tokio::task::spawn_blocking(move || drop(site.content()));
        }
        let site = self.site.clone();
        let ledger = blocking(move || site.ledger()).await?;
        let identity = match local {
            Some(identity) => identity,
            None => authenticate(&ledger, request.headers())?,
        };
        let note = AuditNote::default();
        let target = path_target(&request);
        request.extensions_mut().insert(identity.clone());
        request.extensions_mut().insert(note.clone());
        let answer = if identity.role < role {
            let detail = format!(
                "{} takes the role {}, and token {:?} has the role {}",
                operation.id,
                role.name(),
                identity.name,
                identity.role.name()
            );
            Problem::new(Kind::Forbidden, detail).into_response()
        } else {
            self.once(&ledger, &operation, &identity, request, next).await
        };
        if operation.changes && operation.audited {
            let (named, detail) = note.0.lock().clone();
            let problem = answer.extensions().get::<Problem>().map(ToString::to_string);
            let status = answer.status().as_u16();
            let mut record =
                AuditRecord::new(&identity, &operation.id, named.unwrap_or(target), status);
            record.from = peer.0;
            record.detail = problem.or(detail);
            let audit = ledger.audit.clone();
            let written = blocking(move || Ok(audit.write(&record)?)).await;
            written.map_err(|error| incomplete(&answer, "not recorded", &error))?;
        }
        match answer.extensions().get::<Unkept>() {
            Some(Unkept(error)) => {
                Err(incomplete(&answer, "not kept for its idempotency key", error))
            }
            None => Ok(answer),
        }
    }

    /// Runs the operation for the point whose certificate the connection shows, if it still is one.
    async fn run_for_point(&self, mut request: Request, next: Next) -> Result<Response, Problem> {
        let id = point_of(&request).ok_or_else(|| {
            let detail = "this is for distribution points: connect with the certificate that a \
                point got when it joined";
            Problem::new(Kind::NotAPoint, detail)
        })?;
        let site = self.site.clone();
        let ledger = blocking(move || site.ledger()).await?;
        if !ledger.registry.knows(&id) {
            return Err(not_a_point_any_more());
        }
        ledger.registry.saw(&id, Timestamp::now());
        request.extensions_mut().insert(id);
        Ok(handled(request, next).await)
    }

    /// The same for one who follows the site's catalogue.
    async fn run_for_follower(
        &self,
        mut request: Request,
        next: Next,
    ) -> Result<Response, Problem> {
        let id = follower_of(&request).ok_or_else(|| {
            let detail = "this is for child sites and update points: connect with the certificate that such a \
                one got when it joined";
            Problem::new(Kind::NotAFollower, detail)
        })?;
        let (site, asked) = (self.site.clone(), id.clone());
        let is_let_in = blocking(move || {
            let is_let_in = crate::hierarchy::lets_in(&site, &asked)?;
            if is_let_in {
                site.ledger()?.registry.saw_follower(&asked, Timestamp::now());
            }
            Ok(is_let_in)
        });
        if !is_let_in.await? {
            return Err(not_a_follower_any_more());
        }
        request.extensions_mut().insert(id);
        Ok(handled(request, next).await)
    }

    /// The same for a client, if it may report.
    async fn run_for_client(&self, mut request: Request, next: Next) -> Result<Response, Problem> {
        let id = client_of(&request).ok_or_else(|| {
            let detail = "this is for clients: connect with the certificate that a client got when it enrolled";
            Problem::new(Kind::NotAClient, detail)
        })?;
        let site = self.site.clone();
        let caller = blocking(move || {
            let fleet = site.fleet()?;
            let caller = fleet.caller(&id)?;
            fleet.states.saw(caller.ordinal, Timestamp::now());
            Ok(caller)
        });
        let caller = caller.await?;
        request.extensions_mut().insert(caller);
        Ok(handled(request, next).await)
    }

    fn operation(&self, request: &Request) -> Result<Operation, Problem> {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let method = match *request.method() {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        let found = self.operations.get(&(method, path.to_owned()));
        found.cloned().ok_or_else(|| Problem::new(Kind::UnknownRoute, "there is no such address"))
    }

    /// Each token has its rate; callers without one share that of their address.
    fn limit(
        &self,
        local: Option<&Identity>,
        peer: Peer,
        request: &Request,
    ) -> Result<(), Problem> {
        if local.is_some() {
            return Ok(());
        }
        // The id alone, unchecked: a made-up one only limits itself, and its address pays below.
        let id = bearer(request.headers()).and_then(|text| text.split('_').nth(1));
        let address = || peer.0.map_or("unknown".into(), |address| address.to_string());
        let peer = point_of(request).map(|id| id.to_string());
        let peer = peer.or_else(|| follower_of(request).map(|id| id.to_string()));
        let peer = peer.or_else(|| client_of(request).map(|id| id.to_string()));
        let caller = match (peer, id.filter(|id| self.site.knows_token(id))) {
            (Some(peer), _) => peer,
            (None, Some(id)) => id.to_owned(),
            (None, None) => address(),
        };
        self.site.limiter().take(&caller, Instant::now()).map_err(|wait| {
            let detail = format!(
                "more than {} requests a second: slow down, or raise api.rate",
                self.site.config().api.rate
            );
            Problem::new(Kind::TooManyRequests, detail).retry_after(wait.as_secs() + 1)
        })
    }

    /// Runs the operation, or gives the answer that the same request got before.
    async fn once(
        &self,
        ledger: &Arc<Ledger>,
        operation: &Operation,
        identity: &Identity,
        request: Request,
        next: Next,
    ) -> Response {
        let key = match idempotency::key_of(request.headers()) {
            Ok(Some(key)) if operation.changes && operation.kept => key,
            Ok(_) => return handled(request, next).await,
            Err(problem) => return problem.into_response(),
        };
        let answered = self.keyed(ledger, key, identity, request, next).await;
        answered.unwrap_or_else(IntoResponse::into_response)
    }

    async fn keyed(
        &self,
        ledger: &Arc<Ledger>,
        key: String,
        identity: &Identity,
        request: Request,
        next: Next,
    ) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let print = Fingerprint::of(&parts);
        let mut body = print.watch(body);
        // A small body is read here, because an operation that takes none would leave it unread
        // and unhashed. A large one is a stream that its operation reads to the end.
        let size: Option<u64> = parts
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let limit = self.site.config().api.max_body.0;
        if size.is_some_and(|size| size <= limit) {
            body = Body::from(crate::extract::whole_body(body, limit).await?);
        }
        let owner = identity.token.clone().unwrap_or_else(|| "local".into());
        let answers = ledger.answers.clone();
        match blocking(move || answers.check(&owner, &key)).await? {
            Verdict::Replay(replay) => {
                while let Some(frame) = body.frame().await {
                    frame.map_err(|error| Problem::malformed("body", error.to_string()))?;
                }
                replay.answer(&print.finish())
            }
            Verdict::Run(claim) => {
                let response = handled(Request::from_parts(parts, body), next).await;
                let (answer, mut response) = KeptAnswer::read(response).await;
                let answers = ledger.answers.clone();
                let kept = blocking(move || answers.keep(claim, print.finish(), &answer)).await;
                if let Err(error) = kept {
                    response.extensions_mut().insert(Unkept(error));
                }
                Ok(response)
            }
        }
    }
}

/// Why an answer could not be kept for its idempotency key. Goes with the answer, so that the audit
/// log has what the operation did.
#[derive(Clone)]
struct Unkept(Problem);

/// What is said in place of `answer`, because `error` kept something from being done with it that
/// belongs to it. Whether the operation took effect must not be hidden.
fn incomplete(answer: &Response, lacks: &str, error: &Problem) -> Problem {
    let status = answer.status().as_u16();
    let kind = if error.is(Kind::StorageFull) { Kind::StorageFull } else { Kind::Internal };
    let detail = match answer.extensions().get::<Problem>() {
        // Of one that failed inside, nobody knows.
        Some(refusal) if !refusal.is(Kind::Internal) => format!(
            "{error}; nothing was changed, and the refusal ({status}: {refusal}) is {lacks} either"
        ),
        _ => format!("it was answered {status}, but {lacks}: {error}"),
    };
    Problem::new(kind, detail)
}

/// The handler's answer. One that panics has failed: the change is recorded as failed all the same,
/// and its idempotency key is free again.
async fn handled(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let detail = "the operation failed inside the server; see its log";
        Problem::new(Kind::Internal, detail).into_response()
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

fn authenticate(ledger: &Ledger, headers: &HeaderMap) -> Result<Identity, Problem> {
    if !headers.contains_key(header::AUTHORIZATION) {
        let detail = "no token was sent: send `Authorization: Bearer TOKEN`";
        return Err(Problem::new(Kind::Unauthorized, detail)
            .caused_by("authorization", "must be `Bearer TOKEN`"));
    }
    let text = bearer(headers).ok_or_else(|| {
        Problem::new(Kind::Unauthorized, "")
            .caused_by("authorization", "must be `Bearer TOKEN`, and is not")
    })?;
    ledger.tokens.check(text, Timestamp::now()).ok_or_else(|| {
        let detail = "the token is unknown, revoked or expired: ask an administrator for a new one";
        Problem::new(Kind::Unauthorized, detail).caused_by("authorization", "has no valid token")
    })
}

fn peer_of(request: &Request) -> Peer {
    let extensions = request.extensions();
    Peer(extensions.get::<SocketAddr>().map(|address| address.ip().to_canonical()))
}

/// The point that the connection's certificate names. Whether it still is one is another question.
fn point_of(request: &Request) -> Option<PointId> {
    match request.extensions().get::<dp::identity::Peer>()? {
        dp::identity::Peer::Point(id) => Some(id.clone()),
        _ => None,
    }
}

/// The follower that the connection's certificate names. Whether it still is one is another question.
fn follower_of(request: &Request) -> Option<FollowerId> {
    match request.extensions().get::<dp::identity::Peer>()? {
        dp::identity::Peer::Follower(id) => Some(id.clone()),
        _ => None,
    }
}

/// The client that the connection's certificate names. Whether it still is one is another question.
fn client_of(request: &Request) -> Option<ClientId> {
    match request.extensions().get::<dp::identity::Peer>()? {
        dp::identity::Peer::Client(id) => Some(id.clone()),
        _ => None,
    }
}

/// What a follower gets that was removed.
pub fn not_a_follower_any_more() -> Problem {
    let detail = "this site does not know you any more as a child site or update point: join with a new token";
    Problem::new(Kind::NotAFollower, detail)
}

/// What a point gets that was removed.
pub fn not_a_point_any_more() -> Problem {
    let detail = "the distribution point was removed from this site: to use the machine as one \
        again, let it join with a new token";
    Problem::new(Kind::NotAPoint, detail)
}

/// What the path names: of `/api/v1/packages/docs/channels/stable` that is `docs/stable`.
fn path_target(request: &Request) -> String {
    let template = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let parts = template.split('/').zip(request.uri().path().split('/'));
    let named = parts.filter(|(template, _)| template.starts_with('{')).map(|(_, part)| part);
    named.collect::<Vec<_>>().join("/").chars().take(MAX_TARGET).collect()
}

/// The rules in an OpenAPI document.
pub fn operations(document: &serde_json::Value) -> Operations {
    let mut operations = Operations::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let scopes = operation["security"].as_array().into_iter().flatten();
            let mut scopes = scopes.filter_map(|need| need.as_object());
            // Open to all only if the document says so, by an empty requirement.
            let access = scopes.next().map_or(Access::Token(Role::Admin), |need| {
                if need.get("follower").is_some() {
                    return Access::Follower;
                }
                if need.get("client").is_some() {
                    return Access::Client;
                }
                match (need.get("token"), need.get("certificate")) {
                    (Some(scopes), _) => {
                        let role = scopes[0].as_str().and_then(Role::from_name);
                        Access::Token(role.unwrap_or(Role::Admin))
                    }
                    (None, Some(_)) => Access::Point,
                    (None, None) if need.is_empty() => Access::All,
                    (None, None) => Access::Token(Role::Admin),
                }
            });
            let flag = |name: &str| operation[name].as_bool().unwrap_or(false);
            let is_tagged = |tags: &[&str]| tags.iter().any(|tag| operation["tags"][0] == *tag);
            let rules = Operation {
                id: operation["operationId"].as_str().unwrap_or_default().to_owned(),
                access,
                changes: method != Method::GET,
                audited: !flag("x-unaudited"),
                kept: !flag("x-unkept"),
                content: is_tagged(&["packages", "uploads", "content"]),
                // What is revoked says the site.
                at_point: is_tagged(&["library", "jobs"])
                    || is_tagged(&["content"]) && !matches!(method, Method::PUT | Method::DELETE),
            };
            operations.insert((method, path.clone()), rules);
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for() {
        async fn broken() -> &'static str {
            panic!("as a test of what a defect does")
        }
        let router = Router::new().route("/", get(broken)).layer(from_fn(handled));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.extensions().get::<Problem>().is_some(), "so that the audit log names it");
    }

    #[test]
    fn what_is_not_recorded_names_the_full_disk_and_hides_no_change() {
        let full = Problem::new(Kind::StorageFull, "the disk is full");
        let said = |answer: Response, error: &Problem| incomplete(&answer, "not recorded", error);
        let refused = said(full.clone().into_response(), &full);
        assert!(refused.is(Kind::StorageFull));
        assert!(refused.detail.contains("nothing was changed"), "{refused}");
        let failed = Problem::new(Kind::Internal, "it broke").into_response();
        for answer in [StatusCode::CREATED.into_response(), failed] {
            let status = answer.status().as_u16();
            let problem = said(answer, &full);
            assert!(problem.is(Kind::StorageFull));
            let want = format!("it was answered {status}, but not recorded: the disk is full");
            assert_eq!(problem.detail, want);
        }
        let broken = Problem::new(Kind::Internal, "the database broke");
        assert!(said(full.into_response(), &broken).is(Kind::Internal));
    }
}

//! Safe retries: a request with an `Idempotency-Key` takes effect once, however often it is sent.
//!
//! The key belongs to the token that sent it. The first request with a key runs, and its answer is
//! kept for a day with a fingerprint of the request (method, address, media type, body). A repeat
//! gets the same answer with `Idempotency-Replayed: true`; another request under the same key gets
//! 422. Only answers below 300 are kept: after a refusal or failure nothing took effect, and the
//! repeat may run.
//!
//! A body is hashed while the handler reads it, so a streamed upload is not held in memory.

use crate::page::hex;
use crate::problem::{Kind, Problem};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sitedb::{Batch, CommitError, Db, Order, Stored, Table, Value};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The header that names a request.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long an answer is kept.
const KEEP: SignedDuration = SignedDuration::from_hours(24);
/// The longest key.
const MAX_KEY: usize = 255;
/// The largest answer that is kept. Answers of requests that create are far smaller.
const MAX_ANSWER: usize = 256 << 10;

/// Headers of an answer that are part of it.
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// Token id (or "local") and the client's key.
type Key = (String, String);

const ANSWERS: Table<Key, Entry> = Table::new("idempotency");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    started: Timestamp,
    /// Which run of the program took the request. Another run cannot be at work on it any more.
    run: String,
    answer: Option<Answer>,
}
impl Value for Entry {}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    fingerprint: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The kept answers of a site. Calls block on the disk.
#[derive(Clone)]
pub struct Answers {
    db: Db,
    run: String,
}

/// What to do with a request that has a key.
pub enum Verdict {
    /// Nobody sent it before: run it, then [`Answers::keep`] its answer.
    Run(Claim),
    /// It was answered: read the body, then compare it by [`Replay::answer`].
    Replay(Replay),
}

/// The right to run a request.
pub struct Claim {
    key: Key,
    entry: Stored<Entry>,
}

/// An answer that was given before.
pub struct Replay(Answer);

/// The key of a request, if it has one.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=MAX_KEY).contains(&text.len()));
    let text = text.ok_or_else(|| {
        Problem::malformed(HEADER.as_str(), format!("must be 1 to {MAX_KEY} printable characters"))
    })?;
    Ok(Some(text.to_owned()))
}

impl Answers {
    /// The kept answers in `db`.
    pub fn new(db: Db) -> Self {
        Self { db, run: hex(&rand::random::<[u8; 8]>()) }
    }

    /// Decides what to do with a request of `owner` under `key`.
    pub fn check(&self, owner: &str, key: &str) -> Result<Verdict, Problem> {
        let key = (owner.to_owned(), key.to_owned());
        let now = Timestamp::now();
        let found = ANSWERS.get_stored(&self.db, &key)?;
        if let Some(old) = &found
            && old.value.started + KEEP > now
        {
            match &old.value.answer {
                Some(answer) => return Ok(Verdict::Replay(Replay(answer.clone()))),
                None if old.value.run == self.run => {
                    let detail = "the first request with this idempotency key is still at work";
                    return Err(Problem::new(Kind::Conflict, detail).retry_after(1));
                }
                None => {}
            }
        }
        let entry = Entry { started: now, run: self.run.clone(), answer: None };
        let mut batch = Batch::relaxed();
        match &found {
            Some(old) => ANSWERS.replace(&mut batch, &key, old, &entry),
            None => ANSWERS.insert(&mut batch, &key, &entry),
        }
        match self.db.kv().write(batch) {
            Ok(_) => {}
            // Somebody else took it in this moment.
            Err(CommitError::Conflict { .. }) => {
                let detail = "another request with this idempotency key is at work";
                return Err(Problem::new(Kind::Conflict, detail).retry_after(1));
            }
            Err(error) => return Err(error.into()),
        }
        let entry = ANSWERS.get_stored(&self.db, &key)?;
        let entry = entry.ok_or_else(|| Problem::new(Kind::Conflict, "try again"))?;
        Ok(Verdict::Run(Claim { key, entry }))
    }

    /// Keeps the answer of a request that took effect, on disk when this returns; gives the claim
    /// up if it did not.
    pub fn keep(
        &self,
        claim: Claim,
        fingerprint: String,
        answer: &KeptAnswer,
    ) -> Result<(), Problem> {
        let mut batch = Batch::new();
        if answer.took_effect() {
            let answer = Answer {
                fingerprint,
                status: answer.status.as_u16(),
                headers: answer.headers.clone(),
                body: String::from_utf8_lossy(&answer.body).into_owned(),
            };
            let entry = Entry { answer: Some(answer), ..claim.entry.value.clone() };
            ANSWERS.replace(&mut batch, &claim.key, &claim.entry, &entry);
        } else {
            ANSWERS.delete(&mut batch, &claim.key);
        }
        match self.db.kv().write(batch) {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets answers that are too old to be given.
    pub fn forget_old(&self, now: Timestamp) -> Result<(), Problem> {
        let mut after = None;
        loop {
            let some = ANSWERS.scan(&self.db, Order::Ascending, after.as_ref(), 1000)?;
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut batch = Batch::relaxed();
            for (key, entry) in &some {
                if entry.started + KEEP <= now {
                    ANSWERS.delete(&mut batch, key);
                }
            }
            if !batch.is_empty() {
                self.db.kv().write(batch)?;
            }
        }
    }
}

impl Replay {
    /// The answer, if `fingerprint` is that of the request it was given to.
    pub fn answer(self, fingerprint: &str) -> Result<Response, Problem> {
        if self.0.fingerprint != fingerprint {
            let detail =
                "this key came with another request before: use a new key for each request";
            return Err(Problem::new(Kind::IdempotencyMismatch, detail)
                .caused_by(HEADER.as_str(), "was used for another method, address or body"));
        }
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::OK);
        let mut response = (status, self.0.body).into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in self.0.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// An answer, read to its end so that it can be kept and sent.
pub struct KeptAnswer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Bytes,
    whole: bool,
}

impl KeptAnswer {
    /// Reads `response` to its end if it may be kept; else it is passed on as it is.
    pub async fn read(response: Response) -> (Self, Response) {
        let (parts, body) = response.into_parts();
        let headers = KEPT_HEADERS.iter().filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        });
        let headers = headers.collect();
        let small = body.size_hint().upper().is_some_and(|size| size <= MAX_ANSWER as u64);
        if !parts.status.is_success() || !small {
            let kept = Self { status: parts.status, headers, body: Bytes::new(), whole: false };
            return (kept, Response::from_parts(parts, body));
        }
        match body.collect().await {
            Ok(all) => {
                let bytes = all.to_bytes();
                let kept = Self { status: parts.status, headers, body: bytes.clone(), whole: true };
                (kept, Response::from_parts(parts, Body::from(bytes)))
            }
            // The client must not take an answer that broke off for a whole one.
            Err(error) => {
                let problem = Problem::internal(&error);
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let kept = Self { status, headers, body: Bytes::new(), whole: false };
                (kept, problem.into_response())
            }
        }
    }

    fn took_effect(&self) -> bool {
        self.whole && self.status.is_success()
    }
}

/// What a request is compared by. The body is added as it is read.
#[derive(Clone)]
pub struct Fingerprint(Arc<Mutex<Sha256>>);

impl Fingerprint {
    /// The fingerprint of a request before its body.
    pub fn of(parts: &request::Parts) -> Self {
        Self::begin(&parts.method, &parts.uri, parts.headers.get(header::CONTENT_TYPE))
    }

    fn begin(method: &Method, uri: &Uri, media_type: Option<&HeaderValue>) -> Self {
        let mut hash = Sha256::new();
        hash.update(method.as_str());
        hash.update([0]);
        hash.update(uri.path_and_query().map_or("", |address| address.as_str()));
        hash.update([0]);
        hash.update(media_type.map_or(&b""[..], HeaderValue::as_bytes));
        hash.update([0]);
        Self(Arc::new(Mutex::new(hash)))
    }

    /// `body`, which adds to the fingerprint what is read of it.
    pub fn watch(&self, body: Body) -> Body {
        Body::new(Watched { body, hash: self.clone() })
    }

    /// The fingerprint of what was read so far.
    pub fn finish(&self) -> String {
        hex(&self.0.lock().clone().finalize())
    }
}

struct Watched {
    body: Body,
    hash: Fingerprint,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.hash.0.lock().update(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, body: &str) -> KeptAnswer {
        let headers = vec![("location".into(), "/x".into())];
        KeptAnswer { status, headers, body: body.to_owned().into(), whole: true }
    }

    fn claim(answers: &Answers, key: &str) -> Claim {
        match answers.check("token", key).unwrap() {
            Verdict::Run(claim) => claim,
            Verdict::Replay(_) => panic!("it was answered before"),
        }
    }

    #[test]
    fn an_answer_is_given_again_to_the_same_request_only() {
        let answers = Answers::new(Db::in_memory());
        let first = claim(&answers, "k");
        let busy = answers.check("token", "k").err().unwrap();
        assert!(busy.is(Kind::Conflict) && busy.retry_after.is_some());
        assert!(answers.check("another token", "k").is_ok(), "keys belong to a token");
        answers.keep(first, "print".into(), &answer(StatusCode::CREATED, "made")).unwrap();
        for (print, status) in [("print", 201), ("other", 422)] {
            let Verdict::Replay(replay) = answers.check("token", "k").unwrap() else { panic!() };
            let got = replay.answer(print).unwrap_or_else(IntoResponse::into_response);
            assert_eq!(got.status(), status);
            assert_eq!(got.headers().contains_key(REPLAYED), status == 201);
        }
        answers.forget_old(Timestamp::now() + SignedDuration::from_hours(25)).unwrap();
        claim(&answers, "k");
    }

    #[test]
    fn what_was_refused_or_cut_off_may_run_again() {
        let db = Db::in_memory();
        let answers = Answers::new(db.clone());
        let refused = answer(StatusCode::CONFLICT, "");
        answers.keep(claim(&answers, "k"), String::new(), &refused).unwrap();
        claim(&answers, "k");
        let after_a_crash = Answers::new(db);
        claim(&after_a_crash, "k");
    }

    #[tokio::test]
    async fn fingerprints_cover_address_and_body() {
        let print = async |uri: &'static str, body: &'static str| {
            let print = Fingerprint::begin(&Method::POST, &Uri::from_static(uri), None);
            print.watch(Body::from(body)).collect().await.unwrap();
            print.finish()
        };
        let base = print("/a?b", "body").await;
        assert_eq!(base, print("/a?b", "body").await);
        assert_ne!(base, print("/a?c", "body").await);
        assert_ne!(base, print("/a?b", "bodx").await);
    }

    #[test]
    fn an_unusable_key_is_refused() {
        let with = |value: &str| {
            HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
        };
        assert_eq!(key_of(&HeaderMap::new()).unwrap(), None);
        assert_eq!(key_of(&with("a b")).unwrap().as_deref(), Some("a b"));
        for wrong in [String::new(), "x".repeat(256), "\u{e4}".into()] {
            assert_eq!(key_of(&with(&wrong)).unwrap_err().errors[0].field, "idempotency-key");
        }
    }
}

//! What every refused or failed request gets: a problem document (RFC 9457).
//!
//! It says what went wrong, which field caused it and how to put it right. Always true: the status
//! of the answer and of the document agree, and nothing was changed unless the document says so.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
pub use sitedb::with_causes;
use std::borrow::Cow;
use utoipa::ToSchema;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The kinds of problem: their name in `type`, their title, their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the title beside each says it")]
pub enum Kind {
    MalformedRequest,
    InvalidValue,
    Unauthorized,
    Forbidden,
    NotAPoint,
    NotAFollower,
    NotAClient,
    RemovedClient,
    NotPrivate,
    UnknownRoute,
    NotFound,
    MethodNotAllowed,
    Conflict,
    Gone,
    Revoked,
    TooLarge,
    UnsupportedMediaType,
    WrongDigest,
    IdempotencyMismatch,
    TooManyRequests,
    Cancelled,
    Interrupted,
    Internal,
    Upstream,
    Damaged,
    Busy,
    Unavailable,
    StorageFull,
}

impl Kind {
    fn parts(self) -> (&'static str, &'static str, u16) {
        match self {
            Kind::MalformedRequest => ("malformed-request", "The request cannot be read", 400),
            Kind::Unauthorized => ("unauthorized", "A valid token is needed", 401),
            Kind::Forbidden => ("forbidden", "The token's role does not allow this", 403),
            Kind::NotAPoint => {
                ("not-a-point", "This is only for distribution points of the site", 403)
            }
            Kind::NotAFollower => (
                "not-a-follower",
                "This is only for child sites and update points of the site",
                403,
            ),
            Kind::NotAClient => {
                ("not-a-client", "This is only for clients that the site knows and lets in", 403)
            }
            Kind::RemovedClient => {
                ("removed-client", "The site does not know this client any more", 403)
            }
            Kind::NotPrivate => ("not-private", "This is only taken over HTTPS", 403),
            Kind::UnknownRoute => ("unknown-route", "There is no such address", 404),
            Kind::NotFound => ("not-found", "There is no such thing", 404),
            Kind::MethodNotAllowed => ("method-not-allowed", "The address has no such method", 405),
            Kind::Conflict => ("conflict", "The present state does not allow this", 409),
            Kind::Cancelled => ("cancelled", "The work was cancelled", 409),
            Kind::Interrupted => ("interrupted", "The work was interrupted", 409),
            Kind::Gone => ("gone", "It is no longer there", 410),
            Kind::Revoked => ("revoked", "The content was revoked", 410),
            Kind::TooLarge => ("too-large", "The request is too large", 413),
            Kind::UnsupportedMediaType => {
                ("unsupported-media-type", "The body has a media type that is not taken", 415)
            }
            Kind::InvalidValue => ("invalid-value", "A value is not allowed", 422),
            Kind::WrongDigest => ("wrong-digest", "The bytes are not what was stated", 422),
            Kind::IdempotencyMismatch => {
                ("idempotency-mismatch", "The idempotency key was used for another request", 422)
            }
            Kind::TooManyRequests => ("too-many-requests", "Too many requests", 429),
            Kind::Internal => ("internal", "The server failed", 500),
            Kind::Upstream => ("upstream-failed", "Another server failed", 502),
            Kind::Damaged => ("damaged", "The content is damaged here", 503),
            Kind::Busy => ("busy", "Too much work is waiting", 503),
            Kind::Unavailable => ("unavailable", "This is not available now", 503),
            Kind::StorageFull => ("storage-full", "The volume is full", 507),
        }
    }
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:depot:problem:invalid-value",
    "title": "A value is not allowed",
    "status": 422,
    "detail": "keep must be from 1 to 100000",
    "errors": [{"field": "keep", "detail": "must be from 1 to 100000, not 0"}]
}))]
pub struct Problem {
    /// The kind of problem, as a URI that programs can compare.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The kind of problem, in words.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong here, and what to do.
    pub detail: String,
    /// The fields that caused it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Seconds after which a new try may succeed; also in `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field: a path in the body such as `entries[2].digest`, or the name of a parameter or
    /// header.
    pub field: String,
    /// What is wrong with it and what it must be.
    pub detail: String,
}

impl Problem {
    /// A problem of that kind; `detail` says what went wrong here, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (slug, title, status) = kind.parts();
        Self {
            kind: format!("urn:depot:problem:{slug}").into(),
            title: title.into(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// [`Kind::InvalidValue`] of one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidValue, "").caused_by(field, detail)
    }

    /// [`Kind::MalformedRequest`] of one field.
    pub fn malformed(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Kind::MalformedRequest, "").caused_by(field, detail)
    }

    /// [`Kind::NotFound`]: there is no `what` of that name.
    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} {name}"))
    }

    /// [`Kind::Internal`]; the cause goes to the log, with all that it was caused by, and the
    /// client is told where to look.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let chain = with_causes(error);
        tracing::error!(error = %chain, "a request failed");
        Self::new(Kind::Internal, format!("{chain}; the server's log has more"))
    }

    /// Names a field that caused it. An empty detail of the problem becomes a sentence about it.
    pub fn caused_by(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        if self.detail.is_empty() {
            self.detail = format!("{field} {detail}");
        }
        self.errors.push(FieldError { field, detail });
        self
    }

    /// Says when a new try may succeed.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Whether it is of that kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind.strip_prefix("urn:depot:problem:") == Some(kind.parts().0)
    }

    /// The last part of `type`.
    pub fn slug(&self) -> &str {
        self.kind.rsplit(':').next().unwrap_or(&self.kind)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        for error in &self.errors {
            if !self.detail.contains(&error.detail) {
                write!(f, "; {}: {}", error.field, error.detail)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        // What is not so now may be so in a moment.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"depot\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        // For the audit log and the idempotency store, which see only the answer.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_field_and_fix_and_agrees_with_its_status() {
        let problem = Problem::field("keep", "must be at least 1").retry_after(7);
        assert_eq!(problem.detail, "keep must be at least 1");
        let response = problem.clone().into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:depot:problem:invalid-value");
        assert_eq!(json["errors"][0]["field"], "keep");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
        assert_eq!(problem.to_string(), "keep must be at least 1");
    }
}

//! Errors as problem documents (RFC 9457): what is wrong with a request, and what to do.
//!
//! Their types are `urn:depot:problem:` and a kind, as in the administrative interface, so that a
//! client of both compares one set of names.

use contentlib::ReadError;
use http::StatusCode;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use packager::PackageError;

/// How long a client should wait for suspect content to be healed, in seconds.
const RETRY_SECONDS: &str = "30";

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// The last part of `type`, and the title.
    kind: (&'static str, &'static str),
    /// For people: what is wrong, and the fix if there is one.
    pub detail: String,
    /// The part of the request that caused it: a header, a part of the path, the body.
    field: Option<&'static str>,
    /// Beside the content type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (kind, detail) = (kind(status), detail.into());
        Self { status, kind, detail, field: None, headers: Vec::new() }
    }

    /// 400, because of that part of the request.
    pub fn bad_request(field: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).about(field)
    }

    /// Names the part of the request that caused it.
    pub fn about(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405 with the methods that are allowed.
    pub fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this resource takes {allowed} alone"))
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 503, to be tried again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
    }

    /// [`Problem::unavailable`] of content that is damaged here; another server may have it.
    fn damaged(detail: impl Into<String>) -> Self {
        let kind = ("damaged", "The content is damaged here");
        Self { kind, ..Self::unavailable(detail) }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The document and the headers that go with it.
    pub fn into_parts(self) -> (StatusCode, HeaderMap, String) {
        let (kind, title) = self.kind;
        let mut document = serde_json::json!({
            "type": format!("urn:depot:problem:{kind}"),
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(field) = self.field {
            document["errors"] = serde_json::json!([{ "field": field, "detail": self.detail }]);
        }
        let json = HeaderValue::from_static("application/problem+json");
        // A cache may keep a 404 or 410 (RFC 9111, section 4.2.2), but content may come, or come back.
        let no_store = HeaderValue::from_static("no-store");
        let always = [(CONTENT_TYPE, json), (CACHE_CONTROL, no_store)];
        let headers = self.headers.into_iter().chain(always).collect();
        (self.status, headers, document.to_string())
    }
}

/// What most problems of a status are: the last part of `type`, and the title.
fn kind(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("malformed-request", "The request cannot be read"),
        // Nobody else is refused content.
        StatusCode::FORBIDDEN => {
            ("not-a-point", "This is only for distribution points of the site")
        }
        StatusCode::NOT_FOUND => ("not-found", "There is no such thing"),
        StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "The address has no such method"),
        // Nothing else goes from here.
        StatusCode::GONE => ("revoked", "The content was revoked"),
        StatusCode::PRECONDITION_FAILED => {
            ("precondition-failed", "A condition of the request does not hold")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "The request is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported-media-type", "The body has a media type that is not taken")
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            ("range-not-satisfiable", "The content has no such range")
        }
        StatusCode::UPGRADE_REQUIRED => ("https-required", "This server takes HTTPS alone"),
        StatusCode::BAD_GATEWAY => ("upstream", "An upstream failed"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "This is not available now"),
        _ => ("internal", "The server failed"),
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unknown(name) => Self::not_found(format!("no content {name} is held here")),
            ReadError::Revoked(digest) => Self::new(
                StatusCode::GONE,
                format!("content {digest} was revoked by an administrator and is not served"),
            ),
            ReadError::Suspect { .. } | ReadError::MissingChunk { .. } => {
                tracing::error!(%error, "content not served");
                Self::damaged(
                    "part of this content is damaged here and waits for repair; try another distribution point, or again later",
                )
            }
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "content not served");
                Self::unavailable("the content could not be read; try again later")
            }
        }
    }
}

impl From<PackageError> for Problem {
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::Read(error) => error.into(),
            PackageError::UnknownPackage(_)
            | PackageError::UnknownVersion { .. }
            | PackageError::UnknownChannel { .. } => Self::not_found(error.to_string()),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "package not served");
                Self::unavailable("the package could not be read; try again later")
            }
        }
    }
}

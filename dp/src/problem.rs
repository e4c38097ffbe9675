//! Errors as problem documents (RFC 9457): what is wrong with a request, and what to do.

use contentlib::ReadError;
use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use packager::PackageError;

/// How long a client should wait for suspect content to be healed, in seconds.
const RETRY_SECONDS: &str = "30";

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// For people: what is wrong, and the fix if there is one.
    pub detail: String,
    /// Beside the content type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
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

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The document and the headers that go with it.
    pub fn into_parts(self) -> (StatusCode, HeaderMap, String) {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let json = HeaderValue::from_static("application/problem+json");
        let headers = self.headers.into_iter().chain([(CONTENT_TYPE, json)]).collect();
        (self.status, headers, document.to_string())
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
                Self::unavailable(
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

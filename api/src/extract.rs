//! Requests into checked values; what cannot be read becomes a problem that names the field.

use crate::problem::{Kind, Problem};
use crate::site::Site;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;

/// A JSON body. An empty one counts as `{}`, for operations all of whose fields are optional.
pub struct Input<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Site> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let limit = site.config().api.max_body.0;
        let bytes = whole_body(body, limit).await?;
        if bytes.is_empty() {
            return parse_json(b"{}").map(Self);
        }
        want_media_type(&parts.headers, &["application/json"])?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn whole_body(body: Body, limit: u64) -> Result<Bytes, Problem> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit as u64)),
        Err(error) => Err(Problem::malformed("body", format!("could not be read: {error}"))),
    }
}

/// What a body above `limit` bytes gets.
pub fn too_large(limit: u64) -> Problem {
    let detail = format!("the body has more than the {limit} bytes that are taken here");
    Problem::new(Kind::TooLarge, detail)
        .caused_by("body", format!("must have at most {limit} bytes"))
}

/// Refuses a body whose media type is none of `wanted`.
pub fn want_media_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.map(|text| text.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|given| wanted.iter().any(|want| want.eq_ignore_ascii_case(given))) {
        return Ok(());
    }
    let detail = format!("must be {}, not {}", wanted.join(" or "), given.unwrap_or("absent"));
    Err(Problem::new(Kind::UnsupportedMediaType, "").caused_by("content-type", detail))
}

/// Reads JSON; an error names the field by its path.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "body".to_owned() } else { path };
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => Problem::field(field, inner.to_string()),
            _ => Problem::malformed("body", format!("is not JSON: {inner}")),
        }
    })?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(Problem::malformed("body", format!("is not one JSON value: {error}"))),
    }
}

/// The parameters after `?`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let reader = serde_urlencoded::Deserializer::new(pairs);
        serde_path_to_error::deserialize(reader).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner().to_string();
            // An unknown or missing field is an error of the whole, which names it in words.
            let quoted = inner.split('`').nth(1).map(str::to_owned);
            let field = if path == "." { quoted.unwrap_or("query".into()) } else { path };
            Problem::malformed(field, format!("is not understood: {inner}"))
        })
    }
}

/// The parts of the path that a route has names for.
pub struct Params(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        RawPathParams::from_request_parts(parts, state).await.map(Self).map_err(|error| {
            Problem::malformed("path", format!("is not UTF-8 once decoded: {error}"))
        })
    }
}

impl Params {
    /// The text of the part called `name`.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| *key == name);
        debug_assert!(found.is_some(), "the route has no part {name}");
        found.map_or("", |(_, value)| value)
    }

    /// The part called `name`, as a value of its type.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Problem> {
        parse_field(name, self.text(name))
    }
}

/// `text` as a value of its type; what is wrong with it is told of the field called `name`.
pub fn parse_field<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| {
        Problem::new(Kind::MalformedRequest, error.to_string()).caused_by(name, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code)]
        list: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        n: u32,
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        let wrong = |text: &str| parse_json::<Outer>(text.as_bytes()).unwrap_err();
        let problem = wrong(r#"{"list":[{"n":1},{"n":"x"}]}"#);
        assert_eq!((problem.status, problem.errors[0].field.as_str()), (422, "list[1].n"));
        let problem = wrong(r#"{"list":[{"n":1,"m":2}]}"#);
        assert!(problem.detail.contains("unknown field `m`"), "{}", problem.detail);
        assert_eq!(wrong("{").status, 400);
        assert_eq!(wrong("").status, 400);
        assert_eq!(wrong(r#"{"list":[]} x"#).status, 400);
        assert!(wrong("{}").detail.contains("missing field `list`"));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Paged {
        #[allow(dead_code)]
        limit: Option<u32>,
    }

    #[tokio::test]
    async fn a_wrong_parameter_is_named() {
        let read = async |uri: &str| {
            let mut parts = Request::builder().uri(uri).body(()).unwrap().into_parts().0;
            Query::<Paged>::from_request_parts(&mut parts, &()).await.map(|query| query.0)
        };
        assert!(read("/x?limit=3").await.is_ok() && read("/x").await.is_ok());
        assert_eq!(read("/x?limit=many").await.unwrap_err().errors[0].field, "limit");
        assert_eq!(read("/x?limmit=3").await.unwrap_err().errors[0].field, "limmit");
    }
}

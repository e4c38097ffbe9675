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
use std::time::Duration;
use tokio::time::Instant;

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
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                // Where in the text it stands says less than the field does.
                let said = inner.to_string();
                let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
                let (field, detail) = at_fault(&path, "body", said);
                Problem::field(field, detail)
            }
            _ => Problem::malformed("body", format!("is not JSON: {inner}")),
        }
    })?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(Problem::malformed("body", format!("is not one JSON value: {error}"))),
    }
}

/// The longest that somebody may wait for something to change, in seconds.
const MAX_WAIT: u64 = 60;

/// Until when somebody waits who asks for `wait` seconds, at most 60; without it, no time.
pub fn deadline(wait: Option<u64>) -> Result<Instant, Problem> {
    match wait.unwrap_or(0) {
        wait if wait > MAX_WAIT => {
            Err(Problem::malformed("wait", format!("must be at most {MAX_WAIT}, not {wait}")))
        }
        wait => Ok(Instant::now() + Duration::from_secs(wait)),
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
            let (field, detail) = at_fault(&path, "query", &error.into_inner().to_string());
            Problem::malformed(field, detail)
        })
    }
}

/// Which field is wrong and what it must be, from the path to it and what serde says of it; `whole`
/// stands for what has no path.
fn at_fault(path: &str, whole: &str, said: &str) -> (String, String) {
    let path = if path == "." { "" } else { path };
    let inside = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    let named = |start: &str| said.strip_prefix(start)?.split_once('`');
    if let Some((name, _)) = named("missing field `") {
        return (inside(name), "is missing".to_owned());
    }
    if let Some((name, known)) = named("unknown field `") {
        // The path names it already where the reader had come to it.
        let field = if path.ends_with(name) { path.to_owned() } else { inside(name) };
        let known = known.trim_start_matches(", ");
        return (field, format!("is not known: {}", known.replacen("expected", "want", 1)));
    }
    let field = if path.is_empty() { whole } else { path }.to_owned();
    let detail = in_words(said).unwrap_or_else(|| format!("is not understood: {said}"));
    (field, detail)
}

/// What a value must be and is not, where serde says it in one of its usual ways.
fn in_words(said: &str) -> Option<String> {
    if let Some(words) = number_in_words(said) {
        return Some(words.to_owned());
    }
    let kinds = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    let rest = kinds.iter().find_map(|kind| said.strip_prefix(kind))?;
    let (found, wanted) = rest.split_once(", expected ")?;
    let wanted = match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        number if number.starts_with("a nonzero ") => "1 or more",
        object if object.starts_with("struct ") => "a JSON object",
        other => other,
    };
    let found = match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        value if said.starts_with("invalid length") => format!("a list of {value}"),
        value => {
            let kind = |kind| value.strip_prefix(kind);
            let bare = ["integer ", "floating point ", "boolean ", "string "].iter().find_map(kind);
            bare.unwrap_or(value).replace('`', "")
        }
    };
    Some(format!("must be {wanted}, not {found}"))
}

/// What the standard library says of a text that is no number, in words that tell what to write.
pub fn number_in_words(said: &str) -> Option<&'static str> {
    Some(match said {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "must be a whole number, 0 or more"
        }
        "number would be zero for non-zero type" => "must be 1 or more",
        "number too large to fit in target type" => "is too large",
        "provided string was not `true` or `false`" => "must be true or false",
        _ => return None,
    })
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

/// The same of a field of a body, which could be read.
pub fn field<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::field(name, error.to_string()))
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
        assert_eq!(problem.detail, "list[0].m is not known: want `n`");
        assert_eq!(wrong(r#"{"list":[{"n":1},{}]}"#).detail, "list[1].n is missing");
        assert_eq!(wrong("[]").detail, "body must be a JSON object, not a list of 0");
        assert_eq!(wrong("7").detail, "body must be a JSON object, not 7");
        let of_n = |n: &str| wrong(&format!(r#"{{"list":[{{"n":{n}}}]}}"#)).detail;
        assert_eq!(of_n("-1"), "list[0].n must be a whole number, 0 or more, not -1");
        assert_eq!(of_n("{}"), "list[0].n must be a whole number, 0 or more, not an object");
        assert_eq!(wrong("{").status, 400);
        assert_eq!(wrong("").status, 400);
        assert_eq!(wrong(r#"{"list":[]} x"#).status, 400);
        let missing = wrong("{}");
        assert_eq!(
            (missing.detail.as_str(), missing.errors[0].field.as_str()),
            ("list is missing", "list")
        );
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
        let many = read("/x?limit=many").await.unwrap_err();
        assert_eq!(many.detail, "limit must be a whole number, 0 or more");
    }
}

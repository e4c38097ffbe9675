//! `POST /chunks`: many chunks in one stream, as they are stored.
//!
//! The client names what it lacks; the answer is frames (`contentlib::frames`) in the order of the
//! packs, made as the client takes them (`made`).

use crate::body::{Body, Source};
use crate::fallback::RequestBody;
use crate::made::MadeBody;
use crate::problem::Problem;
use crate::service::{answer, blocking};
use crate::ticket::Ticket;
use bytes::Bytes;
use contentlib::frames::{FrameItem, MEDIA_TYPE};
use contentlib::{ChunkId, Digest, Library};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::collections::BTreeMap;

/// The most chunks of one request.
pub const MAX_CHUNKS: usize = 4096;
/// The media type of a request that lists ids as 32 bytes each, one after the other.
pub const IDS_TYPE: &str = "application/vnd.depot.chunk-ids";
/// The most bytes that a request has for each id: as JSON, with room for white space.
const ID_ROOM: usize = 128;

/// Answers `POST /chunks`.
pub(crate) async fn post(
    library: Library,
    asked: &HeaderMap,
    body: RequestBody,
    ticket: Ticket,
) -> Result<Response<Body>, (Problem, Ticket)> {
    let ids = match read_ids(asked, body).await {
        Ok(ids) => ids,
        Err(problem) => return Err((problem, ticket)),
    };
    send(library, ids, ticket).await
}

/// Answers with frames that hold `ids`.
pub(crate) async fn send(
    library: Library,
    ids: Vec<ChunkId>,
    ticket: Ticket,
) -> Result<Response<Body>, (Problem, Ticket)> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let frames = match blocking(move || Ok(library.frames_for(&ids)?)).await {
        Ok(frames) => MadeBody::new(frames.map(FrameItem::into_slices)),
        Err(problem) => return Err((problem, ticket)),
    };
    Ok(answer(StatusCode::OK, headers, Source::Made(frames), ticket))
}

/// What a request lists by its digests.
pub(crate) struct Listed {
    /// The name of the list in JSON; its media type in binary.
    pub name: &'static str,
    pub media_type: &'static str,
    /// The most of a request.
    pub most: usize,
}

const CHUNKS: Listed = Listed { name: "chunks", media_type: IDS_TYPE, most: MAX_CHUNKS };

/// The chunks of a request.
pub(crate) async fn read_ids(
    asked: &HeaderMap,
    body: RequestBody,
) -> Result<Vec<ChunkId>, Problem> {
    let ids = read_list(asked, body, &CHUNKS).await?;
    Ok(ids.into_iter().map(ChunkId).collect())
}

/// The digests of a request.
pub(crate) async fn read_list(
    asked: &HeaderMap,
    body: RequestBody,
    listed: &Listed,
) -> Result<Vec<Digest>, Problem> {
    let Listed { name, media_type, most } = listed;
    let too_large = || {
        let detail = format!("a request names at most {most} {name}; ask for the rest in another");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).about("body")
    };
    let (essence, bytes) = read_body(asked, body, most * ID_ROOM, too_large).await?;
    let ids = match essence.as_str() {
        essence if essence == *media_type => binary_ids(&bytes)?,
        "application/json" => json_ids(&bytes, name)?,
        _ => {
            let detail = format!("content-type must be application/json or {media_type}");
            return Err(
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).about("Content-Type")
            );
        }
    };
    if ids.len() > *most { Err(too_large()) } else { Ok(ids) }
}

/// A request's body of at most `most` bytes, with its media type in lower case.
pub(crate) async fn read_body(
    asked: &HeaderMap,
    body: RequestBody,
    most: usize,
    too_large: impl Fn() -> Problem,
) -> Result<(String, Bytes), Problem> {
    // As its length is stated: nobody waits for a body that is refused in any case.
    if body.size_hint().lower() > most as u64 {
        body.refuse(asked.contains_key(EXPECT));
        return Err(too_large());
    }
    let content_type = asked.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = content_type.unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match Limited::new(body, most).collect().await {
        Ok(whole) => Ok((essence, whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            // hyper says only that; the cause says why, such as a bad length of a piece.
            let why = error.source().map(|why| format!(": {why}")).unwrap_or_default();
            Err(Problem::bad_request("body", format!("the body could not be read: {error}{why}")))
        }
    }
}

fn binary_ids(bytes: &[u8]) -> Result<Vec<Digest>, Problem> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Problem::bad_request(
            "body",
            format!(
                "the body has {} bytes; want a multiple of 32, one id after the other",
                bytes.len()
            ),
        ));
    }
    Ok(ids.iter().map(|&id| Digest::from_bytes(id)).collect())
}

fn json_ids(bytes: &[u8], name: &str) -> Result<Vec<Digest>, Problem> {
    let bad = |why: String| {
        let detail = format!("the body is not {{\"{name}\": [\"blake3:…\", …]}}: {why}");
        Problem::bad_request("body", detail)
    };
    let asked: BTreeMap<String, Vec<Digest>> =
        serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let mut members = asked.into_iter();
    match (members.next(), members.next()) {
        (Some((found, ids)), None) if found == name => Ok(ids),
        _ => Err(bad("it has other members".into())),
    }
}

/// Reads `bytes` as a request in both of its forms.
pub(crate) fn parse_ids(bytes: &[u8]) {
    let _ = (binary_ids(bytes), json_ids(bytes, CHUNKS.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_both_forms() {
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let binary: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        assert_eq!(binary_ids(&binary).unwrap(), ids);
        let json = serde_json::json!({ "chunks": ids }).to_string();
        assert_eq!(json_ids(json.as_bytes(), "chunks").unwrap(), ids);
    }

    #[test]
    fn what_is_no_list_of_ids_is_refused_with_a_reason() {
        assert!(binary_ids(&[0; 33]).unwrap_err().detail.contains("33 bytes"));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"chunks":["blake3:00"]}"#,
            r#"{"chunks":[],"x":[]}"#,
            r#"{"x":[]}"#,
        ] {
            assert!(json_ids(bad.as_bytes(), "chunks").is_err(), "{bad}");
        }
    }
}

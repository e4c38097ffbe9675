//! `POST /chunks`: many chunks in one stream, as they are stored.
//!
//! The client names what it lacks; the answer is frames (`contentlib::frames`) in the order of the
//! packs, made as the client takes them. Nothing is held for a client that is slow but one batch.

use crate::body::{Body, Source};
use crate::fallback::{BoxError, RequestBody};
use crate::problem::Problem;
use crate::service::{answer, blocking};
use crate::ticket::Ticket;
use bytes::Bytes;
use contentlib::frames::MEDIA_TYPE;
use contentlib::{ChunkId, Digest, FrameStream, Library};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// The most chunks of one request.
pub const MAX_CHUNKS: usize = 4096;
/// The media type of a request that lists ids as 32 bytes each, one after the other.
pub const IDS_TYPE: &str = "application/vnd.depot.chunk-ids";
/// The most bytes of a request: [`MAX_CHUNKS`] ids as JSON, with room for white space.
const MAX_BODY: usize = 512 << 10;
/// A batch is closed once it holds this much.
const BATCH: usize = 1 << 20;

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
        Ok(frames) => Box::new(FramesBody::new(frames)),
        Err(problem) => return Err((problem, ticket)),
    };
    Ok(answer(StatusCode::OK, headers, Source::Frames(frames), ticket))
}

async fn read_ids(asked: &HeaderMap, body: RequestBody) -> Result<Vec<ChunkId>, Problem> {
    let too_large = || {
        let detail =
            format!("a request names at most {MAX_CHUNKS} chunks; ask for the rest in another");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let (essence, bytes) = read_body(asked, body, MAX_BODY, too_large).await?;
    let ids = match essence.as_str() {
        IDS_TYPE => binary_ids(&bytes)?,
        "application/json" => json_ids(&bytes)?,
        _ => {
            let detail = format!("content-type must be application/json or {IDS_TYPE}");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    };
    if ids.len() > MAX_CHUNKS { Err(too_large()) } else { Ok(ids) }
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
            Err(Problem::bad_request(format!("the body could not be read: {error}{why}")))
        }
    }
}

fn binary_ids(bytes: &[u8]) -> Result<Vec<ChunkId>, Problem> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Problem::bad_request(format!(
            "the body has {} bytes; want a multiple of 32, one chunk id after the other",
            bytes.len()
        )));
    }
    Ok(ids.iter().map(|&id| ChunkId(Digest::from_bytes(id))).collect())
}

fn json_ids(bytes: &[u8]) -> Result<Vec<ChunkId>, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        chunks: Vec<ChunkId>,
    }
    serde_json::from_slice::<Asked>(bytes).map(|asked| asked.chunks).map_err(|error| {
        Problem::bad_request(format!("the body is not {{\"chunks\": [\"blake3:…\", …]}}: {error}"))
    })
}

/// Reads `bytes` as a request in both of its forms.
pub(crate) fn parse_ids(bytes: &[u8]) {
    let _ = (binary_ids(bytes), json_ids(bytes));
}

/// Frames, made in batches on the blocking pool. No thread waits for a slow client.
pub(crate) struct FramesBody {
    batch: VecDeque<Bytes>,
    next: Next,
}

enum Next {
    Making(JoinHandle<Made>),
    Paused(FrameStream),
    Done,
}

struct Made {
    batch: VecDeque<Bytes>,
    /// What is left to make, if anything is.
    rest: Option<FrameStream>,
}

impl FramesBody {
    fn new(frames: FrameStream) -> Self {
        Self { batch: VecDeque::new(), next: Next::Paused(frames) }
    }

    /// The next bytes; `None` after the end mark.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            if let Some(bytes) = self.batch.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match std::mem::replace(&mut self.next, Next::Done) {
                Next::Done => return Poll::Ready(None),
                Next::Paused(rest) => {
                    self.next = Next::Making(tokio::task::spawn_blocking(move || make(rest)));
                }
                Next::Making(mut making) => match Pin::new(&mut making).poll(cx) {
                    Poll::Ready(Ok(made)) => {
                        self.batch = made.batch;
                        self.next = made.rest.map_or(Next::Done, Next::Paused);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Pending => {
                        self.next = Next::Making(making);
                        return Poll::Pending;
                    }
                },
            }
        }
    }
}

fn make(mut frames: FrameStream) -> Made {
    let (mut batch, mut size) = (VecDeque::new(), 0);
    while size < BATCH {
        let Some(item) = frames.next() else { return Made { batch, rest: None } };
        for slice in item.into_slices() {
            size += slice.len();
            batch.push_back(slice);
        }
    }
    Made { batch, rest: Some(frames) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_both_forms() {
        let ids = [ChunkId(Digest::of(b"a")), ChunkId(Digest::of(b"b"))];
        let binary: Vec<u8> = ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
        assert_eq!(binary_ids(&binary).unwrap(), ids);
        let json = serde_json::json!({ "chunks": ids }).to_string();
        assert_eq!(json_ids(json.as_bytes()).unwrap(), ids);
    }

    #[test]
    fn what_is_no_list_of_ids_is_refused_with_a_reason() {
        assert!(binary_ids(&[0; 33]).unwrap_err().detail.contains("33 bytes"));
        for bad in ["", "[]", "{}", r#"{"chunks":["blake3:00"]}"#, r#"{"chunks":[],"x":1}"#] {
            assert!(json_ids(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

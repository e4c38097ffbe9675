//! `POST /cost`: what chunks take as they are stored, before they are asked for.
//!
//! How far bytes shrink is known only where they lie. Who has little room asks first.

use crate::body::{Body, Source};
use crate::fallback::RequestBody;
use crate::frames::read_ids;
use crate::problem::Problem;
use crate::service::{answer, blocking};
use crate::ticket::Ticket;
use contentlib::Library;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

/// What the chunks take that are held here, each counted once; of those that are revoked as contents of
/// their own nothing is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Costs {
    /// How many are held.
    pub chunks: u64,
    /// Their plain bytes.
    pub plain: u64,
    /// About the bytes that they take as frames.
    pub stored: u64,
}

/// Answers `POST /cost`.
pub(crate) async fn post(
    library: Library,
    asked: &HeaderMap,
    body: RequestBody,
    ticket: Ticket,
) -> Result<Response<Body>, (Problem, Ticket)> {
    let costs = match read_ids(asked, body).await {
        Ok(mut ids) => {
            ids.sort();
            ids.dedup();
            blocking(move || Ok(library.cost_of_held(&ids)?)).await
        }
        Err(problem) => Err(problem),
    };
    let (chunks, cost) = match costs {
        Ok(costs) => costs,
        Err(problem) => return Err((problem, ticket)),
    };
    let costs = Costs { chunks, plain: cost.plain, stored: cost.stored };
    let json = serde_json::to_vec(&costs).expect("it has text keys");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer(StatusCode::OK, headers, Source::Bytes(json.into()), ticket))
}

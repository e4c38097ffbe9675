//! `POST /recipes`: many recipes in one stream.
//!
//! The answer has the recipe of each content that is held, in the order of the request, as uploads send
//! them. A content that is not held, is damaged or was revoked is left out: why, `GET /recipes/{name}`
//! tells. There is no end mark, since what was left out is asked for again in any case.
//!
//! ```text
//! 32   the content's digest
//! u32  length of the recipe, little-endian
//! n    the recipe (`contentlib/FORMAT.md`, "Recipe")
//! ```

use crate::body::{Body, Source};
use crate::fallback::RequestBody;
use crate::frames::{Listed, read_list};
use crate::made::MadeBody;
use crate::problem::Problem;
use crate::service::answer;
use crate::ticket::Ticket;
use bytes::Bytes;
use contentlib::recipe::{MAX_CHUNKS, NotARecipe, Recipe};
use contentlib::{Digest, Library};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use std::collections::HashSet;

/// The media type of many recipes.
pub const MEDIA_TYPE: &str = "application/vnd.depot.recipes";
/// The media type of a request that lists contents by their digests, of 32 bytes each.
pub const REQUEST_TYPE: &str = "application/vnd.depot.content-ids";
/// The most contents of one request.
pub const MAX_CONTENTS: usize = 1024;

const CONTENTS: Listed = Listed { name: "contents", media_type: REQUEST_TYPE, most: MAX_CONTENTS };
/// The digest and the length.
const HEAD: usize = 36;
/// The longest recipe: a head of 8 bytes, and 36 for each chunk.
const LONGEST: usize = 8 + 36 * MAX_CHUNKS;

/// Appends the recipe of a content to `out`.
pub fn encode(digest: Digest, recipe: &Recipe, out: &mut Vec<u8>) {
    let bytes = recipe.encode();
    out.reserve(HEAD + bytes.len());
    out.extend_from_slice(digest.as_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The recipe that `bytes` begin with, whose it is, and how many of the bytes it takes; nothing if more
/// bytes are needed.
pub fn decode_first(bytes: &[u8]) -> Result<Option<(Digest, Recipe, usize)>, NotARecipe> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let (digest, length) = head.split_at(32);
    let digest = Digest::from_bytes(digest.try_into().expect("split there"));
    let length = u32::from_le_bytes(length.try_into().expect("the head has 36 bytes")) as usize;
    // Not waited for.
    if length > LONGEST {
        return Err(NotARecipe::TooManyChunks((length / 36) as u64));
    }
    let Some(recipe) = rest.get(..length) else { return Ok(None) };
    Ok(Some((digest, Recipe::decode(recipe)?, HEAD + length)))
}

/// Answers `POST /recipes`.
pub(crate) async fn post(
    library: Library,
    asked: &HeaderMap,
    body: RequestBody,
    ticket: Ticket,
) -> Result<Response<Body>, (Problem, Ticket)> {
    let contents = match read_list(asked, body, &CONTENTS).await {
        Ok(contents) => contents,
        Err(problem) => return Err((problem, ticket)),
    };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut seen = HashSet::new();
    let unique = contents.into_iter().filter(move |content| seen.insert(*content));
    let recipes = unique.filter_map(move |content| one(&library, content));
    Ok(answer(StatusCode::OK, headers, Source::Made(MadeBody::new(recipes)), ticket))
}

/// The recipe of a content, if it can be had. Blocks.
fn one(library: &Library, content: Digest) -> Option<Vec<Bytes>> {
    let recipe = library.recipe(content);
    let recipe = recipe.inspect_err(|error| tracing::debug!(%content, %error, "no recipe")).ok()?;
    let mut out = Vec::new();
    encode(content, &recipe, &mut out);
    Some(vec![out.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::ChunkId;
    use proptest::prelude::*;

    fn recipes() -> Vec<(Digest, Recipe)> {
        let chunk = |n: u32| (ChunkId(Digest::of(&n.to_le_bytes())), n + 1);
        let recipe = |n: u32| (Digest::of(&[n as u8]), Recipe::new((0..n).map(chunk)).unwrap());
        [3, 0, 1, 200].map(recipe).to_vec()
    }

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        recipes().iter().for_each(|(digest, recipe)| encode(*digest, recipe, &mut out));
        out
    }

    #[test]
    fn what_is_cut_off_needs_more_bytes() {
        let bytes = encoded();
        let first = HEAD + recipes()[0].1.encode().len();
        for end in 0..first {
            assert_eq!(decode_first(&bytes[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn nothing_longer_than_a_recipe_is_waited_for() {
        let mut head = [0; HEAD];
        head[32..].fill(0xff);
        assert!(matches!(decode_first(&head), Err(NotARecipe::TooManyChunks(_))));
    }

    proptest! {
        #[test]
        fn recipes_come_back_however_the_bytes_arrive(step in 1usize..3000) {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            for piece in encoded().chunks(step) {
                bytes.extend_from_slice(piece);
                while let Some((digest, recipe, length)) = decode_first(&bytes).unwrap() {
                    found.push((digest, recipe));
                    bytes.drain(..length);
                }
            }
            prop_assert_eq!(found, recipes());
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some((digest, recipe, length))) = decode_first(&bytes) {
                let mut out = Vec::new();
                encode(digest, &recipe, &mut out);
                prop_assert_eq!(&out, &bytes[..length]);
            }
        }
    }
}

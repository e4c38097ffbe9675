//! The recipes of many files, in few requests.
//!
//! A request for many only ever saves round trips. What it does not bring is asked for by itself, and
//! there it is decided what an error is; so it is with servers that know no such request.

use super::RemoteError;
use super::attempt::{Attempt, Failed};
use super::client::{Client, accepted};
use super::sources::Set;
use crate::recipes::{MAX_CONTENTS, MEDIA_TYPE, REQUEST_TYPE, decode_first};
use bytes::{Buf, BytesMut};
use contentlib::{Digest, Recipe};
use futures::{StreamExt, TryStreamExt};
use packager::manifest::FileEntry;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use std::collections::HashMap;

/// Files whose recipes go in one request.
pub(crate) const RECIPES_AT_ONCE: usize = 512;
/// Such requests at a time.
pub(crate) const RECIPE_REQUESTS: usize = 4;
/// Requests for one recipe each, at a time; they are small.
pub(crate) const RECIPES_IN_FLIGHT: usize = 16;

const _: () = assert!(RECIPES_AT_ONCE <= MAX_CONTENTS);

/// What is to come, by content: the digest that the manifest has for its recipe, and the content's length.
type Signed = HashMap<Digest, (Digest, u64)>;

impl Client {
    /// The recipes of files of several chunks, at most [`RECIPES_AT_ONCE`] different ones, in their order.
    /// Each is the one that the manifest names.
    pub(crate) async fn recipes(
        &self,
        files: Vec<(FileEntry, Digest)>,
    ) -> Result<Vec<Recipe>, RemoteError> {
        let mut came = HashMap::new();
        if files.len() > 1 {
            let wanted = files.iter().map(|(file, signed)| (file.digest, (*signed, file.size)));
            self.gather_recipes(wanted.collect(), &mut came).await?;
        }
        let all = files.into_iter().map(|(file, signed)| {
            let came = came.remove(&file.digest);
            async move {
                match came {
                    Some(recipe) => Ok(recipe),
                    None => self.signed_recipe(&file, signed).await,
                }
            }
        });
        let all: Vec<_> = all.collect();
        futures::stream::iter(all).buffered(RECIPES_IN_FLIGHT).try_collect().await
    }

    /// The recipe of a file, checked against the one that the manifest names.
    async fn signed_recipe(&self, file: &FileEntry, signed: Digest) -> Result<Recipe, RemoteError> {
        let is_right = |recipe: &Recipe| recipe.digest() == signed && recipe.size() == file.size;
        match self.recipe_if(file.digest, is_right).await {
            Err(RemoteError::Refused { status: 404, .. }) => {
                Err(RemoteError::Incomplete { n: 1, first: file.digest })
            }
            recipe => recipe,
        }
    }

    /// Gets what servers have of the recipes `wanted` in one request each.
    async fn gather_recipes(
        &self,
        mut wanted: Signed,
        came: &mut HashMap<Digest, Recipe>,
    ) -> Result<(), RemoteError> {
        let mut attempt = Attempt::new(self.servers.clone());
        // Those that were asked, and have no more to say.
        let mut asked = Set::default();
        while !wanted.is_empty() {
            let without = *self.servers.without_recipes.lock();
            let Some(turn) = attempt.turn(|at| !without.has(at) && !asked.has(at)).await else {
                break;
            };
            let n_wanted = wanted.len();
            let ended = self.ask_recipes(turn.at, &mut wanted, came).await;
            if wanted.len() < n_wanted {
                attempt.progressed(&turn);
            }
            match ended {
                Ok(()) => asked.add(turn.at),
                Err(Failed::Refused(error)) => {
                    tracing::debug!(%error, "this server gives recipes one by one");
                    self.servers.without_recipes.lock().add(turn.at);
                }
                Err(failed) => attempt.failed(turn, failed)?,
            }
        }
        Ok(())
    }

    /// Asks one server once. What comes and is right is not wanted any more.
    async fn ask_recipes(
        &self,
        server: usize,
        wanted: &mut Signed,
        came: &mut HashMap<Digest, Recipe>,
    ) -> Result<(), Failed> {
        let asks = self.servers.list[server].asks("recipes");
        let malformed = |wanted| RemoteError::Malformed { url: asks.shown.clone(), wanted };
        let body: Vec<u8> = wanted.keys().flat_map(|content| *content.as_bytes()).collect();
        let turns = self.may_ask().await;
        let request = asks.http.post(asks.url.clone()).header(CONTENT_TYPE, REQUEST_TYPE);
        let sent = request.header(ACCEPT, MEDIA_TYPE).body(body).send().await;
        let mut response = accepted(&asks.shown, sent).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind != Some(MEDIA_TYPE) {
            return Err(Failed::Garbled(malformed("recipes")));
        }
        let mut bytes = BytesMut::new();
        loop {
            while let Some((digest, recipe, length)) =
                decode_first(&bytes).map_err(|_| Failed::Garbled(malformed("recipes")))?
            {
                let right = wanted.get(&digest).copied();
                if right != Some((recipe.digest(), recipe.size())) {
                    let url = asks.shown.clone();
                    return Err(Failed::Wrong(RemoteError::WrongBytes { url, digest }));
                }
                wanted.remove(&digest);
                came.insert(digest, recipe);
                bytes.advance(length);
            }
            match self.read(&asks.shown, &mut response, turns.as_ref()).await? {
                Some(more) => bytes.extend_from_slice(&more),
                None if bytes.is_empty() => return Ok(()),
                None => return Err(Failed::Passing(malformed("recipes to their end"), None)),
            }
        }
    }
}

//! Contents that the packs hold several recipes of, and which of these counts.

use crate::commit::Pending;
use crate::digest::Digest;
use crate::error::MaintainError;
use crate::index::{Index, RecipePlace};
use crate::kv::{Batch, Table};
use crate::pack::reader::{RecordError, record};
use crate::recipe::Recipe;
use crate::store::PackStore;
use std::collections::{BTreeMap, HashMap};

/// Contents that the packs hold several recipes of. Few: those stored anew after they were given
/// up, or copied by garbage collection, whose old pack still stands.
#[derive(Default)]
pub(super) struct Contested {
    /// All recipes of a content but the newest, older before newer.
    older: BTreeMap<Digest, Vec<RecipePlace>>,
}

impl Contested {
    /// Notes which recipes `covered`, about to be written to `index`, will overrule.
    pub(super) fn note(&mut self, index: &Index, covered: &[Pending]) -> Result<(), MaintainError> {
        let mut newest = HashMap::new();
        for record in covered {
            let Pending::Recipe { content, place, .. } = record else { continue };
            let overruled = match newest.insert(*content, *place) {
                None => index.recipe(*content)?,
                before => before,
            };
            if let Some(place) = overruled {
                self.older.entry(*content).or_default().push(place);
            }
        }
        Ok(())
    }

    /// Where the newest recipe names chunks that are gone, or is damaged, and an older one is
    /// whole, that one counts.
    pub(super) fn settle(self, store: &dyn PackStore, index: &Index) -> Result<(), MaintainError> {
        for (content, older) in self.older {
            let newest = index.recipe(content)?;
            let is_newest =
                |place: &RecipePlace| newest.is_some_and(|n| n.ordinal() == place.ordinal());
            for place in newest.into_iter().chain(older.into_iter().rev()) {
                if is_whole(store, index, content, &place)? {
                    if !is_newest(&place) {
                        let mut batch = Batch::default();
                        batch.put(Table::Recipes, *content.as_bytes(), place.encode());
                        index.kv.write(batch)?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether a recipe can be read, and all its chunks are held.
fn is_whole(
    store: &dyn PackStore,
    index: &Index,
    content: Digest,
    place: &RecipePlace,
) -> Result<bool, MaintainError> {
    let Some(pack) = index.pack(place.pack)? else { return Ok(false) };
    let found = store.open(pack.id).map_err(RecordError::Io);
    let found = found.and_then(|file| record(&*file, place.offset, place.body_len));
    let recipe = match found {
        Ok((header, body)) if header.id == content => Recipe::decode(&body).ok(),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(pack = %pack.id, %content, %error, "a recipe cannot be read");
            None
        }
    };
    let Some(recipe) = recipe else { return Ok(false) };
    Ok(index.chunks(recipe.chunks())?.iter().all(Option::is_some))
}

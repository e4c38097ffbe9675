//! Single contents that were uploaded and that no package names yet.
//!
//! A ref `content/<hex>` keeps each until it expires; then it goes as garbage does, unless a
//! package holds it by then. Being a ref, it survives the loss of the index.

use crate::problem::Problem;
use contentlib::{AddOptions, Added, Expect, Library, Progress, Ref, RefChange};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::time::Duration;

const PREFIX: &str = "content/";

#[derive(Serialize, Deserialize)]
struct Kept {
    expires: Timestamp,
}

/// Adds the bytes of `reader` and keeps them for `keep`; until when that is.
pub fn keep(
    library: &Library,
    reader: impl Read + Send,
    options: &AddOptions,
    keep: Duration,
) -> Result<(Added, Timestamp), Problem> {
    let session = library.session();
    let added = session.add_reader(reader, options, &Progress::default())?;
    let expires = Timestamp::now().checked_add(keep).unwrap_or(Timestamp::MAX);
    let name = format!("{PREFIX}{}", added.digest.to_hex());
    let value = serde_json::to_vec(&Kept { expires }).unwrap_or_default().into();
    let to = Ref { root: Some(added.digest), value };
    session.commit(vec![RefChange::Set { name, to, expect: Expect::Any }])?;
    Ok((added, expires))
}

/// Lets go of what expired before `now`; how many.
pub fn expire(library: &Library, now: Timestamp) -> Result<usize, Problem> {
    let over = |value: &Ref| {
        // One that cannot be read would stay for ever, and nobody could tell why.
        serde_json::from_slice(&value.value).map_or(true, |kept: Kept| kept.expires <= now)
    };
    let old: Vec<_> = library.list_refs(PREFIX)?.into_iter().filter(|(_, to)| over(to)).collect();
    let count = old.len();
    // Renewed in this moment: then the commit is refused and the next run looks again.
    let delete = |(name, to)| RefChange::Delete { name, expect: Expect::Is(to) };
    if count > 0 {
        library.session().commit(old.into_iter().map(delete).collect())?;
    }
    Ok(count)
}

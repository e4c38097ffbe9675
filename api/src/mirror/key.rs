//! The OpenPGP key with which the site signs the repositories that it makes.
//!
//! `DIR/keys/site.openpgp`, mode 0600, is made when it is first needed. Which key it is stands in the site
//! database: a key that is missing is not made anew unasked, as no machine would trust another one.

use crate::problem::{Kind, Problem, with_causes};
use crate::site::{Site, make_folder, write_secret};
use ::sync::openpgp::SigningKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sitedb::{Table, Value};
use std::fs;
use std::io;

/// Who it says it is of.
const USER: &str = "depot site (signs repositories)";

const KEYS: Table<(), Known> = Table::new("openpgp-key");

/// The key that the site has, or had.
#[derive(Serialize, Deserialize)]
struct Known {
    fingerprint: String,
}
impl Value for Known {}

/// Held while it is looked whether there is one, and one is made.
static OPENING: Mutex<()> = Mutex::new(());

/// The site's key; made the first time it is asked for. It blocks.
pub(crate) fn open(site: &Site) -> Result<SigningKey, Problem> {
    let _opening = OPENING.lock();
    let folder = site.folder().join("keys");
    let file = folder.join("site.openpgp");
    let failed =
        |error: io::Error| Problem::new(Kind::Unavailable, format!("cannot use {file:?}: {error}"));
    let db = site.ledger()?.db.clone();
    let known = KEYS.get(&db, &())?;
    match fs::read(&file) {
        Ok(bytes) => {
            let key = SigningKey::from_secret_bytes(&bytes).map_err(|error| {
                Problem::new(Kind::Unavailable, format!("{file:?}: {}", with_causes(&error)))
            })?;
            let fingerprint = key.fingerprint();
            if known.is_none_or(|known| known.fingerprint != fingerprint) {
                KEYS.set(&db, &(), &Known { fingerprint })?;
            }
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(Known { fingerprint }) = known {
                let detail = format!(
                    "{file:?} is missing, and machines trust the key {fingerprint} that lay there: put it \
                     back from a backup, or put another OpenPGP secret key without a password there, \
                     and tell them of it"
                );
                return Err(Problem::new(Kind::Unavailable, detail));
            }
            let key = SigningKey::new(rand::random(), USER, Timestamp::now())
                .map_err(|error| Problem::internal(&error))?;
            let secret = key.to_secret_bytes().map_err(|error| Problem::internal(&error))?;
            make_folder(&folder).and_then(|()| write_secret(&file, &secret)).map_err(failed)?;
            KEYS.set(&db, &(), &Known { fingerprint: key.fingerprint() })?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

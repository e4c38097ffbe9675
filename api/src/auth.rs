//! Who asks: bearer tokens, their roles, and the identity that a request acts under.
//!
//! A token is `depot_<id>_<secret>`. The id finds its record; only the SHA-256 of the whole is
//! stored, and it is compared in constant time. (A fast hash is enough: the secret is 32 random
//! bytes, so there is nothing to guess.) The secret is shown once, when the token is made.

use crate::page::{hex, unhex};
use crate::problem::{Kind, Problem};
use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sitedb::{Batch, Db, Order, Table, Value};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

/// What a token may do; each role may do all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees packages, content and jobs.
    Reader,
    /// Makes and changes packages, and distributes them.
    Operator,
    /// Manages tokens, distribution points and the library, revokes content, reads the audit log.
    Admin,
}

impl Role {
    /// Its name in the interface.
    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::Reader, Role::Operator, Role::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// Who a request acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token's name, or "local admin".
    pub name: String,
    /// The token's id; `None` for the local administrator.
    pub token: Option<String>,
    /// What it may do.
    pub role: Role,
}

impl Identity {
    /// Whoever may open the data folder: no token is asked for, and all is allowed.
    pub fn local_admin() -> Self {
        Self { name: "local admin".into(), token: None, role: Role::Admin }
    }

    /// Whether it works in the same process, on the data folder itself.
    pub fn is_local(&self) -> bool {
        self.token.is_none()
    }
}

/// Where a request came from, if it came over the network.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

/// A token as it is listed. Its secret is not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "3f9c2a7b1e0d", "name": "ci", "role": "operator",
    "created": "2026-11-22T12:00:00Z", "created_by": "admin", "expires": null
}))]
pub struct TokenInfo {
    /// Names the token; part of its text.
    pub id: String,
    /// What it is for, as its maker called it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends to be valid; absent: never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

#[derive(Clone, Serialize, Deserialize)]
struct TokenRecord {
    #[serde(flatten)]
    info: TokenInfo,
    /// SHA-256 of the token's whole text, in hex.
    sha256: String,
}
impl Value for TokenRecord {}

const TOKENS: Table<String, TokenRecord> = Table::new("tokens");

/// What the token is called that a site makes when it has none.
pub const FIRST_TOKEN_NAME: &str = "admin";

/// The tokens of a site. Checks read memory only.
pub struct Tokens {
    db: Db,
    known: RwLock<HashMap<String, Arc<TokenRecord>>>,
}

impl Tokens {
    /// Reads the tokens of `db`.
    pub fn open(db: Db) -> Result<Self, sitedb::DbError> {
        let all = TOKENS.scan(&db, Order::Ascending, None, usize::MAX)?;
        let known = all.into_iter().map(|(id, record)| (id, Arc::new(record))).collect();
        Ok(Self { db, known: RwLock::new(known) })
    }

    /// Whether the site never had a token.
    pub fn is_empty(&self) -> bool {
        self.known.read().is_empty()
    }

    /// Makes a token; its record and its text, which cannot be had again.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        created_by: &str,
        expires: Option<Timestamp>,
    ) -> Result<(TokenInfo, String), Problem> {
        self.create_after(name, role, created_by, expires, |_| Ok(()))
    }

    /// Makes a token after `deliver` has put its text where its owner finds it. If that fails,
    /// there is no token.
    pub fn create_after(
        &self,
        name: &str,
        role: Role,
        created_by: &str,
        expires: Option<Timestamp>,
        deliver: impl FnOnce(&str) -> Result<(), Problem>,
    ) -> Result<(TokenInfo, String), Problem> {
        let (id, text) = new_token();
        let info = TokenInfo {
            id: id.clone(),
            name: name.into(),
            role,
            created: Timestamp::now(),
            created_by: created_by.into(),
            expires,
        };
        let record = TokenRecord { info: info.clone(), sha256: hex(&Sha256::digest(&text)) };
        // Under the lock, so that two of one name cannot both pass the check.
        let mut known = self.known.write();
        if known.values().any(|other| other.info.name == name) {
            return Err(Problem::new(Kind::Conflict, format!("there is a token {name:?} already"))
                .caused_by("name", "must differ from those of all other tokens"));
        }
        deliver(&text)?;
        let mut batch = Batch::new();
        TOKENS.insert(&mut batch, &id, &record);
        self.db.kv().write(batch)?;
        known.insert(id, Arc::new(record));
        Ok((info, text))
    }

    /// Whether there is a token of that id.
    pub fn knows(&self, id: &str) -> bool {
        self.known.read().contains_key(id)
    }

    /// All tokens in the order of their ids.
    pub fn list(&self) -> Vec<TokenInfo> {
        let mut all: Vec<_> =
            self.known.read().values().map(|record| record.info.clone()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Ends the token called or numbered `which`.
    pub fn revoke(&self, which: &str) -> Result<TokenInfo, Problem> {
        let mut known = self.known.write();
        // A name may be another token's id.
        let called = || known.values().find(|record| record.info.name == which);
        let found = known.get(which).or_else(called).cloned();
        let record = found.ok_or_else(|| Problem::not_found("token", which))?;
        let mut batch = Batch::new();
        TOKENS.delete(&mut batch, &record.info.id);
        self.db.kv().write(batch)?;
        known.remove(&record.info.id);
        Ok(record.info.clone())
    }

    /// Whose token `text` is, if it is valid at `now`.
    pub fn check(&self, text: &str, now: Timestamp) -> Option<Identity> {
        let id = text.strip_prefix("depot_")?.split('_').next()?;
        let record = self.known.read().get(id).cloned()?;
        let stored = unhex(&record.sha256)?;
        let matches: bool = Sha256::digest(text).as_slice().ct_eq(&stored).into();
        let valid = matches && record.info.expires.is_none_or(|end| now < end);
        valid.then(|| Identity {
            name: record.info.name.clone(),
            token: Some(record.info.id.clone()),
            role: record.info.role,
        })
    }
}

/// The id and text of a new token.
fn new_token() -> (String, String) {
    let id = hex(&rand::random::<[u8; 6]>());
    let secret = hex(&rand::random::<[u8; 32]>());
    let text = format!("depot_{id}_{secret}");
    (id, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_text_until_it_is_revoked() {
        let db = Db::in_memory();
        let tokens = Tokens::open(db.clone()).unwrap();
        assert!(tokens.is_empty());
        let (info, text) = tokens.create("ci", Role::Operator, "admin", None).unwrap();
        let now = Timestamp::now();
        let identity = tokens.check(&text, now).unwrap();
        assert_eq!((identity.name.as_str(), identity.role), ("ci", Role::Operator));
        let mut other = text.clone();
        let last = if text.ends_with('0') { "1" } else { "0" };
        other.replace_range(text.len() - 1.., last);
        for wrong in [other.as_str(), "", "depot_", &info.id, &text[..text.len() - 1]] {
            assert_eq!(tokens.check(wrong, now), None, "{wrong}");
        }
        let reopened = Tokens::open(db).unwrap();
        assert!(reopened.check(&text, now).is_some());
        assert_eq!(reopened.list(), [info]);
        reopened.revoke("ci").unwrap();
        assert_eq!(reopened.check(&text, now), None);
        assert!(reopened.revoke("ci").unwrap_err().is(Kind::NotFound));
    }

    #[test]
    fn names_are_unique_and_times_are_kept() {
        let db = Db::in_memory();
        let tokens = Tokens::open(db.clone()).unwrap();
        let end = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let (_, text) = tokens.create("a", Role::Reader, "x", Some(end)).unwrap();
        assert!(tokens.create("a", Role::Reader, "x", None).unwrap_err().is(Kind::Conflict));
        assert!(tokens.check(&text, Timestamp::now()).is_some());
        assert_eq!(tokens.check(&text, end), None);
    }

    #[test]
    fn an_id_names_its_token_even_if_another_is_called_so() {
        let tokens = Tokens::open(Db::in_memory()).unwrap();
        for n in 0..20 {
            let (info, _) = tokens.create(&n.to_string(), Role::Admin, "x", None).unwrap();
            let (other, _) = tokens.create(&info.id, Role::Reader, "x", None).unwrap();
            assert_eq!(tokens.revoke(&info.id).unwrap(), info);
            assert_eq!(tokens.revoke(&info.id).unwrap(), other);
        }
    }

    #[test]
    fn the_secret_is_not_stored() {
        let db = Db::in_memory();
        let tokens = Tokens::open(db.clone()).unwrap();
        let (_, text) = tokens.create("a", Role::Reader, "x", None).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        let all = db.kv().scan(&sitedb::Range::default(), Order::Ascending, 99).unwrap();
        assert!(!all.is_empty());
        assert!(all.iter().all(|(_, value)| !String::from_utf8_lossy(value).contains(secret)));
    }

    #[test]
    fn roles_contain_each_other() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Reader);
        for role in [Role::Reader, Role::Operator, Role::Admin] {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
    }
}

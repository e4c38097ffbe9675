//! Letting machines in: a token for one of them, as a point or as a follower, and what becomes of it.
//!
//! A machine that asked and did not get the answer asks again: for as long as the token is good, the
//! same secret with the same key is the same machine. With another key it is another machine, and is
//! refused.

use super::followers::{FOLLOWERS, Follower};
use super::points::{POINTS, Point};
use super::{MOST, PointName, Registry, RegistryError, State};
use crate::field::{FollowerId, FollowerKind, JoinToken, PointId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sitedb::{Batch, Table, Value};
use subtle::ConstantTimeEq;

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What the machine will be called.
    pub name: PointName,
    /// What it will be: a follower of that kind, or else a distribution point.
    pub kind: Option<FollowerKind>,
    /// When it ends to be good.
    pub expires: Timestamp,
    /// Where the site can be reached: `https://HOST:PORT`, at least one.
    pub sites: Vec<String>,
    /// Who makes it.
    pub by: String,
}

/// A join token as it is listed. Its secret is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Names the token.
    pub id: String,
    /// What the machine that joins with it is called.
    pub name: PointName,
    /// What it becomes: a follower of that kind, or else a distribution point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FollowerKind>,
    /// Where the site can be reached, as the token says.
    pub sites: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends to be good.
    pub expires: Timestamp,
    /// The point that joined with it.
    #[serde(default)]
    pub used_by: Option<PointId>,
    /// The follower that joined with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_by: Option<FollowerId>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    info: TokenInfo,
    /// SHA-256 of the secret.
    secret: [u8; 32],
    /// Tells the key of the machine that it was used by.
    #[serde(default)]
    key: Option<[u8; 32]>,
}
impl Value for TokenRecord {}

impl TokenRecord {
    pub(super) fn id(&self) -> String {
        self.info.id.clone()
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.key.is_none() && now < self.info.expires
    }
}

/// Tokens by their id. Used ones stay until they expire.
pub(super) const TOKENS: Table<String, TokenRecord> = Table::new("point-tokens");

/// The right of one machine to become a point, or a follower.
pub struct Admission<T = Point> {
    /// Who it will be.
    pub point: T,
    /// Where the site can be reached, as its token says.
    pub sites: Vec<String>,
    /// The id of the token.
    pub token: String,
    key: [u8; 32],
}

impl Registry {
    /// Makes a token for a site whose authority has that fingerprint; its record, and the token,
    /// which cannot be had again.
    pub fn create_token(
        &self,
        new: NewToken,
        authority: [u8; 32],
        now: Timestamp,
    ) -> Result<(TokenInfo, JoinToken), RegistryError> {
        let NewToken { name, kind, expires, sites, by } = new;
        let token = JoinToken { authority, secret: rand::random(), sites: sites.clone() };
        let id = format!("{:012x}", rand::random::<u64>() >> 16);
        let (created, created_by) = (now, by);
        let info = TokenInfo {
            id,
            name,
            kind,
            sites,
            created,
            created_by,
            expires,
            used_by: None,
            followed_by: None,
        };
        let secret = Sha256::digest(token.secret).into();
        let record = TokenRecord { info: info.clone(), secret, key: None };

        let changing = self.change();
        let mut batch = Batch::new();
        let over: Vec<String> = {
            let state = self.state.read();
            state.check_name(&info.name, kind.is_some(), now)?;
            let over = state.tokens.values().filter(|token| token.info.expires <= now);
            over.map(TokenRecord::id).collect()
        };
        if self.state.read().tokens.len() - over.len() >= MOST {
            return Err(RegistryError::TooMany { what: "join tokens", most: MOST });
        }
        over.iter().for_each(|id| TOKENS.delete(&mut batch, id));
        TOKENS.insert(&mut batch, &info.id, &record);
        self.apply(&changing, batch, |state| {
            over.iter().for_each(|id| drop(state.tokens.remove(id)));
            state.tokens.insert(info.id.clone(), record);
        })?;
        Ok((info, token))
    }

    /// The tokens that are still good or were used not long ago, in the order of their ids.
    pub fn tokens(&self, now: Timestamp) -> Vec<TokenInfo> {
        let state = self.state.read();
        let good = state.tokens.values().filter(|token| now < token.info.expires);
        good.map(|token| token.info.clone()).collect()
    }

    /// Ends the token numbered `which`, or the one for a point of that name. Whoever joined with it stays.
    pub fn revoke_token(&self, which: &str) -> Result<TokenInfo, RegistryError> {
        let changing = self.change();
        let found = {
            let state = self.state.read();
            let points = || state.tokens.values().filter(|t| t.info.kind.is_none());
            let by_name = || points().filter(|t| t.info.name.as_str() == which);
            // Of several for one name only one was not used.
            let named = by_name().find(|t| t.key.is_none()).or_else(|| by_name().next());
            state.tokens.get(which).or(named).map(|token| token.info.clone())
        };
        let unknown = || RegistryError::UnknownToken(which.chars().take(100).collect());
        let info = found.ok_or_else(unknown)?;
        let mut batch = Batch::new();
        TOKENS.delete(&mut batch, &info.id);
        self.apply(&changing, batch, |state| drop(state.tokens.remove(&info.id)))?;
        Ok(info)
    }

    /// Whether `secret`, in hex, lets in the machine that has `key`
    /// ([`requested_key`](crate::identity::requested_key)). Nothing is changed until
    /// [`Registry::join`].
    pub fn admit(
        &self,
        secret: &str,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<Admission, RegistryError> {
        let state = self.state.read();
        let token = state.token_of(secret, now).filter(|token| token.info.kind.is_none());
        let token = token.ok_or(RegistryError::NotAdmitted)?;
        let (id, sites) = (token.id(), token.info.sites.clone());
        let point = match (token.key, &token.info.used_by) {
            (None, _) => Point {
                id: PointId::from_random(rand::random()),
                name: token.info.name.clone(),
                joined: now,
                invited_by: token.info.created_by.clone(),
                renewed: None,
                limit: None,
                window: None,
                sources: Vec::new(),
                drained: None,
            },
            (Some(used_with), Some(point)) if used_with == key => {
                let point = state.points.get(point);
                point.ok_or(RegistryError::NotAdmitted)?.clone()
            }
            _ => return Err(RegistryError::NotAdmitted),
        };
        Ok(Admission { point, sites, token: id, key })
    }

    /// As [`Registry::admit`], of a machine that is to follow the catalogue.
    pub fn admit_follower(
        &self,
        secret: &str,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<Admission<Follower>, RegistryError> {
        let state = self.state.read();
        let token = state.token_of(secret, now).ok_or(RegistryError::NotAdmitted)?;
        let kind = token.info.kind.ok_or(RegistryError::NotAdmitted)?;
        let (id, sites) = (token.id(), token.info.sites.clone());
        let point = match (token.key, &token.info.followed_by) {
            (None, _) => {
                let (name, by) = (token.info.name.clone(), token.info.created_by.clone());
                Follower::new(FollowerId::from_random(rand::random()), name, kind, now, by)
            }
            (Some(used_with), Some(by)) if used_with == key => {
                state.followers.get(by).ok_or(RegistryError::NotAdmitted)?.clone()
            }
            _ => return Err(RegistryError::NotAdmitted),
        };
        Ok(Admission { point, sites, token: id, key })
    }

    /// Makes the admitted machine a follower, and its token used.
    pub fn join_follower(&self, admission: Admission<Follower>) -> Result<Follower, RegistryError> {
        let Admission { point: follower, token, key, .. } = admission;
        let changing = self.change();
        let record = {
            let state = self.state.read();
            let mut record = state.tokens.get(&token).ok_or(RegistryError::NotAdmitted)?.clone();
            match (record.key, &record.info.followed_by) {
                (None, _) => {}
                // The same machine, once more or at the same time.
                (Some(used), Some(by)) if used == key => {
                    let known = state.followers.get(by);
                    return known.cloned().ok_or(RegistryError::NotAdmitted);
                }
                _ => return Err(RegistryError::NotAdmitted),
            }
            if state.follower_called(&follower.name).is_some() {
                return Err(RegistryError::FollowerExists(follower.name));
            }
            if state.followers.len() >= MOST {
                return Err(RegistryError::TooMany { what: "child sites", most: MOST });
            }
            record.key = Some(key);
            record.info.followed_by = Some(follower.id.clone());
            record
        };
        let mut batch = Batch::new();
        TOKENS.put(&mut batch, &token, &record);
        FOLLOWERS.insert(&mut batch, &follower.id.to_string(), &follower);
        self.apply(&changing, batch, |state| {
            state.tokens.insert(token, record);
            state.followers.insert(follower.id.clone(), follower.clone());
        })?;
        Ok(follower)
    }

    /// Makes the admitted machine a point, and its token used.
    pub fn join(&self, admission: Admission) -> Result<Point, RegistryError> {
        let Admission { point, token, key, .. } = admission;
        let changing = self.change();
        let record = {
            let state = self.state.read();
            let mut record = state.tokens.get(&token).ok_or(RegistryError::NotAdmitted)?.clone();
            match (record.key, &record.info.used_by) {
                (None, _) => {}
                // The same machine, once more or at the same time.
                (Some(used), Some(by)) if used == key => {
                    let point = state.points.get(by);
                    return point.cloned().ok_or(RegistryError::NotAdmitted);
                }
                _ => return Err(RegistryError::NotAdmitted),
            }
            if state.by_name.contains_key(&point.name) {
                return Err(RegistryError::PointExists(point.name));
            }
            if state.points.len() >= MOST {
                return Err(RegistryError::TooMany { what: "distribution points", most: MOST });
            }
            record.key = Some(key);
            record.info.used_by = Some(point.id.clone());
            record
        };
        let mut batch = Batch::new();
        TOKENS.put(&mut batch, &token, &record);
        POINTS.insert(&mut batch, &point.id.to_string(), &point);
        self.apply(&changing, batch, |state| {
            state.tokens.insert(token, record);
            state.by_name.insert(point.name.clone(), point.id.clone());
            state.points.insert(point.id.clone(), point.clone());
        })?;
        Ok(point)
    }
}

impl State {
    /// Refuses the name of a new point that is or may become another's.
    fn check_name(
        &self,
        name: &PointName,
        for_follower: bool,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        if for_follower && self.follower_called(name).is_some() {
            return Err(RegistryError::FollowerExists(name.clone()));
        }
        if !for_follower && self.by_name.contains_key(name) {
            return Err(RegistryError::PointExists(name.clone()));
        }
        let is_so = |token: &&TokenRecord| token.info.kind.is_some() == for_follower;
        let mut like = self.tokens.values().filter(is_so);
        if like.any(|token| token.info.name == *name && token.is_open(now)) {
            return Err(RegistryError::TokenExists(name.clone()));
        }
        Ok(())
    }

    /// The token with that secret, in hex, if it is still good.
    fn token_of(&self, secret: &str, now: Timestamp) -> Option<&TokenRecord> {
        let hash: [u8; 32] = Sha256::digest(secret_of(secret)?).into();
        // All are compared, so that the time tells nothing.
        let mut matching = None;
        for token in self.tokens.values() {
            if token.secret.ct_eq(&hash).into() {
                matching = Some(token);
            }
        }
        matching.filter(|token| now < token.info.expires)
    }
}

/// The bytes of a secret in hex.
fn secret_of(text: &str) -> Option<[u8; 16]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

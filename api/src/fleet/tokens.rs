//! Join tokens of clients: each lets some number of machines in, until it ends.
//!
//! Unlike that of a distribution point it is for many machines, as it goes into the image or the script
//! that sets machines up. So it says how many, and whether each waits for an administrator's yes.
//!
//! Always true: of a token's secret only the SHA-256 is kept; a machine that asks twice with one key counts
//! once; no more machines come in than the token is for.

use crate::problem::{Kind, Problem};
use compliance::fleet::{EnrolError, Enrolment, Standing};
use compliance::{Compliance, Ordinal};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sitedb::{Db, Table, Value};
use subtle::ConstantTimeEq;

/// The most tokens at a time.
pub const MOST: usize = 1_000;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    /// Names it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How many machines may come in with it.
    pub uses: u64,
    /// How many have.
    pub used: u64,
    /// Whether each of them waits for approval.
    pub pending: bool,
    /// Where it says that the site is reached.
    pub sites: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// SHA-256 of its secret.
    secret: [u8; 32],
}
impl Value for ClientToken {}

const TOKENS: Table<String, ClientToken> = Table::new("client-tokens");

/// A token to be made.
pub struct NewClientToken {
    /// What people will call it.
    pub name: String,
    /// For how many machines it is.
    pub uses: u64,
    /// Whether each of them waits for approval.
    pub pending: bool,
    /// Where the site is reached.
    pub sites: Vec<String>,
    /// Who makes it.
    pub by: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// The tokens of a site.
pub struct JoinTokens {
    db: Db,
    /// Held while a token is counted, made or ended.
    changing: Mutex<()>,
}

impl JoinTokens {
    pub(super) fn new(db: Db) -> Self {
        Self { db, changing: Mutex::default() }
    }

    /// Makes a token with that secret.
    ///
    /// # Errors
    /// If there are too many, or the database fails.
    pub fn create(
        &self,
        new: NewClientToken,
        secret: &[u8; 16],
        now: Timestamp,
    ) -> Result<ClientToken, Problem> {
        let _changing = self.changing.lock();
        let all = self.all()?;
        for over in all.iter().filter(|token| token.expires <= now) {
            self.forget(&over.id)?;
        }
        if all.iter().filter(|token| token.expires > now).count() >= MOST {
            let detail = format!("there are {MOST} join tokens of clients: revoke some first");
            return Err(Problem::new(Kind::Conflict, detail));
        }
        let NewClientToken { name, uses, pending, sites, by, expires } = new;
        let token = ClientToken {
            id: format!("{:012x}", rand::random::<u64>() >> 16),
            name,
            uses,
            used: 0,
            pending,
            sites,
            created: now,
            created_by: by,
            expires,
            secret: Sha256::digest(secret).into(),
        };
        TOKENS.set(&self.db, &token.id, &token)?;
        Ok(token)
    }

    /// All tokens, by id.
    ///
    /// # Errors
    /// If the database fails.
    pub fn all(&self) -> Result<Vec<ClientToken>, Problem> {
        let all = TOKENS.scan(&self.db, sitedb::Order::Ascending, None, usize::MAX)?;
        Ok(all.into_iter().map(|(_, token)| token).collect())
    }

    /// Ends the token of that id or, if only one has it, of that name.
    ///
    /// # Errors
    /// If there is none, there are several, or the database fails.
    pub fn revoke(&self, which: &str) -> Result<ClientToken, Problem> {
        let _changing = self.changing.lock();
        let all = self.all()?;
        let by_name: Vec<_> = all.iter().filter(|token| token.name == which).collect();
        let by_id = all.iter().find(|token| token.id == which);
        let found = match (by_id, by_name.as_slice()) {
            (Some(token), _) => token.clone(),
            (None, [token]) => (*token).clone(),
            (None, []) => {
                let detail = format!("there is no join token {which:?} for clients");
                return Err(Problem::new(Kind::NotFound, &detail).caused_by("token", &detail));
            }
            (None, _) => {
                let detail =
                    format!("several join tokens are called {which:?}: name one by its id");
                return Err(Problem::new(Kind::Conflict, detail));
            }
        };
        self.forget(&found.id)?;
        Ok(found)
    }

    fn forget(&self, id: &str) -> Result<(), Problem> {
        let mut batch = sitedb::Batch::new();
        TOKENS.delete(&mut batch, &id.to_owned());
        self.db.kv().write(batch)?;
        Ok(())
    }

    /// Makes the machine of `id` and `key` a client of `states`, if `secret` is that of a token which is
    /// still good; its place and standing, and the token.
    ///
    /// # Errors
    /// If the token is no good, all of its machines have come, the fleet does not take the machine, or the
    /// database fails.
    pub fn admit(
        &self,
        secret: &[u8],
        states: &Compliance,
        asked: Enrolment,
        now: Timestamp,
    ) -> Result<(Ordinal, Standing, ClientToken), Problem> {
        let refused = |why: &str| Problem::new(Kind::Forbidden, format!("the join token {why}"));
        let _changing = self.changing.lock();
        let hash: [u8; 32] = Sha256::digest(secret).into();
        // All are compared, so that the time tells nothing.
        let mut found = None;
        for token in self.all()? {
            if token.secret.ct_eq(&hash).into() {
                found = Some(token);
            }
        }
        let mut token = found
            .filter(|token| now < token.expires)
            .ok_or_else(|| refused("is unknown, revoked or expired"))?;
        let id = asked.id;
        let before = states.find(id).map(|ordinal| states.client(ordinal)).transpose()?.flatten();
        let is_known = before.as_ref().is_some_and(|client| client.key == Some(asked.key));
        if !is_known && token.used >= token.uses {
            return Err(refused("has let in all the machines that it is for"));
        }
        let standing = match (token.pending, before.filter(|_| is_known)) {
            // One who waits or was approved by an administrator is what it is, whatever it comes with.
            (true, Some(client)) => client.standing,
            (true, None) => Standing::Pending,
            (false, _) => Standing::Approved,
        };
        if !is_known {
            // Counted first: after a crash in between, one fewer may come, and never one more. It is on disk
            // with the synced write of the enrolment, so that many machines do not wait for two.
            token.used += 1;
            let mut batch = sitedb::Batch::relaxed();
            TOKENS.put(&mut batch, &token.id, &token);
            self.db.kv().write(batch)?;
        }
        let enrolled = states.enrol(Enrolment { standing, ..asked }, now).map_err(not_enrolled)?;
        let standing = states.client(enrolled)?.map_or(standing, |client| client.standing);
        Ok((enrolled, standing, token))
    }
}

fn not_enrolled(error: EnrolError) -> Problem {
    match error {
        EnrolError::Store(error) => error.into(),
        EnrolError::Blocked(_) => Problem::new(Kind::Forbidden, error.to_string()),
        other => Problem::new(Kind::Conflict, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fleet;
    use super::*;
    use compliance::fleet::Fingerprint;
    use compliance::message::ClientId;
    use jiff::SignedDuration;
    use uuid::Uuid;

    fn now() -> Timestamp {
        "2026-11-28T12:00:00Z".parse().unwrap()
    }

    fn machine(n: u8) -> Enrolment {
        Enrolment {
            id: ClientId(Uuid::from_u128(n.into())),
            key: Fingerprint([n; 32]),
            name: format!("pc-{n}"),
            standing: Standing::Blocked,
        }
    }

    fn token(fleet: &Fleet, uses: u64, pending: bool, secret: u8) -> ClientToken {
        let expires = now() + SignedDuration::from_hours(1);
        let (name, by) = ("image".to_owned(), "admin".to_owned());
        let new = NewClientToken { name, uses, pending, sites: vec![], by, expires };
        fleet.tokens.create(new, &[secret; 16], now()).unwrap()
    }

    fn admit(fleet: &Fleet, secret: u8, n: u8) -> Result<Standing, String> {
        let admitted = fleet.tokens.admit(&[secret; 16], &fleet.states, machine(n), now());
        admitted.map(|(_, standing, _)| standing).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_token_lets_so_many_machines_in_and_each_counts_once() {
        let fleet = Fleet::open(&Db::in_memory()).unwrap();
        token(&fleet, 2, false, 1);
        for n in [1, 1, 2, 1] {
            assert_eq!(admit(&fleet, 1, n), Ok(Standing::Approved));
        }
        assert!(admit(&fleet, 1, 3).unwrap_err().contains("all the machines"));
        assert!(admit(&fleet, 2, 3).unwrap_err().contains("unknown, revoked or expired"));
        assert_eq!(fleet.tokens.all().unwrap()[0].used, 2);
        // The key of another machine is no way in.
        let thief = Enrolment { key: Fingerprint([9; 32]), ..machine(1) };
        token(&fleet, 9, false, 3);
        let refused = fleet.tokens.admit(&[3; 16], &fleet.states, thief, now()).unwrap_err();
        assert!(refused.is(Kind::Conflict), "{refused}");
    }

    #[test]
    fn a_machine_that_waits_stays_waiting_until_somebody_says_yes() {
        let fleet = Fleet::open(&Db::in_memory()).unwrap();
        token(&fleet, 9, true, 1);
        assert_eq!(admit(&fleet, 1, 1), Ok(Standing::Pending));
        assert_eq!(admit(&fleet, 1, 1), Ok(Standing::Pending));
        let ordinal = fleet.states.find(machine(1).id).unwrap();
        fleet.states.set_standing(ordinal, Standing::Approved, now()).unwrap();
        assert_eq!(admit(&fleet, 1, 1), Ok(Standing::Approved));
        fleet.states.set_standing(ordinal, Standing::Blocked, now()).unwrap();
        assert!(admit(&fleet, 1, 1).unwrap_err().contains("blocked"));
    }

    #[test]
    fn a_token_that_ended_is_no_way_in() {
        let fleet = Fleet::open(&Db::in_memory()).unwrap();
        let made = token(&fleet, 9, false, 1);
        let later = made.expires;
        let refused = fleet.tokens.admit(&[1; 16], &fleet.states, machine(1), later).unwrap_err();
        assert!(refused.is(Kind::Forbidden));
        assert_eq!(fleet.tokens.revoke("image").unwrap(), made);
        assert!(admit(&fleet, 1, 1).is_err());
        assert!(fleet.tokens.revoke("image").unwrap_err().is(Kind::NotFound));
    }
}

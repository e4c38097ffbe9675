//! The fleet of a site: its clients, who may come in, and what they report.
//!
//! What they report is kept by the crate `compliance`; here is who they are on a connection: a client proves
//! its id by the certificate that it got when it enrolled, and every request asks whether it still may. In the
//! order to read: [`tokens`] let them in, [`settings`] are set for them, [`policy`] is what each is told, and
//! [`fallback`] what those say who cannot say it as clients.

pub mod fallback;
pub mod policy;
pub mod settings;
pub mod tokens;

use crate::extract::parse_field;
use crate::problem::{Kind, Problem};
use compliance::fleet::{Fingerprint, Standing};
use compliance::message::ClientId;
use compliance::{Compliance, Event, Ordinal, Settings, StoreError};
use deployment::automatic::Rules;
use deployment::{CollectionError, CollectionName, Collections, Deployments, Results};
use dp::field;
use fallback::Fallback;
use jiff::Timestamp;
use policy::Policies;
use roaring::RoaringBitmap;
use settings::ClientSettings;
use sitedb::Db;
use std::sync::Arc;
use sync::lifecycle::Use;
use sync::name::UpdateId;
use tokens::JoinTokens;
use tokio::sync::Semaphore;

/// The clients of a site.
pub struct Fleet {
    /// Their states.
    pub states: Compliance,
    /// The tokens that they join with.
    pub tokens: JoinTokens,
    /// What is set for them.
    pub settings: ClientSettings,
    /// What they are told.
    pub policies: Policies,
    /// What those say who cannot say it as clients.
    pub fallback: Fallback,
    /// The collections that they are in.
    pub collections: Collections,
    /// What is deployed to them.
    pub deployments: Deployments,
    /// What is deployed by itself.
    pub rules: Rules,
    /// What they tell of it.
    pub results: Results,
    /// How many reports of deployments may be read at once.
    pub reports: Semaphore,
}

/// Reports of deployments that are read at once: of more, clients are asked to come again.
const REPORTS_AT_ONCE: usize = 32;

/// The client that a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Its place in the fleet.
    pub ordinal: Ordinal,
    /// Its id.
    pub id: ClientId,
    /// The key that it is known by.
    pub key: Fingerprint,
}

impl Fleet {
    /// Takes the fleet in `db` into use.
    ///
    /// # Errors
    /// If the database fails.
    pub fn open(db: &Db) -> Result<Self, Problem> {
        let states = Compliance::open(db.clone(), Settings::default())?;
        let deployments = Deployments::open(db.clone())?;
        let there_are = deployments.all();
        let is_one = |id| there_are.contains_key(&id);
        Ok(Self {
            results: Results::open(db.clone(), |id| states.find(id), is_one)?,
            reports: Semaphore::new(REPORTS_AT_ONCE),
            collections: Collections::open(db.clone(), &states)?,
            rules: Rules::open(db.clone())?,
            deployments,
            states,
            tokens: JoinTokens::new(db.clone()),
            settings: ClientSettings::open(db)?,
            policies: Policies::new(),
            fallback: Fallback::open(db)?,
        })
    }

    /// The client of that id, if it may report.
    ///
    /// # Errors
    /// If the site does not know it, or does not let it in.
    pub fn caller(&self, id: &field::ClientId) -> Result<Caller, Problem> {
        let id = id_of(id);
        let refused = |why: &str| Problem::new(Kind::NotAClient, format!("this client {why}"));
        let (ordinal, key, standing) = self.states.standing(id).ok_or_else(|| {
            let detail =
                "this client is not known to the site any more: let it join with a new token";
            Problem::new(Kind::RemovedClient, detail)
        })?;
        match standing {
            Standing::Approved => {}
            Standing::Pending => return Err(refused("waits for an administrator's approval")),
            Standing::Blocked => return Err(refused("was blocked by an administrator")),
        }
        let key = key.ok_or_else(|| refused("belongs to a child site"))?;
        Ok(Caller { ordinal, id, key })
    }

    /// Puts clients of whom something changed into their collections, and out of others.
    pub fn follow(&self) {
        self.collections.follow(&self.states);
    }

    /// Who is in a collection now.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn members(&self, name: &CollectionName) -> Result<Arc<RoaringBitmap>, CollectionError> {
        self.follow();
        self.collections.members(name, &self.states)
    }

    /// Who is in the collection of that name, if one is named.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn scope(&self, name: Option<&str>) -> Result<Option<Arc<RoaringBitmap>>, Problem> {
        let members = |name: &str| Ok(self.members(&parse_field("collection", name)?)?);
        name.map(members).transpose()
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.policies.close();
    }

    /// Says in the log what happened that an administrator should hear of.
    pub fn tell_events(&self) {
        for event in self.states.events() {
            match event {
                Event::Cloned { client, returns } => {
                    tracing::warn!(%client, returns, "two machines report as one client, or its disk was put back: see `depot client show`");
                }
                Event::Quarantined { client, number, reason } => {
                    tracing::warn!(%client, number, reason, "a batch of a client could not be read");
                }
                other => tracing::warn!(?other, "a client needs a look"),
            }
        }
    }

    /// What is done every few seconds: what was reported gets into the tables.
    ///
    /// # Errors
    /// If the database fails.
    pub fn tend(&self, now: Timestamp) -> Result<(), StoreError> {
        self.tell_events();
        self.states.record_contacts(now)?;
        self.states.checkpoint_if_due(now)?;
        Ok(())
    }
}

impl sync::catalogue::Deployments for Fleet {
    fn of(&self, update: UpdateId) -> Use {
        self.deployments.of(update)
    }
}

/// The id in a certificate as one of the fleet's.
pub fn id_of(id: &field::ClientId) -> ClientId {
    ClientId(uuid::Uuid::from_u128(id.bits()))
}

/// The other way round.
pub fn certified(id: ClientId) -> field::ClientId {
    field::ClientId::from_bits(id.0.as_u128())
}

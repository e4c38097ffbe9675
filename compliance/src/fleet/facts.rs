//! What a client tells of itself besides states: its system, addresses, own attributes, packages.
//!
//! Facts have a revision. A client sends what changed since a revision; if the site has another one, it is
//! asked for all.

use super::packages::{BadPackages, PackagesChange};
use crate::head::Place;
use crate::inbox::Entry;
use crate::matrix::Ordinal;
use crate::site::{Change, Compliance, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The largest facts of one client without its packages, in bytes of JSON.
pub const MAX_FACTS: usize = 64 << 10;
/// The largest change of facts as it travels, in bytes of JSON.
pub const MAX_FACTS_SENT: usize = 4 << 20;

/// Facts of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Counted by the client, from 1.
    pub revision: u64,
    /// `ID` of os-release: `debian`, `rocky`; `windows`.
    pub os: String,
    /// `VERSION_ID`: `12`, `9.4`, `10.0.20348`.
    pub os_version: String,
    /// `VERSION_CODENAME`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Its network addresses.
    pub addresses: Vec<IpAddr>,
    /// What administrators set on the machine, by name.
    pub attributes: BTreeMap<String, String>,
    /// How many packages are installed; none if it told of none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<u32>,
    /// The place at which they changed last, in the order of all that the site was told.
    pub changed: Place,
}

/// A change of facts: what is not told stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FactsChange {
    /// The revision that it is a change of; 0 for facts that are told from nothing.
    pub base: u64,
    /// The revision that it leads to.
    pub revision: u64,
    /// See [`Facts::os`].
    pub os: Option<String>,
    /// See [`Facts::os_version`].
    pub os_version: Option<String>,
    /// See [`Facts::codename`]; empty for none.
    pub codename: Option<String>,
    /// See [`Facts::architecture`].
    pub architecture: Option<String>,
    /// All addresses, if one changed.
    pub addresses: Option<Vec<IpAddr>>,
    /// Attributes that were set, or with none taken away.
    pub attributes: BTreeMap<String, Option<String>>,
    /// What of the packages changed; of a change from nothing, all that are installed.
    pub packages: Option<PackagesChange>,
}

/// Why facts were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// The site has another revision than the change begins at: send the facts from nothing.
    #[error("the site has revision {has} of the facts; send all")]
    OtherRevision {
        /// The revision that the site has; 0 if it has none.
        has: u64,
    },
    /// They would be too large.
    #[error("facts of {0} bytes; at most {MAX_FACTS} are kept")]
    TooLarge(usize),
    /// Its packages are not taken.
    #[error(transparent)]
    Packages(#[from] BadPackages),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) const FACTS: Table<u32, Facts> = Table::new("compliance-facts");

impl Value for Facts {}

impl Facts {
    /// These facts with a change made.
    ///
    /// # Errors
    /// If the change begins at another revision, or leads to facts that are too large.
    pub fn with(&self, change: FactsChange) -> Result<Self, FactsError> {
        let mut facts = match change.base {
            0 => Self::default(),
            base if base == self.revision => self.clone(),
            _ => return Err(FactsError::OtherRevision { has: self.revision }),
        };
        facts.revision = change.revision;
        let put = |to: &mut String, from: Option<String>| from.into_iter().for_each(|it| *to = it);
        put(&mut facts.os, change.os);
        put(&mut facts.os_version, change.os_version);
        put(&mut facts.architecture, change.architecture);
        if let Some(codename) = change.codename {
            facts.codename = Some(codename).filter(|it| !it.is_empty());
        }
        facts.addresses = change.addresses.unwrap_or(facts.addresses);
        for (name, value) in change.attributes {
            match value {
                Some(value) => drop(facts.attributes.insert(name, value)),
                None => drop(facts.attributes.remove(&name)),
            }
        }
        match facts.size() {
            size if size > MAX_FACTS => Err(FactsError::TooLarge(size)),
            _ => Ok(facts),
        }
    }

    /// Bytes of JSON, about.
    pub(crate) fn size(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len() + 6);
        let texts = [&self.os, &self.os_version, &self.architecture].map(String::len);
        let codename = self.codename.as_ref().map_or(0, String::len);
        200 + attributes.sum::<usize>()
            + texts.iter().sum::<usize>()
            + self.addresses.len() * 48
            + codename
    }
}

impl Compliance {
    /// The facts of a client; none if it told none.
    ///
    /// # Errors
    /// If the database fails.
    pub fn facts(&self, client: Ordinal) -> Result<Option<Facts>, StoreError> {
        Ok(FACTS.get(self.db(), &client)?)
    }

    /// Takes a change of a client's facts; the revision that the site has now.
    ///
    /// The same change told twice is taken once.
    ///
    /// # Errors
    /// If it begins at another revision, leads to too much, or the database fails.
    pub fn change_facts(
        &self,
        client: Ordinal,
        mut change: FactsChange,
        now: Timestamp,
    ) -> Result<u64, FactsError> {
        change.packages.as_ref().map_or(Ok(()), PackagesChange::check)?;
        // One writer at a time, so that what is read is still so when it is written.
        let mut writer = self.writer();
        let old = FACTS.get(self.db(), &client).map_err(StoreError::from)?.unwrap_or_default();
        self.settle_doubt(client, &old)?;
        if change.base != 0 && change.revision == old.revision {
            return Ok(old.revision);
        }
        let (packages, from_nothing) = (change.packages.take(), change.base == 0);
        let mut new = Facts { changed: writer.next, ..old.with(change)? };
        let planned = self.index.read().inventory.plan(self.db(), client, from_nothing, packages);
        let planned = planned.map_err(StoreError::from)??;
        new.packages = planned.len();
        let mut change = Change::default();
        change.record.at = now.as_second();
        // Other sites have to hear of it.
        change.tell(Entry::Heard { client });
        FACTS.put(&mut change.batch, &client, &new);
        planned.put(&mut change.batch);
        self.commit(&mut writer, change).map_err(|error| {
            // It may have been written all the same.
            self.index.write().doubt(client);
            StoreError::from(error)
        })?;
        let mut index = self.index.write();
        index.change(client, &old, &new);
        index.inventory.make(planned);
        Ok(new.revision)
    }

    /// Puts all facts of a client in, as a child site tells them. They are on disk after the next synced write.
    pub(crate) fn put_facts(
        &self,
        client: Ordinal,
        mut new: Facts,
        packages: Option<PackagesChange>,
    ) -> Result<(), StoreError> {
        let old = FACTS.get(self.db(), &client)?.unwrap_or_default();
        self.settle_doubt(client, &old)?;
        let planned = self.index.read().inventory.plan(self.db(), client, true, packages)?;
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                tracing::warn!(client, %error, "a child site's client has packages that are not kept");
                self.index.read().inventory.plan_removal(self.db(), client)?
            }
        };
        new.packages = planned.len();
        new.changed = self.states().head(client).changed;
        let mut batch = Batch::relaxed();
        FACTS.put(&mut batch, &client, &new);
        planned.put(&mut batch);
        if let Err(error) = self.db().kv().write(batch) {
            self.index.write().doubt(client);
            return Err(error.into());
        }
        let mut index = self.index.write();
        index.change(client, &old, &new);
        index.inventory.make(planned);
        Ok(())
    }

    /// Puts a client that is doubtful into the index as its rows have it.
    fn settle_doubt(&self, client: Ordinal, old: &Facts) -> Result<(), StoreError> {
        if self.index.read().is_doubtful(client) {
            // All writes before a synced one are on disk with it.
            FACTS.set(self.db(), &client, old)?;
            self.index.write().put_anew(self.db(), client, old)?;
        }
        Ok(())
    }

    pub(crate) fn forget_facts(batch: &mut Batch, client: Ordinal) {
        FACTS.delete(batch, &client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_revision_to_revision() {
        let first = FactsChange {
            revision: 1,
            os: Some("debian".into()),
            codename: Some("bookworm".into()),
            attributes: [("ring".into(), Some("early".into())), ("x".into(), None)].into(),
            ..FactsChange::default()
        };
        let one = Facts::default().with(first.clone()).unwrap();
        assert_eq!((one.os.as_str(), one.attributes.len()), ("debian", 1));
        let second = FactsChange {
            base: 1,
            revision: 2,
            codename: Some(String::new()),
            attributes: [("ring".into(), None)].into(),
            ..FactsChange::default()
        };
        let two = one.with(second.clone()).unwrap();
        assert_eq!(
            (two.os.as_str(), two.codename.clone(), two.attributes.len()),
            ("debian", None, 0)
        );
        assert!(matches!(two.with(second), Err(FactsError::OtherRevision { has: 2 })));
        assert_eq!(two.with(first).unwrap(), one, "told from nothing");
    }

    #[test]
    fn there_is_a_limit() {
        let attributes = [("a".into(), Some("x".repeat(MAX_FACTS)))].into();
        let change = FactsChange { revision: 1, attributes, ..FactsChange::default() };
        assert!(matches!(Facts::default().with(change), Err(FactsError::TooLarge(_))));
    }
}

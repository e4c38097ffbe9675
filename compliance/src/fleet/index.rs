//! The facts of all clients in memory, turned round: by what they say, the clients of which it is true.
//!
//! Questions take a scope, the clients that matter, so that what one changed client answers costs little.
//! The index is made from the rows when a site starts, follows each change, and notes whose facts changed.
//! Words are compared in small letters, since the language of rules does not tell the cases apart.

use super::facts::{FACTS, Facts};
use super::inventory::{Installed, Inventory, Planned};
use super::packages::{Packages, PackagesChange};
use super::registry::each_name;
use crate::matrix::Ordinal;
use crate::site::{Compliance, StoreError};
use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;
use sitedb::{Batch, Db, DbError, Order};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Rows of facts that are read in one step.
const PAGE: usize = 1_000;

/// A fact that is a word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// `ID` of os-release.
    Os,
    /// `VERSION_ID`.
    OsVersion,
    /// `VERSION_CODENAME`.
    Codename,
    /// The architecture.
    Architecture,
    /// What administrators set on the machine, by its name in small letters.
    Attribute(String),
}

/// The facts of all clients.
#[derive(Default)]
pub struct Index {
    fleet: RoaringBitmap,
    names: Vec<Box<str>>,
    addresses: Vec<Box<[IpAddr]>>,
    words: BTreeMap<Property, BTreeMap<Box<str>, RoaringBitmap>>,
    pub(crate) inventory: Inventory,
    /// Clients of which something changed since somebody asked.
    touched: RoaringBitmap,
    /// Clients of whom a change could not be written, or was and nobody knows.
    doubtful: RoaringBitmap,
}

impl Index {
    /// All clients.
    pub fn fleet(&self) -> &RoaringBitmap {
        &self.fleet
    }

    /// What people call a client.
    pub fn name(&self, client: Ordinal) -> &str {
        self.names.get(client as usize).map(|name| &**name).unwrap_or_default()
    }

    /// The addresses of a client.
    pub fn addresses(&self, client: Ordinal) -> &[IpAddr] {
        self.addresses.get(client as usize).map(|it| &**it).unwrap_or_default()
    }

    /// The clients of `scope` of which a property is one word, in small letters.
    pub fn with_word(
        &self,
        property: &Property,
        word: &str,
        scope: &RoaringBitmap,
    ) -> RoaringBitmap {
        let found = self.words.get(property).and_then(|words| words.get(word));
        found.map(|clients| clients & scope).unwrap_or_default()
    }

    /// The clients of `scope` of which a property is a word that fits.
    pub fn with_words(
        &self,
        property: &Property,
        scope: &RoaringBitmap,
        mut fits: impl FnMut(&str) -> bool,
    ) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        for (word, clients) in self.words.get(property).into_iter().flatten() {
            if !clients.is_disjoint(scope) && fits(word) {
                found |= clients & scope;
            }
        }
        found
    }

    /// The clients of `scope` of whom that is true; it is asked of each.
    pub fn each(&self, scope: &RoaringBitmap, is: impl FnMut(&Ordinal) -> bool) -> RoaringBitmap {
        (scope & &self.fleet).into_iter().filter(is).collect()
    }

    /// What is installed somewhere under that name.
    pub fn installed(&self, name: &str) -> impl Iterator<Item = Installed<'_>> {
        self.inventory.named(name)
    }

    /// All that is installed somewhere, by name.
    pub fn all_installed(
        &self,
    ) -> impl Iterator<Item = (&str, impl Iterator<Item = Installed<'_>>)> {
        self.inventory.all()
    }

    /// The names of all packages that are installed on a client of `scope`.
    pub fn names_installed_on(&self, scope: &RoaringBitmap) -> impl Iterator<Item = &str> {
        let all = self.inventory.all();
        all.filter_map(move |(name, mut all)| {
            all.any(|it| !it.clients.is_disjoint(scope)).then_some(name)
        })
    }

    /// What the bitmaps take, in bytes, about: those of packages, and those of words.
    pub fn size(&self) -> (u64, u64) {
        let words = self.words.values().flat_map(|words| words.values());
        (self.inventory.size(), words.map(|clients| clients.serialized_size() as u64).sum())
    }

    pub(crate) fn load(db: &Db, fleet: &RoaringBitmap) -> Result<Self, DbError> {
        let mut index = Self { inventory: Inventory::load(db)?, ..Self::default() };
        each_name(db, |client, name| index.put_name(client, &name))?;
        let mut after = None;
        loop {
            let page = FACTS.scan(db, Order::Ascending, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (client, facts) in &page {
                index.change(*client, &Facts::default(), facts);
            }
        }
        index.fleet = fleet.clone();
        // Whoever asks first has to look at all.
        index.touched = fleet.clone();
        Ok(index)
    }

    /// Says that a client is there.
    pub(crate) fn add(&mut self, client: Ordinal) {
        self.fleet.insert(client);
        self.touched.insert(client);
    }

    pub(crate) fn put_name(&mut self, client: Ordinal, name: &str) {
        put_at(&mut self.names, client, name.into());
        self.touched.insert(client);
    }

    /// Makes a change of facts.
    pub(crate) fn change(&mut self, client: Ordinal, old: &Facts, new: &Facts) {
        let (old, now) = (words_of(old), words_of(new));
        for (property, word) in old.iter().filter(|it| !now.contains(it)) {
            let Some(words) = self.words.get_mut(property) else { continue };
            if let Some(clients) = words.get_mut(word.as_str()) {
                clients.remove(client);
                if clients.is_empty() {
                    words.remove(word.as_str());
                }
            }
            if words.is_empty() {
                self.words.remove(property);
            }
        }
        for (property, word) in now.into_iter().filter(|it| !old.contains(it)) {
            let words = self.words.entry(property).or_default();
            words.entry(word.into()).or_default().insert(client);
        }
        if self.addresses(client) != new.addresses {
            put_at(&mut self.addresses, client, new.addresses.clone().into());
        }
        self.touched.insert(client);
    }

    pub(crate) fn doubt(&mut self, client: Ordinal) {
        self.doubtful.insert(client);
    }

    pub(crate) fn is_doubtful(&self, client: Ordinal) -> bool {
        self.doubtful.contains(client)
    }

    /// Puts a doubtful client in as the rows have it.
    pub(crate) fn put_anew(
        &mut self,
        db: &Db,
        client: Ordinal,
        facts: &Facts,
    ) -> Result<(), DbError> {
        self.inventory.put_anew(db, client)?;
        for words in self.words.values_mut() {
            for clients in words.values_mut() {
                clients.remove(client);
            }
        }
        self.change(client, &Facts::default(), facts);
        self.doubtful.remove(client);
        Ok(())
    }

    /// Forgets a client that had these facts.
    pub(crate) fn remove(&mut self, client: Ordinal, facts: &Facts, packages: Planned) {
        self.change(client, facts, &Facts::default());
        self.put_name(client, "");
        self.inventory.make(packages);
        self.fleet.remove(client);
    }
}

/// The properties of a client that are known, in small letters.
fn words_of(facts: &Facts) -> Vec<(Property, String)> {
    let fixed = [
        (Property::Os, &facts.os),
        (Property::OsVersion, &facts.os_version),
        (Property::Architecture, &facts.architecture),
    ];
    let codename = facts.codename.iter().map(|word| (Property::Codename, word));
    let fixed = fixed.into_iter().filter(|(_, word)| !word.is_empty()).chain(codename);
    let attributes = facts.attributes.iter();
    let attributes =
        attributes.map(|(name, word)| (Property::Attribute(name.to_lowercase()), word));
    fixed.chain(attributes).map(|(property, word)| (property, word.to_lowercase())).collect()
}

fn put_at<T: Default>(all: &mut Vec<T>, client: Ordinal, value: T) {
    let at = client as usize;
    if all.len() <= at {
        all.resize_with(at + 1, T::default);
    }
    all[at] = value;
}

impl Compliance {
    /// The facts of all clients. Changes of facts wait while it is held.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// The clients that came, went, or of whom the name or facts changed since this was last asked; at first,
    /// all.
    pub fn take_touched(&self) -> RoaringBitmap {
        std::mem::take(&mut self.index.write().touched)
    }

    /// The packages of a client, by name; none if it told of none.
    ///
    /// # Errors
    /// If the database fails.
    pub fn packages(&self, client: Ordinal) -> Result<Option<Packages>, StoreError> {
        Ok(self.all_packages(client)?.map(|all| all.changed))
    }

    /// The same, as a change from nothing.
    pub(crate) fn all_packages(
        &self,
        client: Ordinal,
    ) -> Result<Option<PackagesChange>, StoreError> {
        Ok(self.index.read().inventory.of(self.db(), client)?)
    }

    /// Writes the bitmaps of packages that changed; how many, and their bytes.
    pub(crate) fn write_packages(&self) -> Result<(u64, u64), StoreError> {
        let marked = self.index.write().inventory.take_marked();
        let write = || {
            let (mut from, mut n_written, mut n_bytes) = (0, 0, 0);
            while from < self.index.read().inventory.n_ids() {
                // A change of facts may not come in between: a number is freed here that nobody has.
                let _writer = self.writer();
                let mut batch = Batch::relaxed();
                let step = self.settings.checkpoint_step;
                let (next, ids, bytes) =
                    self.index.read().inventory.write_some(&mut batch, from, step);
                self.db().kv().write(batch)?;
                self.index.write().inventory.written(&ids);
                (from, n_written, n_bytes) = (next, n_written + ids.len() as u64, n_bytes + bytes);
            }
            let _writer = self.writer();
            // All writes before a synced one are on disk with it, so the marks may go.
            let mut batch = Batch::new();
            self.index.read().inventory.forget_marks(&mut batch, &marked);
            self.db().kv().write(batch)?;
            Ok((n_written, n_bytes))
        };
        let done = write();
        if done.is_err() {
            self.index.write().inventory.keep_marked(marked);
        }
        done
    }
}

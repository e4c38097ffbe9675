//! Which client has which package, from both sides: a row of packages for each client, and for each package
//! the clients that have it.
//!
//! Each package in one version and architecture has a number. A client's row is the sorted numbers, and lies
//! on disk only; it is what counts. The bitmaps of clients are in memory, follow the rows, and get to disk
//! now and then. A row is written together with a mark of its client, which goes once all bitmaps that the
//! row changed are on disk; after a crash the clients that are still marked are put into the bitmaps anew.
//!
//! Always true:
//! * what the bitmaps in memory say is what the rows say;
//! * a number that a row names has a package, since it is freed only when no client has it.

use super::packages::{BadPackages, MAX_PACKAGES, Package, PackageKind, Packages, PackagesChange};
use crate::checkpoint::each;
use crate::matrix::Ordinal;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Range};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The number of a package in one version and architecture.
pub(crate) type PackageId = u32;

/// So many different packages, versions and architectures are known at most.
const MAX_KNOWN: usize = 4_000_000;

const KNOWN: &[u8] = b"compliance-package\0";
const HAVING: &[u8] = b"compliance-having\0";
const ROWS: &[u8] = b"compliance-installed\0";
const MARKS: &[u8] = b"compliance-installed-mark\0";
const VERSION: u8 = 1;

/// What a number stands for, on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    kind: PackageKind,
    name: String,
    version: String,
    arch: String,
}

/// A package in one version and architecture, with who has it.
#[derive(Clone, Copy, Debug)]
pub struct Installed<'a> {
    /// Its name.
    pub name: &'a str,
    /// By which order its version is compared.
    pub kind: PackageKind,
    /// Its version.
    pub version: &'a str,
    /// Its architecture.
    pub arch: &'a str,
    /// The clients on which it is installed.
    pub clients: &'a RoaringBitmap,
}

struct Entry {
    name: Arc<str>,
    kind: PackageKind,
    version: Box<str>,
    arch: Box<str>,
    clients: RoaringBitmap,
    is_dirty: bool,
}

/// The packages of all clients.
#[derive(Default)]
pub(crate) struct Inventory {
    entries: Vec<Option<Entry>>,
    by_name: BTreeMap<Arc<str>, Vec<PackageId>>,
    free: BTreeSet<PackageId>,
    /// The clients whose marks are on disk.
    marked: RoaringBitmap,
}

/// A change of one client's packages that can be written, and then made.
pub(crate) struct Planned {
    client: Ordinal,
    old: Vec<PackageId>,
    /// None: nothing is known of its packages.
    new: Option<Vec<PackageId>>,
    fresh: Vec<(PackageId, Known)>,
}

impl Planned {
    /// How many packages the client has after it.
    pub(crate) fn len(&self) -> Option<u32> {
        self.new.as_ref().map(|ids| ids.len() as u32)
    }

    /// Adds what it writes.
    pub(crate) fn put(&self, batch: &mut Batch) {
        for (id, known) in &self.fresh {
            batch.put(key(KNOWN, *id), encode(known));
        }
        match &self.new {
            Some(ids) => batch.put(key(ROWS, self.client), encode_row(ids)),
            None => batch.delete(key(ROWS, self.client)),
        };
        batch.put(key(MARKS, self.client), []);
    }
}

impl Inventory {
    /// The change of a client's packages; all that are told are all there are if it is `from_nothing`.
    ///
    /// # Errors
    /// If it leads to too many packages, or the database fails.
    pub(crate) fn plan(
        &self,
        db: &Db,
        client: Ordinal,
        from_nothing: bool,
        change: Option<PackagesChange>,
    ) -> Result<Result<Planned, BadPackages>, DbError> {
        let row = row(db, client)?;
        let old = row.clone().unwrap_or_default();
        let Some(PackagesChange { kind, changed, removed }) = change else {
            let new = if from_nothing { None } else { row };
            return Ok(Ok(Planned { client, old, new, fresh: Vec::new() }));
        };
        let is_touched = |id: &PackageId| {
            let name = self.entry(*id).map(|entry| &*entry.name).unwrap_or_default();
            changed.contains_key(name) || removed.contains(name)
        };
        let mut ids: BTreeSet<PackageId> = match from_nothing {
            true => BTreeSet::new(),
            false => old.iter().copied().filter(|id| !is_touched(id)).collect(),
        };
        let n_entries = self.entries.len() as PackageId;
        let mut free = self.free.iter().copied().chain(n_entries..MAX_KNOWN as PackageId);
        let mut fresh = Vec::new();
        for (name, packages) in changed {
            for Package { version, arch } in packages {
                let found = self.find(kind, &name, &version, &arch);
                let Some(id) = found.or_else(|| free.next()) else {
                    return Ok(Err(BadPackages::TooManyKnown(MAX_KNOWN)));
                };
                // What nobody has may be gone from the disk already: a checkpoint forgets it.
                if self.entry(id).is_none_or(|entry| entry.clients.is_empty()) {
                    fresh.push((id, Known { kind, name: name.clone(), version, arch }));
                }
                ids.insert(id);
            }
        }
        if ids.len() > MAX_PACKAGES {
            return Ok(Err(BadPackages::TooMany(ids.len())));
        }
        Ok(Ok(Planned { client, old, new: Some(ids.into_iter().collect()), fresh }))
    }

    /// The change by which a client that is removed loses its packages.
    pub(crate) fn plan_removal(&self, db: &Db, client: Ordinal) -> Result<Planned, DbError> {
        let old = row(db, client)?.unwrap_or_default();
        Ok(Planned { client, old, new: None, fresh: Vec::new() })
    }

    /// Makes a change that was written.
    pub(crate) fn make(&mut self, planned: Planned) {
        let Planned { client, old, new, fresh } = planned;
        self.marked.insert(client);
        for (id, known) in fresh {
            self.add(id, known);
        }
        let new = new.unwrap_or_default();
        let has = |ids: &[PackageId], id| ids.binary_search(id).is_ok();
        for id in old.iter().filter(|id| !has(&new, id)) {
            self.put(*id, client, false);
        }
        for id in new.iter().filter(|id| !has(&old, id)) {
            self.put(*id, client, true);
        }
    }

    /// The packages of a client, as a change from nothing; none if it told of none.
    pub(crate) fn of(&self, db: &Db, client: Ordinal) -> Result<Option<PackagesChange>, DbError> {
        let Some(ids) = row(db, client)? else { return Ok(None) };
        let (mut kind, mut changed) = (PackageKind::Other, Packages::new());
        for entry in ids.iter().filter_map(|id| self.entry(*id)) {
            let package =
                Package { version: entry.version.to_string(), arch: entry.arch.to_string() };
            changed.entry(entry.name.to_string()).or_default().push(package);
            kind = entry.kind;
        }
        changed.values_mut().for_each(|packages| packages.sort_unstable());
        Ok(Some(PackagesChange { kind, changed, removed: BTreeSet::new() }))
    }

    /// What is installed somewhere under that name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = Installed<'_>> {
        self.shown(self.by_name.get(name))
    }

    /// What is installed somewhere, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Installed<'_>>)> {
        self.by_name.iter().map(|(name, ids)| (&**name, self.shown(Some(ids))))
    }

    fn shown<'a>(
        &'a self,
        ids: Option<&'a Vec<PackageId>>,
    ) -> impl Iterator<Item = Installed<'a>> + use<'a> {
        ids.into_iter().flatten().filter_map(|id| self.entry(*id)).map(|entry| Installed {
            name: &entry.name,
            kind: entry.kind,
            version: &entry.version,
            arch: &entry.arch,
            clients: &entry.clients,
        })
    }

    /// What the bitmaps take, in bytes, about.
    pub(crate) fn size(&self) -> u64 {
        self.entries.iter().flatten().map(|entry| entry.clients.serialized_size() as u64).sum()
    }

    fn entry(&self, id: PackageId) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn find(&self, kind: PackageKind, name: &str, version: &str, arch: &str) -> Option<PackageId> {
        let is_it = |id: &&PackageId| {
            self.entry(**id)
                .is_some_and(|it| it.kind == kind && &*it.version == version && &*it.arch == arch)
        };
        self.by_name.get(name)?.iter().find(is_it).copied()
    }

    fn add(&mut self, id: PackageId, known: Known) {
        let at = id as usize;
        if self.entry(id).is_some() {
            return;
        }
        if self.entries.len() <= at {
            self.free.extend(self.entries.len() as PackageId..id);
            self.entries.resize_with(at + 1, || None);
        }
        self.free.remove(&id);
        let name = match self.by_name.get_key_value(known.name.as_str()) {
            Some((name, _)) => Arc::clone(name),
            None => known.name.into(),
        };
        self.by_name.entry(Arc::clone(&name)).or_default().push(id);
        let (version, arch) = (known.version.into(), known.arch.into());
        let (kind, clients) = (known.kind, RoaringBitmap::new());
        // One that nobody has is looked at by the next checkpoint, which frees it.
        self.entries[at] = Some(Entry { name, kind, version, arch, clients, is_dirty: true });
    }

    fn put(&mut self, id: PackageId, client: Ordinal, is_installed: bool) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            let clients = &mut entry.clients;
            let has_changed =
                if is_installed { clients.insert(client) } else { clients.remove(client) };
            entry.is_dirty |= has_changed;
        }
    }

    fn forget(&mut self, id: PackageId) {
        let Some(entry) = self.entries.get_mut(id as usize).and_then(Option::take) else { return };
        self.free.insert(id);
        if let Some(ids) = self.by_name.get_mut(&entry.name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(&entry.name);
            }
        }
    }

    /// How many numbers were given out.
    pub(crate) fn n_ids(&self) -> PackageId {
        self.entries.len() as PackageId
    }

    /// The clients whose marks can go, if from now on all bitmaps that changed are written.
    pub(crate) fn take_marked(&mut self) -> RoaringBitmap {
        std::mem::take(&mut self.marked)
    }

    /// Says that they have to stay.
    pub(crate) fn keep_marked(&mut self, clients: RoaringBitmap) {
        self.marked |= clients;
    }

    /// Puts a client in as its row has it, whatever was known.
    pub(crate) fn put_anew(&mut self, db: &Db, client: Ordinal) -> Result<(), DbError> {
        // A number that was to be made with the change may be on disk, and unknown here.
        let mut unknown = Vec::new();
        let ids = row(db, client)?.unwrap_or_default();
        for id in ids.iter().filter(|id| self.entry(**id).is_none()) {
            let value = db.kv().get(&key(KNOWN, *id))?;
            let value = value.ok_or_else(|| damaged("a row names a package that is none"))?;
            unknown.push((*id, decode(&value)?));
        }
        unknown.into_iter().for_each(|(id, known)| self.add(id, known));
        for id in 0..self.n_ids() {
            self.put(id, client, ids.binary_search(&id).is_ok());
        }
        self.marked.insert(client);
        Ok(())
    }

    /// Adds what is dirty from number `from` on, about `size` bytes of it; from which number to go on, and what
    /// [`Inventory::written`] is told once it is on disk.
    pub(crate) fn write_some(
        &self,
        batch: &mut Batch,
        from: PackageId,
        size: usize,
    ) -> (PackageId, Vec<PackageId>, u64) {
        let (mut taken, mut n_bytes) = (Vec::new(), 0);
        for id in from..self.n_ids() {
            let Some(entry) = self.entry(id).filter(|entry| entry.is_dirty) else { continue };
            taken.push(id);
            if entry.clients.is_empty() {
                batch.delete(key(KNOWN, id)).delete(key(HAVING, id));
                continue;
            }
            let mut bitmap = entry.clients.clone();
            bitmap.optimize();
            let mut bytes = Vec::with_capacity(bitmap.serialized_size());
            bitmap.serialize_into(&mut bytes).expect("a vector takes all bytes");
            n_bytes += bytes.len();
            batch.put(key(HAVING, id), bytes);
            if n_bytes >= size {
                return (id + 1, taken, n_bytes as u64);
            }
        }
        (self.n_ids(), taken, n_bytes as u64)
    }

    /// Says that the bitmaps of these are on disk as they are; those that nobody has are free now.
    pub(crate) fn written(&mut self, ids: &[PackageId]) {
        for id in ids {
            let Some(Some(entry)) = self.entries.get_mut(*id as usize) else { continue };
            entry.is_dirty = false;
            entry.clients.optimize();
            if entry.clients.is_empty() {
                self.forget(*id);
            }
        }
    }

    /// Adds that the marks of these clients go, but for those that were marked again.
    pub(crate) fn forget_marks(&self, batch: &mut Batch, clients: &RoaringBitmap) {
        for client in clients - &self.marked {
            batch.delete(key(MARKS, client));
        }
    }

    /// Reads what was written.
    pub(crate) fn load(db: &Db) -> Result<Self, DbError> {
        let mut inventory = Self::default();
        each(db, Range::prefix(KNOWN), |key, value| {
            inventory.add(read_key(KNOWN, key)?, decode(value)?);
            Ok(())
        })?;
        each(db, Range::prefix(HAVING), |key, value| {
            let id = read_key(HAVING, key)?;
            let clients = RoaringBitmap::deserialize_from(value).map_err(damaged)?;
            if let Some(Some(entry)) = inventory.entries.get_mut(id as usize) {
                entry.is_dirty = clients.is_empty();
                entry.clients = clients;
            }
            Ok(())
        })?;
        let mut marked = RoaringBitmap::new();
        each(db, Range::prefix(MARKS), |key, _| {
            marked.insert(read_key(MARKS, key)?);
            Ok(())
        })?;
        if !marked.is_empty() {
            for entry in inventory.entries.iter_mut().flatten() {
                if !entry.clients.is_disjoint(&marked) {
                    entry.clients -= &marked;
                    entry.is_dirty = true;
                }
            }
            for client in &marked {
                for id in row(db, client)?.unwrap_or_default() {
                    inventory.put(id, client, true);
                }
            }
        }
        inventory.marked = marked;
        Ok(inventory)
    }
}

fn row(db: &Db, client: Ordinal) -> Result<Option<Vec<PackageId>>, DbError> {
    let value = db.kv().get(&key(ROWS, client))?;
    value.map(|value| decode_row(&value)).transpose()
}

/// Sorted numbers, as what each adds to the one before.
fn encode_row(ids: &[PackageId]) -> Vec<u8> {
    let mut last = 0;
    let steps: Vec<u32> = ids.iter().map(|id| id - std::mem::replace(&mut last, *id)).collect();
    encode(&steps)
}

fn decode_row(value: &[u8]) -> Result<Vec<PackageId>, DbError> {
    let mut ids: Vec<u32> = decode(value)?;
    let mut last = 0_u32;
    for id in &mut ids {
        last = last.checked_add(*id).ok_or_else(|| damaged("a number is too large"))?;
        *id = last;
    }
    Ok(ids)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("a vector takes all bytes")
}

fn decode<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, DbError> {
    match value {
        [VERSION, body @ ..] => postcard::from_bytes(body).map_err(damaged),
        _ => Err(damaged("it is of another version")),
    }
}

fn key(prefix: &[u8], number: u32) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

fn read_key(prefix: &[u8], key: &[u8]) -> Result<u32, DbError> {
    let number = key.strip_prefix(prefix).and_then(|it| it.try_into().ok());
    number.map(u32::from_be_bytes).ok_or_else(|| damaged("a key has the wrong form"))
}

fn damaged(detail: impl ToString) -> DbError {
    DbError::Damaged { table: "compliance-installed", detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_and_damage_is_told() {
        for ids in [vec![], vec![0], vec![3, 4, 900, u32::MAX]] {
            assert_eq!(decode_row(&encode_row(&ids)).unwrap(), ids);
        }
        assert!(decode_row(&[]).is_err());
        assert!(decode_row(&[9, 1, 1]).is_err());
        let too_large = encode(&vec![u32::MAX, 2]);
        assert!(decode_row(&too_large).is_err());
    }
}

//! Parts: what the sections of a backup mean.
//!
//! References, packs and records come one after the other, each list in the order of its names,
//! which is checked, so that nothing is there twice and a list is compared without being held.

use crate::frames::{Kind, Reader, Writer};
use crate::{BadBackup, keys};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The longest head or end, in bytes.
const MAX_JSON: usize = 64 << 10;
/// The longest name of a reference, as the library has it.
const MAX_NAME: usize = 512;
/// The longest value of a reference, as the library has it.
const MAX_REFERENCE: u32 = 1 << 20;
/// The longest key of a record.
const MAX_KEY: u32 = 1 << 20;
/// The longest value of a record: more than a batch of any site database has.
const MAX_VALUE: u32 = 1 << 30;

/// A key and its value in the site database.
pub type Record = (Vec<u8>, Vec<u8>);

/// What a backup is of, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the program that wrote it.
    pub program: String,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// The library's random number, in hex, by which backups of one site are known.
    pub library: String,
    /// The number of the newest batch of the site database that is in it.
    pub seq: u64,
    /// What of the content is kept with it.
    pub content: Content,
    /// What became of the keys.
    pub keys: Keys,
}

/// What of the content is kept with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Its references. The packs are kept elsewhere.
    References,
    /// Its packs, in the folder beside.
    Packs,
}

/// What became of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// They are in it, sealed by a passphrase.
    Sealed,
    /// They are kept elsewhere.
    Absent,
}

/// What all that is in a backup comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// References of the library.
    pub references: u64,
    /// Packs of the library.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Records of the site database.
    pub records: u64,
    /// Bytes of their keys and values.
    pub record_bytes: u64,
    /// BLAKE3 over them, in hex: each key and value after its length as 8 bytes, little-endian.
    pub records_digest: String,
}

/// A reference of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// The BLAKE3 of the content that it keeps, if it keeps one.
    pub root: Option<[u8; 32]>,
    /// What it says beside that.
    pub value: Vec<u8>,
}

/// A pack of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Its id.
    pub id: u128,
    /// How many of its bytes count.
    pub len: u64,
    /// The BLAKE3 of those, if they are kept with the backup.
    pub digest: Option<[u8; 32]>,
}

/// Writes a backup part by part, in the order of the functions here.
pub struct Parts<W> {
    writer: Writer<W>,
    totals: Totals,
    records: blake3::Hasher,
}

impl<W: Write> Parts<W> {
    /// Begins with the head.
    pub fn new(out: W, head: &Head) -> io::Result<Self> {
        let mut writer = Writer::new(out)?;
        serde_json::to_writer(&mut writer, head)?;
        Ok(Self { writer, totals: Totals::default(), records: blake3::Hasher::new() })
    }

    /// The references, in the order of their names.
    pub fn references<'a>(
        &mut self,
        all: impl Iterator<Item = (&'a str, Option<&'a [u8; 32]>, &'a [u8])>,
    ) -> io::Result<()> {
        self.writer.section(Kind::References)?;
        for (name, root, value) in all {
            self.writer.write_all(&(name.len() as u16).to_le_bytes())?;
            self.writer.write_all(&(value.len() as u32).to_le_bytes())?;
            self.writer.write_all(&[root.is_some().into()])?;
            if let Some(root) = root {
                self.writer.write_all(root)?;
            }
            self.writer.write_all(name.as_bytes())?;
            self.writer.write_all(value)?;
            self.totals.references += 1;
        }
        Ok(())
    }

    /// The packs, in the order of their ids.
    pub fn packs(&mut self, all: &[Pack]) -> io::Result<()> {
        self.writer.section(Kind::Packs)?;
        for pack in all {
            self.writer.write_all(&pack.id.to_be_bytes())?;
            self.writer.write_all(&pack.len.to_le_bytes())?;
            self.writer.write_all(&[pack.digest.is_some().into()])?;
            if let Some(digest) = &pack.digest {
                self.writer.write_all(digest)?;
            }
            self.totals.packs += 1;
            self.totals.pack_bytes += pack.len;
        }
        Ok(())
    }

    /// Begins the records.
    pub fn begin_records(&mut self) -> io::Result<()> {
        self.writer.section(Kind::Records)
    }

    /// The next record, in the order of their keys.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.writer.write_all(&(key.len() as u32).to_le_bytes())?;
        self.writer.write_all(&(value.len() as u32).to_le_bytes())?;
        self.writer.write_all(key)?;
        self.writer.write_all(value)?;
        self.totals.records += 1;
        self.totals.record_bytes += (key.len() + value.len()) as u64;
        add(&mut self.records, key, value);
        Ok(())
    }

    /// The keys, as they were sealed.
    pub fn keys(&mut self, sealed: &keys::Sealed) -> io::Result<()> {
        self.writer.section(Kind::Keys)?;
        self.writer.write_all(&sealed.encode())
    }

    /// Ends the backup: what it was written to, its length, its digest, and what is in it.
    pub fn finish(mut self) -> io::Result<(W, u64, [u8; 32], Totals)> {
        self.totals.records_digest = self.records.finalize().to_hex().to_string();
        self.writer.section(Kind::End)?;
        serde_json::to_writer(&mut self.writer, &self.totals)?;
        let (out, length, digest) = self.writer.finish()?;
        Ok((out, length, digest, self.totals))
    }
}

fn add(hasher: &mut blake3::Hasher, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
}

/// Reads a backup part by part. What is not asked for is read all the same, for its digests.
pub struct Open<R> {
    reader: Reader<R>,
    head: Head,
    found: Totals,
    records: blake3::Hasher,
    /// The name before, in whose order the next one is.
    before: Option<Vec<u8>>,
}

impl<R: Read> Open<R> {
    /// Reads the head.
    pub fn new(input: R) -> Result<Self, BadBackup> {
        let mut reader = Reader::new(input)?;
        let bytes = reader.rest(MAX_JSON)?;
        let head = serde_json::from_slice(&bytes)
            .map_err(|error| reader.damaged(format!("its head: {error}")))?;
        let (found, records) = (Totals::default(), blake3::Hasher::new());
        Ok(Self { reader, head, found, records, before: None })
    }

    /// What it is a backup of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How far it is read, in bytes.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Goes on to the next part.
    pub fn next_part(&mut self) -> Result<Option<Kind>, BadBackup> {
        self.before = None;
        self.reader.next_section()
    }

    /// The next reference.
    pub fn reference(&mut self) -> Result<Option<Reference>, BadBackup> {
        let mut header = [0; 7];
        if !self.reader.fill(&mut header)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, has_root] = header;
        let (name_len, value_len) = (u16::from_le_bytes([a, b]), u32::from_le_bytes([c, d, e, f]));
        if usize::from(name_len) > MAX_NAME || value_len > MAX_REFERENCE || has_root > 1 {
            return Err(self.reader.damaged("a reference"));
        }
        let root = self.digest(has_root == 1)?;
        let name = self.reader.exactly(name_len.into())?;
        self.in_order(&name)?;
        let name =
            String::from_utf8(name).map_err(|_| self.reader.damaged("a reference's name"))?;
        let value = self.reader.exactly(value_len.into())?;
        self.found.references += 1;
        Ok(Some(Reference { name, root, value }))
    }

    /// The next pack.
    pub fn pack(&mut self) -> Result<Option<Pack>, BadBackup> {
        let (mut id, mut len, mut has_digest) = ([0; 16], [0; 8], [0; 1]);
        if !self.reader.fill(&mut id)? {
            return Ok(None);
        }
        let is_there = self.reader.fill(&mut len)? && self.reader.fill(&mut has_digest)?;
        if !is_there || has_digest[0] > 1 {
            return Err(self.reader.damaged("a pack"));
        }
        self.in_order(&id)?;
        let digest = self.digest(has_digest[0] == 1)?;
        let pack = Pack { id: u128::from_be_bytes(id), len: u64::from_le_bytes(len), digest };
        self.found.packs += 1;
        self.found.pack_bytes = self.found.pack_bytes.saturating_add(pack.len);
        Ok(Some(pack))
    }

    /// The next record of the site database: key and value.
    pub fn record(&mut self) -> Result<Option<Record>, BadBackup> {
        let mut header = [0; 8];
        if !self.reader.fill(&mut header)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = header;
        let key_len = u32::from_le_bytes([a, b, c, d]);
        let value_len = u32::from_le_bytes([e, f, g, h]);
        if key_len > MAX_KEY || value_len > MAX_VALUE {
            return Err(self.reader.damaged("a record"));
        }
        let key = self.reader.exactly(key_len.into())?;
        self.in_order(&key)?;
        let value = self.reader.exactly(value_len.into())?;
        add(&mut self.records, &key, &value);
        self.found.records += 1;
        self.found.record_bytes += (key.len() + value.len()) as u64;
        Ok(Some((key, value)))
    }

    /// The keys, sealed.
    pub fn keys(&mut self) -> Result<keys::Sealed, BadBackup> {
        let bytes = self.reader.rest(keys::MAX_SEALED)?;
        keys::Sealed::parse(&bytes).ok_or_else(|| self.reader.damaged("the keys"))
    }

    /// The end: what is in it and its digest. Where every part was read, both are compared with that.
    pub fn end(mut self) -> Result<(Totals, [u8; 32]), BadBackup> {
        let bytes = self.reader.rest(MAX_JSON)?;
        let totals: Totals = serde_json::from_slice(&bytes)
            .map_err(|error| self.reader.damaged(format!("its end: {error}")))?;
        if self.reader.next_section()?.is_some() {
            return Err(self.reader.damaged("something follows its end"));
        }
        self.found.records_digest = self.records.finalize().to_hex().to_string();
        match totals == self.found {
            true => Ok((totals, self.reader.digest())),
            false => Err(self.reader.damaged("it does not hold what its end says")),
        }
    }

    fn digest(&mut self, is_there: bool) -> Result<Option<[u8; 32]>, BadBackup> {
        if !is_there {
            return Ok(None);
        }
        let mut digest = [0; 32];
        match self.reader.fill(&mut digest)? {
            true => Ok(Some(digest)),
            false => Err(self.reader.damaged("a digest is missing")),
        }
    }

    fn in_order(&mut self, name: &[u8]) -> Result<(), BadBackup> {
        if self.before.as_deref().is_some_and(|before| before >= name) {
            return Err(self.reader.damaged("a list is not in order"));
        }
        self.before = Some(name.to_vec());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn head() -> Head {
        Head {
            program: "0.1.0".into(),
            taken: "2026-11-28T12:00:00Z".parse().unwrap(),
            library: format!("{:032x}", 77),
            seq: 42,
            content: Content::Packs,
            keys: Keys::Sealed,
        }
    }

    /// A backup with a little of everything.
    pub fn small(packs: &[Pack]) -> Vec<u8> {
        let mut parts = Parts::new(Vec::new(), &head()).unwrap();
        type Set<'a> = (&'a str, Option<&'a [u8; 32]>, &'a [u8]);
        let refs: [Set<'_>; 2] =
            [("package/docs", None, b"{}"), ("version/docs/1", Some(&[3; 32]), b"{\"v\":1}")];
        parts.references(refs.into_iter()).unwrap();
        parts.packs(packs).unwrap();
        parts.begin_records().unwrap();
        for n in 0..400_u32 {
            parts.record(&n.to_be_bytes(), &vec![n as u8; n as usize % 50]).unwrap();
        }
        let files =
            vec![crate::keys::KeyFile { name: "keys/site.ed25519".into(), bytes: vec![9; 64] }];
        parts.keys(&crate::keys::seal_lightly(&files)).unwrap();
        parts.finish().unwrap().0
    }

    #[test]
    fn what_is_written_reads_back() {
        let packs = [
            Pack { id: 5, len: 100, digest: None },
            Pack { id: 6, len: 200, digest: Some([1; 32]) },
        ];
        let file = small(&packs);
        let mut open = Open::new(&*file).unwrap();
        assert_eq!(*open.head(), head());
        assert_eq!(open.next_part().unwrap(), Some(Kind::References));
        let first = open.reference().unwrap().unwrap();
        assert_eq!(
            (first.name.as_str(), first.root, first.value.as_slice()),
            ("package/docs", None, b"{}".as_slice())
        );
        assert_eq!(open.reference().unwrap().unwrap().root, Some([3; 32]));
        assert!(open.reference().unwrap().is_none());
        assert_eq!(open.next_part().unwrap(), Some(Kind::Packs));
        let read: Vec<Pack> = std::iter::from_fn(|| open.pack().unwrap()).collect();
        assert_eq!(read, packs);
        assert_eq!(open.next_part().unwrap(), Some(Kind::Records));
        let mut n = 0;
        while let Some((key, value)) = open.record().unwrap() {
            assert_eq!((key, value.len()), ((n as u32).to_be_bytes().to_vec(), n % 50));
            n += 1;
        }
        assert_eq!(n, 400);
        assert_eq!(open.next_part().unwrap(), Some(Kind::Keys));
        open.keys().unwrap();
        assert_eq!(open.next_part().unwrap(), Some(Kind::End));
        let (totals, _) = open.end().unwrap();
        assert_eq!(
            (totals.references, totals.packs, totals.pack_bytes, totals.records),
            (2, 2, 300, 400)
        );
    }

    #[test]
    fn a_list_out_of_order_is_damage() {
        let mut parts = Parts::new(Vec::new(), &head()).unwrap();
        parts.begin_records().unwrap();
        parts.record(b"b", b"").unwrap();
        parts.record(b"a", b"").unwrap();
        let file = parts.finish().unwrap().0;
        let mut open = Open::new(&*file).unwrap();
        open.next_part().unwrap();
        open.record().unwrap();
        assert!(open.record().unwrap_err().is_damage());
    }

    #[test]
    fn a_part_that_was_left_out_is_missed_at_the_end() {
        let mut parts = Parts::new(Vec::new(), &head()).unwrap();
        parts.begin_records().unwrap();
        parts.record(b"a", b"1").unwrap();
        let file = parts.finish().unwrap().0;
        let mut open = Open::new(&*file).unwrap();
        while open.next_part().unwrap() != Some(Kind::End) {}
        assert!(open.end().unwrap_err().is_damage(), "the records were not read");
    }
}

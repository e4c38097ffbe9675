use super::*;
use crate::applicability::Catalogue;
use jiff::Timestamp;
use packager::SiteKey;
use std::collections::BTreeMap;
use sync::name::UpdateId;
use sync::shard::Entry;
use sync::shard::blob::pack;
use sync::shard::manifest::{FORMAT, Listed, Shard};
use sync::update::Update;

fn id(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

fn key() -> SiteKey {
    SiteKey::from_seed([3; 32])
}

/// An update point with one page for each platform, and one shard on it.
#[derive(Default)]
struct Point {
    signed: Option<SignedManifest>,
    blobs: BTreeMap<Name, Vec<u8>>,
    asked: Vec<String>,
    breaks_after: Option<usize>,
}

impl Point {
    fn publish(&mut self, seq: u64, updates: &[(Platform, u32, u32)]) {
        let mut pages = Vec::new();
        for platform in [Platform::Any, Platform::Dpkg, Platform::Rpm] {
            let lines = updates.iter().filter(|it| it.0 == platform).map(|(_, n, revision)| {
                let update = Update::new(id(*n), &format!("U-{n}"), "t", Timestamp::UNIX_EPOCH);
                [Entry::of(*revision, update).line().unwrap(), b"\n".to_vec()].concat()
            });
            let plain: Vec<u8> = lines.flatten().collect();
            let shard = Shard { prefix: String::new(), part: self.put(&plain) };
            let part = self.put(&Page { shards: vec![shard] }.bytes());
            pages.push(Listed { platform, product: String::new(), prefix: String::new(), part });
        }
        let updates = updates.len() as u64;
        let catalogue = "c".into();
        let manifest = Manifest { format: FORMAT, catalogue, seq, updates, left_out: 0, pages };
        let text = manifest.text();
        let signature = key().sign_document(Document::Catalogue, text.as_bytes());
        self.signed = Some(SignedManifest { catalogue: text, signature });
    }

    fn put(&mut self, plain: &[u8]) -> Part {
        let blob = Name::of(plain);
        self.blobs.insert(blob, pack(plain).unwrap());
        Part { blob, bytes: plain.len() as u64, updates: 1 }
    }
}

impl UpdatePoint for Point {
    type Error = &'static str;

    fn manifest(&mut self, tag: Option<&str>) -> Result<Asked, Self::Error> {
        self.asked.push("manifest".into());
        let signed = self.signed.as_ref().ok_or("nothing yet")?;
        if tag == Some(&signed.tag()) {
            return Ok(Asked::Same);
        }
        Ok(Asked::Bytes(serde_json::to_vec(signed).unwrap()))
    }

    fn blobs(
        &mut self,
        names: &[Name],
        take: &mut dyn FnMut(Name, &[u8]) -> bool,
    ) -> Result<(), Self::Error> {
        for name in names {
            if let Some(left) = &mut self.breaks_after {
                *left = left.checked_sub(1).ok_or("broken off")?;
            }
            self.asked.push(name.to_string());
            if !take(*name, self.blobs.get(name).ok_or("not there")?) {
                break;
            }
        }
        Ok(())
    }
}

fn shelf(folder: &Path) -> Shelf {
    Shelf::open(folder, key().public()).unwrap()
}

fn held(shelf: &Shelf) -> BTreeMap<UpdateId, u32> {
    let mut all = BTreeMap::new();
    let shelved = shelf.shelved(Platform::Dpkg).unwrap();
    shelved.each(|entry| drop(entry.map(|it| all.insert(it.update.id, it.revision)))).unwrap();
    all
}

const UPDATES: [(Platform, u32, u32); 3] =
    [(Platform::Any, 1, 1), (Platform::Dpkg, 2, 1), (Platform::Rpm, 3, 1)];

#[test]
fn what_the_machine_needs_is_brought_once_and_then_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    assert!(shelf.shelved(Platform::Dpkg).is_err());
    point.publish(1, &UPDATES);
    let first = shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    assert_eq!((first.is_new, first.blobs), (true, 4), "two pages, two shards");
    assert_eq!(held(&shelf), BTreeMap::from([(id(1), 1), (id(2), 1)]));
    point.asked.clear();
    assert_eq!(shelf.refresh(&mut point, Platform::Dpkg).unwrap(), Refreshed::default());
    assert_eq!(point.asked, ["manifest"]);
    // Another update point, which has the same.
    let mut other = Point::default();
    other.publish(1, &UPDATES);
    assert_eq!(shelf.refresh(&mut other, Platform::Dpkg).unwrap(), Refreshed::default());

    let mut changed = UPDATES;
    changed[1].2 = 2;
    point.publish(2, &changed);
    let second = shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    assert_eq!((second.is_new, second.blobs), (true, 2), "a page and a shard");
    assert_eq!(held(&shelf)[&id(2)], 2);
    let blobs = fs::read_dir(folder.path().join("blobs")).unwrap().count();
    assert_eq!(blobs, 4, "what is of no use any more is gone");
    // One that is behind takes nothing back.
    shelf.refresh(&mut other, Platform::Dpkg).unwrap();
    assert_eq!(held(&shelf)[&id(2)], 2);
    let again = Shelf::open(folder.path(), key().public()).unwrap();
    assert_eq!(held(&again), held(&shelf));
}

#[test]
fn one_that_breaks_off_leaves_the_catalogue_before_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    point.publish(1, &UPDATES);
    shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    let before = held(&shelf);
    let mut changed = UPDATES;
    (changed[0].2, changed[1].2) = (2, 2);
    point.publish(2, &changed);
    for cut in 0..4 {
        point.breaks_after = Some(1);
        let broken = shelf.refresh(&mut point, Platform::Dpkg);
        if cut < 3 {
            assert!(matches!(broken, Err(RefreshError::Asking("broken off"))), "{broken:?}");
            assert_eq!(held(&shelf), before);
        } else {
            assert!(broken.unwrap().is_new, "what came before was not asked for again");
        }
    }
    assert_eq!(held(&shelf)[&id(1)], 2);
}

#[test]
fn what_is_not_the_sites_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    point.publish(1, &UPDATES);
    let good = point.signed.clone().unwrap();
    let text = good.catalogue.replace("\"seq\":1", "\"seq\":9");
    point.signed = Some(SignedManifest { catalogue: text, ..good.clone() });
    let error = shelf.refresh(&mut point, Platform::Dpkg).unwrap_err();
    assert!(matches!(error, RefreshError::Manifest(ManifestError::NotProven(_))), "{error:?}");
    point.signed = Some(good);
    let other = point.blobs.values().next().unwrap().clone();
    point.blobs.values_mut().for_each(|packed| packed.clone_from(&other));
    let error = shelf.refresh(&mut point, Platform::Dpkg).unwrap_err();
    assert!(matches!(error, RefreshError::Blob(_)), "{error:?}");
    assert!(shelf.manifest().is_none());
}

#[test]
fn what_is_damaged_on_the_disk_is_brought_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    point.publish(1, &UPDATES);
    shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    let before = held(&shelf);
    for blob in fs::read_dir(folder.path().join("blobs")).unwrap() {
        let path = blob.unwrap().path();
        let sound = fs::read(&path).unwrap();
        fs::write(&path, &sound[..sound.len() / 2]).unwrap();
        let read = || shelf.shelved(Platform::Dpkg)?.each(|_| {});
        assert_eq!(read().unwrap_err().kind(), ErrorKind::NotFound);
        let again = shelf.refresh(&mut point, Platform::Dpkg).unwrap();
        assert_eq!((again.is_new, again.blobs), (false, 1));
        assert_eq!(held(&shelf), before);
    }
}

#[test]
fn once_something_is_found_damaged_all_that_is_comes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    point.publish(1, &UPDATES);
    let all = shelf.refresh(&mut point, Platform::Dpkg).unwrap().blobs;
    let before = held(&shelf);
    for blob in fs::read_dir(folder.path().join("blobs")).unwrap() {
        fs::write(blob.unwrap().path(), "damaged").unwrap();
    }
    shelf.doubt();
    let again = shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    assert_eq!((again.is_new, again.blobs), (false, all));
    assert_eq!(held(&shelf), before);
}

#[test]
fn an_update_is_found_by_its_id_and_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shelf, mut point) = (shelf(folder.path()), Point::default());
    point.publish(1, &UPDATES);
    shelf.refresh(&mut point, Platform::Dpkg).unwrap();
    let shelved = shelf.shelved(Platform::Dpkg).unwrap();
    assert_eq!(shelved.update(id(2)).unwrap().name, "U-2");
    assert_eq!(shelved.update(id(3)), None, "it is for others");
    for what in ["u-2".to_owned(), id(2).0.to_string()] {
        assert_eq!(shelved.find(&what).unwrap()[0].update.id, id(2));
    }
}

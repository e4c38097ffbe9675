use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write;

const LIFE: Life = life(7);
/// The catalogue's place.
const SEQ: u64 = 40;

const fn life(n: u64) -> Life {
    Life(NonZeroU64::new(n).unwrap())
}

fn id(n: u8) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

fn known(state: State) -> Known {
    Known { state, revision: 1, awaits_restart: false }
}

fn found(states: &[(u8, State)]) -> BTreeMap<UpdateId, Known> {
    states.iter().map(|(n, state)| (id(*n), known(*state))).collect()
}

fn now() -> Timestamp {
    "2026-11-27T00:00:00Z".parse().unwrap()
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger")
    }

    fn open(&self, life: Life) -> Ledger {
        Ledger::open(&self.path(), life).unwrap()
    }
}

/// The site, as it would be.
#[derive(Default)]
struct Site {
    life: Option<Life>,
    states: BTreeMap<UpdateId, Known>,
    next: u64,
}

impl Site {
    /// Takes a batch in; false, if there is a gap before it.
    fn take(&mut self, batch: &Batch) -> bool {
        assert!(batch.first < batch.next, "it covers one number at least");
        match &batch.content {
            Content::All(all) => {
                if Some(batch.life) != self.life || batch.next > self.next {
                    self.states = all.iter().map(|(update, held)| (*update, held.known)).collect();
                    (self.life, self.next) = (Some(batch.life), batch.next);
                }
            }
            Content::Changes(changes) => {
                if Some(batch.life) != self.life || batch.first > self.next {
                    return false;
                }
                for change in changes.values().filter(|change| change.number >= self.next) {
                    match change.known {
                        Some(known) => drop(self.states.insert(change.update, known)),
                        None => drop(self.states.remove(&change.update)),
                    }
                }
                self.next = self.next.max(batch.next);
            }
        }
        true
    }
}

fn known_by(ledger: &Ledger) -> BTreeMap<UpdateId, Known> {
    ledger.states().iter().map(|(update, held)| (*update, held.known)).collect()
}

#[test]
fn only_what_changed_and_that_a_scan_ended_become_messages() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    assert_eq!(ledger.batch(), None);
    let first = found(&[(1, State::Required), (2, State::NotRequired)]);
    assert_eq!(ledger.record(&first, SEQ, now()).unwrap(), 2);
    let batch = ledger.batch().unwrap();
    assert!(matches!(&batch.content, Content::All(all) if all.len() == 2));
    assert_eq!((batch.first, batch.next), (0, 3));
    ledger.acknowledged(LIFE, batch.next).unwrap();
    assert_eq!((ledger.batch(), ledger.waiting()), (None, 0));

    assert_eq!(ledger.record(&first, SEQ, now()).unwrap(), 0);
    let batch = ledger.batch().unwrap();
    assert!(matches!(&batch.content, Content::Changes(changes) if changes.is_empty()));
    assert_eq!((batch.first, batch.next), (3, 4), "that it was scanned is news");

    let second = found(&[(1, State::Installed), (3, State::Unknown)]);
    assert_eq!(ledger.record(&second, SEQ, now()).unwrap(), 3);
    ledger.record_failure(9, now()).unwrap();
    let Batch { content: Content::Changes(changes), first, next, scan, .. } =
        ledger.batch().unwrap()
    else {
        panic!()
    };
    assert_eq!((changes.len(), first, next), (3, 3, 9));
    assert_eq!(changes[&id(2)].known, None, "it is in no catalogue now");
    let scan = scan.unwrap();
    assert_eq!((scan.failed, scan.completed, scan.catalogue), (Some(9), Some(now()), SEQ));
    ledger.acknowledged(LIFE, 4).unwrap();
    let Content::Changes(changes) = ledger.batch().unwrap().content else { panic!() };
    assert_eq!(changes.len(), 3);
    // A word that comes twice, or of another life, says nothing.
    ledger.acknowledged(LIFE, 4).unwrap();
    ledger.acknowledged(life(9), 9).unwrap();
    assert_eq!(ledger.waiting(), 5);
    ledger.acknowledged(LIFE, 9).unwrap();
    assert_eq!(ledger.batch(), None);
}

#[test]
fn a_site_that_has_more_than_was_said_is_told_all_beyond_it() {
    // The store was put back from a backup.
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), SEQ, now()).unwrap();
    ledger.acknowledged(LIFE, 40).unwrap();
    let batch = ledger.batch().unwrap();
    assert!(matches!(batch.content, Content::All(_)));
    assert_eq!((batch.first, batch.next), (40, 41));
    // Asked for all when it has nothing new to say, it takes a number for it.
    ledger.acknowledged(LIFE, 41).unwrap();
    ledger.owe_all().unwrap();
    assert_eq!((ledger.batch().unwrap().first, ledger.batch().unwrap().next), (41, 42));
}

#[test]
fn what_was_recorded_is_there_when_it_is_opened_again() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), SEQ, now()).unwrap();
    ledger.acknowledged(LIFE, 1).unwrap();
    ledger.record(&found(&[(1, State::Installed), (2, State::Required)]), SEQ, now()).unwrap();
    let (book, batch) = (ledger.book.clone(), ledger.batch());
    drop(ledger);
    let ledger = place.open(life(8));
    assert_eq!((&ledger.book, ledger.batch()), (&book, batch));
    assert_eq!(ledger.life(), LIFE);
}

#[test]
fn a_record_that_was_cut_off_anywhere_never_was() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), SEQ, now()).unwrap();
    let (before, book) = (fs::metadata(place.path()).unwrap().len(), ledger.book.clone());
    ledger.record(&found(&[(1, State::Installed)]), SEQ, now()).unwrap();
    let bytes = fs::read(place.path()).unwrap();
    for end in before as usize + 1..bytes.len() {
        fs::write(place.path(), &bytes[..end]).unwrap();
        let mut opened = place.open(life(8));
        assert_eq!(opened.book, book, "cut at {end}");
        // And it goes on from there.
        opened.record(&found(&[(2, State::Unknown)]), SEQ, now()).unwrap();
        let book = opened.book.clone();
        assert_eq!(place.open(life(9)).book, book);
    }
}

#[test]
fn after_damage_all_is_told_in_a_new_life() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), SEQ, now()).unwrap();
    ledger.acknowledged(LIFE, 1).unwrap();
    let sound = fs::metadata(place.path()).unwrap().len() as usize;
    ledger.record(&found(&[(1, State::Installed)]), SEQ, now()).unwrap();
    let bytes = fs::read(place.path()).unwrap();
    for at in sound..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        fs::write(place.path(), &damaged).unwrap();
        let opened = place.open(life(8));
        assert_eq!(opened.life(), life(8), "damaged at {at}");
        let Content::All(all) = opened.batch().unwrap().content else { panic!() };
        let all: Vec<_> = all.iter().map(|(update, held)| (*update, held.known)).collect();
        assert_eq!(all, [(id(1), known(State::Required))]);
    }
}

#[test]
fn another_file_is_left_as_it_is() {
    let place = Place::new();
    fs::File::create(place.path()).unwrap().write_all(b"something else").unwrap();
    let told = Ledger::open(&place.path(), LIFE).unwrap_err().to_string();
    assert!(told.contains("delete it"), "{told}");
    assert_eq!(fs::read(place.path()).unwrap(), b"something else");
}

#[test]
fn too_many_messages_give_way_to_all_states() {
    let mut book = Book::new(LIFE);
    let change = |number: u64| Change {
        number,
        update: id((number % 3) as u8),
        revision: 1,
        known: Some(known(State::Required)),
        found: now(),
    };
    let end = ScanEnd { at: now(), failed: None, completed: None, catalogue: SEQ };
    book.apply(Record::Scan { changes: vec![change(0)], end });
    book.apply(Record::Acknowledged(2));
    assert_eq!(book.owes_all, None);
    let changes = (2..=MAX_WAITING as u64 + 2).map(change).collect();
    book.apply(Record::Scan { changes, end });
    assert_eq!((book.waiting.len(), book.owes_all), (0, Some(book.next)));
    // The word on a batch that was sent before does not settle it.
    book.apply(Record::Acknowledged(5));
    assert!(book.owes_all.is_some());
}

#[test]
fn the_file_stays_small() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    for round in 0..400 {
        let state = if round % 2 == 0 { State::Required } else { State::Installed };
        let all: Vec<_> = (0..60).map(|n| (n, state)).collect();
        ledger.record(&found(&all), SEQ, now()).unwrap();
        let last = ledger.batch().unwrap().next;
        ledger.acknowledged(LIFE, last).unwrap();
    }
    assert!(fs::metadata(place.path()).unwrap().len() < 2 << 20);
    let book = ledger.book.clone();
    drop(ledger);
    assert_eq!(place.open(life(8)).book, book);
}

#[derive(Clone, Debug)]
enum Event {
    Scan(Vec<(u8, u8)>),
    /// Sends, and whether the batch arrives, and the answer does.
    Send(bool, bool),
    Restart,
    Resync,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn the_site_comes_to_know_what_the_client_knows(events in prop::collection::vec(prop_oneof![
        3 => prop::collection::vec((0..12u8, 0..4u8), 0..12).prop_map(Event::Scan),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Event::Send(a, b)),
        1 => Just(Event::Restart),
        1 => Just(Event::Resync),
    ], 1..25)) {
        let states = [State::Unknown, State::NotRequired, State::Required, State::Installed];
        let (place, mut site) = (Place::new(), Site::default());
        let mut ledger = place.open(LIFE);
        let mut truth = BTreeMap::new();
        for event in events {
            match event {
                Event::Scan(scan) => {
                    truth = scan.iter().map(|(n, s)| (id(*n), known(states[*s as usize]))).collect();
                    ledger.record(&truth, SEQ, now()).unwrap();
                }
                Event::Send(arrives, answered) => {
                    let Some(batch) = ledger.batch() else { continue };
                    if arrives && site.take(&batch) && answered {
                        ledger.acknowledged(batch.life, batch.next).unwrap();
                    }
                }
                Event::Restart => {
                    drop(ledger);
                    ledger = place.open(life(99));
                }
                Event::Resync => ledger.owe_all().unwrap(),
            }
        }
        while let Some(batch) = ledger.batch() {
            prop_assert!(site.take(&batch), "no gap: {batch:?}");
            ledger.acknowledged(batch.life, batch.next).unwrap();
        }
        prop_assert_eq!(&known_by(&ledger), &truth);
        prop_assert_eq!(site.states, truth);
    }
}

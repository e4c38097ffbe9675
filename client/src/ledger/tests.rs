use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write;

const LIFE: Life = Life(7);

fn id(n: u8) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

fn known(state: State) -> Known {
    Known { state, awaits_restart: false }
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
    last: u64,
}

impl Site {
    /// Takes a batch in; false, if there is a gap before it.
    fn take(&mut self, batch: &Batch) -> bool {
        match &batch.content {
            Content::All(all) => {
                if Some(batch.life) != self.life || batch.last >= self.last {
                    self.states = all.iter().copied().collect();
                    (self.life, self.last) = (Some(batch.life), batch.last);
                }
            }
            Content::Changes(changes) => {
                let first = changes[0].number;
                if Some(batch.life) != self.life || first > self.last + 1 {
                    return false;
                }
                let before = self.last;
                for change in changes.iter().filter(|change| change.number > before) {
                    match change.known {
                        Some(known) => drop(self.states.insert(change.update, known)),
                        None => drop(self.states.remove(&change.update)),
                    }
                    self.last = change.number;
                }
            }
        }
        true
    }
}

#[test]
fn only_what_changed_becomes_a_message() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    assert_eq!(ledger.batch(100), None);
    let first = found(&[(1, State::Required), (2, State::NotRequired)]);
    assert_eq!(ledger.record(&first, now()).unwrap(), 2);
    let batch = ledger.batch(100).unwrap();
    assert!(matches!(&batch.content, Content::All(all) if all.len() == 2));
    ledger.acknowledged(LIFE, batch.last).unwrap();
    assert_eq!((ledger.batch(100), ledger.waiting()), (None, 0));

    assert_eq!(ledger.record(&first, now()).unwrap(), 0);
    let second = found(&[(1, State::Installed), (3, State::Unknown)]);
    assert_eq!(ledger.record(&second, now()).unwrap(), 3);
    let Batch { content: Content::Changes(changes), last, is_more, .. } = ledger.batch(2).unwrap()
    else {
        panic!()
    };
    assert_eq!((changes.len(), last, is_more), (2, 4, true));
    assert_eq!(changes[0].number, 3);
    ledger.acknowledged(LIFE, 4).unwrap();
    let rest = ledger.batch(100).unwrap();
    let Content::Changes(changes) = &rest.content else { panic!() };
    assert_eq!((changes[0].update, changes[0].known), (id(2), None), "it is in no catalogue now");
    // A word that comes twice, or of another life, says nothing.
    ledger.acknowledged(LIFE, 4).unwrap();
    ledger.acknowledged(Life(9), 5).unwrap();
    assert_eq!(ledger.waiting(), 1);
}

#[test]
fn what_was_recorded_is_there_when_it_is_opened_again() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), now()).unwrap();
    ledger.acknowledged(LIFE, 1).unwrap();
    ledger.record(&found(&[(1, State::Installed), (2, State::Required)]), now()).unwrap();
    let (book, batch) = (ledger.book.clone(), ledger.batch(10));
    drop(ledger);
    let ledger = place.open(Life(8));
    assert_eq!((&ledger.book, ledger.batch(10)), (&book, batch));
    assert_eq!(ledger.life(), LIFE);
}

#[test]
fn a_record_that_was_cut_off_anywhere_never_was() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), now()).unwrap();
    let (before, book) = (fs::metadata(place.path()).unwrap().len(), ledger.book.clone());
    ledger.record(&found(&[(1, State::Installed)]), now()).unwrap();
    let bytes = fs::read(place.path()).unwrap();
    for end in before as usize + 1..bytes.len() {
        fs::write(place.path(), &bytes[..end]).unwrap();
        let mut opened = place.open(Life(8));
        assert_eq!(opened.book, book, "cut at {end}");
        // And it goes on from there.
        opened.record(&found(&[(2, State::Unknown)]), now()).unwrap();
        let book = opened.book.clone();
        assert_eq!(place.open(Life(9)).book, book);
    }
}

#[test]
fn after_damage_all_is_told_in_a_new_life() {
    let place = Place::new();
    let mut ledger = place.open(LIFE);
    ledger.record(&found(&[(1, State::Required)]), now()).unwrap();
    ledger.acknowledged(LIFE, 1).unwrap();
    let sound = fs::metadata(place.path()).unwrap().len() as usize;
    ledger.record(&found(&[(1, State::Installed)]), now()).unwrap();
    let bytes = fs::read(place.path()).unwrap();
    for at in sound..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        fs::write(place.path(), &damaged).unwrap();
        let opened = place.open(Life(8));
        assert_eq!(opened.life(), Life(8), "damaged at {at}");
        let Content::All(all) = opened.batch(1).unwrap().content else { panic!() };
        assert_eq!(all, [(id(1), known(State::Required))]);
    }
}

#[test]
fn another_file_is_left_as_it_is() {
    let place = Place::new();
    fs::File::create(place.path()).unwrap().write_all(b"something else").unwrap();
    let told = Ledger::open(&place.path(), LIFE).unwrap_err().to_string();
    assert!(told.contains("is no ledger"), "{told}");
    assert_eq!(fs::read(place.path()).unwrap(), b"something else");
}

#[test]
fn too_many_messages_give_way_to_all_states() {
    let mut book = Book::new(LIFE);
    let change = |number: u64| Change {
        number,
        update: id((number % 3) as u8),
        known: Some(known(State::Required)),
        found: now(),
    };
    book.apply(Record::Changes(vec![change(1)]));
    book.apply(Record::Acknowledged(1));
    assert_eq!(book.owes_all, None);
    book.apply(Record::Changes((2..=MAX_WAITING as u64 + 2).map(change).collect()));
    assert_eq!((book.waiting.len(), book.owes_all), (0, Some(book.last)));
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
        ledger.record(&found(&all), now()).unwrap();
        let last = ledger.batch(1_000).unwrap().last;
        ledger.acknowledged(LIFE, last).unwrap();
    }
    assert!(fs::metadata(place.path()).unwrap().len() < 2 << 20);
    let book = ledger.book.clone();
    drop(ledger);
    assert_eq!(place.open(Life(8)).book, book);
}

#[derive(Clone, Debug)]
enum Event {
    Scan(Vec<(u8, u8)>),
    /// Sends, and whether the batch arrives, and the answer does.
    Send(bool, bool, usize),
    Restart,
    Resync,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn the_site_comes_to_know_what_the_client_knows(events in prop::collection::vec(prop_oneof![
        3 => prop::collection::vec((0..12u8, 0..4u8), 0..12).prop_map(Event::Scan),
        4 => (any::<bool>(), any::<bool>(), 1..5usize).prop_map(|(a, b, n)| Event::Send(a, b, n)),
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
                    ledger.record(&truth, now()).unwrap();
                }
                Event::Send(arrives, answered, most) => {
                    let Some(batch) = ledger.batch(most) else { continue };
                    if arrives && site.take(&batch) && answered {
                        ledger.acknowledged(batch.life, batch.last).unwrap();
                    }
                }
                Event::Restart => {
                    drop(ledger);
                    ledger = place.open(Life(99));
                }
                Event::Resync => ledger.owe_all().unwrap(),
            }
        }
        while let Some(batch) = ledger.batch(3) {
            prop_assert!(site.take(&batch), "no gap: {batch:?}");
            ledger.acknowledged(batch.life, batch.last).unwrap();
        }
        prop_assert_eq!(ledger.states(), &truth);
        prop_assert_eq!(site.states, truth);
    }
}

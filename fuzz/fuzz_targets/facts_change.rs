//! Changes of facts, one a line, as a client sends them: each is taken or refused, and what was taken reads
//! back the same from the rows, from the index, and told a second time.
#![no_main]

use compliance::fleet::{Enrolment, FactsChange, Fingerprint, Packages, Standing};
use compliance::message::ClientId;
use compliance::{Compliance, Settings};
use jiff::Timestamp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let db = sitedb::Db::in_memory();
    let site = Compliance::open(db.clone(), Settings::default()).expect("an empty one");
    let id: ClientId = "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199".parse().expect("an id");
    let key = Fingerprint([1; 32]);
    let new = Enrolment { id, key, name: "a".into(), standing: Standing::Approved };
    let client = site.enrol(new, Timestamp::UNIX_EPOCH).expect("the first");
    let mut said = Packages::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(change) = serde_json::from_slice::<FactsChange>(line) else { continue };
        let again = change.clone();
        let Ok(revision) = site.change_facts(client, change, Timestamp::UNIX_EPOCH) else { continue };
        if again.base == 0 {
            said.clear();
        }
        again.packages.into_iter().for_each(|packages| packages.apply(&mut said));
        assert_eq!(site.packages(client).expect("read").unwrap_or_default(), said);
        assert_eq!(site.facts(client).expect("read").expect("told").revision, revision);
        let index = site.index();
        let names: Vec<_> = index.names_installed_on(index.fleet()).collect();
        assert!(names.into_iter().eq(said.keys()));
    }
    let _ = site.checkpoint();
    let site = Compliance::open(db, Settings::default()).expect("it was written");
    assert_eq!(site.packages(client).expect("read").unwrap_or_default(), said);
});

//! The advisories of an RPM repository.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut skipped = sync::adapter::Skipped::default();
    drop(sync::rpm::updateinfo::read(bytes, &mut skipped, |_, _| Ok(())));
});

//! The packages of an RPM repository, and what they provide and require.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut skipped = sync::adapter::Skipped::default();
    drop(sync::rpm::primary::read(bytes, &mut skipped, |package, element| {
        sync::rpm::closure::fuzz_element(&package, &String::from_utf8_lossy(element));
        Ok(())
    }));
});

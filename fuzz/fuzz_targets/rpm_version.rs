//! Two versions of RPM packages: they compare the same from both sides.
#![no_main]

libfuzzer_sys::fuzz_target!(|pair: (&str, &str)| {
    let order = sync::rpm::evr::compare(pair.0, pair.1);
    assert_eq!(order, sync::rpm::evr::compare(pair.1, pair.0).reverse());
});

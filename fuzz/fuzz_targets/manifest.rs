//! A manifest from the wire: what is taken is canonical, and its tree can be walked.
#![no_main]

use packager::Manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    assert_eq!(manifest.encode(), bytes);
    for entry in manifest.entries().take(100) {
        assert!(manifest.lookup(entry.path).is_some());
        if let Some(children) = manifest.children(entry.path) {
            children.take(10).for_each(drop);
        }
    }
});

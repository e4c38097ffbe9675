//! A list of files on demand: what is read is found again by its path, and its folders can be listed.
#![no_main]

use packager::on_demand::OnDemand;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(list) = OnDemand::parse(bytes.to_vec()) else { return };
    assert_eq!(list.text(), bytes);
    for file in list.files().take(100) {
        assert_eq!(list.lookup(file.path), Some(file));
        let folder = file.path.rsplit(|&b| b == b'/').nth(1).unwrap_or_default();
        assert!(!list.children(b"").is_empty());
        list.children(folder);
    }
});

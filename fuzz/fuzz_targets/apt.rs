//! What a Debian archive serves: stanzas, Release, packages, patches, a tracker's lists. The first byte
//! says which.
#![no_main]

use sync::apt::deb822::Stanzas;
use sync::apt::packages::Package;
use sync::apt::pdiff::{Index, Script};
use sync::apt::release::Release;
use sync::apt::tracker::Tracker;
use sync::apt::version;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => drop(Release::parse(bytes)),
        1 => {
            let mut stanzas = Stanzas::with_limit(bytes, 4_096);
            while let Ok(Some(stanza)) = stanzas.next_stanza() {
                if let Ok(package) =
                    stanza.map_err(drop).and_then(|it| Package::of(it).map_err(drop))
                {
                    let _ = package.digests();
                    assert!(version::compare(package.version, package.version).is_eq());
                }
            }
        }
        2 => drop(Index::parse(bytes)),
        3 => {
            if let Ok(script) = Script::parse(bytes) {
                let _ = script.apply(&b"a\nb\nc\n"[..], std::io::sink());
            }
        }
        _ => {
            let mut tracker = Tracker::new("bookworm");
            let _ = tracker.read(bytes, "it");
            let _ = tracker.advice("vlc", "1", None);
        }
    }
});

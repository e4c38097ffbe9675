//! What a server answers a client, and the addresses that people give one. The first byte chooses what it
//! is.
#![no_main]

use dp::Coming;
use dp::field::{JoinAnswer, Tree};
use dp::locate::base_url;
use dp::remote::{Located, PackageAddress};
use packager::VersionInfo;
use packager::sign::SiteKey;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => drop(serde_json::from_slice::<Located>(bytes)),
        1 => {
            // Nobody signed it.
            if let Ok(version) = serde_json::from_slice::<VersionInfo>(bytes) {
                assert!(version.verify(&SiteKey::from_seed([1; 32]).public()).is_err());
            }
        }
        2 => drop(serde_json::from_slice::<Coming>(bytes)),
        3 => drop(serde_json::from_slice::<Tree>(bytes).map(|tree| tree.root())),
        4 => drop(serde_json::from_slice::<JoinAnswer>(bytes)),
        5 => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(address) = PackageAddress::parse(text) {
                let PackageAddress { server, package, selector } = &address;
                let again = format!("{server}packages/{package}/{selector}");
                assert_eq!(PackageAddress::parse(&again).as_ref(), Ok(&address));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Some(url) = base_url(text) {
                assert_eq!(base_url(&url), Some(url));
            }
        }
    }
});

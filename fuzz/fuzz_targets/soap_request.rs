//! What a downstream server asks of this one: whatever comes is answered with a message that reads back, or
//! with a fault that does.
#![no_main]

use std::collections::BTreeSet;
use sync::error::SyncError;
use sync::name::UpdateId;
use sync::wsus::messages::{FileUrl, Identity, ServerLanguage, UpdateData};
use sync::wsus::server::{Shelf, Shelved, fuzz_request};

/// A shelf that has whatever it is asked for, and lists two updates.
struct Everything;

impl Shelf for Everything {
    fn seq(&self) -> u64 {
        7
    }
    fn all(&self) -> Result<Vec<Shelved>, SyncError> {
        let id = |name| UpdateId::named(&[name]);
        let update = |name, is_config| Shelved {
            identity: Identity { id: id(name), revision: 1 },
            seq: 3,
            is_config,
            categories: BTreeSet::from([id("category")]),
            classification: Some(id("classification")),
            // Of itself, as no honest one is.
            bundles: vec![id(name)],
        };
        Ok(vec![update("category", true), update("update", false)])
    }
    fn document(&self, of: Identity) -> Result<Option<(UpdateData, Vec<FileUrl>)>, SyncError> {
        Ok(Some((UpdateData { identity: of, xml: "<Update/>".into(), files: Vec::new() }, vec![])))
    }
    fn knows_file(&self, digest: &str) -> Result<bool, SyncError> {
        Ok(digest.len() < 4)
    }
    fn languages(&self) -> Vec<ServerLanguage> {
        Vec::new()
    }
    fn is_over_tls(&self) -> bool {
        true
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_request(bytes, &Everything));

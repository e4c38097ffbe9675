//! The document of an update, as a WSUS hands it on: read or refused, and written again if read.
#![no_main]

use std::collections::HashMap;
use sync::wsus::{document, write};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(document) = document::read(text, &HashMap::new()) else { return };
    let mut update = document.update().clone();
    update.original = None;
    let Ok(written) = write::write(&update, 1) else { return };
    for one in written {
        document::read(&one.text, &HashMap::new()).expect("what is written is a document");
    }
});

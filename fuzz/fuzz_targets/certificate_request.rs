//! A certificate request from anybody, as PEM or as the DER inside of it: it is refused, or has a key.
#![no_main]

use dp::identity::requested_key;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = match bytes.strip_prefix(b"-") {
        Some(_) => String::from_utf8_lossy(bytes).into_owned(),
        None => pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes)),
    };
    let _ = requested_key(&text);
});

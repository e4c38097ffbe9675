//! A keyring, and a document that may be signed by one of its keys. None here is, so that what comes
//! through as signed would be forged.
#![no_main]

use jiff::Timestamp;
use std::sync::LazyLock;
use sync::openpgp::{Keyring, SigningKey};

static NOW: LazyLock<Timestamp> =
    LazyLock::new(|| Timestamp::from_second(1 << 30).unwrap_or_default());
static TRUSTED: LazyLock<Keyring> = LazyLock::new(|| {
    let key = SigningKey::new([1; 32], "x", *NOW).expect("a good time");
    Keyring::parse(&key.public_bytes().expect("to memory")).expect("a key of ours")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Keyring::parse(bytes);
    assert!(TRUSTED.signed_text(bytes, *NOW).is_err());
    let (data, signatures) = bytes.split_at(bytes.len() / 2);
    assert!(TRUSTED.signer_of(data, signatures, *NOW).is_err());
});

//! What points and site say to each other, from the wire or a person's hand: what is taken is said
//! again in the same way. The first byte chooses what it is.
#![no_main]

use dp::field::{JoinRequest, JoinToken, Report, Wish};
use serde::{Serialize, de::DeserializeOwned};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => same::<Wish>(bytes),
        1 => same::<Report>(bytes),
        2 => same::<JoinRequest>(bytes),
        _ => {
            let Some(token) = std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()) else {
                return;
            };
            let token: JoinToken = token;
            assert!(token.to_string().parse() == Ok(token));
        }
    }
});

fn same<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let said = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&said).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), said);
}

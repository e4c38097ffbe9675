//! The body that brings recipes to an upload: what is taken is said again in the same bytes.
#![no_main]

use api::routes::uploads::{encode_recipes, parse_recipes};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(recipes) = parse_recipes(bytes) {
        let again = encode_recipes(recipes.iter().map(|(digest, recipe)| (*digest, recipe)));
        assert_eq!(again, bytes);
    }
});

//! A filter of the catalogue from somebody: it is read or refused, and what was read reads back from what
//! it is written as.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(filter) = text.parse::<sync::filter::Filter>() {
        assert_eq!(filter.to_string().parse(), Ok(filter));
    }
});

//! A package of Updates Publisher: what is read of it is written so that it reads as the same.
#![no_main]

use sync::sdp::{package, write};
use sync::xml;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(element) = xml::parse(text) else { return };
    let Ok(first) = package::read(&element) else { return };
    let products = first.product.as_slice();
    let Ok(text) = write::write(&first.update, products) else { return };
    let again = xml::parse(&text).expect("what is written is XML");
    package::read(&again).expect("what is written is a package");
});

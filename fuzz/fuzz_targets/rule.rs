//! A rule: what is read in one form comes back from every form.
#![no_main]

use sync::rule::xml::{self as rules, Family};
use sync::xml;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(element) = xml::parse(text) else { return };
    let Ok(rule) = rules::read(&element) else { return };
    for family in [Family::Wsus, Family::Publisher, Family::Fragment] {
        let written = rules::write(&rule, family).expect("it was as deep before");
        // A name of XML that is none of the names that are written ends here.
        let Ok(text) = written.to_xml(rules::PREFIXES) else { return };
        let again = rules::read(&xml::parse(&text).expect("it is XML"));
        // Without namespaces, letters in front of a name mean one.
        if family != Family::Fragment {
            assert_eq!(again.expect("it is a rule"), rule);
        }
    }
});

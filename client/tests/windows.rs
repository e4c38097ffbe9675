//! Windows machines: packages that a vendor publishes, over recorded facts.

#![allow(clippy::unwrap_used, missing_docs)]

use client::applicability::{Assessor, State};
use client::explain::explain;
use client::facts::recorded::Recorded;
use std::collections::HashMap;
use std::fs;
use sync::sdp::package;
use sync::update::Update;
use sync::xml;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sync/tests/data/sdp/hp");

/// The packages of the samples.
fn packages() -> Vec<Update> {
    let files = fs::read_dir(DATA).unwrap().map(|entry| entry.unwrap().path());
    let read = |path| {
        let text = fs::read_to_string(path).unwrap();
        package::read(&xml::parse(text.trim_start_matches('\u{feff}')).unwrap()).unwrap().update
    };
    files.map(read).collect()
}

/// A machine for the controller's driver of package 71430, with the driver in that version, or without it.
fn machine(architecture: u8, driver: Option<&str>) -> Recorded {
    let file = driver.map(|version| {
        format!(r#""C:\\Windows\\System32\\drivers\\iusb3xhc.sys":{{"version":"{version}"}}"#)
    });
    let document = format!(
        r#"{{"os":{{"version":{{"major":6,"minor":1}}}},"processor":{{"architecture":{architecture}}},
        "folders":{{"37":"C:\\Windows\\System32"}},
        "files":{{"files":{{{}}},"whole":["C:\\Windows\\System32\\drivers"]}},
        "wmi":[{{"namespace":"root\\cimv2","rows":1,"query":"select * from Win32_ComputerSystem where
            (Manufacturer='Hewlett-Packard' and not (Model like '%Proliant%')) or (Manufacturer='HP')"}},
          {{"namespace":"root\\cimv2","rows":1,"query":"select * from Win32_BaseBoard where
            Product LIKE '%2129%' or Product LIKE '%212a%' or Product LIKE '%212b%'"}}]}}"#,
        file.unwrap_or_default()
    );
    Recorded::parse(document.replace('\n', " ").as_bytes()).unwrap()
}

#[test]
fn a_driver_is_required_where_it_is_older_or_missing_and_installed_where_it_is_not() {
    let packages = packages();
    let driver = packages.iter().find(|it| it.id.to_string().ends_with("71430")).unwrap();
    let none = HashMap::new();
    for (architecture, version, want, said) in [
        (9, Some("4.0.0.26"), State::Required, "the query finds 1 objects"),
        (9, None, State::Required, "the query finds 1 objects"),
        (9, Some("4.0.0.27"), State::Installed, "the same as that"),
        (9, Some("5.0"), State::Installed, "greater than that"),
        (0, Some("4.0.0.26"), State::NotRequired, "processor 0"),
    ] {
        let facts = machine(architecture, version);
        let mut assessor = Assessor::new(&facts, &none);
        let told = explain(&mut assessor, driver);
        assert_eq!(told.verdict.state, want, "{told}");
        assert!(told.reason().contains(said), "{told}");
    }
}

#[test]
fn of_a_machine_of_which_little_is_recorded_no_package_is_told_to_be_in_order() {
    let (nothing, none) = (Recorded::default(), HashMap::new());
    let mut assessor = Assessor::new(&nothing, &none);
    let packages = packages();
    assert!(packages.len() > 20);
    for package in &packages {
        let verdict = assessor.assess(package);
        assert_eq!(verdict.state, State::Unknown, "{}", package.name);
        assert!(verdict.why.unwrap().contains("not recorded"), "{}", package.name);
    }
}

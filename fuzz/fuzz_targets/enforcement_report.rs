//! What a client tells of deployments: any bytes are read or refused, and what was read is written as it is read.
#![no_main]

use deployment::enforcement::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::read(bytes) {
        let written = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(Report::read(&written), Ok(report));
    }
});

//! What a machine says of itself: dpkg's status file, os-release, recorded facts, a ledger. The first byte
//! says which.
#![no_main]

use client::applicability::rule_holds;
use client::facts::{OsRelease, debian, recorded::Recorded};
use client::ledger::{Ledger, Life};
use sync::rule::xml as rules;

/// A rule that asks of the registry, of files and of versions.
const RULE: &str = r#"<Or><b.FileVersionPrependRegSz Path="a" Comparison="EqualTo" Version="1.0"
    Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\A" Value="B"/><b.RegKeyLoop Key="HKEY_LOCAL_MACHINE"
    Subkey="SOFTWARE\A" TrueIf="Any"><b.RegSz Key="HKEY_LOOP_TARGET" Subkey="" Value="C"
    Comparison="Contains" Data="d"/></b.RegKeyLoop></Or>"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => drop(debian::read(bytes)),
        1 => drop(OsRelease::parse(bytes)),
        2 => {
            if let Ok(recorded) = Recorded::parse(bytes) {
                let rule = sync::xml::parse(RULE).ok().and_then(|it| rules::read(&it).ok());
                rule_holds(&rule.expect("a rule"), &recorded);
            }
        }
        _ => {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("ledger");
            std::fs::write(&path, [b"depotcl1", bytes].concat()).expect("written");
            if let Ok(ledger) = Ledger::open(&path, Life(std::num::NonZeroU64::MIN)) {
                let _ = ledger.batch();
            }
        }
    }
});

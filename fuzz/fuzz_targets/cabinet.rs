//! A cabinet, with its signature: whatever comes is unpacked within its limits, or refused.
#![no_main]

use std::io::Cursor;
use sync::sdp::cab::{Cabinet, Limits};
use sync::sdp::signature;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    signature::read(&mut Cursor::new(bytes)).expect("memory can be read");
    let limits = Limits { members: 100, member: 1 << 20, all: 4 << 20 };
    let Ok(mut cabinet) = Cabinet::open(Cursor::new(bytes), limits) else { return };
    let mut all = 0;
    let _ = cabinet.each(&|_| true, &mut |member, from| {
        let read = std::io::copy(from, &mut std::io::sink());
        all += read.unwrap_or(0);
        assert!(all <= limits.all);
        // Two dots within a name, as in `a..b`, lead nowhere.
        assert!(member.name.as_str().split(['/', '\\']).all(|part| part != ".."));
        Ok(())
    });
});

//! A request for a delta: refused, or read back as the same bytes.
#![no_main]

use dp::DeltaRequest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = DeltaRequest::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
});

//! What strangers write into a request, for the fuzz targets in `fuzz/`.
//!
//! Nothing here may panic, whatever the bytes; what is asserted always holds.

use crate::condition::{Validators, Verdict, evaluate, http_date, is_plain};
use crate::frames;
use crate::range::Wanted;
use crate::target::{PackagePath, Target, decode, encode};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The path of a request: what is taken as a file of a package is a path inside it, and reads back.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let target = Target::parse(text);
    if let Ok(Target::Package(PackagePath { package, selector, path, .. })) = target {
        let is_inside = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
        assert!(path.is_empty() || path.split(|byte| *byte == b'/').all(is_inside));
        let again = Target::parse(&format!("/packages/{package}/{selector}/{}", encode(&path)));
        let is_same = matches!(again, Ok(Target::Package(again)) if again.path == path);
        assert!(is_same, "{text:?}");
    }
    assert_eq!(decode(&encode(bytes)).as_deref(), Ok(bytes));
}

/// What another server of the site says of whose request it is: it reads back.
pub fn caller(bytes: &[u8]) {
    crate::forward::fuzzing(bytes);
}

/// The conditions of a request, a header a line, of a content whose size is the first eight bytes.
pub fn conditions(bytes: &[u8]) {
    const NAMES: [HeaderName; 6] = [
        header::RANGE,
        header::IF_NONE_MATCH,
        header::IF_MATCH,
        header::IF_RANGE,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    let Some((size, lines)) = bytes.split_first_chunk::<8>() else { return };
    let (size, at) = (u64::from_le_bytes(*size), i64::from_le_bytes(*size));
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(&NAMES[usize::from(*name) % NAMES.len()], value);
        }
    }
    let modified = http_date(at).map(|_| at);
    let has = Validators { etag: b"\"blake3:00\"", modified };
    for method in [http::Method::GET, http::Method::HEAD] {
        let verdict = evaluate(&method, &headers, has, size);
        if is_plain(&headers) || headers.is_empty() {
            assert_eq!(verdict, Verdict::Send(Wanted::Whole));
        }
    }
}

/// The body of a request for chunks, in both of its forms.
pub fn chunk_ids(bytes: &[u8]) {
    frames::parse_ids(bytes);
}

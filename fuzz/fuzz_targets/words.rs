//! Names and quantities from paths, files and command lines: what is taken is written again as itself.
#![no_main]

use api::config::{parse_duration, parse_rate};
use contentlib::{Digest, Name};
use dp::field::PointId;
use dp::registry::PointName;
use packager::{PackageName, Selector, TreePath, UploadId};
use std::fmt::{Debug, Display};
use std::str::FromStr;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same::<PackageName>(text);
    same::<Selector>(text);
    same::<TreePath>(text);
    same::<UploadId>(text);
    same::<Digest>(text);
    same::<Name>(text);
    same::<PointId>(text);
    same::<PointName>(text);
    let _ = (parse_rate(text), parse_duration(text));
});

fn same<T: FromStr<Err: Debug + PartialEq> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse(), Ok(value));
    }
}

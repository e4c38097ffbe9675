//! Whatever becomes of real files of repositories, reading them ends, with a result or an error.

use super::modules::Modules;
use super::repomd::Repomd;
use super::{primary, updateinfo};
use crate::adapter::Skipped;
use crate::unpack::Packing;
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::Read;
use std::path::Path;

const MODULES: &str = "---\ndocument: modulemd\nversion: 2\ndata:\n  name: nodejs\n  stream: \"18\"\n  \
                       artifacts:\n    rpms:\n    - npm-1:8.19.1-1.el9.x86_64\n...\n";

/// The plain text of a sample.
fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rpm").join(name);
    let mut plain = Vec::new();
    Packing::of_name(name).open(&path, 1 << 20).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

fn samples() -> Vec<Vec<u8>> {
    let primary = "createrepo_c-repo_02/repodata/\
                   bcde64b04916a2a72fdc257d61bc922c70b3d58e953499180585f7a360ce86cf-primary.xml.gz";
    let files = [
        "fedora43-updates/repodata/repomd.xml",
        primary,
        "amazon/updateinfo_1.xml.gz",
        "createrepo_c-updateinfo/updateinfo_ampersand.xml",
    ];
    files.into_iter().map(sample).chain([MODULES.into()]).collect()
}

/// Reads the bytes as each kind of file.
fn read_all(bytes: &[u8]) {
    let _ = Repomd::parse(&String::from_utf8_lossy(bytes));
    let mut skipped = Skipped::default();
    let _ = primary::read(bytes, &mut skipped, |package, element| {
        assert!(!package.name.is_empty() && package.digests.strongest().is_some());
        assert!(element.starts_with(b"<"));
        Ok(())
    });
    let _ = updateinfo::read(bytes, &mut skipped, |advisory, _| {
        assert!(!advisory.id.is_empty());
        Ok(())
    });
    let _ = Modules::read(bytes);
}

/// One change: at a place, so many bytes become others, or a piece of the text itself.
#[derive(Clone, Debug)]
enum Change {
    Bytes(prop::sample::Index, usize, Vec<u8>),
    Piece(prop::sample::Index, prop::sample::Index, usize),
    End(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let markup = prop_oneof![
        vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "<",
            ">",
            "</",
            "/>",
            "<!--",
            "<![CDATA[",
            "&",
            "\"",
            "<!DOCTYPE a>",
            "<a>"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let change = prop_oneof![
        (any::<prop::sample::Index>(), 0..4_usize, markup)
            .prop_map(|(a, n, b)| Change::Bytes(a, n, b)),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..200_usize)
            .prop_map(|(a, b, n)| Change::Piece(a, b, n)),
        any::<prop::sample::Index>().prop_map(Change::End),
    ];
    vec(change, 1..6)
}

proptest! {
    #[test]
    fn mutated_files_never_panic(which in 0..5_usize, changes in changes()) {
        let mut bytes = samples().swap_remove(which);
        for change in changes {
            let len = bytes.len() + 1;
            match change {
                Change::Bytes(at, n, new) => {
                    let at = at.index(len);
                    let end = (at + n).min(bytes.len());
                    bytes.splice(at..end, new);
                }
                Change::Piece(to, from, n) => {
                    let (to, from) = (to.index(len), from.index(len));
                    let piece = bytes[from..(from + n).min(bytes.len())].to_vec();
                    bytes.splice(to..to, piece);
                }
                Change::End(at) => bytes.truncate(at.index(len)),
            }
        }
        read_all(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }
}

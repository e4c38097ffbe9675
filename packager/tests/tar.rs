//! Archives become versions whole, or not at all.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, noise, package, tree};
use contentlib::Progress;
use packager::fetch_state::ReservedName;
use packager::path::BadPath;
use packager::{BadEntry, PackageError, TarError, UpdateReport};
use proptest::prelude::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use tar::{Builder, EntryType, Header};

fn site() -> Site {
    let site = Site::new();
    site.create("p", None).unwrap();
    site
}

fn put(site: &Site, archive: &[u8]) -> Result<UpdateReport, TarError> {
    site.packages.put_tar(&package("p"), archive, &Progress::default())
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// Name, kind, and content or target of an entry.
type Packed<'a> = (&'a str, EntryType, &'a str);

/// An archive of entries with any name, however bad.
fn archive(entries: &[Packed<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let is_file = *kind == EntryType::Regular;
        let mut header = header(*kind, if is_file { content.len() as u64 } else { 0 });
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_cksum();
        let content = if is_file { content.as_bytes() } else { b"" };
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}
use EntryType as T;

#[test]
fn what_gnu_tar_packs_comes_back_in_every_format() {
    let site = site();
    let source = site.source();
    std::fs::create_dir_all(source.join("empty/folder")).unwrap();
    std::fs::create_dir_all(source.join("long/".repeat(60))).unwrap();
    std::fs::write(source.join("long/".repeat(60)).join("file"), "deep").unwrap();
    std::fs::write(source.join("new\nline"), "odd").unwrap();
    std::fs::write(source.join("n".repeat(255)), "long name").unwrap();
    std::fs::write(source.join("large"), noise(1, 9_000_000)).unwrap();
    std::fs::write(source.join("medium"), noise(2, 3_000_000)).unwrap();
    std::fs::write(source.join("program"), "#!/bin/sh\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(source.join("program"), mode).unwrap();
    std::fs::hard_link(source.join("program"), source.join("same program")).unwrap();
    symlink("x".repeat(200), source.join("link")).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        command.args(arguments).args(["-c", "."]).current_dir(&source);
        let output = command.output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let pax = tar(&["--format=pax"]);
    let report = put(&site, &pax).unwrap();
    assert_eq!((report.version, report.unchanged), (2, false));
    // pax keeps times to the nanosecond, so the trees are equal to the last bit.
    assert_eq!(tree(&site.restore("out")), tree(&source));
    for archive in [tar(&["--format=gnu"]), zstd::encode_all(&pax[..], 1).unwrap()] {
        assert!(put(&site, &archive).unwrap().unchanged);
    }
}

#[test]
fn what_an_archive_says_of_itself_is_no_part_of_the_tree() {
    let site = site();
    std::fs::write(site.source().join("file"), "bytes").unwrap();
    for format in ["--format=gnu", "--format=pax"] {
        let mut command = Command::new("tar");
        command.args([format, "--label=a label", "-c", "file"]).current_dir(site.source());
        put(&site, &command.output().unwrap().stdout).unwrap();
        let found = tree(&site.restore("out"));
        assert_eq!(found.keys().collect::<Vec<_>>(), [&b"file"[..]], "{format}");
    }
}

#[test]
fn hard_links_are_files_with_the_same_content() {
    let site = site();
    let links = [("a", T::Regular, "bytes"), ("./b", T::Link, "./a"), ("c", T::Link, "b")];
    put(&site, &archive(&links)).unwrap();
    let found = tree(&site.restore("out"));
    assert!(["a", "b", "c"].iter().all(|name| found[name.as_bytes()].3 == b"bytes"));
}

#[test]
fn folders_that_the_archive_leaves_out_are_made() {
    let site = site();
    put(&site, &archive(&[("a/b/c", T::Regular, "x"), ("a/", T::Directory, "")])).unwrap();
    let found = tree(&site.restore("out"));
    assert_eq!(found.keys().collect::<Vec<_>>(), [&b"a"[..], b"a/b", b"a/b/c"]);
    assert_eq!(found[&b"a"[..]].0 & 0o7777, 0o644, "as the archive says");
    assert_eq!(found[&b"a/b"[..]].0 & 0o7777, 0o755, "it says nothing");
}

#[test]
fn bad_entries_are_named_and_nothing_is_kept() {
    let special = |what| BadEntry::Special(what);
    let x = ("x", T::Regular, "x");
    let cases: [(&[Packed<'_>], &str, BadEntry); 16] = [
        (&[x, ("../x", T::Regular, "")], "../x", BadEntry::Path(BadPath::Dots)),
        (&[x, ("a/../../x", T::Regular, "")], "a/../../x", BadEntry::Path(BadPath::Dots)),
        (&[x, ("..", T::Directory, "")], "..", BadEntry::Path(BadPath::Dots)),
        (&[x, ("/etc/passwd", T::Regular, "")], "/etc/passwd", BadEntry::Path(BadPath::Absolute)),
        (&[x, (".//etc", T::Symlink, "/")], ".//etc/x", BadEntry::NotInFolder),
        (&[x, ("fifo", T::Fifo, "")], "fifo", special("a named pipe")),
        (&[x, ("sda", T::Block, "")], "sda", special("a block device")),
        (&[x, ("null", T::Char, "")], "null", special("a character device")),
        (&[x, ("sparse", T::GNUSparse, "")], "sparse", BadEntry::Sparse),
        (&[x, (".depot", T::Directory, "")], ".depot", BadEntry::Reserved(ReservedName)),
        (&[x, ("./.depot", T::Symlink, "x")], "./.depot", BadEntry::Reserved(ReservedName)),
        (&[x, (".depot/a", T::Regular, "")], ".depot/a", BadEntry::Reserved(ReservedName)),
        (&[x, ("x", T::Regular, "")], "x", BadEntry::Twice),
        (&[x, ("./x", T::Symlink, "y")], "./x", BadEntry::Twice),
        (&[x, ("x/y", T::Regular, "")], "x/y", BadEntry::NotInFolder),
        (&[x, ("y", T::Link, "../x")], "y", BadEntry::HardLink("../x".into())),
    ];
    for (entries, path, why) in cases {
        let site = site();
        let mut entries = entries.to_vec();
        if path == ".//etc/x" {
            entries.push((path, T::Regular, ""));
        }
        match put(&site, &archive(&entries)) {
            Err(TarError::Entry { path: found, why: what }) => {
                assert_eq!((found.as_str(), &what), (path, &why));
            }
            other => panic!("{path}: {other:?}"),
        }
        assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
    }
}

#[test]
fn the_name_of_what_a_fetch_keeps_is_taken_at_the_top_alone() {
    let site = site();
    put(&site, &archive(&[("a/.depot/x", T::Regular, "x"), (".depots", T::Regular, "y")])).unwrap();
    assert_eq!(tree(&site.restore("out"))[&b"a/.depot/x"[..]].3, b"x");
}

#[test]
fn a_stream_cut_off_anywhere_makes_no_version() {
    let site = site();
    // The file is all zeros, like an end mark.
    let zeros = "\0".repeat(2048);
    let whole = archive(&[("a", T::Regular, "x"), ("b", T::Regular, &zeros)]);
    let end_mark = whole.len() - 1024;
    for end in (0..end_mark + 512).step_by(256) {
        let cut = put(&site, &whole[..end]);
        assert!(matches!(cut, Err(TarError::CutOff)), "{end}: {cut:?}");
    }
    let packed = zstd::encode_all(&whole[..], 1).unwrap();
    for end in 6..packed.len() {
        assert!(put(&site, &packed[..end]).is_err(), "{end}");
    }
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
    put(&site, &whole).unwrap();
}

#[test]
fn other_bytes_are_refused_by_what_they_are() {
    let site = site();
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    assert!(matches!(put(&site, &gzip), Err(TarError::Compression("gzip"))));
    assert!(matches!(put(&site, &noise(1, 5000)), Err(TarError::Broken(_))));
    let mut damaged = archive(&[("a", T::Regular, "x")]);
    damaged[1] ^= 1;
    assert!(matches!(put(&site, &damaged), Err(TarError::Broken(_))));
    let mut longer = archive(&[("a", T::Regular, "x")]);
    longer.extend([1; 512]);
    assert!(matches!(put(&site, &longer), Err(TarError::Broken(_))));
}

#[test]
fn a_huge_extended_header_is_refused_before_it_is_read() {
    let site = site();
    for kind in [T::XHeader, T::GNULongName, T::GNULongLink] {
        let mut header = header(kind, 1 << 40);
        header.set_cksum();
        assert!(matches!(put(&site, header.as_bytes()), Err(TarError::Broken(_))));
    }
}

/// A few bytes, since a folder need not be in the archive to be part of the tree.
#[test]
fn names_that_make_more_of_themselves_are_refused_before_memory_fills() {
    let site = site();
    let mut builder = Builder::new(Vec::new());
    for n in 0..100 {
        let path = format!("{n:04}/{}f", "a/".repeat(2040));
        builder.append_data(&mut header(T::Regular, 0), path, &b""[..]).unwrap();
    }
    let refused = put(&site, &builder.into_inner().unwrap());
    let Err(TarError::Entry { path, why: BadEntry::TooMuchPath }) = refused else {
        panic!("{refused:?}")
    };
    // Folders of 4 MB a file: the limit is met on the way, and not at the end.
    assert!(path.starts_with("006"), "{path}");
}

#[test]
fn a_package_with_a_folder_takes_no_uploads_and_the_other_way_round() {
    let site = Site::with_package();
    let refused = put(&site, &archive(&[]));
    assert!(matches!(refused, Err(TarError::Package(PackageError::TakesFolder { .. }))));
    let site = self::site();
    assert!(matches!(site.update(), Err(PackageError::TakesUploads(_))));
}

#[test]
fn many_small_and_large_files_arrive_in_bounded_memory() {
    let site = site();
    let mut builder = Builder::new(Vec::new());
    for n in 0..300u64 {
        let bytes = noise(n, if n % 50 == 0 { 5_000_000 } else { (n * 37) as usize });
        let mut header = header(T::Regular, bytes.len() as u64);
        builder.append_data(&mut header, format!("{n:03}"), &bytes[..]).unwrap();
    }
    let report = put(&site, &builder.into_inner().unwrap()).unwrap();
    assert_eq!(report.files, 300);
    let found = tree(&site.restore("out"));
    for n in 0..300u64 {
        let bytes = noise(n, if n % 50 == 0 { 5_000_000 } else { (n * 37) as usize });
        assert_eq!(found[format!("{n:03}").as_bytes()].3, bytes, "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to an archive, it is taken or refused; what is taken can be restored.
    #[test]
    fn a_damaged_archive_is_taken_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let site = site();
        let long = "long/".repeat(30);
        let mut builder = Builder::new(archive(&[("a", T::Regular, "x"), ("b", T::Link, "a")]));
        builder.get_mut().truncate(3 * 512);
        builder.append_data(&mut header(T::Regular, 3), long + "name", &b"abc"[..]).unwrap();
        builder.append_link(&mut header(T::Symlink, 0), "link", "target").unwrap();
        let mut bytes = builder.into_inner().unwrap();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            // Damage in a header is found by its sum; behind the sum it is not.
            let block = at / 512 * 512;
            let mut header = Header::from_byte_slice(&bytes[block..block + 512]).clone();
            if header.as_gnu().is_some() || header.as_ustar().is_some() {
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        if let Ok(report) = put(&site, &bytes) {
            prop_assert!(report.unchanged || report.version == 2);
            site.restore("out");
        }
    }
}

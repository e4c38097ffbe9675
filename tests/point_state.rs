//! What a point says of itself is so, and what becomes damaged on it becomes whole again, without
//! anybody's help: bits that flip, packs that are cut or gone, an index that is gone, while it runs and
//! while it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use contentlib::{BadContent, Library, Options, Progress, VerifyOptions};
use packager::ManifestLinks;
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use support::{
    Run, Site, noise,
    point::{Point, over_a_line},
    relay::{Line, Pace},
    temp_folder,
    tree::{self, Node, Tree},
    until,
};

/// Small packs, so that there are many; and a scrub that is always at work.
const WATCHFUL: [&str; 4] = ["--set", "library.pack_size=1MiB", "--set", "point.scrub_period=2s"];

/// In this time a scrub of that period has read all.
const SCRUBBED: Duration = Duration::from_secs(4);

/// A site, and a point `branch-7` that reaches it over a line.
struct Field {
    point: Option<Point>,
    line: Line,
    site: Site,
    folder: tempfile::TempDir,
}

impl Field {
    fn new(more: &[&str]) -> Self {
        let folder = temp_folder();
        let (site, line, point) = over_a_line(folder.path(), &folder.path().join("point"), more);
        Self { point: Some(point), line, site, folder }
    }

    fn point(&self) -> &Point {
        self.point.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site.depot(args).ok()
    }

    /// A package of these files, distributed to the point; held there when this returns.
    fn package(&self, name: &str, files: &[(&str, Vec<u8>)]) -> Tree {
        let source = self.path(name);
        let files: Vec<(&[u8], &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_bytes(), &bytes[..])).collect();
        tree::write(&source, &files);
        self.depot(&["package", "create", name, "--source", source.to_str().unwrap()]);
        self.depot(&["package", "update", name]);
        self.depot(&["distribute", name, "--dp", "branch-7"]);
        self.site.until_held(name, 2);
        tree::read(&source)
    }

    fn library(&self) -> PathBuf {
        self.path("point/library")
    }

    fn restart_point(&mut self, more: &[&str]) {
        self.point = Some(Point::start(&self.path("point"), None, more));
    }

    /// Whether the point gives all of a package; fails if a byte of it is wrong. What is damaged may be
    /// refused or cut off.
    fn is_given(&self, package: &str, want: &Tree) -> bool {
        let address = self.point().url.trim_start_matches("http://").to_owned();
        want.iter().all(|(path, node)| {
            let Node::File { bytes, .. } = node else { return true };
            let path = String::from_utf8(path.clone()).unwrap();
            let path = format!("/packages/{package}/latest/{path}");
            let Ok(answer) = support::request(&address, "GET", &path, &[], b"") else {
                return false;
            };
            if answer.status == 200 {
                assert!(bytes.starts_with(&answer.body), "{path}: a wrong byte was given");
            }
            answer.status == 200 && answer.body == *bytes
        })
    }
}

/// The packs of a library, each with its path.
fn packs(library: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(library.join("packs")).unwrap().flatten();
    let mut packs: Vec<PathBuf> = folders
        .filter_map(|folder| fs::read_dir(folder.path()).ok())
        .flat_map(|folder| folder.flatten().map(|file| file.path()))
        .collect();
    packs.sort();
    packs
}

/// Flips a bit in each 4 KiB of a file.
fn flip_bits(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    for at in (1000.min(len / 2)..len).step_by(4096) {
        let mut byte = [0];
        if file.read_exact_at(&mut byte, at).is_ok() {
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        }
    }
}

fn cut(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

#[test]
fn what_goes_bad_is_found_by_the_scrub_named_and_brought_again() {
    let field = Field::new(&WATCHFUL);
    let want = field.package("docs", &[("large", noise(1, 3 << 20)), ("small", noise(2, 900))]);
    let before = field.line.passed();
    // What comes again waits, so that it can be seen: a chunk has 32 KiB at least.
    field.line.set(Pace::UpTo(before + (16 << 10)));
    let largest =
        packs(&field.library()).into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len());
    flip_bits(&largest.unwrap());
    // Nobody reads it but the scrub.
    let row = field.site.until_status("docs", |row| row["state"] == "repairing");
    assert_eq!(row["version"], 2);
    assert!(row["cause"].as_str().unwrap().contains("damaged or lost"), "{row}");
    assert!(row["held_version"].is_null(), "it is not whole: {row}");
    assert!(row["percent"].as_u64().unwrap() < 100, "{row}");
    let damaged = field.point().get("/packages/docs/latest/large");
    assert!(damaged.status == 503 || damaged.status == 200, "{}", damaged.head);

    field.line.set(Pace::Free);
    // What is not read yet may be found later, and is refused until it is mended.
    until("all of it is given again", || field.is_given("docs", &want));
    field.site.until_held("docs", 2);
    let passed = field.line.passed() - before;
    assert!(passed < (3 << 20) / 2, "{passed} bytes came for a pack of 1 MiB");
}

/// What happens to a folder; and how it is chosen, the same for the same seed.
struct Fate(u64);

impl Fate {
    fn below(&mut self, n: usize) -> usize {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Does something bad to a library; says what.
    fn strike(&mut self, library: &Path) -> String {
        let packs = packs(library);
        let index: Vec<PathBuf> = match fs::read_dir(library.join("index")) {
            Ok(files) => files.flatten().map(|file| file.path()).collect(),
            Err(_) => Vec::new(),
        };
        let pack = self.one_of(&packs);
        let shown = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        match self.below(7) {
            0 | 1 => {
                flip_bits(pack);
                format!("flipped bits in {}", shown(pack))
            }
            2 => {
                cut(pack);
                format!("cut {}", shown(pack))
            }
            3 => {
                fs::remove_file(pack).unwrap();
                format!("removed {}", shown(pack))
            }
            4 => {
                let _ = fs::remove_dir_all(library.join("index"));
                "removed the index".into()
            }
            what if !index.is_empty() => {
                let file = self.one_of(&index);
                // Others of it come and go.
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                if size == 0 || file.file_name().unwrap() == "LOCK" {
                    return "nothing".into();
                }
                if what == 5 {
                    flip_bits(file)
                } else {
                    cut(file)
                };
                format!("{} {}", if what == 5 { "flipped bits in" } else { "cut" }, shown(file))
            }
            _ => "nothing".into(),
        }
    }
}

#[test]
fn whatever_happens_to_its_library_a_point_becomes_what_it_should_be() {
    let mut fate = Fate(0x5eed_1e55);
    let mut field = Field::new(&WATCHFUL);
    let text: Vec<u8> = "a line that comes again and again\n".repeat(9000).into();
    let shared = noise(1, 1 << 20);
    let one = [("shared", shared.clone()), ("text", text), ("sub/own", noise(2, 700_000))];
    let mut two: Vec<(String, Vec<u8>)> = vec![("shared-too".into(), shared)];
    two.extend((0..60).map(|n| (format!("small/{n}"), noise(100 + n, 400 * n as usize))));
    let two: Vec<(&str, Vec<u8>)> = two.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let packages = [("one", field.package("one", &one)), ("two", field.package("two", &two))];
    for round in 0..8 {
        let runs = fate.below(3) > 0;
        if !runs {
            field.point.take().unwrap().kill();
        }
        let strikes = 1 + fate.below(3);
        for _ in 0..strikes {
            let what = fate.strike(&field.library());
            println!("round {round}, {}: {what}", if runs { "running" } else { "stopped" });
        }
        if !runs {
            field.restart_point(&WATCHFUL);
        }
        until("all of it is right again", || {
            // Files that are cut while they are mapped may end the process; somebody starts it again.
            let point = field.point.as_mut().unwrap();
            if point.has_ended() {
                println!("round {round}: the point ended, and is started again");
                field.restart_point(&WATCHFUL);
            }
            std::thread::sleep(Duration::from_millis(50));
            packages.iter().all(|(name, want)| field.is_given(name, want))
        });
    }
    for (name, want) in &packages {
        field.site.until_held(name, 2);
        let out = field.path(&format!("{name}-fetched"));
        field.point().gives(name, "latest", &out, want);
    }
    // What was hit and is still in memory is served as it was. So the disk is looked at; what the scrub
    // has not come to since the last strike, it still finds.
    until("all on the disk is right again", || {
        assert_eq!(field.point.take().unwrap().stop(), Some(0));
        let lost = lost_in(&field.library());
        if !lost.is_empty() {
            println!("not yet: {lost:?}");
            field.restart_point(&WATCHFUL);
            std::thread::sleep(SCRUBBED);
        }
        lost.is_empty()
    });
}

/// Contents of versions that the packs of a library, which nobody has open, do not have whole. Of a copy,
/// whose index is made anew: what nobody had to read of the index is not known to be damaged.
fn lost_in(library: &Path) -> Vec<BadContent> {
    let copy = temp_folder();
    let folder = copy.path().join("library");
    let copied = Command::new("cp").arg("-r").args([library, &folder]).status().unwrap();
    assert!(copied.success());
    Library::rebuild_index(&folder, Options::default(), &Progress::default()).unwrap();
    let library = Library::open(&folder, Options::default()).unwrap();
    let (options, progress) = (VerifyOptions::default(), Progress::default());
    let found = library.verify(&options, &ManifestLinks, &progress).unwrap();
    found.bad_contents.into_iter().filter(|bad| !bad.holders.is_empty()).collect()
}

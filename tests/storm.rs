//! A site and a chain of two points, with everything against them: each is killed at random moments,
//! the lines to the site cut, stall, swap and flip bytes, and packages change, move and go meanwhile.
//! When the storm is over, all is as it should be by itself: content exact, states true, nothing stuck.
//!
//! The seed decides what is done. `DEPOT_STORM_ROUNDS` and `DEPOT_STORM_SEED` ask for more rounds or
//! other ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use support::{
    Run, Site, depot, noise,
    point::{Point, dp_serve},
    storm::Storm,
    temp_folder,
    tree::{self, Tree},
    until,
};

/// Rounds where nobody asks for more.
const ROUNDS: u64 = 12;
const POINTS: [&str; 2] = ["near", "far"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

/// xorshift64* (Vigna 2016).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

struct World {
    dice: Dice,
    storms: [Storm; 2],
    points: [Option<Point>; 2],
    site: Option<Site>,
    /// The packages that there are, with the newest version and what is in it.
    packages: BTreeMap<String, (u64, Tree)>,
    n_made: u64,
    folder: tempfile::TempDir,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = temp_folder();
        let site = Site::start(&folder.path().join("site"));
        let storms = [Storm::to(&site.url, 2 * seed), Storm::to(&site.url, 2 * seed + 1)];
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            storms,
            points: [None, None],
            site: Some(site),
            packages: BTreeMap::new(),
            n_made: 0,
            folder,
        };
        for (at, name) in POINTS.into_iter().enumerate() {
            let address = format!("https://{}", world.storms[at].address);
            let token = world.site().join_token(name, &["--site-url", &address]);
            // A line may harm the question for leave to join: then the machine asks again.
            until(name, || {
                let data = world.path(name);
                world.points[at] = Point::try_start(dp_serve(&data, Some(&token)), &data).ok();
                world.points[at].is_some()
            });
        }
        world.depot(&["dp", "source", "set", "far", "--from", "near"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site().depot(args).ok()
    }

    /// Some files of a package are new, one is as it was; sometimes one is renamed.
    fn change(&mut self, name: &str) {
        let source = self.path(&format!("source-{name}"));
        fs::create_dir_all(&source).unwrap();
        for _ in 0..=self.dice.below(3) {
            let (file, seed) = (self.dice.below(6), self.dice.below(1 << 30));
            let size = 1 << self.dice.below(20);
            fs::write(source.join(format!("file-{file}")), noise(seed, size)).unwrap();
        }
        let (from, to) = (source.join("file-0"), source.join("renamed"));
        if self.dice.below(4) == 0 && from.exists() {
            fs::rename(from, to).unwrap();
        }
    }

    fn step(&mut self) {
        let names: Vec<String> = self.packages.keys().cloned().collect();
        let any =
            |dice: &mut Dice| names.get(dice.below(names.len().max(1) as u64) as usize).cloned();
        match (self.dice.below(8), any(&mut self.dice)) {
            (0 | 1, _) | (_, None) => {
                let name = format!("p{}", self.n_made);
                self.n_made += 1;
                self.change(&name);
                let source = self.path(&format!("source-{name}"));
                self.depot(&["package", "create", &name, "--source", source.to_str().unwrap()]);
                self.publish(&name);
                for point in POINTS {
                    self.depot(&["distribute", &name, "--dp", point]);
                }
            }
            (2, Some(name)) if names.len() > 2 => {
                // While it travels, or is held.
                self.packages.remove(&name);
                for point in POINTS {
                    self.depot(&["undistribute", &name, "--dp", point]);
                }
                self.depot(&["package", "delete", &name, "--yes"]);
            }
            (_, Some(name)) => {
                self.change(&name);
                self.publish(&name);
            }
        }
        match self.dice.below(4) {
            0 => {
                self.site.take().unwrap().kill();
                self.site = Some(Site::start(&self.path("site")));
                for storm in &self.storms {
                    storm.lead_to(&self.site().url);
                }
            }
            n @ 1..3 => {
                let at = n as usize - 1;
                self.points[at].take().unwrap().kill();
                self.points[at] = Some(Point::start(&self.path(POINTS[at]), None, &[]));
            }
            _ => {}
        }
    }

    fn publish(&mut self, name: &str) {
        self.depot(&["package", "update", name]);
        let shown = self.depot(&["package", "show", name, "--json"]).json();
        let version = shown["latest"]["version"].as_u64().unwrap();
        let tree = tree::read(&self.path(&format!("source-{name}")));
        self.packages.insert(name.to_owned(), (version, tree));
    }

    /// A client fetches through the storm: what it has afterwards is exact, or it says that it failed.
    fn fetch_in_the_storm(&mut self) {
        let Some((name, (version, tree))) = self.packages.first_key_value() else { return };
        let out = self.path("fetched");
        let _ = fs::remove_dir_all(&out);
        let url = format!("http://{}/packages/{name}/{version}", self.storms[0].address);
        let run = Run::of(depot().args(["fetch", &url, "-o"]).arg(&out));
        if run.code == Some(0) {
            tree::assert_same(&fetched(&out), tree);
        }
    }

    fn settle(&mut self) {
        for storm in &self.storms {
            storm.calm();
        }
        for (name, (version, tree)) in &self.packages {
            for (point, at) in POINTS.into_iter().zip(&self.points) {
                let (mut row, mut rows) = (Value::Null, Vec::new());
                until(&format!("{name}@{version} is held by {point}"), || {
                    std::thread::sleep(Duration::from_millis(50));
                    rows = self.site().status(name);
                    rows.retain(|row| row["point"] == point);
                    row = rows.first().cloned().unwrap_or_default();
                    row["state"] == "held" && row["version"] == *version && rows.len() == 1
                });
                assert!(row["cause"].is_null(), "{row}");
                let out = self.path(&format!("{point}-{name}"));
                at.as_ref().unwrap().gives(name, &version.to_string(), &out, tree);
            }
        }
        let all = self.depot(&["content-status", "--json"]).json();
        let known = |row: &Value| self.packages.contains_key(row["package"].as_str().unwrap());
        assert!(all.as_array().unwrap().iter().all(known), "{all:#}");
    }
}

fn fetched(out: &Path) -> Tree {
    let mut found = tree::read(out);
    found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    found
}

#[test]
fn whatever_is_killed_and_harmed_the_points_come_to_hold_what_they_should() {
    let (rounds, seed) = (number("DEPOT_STORM_ROUNDS", ROUNDS), number("DEPOT_STORM_SEED", 1));
    let mut world = World::new(seed);
    for _ in 0..rounds {
        world.step();
        world.fetch_in_the_storm();
    }
    world.settle();
    let harmed: u64 = world.storms.iter().map(Storm::n_harmed).sum();
    println!("seed {seed}: {} packages, {harmed} connections harmed", world.n_made);
    assert!(harmed > 0 && world.n_made > 0);
}

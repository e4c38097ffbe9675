//! Many packages on one point: it holds them all, also after it was killed, and when one of them changes,
//! what is said of it costs what changed and not what there is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{
    Answer, Site,
    point::{Point, over_a_line},
    temp_folder, until,
};

/// As many as make one wish for all of them about 100 KB long.
const N: usize = 150;
/// What may pass of a wish when one of them changes: the packages of its branch, and its content.
const LITTLE: u64 = 16 << 10;

fn ask(site: &Site, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let token = std::fs::read_to_string(site.token_file()).unwrap();
    let token = format!("Bearer {}", token.trim());
    let headers = [("Authorization", &*token), ("Content-Type", kind)];
    let answer = site.request(method, &format!("/api/v1{path}"), &headers, body);
    assert!(answer.status < 300, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
    answer
}

fn tell(site: &Site, method: &str, path: &str, body: &Value) {
    ask(site, method, path, "application/json", body.to_string().as_bytes());
}

fn point_of(site: &Site) -> Value {
    ask(site, "GET", "/points/branch-7", "application/json", b"").json()
}

/// A tar of one file.
fn archive(text: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "file", text.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

fn name(n: usize) -> String {
    format!("package-{n:03}")
}

#[test]
fn what_changes_of_many_packages_is_told_and_brought_alone() {
    let folder = temp_folder();
    let data = folder.path().join("point");
    let (site, line, mut point) = over_a_line(folder.path(), &data, &[]);
    tell(&site, "POST", "/point-groups", &json!({"name": "all"}));
    for n in 0..N {
        tell(&site, "POST", "/packages", &json!({"name": name(n)}));
        tell(&site, "PUT", "/assignments", &json!({"package": name(n), "group": "all"}));
    }
    let before = line.passed();
    tell(&site, "PUT", "/point-groups/all/points/branch-7", &json!({}));
    until("all are held", || point_of(&site)["n_held"] == N);
    let of_all = line.passed() - before;
    assert!(of_all > 5 * LITTLE, "the test shows nothing: {of_all} bytes passed for all");

    for (number, is_killed) in [(2, false), (3, true), (4, false)] {
        if is_killed {
            let heard = |point: &Point| point.log().contains("the site's wish");
            point.kill();
            point = Point::start(&data, None, &[]);
            until("the point hears its site", || heard(&point));
            until("it holds what it held", || point_of(&site)["n_held"] == N);
            let listing = point.listing(&name(N / 2), "latest");
            assert_eq!(listing.status, 200, "{}", listing.head);
        }
        let (package, text) = (name(N / 3), format!("version {number}"));
        let before = line.passed();
        let path = format!("/packages/{package}/tar");
        ask(&site, "PUT", &path, "application/x-tar", &archive(&text));
        site.until_held(&package, number);
        let passed = line.passed() - before;
        assert!(passed < LITTLE, "{passed} bytes passed for one of {N} packages");
        assert_eq!(point.curl(&format!("/packages/{package}/latest/file")), text.as_bytes());
    }
    let rows = site.depot(["content-status", "--json"]).ok().json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), N);
    assert!(rows.iter().all(|row| row["state"] == "held" && row["cause"].is_null()), "{rows:#?}");
}

//! The access log: one event for each request, if it is asked for.
#![allow(clippy::unwrap_used)]

mod common;

use common::{curl, noise, point_with};
use dp::ServeOptions;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_request_is_logged_with_what_it_came_to() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("dp::access=info")
        .json()
        .with_writer(move || writer.clone())
        .init();
    let mut point = point_with(ServeOptions { access_log: true, ..Default::default() });
    let bytes = noise(2 << 20, 1);
    let digest = point.add(&bytes);
    curl(&[&point.url(&format!("/content/{digest}"))]);
    curl(&["--head", &point.url("/nothing?query")]);
    curl(&["-r", "0-9", &point.url(&format!("/content/{digest}"))]);
    point.tell_to_stop();
    point.wait();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fields: Vec<&serde_json::Value> = events.iter().map(|event| &event["fields"]).collect();
    assert_eq!(fields.len(), 3);
    assert_eq!(fields[0]["method"], "GET");
    assert_eq!(fields[0]["path"], format!("/content/{digest}"));
    assert_eq!(fields[0]["status"], 200);
    assert_eq!(fields[0]["bytes"], bytes.len());
    let ms = &fields[0]["ms"];
    assert!(ms.as_f64().unwrap() > 0.0);
    let places = ms.to_string().split_once('.').map_or(0, |(_, after)| after.len());
    assert!(places <= 2, "{ms}");
    assert!(fields[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!((&fields[1]["method"], &fields[1]["status"]), (&"HEAD".into(), &404.into()));
    assert_eq!((&fields[2]["status"], &fields[2]["bytes"]), (&206.into(), &10.into()));
}

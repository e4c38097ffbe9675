//! What the server counts, as Prometheus text (exposition format 0.0.4).
//!
//! Each worker counts for itself, with plain loads and stores; only rendering adds them up. So
//! counting costs a request nothing that another core could contend for.

mod volumes;

use crate::deadline::Late;
use crate::deltas::DeltaCounts;
use contentlib::LibraryStats;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number with one writer and any reader.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }
    pub fn sub(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Relaxed);
    }
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Content,
    Package,
    Recipe,
    Chunks,
    Deltas,
    Api,
    Status,
    Other,
}

const ROUTES: [&str; 8] =
    ["content", "packages", "recipes", "chunks", "deltas", "api", "status", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the duration buckets: powers of four from 64 us to 67 s.
const N_BUCKETS: usize = 11;
const FIRST_BUCKET: u64 = 64;

/// One worker's counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [[Count; CLASSES.len()]; ROUTES.len()],
    bytes: [Count; ROUTES.len()],
    durations: [Durations; ROUTES.len()],
    pub in_flight: Count,
    pub connections: Count,
    pub accepted: Count,
    pub refused: Count,
    pub tls: Count,
    pub tls_failed: Count,
    late: [Count; 3],
    pub hot_hits: Count,
    pub hot_misses: Count,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [Count; N_BUCKETS + 1],
    sum_us: Count,
}

impl Counters {
    /// An answer has ended after `took`.
    pub fn answered(&self, route: Route, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[route as usize][class].add(1);
        let us = took.as_micros() as u64;
        let durations = &self.durations[route as usize];
        // Bucket i holds up to FIRST_BUCKET * 4^i.
        let steps = us.max(1).div_ceil(FIRST_BUCKET).next_power_of_two().trailing_zeros();
        durations.buckets[(steps.div_ceil(2) as usize).min(N_BUCKETS)].add(1);
        durations.sum_us.add(us);
    }

    pub fn sent(&self, route: Route, n: usize) {
        self.bytes[route as usize].add(n as u64);
    }

    pub fn late(&self, late: Late) {
        self.late[late as usize].add(1);
    }
}

/// The text of `GET /metrics`.
pub(crate) fn render(
    workers: &[&Counters],
    deltas: Option<&DeltaCounts>,
    library: Option<&LibraryStats>,
) -> String {
    let mut out = String::with_capacity(8 << 10);
    render_requests(&mut out, workers);
    let sum = |of: fn(&Counters) -> &Count| -> u64 { workers.iter().map(|w| of(w).get()).sum() };
    gauge(&mut out, "depot_requests_in_flight", "Requests being answered.", sum(|w| &w.in_flight));
    gauge(&mut out, "depot_connections", "Open connections.", sum(|w| &w.connections));
    let accepted = sum(|w| &w.accepted);
    counter(&mut out, "depot_connections_accepted_total", "Connections accepted.", accepted);
    let refused = sum(|w| &w.refused);
    counter(&mut out, "depot_connections_refused_total", "Connections over the limit.", refused);
    let tls = sum(|w| &w.tls);
    counter(&mut out, "depot_connections_tls_total", "Connections that use TLS.", tls);
    let failed = sum(|w| &w.tls_failed);
    let help = "Handshakes of TLS that failed.";
    counter(&mut out, "depot_connections_tls_failed_total", help, failed);
    let late = "depot_connections_timed_out_total";
    header(&mut out, late, "counter", "Connections ended because the peer was too slow.");
    for (at, why) in ["head", "idle", "progress"].iter().enumerate() {
        let n: u64 = workers.iter().map(|w| w.late[at].get()).sum();
        line(&mut out, late, &[("limit", why)], n);
    }
    let (hits, misses) = (sum(|w| &w.hot_hits), sum(|w| &w.hot_misses));
    counter(&mut out, "depot_hot_hits_total", "Requests answered without a look-up.", hits);
    counter(&mut out, "depot_hot_misses_total", "Requests that needed a look-up.", misses);
    if let Some(deltas) = deltas {
        let name = "depot_deltas_total";
        header(&mut out, name, "counter", "Requests for deltas, by how they were answered.");
        let counts = [("made", &deltas.made), ("found", &deltas.found), ("plain", &deltas.plain)];
        for (how, n) in counts {
            line(&mut out, name, &[("how", how)], n.load(Relaxed));
        }
    }
    if let Some(library) = library {
        render_library(&mut out, library);
        volumes::render(&mut out, library);
    }
    out
}

fn render_requests(out: &mut String, workers: &[&Counters]) {
    let name = "depot_http_requests_total";
    header(out, name, "counter", "Requests answered, by route and class of status.");
    for (r, route) in ROUTES.iter().enumerate() {
        for (c, class) in CLASSES.iter().enumerate() {
            let n: u64 = workers.iter().map(|w| w.requests[r][c].get()).sum();
            if n > 0 {
                line(out, name, &[("route", route), ("status", class)], n);
            }
        }
    }
    let name = "depot_http_sent_bytes_total";
    header(out, name, "counter", "Bytes of bodies sent, by route.");
    for (r, route) in ROUTES.iter().enumerate() {
        let n: u64 = workers.iter().map(|w| w.bytes[r].get()).sum();
        line(out, name, &[("route", route)], n);
    }
    let name = "depot_http_request_duration_seconds";
    header(out, name, "histogram", "From the end of a request's head to the end of its answer.");
    for (r, route) in ROUTES.iter().enumerate() {
        let of = |b: usize| workers.iter().map(|w| w.durations[r].buckets[b].get()).sum::<u64>();
        let total: u64 = (0..=N_BUCKETS).map(of).sum();
        if total == 0 {
            continue;
        }
        let mut n = 0;
        for bucket in 0..N_BUCKETS {
            n += of(bucket);
            let le = (FIRST_BUCKET << (2 * bucket)) as f64 / 1e6;
            let le = le.to_string();
            line(out, &format!("{name}_bucket"), &[("route", route), ("le", &le)], n);
        }
        line(out, &format!("{name}_bucket"), &[("route", route), ("le", "+Inf")], total);
        let us: u64 = workers.iter().map(|w| w.durations[r].sum_us.get()).sum();
        line(out, &format!("{name}_sum"), &[("route", route)], us as f64 / 1e6);
        line(out, &format!("{name}_count"), &[("route", route)], total);
    }
}

/// The library names its own figures; each becomes a gauge.
fn render_library(out: &mut String, library: &LibraryStats) {
    let Ok(serde_json::Value::Object(figures)) = serde_json::to_value(library) else { return };
    for (name, value) in figures {
        if let Some(value) = value.as_f64() {
            let help = format!("The content library's {}.", name.replace('_', " "));
            gauge(out, &format!("depot_library_{name}"), &help, value);
        }
    }
}

fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    header(out, name, "gauge", help);
    line(out, name, &[], value);
}

fn counter(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    header(out, name, "counter", help);
    line(out, name, &[], value);
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let written = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    written.expect("writing to a string does not fail");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    out.push_str(name);
    for (at, (label, is)) in labels.iter().enumerate() {
        let before = if at == 0 { '{' } else { ',' };
        write!(out, "{before}{label}=\"{is}\"").expect("writing to a string does not fail");
    }
    if !labels.is_empty() {
        out.push('}');
    }
    writeln!(out, " {value}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        for (us, bucket) in
            [(0, 0), (64, 0), (65, 1), (256, 1), (257, 2), (67_108_864, 10), (1 << 40, 11)]
        {
            let counters = Counters::default();
            counters.answered(Route::Content, 200, Duration::from_micros(us));
            assert_eq!(counters.durations[0].buckets[bucket].get(), 1, "{us} us");
        }
    }

    #[test]
    fn workers_are_added_up() {
        let workers = [Counters::default(), Counters::default()];
        for (worker, status) in workers.iter().zip([200, 206]) {
            worker.answered(Route::Content, status, Duration::from_micros(1));
            worker.sent(Route::Content, 10);
        }
        let mut text = String::new();
        render_requests(&mut text, &[&workers[0], &workers[1]]);
        for want in [
            "depot_http_requests_total{route=\"content\",status=\"2xx\"} 2\n",
            "depot_http_sent_bytes_total{route=\"content\"} 20\n",
            "depot_http_request_duration_seconds_bucket{route=\"content\",le=\"0.000064\"} 2\n",
            "depot_http_request_duration_seconds_count{route=\"content\"} 2\n",
        ] {
            assert!(text.contains(want), "{text}");
        }
    }
}

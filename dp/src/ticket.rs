//! What follows a request from its head to the end of its answer: the counters, the access log,
//! and the connection's clock.

use crate::connection::Connection;
use crate::metrics::Route;
use http::{Method, Uri};
use std::sync::Arc;
use std::time::Instant;

/// Held by the request's handler, then by the body of its answer. Dropped, the request is over.
pub(crate) struct Ticket {
    pub connection: Arc<Connection>,
    pub route: Route,
    pub status: u16,
    is_busy: bool,
    sent: u64,
    began: Instant,
    /// For the access log; nothing if it is off.
    log: Option<Box<(Method, Uri)>>,
}

impl Ticket {
    /// A request has begun, with the server at work on it.
    pub fn new(connection: Arc<Connection>, method: &Method, uri: &Uri) -> Self {
        connection.activity.begin();
        connection.worker.counters.in_flight.add(1);
        let log =
            connection.worker.shared.access_log.then(|| Box::new((method.clone(), uri.clone())));
        let began = Instant::now();
        Self { connection, route: Route::Other, status: 0, is_busy: true, sent: 0, began, log }
    }

    /// The server is, or no longer is, what this request waits for.
    pub fn set_busy(&mut self, is_busy: bool) {
        if self.is_busy != is_busy {
            self.is_busy = is_busy;
            self.connection.activity.set_busy(is_busy);
        }
    }

    /// `n` bytes of the answer's body were handed on.
    pub fn sent(&mut self, n: usize) {
        self.sent += n as u64;
        self.connection.worker.counters.sent(self.route, n);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.set_busy(false);
        let worker = &self.connection.worker;
        self.connection.activity.end(worker.now());
        worker.counters.in_flight.sub(1);
        let took = self.began.elapsed();
        // A request that was given up before its answer began counts as nginx has it: 499.
        let status = if self.status == 0 { 499 } else { self.status };
        worker.counters.answered(self.route, status, took);
        if let Some(log) = &self.log {
            let (method, uri) = &**log;
            // To a hundredth: what lies behind is noise.
            let ms = (took.as_secs_f64() * 1e5).round() / 1e2;
            let (path, bytes, peer) = (uri.path(), self.sent, self.connection.peer);
            // A question that waited for something, in vain, comes again and again from each who asks.
            let is_in_vain = status == 204 && uri.query().is_some_and(|it| it.contains("wait="));
            if is_in_vain {
                tracing::debug!(target: "dp::access", %method, path, status, bytes, ms, %peer);
            } else {
                tracing::info!(target: "dp::access", %method, path, status, bytes, ms, %peer);
            }
        }
    }
}

//! What follows a request from its head to the end of its answer: the counters, the access log,
//! and the connection's clock.

use crate::connection::Connection;
use crate::forward::Caller;
use crate::identity::Peer;
use crate::metrics::Route;
use http::{Method, Uri};
use std::net::SocketAddr;
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
    /// Whose request it is, if another server of the site handed it on.
    caller: Option<Box<Caller>>,
}

impl Ticket {
    /// A request has begun, with the server at work on it.
    pub fn new(connection: Arc<Connection>, method: &Method, uri: &Uri) -> Self {
        connection.activity.begin();
        connection.worker.counters.in_flight.add(1);
        let log =
            connection.worker.shared.access_log.then(|| Box::new((method.clone(), uri.clone())));
        let began = Instant::now();
        Self {
            connection,
            route: Route::Other,
            status: 0,
            is_busy: true,
            sent: 0,
            began,
            log,
            caller: None,
        }
    }

    /// Says whose request it is.
    pub fn set_caller(&mut self, caller: Caller) {
        self.caller = Some(Box::new(caller));
    }

    /// Whether another server of the site handed it on.
    pub fn is_handed_on(&self) -> bool {
        self.caller.is_some()
    }

    /// Where who sent it is connected from.
    pub fn address(&self) -> SocketAddr {
        self.caller.as_ref().map_or(self.connection.peer, |caller| caller.address)
    }

    /// Whether it came by TLS.
    pub fn is_secure(&self) -> bool {
        self.caller.as_ref().map_or_else(|| self.connection.is_secure(), |caller| caller.over_tls)
    }

    /// Whom the certificate of who sent it names.
    pub fn identity(&self) -> Option<&Peer> {
        match &self.caller {
            Some(caller) => caller.peer.as_ref(),
            None => self.connection.identity(),
        }
    }

    /// Whether who sent it is one whose certificate counts no more.
    pub fn is_refused(&self) -> bool {
        let refuses = self.connection.worker.shared.refuses.as_ref();
        refuses.is_some_and(|refuses| self.identity().is_some_and(|peer| refuses(peer)))
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
            let (path, bytes, peer) = (uri.path(), self.sent, self.address());
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

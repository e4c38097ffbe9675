//! A server that a client loses in the middle ([`relay`]): its bytes pass until so many have, then
//! none do; or that is far away ([`Line`]).
//!
//! So a test decides where work stops, whatever the machine does meanwhile.

use rustix::net::sockopt;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// Whose bytes are counted and withheld.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// The address of a relay to the server at `url` that passes the first `limit` bytes from one side,
/// of all connections together. The other side waits for the rest, in vain.
pub fn relay(url: &str, from: From, limit: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = url.trim_start_matches("http://").to_owned();
    let left = Arc::new(AtomicI64::new(limit));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&server) else { return };
            for (source, dest, side) in
                [(&client, &server, From::Client), (&server, &client, From::Server)]
            {
                let (source, dest) = (source.try_clone().unwrap(), dest.try_clone().unwrap());
                let left = (side == from).then(|| Arc::clone(&left));
                std::thread::spawn(move || pass(source, dest, left.as_deref()));
            }
        }
    });
    format!("http://{address}")
}

/// Passes all that comes from either to the other.
pub fn join(client: TcpStream, server: TcpStream) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || pass(from, to, None));
    std::thread::spawn(move || pass(server, client, None));
}

fn pass(mut source: TcpStream, mut dest: TcpStream, left: Option<&AtomicI64>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = source.read(&mut buffer) {
        let withheld = left.is_some_and(|left| left.fetch_sub(n as i64, SeqCst) <= 0);
        if !withheld && dest.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    for end in [source, dest] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// A line to a server that goes at the pace that a test sets, and counts what comes from the server.
/// What was held up passes later: no byte is lost.
pub struct Line {
    /// Where its near end is: `127.0.0.1:PORT`.
    pub address: String,
    state: Arc<LineState>,
}

struct LineState {
    pace: Mutex<Pace>,
    changed: Condvar,
    server: Mutex<String>,
    passed: AtomicU64,
}

/// How what comes from the server passes.
#[derive(Clone, Copy, PartialEq)]
pub enum Pace {
    /// As it comes.
    Free,
    /// So many bytes a second, of all connections together.
    Slow(u64),
    /// Not at all from the moment on when so many bytes have passed.
    UpTo(u64),
    /// Connections end once so many bytes have passed, and so do new ones.
    CutAt(u64),
    /// A connection ends before a piece with these bytes in it passes.
    CutBefore(&'static [u8]),
    /// As it comes, but that in each piece after so many bytes one bit is another.
    SpoiltAfter(u64),
}

/// What waits in the line at most, on each side: what a test says of the pace is soon true.
const IN_THE_LINE: usize = 64 << 10;

impl Line {
    /// A free line to the server at `url`.
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(LineState {
            pace: Mutex::new(Pace::Free),
            changed: Condvar::new(),
            server: Mutex::new(String::new()),
            passed: AtomicU64::new(0),
        });
        let line = Self { address, state };
        line.lead_to(url);
        let state = line.state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = state.server.lock().unwrap().clone();
                // As nobody listens there, so nobody does here.
                let Ok(server) = TcpStream::connect(server) else { continue };
                sockopt::set_socket_recv_buffer_size(&server, IN_THE_LINE).unwrap();
                sockopt::set_socket_send_buffer_size(&client, IN_THE_LINE).unwrap();
                let (source, dest) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(source, dest, None));
                let state = state.clone();
                std::thread::spawn(move || state.pass(server, client));
            }
        });
        line
    }

    /// Leads new connections to the server at `url`.
    pub fn lead_to(&self, url: &str) {
        let server = url.trim_start_matches("http://").to_owned();
        *self.state.server.lock().unwrap() = server;
    }

    /// From now on.
    pub fn set(&self, pace: Pace) {
        *self.state.pace.lock().unwrap() = pace;
        self.state.changed.notify_all();
    }

    /// Bytes that came from the server and passed.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(Pace::Free);
    }
}

impl LineState {
    fn pass(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = server.read(&mut buffer) {
            match self.wait_for(n as u64) {
                Pace::CutAt(limit) if self.passed.load(SeqCst) > limit => break,
                Pace::CutBefore(bytes) if buffer[..n].windows(bytes.len()).any(|w| w == bytes) => {
                    break;
                }
                Pace::SpoiltAfter(limit) if self.passed.load(SeqCst) > limit => {
                    buffer[n / 2] ^= 1;
                }
                _ => {}
            }
            if client.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        for end in [server, client] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Until `n` more bytes may pass.
    fn wait_for(&self, n: u64) -> Pace {
        let is_held = |pace: &mut Pace| {
            let passed = self.passed.load(SeqCst);
            matches!(*pace, Pace::UpTo(limit) if passed + n > limit)
        };
        let pace = self.changed.wait_while(self.pace.lock().unwrap(), is_held).unwrap();
        self.passed.fetch_add(n, SeqCst);
        if let Pace::Slow(rate) = *pace {
            // Under the lock: the others wait as long.
            std::thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
        }
        *pace
    }
}

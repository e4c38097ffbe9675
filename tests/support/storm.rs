//! A line that does to bytes what bad lines and bad boxes in between do: it cuts, stalls, swaps and
//! flips them. What happens to the n-th connection is decided by the seed alone.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A stormy line to a server.
pub struct Storm {
    /// Where its near end is: `127.0.0.1:PORT`.
    pub address: String,
    state: Arc<State>,
}

struct State {
    server: Mutex<String>,
    seed: u64,
    is_calm: AtomicBool,
    /// Of each connection that did not pass unharmed.
    n_harmed: AtomicU64,
}

/// What happens to a connection when so many bytes have passed on the way from the server.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    /// Nothing passes for a while, then it is cut.
    Stall,
    Flip,
    /// A piece passes after the one that follows it.
    Swap,
}

impl Storm {
    /// A stormy line to the server at `url`.
    pub fn to(url: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            server: Mutex::default(),
            seed,
            is_calm: AtomicBool::new(false),
            n_harmed: AtomicU64::new(0),
        };
        let storm = Self { address, state: Arc::new(state) };
        storm.lead_to(url);
        let state = storm.state.clone();
        std::thread::spawn(move || {
            for (n, client) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let server = state.server.lock().unwrap().clone();
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (source, dest) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (there, back, harm) = (state.clone(), state.clone(), state.harm_of(n));
                std::thread::spawn(move || there.pass(source, dest, None));
                std::thread::spawn(move || back.pass(server, client, harm));
            }
        });
        storm
    }

    /// Leads new connections to the server at `url`.
    pub fn lead_to(&self, url: &str) {
        *self.state.server.lock().unwrap() = url.trim_start_matches("http://").to_owned();
    }

    /// From now on nothing is harmed any more; what is under way is not, either.
    pub fn calm(&self) {
        self.state.is_calm.store(true, SeqCst);
    }

    /// Connections that were harmed.
    pub fn n_harmed(&self) -> u64 {
        self.state.n_harmed.load(SeqCst)
    }
}

impl State {
    /// Two of three connections are harmed, somewhere in the first 200 KB that come from the server.
    fn harm_of(&self, n: u64) -> Option<(Harm, usize)> {
        // splitmix64: each number well away from the last (Steele, Lea, Flood 2014).
        let mut bits = (self.seed << 32 | n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        let harm = match bits % 12 {
            0..4 => return None,
            4..7 => Harm::Cut,
            7 => Harm::Stall,
            8..10 => Harm::Flip,
            _ => Harm::Swap,
        };
        Some((harm, (bits >> 32) as usize % 200_000))
    }

    fn pass(&self, mut source: TcpStream, mut dest: TcpStream, harm: Option<(Harm, usize)>) {
        let mut buffer = [0; 4 << 10];
        let (mut passed, mut kept) = (0, Vec::new());
        while let Ok(n @ 1..) = source.read(&mut buffer) {
            let mut piece = buffer[..n].to_vec();
            let here = harm.filter(|(_, at)| (passed..passed + n).contains(at));
            passed += n;
            let is_harmed = here.is_some() && !self.is_calm.load(SeqCst);
            if is_harmed {
                self.n_harmed.fetch_add(1, SeqCst);
            }
            match here.filter(|_| is_harmed) {
                Some((Harm::Cut, _)) => break,
                Some((Harm::Stall, _)) => {
                    std::thread::sleep(Duration::from_millis(500));
                    break;
                }
                Some((Harm::Flip, at)) => piece[at % n] ^= 1 << (at % 8),
                Some((Harm::Swap, _)) => {
                    kept = piece;
                    continue;
                }
                None => {}
            }
            piece.append(&mut kept);
            if dest.write_all(&piece).is_err() {
                break;
            }
        }
        for end in [source, dest] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

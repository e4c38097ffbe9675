//! A server that a client loses in the middle: its bytes pass until so many have, then none do.
//!
//! So a test decides where work stops, whatever the machine does meanwhile.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
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

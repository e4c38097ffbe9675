//! A network of its own for machines of a branch: they have its addresses, and reach the servers that the test
//! leads to it, and nothing else.
//!
//! It takes root. The servers themselves stay on this machine's loopback.

use super::{alone, relay::join};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

/// Listens on an address and a port where it runs, says by which number it has the socket, and waits until
/// somebody has taken it.
const LISTEN: &str = "import socket, sys\n\
    it = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)\n\
    print(it.fileno(), flush=True)\n\
    sys.stdin.read()\n";

/// A network namespace; it goes with the test.
pub struct Branch(String);

impl Branch {
    /// One whose machines have these addresses.
    pub fn new(name: &str, addresses: &[&str]) -> Self {
        let branch = Self(format!("depot-{}-{name}", std::process::id()));
        ip(&["netns", "add", &branch.0]);
        ip(&["-n", &branch.0, "link", "set", "lo", "up"]);
        for address in addresses {
            ip(&["-n", &branch.0, "address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        branch
    }

    /// Leads to the server at `url`, which is at the same address there.
    pub fn lead_to(&self, url: &str) {
        self.lead(url.trim_start_matches("http://"), url);
    }

    /// Leads from an address with a port, which is one of the branch, to the server at `url`.
    pub fn lead(&self, from: &str, url: &str) {
        let server = url.trim_start_matches("http://").to_owned();
        let (host, port) = from.rsplit_once(':').unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", LISTEN, host, port]);
        let mut python = self.run(&python);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut number = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let number = number.trim().parse().expect("python3 listens");
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let listener = TcpListener::from(socket);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // As nobody listens there, so nobody does here.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                join(client, server);
            }
        });
    }

    /// That command on a machine of the branch. The process is the same one.
    pub fn run(&self, command: &Command) -> Command {
        let mut inside = alone(Command::new("ip"));
        inside.args(["netns", "exec", &self.0]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn ip(args: &[&str]) {
    super::debian::run("ip", args);
}

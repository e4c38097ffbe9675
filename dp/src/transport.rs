//! A connection's bytes: a TCP stream that sends parts of pack files without copying them.
//!
//! hyper hands the transport slices of memory to write. When such a slice is part of a mapped
//! pack, the body that gave it to hyper has left a note here ([`Places`]): these bytes are also
//! at that offset of that file. The transport then has the kernel send them from the file
//! (`sendfile(2)`), which costs a third of the CPU of copying them from the mapping.
//!
//! Always true of a note: it holds the bytes alive, so no other bytes can come to lie at their
//! address; and notes are in the order in which hyper writes.
//!
//! Nothing here, nor in hyper's HTTP/1, reads a mapped slice: only the kernel does, and for it a
//! bad disk under a mapping is an error, while for us it would be a signal that ends the process.

use crate::connection::Connection;
use crate::deadline::Late;
use bytes::{Buf, Bytes};
use contentlib::FilePlace;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Shorter slices are copied: two system calls cost more than copying this much.
pub(crate) const SENDFILE_MIN: usize = 64 << 10;
/// How long, and for how many bytes, a closed connection waits for its peer to end.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// What a connection may write before others on its worker get their turn.
const TURN: usize = 4 << 20;

/// Which bytes that are about to be written lie in which files.
#[derive(Default)]
pub(crate) struct Places {
    queue: Mutex<VecDeque<(Bytes, FilePlace)>>,
    len: AtomicUsize,
}

impl Places {
    /// Notes that `bytes`, given to hyper next, are those at `place`.
    pub fn note(&self, bytes: Bytes, place: FilePlace) {
        let mut queue = self.queue.lock();
        queue.push_back((bytes, place));
        self.len.store(queue.len(), Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Forgets the first note, whose bytes are written.
    fn pop(&self) {
        let mut queue = self.queue.lock();
        queue.pop_front();
        self.len.store(queue.len(), Relaxed);
    }

    /// The first slice of `slices` that the first note is about.
    fn find(&self, slices: &[IoSlice<'_>]) -> Option<Found> {
        if self.is_empty() {
            return None;
        }
        let queue = self.queue.lock();
        let (bytes, place) = queue.front()?;
        let noted = bytes.as_ptr_range();
        let at = slices.iter().position(|s| {
            let slice = s.as_ptr_range();
            !s.is_empty() && noted.start <= slice.start && slice.end <= noted.end
        })?;
        let skipped = slices[at].as_ptr() as usize - noted.start as usize;
        Some(Found {
            at,
            place: FilePlace { file: place.file.clone(), offset: place.offset + skipped as u64 },
            is_last: slices[at].as_ptr_range().end == noted.end,
        })
    }
}

struct Found {
    at: usize,
    place: FilePlace,
    /// Whether the slice reaches the end of the noted bytes.
    is_last: bool,
}

/// The transport under hyper.
pub(crate) struct Transport {
    /// There until it is dropped.
    io: Option<TokioIo<TcpStream>>,
    /// All was written, and the peer was told so.
    is_shut: bool,
    /// What was read to tell HTTP/1, HTTP/2 and TLS from each other.
    prefix: Bytes,
    connection: Arc<Connection>,
}

impl Transport {
    pub fn new(stream: TcpStream, prefix: Bytes, connection: Arc<Connection>) -> Self {
        let io = Some(TokioIo::new(stream));
        Self { io, is_shut: false, prefix, connection }
    }

    fn io(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(self.io.as_mut().expect("there until dropped"))
    }

    /// Runs a write, and notes what came of it.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        how: impl FnOnce(Pin<&mut TokioIo<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(self.io.as_mut().expect("there until dropped"));
        counted(&self.connection, cx, |cx| how(io, cx))
    }
}

/// Runs a write to the socket of `connection`, if it is its turn, and notes what came of it.
pub(crate) fn counted(
    connection: &Connection,
    cx: &mut Context<'_>,
    write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    if connection.turn.get() >= TURN {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    let done = write(cx);
    match done {
        Poll::Ready(Ok(n)) => {
            connection.turn.add(n);
            connection.wrote();
        }
        Poll::Pending => connection.activity.write_blocked(),
        Poll::Ready(Err(ref error)) if error.kind() == io::ErrorKind::TimedOut => {
            connection.worker.counters.late(Late::Progress);
        }
        Poll::Ready(Err(_)) => {}
    }
    done
}

impl Read for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            return Poll::Ready(Ok(()));
        }
        ready!(self.io().poll_read(cx, buf))?;
        self.connection.read();
        Poll::Ready(Ok(()))
    }
}

impl Write for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |io, cx| io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.io().poll_shutdown(cx);
        self.is_shut |= matches!(shut, Poll::Ready(Ok(())));
        shut
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(found) = self.connection.places.find(slices) else {
            return self.write(cx, |io, cx| io.poll_write_vectored(cx, slices));
        };
        let (head, length) = (&slices[..found.at], slices[found.at].len());
        let sent = self.write(cx, |io, cx| {
            poll_send(io.inner(), cx, || head_then_file(io.inner(), head, &found.place, length))
        });
        if let Poll::Ready(Ok(n)) = sent
            && n == total(head) + length
            && found.is_last
        {
            self.connection.places.pop();
        }
        sent
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(io) = self.io.take()
            && self.is_shut
        {
            self.connection.leave(io.into_inner());
        }
    }
}

/// Reads what a peer still sends, until it has ended too. Closing a socket with unread bytes, such
/// as what a client of HTTP/2 says of each piece it takes, resets the connection, and then the
/// client loses what it has not yet read of its answer.
pub(crate) async fn linger(stream: TcpStream) {
    let mut rest = [0; 4096];
    let drain = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            stream.readable().await?;
            match stream.try_read(&mut rest) {
                Ok(0) => break,
                Ok(n) => left = left.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}

fn total(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|s| s.len()).sum()
}

fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut send: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, &mut send) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

/// Sends `head` and then `length` bytes of a file, or as much of both as the socket takes.
fn head_then_file(
    stream: &TcpStream,
    head: &[IoSlice<'_>],
    place: &FilePlace,
    length: usize,
) -> io::Result<usize> {
    let in_head = total(head);
    if in_head > 0 {
        // More follows at once: the head shares its packet with the first bytes of the file.
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let n = rustix::net::sendmsg(stream, head, &mut SendAncillaryBuffer::default(), flags)?;
        if n < in_head {
            return Ok(n);
        }
    }
    let mut offset = place.offset;
    match rustix::fs::sendfile(stream, place.file.as_fd(), Some(&mut offset), length) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a pack was cut short")),
        Ok(n) => Ok(in_head + n),
        // The head is out; saying so keeps it from being sent twice.
        Err(Errno::AGAIN | Errno::INTR) if in_head > 0 => Ok(in_head),
        Err(e) => Err(e.into()),
    }
}

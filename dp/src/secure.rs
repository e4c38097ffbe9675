//! A connection's bytes under TLS: what `transport` is for plain ones.
//!
//! What time limits go by is what the peer takes and gives, so it is noted below TLS, on the wire:
//! a record that comes in small pieces is progress, and a handshake is part of the first request's
//! head. There is no sending of files here. Whatever is written is read to encrypt it, so bodies give
//! copies and never a mapping (`Connection::sends_files`).

use crate::connection::Connection;
use crate::transport::counted;
use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the first record of a TLS client begins with (RFC 8446, section 5.1), and no request of HTTP.
pub(crate) const HANDSHAKE: u8 = 0x16;

/// The encrypted side of a connection.
struct Wire {
    stream: TcpStream,
    /// What was read to tell TLS from HTTP.
    prefix: Bytes,
    connection: Arc<Connection>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.connection.read();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Wire { stream, connection, .. } = &mut *self;
        counted(connection, cx, |cx| Pin::new(stream).poll_write(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Wire { stream, connection, .. } = &mut *self;
        counted(connection, cx, |cx| Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The transport under hyper, over TLS.
pub(crate) struct Secure {
    /// There until it is dropped.
    io: Option<TokioIo<TlsStream<Wire>>>,
    /// All was written, and the peer was told so.
    is_shut: bool,
}

impl Secure {
    /// Shakes hands with a client whose first bytes were `prefix`. One that is refused is told why.
    pub async fn accept(
        stream: TcpStream,
        prefix: Bytes,
        config: Arc<ServerConfig>,
        connection: Arc<Connection>,
    ) -> io::Result<Self> {
        let wire = Wire { stream, prefix, connection: connection.clone() };
        match TlsAcceptor::from(config).accept(wire).into_fallible().await {
            Ok(stream) => Ok(Self { io: Some(TokioIo::new(stream)), is_shut: false }),
            Err((error, mut wire)) => {
                // The alert is written; see `transport::linger` for what would become of it.
                if tokio::io::AsyncWriteExt::shutdown(&mut wire).await.is_ok() {
                    connection.leave(wire.stream);
                }
                Err(error)
            }
        }
    }

    /// What the client and we agreed on.
    pub fn session(&self) -> &ServerConnection {
        self.io.as_ref().expect("there until dropped").inner().get_ref().1
    }

    fn io(&mut self) -> Pin<&mut TokioIo<TlsStream<Wire>>> {
        Pin::new(self.io.as_mut().expect("there until dropped"))
    }
}

impl Read for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl Write for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
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
        self.io().poll_write_vectored(cx, slices)
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        if let Some(io) = self.io.take()
            && self.is_shut
        {
            let (wire, _) = io.into_inner().into_inner();
            wire.connection.clone().leave(wire.stream);
        }
    }
}

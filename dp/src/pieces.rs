//! The body of an answer that is made by blocking work, as a writer that waits for whoever takes it.
//!
//! So what is made and not yet taken is a few pieces, however slow the other side is. When that is
//! gone, the next write fails; when the making fails, the body ends without its end.

use bytes::Bytes;
use futures::Stream;
use std::io::{self, Write};
use tokio::sync::mpsc;

/// Bytes of a body that are sent at once.
const PIECE: usize = 256 << 10;
/// So many pieces wait to be taken.
const AHEAD: usize = 4;

/// The end of a body where it is written. For threads that may block.
pub struct Pieces {
    send: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    /// A writer, and the body of what is written.
    pub fn new() -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + use<>) {
        let (send, mut receive) = mpsc::channel(AHEAD);
        let body = futures::stream::poll_fn(move |cx| receive.poll_recv(cx));
        (Self { send, piece: Vec::with_capacity(PIECE) }, body)
    }

    /// Cuts the body off: whoever takes it is not to think that it is whole.
    pub fn cut(self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) {
        // If nobody takes it, nobody has to be told.
        let _ = self.send.blocking_send(Err(io::Error::other(why)));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.send.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn what_is_written_comes_and_a_cut_is_told() {
        let (mut pieces, body) = Pieces::new();
        let writing = tokio::task::spawn_blocking(move || {
            (0..40_000_u32).try_for_each(|n| pieces.write_all(&n.to_le_bytes()))?;
            pieces.flush()?;
            pieces.cut("no more");
            Ok::<_, io::Error>(())
        });
        let found: Vec<io::Result<Bytes>> = body.collect().await;
        writing.await.unwrap().unwrap();
        let (last, whole) = found.split_last().unwrap();
        assert_eq!(last.as_ref().unwrap_err().to_string(), "no more");
        let whole: usize = whole.iter().map(|piece| piece.as_ref().unwrap().len()).sum();
        assert_eq!(whole, 160_000);
    }

    #[tokio::test]
    async fn a_writer_is_told_when_nobody_takes_it() {
        let (mut pieces, body) = Pieces::new();
        drop(body);
        let written = tokio::task::spawn_blocking(move || pieces.write_all(&[0; PIECE]));
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

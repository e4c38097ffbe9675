//! The body of an answer that is a delta, read from its file as the client takes it.

use crate::fallback::BoxError;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Bytes that are read at once.
const PIECE: u64 = 256 << 10;

/// The bytes of a file that are still to be sent.
pub(crate) struct FileBody {
    file: Arc<File>,
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// The bytes `range` of `file`.
    pub fn new(file: File, range: Range<u64>) -> Self {
        Self { file: Arc::new(file), left: range, reading: None }
    }

    /// How many bytes are to come.
    pub fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    /// The next bytes; `None` after the last. They are read on the blocking pool.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let (file, at, n) = (self.file.clone(), self.left.start, self.left().min(PIECE));
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; n as usize];
                file.read_exact_at(&mut bytes, at)?;
                Ok(bytes.into())
            })
        });
        let read = std::task::ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(Some(match read {
            Ok(Ok(bytes)) => {
                self.left.start += n;
                Ok(bytes)
            }
            Ok(Err(error)) => Err(error.into()),
            // The server is stopping.
            Err(error) => Err(error.into()),
        }))
    }
}

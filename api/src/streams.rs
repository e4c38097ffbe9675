//! Bodies and blocking readers: uploads in, contents out.

use crate::extract::too_large;
use crate::problem::{Kind, Problem};
use crate::site::{Content, Site, blocking};
use axum::body::{Body, Bytes, HttpBody};
use contentlib::ContentReader;
use futures::{StreamExt, TryStreamExt};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// The largest piece of an answer.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead of the client.
const AHEAD: usize = 4;

/// Bodies that are taken in at a time. Each keeps a thread for as long as its client sends, and the
/// runtime has 512 for all that blocks: jobs, lists, the audit log.
pub const AT_A_TIME: usize = 64;

/// Places for bodies that are taken in.
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Places {
    /// A place, in the order of asking, if one becomes free within `patience`.
    async fn take(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Problem> {
        let place = tokio::time::timeout(patience, Arc::clone(&self.0).acquire_owned()).await;
        // Nobody closes the semaphore, so an error is that the time is over.
        place.ok().and_then(Result::ok).ok_or_else(|| {
            let detail = format!("{AT_A_TIME} uploads are under way: try again later");
            Problem::new(Kind::Busy, detail).retry_after(10)
        })
    }
}

/// A body as `work` of [`take_in`] reads it.
pub type Reader = Box<dyn Read + Send>;

/// Runs `work` on `body` as it streams in, off the async threads, when there is a place for it.
pub async fn take_in<T: Send + 'static>(
    site: Site,
    body: Body,
    work: impl FnOnce(Content, Reader) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let limit = site.config().upload.max_size.0;
    // As its length is stated: nobody waits for a body that is refused in any case.
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    // As long as a client may keep us waiting.
    let place = site.places().take(site.config().dp.stall_timeout).await?;
    let reader = reader(body, limit);
    let done = move || {
        let _place = place;
        work(site.content()?, Box::new(reader))
    };
    blocking(done).await
}

/// `body` as a blocking reader. A body above `limit` bytes ends in an error that becomes the right
/// problem.
///
/// Must be called inside a tokio runtime.
fn reader(body: Body, limit: u64) -> impl Read + Send {
    let mut left = limit;
    let pieces = body.into_data_stream().map_err(cut_off).map(move |piece| {
        let piece: Bytes = piece?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| io::Error::other(too_large(limit)))?;
        Ok::<_, io::Error>(piece)
    });
    SyncIoBridge::new(StreamReader::new(Box::pin(pieces)))
}

/// The connection ended inside a body.
fn cut_off(error: axum::Error) -> io::Error {
    let detail = format!("ended early: {error}; nothing was kept, send it again");
    io::Error::other(Problem::malformed("body", detail))
}

/// Reads `reader` to its end, so that a body is taken whole even if its format ends sooner.
pub fn drain(reader: &mut impl Read) -> io::Result<u64> {
    io::copy(reader, &mut io::sink())
}

/// Bytes `range` of a content as a body. Damage that is found on the way cuts the body off: a
/// wrong byte is never sent.
pub fn content_body(reader: ContentReader, range: Range<u64>) -> Body {
    let (send, receive) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut at = range.start;
        while at < range.end {
            let max = (range.end - at).min(PIECE as u64) as usize;
            let piece = match reader.segment(at, max) {
                Ok(segment) => Ok(segment.bytes),
                Err(error) => {
                    tracing::error!(%error, digest = %reader.digest(), "content cut off");
                    Err(io::Error::other(error))
                }
            };
            let failed = piece.is_err();
            at += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            // The client is gone, or nothing more can be had.
            if send.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receive))
}

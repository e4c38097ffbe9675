//! Bodies and blocking readers: uploads in, contents out.

use crate::extract::too_large;
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use contentlib::ContentReader;
use futures::{StreamExt, TryStreamExt};
use std::io::{self, Read};
use std::ops::Range;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// The largest piece of an answer.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead of the client.
const AHEAD: usize = 4;

/// `body` as a blocking reader, to be read off the async threads. A body above `limit` bytes ends
/// in an error that becomes the right problem.
///
/// Must be called inside a tokio runtime.
pub fn reader(body: Body, limit: u64) -> impl Read + Send {
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

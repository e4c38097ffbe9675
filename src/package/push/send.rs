//! Sending chunks: offer their names in batches, send what is missing as frames.
//!
//! Always true: a few batches are under way at a time, so that a slow line is kept busy and memory
//! stays bounded; a batch that fails for want of a connection is tried again, since sending a
//! chunk twice does no harm.

use super::read::Piece;
use crate::{
    exit::Failure,
    transport::{Client, Request, path},
};
use api::routes::uploads::Ids;
use bytes::{Bytes, BytesMut};
use contentlib::{
    Digest, Frame, Progress,
    block::MAX_BLOCK_CHUNKS,
    frames::{FrameItem, MEDIA_TYPE},
};
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::mpsc::Receiver;

/// A batch is closed once it holds so many chunks …
const BATCH_CHUNKS: usize = 2048;
/// … or so many bytes.
const BATCH_BYTES: usize = 8 << 20;
/// Batches under way at a time.
const UNDER_WAY: usize = 4;
/// A block is closed once it holds so many plain bytes: enough context for zstd.
const BLOCK_BYTES: usize = 1 << 20;
/// Waits before another try.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// What travelled.
#[derive(Debug, Default)]
pub struct Sent {
    /// Chunks whose names were offered.
    pub offered: AtomicU64,
    /// Chunks that were missing and so were sent.
    pub chunks: AtomicU64,
    /// Bytes of their frames.
    pub bytes: AtomicU64,
}

/// Sends the chunks that come in through `pieces` and that the upload `id` lacks.
pub async fn send(
    client: &Client,
    id: &str,
    mut pieces: Receiver<Piece>,
    progress: &Progress,
    sent: &Sent,
) -> Result<(), Failure> {
    let pieces = stream::poll_fn(move |context| pieces.poll_recv(context)).boxed();
    let batches = stream::unfold(pieces, |mut pieces| async move {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_CHUNKS && bytes < BATCH_BYTES {
            let Some(piece) = pieces.next().await else { break };
            bytes += piece.bytes.len();
            batch.push(piece);
        }
        (!batch.is_empty()).then_some((batch, pieces))
    });
    batches
        .map(|batch| send_batch(client, id, batch, progress, sent))
        .buffer_unordered(UNDER_WAY)
        .try_collect::<()>()
        .await
}

async fn send_batch(
    client: &Client,
    id: &str,
    batch: Vec<Piece>,
    progress: &Progress,
    sent: &Sent,
) -> Result<(), Failure> {
    let ids: Vec<Digest> = batch.iter().map(|piece| piece.id.0).collect();
    sent.offered.fetch_add(ids.len() as u64, Relaxed);
    let missing = missing(client, id, &Ids { chunks: ids, contents: Vec::new() }).await?.chunks;
    let missing: HashSet<Digest> = missing.into_iter().collect();
    let wanted = batch.into_iter().filter(|piece| missing.contains(&piece.id.0));
    let wanted: Vec<Bytes> = wanted.map(|piece| piece.bytes).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let n_chunks = wanted.len() as u64;
    let plain: u64 = wanted.iter().map(|bytes| bytes.len() as u64).sum();
    // Compressing takes far longer than the other tasks of this thread may wait.
    let frames = tokio::task::spawn_blocking(move || frames(&wanted)).await?;
    let address = path(&["uploads", id, "frames"]);
    let request = || Request::new(Method::PUT, &address).bytes(frames.clone(), MEDIA_TYPE);
    tried_again(|| async { client.send(request()).await?.collect().await }).await?;
    sent.chunks.fetch_add(n_chunks, Relaxed);
    sent.bytes.fetch_add(frames.len() as u64, Relaxed);
    progress.new_bytes.fetch_add(plain, Relaxed);
    progress.stored_bytes.fetch_add(frames.len() as u64, Relaxed);
    Ok(())
}

/// Which of these the site lacks.
pub async fn missing(client: &Client, id: &str, offered: &Ids) -> Result<Ids, Failure> {
    let address = path(&["uploads", id, "missing"]);
    tried_again(|| client.post(&address, offered)).await
}

/// The chunks as a stream of frames, neighbours compressed together.
fn frames(chunks: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    let mut start = 0;
    while start < chunks.len() {
        let mut plain = 0;
        let fits = |chunk: &&Bytes| {
            plain += chunk.len();
            plain <= BLOCK_BYTES
        };
        let n = chunks[start..].iter().take_while(fits).take(MAX_BLOCK_CHUNKS).count().max(1);
        FrameItem::Block(Frame::pack(&chunks[start..start + n], true)).encode(&mut out);
        start += n;
    }
    FrameItem::End.encode(&mut out);
    out.freeze()
}

/// Tries again what failed for want of a connection.
pub async fn tried_again<T, F: Future<Output = Result<T, Failure>>>(
    mut work: impl FnMut() -> F,
) -> Result<T, Failure> {
    for pause in PAUSES {
        match work().await {
            Err(failure) if failure.may_pass => tokio::time::sleep(pause).await,
            other => return other,
        }
    }
    work().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::frames::FrameDecoder;

    #[test]
    fn frames_hold_every_chunk_in_order_within_the_limits() {
        let chunks: Vec<Bytes> = (0..10_000_u32)
            .map(|n| Bytes::from(n.to_le_bytes().repeat(1 + n as usize % 90)))
            .collect();
        let mut decoder = FrameDecoder::default();
        decoder.push(&frames(&chunks));
        let mut found = Vec::new();
        while let Some(item) = decoder.next_item().expect("well formed") {
            if let FrameItem::Block(frame) = item {
                assert!(frame.plain_len() <= BLOCK_BYTES);
                found.extend(frame.chunks().expect("decodes").into_iter().map(|(id, _)| id.0));
            }
        }
        assert!(decoder.is_complete());
        assert_eq!(found, chunks.iter().map(|c| Digest::of(c)).collect::<Vec<_>>());
    }
}

//! A body that is made while it is sent: in batches on the blocking pool. No thread waits for a slow
//! client, and nothing is held for it but one batch.

use crate::fallback::BoxError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// A batch is closed once it holds this much.
const BATCH: usize = 1 << 20;

/// What is left to make: slices that follow each other. `next` may block.
type Rest = Box<dyn Iterator<Item = Vec<Bytes>> + Send>;

/// The body.
pub(crate) struct MadeBody {
    batch: VecDeque<Bytes>,
    next: Next,
}

enum Next {
    Making(JoinHandle<Made>),
    Paused(Rest),
    Done,
}

struct Made {
    batch: VecDeque<Bytes>,
    /// What is left to make, if anything is.
    rest: Option<Rest>,
}

impl MadeBody {
    /// The body of these items.
    pub fn new(items: impl Iterator<Item = Vec<Bytes>> + Send + 'static) -> Self {
        Self { batch: VecDeque::new(), next: Next::Paused(Box::new(items)) }
    }

    /// The next bytes; `None` after the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            if let Some(bytes) = self.batch.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match std::mem::replace(&mut self.next, Next::Done) {
                Next::Done => return Poll::Ready(None),
                Next::Paused(rest) => {
                    self.next = Next::Making(tokio::task::spawn_blocking(move || make(rest)));
                }
                Next::Making(mut making) => match Pin::new(&mut making).poll(cx) {
                    Poll::Ready(Ok(made)) => {
                        self.batch = made.batch;
                        self.next = made.rest.map_or(Next::Done, Next::Paused);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Pending => {
                        self.next = Next::Making(making);
                        return Poll::Pending;
                    }
                },
            }
        }
    }
}

fn make(mut items: Rest) -> Made {
    let (mut batch, mut size) = (VecDeque::new(), 0);
    while size < BATCH {
        let Some(slices) = items.next() else { return Made { batch, rest: None } };
        for slice in slices {
            size += slice.len();
            batch.push_back(slice);
        }
    }
    Made { batch, rest: Some(items) }
}

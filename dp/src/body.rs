//! Bodies of answers: bytes at hand, content read as it is sent, or another service's body.
//!
//! Content is read in segments. A segment that is in memory and verified is taken on the spot;
//! one that needs the disk or a decoder is read on the blocking pool, one ahead of what is being
//! sent. A body that cannot go on ends in an error, which cuts the connection: what a client got
//! is a true beginning, never a wrong byte.

use crate::deltas::FileBody;
use crate::fallback::{BoxBody, BoxError};
use crate::made::MadeBody;
use crate::ticket::Ticket;
use crate::transport::SENDFILE_MIN;
use bytes::Bytes;
use contentlib::{ContentReader, ReadError, Segment};
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// A segment that is sent from its file: one system call does it.
const SEGMENT: usize = 2 << 20;
/// A segment that is copied, for HTTP/2, where streams share the connection, and for TLS; no less than the longest chunk, since
/// a chunk is hashed again for each segment that begins in it.
const SEGMENT_H2: usize = 512 << 10;

/// The body of any answer, with the ticket of its request.
pub(crate) struct Body {
    source: Source,
    ticket: Ticket,
}

pub(crate) enum Source {
    Empty,
    Bytes(Bytes),
    Content(ContentBody),
    Parts(Box<PartsBody>),
    Made(MadeBody),
    File(FileBody),
    Other(BoxBody),
}

impl Body {
    pub fn new(source: Source, mut ticket: Ticket) -> Self {
        ticket.set_busy(false);
        Self { source, ticket }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Body { source, ticket } = &mut *self;
        let is_content = matches!(
            source,
            Source::Content(_) | Source::Parts(_) | Source::Made(_) | Source::File(_)
        );
        if is_content && ticket.is_refused() {
            return Poll::Ready(Some(Err("the peer is refused from now on".into())));
        }
        let polled = match source {
            Source::Empty => Poll::Ready(None),
            Source::Bytes(bytes) => Poll::Ready(match std::mem::take(bytes) {
                bytes if bytes.is_empty() => None,
                bytes => Some(Ok(Frame::data(bytes))),
            }),
            Source::Content(content) => content.poll_next(cx, ticket).map(framed),
            Source::Parts(parts) => parts.poll_next(cx, ticket).map(framed),
            Source::Made(made) => made.poll_next(cx).map(framed),
            Source::File(file) => file.poll_next(cx).map(framed),
            Source::Other(body) => body.as_mut().poll_frame(cx),
        };
        ticket.set_busy(polled.is_pending());
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            ticket.sent(bytes.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Bytes(bytes) => bytes.is_empty(),
            Source::Content(content) => content.range.is_empty(),
            Source::Parts(parts) => parts.left == 0,
            Source::Made(_) => false,
            Source::File(file) => file.left() == 0,
            Source::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Content(content) => SizeHint::with_exact(content.left()),
            Source::Parts(parts) => SizeHint::with_exact(parts.left),
            Source::Made(_) => SizeHint::default(),
            Source::File(file) => SizeHint::with_exact(file.left()),
            Source::Other(body) => body.size_hint(),
        }
    }
}

fn framed(next: Option<Result<Bytes, BoxError>>) -> Option<Result<Frame<Bytes>, BoxError>> {
    next.map(|bytes| match bytes {
        Ok(bytes) => Ok(Frame::data(bytes)),
        Err(error) => {
            tracing::error!(error, "an answer was cut off");
            Err(error)
        }
    })
}

/// A range of one content.
pub(crate) struct ContentBody {
    reader: ContentReader,
    range: Range<u64>,
    next: Next,
}

enum Next {
    Unknown,
    Ready(Segment),
    Reading(JoinHandle<Result<Segment, ReadError>>),
}

impl ContentBody {
    /// The bytes `range`, of which the first are `first`.
    pub fn new(reader: ContentReader, range: Range<u64>, first: Segment) -> Self {
        Self { reader, range, next: Next::Ready(first) }
    }

    fn left(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The next bytes; `None` after the last.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &Ticket,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.range.is_empty() {
            return Poll::Ready(None);
        }
        let sends_files = ticket.connection.sends_files();
        let max = if sends_files { SEGMENT } else { SEGMENT_H2 };
        self.look_ahead(max);
        let segment = match std::mem::replace(&mut self.next, Next::Unknown) {
            Next::Ready(segment) => segment,
            Next::Reading(mut reading) => match Pin::new(&mut reading).poll(cx) {
                Poll::Ready(Ok(Ok(segment))) => segment,
                Poll::Ready(Ok(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                // The server is stopping.
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => {
                    self.next = Next::Reading(reading);
                    return Poll::Pending;
                }
            },
            Next::Unknown => unreachable!("looked ahead"),
        };
        let Segment { mut bytes, place } = segment;
        bytes.truncate(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.range.start += bytes.len() as u64;
        if let Some(place) = place {
            if !sends_files {
                // HTTP/2 copies the ends of frames itself, and TLS encrypts; neither must read a
                // mapping.
                let mut copy = vec![0; bytes.len()];
                if let Err(error) = place.file.read_exact_at(&mut copy, place.offset) {
                    return Poll::Ready(Some(Err(error.into())));
                }
                bytes = copy.into();
            } else if bytes.len() >= SENDFILE_MIN {
                ticket.connection.places.note(bytes.clone(), place);
            }
        }
        if !self.range.is_empty() {
            self.look_ahead(max);
        }
        Poll::Ready(Some(Ok(bytes)))
    }

    /// Takes the next segment if it is in memory, or begins to read it.
    fn look_ahead(&mut self, max: usize) {
        if !matches!(self.next, Next::Unknown) {
            return;
        }
        let (at, max) = (self.range.start, max.min(usize::try_from(self.left()).unwrap_or(max)));
        self.next = match ready(&self.reader, at, max) {
            Some(segment) => Next::Ready(segment),
            None => {
                let reader = self.reader.clone();
                Next::Reading(tokio::task::spawn_blocking(move || read(&reader, at, max)))
            }
        };
    }
}

/// The bytes at `at`, at most `max`, if no disk need be waited for.
pub(crate) fn ready(reader: &ContentReader, at: u64, max: usize) -> Option<Segment> {
    reader.segment_ready(at, max).filter(is_cached)
}

/// The bytes at `at`, at most `max`, in memory. Blocks.
pub(crate) fn read(reader: &ContentReader, at: u64, max: usize) -> Result<Segment, ReadError> {
    let segment = reader.segment(at, max)?;
    if !is_cached(&segment)
        && let Some(place) = &segment.place
    {
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < segment.bytes.len() {
            match place.file.read_at(&mut buffer, place.offset + done as u64) {
                Ok(n) if n > 0 => done += n,
                // Sending will meet the same error, and end the answer.
                _ => break,
            }
        }
    }
    Ok(segment)
}

/// Whether the kernel has a mapped segment's first and last page in memory. It may have dropped
/// pages since they were verified, and sending them would stop the whole worker for the disk.
fn is_cached(segment: &Segment) -> bool {
    let Some(place) = &segment.place else { return true };
    let last = segment.bytes.len().saturating_sub(1) as u64;
    [place.offset, place.offset + last].into_iter().all(|at| {
        let mut byte = [0];
        let slices = &mut [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(&place.file, slices, at, ReadWriteFlags::NOWAIT);
        read != Err(Errno::AGAIN)
    })
}

/// Several ranges as `multipart/byteranges` (RFC 9110, section 14.6).
pub(crate) struct PartsBody {
    parts: VecDeque<(Bytes, Range<u64>)>,
    content: ContentBody,
    end: Bytes,
    left: u64,
}

impl PartsBody {
    /// Each part's head and range, in order, what stands after the last, and the first bytes of the
    /// first range.
    pub fn new(
        reader: ContentReader,
        parts: VecDeque<(Bytes, Range<u64>)>,
        end: Bytes,
        first: Segment,
    ) -> Self {
        let sizes = parts.iter().map(|(head, range)| head.len() as u64 + range.end - range.start);
        let left = sizes.sum::<u64>() + end.len() as u64;
        Self { parts, content: ContentBody::new(reader, 0..0, first), end, left }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &Ticket,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        let bytes = if let Some(bytes) = ready!(self.content.poll_next(cx, ticket)) {
            bytes?
        } else if let Some((head, range)) = self.parts.pop_front() {
            self.content.range = range;
            head
        } else if self.end.is_empty() {
            return Poll::Ready(None);
        } else {
            std::mem::take(&mut self.end)
        };
        self.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(bytes)))
    }
}

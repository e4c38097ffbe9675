//! Content that is ready to be sent: its reader, its headers, and, if it is small, its bytes.
//!
//! Each worker keeps what it was lately asked for under the very path of the request, so that a
//! hot GET is one hash look-up: nothing is parsed, no index is read, no thread is changed.
//!
//! Always true of the cache: all in it was found at one generation of the library. Whenever
//! content is condemned, revoked or found damaged the generation changes, and all is forgotten.

use bytes::Bytes;
use contentlib::{ContentReader, CopyError, ReadError};
use http::header::{self, HeaderMap, HeaderValue};
use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};
use std::sync::Arc;

/// Contents up to this size are kept whole; larger ones are sent from their packs.
const SMALL: u64 = 64 << 10;
/// What an entry costs beside its bytes and its recipe.
const OVERHEAD: u64 = 1 << 10;
/// What it costs for each chunk.
const PER_CHUNK: u64 = 96;

/// One content as one resource: the same bytes under two paths are two of these.
pub(crate) struct Held {
    pub reader: ContentReader,
    pub size: u64,
    /// The strong entity tag, quotes included.
    pub etag: HeaderValue,
    /// Seconds since 1970, if `Last-Modified` is among the headers.
    pub modified: Option<i64>,
    /// The headers of status 200.
    pub headers: HeaderMap,
    /// All bytes, if they are few.
    pub whole: Option<Bytes>,
    weight: u64,
}

/// What a resource says about itself beside its bytes.
pub(crate) struct Described {
    pub content_type: HeaderValue,
    pub cache_control: HeaderValue,
    pub modified: Option<i64>,
}

impl Described {
    /// Content by its digest: what it is is not known, and it never changes.
    pub fn by_digest() -> Self {
        Self {
            content_type: HeaderValue::from_static("application/octet-stream"),
            cache_control: HeaderValue::from_static("public, max-age=31536000, immutable"),
            modified: None,
        }
    }
}

impl Held {
    /// Makes content ready; reads it if it is small. Blocks.
    pub fn open(reader: ContentReader, described: Described) -> Result<Self, ReadError> {
        let size = reader.size();
        let whole = read_small(&reader)?;
        let weight = OVERHEAD
            + PER_CHUNK * reader.recipe().len() as u64
            + whole.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let etag = HeaderValue::try_from(format!("\"{}\"", reader.digest()))
            .expect("a digest is visible ASCII");
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, described.content_type);
        headers.insert(header::CONTENT_LENGTH, size.into());
        headers.insert(header::ETAG, etag.clone());
        headers.insert(header::CACHE_CONTROL, described.cache_control);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let modified = described.modified.and_then(|at| {
            headers.insert(header::LAST_MODIFIED, crate::condition::http_date(at)?);
            Some(at)
        });
        Ok(Self { reader, size, etag, modified, headers, whole, weight })
    }
}

/// All bytes of a small content.
fn read_small(reader: &ContentReader) -> Result<Option<Bytes>, ReadError> {
    let size = reader.size();
    if size > SMALL {
        return Ok(None);
    }
    // A copy: a slice would keep all of the block alive that was decoded for it, and a mapping
    // would show what others write to the pack.
    let mut bytes = Vec::with_capacity(size as usize);
    match reader.copy_to(0..size, &mut bytes) {
        Ok(_) => Ok(Some(bytes.into())),
        Err(CopyError::Read(error)) => Err(error),
        Err(_) => unreachable!("writing to memory does not fail"),
    }
}

/// What one worker was lately asked for, by path.
pub(crate) struct Hot(Mutex<Inner>);

struct Inner {
    generation: u64,
    cache: Cache<Box<str>, Arc<Held>, ByWeight>,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Box<str>, Arc<Held>> for ByWeight {
    fn weight(&self, _: &Box<str>, held: &Arc<Held>) -> u64 {
        held.weight
    }
}

impl Hot {
    /// Room for about `bytes` of content and headers.
    pub fn new(bytes: u64) -> Self {
        let entries = (bytes / (4 * OVERHEAD)).max(16) as usize;
        let cache = Cache::with_weighter(entries, bytes, ByWeight);
        Self(Mutex::new(Inner { generation: 0, cache }))
    }

    /// What is held for `path`, unless the library has changed since.
    pub fn get(&self, path: &str, generation: u64) -> Option<Arc<Held>> {
        let mut inner = self.0.lock();
        if inner.generation != generation {
            inner.forget(generation);
            return None;
        }
        inner.cache.get(path).cloned()
    }

    /// Keeps what was found for `path` when the library was at `generation`.
    pub fn put(&self, path: &str, generation: u64, held: Arc<Held>) {
        let mut inner = self.0.lock();
        if inner.generation == generation {
            inner.cache.insert(path.into(), held);
        }
    }

    /// Lets go of what may have changed, so that no pack is kept open for it.
    pub fn refresh(&self, generation: u64) {
        let mut inner = self.0.lock();
        if inner.generation != generation {
            inner.forget(generation);
        }
    }
}

impl Inner {
    fn forget(&mut self, generation: u64) {
        self.cache.clear();
        self.generation = generation;
    }
}

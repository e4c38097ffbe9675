//! Getting a manifest, at the cost of what changed in it.
//!
//! The manifest of a package with many files is megabytes, of which a new version changes a few
//! percent. It is content like any other, so where an older one is at hand only the chunks are
//! fetched that the older one lacks.

use super::RemoteError;
use super::client::Client;
use super::gather::Take;
use super::sink::chunks_of;
use bytes::Bytes;
use contentlib::{ChunkId, Digest, Frame, Recipe};
use std::collections::{HashMap, HashSet};

/// As much as a packager writes.
const MAX_MANIFEST: usize = 1 << 30;
/// Fewer chunks than this are not worth the extra round trips.
const WORTH: usize = 3;

/// The bytes of the manifest `digest`, checked.
pub(super) async fn fetch(
    client: &Client,
    digest: Digest,
    old: Option<&[u8]>,
) -> Result<Bytes, RemoteError> {
    if let Some(old) = old
        && let Some(recipe) = client.recipe(digest).await?
        && recipe.len() >= WORTH
        && recipe.size() <= MAX_MANIFEST as u64
    {
        let bytes = assemble(client, &recipe, old).await?;
        // The recipe is not signed, so only the whole tells.
        if let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == digest) {
            return Ok(bytes.into());
        }
    }
    client.content(digest, MAX_MANIFEST).await
}

/// The bytes of some chunks.
struct Kept {
    wanted: HashSet<ChunkId>,
    came: HashMap<ChunkId, Bytes>,
}

impl Take for Kept {
    async fn take(&mut self, frame: Frame) -> Result<Vec<ChunkId>, RemoteError> {
        let chunks = frame.chunks().unwrap_or_default();
        let ids = chunks.iter().map(|(id, _)| *id).collect();
        self.came.extend(chunks.into_iter().filter(|(id, _)| self.wanted.contains(id)));
        Ok(ids)
    }
}

async fn assemble(
    client: &Client,
    recipe: &Recipe,
    old: &[u8],
) -> Result<Option<Vec<u8>>, RemoteError> {
    let held = chunks_of(old);
    let wanted: HashSet<ChunkId> =
        recipe.chunks().iter().filter(|id| !held.contains_key(id)).copied().collect();
    let ids: Vec<ChunkId> = wanted.iter().copied().collect();
    let mut kept = Kept { wanted, came: HashMap::new() };
    for ids in ids.chunks(crate::MAX_CHUNKS) {
        match client.gather(ids.iter().copied(), &mut kept).await {
            Ok(lacking) if lacking.is_empty() => {}
            Ok(_) | Err(RemoteError::WrongBytes { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let came = kept.came;
    let mut bytes = Vec::with_capacity(recipe.size() as usize);
    for id in recipe.chunks() {
        match held.get(id).copied().or_else(|| came.get(id).map(|b| &b[..])) {
            Some(chunk) => bytes.extend_from_slice(chunk),
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use contentlib::Library;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    /// Answers requests whose path holds `0` with `1`, each on its own connection.
    fn server(answers: Vec<(&'static str, Vec<u8>)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
                while stream.read_line(&mut line).unwrap() > 2 {
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if path.is_empty() {
                        path = std::mem::take(&mut line);
                    }
                    line.clear();
                }
                stream.read_exact(&mut vec![0; length]).unwrap();
                let (_, body) = answers.iter().find(|(part, _)| path.contains(part)).unwrap();
                let stream = stream.get_mut();
                let length = body.len();
                let head = "HTTP/1.1 200 OK\r\nconnection: close";
                write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n").unwrap();
                stream.write_all(body).unwrap();
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_server_that_sends_other_chunks_is_asked_for_the_whole_instead() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let manifest: Vec<u8> =
            (0..60_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let spans: Vec<(ChunkId, u32)> = manifest
            .chunks(30_000)
            .map(|chunk| (ChunkId(Digest::of(chunk)), chunk.len() as u32))
            .collect();
        let recipe = Recipe::new(spans.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(folder.path(), Default::default()).unwrap();
        let session = library.session();
        // One that is wanted, and the end: the others did not come, and are not named as missing.
        let first = &manifest[..spans[0].1 as usize];
        session.add_reader(first, &Default::default(), &Default::default()).unwrap();
        session.commit(vec![]).unwrap();
        let mut frames = BytesMut::new();
        library.frames_for(&[spans[0].0]).unwrap().for_each(|item| item.encode(&mut frames));
        let url = server(vec![
            ("/recipes/", recipe.encode()),
            ("/chunks", frames.to_vec()),
            ("/content/", manifest.clone()),
        ]);
        let client = Client::new(&url).unwrap();
        let fetched = fetch(&client, Digest::of(&manifest), Some(b"an older one"));
        let fetched = tokio::time::timeout(Duration::from_secs(20), fetched).await;
        assert!(fetched.expect("it ends").unwrap() == manifest);
    }
}

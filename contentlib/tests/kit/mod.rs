//! What scenarios on real folders share: contents from seeds, and a few short hands.

#![allow(dead_code, reason = "each scenario uses some of it")]

use contentlib::block::Codec;
use contentlib::frames::FrameItem;
use contentlib::{
    AddError, ChunkId, Digest, Expect, Frame, Library, Link, Links, NoLinks, Options, Progress,
    Recipe, Ref, RefChange, RepairSource, Session, VerifyOptions, VerifyReport,
};
use std::path::{Path, PathBuf};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

pub fn options() -> Options {
    Options { threads: 2, reserve: 0, pack_target: 400 << 10, ..Options::default() }
}

pub fn open(folder: &Path) -> Library {
    Library::open(folder, options()).unwrap()
}

/// Bytes that do not compress.
pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Bytes that compress.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 40);
    let mut n = seed;
    while out.len() < len {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        out.extend_from_slice(format!("line {} of some text\n", n >> 48).as_bytes());
    }
    out.truncate(len);
    out
}

/// The bytes of a content, or nothing if it cannot be read whole.
pub fn read(library: &Library, digest: Digest) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    library.open_content(digest).ok()?.copy_to(0..u64::MAX, &mut out).ok()?;
    Some(out)
}

/// Sends a content as frames of chunks of `length` bytes.
pub fn send_chunks(session: &Session, bytes: &[u8], length: usize) -> Recipe {
    let chunks: Vec<&[u8]> = bytes.chunks(length).collect();
    for chunks in chunks.chunks(3) {
        let lens = chunks.iter().map(|c| c.len() as u32).collect();
        let frame = Frame::new(Codec::Raw, lens, chunks.concat().into()).unwrap();
        session.put_frame(&frame).unwrap();
    }
    Recipe::new(chunks.iter().map(|c| (ChunkId(Digest::of(c)), c.len() as u32))).unwrap()
}

/// Sends a content as another depot does: its chunks, its recipe, and the chunks again if some
/// are gone meanwhile.
pub fn upload(session: &Session, bytes: &[u8], length: usize) -> Digest {
    let digest = Digest::of(bytes);
    loop {
        let recipe = send_chunks(session, bytes, length);
        match session.put_recipe(digest, &recipe) {
            Ok(()) => return digest,
            Err(AddError::MissingChunks(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub fn set(name: &str, root: Digest, links: &[Digest]) -> RefChange {
    let value: Vec<u8> = links.iter().flat_map(|digest| *digest.as_bytes()).collect();
    let to = Ref { root: Some(root), value: value.into() };
    RefChange::Set { name: name.into(), to, expect: Expect::Any }
}

pub fn delete(name: &str) -> RefChange {
    RefChange::Delete { name: name.into(), expect: Expect::Any }
}

/// The value of a ref is the digests that it names beside its root.
pub struct ValueNames;

impl Links for ValueNames {
    fn links(&self, _: &str, to: &Ref, _: &Library) -> Result<Vec<Link>, Failure> {
        let digests = to.value.chunks_exact(32);
        let link = |bytes: &[u8]| Link {
            digest: Digest::from_bytes(bytes.try_into().expect("32 bytes")),
            label: "a link".into(),
        };
        Ok(digests.map(link).collect())
    }
}

pub fn verify(library: &Library) -> VerifyReport {
    library.verify(&VerifyOptions::default(), &NoLinks, &Progress::default()).unwrap()
}

/// Another library, as repair asks it.
pub struct Other(pub Library);

impl RepairSource for Other {
    fn frames(
        &mut self,
        chunks: &[contentlib::ChunkId],
    ) -> Result<Vec<contentlib::Frame>, Failure> {
        let frames = self.0.frames_for(chunks)?.filter_map(|item| match item {
            FrameItem::Block(frame) => Some(frame),
            _ => None,
        });
        Ok(frames.collect())
    }

    fn recipe(&mut self, content: Digest) -> Result<Option<Recipe>, Failure> {
        Ok(self.0.recipe(content).ok().map(|recipe| (*recipe).clone()))
    }
}

/// All pack files of a library, in the order of their names, which is that of time.
pub fn packs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for sub in std::fs::read_dir(folder.join("packs")).unwrap() {
        for file in std::fs::read_dir(sub.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    found
}

/// A copy of a folder. Made here and not by `cp`: a child process would for a moment share the
/// locks that other tests hold.
pub fn copy(folder: &Path) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_into(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy_into(folder, to.path());
    to
}

/// Flips bits of one byte of a file.
pub fn flip(path: &Path, offset: u64, mask: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
}

/// Whether `part` lies somewhere in a file, and where.
pub fn find(path: &Path, part: &[u8]) -> Option<u64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(part.len()).position(|window| window == part).map(|at| at as u64)
}

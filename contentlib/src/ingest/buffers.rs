//! Read buffers.
//!
//! A chunk is a slice of the buffer that it was read into, and keeps all of it until its block is
//! written. So a buffer is not much larger than what is read into it: there are a few sizes. And
//! buffers are used again, since a fresh one costs a page fault for each 4 KiB.

use parking_lot::Mutex;
use std::sync::Arc;

/// Bytes read at once of a large file. Holds several of the longest chunks, so that little is
/// copied from one buffer to the next.
pub(super) const BUFFER: usize = 4 << 20;
/// The lengths that buffers have.
const SIZES: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, BUFFER];
/// Bytes of each size that are kept for the next file.
const SPARE: usize = 32 << 20;

/// Read buffers that are not in use, by size.
#[derive(Default)]
pub(super) struct Buffers {
    spare: [Mutex<Vec<Vec<u8>>>; SIZES.len()],
}

pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
    size: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of `wanted` bytes, or of [`BUFFER`] if that is less; perhaps a longer one.
    pub(super) fn take(self: &Arc<Self>, wanted: u64) -> Buffer {
        let fits = SIZES.iter().position(|&size| wanted <= size as u64);
        let size = fits.unwrap_or(SIZES.len() - 1);
        let spare = self.spare[size].lock().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; SIZES[size]]);
        Buffer { bytes, used: 0, size, home: self.clone() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.home.spare[self.size].lock();
        if spare.len() < SPARE / SIZES[self.size] {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

//! Read buffers.

use parking_lot::Mutex;
use std::sync::Arc;

/// Bytes read at once of a large file. Holds several of the longest chunks, so that little is
/// copied from one buffer to the next.
pub(super) const BUFFER: usize = 4 << 20;
/// Read buffers that are kept for the next file.
const SPARE_BUFFERS: usize = 8;

/// Read buffers, used again: a fresh one costs a page fault for each 4 KiB.
#[derive(Default)]
pub(super) struct Buffers {
    spare: Mutex<Vec<Vec<u8>>>,
}

pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        let spare = self.spare.lock().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; BUFFER]);
        Buffer { bytes, used: 0, home: self.clone() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.home.spare.lock();
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

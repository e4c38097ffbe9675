//! A volume of a chosen size: a tmpfs. Mounting one takes root; whoever runs tests without it is
//! told that they proved nothing.

use super::noise;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs; gone when dropped.
pub struct Volume {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Volume {
    /// `None`, with a note to whoever reads the test's output, where it cannot be mounted.
    pub fn mount(path: &Path, size: u64) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "depot-test"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path: path.to_owned() }),
            refused => {
                let why = refused.map_or_else(
                    |error| error.to_string(),
                    |output| String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                );
                let note =
                    format!("SKIPPED: a tmpfs cannot be mounted here ({why}); run as root\n");
                // Not captured, unlike what `eprintln` writes.
                std::io::stderr().write_all(note.as_bytes()).unwrap();
                None
            }
        }
    }

    /// Bytes that may still be written.
    pub fn free(&self) -> u64 {
        let volume = rustix::fs::statvfs(&self.path).unwrap();
        volume.f_bavail * volume.f_frsize
    }

    /// Takes all room but `left`; the file gives it back when removed.
    pub fn fill(&self, left: u64) -> PathBuf {
        let ballast = self.path.join("ballast");
        fs::write(&ballast, noise(99, (self.free() - left) as usize)).unwrap();
        ballast
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // By path alone it would wait for whoever still has a file open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

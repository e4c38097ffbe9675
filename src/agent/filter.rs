//! Write filters: a root that is an overlay, whose upper part the next restart empties.
//!
//! The machine's own files lie below, and are mounted read-only. To commit something to them the filter is taken off:
//! what is below is mounted read-write, the installer runs in it, and then it is read-only again. What the machine sees
//! meanwhile does not change until it restarts. That it is off is written down first, so after a power cut it
//! is put back.

use super::home::{Home, HomeError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is written down while it is off.
const OFF: &str = "filter.json";
/// What the kernel says of mounts (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// A filter that is off; on again when dropped.
#[derive(Debug)]
pub struct Filter<'a> {
    home: &'a Home,
    lower: PathBuf,
}

/// Why it cannot be taken off.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The root is no overlay with something below that can be reached.
    #[error(
        "the write filter cannot be taken off: the lower part of the overlay cannot be reached"
    )]
    NoOverlay,
    /// What is below cannot be mounted read-write.
    #[error("the write filter cannot be taken off: {0}")]
    Remount(String),
    /// It cannot be written down.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    is_read_only: bool,
    kind: String,
    /// Of an overlay: the topmost of what is below.
    lower: Option<PathBuf>,
}

/// What is mounted read-write for now.
#[derive(Debug, Serialize, Deserialize)]
struct Off {
    point: PathBuf,
}

impl<'a> Filter<'a> {
    /// Takes it off.
    pub fn take_off(home: &'a Home, root: &Path) -> Result<Self, FilterError> {
        let mounts = mounts(&std::fs::read_to_string(MOUNTS).unwrap_or_default());
        let lower = lower(&mounts, root).ok_or(FilterError::NoOverlay)?;
        if !lower.is_dir() {
            return Err(FilterError::NoOverlay);
        }
        let holding = mounts.iter().filter(|it| lower.starts_with(&it.point));
        let holding = holding.max_by_key(|it| it.point.as_os_str().len());
        if let Some(mount) = holding.filter(|it| it.is_read_only) {
            home.write(OFF, &Off { point: mount.point.clone() })?;
            remount("rw", &mount.point).map_err(FilterError::Remount)?;
        }
        Ok(Self { home, lower })
    }

    /// What lies below.
    pub fn lower(&self) -> &Path {
        &self.lower
    }

    /// Puts it back, if it is off.
    pub fn restore(home: &Home) {
        let off = home.read::<Off>(OFF);
        let Ok(Some(Off { point })) = off else { return };
        // The file system itself stays writable while the overlay holds on to files that were replaced below it; the
        // mount need not, and nothing else leads there. The restart makes both as they were.
        match remount("ro", &point).or_else(|_| remount("bind,ro", &point)) {
            Ok(()) => {
                let _ = home.remove(OFF);
            }
            Err(why) => {
                let point = point.display();
                tracing::error!(%point, why, "what the write filter protects is still writable");
            }
        }
    }
}

impl Drop for Filter<'_> {
    fn drop(&mut self) {
        Self::restore(self.home);
    }
}

/// Whether that root is an overlay.
pub fn is_overlay(root: &Path) -> bool {
    let mounts = mounts(&std::fs::read_to_string(MOUNTS).unwrap_or_default());
    // The last one at a place is the one that is seen.
    mounts.iter().rev().find(|it| it.point == root).is_some_and(|it| it.kind == "overlay")
}

fn lower(mounts: &[Mount], root: &Path) -> Option<PathBuf> {
    let mount = mounts.iter().rev().find(|it| it.point == root)?;
    mount.lower.clone().filter(|_| mount.kind == "overlay")
}

fn remount(how: &str, point: &Path) -> Result<(), String> {
    let mut program = Command::new("mount");
    program.args(["-o", &format!("remount,{how}")]).arg(point).stdin(Stdio::null());
    match program.output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Mounts, from what the kernel says of them.
fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

/// `36 35 98:0 /root /point ro,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (own, of_kind) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let (point, options) = (unescaped(own.get(4)?), own.get(5)?);
    let mut of_kind = of_kind.split(' ');
    let (kind, _, of_super) =
        (of_kind.next()?, of_kind.next()?, of_kind.next().unwrap_or_default());
    let is_read_only = |options: &str| options.split(',').any(|it| it == "ro");
    let below = of_super.split(',').find_map(|it| it.strip_prefix("lowerdir="));
    Some(Mount {
        point: point.into(),
        is_read_only: is_read_only(options) || is_read_only(of_super),
        kind: kind.to_owned(),
        lower: below.and_then(|it| it.split(':').next()).map(|it| unescaped(it).into()),
    })
}

/// Spaces and their like stand as `\040`.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..3).and_then(|it| std::str::from_utf8(it).ok());
        match code.and_then(|it| u8::from_str_radix(it, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = &more[3..];
            }
            None => {
                plain.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_is_told_by_its_mount_and_so_is_what_lies_below() {
        let text = "\
22 1 0:20 / / rw,relatime - overlay overlayroot rw,lowerdir=/media/root-ro:/b,upperdir=/u,workdir=/w
23 22 8:1 / /media/root-ro ro,relatime - ext4 /dev/sda1 ro
24 22 0:30 / /a\\040b rw - tmpfs tmpfs rw
no mount
";
        let mounts = mounts(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(lower(&mounts, Path::new("/")), Some("/media/root-ro".into()));
        assert!(mounts[1].is_read_only && !mounts[0].is_read_only);
        assert_eq!(mounts[2].point, Path::new("/a b"));
        assert_eq!(lower(&mounts, Path::new("/a b")), None);
    }
}

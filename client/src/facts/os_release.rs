//! `os-release`: which system a machine runs, in its own words (os-release(5)).

use super::FactsError;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The largest file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, as `debian`; empty where it is not stated.
    pub id: String,
    /// `VERSION_ID`, as `12` or `9.5`.
    pub version: String,
    /// `VERSION_CODENAME`, as `bookworm`.
    pub codename: String,
    /// `PRETTY_NAME`.
    pub name: String,
}

impl OsRelease {
    /// Reads that of the system whose root is `root`: `etc/os-release`, else `usr/lib/os-release`. Where there
    /// is neither, nothing is known.
    ///
    /// # Errors
    /// One of them is there and cannot be read.
    pub fn of(root: &Path) -> Result<Self, FactsError> {
        for below in ["etc/os-release", "usr/lib/os-release"] {
            let path = root.join(below);
            let opened = std::fs::File::open(&path);
            let read = opened.and_then(|file| {
                let mut bytes = Vec::new();
                file.take(MAX_FILE).read_to_end(&mut bytes).map(|_| bytes)
            });
            match read {
                Ok(bytes) => return Ok(Self::parse(&bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(FactsError::File { path, source }),
            }
        }
        Ok(Self::default())
    }

    /// Reads its text. What is no assignment is passed over, as shells and systemd do.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let field = match key {
                "ID" => &mut found.id,
                "VERSION_ID" => &mut found.version,
                "VERSION_CODENAME" => &mut found.codename,
                "PRETTY_NAME" => &mut found.name,
                _ => continue,
            };
            *field = unquoted(value.trim());
        }
        found
    }

    /// `VERSION_ID` up to the first dot.
    pub fn major(&self) -> &str {
        self.version.split('.').next().unwrap_or_default()
    }
}

/// The value that a shell would assign: quotes away, and within double ones a backslash before what needs it.
fn unquoted(value: &str) -> String {
    let single = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    if let Some(inside) = single {
        return inside.to_owned();
    }
    let double = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let (mut text, mut letters) = (String::new(), double.unwrap_or(value).chars());
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_a_shell_would() {
        let text = "PRETTY_NAME=\"A \\\"B\\\" 9.5\"\n# ID=x\nID='almalinux'\nVERSION_ID=\"9.5\"\nbroken\n\
                    VERSION_CODENAME=bookworm\n";
        let found = OsRelease::parse(text.as_bytes());
        assert_eq!((found.id.as_str(), found.major()), ("almalinux", "9"));
        assert_eq!((found.name.as_str(), found.codename.as_str()), ("A \"B\" 9.5", "bookworm"));
    }

    #[test]
    fn a_root_without_one_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(OsRelease::of(root.path()).unwrap(), OsRelease::default());
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        std::fs::write(root.path().join("usr/lib/os-release"), "ID=debian\n").unwrap();
        assert_eq!(OsRelease::of(root.path()).unwrap().id, "debian");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            OsRelease::parse(&bytes);
            OsRelease::parse(&[b"ID=", &bytes[..]].concat());
        }
    }
}

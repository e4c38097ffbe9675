//! Signatures: how a client knows that a version is the site's.
//!
//! The site signs, with Ed25519 (RFC 8032), a statement of what a version is: package, number,
//! manifest digest, tree digest. The manifest names the digest of every file, so one signature
//! covers every byte. The statement begins with words that no other use of the key signs.

use crate::manifest::TreeDigest;
use crate::name::PackageName;
use contentlib::Digest;
use ed25519_dalek::{Signature as DalekSignature, Signer, SigningKey, VerifyingKey};
use jiff::Timestamp;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What one version of a package is, signed. Stored with the version, and what a distribution
/// point answers a client that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VersionInfo {
    /// The package.
    pub package: PackageName,
    /// Its version's number; 1 is the empty one.
    pub version: u64,
    /// The manifest, as content.
    pub manifest: Digest,
    /// What the tree is, apart from its times.
    pub tree: TreeDigest,
    /// The site's signature of the four fields above.
    pub signature: Signature,
    /// The key it was made with.
    pub key: PublicKey,
    /// Files in the tree.
    pub n_files: u64,
    /// Folders in the tree.
    pub n_folders: u64,
    /// Symbolic links in the tree.
    pub n_links: u64,
    /// The sizes of all files together.
    pub bytes: u64,
    /// Of those, the bytes that the library did not hold before this version.
    #[serde(default)]
    pub new_bytes: u64,
    /// When it was made.
    pub created: Timestamp,
}

/// The signature does not prove what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotProven {
    /// It is another site's version.
    #[error(
        "{package} version {version} is signed with key {found}, not with the trusted {trusted}"
    )]
    OtherKey {
        /// The package.
        package: PackageName,
        /// The version.
        version: u64,
        /// The key it states.
        found: PublicKey,
        /// The key it should be.
        trusted: PublicKey,
    },
    /// Somebody changed the statement, or the signature.
    #[error("the signature of {package} version {version} is not one of key {key}")]
    BadSignature {
        /// The package.
        package: PackageName,
        /// The version.
        version: u64,
        /// The key it states.
        key: PublicKey,
    },
}

impl VersionInfo {
    /// Whether the version is signed with `trusted`. What it says of counts and times is not
    /// covered; the manifest tells those.
    pub fn verify(&self, trusted: &PublicKey) -> Result<(), NotProven> {
        let (package, version) = (self.package.clone(), self.version);
        if self.key != *trusted {
            return Err(NotProven::OtherKey {
                package,
                version,
                found: self.key,
                trusted: *trusted,
            });
        }
        let statement = statement(&self.package, self.version, self.manifest, self.tree);
        let signature = DalekSignature::from_bytes(&self.signature.0);
        // The strict check refuses keys and signatures for which several statements could pass.
        let proven = VerifyingKey::from_bytes(&self.key.0)
            .and_then(|key| key.verify_strict(&statement, &signature));
        proven.map_err(|_| NotProven::BadSignature { package, version, key: self.key })
    }
}

/// The bytes that are signed; `packager/FORMAT.md`, "Signature".
fn statement(package: &PackageName, version: u64, manifest: Digest, tree: TreeDigest) -> Vec<u8> {
    let mut out = b"depot package version v1\0".to_vec();
    out.push(package.as_str().len() as u8);
    out.extend_from_slice(package.as_str().as_bytes());
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(manifest.as_bytes());
    out.extend_from_slice(tree.0.as_bytes());
    out
}

/// What the site signs besides versions. Each kind begins with words of its own, so that what was signed
/// as one is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Document {
    /// The head of a bundle for prestaging.
    Bundle,
    /// What one client is to do.
    ClientPolicy,
    /// What there is of updates, as clients read it.
    Catalogue,
}

impl Document {
    /// The bytes that are signed; `packager/FORMAT.md`, "Signature".
    fn statement(self, text: &[u8]) -> Vec<u8> {
        let mut out = match self {
            Self::Bundle => b"depot prestage bundle v1\0".to_vec(),
            Self::ClientPolicy => b"depot client policy v1\0".to_vec(),
            Self::Catalogue => b"depot client catalogue v1\0".to_vec(),
        };
        out.extend_from_slice(Digest::of(text).as_bytes());
        out
    }
}

/// The site's signing key.
#[derive(Clone)]
pub struct SiteKey(SigningKey);

/// The key's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be read or made.
    #[error("cannot read or make the signing key {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path:?} is no signing key; want 64 hex digits. Put the site's key back from a backup"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl SiteKey {
    /// Reads the key from `path`, or makes a new one there that only its owner may read.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.into(), source };
        match std::fs::read_to_string(path) {
            Ok(text) => match from_hex(text.trim_end()) {
                Some(seed) => Ok(Self::from_seed(seed)),
                None => Err(KeyError::Malformed { path: path.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed: [u8; 32] = rand::random();
                create(path, &seed).map_err(io)?;
                Ok(Self::from_seed(seed))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(KeyError::Malformed { path: path.into() })
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The key of these 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// What others check signatures with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(
        &self,
        package: &PackageName,
        version: u64,
        manifest: Digest,
        tree: TreeDigest,
    ) -> Signature {
        Signature(self.0.sign(&statement(package, version, manifest, tree)).to_bytes())
    }

    /// Signs a document of that kind.
    pub fn sign_document(&self, kind: Document, text: &[u8]) -> Signature {
        Signature(self.0.sign(&kind.statement(text)).to_bytes())
    }
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteKey(public {})", self.public())
    }
}

/// Makes the key's file whole or not at all: a half-written key would lock the site out.
fn create(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // A temporary file has mode 0600 from its first moment.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", Hex(seed))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// What a site's signatures are checked with. Written and parsed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// An Ed25519 signature. Written and parsed as 128 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

impl PublicKey {
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether `signature` is this key's, of a document of that kind.
    pub fn has_signed(&self, kind: Document, text: &[u8], signature: &Signature) -> bool {
        let signature = DalekSignature::from_bytes(&signature.0);
        let key = VerifyingKey::from_bytes(&self.0);
        key.and_then(|key| key.verify_strict(&kind.statement(text), &signature)).is_ok()
    }
}

impl Signature {
    pub(crate) fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
}

/// Text that is no key or signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want {0} lower-case hex digits")]
pub struct NotHex(usize);

macro_rules! hex_text {
    ($name:ident, $digits:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Hex(&self.0), f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Hex(&self.0), f)
            }
        }
        impl FromStr for $name {
            type Err = NotHex;
            fn from_str(text: &str) -> Result<Self, NotHex> {
                from_hex(text).map(Self).ok_or(NotHex($digits))
            }
        }
        impl TryFrom<String> for $name {
            type Error = NotHex;
            fn try_from(text: String) -> Result<Self, NotHex> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(bytes: $name) -> String {
                bytes.to_string()
            }
        }
    };
}
hex_text!(PublicKey, 64);
hex_text!(Signature, 128);

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * N || !lower {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn signed(key: &SiteKey) -> VersionInfo {
        let package: PackageName = "docs".parse().unwrap();
        let (manifest, tree) = (Digest::of(b"manifest"), TreeDigest(Digest::of(b"tree")));
        VersionInfo {
            signature: key.sign(&package, 2, manifest, tree),
            key: key.public(),
            package,
            version: 2,
            manifest,
            tree,
            n_files: 1,
            n_folders: 0,
            n_links: 0,
            bytes: 3,
            new_bytes: 3,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_signed_version_verifies_as_json_too() {
        let key = SiteKey::from_seed([7; 32]);
        let info = signed(&key);
        assert_eq!(info.verify(&key.public()), Ok(()));
        let json = serde_json::to_string(&info).unwrap();
        assert_eq!(serde_json::from_str::<VersionInfo>(&json).unwrap(), info);
    }

    #[test]
    fn a_changed_statement_does_not_verify() {
        let key = SiteKey::from_seed([7; 32]);
        let info = signed(&key);
        let mut flipped = info.signature;
        flipped.0[0] ^= 1;
        let changed = [
            VersionInfo { package: "dosc".parse().unwrap(), ..info.clone() },
            VersionInfo { version: 3, ..info.clone() },
            VersionInfo { manifest: Digest::of(b"other"), ..info.clone() },
            VersionInfo { tree: TreeDigest(Digest::of(b"other")), ..info.clone() },
            VersionInfo { signature: flipped, ..info.clone() },
        ];
        for info in changed {
            let found = info.verify(&key.public());
            assert!(matches!(found, Err(NotProven::BadSignature { .. })), "{info:?}");
        }
        let other = SiteKey::from_seed([8; 32]).public();
        assert!(matches!(info.verify(&other), Err(NotProven::OtherKey { .. })));
    }

    #[test]
    fn what_was_signed_as_one_kind_of_document_is_no_other() {
        let key = SiteKey::from_seed([7; 32]);
        let signature = key.sign_document(Document::ClientPolicy, b"text");
        let public = key.public();
        assert!(public.has_signed(Document::ClientPolicy, b"text", &signature));
        assert!(!public.has_signed(Document::Bundle, b"text", &signature));
        assert!(!public.has_signed(Document::ClientPolicy, b"test", &signature));
        let other = SiteKey::from_seed([8; 32]).public();
        assert!(!other.has_signed(Document::ClientPolicy, b"text", &signature));
    }

    #[test]
    fn the_key_is_made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/site.ed25519");
        let made = SiteKey::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SiteKey::open(&path).unwrap().public(), made.public());
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.ed25519");
        for bytes in [&b""[..], b"abc", b"\xff\xfe"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(SiteKey::open(&path), Err(KeyError::Malformed { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}

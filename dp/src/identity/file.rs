//! Keys and certificates in files, as PEM (RFC 7468).

use super::{IdentityError, MAX_PEM};
use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// One PEM section.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, der), config)
}

/// The one certificate of `text`.
pub(super) fn certificate(text: &str) -> Result<CertificateDer<'static>, IdentityError> {
    let bad = IdentityError::BadCertificate;
    let mut all = certificates(text).ok_or(bad("it is no PEM"))?.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(bad("there is none in it")),
        _ => Err(bad("there are several in it")),
    }
}

/// All certificates of `text`; nothing if it is malformed, or far too long.
pub(super) fn certificates(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    if text.len() > MAX_PEM {
        return None;
    }
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
}

/// A file's text, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let io = |source| IdentityError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = String::new();
    file.take(MAX_PEM as u64 + 1).read_to_string(&mut text).map_err(io)?;
    Ok(Some(text))
}

/// Puts `text` at `path`, whole or not at all; only its owner may read it.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), IdentityError> {
    write(path, text, 0o600)
}

/// Puts `text` at `path`, whole or not at all.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), IdentityError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        // A temporary file has mode 0600 from its first moment.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| IdentityError::Io { path: path.into(), source })
}

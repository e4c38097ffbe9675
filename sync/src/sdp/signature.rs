//! Who signed a cabinet.
//!
//! Authenticode puts a CMS message (RFC 5652) behind a cabinet's end and its place into the
//! reserved part of the header. The message holds a digest of the cabinet without that part, and
//! the signer's certificate. Here the digest is computed anew and compared, and the signature is
//! checked with the key of that certificate. Whether the signer is one to trust is not for a chain
//! of authorities to say: whoever added the catalogue named its certificate ([`Trust`]), so neither
//! its issuer nor its end counts.

use crate::digests::to_hex;
use crate::error::{Cause, SyncError};
use cms::cert::CertificateChoices;
use cms::cert::x509::Certificate;
use cms::cert::x509::der::asn1::{ObjectIdentifier, OctetStringRef};
use cms::cert::x509::der::{AnyRef, Decode, Encode, Reader, SliceReader};
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use ring::signature as keys;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::io::{self, Read, Seek, SeekFrom};

/// The largest signature that is read; usual ones have 10 KiB.
const MAX_SIGNATURE: u32 = 64 << 10;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `SPC_INDIRECT_DATA`: the digest of something that is elsewhere.
const INDIRECT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The subject of the certificate, as RFC 4514 writes it.
    pub subject: String,
    /// SHA-256 of the certificate, as hex digits.
    pub fingerprint: String,
}

/// Whom to believe about a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Signers, by the SHA-256 of their certificate. Several, for the day on which the old one is
    /// replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// SHA-256 of the whole catalogue, heard from its publisher in another way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether a catalogue is taken that nobody vouches for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsigned: bool,
}

/// What a file says of its signature.
#[derive(Debug)]
pub enum Signature {
    /// It has none: it is no cabinet, or one that nobody signed.
    None,
    /// It has a good one.
    By(Signer),
    /// It has one that does not fit; why.
    Bad(String),
}

impl Trust {
    /// Whether a file, of which `sha256` is as hex digits and `signature` what it says, is to be
    /// believed; and who signed it.
    ///
    /// # Errors
    /// It is not: [`Cause::BadSignature`], with what to do.
    pub fn check(&self, sha256: &str, signature: Signature) -> Result<Option<Signer>, SyncError> {
        let bad = |detail| Err(SyncError::new(Cause::BadSignature, detail));
        let signer = match signature {
            Signature::None => None,
            Signature::By(signer) => Some(signer),
            // A signature that does not fit means that somebody changed something.
            Signature::Bad(why) => return bad(format!("the catalogue's signature is bad: {why}")),
        };
        let is = |wanted: &str, found: &str| {
            let digits = wanted.chars().filter(|c| !matches!(c, ':' | ' '));
            digits.map(|c| c.to_ascii_lowercase()).eq(found.chars())
        };
        if let Some(wanted) = &self.sha256
            && !is(wanted, sha256)
        {
            return bad(format!(
                "the catalogue is not the file that was named: want SHA-256 {wanted}, found {sha256}"
            ));
        }
        let is_named = |signer: &Signer| self.signers.iter().any(|it| is(it, &signer.fingerprint));
        match &signer {
            Some(signer) if is_named(signer) => {}
            Some(signer) if !self.signers.is_empty() => {
                return bad(format!(
                    "the catalogue is signed by {} ({}), who is none of the signers that are trusted",
                    signer.subject, signer.fingerprint
                ));
            }
            None if !self.signers.is_empty() => {
                return bad("the catalogue is not signed, and its signer is named".into());
            }
            _ if self.sha256.is_some() || self.unsigned => {}
            Some(signer) => {
                return bad(format!(
                    "the catalogue is signed by {}, whom nobody has said to trust; if that is its \
                     publisher, name the signer {}",
                    signer.subject, signer.fingerprint
                ));
            }
            None => {
                return bad("the catalogue is not signed; name its SHA-256, or allow unsigned \
                            catalogues for this source"
                    .into());
            }
        }
        Ok(signer)
    }
}

/// What the file says of its signature.
///
/// # Errors
/// It could not be read.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Signature> {
    let mut head = [0; 60];
    file.seek(SeekFrom::Start(0))?;
    let mut have = 0;
    while have < head.len() {
        match file.read(&mut head[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let reserves = have == head.len() && head.starts_with(b"MSCF") && word(30) & 4 != 0;
    let (at, size) = (long(44), long(48));
    if !reserves || word(36) != 20 || (at == 0 && size == 0) {
        return Ok(Signature::None);
    }
    let end = file.seek(SeekFrom::End(0))?;
    // What is not signed must not change how the rest is read.
    if word(38) != 0 {
        return Ok(Signature::Bad("its header reserves more than a signature".into()));
    }
    if at < 60 || size > MAX_SIGNATURE || u64::from(at) + u64::from(size) > end {
        return Ok(Signature::Bad("it is not where the header says".into()));
    }
    let mut message = vec![0; size as usize];
    file.seek(SeekFrom::Start(at.into()))?;
    file.read_exact(&mut message)?;
    let message = match Message::of(&message) {
        Ok(message) => message,
        Err(why) => return Ok(Signature::Bad(why)),
    };
    let found = digest(file, &head, at, message.cabinet_by)?;
    Ok(match message.cabinet == found {
        true => Signature::By(message.signer),
        false => Signature::Bad("the cabinet is not the one that was signed".into()),
    })
}

/// The digest of a cabinet: of all of it but its checksum, its number in a set, and the reserved
/// part, which holds the place of the signature.
fn digest(
    file: &mut (impl Read + Seek),
    head: &[u8; 60],
    end: u32,
    by: Hash,
) -> io::Result<Vec<u8>> {
    let mut hasher = Hasher::new(by);
    hasher.update(&head[..4]);
    hasher.update(&head[8..34]);
    hasher.update(&head[56..]);
    file.seek(SeekFrom::Start(60))?;
    let mut rest = file.take(u64::from(end) - 60);
    let mut piece = vec![0; 128 << 10];
    loop {
        match rest.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// A message whose signature is good.
struct Message {
    signer: Signer,
    /// The digest of the cabinet.
    cabinet: Vec<u8>,
    cabinet_by: Hash,
}

impl Message {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let broken = |_| "its message cannot be read".to_owned();
        // Zeros fill it up behind.
        let mut reader = SliceReader::new(bytes).map_err(broken)?;
        let info = ContentInfo::decode(&mut reader).map_err(broken)?;
        if info.content_type != SIGNED_DATA {
            return Err("its message is no signature".into());
        }
        let signed: SignedData = info.content.decode_as().map_err(broken)?;
        let content = match &signed.encap_content_info.econtent {
            Some(content) if signed.encap_content_info.econtent_type == INDIRECT => content,
            _ => return Err("it is of another kind than Authenticode".into()),
        };
        let [info] = signed.signer_infos.0.as_ref() else {
            return Err(format!("it has {} signers", signed.signer_infos.0.len()));
        };
        let certificate =
            certificate_of(&signed, info).ok_or("the signer's certificate is not in it")?;
        verify(info, &certificate, content.value())?;
        let (oid, cabinet) = stated(content.value()).map_err(broken)?;
        let der = certificate.to_der().map_err(broken)?;
        let signer = Signer {
            subject: certificate.tbs_certificate.subject.to_string(),
            fingerprint: to_hex(&sha2::Sha256::digest(der)),
        };
        Ok(Self { signer, cabinet, cabinet_by: Hash::of(oid)? })
    }
}

/// The digest of the cabinet that the content states: `SEQUENCE { data, DigestInfo { algorithm,
/// digest } }`.
fn stated(content: &[u8]) -> Result<(ObjectIdentifier, Vec<u8>), cms::cert::x509::der::Error> {
    let mut reader = SliceReader::new(content)?;
    AnyRef::decode(&mut reader)?;
    reader.sequence(|info| {
        let algorithm = info.sequence(|algorithm| {
            let oid = ObjectIdentifier::decode(algorithm)?;
            while !algorithm.is_finished() {
                AnyRef::decode(algorithm)?;
            }
            Ok(oid)
        })?;
        let digest = OctetStringRef::decode(info)?;
        Ok((algorithm, digest.as_bytes().to_vec()))
    })
}

fn certificate_of(signed: &SignedData, info: &SignerInfo) -> Option<Certificate> {
    let SignerIdentifier::IssuerAndSerialNumber(wanted) = &info.sid else { return None };
    let certificates = signed.certificates.as_ref()?.0.iter();
    certificates
        .filter_map(|it| match it {
            CertificateChoices::Certificate(certificate) => Some(certificate),
            CertificateChoices::Other(_) => None,
        })
        .find(|it| {
            it.tbs_certificate.issuer == wanted.issuer
                && it.tbs_certificate.serial_number == wanted.serial_number
        })
        .cloned()
}

/// Checks that `info` signs `content` by the key of `certificate` (RFC 5652, section 5.4).
fn verify(info: &SignerInfo, certificate: &Certificate, content: &[u8]) -> Result<(), String> {
    let hash = Hash::of(info.digest_alg.oid)?;
    let attributes = info.signed_attrs.as_ref().ok_or("it has no signed attributes")?;
    let value = |oid| {
        let mut found = attributes.iter().filter(|it| it.oid == oid);
        match (found.next(), found.next()) {
            (Some(one), None) if one.values.len() == 1 => one.values.get(0),
            _ => None,
        }
    };
    let is_about = value(CONTENT_TYPE).and_then(|it| it.decode_as::<ObjectIdentifier>().ok());
    if is_about != Some(INDIRECT) {
        return Err("it signs another kind of content".into());
    }
    let stated = value(MESSAGE_DIGEST).and_then(|it| it.decode_as::<OctetStringRef<'_>>().ok());
    let mut hasher = Hasher::new(hash);
    hasher.update(content);
    if stated.map(|it| it.as_bytes().to_vec()) != Some(hasher.finish()) {
        return Err("its content is not the one that was signed".into());
    }
    let signed = attributes.to_der().map_err(|_| "its attributes cannot be read")?;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let curve = || key.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
    let algorithm: &'static dyn keys::VerificationAlgorithm = match (key.algorithm.oid, hash) {
        (RSA, Hash::Sha256) => &keys::RSA_PKCS1_2048_8192_SHA256,
        (RSA, Hash::Sha384) => &keys::RSA_PKCS1_2048_8192_SHA384,
        (RSA, Hash::Sha512) => &keys::RSA_PKCS1_2048_8192_SHA512,
        (EC, hash) => match (curve(), hash) {
            (Some(P256), Hash::Sha256) => &keys::ECDSA_P256_SHA256_ASN1,
            (Some(P256), Hash::Sha384) => &keys::ECDSA_P256_SHA384_ASN1,
            (Some(P384), Hash::Sha256) => &keys::ECDSA_P384_SHA256_ASN1,
            (Some(P384), Hash::Sha384) => &keys::ECDSA_P384_SHA384_ASN1,
            _ => return Err("its key is of a kind that is not supported".into()),
        },
        _ => return Err("its key is of a kind that is not supported".into()),
    };
    let key = keys::UnparsedPublicKey::new(algorithm, key.subject_public_key.raw_bytes());
    key.verify(&signed, info.signature.as_bytes())
        .map_err(|_| "it is not by the signer's key".into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn of(oid: ObjectIdentifier) -> Result<Self, String> {
        match oid {
            SHA256 => Ok(Self::Sha256),
            SHA384 => Ok(Self::Sha384),
            SHA512 => Ok(Self::Sha512),
            SHA1 => {
                Err("it was made with SHA-1, which proves nothing any more; name the SHA-256 of \
                         an unsigned copy instead"
                    .into())
            }
            other => Err(format!("it was made with {other}, which is not supported")),
        }
    }
}

enum Hasher {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn new(hash: Hash) -> Self {
        match hash {
            Hash::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Hash::Sha384 => Self::Sha384(sha2::Sha384::new()),
            Hash::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(it) => it.update(bytes),
            Self::Sha384(it) => it.update(bytes),
            Self::Sha512(it) => it.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(it) => it.finalize().to_vec(),
            Self::Sha384(it) => it.finalize().to_vec(),
            Self::Sha512(it) => it.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SIGNED: &[u8] = include_bytes!("../../tests/data/sdp/signed.cab");
    const FINGERPRINT: &str = "182b2161acf6b320990c10fbcd455966f7178d51b647c7e59ef2643f2470de6a";

    fn signer(bytes: &[u8]) -> Result<Option<Signer>, String> {
        match read(&mut Cursor::new(bytes)).unwrap() {
            Signature::None => Ok(None),
            Signature::By(signer) => Ok(Some(signer)),
            Signature::Bad(why) => Err(why),
        }
    }

    #[test]
    fn the_signer_of_a_cabinet_is_found() {
        let found = signer(SIGNED).unwrap().unwrap();
        assert_eq!(found.subject, "CN=Example Signer,O=Example Catalogues,C=ZZ");
        assert_eq!(found.fingerprint, FINGERPRINT);
        let by_curve = signer(include_bytes!("../../tests/data/sdp/signed-ec.cab"));
        assert_eq!(by_curve.unwrap().unwrap().subject, "CN=Example EC Signer");
        let plain = signer(include_bytes!("../../tests/data/sdp/plain.cab"));
        assert_eq!(plain, Ok(None));
        assert_eq!(signer(b"<xml/>"), Ok(None));
        let weak = signer(include_bytes!("../../tests/data/sdp/signed-sha1.cab"));
        assert!(weak.unwrap_err().contains("SHA-1"));
    }

    #[test]
    fn whatever_byte_is_changed_it_is_not_the_signers_cabinet_any_more() {
        let plain = |bytes: &[u8]| {
            let mut all = Vec::new();
            let limits = super::super::cab::Limits::default();
            let mut cabinet = super::super::cab::Cabinet::open(Cursor::new(bytes), limits).ok()?;
            let each = cabinet.each(&|_| true, &mut |member, from| {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes)
                    .map_err(|error| SyncError::because(Cause::Malformed, "cut", error))?;
                all.push((member.name.clone(), bytes));
                Ok(())
            });
            each.ok().map(|()| all)
        };
        let whole = plain(SIGNED).unwrap();
        for at in 0..SIGNED.len() {
            let mut changed = SIGNED.to_vec();
            changed[at] ^= 0x55;
            // Of fields that are not signed, none changes what comes out. In the certificate
            // nothing is checked but the key: then it is another certificate, which nobody named.
            if let Ok(Some(found)) = signer(&changed)
                && found.fingerprint == FINGERPRINT
            {
                assert!(plain(&changed).is_none_or(|it| it == whole), "byte {at}");
            }
        }
        for cut in [SIGNED.len() - 1, SIGNED.len() - 1000, 100, 50] {
            assert!(!matches!(signer(&SIGNED[..cut]), Ok(Some(_))), "cut at {cut}");
        }
    }

    #[test]
    fn only_those_who_were_named_are_believed() {
        let by = |it: &[u8]| read(&mut Cursor::new(it)).unwrap();
        let plain: &[u8] = include_bytes!("../../tests/data/sdp/plain.cab");
        let refused = |trust: &Trust, signature| {
            let error = trust.check("aa", signature).unwrap_err();
            assert_eq!(error.cause, Cause::BadSignature);
            error.detail
        };
        let nobody = Trust::default();
        assert!(refused(&nobody, by(SIGNED)).contains(FINGERPRINT), "it tells whom to name");
        assert!(refused(&nobody, by(plain)).contains("not signed"));

        let pinned = Trust { signers: vec![FINGERPRINT.to_uppercase()], ..Trust::default() };
        assert!(pinned.check("aa", by(SIGNED)).unwrap().is_some());
        assert!(refused(&pinned, by(plain)).contains("not signed"));
        let other = include_bytes!("../../tests/data/sdp/signed-ec.cab");
        assert!(refused(&pinned, by(other)).contains("Example EC Signer"));

        let named = Trust { sha256: Some("A:A".into()), ..Trust::default() };
        assert_eq!(named.check("aa", by(plain)).unwrap(), None);
        assert!(named.check("ab", by(plain)).unwrap_err().detail.contains("found ab"));

        let any = Trust { unsigned: true, ..Trust::default() };
        assert!(any.check("aa", by(plain)).is_ok() && any.check("aa", by(SIGNED)).is_ok());
        let mut changed = SIGNED.to_vec();
        changed[100] ^= 1;
        assert!(refused(&any, by(&changed)).contains("bad"), "a broken one is worse than none");
    }
}

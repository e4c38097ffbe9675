//! The framing of clear-signed documents (RFC 9580, section 7).
//!
//! Read strictly: headers other than `Hash`, text around the frame, and lines that should have been
//! escaped are errors, because readers who differ about where the signed part begins can be played off
//! against each other.

use super::{MAX_SIGNATURE_BLOCK, NotSigned, dearmored};

const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &[u8] = b"-----BEGIN PGP SIGNATURE-----";

/// A clear-signed document, taken apart.
pub(super) struct ClearSigned {
    /// The text, with `\n` at the end of each line, without what signatures do not cover.
    pub text: Vec<u8>,
    /// The signatures, as packets.
    pub signatures: Vec<u8>,
}

/// Takes a document apart.
pub(super) fn parse(document: &[u8]) -> Result<ClearSigned, NotSigned> {
    let mut rest = document;
    if next_line(&mut rest).map(trimmed) != Some(BEGIN) {
        return Err(NotSigned::Malformed("it does not begin as a clear-signed document"));
    }
    loop {
        let line = next_line(&mut rest).ok_or(NotSigned::Malformed("it ends in its headers"))?;
        match trimmed(line) {
            b"" => break,
            header if header.starts_with(b"Hash:") => {}
            _ => return Err(NotSigned::Malformed("it has a header other than Hash")),
        }
    }
    let mut text = Vec::with_capacity(rest.len());
    let armor = loop {
        let here = rest;
        let line =
            next_line(&mut rest).ok_or(NotSigned::Malformed("it ends before its signatures"))?;
        let line = trimmed(line);
        if line == BEGIN_SIGNATURE {
            break here;
        }
        let line = match line.strip_prefix(b"- ") {
            Some(escaped) => escaped,
            None if line.starts_with(b"-") => {
                return Err(NotSigned::Malformed("a line begins with a dash and is not escaped"));
            }
            None => line,
        };
        if line.contains(&b'\r') {
            return Err(NotSigned::Malformed("it has a carriage return within a line"));
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    };
    if armor.len() > MAX_SIGNATURE_BLOCK {
        return Err(NotSigned::TooLarge(MAX_SIGNATURE_BLOCK));
    }
    let found = blocks(armor, "PGP SIGNATURE");
    let [block] = found.as_slice() else {
        return Err(NotSigned::Malformed("it has not exactly one block of signatures"));
    };
    let after = armor.get(block.len()..).unwrap_or_default();
    if !after.iter().all(u8::is_ascii_whitespace) {
        return Err(NotSigned::Malformed("something follows its signatures"));
    }
    let signatures =
        dearmored(block).ok_or(NotSigned::Malformed("its signatures cannot be decoded"))?;
    Ok(ClearSigned { text, signatures })
}

/// The bytes that signatures of `text` are of: its lines, joined by CR LF, without the last end.
pub(super) fn hashed(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + text.len() / 32);
    for (n, line) in text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n').enumerate() {
        if n > 0 {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(line);
    }
    bytes
}

/// `text` as a document with `armor` as its signatures; the inverse of [`parse`].
pub(super) fn framed(text: &[u8], hash: &str, armor: &str) -> Vec<u8> {
    let mut document = Vec::with_capacity(text.len() + armor.len() + 100);
    document.extend_from_slice(BEGIN);
    document.extend_from_slice(format!("\nHash: {hash}\n\n").as_bytes());
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n') {
        if line.starts_with(b"-") {
            document.extend_from_slice(b"- ");
        }
        document.extend_from_slice(line);
        document.push(b'\n');
    }
    document.extend_from_slice(armor.as_bytes());
    document
}

/// `text` as it can be signed: without spaces at the ends of lines, and with an end of the last one.
pub(super) fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n') {
        out.extend_from_slice(trimmed(line));
        out.push(b'\n');
    }
    out
}

/// The armored blocks of that kind, each from its first line to its last.
pub(super) fn blocks<'a>(bytes: &'a [u8], kind: &str) -> Vec<&'a [u8]> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let mut found = Vec::new();
    let (mut rest, mut start) = (bytes, None);
    while !rest.is_empty() {
        let here = bytes.len() - rest.len();
        let Some(line) = next_line(&mut rest).map(trimmed) else { break };
        if line == begin.as_bytes() {
            start = Some(here);
        } else if line == end.as_bytes()
            && let Some(start) = start.take()
        {
            found.extend(bytes.get(start..bytes.len() - rest.len()));
        }
    }
    found
}

/// The next line without its end; none after the last.
fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    Some(line)
}

/// Without the spaces at its end, which signatures do not cover.
fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t' | b'\r')).map_or(0, |at| at + 1);
    line.get(..end).unwrap_or_default()
}

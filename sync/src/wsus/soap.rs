//! SOAP 1.1 as servers of updates speak it: one element in a body, or a fault.

use crate::error::{Cause, SyncError};
use crate::xml::{Element, Limits, Reader, XmlError};
use std::fmt;

/// Envelopes.
pub const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// What is said between servers.
pub const SYNC: &str = "http://www.microsoft.com/SoftwareDistribution";
/// What is said to show who one is.
pub const DSS: &str = "http://www.microsoft.com/SoftwareDistribution/Server/DssAuthWebService";
/// What is asked of a server to see whether it works.
pub const MONITOR: &str = "http://www.microsoft.com/SoftwareDistribution/Server/IMonitorable";

/// What a server takes of one message, and a client of one answer. The largest that was seen, a list of
/// all revisions, has 3 MB; that of a larger catalogue is longer in proportion.
pub const MOST: u64 = 128 << 20;

const LIMITS: Limits = Limits { bytes: MOST, token: 16 << 20, depth: 24, nodes: 8_000_000 };

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The caller said something wrong; the message names it.
    InvalidParameters,
    /// The cookie is none of this server's, or past its end.
    InvalidCookie,
    /// The same of an authorisation.
    InvalidAuthorizationCookie,
    /// Another version of the protocol.
    IncompatibleProtocolVersion,
    /// The server failed.
    InternalServerError,
    /// The server is not the one that it was: anchors mean nothing any more.
    ServerChanged,
    /// It does not know files by those digests.
    FileDigestsMissing,
    /// It has too much to do.
    ServerBusy,
    /// Something else.
    Other(String),
}

const CODES: &[(ErrorCode, &str)] = &[
    (ErrorCode::InvalidParameters, "InvalidParameters"),
    (ErrorCode::InvalidCookie, "InvalidCookie"),
    (ErrorCode::InvalidAuthorizationCookie, "InvalidAuthorizationCookie"),
    (ErrorCode::IncompatibleProtocolVersion, "IncompatibleProtocolVersion"),
    (ErrorCode::InternalServerError, "InternalServerError"),
    (ErrorCode::ServerChanged, "ServerChanged"),
    (ErrorCode::FileDigestsMissing, "FileDigestsMissing"),
    (ErrorCode::ServerBusy, "ServerBusy"),
];

impl ErrorCode {
    fn of(text: &str) -> Self {
        let known = CODES.iter().find(|(_, word)| *word == text);
        known
            .map_or_else(|| Self::Other(text.chars().take(100).collect()), |(code, _)| code.clone())
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            known => CODES.iter().find(|(code, _)| code == known).map_or("", |(_, word)| word),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fault: an answer that says why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server answered with the fault {code}: {message}")]
pub struct Fault {
    /// Which.
    pub code: ErrorCode,
    /// What it says of it: the parameter's name, or words.
    pub message: String,
}

impl Fault {
    /// A fault in those words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The same as a failure of a sync with `url`.
    pub fn of(self, url: &url::Url) -> SyncError {
        let cause = match self.code {
            ErrorCode::ServerBusy | ErrorCode::InternalServerError => Cause::Busy,
            ErrorCode::InvalidCookie | ErrorCode::InvalidAuthorizationCookie => Cause::Refused,
            ErrorCode::ServerChanged => Cause::Altered,
            ErrorCode::IncompatibleProtocolVersion => Cause::Unsupported,
            _ => Cause::Refused,
        };
        SyncError::because(cause, format!("{url} did not answer what it was asked"), self)
    }

    /// The body of the answer that is this fault, of the call `action`: a namespace, `/`, and its name.
    pub fn to_envelope(&self, action: &str) -> String {
        let is_the_callers = matches!(
            self.code,
            ErrorCode::InvalidParameters
                | ErrorCode::InvalidCookie
                | ErrorCode::InvalidAuthorizationCookie
                | ErrorCode::IncompatibleProtocolVersion
                | ErrorCode::FileDigestsMissing
        );
        let plain = |name: &str, text: &str| Element::new("", name).saying(text);
        let who = if is_the_callers { "soap:Client" } else { "soap:Server" };
        let detail = Element::new("", "detail")
            .holding(plain("ErrorCode", self.code.as_str()))
            .holding(plain("Message", &self.message))
            .holding(plain("ID", &uuid::Uuid::new_v4().to_string()))
            .holding(plain("Method", &format!("\"{}\"", clean(action))));
        let fault = Element::new(ENVELOPE, "Fault")
            .holding(plain("faultcode", who))
            .holding(plain("faultstring", "Fault occurred"))
            .holding(detail);
        envelope(fault)
    }
}

/// The document that says `body`.
pub fn envelope(body: Element) -> String {
    let body = Element::new(ENVELOPE, "Body").holding(body);
    let envelope = Element::new(ENVELOPE, "Envelope").holding(body);
    let text = envelope.to_xml(&[(ENVELOPE, "soap"), (SYNC, "s"), (DSS, "d"), (MONITOR, "m")]);
    // Names are fixed and texts were cleaned, so there is nothing that XML cannot say.
    format!(r#"<?xml version="1.0" encoding="utf-8"?>{}"#, text.unwrap_or_default())
}

/// `text` without the characters that XML cannot say.
pub fn clean(text: &str) -> String {
    let fits = |c: &char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().filter(fits).filter(|c| !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}

/// What a message says.
#[derive(Debug)]
pub enum Said {
    /// Its element.
    Body(Element),
    /// It is a fault.
    Fault(Fault),
}

/// Reads a message.
pub fn open(message: &[u8]) -> Result<Said, XmlError> {
    let malformed = |what: &str| XmlError::Malformed(what.into());
    let mut reader = Reader::new(message, LIMITS);
    let envelope = reader.child()?.ok_or_else(|| malformed("it is empty"))?;
    if &*envelope.name != "Envelope" {
        return Err(malformed("it is no SOAP envelope"));
    }
    let body = envelope.child("Body").ok_or_else(|| malformed("the envelope has no body"))?;
    let said = body.elements().next().ok_or_else(|| malformed("the body is empty"))?;
    if &*said.name != "Fault" {
        return Ok(Said::Body(said.clone()));
    }
    let detail = said.child("detail").or_else(|| said.child("Detail"));
    let code = detail.and_then(|detail| detail.text_of("ErrorCode")).unwrap_or_default();
    let message = detail
        .and_then(|detail| detail.text_of("Message"))
        .or_else(|| said.text_of("faultstring"))
        .unwrap_or_default();
    let message = message.chars().take(500).collect::<String>();
    Ok(Said::Fault(Fault::new(ErrorCode::of(&code), message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_fault_is_read() {
        let recorded = include_bytes!("../../tests/data/wsus/GetUpdateData.unknown-id.fault.xml");
        match open(recorded).unwrap() {
            Said::Fault(fault) => assert_eq!(fault.code, ErrorCode::InternalServerError),
            Said::Body(body) => panic!("{body:?}"),
        }
    }

    #[test]
    fn a_fault_reads_back() {
        let fault = Fault::new(ErrorCode::InvalidParameters, "updateIds");
        let text = fault.to_envelope(&format!("{SYNC}/GetUpdateData"));
        assert!(matches!(open(text.as_bytes()).unwrap(), Said::Fault(read) if read == fault));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for wrong in ["", "<a/>", "<Envelope/>", "<Envelope><Body/></Envelope>", "<!DOCTYPE a><a/>"]
        {
            assert!(open(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

//! Being an upstream for others: what a WSUS server, or another depot, asks of this one.
//!
//! [`Role::answer`] takes the body of one call and gives the body of the answer. What there is to tell of
//! is asked from a [`Shelf`]. Cookies are sealed with a key of this server's, so that it has nothing to
//! remember of its callers; anchors are places in the catalogue's order of changes, in the form that
//! Windows writes, `n,yyyy-MM-dd HH:mm:ss.fff`, of which `n` decides.

use super::messages::{
    Authorization, Config, Cookie, FileUrl, Identity, RevisionFilter, RevisionList, ServerLanguage,
    UpdateData, auth_config, no_decryption_data, no_deployments, pong, read_identities,
    update_data, wrong,
};
use super::qualifying::qualifying;
use super::rollup;
use super::soap::{self, ErrorCode, Fault, Said, envelope};
use crate::error::SyncError;
use crate::name::UpdateId;
use crate::xml::{Element, Node};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use std::collections::{BTreeMap, BTreeSet};

/// The largest request that is taken: a list of categories is the longest.
pub const MAX_REQUEST: usize = 4 << 20;
/// Updates that one request may ask for.
const MAX_UPDATES: usize = 100;
/// How much text the documents of one answer have together, in bytes; one alone is given whatever it has.
const MAX_DOCUMENTS: usize = 32 << 20;
/// Digests that one request may name.
const MAX_DIGESTS: usize = 100;
/// The longest name of a call that is said again in a fault.
const MAX_NAME: usize = 100;
/// How long a cookie holds.
const COOKIE: SignedDuration = SignedDuration::from_hours(4);

/// What an update is to a downstream that chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelved {
    /// Which.
    pub identity: Identity,
    /// Its place in the order of changes.
    pub seq: u64,
    /// Whether it is a category, classification or detectoid.
    pub is_config: bool,
    /// The products and families it is for, as categories.
    pub categories: BTreeSet<UpdateId>,
    /// Its classification, as a category.
    pub classification: Option<UpdateId>,
    /// What it is a bundle of.
    pub bundles: Vec<UpdateId>,
}

/// What there is to tell a downstream of.
pub trait Shelf {
    /// The newest place in the order of changes.
    fn seq(&self) -> u64;
    /// All updates, categories, classifications and detectoids.
    fn all(&self) -> Result<Vec<Shelved>, SyncError>;
    /// The document of one revision, and where its files are; `None` if it is not here.
    fn document(&self, of: Identity) -> Result<Option<(UpdateData, Vec<FileUrl>)>, SyncError>;
    /// Whether files of those digests, SHA-1 in base64, are known.
    fn knows_file(&self, digest: &str) -> Result<bool, SyncError>;
    /// The languages: LCID, short and long name, and whether there are files in it.
    fn languages(&self) -> Vec<ServerLanguage>;
    /// Whether the caller reached it over TLS.
    fn is_over_tls(&self) -> bool;
}

/// The services of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `ServerSyncWebService/ServerSyncWebService.asmx`.
    Sync,
    /// `DssAuthWebService/DssAuthWebService.asmx`.
    Authorisation,
    /// `ReportingWebService/ReportingWebService.asmx`.
    Reporting,
}

impl Service {
    /// The service at `path`, in either case and with slashes in front, as real servers ask.
    pub fn at(path: &str) -> Option<Self> {
        match path.trim_start_matches('/').to_ascii_lowercase().as_str() {
            "serversyncwebservice/serversyncwebservice.asmx" => Some(Self::Sync),
            "dssauthwebservice/dssauthwebservice.asmx" => Some(Self::Authorisation),
            "reportingwebservice/reportingwebservice.asmx" => Some(Self::Reporting),
            _ => None,
        }
    }

    /// The namespace of what it is asked.
    fn namespace(self) -> &'static str {
        match self {
            Self::Sync | Self::Reporting => soap::SYNC,
            Self::Authorisation => soap::DSS,
        }
    }
}

/// An answer: the body, and whether it is a fault, which goes out with status 500.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The envelope.
    pub body: String,
    /// Whether it says why there is none.
    pub is_fault: bool,
}

/// This server as an upstream.
pub struct Role {
    key: hmac::Key,
}

impl Role {
    /// The role, with a secret of this server's to seal cookies with.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Answers one call. Blocks: it reads the catalogue.
    pub fn answer(
        &self,
        service: Service,
        body: &[u8],
        shelf: &dyn Shelf,
        now: Timestamp,
    ) -> Answer {
        let call = match soap::open(body) {
            Ok(Said::Body(call)) => call,
            Ok(Said::Fault(_)) | Err(_) => {
                let fault =
                    Fault::new(ErrorCode::InvalidParameters, "the request is no SOAP message");
                return Answer { body: fault.to_envelope(""), is_fault: true };
            }
        };
        self.answered(service, &call, shelf, now)
    }

    fn answered(
        &self,
        service: Service,
        call: &Element,
        shelf: &dyn Shelf,
        now: Timestamp,
    ) -> Answer {
        let name: String = call.name.chars().take(MAX_NAME).collect();
        let fault = match self.called(service, call, shelf, now) {
            Ok(answer) => return Answer { body: envelope(answer), is_fault: false },
            Err(Failed::Fault(fault)) => fault,
            Err(Failed::Sync(error)) => {
                tracing::error!(%error, call = name, "a downstream server could not be answered");
                Fault::new(ErrorCode::InternalServerError, "")
            }
        };
        let action = format!("{}/{name}", service.namespace());
        Answer { body: fault.to_envelope(&action), is_fault: true }
    }

    fn called(
        &self,
        service: Service,
        call: &Element,
        shelf: &dyn Shelf,
        now: Timestamp,
    ) -> Result<Element, Failed> {
        match (service, &*call.name) {
            (Service::Sync, "GetAuthConfig") => Ok(auth_config(now)),
            (Service::Authorisation, "GetAuthorizationCookie") => self.authorise(call),
            (Service::Sync, "GetCookie") => self.cookie(call, now),
            (Service::Sync, "GetConfigData") => {
                self.check(call, now)?;
                let config = Config {
                    max_updates: MAX_UPDATES,
                    anchor: anchor(shelf.seq(), now),
                    catalogue_only: false,
                    languages: shelf.languages(),
                };
                Ok(config.to_answer())
            }
            (Service::Sync, "GetRevisionIdList") => {
                self.check(call, now)?;
                let filter = RevisionFilter::read(call)?;
                let after = filter.anchor.as_deref().map(place).transpose()?;
                // Taken first: what comes meanwhile is told again the next time, and nothing is left out.
                let seq = shelf.seq();
                let after = match after {
                    // It was given by a catalogue that had more changes than this one.
                    Some(after) if after > seq => {
                        return Err(Fault::new(ErrorCode::ServerChanged, "filter").into());
                    }
                    after => after.unwrap_or(0),
                };
                let revisions = qualifying(&shelf.all()?, &filter, after);
                Ok(RevisionList { anchor: anchor(seq, now), revisions }.to_answer())
            }
            (Service::Sync, "GetUpdateData") => {
                self.check(call, now)?;
                documents(&wanted(call)?, shelf)
            }
            (Service::Sync, "DownloadFiles") => {
                self.check(call, now)?;
                let digests: Vec<String> = call
                    .child("fileDigestList")
                    .into_iter()
                    .flat_map(|list| list.all("base64Binary"))
                    .map(Element::text)
                    .collect();
                if !(1..=MAX_DIGESTS).contains(&digests.len()) {
                    return Err(wrong("fileDigestList").into());
                }
                let mut missing = Vec::new();
                for digest in digests {
                    if !shelf.knows_file(&digest)? {
                        missing.push(digest);
                    }
                }
                if !missing.is_empty() {
                    return Err(Fault::new(ErrorCode::FileDigestsMissing, missing.join("|")).into());
                }
                Ok(Element::new(soap::SYNC, "DownloadFilesResponse"))
            }
            (Service::Sync, "GetUpdateDecryptionData") => {
                self.check(call, now)?;
                let all = shelf.all()?;
                let known: BTreeSet<Identity> = all.into_iter().map(|it| it.identity).collect();
                if wanted(call)?.iter().any(|identity| !known.contains(identity)) {
                    return Err(Fault::new(ErrorCode::InternalServerError, "").into());
                }
                Ok(no_decryption_data())
            }
            (Service::Sync, "GetDeployments") => {
                self.check(call, now)?;
                let of = |name: &str| {
                    let said = call.text_of(name).filter(|it| !it.is_empty());
                    said.map(|it| place(&it).map_err(|_| wrong(name))).transpose()
                };
                let synced = of("syncAnchor")?.ok_or_else(|| wrong("syncAnchor"))?;
                let seq = shelf.seq();
                // As with revisions: another catalogue gave them.
                if synced.max(of("deploymentAnchor")?.unwrap_or(0)) > seq {
                    return Err(Fault::new(ErrorCode::ServerChanged, "syncAnchor").into());
                }
                Ok(no_deployments(&anchor(seq, now)))
            }
            (Service::Reporting, name) if rollup::is_one(name) => {
                self.check_reporter(call, now)?;
                Ok(rollup::answer(call, self.id("server"), self.id("rollup"))?)
            }
            (_, "Ping") => Ok(pong(now, shelf.is_over_tls())),
            (_, other) => {
                let other: String = other.chars().take(MAX_NAME).collect();
                let message = format!("{} is not answered here", soap::clean(&other));
                Err(Fault::new(ErrorCode::InvalidParameters, message).into())
            }
        }
    }

    fn authorise(&self, call: &Element) -> Result<Element, Failed> {
        let name = call.text_of("accountName").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 255 || !name.chars().all(plain) {
            return Err(wrong("accountName").into());
        }
        let id: UpdateId = call
            .text_of("accountGuid")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| wrong("accountGuid"))?;
        let data = self.seal("account", &id.to_string());
        Ok(Authorization { plug_in: "DssTargeting".into(), data }.to_answer())
    }

    fn cookie(&self, call: &Element, now: Timestamp) -> Result<Element, Failed> {
        let version = call.text_of("protocolVersion").ok_or_else(|| wrong("protocolVersion"))?;
        let (major, minor) = version.split_once('.').ok_or_else(|| wrong("protocolVersion"))?;
        match (major.parse::<u32>(), minor.parse::<u32>()) {
            (Ok(1), Ok(_)) => {}
            (Ok(_), Ok(_)) => {
                let fault = Fault::new(ErrorCode::IncompatibleProtocolVersion, version);
                return Err(fault.into());
            }
            _ => return Err(wrong("protocolVersion").into()),
        }
        let all = call.child("authCookies").into_iter().flat_map(Element::elements);
        let all: Vec<Authorization> = all.filter_map(Authorization::read).collect();
        let [one] = all.as_slice() else { return Err(wrong("authCookies").into()) };
        let unknown = || Fault::new(ErrorCode::InvalidAuthorizationCookie, "authCookies");
        let account = self.unseal("account", &one.data).ok_or_else(unknown)?;
        let ends = now + COOKIE;
        let expiration = ends.to_string();
        let data = self.seal("cookie", &format!("{} {account}", ends.as_second()));
        let result = Cookie { expiration, data }.to_element("GetCookieResult");
        Ok(Element::new(soap::SYNC, "GetCookieResponse").holding(result))
    }

    /// An error unless the call shows a cookie of this server's that has not ended.
    fn check(&self, call: &Element, now: Timestamp) -> Result<(), Fault> {
        let invalid = || Fault::new(ErrorCode::InvalidCookie, "cookie");
        let cookie = call.child("cookie").and_then(Cookie::read).ok_or_else(invalid)?;
        let said = self.unseal("cookie", &cookie.data).ok_or_else(invalid)?;
        let ends = said.split(' ').next().and_then(|ends| ends.parse::<i64>().ok());
        ends.filter(|ends| *ends > now.as_second()).map(drop).ok_or_else(invalid)
    }

    /// The same of a call that reports. The protocol has it show a cookie that says nothing, for which one of
    /// this server's may stand.
    fn check_reporter(&self, call: &Element, now: Timestamp) -> Result<(), Fault> {
        match call.child("cookie").and_then(Cookie::read) {
            Some(cookie) if cookie.data.is_empty() => Ok(()),
            _ => self.check(call, now),
        }
    }

    /// An id of this server's, always the same.
    fn id(&self, what: &str) -> UpdateId {
        let tag = hmac::sign(&self.key, format!("id\0{what}").as_bytes());
        UpdateId::named(&["wsus-server", &BASE64.encode(tag)])
    }

    /// `text` with a seal in front of it that only this server can make. `what` keeps one kind of seal from
    /// passing as another.
    fn seal(&self, what: &str, text: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{what}\0{text}").as_bytes());
        BASE64.encode([tag.as_ref(), text.as_bytes()].concat())
    }

    fn unseal(&self, what: &str, sealed: &str) -> Option<String> {
        let bytes = BASE64.decode(sealed).ok()?;
        let (tag, text) = bytes.split_at_checked(32)?;
        let text = std::str::from_utf8(text).ok()?;
        // Compared in constant time.
        hmac::verify(&self.key, format!("{what}\0{text}").as_bytes(), tag).ok()?;
        Some(text.to_owned())
    }
}

/// What the fuzz target asks: as it came, and, since it can guess no seal, with a cookie that is taken.
#[doc(hidden)]
pub fn fuzz_request(body: &[u8], shelf: &dyn Shelf) {
    let (role, now) = (Role::new(&[7; 32]), Timestamp::UNIX_EPOCH);
    let is_read = |answer: Answer| match soap::open(answer.body.as_bytes()) {
        Ok(Said::Fault(_)) => assert!(answer.is_fault),
        Ok(Said::Body(_)) => assert!(!answer.is_fault),
        Err(error) => panic!("{error}: {}", answer.body),
    };
    let ends = now + COOKIE;
    let data = role.seal("cookie", &format!("{} fuzz", ends.as_second()));
    let cookie = Cookie { expiration: ends.to_string(), data }.to_element("cookie");
    let known = soap::open(body).ok().and_then(|said| match said {
        Said::Body(mut call) => {
            call.children
                .retain(|node| !matches!(node, Node::Element(it) if &*it.name == "cookie"));
            Some(call.holding(cookie))
        }
        Said::Fault(_) => None,
    });
    for service in [Service::Sync, Service::Authorisation, Service::Reporting] {
        is_read(role.answer(service, body, shelf, now));
        if let Some(call) = &known {
            is_read(role.answered(service, call, shelf, now));
        }
    }
}

enum Failed {
    Fault(Fault),
    Sync(SyncError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<SyncError> for Failed {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

/// The revisions that a call asks for.
fn wanted(call: &Element) -> Result<Vec<Identity>, Fault> {
    let wanted = read_identities(call).filter(|ids| (1..=MAX_UPDATES).contains(&ids.len()));
    wanted.ok_or_else(|| wrong("updateIds"))
}

/// The documents of these revisions. One that is not here fails the whole call, as callers expect, and so
/// do too many bytes: callers ask for fewer then, at last for each alone.
fn documents(wanted: &[Identity], shelf: &dyn Shelf) -> Result<Element, Failed> {
    let refused = |why: String| Failed::Fault(Fault::new(ErrorCode::InternalServerError, why));
    let (mut updates, mut urls, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
    for identity in wanted {
        let (update, files) = shelf.document(*identity)?.ok_or_else(|| refused(String::new()))?;
        bytes += update.xml.len();
        if bytes > MAX_DOCUMENTS && wanted.len() > 1 {
            return Err(refused(format!("more than {MAX_DOCUMENTS} bytes: ask for fewer updates")));
        }
        updates.push(update);
        urls.extend(files.into_iter().map(|url| (url.digest.clone(), url)));
    }
    let urls: Vec<FileUrl> = urls.into_values().collect();
    Ok(update_data(&updates, &urls))
}

/// The anchor of a place in the order of changes.
fn anchor(seq: u64, now: Timestamp) -> String {
    // Windows counts to 2^31 - 1, and from 1. No catalogue of updates comes near.
    format!("{},{}", (seq + 1).min(i32::MAX as u64), now.strftime("%Y-%m-%d %H:%M:%S%.3f"))
}

/// The place that an anchor means.
fn place(anchor: &str) -> Result<u64, Fault> {
    let read = || {
        let (n, time) = anchor.split_once(',')?;
        jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", time).ok()?;
        n.parse::<u64>().ok()?.checked_sub(1)
    };
    read().ok_or_else(|| wrong("filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_places_in_the_form_that_windows_writes() {
        let now = "2026-11-27T10:20:30.4567Z".parse().unwrap();
        assert_eq!(anchor(9437, now), "9438,2026-11-27 10:20:30.456");
        assert_eq!(place("9438,2026-10-04 16:33:26.670"), Ok(9437));
        for wrong in ["", "1", "x,2026-10-04 16:33:26.670", "0,2026-10-04 16:33:26.670", "1,today"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    /// A server of which every document is as long as it says.
    struct Long(usize);

    impl Shelf for Long {
        fn seq(&self) -> u64 {
            1
        }
        fn all(&self) -> Result<Vec<Shelved>, SyncError> {
            Ok(Vec::new())
        }
        fn document(&self, of: Identity) -> Result<Option<(UpdateData, Vec<FileUrl>)>, SyncError> {
            let xml = "x".repeat(self.0);
            Ok(Some((UpdateData { identity: of, xml, files: Vec::new() }, Vec::new())))
        }
        fn knows_file(&self, _: &str) -> Result<bool, SyncError> {
            Ok(false)
        }
        fn languages(&self) -> Vec<ServerLanguage> {
            Vec::new()
        }
        fn is_over_tls(&self) -> bool {
            false
        }
    }

    #[test]
    fn documents_of_one_answer_are_bounded_and_one_alone_is_given() {
        let revisions = [1, 2].map(|revision| Identity { id: UpdateId::named(&["a"]), revision });
        assert!(documents(&revisions, &Long(MAX_DOCUMENTS / 2)).is_ok());
        let refused = documents(&revisions, &Long(MAX_DOCUMENTS / 2 + 1));
        let Err(Failed::Fault(fault)) = refused else { panic!("it was answered") };
        // What has the downstream of this program, and that of Windows, ask for each alone.
        assert_eq!(fault.code, ErrorCode::InternalServerError);
        assert!(documents(&revisions[..1], &Long(MAX_DOCUMENTS + 1)).is_ok());
    }

    #[test]
    fn a_seal_is_of_one_kind_and_one_server() {
        let role = Role::new(&[1; 32]);
        let sealed = role.seal("cookie", "x");
        assert_eq!(role.unseal("cookie", &sealed).as_deref(), Some("x"));
        assert_eq!(role.unseal("account", &sealed), None);
        assert_eq!(Role::new(&[2; 32]).unseal("cookie", &sealed), None);
        assert_eq!(role.unseal("cookie", "AAAA"), None);
    }
}

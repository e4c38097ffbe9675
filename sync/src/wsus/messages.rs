//! What servers of updates say to each other: requests and answers, as types and as XML.
//!
//! Elements are written in the order of the published schema and read by name, whatever their order.
//! Names of types and fields follow \[MS-WSUSSS\], sections 2.2.4 and 3.1.4.

use super::soap::{DSS, ErrorCode, Fault, MONITOR, SYNC, clean};
use crate::name::UpdateId;
use crate::sdp::cab;
use crate::xml::Element;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

/// The version of the protocol that is spoken here.
pub const PROTOCOL: &str = "1.20";
/// The largest document of one update, unpacked.
pub const MAX_DOCUMENT: u64 = 16 << 20;
/// Ids in one list of revisions, at most.
const MAX_REVISIONS: usize = 2_000_000;

/// One revision of an update.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Identity {
    /// Which update.
    pub id: UpdateId,
    /// Its revision.
    pub revision: u32,
}

/// What a server gives to be shown again; only it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// When it ends, as the server wrote it.
    pub expiration: String,
    /// Bytes, in base64.
    pub data: String,
}

/// What shows that a caller is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Who made it.
    pub plug_in: String,
    /// Bytes, in base64.
    pub data: String,
}

/// What a server is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Updates that one request may ask for.
    pub max_updates: usize,
    /// What to show to hear only of what changes from now on.
    pub anchor: String,
    /// Whether it has no files, only metadata.
    pub catalogue_only: bool,
    /// Its languages: LCID, short name, long name, and whether it has files in it.
    pub languages: Vec<ServerLanguage>,
}

/// A language of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLanguage {
    /// Its LCID; 0 is all.
    pub id: u32,
    /// As `pt-br`.
    pub short: String,
    /// Its name in English.
    pub long: String,
    /// Whether the server has files in it.
    pub enabled: bool,
}

/// Which revisions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// Where the last answer ended.
    pub anchor: Option<String>,
    /// Categories, classifications and detectoids, and not updates.
    pub config: bool,
    /// Products and families; none is all. With each whether only what changed is wanted.
    pub categories: Option<Vec<(UpdateId, bool)>>,
    /// Classifications, likewise.
    pub classifications: Option<Vec<(UpdateId, bool)>>,
}

/// Revisions, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionList {
    /// To be shown the next time.
    pub anchor: String,
    /// Which.
    pub revisions: Vec<Identity>,
}

/// The document of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateData {
    /// Which.
    pub identity: Identity,
    /// The document.
    pub xml: String,
    /// SHA-1 of its files, in base64.
    pub files: Vec<String>,
}

/// Where a file can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileUrl {
    /// Its SHA-1, in base64.
    pub digest: String,
    /// At the vendor's.
    pub vendor: Option<String>,
    /// At the server.
    pub server: Option<String>,
}

pub(super) fn say(name: &str) -> Element {
    Element::new(SYNC, name)
}

pub(super) fn text(name: &str, text: impl AsRef<str>) -> Element {
    say(name).saying(clean(text.as_ref()))
}

pub(super) fn flag(name: &str, value: bool) -> Element {
    text(name, if value { "true" } else { "false" })
}

pub(super) fn wrong(what: &str) -> Fault {
    Fault::new(ErrorCode::InvalidParameters, what)
}

fn number<T: std::str::FromStr>(of: &Element, name: &str) -> Option<T> {
    of.text_of(name)?.parse().ok()
}

/// The element of the answer to `operation`, from its body.
///
/// # Errors
/// It answers something else.
pub fn result<'a>(body: &'a Element, operation: &str) -> Result<&'a Element, Fault> {
    let answers = *body.name == format!("{operation}Response");
    let result = answers.then(|| body.child(&format!("{operation}Result"))).flatten();
    result.ok_or_else(|| {
        Fault::new(ErrorCode::Other("NoAnswer".into()), format!("want {operation}Result"))
    })
}

impl Identity {
    /// As `name`, with its two children.
    pub fn to_element(self, name: &str) -> Element {
        say(name)
            .holding(text("UpdateID", self.id.to_string()))
            .holding(text("RevisionNumber", self.revision.to_string()))
    }

    /// Reads it; `None` if it is none.
    pub fn read(element: &Element) -> Option<Self> {
        let id = element.text_of("UpdateID")?.parse().ok()?;
        Some(Self { id, revision: number(element, "RevisionNumber")? })
    }
}

impl Cookie {
    /// As `name`.
    pub fn to_element(&self, name: &str) -> Element {
        say(name)
            .holding(text("Expiration", &self.expiration))
            .holding(text("EncryptedData", &self.data))
    }

    /// Reads it; `None` if it is none.
    pub fn read(element: &Element) -> Option<Self> {
        let data = element.text_of("EncryptedData").unwrap_or_default();
        Some(Self { expiration: element.text_of("Expiration")?, data })
    }

    /// When it ends; `None` if nobody can tell.
    pub fn ends(&self) -> Option<Timestamp> {
        self.expiration.parse().ok()
    }
}

impl Authorization {
    /// The answer to `GetAuthorizationCookie`.
    pub fn to_answer(&self) -> Element {
        let plain = |name: &str, of: &str| Element::new(DSS, name).saying(clean(of));
        let result = Element::new(DSS, "GetAuthorizationCookieResult")
            .holding(plain("PlugInId", &self.plug_in))
            .holding(plain("CookieData", &self.data));
        Element::new(DSS, "GetAuthorizationCookieResponse").holding(result)
    }

    /// Reads it; `None` if it is none.
    pub fn read(element: &Element) -> Option<Self> {
        Some(Self { plug_in: element.text_of("PlugInId")?, data: element.text_of("CookieData")? })
    }
}

/// Asks who a caller must show itself to.
pub fn ask_auth_config() -> Element {
    say("GetAuthConfig")
}

/// The address of the service that a caller must show itself to, of the answer.
pub fn read_auth_config(result: &Element) -> Option<String> {
    result.child("AuthInfo")?.child("AuthPlugInInfo")?.text_of("ServiceUrl")
}

/// The answer to `GetAuthConfig`.
pub fn auth_config(changed: Timestamp) -> Element {
    let plug_in = say("AuthPlugInInfo")
        .holding(text("PlugInID", "DssTargeting"))
        .holding(text("ServiceUrl", "DssAuthWebService/DssAuthWebService.asmx"))
        .holding(say("Parameter"));
    let result = say("GetAuthConfigResult")
        .holding(text("LastChange", changed.to_string()))
        .holding(say("AuthInfo").holding(plug_in));
    say("GetAuthConfigResponse").holding(result)
}

/// Asks for an authorisation, as `account`, a name as of a machine, and its id.
pub fn ask_authorization(account: &str, id: UpdateId) -> Element {
    let plain = |name: &str, of: &str| Element::new(DSS, name).saying(clean(of));
    Element::new(DSS, "GetAuthorizationCookie")
        .holding(plain("accountName", account))
        .holding(plain("accountGuid", &id.to_string()))
}

/// Asks for a cookie.
pub fn ask_cookie(authorization: &Authorization) -> Element {
    let one = say("AuthorizationCookie")
        .holding(text("PlugInId", &authorization.plug_in))
        .holding(text("CookieData", &authorization.data));
    say("GetCookie")
        .holding(say("authCookies").holding(one))
        .holding(text("protocolVersion", PROTOCOL))
}

/// Asks what the server is like.
pub fn ask_config(cookie: &Cookie) -> Element {
    say("GetConfigData").holding(cookie.to_element("cookie"))
}

impl Config {
    /// Reads the answer.
    pub fn read(result: &Element) -> Self {
        let languages = result.child("LanguageUpdateList").into_iter();
        let languages = languages.flat_map(|list| list.all("ServerSyncLanguageData"));
        let language = |of: &Element| {
            let enabled = of.text_of("Enabled").as_deref() == Some("true");
            let short = of.text_of("ShortLanguage")?;
            let long = of.text_of("LongLanguage").unwrap_or_default();
            Some(ServerLanguage { id: number(of, "LanguageID")?, short, long, enabled })
        };
        Self {
            max_updates: number(result, "MaxNumberOfUpdatesPerRequest")
                .unwrap_or(100)
                .clamp(1, 1000),
            anchor: result.text_of("NewConfigAnchor").unwrap_or_default(),
            catalogue_only: result.text_of("CatalogOnlySync").as_deref() == Some("true"),
            languages: languages.filter_map(language).collect(),
        }
    }

    /// The answer to `GetConfigData`.
    pub fn to_answer(&self) -> Element {
        let language = |of: &ServerLanguage| {
            say("ServerSyncLanguageData")
                .holding(text("LanguageID", of.id.to_string()))
                .holding(text("ShortLanguage", &of.short))
                .holding(text("LongLanguage", &of.long))
                .holding(flag("Enabled", of.enabled))
        };
        let languages = say("LanguageUpdateList").holding_all(self.languages.iter().map(language));
        let result = say("GetConfigDataResult")
            .holding(flag("CatalogOnlySync", self.catalogue_only))
            .holding(flag("LazySync", false))
            .holding(flag("ServerHostsPsfFiles", false))
            .holding(text("MaxNumberOfComputerIdsInRequest", "0"))
            .holding(text("MaxNumberOfDriverSetsPerRequest", "0"))
            .holding(text("MaxNumberOfPnpHardwareIdsInRequest", "0"))
            .holding(text("MaxNumberOfUpdatesPerRequest", self.max_updates.to_string()))
            .holding(text("NewConfigAnchor", &self.anchor))
            .holding(text("ProtocolVersion", PROTOCOL))
            .holding(languages)
            .holding(text("MaxUpdatesPerRequestInGetUpdateDecryptionData", "100"));
        say("GetConfigDataResponse").holding(result)
    }
}

impl RevisionFilter {
    /// Asks for the revisions.
    pub fn ask(&self, cookie: &Cookie) -> Element {
        let list = |name: &str, ids: &[(UpdateId, bool)]| {
            let one = |(id, delta): &(UpdateId, bool)| {
                say("IdAndDelta").holding(text("Id", id.to_string())).holding(flag("Delta", *delta))
            };
            say(name).holding_all(ids.iter().map(one))
        };
        let mut filter = say("filter");
        if let Some(anchor) = &self.anchor {
            filter = filter.holding(text("Anchor", anchor));
        }
        filter = filter
            .holding(flag("GetConfig", self.config))
            .holding(flag("Get63LanguageOnly", false));
        if let Some(ids) = &self.categories {
            filter = filter.holding(list("Categories", ids));
        }
        if let Some(ids) = &self.classifications {
            filter = filter.holding(list("Classifications", ids));
        }
        say("GetRevisionIdList").holding(cookie.to_element("cookie")).holding(filter)
    }

    /// Reads what is asked for.
    pub fn read(body: &Element) -> Result<Self, Fault> {
        let filter = body.child("filter").ok_or_else(|| wrong("filter"))?;
        let list = |name: &str| -> Result<Option<Vec<(UpdateId, bool)>>, Fault> {
            let Some(list) = filter.child(name) else { return Ok(None) };
            let one = |of: &Element| {
                let id = of.text_of("Id").and_then(|id| id.parse().ok());
                let delta = of.text_of("Delta").as_deref() == Some("true");
                id.map(|id| (id, delta)).ok_or_else(|| wrong("filter"))
            };
            list.all("IdAndDelta").map(one).collect::<Result<_, _>>().map(Some)
        };
        Ok(Self {
            anchor: filter.text_of("Anchor"),
            config: filter.text_of("GetConfig").as_deref() == Some("true"),
            categories: list("Categories")?,
            classifications: list("Classifications")?,
        })
    }
}

impl RevisionList {
    /// Reads the answer; what is no identity is passed over, and counted.
    pub fn read(result: &Element) -> Option<(Self, usize)> {
        let anchor = result.text_of("Anchor")?;
        let list = result.child("NewRevisions").into_iter().flat_map(Element::elements);
        let (mut revisions, mut n_wrong) = (Vec::new(), 0);
        for element in list.take(MAX_REVISIONS) {
            match Identity::read(element) {
                Some(identity) => revisions.push(identity),
                None => n_wrong += 1,
            }
        }
        Some((Self { anchor, revisions }, n_wrong))
    }

    /// The answer to `GetRevisionIdList`.
    pub fn to_answer(&self) -> Element {
        let each = self.revisions.iter().map(|identity| identity.to_element("UpdateIdentity"));
        let result = say("GetRevisionIdListResult")
            .holding(text("Anchor", &self.anchor))
            .holding(say("NewRevisions").holding_all(each));
        say("GetRevisionIdListResponse").holding(result)
    }
}

/// Asks for the documents of revisions.
pub fn ask_update_data(cookie: &Cookie, of: &[Identity]) -> Element {
    let each = of.iter().map(|identity| identity.to_element("UpdateIdentity"));
    say("GetUpdateData")
        .holding(cookie.to_element("cookie"))
        .holding(say("updateIds").holding_all(each))
}

/// Which revisions a request asks for; `None` if it names none, or something that is none.
pub fn read_identities(body: &Element) -> Option<Vec<Identity>> {
    body.child("updateIds")?.all("UpdateIdentity").map(Identity::read).collect()
}

/// Reads the answer to `GetUpdateData`. What cannot be read of it is told in words.
pub fn read_update_data(result: &Element) -> (Vec<UpdateData>, Vec<FileUrl>, Vec<String>) {
    let updates =
        result.child("updates").into_iter().flat_map(|all| all.all("ServerSyncUpdateData"));
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    for update in updates {
        let Some(identity) = update.child("Id").and_then(Identity::read) else {
            bad.push("an update without an identity".to_owned());
            continue;
        };
        let xml = match (update.text_of("XmlUpdateBlob"), update.text_of("XmlUpdateBlobCompressed"))
        {
            (Some(xml), _) => Ok(xml),
            (None, Some(packed)) => unpack(&packed),
            (None, None) => Err("it has no document".to_owned()),
        };
        let files = update.child("FileDigestList").into_iter();
        let files = files.flat_map(|list| list.all("base64Binary")).map(Element::text).collect();
        match xml {
            Ok(xml) => found.push(UpdateData { identity, xml, files }),
            Err(why) => {
                bad.push(format!("update {} revision {}: {why}", identity.id, identity.revision))
            }
        }
    }
    let urls = result.child("fileUrls").into_iter().flat_map(|all| all.all("ServerSyncUrlData"));
    let url = |of: &Element| {
        let digest = of.text_of("FileDigest")?;
        Some(FileUrl { digest, vendor: of.text_of("MUUrl"), server: of.text_of("UssUrl") })
    };
    (found, urls.filter_map(url).collect(), bad)
}

/// The answer to `GetUpdateData`.
pub fn update_data(updates: &[UpdateData], urls: &[FileUrl]) -> Element {
    let update = |of: &UpdateData| {
        let mut one = say("ServerSyncUpdateData")
            .holding(of.identity.to_element("Id"))
            .holding(text("XmlUpdateBlob", &of.xml));
        if !of.files.is_empty() {
            let each = of.files.iter().map(|digest| text("base64Binary", digest));
            one = one.holding(say("FileDigestList").holding_all(each));
        }
        one
    };
    let url = |of: &FileUrl| {
        let one = say("ServerSyncUrlData").holding(text("FileDigest", &of.digest));
        let one = one.holding_all(of.vendor.iter().map(|url| text("MUUrl", url)));
        one.holding_all(of.server.iter().map(|url| text("UssUrl", url)))
    };
    let result = say("GetUpdateDataResult")
        .holding(say("updates").holding_all(updates.iter().map(update)))
        .holding(say("fileUrls").holding_all(urls.iter().map(url)));
    say("GetUpdateDataResponse").holding(result)
}

/// The answer to `GetUpdateDecryptionData`: no file here is encrypted, so there is no key to any.
pub fn no_decryption_data() -> Element {
    let result = say("GetUpdateDecryptionDataResult").holding(say("UpdateFileDecryptionData"));
    say("GetUpdateDecryptionDataResponse").holding(result)
}

/// The answer to `GetDeployments` of a server that has none: no groups of computers, nothing deployed to
/// them, hidden from them or accepted for them. Each list is a whole one.
pub fn no_deployments(anchor: &str) -> Element {
    let lists = ["Groups", "Deployments", "DeadDeployments", "HiddenUpdates", "AcceptedEulas"];
    let result =
        say("GetDeploymentsResult").holding(text("Anchor", anchor)).holding_all(lists.map(say));
    say("GetDeploymentsResponse").holding(result)
}

/// The answer to `Ping`: the services work, and have no file of settings that would expire.
pub fn pong(now: Timestamp, is_over_tls: bool) -> Element {
    let plain = |name: &str, of: &str| Element::new(MONITOR, name).saying(of);
    let never = "0001-01-01T00:00:00";
    let result = Element::new(MONITOR, "PingResult")
        .holding(plain("SuccessFlag", "true"))
        .holding(plain("ServicesTime", &now.to_string()))
        .holding(plain("IsHttps", if is_over_tls { "true" } else { "false" }))
        .holding(plain("ConfigFileLastModifiedTime", never))
        .holding(plain("ConfigFileNextExpirationTime", never))
        .holding(plain("ConfigFileExpirationModuloInMinutes", "0"));
    Element::new(MONITOR, "PingResponse").holding(result)
}

/// The document in a compressed blob: base64 of a cabinet with one member, in UTF-16LE.
fn unpack(packed: &str) -> Result<String, String> {
    let packed: String = packed.split_whitespace().collect();
    let bytes = BASE64.decode(packed).map_err(|error| format!("its document: {error}"))?;
    let wide =
        cab::only_member(&bytes, MAX_DOCUMENT).map_err(|error| format!("its document: {error}"))?;
    let units = wide.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let document: Result<String, _> = char::decode_utf16(units).collect();
    let document = document.map_err(|_| "its document is no UTF-16".to_owned())?;
    Ok(document.trim_start_matches('\u{feff}').trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::soap::{Said, envelope, open};
    use super::*;

    fn body(message: &[u8]) -> Element {
        match open(message).unwrap() {
            Said::Body(body) => body,
            Said::Fault(fault) => panic!("{fault}"),
        }
    }

    #[test]
    fn the_recorded_answers_are_read() {
        let auth = body(include_bytes!("../../tests/data/wsus/GetAuthConfig.response.xml"));
        let url = read_auth_config(result(&auth, "GetAuthConfig").unwrap());
        assert_eq!(url.as_deref(), Some("DssAuthWebService/DssAuthWebService.asmx"));
        let config = body(include_bytes!("../../tests/data/wsus/GetConfigData.response.xml"));
        let config = Config::read(result(&config, "GetConfigData").unwrap());
        assert_eq!((config.max_updates, config.catalogue_only), (100, false));
        assert_eq!(config.anchor, "9438,2026-10-04 16:33:26.670");
        assert!(config.languages.iter().any(|language| language.short == "zh-tw"));
        let data =
            body(include_bytes!("../../tests/data/wsus/GetUpdateData.uncompressed.response.xml"));
        let (updates, _, bad) = read_update_data(result(&data, "GetUpdateData").unwrap());
        assert!(bad.is_empty() && updates[0].xml.starts_with("<upd:Update"), "{bad:?}");
        let data =
            body(include_bytes!("../../tests/data/wsus/GetUpdateData.compressed.response.xml"));
        let (updates, urls, bad) = read_update_data(result(&data, "GetUpdateData").unwrap());
        assert!(bad.is_empty(), "{bad:?}");
        let expected = include_str!("../../tests/data/wsus/update-266f6222.xml");
        assert_eq!(updates[0].xml.trim(), expected.trim());
        assert_eq!(updates[0].files, ["h/W9BGlYUAaqXTp30cZi/SiV3c0="]);
        assert!(urls.iter().all(|url| url.digest == updates[0].files[0]), "{urls:?}");
    }

    #[test]
    fn the_recorded_request_is_read() {
        let request =
            body(include_bytes!("../../tests/data/wsus/GetRevisionIdList.delta.request.xml"));
        let filter = RevisionFilter::read(&request).unwrap();
        assert_eq!(filter.anchor.as_deref(), Some("9438,2026-10-04 16:09:27.371"));
        assert!(!filter.config && filter.categories.as_ref().unwrap()[0].1);
        assert!(Cookie::read(request.child("cookie").unwrap()).unwrap().ends().is_some());
    }

    #[test]
    fn what_is_written_reads_back() {
        let cookie = Cookie { expiration: "2026-11-27T00:00:00Z".into(), data: "AAAA".into() };
        let id = UpdateId::named(&["x"]);
        let filter = RevisionFilter {
            anchor: Some("1,2026-11-27 00:00:00.000".into()),
            config: true,
            categories: Some(vec![(id, true)]),
            classifications: Some(vec![]),
        };
        let text = envelope(filter.ask(&cookie));
        assert_eq!(RevisionFilter::read(&body(text.as_bytes())).unwrap(), filter);
        let identity = Identity { id, revision: 7 };
        let text = envelope(ask_update_data(&cookie, &[identity]));
        assert_eq!(read_identities(&body(text.as_bytes())), Some(vec![identity]));
        let update =
            UpdateData { identity, xml: "<a b=\"&amp;\"/>".into(), files: vec!["AA==".into()] };
        let url =
            FileUrl { digest: "AA==".into(), vendor: Some("http://x/y".into()), server: None };
        let text = envelope(update_data(std::slice::from_ref(&update), std::slice::from_ref(&url)));
        let answer = body(text.as_bytes());
        let read = read_update_data(result(&answer, "GetUpdateData").unwrap());
        assert_eq!(read, (vec![update], vec![url], vec![]));
        let list = RevisionList { anchor: "1,x".into(), revisions: vec![identity] };
        let answer = body(envelope(list.to_answer()).as_bytes());
        let read = RevisionList::read(result(&answer, "GetRevisionIdList").unwrap());
        assert_eq!(read, Some((list, 0)));
    }
}

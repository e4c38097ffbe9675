//! A downstream's side of the protocol: cookies, lists of revisions, documents in batches.

use super::messages::{
    Authorization, Config, Cookie, FileUrl, Identity, RevisionFilter, RevisionList, UpdateData,
    ask_auth_config, ask_authorization, ask_config, ask_cookie, ask_update_data, read_auth_config,
    read_update_data, result,
};
use super::soap::{self, DSS, ErrorCode, Fault, SYNC, Said};
use crate::adapter::{Run, Skipped};
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::xml::Element;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

/// Where the service is that servers are asked at.
const SERVICE: &str = "ServerSyncWebService/ServerSyncWebService.asmx";
/// A cookie that ends sooner is not used any more.
const NEARLY_OVER: SignedDuration = SignedDuration::from_secs(120);
/// How often one call begins again with a new cookie.
const RENEWALS: u32 = 2;

/// Who a downstream says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// A name as of a machine.
    pub name: String,
    /// Its id, always the same.
    pub id: UpdateId,
}

/// A conversation with an upstream server.
pub struct Client<'a> {
    run: &'a Run,
    root: Url,
    service: Url,
    account: Account,
    cookie: Option<Cookie>,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum CallError {
    /// The server said why.
    Fault(Fault),
    /// It could not be asked, or did not answer in the form it should.
    Sync(SyncError),
}

impl From<SyncError> for CallError {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

impl<'a> Client<'a> {
    /// One of the server whose services lie below `root`.
    pub fn new(run: &'a Run, root: &Url, account: Account) -> Result<Self, SyncError> {
        let mut root = root.clone();
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        let service = below(&root, SERVICE)?;
        Ok(Self { run, root, service, account, cookie: None })
    }

    /// What the server is like.
    pub async fn config(&mut self) -> Result<Config, SyncError> {
        let answer = self.asked("GetConfigData", ask_config).await;
        let answer = answer.map_err(|error| self.failed(error))?;
        Ok(Config::read(self.result(&answer, "GetConfigData")?))
    }

    /// Which revisions there are; a fault where the server says one, as that its anchors mean nothing
    /// any more.
    pub async fn revisions(
        &mut self,
        filter: &RevisionFilter,
    ) -> Result<Result<RevisionList, Fault>, SyncError> {
        let answer = match self.asked("GetRevisionIdList", |cookie| filter.ask(cookie)).await {
            Ok(answer) => answer,
            Err(CallError::Fault(fault)) => return Ok(Err(fault)),
            Err(CallError::Sync(error)) => return Err(error),
        };
        let read = RevisionList::read(self.result(&answer, "GetRevisionIdList")?);
        let (list, _) =
            read.ok_or_else(|| self.malformed("the list of revisions has no anchor"))?;
        Ok(Ok(list))
    }

    /// The documents of revisions, and where their files are. A server fails a whole call for one
    /// revision that it does not have: the call is divided until that one stands alone, which is passed over.
    pub async fn documents(
        &mut self,
        of: &[Identity],
        skipped: &mut Skipped,
    ) -> Result<(Vec<UpdateData>, Vec<FileUrl>), SyncError> {
        let (mut updates, mut urls) = (Vec::new(), Vec::new());
        let mut parts = vec![of];
        while let Some(part) = parts.pop() {
            self.run.watch.check()?;
            match self.asked("GetUpdateData", |cookie| ask_update_data(cookie, part)).await {
                Ok(answer) => {
                    let result = self.result(&answer, "GetUpdateData")?;
                    let (found, at, bad) = read_update_data(result);
                    updates.extend(found);
                    urls.extend(at);
                    bad.into_iter().for_each(|why| skipped.add(why));
                }
                Err(CallError::Fault(fault)) if is_about_one(&fault) => match part {
                    [one] => skipped.add(format_args!(
                        "the server does not give update {} revision {}: {}",
                        one.id, one.revision, fault.code
                    )),
                    several => {
                        let (first, second) = several.split_at(several.len() / 2);
                        parts.extend([second, first]);
                    }
                },
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok((updates, urls))
    }

    /// Asks with a cookie, and with a new one where the server does not take it.
    async fn asked(
        &mut self,
        operation: &str,
        ask: impl Fn(&Cookie) -> Element,
    ) -> Result<Element, CallError> {
        let mut renewals = 0;
        loop {
            let cookie = self.cookie().await?;
            match self.call(&self.service, SYNC, operation, ask(&cookie)).await {
                Err(CallError::Fault(fault)) if is_about_cookie(&fault) && renewals < RENEWALS => {
                    self.cookie = None;
                    renewals += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn cookie(&mut self) -> Result<Cookie, CallError> {
        let holds = |cookie: &&Cookie| {
            // A clock that differs from the server's must not make every cookie look ended.
            cookie.ends().is_none_or(|ends| ends > Timestamp::now() + NEARLY_OVER)
        };
        if let Some(cookie) = self.cookie.as_ref().filter(holds) {
            return Ok(cookie.clone());
        }
        let config = self.call(&self.service, SYNC, "GetAuthConfig", ask_auth_config()).await?;
        let config = self.result(&config, "GetAuthConfig")?;
        let at = read_auth_config(config)
            .ok_or_else(|| self.malformed("the server names no service to authorise at"))?;
        let at = below(&self.root, &at)?;
        if at.host_str() != self.root.host_str() {
            let detail =
                format!("{} sends to {at} to authorise, which is another server", self.root);
            return Err(SyncError::new(Cause::Refused, detail).into());
        }
        let ask = ask_authorization(&self.account.name, self.account.id);
        let answer = self.call(&at, DSS, "GetAuthorizationCookie", ask).await?;
        let answer = self.result(&answer, "GetAuthorizationCookie")?;
        let authorization = Authorization::read(answer)
            .ok_or_else(|| self.malformed("the authorisation is none"))?;
        let answer =
            self.call(&self.service, SYNC, "GetCookie", ask_cookie(&authorization)).await?;
        let cookie = Cookie::read(self.result(&answer, "GetCookie")?)
            .ok_or_else(|| self.malformed("the cookie is none"))?;
        self.cookie = Some(cookie.clone());
        Ok(cookie)
    }

    async fn call(
        &self,
        url: &Url,
        namespace: &str,
        operation: &str,
        body: Element,
    ) -> Result<Element, CallError> {
        let action = HeaderValue::from_str(&format!("\"{namespace}/{operation}\""));
        let action = action.map_err(|error| {
            SyncError::because(Cause::Local, "the action is no header value", error)
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("soapaction"), action);
        let body = soap::envelope(body).into_bytes().into();
        let (fetcher, watch) = (&self.run.fetcher, &self.run.watch);
        let sent = fetcher.post(url, headers, "text/xml; charset=utf-8", body, soap::MOST, watch);
        let (status, answer) = sent.await?;
        match soap::open(&answer) {
            Ok(Said::Body(body)) if status.is_success() => Ok(body),
            Ok(Said::Body(_)) => {
                Err(SyncError::new(Cause::Busy, format!("{url} answered {status}")).into())
            }
            Ok(Said::Fault(fault)) => Err(CallError::Fault(fault)),
            Err(_) if !status.is_success() => {
                let cause = match status.as_u16() {
                    404 => Cause::NotFound,
                    429 | 500.. => Cause::Busy,
                    _ => Cause::Refused,
                };
                Err(SyncError::new(cause, format!("{url} answered {status}")).into())
            }
            Err(error) => Err(error.of(format_args!("the answer of {url}")).into()),
        }
    }

    fn result<'b>(&self, body: &'b Element, operation: &str) -> Result<&'b Element, SyncError> {
        result(body, operation).map_err(|_| self.malformed("it answers another question"))
    }

    fn malformed(&self, what: &str) -> SyncError {
        SyncError::new(Cause::Malformed, format!("{}: {what}", self.service))
    }

    fn failed(&self, error: CallError) -> SyncError {
        match error {
            CallError::Fault(fault) => fault.of(&self.service),
            CallError::Sync(error) => error,
        }
    }
}

/// The address `path` means, seen from the root; some servers put slashes in front of it.
fn below(root: &Url, path: &str) -> Result<Url, SyncError> {
    let path = if path.contains("://") { path } else { path.trim_start_matches('/') };
    root.join(path).map_err(|error| {
        SyncError::because(Cause::Malformed, format!("{path} is no address below {root}"), error)
    })
}

/// Whether another cookie may help.
fn is_about_cookie(fault: &Fault) -> bool {
    matches!(fault.code, ErrorCode::InvalidCookie | ErrorCode::InvalidAuthorizationCookie)
}

/// Whether one of several revisions may be what the server failed at.
fn is_about_one(fault: &Fault) -> bool {
    matches!(fault.code, ErrorCode::InternalServerError | ErrorCode::InvalidParameters)
}

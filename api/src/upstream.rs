//! This site as an upstream for other servers of updates, in the protocol of WSUS.
//!
//! Its addresses are those that such servers ask at, outside of the REST interface and without its tokens:
//! the protocol has none, so everybody who reaches the site may read the catalogue there. That is why it
//! is off until `sync.serve_wsus` is set.

use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dp::identity::OverTls;
use jiff::Timestamp;
use rand::Rng as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use sync::wsus::server::{MAX_REQUEST, Role, Service};
use sync::wsus::shelf::CatalogueShelf;

/// What answers other servers.
#[derive(Clone)]
pub(crate) struct Upstream {
    role: std::sync::Arc<Role>,
    shelf: CatalogueShelf,
}

impl Upstream {
    /// That of a site whose secrets lie in `keys`.
    pub(crate) fn open(site: &Site, keys: &Path) -> Result<Self, Problem> {
        let role = std::sync::Arc::new(Role::new(&secret(&keys.join("wsus.secret"))?));
        let shelf = CatalogueShelf::new(site.updates()?.catalogue().clone(), None);
        Ok(Self { role, shelf })
    }
}

/// The secret in a file, made the first time. It seals what callers are given to show again: made anew, they
/// ask again.
fn secret(file: &Path) -> Result<[u8; 32], Problem> {
    let failed = |error: std::io::Error| Problem::internal(&error);
    match fs::read(file) {
        Ok(bytes) => {
            return bytes.try_into().map_err(|_| {
                let detail = format!("{file:?} is damaged: delete it, another one is made then");
                Problem::new(Kind::Unavailable, detail)
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let part = file.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let written = to.as_mut().map_err(|error| std::io::Error::from(error.kind())).and_then(|to| {
        to.write_all(&secret)?;
        to.sync_all()
    });
    written.and_then(|()| fs::rename(&part, file)).map_err(failed)?;
    Ok(secret)
}

/// Answers what no route of the interface does: a call of another server, or that there is nothing.
pub(crate) async fn elsewhere(State(site): State<Site>, request: Request) -> Response {
    let path = request.uri().path();
    let Some(service) = Service::at(path) else {
        let detail = format!("{path} is no address of this interface: see /api/openapi.json");
        return Problem::new(Kind::UnknownRoute, detail).into_response();
    };
    if !site.config().sync.serve_wsus {
        let detail = "this site is no upstream for other servers of updates: its administrator can set \
                      sync.serve_wsus";
        return Problem::new(Kind::UnknownRoute, detail).into_response();
    }
    if request.method() != Method::POST {
        return Problem::new(Kind::MethodNotAllowed, "calls come by POST").into_response();
    }
    called(site, service, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn called(site: Site, service: Service, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let scheme = if head.extensions.get::<OverTls>().is_some() { "https" } else { "http" };
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // Files are where the caller found us.
    let content = host.and_then(|host| format!("{scheme}://{host}/Content/").parse().ok());
    let body = to_bytes(body, MAX_REQUEST).await.map_err(|_| {
        Problem::new(Kind::TooLarge, format!("a call has at most {MAX_REQUEST} bytes"))
    })?;
    let answer = blocking(move || {
        let upstream = site.upstream()?;
        let shelf = upstream.shelf.reached_at(content);
        Ok(upstream.role.answer(service, &body, &shelf, Timestamp::now()))
    });
    let answer = answer.await?;
    let status = if answer.is_fault { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    let kind = [(header::CONTENT_TYPE, "text/xml; charset=utf-8")];
    Ok((status, kind, Body::from(answer.body)).into_response())
}

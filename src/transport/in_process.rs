//! REST without a network: a data folder opened here, and requests handed to its router.
//!
//! Whoever may open the folder is its administrator, so no token is asked for. Nothing is opened
//! that the requests do not need: an update of an unchanged folder must end within an instant.

use super::{Reply, Request, Sent};
use crate::exit::{Exit, Failure, with_causes};
use api::{Config, Options, Site, SiteError};
use futures::StreamExt;
use http::header;
use std::path::Path;
use tower::ServiceExt;

/// A site in this process; or the library of a distribution point that does not run.
pub struct InProcess {
    site: Site,
    router: axum::Router,
}

impl InProcess {
    /// Opens the data folder `dir`; fails if another process has it open.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        if !dir.is_dir() {
            let dir = dir.display();
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no data folder {dir}; `depot serve --data {dir}` makes one"),
            ));
        }
        let options = Options { data: Some(dir.to_owned()), ..Options::default() };
        let config = Config::load(&options, std::env::vars_os())
            .map_err(|error| Failure::usage(with_causes(&error)))?;
        let site = match dp::node::is_point(dir) {
            true => Site::of_point(config, None),
            false => Site::open(config, "depot with --data").map_err(open_failure)?,
        };
        let router = api::local_router(site.clone());
        Ok(Self { site, router })
    }

    /// The site itself, for what moves too many bytes to pass through a request.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        self.site.folder()
    }

    /// Hands one request to the router.
    pub async fn send(&self, request: Request) -> Result<Reply, Failure> {
        let mut built = http::Request::builder().method(request.method).uri(request.path);
        if let Some(headers) = built.headers_mut() {
            *headers = request.headers;
        }
        let body = match request.body {
            Some((body, media_type)) => {
                let (length, body) = match body {
                    Sent::Bytes(bytes) => (bytes.len() as u64, axum::body::Body::from(bytes)),
                    Sent::File(file, length) => {
                        let pieces = tokio_util::io::ReaderStream::new(file);
                        (length, axum::body::Body::from_stream(pieces))
                    }
                };
                built = built
                    .header(header::CONTENT_TYPE, media_type)
                    .header(header::CONTENT_LENGTH, length);
                body
            }
            None => axum::body::Body::empty(),
        };
        let Ok(response) = self.router.clone().oneshot(built.body(body)?).await;
        let (parts, body) = response.into_parts();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.into_data_stream().map(|part| part.map_err(Failure::from)).boxed(),
        })
    }

    /// Ends jobs and closes library and database.
    pub async fn close(self) -> Result<(), Failure> {
        drop(self.router);
        self.site.close().await.map_err(|problem| super::failure_of(&problem))
    }
}

/// Why a site did not open, as a failure of this command.
pub fn open_failure(error: SiteError) -> Failure {
    let exit = match error {
        SiteError::InUse { .. } | SiteError::HalfRestored { .. } => Exit::Conflict,
        SiteError::NotADataFolder { .. } | SiteError::OfAPoint { .. } => Exit::NotFound,
        _ => Exit::Failed,
    };
    Failure::new(exit, with_causes(&error))
}

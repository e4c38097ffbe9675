//! Bringing what deployments need: their documents from the site, files of updates from distribution points.
//!
//! A file is asked for by its digest, so any point that has it will do, and nothing that comes is believed before its
//! bytes were checked. What broke off goes on where it was, at the same point or at the next one.

use crate::agent::link::{Site, Trouble};
use client::cache::{CacheError, Part};
use client::enforce::code;
use deployment::enforcement::Failure;
use deployment::policy::{DeployedUpdates, MAX_DOCUMENT};
use http::{Method, StatusCode, header};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How often a point is asked again that breaks off after it sent something.
const AGAIN: u32 = 5;

/// A file that is to come.
pub struct Bring {
    /// What asks.
    pub http: reqwest::Client,
    /// Where asking runs.
    pub runtime: Handle,
    /// The cache's folder.
    pub folder: PathBuf,
    /// The addresses of the points that may be asked now, in order.
    pub points: Vec<String>,
    /// The file's digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Whether it is not wanted any more.
    pub stop: CancellationToken,
}

/// Why a point did not give a file.
enum Fault {
    /// It has none, or does not answer, or sends what it should not.
    Point(String),
    /// It broke off.
    Broken(String),
    /// What is wrong is here.
    Here(Failure),
}

impl Bring {
    /// Brings it. On a thread that may block.
    pub fn run(&self) -> Result<u64, Failure> {
        let local = |error: &dyn std::error::Error| {
            Failure::new(code::LOCAL, format!("the cache cannot be used: {error}"))
        };
        let mut faults = Vec::new();
        for point in &self.points {
            let mut again = 0;
            loop {
                let mut part = Part::open(&self.folder, &self.digest).map_err(|it| local(&it))?;
                let before = part.size();
                let fault = match self.from(point, &mut part) {
                    Ok(()) => match part.finish() {
                        Ok(size) => return Ok(size),
                        Err(CacheError::Wrong { .. }) => Fault::Point("other bytes came".into()),
                        Err(error) => return Err(local(&error)),
                    },
                    Err(fault) => fault,
                };
                match fault {
                    Fault::Here(failure) => return Err(failure),
                    // It goes on as long as something comes.
                    Fault::Broken(_) if again < AGAIN && self.has_grown(before) => again += 1,
                    Fault::Broken(why) | Fault::Point(why) => {
                        faults.push(format!("{point}: {why}"));
                        break;
                    }
                }
            }
        }
        let what = match faults.is_empty() {
            true => "no distribution point may be asked yet".to_owned(),
            false => faults.join("; "),
        };
        Err(Failure::new(code::NO_CONTENT, what))
    }

    fn has_grown(&self, before: u64) -> bool {
        let path = self.folder.join(format!("{}.part", self.digest));
        std::fs::metadata(path).is_ok_and(|it| it.len() > before)
    }

    /// Reads what is missing from one point.
    fn from(&self, point: &str, part: &mut Part) -> Result<(), Fault> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => {
                    Err(Fault::Here(Failure::new(code::NO_CONTENT, "it is not wanted now")))
                }
                came = self.read(point, part) => came,
            }
        })
    }

    async fn read(&self, point: &str, part: &mut Part) -> Result<(), Fault> {
        let here = |error: std::io::Error| {
            Fault::Here(Failure::new(code::LOCAL, format!("the cache cannot be written: {error}")))
        };
        if part.size() > self.size {
            part.restart().map_err(here)?;
        }
        if part.size() == self.size {
            return Ok(());
        }
        let url = format!("{}/content/blake3:{}", point.trim_end_matches('/'), self.digest);
        let mut request = self.http.get(url);
        if part.size() > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", part.size()));
        }
        let point_fault = |error: reqwest::Error| Fault::Point(crate::exit::with_causes(&error));
        let mut answer = request.send().await.map_err(point_fault)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(header::CONTENT_RANGE);
                let from = range
                    .and_then(|it| it.to_str().ok()?.strip_prefix("bytes ")?.split('-').next());
                if from.and_then(|it| it.parse::<u64>().ok()) != Some(part.size()) {
                    return Err(Fault::Point("it sent another part of the file".into()));
                }
            }
            StatusCode::OK => part.restart().map_err(here)?,
            status => return Err(Fault::Point(format!("it answered {status}"))),
        }
        loop {
            let piece = answer.chunk().await;
            match piece.map_err(|error| Fault::Broken(crate::exit::with_causes(&error)))? {
                None if part.size() == self.size => return Ok(()),
                None => return Err(Fault::Broken("it sent too little".into())),
                Some(bytes) => {
                    if part.size() + bytes.len() as u64 > self.size {
                        part.restart().map_err(here)?;
                        return Err(Fault::Point("it sent more than the file has".into()));
                    }
                    part.write(&bytes).map_err(here)?;
                }
            }
        }
    }
}

/// Brings the document of updates of that digest into the agent's folder.
pub async fn document(site: &Site, home: &Path, digest: &str, size: u64) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(code::NO_CONTENT, what);
    let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_digest || size > MAX_DOCUMENT {
        return Err(failed("the policy names a list of updates that cannot be one".into()));
    }
    let path = format!("api/v1/client/deployed-updates/{digest}");
    let most = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
    let answer = site.ask_for(Method::GET, &path, None, most).await;
    let body = answer.map_err(|trouble: Trouble| failed(trouble.to_string()))?.body;
    if blake3::hash(&body).to_hex().as_str() != digest {
        return Err(failed("the site sent another list of updates than its policy names".into()));
    }
    if let Err(error) = serde_json::from_slice::<DeployedUpdates>(&body) {
        return Err(failed(format!("the list of updates cannot be read: {error}")));
    }
    let path = super::document_path(home, digest);
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(home);
        let mut part = tempfile::NamedTempFile::new_in(folder)?;
        part.write_all(&body)?;
        part.as_file().sync_all()?;
        part.persist(&path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| Failure::new(code::LOCAL, format!("it cannot be kept: {error}")))
}

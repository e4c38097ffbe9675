//! Files of upstreams, brought over HTTP or from a folder, in bounds and to be gone on with.
//!
//! A file is written beside its place under the name with `.part` at its end, checked against what
//! is stated of it, and renamed: what lies under its own name is whole. Where size and digest are
//! known beforehand, a later try goes on with the part. A wait ends when nothing moves for a while,
//! never because the whole took long.

use crate::adapter::Watch;
use crate::digests::{Digests, Hasher};
use crate::error::{Cause, SyncError};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use reqwest::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    RANGE,
};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::fs;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use url::Url;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Bytes that are read of a file at a time.
const PIECE: usize = 256 << 10;
/// Of an error's body so much is told on.
const TOLD: usize = 300;

/// How long to wait for something to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), stall: Duration::from_secs(60) }
    }
}

/// Brings files. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    patience: Patience,
    pace: Option<Pace>,
}

/// How fast bytes may come, all that share it together. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Mutex<Bucket>>);

/// Which bytes may pass when.
#[derive(Debug)]
struct Bucket {
    /// Bytes in a second.
    rate: u64,
    /// When the bytes that were let through are paid for.
    free: Instant,
}

impl Bucket {
    /// When so many bytes, which came at `now`, may go on. Time in which nothing came is not saved up.
    fn turn(&mut self, bytes: u64, now: Instant) -> Instant {
        let turn = self.free.max(now);
        self.free = turn + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        turn
    }
}

impl Pace {
    /// So many bytes in a second; none is one.
    pub fn new(rate: u64) -> Self {
        Self(Arc::new(Mutex::new(Bucket { rate: rate.max(1), free: Instant::now() })))
    }

    /// Waits until the bytes that came before have had their time.
    async fn let_through(&self, bytes: u64) {
        let turn = self.0.lock().turn(bytes, Instant::now());
        tokio::time::sleep_until(turn).await;
    }
}

/// What a server said a file is like, to be asked whether it still is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Validators {
    /// `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`, or for a file of a folder its time and size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// A file to bring.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Where it is: `http`, `https` or `file`.
    pub url: &'a Url,
    /// Where it goes.
    pub to: &'a Path,
    /// At most so many bytes.
    pub most: u64,
    /// Its size, if it is stated.
    pub size: Option<u64>,
    /// What is stated of its bytes; may be nothing.
    pub digests: &'a Digests,
    /// What it was like the last time: if it is so still, nothing is brought.
    pub since: Option<&'a Validators>,
}

/// What came of bringing a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is as it was.
    NotModified,
    /// It is there, checked against what was stated.
    File {
        /// Its bytes.
        size: u64,
        /// What the server said it is like.
        validators: Validators,
    },
    /// It lay there already, as stated.
    Held,
}

impl Fetcher {
    /// One that waits so long.
    ///
    /// # Errors
    /// The system's certificates, or TLS, cannot be used.
    pub fn new(patience: Patience) -> Result<Self, SyncError> {
        // A second caller finds it installed, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let follow = reqwest::redirect::Policy::custom(|attempt| {
            match may_follow(attempt.previous(), attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(why) => attempt.error(why),
            }
        });
        let client = reqwest::Client::builder()
            .user_agent(concat!("depot/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .redirect(follow)
            .build()
            .map_err(|error| {
                SyncError::because(Cause::Local, "no HTTP client can be made", error)
            })?;
        Ok(Self { client, patience, pace: None })
    }

    /// One that shares its connections, and brings files no faster than that.
    pub fn at_pace(&self, pace: Pace) -> Self {
        Self { pace: Some(pace), ..self.clone() }
    }

    /// Brings a file to its place.
    pub async fn file(&self, wanted: Wanted<'_>, watch: &Watch) -> Result<Came, SyncError> {
        if wanted.size.is_some_and(|size| size > wanted.most) {
            return Err(too_large(wanted.url, wanted.most));
        }
        if wanted.digests.strongest().is_some() && is_whole(&wanted).await? {
            return Ok(Came::Held);
        }
        match wanted.url.scheme() {
            "http" | "https" => self.over_http(&wanted, watch).await,
            "file" => self.out_of_folder(&wanted, watch).await,
            other => Err(SyncError::new(
                Cause::Misconfigured,
                format!("{other} is no way to bring {}; want http, https or file", wanted.url),
            )),
        }
    }

    /// A small file, in memory.
    pub async fn bytes(&self, url: &Url, most: u64, watch: &Watch) -> Result<Bytes, SyncError> {
        if url.scheme() == "file" {
            let path = local_path(url)?;
            let file = open(&path, url).await?;
            let mut bytes = Vec::new();
            let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes).await;
            read.map_err(|error| SyncError::local(path.display(), error))?;
            if bytes.len() as u64 > most {
                return Err(too_large(url, most));
            }
            return Ok(bytes.into());
        }
        let response = self.moving(url, self.client.get(url.clone()).send(), watch).await?;
        let response = good(url, sent(url, response)?).await?;
        self.body(url, response, most, watch).await
    }

    /// Posts `body` and gives status and answer, whatever the status; for SOAP, whose faults are
    /// answers.
    pub async fn post(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        content_type: &str,
        body: Bytes,
        most: u64,
        watch: &Watch,
    ) -> Result<(StatusCode, Bytes), SyncError> {
        let kind = HeaderValue::from_str(content_type).map_err(|error| {
            SyncError::because(Cause::Misconfigured, "the content type is no header value", error)
        })?;
        headers.insert(CONTENT_TYPE, kind);
        let request = self.client.post(url.clone()).headers(headers).body(body);
        let response = sent(url, self.moving(url, request.send(), watch).await?)?;
        let status = response.status();
        Ok((status, self.body(url, response, most, watch).await?))
    }

    async fn body(
        &self,
        url: &Url,
        response: Response,
        most: u64,
        watch: &Watch,
    ) -> Result<Bytes, SyncError> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(piece) = self.moving(url, stream.next(), watch).await? {
            let piece = sent(url, piece)?;
            watch.came(piece.len() as u64);
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(too_large(url, most));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    async fn over_http(&self, wanted: &Wanted<'_>, watch: &Watch) -> Result<Came, SyncError> {
        let (url, part) = (wanted.url, part_of(wanted.to));
        // Without a digest nothing proves that the rest belongs to what is there.
        let can_go_on = wanted.digests.strongest().is_some() && wanted.size.is_some();
        let there = match fs::metadata(&part).await {
            Ok(found) if can_go_on && Some(found.len()) < wanted.size => found.len(),
            _ => 0,
        };
        let mut request = self.client.get(url.clone());
        if there > 0 {
            request = request.header(RANGE, format!("bytes={there}-"));
        }
        if let Some(since) = wanted.since {
            if let Some(etag) = &since.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(modified) = &since.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        let response = sent(url, self.moving(url, request.send(), watch).await?)?;
        // Who was not asked whether it is as before cannot say so.
        if response.status() == StatusCode::NOT_MODIFIED && wanted.since.is_some() {
            return Ok(Came::NotModified);
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && there > 0 {
            remove(&part).await?;
            let detail = format!("{url} is shorter now than the part of it that was brought");
            return Err(SyncError::new(Cause::Mismatch, detail));
        }
        let response = good(url, response).await?;
        let goes_on = there > 0 && response.status() == StatusCode::PARTIAL_CONTENT;
        let comes = response.content_length().map(|rest| if goes_on { there + rest } else { rest });
        if let (Some(comes), Some(stated)) = (comes, wanted.size)
            && comes != stated
        {
            let detail = format!("{url} has {comes} bytes, and {stated} were stated");
            return Err(SyncError::new(Cause::Mismatch, detail));
        }
        let validators = validators(response.headers());
        let stream = response.bytes_stream().map(|piece| piece.map_err(io::Error::other));
        let stream = tokio_util::io::StreamReader::new(stream);
        let size = self.write(wanted, &part, goes_on, stream, watch).await?;
        Ok(Came::File { size, validators })
    }

    async fn out_of_folder(&self, wanted: &Wanted<'_>, watch: &Watch) -> Result<Came, SyncError> {
        let path = local_path(wanted.url)?;
        let file = open(&path, wanted.url).await?;
        let found =
            file.metadata().await.map_err(|error| SyncError::local(path.display(), error))?;
        let modified = found.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let modified = modified.map(|time| format!("{time} {}", found.len()));
        let validators = Validators { etag: None, modified };
        if wanted.since.is_some_and(|since| *since == validators && since.modified.is_some()) {
            return Ok(Came::NotModified);
        }
        let size = self.write(wanted, &part_of(wanted.to), false, file, watch).await?;
        Ok(Came::File { size, validators })
    }

    /// Takes what comes into the part, up to its end, or until it is more than was said.
    async fn receive(
        &self,
        wanted: &Wanted<'_>,
        from: &mut (impl AsyncRead + Unpin),
        (file, part): (&mut fs::File, &Path),
        (hasher, size): (&mut Hasher, &mut u64),
        watch: &Watch,
    ) -> Result<(), SyncError> {
        let most = wanted.size.unwrap_or(wanted.most);
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.moving(wanted.url, from.read(&mut piece), watch).await?;
            let n = read.map_err(|error| cut_off(wanted.url, error))?;
            if n == 0 {
                return Ok(());
            }
            if let Some(pace) = &self.pace {
                watch.stop.run_until_cancelled(pace.let_through(n as u64)).await;
            }
            *size += n as u64;
            if *size > most {
                return Ok(());
            }
            hasher.update(&piece[..n]);
            let written = file.write_all(&piece[..n]).await;
            written.map_err(|error| SyncError::local(part.display(), error))?;
            watch.came(n as u64);
            watch.check()?;
        }
    }

    /// Writes the part, checks it and gives it its name.
    async fn write(
        &self,
        wanted: &Wanted<'_>,
        part: &Path,
        goes_on: bool,
        mut from: impl AsyncRead + Unpin,
        watch: &Watch,
    ) -> Result<u64, SyncError> {
        let failed = |error| SyncError::local(part.display(), error);
        let mut hasher = Hasher::proving(wanted.digests);
        let mut size = 0;
        if goes_on {
            size = hash_file(part, &mut hasher).await.map_err(failed)?;
        }
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).write(true).append(goes_on).truncate(!goes_on);
        let mut file = options.open(part).await.map_err(failed)?;
        let came = self
            .receive(wanted, &mut from, (&mut file, part), (&mut hasher, &mut size), watch)
            .await;
        // The file's last bytes may still be on their way to it. Whoever goes on with it asks how long it is, so they
        // are waited for, however it ended.
        let flushed = file.flush().await;
        drop(file);
        came?;
        flushed.map_err(failed)?;
        if size > wanted.size.unwrap_or(wanted.most) {
            remove(part).await?;
            return Err(match wanted.size {
                Some(stated) => SyncError::new(
                    Cause::Mismatch,
                    format!("{} is larger than the {stated} bytes stated", wanted.url),
                ),
                None => too_large(wanted.url, wanted.most),
            });
        }
        if let Some(stated) = wanted.size.filter(|stated| size < *stated) {
            // What came is kept: a later try asks for the rest.
            let detail = format!("{} ended after {size} of {stated} bytes", wanted.url);
            return Err(SyncError::new(Cause::Stalled, detail));
        }
        if let Some((algorithm, stated)) = wanted.digests.strongest() {
            let (_, found) = hasher.finish();
            if found.get(algorithm) != Some(stated) {
                remove(part).await?;
                let detail = format!(
                    "{} is not the file that was stated: want {}:{stated}, found {found}",
                    wanted.url,
                    algorithm.as_str()
                );
                return Err(SyncError::new(Cause::Mismatch, detail));
            }
        }
        fs::rename(part, wanted.to)
            .await
            .map_err(|error| SyncError::local(wanted.to.display(), error))?;
        Ok(size)
    }

    /// What `work` comes to, unless it takes too long or somebody cancels.
    async fn moving<T>(
        &self,
        url: &Url,
        work: impl Future<Output = T>,
        watch: &Watch,
    ) -> Result<T, SyncError> {
        let cancelled = || SyncError::new(Cause::Cancelled, "the sync was cancelled");
        let within = tokio::time::timeout(self.patience.stall, work);
        let ended = watch.stop.run_until_cancelled(within).await.ok_or_else(cancelled)?;
        watch.moved();
        ended.map_err(|_| {
            let detail = format!("nothing came from {url} for {} s", self.patience.stall.as_secs());
            SyncError::new(Cause::Stalled, detail)
        })
    }
}

/// Whether the file lies at its place already, as stated.
async fn is_whole(wanted: &Wanted<'_>) -> Result<bool, SyncError> {
    let Ok(found) = fs::metadata(wanted.to).await else { return Ok(false) };
    if !found.is_file() || wanted.size.is_some_and(|size| size != found.len()) {
        return Ok(false);
    }
    let mut hasher = Hasher::proving(wanted.digests);
    let hashed = hash_file(wanted.to, &mut hasher).await;
    hashed.map_err(|error| SyncError::local(wanted.to.display(), error))?;
    let (_, found) = hasher.finish();
    Ok(wanted.digests.strongest().is_some_and(|(algorithm, hex)| found.get(algorithm) == Some(hex)))
}

/// Puts the bytes of a file into `hasher`; how many there are.
async fn hash_file(path: &Path, hasher: &mut Hasher) -> io::Result<u64> {
    let path = path.to_owned();
    let mut taken = std::mem::replace(hasher, Hasher::new([]));
    let work = move || {
        let mut file = std::fs::File::open(path)?;
        let (mut piece, mut size) = (vec![0; PIECE], 0);
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok::<_, io::Error>((taken, size));
            }
            size += n as u64;
            taken.update(&piece[..n]);
        }
    };
    let (done, size) = tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
    *hasher = done;
    Ok(size)
}

/// Whether a redirect from the last of `previous` to `next` is followed, or why not.
fn may_follow(previous: &[Url], next: &Url) -> Result<(), &'static str> {
    let was_secure = previous.last().is_some_and(|from| from.scheme() == "https");
    match () {
        () if was_secure && next.scheme() == "http" => Err("it redirects from https to http"),
        () if previous.len() > REDIRECTS => Err("it redirects too often"),
        () => Ok(()),
    }
}

fn part_of(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

async fn remove(path: &Path) -> Result<(), SyncError> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SyncError::local(path.display(), error))
        }
        _ => Ok(()),
    }
}

fn local_path(url: &Url) -> Result<PathBuf, SyncError> {
    url.to_file_path().map_err(|()| {
        SyncError::new(Cause::Misconfigured, format!("{url} is no path of this machine"))
    })
}

async fn open(path: &Path, url: &Url) -> Result<fs::File, SyncError> {
    fs::File::open(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            SyncError::because(Cause::NotFound, format!("{url} is not there"), error)
        }
        _ => SyncError::local(path.display(), error),
    })
}

fn validators(headers: &HeaderMap) -> Validators {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Validators { etag: text(ETAG).map(Into::into), modified: text(LAST_MODIFIED).map(Into::into) }
}

fn too_large(url: &Url, most: u64) -> SyncError {
    SyncError::new(Cause::TooLarge, format!("{url} is larger than the {most} bytes that are taken"))
}

fn cut_off(url: &Url, error: io::Error) -> SyncError {
    SyncError::because(Cause::Unreachable, format!("{url} was cut off"), error)
}

/// What the client could send and receive, or why not.
fn sent<T>(url: &Url, result: Result<T, reqwest::Error>) -> Result<T, SyncError> {
    result.map_err(|error| {
        let (cause, what) = match () {
            () if error.is_timeout() => (Cause::Stalled, "did not answer in time"),
            () if error.is_redirect() => (Cause::Refused, "redirects to where it may not"),
            () => (Cause::Unreachable, "cannot be reached"),
        };
        SyncError::because(cause, format!("{url} {what}"), error.without_url())
    })
}

/// The response, if its status says that it is what was asked for.
async fn good(url: &Url, response: Response) -> Result<Response, SyncError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let cause = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Cause::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Cause::Busy,
        status if status.is_server_error() => Cause::Busy,
        _ => Cause::Refused,
    };
    // A line of what it says helps whoever reads it; more would not.
    let first = response.bytes_stream().next().await;
    let said = first.and_then(Result::ok).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..said.len().min(TOLD)]);
    let said = said.lines().next().unwrap_or_default().trim();
    let detail = match said.is_empty() || said.starts_with('<') {
        true => format!("{url} answered {status}"),
        false => format!("{url} answered {status}: {said}"),
    };
    Err(SyncError::new(cause, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_passes_than_the_rate_whoever_comes_when() {
        const PIECE: u64 = 1_000;
        let began = Instant::now();
        let mut bucket = Bucket { rate: 10_000, free: began };
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        let mut come = |bucket: &mut Bucket, at: f64| {
            let turn = bucket.turn(PIECE, began + Duration::from_secs_f64(at));
            passed.push((turn - began, PIECE));
        };
        // Two who share it, as fast as they can; then nobody for ten seconds; then both again.
        (0..100).for_each(|n| come(&mut bucket, f64::from(n) * 0.001));
        (0..50).for_each(|n| come(&mut bucket, 20.0 + f64::from(n) * 0.001));
        let within = |from: u64, to: u64| -> u64 {
            let is_in =
                |at: Duration| at >= Duration::from_secs(from) && at < Duration::from_secs(to);
            passed.iter().filter(|(at, _)| is_in(*at)).map(|(_, bytes)| bytes).sum()
        };
        for second in 0..30 {
            let bytes = within(second, second + 1);
            assert!(bytes <= 10_000 + PIECE, "{bytes} bytes in second {second}");
        }
        assert!(within(0, 10).abs_diff(100_000) <= PIECE, "{}", within(0, 10));
        assert_eq!(within(11, 20), 0);
        assert!(within(20, 25).abs_diff(50_000) <= PIECE, "{}", within(20, 25));
    }

    #[tokio::test]
    async fn a_file_whose_weak_digest_is_right_and_whose_pinned_one_is_not_is_refused() {
        use crate::digests::Algorithm;
        let folder = tempfile::tempdir().unwrap();
        let (there, to) = (folder.path().join("there"), folder.path().join("to"));
        std::fs::write(&there, b"forged").unwrap();
        let mut hasher = Hasher::new([Algorithm::Sha1]);
        hasher.update(b"forged");
        let stated = hasher.finish().1;
        let pinned = stated.clone().with(Algorithm::Sha256, &"a".repeat(64)).unwrap();
        let url = Url::from_file_path(&there).unwrap();
        let wanted =
            |digests| Wanted { url: &url, to: &to, most: 6, size: Some(6), digests, since: None };
        let fetcher = Fetcher::new(Patience::default()).unwrap();
        let refused = fetcher.file(wanted(&pinned), &Watch::default()).await.unwrap_err();
        assert!(
            refused.cause == Cause::Mismatch && refused.to_string().contains("sha256"),
            "{refused}"
        );
        assert!(!to.exists());
        fetcher.file(wanted(&stated), &Watch::default()).await.unwrap();
        assert!(to.exists());
    }

    #[test]
    fn no_redirect_leaves_tls_and_none_goes_round_for_ever() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (secure, plain) = (url("https://a/x"), url("http://b/x"));
        assert!(may_follow(std::slice::from_ref(&secure), &plain).is_err());
        assert!(may_follow(std::slice::from_ref(&secure), &secure).is_ok());
        assert!(may_follow(std::slice::from_ref(&plain), &secure).is_ok());
        assert!(may_follow(&vec![plain.clone(); REDIRECTS], &plain).is_ok());
        assert!(may_follow(&vec![plain.clone(); REDIRECTS + 1], &plain).is_err());
    }
}

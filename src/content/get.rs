//! `depot content get`: a content's bytes, in a file or on stdout.
//!
//! Always true of a file: it appears under its name when all bytes are there and match the digest
//! asked for, or not at all. Stdout cannot be taken back; there a mismatch is exit code 5 after
//! the bytes.

use crate::{
    exit::{Doing, Exit, Failure},
    output::{Out, stdout_result},
    progress::{Progress, Standing},
    transport::{Client, Request, path},
    units,
};
use api::routes::content::ContentView;
use clap::Args;
use contentlib::Name;
use futures::StreamExt;
use http::{HeaderValue, Method, header};
use sha2::Digest as _;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Write a content's bytes to a file or to stdout, verified
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot content get blake3:… -o setup.cab
  depot content get blake3:… | tar -t
  depot content get blake3:… --range 100-199 | xxd

A file appears under its name only when all its bytes are there and match the digest.")]
pub struct GetArgs {
    /// blake3:HEX, or an alias sha256:HEX or sha1:HEX that the library knows
    digest: Name,
    /// Write to this file; stdout if left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these bytes: FIRST-LAST, FIRST- or -COUNT, as in an HTTP Range
    #[arg(long, value_name = "RANGE", value_parser = parse_range, allow_hyphen_values = true)]
    range: Option<Range>,
}

/// Bytes of a content, as HTTP counts them: the last one is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    From(u64),
    FromTo(u64, u64),
    Last(u64),
}

/// Writes the bytes.
pub async fn run(args: GetArgs, client: &Client, out: Out) -> Result<(), Failure> {
    match &args.output {
        None => {
            let mut stdout = io::stdout().lock();
            // JSON of bytes makes no sense: what was asked for are the bytes.
            copy(&args, client, Out { quiet: true, ..out }, &mut stdout).await?;
            stdout_result(stdout.flush())
        }
        Some(file) => {
            let folder = match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let mut part = tempfile::Builder::new()
                .prefix(".depot-get-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(folder)
                .doing(|| format!("cannot write to {}", folder.display()))?;
            let n = tokio::select! {
                n = copy(&args, client, out, part.as_file_mut()) => n?,
                // Not left to the system, which would leave the part there.
                _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
            };
            part.as_file().sync_all()?;
            part.persist(file).doing(|| format!("cannot write {}", file.display()))?;
            let done =
                serde_json::json!({ "digest": args.digest.to_string(), "file": file, "bytes": n });
            out.show(&done, |w| {
                let what = if args.range.is_some() { "written" } else { "written, verified" };
                writeln!(w, "{}: {} {what}", file.display(), units::bytes(n))
            })
        }
    }
}

/// Copies the bytes asked for to `to`, and returns how many there were.
async fn copy(
    args: &GetArgs,
    client: &Client,
    out: Out,
    to: &mut impl Write,
) -> Result<u64, Failure> {
    let mut hash = args.range.is_none().then(|| Hash::like(&args.digest));
    let mut n = 0;
    match client {
        Client::InProcess(site) => {
            let content = site.site().content().map_err(|p| crate::transport::failure_of(&p))?;
            let unknown =
                || Failure::new(Exit::NotFound, format!("there is no content {}", args.digest));
            let digest = content.library.resolve(&args.digest)?.ok_or_else(unknown)?;
            let reader = content.library.open_content(digest).map_err(read_failure)?;
            let range = in_bytes(args.range, reader.size())?;
            let mut at = range.start;
            while at < range.end {
                let most = (range.end - at).min(1 << 20) as usize;
                let piece = reader.segment(at, most).map_err(read_failure)?.bytes;
                take(&piece, to, hash.as_mut())?;
                at += piece.len() as u64;
                n += piece.len() as u64;
                // Nothing here waits, and a Ctrl-C is to be heard.
                tokio::task::yield_now().await;
            }
        }
        Client::Remote(_) => {
            // The content plane serves bytes; the API only tells about them.
            let mut request = Request::at(Method::GET, format!("/content/{}", args.digest));
            if let Some(range) = args.range {
                request.headers.insert(header::RANGE, range.header());
            }
            let mut reply = match client.send(request).await {
                Ok(reply) => reply,
                Err(failure) => return Err(told_apart(failure, args, client).await),
            };
            let total = reply
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            let mut progress = Progress::new(out);
            while let Some(piece) = reply.body.next().await {
                let piece = piece?;
                take(&piece, to, hash.as_mut())?;
                n += piece.len() as u64;
                progress.set(&Standing { bytes: n, total_bytes: total, ..Standing::default() });
            }
        }
    }
    match hash.map(Hash::finish) {
        Some(found) if found != args.digest => Err(Failure::new(
            Exit::Damaged,
            format!("the bytes that came are {found}, not {}", args.digest),
        )),
        _ => Ok(n),
    }
}

/// A refusal of the content plane does not say whether the content is damaged, the range is wrong
/// or the server is only busy; the API tells what is needed to know.
async fn told_apart(mut failure: Failure, args: &GetArgs, client: &Client) -> Failure {
    if failure.exit != Exit::Failed {
        return failure;
    }
    let address = path(&["content", &args.digest.to_string()]);
    let Ok(view) = client.get::<ContentView>(&address).await else { return failure };
    match in_bytes(args.range, view.size) {
        Err(wrong) => wrong,
        Ok(_) => {
            if view.suspect {
                failure.exit = Exit::Damaged;
            }
            failure
        }
    }
}

fn take(piece: &[u8], to: &mut impl Write, hash: Option<&mut Hash>) -> Result<(), Failure> {
    if let Some(hash) = hash {
        hash.update(piece);
    }
    stdout_result(to.write_all(piece))
}

fn read_failure(error: contentlib::ReadError) -> Failure {
    crate::transport::failure_of(&error.into())
}

fn parse_range(text: &str) -> Result<Range, String> {
    let wrong = || "want FIRST-LAST, FIRST- or -COUNT, in bytes".to_owned();
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| wrong()),
    };
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    match (number(first)?, number(last)?) {
        (Some(first), None) => Ok(Range::From(first)),
        (Some(first), Some(last)) if first <= last => Ok(Range::FromTo(first, last)),
        (None, Some(count)) if count > 0 => Ok(Range::Last(count)),
        _ => Err(wrong()),
    }
}

impl Range {
    fn header(self) -> HeaderValue {
        let text = match self {
            Range::From(first) => format!("bytes={first}-"),
            Range::FromTo(first, last) => format!("bytes={first}-{last}"),
            Range::Last(count) => format!("bytes=-{count}"),
        };
        HeaderValue::try_from(text).expect("digits and dashes")
    }
}

/// The range as half-open offsets in a content of `size` bytes, by the rules of RFC 9110,
/// section 14.1.2.
fn in_bytes(range: Option<Range>, size: u64) -> Result<std::ops::Range<u64>, Failure> {
    let (first, past) = match range {
        None => return Ok(0..size),
        Some(Range::From(first)) => (first, size),
        Some(Range::FromTo(first, last)) => (first, size.min(last.saturating_add(1))),
        Some(Range::Last(count)) => (size.saturating_sub(count), size),
    };
    if first >= size {
        return Err(Failure::usage(format!("the range begins past the end: the size is {size}")));
    }
    Ok(first..past)
}

/// The hash that a name is made with.
enum Hash {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
}

impl Hash {
    fn like(name: &Name) -> Self {
        match name {
            Name::Blake3(_) => Self::Blake3(Box::default()),
            Name::Sha256(_) => Self::Sha256(sha2::Sha256::new()),
            Name::Sha1(_) => Self::Sha1(sha1::Sha1::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hash) => drop(hash.update(bytes)),
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Name {
        match self {
            Self::Blake3(hash) => {
                Name::Blake3(contentlib::Digest::from_bytes(hash.finalize().into()))
            }
            Self::Sha256(hash) => Name::Sha256(hash.finalize().into()),
            Self::Sha1(hash) => Name::Sha1(hash.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        for (text, want) in [("0-", 0..10), ("2-4", 2..5), ("2-99", 2..10), ("-3", 7..10)] {
            let range = parse_range(text).expect(text);
            assert_eq!(in_bytes(Some(range), 10).expect(text), want);
        }
        assert!(in_bytes(Some(Range::From(10)), 10).is_err());
        for bad in ["", "-", "5", "4-2", "-0", "a-b", "1-2-3"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_are_named_as_they_were_asked_for() {
        for name in [
            "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ] {
            let name: Name = name.parse().expect(name);
            assert_eq!(Hash::like(&name).finish(), name);
        }
    }
}

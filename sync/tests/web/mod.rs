//! A web server of a folder that counts what it is asked, and breaks where a test wants it to.
//!
//! HTTP/1.1 with connections kept, answers in order (clients pipeline), conditions and ranges.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    pub range: Option<String>,
    pub since: Option<String>,
    pub tag: Option<String>,
}

/// What to answer in place of the file.
#[allow(dead_code, reason = "each test file uses some of them")]
pub enum Answer {
    /// A status, with a word.
    Status(u16, &'static str),
    /// A redirect.
    To(String),
    /// These bytes.
    Bytes(Vec<u8>),
    /// The first so many bytes, and then the connection ends.
    Cut(usize),
    /// The first so many bytes, and then nothing.
    Stall(usize),
    /// The file, of which nothing is said by which one could ask again.
    Bare,
}

type Hook = Arc<dyn Fn(&Asked) -> Option<Answer> + Send + Sync>;

struct Shared {
    folder: PathBuf,
    asked: Mutex<Vec<Asked>>,
    hook: Mutex<Option<Hook>>,
    is_over: AtomicBool,
}

/// The server; it ends with the test.
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[allow(dead_code, reason = "each test file uses some of them")]
impl Web {
    /// Serves `folder`.
    pub fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            asked: Mutex::default(),
            hook: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let held = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if held.is_over.load(Relaxed) {
                    return;
                }
                let shared = held.clone();
                let stream = stream.unwrap();
                // A client may go away at any time.
                std::thread::spawn(move || drop(serve(&shared, stream)));
            }
        });
        Self { address, shared }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// From now on `hook` answers first.
    pub fn on(&self, hook: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// From now on all is answered as it is.
    pub fn off(&self) {
        *self.shared.hook.lock().unwrap() = None;
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// The paths of it.
    pub fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let mut asked = Asked { path, ..Asked::default() };
        loop {
            let mut line = String::new();
            from.by_ref().take(64 << 10).read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            let value = Some(value.trim().to_owned());
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = value,
                "if-modified-since" => asked.since = value,
                "if-none-match" => asked.tag = value,
                _ => {}
            }
        }
        shared.asked.lock().unwrap().push(asked.clone());
        let hook = shared.hook.lock().unwrap().clone();
        let answer = hook.and_then(|hook| hook(&asked));
        if !respond(shared, &asked, answer, &mut to)? {
            return Ok(());
        }
    }
}

/// Answers; whether the connection goes on.
fn respond(
    shared: &Shared,
    asked: &Asked,
    answer: Option<Answer>,
    to: &mut TcpStream,
) -> std::io::Result<bool> {
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n").into_bytes()
    };
    let path = shared.folder.join(decoded(&asked.path));
    let file = fs::read(&path).ok();
    let (bytes, is_bare) = match answer {
        Some(Answer::Status(status, word)) => {
            to.write_all(&head(&format!("{status} x"), word.len(), ""))?;
            to.write_all(word.as_bytes())?;
            return Ok(true);
        }
        Some(Answer::To(url)) => {
            to.write_all(&head("302 Found", 0, &format!("Location: {url}\r\n")))?;
            return Ok(true);
        }
        Some(Answer::Bytes(bytes)) => (Some(bytes), false),
        Some(Answer::Cut(at)) => {
            let bytes = file.unwrap_or_default();
            to.write_all(&head("200 OK", bytes.len(), ""))?;
            to.write_all(&bytes[..at])?;
            return Ok(false);
        }
        Some(Answer::Stall(at)) => {
            let bytes = file.unwrap_or_default();
            to.write_all(&head("200 OK", bytes.len(), ""))?;
            to.write_all(&bytes[..at])?;
            while !shared.is_over.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(false);
        }
        Some(Answer::Bare) => (file, true),
        None => (file, false),
    };
    let Some(bytes) = bytes else {
        to.write_all(&head("404 Not Found", 0, ""))?;
        return Ok(true);
    };
    let tag = format!(
        "\"{:x}\"",
        bytes.iter().fold(7_u64, |sum, b| { sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*b) })
    );
    let modified = fs::metadata(&path).and_then(|found| found.modified()).ok();
    let modified = modified.map(|time| {
        let time = jiff::Timestamp::try_from(time).unwrap();
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap()
    });
    let is_as_before = match &asked.tag {
        Some(known) => *known == tag,
        None => asked.since.is_some() && asked.since == modified,
    };
    let validators = match (is_bare, modified) {
        (false, Some(modified)) => format!("ETag: {tag}\r\nLast-Modified: {modified}\r\n"),
        _ => String::new(),
    };
    if !is_bare && is_as_before {
        to.write_all(format!("HTTP/1.1 304 Not Modified\r\n{validators}\r\n").as_bytes())?;
        return Ok(true);
    }
    let start = asked.range.as_deref().and_then(|range| range.strip_prefix("bytes="));
    let start = start.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start) if start < bytes.len() => {
            let (last, all) = (bytes.len() - 1, bytes.len());
            let range = format!("Content-Range: bytes {start}-{last}/{all}\r\n{validators}");
            to.write_all(&head("206 Partial Content", all - start, &range))?;
            to.write_all(&bytes[start..])?;
        }
        Some(_) => to.write_all(&head("416 Range Not Satisfiable", 0, ""))?,
        None => {
            to.write_all(&head("200 OK", bytes.len(), &validators))?;
            to.write_all(&bytes)?;
        }
    }
    Ok(true)
}

fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap();
        text.push(char::from(byte));
        text.push_str(&part[2..]);
    }
    text
}

//! A plain web server of a folder, that counts what it is asked.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// A web server; it ends with the test.
pub struct Web {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// One that serves `folder`, with modification times and an answer for who has a file already.
    pub fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (folder, paths) = (folder.to_owned(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (folder, paths) = (folder.clone(), Arc::clone(&paths));
                std::thread::spawn(move || serve(stream, &folder, &paths));
            }
        });
        Self { url, asked }
    }

    /// The paths that were asked for since this was last called.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn serve(stream: TcpStream, folder: &Path, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let path = head.first()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        asked.lock().unwrap().push(path.clone());
        let file: PathBuf = folder.join(&path);
        let Some(bytes) = fs::read(&file).ok().filter(|_| !path.contains("..")) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        let changed = fs::metadata(&file).ok()?.modified().ok()?;
        let nanos = changed.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
        let tag = format!("\"{nanos:x}-{:x}\"", bytes.len());
        let has = head
            .iter()
            .any(|line| line.to_lowercase().starts_with("if-none-match:") && line.contains(&tag));
        if has {
            write!(stream, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n").ok()?;
            continue;
        }
        let range = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let value = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
            name.eq_ignore_ascii_case("range").then(|| value.parse::<usize>().ok())?
        });
        let from = range.filter(|from| *from < bytes.len()).unwrap_or(0);
        let (status, length) =
            (if from > 0 { "206 Partial Content" } else { "200 OK" }, bytes.len());
        let range = format!("Content-Range: bytes {from}-{}/{length}\r\n", length.max(1) - 1);
        let range = if from > 0 { range } else { String::new() };
        let length = length - from;
        let head = format!("ETag: {tag}\r\n{range}Content-Length: {length}\r\n\r\n");
        write!(stream, "HTTP/1.1 {status}\r\n{head}").ok()?;
        stream.write_all(&bytes[from..]).ok()?;
    }
}

//! A folder over HTTP, which counts what it is asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// A server; it ends with the runtime.
pub struct Served {
    /// Its address.
    pub url: Url,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Served {
    /// Serves `folder` on a port of loopback that nobody uses.
    pub async fn folder(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (folder, log) = (folder.to_owned(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, folder.clone(), log.clone()));
            }
        });
        Self { url, asked }
    }

    /// What was asked for since the last time: status and path.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers one request; the connection ends with it.
async fn answer(
    mut stream: TcpStream,
    folder: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let plain = path.trim_start_matches('/').replace("%2B", "+").replace("%5E", "^");
    let (status, tag, body) = match std::fs::read(folder.join(plain)) {
        Err(_) => ("404 Not Found", String::new(), Vec::new()),
        Ok(body) => {
            let tag = format!(
                "\"{:x}\"",
                body.iter().fold(body.len() as u64, |sum, b| {
                    sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*b)
                })
            );
            match header("If-None-Match") {
                Some(known) if known == tag => ("304 Not Modified", tag, Vec::new()),
                _ => ("200 OK", tag, body),
            }
        }
    };
    log.lock().unwrap().push(format!("{} {path}", &status[..3]));
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

//! A resource of a stated size, brought into a file: what may be too large for memory.

use super::attempt::{Attempt, Failed};
use super::client::accepted;
use super::{Client, RemoteError};
use reqwest::StatusCode;
use reqwest::header::RANGE;
use std::path::Path;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

impl Client {
    /// Brings what is at `path`, of `size` bytes, into the file `to`. What lies there is taken to be its
    /// beginning, and gone on with. The bytes are not checked.
    pub(crate) async fn save(&self, path: &str, size: u64, to: &Path) -> Result<(), RemoteError> {
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).write(true).open(to).await;
        let mut file = opened.map_err(RemoteError::io(to))?;
        let mut attempt = Attempt::new(self.servers.clone());
        let there = file.metadata().await.map_err(RemoteError::io(to))?.len();
        if there > size {
            file.set_len(0).await.map_err(RemoteError::io(to))?;
        }
        let mut furthest = there;
        while let Some(turn) = attempt.turn(|_| true).await {
            let failed = match self.go_on(turn.at, path, size, &mut file, to).await {
                Ok(()) => {
                    attempt.progressed(&turn);
                    return file.flush().await.map_err(RemoteError::io(to));
                }
                Err(failed) => failed,
            };
            let now = fs::metadata(to).await.map_err(RemoteError::io(to))?.len();
            if now > furthest {
                furthest = now;
                attempt.progressed(&turn);
            }
            attempt.failed(turn, failed)?;
        }
        Err(attempt.gave_up(|_| unreachable!("all are out")))
    }

    /// Asks one server for what is missing at the end of `file`.
    async fn go_on(
        &self,
        at: usize,
        path: &str,
        size: u64,
        file: &mut File,
        to: &Path,
    ) -> Result<(), Failed> {
        let failed = |error| Failed::Final(RemoteError::io(to)(error));
        let mut there = file.seek(std::io::SeekFrom::End(0)).await.map_err(failed)?;
        if there == size {
            return Ok(());
        }
        let asks = self.servers.list[at].asks(path);
        let mut request = asks.http.get(asks.url.clone());
        if there > 0 {
            request = request.header(RANGE, format!("bytes={there}-"));
        }
        let turns = self.may_ask().await;
        let mut response = match accepted(&asks.shown, request.send().await).await {
            Ok(response) => response,
            // Somebody waits who can ask again: what a server says now is what there is to say.
            Err(Failed::Passing(error @ RemoteError::Refused { .. }, _)) => {
                return Err(Failed::Refused(error));
            }
            Err(failed) => return Err(failed),
        };
        if there > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0).await.map_err(failed)?;
            there = file.seek(std::io::SeekFrom::Start(0)).await.map_err(failed)?;
        }
        while let Some(bytes) = self.read(&asks.shown, &mut response, turns.as_ref()).await? {
            there += bytes.len() as u64;
            if there > size {
                file.set_len(0).await.map_err(failed)?;
                let (url, wanted) = (asks.shown, "a file of the size that is stated");
                return Err(Failed::Wrong(RemoteError::Malformed { url, wanted }));
            }
            file.write_all(&bytes).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        if there < size {
            let (url, wanted) = (asks.shown, "all of the file");
            return Err(Failed::Garbled(RemoteError::Malformed { url, wanted }));
        }
        Ok(())
    }
}

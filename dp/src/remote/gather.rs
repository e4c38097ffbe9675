//! Many chunks of several servers: each is asked for what it may have, until all came or nobody is
//! left who may have more.

use super::RemoteError;
use super::attempt::{Attempt, Failed, Turn};
use super::client::{Client, Server, accepted};
use super::sources::{Outlook, Set};
use crate::frames::IDS_TYPE;
use crate::pace::Answer;
use contentlib::frames::{FrameDecoder, FrameItem, MEDIA_TYPE};
use contentlib::{ChunkId, Frame};
use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use std::collections::HashMap;
use std::time::Duration;

/// Whoever takes what comes.
pub(crate) trait Take: Send {
    /// Takes a block. Answers which chunks are in it; what is not what its name says it leaves out.
    fn take(
        &mut self,
        frame: Frame,
    ) -> impl Future<Output = Result<Vec<ChunkId>, RemoteError>> + Send;
}

/// Pauses before a server that is waited for is asked again: the first, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// What is left to get of some chunks.
struct Hunt {
    /// Chunks that have not come, and who lacks each.
    left: HashMap<ChunkId, Set>,
    /// Servers that answered in full, and with something else.
    doubtful: Set,
    /// Servers that lack some, and are waited for.
    awaited: Set,
    /// Servers that were waited for, and asked once more when what came to them had ended.
    asked_again: Set,
}

impl Hunt {
    /// Whether it is of use to ask a server for a chunk: it may have it, and nobody is waited for who
    /// comes before it.
    fn asks(&self, server: usize, lacked: Set, servers: &[Server]) -> bool {
        let rank = |at: usize| servers[at].rank();
        let is_awaited = |at| lacked.has(at) && rank(at) < rank(server);
        !lacked.has(server) && !self.awaited.iter().any(is_awaited)
    }

    /// Asks it again for all that it lacked.
    fn forget(&mut self, at: usize) {
        self.left.values_mut().for_each(|lacked| lacked.remove(at));
    }

    /// To a server that lacks some, nothing comes any more: what came last may have come since it was
    /// asked.
    fn ask_once_more(&mut self, at: usize) {
        if !self.asked_again.has(at) {
            self.asked_again.add(at);
            self.forget(at);
        }
    }
}

/// What a request came to, beside the chunks.
enum Ended {
    Well,
    /// It was answered in full, but this chunk and perhaps others came as something else.
    Wrong(ChunkId),
}

impl Client {
    /// Gets chunks, at most 4096, and hands blocks to `taker` as they come. What came is never asked for
    /// again. Answers which chunks no server holds.
    pub(crate) async fn gather(
        &self,
        ids: impl IntoIterator<Item = ChunkId>,
        taker: &mut impl Take,
    ) -> Result<Vec<ChunkId>, RemoteError> {
        let left = ids.into_iter().map(|id| (id, Set::default())).collect();
        let mut hunt = Hunt {
            left,
            doubtful: Set::default(),
            awaited: Set::default(),
            asked_again: Set::default(),
        };
        let mut pause = FIRST_LOOK;
        let mut attempt = Attempt::new(self.servers.clone());
        while !hunt.left.is_empty() {
            let (servers, asked) = (&self.servers.list, &hunt);
            let may = |at| asked.left.values().any(|lacked| asked.asks(at, *lacked, servers));
            let Some(turn) = attempt.turn(may).await else {
                if hunt.awaited.is_empty() {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_LOOK);
                self.look_again(&mut hunt).await;
                continue;
            };
            let n_left = hunt.left.len();
            match self.ask(&mut hunt, &mut attempt, &turn, taker).await? {
                Ok(Ended::Well) => {
                    if hunt.left.len() < n_left {
                        pause = FIRST_LOOK;
                    }
                    let lacks = hunt.left.values().any(|lacked| lacked.has(turn.at));
                    match if lacks { self.outlook(turn.at).await } else { Outlook::Nothing } {
                        Outlook::Comes => hunt.awaited.add(turn.at),
                        Outlook::Ended => hunt.ask_once_more(turn.at),
                        Outlook::Nothing => {}
                    }
                }
                Ok(Ended::Wrong(first)) => {
                    // The first time, what came may have shared a block with a damaged chunk. Others
                    // do not have to be asked twice.
                    if attempt.has_others(&turn) || hunt.doubtful.has(turn.at) {
                        let url = self.servers.list[turn.at].shown().to_owned();
                        let wrong = RemoteError::WrongBytes { url, digest: first.0 };
                        attempt.failed(turn, Failed::Wrong(wrong))?;
                    } else {
                        hunt.doubtful.add(turn.at);
                    }
                }
                Err(failed) => attempt.failed(turn, failed)?,
            }
        }
        let lacking: Vec<ChunkId> = hunt.left.into_keys().collect();
        match lacking.iter().min() {
            Some(first) if !attempt.out().is_empty() => {
                let (n, first) = (lacking.len(), first.0);
                Err(attempt.gave_up(|_| RemoteError::Incomplete { n, first }))
            }
            _ => Ok(lacking),
        }
    }

    /// Has those asked again that are waited for.
    async fn look_again(&self, hunt: &mut Hunt) {
        for at in std::mem::take(&mut hunt.awaited).iter() {
            match self.outlook(at).await {
                Outlook::Comes => hunt.forget(at),
                Outlook::Ended => hunt.ask_once_more(at),
                Outlook::Nothing => {}
            }
        }
    }

    /// Asks one server once for what is left and it may have. The outer error is the taker's.
    async fn ask(
        &self,
        hunt: &mut Hunt,
        attempt: &mut Attempt,
        turn: &Turn,
        taker: &mut impl Take,
    ) -> Result<Result<Ended, Failed>, RemoteError> {
        let asks = |lacked| hunt.asks(turn.at, lacked, &self.servers.list);
        let wanted = hunt.left.iter().filter(|(_, lacked)| asks(**lacked));
        let ids: Vec<ChunkId> = wanted.map(|(id, _)| *id).collect();
        let mut frames = match self.frames(turn.at, &ids).await {
            Ok(frames) => frames,
            Err(failed) => return Ok(Err(failed)),
        };
        loop {
            let item = match frames.next(self).await {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(failed) => return Ok(Err(failed)),
            };
            let mut is_news = false;
            match item {
                FrameItem::Missing(id) => {
                    if let Some(lacked) = hunt.left.get_mut(&id).filter(|l| !l.has(turn.at)) {
                        lacked.add(turn.at);
                        is_news = true;
                    }
                }
                FrameItem::Block(frame) => {
                    for id in taker.take(frame).await? {
                        is_news |= hunt.left.remove(&id).is_some();
                    }
                }
                FrameItem::End => {}
            }
            if is_news {
                attempt.progressed(turn);
            }
        }
        let is_wrong = |id: &&ChunkId| hunt.left.get(id).is_some_and(|l| !l.has(turn.at));
        Ok(Ok(ids.iter().filter(is_wrong).min().map_or(Ended::Well, |id| Ended::Wrong(*id))))
    }

    async fn frames(&self, server: usize, ids: &[ChunkId]) -> Result<Frames, Failed> {
        let asks = self.servers.list[server].asks("chunks");
        let body: Vec<u8> = ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
        let request = asks.http.post(asks.url).header(CONTENT_TYPE, IDS_TYPE);
        let request = request.header(ACCEPT, MEDIA_TYPE).body(body);
        let turns = self.may_ask().await;
        let response = accepted(&asks.shown, request.send().await).await?;
        Ok(Frames::new(asks.shown, response, turns, ids.len()))
    }
}

/// An answer with chunks.
pub(super) struct Frames {
    url: String,
    response: Response,
    turns: Option<Answer>,
    decoder: FrameDecoder,
    items_left: usize,
    /// Why there is no more, once what came before that is handed out.
    failed: Option<Failed>,
}

impl Frames {
    /// The answer to a request for `n` chunks.
    pub fn new(url: String, response: Response, turns: Option<Answer>, n: usize) -> Self {
        // Each item is of at least one chunk, and each chunk comes once; then there is an end.
        let decoder = FrameDecoder::default();
        Self { url, response, turns, decoder, items_left: n + 1, failed: None }
    }

    /// The next item. Only an answer that came whole has an end mark, and then there is no more. Of a
    /// block that was cut off the whole chunks are handed out before the error.
    pub async fn next(&mut self, client: &Client) -> Result<Option<FrameItem>, Failed> {
        let malformed = |wanted| RemoteError::Malformed { url: self.url.clone(), wanted };
        loop {
            if let Some(failed) = self.failed.take() {
                return Err(failed);
            }
            match self.decoder.next_item() {
                Err(_) => return Err(Failed::Garbled(malformed("frames"))),
                Ok(Some(_)) if self.items_left == 0 => {
                    return Err(Failed::Wrong(malformed("each chunk once")));
                }
                Ok(Some(item)) => {
                    self.items_left -= 1;
                    return Ok(Some(item));
                }
                Ok(None) => {}
            }
            match client.read(&self.url, &mut self.response, self.turns.as_ref()).await {
                Ok(Some(bytes)) => {
                    self.decoder.push(&bytes);
                    continue;
                }
                Ok(None) if self.decoder.is_complete() => return Ok(None),
                Ok(None) => {
                    let error = malformed("frames to their end");
                    self.failed = Some(Failed::Passing(error, None));
                }
                Err(failed) => self.failed = Some(failed),
            }
            if let Some(frame) = self.decoder.beginning() {
                return Ok(Some(FrameItem::Block(frame)));
            }
        }
    }
}

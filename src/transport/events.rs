//! Server-sent events (WHATWG HTML, section 9.2), as far as the site sends them.
//!
//! Always true: an event is handed on when its empty line has come, whole or not at all; what it
//! holds is bounded, whatever the other end sends.

use super::Reply;
use crate::exit::Failure;
use futures::StreamExt;

/// No event of ours is near this.
const MAX_EVENT: usize = 4 << 20;

/// The events of one answer.
pub struct Events {
    reply: Reply,
    lines: Lines,
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its kind; empty if the sender gave none.
    pub kind: String,
    /// Its text.
    pub data: String,
}

impl Events {
    /// Reads the events of `reply`.
    pub fn of(reply: Reply) -> Self {
        Self { reply, lines: Lines::default() }
    }

    /// The next event; `None` when the other end has said everything.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.lines.event() {
                return Ok(Some(event));
            }
            match self.reply.body.next().await {
                Some(bytes) => self.lines.push(&bytes?)?,
                None => return Ok(None),
            }
        }
    }
}

/// Bytes on their way to becoming events.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    event: Event,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.bytes.len() + self.event.data.len() + bytes.len() > MAX_EVENT {
            return Err(Failure::failed("the server's answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn event(&mut self) -> Option<Event> {
        let mut taken = 0;
        let mut done = None;
        while let Some(end) = self.bytes[taken..].iter().position(|&b| b == b'\n') {
            let line = self.bytes[taken..taken + end].strip_suffix(b"\r");
            let line = line.unwrap_or(&self.bytes[taken..taken + end]);
            taken += end + 1;
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                // An empty line after a comment alone ends nothing.
                if event != Event::default() {
                    done = Some(event);
                    break;
                }
                continue;
            }
            let text = String::from_utf8_lossy(line);
            let (name, value) = text.split_once(':').unwrap_or((&text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut self.event.kind),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                // Comments (an empty name) keep the connection alive; ids are of no use here.
                _ => {}
            }
        }
        self.bytes.drain(..taken);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_their_bytes_arrive() {
        let text = b": hello\n\nevent: job\ndata: {\"a\":\r\ndata:1}\n\ndata: end\n\ndata: cut";
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for byte in text.chunks(1) {
            lines.push(byte).expect("short");
            events.extend(lines.event());
        }
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        assert_eq!(events, [event("job", "{\"a\":\n1}"), event("", "end")]);
    }
}

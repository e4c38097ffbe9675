//! What the running agent does for commands on its machine: `DIR/control.sock`.
//!
//! A command connects, sends one line of JSON ([`Ask`]), and gets one line back: `{"ok": …}`, or `{"error": …}` with why,
//! and the exit code that the command ends with. The socket has mode 0600 from the moment that others can see it, and who
//! connects is asked of the system as well. Lines, connections and waits are bounded.

use crate::exit::{Exit, Failure};
use client::scan::Trigger;
use dp::node::ShortPath;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The socket's name in the agent's folder.
pub const SOCKET: &str = "control.sock";
/// Connections at a time.
const CONNECTIONS: usize = 8;
/// The longest question, in bytes.
const MAX_ASK: u64 = 64 << 10;
/// The longest answer that a command reads, in bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// How long a command may take to send its line.
const LINE: Duration = Duration::from_secs(10);

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How things stand.
    Status,
    /// The policy, asked for now.
    Policy,
    /// A scan that is started so; answered when it has come to its end.
    Scan {
        /// How.
        trigger: Trigger,
        /// Whether deployments are evaluated again by it, so that what failed may be tried anew.
        #[serde(default)]
        evaluates: bool,
    },
    /// What waits to be told to the site, told now.
    Report,
    /// What is deployed, and how far it is.
    Deployments,
    /// A deployment installed now, as the user wants it.
    Install {
        /// Its id or name; all that are available, if none is named.
        #[serde(default)]
        deployment: Option<String>,
    },
    /// The restart that is announced, put off.
    Snooze {
        /// For so many seconds.
        seconds: u64,
    },
    /// Why an update is in its state.
    Explain {
        /// Its id, name, or the name of an article.
        update: String,
    },
}

/// What a command is answered: the result, or how it ends.
pub type Answered = Result<Value, Failure>;

/// A question, and where its answer goes.
pub type Asked = (Ask, oneshot::Sender<Answered>);

/// An answer, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(Value),
    Error { why: String, exit: u8 },
}

/// The socket of an agent.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in the agent's folder.
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let (path, part) = (folder.join(SOCKET), folder.join("control.part"));
        let _ = std::fs::remove_file(&part);
        let listener = UnixListener::bind(ShortPath::to(&part)?.path())?;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600))?;
        // What a killed agent left is replaced.
        std::fs::rename(&part, &path)?;
        Ok(Self { listener, path })
    }

    /// Hands on what is asked, until the other end is gone.
    pub async fn serve(self, to: mpsc::Sender<Asked>) {
        let own = rustix::process::geteuid().as_raw();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = to.closed() => break,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let is_own = stream.peer_cred().is_ok_and(|it| it.uid() == own || it.uid() == 0);
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            if !is_own {
                tracing::warn!("somebody else's connection to the control socket is refused");
                continue;
            }
            let to = to.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, to).await {
                    tracing::debug!(%error, "a command went away before its answer came");
                }
                drop(place);
            });
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, to: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(reader.take(MAX_ASK));
    tokio::time::timeout(LINE, reader.read_until(b'\n', &mut line)).await??;
    let said = match serde_json::from_slice::<Ask>(&line) {
        Err(error) => {
            Err(Failure::failed(format!("the agent does not understand the question: {error}")))
        }
        Ok(ask) => {
            let (tell, told) = oneshot::channel();
            let stopping = || Failure::failed("the agent is stopping");
            match to.send((ask, tell)).await {
                Ok(()) => told.await.unwrap_or_else(|_| Err(stopping())),
                Err(_) => Err(stopping()),
            }
        }
    };
    let answer = match said {
        Ok(value) => Answer::Ok(value),
        Err(failure) => Answer::Error { why: failure.message, exit: failure.exit as u8 },
    };
    writer.write_all(&[&serde_json::to_vec(&answer)?[..], b"\n"].concat()).await?;
    writer.shutdown().await
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// No agent runs there.
    #[error("no agent runs in {}: start it with `depot agent run --data DIR`", .0.display())]
    NotRunning(PathBuf),
    /// It belongs to somebody else.
    #[error("cannot reach the agent in {}: run this as the user that it runs as", .0.display())]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("the agent's answer did not come")]
    Broken(#[from] io::Error),
    /// What came is no answer.
    #[error("the agent answered with something else: is one of the two older?")]
    Malformed(#[from] serde_json::Error),
    /// It says that it could not.
    #[error("{why}")]
    Said {
        /// Why.
        why: String,
        /// How the command ends.
        exit: Exit,
    },
}

/// Asks the agent that runs in a folder.
pub fn ask(folder: &Path, ask: &Ask) -> Result<Value, NoAnswer> {
    let unreachable = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => NoAnswer::NotAllowed(folder.into()),
        _ => NoAnswer::NotRunning(folder.into()),
    };
    let path = ShortPath::to(&folder.join(SOCKET)).map_err(unreachable)?;
    let mut stream = std::os::unix::net::UnixStream::connect(path.path()).map_err(unreachable)?;
    stream.write_all(&[&serde_json::to_vec(ask)?[..], b"\n"].concat())?;
    let mut line = String::new();
    BufReader::new(io::Read::take(&stream, MAX_ANSWER)).read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Answer::Ok(value) => Ok(value),
        Answer::Error { why, exit } => Err(NoAnswer::Said { why, exit: Exit::numbered(exit) }),
    }
}

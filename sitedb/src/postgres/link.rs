//! The way to the database: pooled connections, and how long to try where it does not answer.
//!
//! A database that restarts or fails over is away for seconds, and nobody above should see it: work
//! that did not happen is tried again, with pauses that grow and differ, until [`PATIENCE`] ends.
//! Once the database has been away for that long every further call tries once and says so, so that
//! a server whose database is gone answers quickly that it is.
//!
//! Always true: a connection on which something went wrong is closed, never used again.

use super::address::PostgresUrl;
use super::tls::Tls;
use crate::{DbError, with_causes};
use deadpool_postgres::{
    Client, Hook, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use parking_lot::Mutex;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// How long the database may be away before callers are told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long one step (a statement, the next rows of its answer, a connection) may bring nothing.
pub(super) const STALL: Duration = Duration::from_secs(20);
/// Connections for reads. Each read uses one for its time.
const READERS: usize = 8;
/// The pause after the first failure; it doubles up to the longest one.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What each new connection is told, where the server knows it:
/// * a commit is on disk when it is acknowledged, also if the server's default is otherwise;
/// * a transaction whose client is gone without a word lets go of its locks;
/// * that a table is there already is no news.
const GREETING: [&str; 3] = [
    "select set_config('synchronous_commit', 'on', false) \
     where current_setting('synchronous_commit') = 'off'",
    "set idle_in_transaction_session_timeout = '20s'",
    "set client_min_messages = 'warning'",
];

/// Connections to one database.
pub(super) struct Link {
    readers: Pool,
    writer: Pool,
    /// Since when it does not answer.
    away_since: Mutex<Option<Instant>>,
}

/// Who asks for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Reading,
    /// There is one writer, which has one connection of its own.
    Writing,
}

/// Why a try failed.
pub(super) enum Fault {
    /// The database answered, and may answer otherwise next time.
    Again(DbError),
    /// It is away, and may come back.
    Away(DbError),
    /// It will not.
    Lasting(DbError),
}

impl Fault {
    /// For who does not try again.
    pub fn into_error(self) -> DbError {
        match self {
            Self::Again(error) | Self::Away(error) | Self::Lasting(error) => error,
        }
    }
}

impl Link {
    /// Prepares to connect; nothing is asked of the network yet.
    pub fn new(url: &PostgresUrl) -> Result<Self, DbError> {
        let store =
            |error: &dyn Error| DbError::Store { doing: "opened", detail: with_causes(error) };
        let tls = Tls::new(url.encryption()).map_err(|error| store(&error))?;
        let pool = |size| {
            let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            let greet = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
                Box::pin(async move {
                    for words in GREETING {
                        // Another server of the same language may not know them.
                        let _ = client.batch_execute(words).await;
                    }
                    Ok(())
                })
            });
            Pool::builder(Manager::from_config(url.config(), tls.clone(), how))
                .max_size(size)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(STALL))
                .create_timeout(Some(STALL))
                .recycle_timeout(Some(STALL))
                .post_create(greet)
                .build()
        };
        Ok(Self {
            readers: pool(READERS).map_err(|error| store(&error))?,
            writer: pool(1).map_err(|error| store(&error))?,
            away_since: Mutex::default(),
        })
    }

    /// A connection.
    pub async fn client(&self, who: For, doing: &'static str) -> Result<Client, Fault> {
        let pool = match who {
            For::Reading => &self.readers,
            For::Writing => &self.writer,
        };
        pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => fault(doing, &error),
            other => Fault::Away(DbError::Store { doing, detail: with_causes(&other) }),
        })
    }

    /// Time to try in.
    pub fn patience(&self, doing: &'static str) -> Patience<'_> {
        let (now, away) = (Instant::now(), *self.away_since.lock());
        let until = away.map_or(now, |since| since.max(now - PATIENCE)) + PATIENCE;
        Patience { link: self, doing, until, pause: PAUSE }
    }

    #[cfg(test)]
    pub fn is_away_since(&self, since: Instant) {
        *self.away_since.lock() = Some(since);
    }

    /// It answered.
    pub fn is_well(&self) {
        *self.away_since.lock() = None;
    }
}

/// What is left of the time in which something is tried.
pub(super) struct Patience<'a> {
    link: &'a Link,
    doing: &'static str,
    until: Instant,
    pause: Duration,
}

impl Patience<'_> {
    /// Waits a moment after `fault`; says so if it lasts, or if the time is over.
    pub async fn after(&mut self, fault: Fault) -> Result<(), DbError> {
        let now = Instant::now();
        let error = match fault {
            Fault::Again(error) => error,
            Fault::Away(error) => {
                let mut away = self.link.away_since.lock();
                if away.is_none() {
                    tracing::warn!(%error, "the site database is away; waiting for it");
                    *away = Some(now);
                }
                error
            }
            Fault::Lasting(error) => return Err(error),
        };
        if now >= self.until {
            return Err(error);
        }
        tracing::debug!(%error, doing = self.doing, "the site database is tried again");
        // Between half of it and all: who failed together does not come back together.
        tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// The result of a step on `client`. After an error, or when nothing comes for [`STALL`], the caller
/// must let go of the connection by [`discard`].
pub(super) async fn step<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(STALL, work).await {
        Ok(done) => done.map_err(|error| fault(doing, &error)),
        Err(_) => {
            let detail = format!("the database server was silent for {} s", STALL.as_secs());
            Err(Fault::Away(DbError::Store { doing, detail }))
        }
    }
}

/// Closes a connection on which something went wrong.
pub(super) fn discard(client: Client) {
    drop(deadpool_postgres::Object::take(client));
}

/// What an error means. The classes are those of PostgreSQL's documentation, appendix A.
pub(super) fn fault(doing: &'static str, error: &tokio_postgres::Error) -> Fault {
    let store = || DbError::Store { doing, detail: with_causes(error) };
    let Some(code) = error.code() else {
        let mut cause = error.source();
        while let Some(found) = cause {
            if let Some(io) = found.downcast_ref::<io::Error>() {
                let said = io.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
                return match said {
                    Some(rustls::Error::InvalidCertificate(_)) => Fault::Lasting(store()),
                    _ => Fault::Away(store()),
                };
            }
            cause = found.source();
        }
        return if error.is_closed() { Fault::Away(store()) } else { Fault::Lasting(store()) };
    };
    if *code == SqlState::DISK_FULL {
        return Fault::Lasting(DbError::ServerFull { doing });
    }
    let again = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        // An earlier statement of the transaction failed, and says why.
        SqlState::IN_FAILED_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // Another session migrates the tables: prepared statements are made anew.
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::FEATURE_NOT_SUPPORTED,
    ];
    let away = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        // A server that became a standby.
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    if again.contains(code) {
        Fault::Again(store())
    } else if away.contains(code) || code.code().starts_with("08") {
        // Class 08: the connection.
        Fault::Away(store())
    } else {
        Fault::Lasting(store())
    }
}

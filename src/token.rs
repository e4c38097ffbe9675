//! `depot token …`: who may speak to the site.

use crate::{
    exit::{Doing, Failure},
    output::{Out, table},
    transport::{Client, Request, path},
    units,
};
use api::{
    auth::{self, TokenInfo},
    routes::access::{CreatedToken, NewToken},
};
use clap::{Subcommand, ValueEnum};
use http::Method;
use jiff::Timestamp;
use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Commands on tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; its text is shown this once, or written to a file
    #[command(after_help = "\
Examples:
  depot token create ci --role operator --output ci.token
  depot token create monitor --expires 90d

Only a hash of the token is kept: who loses it makes another.")]
    Create {
        /// What it is for; no two tokens have one name
        name: String,
        /// What it allows
        #[arg(long, value_enum, default_value = "reader")]
        role: Role,
        /// It ends after this time, for example 90d; else never
        #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
        expires: Option<Duration>,
        /// Write it to this new file, readable by its owner alone, instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List tokens, without their text
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot token list
  depot token list --json | jq -r '.[] | select(.role == \"admin\") | .name'"
    )]
    List,
    /// End a token at once
    #[command(after_help = "\
Examples:
  depot token revoke ci")]
    Revoke {
        /// Its name or id
        token: String,
    },
}

/// What a token allows; each includes the one before.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// See packages, content, jobs, updates, and clients with what they report
    Reader,
    /// Make and change packages and distribute them; approve, block and remove clients; make collections
    Operator,
    /// Manage tokens, distribution points and the library, revoke content, read the audit log; let machines join as
    /// clients, and set what clients do
    Admin,
}

impl From<Role> for auth::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Reader => Self::Reader,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// Runs a command on tokens.
pub async fn run(command: TokenCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, role, expires, output } => {
            let new = NewToken { name, role: role.into(), expires: end_of(expires)? };
            let make = client.post::<CreatedToken>("/tokens", &new);
            let created = made(make, output.as_deref(), |it| (&it.info.id, &it.token)).await?;
            let Some(path) = output else {
                return out.show(&created, |w| writeln!(w, "{}", created.token));
            };
            out.show(&created.info, |w| {
                let TokenInfo { name, role, .. } = &created.info;
                writeln!(w, "token {name}, role {}, written to {}", role.name(), path.display())
            })
        }
        TokenCommand::List => {
            let tokens: Vec<TokenInfo> = client.list("/tokens", &[], usize::MAX).await?;
            let rows = tokens.iter().map(|token| {
                [
                    token.id.clone(),
                    token.name.clone(),
                    token.role.name().to_owned(),
                    units::when(token.created),
                    token.expires.map_or_else(|| "never".to_owned(), units::when),
                    token.created_by.clone(),
                ]
            });
            let columns = ["id", "name", "role", "created", "expires", "by"];
            out.show(&tokens, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        TokenCommand::Revoke { token } => {
            let address = path(&["tokens", &token]);
            let ended: TokenInfo = client.ask(Request::new(Method::DELETE, &address)).await?;
            out.show(&ended, |w| writeln!(w, "token {} ({}) is revoked", ended.name, ended.id))
        }
    }
}

/// When a token ends that is good for so long from now; nothing if that is not told.
pub fn end_of(good_for: Option<Duration>) -> Result<Option<Timestamp>, Failure> {
    let too_far = |_| Failure::usage("--expires is too far away");
    good_for.map(|time| Timestamp::now().checked_add(time).map_err(too_far)).transpose()
}

/// Makes a token by `make`. Its text goes into the new file `output`, if one is told; `id_and_text` are what
/// it is called and its text.
pub async fn made<T>(
    make: impl Future<Output = Result<T, Failure>>,
    output: Option<&Path>,
    id_and_text: impl Fn(&T) -> (&str, &str),
) -> Result<T, Failure> {
    let Some(path) = output else { return make.await };
    // Before the token is made: its text cannot be had again if it cannot be written.
    let mut file = new_secret_file(path)?;
    let made = make.await.inspect_err(|_| drop(std::fs::remove_file(path)))?;
    let (id, text) = id_and_text(&made);
    writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .doing(|| format!("token {id} was made, but not written"))?;
    Ok(made)
}

/// A new file that only its owner may read.
fn new_secret_file(path: &Path) -> Result<std::fs::File, Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
        return Err(Failure::failed(format!(
            "{} is there already, and a token is written over no file: name another one, or remove it",
            path.display()
        )));
    }
    opened.doing(|| format!("cannot make {}", path.display()))
}

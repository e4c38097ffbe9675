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
    io::Write,
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
    /// See packages, content and jobs
    Reader,
    /// Make and change packages, and distribute them
    Operator,
    /// Manage tokens, distribution points and the library, revoke content, read the audit log
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
            let too_far =
                |_| Failure::usage("--expires is too far away; a token without it never ends");
            let expires = expires.map(|time| Timestamp::now().checked_add(time).map_err(too_far));
            let expires = expires.transpose()?;
            // Before the token is made: its text cannot be had again if it cannot be written.
            let file = output.as_deref().map(new_secret_file).transpose()?;
            let new = NewToken { name, role: role.into(), expires };
            let created: Result<CreatedToken, Failure> = client.post("/tokens", &new).await;
            let (Some(mut file), Some(path)) = (file, output) else {
                let created = created?;
                return out.show(&created, |w| writeln!(w, "{}", created.token));
            };
            let created = created.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            writeln!(file, "{}", created.token)
                .and_then(|()| file.sync_all())
                .doing(|| format!("token {} was made, but not written", created.info.id))?;
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

/// A new file that only its owner may read.
pub fn new_secret_file(path: &Path) -> Result<std::fs::File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .doing(|| format!("cannot make {}", path.display()))
}

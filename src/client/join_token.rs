//! `depot client join-token …`: letting machines in, many with one token.

use crate::{
    exit::Failure,
    output::{Out, table},
    token,
    transport::{Client, Request, path},
    units,
};
use api::{
    config::SiteUrl,
    routes::fleet::{ClientTokenView, CreatedClientToken, NewClientTokenView},
};
use clap::{Args, Subcommand};
use http::Method;
use std::{path::PathBuf, time::Duration};

/// Commands on the join tokens of clients.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a token; its text is shown this once, or written to a file
    Create(CreateArgs),
    /// List tokens, without their text
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot client join-token list"
    )]
    List,
    /// End a token at once; clients that joined with it stay
    #[command(after_help = "\
Examples:
  depot client join-token revoke office-image")]
    Revoke {
        /// Its name, if no other has it, or its id
        token: String,
    },
}

/// How a token is made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot client join-token create --name pc-17
  depot client join-token create --name office-image --uses 500 --expires 90d --output office.token
  depot client join-token create --name kiosks --uses 40 --pending

It tells a machine where the site is and how to know it, and lets it in by `depot agent install --join
TOKEN`. Whoever has it can make machines clients: hand it on as you would a password. With --pending
each of them waits until an administrator says yes: depot client approve NAME")]
pub struct CreateArgs {
    /// What the token will be called
    #[arg(long)]
    name: String,
    /// How many machines may come in with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u64,
    /// Each of them waits for approval
    #[arg(long)]
    pending: bool,
    /// It ends after this time, for example 90d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    expires: Option<Duration>,
    /// Where clients reach this site: https://HOST:PORT; may be given several times, the best first
    /// [default: the setting site.url, else where the site listens]
    #[arg(long, value_name = "URL")]
    site_url: Vec<SiteUrl>,
    /// Write it to this new file, readable by its owner alone, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs a command on the join tokens of clients.
pub async fn run(command: JoinTokenCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        JoinTokenCommand::Create(args) => create(args, client, out).await,
        JoinTokenCommand::List => list(client, out).await,
        JoinTokenCommand::Revoke { token } => {
            let at = path(&["client-tokens", &token]);
            let ended: ClientTokenView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&ended, |w| {
                writeln!(w, "the join token {} ({}) is revoked", ended.name, ended.id)
            })
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let CreateArgs { name, uses, pending, expires, site_url, output } = args;
    let (uses, expires) = (Some(uses), token::end_of(expires)?);
    let new = NewClientTokenView { name, uses, pending, expires, sites: site_url };
    let make = client.post::<CreatedClientToken>("/client-tokens", &new);
    let created = token::made(make, output.as_deref(), |it| (&it.info.id, &it.token)).await?;
    let Some(path) = output else {
        return out.show(&created, |w| writeln!(w, "{}", created.token));
    };
    out.show(&created.info, |w| {
        let ClientTokenView { name, uses, expires, .. } = &created.info;
        let machines = units::counted(*uses, "machine", "machines");
        let (until, path) = (units::when(*expires), path.display());
        writeln!(w, "join token {name} for {machines}, good until {until}, written to {path}")
    })
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let tokens: Vec<ClientTokenView> = client.list("/client-tokens", &[], usize::MAX).await?;
    let rows = tokens.iter().map(|token| {
        [
            token.id.clone(),
            token.name.clone(),
            units::count(token.used),
            units::count(token.uses),
            if token.pending { "by hand" } else { "at once" }.to_owned(),
            units::when(token.expires),
            token.created_by.clone(),
            token.sites.join(" "),
        ]
    });
    let columns = ["id", "name", ">used", ">of", "approved", "expires", "by", "site"];
    out.show(&tokens, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

//! `depot dp join-token …`: letting machines in.

use crate::{
    exit::Failure,
    output::{Out, table},
    token,
    transport::{Client, Request, path},
    units,
};
use api::{
    config::SiteUrl,
    routes::points::{CreatedJoinToken, JoinTokenView, NewJoinToken},
};
use clap::Subcommand;
use http::Method;
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Commands on join tokens.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a token; its text is shown this once, or written to a file
    #[command(after_help = "\
Examples:
  depot dp join-token create --name branch-7
  depot dp join-token create --name branch-7 --site-url https://site.example:8520 --expires 2h
  depot dp join-token create --name branch-7 --output branch-7.token

The token lets one machine become a distribution point, once, by `depot dp serve --join TOKEN`. It
tells that machine where the site is and how to know it; hand it on as you would a password.")]
    Create {
        /// What the distribution point will be called
        #[arg(long)]
        name: String,
        /// It ends after this time, for example 2h [default: 24h]
        #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
        expires: Option<Duration>,
        /// Where the machine reaches this site: https://HOST:PORT; may be given several times, the
        /// best first [default: the setting site.url, else where the site listens]
        #[arg(long, value_name = "URL")]
        site_url: Vec<SiteUrl>,
        /// Write it to this new file, readable by its owner alone, instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List tokens, without their text
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot dp join-token list"
    )]
    List,
    /// End a token at once; whoever joined with it stays
    #[command(after_help = "\
Examples:
  depot dp join-token revoke branch-7")]
    Revoke {
        /// The name it is for, or its id
        token: String,
    },
}

/// Runs a command on join tokens.
pub async fn run(command: JoinTokenCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        JoinTokenCommand::Create { name, expires, site_url, output } => {
            create(NewToken { name, kind: None, expires, site_url, output }, client, out).await
        }
        JoinTokenCommand::List => list(|token| token.kind.is_none(), client, out).await,
        JoinTokenCommand::Revoke { token } => revoke(&token, client, out).await,
    }
}

/// A token to be made, and where its text goes.
pub struct NewToken {
    /// What the machine will be called.
    pub name: String,
    /// What it becomes, if not a distribution point.
    pub kind: Option<String>,
    /// After which time it ends.
    pub expires: Option<Duration>,
    /// Where the machine reaches this site.
    pub site_url: Vec<SiteUrl>,
    /// The file that it goes into, if not stdout.
    pub output: Option<PathBuf>,
}

/// Makes a token.
pub async fn create(new: NewToken, client: &Client, out: Out) -> Result<(), Failure> {
    let NewToken { name, kind, expires, site_url, output } = new;
    let new = NewJoinToken { name, kind, expires: token::end_of(expires)?, sites: site_url };
    let make = client.post::<CreatedJoinToken>("/point-tokens", &new);
    let created = token::made(make, output.as_deref(), |it| (&it.info.id, &it.token)).await?;
    let Some(path) = output else {
        if created.info.sites.iter().all(|site| is_this_machine(site)) {
            out.note(
                "the token tells machines to reach the site at an address that only this \
                 machine reaches: see --site-url",
            );
        }
        return out.show(&created, |w| writeln!(w, "{}", created.token));
    };
    out.show(&created.info, |w| {
        let JoinTokenView { name, expires, .. } = &created.info;
        let (until, path) = (units::when(*expires), path.display());
        writeln!(w, "join token for {name}, good until {until}, written to {path}")
    })
}

/// Lists the tokens that are of interest.
pub async fn list(
    is_wanted: impl Fn(&JoinTokenView) -> bool,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let mut tokens: Vec<JoinTokenView> = client.list("/point-tokens", &[], usize::MAX).await?;
    tokens.retain(is_wanted);
    let rows = tokens.iter().map(|token| {
        let state = if token.used_by.is_some() { "used" } else { "open" };
        [
            token.id.clone(),
            token.name.clone(),
            token.kind.clone().unwrap_or_else(|| "point".into()),
            state.to_owned(),
            units::when(token.expires),
            token.created_by.clone(),
            token.sites.join(" "),
        ]
    });
    let columns = ["id", "name", "kind", "state", "expires", "by", "site"];
    out.show(&tokens, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// Ends the token of that id, or the one for a point of that name.
pub async fn revoke(token: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["point-tokens", token]);
    let ended: JoinTokenView = client.ask(Request::new(Method::DELETE, &address)).await?;
    out.show(&ended, |w| writeln!(w, "the join token for {} ({}) is revoked", ended.name, ended.id))
}

/// Whether an address leads every machine to itself.
fn is_this_machine(site: &str) -> bool {
    let host = site.trim_start_matches("https://").rsplit_once(':').map_or(site, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_known() {
        for here in ["https://127.0.0.1:1", "https://[::1]:1", "https://localhost:1"] {
            assert!(is_this_machine(here), "{here}");
        }
        for elsewhere in ["https://192.0.2.7:1", "https://[2001:db8::1]:1", "https://site:1"] {
            assert!(!is_this_machine(elsewhere), "{elsewhere}");
        }
    }
}

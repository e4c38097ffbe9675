//! `depot sup …`: the update points of a site besides the one that it has by itself.

use crate::{
    exit::Failure,
    output::Out,
    site::{FollowersCommand, TokenArgs, followers},
    transport::Client,
};
use api::routes::hierarchy::NewPointSource;
use clap::Subcommand;

const LIST: &str = "\
Examples:
  depot sup list
  depot sup list --json | jq -r '.[] | select(.online | not) | .name'";
const SHOW: &str = "\
Examples:
  depot sup show sup-2";
const REMOVE: &str = "\
Examples:
  depot sup remove sup-2
  depot sup remove sup-2 --yes

It is refused at once. What it has stays there; to follow again, it joins with a new token.";

/// Commands on update points.
#[derive(Debug, Subcommand)]
#[command(
    mut_subcommand("list", |it| it.after_help(LIST)),
    mut_subcommand("show", |it| it.after_help(SHOW)),
    mut_subcommand("remove", |it| it.after_help(REMOVE))
)]
pub enum SupCommand {
    /// Let a machine become an update point: makes its join token
    #[command(after_help = "\
Examples:
  depot sup add sup-2
  depot sup add sup-2 --output sup-2.token

On the other machine: depot serve --sup --parent https://SITE:8520 --join TOKEN. It follows the catalogue of this
site from then on: after each sync the update points follow one at a time.")]
    Add {
        /// What it will be called
        name: String,
        /// How long the token is good, and where its text goes.
        #[command(flatten)]
        how: TokenArgs,
    },
    /// List, show, remove.
    #[command(flatten)]
    Followers(FollowersCommand),
    /// Have the other update points read from this one from now on
    #[command(after_help = "\
Examples:
  depot sup replace-source sup-2       # sup-2 reads from the site, the others from sup-2
  depot sup replace-source site        # all read from the site itself, as at first

For when the one that they read from has failed. They follow at once, one at a time, the named one first.")]
    ReplaceSource {
        /// Its name or id; `site` for the one that the site has by itself
        name: String,
    },
}

/// Runs a command on update points.
pub async fn run(command: SupCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        SupCommand::Add { name, how } => how.create(name, "update-point".into(), client, out).await,
        SupCommand::Followers(command) => followers(command, "update-point", client, out).await,
        SupCommand::ReplaceSource { name } => {
            let new = NewPointSource { name };
            let set: NewPointSource = client.put("/update-point-source", &new).await?;
            out.show(&set, |w| writeln!(w, "the update points read from {} from now on", set.name))
        }
    }
}

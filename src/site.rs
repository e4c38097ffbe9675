//! `depot site …`: what a site is known by.

use crate::{
    exit::Failure,
    output::{Out, confirm},
    transport::Client,
};
use api::routes::server::SigningKey;
use clap::Subcommand;

/// Commands on the site itself.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Make a new signing key, where the site's own is lost for good
    #[command(after_help = "\
Examples:
  depot --data ./depot-data site new-key

A site whose keys/site.ed25519 is gone opens nothing until it is put back from a backup, or
replaced by this. Clients that trust the lost key refuse new versions until they are told of the
new one: `depot fetch --key`. Needs --data: no server may have the folder open.")]
    NewKey {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs a command on the site.
pub async fn run(command: SiteCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        SiteCommand::NewKey { yes } => {
            confirm("this makes a signing key that no client trusts yet", yes)?;
            let made: SigningKey = client.post("/key", &serde_json::json!({})).await?;
            out.show(&made, |w| {
                writeln!(w, "the site signs with key {} from now on", made.key)?;
                writeln!(w, "tell clients: depot fetch URL -o FOLDER --key {}", made.key)
            })
        }
    }
}

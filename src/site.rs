//! `depot site …`: what a site is known by.

use crate::{
    exit::Failure,
    output::{Out, confirm},
    transport::Client,
};
use api::routes::server::{AuthorityView, OpenpgpKeyView, SigningKey};
use clap::Subcommand;

/// Commands on the site itself.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Print the certificate of the site's authority, for clients that come by HTTPS
    #[command(after_help = "\
Examples:
  depot site authority > site.pem
  depot --ca site.pem fetch https://depot.example:8520/packages/docs/latest -o ./out

It vouches for the site and its distribution points. With --ca a client believes them by any address,
and nobody else.")]
    Authority,
    /// Print the OpenPGP key that signs the repositories the site makes, for `apt` and `dnf`
    #[command(after_help = "\
Examples:
  depot site openpgp-key > /etc/apt/keyrings/depot.asc
  depot site openpgp-key --json | jq -r .fingerprint

Repositories that are mirrored whole are signed by their own upstream; this key signs those of which
only some packages were chosen. It is made when it is first needed.")]
    OpenpgpKey,
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
        SiteCommand::Authority => {
            let authority: AuthorityView = client.get("/authority").await?;
            out.show(&authority, |w| w.write_all(authority.certificate.as_bytes()))
        }
        SiteCommand::OpenpgpKey => {
            let key: OpenpgpKeyView = client.get("/openpgp-key").await?;
            out.show(&key, |w| w.write_all(key.public.as_bytes()))
        }
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

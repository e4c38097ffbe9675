//! `depot client fallback …`: what machines say that cannot say it as clients.

use crate::{
    exit::Failure,
    output::{Out, table},
    transport::Client,
    units,
};
use api::routes::fleet::FallbackView;
use clap::Subcommand;

/// Commands on what machines say without being clients.
#[derive(Debug, Subcommand)]
pub enum FallbackCommand {
    /// List the last word of each, the newest first
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot client fallback list
  depot client fallback list --limit 1000 --json | jq -r '.[] | select(.stage == \"join\") | .name'

Nothing proves who said it. A machine is no longer listed once it was heard as a client."
    )]
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
}

/// Runs a command on what machines say without being clients.
pub async fn run(command: FallbackCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let FallbackCommand::List { limit } = command;
    let words: Vec<FallbackView> = client.list("/client-fallback", &[], limit).await?;
    let rows = words.iter().map(|word| {
        let stage = serde_json::to_value(word.stage).unwrap_or_default();
        [
            word.name.clone(),
            word.id.clone(),
            if word.known { "yes" } else { "no" }.to_owned(),
            stage.as_str().unwrap_or_default().to_owned(),
            word.code.clone(),
            units::when(word.received),
            word.from.clone().unwrap_or_default(),
            word.text.clone(),
        ]
    });
    let columns = ["name", "id", "known", "cannot", "code", "told", "from", "why"];
    out.show(&words, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

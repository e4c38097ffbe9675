//! `depot client settings …`: what is set for all clients of a site.

use crate::{
    exit::Failure,
    output::{Out, facts},
    transport::Client,
};
use api::routes::hierarchy::ClientSettingsView;
use clap::Subcommand;

/// Commands on the settings of clients.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Show what is set
    #[command(after_help = "\
Examples:
  depot client settings show")]
    Show,
    /// Set it; what is not given stays as it is
    #[command(after_help = "\
Examples:
  depot client settings set --updates-enabled false

Clients of a site where updates are not enabled are told of no update point, so they do not scan. In a
tree of sites this is set at the top, for all.")]
    Set {
        /// Whether clients scan for updates
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        updates_enabled: Option<bool>,
    },
}

/// Runs a command on the settings of clients.
pub async fn run(command: SettingsCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let mut settings: ClientSettingsView = client.get("/client-settings").await?;
    if let SettingsCommand::Set { updates_enabled } = command {
        settings.updates.enabled = updates_enabled.unwrap_or(settings.updates.enabled);
        settings = client.put("/client-settings", &settings).await?;
    }
    let mut rows = vec![("updates.enabled", settings.updates.enabled.to_string())];
    rows.extend(settings.top.clone().map(|top| ("set at", top)));
    out.show(&settings, |w| w.write_all(facts(&rows).as_bytes()))
}

//! `depot status-messages …`: what administrators are told, by number.

use crate::{
    exit::Failure,
    output::{Out, table},
    transport::Client,
    units,
};
use api::routes::status_messages::MessageView;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::time::Duration;

/// Commands on status messages.
#[derive(Debug, Subcommand)]
pub enum StatusMessagesCommand {
    /// List status messages, the newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

/// List status messages, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot status-messages list --id 6703 --within 7d
  depot status-messages list --severity warning --source debian-security
  depot status-messages list --id 6702 --limit 1 --json

The numbers below 7000 mean what they mean in Configuration Manager: 6701 a sync started, 6702 it is
done, 6703 it failed, 6704 it asks the upstream, 6705 it writes the database, 6707 an update point is
behind, 6708 licence terms are pending. Those from 9000 are depot's own: 9001 cancelled, 9002 cut off and
begins again, 9003 tried again later, 9004 entries passed over, 9005 a child site was not told, 9006
updates expired or purged by the policy, or expired by narrower criteria, 9010 a rule was run, 9011 updates
of one wait for files, 9012 a run failed, 9013 a rule's next deployment opened, 9014 its rings are halted.")]
pub struct ListArgs {
    /// Only those of this number
    #[arg(long, value_name = "ID")]
    id: Option<u32>,
    /// Only those that matter so much at least: informational, warning, error
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
    /// Only those about this source of updates
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only those of the last so long, as 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    within: Option<Duration>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Runs a command on status messages.
pub async fn run(command: StatusMessagesCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let StatusMessagesCommand::List(args) = command;
    let id = args.id.map(|id| id.to_string());
    let too_far = |_| Failure::usage("--within is too long ago");
    let since = args.within.map(|time| Timestamp::now().checked_sub(time).map_err(too_far));
    let since = since.transpose()?.map(|since| since.to_string());
    let query = [
        ("id", id.as_deref()),
        ("severity", args.severity.as_deref()),
        ("source", args.source.as_deref()),
        ("since", since.as_deref()),
    ];
    let messages: Vec<MessageView> = client.list("/status-messages", &query, args.limit).await?;
    let rows = messages.iter().map(|message| {
        [
            units::when(message.at),
            message.id.to_string(),
            message.severity.clone(),
            message.component.clone(),
            message.source.clone().unwrap_or_default(),
            message.text.clone(),
        ]
    });
    let columns = ["at", ">id", "severity", "component", "source", "text"];
    out.show(&messages, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

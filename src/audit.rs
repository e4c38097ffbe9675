//! `depot audit`: who did what.

use crate::{
    exit::Failure,
    output::{Out, table},
    transport::Client,
    units,
};
use api::audit::AuditRecord;
use clap::Args;

/// Who did what
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot audit
  depot audit --limit 500 --json | jq -c '.[] | select(.action == \"delete_package\")'")]
pub struct AuditArgs {
    /// At most this many, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Prints the newest records.
pub async fn run(args: &AuditArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let records: Vec<AuditRecord> = client.list("/audit", &[], args.limit).await?;
    let rows = records.iter().map(|record| {
        [
            units::when(record.at),
            record.who.clone(),
            record.from.map(|from| from.to_string()).unwrap_or_default(),
            record.action.clone(),
            record.target.clone(),
            record.status.to_string(),
            record.detail.clone().unwrap_or_default(),
        ]
    });
    let columns = ["at", "who", "from", "action", "target", ">status", "detail"];
    out.show(&records, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

//! `depot sync schedule …`: when sources are synchronised by themselves.

use super::source::changed;
use crate::{
    exit::Failure,
    output::{Out, table},
    transport::Client,
    units,
};
use ::sync::schedule::Schedule;
use api::routes::sync::{ChangeSource, ScheduleView, SyncSourceView};
use clap::{Args, Subcommand};

/// The word that has a source follow the site's schedule.
const AS_THE_SITE: &str = "site";

/// Commands on schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Show the site's schedule, and those of sources that have their own
    #[command(after_help = "\
Examples:
  depot sync schedule show")]
    Show,
    /// Set when all sources are synchronised, or one
    Set(SetArgs),
}

/// Set when all sources are synchronised, or one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync schedule set \"every day 03:00 Europe/Berlin\"
  depot sync schedule set \"every monday and thursday 02:30 Europe/Paris\"
  depot sync schedule set \"second tuesday 19:00 UTC\"
  depot sync schedule set \"every 4 hours\" --source debian-security
  depot sync schedule set site --source debian-security      # as the site's again
  depot sync schedule set never

Also \"last friday 22:00 UTC\", \"day 31 23:00 UTC\" (the last day of shorter months), \"every 15 minutes\".
Times are those that a clock on the wall shows there, all year; without a zone, of UTC. A time that
passed while no server ran is made good for when one does.")]
pub struct SetArgs {
    /// When
    #[arg(value_name = "WHEN")]
    when: String,
    /// Of this source alone
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// Runs a command on schedules.
pub async fn run(command: ScheduleCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        ScheduleCommand::Show => show(client, out).await,
        ScheduleCommand::Set(SetArgs { when, source: Some(name) }) => {
            let own = if when == AS_THE_SITE { String::new() } else { when };
            let change = ChangeSource { schedule: Some(own), ..ChangeSource::default() };
            let source = changed(&name, &change, client).await?;
            let schedule = source.schedule.as_deref().unwrap_or("as the site's schedule says");
            let at = source.next.as_ref().map(|next| format!(", next at {}", units::when(next.at)));
            let at = at.unwrap_or_default();
            out.show(&source, |w| writeln!(w, "{name} is synchronised {schedule}{at}"))
        }
        ScheduleCommand::Set(SetArgs { when, source: None }) => {
            // As it is written it is known to be one before anything is asked.
            let schedule = when.parse::<Schedule>();
            let schedule = schedule.map_err(|error| Failure::usage(error.to_string()))?;
            let set = ScheduleView { schedule: schedule.to_string(), next: None };
            let set: ScheduleView = client.put("/sync/schedule", &set).await?;
            out.show(&set, |w| writeln!(w, "sources are synchronised {}", told(&set)))
        }
    }
}

fn told(site: &ScheduleView) -> String {
    let next = site.next.map(|next| format!(", next at {}", units::when(next)));
    format!("{}{}", site.schedule, next.unwrap_or_default())
}

async fn show(client: &Client, out: Out) -> Result<(), Failure> {
    let site: ScheduleView = client.get("/sync/schedule").await?;
    let sources: Vec<SyncSourceView> = client.list("/sync/sources", &[], usize::MAX).await?;
    let rows: Vec<_> = sources
        .iter()
        .filter_map(|source| {
            let next = source.next.as_ref().map(|next| units::when(next.at));
            Some([source.name.clone(), source.schedule.clone()?, next.unwrap_or_default()])
        })
        .collect();
    let own: std::collections::BTreeMap<_, _> =
        sources.iter().filter_map(|s| Some((&s.name, s.schedule.as_ref()?))).collect();
    let json = serde_json::json!({ "schedule": site.schedule, "next": site.next, "sources": own });
    out.show(&json, |w| {
        writeln!(w, "{}", told(&site))?;
        match rows.is_empty() {
            true => Ok(()),
            false => write!(w, "\n{}", table(["source", "schedule", "next"], rows)),
        }
    })
}

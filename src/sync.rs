//! `depot sync …`: where updates come from, which are wanted, and bringing what is new.

mod criteria;
mod run;
mod schedule;
mod source;

use crate::{exit::Failure, output::Out, transport::Client};
use clap::Subcommand;

/// Commands on the sync of updates.
#[derive(Debug, Subcommand)]
pub enum SyncCommand {
    /// The upstreams that updates come from: add, list, show, change, remove
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot sync source add alma --rpm https://mirror.example/almalinux/9/BaseOS/x86_64/os/ --keyring alma.asc
  depot sync source list"
    )]
    Source(source::SourceCommand),
    /// Which updates are wanted at all: show, set
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot sync criteria set --classification security,critical --language en
  depot sync criteria show"
    )]
    Criteria(criteria::CriteriaCommand),
    /// When sources are synchronised by themselves: show, set
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot sync schedule set \"every day 03:00 Europe/Berlin\"
  depot sync schedule show"
    )]
    Schedule(schedule::ScheduleCommand),
    /// Synchronise now: one source, or all that are enabled
    Run(run::RunArgs),
    /// How the sources stand, and when they are synchronised next
    Status(run::StatusArgs),
    /// What earlier syncs came to, the last one first
    History(run::HistoryArgs),
    /// End the sync of a source; the catalogue stays as it was
    Cancel(run::CancelArgs),
}

/// Runs a command on the sync of updates.
pub async fn run(command: SyncCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        SyncCommand::Source(command) => source::run(command, client, out).await,
        SyncCommand::Criteria(command) => criteria::run(command, client, out).await,
        SyncCommand::Schedule(command) => schedule::run(command, client, out).await,
        SyncCommand::Run(args) => run::run(args, client, out).await,
        SyncCommand::Status(_) => run::status(client, out).await,
        SyncCommand::History(args) => run::history(&args, client, out).await,
        SyncCommand::Cancel(args) => run::cancel(&args, client, out).await,
    }
}

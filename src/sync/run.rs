//! `depot sync run`, `status`, `history` and `cancel`: bringing what is new, and what came of it.

use super::source::outcome_name;
use crate::{
    exit::Failure,
    job::{self, Ended},
    output::{Out, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::sync::{RunSync, RunView, RunsView, SyncSourceView, TriggerView};
use clap::Args;
use http::Method;
use jiff::Timestamp;

/// Synchronise now: one source, or all that are enabled
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync run                              # all sources; goes on at the server
  depot sync run debian-security --watch      # waits for its end
  depot sync run debian-security --full       # all of it, as if it were the first time

If a sync of the source is under way, this joins it. --full also takes an upstream that is not the one
that it was, as after a mirror was set up anew. With --data it always waits.")]
pub struct RunArgs {
    /// The source; all that are enabled, if none is named
    source: Option<String>,
    /// Wait for its end, and show how far it is
    #[arg(long, short)]
    watch: bool,
    /// Ask for everything, as if it were the first sync
    #[arg(long)]
    full: bool,
}

/// How the sources stand, and when they are synchronised next
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync status
  depot sync status --json | jq -r '.[] | select(.failures > 0) | .name'")]
pub struct StatusArgs {}

/// What earlier syncs came to, the last one first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync history
  depot sync history debian-security --limit 5 --json")]
pub struct HistoryArgs {
    /// The source; all of them, if none is named
    source: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
}

/// End the sync of a source; the catalogue stays as it was
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync cancel debian-security")]
pub struct CancelArgs {
    /// The source
    source: String,
}

/// Begins a sync, and waits for it if that is asked for.
pub async fn run(args: RunArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = match &args.source {
        Some(source) => path(&["sync", "sources", source, "run"]),
        None => path(&["sync", "run"]),
    };
    let request = Request::new(Method::POST, &address).json(&RunSync { full: args.full })?;
    // In this process it would end with the command.
    let waits = args.watch || matches!(client, Client::InProcess(_));
    match job::start::<RunsView>(client, request, out, !waits).await? {
        Ended::Detached => Ok(()),
        Ended::Done { result, .. } => {
            out.show(&result.runs, |w| w.write_all(runs_table(&result.runs).as_bytes()))
        }
    }
}

/// Shows how the sources stand.
pub async fn status(client: &Client, out: Out) -> Result<(), Failure> {
    let sources: Vec<SyncSourceView> = client.list("/sync/sources", &[], usize::MAX).await?;
    let now = Timestamp::now();
    let rows = sources.iter().map(|source| {
        let ago = |at| format!("{} ago", units::since(at, now));
        let why = source.last.as_ref().and_then(|last| {
            Some(format!("{}: {}", last.cause.as_deref()?, last.detail.as_deref()?))
        });
        [
            source.name.clone(),
            state(source),
            source.succeeded.map_or_else(|| "never".to_owned(), ago),
            source.next.as_ref().map(|next| units::when(next.at)).unwrap_or_default(),
            why.unwrap_or_default(),
        ]
    });
    let columns = ["source", "state", "succeeded", "next", "why it failed"];
    out.show(&sources, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// How a source stands, in a word or two.
pub fn state(source: &SyncSourceView) -> String {
    if let Some(running) = &source.running {
        return match &running.stage {
            None => "waits for its turn".to_owned(),
            Some(stage) => {
                let (entries, bytes) = (units::count(running.entries), units::bytes(running.bytes));
                format!("{stage}: {bytes}, {entries} entries")
            }
        };
    }
    if !source.enabled {
        return "disabled".to_owned();
    }
    if source.waits {
        return "needs you".to_owned();
    }
    match &source.last {
        None => "new".to_owned(),
        Some(last) => outcome_name(last.outcome).to_owned(),
    }
}

/// Shows earlier syncs.
pub async fn history(args: &HistoryArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let query = [("source", args.source.as_deref())];
    let runs: Vec<RunView> = client.list("/sync/history", &query, args.limit).await?;
    out.show(&runs, |w| w.write_all(runs_table(&runs).as_bytes()))
}

/// Ends a sync.
pub async fn cancel(args: &CancelArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["sync", "sources", &args.source, "cancel"]);
    let run: RunView = client.ask(Request::new(Method::POST, &address)).await?;
    out.show(&run, |w| writeln!(w, "the sync of {} is {}", run.source, outcome_name(run.outcome)))
}

fn runs_table(runs: &[RunView]) -> String {
    let rows = runs.iter().map(|run| {
        let changes = |of: fn(&api::routes::sync::ChangesView) -> u64| {
            run.changes.as_ref().map(of).map(units::count).unwrap_or_default()
        };
        let took = std::time::Duration::try_from(run.ended.duration_since(run.begun));
        [
            run.source.clone(),
            run.number.to_string(),
            units::when(run.begun),
            units::duration(took.unwrap_or_default()),
            run.by.clone().unwrap_or_else(|| trigger_name(run.trigger).to_owned()),
            outcome_name(run.outcome).to_owned(),
            changes(|changes| changes.added),
            changes(|changes| changes.revised),
            changes(|changes| changes.gone),
            units::count(run.skipped),
            units::bytes(run.bytes),
            run.detail.clone().unwrap_or_default(),
        ]
    });
    let columns = [
        "source",
        ">run",
        "begun",
        "took",
        "by",
        "outcome",
        ">new",
        ">revised",
        ">gone",
        ">passed over",
        ">bytes",
        "why",
    ];
    table(columns, rows.collect())
}

fn trigger_name(trigger: TriggerView) -> &'static str {
    match trigger {
        TriggerView::Hand => "hand",
        TriggerView::Schedule => "(schedule)",
        TriggerView::Retry => "(retry)",
        TriggerView::Resumed => "(resumed)",
        TriggerView::Parent => "(parent)",
    }
}

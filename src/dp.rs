//! `depot dp …`: distribution points, as the site's administrator sees them, and being one.

mod drain;
mod group;
pub mod join_token;
mod limit;
pub mod order;
pub mod serve;
mod source;
mod window;

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::points::{AssignmentView, PointView};
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;

/// Commands on distribution points.
#[derive(Debug, Subcommand)]
pub enum DpCommand {
    /// Tokens that machines join with: create, list, revoke
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot dp join-token create --name branch-7
  depot dp join-token list"
    )]
    JoinToken(join_token::JoinTokenCommand),
    /// List the distribution points
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot dp list
  depot dp list --json | jq -r '.[] | select(.online | not) | .name'"
    )]
    List,
    /// Show one distribution point
    #[command(after_help = "\
Examples:
  depot dp show branch-7
  depot dp show branch-7 --json | jq -r '.distributed[].package'")]
    Show {
        /// Its name or id
        point: String,
    },
    /// Show or set how fast a distribution point brings what it lacks
    Limit(limit::LimitArgs),
    /// Show or set when a distribution point brings what it lacks
    Window(window::WindowArgs),
    /// Drain a distribution point: it gets nothing new and no clients, and keeps what it should hold
    Drain(drain::DrainArgs),
    /// Resume a distribution point that was drained
    Resume(drain::ResumeArgs),
    /// Have a distribution point check what it holds, now, and mend what is not right
    Validate(order::ValidateArgs),
    /// List what distribution points were told to do, and what came of it
    Orders(order::OrdersArgs),
    /// Cancel what a distribution point was told to do
    Cancel(order::CancelArgs),
    /// Remove a distribution point: from now on it is refused
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Groups of distribution points: create, add, remove, list, show, delete
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot dp group create paris
  depot dp group add paris branch-7"
    )]
    Group(group::GroupCommand),
    /// Which others a distribution point brings content from: set, clear
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot dp source set paris-7 --from paris-hub
  depot dp source clear paris-7"
    )]
    Source(source::SourceCommand),
    /// Be a distribution point: serve content from this machine for a site
    Serve(serve::DpServeArgs),
}

/// Remove a distribution point
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp remove branch-7
  depot dp remove branch-7 --yes

It is refused at once and gets nothing any more. What its machine holds stays there; to use the
machine again, let it join with a new token.")]
pub struct RemoveArgs {
    /// Its name or id
    point: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs a command on distribution points.
pub async fn run(command: DpCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        DpCommand::JoinToken(command) => join_token::run(command, client, out).await,
        DpCommand::List => list(client, out).await,
        DpCommand::Show { point } => show(&point, client, out).await,
        DpCommand::Limit(args) => limit::run(args, client, out).await,
        DpCommand::Window(args) => window::run(args, client, out).await,
        DpCommand::Drain(args) => drain::drain(args, client, out).await,
        DpCommand::Resume(args) => drain::resume(args, client, out).await,
        DpCommand::Validate(args) => order::validate(args, client, out).await,
        DpCommand::Orders(args) => order::list(args, client, out).await,
        DpCommand::Cancel(args) => order::cancel(args, client, out).await,
        DpCommand::Remove(args) => remove(args, client, out).await,
        DpCommand::Group(command) => group::run(command, client, out).await,
        DpCommand::Source(command) => source::run(command, client, out).await,
        DpCommand::Serve(_) => unreachable!("needs no site to ask"),
    }
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let points: Vec<PointView> = client.list("/points", &[], usize::MAX).await?;
    let now = jiff::Timestamp::now();
    let rows = points.iter().map(|point| {
        [
            point.name.clone(),
            state_of(point, now),
            point.address.clone().unwrap_or_default(),
            point.groups.join(" "),
            point.n_held.map(units::count).unwrap_or_default(),
            point.n_missing.map(units::count).unwrap_or_default(),
            point.bytes_left.map(units::bytes).unwrap_or_default(),
            point.free_bytes.map(units::bytes).unwrap_or_default(),
        ]
    });
    let columns = ["name", "state", "address", "groups", ">held", ">missing", ">left", ">free"];
    out.show(&points, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// `online`, or since when it is not; and whether it is drained.
fn state_of(point: &PointView, now: jiff::Timestamp) -> String {
    let state = match point.seen {
        _ if point.online => "online".to_owned(),
        Some(seen) => format!("silent for {}", units::since(seen, now)),
        None => "never seen".to_owned(),
    };
    if point.drained.is_some() { format!("{state}, drained") } else { state }
}

async fn show(which: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let point: PointView = client.get(&path(&["points", which])).await?;
    let of = [("point", Some(point.id.as_str()))];
    let its: Vec<AssignmentView> = client.list("/assignments", &of, usize::MAX).await?;
    if out.json {
        return out.json_line(&WithAssignments { of: &point, distributed: &its });
    }
    let of = |n: Option<u64>| n.map(units::count).unwrap_or_default();
    let mut rows = vec![
        ("distribution point", point.name.clone()),
        ("id", point.id.clone()),
        ("state", state_of(&point, jiff::Timestamp::now())),
        ("address", point.address.clone().unwrap_or_default()),
        ("groups", point.groups.join(" ")),
        ("brings from", source::shown(&point)),
        ("joined", format!("{}, invited by {}", units::when(point.joined), point.invited_by)),
        ("program", point.program.clone().unwrap_or_default()),
        ("reported", point.reported.map(units::when).unwrap_or_default()),
        ("limit", limit::shown(&point).unwrap_or_else(|| "none".to_owned())),
        (
            "window",
            window::shown(&point, jiff::Timestamp::now()).unwrap_or_else(|| "always".to_owned()),
        ),
        (
            "drained",
            drain::shown(&point, jiff::Timestamp::now()).unwrap_or_else(|| "no".to_owned()),
        ),
        ("held", of(point.n_held)),
        ("missing", of(point.n_missing)),
        ("failed", of(point.n_failed)),
        ("left", point.bytes_left.map(units::bytes).unwrap_or_default()),
        ("free", point.free_bytes.map(units::bytes).unwrap_or_default()),
    ];
    rows.extend(its.iter().map(|assignment| ("distributed", assigned(assignment))));
    out.show(&point, |w| w.write_all(facts(&rows).as_bytes()))
}

/// A point or group with what is distributed to it, as JSON.
#[derive(Serialize)]
struct WithAssignments<'a, T> {
    #[serde(flatten)]
    of: &'a T,
    distributed: &'a [AssignmentView],
}

/// `docs@stable, priority high, by group paris`.
fn assigned(assignment: &AssignmentView) -> String {
    let AssignmentView { package, version, priority, group, .. } = assignment;
    let mut by = group.as_ref().map(|group| format!(", by group {group}")).unwrap_or_default();
    if let Some(demand) = &assignment.on_demand {
        let until = units::when(demand.expires);
        by = format!(", on demand of {}, until {until} unless asked for", demand.group);
    }
    format!("{package}@{version}, priority {}{by}", crate::distribute::priority_name(*priority))
}

async fn remove(args: RemoveArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let point: PointView = client.get(&path(&["points", &args.point])).await?;
    let what = format!("this removes distribution point {}; it must join again", point.name);
    confirm(&what, args.yes)?;
    // By its id: the name may be another's by now.
    let address = path(&["points", &point.id]);
    let removed: PointView = client.ask(Request::new(Method::DELETE, &address)).await?;
    out.show(&removed, |w| writeln!(w, "distribution point {} is removed", removed.name))
}

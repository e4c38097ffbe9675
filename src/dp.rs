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
use api::routes::places::BoundaryGroupView;
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
    let uses = Uses::of(&point, client).await?;
    let told = match uses.told() {
        Some(told) => format!(" ({told})"),
        None => String::new(),
    };
    let what = format!("this removes distribution point {}{told}; it must join again", point.name);
    confirm(&what, args.yes)?;
    // By its id: the name may be another's by now.
    let address = path(&["points", &point.id]);
    let removed: PointView = client.ask(Request::new(Method::DELETE, &address)).await?;
    out.show(&Removed { point: &removed, uses: &uses }, |w| {
        writeln!(w, "distribution point {} is removed", removed.name)?;
        match uses.told() {
            Some(told) => writeln!(w, "until now: {told}"),
            None => Ok(()),
        }
    })
}

/// What a point was, and who used it.
#[derive(Serialize)]
struct Removed<'a> {
    #[serde(flatten)]
    point: &'a PointView,
    #[serde(flatten)]
    uses: &'a Uses,
}

/// Who counts on a point, and has to do without it when it is removed.
#[derive(Serialize)]
struct Uses {
    /// The points that bring from it.
    brought_from_by: Vec<String>,
    /// The boundary groups whose clients turn to it.
    boundary_groups: Vec<String>,
}

impl Uses {
    async fn of(point: &PointView, client: &Client) -> Result<Self, Failure> {
        let points: Vec<PointView> = client.list("/points", &[], usize::MAX).await?;
        let groups: Vec<BoundaryGroupView> =
            client.list("/boundary-groups", &[], usize::MAX).await?;
        let brings = |it: &PointView| it.sources.iter().flatten().any(|name| *name == point.name);
        let turns = |it: &BoundaryGroupView| it.points.contains(&point.name);
        Ok(Self {
            brought_from_by: points.into_iter().filter(brings).map(|it| it.name).collect(),
            boundary_groups: groups.into_iter().filter(turns).map(|it| it.name).collect(),
        })
    }

    /// The same for people; nothing if nobody does.
    fn told(&self) -> Option<String> {
        let named = |names: &[String]| {
            let shown = names.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>();
            let more = match names.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!names.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
        };
        let verb = if self.brought_from_by.len() == 1 { "brings" } else { "bring" };
        let points = named(&self.brought_from_by).map(|names| format!("{names} {verb} from it"));
        let groups = named(&self.boundary_groups)
            .map(|names| format!("clients of boundary group {names} turn to it"));
        let all: Vec<String> = points.into_iter().chain(groups).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// So many names are said of those who use a point.
const MOST_NAMED: usize = 8;

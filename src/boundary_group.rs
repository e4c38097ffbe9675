//! `depot boundary-group …`: which distribution points are near to which clients, and whom these turn
//! to next.

use crate::{
    exit::Failure,
    members,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::places::{
    BoundaryGroupView, BoundaryView, DeletedBoundaryGroup, FallbackView, NeighbourView,
    NewBoundaryGroup, OnDemandView, RulesView,
};
use api::routes::points::PriorityView;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::Serialize;
use std::time::Duration;

/// For how many days what came on demand is kept, if nobody says.
const DAYS: u16 = 30;

/// Commands on boundary groups.
#[derive(Debug, Subcommand)]
pub enum BoundaryGroupCommand {
    /// Make a boundary group
    #[command(after_help = "\
Examples:
  depot boundary-group create paris --point branch-7 --point branch-8
  depot boundary-group create lyon --on-demand")]
    Create {
        /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
        group: String,
        /// A distribution point, by name or id, that its clients turn to at once; may be given several
        /// times
        #[arg(long, value_name = "NAME")]
        point: Vec<String>,
        /// What its clients ask for and none of its points holds is brought to one of them
        #[arg(long)]
        on_demand: bool,
    },
    /// Put distribution points into a boundary group: its clients turn to them at once
    #[command(after_help = "\
Examples:
  depot boundary-group add paris branch-7 branch-8")]
    Add {
        /// The group
        group: String,
        /// Names or ids of distribution points
        #[arg(required = true)]
        points: Vec<String>,
    },
    /// Take distribution points out of a boundary group
    #[command(after_help = "\
Examples:
  depot boundary-group remove paris branch-7")]
    Remove {
        /// The group
        group: String,
        /// Names or ids of distribution points
        #[arg(required = true)]
        points: Vec<String>,
    },
    /// Other groups that its clients may turn to: set, unset
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot boundary-group neighbour set paris lyon --after 20m
  depot boundary-group neighbour unset paris lyon"
    )]
    Neighbour(NeighbourCommand),
    /// Say which group's points all clients may turn to
    #[command(after_help = "\
Examples:
  depot boundary-group default head-office              # at once, where no near point serves them
  depot boundary-group default head-office --after 2h
  depot boundary-group default --none

Clients that no boundary has turn to it at once.")]
    Default {
        /// The group
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        group: Option<String>,
        /// There is no such group
        #[arg(long)]
        none: bool,
        /// When clients of other groups may turn to it [default: at once]
        #[arg(long, value_name = "TIME", value_parser = units::parse_duration, conflicts_with = "none")]
        after: Option<Duration>,
    },
    /// Say when clients may turn to the site itself
    #[command(after_help = "\
Examples:
  depot boundary-group site --after 4h
  depot boundary-group site --never

It comes after all distribution points. Clients that no boundary has may turn to it at once.")]
    Site(When),
    /// Say whether what clients of a group ask for is brought to one of its points
    #[command(after_help = "\
Examples:
  depot boundary-group on-demand paris --priority medium --days 90
  depot boundary-group on-demand paris --off

When no point of the group holds a version that a client asks for, one of them is told to. Meanwhile
clients turn to neighbours, the default group and the site. It is let go of when no client asked for it
for so many days.")]
    OnDemand(OnDemandArgs),
    /// List boundary groups
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot boundary-group list"
    )]
    List,
    /// Show one boundary group with its boundaries
    #[command(after_help = "\
Examples:
  depot boundary-group show paris")]
    Show {
        /// The group
        group: String,
    },
    /// Delete a boundary group, and the boundaries that are in no other; its points stay
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot boundary-group delete paris --yes"
    )]
    Delete {
        /// The group
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Commands on neighbours.
#[derive(Debug, Subcommand)]
pub enum NeighbourCommand {
    /// Say when clients of a group may turn to another group's points
    #[command(after_help = "\
Examples:
  depot boundary-group neighbour set paris lyon --after 20m
  depot boundary-group neighbour set paris rome --never     # also where rome is the default group

This is for clients of the first group alone, and neighbours of neighbours do not count.")]
    Set {
        /// The group whose clients it is about
        group: String,
        /// The group that they turn to
        neighbour: String,
        #[command(flatten)]
        when: When,
    },
    /// Let a group be no neighbour any more
    #[command(after_help = "\
Examples:
  depot boundary-group neighbour unset paris lyon")]
    Unset {
        /// The group
        group: String,
        /// Its neighbour
        neighbour: String,
    },
}

/// When clients turn somewhere.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct When {
    /// So long after they began to look for a source, for example 20m; 0s for at once
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    after: Option<Duration>,
    /// Not at all
    #[arg(long)]
    never: bool,
}

/// What is done about what no near point holds.
#[derive(Debug, Args)]
pub struct OnDemandArgs {
    /// The group
    group: String,
    /// Nothing
    #[arg(long, conflicts_with_all = ["priority", "days"])]
    off: bool,
    /// It is brought, so soon
    #[arg(long, value_enum, default_value = "low")]
    priority: Priority,
    /// It is kept for so many days after a client asked for it last
    #[arg(long, value_name = "N", default_value_t = DAYS)]
    days: u16,
}

/// How soon what is brought on demand comes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Priority {
    /// When nothing else waits
    Low,
    /// As usual
    Medium,
}

/// Runs a command on boundary groups.
pub async fn run(command: BoundaryGroupCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        BoundaryGroupCommand::Create { group, point, on_demand } => {
            let usual = OnDemandView { priority: PriorityView::Low, days: DAYS };
            let on_demand = on_demand.then_some(usual);
            let new = NewBoundaryGroup { name: group, points: point, on_demand };
            let made: BoundaryGroupView = client.post("/boundary-groups", &new).await?;
            out.show(&made, |w| writeln!(w, "boundary group {} is made", made.name))
        }
        BoundaryGroupCommand::Add { group, points } => {
            members::change::<BoundaryGroupView>(Method::PUT, &group, &points, client, out).await
        }
        BoundaryGroupCommand::Remove { group, points } => {
            members::change::<BoundaryGroupView>(Method::DELETE, &group, &points, client, out).await
        }
        BoundaryGroupCommand::Neighbour(command) => neighbour(command, client, out).await,
        BoundaryGroupCommand::Default { group, after, .. } => {
            let rules: RulesView = client.get("/locating-rules").await?;
            let default_after = after.unwrap_or_default().as_secs();
            set_rules(RulesView { default: group, default_after, ..rules }, client, out).await
        }
        BoundaryGroupCommand::Site(when) => {
            let rules: RulesView = client.get("/locating-rules").await?;
            set_rules(RulesView { site_after: when.seconds(), ..rules }, client, out).await
        }
        BoundaryGroupCommand::OnDemand(args) => on_demand(args, client, out).await,
        BoundaryGroupCommand::List => list(client, out).await,
        BoundaryGroupCommand::Show { group } => show(&group, client, out).await,
        BoundaryGroupCommand::Delete { group, yes } => {
            let what = format!(
                "this deletes boundary group {group}, and the boundaries that are in no other"
            );
            confirm(&what, yes)?;
            let address = path(&["boundary-groups", &group]);
            let gone: DeletedBoundaryGroup =
                client.ask(Request::new(Method::DELETE, &address)).await?;
            out.show(&gone, |w| {
                let n = units::counted(gone.boundaries.len() as u64, "boundary", "boundaries");
                writeln!(w, "boundary group {} is deleted, with {n}", gone.name)
            })
        }
    }
}

impl When {
    /// The seconds; nothing for never.
    fn seconds(&self) -> Option<u64> {
        self.after.map(|after| after.as_secs())
    }
}

/// `after 20 min`, `at once`, `never`.
pub fn in_words(after: Option<u64>) -> String {
    match after {
        None => "never".to_owned(),
        Some(0) => "at once".to_owned(),
        Some(seconds) => format!("after {}", units::duration(Duration::from_secs(seconds))),
    }
}

/// `turn to lyon after 20 min`, `never turn to lyon`.
fn turn_to(where_to: &str, after: Option<u64>) -> String {
    match after {
        None => format!("never turn to {where_to}"),
        after => format!("turn to {where_to} {}", in_words(after)),
    }
}

async fn neighbour(command: NeighbourCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let address = |group: &str, other: &str| path(&["boundary-groups", group, "neighbours", other]);
    match command {
        NeighbourCommand::Set { group, neighbour, when } => {
            let after = when.seconds();
            let fallback = FallbackView { after };
            let changed: BoundaryGroupView =
                client.put(&address(&group, &neighbour), &fallback).await?;
            let turn = turn_to(&neighbour, after);
            out.show(&changed, |w| writeln!(w, "clients of {group} {turn}"))
        }
        NeighbourCommand::Unset { group, neighbour } => {
            let request = Request::new(Method::DELETE, &address(&group, &neighbour));
            let changed: BoundaryGroupView = client.ask(request).await?;
            out.show(&changed, |w| writeln!(w, "{neighbour} is no neighbour of {group} any more"))
        }
    }
}

async fn set_rules(rules: RulesView, client: &Client, out: Out) -> Result<(), Failure> {
    let rules: RulesView = client.put("/locating-rules", &rules).await?;
    out.show(&rules, |w| {
        match &rules.default {
            Some(name) => {
                let turn = turn_to(name, Some(rules.default_after));
                writeln!(w, "clients of other groups {turn}")?;
            }
            None => writeln!(w, "there is no default group")?,
        }
        writeln!(w, "clients of a group {}", turn_to("the site", rules.site_after))
    })
}

async fn on_demand(args: OnDemandArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["boundary-groups", &args.group, "on-demand"]);
    let changed: BoundaryGroupView = if args.off {
        client.ask(Request::new(Method::DELETE, &address)).await?
    } else {
        let priority = match args.priority {
            Priority::Low => PriorityView::Low,
            Priority::Medium => PriorityView::Medium,
        };
        client.put(&address, &OnDemandView { priority, days: args.days }).await?
    };
    out.show(&changed, |w| {
        writeln!(w, "{}: {}", changed.name, on_demand_in_words(changed.on_demand))
    })
}

fn on_demand_in_words(on_demand: Option<OnDemandView>) -> String {
    let Some(OnDemandView { priority, days }) = on_demand else {
        return "nothing is brought on demand".to_owned();
    };
    let priority = crate::distribute::priority_name(priority);
    let days = units::counted(days.into(), "day", "days");
    format!("brought on demand, priority {priority}, and kept for {days} after the last question")
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let groups: Vec<BoundaryGroupView> = client.list("/boundary-groups", &[], usize::MAX).await?;
    let rows = groups.iter().map(|group| {
        [
            group.name.clone(),
            group.points.join(" "),
            units::count(group.n_boundaries),
            group.neighbours.iter().map(near).collect::<Vec<_>>().join(", "),
            if group.on_demand.is_some() { "yes" } else { "" }.to_owned(),
            if group.is_default { "yes" } else { "" }.to_owned(),
        ]
    });
    let columns = ["name", "points", ">boundaries", "neighbours", "on demand", "default"];
    out.show(&groups, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// `lyon after 20 min`.
fn near(neighbour: &NeighbourView) -> String {
    format!("{} {}", neighbour.group, in_words(neighbour.after))
}

/// A boundary group with all that says whom its clients turn to, as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    group: &'a BoundaryGroupView,
    boundaries: Vec<String>,
    rules: &'a RulesView,
}

async fn show(group: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let group: BoundaryGroupView = client.get(&path(&["boundary-groups", group])).await?;
    let of = [("group", Some(group.name.as_str()))];
    let boundaries: Vec<BoundaryView> = client.list("/boundaries", &of, usize::MAX).await?;
    let rules: RulesView = client.get("/locating-rules").await?;
    if out.json {
        let boundaries = boundaries.into_iter().map(|boundary| boundary.range).collect();
        return out.json_line(&Shown { group: &group, boundaries, rules: &rules });
    }
    let mut rows = vec![
        ("boundary group", group.name.clone()),
        ("points", group.points.join(" ")),
        ("created", format!("{} by {}", units::when(group.created), group.created_by)),
        ("on demand", on_demand_in_words(group.on_demand)),
    ];
    rows.extend(boundaries.into_iter().map(|boundary| ("boundary", boundary.range)));
    rows.extend(group.neighbours.iter().map(|neighbour| ("neighbour", near(neighbour))));
    if let Some(default) = rules.default.filter(|name| *name != group.name) {
        rows.push(("default group", format!("{default} {}", in_words(Some(rules.default_after)))));
    }
    rows.push(("site", in_words(rules.site_after)));
    out.show(&group, |w| w.write_all(facts(&rows).as_bytes()))
}

//! `depot dp group …`: points that get the same.

use super::WithAssignments;
use crate::{
    exit::Failure,
    members,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::points::{AssignmentView, DeletedGroup, GroupView, NewGroup};
use clap::Subcommand;
use http::Method;

/// Commands on groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group
    #[command(after_help = "\
Examples:
  depot dp group create paris")]
    Create {
        /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
        group: String,
    },
    /// Put distribution points into a group: they get what it holds
    #[command(after_help = "\
Examples:
  depot dp group add paris branch-7 branch-8")]
    Add {
        /// The group
        group: String,
        /// Names or ids of distribution points
        #[arg(required = true)]
        points: Vec<String>,
    },
    /// Take distribution points out of a group: they let go of what only it gave them
    #[command(after_help = "\
Examples:
  depot dp group remove paris branch-7")]
    Remove {
        /// The group
        group: String,
        /// Names or ids of distribution points
        #[arg(required = true)]
        points: Vec<String>,
    },
    /// List groups
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot dp group list"
    )]
    List,
    /// Show one group, and what is distributed to it
    #[command(after_help = "\
Examples:
  depot dp group show paris")]
    Show {
        /// The group
        group: String,
    },
    /// Delete a group, and what is distributed to it; its distribution points stay
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot dp group delete paris --yes"
    )]
    Delete {
        /// The group
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs a command on groups.
pub async fn run(command: GroupCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        GroupCommand::Create { group } => {
            let made: GroupView = client.post("/point-groups", &NewGroup { name: group }).await?;
            out.show(&made, |w| writeln!(w, "group {} is made", made.name))
        }
        GroupCommand::Add { group, points } => {
            members::change::<GroupView>(Method::PUT, &group, &points, client, out).await
        }
        GroupCommand::Remove { group, points } => {
            members::change::<GroupView>(Method::DELETE, &group, &points, client, out).await
        }
        GroupCommand::List => {
            let groups: Vec<GroupView> = client.list("/point-groups", &[], usize::MAX).await?;
            let rows = groups.iter().map(|group| {
                [
                    group.name.clone(),
                    units::count(group.points.len() as u64),
                    units::when(group.created),
                    group.created_by.clone(),
                ]
            });
            let columns = ["name", ">points", "created", "by"];
            out.show(&groups, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        GroupCommand::Show { group } => show(&group, client, out).await,
        GroupCommand::Delete { group, yes } => {
            let what = format!(
                "this deletes group {group}: its distribution points let go of what only it gave \
                 them"
            );
            confirm(&what, yes)?;
            let address = path(&["point-groups", &group]);
            let gone: DeletedGroup = client.ask(Request::new(Method::DELETE, &address)).await?;
            out.show(&gone, |w| {
                let n = units::counted(gone.assignments, "assignment", "assignments");
                writeln!(w, "group {} is deleted, with {n}", gone.name)
            })
        }
    }
}

async fn show(group: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let group: GroupView = client.get(&path(&["point-groups", group])).await?;
    let of = [("group", Some(group.name.as_str()))];
    let its: Vec<AssignmentView> = client.list("/assignments", &of, usize::MAX).await?;
    if out.json {
        return out.json_line(&WithAssignments { of: &group, distributed: &its });
    }
    let mut rows = vec![
        ("group", group.name.clone()),
        ("points", group.points.join(" ")),
        ("created", format!("{} by {}", units::when(group.created), group.created_by)),
    ];
    rows.extend(its.iter().map(|assignment| {
        let AssignmentView { package, version, priority, .. } = assignment;
        let priority = crate::distribute::priority_name(*priority);
        ("distributed", format!("{package}@{version}, priority {priority}"))
    }));
    out.show(&group, |w| w.write_all(facts(&rows).as_bytes()))
}

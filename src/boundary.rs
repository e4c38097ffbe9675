//! `depot boundary …`: which addresses belong to which boundary groups.

use crate::{
    exit::Failure,
    locate,
    output::{Out, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::places::{BoundaryChange, BoundaryView, LocatedView, NewBoundary, SavedBoundary};
use clap::Subcommand;
use http::Method;

/// Commands on boundaries.
#[derive(Debug, Subcommand)]
pub enum BoundaryCommand {
    /// Make a boundary: clients at these addresses belong to these groups
    #[command(after_help = "\
Examples:
  depot boundary add 10.7.0.0/16 --group paris
  depot boundary add 2001:db8:7::/48 --group paris
  depot boundary add 10.7.3.1-10.7.3.99 --group paris --group guests

Of all boundaries that have a client's address the smallest counts, and all groups that it is in. What
a new one overlaps is told, and is no error: a small one inside a large one is how places are told
apart.")]
    Add {
        /// A prefix of IPv4 or IPv6, a range FROM-TO, or one address
        range: String,
        /// A boundary group that it is in; may be given several times
        #[arg(long, value_name = "NAME", required = true)]
        group: Vec<String>,
    },
    /// Put a boundary into other groups
    #[command(after_help = "\
Examples:
  depot boundary change 10.7.0.0/16 --group paris --group lyon")]
    Change {
        /// Its addresses
        range: String,
        /// A boundary group that it is in from now on, in place of all before; may be given several
        /// times
        #[arg(long, value_name = "NAME", required = true)]
        group: Vec<String>,
    },
    /// List boundaries
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot boundary list
  depot boundary list --group paris"
    )]
    List {
        /// Only those of this boundary group
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
    /// Remove a boundary: its clients belong to the next larger one that has them
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot boundary remove 10.7.0.0/16"
    )]
    Remove {
        /// Its addresses
        range: String,
    },
    /// Say which boundary an address is in, and whom its clients turn to
    #[command(after_help = "\
Examples:
  depot boundary test 10.7.3.4

Whom they turn to for a certain package: depot locate --address 10.7.3.4 PKG")]
    Test {
        /// The address of a client
        address: String,
    },
}

/// Runs a command on boundaries.
pub async fn run(command: BoundaryCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        BoundaryCommand::Add { range, group } => {
            let new = NewBoundary { range, groups: group };
            let saved: SavedBoundary = client.post("/boundaries", &new).await?;
            show_saved(&saved, out)
        }
        BoundaryCommand::Change { range, group } => {
            let change = BoundaryChange { groups: group };
            let request = Request::new(Method::PATCH, &path(&["boundaries", &range]));
            let saved: SavedBoundary = client.ask(request.json(&change)?).await?;
            show_saved(&saved, out)
        }
        BoundaryCommand::List { group } => {
            let query = [("group", group.as_deref())];
            let all: Vec<BoundaryView> = client.list("/boundaries", &query, usize::MAX).await?;
            let rows = all.iter().map(|boundary| {
                [
                    boundary.range.clone(),
                    boundary.groups.join(" "),
                    units::when(boundary.created),
                    boundary.created_by.clone(),
                ]
            });
            let columns = ["boundary", "groups", "created", "by"];
            out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        BoundaryCommand::Remove { range } => {
            let address = path(&["boundaries", &range]);
            let gone: SavedBoundary = client.ask(Request::new(Method::DELETE, &address)).await?;
            out.show(&gone, |w| writeln!(w, "boundary {} is removed", gone.boundary.range))
        }
        BoundaryCommand::Test { address } => {
            let located: LocatedView = locate::ask(client, &address, None, None, true).await?;
            out.show(&located, |w| locate::write_place(w, &located, true))
        }
    }
}

fn show_saved(saved: &SavedBoundary, out: Out) -> Result<(), Failure> {
    for other in &saved.overlaps {
        let how = match other.how.as_str() {
            "inside" => "it is inside",
            "contains" => "it contains",
            _ => "it crosses",
        };
        let groups = other.groups.join(", ");
        let counts = match other.how.as_str() {
            "inside" => "and counts in its place",
            "contains" => "which counts for its own addresses",
            _ => "and the smaller counts for what both have",
        };
        out.note(format!("note: {how} boundary {} of {groups}, {counts}", other.range));
    }
    let untold = saved.n_overlaps.saturating_sub(saved.overlaps.len() as u64);
    if untold > 0 {
        let n = units::counted(untold, "other boundary", "other boundaries");
        out.note(format!("note: it overlaps {n}"));
    }
    out.show(saved, |w| {
        let BoundaryView { range, groups, .. } = &saved.boundary;
        writeln!(w, "clients in {range} belong to {}", groups.join(", "))
    })
}

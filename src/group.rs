//! `depot group …`: updates that are deployed together.

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::deployments::{
    GroupChange, GroupUpdateView, NewUpdateGroup, RegroupedView, UpdateGroupView,
};
use clap::{Args, Subcommand};
use http::Method;
use std::io::{BufRead, BufReader, Read};

/// The longest list of updates that is read from stdin, in bytes.
const MAX_LIST: u64 = 4 << 20;

/// Commands on update groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make an update group
    Create(CreateArgs),
    /// Put updates into a group; if it is deployed, they are deployed
    Add(AddArgs),
    /// Take updates out of a group
    #[command(after_help = "\
Examples:
  depot group remove november DSA-5545-1

If the group is deployed, they are not deployed by it any more; where they are installed, they stay.")]
    Remove {
        /// The group
        group: String,
        /// Updates, by id, name or article; `-` reads them from stdin, one a line
        #[arg(required = true, value_name = "UPDATE")]
        updates: Vec<String>,
    },
    /// List update groups
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot group list
  depot group list --json | jq -r '.[] | select(.deployments == []) | .name'"
    )]
    List,
    /// Show a group and its updates
    #[command(after_help = "\
Examples:
  depot group show november
  depot group show november --limit 5000 --json | jq -r '.updates_in_it[].name'")]
    Show {
        /// The group
        group: String,
        /// At most this many updates
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Delete a group; its updates stay in the catalogue
    #[command(after_help = "\
Examples:
  depot group delete november --yes

One that is deployed cannot be deleted before its deployments are.")]
    Delete {
        /// The group
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// A group to be made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot group create november DSA-5545-1 DSA-5546-1
  depot group create november --filter 'classification in (security, critical) and required > 50'
  depot update list --search openssl --json | jq -r '.[].id' | depot group create openssl -

The filter is asked once: what comes into the catalogue later is added by `depot group add`. Its language is
that of `depot update list --help`.")]
pub struct CreateArgs {
    /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
    group: String,
    /// Updates, by id, name or article; `-` reads them from stdin, one a line
    #[arg(value_name = "UPDATE")]
    updates: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Those that this condition means now
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Of machines on which an update is required, the filter counts only those of this collection
    #[arg(long, value_name = "COLLECTION", requires = "filter")]
    collection: Option<String>,
}

/// What comes into a group.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot group add november DSA-5547-1
  depot group add november --filter 'product = debian-12 and released >= 7d ago'

All or none: one that is not known keeps all from being added.")]
pub struct AddArgs {
    /// The group
    group: String,
    /// Updates, by id, name or article; `-` reads them from stdin, one a line
    #[arg(value_name = "UPDATE", required_unless_present = "filter")]
    updates: Vec<String>,
    /// Those that this condition means now
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Of machines on which an update is required, the filter counts only those of this collection
    #[arg(long, value_name = "COLLECTION", requires = "filter")]
    collection: Option<String>,
}

/// Runs a command on update groups.
pub async fn run(command: GroupCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        GroupCommand::Create(args) => {
            let new = NewUpdateGroup {
                name: args.group,
                comment: args.comment,
                updates: named(args.updates)?,
                filter: args.filter,
                collection: args.collection,
            };
            let made: RegroupedView = client.post("/update-groups", &new).await?;
            made.hints.iter().for_each(|hint| out.note(hint));
            out.show(&made, |w| {
                let updates = units::counted(made.group.updates, "update", "updates");
                writeln!(w, "update group {} is made: {updates}", made.group.name)
            })
        }
        GroupCommand::Add(args) => {
            let change = GroupChange {
                add: named(args.updates)?,
                filter: args.filter,
                collection: args.collection,
                ..GroupChange::default()
            };
            regroup(&args.group, &change, client, out).await
        }
        GroupCommand::Remove { group, updates } => {
            let change = GroupChange { remove: named(updates)?, ..GroupChange::default() };
            regroup(&group, &change, client, out).await
        }
        GroupCommand::List => {
            let all: Vec<UpdateGroupView> = client.list("/update-groups", &[], usize::MAX).await?;
            let rows = all.iter().map(|it| {
                [
                    it.name.clone(),
                    units::count(it.updates),
                    units::when(it.created),
                    it.deployments.join(", "),
                    it.comment.clone(),
                ]
            });
            let columns = ["name", ">updates", "made", "deployed by", "comment"];
            out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        GroupCommand::Show { group, limit } => show(&group, limit, client, out).await,
        GroupCommand::Delete { group, yes } => {
            confirm(&format!("this deletes update group {group}"), yes)?;
            let at = path(&["update-groups", &group]);
            let gone: UpdateGroupView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&gone, |w| writeln!(w, "update group {} is deleted", gone.name))
        }
    }
}

/// Updates as they are named on the command line; `-` stands for those on stdin.
pub fn named(updates: Vec<String>) -> Result<Vec<String>, Failure> {
    if updates != ["-"] {
        return Ok(updates);
    }
    let input = BufReader::new(std::io::stdin().take(MAX_LIST));
    let mut all = Vec::new();
    for line in input.lines() {
        let line = line.map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
        all.extend(Some(line.trim().to_owned()).filter(|line| !line.is_empty()));
    }
    Ok(all)
}

/// A mark in words; the arrow is for who looks for it.
fn marked(mark: &str) -> String {
    match mark {
        "content-missing" => "↓ content missing".to_owned(),
        "invalid" => "✗ invalid".to_owned(),
        mark => mark.to_owned(),
    }
}

async fn regroup(
    group: &str,
    change: &GroupChange,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let at = path(&["update-groups", group, "updates"]);
    let now: RegroupedView = client.post(&at, change).await?;
    now.hints.iter().for_each(|hint| out.note(hint));
    out.show(&now, |w| {
        let (added, removed) = (units::count(now.added), units::count(now.removed));
        let updates = units::counted(now.group.updates, "update", "updates");
        writeln!(
            w,
            "update group {}: {added} added, {removed} removed; {updates}",
            now.group.name
        )?;
        if !now.group.deployments.is_empty() {
            writeln!(w, "it is deployed by {}", now.group.deployments.join(", "))?;
        }
        Ok(())
    })
}

async fn show(group: &str, limit: usize, client: &Client, out: Out) -> Result<(), Failure> {
    let found: UpdateGroupView = client.get(&path(&["update-groups", group])).await?;
    let at = path(&["update-groups", group, "updates"]);
    let updates: Vec<GroupUpdateView> = client.list(&at, &[], limit).await?;
    if out.json {
        let mut json = serde_json::to_value(&found)?;
        json["updates_in_it"] = serde_json::to_value(&updates)?;
        return out.json_line(&json);
    }
    let mut rows = vec![
        ("update group", found.name.clone()),
        ("updates", units::count(found.updates)),
        ("made", units::when(found.created)),
        ("deployed by", found.deployments.join(", ")),
        ("comment", found.comment.clone()),
    ];
    let marks = found.marks.iter().flatten();
    let marks = marks.map(|(mark, n)| format!("{} {}", units::count(*n), marked(mark)));
    rows.push(("marks", marks.collect::<Vec<_>>().join(", ")));
    rows.retain(|(_, value)| !value.is_empty());
    let listed = updates.iter().map(|GroupUpdateView { update, marks, .. }| {
        [
            update.name.clone(),
            marks.iter().map(|mark| marked(mark)).collect::<Vec<_>>().join(", "),
            update.title.clone(),
            update.classification.clone().unwrap_or_default(),
            update.severity.clone().unwrap_or_default(),
            update.state.clone(),
            units::count(update.required),
            units::bytes(update.bytes),
        ]
    });
    let columns = ["name", "marks", "title", "class", "severity", "state", ">required", ">size"];
    let listed = table(columns, listed.collect());
    out.show(&found, |w| {
        w.write_all(facts(&rows).as_bytes())?;
        writeln!(w)?;
        w.write_all(listed.as_bytes())
    })?;
    if (updates.len() as u64) < found.updates {
        let (shown, all) = (units::count(updates.len() as u64), units::count(found.updates));
        out.note(format!("{shown} of {all}; more with --limit"));
    }
    Ok(())
}
